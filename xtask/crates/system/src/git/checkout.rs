//! Detects differences between a checkout and its commit that `git status` does not show.

use crate::context::{Context, Input};
use crate::git::shell;
use gangplank_model::error::{Result, failed};
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use xshell::{Shell, cmd};

/// Mode of a submodule in the index.
const SUBMODULE: &str = "160000";
/// Mode of a symbolic link in the index.
const LINK: &str = "120000";
/// Mode of an executable file in the index.
const EXECUTABLE: &str = "100755";

/// The option that ends `skip-worktree`, which a sparse checkout sets.
const SPARSE: &str = "--no-skip-worktree";

/// An entry of the index: git-ls-files(1), `--stage -v`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    mode: String,
    blob: String,
    path: String,
    /// The option of `git update-index` that makes git check the file again, if it does not.
    unwatched: Option<&'static str>,
}

/// Parses the output of `git ls-files --stage -v -z`: `TAG MODE BLOB STAGE<tab>PATH`. The tag of an unchecked file is a
/// small letter (`assume-unchanged`) or an `S` (`skip-worktree`).
fn entries(listed: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let (facts, path) = line.split_once('\t')?;
        let mut facts = facts.split(' ');
        let unwatched = match facts.next()? {
            "S" => Some(SPARSE),
            tag => tag.bytes().all(|b| b.is_ascii_lowercase()).then_some("--no-assume-unchanged"),
        };
        Some(Entry { mode: facts.next()?.to_owned(), blob: facts.next()?.to_owned(), path: path.to_owned(), unwatched })
    };
    listed.split('\0').filter_map(entry).collect()
}

/// A repository of the checkout: its own, or a checked-out submodule.
struct Repository {
    sh: Shell,
    dir: PathBuf,
    /// Its path below the workspace root, with a trailing `/`; empty for the checkout itself.
    prefix: String,
    entries: Vec<Entry>,
}

impl Repository {
    fn open(ctx: &Context, prefix: String) -> Result<Self> {
        let dir = ctx.root.join(&prefix);
        let sh = shell(&dir)?;
        let entries = entries(&ctx.read(cmd!(sh, "git ls-files --stage -v -z").into())?);
        Ok(Self { sh, dir, prefix, entries })
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    fn submodules(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.mode == SUBMODULE)
    }

    fn is_checked_out(&self, submodule: &Entry) -> bool {
        self.dir.join(&submodule.path).join(".git").exists()
    }

    /// The files that this repository ignores, by their paths below the workspace root.
    fn ignored(&self, ctx: &Context, files: &[&str]) -> Result<Vec<String>> {
        let sh = &self.sh;
        let command = cmd!(sh, "git check-ignore --stdin -z");
        let answer = ctx.answer(command.into(), Input::Bytes(files.join("\0").as_bytes()))?;
        // Exit code 1 means that it ignores none of them.
        if !matches!(answer.code, Some(0 | 1)) {
            return failed(format!("cannot list the included files that git ignores: {}", answer.stderr.trim()))
                .hint("include files by their own path, not through a symbolic link")
                .err();
        }
        Ok(answer.stdout.split('\0').filter(|path| !path.is_empty()).map(|path| self.path(path)).collect())
    }

    /// Whether a file matches the index.
    fn is_unchanged(&self, ctx: &Context, entry: &Entry, meta: &Metadata) -> Result<bool> {
        let (sh, file) = (&self.sh, self.dir.join(&entry.path));
        if meta.is_symlink() || entry.mode == LINK || entry.path.contains('\n') {
            let blob = &entry.blob;
            let link = fs::read_link(file).unwrap_or_default();
            return Ok(
                entry.mode == LINK && ctx.read(cmd!(sh, "git cat-file blob {blob}").into())? == link.to_string_lossy()
            );
        }
        let executable = meta.permissions().mode() & 0o100 != 0;
        let paths = format!("{}\n", entry.path);
        let hashed = ctx.answer(cmd!(sh, "git hash-object --stdin-paths").into(), Input::Bytes(paths.as_bytes()))?;
        Ok(hashed.stdout.trim() == entry.blob && executable == (entry.mode == EXECUTABLE))
    }
}

/// The index of a checkout and of its submodules, as of the open.
pub struct Checkout<'a> {
    ctx: &'a Context,
    /// A submodule comes after the repository that contains it.
    repositories: Vec<Repository>,
}

/// Differences that a checkout hides from `git status`.
#[derive(Debug, Default)]
pub struct Hidden {
    /// Files that were changed or removed although git does not check them, each with the option of `git update-index`
    /// that makes git check it again.
    pub changed: Vec<(String, &'static str)>,
    /// Files of the commit that a sparse checkout omits.
    pub left_out: Vec<String>,
}

impl<'a> Checkout<'a> {
    /// Reads the index of the checkout, and of each checked-out submodule.
    pub fn open(ctx: &'a Context) -> Result<Self> {
        let mut repositories = vec![Repository::open(ctx, String::new())?];
        let mut next = 0;
        while let Some(repository) = repositories.get(next) {
            let checked_out = repository.submodules().filter(|it| repository.is_checked_out(it));
            let prefixes: Vec<_> = checked_out.map(|it| format!("{}/", repository.path(&it.path))).collect();
            for prefix in prefixes {
                repositories.push(Repository::open(ctx, prefix)?);
            }
            next += 1;
        }
        Ok(Self { ctx, repositories })
    }

    /// Checks the files that git does not check.
    pub fn hidden(&self) -> Result<Hidden> {
        let mut hidden = Hidden::default();
        for repository in &self.repositories {
            for entry in &repository.entries {
                let Some(option) = entry.unwatched else { continue };
                match fs::symlink_metadata(repository.dir.join(&entry.path)) {
                    Err(_) if option == SPARSE => hidden.left_out.push(repository.path(&entry.path)),
                    Ok(meta) if repository.is_unchanged(self.ctx, entry, &meta)? => {}
                    _ => hidden.changed.push((repository.path(&entry.path), option)),
                }
            }
        }
        Ok(hidden)
    }

    /// Files that differ from the commit, or are neither in it nor ignored.
    pub fn changes(&self) -> Result<Vec<String>> {
        let sh = shell(&self.ctx.root)?;
        let status = cmd!(sh, "git status --porcelain=v1 -z --untracked-files=normal --ignore-submodules=none");
        let listed = self.ctx.read(status.into())?;
        // `XY PATH`; after a rename the old path follows, without letters: git-status(1).
        let paths = listed.split('\0').filter(|entry| entry.get(2..3) == Some(" ")).map(|entry| entry[3..].to_owned());
        let hidden = self.hidden()?.changed.into_iter().map(|(path, _)| path);
        Ok(paths.chain(hidden).collect())
    }

    /// Submodules below the workspace root that are not checked out, also nested ones.
    pub fn missing_submodules(&self) -> Vec<String> {
        let missing = |it: &Repository| -> Vec<String> {
            it.submodules().filter(|entry| !it.is_checked_out(entry)).map(|entry| it.path(&entry.path)).collect()
        };
        self.repositories.iter().flat_map(missing).collect()
    }

    /// Which of these files, relative to the workspace root, are in no commit because git ignores them. Asks the
    /// repository of each file.
    pub fn ignored(&self, files: &[String]) -> Result<Vec<String>> {
        let paths = self.repositories.iter().flat_map(|it| it.entries.iter().map(|entry| it.path(&entry.path)));
        let tracked: BTreeSet<String> = paths.collect();
        let mut ignored = Vec::new();
        let mut rest: Vec<&String> = files.iter().filter(|file| !tracked.contains(*file)).collect();
        // The innermost repository first.
        for repository in self.repositories.iter().rev() {
            let (own, others): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|file| file.starts_with(&repository.prefix));
            rest = others;
            let own: Vec<_> = own.into_iter().map(|file| &file[repository.prefix.len()..]).collect();
            if !own.is_empty() {
                ignored.extend(repository.ignored(self.ctx, &own)?);
            }
        }
        Ok(ignored)
    }

    /// Which of these files, relative to the workspace root, have other line ends than the commit, because of this
    /// git's configuration. Attributes of the repository apply everywhere, so they do not count.
    pub fn other_line_ends(&self, files: &[String]) -> Result<Vec<String>> {
        let sh = shell(&self.ctx.root)?;
        let wanted = self.ctx.answer(cmd!(sh, "git config --get core.autocrlf").into(), Input::Empty)?;
        if wanted.stdout.trim() != "true" {
            return Ok(vec![]);
        }
        let listed = self.ctx.read(cmd!(sh, "git ls-files --eol -z").into())?;
        let changed: BTreeSet<&str> = listed.split('\0').filter_map(changed_line_ends).collect();
        Ok(files.iter().filter(|file| changed.contains(file.as_str())).cloned().collect())
    }
}

/// Parses an entry of `git ls-files --eol`, `i/lf w/crlf attr/<tab>PATH`: the path, if the line ends differ without an
/// attribute.
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
        let fact = "100644 aa 0\t";
        let listed = format!("H {fact}a\0h {fact}b c\0S {fact}d\0s {fact}e\0C {fact}f\0");
        let (assumed, skipped) = ("--no-assume-unchanged", "--no-skip-worktree");
        let found = entries(&listed).into_iter().filter_map(|it| Some((it.path, it.unwatched?)));
        let found: Vec<_> = found.collect();
        assert_eq!(found, [("b c".to_owned(), assumed), ("d".to_owned(), skipped), ("e".to_owned(), assumed)]);
        assert!(entries("").is_empty());
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
        let staged = concat!("H 100644 aa 0\ta b\0", "H 160000 bb 0\tsub\0");
        let found = entries(staged);
        assert_eq!((found.len(), found[0].path.as_str(), found[1].mode.as_str()), (2, "a b", SUBMODULE));
    }
}
