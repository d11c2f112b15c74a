//! `bench compile`, second task: how long a job on request waits for the xtask, launched or compiled.

use crate::compare::{Compare, Row};
use crate::options::Options;
use crate::tools::{BUILD_XTASK, CARGO, baseline, cargo};
use gangplank_launch::{circleci, program};
use gangplank_loopback::{JobStatus, Loopback, MockState, WorkflowStatus};
use gangplank_model::ci::pipeline::LAUNCHER;
use gangplank_model::error::{Result, failed};
use gangplank_system::context::{Context, Input};
use gangplank_system::git;
use std::path::Path;

const SLUG: &str = "gh/acme/app";
const TOKEN: &str = "CCIPAT_of_a_bench_on_this_machine";
const BRANCH: &str = "main";

/// From the start of the step to the xtask's first output: the launcher is compiled, finds this repository's xtask on a
/// CircleCI of this machine, downloads and runs it; or cargo compiles it. In both cases the crates are downloaded.
pub fn race(ctx: &Context, options: &Options, scratch: &Path) -> Result<Vec<Row>> {
    let (stored, dir) = (scratch.join("stored"), scratch.join("program"));
    let mut build = ctx.cargo(BUILD_XTASK);
    build.arg("--target-dir").arg(&stored);
    ctx.read(build)?;
    if let Err(reason) = program::pack(&ctx.root, &stored.join("debug/xtask"), &dir, ctx.vars()) {
        ctx.warn(format!("skipped: launch: {reason:#}"));
        return Ok(vec![]);
    }
    let server = Loopback::start(with_program(ctx, &dir)?)?;
    let in_job = |name, words: &[&str]| {
        let target = scratch.join(format!("launch-{name}"));
        let (make, out, url) = (cargo(ctx, &ctx.root, words), target.clone(), server.url().clone());
        let command = move || {
            let mut command = make();
            command.env("CARGO_TARGET_DIR", &out).env("CIRCLE_HOST", &url).env("CIRCLE_TOKEN", TOKEN);
            command.env("CIRCLE_PROJECT_SLUG", SLUG).env("CIRCLE_BRANCH", BRANCH);
            command
        };
        baseline(name, Box::new(command), Some(target))
    };
    let run = ["run", "--quiet", "--locked"];
    let ours = in_job("ours", &[&run[..], &["--manifest-path", LAUNCHER, "--", "--version"]].concat());
    let theirs = in_job(CARGO, &[&run[..], &["--package", "xtask", "--bin", "xtask", "--", "--version"]].concat());
    // A launcher that compiled would be measured for what it is not.
    let answer = ctx.answer((ours.command)(), Input::Empty)?;
    if !answer.stderr.contains("running the xtask of job") {
        return failed(format!("the launcher did not run the stored program: {}", answer.stderr.trim()))
            .hint("its tests are `cargo test --package xtask --test it launch`")
            .err();
    }
    let race = Compare { workload: "xtask", what: "launch", alike: false, baselines: vec![ours, theirs] };
    race.run(ctx, scratch, options.rounds)
}

/// A project whose job `check` has stored the files below `dir`.
fn with_program(ctx: &Context, dir: &Path) -> Result<MockState> {
    let mut state = MockState::new(SLUG);
    state.tokens.push(TOKEN.into());
    let now = state.now();
    let pipeline = state.push(BRANCH, &git::head_sha(ctx).unwrap_or_default(), now);
    let workflow = state.add_workflow(&pipeline, "build-deploy");
    let job = state.add_job(&workflow, circleci::JOB, &[]);
    let number = state.start_job(&job);
    for file in gangplank_deploy::include::below(dir)? {
        state.store_artifact(number, &format!("{}/{file}", circleci::DESTINATION), 0, dir.join(file));
    }
    state.end_job(&job, JobStatus::Success);
    state.set_workflow_status(&workflow, WorkflowStatus::Success);
    Ok(state)
}
