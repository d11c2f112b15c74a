//! Runs a workflow, job by job and step by step.

use crate::run::cloud::{JobResult, Started};
use crate::run::{JobEnd, LOGS, Run};
use crate::workspace::files_below;
use gangplank_model::ci::pipeline::{Condition, Job, Kind, LAUNCHER, PERSISTED, Step, Work, Xtask};
use gangplank_model::error;
use gangplank_model::error::{CliError, Result, WithHint, failed};
use gangplank_model::event::{Event, ms_since};
use gangplank_system::context;
use gangplank_system::context::is_cargos_own;
use gangplank_system::git;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The number of lines, and the maximum of bytes, shown of a step that fails.
const SHOWN: usize = 60;
const SHOWN_BYTES: u64 = 64 << 10;

impl Run<'_> {
    /// Runs the wanted jobs in order, each after the success of those it requires; returns the first failure.
    pub(super) fn jobs(
        &self,
        wanted: &[String],
        approve: &dyn Fn(&str) -> Result<bool>,
    ) -> (Vec<JobEnd>, Option<(String, anyhow::Error)>) {
        let mut jobs: Vec<JobEnd> = Vec::new();
        let mut failure = None;
        for job in self.workflow.jobs.iter().filter(|job| wanted.contains(&job.name)) {
            let ready = job.requires.iter().all(|name| {
                jobs.iter()
                    .any(|end| end.job == *name && matches!(end.status, JobResult::Success | JobResult::Approved))
            });
            let started = Instant::now();
            let status = if !ready || self.ctx.interrupted() || self.is_filtered_out(job) {
                JobResult::NotRun
            } else {
                match self.job(job, approve) {
                    Ok(status) => status,
                    Err(error) => {
                        failure = failure.or(Some((job.name.clone(), error)));
                        JobResult::Failed
                    }
                }
            };
            let ms = ms_since(started);
            self.cloud.end_job(&self.running, job, status);
            self.ctx.emit(Event::JobEnded { job: job.name.clone(), ms, status: status.as_str().into() });
            jobs.push(JobEnd { job: job.name.clone(), status, ms });
        }
        (jobs, failure)
    }

    fn is_filtered_out(&self, job: &Job) -> bool {
        let Some(filter) = job.filter.as_ref().filter(|filter| !filter.holds(self.values)) else { return false };
        self.ctx.note(match filter {
            Condition::Branch(only) => format!("{} runs only on {only}, this is {}", job.name, self.branch),
            other => format!("{} runs only when {}", job.name, other.expression()),
        });
        true
    }

    fn job(&self, job: &Job, approve: &dyn Fn(&str) -> Result<bool>) -> Result<JobResult> {
        match &job.kind {
            Kind::Approval => Ok(if approve(&job.name)? { JobResult::Approved } else { JobResult::OnHold }),
            Kind::Work(work) => {
                self.ctx.emit(Event::JobStarted { job: job.name.clone() });
                self.work(job, work).map(|()| JobResult::Success)
            }
        }
    }

    fn work(&self, job: &Job, work: &Work) -> Result<()> {
        let dir = self.dir.join("jobs").join(&job.name);
        fs::create_dir_all(&dir).with_hint(
            error::Kind::Failed,
            || format!("cannot make {}", dir.display()),
            || "check its permissions".into(),
        )?;
        let started = self.cloud.start_job(&self.running, job);
        let variables = work.variables(self.values);
        let mut done = Ok(());
        for step in &work.steps {
            if self.ctx.interrupted() {
                return failed("stopped by a signal").hint("run `cargo xtask ci run` again").err();
            }
            // As on CircleCI, these run after a failure too.
            let runs_always = matches!(step, Step::StoreArtifacts { .. } | Step::Xtask { always: true, .. });
            if done.is_err() && !runs_always {
                continue;
            }
            let ended = self.one(job, step, &started, &variables, &dir);
            done = done.and(ended);
        }
        done
    }

    fn one(&self, job: &Job, step: &Step, started: &Started, variables: &[(String, String)], dir: &Path) -> Result<()> {
        let (project, workspace) = (dir.join("project"), dir.join("workspace"));
        match step {
            Step::Checkout => git::checkout(self.ctx, &self.commit.sha, self.branch, &project)?,
            // Those of this machine.
            Step::AddSshKeys => {}
            Step::Persist { root, paths } => self.layers.persist(&job.name, &local(root, &workspace), paths)?,
            Step::Attach { at } => {
                self.layers.attach(self.workflow, &job.name, &local(at, &workspace))?;
            }
            Step::StoreArtifacts { path, destination } => {
                self.artifacts(job, started.number, &project.join(local(path, &workspace)), destination)?;
            }
            Step::Xtask { name, args, by, .. } => {
                let mut command = match by {
                    Xtask::Persisted => Command::new(workspace.join(PERSISTED)),
                    Xtask::Cargo | Xtask::Launched => Command::new(self.ctx.var("CARGO").unwrap_or("cargo")),
                };
                let features = features_of_jobs(self.ctx.var(context::var::FEATURES));
                match (by, &features) {
                    (Xtask::Persisted, _) => {}
                    (Xtask::Cargo, None) => drop(command.arg("xtask")),
                    (Xtask::Launched, None) => {
                        command.args(["run", "--quiet", "--manifest-path", LAUNCHER, "--"]);
                    }
                    // The launcher knows the program without features.
                    (Xtask::Cargo | Xtask::Launched, Some(features)) => {
                        command.args(context::run_xtask(&project, Some(features)));
                    }
                }
                command.args(args.iter().map(|arg| arg.resolve(variables))).current_dir(&project);
                self.environment(&mut command, job, started, &workspace, &project);
                command.envs(features.map(|features| (context::var::FEATURES, features)));
                command.envs(variables.iter().map(|(name, value)| (name, value)));
                self.step(job, name, command)?;
            }
        }
        Ok(())
    }

    /// Runs a step. Its output is in a file, and shown if the step fails.
    fn step(&self, job: &Job, name: &str, command: Command) -> Result<()> {
        let path = self.dir.join(LOGS).join(format!("{}.log", job.name));
        let code = if self.shows_output {
            self.ctx.watch(command)?
        } else {
            let what = || format!("cannot write {}", path.display());
            let opened = fs::create_dir_all(path.parent().unwrap_or(&self.dir))
                .and_then(|()| File::options().create(true).append(true).open(&path));
            let hint = || "check free space and permissions: `df -h target`".into();
            let mut log = opened.with_hint(error::Kind::Failed, what, hint)?;
            writeln!(log, "== {name}").with_hint(error::Kind::Failed, what, hint)?;
            let begin = log.metadata().map_or(0, |file| file.len());
            let code = self.ctx.watch_into(command, &log)?;
            if code != Some(0) {
                self.show(job, name, &path, begin);
            }
            code
        };
        if code == Some(0) {
            return Ok(());
        }
        CliError::new(error::Kind::from_code(code), format!("step `{name}` {}", context::exit(code)))
            .hint(format!(
                "see its output above; run only this job and those it requires with `cargo xtask ci run {}{}`",
                job.name, self.flags
            ))
            .err()
    }

    /// Shows the end of what a step has printed: of the file from `begin` on.
    fn show(&self, job: &Job, name: &str, path: &Path, begin: u64) {
        let mut output = Vec::new();
        let _ = File::open(path).and_then(|mut file| {
            let begin = begin.max(file.metadata()?.len().saturating_sub(SHOWN_BYTES));
            file.seek(SeekFrom::Start(begin))?;
            file.take(SHOWN_BYTES).read_to_end(&mut output)
        });
        let output = String::from_utf8_lossy(&output);
        let lines: Vec<_> = output.lines().collect();
        let end = &lines[lines.len().saturating_sub(SHOWN)..];
        let shown: String = end.iter().map(|line| format!("\n  | {line}")).collect();
        self.ctx.note(format!("{}, step `{name}`, the end of {}:{shown}", job.name, path.display()));
    }

    fn artifacts(&self, job: &Job, number: u64, from: &Path, destination: &str) -> Result<()> {
        if !from.exists() {
            self.ctx.warn(format!("job `{}`: no artifacts at {}", job.name, from.display()));
            return Ok(());
        }
        for file in files_below(from)? {
            self.cloud.store(number, &format!("{destination}/{}", file.display()), &from.join(&file))?;
        }
        Ok(())
    }

    /// CircleCI's variables, and those that replace CircleCI's storage by local directories.
    fn environment(&self, command: &mut Command, job: &Job, started: &Started, workspace: &Path, project: &Path) {
        // The tokens of this shell belong to the real CircleCI, which local jobs must not use.
        let foreign = |name: &str| name.starts_with("CIRCLE_") || ["API_TOKEN", "ARTIFACT_TOKEN"].contains(&name);
        for name in self.ctx.vars().keys().filter(|name| is_cargos_own(name) || foreign(name)) {
            command.env_remove(name);
        }
        let signs = self.project.ci.sign.is_some_and(|context| job.contexts.iter().any(|it| it == context));
        if !signs {
            command.env_remove(context::var::SIGNING_KEY);
        }
        let with_token = self.project.ci.context.is_none_or(|context| job.contexts.iter().any(|it| it == context));
        command.envs(self.cloud.variables(&self.running, started, with_token));
        command.envs(self.extra_vars.iter().map(|(name, value)| (name, value)));
        let url = format!("file://{}", project.display());
        let user = self.ctx.var("USER").unwrap_or("unknown");
        let app = self.project.app.name;
        for (name, value) in [
            ("CI", "true"),
            ("CIRCLECI", "true"),
            ("CIRCLE_BRANCH", self.branch),
            ("CIRCLE_BUILD_URL", &url),
            ("CIRCLE_JOB", &job.name),
            ("CIRCLE_NODE_INDEX", "0"),
            ("CIRCLE_NODE_TOTAL", "1"),
            ("CIRCLE_PROJECT_REPONAME", app),
            ("CIRCLE_PROJECT_USERNAME", user),
            ("CIRCLE_SHA1", &self.commit.sha),
            ("CIRCLE_USERNAME", user),
            ("CIRCLE_WORKING_DIRECTORY", &project.display().to_string()),
            (context::var::HOME, &self.ctx.home.display().to_string()),
            (context::var::WORKSPACE, &workspace.display().to_string()),
            ("CARGO_TARGET_DIR", &self.dir.join("cargo").display().to_string()),
        ] {
            command.env(name, value);
        }
    }
}

/// The features of `ci run`.
const OWN: [&str; 2] = ["gangplank/local-ci", "gangplank/loopback"];

/// The features of the xtask in jobs, of those of this process: all but [`OWN`], so that `cargo xtask` compiles what it
/// does on CircleCI.
fn features_of_jobs(ours: Option<&str>) -> Option<String> {
    let features: Vec<_> = ours.into_iter().flat_map(|ours| ours.split(',')).filter(|it| !OWN.contains(it)).collect();
    (!features.is_empty()).then(|| features.join(","))
}

/// The local directory for an absolute one in a CircleCI job.
fn local(path: &str, workspace: &Path) -> PathBuf {
    match Path::new(path).strip_prefix(gangplank_model::store_url::WORKSPACE) {
        Ok(rest) => workspace.join(rest),
        Err(_) => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_have_the_features_but_local_ci() {
        assert_eq!(features_of_jobs(None), None);
        assert_eq!(features_of_jobs(Some("gangplank/local-ci")), None);
        assert_eq!(features_of_jobs(Some("gangplank/local-ci,gangplank/loopback,s3")).as_deref(), Some("s3"));
        assert_eq!(features_of_jobs(Some("s3")).as_deref(), Some("s3"));
    }
}
