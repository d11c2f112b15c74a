//! `ci run`: the pipeline on this machine, without Docker. Each job gets a clean checkout of HEAD, CircleCI's variables
//! and nothing that another job did not persist.
//!
//! What is not imitated: images and resource classes, contexts (the environment of this shell takes their place),
//! serial groups (jobs run one after another), and cargo's caches (cargo's own on this machine take their place).

use crate::build::is_cargos_own;
use crate::ci::pipeline::{Condition, Job, Kind, PERSISTED, Pipeline, Step, Values, Work, Workflow, Xtask};
use crate::ci::workspace::Layers;
use crate::cx::{self, Cx};
use crate::deploy::report;
use crate::error::{self, Explain, Failure, Result, failed, usage};
use crate::event::{Event, ms_since};
use crate::git;
use crate::project::Project;
use crate::release::id::ReleaseId;
use crate::release::manifest::Commit;
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Where runs keep their jobs, below the workspace root.
pub const DIR: &str = "target/ci";

/// What to run.
pub struct Options<'a> {
    /// Only this job and those that it requires.
    pub job: Option<&'a str>,
    /// The branch that CircleCI would see, instead of the one that is checked out.
    pub branch: Option<&'a str>,
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
    cx: &'a Cx,
    project: &'a Project,
    workflow: &'a Workflow,
    values: &'a Values,
    commit: &'a Commit,
    branch: &'a str,
    dir: PathBuf,
    layers: Layers,
}

/// Runs a pipeline. Fails with the kind of failure of the first job that failed.
pub fn run(cx: &Cx, project: &Project, pipeline: &Pipeline, options: &Options) -> Result<CiRun> {
    let commit = git::commit(cx)?;
    let Some(branch) = options.branch.map(str::to_owned).or(commit.branch.clone()) else {
        return usage("HEAD is detached: CircleCI would know the branch, we do not")
            .hint("say it: `cargo xtask ci run --branch main`")
            .err();
    };
    let values = pipeline.values(&branch, &[])?;
    let (workflows, wanted) = wanted(pipeline, &values, options.job)?;
    if commit.dirty {
        cx.warn("changes that are not committed are not part of this run: CircleCI would not have them either");
    }
    let dir = cx.root.join(DIR);
    let _only_one = alone(&dir)?;
    for sub in ["jobs", "layers", "artifacts"] {
        let _ = fs::remove_dir_all(dir.join(sub));
    }
    let before = live(cx, project)?;
    let mut jobs: Vec<JobEnd> = Vec::new();
    let mut failure = None;
    for workflow in workflows {
        let layers = Layers::new(dir.join("layers").join(&workflow.name));
        let (dir, values) = (dir.clone(), &values);
        let run = Run { cx, project, workflow, values, commit: &commit, branch: &branch, dir, layers };
        let (ends, failed) = run.jobs(&wanted, options.approve);
        jobs.extend(ends);
        failure = failure.or(failed);
    }
    if let Some((job, error)) = failure {
        let hint = error::hint_of(&error).unwrap_or("its words are above").to_owned();
        return Failure::new(error::kind_of(&error), format!("job `{job}` failed: {error:#}")).hint(hint).err();
    }
    if cx.interrupted() {
        return failed("stopped by a signal").hint("`cargo xtask ci run` starts again").err();
    }
    let now = live(cx, project)?;
    Ok(CiRun { commit: commit.sha.clone(), changed: now != before, branch, jobs, live: now })
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
    fs::create_dir_all(dir).explain(error::Kind::Failed, what, || "check its permissions".into())?;
    let file = File::create(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Failure::new(error::Kind::Locked, "another `cargo xtask ci run` is at work in this checkout")
            .hint("wait until it has ended")
            .err(),
    }
}

fn live(cx: &Cx, project: &Project) -> Result<Vec<Live>> {
    let all = report::status(cx, project, None)?;
    Ok(all
        .into_iter()
        .map(|host| Live { env: host.env, target: host.target, release: host.release, since: host.since })
        .collect())
}

impl Run<'_> {
    /// Runs the jobs that are wanted, each when those that it requires succeeded, and keeps the first failure.
    fn jobs(
        &self,
        wanted: &[String],
        approve: &dyn Fn(&str) -> Result<bool>,
    ) -> (Vec<JobEnd>, Option<(String, anyhow::Error)>) {
        let mut jobs: Vec<JobEnd> = Vec::new();
        let mut failure = None;
        for job in self.workflow.jobs.iter().filter(|job| wanted.contains(&job.name)) {
            let ready = job
                .requires
                .iter()
                .all(|name| jobs.iter().any(|end| end.job == *name && matches!(end.status, "success" | "approved")));
            let started = Instant::now();
            let status = if !ready || self.cx.interrupted() || self.is_filtered_out(job) {
                "not run"
            } else {
                match self.job(job, approve) {
                    Ok(status) => status,
                    Err(error) => {
                        failure = failure.or(Some((job.name.clone(), error)));
                        "failed"
                    }
                }
            };
            let ms = ms_since(started);
            self.cx.emit(Event::JobEnded { job: job.name.clone(), ms, status: status.into() });
            jobs.push(JobEnd { job: job.name.clone(), status, ms });
        }
        (jobs, failure)
    }

    fn is_filtered_out(&self, job: &Job) -> bool {
        let Some(filter) = job.filter.as_ref().filter(|filter| !filter.holds(self.values)) else { return false };
        self.cx.note(match filter {
            Condition::Branch(only) => format!("{} runs only on {only}, this is {}", job.name, self.branch),
            other => format!("{} runs only when {}", job.name, other.expression()),
        });
        true
    }

    fn job(&self, job: &Job, approve: &dyn Fn(&str) -> Result<bool>) -> Result<&'static str> {
        self.cx.emit(Event::JobStarted { job: job.name.clone() });
        match &job.kind {
            Kind::Approval => Ok(if approve(&job.name)? { "approved" } else { "on hold" }),
            Kind::Work(work) => self.work(job, work).map(|()| "success"),
        }
    }

    fn work(&self, job: &Job, work: &Work) -> Result<()> {
        let dir = self.dir.join("jobs").join(&job.name);
        let (project, workspace) = (dir.join("project"), dir.join("workspace"));
        fs::create_dir_all(&dir).explain(
            error::Kind::Failed,
            || format!("cannot make {}", dir.display()),
            || "check its permissions".into(),
        )?;
        let number = self.next_number()?;
        let variables = work.variables(self.values);
        for step in &work.steps {
            if self.cx.interrupted() {
                return failed("stopped by a signal").hint("`cargo xtask ci run` starts again").err();
            }
            match step {
                Step::Checkout => git::checkout(self.cx, &self.commit.sha, self.branch, &project)?,
                // Cargo's downloads are those of this machine.
                Step::RestoreCargoCache | Step::SaveCargoCache => {}
                Step::Persist { root, paths } => self.layers.persist(&job.name, &local(root, &workspace), paths)?,
                Step::Attach { at } => {
                    let files = self.layers.attach(self.workflow, &job.name, &local(at, &workspace))?;
                    self.cx.note(format!("attached {files} file(s) of the jobs before"));
                }
                Step::StoreArtifacts { path, destination } => {
                    self.artifacts(job, &local(path, &workspace), destination)?;
                }
                Step::Xtask { name, args, by } => {
                    let mut command = match by {
                        Xtask::Cargo => Command::new(self.cx.var("CARGO").unwrap_or("cargo")),
                        Xtask::Persisted => Command::new(workspace.join(PERSISTED)),
                    };
                    if *by == Xtask::Cargo {
                        command.arg("xtask");
                    }
                    command.args(args.iter().map(|arg| arg.resolve(&variables))).current_dir(&project);
                    self.environment(&mut command, job, number, &workspace, &project);
                    command.envs(variables.iter().map(|(name, value)| (name, value)));
                    let code = self.cx.watch(command)?;
                    if code != Some(0) {
                        return Failure::new(error::Kind::from_code(code), format!("step `{name}` {}", cx::exit(code)))
                            .hint(format!(
                                "its words are above; to run the job alone: `cargo xtask ci run {}`",
                                job.name
                            ))
                            .err();
                    }
                }
            }
        }
        Ok(())
    }

    fn artifacts(&self, job: &Job, from: &Path, destination: &str) -> Result<()> {
        if !from.exists() {
            self.cx.warn(format!("job `{}`: no artifacts at {}", job.name, from.display()));
            return Ok(());
        }
        let kept = Layers::new(self.dir.join("artifacts"));
        let name = format!("{}/{destination}", job.name);
        kept.persist(&name, from, &["*".into()])
    }

    /// The numbers of jobs go up from run to run, as CircleCI's do.
    fn next_number(&self) -> Result<u64> {
        let path = self.dir.join("build-num");
        let number = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0) + 1;
        fs::write(&path, number.to_string())?;
        Ok(number)
    }

    /// CircleCI's variables, and ours that say where this machine keeps what CircleCI keeps elsewhere.
    fn environment(&self, command: &mut Command, job: &Job, number: u64, workspace: &Path, project: &Path) {
        for name in self.cx.vars().keys().filter(|name| is_cargos_own(name) || name.starts_with("CIRCLE_")) {
            command.env_remove(name);
        }
        let workflow = format!("local-{}", &self.commit.sha[..8]);
        let url = format!("file://{}", project.display());
        let user = self.cx.var("USER").unwrap_or("somebody");
        let app = self.project.app.name;
        for (name, value) in [
            ("CI", "true"),
            ("CIRCLECI", "true"),
            ("CIRCLE_BRANCH", self.branch),
            ("CIRCLE_BUILD_NUM", &number.to_string()),
            ("CIRCLE_BUILD_URL", &url),
            ("CIRCLE_JOB", &job.name),
            ("CIRCLE_NODE_INDEX", "0"),
            ("CIRCLE_NODE_TOTAL", "1"),
            ("CIRCLE_PROJECT_REPONAME", app),
            ("CIRCLE_PROJECT_USERNAME", user),
            ("CIRCLE_SHA1", &self.commit.sha),
            ("CIRCLE_USERNAME", user),
            ("CIRCLE_WORKFLOW_ID", &workflow),
            ("CIRCLE_WORKFLOW_JOB_ID", &format!("{workflow}-{number}")),
            ("CIRCLE_WORKFLOW_WORKSPACE_ID", &workflow),
            ("CIRCLE_WORKING_DIRECTORY", &project.display().to_string()),
            ("PIPELINE_NUMBER", &number.to_string()),
            (cx::var::HOME, &self.cx.home.display().to_string()),
            (cx::var::WORKSPACE, &workspace.display().to_string()),
            ("CARGO_TARGET_DIR", &self.dir.join("cargo").display().to_string()),
        ] {
            command.env(name, value);
        }
    }
}

/// The directory of a job that stands for an absolute one of CircleCI's machines.
fn local(path: &str, workspace: &Path) -> PathBuf {
    match Path::new(path).strip_prefix(crate::store::WORKSPACE) {
        Ok(rest) => workspace.join(rest),
        Err(_) => PathBuf::from(path),
    }
}
