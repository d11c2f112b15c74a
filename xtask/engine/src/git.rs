//! Facts about the checkout. All git commands are run here.

pub mod checkout;

use self::checkout::Checkout;
use crate::context::{Context, Input};
use crate::deploy::plan::Ancestry;
use crate::error::{CliError, Result, failed, usage, verification};
use crate::release::manifest::Commit;
use std::path::Path;
use xshell::{Shell, cmd};

/// A shell in `dir` for [`cmd!`]; the commands are run by `Context`, which records output and time.
fn shell(dir: &Path) -> Result<Shell> {
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

/// The branch; `None` on a detached HEAD outside a CircleCI job.
#[cfg(feature = "new")]
pub fn branch(ctx: &Context) -> Result<Option<String>> {
    if let Some(branch) = ctx.var("CIRCLE_BRANCH") {
        return Ok(Some(branch.to_owned()));
    }
    let sh = shell(&ctx.root)?;
    let answer = ctx.answer(cmd!(sh, "git symbolic-ref --quiet --short HEAD").into(), Input::Empty)?;
    Ok(Some(answer.stdout.trim().to_owned()).filter(|branch| answer.ok() && !branch.is_empty()))
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

#[cfg(feature = "new")]
/// Fails if a commit could not be created: without git, or without a configured user.
pub fn can_commit(ctx: &Context) -> Result<()> {
    let sh = shell(&ctx.root)?;
    if ctx.answer(cmd!(sh, "git var GIT_COMMITTER_IDENT").into(), Input::Empty)?.ok() {
        return Ok(());
    }
    usage("git has no user name, so it cannot create the first commit")
        .hint("run `git config --global user.name NAME` and `git config --global user.email ADDRESS`")
        .err()
}

#[cfg(feature = "new")]
/// Creates a repository in `dir` with everything in one commit, and returns its SHA. Ignores settings of a surrounding
/// git hook and of commit signing.
pub fn first_commit(ctx: &Context, dir: &Path, message: &str) -> Result<String> {
    let sh = shell(dir)?;
    ctx.read(alone(cmd!(sh, "git init --quiet --initial-branch main")))?;
    ctx.read(alone(cmd!(sh, "git add --all --force")))?;
    ctx.read(alone(cmd!(sh, "git -c commit.gpgsign=false commit --quiet --no-verify --message {message}")))?;
    ctx.read(alone(cmd!(sh, "git rev-parse HEAD")))
}

/// A git command that uses its directory only.
#[cfg(feature = "new")]
fn alone(command: xshell::Cmd) -> std::process::Command {
    let mut command = std::process::Command::from(command);
    // The output of `git rev-parse --local-env-vars`.
    for name in ["DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "COMMON_DIR", "PREFIX", "NAMESPACE", "CONFIG"] {
        command.env_remove(format!("GIT_{name}"));
    }
    command.env_remove("GIT_ALTERNATE_OBJECT_DIRECTORIES");
    command
}

/// A path that git ignores, and the rule.
#[cfg(feature = "new")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The path, as given.
    pub path: String,
    /// `FILE:LINE`.
    pub at: String,
    /// The rule.
    pub rule: String,
}

/// Which of some paths, which may be missing, git ignores. Tracked files are not among them.
#[cfg(feature = "new")]
pub fn ignored(ctx: &Context, paths: &[String]) -> Result<Vec<Ignored>> {
    let sh = shell(&ctx.root)?;
    let mut command = alone(cmd!(sh, "git check-ignore --verbose --stdin -z"));
    command.stdin(std::process::Stdio::piped());
    let answer = ctx.answer(command, Input::Bytes(paths.join("\0").as_bytes()))?;
    Ok(ignored_of(&answer.stdout))
}

/// Parses the output of `git check-ignore --verbose -z`: file, line, pattern and path of each match. A pattern with `!`
/// includes the path again.
#[cfg(feature = "new")]
fn ignored_of(matches: &str) -> Vec<Ignored> {
    let fields: Vec<&str> = matches.split('\0').collect();
    let matches = fields.chunks_exact(4).filter(|fields| !fields[2].starts_with('!'));
    let ignored =
        |it: &[&str]| Ignored { at: format!("{}:{}", it[0], it[1]), rule: it[2].to_owned(), path: it[3].to_owned() };
    matches.map(ignored).collect()
}

#[cfg(feature = "new")]
/// The changes in `path` since the commit that last touched `mark`.
pub fn diff_since(ctx: &Context, mark: &str, path: &str) -> Option<String> {
    let sh = shell(&ctx.root).ok()?;
    let since = ctx.read(alone(cmd!(sh, "git log --max-count=1 --format=%H -- {mark}"))).ok()?;
    let diff = ctx.read(alone(cmd!(sh, "git diff --no-color --no-ext-diff {since} -- {path}"))).ok();
    diff.filter(|diff| !diff.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "new")]
    #[test]
    fn matches_of_ignore_lines_are_read() {
        let matches = [".gitignore", "3", "*.lock", "Cargo.lock"].join("\0");
        let matches = [&matches, "xtask/.gitignore", "2", "!/Cargo.lock", "xtask/Cargo.lock", ""].join("\0");
        let lock = Ignored { path: "Cargo.lock".into(), at: ".gitignore:3".into(), rule: "*.lock".into() };
        assert_eq!(ignored_of(&matches), [lock]);
        assert!(ignored_of("").is_empty());
    }

    #[test]
    fn a_status_is_read() {
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
