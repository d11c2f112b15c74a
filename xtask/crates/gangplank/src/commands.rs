//! Maps a parsed command to its function and its result.

mod ci;
mod feature;
mod sign;

use crate::approval::{approved, confirm, confirm_loss};
use crate::cli::{Cli, Command, Control, ExpectArgs, Global, Prune, Report, Setup, Test};
use crate::{complete, doctor, test};
use gangplank_deploy::deploy;
use gangplank_deploy::deploy::apply::Outcome;
use gangplank_deploy::deploy::control;
use gangplank_deploy::deploy::control::Controlled;
use gangplank_deploy::deploy::liveness::LivenessChecker;
use gangplank_deploy::deploy::notify;
use gangplank_deploy::deploy::report;
use gangplank_deploy::deploy::resolve::Catalog;
use gangplank_deploy::store::{Published, Retention};
use gangplank_deploy::tool::Tool;
use gangplank_deploy::{build, handoff, setup};
use gangplank_model::error::{CliError, Kind, Result, hint_of, kind_of, usage};
use gangplank_model::event::Listener;
use gangplank_model::history::Verb;
use gangplank_model::owner::Liveness;
use gangplank_model::project::Project;
use gangplank_model::state::{Lock, Lockable};
use gangplank_system::context::{Context, is_left_out};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// The result of a command, to be printed. Serialized as JSON without the variant's name.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum CommandOutput {
    /// `build`
    Built(build::Built),
    /// `keygen`
    #[cfg(feature = "gangplank-sign")]
    Keygen(gangplank_sign::key::Keygen),
    /// `sign`
    #[cfg(feature = "gangplank-sign")]
    Signed(gangplank_sign::sign::Signed),
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
    /// `logs`, `exec`: already printed
    Streamed,
    /// `history`
    History(Vec<report::HostHistory>),
    /// `releases`
    Releases(Vec<report::Listed>),
    /// `report`
    #[cfg(feature = "gangplank-html")]
    Page(Page),
    /// `notify`
    Notified(Vec<notify::Notified>),
    /// `diff`
    Diff(report::Diff),
    /// `lock`
    Lock(Vec<LockState>),
    /// `ci generate`
    Generated(Vec<gangplank_deploy::ci::generate::Generated>),
    /// `ci lint`
    #[cfg(feature = "gangplank-lint")]
    Findings(Vec<gangplank_lint::Finding>),
    /// `ci run`
    #[cfg(feature = "gangplank-local-ci")]
    CiRun(gangplank_local_ci::run::CiRun),
    /// `ci trigger`
    Triggered(gangplank_deploy::ci::trigger::Started),
    /// `ci approve`
    Approved(gangplank_deploy::ci::approve::Approved),
    /// `doctor`
    Diagnosis(doctor::Diagnosis),
    /// `setup`
    Setup(Vec<setup::HostSetup>),
    /// `test`
    Tested(test::Tested),
    /// `completions`
    Script(complete::Script),
    /// `man`
    #[cfg(feature = "man")]
    Man(Vec<Page>),
    /// A command of the project.
    Own(Own),
}

/// The output of a project's command.
#[derive(Debug, Serialize)]
pub struct Own {
    /// The text.
    pub text: String,
}

/// A man page, or the page of the release report.
#[cfg(any(feature = "man", feature = "gangplank-html"))]
#[derive(Debug, Serialize)]
pub struct Page {
    /// Its file.
    pub path: std::path::PathBuf,
}

/// Releases kept per branch by a prune of a store.
const KEPT_OF_BRANCH: usize = 10;

/// The lock of a target, or of an env in a store.
#[derive(Debug, Serialize)]
pub struct LockState {
    /// The target or store.
    pub target: String,
    /// The owner; absent if free.
    pub held_by: Option<String>,
    /// Whether it was removed.
    pub unlocked: bool,
}

/// Runs a command. Output of hosts is streamed to `listener`.
pub fn run(tool: &Tool, cli: &Cli, listener: Listener) -> Result<CommandOutput> {
    let Tool { ctx, project, .. } = *tool;
    let global = &cli.global;
    prepare(ctx, cli)?;
    sign::compile_if_needed(tool, &cli.command)?;
    match &cli.command {
        Command::Build => build::build(ctx, &project.app, tool.extensions.steps).map(CommandOutput::Built),
        Command::Verify { release, store: Some(url), .. } => {
            let release = release.as_deref().map(str::parse).transpose()?;
            let only = Some(url.as_str()).filter(|url| !url.is_empty());
            handoff::verify(tool, release.as_ref(), only).map(CommandOutput::Put)
        }
        Command::Verify { release, unpack, .. } => {
            let release = release.as_deref().unwrap_or_default();
            report::verify(tool, release, unpack.as_deref()).map(CommandOutput::Verified)
        }
        Command::Keygen(it) => sign::keygen(tool, it),
        Command::Sign(it) => sign::sign(tool, it),
        Command::Put { program: true, .. } => put_program(tool),
        Command::Put { release, store, .. } => {
            handoff::put(tool, release.as_ref(), store.as_deref()).map(CommandOutput::Put)
        }
        Command::Publish { release } => handoff::publish(tool, release.as_ref()).map(CommandOutput::Published),
        Command::Fetch { release, into } => handoff::fetch(tool, release.as_ref(), into).map(CommandOutput::Fetched),
        Command::Plan { env, release, deploy } => {
            deploy::deploy(tool, env, release.as_ref(), &deploy.plan()).map(CommandOutput::Outcome)
        }
        Command::Deploy { env, release, older, expect, change } => {
            let options = change.options(global, Some(*older), expect);
            approved(ctx, project.env(env)?, global.yes, &options, &|options| {
                deploy::deploy(tool, env, release.as_ref(), options)
            })
            .map(CommandOutput::Outcome)
        }
        Command::Promote { from, to, older, expect, change } => {
            let options = change.options(global, Some(*older), expect);
            let promote = |options: &_| deploy::promote(tool, from, to, options);
            approved(ctx, project.env(to)?, global.yes, &options, &promote).map(CommandOutput::Outcome)
        }
        Command::Rollback { env, release, expect, change } => {
            let options = change.options(global, None, expect);
            let roll_back = |options: &_| deploy::rollback(tool, env, release.as_ref(), options);
            approved(ctx, project.env(env)?, global.yes, &options, &roll_back).map(CommandOutput::Outcome)
        }
        Command::Status { env, .. } => report::status(tool, env.as_deref()).map(CommandOutput::Status),
        Command::Logs { .. } | Command::Exec { .. } => listen(tool, cli, listener),
        Command::Start(it) => self::control(tool, global, it, Verb::Start),
        Command::Stop(it) => self::control(tool, global, it, Verb::Stop),
        Command::Restart(it) => self::control(tool, global, it, Verb::Restart),
        Command::History { env, limit, all } => report::history(tool, env, *limit, *all).map(CommandOutput::History),
        Command::Releases { limit } => report::releases(tool, *limit as usize).map(CommandOutput::Releases),
        Command::Report(report) => page(tool, report),
        Command::Diff { env, release } => report::diff(tool, env, release.as_ref()).map(CommandOutput::Diff),
        Command::Prune(prune) => self::prune(tool, global, prune),
        Command::Notify { env, test } => notify::notify(tool, env, *test).map(CommandOutput::Notified),
        Command::Lock { env } => lock(tool, env, None).map(CommandOutput::Lock),
        Command::Unlock { env, force } => lock(tool, env, Some(*force)).map(CommandOutput::Lock),
        Command::Ci(ci_command) => ci::ci(tool, cli, listener, ci_command),
        Command::Doctor { env, ci } => doctor::doctor(tool, env.as_deref(), *ci).map(CommandOutput::Diagnosis),
        Command::Setup(options) => self::setup(tool, global, options).map(CommandOutput::Setup),
        Command::Test(test) => self::test(ctx, project, test),
        Command::New(_) => Err(own_program(ctx, "new", "makes projects")),
        Command::Bench(_) => Err(own_program(ctx, "bench", "compares Gangplank with other tools")),
        Command::Completions { shell } => Ok(CommandOutput::Script(complete::script(*shell))),
        Command::Own(own, words) => (own.run)(tool, words).map(|text| CommandOutput::Own(Own { text })),
        Command::Man { dir } => man(tool, dir),
        // Already answered in `main`.
        Command::Complete { .. } => Ok(CommandOutput::Streamed),
    }
}

/// Passes this program on. The jobs that deploy need no Rust, so it has what they use.
fn put_program(tool: &Tool) -> Result<CommandOutput> {
    let Tool { ctx, project, .. } = *tool;
    let needed = [
        (project.ci.report && !cfg!(feature = "gangplank-html"), "gangplank/html", "the report"),
        (project.ci.launch && PACK.is_none(), "gangplank/launch", "the launcher"),
    ];
    let missing = needed.into_iter().filter(|(is_missing, ..)| *is_missing);
    let (features, what): (Vec<_>, Vec<_>) = missing.map(|(_, feature, what)| (feature, what)).unzip();
    if !features.is_empty() {
        return Err(feature::compile_with(ctx, &features, &what.join(" and ")));
    }
    handoff::put_program(ctx, PACK.filter(|_| project.ci.launch)).map(|()| CommandOutput::Put(vec![]))
}

/// Packs this program, if the launcher is compiled in.
#[cfg(feature = "gangplank-launch")]
const PACK: Option<handoff::Pack> =
    Some(|root, program, dir, vars| gangplank_launch::program::pack(root, program, dir, vars));
#[cfg(not(feature = "gangplank-launch"))]
const PACK: Option<handoff::Pack> = None;

fn setup(tool: &Tool, global: &Global, setup: &Setup) -> Result<Vec<setup::HostSetup>> {
    let Tool { ctx, project, .. } = *tool;
    let env = project.env(&setup.env)?;
    let applies = setup.apply && !global.dry_run;
    if applies && setup.data {
        confirm_loss(ctx, env, global.yes, "remove all releases, logs and shared files of")?;
    } else if applies {
        confirm(ctx, env, global.yes, "change, as root, the hosts of")?;
    }
    let options = setup::Options {
        key: setup.key.as_deref(),
        host: setup.host.as_deref(),
        apply_as: applies.then_some(setup.login.as_str()),
        remove: setup.remove,
        data: setup.data,
    };
    setup::setup(tool, env, &options)
}

fn listen(tool: &Tool, cli: &Cli, listener: Listener) -> Result<CommandOutput> {
    let Tool { ctx, project, .. } = *tool;
    match &cli.command {
        Command::Logs { env, follow, lines, host } => {
            let show = if *follow { deploy::hosts::follow } else { deploy::hosts::logs };
            show(tool, project.env(env)?, host.as_deref(), *lines, listener)?;
        }
        Command::Exec { env, host, command } => {
            confirm(ctx, project.env(env)?, cli.global.yes, &format!("run `{}` in", command.join(" ")))?;
            deploy::hosts::exec(tool, project.env(env)?, host.as_deref(), command, listener)?;
        }
        _ => {}
    }
    Ok(CommandOutput::Streamed)
}

fn control(tool: &Tool, global: &Global, it: &Control, verb: Verb) -> Result<CommandOutput> {
    let Tool { ctx, project, .. } = *tool;
    let env = project.env(&it.env)?;
    if !global.dry_run {
        confirm(ctx, env, global.yes, &format!("{} the service of", verb.as_str()))?;
    }
    control::control(tool, &it.env, verb, it.host.as_deref(), &it.options(global)).map(CommandOutput::Controlled)
}

fn test(ctx: &Context, project: &Project, test: &Test) -> Result<CommandOutput> {
    // Gangplank's own repository has more tests than a project, and a program that runs them.
    if !test.no_tests && has_program(ctx, "suite") {
        return Err(ctx.become_program("gangplank-suite", None));
    }
    checks(ctx, project, test)
}

fn checks(ctx: &Context, project: &Project, test: &Test) -> Result<CommandOutput> {
    if !cfg!(feature = "gangplank-lint") && !is_left_out(&ctx.root, "lint") {
        return Err(feature::compile_with(ctx, &["gangplank/lint"], "the linter"));
    }
    let options =
        test::Options { quick: test.quick, no_tests: test.no_tests, all_features: test.all_features, args: &test.args };
    test::test(ctx, project, &options).map(CommandOutput::Tested)
}

fn prune(tool: &Tool, global: &Global, prune: &Prune) -> Result<CommandOutput> {
    let project = tool.project;
    if let Some(url) = &prune.store {
        let keep = prune.keep.map_or(KEPT_OF_BRANCH, usize::from);
        let retention = Retention { app: project.app.name, keep, days: prune.days };
        return handoff::prune(tool, url, retention, global.yes && !global.dry_run).map(CommandOutput::Pruned);
    }
    if prune.keep == Some(0) {
        return usage("--keep 0 would leave no release on a host").hint("use --keep 2 or more: the minimum is 2").err();
    }
    let options = prune.change.options(global, None, &ExpectArgs::default());
    let env = prune.env.as_deref().unwrap_or_default();
    deploy::prune(tool, env, prune.keep.map(usize::from), &options).map(CommandOutput::Outcome)
}

/// Fails for `--dry-run` of a command that cannot plan.
pub fn refuse_dry_run(global: &Global, can_plan: bool) -> Result<()> {
    if global.dry_run && !can_plan {
        return usage("this command has no --dry-run")
            .hint("use it with plan, deploy, promote, rollback, prune, setup, new or ci generate")
            .err();
    }
    Ok(())
}

/// Fails for `--dry-run` if unsupported, and installs the signal handler if needed.
fn prepare(ctx: &Context, cli: &Cli) -> Result<()> {
    refuse_dry_run(&cli.global, cli.command.can_plan())?;
    if cli.command.stops_when_asked() || cli.command.listens() {
        ctx.catch_interrupts(cli.command.stops_when_asked())?;
    }
    Ok(())
}

/// Returns the locks of an env. With `unlock` it removes them: those of dead owners, or all if it is true.
fn lock(tool: &Tool, env: &str, unlock: Option<bool>) -> Result<Vec<LockState>> {
    let Tool { ctx, project, .. } = *tool;
    let targets = tool.targets(project.env(env)?)?;
    let catalog = Catalog::open(tool)?;
    let (stores, liveness) = (catalog.deploy_log().locks(env), LivenessChecker::new(ctx, project.ci.slug));
    let of_targets = targets.iter().map(|target| -> (&dyn Lockable, bool) { (&**target, true) });
    let (mut states, mut unanswered) = (Vec::new(), None);
    for (place, must_answer) in stores.iter().map(|store| (&**store, false)).chain(of_targets) {
        let url = place.url();
        let lock = match place.holder() {
            Err(error) if !must_answer => {
                let held_by = Some(format!("unknown owner: {error:#}"));
                states.push(LockState { target: url.to_owned(), held_by, unlocked: false });
                unanswered = Some(error);
                continue;
            }
            answer => answer?,
        };
        let dead = matches!(&lock, Lock::Held(owner) if liveness.liveness(owner) == Liveness::Dead);
        let held_by = deploy::lock::holder(&liveness, &lock);
        let mut unlocked = false;
        if let (Some(force), true) = (unlock, lock != Lock::Free) {
            if !dead && !force {
                let who = held_by.unwrap_or_default();
                return CliError::new(Kind::Locked, format!("{url} is locked by {who}, which may still run"))
                    .hint(format!("make sure that it no longer runs, then run `cargo xtask unlock {env} --force`"))
                    .err();
            }
            place.unlock(match &lock {
                Lock::Held(owner) => Some(&owner.token),
                _ => None,
            })?;
            unlocked = true;
        }
        states.push(LockState { target: url.to_owned(), held_by, unlocked });
    }
    match unanswered.filter(|_| unlock.is_some()) {
        Some(error) => CliError::new(kind_of(&error), format!("a lock may be left, others were removed: {error:#}"))
            .hint(hint_of(&error).unwrap_or("run the same command again").to_owned())
            .err(),
        None => Ok(states),
    }
}

#[cfg(feature = "gangplank-html")]
fn page(tool: &Tool, report: &Report) -> Result<CommandOutput> {
    let all = gangplank_html::overview(tool, &report.env, &report.diff)?;
    // A reason or a branch may contain what is a secret here.
    let text = tool.ctx.scrub(&gangplank_html::page(&all));
    let path = gangplank_html::write(&tool.ctx.root.join(&report.html), &text)?;
    Ok(CommandOutput::Page(Page { path }))
}

#[cfg(not(feature = "gangplank-html"))]
fn page(tool: &Tool, report: &Report) -> Result<CommandOutput> {
    // Wrong input is refused before anything is compiled.
    report.env.iter().chain(&report.diff).try_for_each(|env| tool.project.env(env).map(drop))?;
    Err(feature::compile_with(tool.ctx, &["gangplank/html"], "the release report"))
}

#[cfg(feature = "man")]
fn man(tool: &Tool, dir: &Path) -> Result<CommandOutput> {
    let files = crate::man::write(tool.extensions, &tool.ctx.root.join(dir))?;
    Ok(CommandOutput::Man(files.into_iter().map(|path| Page { path }).collect()))
}

#[cfg(not(feature = "man"))]
fn man(tool: &Tool, _: &Path) -> Result<CommandOutput> {
    Err(feature::compile_with(tool.ctx, &["gangplank/man"], "man pages"))
}

/// Whether this is Gangplank's own repository, which has the program: a project may have a directory of that name.
fn has_program(ctx: &Context, name: &str) -> bool {
    let manifest = ctx.root.join("xtask/crates").join(name).join("Cargo.toml");
    let wanted = format!("name = \"gangplank-{name}\"");
    fs::read_to_string(manifest).is_ok_and(|manifest| manifest.lines().any(|line| line == wanted))
}

/// Executes a program of Gangplank's own repository on the same command line. Returns only on failure.
fn own_program(ctx: &Context, name: &str, what: &str) -> anyhow::Error {
    if !has_program(ctx, name) {
        return usage(format!("`{name}` {what}, and is only in Gangplank's own repository"))
            .hint(format!("in a checkout of Gangplank: `cargo xtask {name} --help`"))
            .into();
    }
    ctx.become_program(&format!("gangplank-{name}"), None)
}
