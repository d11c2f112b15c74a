//! Finding a release through the API: pipelines of the branch, their workflows with reruns, the build job that
//! succeeded, its artifacts by exact name. Each stop that leads nowhere is remembered, because "not found" alone helps
//! nobody.

use crate::circleci::model::{Artifact, Pipeline};
use crate::error::{CliError, Kind, Result, kind_of, not_found, usage, verification};
use crate::git;
use crate::release::id::ReleaseId;
use crate::release::layout::SUMS;
use crate::release::manifest::{self, Manifest};
use crate::store::artifacts::{ArtifactStore, BUILD_JOB, DESTINATION};
use jiff::{SignedDuration, Timestamp};

/// CircleCI keeps artifacts for so many days at most; a plan may say fewer.
const RETENTION_DAYS: i64 = 30;
/// A workflow can be rerun for 90 days: an older pipeline than this cannot have artifacts any more.
const OLDEST_DAYS: i64 = 90 + RETENTION_DAYS;

/// A release among the artifacts of a job.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its manifest, checked against the job and the pipeline.
    pub manifest: Manifest,
    /// The bytes of it.
    pub json: Vec<u8>,
    /// `SHA256SUMS`
    pub sums: Artifact,
    /// The bundle.
    pub bundle: Artifact,
    /// Number of the job.
    pub job: u64,
}

/// What was met on the way to nothing.
#[derive(Default)]
pub struct Seen {
    pipelines: Vec<u64>,
    running: Vec<u64>,
    unbegun: Vec<(u64, String)>,
    others: Vec<Found>,
    ended: Vec<(u64, String)>,
    empty: Vec<(u64, Option<Timestamp>)>,
}

/// Where a job stands: what its artifacts have to say.
struct Origin<'a> {
    job: u64,
    revision: Option<&'a str>,
    branch: &'a str,
}

/// The newest good build of a commit. With `id`, of that release.
pub fn of_commit(store: &ArtifactStore, sha: &str, id: Option<&ReleaseId>) -> Result<Found> {
    let whole = git::expand(store.ctx, sha).unwrap_or_else(|| sha.to_owned());
    if whole.len() < ReleaseId::SHORT {
        return usage(format!("`{sha}` is too short to look for: this checkout does not know the commit"))
            .hint("give 7 digits or more")
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

/// The newest release of the branch, by asking: what the newest pipeline with a good build has.
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

/// The same as [`of_pipeline`] for who looks through many: what one of them stored wrong is passed over aloud.
pub fn of_pipeline_or_warn(store: &ArtifactStore, pipeline: &Pipeline) -> Result<Option<Found>> {
    of_pipeline(store, pipeline, &mut Seen::default()).or_else(|error| {
        if kind_of(&error) != Kind::Verification {
            return Err(error);
        }
        store.ctx.warn(format!("passed over pipeline {}: {error:#}", pipeline.number));
        Ok(None)
    })
}

/// The release of a pipeline, if its build succeeded. Every rerun is a workflow of its own, and one from failed lists
/// the jobs that it did not run again.
pub fn of_pipeline(store: &ArtifactStore, pipeline: &Pipeline, seen: &mut Seen) -> Result<Option<Found>> {
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
                // It has not begun, and in a workflow that has ended it never will.
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

/// The release of the job with this number, which must be a build of the branch that succeeded.
pub fn of_build(store: &ArtifactStore, job: u64) -> Result<Found> {
    let api = store.api()?;
    let details = api.job(job)?;
    let url = &details.web_url;
    if details.name != BUILD_JOB {
        return verification(format!("job {job} is `{}`, not `{BUILD_JOB}`: it made no release ({url})", details.name))
            .hint("name the build job, or a commit: `cargo xtask releases` lists what there is")
            .err();
    }
    let pipeline = api.pipeline(&details.pipeline.id)?;
    let branch = store.branch();
    if pipeline.branch() != Some(branch) {
        let other = pipeline.branch().unwrap_or("a tag");
        return verification(format!("job {job} built {other}, not {branch} ({url})"))
            .hint(format!("only builds of {branch} are taken: name one of those"))
            .err();
    }
    // The job that asks may be the build itself, in its last step.
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

/// What v1.1 calls the latest artifacts of the branch. The answer names no job, so the manifest alone says whose they
/// are, and without one it is refused: after a deploy job they are that job's, none.
pub fn latest_v1(store: &ArtifactStore) -> Result<Found> {
    let branch = store.branch();
    let listed = store.api()?.latest_artifacts(branch)?;
    let ids = ids(&listed);
    let [id] = ids.as_slice() else {
        return not_found(format!(
            "the latest successful job on {branch} stored {} of ours: v1.1 shows the latest job, whichever it is",
            if ids.is_empty() { "no release" } else { "several releases" }
        ))
        .hint("put circleci:artifacts into `stores`: it finds the build job by its commit")
        .err();
    };
    let origin = Origin { job: 0, revision: None, branch };
    let app = store.project.app.name;
    match read_one(store, &listed, id, &origin)? {
        Some(found) if found.manifest.app == app => Ok(found),
        Some(found) => not_found(format!(
            "the latest artifacts of {branch} are of `{}`, and this project is `{app}`",
            found.manifest.app
        ))
        .hint("put circleci:artifacts into `stores`: it finds the build job of this app by its commit")
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
        // A job may build another app as well.
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
            .hint("do not deploy it: rerun the build job of the commit that you mean")
    })?;
    let (Some(sums), Some(bundle)) = (file(listed, id, SUMS), file(listed, id, &manifest.bundle.file)) else {
        return Ok(None);
    };
    let job = manifest.ci.as_ref().map_or(origin.job, |ci| ci.job);
    Ok(Some(Found { sums: sums.clone(), bundle: bundle.clone(), json, job, manifest }))
}

/// Whether a manifest is what its place says: any job may store a file of that name.
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
        // v1.1 names no job, so there the manifest alone says which.
        _ if origin.job == 0 => Ok(()),
        Some(ci) if ci.job == origin.job => Ok(()),
        Some(ci) => Err(format!("it was built by job {}", ci.job)),
        None => Err("it was not built by a job of CircleCI".into()),
    }
}

/// The releases of which there is a manifest.
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

/// The artifact with exactly this place. Of the nodes of a parallel job the first one counts. What is written to disk
/// gets its name from us, so a path with `..` in it is only a name that nobody asks for.
pub fn file<'a>(listed: &'a [Artifact], id: &ReleaseId, name: &str) -> Option<&'a Artifact> {
    let want = format!("{DESTINATION}/{id}/{name}");
    listed.iter().filter(|artifact| decoded(&artifact.path) == want).min_by_key(|artifact| artifact.node_index)
}

/// CircleCI encodes names as Java's `URLEncoder` does; of ours only `/` is changed by that.
fn decoded(path: &str) -> String {
    path.replace("%2F", "/").replace("%2f", "/")
}

impl Seen {
    /// Why there is nothing, in the order in which a person can do something about it.
    fn explain(&self, what: &str, branch: &str, now: Timestamp) -> CliError {
        if let Some(other) = self.others.first() {
            return not_found(format!("job {} built {} of {what}, and no other release", other.job, other.manifest.id))
                .hint(format!("is that the one that you mean? Its id is {}", other.manifest.id));
        }
        if let Some(number) = self.running.first() {
            return not_found(format!("the build of {what} is still running (pipeline {number})"))
                .hint("wait until it has ended, then run the same command again");
        }
        if let Some((job, stopped)) = self.empty.first() {
            let until = stopped.and_then(|at| at.checked_add(SignedDuration::from_hours(24 * RETENTION_DAYS)).ok());
            return match until.filter(|until| *until < now) {
                Some(until) => not_found(format!(
                    "the artifacts of {what} (job {job}) are gone: CircleCI kept them until {} at most",
                    until.strftime("%Y-%m-%d")
                ))
                .hint("build it again: rerun its workflow from the start, or push; a store that lasts keeps releases longer"),
                None => not_found(format!("job {job} built {what}, but stored no release (or its plan keeps none so long)"))
                    .hint("the build job must `put` and `store_artifacts`: `cargo xtask ci generate` writes both"),
            };
        }
        if let Some((job, status)) = self.ended.first() {
            return not_found(format!(
                "the build of {what} ended with `{status}` (job {job}): what it stored does not count"
            ))
            .hint("mend it and push, or rerun the workflow");
        }
        if let Some((number, status)) = self.unbegun.first() {
            return not_found(format!("the build of {what} never began: it is `{status}` in pipeline {number}"))
                .hint("what came before it has failed or was canceled: mend that and push, or rerun the workflow");
        }
        if let Some(number) = self.pipelines.first() {
            return not_found(format!("pipeline {number} of {what} has no job `{BUILD_JOB}`"))
                .hint("is its config the generated one? `cargo xtask ci generate --check` tells");
        }
        not_found(format!("no pipeline of {branch} built {what}"))
            .hint(format!("push it to {branch} and wait for the build; `cargo xtask releases` lists what there is"))
    }
}
