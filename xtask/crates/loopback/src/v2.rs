//! The answers of API v2, field by field as in the specification.

use crate::call::{Call, Handled, is_uuid};
use crate::message::Reply;
use crate::mock_state::{Job, JobStatus, MockState, Pipeline, Variable, Workflow, WorkflowStatus};
use crate::output;
use gangplank_model::error::Result;
use serde_json::{Value, json};

#[allow(clippy::unnecessary_wraps, reason = "a handler like the others")]
pub(super) fn me(call: &mut Call) -> Handled {
    let state = &call.state;
    Ok(Reply::json(200, json!({ "id": state.user_id, "login": state.login, "name": state.login, "avatar_url": null })))
}

#[allow(clippy::unnecessary_wraps, reason = "a handler like the others")]
pub(super) fn project(call: &mut Call) -> Handled {
    let state = &call.state;
    let (provider, vcs_url) = match state.slug.split('/').next() {
        Some("bb" | "bitbucket") => ("Bitbucket", repository(state)),
        Some("circleci") => ("CircleCI", format!("//circleci.com/{}/{}", state.organization_id, state.project_id)),
        _ => ("GitHub", repository(state)),
    };
    Ok(Reply::json(
        200,
        json!({
            "id": state.project_id,
            "slug": state.slug,
            "name": state.project_name,
            "organization_id": state.organization_id,
            "organization_name": state.organization_name,
            "organization_slug": state.slug.rsplit_once('/').map_or("", |(organization, _)| organization),
            "vcs_info": { "provider": provider, "default_branch": state.default_branch, "vcs_url": vcs_url },
        }),
    ))
}

fn repository(state: &MockState) -> String {
    let host = if state.slug.starts_with('b') { "bitbucket.org" } else { "github.com" };
    format!("https://{host}/{}/{}", state.organization_name, state.project_name)
}

/// Four `x` and the last four characters. Showing a shorter value in full is an assumption: no source documents it.
fn masked(value: &str) -> String {
    let skip = value.chars().count().saturating_sub(4);
    format!("xxxx{}", value.chars().skip(skip).collect::<String>())
}

pub(super) fn variable(name: &str, it: &Variable) -> Value {
    json!({ "name": name, "value": masked(&it.value), "created-at": it.created_at.to_string() })
}

pub(super) fn envvars(call: &mut Call) -> Handled {
    call.page(call.state.envvars.iter().map(|(name, it)| (name.clone(), variable(name, it))).collect())
}

pub(super) fn envvar(call: &mut Call) -> Handled {
    let name = &call.params[1];
    match call.state.envvars.get(name) {
        Some(it) => Ok(Reply::json(200, variable(name, it))),
        None => Err(Reply::message(404, "Environment variable not found.")),
    }
}

/// Creates or replaces a variable.
pub(super) fn set_envvar(call: &mut Call) -> Handled {
    let object = call.object()?;
    let (Some(Value::String(name)), Some(Value::String(value))) = (object.get("name"), object.get("value")) else {
        return Err(Reply::message(400, "Both name and value have to be strings."));
    };
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.starts_with(|c: char| !c.is_ascii_digit());
    if !is_name {
        return Err(Reply::message(400, "Invalid name of an environment variable."));
    }
    let it = Variable { value: value.clone(), created_at: call.state.now() };
    let answer = variable(name, &it);
    call.state.envvars.insert(name.clone(), it);
    Ok(Reply::json(201, answer))
}

pub(super) fn delete_envvar(call: &mut Call) -> Handled {
    match call.state.envvars.remove(&call.params[1]) {
        Some(_) => Ok(Reply::message(200, "Environment variable deleted.")),
        None => Err(Reply::message(404, "Environment variable not found.")),
    }
}

fn numbered_job<'a>(call: &'a Call) -> Result<&'a Job, Reply> {
    let job = call.params[1].parse().ok().and_then(|number| call.state.job_numbered(number));
    job.ok_or_else(|| Reply::message(404, "Job not found."))
}

pub(super) fn artifacts(call: &mut Call) -> Handled {
    let job = numbered_job(call)?;
    let items = call.state.artifacts_of(job.number.unwrap_or_default()).map(|it| {
        let url = output::url(call.api, job, it);
        (url.clone(), json!({ "path": it.path, "node_index": it.node_index, "url": url }))
    });
    call.page(items.collect())
}

pub(super) fn job_details(call: &mut Call) -> Handled {
    let (state, job) = (&call.state, numbered_job(call)?);
    let workflow = state.workflow(&job.workflow).map_or("", |workflow| &workflow.name);
    let started = job.started_at.unwrap_or(job.created_at);
    let duration = job.stopped_at.map(|stopped| stopped.as_millisecond() - started.as_millisecond());
    Ok(Reply::json(
        200,
        json!({
            "number": job.number,
            "name": job.name,
            "status": job.status,
            "created_at": job.created_at,
            "queued_at": job.created_at,
            "started_at": started,
            "stopped_at": job.stopped_at,
            "duration": duration,
            "web_url": format!("{}/pipelines/{}/jobs/{}", call.api, state.slug, job.number.unwrap_or_default()),
            "parallelism": 1,
            "parallel_runs": [{ "index": 0, "status": job.status }],
            "executor": { "type": "docker", "resource_class": "medium" },
            "contexts": [],
            "messages": [],
            "latest_workflow": { "id": job.workflow, "name": workflow },
            "pipeline": { "id": job.pipeline },
            "project": {
                "id": state.project_id,
                "slug": state.slug,
                "name": state.project_name,
                "external_url": repository(state),
            },
            "organization": { "name": state.organization_name },
        }),
    ))
}

pub(super) fn job(call: &mut Call) -> Handled {
    let Some(job) = call.state.job(&call.params[0]) else { return Err(Reply::message(404, "Job not found.")) };
    let mut answer = json!({
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "type": kind(job),
        "project_id": call.state.project_id,
        "pipeline_id": job.pipeline,
        "workflow_id": job.workflow,
    });
    optional(&mut answer, "job_number", job.number);
    optional(&mut answer, "started_at", job.started_at);
    optional(&mut answer, "stopped_at", job.stopped_at);
    Ok(Reply::json(200, answer))
}

fn kind(job: &Job) -> &'static str {
    if job.approval_request_id.is_some() { "approval" } else { "build" }
}

/// Sets a field only if it has a value, because the specification has no null for it.
fn optional(object: &mut Value, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        object[name] = json!(value);
    }
}

fn pipeline_object(state: &MockState, it: &Pipeline) -> Value {
    let kind = if it.parameters.is_some() { "api" } else { "webhook" };
    let mut answer = json!({
        "id": it.id,
        "number": it.number,
        "project_slug": state.slug,
        "state": "created",
        "errors": [],
        "created_at": it.created_at,
        "updated_at": it.created_at,
        "trigger": {
            "type": kind,
            "received_at": it.created_at,
            "actor": { "login": state.login, "avatar_url": null },
        },
    });
    let mut git = if state.app_style {
        json!({ "checkout_sha": it.revision })
    } else {
        let (provider, url) = (if state.slug.starts_with('b') { "Bitbucket" } else { "GitHub" }, repository(state));
        json!({
            "provider_name": provider,
            "origin_repository_url": url,
            "target_repository_url": url,
            "revision": it.revision,
        })
    };
    optional(&mut git, "branch", it.branch.as_ref());
    optional(&mut git, "tag", it.tag.as_ref());
    if state.app_style {
        answer["trigger_parameters"] = json!({ "git": git });
    } else {
        answer["vcs"] = git;
    }
    answer
}

pub(super) fn pipelines(call: &mut Call) -> Handled {
    let branch = call.request.query.get("branch");
    let found = call.state.pipelines.iter().rev().filter(|it| branch.is_none() || it.branch.as_ref() == branch);
    call.page(found.map(|it| (it.id.clone(), pipeline_object(call.state, it))).collect())
}

pub(super) fn numbered_pipeline(call: &mut Call) -> Handled {
    let number = call.params[1].parse::<u64>().ok();
    let found = call.state.pipelines.iter().find(|it| Some(it.number) == number);
    found.map_or_else(no_pipeline, |it| Ok(Reply::json(200, pipeline_object(call.state, it))))
}

pub(super) fn pipeline(call: &mut Call) -> Handled {
    let found = call.state.pipeline(&call.params[0]);
    found.map_or_else(no_pipeline, |it| Ok(Reply::json(200, pipeline_object(call.state, it))))
}

fn no_pipeline() -> Handled {
    Err(Reply::message(404, "Pipeline not found."))
}

fn workflow_object(state: &MockState, it: &Workflow) -> Value {
    json!({
        "id": it.id,
        "name": it.name,
        "status": it.status,
        "created_at": it.created_at,
        "stopped_at": it.stopped_at,
        "pipeline_id": it.pipeline,
        "pipeline_number": state.pipeline(&it.pipeline).map_or(0, |pipeline| pipeline.number),
        "project_slug": state.slug,
        "started_by": state.user_id,
    })
}

/// The latest first, so that a rerun precedes its original.
pub(super) fn workflows(call: &mut Call) -> Handled {
    let Some(pipeline) = call.state.pipeline(&call.params[0]) else { return no_pipeline() };
    let found = call.state.workflows.iter().rev().filter(|it| it.pipeline == pipeline.id);
    call.page(found.map(|it| (it.id.clone(), workflow_object(call.state, it))).collect())
}

fn found_workflow<'a>(call: &'a Call) -> Result<&'a Workflow, Reply> {
    if !is_uuid(&call.params[0]) {
        return Err(Reply::message(400, "Workflow ID provided is invalid."));
    }
    call.state.workflow(&call.params[0]).ok_or_else(|| Reply::message(404, "Workflow not found"))
}

pub(super) fn workflow(call: &mut Call) -> Handled {
    Ok(Reply::json(200, workflow_object(call.state, found_workflow(call)?)))
}

pub(super) fn workflow_jobs(call: &mut Call) -> Handled {
    let jobs = call.state.workflow_jobs(&found_workflow(call)?.id);
    call.page(jobs.map(|job| (job.id.clone(), listed_job(call.state, job))).collect())
}

fn listed_job(state: &MockState, job: &Job) -> Value {
    let requires: Value = job.requires.iter().map(|id| (id.clone(), json!(["success"]))).collect();
    let mut answer = json!({
        "id": job.id,
        "name": job.name,
        "type": kind(job),
        "status": job.status,
        "project_slug": state.slug,
        // Required and not nullable, even before the job has started.
        "started_at": job.started_at.unwrap_or(job.created_at),
        "dependencies": job.requires,
        "requires": requires,
    });
    optional(&mut answer, "job_number", job.number);
    optional(&mut answer, "stopped_at", job.stopped_at);
    optional(&mut answer, "approval_request_id", job.approval_request_id.as_ref());
    optional(&mut answer, "approved_by", job.approved_by.as_ref());
    answer
}

pub(super) fn approve(call: &mut Call) -> Handled {
    let (workflow, request) = (found_workflow(call)?.id.clone(), &call.params[1]);
    let job = call.state.workflow_jobs(&workflow).find(|job| job.approval_request_id.as_ref() == Some(request));
    let Some(job) = job else { return Err(Reply::message(404, "Approval request not found.")) };
    if job.status != JobStatus::OnHold {
        return Err(Reply::message(400, "The job is not on hold."));
    }
    let (id, person) = (job.id.clone(), call.state.user_id.clone());
    call.state.end_job(&id, JobStatus::Success);
    call.state.job_mut(&id).approved_by = Some(person);
    call.state.set_workflow_status(&workflow, WorkflowStatus::Running);
    Ok(Reply::message(202, "Accepted."))
}

pub(super) fn cancel(call: &mut Call) -> Handled {
    let workflow = found_workflow(call)?.id.clone();
    let open = call.state.workflow_jobs(&workflow).filter(|job| !job.status.ended());
    for id in open.map(|job| job.id.clone()).collect::<Vec<_>>() {
        call.state.end_job(&id, JobStatus::Canceled);
    }
    if !found_workflow(call)?.status.ended() {
        call.state.set_workflow_status(&workflow, WorkflowStatus::Canceled);
    }
    Ok(Reply::message(202, "Accepted."))
}

#[cfg(test)]
mod tests {
    #[test]
    fn masked_value_shows_its_last_four_characters() {
        let table = [("", "xxxx"), ("1", "xxxx1"), ("1234", "xxxx1234"), ("12345", "xxxx2345"), ("größe", "xxxxröße")];
        for (value, masked) in table {
            assert_eq!(super::masked(value), masked);
        }
    }
}
