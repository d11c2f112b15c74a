//! `ci approve`: approves a waiting approval job on CircleCI from a terminal.

use crate::ci::follow::Asking;
use gangplank_model::error::{Result, failed, not_found, usage};
use gangplank_model::project::Project;
use gangplank_system::circleci::CircleCi;
use gangplank_system::circleci::model::{Job, Pipeline, Workflow};
use gangplank_system::context::Context;
use serde::Serialize;

/// The number of pipelines searched; an older one needs its number.
const LOOKED_AT: usize = 20;

/// The result of `ci approve`.
#[derive(Debug, Serialize)]
pub struct Approved {
    /// Number of the pipeline.
    pub pipeline: u64,
    /// Full SHA of the commit.
    pub commit: Option<String>,
    /// The workflow.
    pub workflow: String,
    /// The approval job.
    pub job: String,
}

/// Approves the job of `env` in the newest pipeline that waits, or in the given one, after `ask` has shown it.
pub fn approve(ctx: &Context, project: &Project, env: &str, number: Option<u64>, ask: Asking) -> Result<Approved> {
    project.env(env)?;
    let api = CircleCi::open(ctx, project.ci.slug)?;
    let name = format!("approve-{env}");
    let Some((pipeline, workflow, job)) = find(&api, project.ci.branch, &name, number)? else {
        let place = number.map_or_else(
            || format!("the newest {LOOKED_AT} pipelines of {}", project.ci.branch),
            |number| format!("pipeline {number}"),
        );
        return not_found(format!("no job `{name}` is on hold in {place}"))
            .hint("wait until the jobs before it have succeeded, or choose a pipeline with --pipeline NUMBER")
            .err();
    };
    let commit = pipeline.revision().map(str::to_owned);
    let short = commit.as_deref().map_or("a tag", |sha| &sha[..sha.len().min(7)]);
    let age = pipeline.created_at.strftime("%Y-%m-%d %H:%M:%SZ");
    match ask(&format!("{name} of pipeline {} (commit {short}, {age})?", pipeline.number))? {
        Some(true) => {}
        Some(false) => {
            return failed("not confirmed, nothing was approved")
                .hint("choose another pipeline with --pipeline NUMBER")
                .err();
        }
        None => {
            return usage("there is no terminal to ask on").hint("add --yes to confirm").err();
        }
    }
    let Some(request) = &job.approval_request_id else {
        return failed(format!("CircleCI's API cannot approve {name} of pipeline {}", pipeline.number))
            .hint("approve it in CircleCI")
            .err();
    };
    api.approve(&workflow.id, &name, request)?;
    Ok(Approved { pipeline: pipeline.number, commit, workflow: workflow.name, job: name })
}

fn find(api: &CircleCi, branch: &str, name: &str, number: Option<u64>) -> Result<Option<(Pipeline, Workflow, Job)>> {
    let pipelines: Vec<Pipeline> = match number {
        Some(number) => vec![api.pipeline_by_number(number)?],
        None => api.pipelines(branch).take(LOOKED_AT).collect::<Result<_>>()?,
    };
    for pipeline in pipelines {
        for workflow in api.workflows(&pipeline.id)? {
            if workflow.status != "on_hold" && workflow.status != "running" {
                continue;
            }
            let waits = |job: &Job| job.name == name && job.kind == "approval" && job.status == "on_hold";
            if let Some(job) = api.jobs(&workflow.id)?.into_iter().find(waits) {
                return Ok(Some((pipeline, workflow, job)));
            }
        }
    }
    Ok(None)
}
