//! What CircleCI knows of the runs on this machine: pipelines, jobs with their numbers, artifacts, variables of the
//! project. A loopback API answers from it, so that jobs ask here what they would ask there; it is kept from run to run,
//! because a deploy may take what was built days ago.

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

/// How many jobs keep their artifacts: CircleCI goes by days, a laptop by space.
const JOBS_KEPT: usize = 20;

/// CircleCI, as far as a run on this machine needs it.
pub struct Cloud {
    server: Loopback,
    token: String,
    dir: PathBuf,
}

/// A workflow that runs.
pub struct Running {
    /// UUID of the pipeline.
    pub pipeline: String,
    /// UUID of the workflow.
    pub workflow: String,
    jobs: BTreeMap<String, String>,
}

/// A job that was started.
pub struct Started {
    /// UUID.
    pub id: String,
    /// Its number in the project.
    pub number: u64,
}

impl Cloud {
    /// Opens what runs before have left in `dir`.
    pub fn open(
        ctx: &Context,
        project: &Project,
        pipeline: &Pipeline,
        commit: &Commit,
        branch: &str,
        dir: &Path,
    ) -> Result<Self> {
        let user: String = ctx.var("USER").unwrap_or("somebody").chars().filter(char::is_ascii_alphanumeric).collect();
        let slug = format!("gh/{}/{}", if user.is_empty() { "somebody" } else { &user }, project.app.name);
        let kept = fs::read(dir.join("circleci.json")).ok();
        let kept: Option<MockState> = kept.and_then(|text| serde_json::from_slice(&text).ok());
        let mut state = kept.filter(|state| state.slug == slug).unwrap_or_else(|| MockState::new(&slug));
        // Good for this run alone.
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

    /// A push of `commit` to `branch`: UUID of its pipeline.
    pub fn push(&self, branch: &str, commit: &Commit) -> String {
        let mut state = self.server.state();
        let now = state.now();
        state.push(branch, &commit.sha, now)
    }

    /// Starts a pipeline with parameters as everybody does: through the API. Gives its UUID.
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

    /// By what a client finds it: its address, a token that is good as long as it answers, and the project.
    pub fn client_variables(&self) -> [(&'static str, String); 3] {
        let slug = self.server.state().slug.clone();
        [("CIRCLE_HOST", self.server.url()), ("CIRCLE_TOKEN", self.token.clone()), ("CIRCLE_PROJECT_SLUG", slug)]
    }

    /// A workflow begins: all its jobs are known from now on.
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

    /// A job with steps starts.
    pub fn start(&self, running: &Running, job: &Job) -> Started {
        let id = running.jobs[&job.name].clone();
        let number = self.server.state().start_job(&id);
        Started { id, number }
    }

    /// A job has ended, in the words of a run here.
    pub fn end(&self, running: &Running, job: &Job, status: &str) {
        let status = match status {
            "success" | "approved" => JobStatus::Success,
            "failed" => JobStatus::Failed,
            "on hold" => JobStatus::OnHold,
            _ => JobStatus::NotRun,
        };
        self.server.state().end_job(&running.jobs[&job.name], status);
    }

    /// A workflow has ended.
    pub fn finish(&self, running: &Running, failed: bool, held: bool, stopped: bool) {
        let status = match (stopped, failed, held) {
            (true, ..) => WorkflowStatus::Canceled,
            (_, true, _) => WorkflowStatus::Failed,
            (_, _, true) => WorkflowStatus::OnHold,
            _ => WorkflowStatus::Success,
        };
        self.server.state().set_workflow_status(&running.workflow, status);
    }

    /// Keeps a file as an artifact of a job.
    pub fn store(&self, number: u64, path: &str, from: &Path) -> Result<()> {
        let to = self.dir.join("artifacts").join(number.to_string()).join(path);
        let what = || format!("cannot copy {} to {}", from.display(), to.display());
        let copied = fs::create_dir_all(to.parent().unwrap_or(&self.dir)).and_then(|()| fs::copy(from, &to));
        copied.with_hint(ErrorKind::Failed, what, || "check free space: `df -h .`".into())?;
        self.server.state().store_artifact(number, path, 0, to);
        Ok(())
    }

    /// What a job's environment says about CircleCI, beside what the config says; the token only where a context, or the
    /// project, would bring it.
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
    /// Keeps it for the next run, without the token and without the artifacts of old jobs.
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
            // What is lost here is the memory of runs on this machine, which the next one begins anew.
            let _ = fs::write(&aside, text).and_then(|()| fs::rename(&aside, self.dir.join("circleci.json")));
        }
    }
}
