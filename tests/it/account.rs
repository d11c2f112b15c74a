//! A project of a test on a CircleCI of this machine: jobs of it that really build and store, and the variables that
//! CircleCI gives to each.

use crate::project::{Project, Ran};
use gangplank_loopback::{Definition, Hook, JobStatus, Loopback, MockState, WorkflowStatus};
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};

pub const TOKEN: &str = "CCIPAT_account_5ec3e7a0b1c2d3e4f5";
pub const SLUG: &str = "gh/acme/shop";

pub struct Account {
    pub server: Loopback,
    dir: PathBuf,
}

/// A build job that has ended.
#[derive(Debug, Clone)]
pub struct Built {
    pub pipeline: String,
    pub workflow: String,
    pub job: u64,
    pub sha: String,
    pub id: String,
}

impl Account {
    pub fn new(p: &Project) -> Self {
        Self::open(p, SLUG, Box::new(|_| None))
    }

    /// With a slug, and a hook for faults.
    pub fn open(p: &Project, slug: &str, hook: Hook) -> Self {
        let mut state = MockState::new(slug);
        state.tokens.push(TOKEN.into());
        state.next_job_number = 12;
        let (id, created_at) = (state.uuid(), state.now());
        let (name, provider, file_path) = ("ship".into(), "github_app".into(), ".circleci/config.yml".into());
        state.definitions.push(Definition { id, name, provider, file_path, created_at });
        state.parameters_declared = ["deploy-env", "rollback-env", "release", "reason"].map(str::to_owned).into();
        let server = Loopback::start_with(state, hook).unwrap();
        let dir = p.path("target").join(server.url().replace(['/', ':'], "-"));
        Self { server, dir }
    }

    /// What a laptop needs to ask it.
    pub fn laptop(&self) -> Vec<(String, String)> {
        let slug = self.server.state().slug.clone();
        vars(&[("CIRCLE_HOST", &self.server.url()), ("CIRCLE_TOKEN", TOKEN), ("CIRCLE_PROJECT_SLUG", &slug)])
    }

    /// What a job gets: the variables of the project, CircleCI's own, and those of our config. No token.
    pub fn job(&self, job: u64, branch: &str, sha: &str) -> Vec<(String, String)> {
        let state = self.server.state();
        let mut all: Vec<_> = state.envvars_for_job().into_iter().collect();
        let workspace = self.dir.join(format!("workspace-{}-{sha}", branch.replace('/', "-"))).display().to_string();
        all.extend(vars(&[
            ("CIRCLECI", "true"),
            ("CIRCLE_BRANCH", branch),
            ("CIRCLE_BUILD_NUM", &job.to_string()),
            ("CIRCLE_SHA1", sha),
            ("CIRCLE_USERNAME", "ana"),
            ("CIRCLE_HOST", &self.server.url()),
            ("CIRCLE_PROJECT_SLUG", &state.slug),
            ("GANGPLANK_WORKSPACE", &workspace),
        ]));
        all
    }

    /// The same with the token that a context brings, and without the workspace of the build.
    pub fn other_workflow(&self, job: u64, branch: &str, sha: &str) -> Vec<(String, String)> {
        let mut all = self.with_token(job, branch, sha);
        let nowhere = self.dir.join("nothing-attached").display().to_string();
        all.push(("GANGPLANK_WORKSPACE".into(), nowhere));
        all
    }

    pub fn with_token(&self, job: u64, branch: &str, sha: &str) -> Vec<(String, String)> {
        let mut all = self.job(job, branch, sha);
        all.push(("CIRCLE_TOKEN".into(), TOKEN.into()));
        all
    }

    /// A push of HEAD to a branch, whose build job builds, puts and stores, and succeeds.
    pub fn build(&self, p: &Project, branch: &str) -> Built {
        let sha = p.git(&["rev-parse", "HEAD"]);
        let mut state = self.server.state();
        let now = state.now();
        let pipeline = state.push(branch, &sha, now);
        drop(state);
        self.build_in(p, &pipeline, branch, &sha)
    }

    /// The same in a pipeline that is there.
    pub fn build_in(&self, p: &Project, pipeline: &str, branch: &str, sha: &str) -> Built {
        let (workflow, job, id) = self.start(pipeline, "build");
        let vars = self.job(job, branch, sha);
        let built = p.run_with("build --json", &vars).ok();
        let built: serde_json::Value = serde_json::from_str(&built.stdout).unwrap();
        p.run_with("put", &vars).ok();
        let workspace = vars.iter().find(|(name, _)| name == "GANGPLANK_WORKSPACE").unwrap();
        self.store(job, &Path::new(&workspace.1).join("releases"), "releases");
        self.end(&workflow, &id, JobStatus::Success);
        // The job's machine is gone.
        fs::remove_dir_all(p.path("target/releases")).unwrap();
        let id = built["release"].as_str().unwrap().to_owned();
        Built { pipeline: pipeline.to_owned(), workflow, job, sha: sha.to_owned(), id }
    }

    /// A workflow with one job that runs: UUID of the workflow, number and UUID of the job.
    pub fn start(&self, pipeline: &str, job: &str) -> (String, u64, String) {
        let mut state = self.server.state();
        let workflow = state.add_workflow(pipeline, "build-deploy-dev");
        let id = state.add_job(&workflow, job, &[]);
        (workflow, state.start_job(&id), id)
    }

    pub fn end(&self, workflow: &str, job: &str, status: JobStatus) {
        let mut state = self.server.state();
        state.end_job(job, status);
        let status = if status == JobStatus::Success { WorkflowStatus::Success } else { WorkflowStatus::Failed };
        state.set_workflow_status(workflow, status);
    }

    /// The step `store_artifacts`: copies, because the job's machine is gone afterwards.
    pub fn store(&self, job: u64, from: &Path, destination: &str) {
        let kept = self.dir.join(format!("artifacts-{job}"));
        for file in files(from) {
            let path = format!("{destination}/{}", file.display());
            let to = kept.join(&path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from.join(&file), &to).unwrap();
            self.server.state().store_artifact(job, &path, 0, to);
        }
    }

    /// The file that a job stored under a path.
    pub fn stored(&self, job: u64, path: &str) -> PathBuf {
        self.dir.join(format!("artifacts-{job}")).join(path)
    }

    pub fn publish(&self, p: &Project, built: &Built, branch: &str) -> Ran {
        p.run_with(&format!("publish {}", built.id), &self.with_token(built.job + 1000, branch, &built.sha))
    }

    pub fn pointer(&self) -> Option<String> {
        self.server.state().envvars.get("LATEST_BUILD_NUM").map(|it| it.value.clone())
    }

    /// From now on it is so many days ago on the server.
    pub fn days_ago(&self, days: i64) {
        let then = Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
        self.server.state().time = Some(then);
    }
}

/// A project that uses only artifacts.
pub fn project() -> Project {
    let mut p = Project::new();
    p.change("store file:store\n", "store circleci:workspace\nstore circleci:artifacts\nhandoff artifacts\n");
    p
}

pub fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).flatten() {
        let name = PathBuf::from(entry.file_name());
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|file| name.join(file)));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}
