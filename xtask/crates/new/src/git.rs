//! What `new` asks git, beside what `gangplank_system::git` does.

use gangplank_model::error::{Result, usage};
use gangplank_system::context::{Context, Input};
use gangplank_system::git::shell;
use std::path::Path;
use xshell::cmd;

/// The branch; `None` on a detached HEAD outside a CircleCI job.
pub fn branch(ctx: &Context) -> Result<Option<String>> {
    if let Some(branch) = ctx.var("CIRCLE_BRANCH") {
        return Ok(Some(branch.to_owned()));
    }
    let sh = shell(&ctx.root)?;
    let answer = ctx.answer(cmd!(sh, "git symbolic-ref --quiet --short HEAD").into(), Input::Empty)?;
    Ok(Some(answer.stdout.trim().to_owned()).filter(|branch| answer.ok() && !branch.is_empty()))
}

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
pub fn ignored(ctx: &Context, paths: &[String]) -> Result<Vec<Ignored>> {
    let sh = shell(&ctx.root)?;
    let mut command = alone(cmd!(sh, "git check-ignore --verbose --stdin -z"));
    command.stdin(std::process::Stdio::piped());
    let answer = ctx.answer(command, Input::Bytes(paths.join("\0").as_bytes()))?;
    Ok(ignored_of(&answer.stdout))
}

/// Parses the output of `git check-ignore --verbose -z`: file, line, pattern and path of each match. A pattern with `!`
/// includes the path again.
fn ignored_of(matches: &str) -> Vec<Ignored> {
    let fields: Vec<&str> = matches.split('\0').collect();
    let matches = fields.chunks_exact(4).filter(|fields| !fields[2].starts_with('!'));
    let ignored =
        |it: &[&str]| Ignored { at: format!("{}:{}", it[0], it[1]), rule: it[2].to_owned(), path: it[3].to_owned() };
    matches.map(ignored).collect()
}

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

    #[test]
    fn matches_of_ignore_lines_are_read() {
        let matches = [".gitignore", "3", "*.lock", "Cargo.lock"].join("\0");
        let matches = [&matches, "xtask/.gitignore", "2", "!/Cargo.lock", "xtask/Cargo.lock", ""].join("\0");
        let lock = Ignored { path: "Cargo.lock".into(), at: ".gitignore:3".into(), rule: "*.lock".into() };
        assert_eq!(ignored_of(&matches), [lock]);
        assert!(ignored_of("").is_empty());
    }
}
