//! CircleCI's deploy markers, for its Deploys page. In a CircleCI job, `circleci run release` of the job's agent
//! reports a deploy, without a token.
//!
//! Best effort: a failed marker never fails a deploy.

use crate::deploy::deployment::Deployment;
use crate::deploy::release_source::ReleaseSource;
use gangplank_model::error::Result;
use gangplank_model::history::Verb;
use gangplank_model::plan::{HostPlan, Step};
use gangplank_model::release::id::ReleaseId;
use gangplank_system::context::{Context, Input, Output, exit, var};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A slow marker must not delay a deploy.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest failure reason that is sent, in characters.
const REASON_MAX: usize = 200;

/// The parameters of a marker.
struct Subject<'a> {
    app: &'a str,
    env: &'a str,
    sha: &'a str,
    rollback: bool,
}

/// The status of a deploy.
enum Status<'a> {
    Running,
    Success,
    Failed(&'a str),
    Canceled,
}

/// The markers of one deploy; inactive outside CircleCI.
pub struct Markers<'ctx> {
    ctx: &'ctx Context,
    env: String,
    /// `None` after the first failed call.
    program: Option<PathBuf>,
    limit: Duration,
}

impl<'ctx> Markers<'ctx> {
    /// Reports the start of a deploy that switches a release.
    pub fn begin(
        site: &Deployment<'ctx>,
        verb: Verb,
        goal: Option<&ReleaseId>,
        plans: &[HostPlan],
        release: Option<&ReleaseSource>,
    ) -> Self {
        let ctx = site.ctx;
        let mut markers = Self { ctx, env: site.env.name.to_owned(), program: None, limit: LIMIT };
        let switches = plans.iter().flat_map(|plan| &plan.steps).any(|step| !matches!(step, Step::Remove { .. }));
        // A job of `ci run` on a laptop has a home of its own.
        let Some(goal) = goal.filter(|_| switches && ctx.in_ci() && ctx.var(var::HOME).is_none()) else {
            return markers;
        };
        markers.program = ctx.program_on_path("circleci");
        if markers.program.is_none() {
            return markers;
        }
        let on_host = || site.targets.iter().find_map(|target| target.manifest(goal).ok());
        let Some(manifest) = release.map(|release| release.manifest().clone()).or_else(on_host) else {
            return Self { program: None, ..markers };
        };
        markers.plan(&Subject {
            app: &manifest.app,
            env: site.env.name,
            sha: &manifest.commit.sha,
            rollback: verb == Verb::Rollback,
        });
        markers
    }

    fn plan(&mut self, subject: &Subject) {
        self.update(&plan_args(subject));
        self.update(&update_args(&self.env, &Status::Running));
    }

    /// Reports the end of the deploy.
    pub fn end(mut self, error: Option<&anyhow::Error>) {
        let reason = error.map(|error| one_line(&self.ctx.scrub(&format!("{error:#}"))));
        let status = match &reason {
            None => Status::Success,
            Some(_) if self.ctx.interrupted() => Status::Canceled,
            Some(reason) => Status::Failed(reason),
        };
        self.update(&update_args(&self.env, &status));
    }

    fn update(&mut self, args: &[String]) {
        let Some(program) = &self.program else { return };
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.ctx.root);
        if let Some(reason) = refusal(self.ctx.answer_within(command, Input::Empty, Some(self.limit), false)) {
            let what = args[..4].join(" ");
            self.ctx.warn(format!("deploy marker not sent: `circleci {what}` {}", one_line(&reason)));
            self.program = None;
        }
    }
}

fn refusal(answer: Result<Output>) -> Option<String> {
    match answer {
        Ok(answer) if answer.ok() => None,
        Ok(answer) => Some(format!("{}: {}", exit(answer.code), answer.stderr.trim())),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// The deploy name: equal in both calls, unique per env within a workflow.
fn deploy_name(env: &str) -> String {
    format!("deploy-{env}")
}

fn plan_args(subject: &Subject) -> Vec<String> {
    let mut args = ["run", "release", "plan"].map(str::to_owned).to_vec();
    args.extend([
        deploy_name(subject.env),
        format!("--target-version={}", subject.sha),
        format!("--environment-name={}", subject.env),
        format!("--component-name={}", subject.app),
    ]);
    if subject.rollback {
        args.push("--rollback".into());
    }
    args
}

fn update_args(env: &str, status: &Status) -> Vec<String> {
    let mut args = ["run", "release", "update"].map(str::to_owned).to_vec();
    let word = match status {
        Status::Running => "RUNNING",
        Status::Success => "SUCCESS",
        Status::Failed(_) => "FAILED",
        Status::Canceled => "CANCELED",
    };
    args.extend([deploy_name(env), format!("--status={word}")]);
    if let Status::Failed(reason) = status {
        args.push(format!("--failure-reason={reason}"));
    }
    args
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(REASON_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::event::{Event, Sink};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    #[test]
    fn marker_arguments_name_release_env_and_status() {
        let subject = |rollback| Subject { app: "shop", env: "prod", sha: "1a2b", rollback };
        let plan = "run release plan deploy-prod --target-version=1a2b --environment-name=prod --component-name=shop";
        let update = "run release update deploy-prod --status";
        for (args, line) in [
            (plan_args(&subject(false)), plan.to_owned()),
            (plan_args(&subject(true)), format!("{plan} --rollback")),
            (update_args("prod", &Status::Running), format!("{update}=RUNNING")),
            (update_args("prod", &Status::Success), format!("{update}=SUCCESS")),
            (update_args("prod", &Status::Canceled), format!("{update}=CANCELED")),
            (
                update_args("prod", &Status::Failed("it was reverted")),
                format!("{update}=FAILED --failure-reason=it was reverted"),
            ),
        ] {
            assert_eq!(args.join(" "), line);
        }
        assert_eq!(one_line("a\n  b\tc"), "a b c");
        assert_eq!(one_line(&"é".repeat(300)).chars().count(), REASON_MAX);
    }

    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);

    impl Sink for Warnings {
        fn emit(&self, event: &Event) {
            if let Event::Warning { text } = event {
                self.0.lock().unwrap().push(text.clone());
            }
        }
    }

    #[test]
    fn markers_after_a_hanging_agent_are_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("circleci");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let warnings = Warnings::default();
        let ctx = Context::new(dir.path().into(), std::iter::empty().collect(), Arc::new(warnings.clone()));
        let limit = Duration::from_millis(100);
        let mut markers = Markers { ctx: &ctx, env: "dev".into(), program: Some(program), limit };
        let started = Instant::now();
        markers.plan(&Subject { app: "shop", env: "dev", sha: "1a2b", rollback: false });
        markers.end(None);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let said = warnings.0.lock().unwrap().clone();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("`circleci run release plan deploy-dev`") && said[0].contains("did not end"),
            "{said:?}"
        );
    }
}
