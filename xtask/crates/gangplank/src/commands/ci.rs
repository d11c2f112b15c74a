//! `ci ...`: CircleCI's config, its pipelines, and the same pipeline on this machine.

use crate::approval::{ask, confirm};
use crate::cli::{Ci, Cli, Run, Trigger};
use crate::commands::CommandOutput;
use crate::commands::feature;
use gangplank_deploy::ci::{approve, follow, generate, trigger};
use gangplank_deploy::tool::Tool;
use gangplank_model::ci::workflows;
use gangplank_model::error::Result;
use gangplank_model::event::Listener;
use gangplank_model::project::Handoff;
use std::path::Path;
#[cfg(feature = "gangplank-local-ci")]
use {
    gangplank_local_ci::run::{cloud::Open, numbers},
    gangplank_model::shell::quote,
};

/// Runs a command below `ci`.
pub fn ci(tool: &Tool, cli: &Cli, listener: Listener, command: &Ci) -> Result<CommandOutput> {
    let Tool { ctx, project, .. } = *tool;
    match command {
        Ci::Generate { check, handoff } => {
            let handoff = handoff.unwrap_or(project.ci.handoff);
            generate::generate(ctx, project, handoff, *check || cli.global.dry_run).map(CommandOutput::Generated)
        }
        Ci::Lint { file } => lint(tool, file.as_deref()),
        Ci::Trigger(trigger) => self::trigger(tool, cli, trigger).map(CommandOutput::Triggered),
        Ci::Approve { env, pipeline } => {
            let ask = |question: &str| if cli.global.yes { Ok(Some(true)) } else { ask(ctx, question) };
            approve::approve(ctx, project, env, *pipeline, &ask).map(CommandOutput::Approved)
        }
        Ci::Loopback => loopback(tool, listener),
        Ci::Run(run) => self::run(tool, cli, run),
    }
}

#[cfg(feature = "gangplank-lint")]
fn lint(tool: &Tool, file: Option<&Path>) -> Result<CommandOutput> {
    let file = file.map_or_else(|| tool.ctx.root.join(generate::CONFIGS[0]), Path::to_owned);
    gangplank_lint::lint_file(&file).map(CommandOutput::Findings)
}

#[cfg(not(feature = "gangplank-lint"))]
fn lint(tool: &Tool, _: Option<&Path>) -> Result<CommandOutput> {
    Err(feature::compile_with(tool.ctx, &["gangplank/lint"], "the linter"))
}

#[cfg(feature = "gangplank-loopback")]
fn loopback(tool: &Tool, listener: Listener) -> Result<CommandOutput> {
    let pipeline = workflows::pipeline(tool.project, tool.project.ci.handoff)?;
    gangplank_loopback::serve::serve(tool, &pipeline, listener).map(|()| CommandOutput::Streamed)
}

#[cfg(not(feature = "gangplank-loopback"))]
fn loopback(tool: &Tool, _: Listener) -> Result<CommandOutput> {
    Err(feature::compile_with(tool.ctx, &["gangplank/loopback"], "CircleCI's API on loopback"))
}

/// How local runs open CircleCI's API, if it is compiled in.
#[cfg(all(feature = "gangplank-local-ci", feature = "gangplank-loopback"))]
const WITH_API: Option<Open> = Some(gangplank_loopback::cloud::open);
#[cfg(all(feature = "gangplank-local-ci", not(feature = "gangplank-loopback")))]
const WITH_API: Option<Open> = None;

#[cfg(feature = "gangplank-local-ci")]
fn run(tool: &Tool, cli: &Cli, run: &Run) -> Result<CommandOutput> {
    let Tool { ctx, project, .. } = *tool;
    let handoff = run.handoff.unwrap_or(project.ci.handoff);
    let pipeline = workflows::pipeline(project, handoff)?;
    if handoff == Handoff::S3 && !cfg!(feature = "gangplank-bucket") {
        return Err(feature::compile_with(ctx, &["s3"], "buckets"));
    }
    let open = if workflows::uses_api(project, handoff) { WITH_API } else { Some(numbers::open as Open) };
    let Some(open) = open else {
        return Err(feature::compile_with(ctx, &["gangplank/loopback"], "CircleCI's API on loopback"));
    };
    let approve = |name: &str| match (cli.global.yes, run.no_approve) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => match ask(ctx, &format!("{name}?"))? {
            Some(yes) => Ok(yes),
            None => {
                ctx.warn(format!("{name} is on hold: there is no terminal to ask on; add --yes to approve"));
                Ok(false)
            }
        },
    };
    let options = gangplank_local_ci::run::Options {
        job: run.job.as_deref(),
        branch: run.branch.as_deref(),
        set: &run.set,
        approve: &approve,
        flags: &flags(run),
        open,
        shows_output: cli.global.verbose > 0,
    };
    gangplank_local_ci::run::run(tool, &pipeline, &options).map(CommandOutput::CiRun)
}

/// The options of this run, for a command that repeats a part of it.
#[cfg(feature = "gangplank-local-ci")]
fn flags(run: &Run) -> String {
    let branch = run.branch.iter().map(|name| format!(" --branch {}", quote(name)));
    let handoff = run.handoff.iter().map(|handoff| format!(" --handoff {}", handoff.as_str()));
    let set = run.set.iter().map(|(name, value)| format!(" --set {}", quote(&format!("{name}={value}"))));
    branch.chain(handoff).chain(set).collect()
}

#[cfg(not(feature = "gangplank-local-ci"))]
fn run(tool: &Tool, _: &Cli, run: &Run) -> Result<CommandOutput> {
    let handoff = run.handoff.unwrap_or(tool.project.ci.handoff);
    // Wrong input is refused before anything is compiled.
    workflows::pipeline(tool.project, handoff)?;
    let local_ci = if workflows::uses_api(tool.project, handoff) { "gangplank/loopback" } else { "gangplank/local-ci" };
    let buckets = (handoff == Handoff::S3).then_some("s3");
    let features: Vec<_> = std::iter::once(local_ci).chain(buckets).collect();
    Err(feature::compile_with(tool.ctx, &features, "local CI"))
}

/// Starts a workflow on CircleCI. A deploy to an env with approval is confirmed here, because its job does not ask.
fn trigger(tool: &Tool, cli: &Cli, trigger: &Trigger) -> Result<trigger::Started> {
    let Tool { ctx, project, .. } = *tool;
    let (rollback, request) = match trigger {
        Trigger::Deploy(request) => (false, request),
        Trigger::Rollback(request) => (true, request),
    };
    confirm(ctx, project.env(&request.env)?, cli.global.yes, if rollback { "roll back" } else { "deploy to" })?;
    let start = trigger::TriggerRequest {
        rollback,
        env: &request.env,
        release: request.release.as_ref(),
        reason: request.reason.as_deref(),
        definition: request.definition.as_deref(),
    };
    let approve = |job: &str| {
        if cli.global.yes {
            return Ok(Some(true));
        }
        let answer = ask(ctx, &format!("{job}?"))?;
        if answer.is_none() {
            ctx.note(format!("{job} is on hold; approve it with `cargo xtask ci approve {}`", request.env));
        }
        Ok(answer)
    };
    let follow = if request.follow { Some(&approve as follow::Asking) } else { None };
    trigger::trigger(tool, &start, follow)
}
