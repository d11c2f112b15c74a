//! The part of API v1.1 that other clients still use: builds, their artifacts, the latest artifacts of a branch, and
//! the variables of a project.

use crate::auth::authenticate;
use crate::call::{Call, Handled};
use crate::message::{Body, Reply};
use crate::mock_state::{Job, JobStatus, MockState};
use crate::{output, v2};
use serde_json::{Value, json};

/// The default and maximum number of builds in a list, as documented for API v1.1.
const BUILDS: usize = 30;
const BUILDS_MAX: usize = 100;

/// Answers a path below `/api/v1.1`.
pub(super) fn answer(call: &mut Call, path: &str) -> Reply {
    let parts: Vec<_> = path.split('/').collect();
    if let Err(refused) = authenticate(call.state, call.request, true) {
        return refused;
    }
    match parts.as_slice() {
        ["", "me"] => v2::me(call).unwrap_or_else(|refused| refused),
        ["", "project", vcs, user, project, rest @ ..] => {
            if call.state.supports_v1 && is_project(call.state, vcs, &format!("{user}/{project}")) {
                of_project(call, rest)
            } else {
                Reply::message(404, "Project not found")
            }
        }
        _ => Reply::message(404, "Not found."),
    }
}

fn of_project(call: &mut Call, rest: &[&str]) -> Reply {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().unwrap_or(0));
    match (call.request.method.as_str(), rest) {
        ("GET", []) => builds(call, None),
        ("GET", ["tree", branch @ ..]) => builds(call, Some(&branch.join("/"))),
        // "Triggering by `tree/:branch` is not supported for version 2.1 configs", which ours are.
        ("POST", ["tree", ..]) => Reply::message(400, "Configs of version 2.1 are triggered through API v2."),
        ("GET", ["latest", "artifacts"]) => latest(call),
        ("GET", ["envvar"]) => {
            Reply::json(200, call.state.envvars.iter().map(|(name, it)| variable(v2::variable(name, it))).collect())
        }
        ("POST", ["envvar"]) => changed(v2::set_envvar(call)),
        ("GET" | "DELETE", ["envvar", name]) => {
            call.params = vec![String::new(), (*name).to_owned()];
            changed(if call.request.method == "GET" { v2::envvar(call) } else { v2::delete_envvar(call) })
        }
        ("GET", [text, rest @ ..]) if matches!(rest, [] | ["artifacts"]) => {
            match number(text).map(|number| call.state.job_numbered(number)) {
                None => Reply::message(404, "Not found."),
                Some(None) => Reply::message(404, "Build not found"),
                Some(Some(job)) if rest.is_empty() => Reply::json(200, build(call, job)),
                Some(Some(job)) => Reply::json(200, artifacts(call, job)),
            }
        }
        _ => Reply::message(404, "Not found."),
    }
}

/// The answer of API v2 about a variable, without fields that v1.1 lacks.
fn changed(answer: Handled) -> Reply {
    let mut reply = answer.unwrap_or_else(|refused| refused);
    if let Body::Json(value) = &mut reply.body {
        *value = variable(value.take());
    }
    reply
}

fn variable(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.remove("created-at");
    }
    value
}

/// The newest builds, of a branch or of all.
fn builds(call: &Call, branch: Option<&str>) -> Reply {
    let number = |name: &str| call.request.query.get(name).and_then(|text| text.parse::<usize>().ok());
    let (limit, offset) = (number("limit").unwrap_or(BUILDS).min(BUILDS_MAX), number("offset").unwrap_or(0));
    let branch_of = |job: &Job| call.state.pipeline(&job.pipeline).and_then(|pipeline| pipeline.branch.clone());
    let mut jobs: Vec<&Job> = call.state.jobs.iter().filter(|job| job.number.is_some()).collect();
    jobs.retain(|job| branch.is_none_or(|branch| branch_of(job).as_deref() == Some(branch)));
    jobs.sort_by_key(|job| std::cmp::Reverse(job.number));
    Reply::json(200, jobs.into_iter().skip(offset).take(limit).map(|job| build(call, job)).collect())
}

/// A job as a build, with the documented fields that clients use.
fn build(call: &Call, job: &Job) -> Value {
    let state = &*call.state;
    let pipeline = state.pipeline(&job.pipeline);
    let (outcome, lifecycle) = match job.status {
        JobStatus::Success => (json!("success"), "finished"),
        JobStatus::Running => (Value::Null, "running"),
        status if status.ended() => (json!("failed"), "finished"),
        _ => (Value::Null, "queued"),
    };
    json!({
        "build_num": job.number,
        "build_url": format!("{}/pipelines/{}/jobs/{}", call.api, state.slug, job.number.unwrap_or_default()),
        "username": state.organization_name,
        "reponame": state.project_name,
        "branch": pipeline.and_then(|it| it.branch.clone()),
        "vcs_tag": pipeline.and_then(|it| it.tag.clone()),
        "vcs_revision": pipeline.map(|it| it.revision.clone()),
        "status": job.status,
        "outcome": outcome,
        "lifecycle": lifecycle,
        "queued_at": job.created_at,
        "start_time": job.started_at,
        "stop_time": job.stopped_at,
        "has_artifacts": state.artifacts_of(job.number.unwrap_or_default()).next().is_some(),
        "workflows": {
            "job_id": job.id,
            "job_name": job.name,
            "workflow_id": job.workflow,
            "workflow_name": state.workflow(&job.workflow).map(|it| it.name.clone()),
            "workspace_id": job.workflow,
        },
    })
}

/// v1.1 has only the long names of the hosts.
fn is_project(state: &MockState, vcs: &str, name: &str) -> bool {
    let short = match vcs {
        "github" => "gh",
        "bitbucket" => "bb",
        _ => return false,
    };
    state.slug == format!("{short}/{name}") || state.slug == format!("{vcs}/{name}")
}

/// "The latest job run on a given branch": a deploy job without artifacts hides those of the build job.
fn latest(call: &Call) -> Reply {
    let (state, query) = (&*call.state, &call.request.query);
    let counts: fn(JobStatus) -> bool = match query.get("filter").map(String::as_str) {
        None | Some("") => |_| true,
        Some("completed") => JobStatus::ended,
        Some("successful") => |status| status == JobStatus::Success,
        Some("failed") => |status| status == JobStatus::Failed,
        Some("running") => |status| status == JobStatus::Running,
        Some(other) => return Reply::message(400, format!("Unknown filter: {other}")),
    };
    let on_branch = |job: &&Job| {
        let branch = state.pipeline(&job.pipeline).and_then(|pipeline| pipeline.branch.as_ref());
        query.get("branch").is_none_or(|wanted| branch == Some(wanted))
    };
    let jobs = state.jobs.iter().filter(|job| job.number.is_some() && counts(job.status)).filter(on_branch);
    Reply::json(200, jobs.max_by_key(|job| job.number).map_or_else(|| json!([]), |job| artifacts(call, job)))
}

fn artifacts(call: &Call, job: &Job) -> Value {
    let found = call.state.artifacts_of(job.number.unwrap_or_default());
    let items = found.map(|it| {
        let url = output::url(call.api, job, it);
        json!({ "path": it.path, "pretty_path": it.path, "node_index": it.node_index, "url": url })
    });
    items.collect()
}
