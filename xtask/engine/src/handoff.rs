//! `put`, `fetch` and `publish`: handing releases from the job that builds to the jobs that deploy.

use crate::build::RELEASES;
use crate::ci::pipeline::PERSISTED;
use crate::cx::Cx;
use crate::deploy::report::Verified;
use crate::deploy::resolve::Catalog;
use crate::error::{Explain, Kind, Result, usage};
use crate::project::Project;
use crate::release::Release;
use crate::release::id::{ReleaseId, Selector};
use crate::store::artifacts::DESTINATION;
use crate::store::{self, Published, Put};
use serde::Serialize;
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
    pub confirmed: bool,
}

/// `put [RELEASE]`
pub fn put(cx: &Cx, project: &Project, release: Option<&Selector>, only: Option<&str>) -> Result<Vec<PutDone>> {
    let release = at_hand(cx, project, release)?;
    let urls = urls(cx, project, only);
    if urls.is_empty() {
        return usage("no store of this project is of use outside CircleCI")
            .hint("name one: `cargo xtask put --store file:DIR`")
            .err();
    }
    let mut done = Vec::new();
    for url in urls {
        let store = store::open(cx, &project.ci, url)?;
        let put = store.put(&release)?;
        if store::only_in_ci(url) {
            persist_program(cx)?;
        }
        let by_step = store.is_uploaded_by_a_step();
        let already_there = put == Put::AlreadyThere && !by_step;
        let release = release.id().clone();
        done.push(PutDone { store: url.to_owned(), release, already_there, by_step, confirmed: false });
    }
    Ok(done)
}

/// `put --confirm [RELEASE]`: after the step that uploads, looks whether all of it arrived.
pub fn confirm(cx: &Cx, project: &Project, release: Option<&Selector>, only: Option<&str>) -> Result<Vec<PutDone>> {
    let release = at_hand(cx, project, release)?;
    let mut done = Vec::new();
    for url in urls(cx, project, only) {
        if store::open(cx, &project.ci, url)?.confirm(&release)? {
            let id = release.id().clone();
            let (already_there, by_step, confirmed) = (true, false, true);
            done.push(PutDone { store: url.to_owned(), release: id, already_there, by_step, confirmed });
        }
    }
    if done.is_empty() && !cx.in_ci() {
        return only_of_a_job("what CircleCI was given");
    }
    if done.is_empty() {
        return usage("no store of this project has anything to confirm: their `put` has looked already")
            .hint("--confirm is for circleci:artifacts, which a step of CircleCI uploads to")
            .err();
    }
    Ok(done)
}

/// `publish [RELEASE]`: moves the pointers to the newest release of the branch.
pub fn publish(cx: &Cx, project: &Project, release: Option<&Selector>) -> Result<Vec<Published>> {
    let release = at_hand(cx, project, release)?;
    let mut done = Vec::new();
    for url in urls(cx, project, None) {
        done.extend(store::open(cx, &project.ci, url)?.publish(release.manifest())?);
    }
    if done.is_empty() && !cx.in_ci() {
        return only_of_a_job("the pointer");
    }
    if done.is_empty() {
        return usage("no store of this project has a pointer to the newest release")
            .hint("circleci:artifacts has one: see `stores` in xtask/src/main.rs")
            .err();
    }
    Ok(done)
}

/// `fetch [RELEASE]`
pub fn fetch(cx: &Cx, project: &Project, release: Option<&Selector>, into: &Path) -> Result<Verified> {
    let catalog = Catalog::open(cx, project)?;
    let id = catalog.resolve(release)?;
    let release = catalog.fetch(&id, &cx.root.join(into))?;
    Ok(Verified::new(release.manifest(), release.dir()))
}

/// Nobody else has the bytes that a job built.
fn only_of_a_job<T>(what: &str) -> Result<T> {
    usage(format!("{what} is looked after by the workflow that built the release, not from outside CircleCI"))
        .hint("rerun the job `publish` of that workflow in CircleCI")
        .err()
}

/// The stores to hand over to. What only a job can reach is left out elsewhere, unless it is named.
fn urls<'a>(cx: &Cx, project: &'a Project, only: Option<&'a str>) -> Vec<&'a str> {
    match only {
        Some(url) => vec![url],
        None => project.stores.iter().copied().filter(|url| cx.in_ci() || !url.starts_with("circleci:")).collect(),
    }
}

/// A release of this machine, every byte looked at: built here, or brought by the workspace of this job.
fn at_hand(cx: &Cx, project: &Project, release: Option<&Selector>) -> Result<Release> {
    let id = Catalog::at_hand(cx, project).resolve(release)?;
    let dirs: [PathBuf; 2] = [cx.root.join(RELEASES), store::workspace(cx).join(DESTINATION)];
    let dir = dirs.map(|dir| dir.join(id.as_str())).into_iter().find(|dir| dir.exists());
    Release::open(&dir.unwrap_or_else(|| cx.root.join(RELEASES).join(id.as_str())), &cx.progress("verifying"))
}

/// Puts this program beside the releases in the workspace, so that deploy jobs need neither Rust nor a compile.
fn persist_program(cx: &Cx) -> Result<()> {
    let to = store::workspace(cx).join(PERSISTED);
    let from = Cx::program()?;
    // A job that runs the persisted program has it there already, and cannot write over itself.
    if to.canonicalize().is_ok_and(|to| from.canonicalize().is_ok_and(|from| from == to)) {
        return Ok(());
    }
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    let copied =
        std::fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))).and_then(|()| std::fs::copy(&from, &to));
    copied.explain(Kind::Failed, what, || "check free space and permissions: `df -h /tmp`".into()).map(drop)
}
