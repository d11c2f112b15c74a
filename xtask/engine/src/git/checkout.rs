//! How the files of a checkout differ from what the commit holds, in ways that `git status` does not show.

use super::shell;
use crate::cx::{Cx, Input};
use crate::error::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use xshell::cmd;

/// Mode of a submodule in the index.
const SUBMODULE: &str = "160000";
/// Mode of a symbolic link in the index.
const LINK: &str = "120000";
/// Mode of an executable file in the index.
const EXECUTABLE: &str = "100755";

/// An entry of the index, below the workspace root: git-ls-files(1), `--stage`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    mode: String,
    blob: String,
    path: String,
}

/// Reads what `git ls-files --stage -z` prints: `MODE BLOB STAGE<tab>PATH`.
fn entries(staged: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let (facts, path) = line.split_once('\t')?;
        let mut facts = facts.split(' ').map(str::to_owned);
        Some(Entry { mode: facts.next()?, blob: facts.next()?, path: path.to_owned() })
    };
    staged.split('\0').filter_map(entry).collect()
}

/// Reads what `git ls-files -v -z` prints: a letter and a path. Files that git is told not to look at have a small
/// letter (`assume-unchanged`) or an `S` (`skip-worktree`). Gives the option of `git update-index` that ends it, by path.
fn unwatched(listed: &str) -> BTreeMap<&str, &'static str> {
    let option = |tag: &str| match tag {
        "S" => Some("--no-skip-worktree"),
        _ => tag.bytes().all(|b| b.is_ascii_lowercase()).then_some("--no-assume-unchanged"),
    };
    let entries = listed.split('\0').filter_map(|line| line.split_once(' '));
    entries.filter_map(|(tag, path)| Some((path, option(tag)?))).collect()
}

/// Files that were changed although git is told to take them for unchanged. One that is not there is none of them where
/// the checkout is sparse. Each with the option of `git update-index` that makes git look at it again.
pub fn hidden_changes(cx: &Cx) -> Result<Vec<(String, &'static str)>> {
    let sh = shell(&cx.root)?;
    let listed = cx.read(cmd!(sh, "git ls-files -v -z").into())?;
    let unwatched = unwatched(&listed);
    if unwatched.is_empty() {
        return Ok(vec![]);
    }
    let staged = entries(&cx.read(cmd!(sh, "git ls-files --stage -z").into())?);
    let mut changed = Vec::new();
    for entry in staged {
        let Some(option) = unwatched.get(entry.path.as_str()) else { continue };
        let file = cx.root.join(&entry.path);
        let Ok(meta) = fs::symlink_metadata(&file) else { continue };
        let same = if meta.is_symlink() || entry.mode == LINK || entry.path.contains('\n') {
            let blob = &entry.blob;
            let link = fs::read_link(&file).unwrap_or_default();
            entry.mode == LINK && cx.read(cmd!(sh, "git cat-file blob {blob}").into())? == link.to_string_lossy()
        } else {
            let executable = meta.permissions().mode() & 0o100 != 0;
            let paths = format!("{}\n", entry.path);
            let hashed = cx.answer(cmd!(sh, "git hash-object --stdin-paths").into(), Input::Bytes(paths.as_bytes()))?;
            hashed.stdout.trim() == entry.blob && executable == (entry.mode == EXECUTABLE)
        };
        if !same {
            changed.push((entry.path, *option));
        }
    }
    Ok(changed)
}

/// Files that are not as the commit has them, or that it does not have and git does not ignore.
pub fn changes(cx: &Cx) -> Result<Vec<String>> {
    let sh = shell(&cx.root)?;
    let listed =
        cx.read(cmd!(sh, "git status --porcelain=v1 -z --untracked-files=normal --ignore-submodules=none").into())?;
    // `XY PATH`; after a rename the old path follows, which no letters come before: git-status(1).
    let paths = listed.split('\0').filter(|entry| entry.get(2..3) == Some(" ")).map(|entry| entry[3..].to_owned());
    let hidden = hidden_changes(cx)?.into_iter().map(|(path, _)| path);
    Ok(paths.chain(hidden).collect())
}

/// Submodules below the workspace root that are not checked out.
pub fn missing_submodules(cx: &Cx) -> Result<Vec<String>> {
    let sh = shell(&cx.root)?;
    let staged = entries(&cx.read(cmd!(sh, "git ls-files --stage -z").into())?);
    let submodules = staged.into_iter().filter(|entry| entry.mode == SUBMODULE).map(|entry| entry.path);
    Ok(submodules.filter(|path| !cx.root.join(path).join(".git").exists()).collect())
}

/// Which of these files, relative to the workspace root, are in no commit because git is told to ignore them.
pub fn ignored(cx: &Cx, files: &[String]) -> Result<Vec<String>> {
    let sh = shell(&cx.root)?;
    let tracked = cx.read(cmd!(sh, "git ls-files --recurse-submodules -z").into())?;
    let tracked: BTreeSet<&str> = tracked.split('\0').collect();
    let others: Vec<&str> = files.iter().map(String::as_str).filter(|file| !tracked.contains(file)).collect();
    if others.is_empty() {
        return Ok(vec![]);
    }
    let asked = others.join("\0");
    // It exits with 1 where it ignores none of them.
    let answer = cx.answer(cmd!(sh, "git check-ignore --stdin -z").into(), Input::Bytes(asked.as_bytes()))?;
    Ok(answer.stdout.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

/// Which of these files, relative to the workspace root, have other line ends than the commit, because the configuration of
/// this git wants them. Attributes of the repository are the same everywhere, so they are no difference.
pub fn other_line_ends(cx: &Cx, files: &[String]) -> Result<Vec<String>> {
    let sh = shell(&cx.root)?;
    let wanted = cx.answer(cmd!(sh, "git config --get core.autocrlf").into(), Input::Empty)?;
    if wanted.stdout.trim() != "true" {
        return Ok(vec![]);
    }
    let listed = cx.read(cmd!(sh, "git ls-files --eol -z").into())?;
    let changed: BTreeSet<&str> = listed.split('\0').filter_map(changed_line_ends).collect();
    Ok(files.iter().filter(|file| changed.contains(file.as_str())).cloned().collect())
}

/// Reads an entry of `git ls-files --eol`, `i/lf w/crlf attr/<tab>PATH`: the path, when the ends differ without an attribute.
fn changed_line_ends(entry: &str) -> Option<&str> {
    let (facts, path) = entry.split_once('\t')?;
    let mut facts = facts.split_whitespace();
    let (index, tree, attributes) = (facts.next()?, facts.next()?, facts.collect::<Vec<_>>().concat());
    (index == "i/lf" && tree == "w/crlf" && !attributes.contains("eol=")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_git_does_not_look_at_have_letters_of_their_own() {
        let listed = "H a\0h b c\0S d\0s e\0C f\0";
        let (assumed, skipped) = ("--no-assume-unchanged", "--no-skip-worktree");
        let found: Vec<_> = unwatched(listed).into_iter().collect();
        assert_eq!(found, [("b c", assumed), ("d", skipped), ("e", assumed)]);
        assert!(unwatched("").is_empty());
    }

    #[test]
    fn line_ends_that_differ_from_the_commit_are_read() {
        for (entry, path) in [
            ("i/lf    w/crlf  attr/                 \ta b.css", Some("a b.css")),
            ("i/lf    w/lf    attr/                 \ta.css", None),
            ("i/crlf  w/crlf  attr/                 \ta.css", None),
            ("i/lf    w/crlf  attr/text eol=crlf    \ta.bat", None),
            ("i/-text w/-text attr/                 \ta.png", None),
            ("", None),
        ] {
            assert_eq!(changed_line_ends(entry), path, "{entry}");
        }
    }

    #[test]
    fn index_is_read() {
        let staged = concat!("100644 aa 0\ta b\0", "160000 bb 0\tsub\0");
        let found = entries(staged);
        assert_eq!((found.len(), found[0].path.as_str(), found[1].mode.as_str()), (2, "a b", SUBMODULE));
    }
}
