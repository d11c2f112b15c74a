//! CircleCI as the jobs of a local run know it: pipelines, numbered jobs, artifacts, and variables.

use gangplank_model::ci::pipeline::{Job, Pipeline, Workflow};
use gangplank_model::error::{Kind, Result, WithHint};
use gangplank_model::project::Project;
use gangplank_model::release::manifest::Commit;
use gangplank_system::context::Context;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};

/// The number of jobs whose artifacts are kept, to bound the disk space.
const JOBS_KEPT: usize = 20;

/// The state of local runs, which the next run continues.
pub trait Cloud {
    /// Starts a pipeline; with parameters by a request of the API, otherwise by a push. Returns its UUID.
    fn start_pipeline(&self, ctx: &Context, parameters: Option<Map<String, Value>>) -> Result<String>;
    /// Starts a workflow with all its jobs.
    fn start_workflow(&self, pipeline: &str, workflow: &Workflow) -> Running;
    /// Starts a job with steps.
    fn start_job(&self, running: &Running, job: &Job) -> Started;
    /// Ends a job.
    fn end_job(&self, running: &Running, job: &Job, end: JobResult);
    /// Ends a workflow.
    fn end_workflow(&self, running: &Running, end: WorkflowEnd);
    /// Stores a file as an artifact of a job.
    fn store(&self, number: u64, path: &str, from: &Path) -> Result<()>;
    /// CircleCI's variables of a job; the token only if a context or the project would provide it.
    fn variables(&self, running: &Running, started: &Started, with_token: bool) -> Vec<(String, String)>;
}

/// What the state of local runs is opened for.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// The outside.
    pub ctx: &'a Context,
    /// The project.
    pub project: &'a Project,
    /// Its pipeline.
    pub pipeline: &'a Pipeline,
    /// The commit to run.
    pub commit: &'a Commit,
    /// Its branch.
    pub branch: &'a str,
    /// The directory of the state.
    pub dir: &'a Path,
}

/// Opens the state left by earlier runs. `gangplank_loopback::cloud::open` also serves it as CircleCI's API.
pub type Open = fn(&Opening) -> Result<Box<dyn Cloud>>;

/// A running workflow.
pub struct Running {
    /// UUID of the pipeline.
    pub pipeline: String,
    /// UUID of the workflow.
    pub workflow: String,
}

/// A started job.
pub struct Started {
    /// UUID.
    pub id: String,
    /// The number within the project.
    pub number: u64,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobResult {
    /// Each step succeeded.
    Success,
    /// An approval was given.
    Approved,
    /// An approval was not given.
    OnHold,
    /// A step failed.
    Failed,
    /// What it requires did not succeed, or its filter does not match.
    NotRun,
}

impl JobResult {
    /// The word for people and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Approved => "approved",
            Self::OnHold => "on hold",
            Self::Failed => "failed",
            Self::NotRun => "not run",
        }
    }
}

impl Serialize for JobResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How a workflow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkflowEnd {
    /// Every job succeeded.
    Success,
    /// An approval was not given.
    OnHold,
    /// A job failed.
    Failed,
    /// A signal stopped the run.
    Stopped,
}

/// The slug of the project of local runs.
pub fn slug(ctx: &Context, project: &Project) -> String {
    let user: String = ctx.var("USER").unwrap_or("unknown").chars().filter(char::is_ascii_alphanumeric).collect();
    format!("gh/{}/{}", if user.is_empty() { "unknown" } else { &user }, project.app.name)
}

/// Variables of a job that are its place on CircleCI.
pub fn place(
    running: &Running,
    started: &Started,
    pipeline_number: u64,
    slug: &str,
) -> impl Iterator<Item = (String, String)> {
    [
        ("CIRCLE_BUILD_NUM", started.number.to_string()),
        ("CIRCLE_PIPELINE_ID", running.pipeline.clone()),
        ("CIRCLE_PROJECT_SLUG", slug.to_owned()),
        ("CIRCLE_WORKFLOW_ID", running.workflow.clone()),
        ("CIRCLE_WORKFLOW_JOB_ID", started.id.clone()),
        ("CIRCLE_WORKFLOW_WORKSPACE_ID", running.workflow.clone()),
        ("PIPELINE_NUMBER", pipeline_number.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
}

/// Copies an artifact of a job to the state in `dir`; returns its path there.
pub fn keep_artifact(dir: &Path, number: u64, path: &str, from: &Path) -> Result<PathBuf> {
    let to = artifacts(dir, number).join(path);
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    let copied = fs::create_dir_all(to.parent().unwrap_or(dir)).and_then(|()| fs::copy(from, &to));
    copied.with_hint(Kind::Failed, what, || "check free space: `df -h .`".into())?;
    Ok(to)
}

/// Removes the artifacts of old jobs, of these numbers in order; returns the numbers whose artifacts are gone.
pub fn prune_artifacts(dir: &Path, numbers: &[u64]) -> Vec<u64> {
    let old = &numbers[..numbers.len().saturating_sub(JOBS_KEPT)];
    for number in old {
        let _ = fs::remove_dir_all(artifacts(dir, *number));
    }
    old.to_vec()
}

fn artifacts(dir: &Path, number: u64) -> PathBuf {
    dir.join("artifacts").join(number.to_string())
}

/// Writes a file of the state. A failure loses only the state of local runs, and the next one starts anew.
pub fn save(dir: &Path, name: &str, text: &[u8]) {
    let aside = dir.join(format!("{name}.new"));
    let _ = fs::write(&aside, text).and_then(|()| fs::rename(&aside, dir.join(name)));
}
