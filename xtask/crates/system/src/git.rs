//! What git knows of the checkout. All of git is asked here.

pub mod checkout;

use crate::context::{Context, Input, Output};
use crate::git::checkout::Checkout;
use gangplank_model::error::{CliError, Result, failed, usage, verification};
use gangplank_model::plan::Ancestry;
use gangplank_model::release::manifest::Commit;
use std::path::Path;
use xshell::{Shell, cmd};

/// A shell in `dir` for [`cmd!`]; the commands are run by `Context`, which records output and time.
pub fn shell(dir: &Path) -> Result<Shell> {
    let sh = Shell::new()?;
    sh.change_dir(dir);
    Ok(sh)
}

/// Facts of the checked-out commit. Fails if git, a repository or a commit is missing.
pub fn commit(ctx: &Context) -> Result<Commit> {
    let sh = shell(&ctx.root)?;
    let root = ctx.root.display();
    let status = cmd!(
        sh,
        "git -c status.aheadBehind=false status --porcelain=v2 --branch --untracked-files=normal --ignore-submodules=none"
    );
    let answer = ctx.answer(status.into(), Input::Empty)?;
    if !answer.ok() {
        return Err(no_status(ctx, &sh, &answer.stderr));
    }
    let Some(Head { sha, branch, mut dirty }) = head(&answer.stdout) else {
        return usage(format!("{root} has no commit yet"))
            .hint("create one: `git add --all && git commit --message 'first'`")
            .err();
    };
    if let Some(want) = ctx.var("CIRCLE_SHA1").filter(|want| *want != sha) {
        return verification(format!("{root} has commit {sha} checked out, but CIRCLE_SHA1 is {want}"))
            .hint("check out only CIRCLE_SHA1 in the job")
            .err();
    }
    for (path, option) in Checkout::open(ctx)?.hidden()?.changed {
        dirty = true;
        ctx.warn(format!("{path} was changed, and git does not check it: run `git update-index {option} FILE`"));
    }
    let seconds = ctx.read(cmd!(sh, "git show --no-patch --no-show-signature --format=%ct {sha}").into())?;
    let time = jiff::Timestamp::from_second(seconds.trim().parse()?)?;
    let branch = ctx.var("CIRCLE_BRANCH").map(str::to_owned).or(branch);
    Ok(Commit { sha, time, branch, tag: tag(ctx, &sh)?, dirty })
}

/// The checked-out commit.
#[derive(Debug, PartialEq)]
struct Head {
    sha: String,
    branch: Option<String>,
    dirty: bool,
}

/// Parses the output of `git status --porcelain=v2 --branch` (git-status(1)); `None` before the first commit.
fn head(status: &str) -> Option<Head> {
    let header = |name: &str| status.lines().find_map(|line| line.strip_prefix("# branch.")?.strip_prefix(name));
    let sha = header("oid ").filter(|sha| sha.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let branch = header("head ").filter(|branch| *branch != "(detached)");
    let dirty = status.lines().any(|line| !line.starts_with('#'));
    Some(Head { sha: sha.to_owned(), branch: branch.map(str::to_owned), dirty })
}

fn no_status(ctx: &Context, sh: &Shell, stderr: &str) -> anyhow::Error {
    let (root, stderr) = (ctx.root.display(), stderr.trim());
    let inside = ctx.answer(cmd!(sh, "git rev-parse --git-dir").into(), Input::Empty);
    let failure: CliError = match inside {
        Ok(answer) if answer.ok() => failed(format!("cannot read the git status of {root}: {stderr}"))
            .hint("fix the repository so that `git status` works"),
        Ok(answer) if answer.stderr.contains("dubious ownership") => {
            usage(format!("git refuses {root}: {}", answer.stderr.trim()))
                .hint(format!("run `git config --global --add safe.directory {root}` if you trust it"))
        }
        _ => usage(format!("{root} is not a git checkout: {stderr}"))
            .hint("run `git init`, commit, and try again: a release is named after its commit"),
    };
    failure.into()
}

/// Whether the checkout lacks ancestors of its commit.
pub fn is_shallow(ctx: &Context) -> bool {
    let asked = shell(&ctx.root).and_then(|sh| ctx.read(cmd!(sh, "git rev-parse --is-shallow-repository").into()));
    asked.is_ok_and(|said| said.trim() == "true")
}

/// URL of the remote `origin`.
pub fn remote(ctx: &Context) -> Option<String> {
    let sh = shell(&ctx.root).ok()?;
    let answer = ctx.answer(cmd!(sh, "git remote get-url origin").into(), Input::Empty).ok()?;
    answer.ok().then(|| answer.stdout.trim().to_owned())
}

/// The number of ancestors of the checked-out commit, including itself; 0 if unknown.
pub fn count(ctx: &Context) -> usize {
    let asked = shell(&ctx.root).and_then(|sh| ctx.read(cmd!(sh, "git rev-list --count HEAD").into()));
    asked.ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// The SHA of the checked-out commit, if known.
pub fn head_sha(ctx: &Context) -> Option<String> {
    let asked = shell(&ctx.root).and_then(|sh| ctx.read(cmd!(sh, "git rev-parse HEAD").into()));
    asked.ok().map(|sha| sha.trim().to_owned())
}

/// The full SHA of a commit in this checkout.
pub fn expand(ctx: &Context, sha: &str) -> Option<String> {
    let sh = shell(&ctx.root).ok()?;
    let commit = format!("{sha}^{{commit}}");
    let answer = ctx.answer(cmd!(sh, "git rev-parse --verify --quiet {commit}").into(), Input::Empty).ok()?;
    answer.ok().then(|| answer.stdout.trim().to_owned()).filter(|whole| whole.starts_with(sha))
}

fn tag(ctx: &Context, sh: &Shell) -> Result<Option<String>> {
    if let Some(tag) = ctx.var("CIRCLE_TAG") {
        return Ok(Some(tag.to_owned()));
    }
    let answer = ctx.answer(cmd!(sh, "git tag --points-at HEAD").into(), Input::Empty)?;
    Ok(answer.stdout.lines().next().map(str::to_owned))
}

/// The ancestry of two commits. `Unknown` if either is missing in this checkout, or if the checkout is shallow and a
/// "no" would be unreliable.
pub fn ancestry(ctx: &Context, candidate: &str, live: &str) -> Ancestry {
    let holds = |older: &str, newer: &str| {
        let sh = shell(&ctx.root).ok()?;
        let answer = ctx.answer(cmd!(sh, "git merge-base --is-ancestor {older} {newer}").into(), Input::Empty).ok()?;
        (answer.code == Some(0)).then_some(())
    };
    if holds(candidate, live).is_some() {
        Ancestry::CandidateFirst
    } else if holds(live, candidate).is_some() {
        Ancestry::LiveFirst
    } else {
        Ancestry::Unknown
    }
}

/// One line per commit of `newer` that is not in `older`, newest first.
pub fn log(ctx: &Context, older: &str, newer: &str) -> Option<Vec<String>> {
    let sh = shell(&ctx.root).ok()?;
    let range = format!("{older}..{newer}");
    let answer = ctx.answer(cmd!(sh, "git log --no-decorate --format='%h %s' {range} --").into(), Input::Empty).ok()?;
    answer.ok().then(|| answer.stdout.lines().map(str::to_owned).collect())
}

/// The subjects of commits, of those that the checkout has: each with the full SHA.
pub fn subjects(ctx: &Context, shas: &[&str]) -> Vec<(String, String)> {
    let listed = || {
        let sh = shell(&ctx.root).ok()?;
        let log = cmd!(sh, "git log --no-walk=unsorted --ignore-missing '--format=%H %s' {shas...} --");
        ctx.answer(log.into(), Input::Empty).ok().filter(Output::ok)
    };
    let answer = if shas.is_empty() { None } else { listed() };
    let lines = answer.iter().flat_map(|answer| answer.stdout.lines());
    lines.filter_map(|line| line.split_once(' ')).map(|(sha, text)| (sha.to_owned(), text.to_owned())).collect()
}

/// The hunks between a file, which may be missing, and a text.
pub fn diff(ctx: &Context, file: &Path, text: &str) -> Option<String> {
    let sh = shell(&ctx.root).ok()?;
    let file = if file.exists() { file } else { Path::new("/dev/null") };
    let command = cmd!(sh, "git diff --no-index --no-color --no-ext-diff --no-textconv --text -- {file} -");
    let answer = ctx.answer(command.into(), Input::Bytes(text.as_bytes())).ok()?;
    // The header names the files in git's own way.
    answer.stdout.find("\n@@").map(|at| answer.stdout[at + 1..].to_owned())
}

/// Creates a clean checkout of `sha` in `into`, which must not exist.
pub fn checkout(ctx: &Context, sha: &str, branch: &str, into: &Path) -> Result<()> {
    let (sh, from) = (shell(&ctx.root)?, &ctx.root);
    ctx.read(cmd!(sh, "git clone --quiet --local --no-checkout {from} {into}").into())?;
    let sh = shell(into)?;
    ctx.read(cmd!(sh, "git checkout --quiet -B {branch} {sha}").into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_of_status_gives_commit_branch_and_changes() {
        let sha = "59d0a4a01dc3bd9ee1a12d4f9e1f2a3b4c5d6e7f";
        for (status, branch, dirty) in [
            (format!("# branch.oid {sha}\n# branch.head main\n"), Some("main"), false),
            (format!("# branch.oid {sha}\n# branch.head (detached)\n"), None, false),
            (
                format!("# branch.oid {sha}\n# branch.head a/b\n# branch.upstream o/b\n# branch.ab +1 -0\n"),
                Some("a/b"),
                false,
            ),
            (format!("# branch.oid {sha}\n# branch.head main\n? # branch.head x\n"), Some("main"), true),
            (
                format!("# branch.oid {sha}\n# branch.head main\n1 .M N... 100644 100644 100644 a b app/a\n"),
                Some("main"),
                true,
            ),
        ] {
            let head = head(&status).unwrap();
            assert_eq!((head.sha.as_str(), head.branch.as_deref(), head.dirty), (sha, branch, dirty), "{status}");
        }
        for status in ["", "# branch.oid (initial)\n# branch.head main\n"] {
            assert_eq!(head(status), None, "{status}");
        }
    }
}
