//! Follows a pipeline on CircleCI to its end, with approvals on the way.

use gangplank_model::error::{CliError, Kind, Result, failed, kind_of};
use gangplank_system::circleci::CircleCi;
use gangplank_system::circleci::model::{Job, Pipeline, Started, Workflow};
use gangplank_system::context::Context;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The pause between two polls, and after the first ones.
const LOOK: Duration = Duration::from_secs(4);
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// The number of polls without a workflow after which no workflow took the parameters: after `created` all workflows
/// exist, and only replicas of the API may lag.
const WORKFLOWLESS: usize = 8;
/// The same limit while CircleCI reads the config.
const UNREAD: usize = 40;

/// Asks a person; `None` without a terminal.
pub type Asking<'a> = &'a dyn Fn(&str) -> Result<Option<bool>>;

/// The end of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct End {
    /// `success`, or `on_hold` if the approval could not be asked for.
    pub status: String,
    /// Status of each job, by name.
    pub jobs: BTreeMap<String, String>,
}

/// What to do after a poll.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Poll again.
    Wait,
    /// All workflows have ended, the worst with this status.
    Ended(String),
}

/// Follows a pipeline to its end. Fails if it does not succeed. `approve` is called for each approval: `None` leaves it
/// on hold and stops following.
pub fn follow(ctx: &Context, api: &CircleCi, started: &Started, approve: Asking) -> Result<End> {
    let (mut known, mut approved) = (BTreeMap::new(), BTreeSet::new());
    // Polls without any workflow: while CircleCI reads the config, and after.
    let (mut unread, mut workflowless) = (0, 0);
    let goes_on = |error: anyhow::Error| goes_on(started, &error);
    for look in 0.. {
        // The state is read first, so that it applies to the workflows read after it.
        let pipeline = api.pipeline(&started.id).map_err(goes_on)?;
        let jobs = all_jobs(api, started).map_err(goes_on)?;
        for line in changes(&mut known, &jobs) {
            ctx.note(line);
        }
        if jobs.is_empty() {
            *(if pipeline.state == "created" { &mut workflowless } else { &mut unread }) += 1;
            started_at_all(&pipeline, workflowless > WORKFLOWLESS || unread > UNREAD)?;
        }
        for (workflow, job) in waiting(&jobs) {
            let Some(request) = &job.approval_request_id else { continue };
            // CircleCI may still show it on hold after the approval.
            if !approved.insert(request.clone()) {
                continue;
            }
            match approve(&job.name)? {
                Some(true) => api.approve(&workflow.id, &job.name, request).map_err(goes_on)?,
                Some(false) | None => return Ok(End { status: "on_hold".into(), jobs: statuses(&jobs) }),
            }
        }
        match next(&jobs) {
            Next::Ended(status) if status == "success" => return Ok(End { status, jobs: statuses(&jobs) }),
            Next::Ended(status) => return Err(ended_badly(api, started, &status, &jobs).into()),
            Next::Wait => {}
        }
        pause(ctx, if look < 6 { FIRST_LOOK } else { LOOK })?;
    }
    unreachable!("the loop above has no end of its own")
}

/// Replaces the usual hint: running the same command again would start a second pipeline.
fn goes_on(started: &Started, error: &anyhow::Error) -> anyhow::Error {
    let text = format!("pipeline {} continues, but cannot be followed: {error:#}", started.number);
    let hint = "check it in CircleCI, or with `cargo xtask status`; do not trigger it again";
    CliError::new(kind_of(error), text).hint(hint).into()
}

fn all_jobs(api: &CircleCi, started: &Started) -> Result<Vec<(Workflow, Vec<Job>)>> {
    let workflows = api.workflows(&started.id)?.into_iter();
    workflows.map(|workflow| Ok((workflow.clone(), api.jobs(&workflow.id)?))).collect()
}

/// Whether a pipeline without workflows can still get one.
fn started_at_all(pipeline: &Pipeline, too_long: bool) -> Result<()> {
    if pipeline.state == "errored" {
        let errors: Vec<_> = pipeline.errors.iter().map(|error| error.message.as_str()).collect();
        return failed(format!(
            "CircleCI cannot run the config of pipeline {}: {}",
            pipeline.number,
            errors.join("; ")
        ))
        .hint("check the config with `cargo xtask ci generate --check` and `cargo xtask ci lint`")
        .err();
    }
    if too_long {
        return failed(format!("no workflow of the config took the parameters of pipeline {}", pipeline.number))
            .hint("run `cargo xtask ci generate`, commit and push: the branch may lack the generated config")
            .err();
    }
    Ok(())
}

fn pause(ctx: &Context, pause: Duration) -> Result<()> {
    for _ in 0..(pause.as_millis() / 50) {
        if ctx.interrupted() {
            return failed("stopped following; the pipeline continues")
                .hint("check what is live with `cargo xtask status`")
                .err();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A line for each job whose status has changed.
fn changes(known: &mut BTreeMap<(String, String), String>, jobs: &[(Workflow, Vec<Job>)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (workflow, jobs) in jobs {
        for job in jobs {
            let key = (workflow.id.clone(), job.name.clone());
            if known.insert(key, job.status.clone()).as_ref() != Some(&job.status) {
                lines.push(format!("{}/{}: {}", workflow.name, job.name, job.status));
            }
        }
    }
    lines
}

fn waiting(jobs: &[(Workflow, Vec<Job>)]) -> impl Iterator<Item = (&Workflow, &Job)> {
    let each = jobs.iter().flat_map(|(workflow, jobs)| jobs.iter().map(move |job| (workflow, job)));
    each.filter(|(_, job)| job.kind == "approval" && job.status == "on_hold")
}

fn statuses(jobs: &[(Workflow, Vec<Job>)]) -> BTreeMap<String, String> {
    jobs.iter().flat_map(|(_, jobs)| jobs).map(|job| (job.name.clone(), job.status.clone())).collect()
}

fn next(jobs: &[(Workflow, Vec<Job>)]) -> Next {
    let running = |status: &str| matches!(status, "running" | "failing" | "on_hold");
    if jobs.is_empty() || jobs.iter().any(|(workflow, _)| running(&workflow.status)) {
        return Next::Wait;
    }
    let bad = jobs.iter().find(|(workflow, _)| workflow.status != "success");
    Next::Ended(bad.map_or("success", |(workflow, _)| &workflow.status).to_owned())
}

fn ended_badly(api: &CircleCi, started: &Started, status: &str, jobs: &[(Workflow, Vec<Job>)]) -> CliError {
    let bad = jobs.iter().flat_map(|(_, jobs)| jobs).find(|job| {
        matches!(job.status.as_str(), "failed" | "timedout" | "infrastructure_fail" | "unauthorized" | "canceled")
    });
    let job = bad.map(|job| format!(", job `{}` {}", job.name, job.status)).unwrap_or_default();
    let url = bad.and_then(|job| job.job_number).and_then(|number| api.job(number).ok()).map(|job| job.web_url);
    let hint = match (status, url) {
        ("canceled", _) => {
            "trigger it again: a push to a branch other than the default one cancels its pipelines".into()
        }
        ("unauthorized", _) => "ask for access to the context of the job: the user of this token may not use it".into(),
        (_, Some(url)) => format!("its log: {url}"),
        (_, None) => "look at it in CircleCI".into(),
    };
    CliError::new(Kind::Failed, format!("pipeline {} ended with `{status}`{job}", started.number)).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `"w success: a success, b failed"`: a workflow with its jobs.
    fn jobs(text: &str) -> Vec<(Workflow, Vec<Job>)> {
        let one = |line: &str| {
            let (head, jobs) = line.split_once(": ").unwrap();
            let (name, status) = head.split_once(' ').unwrap();
            let workflow = json!({ "id": name, "name": name, "status": status, "created_at": "2026-08-01T00:00:00Z" });
            let job = |text: &str| {
                let (name, status) = text.split_once(' ').unwrap();
                let kind = if name.starts_with("approve") { "approval" } else { "build" };
                serde_json::from_value(json!({ "name": name, "type": kind, "status": status })).unwrap()
            };
            (serde_json::from_value(workflow).unwrap(), jobs.split(", ").map(job).collect())
        };
        text.lines().map(one).collect()
    }

    #[test]
    fn next_waits_until_all_workflows_have_ended() {
        for (text, want) in [
            ("w running: a success", Next::Wait),
            ("w success: a success\nv on_hold: approve on_hold", Next::Wait),
            ("w success: a success", Next::Ended("success".into())),
            ("w success: a success\nv failed: b failed", Next::Ended("failed".into())),
            ("w canceled: a canceled", Next::Ended("canceled".into())),
        ] {
            assert_eq!(next(&jobs(text)), want, "{text}");
        }
        assert_eq!(next(&[]), Next::Wait);
    }

    #[test]
    fn changes_are_reported_once() {
        let mut known = BTreeMap::new();
        assert_eq!(changes(&mut known, &jobs("w running: a running, b blocked")), ["w/a: running", "w/b: blocked"]);
        assert_eq!(changes(&mut known, &jobs("w running: a success, b blocked")), ["w/a: success"]);
        assert_eq!(changes(&mut known, &jobs("w running: a success, b blocked")), [""; 0]);
        assert_eq!(waiting(&jobs("w on_hold: a success, approve-prod on_hold")).count(), 1);
    }
}
