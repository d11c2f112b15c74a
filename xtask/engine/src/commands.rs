//! From a parsed command to the verb that does it, and to its answer.

use crate::cli::{Ci, Cli, Command, Expect, Lock as LockCommand};
use crate::cx::Cx;
use crate::deploy::apply::Outcome;
use crate::deploy::resolve::Catalog;
use crate::deploy::state::Lock;
use crate::deploy::{self, Options, report};
use crate::error::{Explain, Failure, Kind, Result, failed, usage};
use crate::machine::Life;
use crate::project::{Env, Project};
use crate::release::id::{ReleaseId, Selector};
use crate::store::Put;
use crate::{build, checks, ci, store, target};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::Path;

/// What a command found out, for whoever prints it. As JSON it is the answer itself, without the name of the variant.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// `build`
    Built(build::Built),
    /// `verify`
    Verified(report::Verified),
    /// `put`
    Put(Vec<PutDone>),
    /// `fetch`
    Fetched(report::Verified),
    /// `plan`, `deploy`, `promote`, `rollback`, `prune`
    Outcome(Outcome),
    /// `status`
    Status(Vec<report::HostStatus>),
    /// `history`
    History(Vec<report::HostHistory>),
    /// `releases`
    Releases(Vec<report::Listed>),
    /// `diff`
    Diff(report::Diff),
    /// `lock`
    Lock(Vec<LockState>),
    /// `ci generate`
    Generated(Vec<ci::generate::Generated>),
    /// `ci lint`
    Findings(Vec<ci::lint::Finding>),
    /// `ci run`
    CiRun(ci::run::CiRun),
    /// `test`
    Tested(checks::Tested),
}

/// What `put` did with one store.
#[derive(Debug, Serialize)]
pub struct PutDone {
    /// The store.
    pub store: String,
    /// The release.
    pub release: ReleaseId,
    /// Whether the store had it already.
    pub already_there: bool,
}

/// The lock of one target.
#[derive(Debug, Serialize)]
pub struct LockState {
    /// The target.
    pub target: String,
    /// Who has it, in words; absent when it is free.
    pub held_by: Option<String>,
    /// Whether it was removed just now.
    pub released: bool,
}

/// Does what was typed.
pub fn run(cx: &Cx, project: &Project, cli: &Cli) -> Result<Answer> {
    let global = &cli.global;
    if global.dry_run && !cli.command.can_plan() {
        return usage("this command has no --dry-run")
            .hint("plan, deploy, promote, rollback, prune and ci generate can only say what they would do")
            .err();
    }
    if cli.command.changes_hosts() {
        cx.catch_interrupts()?;
    }
    match &cli.command {
        Command::Build => build::build(cx, &project.app).map(Answer::Built),
        Command::Verify { release } => report::verify(cx, project, release).map(Answer::Verified),
        Command::Put { release, store } => put(cx, project, release.as_ref(), store.as_deref()).map(Answer::Put),
        Command::Fetch { release, into } => fetch(cx, project, release.as_ref(), into).map(Answer::Fetched),
        Command::Plan { env, release, deploy } => {
            let options = Options { dry_run: true, allow_older: deploy.allow_older, ..Options::default() };
            deploy::deploy(cx, project, env, release.as_ref(), &options).map(Answer::Outcome)
        }
        Command::Deploy { env, release, older, expect, change } => {
            confirm(cx, project.env(env)?, cli, "deploy to")?;
            deploy::deploy(cx, project, env, release.as_ref(), &change.options(global, Some(*older), expect))
                .map(Answer::Outcome)
        }
        Command::Promote { from, to, older, expect, change } => {
            confirm(cx, project.env(to)?, cli, "promote to")?;
            deploy::promote(cx, project, from, to, &change.options(global, Some(*older), expect)).map(Answer::Outcome)
        }
        Command::Rollback { env, release, expect, change } => {
            confirm(cx, project.env(env)?, cli, "roll back")?;
            deploy::rollback(cx, project, env, release.as_ref(), &change.options(global, None, expect))
                .map(Answer::Outcome)
        }
        Command::Status { env } => report::status(cx, project, env.as_deref()).map(Answer::Status),
        Command::History { env, limit, all } => report::history(cx, project, env, *limit, *all).map(Answer::History),
        Command::Releases => report::releases(cx, project).map(Answer::Releases),
        Command::Diff { env, release } => report::diff(cx, project, env, release.as_ref()).map(Answer::Diff),
        Command::Prune { env, keep, change } => {
            let options = change.options(global, None, &Expect::default());
            deploy::prune(cx, project, env, keep.map(usize::from), &options).map(Answer::Outcome)
        }
        Command::Lock(lock_command) => lock(cx, project, lock_command).map(Answer::Lock),
        Command::Ci(ci_command) => self::ci(cx, project, cli, ci_command),
        Command::Test { quick, args } => checks::test(cx, project, *quick, args).map(Answer::Tested),
    }
}

/// An env with approval asks on a terminal. In CircleCI the approval job has asked already.
fn confirm(cx: &Cx, env: &Env, cli: &Cli, what: &str) -> Result<()> {
    if !env.approval || cli.global.yes || cli.global.dry_run || cx.in_ci() {
        return Ok(());
    }
    match ask(cx, &format!("{what} {}?", env.name))? {
        Some(true) => Ok(()),
        Some(false) => {
            failed("not confirmed, nothing was changed").hint("`cargo xtask plan ENV` shows what would be done").err()
        }
        None => usage(format!("{} needs approval, and there is no terminal to ask on", env.name))
            .hint("say --yes if that is what you want")
            .err(),
    }
}

/// Asks on the terminal; `None` when there is none.
fn ask(cx: &Cx, question: &str) -> Result<Option<bool>> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(None);
    }
    crate::report::term::prompt(&format!("{question} [y/N] "));
    let mut line = String::new();
    cx.asking(true);
    let read = std::io::stdin().read_line(&mut line);
    cx.asking(false);
    read?;
    Ok(Some(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")))
}

fn put(cx: &Cx, project: &Project, release: Option<&Selector>, only: Option<&str>) -> Result<Vec<PutDone>> {
    let id = Catalog::built(cx, project).resolve(release)?;
    let progress = cx.progress("verifying");
    let release = crate::release::Release::open(&cx.root.join(build::RELEASES).join(id.as_str()), &progress)?;
    let urls: Vec<&str> = match only {
        Some(url) => vec![url],
        None => project.stores.iter().copied().filter(|url| cx.in_ci() || !store::only_in_ci(url)).collect(),
    };
    if urls.is_empty() {
        return usage("no store of this project is of use outside CircleCI")
            .hint("name one: `cargo xtask put --store file:DIR`")
            .err();
    }
    let mut done = Vec::new();
    for url in urls {
        let put = store::open(cx, url)?.put(&release)?;
        if store::only_in_ci(url) {
            persist_program(cx)?;
        }
        done.push(PutDone { store: url.to_owned(), release: id.clone(), already_there: put == Put::AlreadyThere });
    }
    Ok(done)
}

/// Puts this program beside the releases in the workspace, so that deploy jobs need neither Rust nor a compile.
fn persist_program(cx: &Cx) -> Result<()> {
    let to = store::workspace(cx).join(ci::pipeline::PERSISTED);
    let from = Cx::program()?;
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    let copied =
        std::fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))).and_then(|()| std::fs::copy(&from, &to));
    copied.explain(Kind::Failed, what, || "check free space and permissions: `df -h /tmp`".into()).map(drop)
}

fn fetch(cx: &Cx, project: &Project, release: Option<&Selector>, into: &Path) -> Result<report::Verified> {
    let catalog = Catalog::open(cx, project)?;
    let id = catalog.resolve(release)?;
    let release = catalog.fetch(&id, &cx.root.join(into))?;
    Ok(report::Verified::new(release.manifest(), release.dir()))
}

fn lock(cx: &Cx, project: &Project, command: &LockCommand) -> Result<Vec<LockState>> {
    let (env, release, force) = match command {
        LockCommand::Status { env } => (env, false, false),
        LockCommand::Release { env, force } => (env, true, *force),
    };
    let mut states = Vec::new();
    for target in target::open_all(cx, project.env(env)?)? {
        let url = target.url();
        let lock = target.state()?.lock;
        let dead = matches!(&lock, Lock::Held(owner) if owner.life() == Life::Dead);
        let held_by = deploy::lock::holder(&lock);
        let mut released = false;
        if release && lock != Lock::Free {
            if !dead && !force {
                let who = held_by.unwrap_or_default();
                return Failure::new(
                    Kind::Locked,
                    format!("{url} is locked by {who}, and nothing says that it is gone"),
                )
                .hint(format!("make sure that it no longer runs, then: `cargo xtask lock release {env} --force`"))
                .err();
            }
            target.unlock(match &lock {
                Lock::Held(owner) => Some(&owner.token),
                _ => None,
            })?;
            released = true;
        }
        states.push(LockState { target: url.to_owned(), held_by, released });
    }
    Ok(states)
}

fn ci(cx: &Cx, project: &Project, cli: &Cli, command: &Ci) -> Result<Answer> {
    match command {
        Ci::Generate { check, pattern } => {
            let pattern = pattern.unwrap_or(project.ci.pattern);
            ci::generate::generate(cx, project, pattern, *check || cli.global.dry_run).map(Answer::Generated)
        }
        Ci::Lint { file } => ci::lint::lint_file(&cx.root.join(file)).map(Answer::Findings),
        Ci::Run { job, no_approve, branch } => {
            let approve = |name: &str| match (cli.global.yes, *no_approve) {
                (true, _) => Ok(true),
                (_, true) => Ok(false),
                _ => match ask(cx, &format!("{name}?"))? {
                    Some(yes) => Ok(yes),
                    None => {
                        cx.warn(format!("{name} is on hold: there is no terminal to ask on, say --yes to approve"));
                        Ok(false)
                    }
                },
            };
            let options = ci::run::Options { job: job.as_deref(), branch: branch.as_deref(), approve: &approve };
            let pipeline = ci::patterns::pipeline(project, project.ci.pattern)?;
            ci::run::run(cx, project, &pipeline, &options).map(Answer::CiRun)
        }
    }
}
