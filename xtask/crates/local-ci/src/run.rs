//! `ci run`: runs the pipeline on this machine, without Docker. Each job gets a clean checkout of HEAD, CircleCI's
//! variables, and the files that other jobs persisted or stored. With the handoff `artifacts`, `gangplank-loopback` plays
//! CircleCI's API.
//!
//! Not imitated: images and resource classes, contexts (replaced by the environment of this shell, except for the API
//! token), serial groups (jobs and workflows run one after another), and cargo's caches (replaced by cargo's own on
//! this machine).

mod bucket;
pub mod cloud;
mod job;
pub mod numbers;
mod ports;

use crate::run::cloud::{Cloud, JobResult, Open, Opening, Running, WorkflowEnd};
use crate::workspace::Layers;
use gangplank_deploy::deploy::report;
use gangplank_deploy::tool::Tool;
use gangplank_model::ci::pipeline::{Pipeline, Values, Workflow};
use gangplank_model::error;
use gangplank_model::error::{CliError, Result, WithHint, failed, usage};
use gangplank_model::project::Project;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::Commit;
use gangplank_system::context::Context;
use gangplank_system::git;
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The directory of local runs, below the workspace root.
pub const DIR: &str = "target/ci";

/// The directory of the jobs' output, below [`DIR`]: a file a job.
const LOGS: &str = "logs";

/// The options of a run.
pub struct Options<'a> {
    /// Run only this job and those it requires.
    pub job: Option<&'a str>,
    /// The branch to run for, instead of the checked-out one.
    pub branch: Option<&'a str>,
    /// Pipeline parameters; if any, the run is an API trigger, otherwise a push.
    pub set: &'a [(String, String)],
    /// Called for each approval; `false` holds the workflow there.
    pub approve: &'a dyn Fn(&str) -> Result<bool>,
    /// These options as words of the command line, for hints: empty, or ` --handoff s3`.
    pub flags: &'a str,
    /// How the state of earlier runs is opened: with CircleCI's API, or only with numbers.
    pub open: Open,
    /// Whether the output of jobs is shown as they run; otherwise only that of a step that fails.
    pub shows_output: bool,
}

/// The result of a run.
#[derive(Debug, Serialize)]
pub struct CiRun {
    /// The commit.
    pub commit: String,
    /// The branch.
    pub branch: String,
    /// Each job and its result.
    pub jobs: Vec<JobEnd>,
    /// The live release of each env.
    pub live: Vec<Live>,
    /// Whether any live release has changed.
    pub changed: bool,
}

/// The result of a job.
#[derive(Debug, Serialize)]
pub struct JobEnd {
    /// Its name.
    pub job: String,
    /// How it ended.
    pub status: JobResult,
    /// Wall time.
    pub ms: u64,
}

/// What is live on a target.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Live {
    /// The env.
    pub env: String,
    /// The target.
    pub target: String,
    /// The release.
    pub release: Option<ReleaseId>,
    /// Since when it is live.
    pub since: Option<jiff::Timestamp>,
}

struct Run<'a> {
    /// Variables for the jobs beside CircleCI's: the address of their bucket.
    extra_vars: &'a [(String, String)],
    ctx: &'a Context,
    project: &'a Project,
    workflow: &'a Workflow,
    values: &'a Values,
    commit: &'a Commit,
    branch: &'a str,
    dir: PathBuf,
    layers: Layers,
    cloud: &'a dyn Cloud,
    running: Running,
    /// See [`Options::flags`].
    flags: &'a str,
    shows_output: bool,
}

/// Runs a pipeline. Fails with the kind of the first failed job.
pub fn run(tool: &Tool, pipeline: &Pipeline, options: &Options) -> Result<CiRun> {
    let Tool { ctx, project, .. } = *tool;
    let commit = git::commit(ctx)?;
    let branch = branch(options, &commit)?;
    let values = pipeline.values(&branch, options.set)?;
    let (workflows, wanted) = wanted(pipeline, &values, options.job)?;
    if workflows.is_empty() {
        return usage("no workflow of the pipeline runs with these parameters")
            .hint(format!("check that it is an env of this project: {}", envs(project)))
            .err();
    }
    if commit.dirty {
        ctx.warn("uncommitted changes are not part of this run, as on CircleCI");
    }
    let dir = ctx.root.join(DIR);
    let _only_one = alone(&dir)?;
    for sub in ["jobs", "layers", LOGS] {
        let _ = fs::remove_dir_all(dir.join(sub));
    }
    ports::check(tool, &wanted)?;
    let before = live(tool)?;
    let local = bucket::open(ctx, project, &dir)?;
    let extra_vars = &local.vars;
    let cloud = (options.open)(&Opening { ctx, project, pipeline, commit: &commit, branch: &branch, dir: &dir })?;
    let parameters = options.set.iter().map(|(name, value)| (name.clone(), value.clone().into()));
    let id = cloud.start_pipeline(ctx, (!options.set.is_empty()).then(|| parameters.collect()))?;
    let mut jobs: Vec<JobEnd> = Vec::new();
    let mut failure = None;
    for workflow in workflows {
        let layers = Layers::new(dir.join("layers").join(&workflow.name));
        let running = cloud.start_workflow(&id, workflow);
        let (dir, values, commit, cloud) = (dir.clone(), &values, &commit, &*cloud);
        let run = Run {
            extra_vars,
            ctx,
            project,
            workflow,
            values,
            commit,
            branch: &branch,
            dir,
            layers,
            cloud,
            running,
            flags: options.flags,
            shows_output: options.shows_output,
        };
        let (ends, failed) = run.jobs(&wanted, options.approve);
        cloud.end_workflow(&run.running, workflow_end(ctx.interrupted(), failed.is_some(), &ends));
        jobs.extend(ends);
        failure = failed;
        if failure.is_some() {
            break;
        }
    }
    if let Some((job, error)) = failure {
        let hint = error::hint_of(&error).unwrap_or("see its output above").to_owned();
        return CliError::new(error::kind_of(&error), format!("job `{job}` failed: {error:#}")).hint(hint).err();
    }
    if ctx.interrupted() {
        return failed("stopped by a signal").hint(format!("run `cargo xtask ci run{}` again", options.flags)).err();
    }
    let now = live(tool)?;
    Ok(CiRun { commit: commit.sha.clone(), changed: now != before, branch, jobs, live: now })
}

fn workflow_end(is_stopped: bool, has_failed: bool, ends: &[JobEnd]) -> WorkflowEnd {
    match (is_stopped, has_failed) {
        (true, _) => WorkflowEnd::Stopped,
        (_, true) => WorkflowEnd::Failed,
        _ if ends.iter().any(|end| end.status == JobResult::OnHold) => WorkflowEnd::OnHold,
        _ => WorkflowEnd::Success,
    }
}

fn branch(options: &Options, commit: &Commit) -> Result<String> {
    match options.branch.map(str::to_owned).or(commit.branch.clone()) {
        Some(branch) => Ok(branch),
        None => usage("HEAD is detached, so the branch is unknown")
            .hint("name it: `cargo xtask ci run --branch main`")
            .err(),
    }
}

fn envs(project: &Project) -> String {
    project.envs.iter().map(|env| env.name).collect::<Vec<_>>().join(", ")
}

/// The workflows to run, and the names of their jobs. A requested job ignores the condition of its workflow.
fn wanted<'a>(pipeline: &'a Pipeline, values: &Values, job: Option<&str>) -> Result<(Vec<&'a Workflow>, Vec<String>)> {
    let running: Vec<_> = pipeline.running(values).collect();
    let Some(name) = job else {
        let names = running.iter().flat_map(|it| &it.jobs).map(|job| job.name.clone()).collect();
        return Ok((running, names));
    };
    let Some(workflow) = running.into_iter().chain(&pipeline.workflows).find(|it| it.job(name).is_some()) else {
        let mut names: Vec<&str> = Vec::new();
        for job in pipeline.workflows.iter().flat_map(|it| &it.jobs) {
            if !names.contains(&job.name.as_str()) {
                names.push(&job.name);
            }
        }
        return usage(format!("no job `{name}` in the pipeline"))
            .hint(format!("use one of: {}", names.join(", ")))
            .err();
    };
    let names = workflow.ancestors(name).into_iter().map(|job| job.name.clone()).chain([name.to_owned()]).collect();
    Ok((vec![workflow], names))
}

/// Locks the directory: two runs in one checkout would overwrite each other's jobs.
pub fn alone(dir: &Path) -> Result<File> {
    let what = || format!("cannot make {}", dir.display());
    fs::create_dir_all(dir).with_hint(error::Kind::Failed, what, || "check its permissions".into())?;
    let file = File::create(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => CliError::new(
            error::Kind::Locked,
            "another `cargo xtask ci run` or `ci loopback` is running in this checkout",
        )
        .hint("wait for its end, or stop a `ci loopback` with Ctrl-C")
        .err(),
    }
}

fn live(tool: &Tool) -> Result<Vec<Live>> {
    let all = report::status(tool, None)?;
    Ok(all
        .into_iter()
        .map(|host| Live { env: host.env, target: host.target, release: host.release, since: host.since })
        .collect())
}
