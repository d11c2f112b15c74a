//! API v1.1: the artifacts of a job, and of the latest job of a branch, whichever job that was.

use super::api::{Call, authenticate};
use super::http::Reply;
use super::output;
use super::world::{Job, JobStatus, World};
use serde_json::{Value, json};

/// Answers a path below `/api/v1.1`.
pub(super) fn answer(call: &Call, path: &str) -> Reply {
    let parts: Vec<_> = path.split('/').collect();
    let (slug, rest) = match parts.as_slice() {
        ["", "project", vcs, user, project, rest @ ..] => ((*vcs, format!("{user}/{project}")), rest),
        _ => return Reply::message(404, "Not found."),
    };
    let found = match rest {
        ["latest", "artifacts"] => None,
        [number, "artifacts"] if number.bytes().all(|byte| byte.is_ascii_digit()) => Some(number.parse().unwrap_or(0)),
        _ => return Reply::message(404, "Not found."),
    };
    if call.request.method != "GET" {
        return Reply::message(404, "Not found.");
    }
    if let Err(refused) = authenticate(call.world, call.request, true) {
        return refused;
    }
    if !call.world.supports_v1 || !is_project(call.world, slug.0, &slug.1) {
        return Reply::message(404, "Project not found");
    }
    match found {
        Some(number) => match call.world.job_numbered(number) {
            Some(job) => Reply::json(200, artifacts(call, job)),
            None => Reply::message(404, "Build not found"),
        },
        None => latest(call),
    }
}

/// v1.1 has the long names of the hosts only, and knows no others.
fn is_project(world: &World, vcs: &str, name: &str) -> bool {
    let short = match vcs {
        "github" => "gh",
        "bitbucket" => "bb",
        _ => return false,
    };
    world.slug == format!("{short}/{name}") || world.slug == format!("{vcs}/{name}")
}

/// "The latest job run on a given branch": a deploy job that stored nothing hides what the build job stored.
fn latest(call: &Call) -> Reply {
    let (world, query) = (&*call.world, &call.request.query);
    let counts: fn(JobStatus) -> bool = match query.get("filter").map(String::as_str) {
        None | Some("") => |_| true,
        Some("completed") => JobStatus::ended,
        Some("successful") => |status| status == JobStatus::Success,
        Some("failed") => |status| status == JobStatus::Failed,
        Some("running") => |status| status == JobStatus::Running,
        Some(other) => return Reply::message(400, format!("Unknown filter: {other}")),
    };
    let on_branch = |job: &&Job| {
        let branch = world.pipeline(&job.pipeline).and_then(|pipeline| pipeline.branch.as_ref());
        query.get("branch").is_none_or(|wanted| branch == Some(wanted))
    };
    let jobs = world.jobs.iter().filter(|job| job.number.is_some() && counts(job.status)).filter(on_branch);
    Reply::json(200, jobs.max_by_key(|job| job.number).map_or_else(|| json!([]), |job| artifacts(call, job)))
}

fn artifacts(call: &Call, job: &Job) -> Value {
    let found = call.world.artifacts_of(job.number.unwrap_or_default());
    let items = found.map(|it| {
        let url = output::url(call.api, job, it);
        json!({ "path": it.path, "pretty_path": it.path, "node_index": it.node_index, "url": url })
    });
    items.collect()
}
