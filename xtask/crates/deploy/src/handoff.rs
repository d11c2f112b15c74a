//! `put`, `fetch` and `publish`: pass releases from the build job to the deploy jobs.

use crate::deploy::report::Verified;
use crate::deploy::resolve::Catalog;
use crate::store;
use crate::store::DESTINATION;
use crate::store::{Published, Put, Retention, RetentionDecision, Store};
use crate::tool::Tool;
use gangplank_bundle::release::Release;
use gangplank_model::ci::pipeline::{PERSISTED, STORED};
use gangplank_model::error::{CliError, Kind, Result, WithHint, kind_of, usage};
use gangplank_model::project::{Env, Project};
use gangplank_model::release::id::{ReleaseId, Selector};
use gangplank_model::release::layout::RELEASES;
use gangplank_model::state::Root;
use gangplank_system::context::Context;
use gangplank_system::machine;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The result of `put` in one store.
#[derive(Debug, Serialize)]
pub struct PutDone {
    /// The store.
    pub store: String,
    /// The release.
    pub release: ReleaseId,
    /// Whether the store already had it.
    pub already_there: bool,
    /// Whether a later step of the job uploads it.
    pub by_step: bool,
    /// Whether the stored copy was verified instead.
    pub verified: bool,
}

/// The result of a store's prune.
#[derive(Debug, Serialize)]
pub struct Pruned {
    /// The store.
    pub store: String,
    /// Whether anything was removed, or only would be.
    pub removed: bool,
    /// Each release, newest first, then objects of no release.
    pub kept: Vec<RetentionDecision>,
}

/// `put [RELEASE]`
pub fn put(tool: &Tool, release: Option<&Selector>, only: Option<&str>) -> Result<Vec<PutDone>> {
    let Tool { ctx, project, .. } = *tool;
    let release = local(tool, release)?;
    warn_of_unsigned(tool, &release);
    let urls = urls(ctx, project, only);
    if urls.is_empty() {
        return usage("no store of this project works outside CircleCI")
            .hint("name one: `cargo xtask put --store file:DIR`")
            .err();
    }
    one_of_parallel_nodes(ctx, &urls)?;
    let mut done = Vec::new();
    for url in &urls {
        let store = tool.store(url)?;
        // A laptop lacks credentials of some stores, which are skipped. A job, or `--store`, requires them.
        if let Some(reason) = store.unusable().filter(|_| !ctx.in_ci() && only.is_none()) {
            ctx.warn(reason);
            continue;
        }
        let put = store.put(&release)?;
        let by_step = store.is_uploaded_by_a_step();
        let already_there = put == Put::AlreadyThere && !by_step;
        let release = release.id().clone();
        done.push(PutDone { store: (*url).to_owned(), release, already_there, by_step, verified: false });
    }
    if done.is_empty() {
        // No store is usable here; the first one says what it needs.
        tool.store(urls[0])?.put(&release)?;
    }
    Ok(done)
}

/// Fails on the other nodes of a parallel job, before anything is written: each node would write the same files to the
/// workspace and store its own artifacts.
fn one_of_parallel_nodes(ctx: &Context, urls: &[&str]) -> Result<()> {
    let node = ctx.var("CIRCLE_NODE_INDEX").unwrap_or("0");
    if node == "0" || !ctx.in_ci() || !urls.iter().any(|url| url.starts_with("circleci:")) {
        return Ok(());
    }
    usage(format!("this is node {node} of a parallel job, and each node would store its own release"))
        .hint("build in a job without `parallelism`, or only on node 0")
        .err()
}

/// `verify [RELEASE] --store`: verifies the stored copies of a local release.
pub fn verify(tool: &Tool, release: Option<&Selector>, only: Option<&str>) -> Result<Vec<PutDone>> {
    let Tool { ctx, project, .. } = *tool;
    let release = local(tool, release)?;
    let mut done = Vec::new();
    for url in urls(ctx, project, only) {
        if tool.store(url)?.confirm(&release)? {
            let id = release.id().clone();
            let (already_there, by_step, verified) = (true, false, true);
            done.push(PutDone { store: url.to_owned(), release: id, already_there, by_step, verified });
        }
    }
    if done.is_empty() && !ctx.in_ci() {
        return only_of_a_job("what CircleCI was given");
    }
    if done.is_empty() {
        return usage("no store of this project needs it: their `put` verifies every copy")
            .hint("use `verify --store` for circleci:artifacts, which a step of CircleCI uploads to, and for buckets")
            .err();
    }
    Ok(done)
}

/// `publish [RELEASE]`: points the branch's newest-release pointers at a release.
pub fn publish(tool: &Tool, release: Option<&Selector>) -> Result<Vec<Published>> {
    let Tool { ctx, project, .. } = *tool;
    let release = local(tool, release)?;
    let mut done = Vec::new();
    for url in urls(ctx, project, None) {
        done.extend(tool.store(url)?.publish(release.manifest())?);
    }
    if done.is_empty() && !ctx.in_ci() {
        return only_of_a_job("the pointer");
    }
    if done.is_empty() {
        return usage("no store of this project has a pointer to the newest release")
            .hint("add circleci:artifacts or a bucket to `stores` in xtask/src/main.rs")
            .err();
    }
    Ok(done)
}

/// `fetch [RELEASE]`
pub fn fetch(tool: &Tool, release: Option<&Selector>, into: &Path) -> Result<Verified> {
    let ctx = tool.ctx;
    let catalog = Catalog::open(tool)?;
    let id = catalog.resolve(release)?;
    let into = ctx.root.join(into);
    // Debris of a killed fetch.
    machine::sweep(&into);
    let release = catalog.fetch(&id, &into)?;
    Ok(Verified::new(release.manifest(), release.dir()))
}

/// The error of a command that needs the bytes of a job's build.
fn only_of_a_job<T>(what: &str) -> Result<T> {
    usage(format!("{what} is handled by the workflow that built the release, not outside CircleCI"))
        .hint("rerun the job `publish` of that workflow in CircleCI")
        .err()
}

/// `prune --store URL`: lists what a store would remove, or with `remove` removes it.
pub fn prune(tool: &Tool, url: &str, retention: Retention, remove: bool) -> Result<Pruned> {
    let Tool { ctx, project, .. } = *tool;
    if !project.stores.contains(&url) {
        return usage(format!("{url} is not a store of this project"))
            .hint(format!("name one of: {}", project.stores.join(", ")))
            .err();
    }
    let store = tool.store(url)?;
    let needed = || needed(tool, &*store);
    match store.prune(retention, &machine::owner(ctx, format!("prune of {url}")), !remove, &needed)? {
        Some(kept) => Ok(Pruned { store: store.url().to_owned(), removed: remove, kept }),
        None => {
            usage(format!("{url} expires by itself, or is a directory")).hint("name a bucket: s3://BUCKET/PREFIX").err()
        }
    }
}

/// The releases that any env runs, rolls back to, or is about to run, according to its hosts and the store. Fails for
/// an env that neither knows, because it may run any release.
fn needed(tool: &Tool, store: &dyn Store) -> Result<BTreeMap<ReleaseId, String>> {
    let Tool { ctx, project, .. } = *tool;
    let mut needed: BTreeMap<ReleaseId, BTreeSet<String>> = BTreeMap::new();
    let mut need = |env: &str, ids: BTreeSet<ReleaseId>| {
        for id in ids {
            needed.entry(id).or_default().insert(env.to_owned());
        }
    };
    let mut told = BTreeSet::new();
    for (name, history) in store.histories()? {
        let keep = project.envs.iter().find(|env| env.name == name).map_or(Env::DEFAULT.keep, |env| env.keep);
        need(&name, history.needed(keep));
        told.insert(name);
    }
    for env in project.envs {
        for target in tool.targets(env)? {
            let unknown = match target.state() {
                Ok(state) if state.root == Root::Directory => {
                    need(env.name, state.history.needed(env.keep));
                    need(env.name, state.live().into_iter().cloned().collect());
                    continue;
                }
                // Nothing was ever deployed there, or it is a directory of another machine.
                Ok(_) => (Kind::Failed, format!("nothing exists at {}", target.url())),
                Err(error) => (kind_of(&error), format!("{error:#}")),
            };
            let (kind, reason) = unknown;
            if !told.contains(env.name) {
                return CliError::new(kind, format!("cannot determine what {} runs: {reason}", env.name))
                    .hint(format!(
                        "prune where its hosts can be reached, or after a deploy to {}; nothing was removed",
                        env.name
                    ))
                    .err();
            }
            ctx.note(format!("{reason}; using the history of {} in {}", env.name, store.url()));
        }
    }
    let names = |envs: BTreeSet<String>| envs.into_iter().collect::<Vec<_>>().join(", ");
    Ok(needed.into_iter().map(|(id, envs)| (id, names(envs))).collect())
}

/// The stores to use. Outside a job, without those that only a job can reach, unless named.
fn urls<'a>(ctx: &Context, project: &'a Project, only: Option<&'a str>) -> Vec<&'a str> {
    match only {
        Some(url) => vec![url],
        None => project.stores.iter().copied().filter(|url| ctx.in_ci() || !url.starts_with("circleci:")).collect(),
    }
}

/// Warns before what cannot be undone: a stored release never gets a signature. In the workspace a later job signs it.
fn warn_of_unsigned(tool: &Tool, release: &Release) {
    let Tool { ctx, project, .. } = *tool;
    let strict = project.envs.iter().find(|env| !env.require_signature.is_empty());
    if let Some(env) = strict.filter(|_| release.manifest().signatures.is_empty() && !ctx.in_ci()) {
        ctx.warn(format!(
            "{} is not signed, {} requires a signature, and a stored release never gets one: `cargo xtask sign` first",
            release.id(),
            env.name
        ));
    }
}

/// A verified local release: built here, or from the workspace of this job.
pub fn local(tool: &Tool, release: Option<&Selector>) -> Result<Release> {
    let ctx = tool.ctx;
    let id = Catalog::local(tool).resolve(release)?;
    let dirs: [PathBuf; 2] = [ctx.root.join(RELEASES), store::workspace(ctx).join(DESTINATION)];
    let dir = dirs.map(|dir| dir.join(id.as_str())).into_iter().find(|dir| dir.exists());
    Release::open(&dir.unwrap_or_else(|| ctx.root.join(RELEASES).join(id.as_str())), &ctx.progress("verifying"))
}

/// Packs a program for jobs on request: `gangplank_launch::program::pack`, which explains its arguments.
pub type Pack = fn(&Path, &Path, &Path, &BTreeMap<String, String>) -> Result<PathBuf>;

/// `put --program`. With `pack`, jobs on request launch what it stores.
pub fn put_program(ctx: &Context, pack: Option<Pack>) -> Result<()> {
    persist_program(ctx)?;
    ctx.note(format!("put this program into {}", store::workspace(ctx).join(PERSISTED).display()));
    pack.map_or(Ok(()), |pack| pack_program(ctx, pack))
}

/// Packs this program for jobs on request, for the step that stores artifacts. They compile it if that fails.
fn pack_program(ctx: &Context, pack: Pack) -> Result<()> {
    let dir = store::workspace(ctx).join(STORED);
    match pack(&ctx.root, &Context::program()?, &dir, ctx.vars()) {
        Ok(path) => ctx.note(format!("packed this program for jobs on request: {}", path.display())),
        Err(reason) => {
            ctx.warn(format!("jobs on request compile the xtask: {reason:#}"));
            // CircleCI stores what is there; a reader of the artifacts sees why it is not a program.
            let written =
                fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join("none.txt"), format!("{reason:#}\n")));
            let what = || format!("cannot write to {}", dir.display());
            written.with_hint(Kind::Failed, what, || "check free space and permissions: `df -h /tmp`".into())?;
        }
    }
    Ok(())
}

/// Copies this program into the workspace, so that later jobs need no compile.
fn persist_program(ctx: &Context) -> Result<()> {
    let to = store::workspace(ctx).join(PERSISTED);
    let from = Context::program()?;
    // A job that runs the persisted program cannot overwrite it.
    if to.canonicalize().is_ok_and(|to| from.canonicalize().is_ok_and(|from| from == to)) {
        return Ok(());
    }
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    let copied =
        std::fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))).and_then(|()| std::fs::copy(&from, &to));
    copied.with_hint(Kind::Failed, what, || "check free space and permissions: `df -h /tmp`".into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::ci::pipeline::{Job, Kind, Step};
    use gangplank_model::ci::workflows;
    use gangplank_model::project::{App, Ci, Handoff};

    #[test]
    fn launcher_looks_where_the_generated_config_stores() {
        assert_eq!(STORED, gangplank_launch::circleci::DESTINATION);
        let project = Project {
            app: App { name: "shop", ..App::DEFAULT },
            stores: &["circleci:workspace"],
            envs: &[],
            ci: Ci { launch: true, context: Some("shop-circleci"), ..Ci::DEFAULT },
        };
        let pipeline = workflows::pipeline(&project, Handoff::Workspace).unwrap();
        let stores = |job: &&Job| {
            let Kind::Work(work) = &job.kind else { return false };
            work.steps
                .iter()
                .any(|step| matches!(step, Step::StoreArtifacts { destination, .. } if destination == STORED))
        };
        let jobs: Vec<_> = pipeline.workflows[0].jobs.iter().filter(stores).map(|job| job.name.as_str()).collect();
        assert_eq!(jobs, [gangplank_launch::circleci::JOB]);
    }
}
