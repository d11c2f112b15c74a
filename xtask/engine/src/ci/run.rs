//! `ci run`: the pipeline on this machine, without Docker. Each job gets a clean checkout of HEAD, CircleCI's variables,
//! a loopback API that knows what ran here, and nothing that another job did not persist or store.
//!
//! What is not imitated: images and resource classes, contexts (the environment of this shell takes their place, except
//! for the token of the API), serial groups (jobs and workflows run one after another), and cargo's caches (cargo's own
//! on this machine take their place).

pub(crate) mod bucket;
pub mod ceph;
mod cloud;
mod job;
mod ports;
pub mod serve;

use crate::ci::pipeline::{Pipeline, Values, Workflow};
use crate::ci::workspace::Layers;
use crate::context::Context;
use crate::deploy::report;
use crate::error::{self, CliError, Result, WithHint, failed, usage};
use crate::git;
use crate::project::Project;
use crate::release::id::ReleaseId;
use crate::release::manifest::Commit;
use crate::tool::Tool;
use cloud::{Cloud, Running};
use serde::Serialize;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Where runs keep their jobs, below the workspace root.
pub const DIR: &str = "target/ci";

/// What to run.
pub struct Options<'a> {
    /// Only this job and those that it requires.
    pub job: Option<&'a str>,
    /// The branch that CircleCI would see, instead of the one that is checked out.
    pub branch: Option<&'a str>,
    /// Parameters of the pipeline; with any, it is started through the API, and without, it is a push.
    pub set: &'a [(String, String)],
    /// Asked for each approval; `false` holds the workflow there.
    pub approve: &'a dyn Fn(&str) -> Result<bool>,
}

/// What a run answers.
#[derive(Debug, Serialize)]
pub struct CiRun {
    /// The commit.
    pub commit: String,
    /// The branch.
    pub branch: String,
    /// Each job with how it ended.
    pub jobs: Vec<JobEnd>,
    /// What is live in each env now.
    pub live: Vec<Live>,
    /// Whether anything else is live than before.
    pub changed: bool,
}

/// How a job ended.
#[derive(Debug, Serialize)]
pub struct JobEnd {
    /// Its name.
    pub job: String,
    /// `success`, `failed`, `approved`, `on hold`, `not run`.
    pub status: &'static str,
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
    /// Since when.
    pub since: Option<jiff::Timestamp>,
}

struct Run<'a> {
    /// What the jobs are told beside CircleCI's variables: where their bucket is.
    told: &'a [(String, String)],
    ctx: &'a Context,
    project: &'a Project,
    workflow: &'a Workflow,
    values: &'a Values,
    commit: &'a Commit,
    branch: &'a str,
    dir: PathBuf,
    layers: Layers,
    cloud: &'a Cloud,
    running: Running,
}

/// Runs a pipeline. Fails with the kind of failure of the first job that failed.
pub fn run(tool: &Tool, pipeline: &Pipeline, options: &Options) -> Result<CiRun> {
    let Tool { ctx, project, .. } = *tool;
    let commit = git::commit(ctx)?;
    let Some(branch) = options.branch.map(str::to_owned).or(commit.branch.clone()) else {
        return usage("HEAD is detached: CircleCI would know the branch, we do not")
            .hint("say it: `cargo xtask ci run --branch main`")
            .err();
    };
    let values = pipeline.values(&branch, options.set)?;
    let (workflows, wanted) = wanted(pipeline, &values, options.job)?;
    if workflows.is_empty() {
        return usage("no workflow of the pipeline runs with these parameters")
            .hint(format!("is it an env of this project? {}", envs(project)))
            .err();
    }
    if commit.dirty {
        ctx.warn("changes that are not committed are not part of this run: CircleCI would not have them either");
    }
    let dir = ctx.root.join(DIR);
    let _only_one = alone(&dir)?;
    for sub in ["jobs", "layers"] {
        let _ = fs::remove_dir_all(dir.join(sub));
    }
    ports::check(tool, &wanted)?;
    let before = live(tool)?;
    let local = bucket::local(ctx, project, &dir)?;
    let told = &local.vars;
    let cloud = Cloud::open(ctx, project, pipeline, &commit, &branch, &dir)?;
    let id = if options.set.is_empty() {
        cloud.push(&branch, &commit)
    } else {
        let parameters = options.set.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        cloud.trigger(ctx, &branch, &Value::Object(parameters.collect()))?
    };
    let mut jobs: Vec<JobEnd> = Vec::new();
    let mut failure = None;
    for workflow in workflows {
        let layers = Layers::new(dir.join("layers").join(&workflow.name));
        let running = cloud.begin(&id, workflow);
        let (dir, values, commit, cloud) = (dir.clone(), &values, &commit, &cloud);
        let run = Run { told, ctx, project, workflow, values, commit, branch: &branch, dir, layers, cloud, running };
        let (ends, failed) = run.jobs(&wanted, options.approve);
        cloud.finish(&run.running, failed.is_some(), ends.iter().any(|end| end.status == "on hold"), ctx.interrupted());
        jobs.extend(ends);
        failure = failed;
        if failure.is_some() {
            break;
        }
    }
    if let Some((job, error)) = failure {
        let hint = error::hint_of(&error).unwrap_or("its words are above").to_owned();
        return CliError::new(error::kind_of(&error), format!("job `{job}` failed: {error:#}")).hint(hint).err();
    }
    if ctx.interrupted() {
        return failed("stopped by a signal").hint("`cargo xtask ci run` starts again").err();
    }
    let now = live(tool)?;
    Ok(CiRun { commit: commit.sha.clone(), changed: now != before, branch, jobs, live: now })
}

fn envs(project: &Project) -> String {
    project.envs.iter().map(|env| env.name).collect::<Vec<_>>().join(", ")
}

/// The workflows to run, and the names of the jobs in them. A job that is asked for runs whatever its workflow waits for.
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

/// Two runs in one checkout would wipe each other's jobs.
fn alone(dir: &Path) -> Result<File> {
    let what = || format!("cannot make {}", dir.display());
    fs::create_dir_all(dir).with_hint(error::Kind::Failed, what, || "check its permissions".into())?;
    let file = File::create(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => CliError::new(
            error::Kind::Locked,
            "another `cargo xtask ci run` or `ci loopback` is at work in this checkout",
        )
        .hint("wait until it has ended; Ctrl-C ends a `ci loopback`")
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
