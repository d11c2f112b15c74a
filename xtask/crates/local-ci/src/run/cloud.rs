//! The state of local runs, like that of CircleCI: pipelines, numbered jobs, artifacts, variables of the project. The
//! loopback API serves it to jobs; it is kept between runs, because a deploy may use an old build.

use crate::loopback::{Definition, JobStatus, Loopback, MockState, WorkflowStatus};
use gangplank_model::ci::pipeline::{Job, Kind, Pipeline, Workflow};
use gangplank_model::error::{Kind as ErrorKind, Result, WithHint};
use gangplank_model::project::Project;
use gangplank_model::release::digest;
use gangplank_model::release::manifest::Commit;
use gangplank_system::context::Context;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The number of jobs whose artifacts are kept, to bound the disk space.
const JOBS_KEPT: usize = 20;

/// The local CircleCI.
pub struct Cloud {
    server: Loopback,
    token: String,
    dir: PathBuf,
}

/// A running workflow.
pub struct Running {
    /// UUID of the pipeline.
    pub pipeline: String,
    /// UUID of the workflow.
    pub workflow: String,
    jobs: BTreeMap<String, String>,
}

/// A started job.
pub struct Started {
    /// UUID.
    pub id: String,
    /// The number within the project.
    pub number: u64,
}

impl Cloud {
    /// Opens the state left by earlier runs in `dir`.
    pub fn open(
        ctx: &Context,
        project: &Project,
        pipeline: &Pipeline,
        commit: &Commit,
        branch: &str,
        dir: &Path,
    ) -> Result<Self> {
        let user: String = ctx.var("USER").unwrap_or("unknown").chars().filter(char::is_ascii_alphanumeric).collect();
        let slug = format!("gh/{}/{}", if user.is_empty() { "unknown" } else { &user }, project.app.name);
        let kept = fs::read(dir.join("circleci.json")).ok();
        let kept: Option<MockState> = kept.and_then(|text| serde_json::from_slice(&text).ok());
        let mut state = kept.filter(|state| state.slug == slug).unwrap_or_else(|| MockState::new(&slug));
        // Valid only for this run.
        let now = ctx.now().as_nanosecond();
        let token = format!("CCIPAT_local_{}", digest::of(format!("{now} {}", std::process::id()).as_bytes()));
        state.tokens = vec![token.clone()];
        project.ci.branch.clone_into(&mut state.default_branch);
        state.parameters_declared = pipeline.parameters.iter().map(|parameter| parameter.name.clone()).collect();
        state.branches.insert(branch.to_owned(), commit.sha.clone());
        if state.definitions.is_empty() {
            let (id, created_at) = (state.uuid(), state.now());
            let (name, provider) = ("build".to_owned(), "github_oauth".to_owned());
            let file_path = gangplank_deploy::ci::generate::CONFIGS[0].to_owned();
            state.definitions.push(Definition { id, name, provider, file_path, created_at });
        }
        Ok(Self { server: Loopback::start(state)?, token, dir: dir.to_owned() })
    }

    /// Adds a push of `commit` to `branch`; returns the UUID of its pipeline.
    pub fn push(&self, branch: &str, commit: &Commit) -> String {
        let mut state = self.server.state();
        let now = state.now();
        state.push(branch, &commit.sha, now)
    }

    /// Triggers a pipeline with parameters through the API; returns its UUID.
    pub fn trigger(&self, ctx: &Context, branch: &str, parameters: &Value) -> Result<String> {
        let ctx = ctx.with_vars(self.client_variables().map(|(name, value)| (name.to_owned(), value)));
        let definition = self.server.state().definitions.first().map(|it| it.id.clone());
        match gangplank_system::circleci::CircleCi::open(&ctx, None)?.trigger(
            definition.as_deref(),
            branch,
            parameters,
        )? {
            gangplank_system::circleci::Triggered::Started(started) => Ok(started.id),
            gangplank_system::circleci::Triggered::NotStarted(reason) => {
                gangplank_model::error::failed(format!("nothing was started: {reason}"))
                    .hint("see `cargo xtask ci run --help`")
                    .err()
            }
        }
    }

    /// Variables for a client: address, a token valid for this run, and the project.
    pub(crate) fn client_variables(&self) -> [(&'static str, String); 3] {
        let slug = self.server.state().slug.clone();
        [("CIRCLE_HOST", self.server.url()), ("CIRCLE_TOKEN", self.token.clone()), ("CIRCLE_PROJECT_SLUG", slug)]
    }

    /// Starts a workflow with all its jobs.
    pub fn begin(&self, pipeline: &str, workflow: &Workflow) -> Running {
        let mut state = self.server.state();
        let id = state.add_workflow(pipeline, &workflow.name);
        let mut jobs = BTreeMap::new();
        for job in &workflow.jobs {
            let requires: Vec<&str> = job.requires.iter().map(String::as_str).collect();
            let job_id = match job.kind {
                Kind::Approval => state.add_approval(&id, &job.name, &requires),
                Kind::Work(_) => state.add_job(&id, &job.name, &requires),
            };
            jobs.insert(job.name.clone(), job_id);
        }
        Running { pipeline: pipeline.to_owned(), workflow: id, jobs }
    }

    /// Starts a job with steps.
    pub fn start(&self, running: &Running, job: &Job) -> Started {
        let id = running.jobs[&job.name].clone();
        let number = self.server.state().start_job(&id);
        Started { id, number }
    }

    /// Ends a job, with the status of a local run.
    pub fn end(&self, running: &Running, job: &Job, status: &str) {
        let status = match status {
            "success" | "approved" => JobStatus::Success,
            "failed" => JobStatus::Failed,
            "on hold" => JobStatus::OnHold,
            _ => JobStatus::NotRun,
        };
        self.server.state().end_job(&running.jobs[&job.name], status);
    }

    /// Ends a workflow.
    pub fn finish(&self, running: &Running, failed: bool, held: bool, stopped: bool) {
        let status = match (stopped, failed, held) {
            (true, ..) => WorkflowStatus::Canceled,
            (_, true, _) => WorkflowStatus::Failed,
            (_, _, true) => WorkflowStatus::OnHold,
            _ => WorkflowStatus::Success,
        };
        self.server.state().set_workflow_status(&running.workflow, status);
    }

    /// Stores a file as an artifact of a job.
    pub fn store(&self, number: u64, path: &str, from: &Path) -> Result<()> {
        let to = self.dir.join("artifacts").join(number.to_string()).join(path);
        let what = || format!("cannot copy {} to {}", from.display(), to.display());
        let copied = fs::create_dir_all(to.parent().unwrap_or(&self.dir)).and_then(|()| fs::copy(from, &to));
        copied.with_hint(ErrorKind::Failed, what, || "check free space: `df -h .`".into())?;
        self.server.state().store_artifact(number, path, 0, to);
        Ok(())
    }

    /// CircleCI's variables of a job; the token only if a context or the project would provide it.
    pub fn variables(&self, running: &Running, started: &Started, with_token: bool) -> Vec<(String, String)> {
        let state = self.server.state();
        let number = state.pipeline(&running.pipeline).map_or(0, |pipeline| pipeline.number);
        let mut vars: Vec<(String, String)> = state.envvars_for_job().into_iter().collect();
        vars.extend(
            [
                ("CIRCLE_BUILD_NUM", started.number.to_string()),
                ("CIRCLE_HOST", self.server.url()),
                ("CIRCLE_PIPELINE_ID", running.pipeline.clone()),
                ("CIRCLE_PROJECT_ID", state.project_id.clone()),
                ("CIRCLE_PROJECT_SLUG", state.slug.clone()),
                ("CIRCLE_WORKFLOW_ID", running.workflow.clone()),
                ("CIRCLE_WORKFLOW_JOB_ID", started.id.clone()),
                ("CIRCLE_WORKFLOW_WORKSPACE_ID", running.workflow.clone()),
                ("PIPELINE_NUMBER", number.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        if with_token {
            vars.push(("CIRCLE_TOKEN".into(), self.token.clone()));
        }
        vars
    }
}

impl Drop for Cloud {
    /// Saves the state for the next run, without the token and without the artifacts of old jobs.
    fn drop(&mut self) {
        let mut state = self.server.state();
        state.tokens.clear();
        let numbers: Vec<u64> = state.artifacts.keys().copied().collect();
        for number in &numbers[..numbers.len().saturating_sub(JOBS_KEPT)] {
            state.expire_artifacts(*number);
            let _ = fs::remove_dir_all(self.dir.join("artifacts").join(number.to_string()));
        }
        if let Ok(text) = serde_json::to_vec(&*state) {
            let aside = self.dir.join("circleci.json.new");
            // A failure loses only the state of local runs, and the next one starts anew.
            let _ = fs::write(&aside, text).and_then(|()| fs::rename(&aside, self.dir.join("circleci.json")));
        }
    }
}
