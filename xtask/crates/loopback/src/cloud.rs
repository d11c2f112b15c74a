//! The state of local runs, like that of CircleCI: pipelines, numbered jobs, artifacts, variables of the project. The
//! loopback API serves it to jobs; it is kept between runs, because a deploy may use an old build.

use crate::{Definition, JobStatus, Loopback, MockState, WorkflowStatus};
use gangplank_local_ci::run::cloud;
use gangplank_local_ci::run::cloud::{JobResult, Opening, Running, Started, WorkflowEnd};
use gangplank_model::ci::pipeline::{Job, Kind, Workflow};
use gangplank_model::error::{Result, failed};
use gangplank_model::release::digest;
use gangplank_system::circleci::{CircleCi, Triggered};
use gangplank_system::context::Context;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The file of the state.
const FILE: &str = "circleci.json";

/// The local CircleCI.
pub struct Cloud {
    server: Loopback,
    token: String,
    dir: PathBuf,
    branch: String,
    revision: String,
    /// UUIDs of jobs, by workflow and name.
    jobs: RefCell<BTreeMap<(String, String), String>>,
}

/// Opens the state left by earlier runs, and serves it.
pub fn open(of: &Opening) -> Result<Box<dyn cloud::Cloud>> {
    Ok(Box::new(Cloud::open(of)?))
}

impl Cloud {
    /// Opens the state left by earlier runs, and serves it.
    pub fn open(of: &Opening) -> Result<Self> {
        let Opening { ctx, project, pipeline, commit, branch, dir } = *of;
        let slug = cloud::slug(ctx, project);
        let kept = fs::read(dir.join(FILE)).ok();
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
        let (branch, revision) = (branch.to_owned(), commit.sha.clone());
        let server = Loopback::start(state)?;
        Ok(Self { server, token, dir: dir.to_owned(), branch, revision, jobs: RefCell::default() })
    }

    /// Variables for a client: address, a token valid for this run, and the project.
    pub fn client_variables(&self) -> [(&'static str, String); 3] {
        let slug = self.server.state().slug.clone();
        [("CIRCLE_HOST", self.server.url()), ("CIRCLE_TOKEN", self.token.clone()), ("CIRCLE_PROJECT_SLUG", slug)]
    }

    fn job_id(&self, running: &Running, job: &Job) -> String {
        self.jobs.borrow()[&(running.workflow.clone(), job.name.clone())].clone()
    }
}

impl cloud::Cloud for Cloud {
    fn start_pipeline(&self, ctx: &Context, parameters: Option<Map<String, Value>>) -> Result<String> {
        let Some(parameters) = parameters else {
            let mut state = self.server.state();
            let now = state.now();
            return Ok(state.push(&self.branch, &self.revision, now));
        };
        let ctx = ctx.with_vars(self.client_variables().map(|(name, value)| (name.to_owned(), value)));
        let definition = self.server.state().definitions.first().map(|it| it.id.clone());
        let api = CircleCi::open(&ctx, None)?;
        match api.trigger(definition.as_deref(), &self.branch, &Value::Object(parameters))? {
            Triggered::Started(started) => Ok(started.id),
            Triggered::NotStarted(reason) => {
                failed(format!("nothing was started: {reason}")).hint("see `cargo xtask ci run --help`").err()
            }
        }
    }

    fn start_workflow(&self, pipeline: &str, workflow: &Workflow) -> Running {
        let mut state = self.server.state();
        let mut jobs = self.jobs.borrow_mut();
        let id = state.add_workflow(pipeline, &workflow.name);
        for job in &workflow.jobs {
            let requires: Vec<&str> = job.requires.iter().map(String::as_str).collect();
            let job_id = match job.kind {
                Kind::Approval => state.add_approval(&id, &job.name, &requires),
                Kind::Work(_) => state.add_job(&id, &job.name, &requires),
            };
            jobs.insert((id.clone(), job.name.clone()), job_id);
        }
        Running { pipeline: pipeline.to_owned(), workflow: id }
    }

    fn start_job(&self, running: &Running, job: &Job) -> Started {
        let id = self.job_id(running, job);
        let number = self.server.state().start_job(&id);
        Started { id, number }
    }

    fn end_job(&self, running: &Running, job: &Job, end: JobResult) {
        let status = match end {
            JobResult::Success | JobResult::Approved => JobStatus::Success,
            JobResult::Failed => JobStatus::Failed,
            JobResult::OnHold => JobStatus::OnHold,
            JobResult::NotRun => JobStatus::NotRun,
        };
        self.server.state().end_job(&self.job_id(running, job), status);
    }

    fn end_workflow(&self, running: &Running, end: WorkflowEnd) {
        let status = match end {
            WorkflowEnd::Stopped => WorkflowStatus::Canceled,
            WorkflowEnd::Failed => WorkflowStatus::Failed,
            WorkflowEnd::OnHold => WorkflowStatus::OnHold,
            WorkflowEnd::Success => WorkflowStatus::Success,
        };
        self.server.state().set_workflow_status(&running.workflow, status);
    }

    fn store(&self, number: u64, path: &str, from: &Path) -> Result<()> {
        let to = cloud::keep_artifact(&self.dir, number, path, from)?;
        self.server.state().store_artifact(number, path, 0, to);
        Ok(())
    }

    fn variables(&self, running: &Running, started: &Started, with_token: bool) -> Vec<(String, String)> {
        let state = self.server.state();
        let number = state.pipeline(&running.pipeline).map_or(0, |pipeline| pipeline.number);
        let mut vars: Vec<(String, String)> = state.envvars_for_job().into_iter().collect();
        vars.extend(cloud::place(running, started, number, &state.slug));
        vars.push(("CIRCLE_HOST".into(), self.server.url()));
        vars.push(("CIRCLE_PROJECT_ID".into(), state.project_id.clone()));
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
        for number in cloud::prune_artifacts(&self.dir, &numbers) {
            state.expire_artifacts(number);
        }
        if let Ok(text) = serde_json::to_vec(&*state) {
            cloud::save(&self.dir, FILE, &text);
        }
    }
}
