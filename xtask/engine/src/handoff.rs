//! `put`, `fetch` and `publish`: handing releases from the job that builds to the jobs that deploy.

use crate::ci::pipeline::PERSISTED;
use crate::context::Context;
use crate::deploy::report::Verified;
use crate::deploy::resolve::Catalog;
use crate::deploy::state::Root;
use crate::error::{CliError, Kind, Result, WithHint, kind_of, usage};
use crate::machine;
use crate::project::{Env, Project};
use crate::release::Release;
use crate::release::id::{ReleaseId, Selector};
use crate::release::layout::RELEASES;
use crate::store::artifacts::DESTINATION;
use crate::store::{self, Published, Put, Retention, RetentionDecision, Store};
use crate::store_url;
use crate::tool::Tool;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What `put` did with one store.
#[derive(Debug, Serialize)]
pub struct PutDone {
    /// The store.
    pub store: String,
    /// The release.
    pub release: ReleaseId,
    /// Whether the store had it already.
    pub already_there: bool,
    /// Whether it lies ready for the step of the job that uploads it.
    pub by_step: bool,
    /// Whether every byte was looked at where others will take it from, and nothing was put.
    pub verified: bool,
}

/// What a prune of a store found.
#[derive(Debug, Serialize)]
pub struct Pruned {
    /// The store.
    pub store: String,
    /// Whether what is not kept was removed, or only would be.
    pub removed: bool,
    /// Each release, the newest first, then what belongs to none.
    pub kept: Vec<RetentionDecision>,
}

/// `put [RELEASE]`
pub fn put(tool: &Tool, release: Option<&Selector>, only: Option<&str>) -> Result<Vec<PutDone>> {
    let Tool { ctx, project, .. } = *tool;
    let release = local(tool, release)?;
    let urls = urls(ctx, project, only);
    if urls.is_empty() {
        return usage("no store of this project is of use outside CircleCI")
            .hint("name one: `cargo xtask put --store file:DIR`")
            .err();
    }
    one_of_parallel_nodes(ctx, &urls)?;
    let mut done = Vec::new();
    for url in &urls {
        let store = tool.store(url)?;
        // A laptop has not the credentials of every store. A job has to, and whoever names one means it.
        if let Some(reason) = store.unusable().filter(|_| !ctx.in_ci() && only.is_none()) {
            ctx.warn(reason);
            continue;
        }
        let put = store.put(&release)?;
        if store_url::only_in_ci(url) {
            persist_program(ctx)?;
        }
        let by_step = store.is_uploaded_by_a_step();
        let already_there = put == Put::AlreadyThere && !by_step;
        let release = release.id().clone();
        done.push(PutDone { store: (*url).to_owned(), release, already_there, by_step, verified: false });
    }
    if done.is_empty() {
        // None can be put to from here: the first one says what it wants.
        tool.store(urls[0])?.put(&release)?;
    }
    Ok(done)
}

/// Refuses before anything is written: the nodes of a parallel job would each write the same files to the workspace, and
/// store artifacts of their own.
fn one_of_parallel_nodes(ctx: &Context, urls: &[&str]) -> Result<()> {
    let node = ctx.var("CIRCLE_NODE_INDEX").unwrap_or("0");
    if node == "0" || !ctx.in_ci() || !urls.iter().any(|url| url.starts_with("circleci:")) {
        return Ok(());
    }
    usage(format!("this is node {node} of a parallel job, and each node would store its own release"))
        .hint("build in a job without `parallelism`, or only on node 0")
        .err()
}

/// `verify [RELEASE] --store`: verifies every byte of the copies that stores have of a release that was built here.
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
        return usage("no store of this project has anything to confirm: their `put` has looked already")
            .hint("`verify --store` is for circleci:artifacts, which a step of CircleCI uploads to, and for buckets")
            .err();
    }
    Ok(done)
}

/// `publish [RELEASE]`: moves the pointers to the newest release of the branch.
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
            .hint("circleci:artifacts and buckets have one: see `stores` in xtask/src/main.rs")
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
    // What a fetch that was killed has left.
    machine::sweep(&into);
    let release = catalog.fetch(&id, &into)?;
    Ok(Verified::new(release.manifest(), release.dir()))
}

/// Nobody else has the bytes that a job built.
fn only_of_a_job<T>(what: &str) -> Result<T> {
    usage(format!("{what} is looked after by the workflow that built the release, not from outside CircleCI"))
        .hint("rerun the job `publish` of that workflow in CircleCI")
        .err()
}

/// `prune --store URL`: what a store would forget, or with `remove` forgets.
pub fn prune(tool: &Tool, url: &str, retention: Retention, remove: bool) -> Result<Pruned> {
    let Tool { ctx, project, .. } = *tool;
    if !project.stores.contains(&url) {
        return usage(format!("{url} is no store of this project, so nobody here knows what is needed of it"))
            .hint(format!("name one of: {}", project.stores.join(", ")))
            .err();
    }
    let store = tool.store(url)?;
    let needed = || needed(tool, &*store);
    match store.prune(retention, &machine::owner(ctx, format!("prune of {url}")), !remove, &needed)? {
        Some(kept) => Ok(Pruned { store: store.url().to_owned(), removed: remove, kept }),
        None => usage(format!("{url} forgets by itself, or is a directory"))
            .hint("only buckets are pruned: s3://BUCKET/PREFIX")
            .err(),
    }
}

/// The releases that any env runs, goes back to, or is about to run: by what its hosts say, and by what the store was
/// told. An env of which nobody knows anything may run any of them.
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
                // Nothing was ever deployed there; or it is the directory of another machine, which is not here.
                Ok(_) => (Kind::Failed, format!("there is nothing at {}", target.url())),
                Err(error) => (kind_of(&error), format!("{error:#}")),
            };
            let (kind, reason) = unknown;
            if !told.contains(env.name) {
                return CliError::new(kind, format!("nobody knows what {} runs: {reason}", env.name))
                    .hint(format!(
                        "nothing was removed; prune where its hosts can be reached, or after a deploy to {}",
                        env.name
                    ))
                    .err();
            }
            ctx.note(format!("{reason}: what {} runs is known from {}", env.name, store.url()));
        }
    }
    let names = |envs: BTreeSet<String>| envs.into_iter().collect::<Vec<_>>().join(", ");
    Ok(needed.into_iter().map(|(id, envs)| (id, names(envs))).collect())
}

/// The stores to hand over to. What only a job can reach is left out elsewhere, unless it is named.
fn urls<'a>(ctx: &Context, project: &'a Project, only: Option<&'a str>) -> Vec<&'a str> {
    match only {
        Some(url) => vec![url],
        None => project.stores.iter().copied().filter(|url| ctx.in_ci() || !url.starts_with("circleci:")).collect(),
    }
}

/// A release of this machine, every byte looked at: built here, or brought by the workspace of this job.
fn local(tool: &Tool, release: Option<&Selector>) -> Result<Release> {
    let ctx = tool.ctx;
    let id = Catalog::local(tool).resolve(release)?;
    let dirs: [PathBuf; 2] = [ctx.root.join(RELEASES), store::workspace(ctx).join(DESTINATION)];
    let dir = dirs.map(|dir| dir.join(id.as_str())).into_iter().find(|dir| dir.exists());
    Release::open(&dir.unwrap_or_else(|| ctx.root.join(RELEASES).join(id.as_str())), &ctx.progress("verifying"))
}

/// Puts this program beside the releases in the workspace, so that deploy jobs need neither Rust nor a compile.
fn persist_program(ctx: &Context) -> Result<()> {
    let to = store::workspace(ctx).join(PERSISTED);
    let from = Context::program()?;
    // A job that runs the persisted program has it there already, and cannot write over itself.
    if to.canonicalize().is_ok_and(|to| from.canonicalize().is_ok_and(|from| from == to)) {
        return Ok(());
    }
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    let copied =
        std::fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))).and_then(|()| std::fs::copy(&from, &to));
    copied.with_hint(Kind::Failed, what, || "check free space and permissions: `df -h /tmp`".into()).map(drop)
}
