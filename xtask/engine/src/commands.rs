//! From a parsed command to the verb that does it, and to its answer.

use crate::approval::{approved, ask, confirm, confirm_loss};
use crate::cli::{
    Bench, Ci, Cli, Command, Control, Expect, Global, Lock as LockCommand, New, Prune, Setup, Test, Trigger,
};
use crate::cx::{Cx, var};
use crate::deploy::apply::Outcome;
use crate::deploy::control::{self, Controlled};
use crate::deploy::history::Verb;
use crate::deploy::life::Registry;
use crate::deploy::resolve::Catalog;
use crate::deploy::state::{Lock, Lockable};
use crate::deploy::{self, report};
use crate::error::{Failure, Kind, Result, hint_of, kind_of, usage};
use crate::event::Listener;
use crate::machine::Life;
use crate::project::{Compression, Pattern, Project};
use crate::store::{Published, Retention};
use crate::{bench, build, checks, ci, complete, doctor, handoff, host, setup};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What a command found out, for whoever prints it. As JSON it is the answer itself, without the name of the variant.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// `build`
    Built(build::Built),
    /// `verify`
    Verified(report::Verified),
    /// `put`
    Put(Vec<handoff::PutDone>),
    /// `publish`
    Published(Vec<Published>),
    /// `fetch`
    Fetched(report::Verified),
    /// `plan`, `deploy`, `promote`, `rollback`, `prune`
    Outcome(Outcome),
    /// `start`, `stop`, `restart`
    Controlled(Controlled),
    /// `prune --store`
    Pruned(handoff::Pruned),
    /// `status`
    Status(Vec<report::HostStatus>),
    /// `logs`, `exec`: nothing is left to say
    Heard,
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
    /// `ci trigger`
    Triggered(ci::trigger::Started),
    /// `ci approve`
    Approved(ci::approve::Approved),
    /// `doctor`
    Diagnosis(doctor::Diagnosis),
    /// `setup`
    Setup(Vec<setup::HostSetup>),
    /// `test`
    Tested(checks::Tested),
    /// `test --list`
    Grouped(Vec<checks::groups::Grouped>),
    /// `new`
    #[cfg(feature = "new")]
    Made(crate::new::Made),
    /// `bench fleet`
    Bench(bench::fleet::Report),
    /// The other benches
    Race(bench::race::Report),
    /// `completions`
    Script(complete::Script),
    /// `man`
    Man(Vec<Page>),
    /// A command of the project's own.
    Own(Own),
}

/// What a command of the project's own says.
#[derive(Debug, Serialize)]
pub struct Own {
    /// Its words.
    pub text: String,
}

/// A man page.
#[derive(Debug, Serialize)]
pub struct Page {
    /// Its file.
    pub path: PathBuf,
}

/// Releases of each branch that a prune of a store keeps.
const KEPT_OF_BRANCH: usize = 10;

/// The lock of a target, or of an env in a store.
#[derive(Debug, Serialize)]
pub struct LockState {
    /// What is locked.
    pub target: String,
    /// Who has it, in words; absent when it is free.
    pub held_by: Option<String>,
    /// Whether it was removed just now.
    pub released: bool,
}

/// Does what was typed. What hosts say meanwhile goes to `listener`.
pub fn run(cx: &Cx, project: &Project, cli: &Cli, listener: Listener) -> Result<Answer> {
    let global = &cli.global;
    prepare(cx, cli)?;
    match &cli.command {
        Command::Build => build::build(cx, &project.app).map(Answer::Built),
        Command::Verify { release, unpack } => {
            report::verify(cx, project, release, unpack.as_deref()).map(Answer::Verified)
        }
        Command::Put { release, store, confirm } => {
            let put = if *confirm { handoff::confirm } else { handoff::put };
            put(cx, project, release.as_ref(), store.as_deref()).map(Answer::Put)
        }
        Command::Publish { release } => handoff::publish(cx, project, release.as_ref()).map(Answer::Published),
        Command::Fetch { release, into } => handoff::fetch(cx, project, release.as_ref(), into).map(Answer::Fetched),
        Command::Plan { env, release, deploy } => {
            deploy::deploy(cx, project, env, release.as_ref(), &deploy.plan()).map(Answer::Outcome)
        }
        Command::Deploy { env, release, older, expect, change } => {
            let options = change.options(global, Some(*older), expect);
            approved(cx, project.env(env)?, global.yes, &options, &|options| {
                deploy::deploy(cx, project, env, release.as_ref(), options)
            })
            .map(Answer::Outcome)
        }
        Command::Promote { from, to, older, expect, change } => {
            let options = change.options(global, Some(*older), expect);
            let promote = |options: &_| deploy::promote(cx, project, from, to, options);
            approved(cx, project.env(to)?, global.yes, &options, &promote).map(Answer::Outcome)
        }
        Command::Rollback { env, release, expect, change } => {
            let options = change.options(global, None, expect);
            let roll_back = |options: &_| deploy::rollback(cx, project, env, release.as_ref(), options);
            approved(cx, project.env(env)?, global.yes, &options, &roll_back).map(Answer::Outcome)
        }
        Command::Status { env } => report::status(cx, project, env.as_deref()).map(Answer::Status),
        Command::Logs { .. } | Command::Exec { .. } => listen(cx, project, cli, listener),
        Command::Start(it) => self::control(cx, project, global, it, Verb::Start),
        Command::Stop(it) => self::control(cx, project, global, it, Verb::Stop),
        Command::Restart(it) => self::control(cx, project, global, it, Verb::Restart),
        Command::History { env, limit, all } => report::history(cx, project, env, *limit, *all).map(Answer::History),
        Command::Releases { limit } => report::releases(cx, project, *limit as usize).map(Answer::Releases),
        Command::Diff { env, release } => report::diff(cx, project, env, release.as_ref()).map(Answer::Diff),
        Command::Prune(prune) => self::prune(cx, project, global, prune),
        Command::Lock(lock_command) => lock(cx, project, lock_command).map(Answer::Lock),
        Command::Ci(ci_command) => self::ci(cx, project, cli, listener, ci_command),
        Command::Doctor { env, ci } => doctor::doctor(cx, project, env.as_deref(), *ci).map(Answer::Diagnosis),
        Command::Setup(options) => self::setup(cx, project, global, options).map(Answer::Setup),
        Command::Test(test) => self::test(cx, project, test),
        Command::New(new) => self::new(cx, cli, new),
        Command::Bench { what, fleet } => self::bench(cx, project, *what, &fleet.options(global)),
        Command::BenchBundle { zstd } => {
            let compression = if *zstd { Compression::Zstd } else { Compression::Gzip };
            bench::files::seal(cx, compression).map(Answer::Built)
        }
        Command::Completions { shell } => Ok(Answer::Script(complete::script(*shell))),
        Command::Own(own, words) => (own.run)(cx, project, words).map(|text| Answer::Own(Own { text })),
        Command::Man { dir } => man(cx, dir).map(Answer::Man),
        // It was answered before anything could go wrong.
        Command::Complete { .. } => Ok(Answer::Heard),
        #[cfg(feature = "s3")]
        Command::BenchCopy { release, store, into } => {
            bench::s3::copy(cx, release, store, into.as_deref()).map(Answer::Put)
        }
        Command::BenchDeploy { release, targets } => bench::fleet::deploy(cx, release, targets).map(Answer::Outcome),
    }
}

fn setup(cx: &Cx, project: &Project, global: &Global, setup: &Setup) -> Result<Vec<setup::HostSetup>> {
    let env = project.env(&setup.env)?;
    let applies = setup.apply && !global.dry_run;
    if applies && setup.data {
        confirm_loss(cx, env, global.yes, "remove all releases, logs and shared files of")?;
    } else if applies {
        confirm(cx, env, global.yes, "change, as root, the hosts of")?;
    }
    let options = setup::Options {
        key: setup.key.as_deref(),
        host: setup.host.as_deref(),
        apply_as: applies.then_some(setup.login.as_str()),
        remove: setup.remove,
        data: setup.data,
    };
    setup::setup(cx, env, &options)
}

fn listen(cx: &Cx, project: &Project, cli: &Cli, listener: Listener) -> Result<Answer> {
    match &cli.command {
        Command::Logs { env, follow, lines, host } => {
            let show = if *follow { deploy::hosts::follow } else { deploy::hosts::logs };
            show(cx, project.env(env)?, host.as_deref(), *lines, listener)?;
        }
        Command::Exec { env, host, command } => {
            confirm(cx, project.env(env)?, cli.global.yes, "run a command in")?;
            deploy::hosts::exec(cx, project.env(env)?, host.as_deref(), command, listener)?;
        }
        _ => {}
    }
    Ok(Answer::Heard)
}

fn control(cx: &Cx, project: &Project, global: &Global, it: &Control, verb: Verb) -> Result<Answer> {
    let env = project.env(&it.env)?;
    if !global.dry_run {
        confirm(cx, env, global.yes, &format!("{} the service of", verb.as_str()))?;
    }
    control::control(cx, project, &it.env, verb, it.host.as_deref(), &it.options(global)).map(Answer::Controlled)
}

fn test(cx: &Cx, project: &Project, test: &Test) -> Result<Answer> {
    if test.list {
        return checks::list(cx).map(Answer::Grouped);
    }
    let options = checks::Options {
        quick: test.quick,
        all: test.all.as_deref(),
        rotate: test.rotate,
        retry: test.retry,
        args: &test.args,
    };
    checks::test(cx, project, &options).map(Answer::Tested)
}

fn bench(cx: &Cx, project: &Project, what: Bench, options: &bench::Options) -> Result<Answer> {
    match what {
        Bench::Bundle => bench::files::bundle(cx, options).map(Answer::Race),
        Bench::Fetch => bench::files::fetch(cx, options).map(Answer::Race),
        Bench::Overhead => bench::tools::overhead(cx, &project.app, options).map(Answer::Race),
        Bench::Compile => bench::tools::compile(cx, options).map(Answer::Race),
        #[cfg(feature = "s3")]
        Bench::S3 => bench::s3::s3(cx, options).map(Answer::Race),
        #[cfg(not(feature = "s3"))]
        Bench::S3 => Err(with_feature(cx, "s3", "buckets")),
        Bench::Fleet => bench::fleet::fleet(cx, options).map(Answer::Bench),
    }
}

fn prune(cx: &Cx, project: &Project, global: &Global, prune: &Prune) -> Result<Answer> {
    if let Some(url) = &prune.store {
        let keep = prune.keep.map_or(KEPT_OF_BRANCH, usize::from);
        let retention = Retention { app: project.app.name, keep, days: prune.days };
        return handoff::prune(cx, project, url, retention, global.yes && !global.dry_run).map(Answer::Pruned);
    }
    if prune.keep == Some(0) {
        return usage("--keep 0 would leave no release on a host").hint("2 are the least: --keep 2").err();
    }
    let options = prune.change.options(global, None, &Expect::default());
    let env = prune.env.as_deref().unwrap_or_default();
    deploy::prune(cx, project, env, prune.keep.map(usize::from), &options).map(Answer::Outcome)
}

/// Refuses a dry run of what has none, and sees to it that a signal is heard where it has to be.
fn prepare(cx: &Cx, cli: &Cli) -> Result<()> {
    if cli.global.dry_run && !cli.command.can_plan() {
        return usage("this command has no --dry-run")
            .hint("plan, deploy, promote, rollback, prune and ci generate can only say what they would do")
            .err();
    }
    if cli.command.stops_when_asked() || cli.command.listens() {
        cx.catch_interrupts(cli.command.stops_when_asked())?;
    }
    Ok(())
}

fn lock(cx: &Cx, project: &Project, command: &LockCommand) -> Result<Vec<LockState>> {
    let (env, release, force) = match command {
        LockCommand::Status { env } => (env, false, false),
        LockCommand::Release { env, force } => (env, true, *force),
    };
    let targets = host::open_all(cx, project.env(env)?)?;
    let catalog = Catalog::open(cx, project)?;
    let (stores, registry) = (catalog.ledger().locks(env), Registry::new(cx, project.ci.slug));
    let of_targets = targets.iter().map(|target| -> (&dyn Lockable, bool) { (&**target, true) });
    let (mut states, mut unanswered) = (Vec::new(), None);
    for (place, must_answer) in stores.iter().map(|store| (&**store, false)).chain(of_targets) {
        let url = place.url();
        let lock = match place.holder() {
            Err(error) if !must_answer => {
                let held_by = Some(format!("nobody knows whom: {error:#}"));
                states.push(LockState { target: url.to_owned(), held_by, released: false });
                unanswered = Some(error);
                continue;
            }
            answer => answer?,
        };
        let dead = matches!(&lock, Lock::Held(owner) if registry.life(owner) == Life::Dead);
        let held_by = deploy::lock::holder(&registry, &lock);
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
            place.unlock(match &lock {
                Lock::Held(owner) => Some(&owner.token),
                _ => None,
            })?;
            released = true;
        }
        states.push(LockState { target: url.to_owned(), held_by, released });
    }
    match unanswered.filter(|_| release) {
        Some(error) => Failure::new(kind_of(&error), format!("a lock may be left, others were removed: {error:#}"))
            .hint(hint_of(&error).unwrap_or("run the same command again").to_owned())
            .err(),
        None => Ok(states),
    }
}

fn ci(cx: &Cx, project: &Project, cli: &Cli, listener: Listener, command: &Ci) -> Result<Answer> {
    match command {
        Ci::Generate { check, pattern } => {
            let pattern = pattern.unwrap_or(project.ci.pattern);
            ci::generate::generate(cx, project, pattern, *check || cli.global.dry_run).map(Answer::Generated)
        }
        Ci::Lint { file } => ci::lint::lint_file(&cx.root.join(file)).map(Answer::Findings),
        Ci::Trigger(trigger) => self::trigger(cx, project, cli, trigger).map(Answer::Triggered),
        Ci::Approve { env, pipeline } => {
            let ask = |question: &str| if cli.global.yes { Ok(Some(true)) } else { ask(cx, question) };
            ci::approve::approve(cx, project, env, *pipeline, &ask).map(Answer::Approved)
        }
        Ci::Loopback => {
            let pipeline = ci::patterns::pipeline(project, project.ci.pattern)?;
            ci::run::serve::serve(cx, project, &pipeline, listener).map(|()| Answer::Heard)
        }
        Ci::Run { job, no_approve, branch, pattern, set } => {
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
            if pattern.unwrap_or(project.ci.pattern) == Pattern::S3 && !cfg!(feature = "s3") {
                return Err(with_feature(cx, "s3", "buckets"));
            }
            let options = ci::run::Options { job: job.as_deref(), branch: branch.as_deref(), set, approve: &approve };
            let pipeline = ci::patterns::pipeline(project, pattern.unwrap_or(project.ci.pattern))?;
            ci::run::run(cx, project, &pipeline, &options).map(Answer::CiRun)
        }
    }
}

/// Goes on as an xtask that was compiled with a feature, which takes a minute the first time. It comes back only when
/// that cannot be.
fn with_feature(cx: &Cx, feature: &str, what: &str) -> anyhow::Error {
    if cx.var(var::FEATURES).is_some() {
        return usage(format!("the feature `{feature}` of the xtask does not turn on that of the engine"))
            .hint(format!("in xtask/Cargo.toml: [features] {feature} = [\"gangplank/{feature}\"]"))
            .into();
    }
    cx.note(format!("this xtask was compiled without {what}: compiling it with the feature {feature}"));
    cx.become_xtask_with(feature)
}

#[cfg(feature = "man")]
fn man(cx: &Cx, dir: &Path) -> Result<Vec<Page>> {
    Ok(crate::man::write(cx.extras, &cx.root.join(dir))?.into_iter().map(|path| Page { path }).collect())
}

#[cfg(not(feature = "man"))]
fn man(cx: &Cx, _: &Path) -> Result<Vec<Page>> {
    Err(with_feature(cx, "man", "man pages"))
}

#[cfg(not(feature = "new"))]
fn new(cx: &Cx, _: &Cli, _: &New) -> Result<Answer> {
    Err(with_feature(cx, "new", "what projects are made of"))
}

#[cfg(feature = "new")]
fn new(cx: &Cx, cli: &Cli, new: &New) -> Result<Answer> {
    let mut wish = crate::new::Wish {
        name: new.name.clone(),
        pattern: new.pattern,
        targets: new.target.clone(),
        bucket: new.bucket.clone(),
        engine: new.engine.parse()?,
        dry_run: cli.global.dry_run,
    };
    let made = match (&new.upgrade, &new.into, &new.path) {
        (Some(dir), ..) => crate::new::upgrade(cx, dir, new.force, &wish),
        (_, Some(dir), _) => crate::new::adopt(cx, dir, &wish),
        (.., Some(path)) => {
            if !cli.global.yes && !cli.global.dry_run {
                crate::new::complete(cx, &mut wish, path, &|question, default| {
                    crate::approval::ask_text(cx, question, default)
                })?;
            }
            crate::new::create(cx, path, &wish)
        }
        _ => return usage("which project?").hint("`cargo xtask new ../shop`").err(),
    };
    made.map(Answer::Made)
}

/// Starts a workflow on CircleCI. Whoever starts a deploy to an env with approval is asked here: no job there asks.
fn trigger(cx: &Cx, project: &Project, cli: &Cli, trigger: &Trigger) -> Result<ci::trigger::Started> {
    let (rollback, request) = match trigger {
        Trigger::Deploy(request) => (false, request),
        Trigger::Rollback(request) => (true, request),
    };
    confirm(cx, project.env(&request.env)?, cli.global.yes, if rollback { "roll back" } else { "deploy to" })?;
    let wish = ci::trigger::Wish {
        rollback,
        env: &request.env,
        release: request.release.as_ref(),
        why: request.why.as_deref(),
        definition: request.definition.as_deref(),
    };
    let approve = |job: &str| {
        if cli.global.yes {
            return Ok(Some(true));
        }
        let answer = ask(cx, &format!("{job}?"))?;
        if answer.is_none() {
            cx.note(format!("{job} is on hold: `cargo xtask ci approve {}` says yes", request.env));
        }
        Ok(answer)
    };
    let follow = if request.follow { Some(&approve as ci::follow::Asking) } else { None };
    ci::trigger::trigger(cx, project, &wish, follow)
}
