//! The account behind the server: one project and its history, as plain data.
//!
//! The caller changes it with the methods here; requests read it, and change what requests may change. Methods panic
//! for the id of a missing pipeline, workflow or job.

use gangplank_model::release::digest;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The project and its history.
#[allow(clippy::struct_excessive_bools, reason = "each is a way in which accounts differ, not a state")]
#[derive(Serialize, Deserialize)]
pub struct MockState {
    /// `gh/acme/shop`, `bb/acme/shop`, or the opaque `circleci/<org>/<project>`.
    pub slug: String,
    /// The project's UUID.
    pub project_id: String,
    /// The project's name.
    pub project_name: String,
    /// The organization's UUID.
    pub organization_id: String,
    /// The organization's name.
    pub organization_name: String,
    /// The UUID of the only user.
    pub user_id: String,
    /// The login of the user.
    pub login: String,
    /// The default branch.
    pub default_branch: String,
    /// Valid personal API tokens. One that starts with `CCIPRJ_` is a project token, valid for v1.1 only.
    pub tokens: Vec<String>,
    /// Items per page.
    pub page_size: usize,
    /// In creation order.
    pub pipelines: Vec<Pipeline>,
    /// In creation order.
    pub workflows: Vec<Workflow>,
    /// In creation order.
    pub jobs: Vec<Job>,
    /// Artifacts by job number.
    pub artifacts: BTreeMap<u64, Vec<Artifact>>,
    /// The project's environment variables.
    pub envvars: BTreeMap<String, Variable>,
    /// The project's settings.
    #[serde(default)]
    pub settings: Settings,
    /// The organization's contexts, with the names of their variables.
    #[serde(default)]
    pub contexts: BTreeMap<String, Vec<String>>,
    /// Components known to the Deploys page.
    #[serde(default)]
    pub components: Vec<String>,
    /// Pipeline definitions for `pipeline/run`; may be empty.
    pub definitions: Vec<Definition>,
    /// Parameters declared in the config; others are rejected.
    pub parameters_declared: Vec<String>,
    /// The revision at the head of each branch.
    pub branches: BTreeMap<String, String>,
    /// The revision of each tag.
    pub tags: BTreeMap<String, String>,
    /// Behaves like a GitHub App project: pipelines have no `vcs`, and the older trigger does not work.
    pub app_style: bool,
    /// Whether API v1.1 supports the project.
    pub supports_v1: bool,
    /// Whether the commit message has `[skip ci]`, so that `pipeline/run` starts nothing.
    pub skip_ci: bool,
    /// The retention of artifacts.
    pub retention: SignedDuration,
    /// The number of the next job.
    pub next_job_number: u64,
    /// The current time; the system clock if `None`.
    pub time: Option<Timestamp>,
    /// Files served by storage, by the signature in their URL.
    #[serde(skip)]
    pub(super) signed: BTreeMap<String, PathBuf>,
    ids: u64,
}

/// The settings of a project that are served.
#[derive(Default, Serialize, Deserialize)]
pub struct Settings {
    /// Whether a push cancels running pipelines of its branch, except the default one.
    pub autocancel_builds: bool,
    /// Whether pull requests from forks are built.
    pub build_fork_prs: bool,
    /// Whether these receive the secrets.
    pub forks_receive_secret_env_vars: bool,
}

/// A pipeline.
#[derive(Serialize, Deserialize)]
pub struct Pipeline {
    /// The UUID.
    pub id: String,
    /// The number within the project.
    pub number: u64,
    /// The branch, unless it runs for a tag.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The commit.
    pub revision: String,
    /// Time of creation.
    pub created_at: Timestamp,
    /// The parameters of an API trigger; `None` for a push.
    pub parameters: Option<Map<String, Value>>,
}

/// A run of a workflow. A rerun is another one in the same pipeline.
#[derive(Serialize, Deserialize)]
pub struct Workflow {
    /// The UUID.
    pub id: String,
    /// The name in the config.
    pub name: String,
    /// The pipeline's UUID.
    pub pipeline: String,
    /// The status.
    pub status: WorkflowStatus,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the end.
    pub stopped_at: Option<Timestamp>,
    /// UUIDs of its jobs. A job not repeated by a rerun is in both workflows.
    pub jobs: Vec<String>,
}

/// A job, or an approval.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// The UUID.
    pub id: String,
    /// The name in the workflow.
    pub name: String,
    /// The UUID of its latest workflow.
    pub workflow: String,
    /// The pipeline's UUID.
    pub pipeline: String,
    /// The number within the project, once started. Approvals have none.
    pub number: Option<u64>,
    /// The status.
    pub status: JobStatus,
    /// UUIDs of the required jobs.
    pub requires: Vec<String>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the start.
    pub started_at: Option<Timestamp>,
    /// Time of the end.
    pub stopped_at: Option<Timestamp>,
    /// The approval request of an approval; `None` for a job with steps.
    pub approval_request_id: Option<String>,
    /// The UUID of the approver.
    pub approved_by: Option<String>,
}

/// An artifact of a job.
#[derive(Serialize, Deserialize)]
pub struct Artifact {
    /// The path below the job's artifacts.
    pub path: String,
    /// The index of the parallel run that stored it.
    pub node_index: u32,
    /// The file on this machine.
    pub file: PathBuf,
    /// Time of the upload.
    pub stored_at: Timestamp,
}

/// An environment variable of the project.
#[derive(Serialize, Deserialize)]
pub struct Variable {
    /// The value, which the API never shows.
    pub value: String,
    /// Time of the last change.
    pub created_at: Timestamp,
}

/// A pipeline definition.
#[derive(Serialize, Deserialize)]
pub struct Definition {
    /// The UUID.
    pub id: String,
    /// The name.
    pub name: String,
    /// `github_app`, `github_oauth`, `bitbucket_oauth`, ...
    pub provider: String,
    /// The config's path in the repository.
    pub file_path: String,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// The status of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are CircleCI's")]
pub enum JobStatus {
    Success,
    Running,
    NotRun,
    Failed,
    Retried,
    Queued,
    NotRunning,
    InfrastructureFail,
    Timedout,
    OnHold,
    #[serde(rename = "terminated-unknown")]
    TerminatedUnknown,
    Blocked,
    Canceled,
    Unauthorized,
}

/// The status of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are CircleCI's")]
pub enum WorkflowStatus {
    Success,
    Running,
    NotRun,
    Failed,
    Error,
    Failing,
    OnHold,
    Canceled,
    Unauthorized,
}

impl JobStatus {
    /// Whether the job has ended.
    pub fn ended(self) -> bool {
        !matches!(self, Self::Running | Self::Queued | Self::NotRunning | Self::OnHold | Self::Blocked)
    }
}

impl WorkflowStatus {
    /// Whether the workflow has ended.
    pub fn ended(self) -> bool {
        !matches!(self, Self::Running | Self::Failing | Self::OnHold)
    }
}

impl MockState {
    /// A project without pipelines or tokens.
    pub fn new(slug: &str) -> Self {
        let mut parts = slug.split('/').skip(1).map(str::to_owned);
        let (organization_name, project_name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let app_style = slug.starts_with("circleci/");
        let mut state = Self {
            slug: slug.to_owned(),
            project_id: String::new(),
            project_name,
            organization_id: String::new(),
            organization_name,
            user_id: String::new(),
            login: "ana".into(),
            default_branch: "main".into(),
            tokens: Vec::new(),
            page_size: 20,
            pipelines: Vec::new(),
            workflows: Vec::new(),
            jobs: Vec::new(),
            artifacts: BTreeMap::new(),
            envvars: BTreeMap::new(),
            settings: Settings::default(),
            contexts: BTreeMap::new(),
            components: Vec::new(),
            definitions: Vec::new(),
            parameters_declared: Vec::new(),
            branches: BTreeMap::new(),
            tags: BTreeMap::new(),
            app_style,
            supports_v1: !app_style,
            skip_ci: false,
            retention: SignedDuration::from_hours(30 * 24),
            next_job_number: 1,
            time: None,
            signed: BTreeMap::new(),
            ids: 0,
        };
        state.project_id = state.uuid();
        state.organization_id = state.uuid();
        state.user_id = state.uuid();
        state
    }

    /// A UUID that looks random and is the same in every run.
    pub fn uuid(&mut self) -> String {
        self.ids += 1;
        digest::uuid(&format!("{} {}", self.slug, self.ids))
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.time.unwrap_or_else(Timestamp::now)
    }

    /// Adds a push to a branch; returns the UUID of its pipeline.
    pub fn push(&mut self, branch: &str, revision: &str, created_at: Timestamp) -> String {
        self.branches.insert(branch.to_owned(), revision.to_owned());
        self.add_pipeline(Some(branch.to_owned()), None, revision, created_at, None)
    }

    pub(super) fn add_pipeline(
        &mut self,
        branch: Option<String>,
        tag: Option<String>,
        revision: &str,
        created_at: Timestamp,
        parameters: Option<Map<String, Value>>,
    ) -> String {
        let (id, number) = (self.uuid(), self.pipelines.len() as u64 + 1);
        let (revision, pipeline) = (revision.to_owned(), id.clone());
        self.pipelines.push(Pipeline { id, number, branch, tag, revision, created_at, parameters });
        pipeline
    }

    /// Starts a workflow of a pipeline; returns its UUID.
    pub fn add_workflow(&mut self, pipeline: &str, name: &str) -> String {
        assert!(self.pipeline(pipeline).is_some(), "no pipeline {pipeline}");
        let (id, created_at) = (self.uuid(), self.now());
        self.workflows.push(Workflow {
            id: id.clone(),
            name: name.to_owned(),
            pipeline: pipeline.to_owned(),
            status: WorkflowStatus::Running,
            created_at,
            stopped_at: None,
            jobs: Vec::new(),
        });
        id
    }

    /// Adds a job to a workflow, with the names of the required jobs; returns its UUID.
    pub fn add_job(&mut self, workflow: &str, name: &str, requires: &[&str]) -> String {
        let requires = self.workflow_jobs(workflow).filter(|job| requires.contains(&job.name.as_str()));
        let requires = requires.map(|job| job.id.clone()).collect();
        self.insert_job(workflow, name, requires)
    }

    /// Adds an approval like [`Self::add_job`].
    pub fn add_approval(&mut self, workflow: &str, name: &str, requires: &[&str]) -> String {
        let id = self.add_job(workflow, name, requires);
        self.job_mut(&id).approval_request_id = Some(id.clone());
        id
    }

    fn insert_job(&mut self, workflow: &str, name: &str, requires: Vec<String>) -> String {
        let (id, created_at) = (self.uuid(), self.now());
        let it = self.workflow_mut(workflow);
        it.jobs.push(id.clone());
        let pipeline = it.pipeline.clone();
        self.jobs.push(Job {
            id: id.clone(),
            name: name.to_owned(),
            pipeline,
            workflow: workflow.to_owned(),
            number: None,
            status: if requires.is_empty() { JobStatus::Queued } else { JobStatus::Blocked },
            requires,
            created_at,
            started_at: None,
            stopped_at: None,
            approval_request_id: None,
            approved_by: None,
        });
        id
    }

    /// Starts a job; returns its number.
    pub fn start_job(&mut self, job: &str) -> u64 {
        let (now, next) = (self.now(), self.next_job_number);
        let job = self.job_mut(job);
        job.status = JobStatus::Running;
        job.started_at = Some(now);
        let number = *job.number.get_or_insert(next);
        self.next_job_number = next.max(number + 1);
        number
    }

    /// Ends a job.
    pub fn end_job(&mut self, job: &str, status: JobStatus) {
        let now = self.now();
        let job = self.job_mut(job);
        (job.status, job.stopped_at) = (status, Some(now));
    }

    /// Puts an approval and its workflow on hold.
    pub fn hold(&mut self, job: &str) {
        let job = self.job_mut(job);
        job.status = JobStatus::OnHold;
        let workflow = job.workflow.clone();
        self.workflow_mut(&workflow).status = WorkflowStatus::OnHold;
    }

    /// Whether a person has approved.
    pub fn approved(&self, job: &str) -> bool {
        self.job(job).is_some_and(|job| job.approved_by.is_some())
    }

    /// Changes the status of a workflow.
    pub fn set_workflow_status(&mut self, workflow: &str, status: WorkflowStatus) {
        let now = self.now();
        let workflow = self.workflow_mut(workflow);
        (workflow.status, workflow.stopped_at) = (status, status.ended().then_some(now));
    }

    /// Reruns from failed: a new workflow in the same pipeline. Successful jobs are kept with their numbers; the others
    /// are to be run again.
    pub fn rerun_from_failed(&mut self, workflow: &str) -> String {
        let old = self.workflow_mut(workflow);
        let (pipeline, name, jobs) = (old.pipeline.clone(), old.name.clone(), old.jobs.clone());
        let rerun = self.add_workflow(&pipeline, &name);
        let mut renamed = BTreeMap::new();
        for old in jobs {
            let job = self.job_mut(&old);
            let (name, approval) = (job.name.clone(), job.approval_request_id.is_some());
            let requires = job.requires.iter().map(|id| renamed.get(id).unwrap_or(id).clone()).collect();
            if job.status == JobStatus::Success {
                job.workflow.clone_from(&rerun);
                self.workflow_mut(&rerun).jobs.push(old);
                continue;
            }
            let new = self.insert_job(&rerun, &name, requires);
            self.job_mut(&new).approval_request_id = approval.then(|| new.clone());
            renamed.insert(old, new);
        }
        rerun
    }

    /// Stores an artifact, replacing one at the same path.
    pub fn store_artifact(&mut self, number: u64, path: &str, node_index: u32, file: PathBuf) {
        let artifact = Artifact { path: path.to_owned(), node_index, file, stored_at: self.now() };
        let stored = self.artifacts.entry(number).or_default();
        stored.retain(|it| it.path != path || it.node_index != node_index);
        stored.push(artifact);
    }

    /// Removes the artifacts of a job, as after [`MockState::retention`].
    pub fn expire_artifacts(&mut self, number: u64) {
        self.artifacts.remove(&number);
    }

    /// The remaining artifacts of a job.
    pub(crate) fn artifacts_of(&self, number: u64) -> impl Iterator<Item = &Artifact> {
        let oldest = self.now().saturating_sub(self.retention);
        let oldest = oldest.unwrap_or(Timestamp::MIN);
        self.artifacts.get(&number).into_iter().flatten().filter(move |it| it.stored_at > oldest)
    }

    /// The variables of a job that starts now.
    pub fn envvars_for_job(&self) -> BTreeMap<String, String> {
        self.envvars.iter().map(|(name, variable)| (name.clone(), variable.value.clone())).collect()
    }

    /// The parameters of a pipeline's API trigger; `None` for a push.
    pub fn triggered(&self, pipeline: &str) -> Option<&Map<String, Value>> {
        self.pipeline(pipeline)?.parameters.as_ref()
    }

    /// A pipeline by its UUID.
    pub fn pipeline(&self, id: &str) -> Option<&Pipeline> {
        self.pipelines.iter().find(|pipeline| pipeline.id == id)
    }

    /// A workflow by its UUID.
    pub fn workflow(&self, id: &str) -> Option<&Workflow> {
        self.workflows.iter().find(|workflow| workflow.id == id)
    }

    /// A job by its UUID.
    pub fn job(&self, id: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == id)
    }

    /// A job by its number.
    pub fn job_numbered(&self, number: u64) -> Option<&Job> {
        self.jobs.iter().find(|job| job.number == Some(number))
    }

    /// The jobs of a workflow, in insertion order.
    pub(crate) fn workflow_jobs(&self, workflow: &str) -> impl Iterator<Item = &Job> {
        let jobs = self.workflow(workflow).into_iter().flat_map(|workflow| &workflow.jobs);
        jobs.filter_map(|id| self.job(id))
    }

    fn workflow_mut(&mut self, id: &str) -> &mut Workflow {
        let found = self.workflows.iter_mut().find(|workflow| workflow.id == id);
        found.unwrap_or_else(|| panic!("no workflow {id}"))
    }

    pub(super) fn job_mut(&mut self, id: &str) -> &mut Job {
        let found = self.jobs.iter_mut().find(|job| job.id == id);
        found.unwrap_or_else(|| panic!("no job {id}"))
    }
}
