//! Finds a release through the API: pipelines of the branch, their workflows and reruns, the successful build job, its
//! artifacts by exact name. Records each dead end, for an error that says more than "not found".

use crate::store::{ArtifactStore, BUILD_JOB};
use gangplank_deploy::store::DESTINATION;
use gangplank_model::error::{CliError, Kind, Result, kind_of, not_found, usage, verification};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::layout::SUMS;
use gangplank_model::release::manifest;
use gangplank_model::release::manifest::Manifest;
use gangplank_system::circleci::model::{Artifact, Pipeline};
use gangplank_system::git;
use jiff::{SignedDuration, Timestamp};

/// The most days that CircleCI keeps artifacts; a plan may keep them shorter.
const RETENTION_DAYS: i64 = 30;
/// A workflow can be rerun for 90 days, so an older pipeline has no artifacts.
const OLDEST_DAYS: i64 = 90 + RETENTION_DAYS;

/// A release among the artifacts of a job.
#[derive(Debug, Clone)]
pub struct Found {
    /// The manifest, verified against the job and the pipeline.
    pub manifest: Manifest,
    /// The bytes of the manifest.
    pub json: Vec<u8>,
    /// `SHA256SUMS`
    pub sums: Artifact,
    /// The bundle.
    pub bundle: Artifact,
    /// Number of the job.
    pub job: u64,
}

/// The dead ends of a search.
#[derive(Default)]
pub struct Seen {
    pipelines: Vec<u64>,
    running: Vec<u64>,
    unbegun: Vec<(u64, String)>,
    others: Vec<Found>,
    ended: Vec<(u64, String)>,
    empty: Vec<(u64, Option<Timestamp>)>,
}

/// The job and pipeline that a manifest must match.
struct Origin<'a> {
    job: u64,
    revision: Option<&'a str>,
    branch: &'a str,
}

/// The newest good build of a commit. With `id`, of that release.
pub fn of_commit(store: &ArtifactStore, sha: &str, id: Option<&ReleaseId>) -> Result<Found> {
    let whole = git::expand(store.ctx, sha).unwrap_or_else(|| sha.to_owned());
    if whole.len() < ReleaseId::SHORT {
        return usage(format!("`{sha}` is too short: this checkout does not have the commit"))
            .hint("use 7 digits or more")
            .err();
    }
    let (mut seen, branch) = (Seen::default(), store.branch());
    let oldest = store.ctx.now() - SignedDuration::from_hours(24 * OLDEST_DAYS);
    for pipeline in store.api()?.pipelines(branch) {
        let pipeline = pipeline?;
        if pipeline.created_at < oldest {
            break;
        }
        if !pipeline.revision().is_some_and(|revision| revision.starts_with(&whole)) {
            continue;
        }
        match of_pipeline(store, &pipeline, &mut seen)? {
            Some(found) if id.is_none_or(|id| *id == found.manifest.id) => return Ok(found),
            other => seen.others.extend(other),
        }
    }
    Err(seen.explain(&format!("commit {whole}"), branch, store.ctx.now()).into())
}

/// The newest release of the branch: that of the newest pipeline with a good build.
pub fn newest(store: &ArtifactStore) -> Result<Option<Found>> {
    let oldest = store.ctx.now() - SignedDuration::from_hours(24 * OLDEST_DAYS);
    for pipeline in store.api()?.pipelines(store.branch()) {
        let pipeline = pipeline?;
        if pipeline.created_at < oldest {
            break;
        }
        if let Some(found) = of_pipeline_or_warn(store, &pipeline)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Like [`of_pipeline`], for a search through many: an invalid release is skipped with a warning.
pub(crate) fn of_pipeline_or_warn(store: &ArtifactStore, pipeline: &Pipeline) -> Result<Option<Found>> {
    of_pipeline(store, pipeline, &mut Seen::default()).or_else(|error| {
        if kind_of(&error) != Kind::Verification {
            return Err(error);
        }
        store.ctx.warn(format!("skipped pipeline {}: {error:#}", pipeline.number));
        Ok(None)
    })
}

/// The release of a pipeline, if its build succeeded. A rerun is a workflow of its own; a rerun from failed also lists
/// the jobs that it did not run again.
pub(crate) fn of_pipeline(store: &ArtifactStore, pipeline: &Pipeline, seen: &mut Seen) -> Result<Option<Found>> {
    let (api, branch) = (store.api()?, store.branch());
    if pipeline.branch() != Some(branch) {
        return Ok(None);
    }
    seen.pipelines.push(pipeline.number);
    let mut looked_at = Vec::new();
    for workflow in api.workflows(&pipeline.id)? {
        for job in api.jobs(&workflow.id)? {
            if job.name != BUILD_JOB || job.kind != "build" {
                continue;
            }
            let active = matches!(workflow.status.as_str(), "running" | "failing" | "on_hold");
            let Some(number) = job.job_number else {
                // Not started, and in an ended workflow it never will be.
                if active {
                    seen.running.push(pipeline.number);
                } else {
                    seen.unbegun.push((pipeline.number, job.status.clone()));
                }
                continue;
            };
            if looked_at.contains(&number) {
                continue;
            }
            looked_at.push(number);
            match job.status.as_str() {
                "success" => {
                    let origin = Origin { job: number, revision: pipeline.revision(), branch };
                    if let Some(found) = read(store, &api.artifacts(number)?, &origin)? {
                        return Ok(Some(found));
                    }
                    seen.empty.push((number, job.stopped_at));
                }
                "running" => seen.running.push(pipeline.number),
                "queued" | "not_running" | "blocked" | "on_hold" if active => seen.running.push(pipeline.number),
                status => seen.ended.push((number, status.to_owned())),
            }
        }
    }
    Ok(None)
}

/// The release of the job with this number, which must be a successful build of the branch.
pub(crate) fn of_build(store: &ArtifactStore, job: u64) -> Result<Found> {
    let api = store.api()?;
    let details = api.job(job)?;
    let url = &details.web_url;
    if details.name != BUILD_JOB {
        return verification(format!(
            "job {job} is `{}`, not `{BUILD_JOB}`: it builds no release ({url})",
            details.name
        ))
        .hint("name the build job, or a commit: `cargo xtask releases` lists what there is")
        .err();
    }
    let pipeline = api.pipeline(&details.pipeline.id)?;
    let branch = store.branch();
    if pipeline.branch() != Some(branch) {
        let other = pipeline.branch().unwrap_or("a tag");
        return verification(format!("job {job} built {other}, not {branch} ({url})"))
            .hint(format!("name a job that built {branch}"))
            .err();
    }
    // The build job may ask itself, in its last step.
    let own = store.ctx.var("CIRCLE_BUILD_NUM") == Some(&job.to_string());
    let mut seen = Seen { pipelines: vec![pipeline.number], ..Seen::default() };
    match details.status.as_str() {
        "running" if own => {}
        "success" => {}
        "running" | "queued" | "not_running" | "blocked" => seen.running.push(pipeline.number),
        status => seen.ended.push((job, status.to_owned())),
    }
    if seen.running.is_empty() && seen.ended.is_empty() {
        let origin = Origin { job, revision: pipeline.revision(), branch };
        if let Some(found) = read(store, &api.artifacts(job)?, &origin)? {
            return Ok(found);
        }
        seen.empty.push((job, details.stopped_at));
    }
    Err(seen.explain(&format!("job {job}"), branch, store.ctx.now()).into())
}

/// The latest artifacts of the branch in v1.1. The answer names no job, so only the manifest tells whose they are;
/// after a deploy job there is none, which is an error.
pub(crate) fn latest_v1(store: &ArtifactStore) -> Result<Found> {
    let branch = store.branch();
    let listed = store.api()?.latest_artifacts(branch)?;
    let ids = ids(&listed);
    let [id] = ids.as_slice() else {
        return not_found(format!(
            "the latest successful job on {branch} stored {} of this app; API v1.1 shows only the latest job",
            if ids.is_empty() { "no release" } else { "several releases" }
        ))
        .hint("add circleci:artifacts to `stores`, which finds the build job by its commit")
        .err();
    };
    let origin = Origin { job: 0, revision: None, branch };
    let app = store.project.app.name;
    match read_one(store, &listed, id, &origin)? {
        Some(found) if found.manifest.app == app => Ok(found),
        Some(found) => not_found(format!(
            "the latest artifacts of {branch} are of `{}`, not of this project's `{app}`",
            found.manifest.app
        ))
        .hint("add circleci:artifacts to `stores`, which finds the build job of this app by its commit")
        .err(),
        None => not_found(format!("the latest artifacts of {branch} hold only a part of {id}"))
            .hint("rerun the build job")
            .err(),
    }
}

fn read(store: &ArtifactStore, listed: &[Artifact], origin: &Origin) -> Result<Option<Found>> {
    for id in ids(listed) {
        if !origin.revision.is_none_or(|revision| revision.starts_with(id.short_sha())) {
            continue;
        }
        // A job may build several apps.
        if let Some(found) = read_one(store, listed, &id, origin)?
            && found.manifest.app == store.project.app.name
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn read_one(store: &ArtifactStore, listed: &[Artifact], id: &ReleaseId, origin: &Origin) -> Result<Option<Found>> {
    let Some(artifact) = file(listed, id, manifest::FILE) else { return Ok(None) };
    let what = format!("{} of job {} of CircleCI", manifest::FILE, origin.job);
    let json = store.api()?.small_file(artifact, &what)?;
    let manifest = Manifest::parse(&json, &what)?;
    check(&manifest, id, origin).map_err(|reason| {
        verification(format!("{what}: {reason}"))
            .hint("rerun the build job of the wanted commit; do not deploy this one")
    })?;
    let (Some(sums), Some(bundle)) = (file(listed, id, SUMS), file(listed, id, &manifest.bundle.file)) else {
        return Ok(None);
    };
    let job = manifest.ci.as_ref().map_or(origin.job, |ci| ci.job);
    Ok(Some(Found { sums: sums.clone(), bundle: bundle.clone(), json, job, manifest }))
}

/// Checks that a manifest matches its place: any job may store a file of that name.
fn check(manifest: &Manifest, id: &ReleaseId, origin: &Origin) -> Result<(), String> {
    let (sha, branch) = (&manifest.commit.sha, manifest.commit.branch.as_deref());
    if manifest.id != *id {
        return Err(format!("it is the manifest of {}, not of {id}", manifest.id));
    }
    match origin.revision {
        Some(revision) if revision != sha => {
            return Err(format!("it was built from {sha}, but the pipeline built {revision}"));
        }
        None if origin.job != 0 => return Err("CircleCI does not say which commit its pipeline built".into()),
        _ => {}
    }
    if branch != Some(origin.branch) {
        return Err(format!("it was built on {}, not on {}", branch.unwrap_or("no branch"), origin.branch));
    }
    match &manifest.ci {
        // v1.1 names no job, so the manifest has to.
        _ if origin.job == 0 => Ok(()),
        Some(ci) if ci.job == origin.job => Ok(()),
        Some(ci) => Err(format!("it was built by job {}", ci.job)),
        None => Err("it was not built by a job of CircleCI".into()),
    }
}

/// The releases that have a manifest.
fn ids(listed: &[Artifact]) -> Vec<ReleaseId> {
    let mut ids: Vec<ReleaseId> = listed
        .iter()
        .filter_map(|artifact| {
            let path = decoded(&artifact.path);
            let rest = path.strip_prefix(DESTINATION)?.strip_prefix('/')?;
            rest.strip_suffix(manifest::FILE)?.strip_suffix('/')?.parse().ok()
        })
        .filter(|id: &ReleaseId| !id.is_dirty())
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// The artifact at exactly this path; the first node of a parallel job counts. Files are written under our own names,
/// so a path with `..` in it does no harm.
pub fn file<'a>(listed: &'a [Artifact], id: &ReleaseId, name: &str) -> Option<&'a Artifact> {
    let want = format!("{DESTINATION}/{id}/{name}");
    listed.iter().filter(|artifact| decoded(&artifact.path) == want).min_by_key(|artifact| artifact.node_index)
}

/// CircleCI encodes names like Java's `URLEncoder`, which changes only the `/` in ours.
fn decoded(path: &str) -> String {
    path.replace("%2F", "/").replace("%2f", "/")
}

impl Seen {
    /// The error of a failed search, the most actionable cause first.
    fn explain(&self, what: &str, branch: &str, now: Timestamp) -> CliError {
        if let Some(other) = self.others.first() {
            return not_found(format!("job {} built {} of {what}, and no other release", other.job, other.manifest.id))
                .hint(format!("use the id {} if you mean that release", other.manifest.id));
        }
        if let Some(number) = self.running.first() {
            return not_found(format!("the build of {what} is still running (pipeline {number})"))
                .hint("wait for its end, then run the same command again");
        }
        if let Some((job, stopped)) = self.empty.first() {
            let until = stopped.and_then(|at| at.checked_add(SignedDuration::from_hours(24 * RETENTION_DAYS)).ok());
            return match until.filter(|until| *until < now) {
                Some(until) => not_found(format!(
                    "the artifacts of {what} (job {job}) have expired: CircleCI kept them until {} at most",
                    until.strftime("%Y-%m-%d")
                ))
                .hint("rerun its workflow from the start, or push; a bucket keeps releases longer"),
                None => not_found(format!(
                    "job {job} built {what}, but has no release in its artifacts (not stored, or expired)"
                ))
                .hint("let the build job `put` and `store_artifacts`; `cargo xtask ci generate` writes both"),
            };
        }
        if let Some((job, status)) = self.ended.first() {
            return not_found(format!(
                "the build of {what} ended with `{status}` (job {job}), so its artifacts are ignored"
            ))
            .hint("fix it and push, or rerun the workflow");
        }
        if let Some((number, status)) = self.unbegun.first() {
            return not_found(format!("the build of {what} never started: it is `{status}` in pipeline {number}"))
                .hint("fix the failed or canceled job before it and push, or rerun the workflow");
        }
        if let Some(number) = self.pipelines.first() {
            return not_found(format!("pipeline {number} of {what} has no job `{BUILD_JOB}`"))
                .hint("check that its config is the generated one: `cargo xtask ci generate --check`");
        }
        not_found(format!("no pipeline of {branch} built {what}"))
            .hint(format!("push it to {branch} and wait for the build; `cargo xtask releases` lists what there is"))
    }
}
