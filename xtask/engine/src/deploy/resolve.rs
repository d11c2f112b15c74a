//! From what a person typed to one release: over the stores, the checkout and what the envs run.

use crate::context::Context;
use crate::deploy::deploy_log::DeployLog;
use crate::deploy::release_source::ReleaseSource;
use crate::deploy::{Deployment, plan};
use crate::error::{Kind, Result, hint_of, kind_of, not_found, usage};
use crate::git;
use crate::host::Target;
use crate::machine;
use crate::project::{Project, Transfer};
use crate::release::delta;
use crate::release::id::{ReleaseId, Selector};
use crate::release::layout::RELEASES;
use crate::release::manifest::{Head, Manifest};
use crate::release::{Release, manifest, scratch};
use crate::store::dir::DirStore;
use crate::store::{self, Store};
use crate::store_url;
use crate::tool::Tool;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The stores of a project, opened. Outside CircleCI the releases that were built here come first, and the workspace
/// of CircleCI is left out.
pub struct Catalog<'ctx> {
    tool: Tool<'ctx>,
    ctx: &'ctx Context,
    project: &'ctx Project,
    stores: Vec<Box<dyn Store + 'ctx>>,
    /// What was left out, and why: part of the answer when nothing is found.
    skipped: Vec<String>,
    /// Those of them that keep what is live.
    unnotified: Vec<String>,
}

impl<'ctx> Catalog<'ctx> {
    /// Opens the stores that are of use here.
    pub fn open(tool: &Tool<'ctx>) -> Result<Self> {
        let Tool { ctx, project, .. } = *tool;
        let mut catalog = Self::built(tool);
        if ctx.in_ci() {
            catalog.stores.clear();
        }
        for url in project.stores.iter().filter(|url| ctx.in_ci() || !store_url::only_in_ci(url)) {
            let store = tool.store(url)?;
            match store.unusable() {
                None => catalog.stores.push(store),
                Some(reason) => {
                    catalog.unnotified.extend(store.keeps_history().then(|| reason.clone()));
                    catalog.skipped.push(reason);
                }
            }
        }
        if !ctx.in_ci() {
            // A network that is gone must not keep anybody from what lies here. In a job the order is the project's.
            catalog.stores.sort_by_key(|store| store.is_remote());
        }
        Ok(catalog)
    }

    /// Those of the stores that keep what is live.
    pub fn deploy_log(&self) -> DeployLog<'_> {
        for reason in &self.unnotified {
            self.ctx
                .warn(format!("{reason}; so nobody there is told what is live, and its lock of an env is left alone"));
        }
        DeployLog::new(self.stores.iter().map(|store| -> &dyn Store { &**store }))
    }

    /// What this machine holds: built here, or handed over by the workspace of this job. For what is to be stored.
    pub fn local(tool: &Tool<'ctx>) -> Self {
        let ctx = tool.ctx;
        let mut catalog = Self::built(tool);
        if ctx.in_ci() {
            let dir = store::workspace(ctx).join(store::artifacts::DESTINATION);
            catalog.stores.push(Box::new(DirStore::new(ctx, store_url::WORKSPACE_URL, dir)));
        }
        catalog
    }

    /// Only what was built in this checkout.
    pub fn built(tool: &Tool<'ctx>) -> Self {
        let Tool { ctx, project, .. } = *tool;
        let here = DirStore::new(ctx, &format!("file:{RELEASES}"), ctx.root.join(RELEASES));
        Self { tool: *tool, ctx, project, stores: vec![Box::new(here)], skipped: vec![], unnotified: vec![] }
    }

    /// The app whose releases count: a store may hold those of others.
    fn app(&self) -> &'ctx str {
        self.project.app.name
    }

    /// The newest `most` releases, the newest first, each with the stores that keep it. A store over the network that
    /// does not answer is passed over aloud.
    pub fn list(&self, most: usize) -> Result<Vec<(Head, Vec<String>)>> {
        for reason in &self.skipped {
            self.ctx.note(reason);
        }
        store::list(self.ctx, self.app(), &self.stores, most)
    }

    /// The manifest of a release.
    pub fn manifest(&self, id: &ReleaseId) -> Result<Manifest> {
        let found = store::find(self.app(), &self.stores, &|store| {
            Ok(store.of_commit(id.short_sha())?.into_iter().filter(|manifest| manifest.id == *id).collect())
        })?;
        match found.into_iter().next() {
            Some(manifest) => Ok(manifest),
            None => not_found(self.and_unasked(&format!("no store has {id}")))
                .hint("`cargo xtask releases` lists what there is")
                .err(),
        }
    }

    fn and_unasked(&self, what: &str) -> String {
        std::iter::once(what).chain(self.skipped.iter().map(String::as_str)).collect::<Vec<_>>().join("; ")
    }

    /// The release that a selector means. Without one it is that of the commit: of `CIRCLE_SHA1` in a job, of the
    /// checkout elsewhere.
    pub fn resolve(&self, selector: Option<&Selector>) -> Result<ReleaseId> {
        match selector {
            None | Some(Selector::Head) => self.of_checkout(),
            Some(Selector::Previous) => usage("`previous` is what a rollback goes back to, and this is none")
                .hint("use `cargo xtask rollback ENV`, or name a release: `cargo xtask releases` lists them")
                .err(),
            Some(Selector::Id(id)) => Ok(id.clone()),
            Some(Selector::Sha(sha)) => self.by_sha(&self.of_commit(sha)?, sha),
            Some(Selector::Latest) => match store::newest(self.ctx, self.app(), &self.stores)? {
                Some(manifest) => Ok(manifest.id),
                None => not_found(self.and_unasked("there is no release yet")).hint("run `cargo xtask build`").err(),
            },
            Some(Selector::Env(env)) => running(env, &self.tool.targets(self.project.env(env)?)?),
            Some(Selector::Build(number)) => match store::of_build(self.app(), &self.stores, *number)? {
                Some(manifest) => Ok(manifest.id),
                None => not_found(self.and_unasked(&format!("no store has a release of job {number}")))
                    .hint("`cargo xtask releases` lists what there is; only circleci:artifacts can ask CircleCI")
                    .err(),
            },
        }
    }

    fn of_commit(&self, sha: &str) -> Result<Vec<Manifest>> {
        store::find(self.app(), &self.stores, &|store| store.of_commit(sha))
    }

    fn by_sha(&self, found: &[Manifest], sha: &str) -> Result<ReleaseId> {
        store::by_sha(found, sha).map_err(|error| {
            if self.skipped.is_empty() || kind_of(&error) != Kind::NotFound {
                return error;
            }
            let hint = hint_of(&error).unwrap_or("see `cargo xtask releases`").to_owned();
            not_found(self.and_unasked(&format!("{error:#}"))).hint(hint).into()
        })
    }

    fn of_checkout(&self) -> Result<ReleaseId> {
        if let Some(sha) = self.ctx.var("CIRCLE_SHA1") {
            let mut found = self.of_commit(sha)?;
            found.retain(|manifest| !manifest.commit.dirty);
            let remote = self.stores.iter().any(|store| store.is_remote());
            if found.is_empty() && !remote && store::list(self.ctx, self.app(), &self.stores, 1)?.is_empty() {
                return not_found(self.and_unasked(&format!("no store has any release, so none of commit {sha}")))
                    .hint(store::EMPTY_WORKSPACE)
                    .err();
            }
            return self.by_sha(&found, sha);
        }
        let commit = git::commit(self.ctx)?;
        if !commit.dirty {
            let mut found = self.of_commit(&commit.sha)?;
            found.retain(|manifest| !manifest.commit.dirty);
            return self.by_sha(&found, &commit.sha);
        }
        // Only what was built from a checkout can be dirty, so no store over the network is asked.
        let local = self.stores.iter().filter(|store| !store.is_remote());
        let mut dirty = Vec::new();
        for store in local {
            let ours = |manifest: &Manifest| manifest.commit.dirty && manifest.app == self.app();
            dirty.extend(store.of_commit(&commit.sha)?.into_iter().filter(ours));
        }
        // The files have no commit to go by, so what was built last is what is meant.
        match dirty.into_iter().max_by_key(|manifest| self.built_at(&manifest.id)) {
            Some(manifest) => Ok(manifest.id),
            None => not_found(format!(
                "the checkout has changes that no commit holds, and no release of them was built ({})",
                &commit.sha[..7]
            ))
            .hint("run `cargo xtask build`, or name a release: `cargo xtask releases` lists them")
            .err(),
        }
    }

    /// When a release was last built here, or found up to date.
    fn built_at(&self, id: &ReleaseId) -> Option<SystemTime> {
        let manifest = self.ctx.root.join(RELEASES).join(id.as_str()).join(manifest::FILE);
        std::fs::metadata(manifest).and_then(|meta| meta.modified()).ok()
    }

    /// Fetches a release into a directory of its own, so that two deploys in one checkout do not take it from each
    /// other; it goes when the deploy ends.
    ///
    /// With [`Transfer::Pull`] it is fetched and checked all the same: the hosts unpack only a bundle with the digest of
    /// the one that was checked here.
    pub fn fetch_for_deploy(&self, id: &ReleaseId, transfer: Transfer) -> Result<ReleaseSource<'_>> {
        let linked = if transfer == Transfer::Pull { self.linked(id) } else { None };
        let fetched = self.ctx.root.join(FETCHED);
        machine::sweep(&fetched);
        let dir = scratch(&fetched, "deploying");
        let release = self.fetch(id, &dir).inspect_err(|_| drop(std::fs::remove_dir_all(&dir)))?;
        let refused = match &linked {
            _ if transfer != Transfer::Pull => None,
            None => Some(format!("no store can give the hosts a URL of {id}")),
            Some((manifest, store)) if manifest.bundle != release.manifest().bundle => {
                Some(format!("{} has another bundle of {id} than the one that was checked", store.url()))
            }
            Some(_) if !release.is_ours() => Some(format!("the bundle of {id} was compressed by another program")),
            Some(_) => None,
        };
        let origin = linked.filter(|_| refused.is_none()).map(|(_, store)| store);
        if let Some(reason) = refused {
            self.ctx.warn(format!("{reason}, so it is sent to them from here"));
        }
        Ok(ReleaseSource::new(release, dir, self, origin))
    }

    /// The bundle of a release that `hosts` hosts have, to see what they lack of `newer`. Where it was not built here it is
    /// fetched into `dir`, if there are files to look into: from a bucket for more than one host, to whom that saves more
    /// than it costs.
    pub fn older(&self, id: &ReleaseId, newer: &Manifest, hosts: usize, dir: &Path) -> Option<PathBuf> {
        let built = self.ctx.root.join(RELEASES).join(id.as_str());
        if let Ok(manifest) = Release::read_manifest(&built) {
            return Some(built.join(manifest.bundle.file));
        }
        // CircleCI would be asked for all pipelines since.
        let is_near = |store: &dyn Store| !store.is_remote() || hosts > 1 && store_url::is_bucket(store.url());
        let near = self.stores.iter().filter(|store| is_near(&***store));
        near.filter_map(|store| {
            let known = store.of_commit(id.short_sha()).ok()?.into_iter().find(|manifest| manifest.id == *id)?;
            delta::differ_inside(newer, &known).then(|| store.get(id, dir).ok())?
        })
        .map(|release| release.bundle())
        .next()
    }

    /// The first store that has a release and URLs of it to give away.
    fn linked(&self, id: &ReleaseId) -> Option<(Manifest, &dyn Store)> {
        for store in &self.stores {
            let linked = || -> Result<Option<Manifest>> {
                if !store.has_links()? {
                    return Ok(None);
                }
                let Some(manifest) = store.of_commit(id.short_sha())?.into_iter().find(|it| it.id == *id) else {
                    self.ctx.note(format!("{} does not have {id}", store.url()));
                    return Ok(None);
                };
                // Whether it can be signed shows only when it is.
                store.link(&manifest)?;
                Ok(Some(manifest))
            };
            match linked() {
                Ok(Some(manifest)) => return Some((manifest, &**store)),
                Ok(None) => {}
                Err(error) => self.ctx.warn(format!("{} is left out: {error:#}", store.url())),
            }
        }
        None
    }

    /// Fetches a release from the first store that has it, verified, into `into`.
    pub fn fetch(&self, id: &ReleaseId, into: &Path) -> Result<Release> {
        let release = store::fetch(self.ctx, self.app(), &self.stores, id, into)?;
        self.of_this_commit(release.manifest())?;
        Ok(release)
    }

    /// In a job it has to be of the job's commit, where it seems to be.
    fn of_this_commit(&self, manifest: &Manifest) -> Result<()> {
        let id = &manifest.id;
        if let Some(sha) =
            self.ctx.var("CIRCLE_SHA1").filter(|sha| id.short_sha() == &sha[..sha.len().min(ReleaseId::SHORT)])
            && manifest.commit.sha != sha
        {
            return crate::error::verification(format!("{id} was built from {}, not from {sha}", manifest.commit.sha))
                .hint("rerun the build job of this commit")
                .err();
        }
        Ok(())
    }
}

/// Where releases are fetched to, below the workspace root.
pub const FETCHED: &str = "target/fetched";

/// The healthy release that all targets of an env run.
pub fn running(env: &str, targets: &[Box<dyn Target + '_>]) -> Result<ReleaseId> {
    let mut found = Vec::new();
    for target in targets {
        match target.state()?.confirmed_live() {
            Some(id) => found.push((target.url().to_owned(), id.clone())),
            None => {
                return not_found(format!("{} runs no healthy release", target.url()))
                    .hint(format!("see `cargo xtask status {env}`, then `cargo xtask deploy {env}`"))
                    .err();
            }
        }
    }
    plan::agreed(env, &found)
}

/// The release to roll back to, by selector: one that a target has counts even when no store keeps it any more.
pub fn for_rollback(catalog: &Catalog, site: &Deployment, selector: &Selector) -> Result<ReleaseId> {
    if let Selector::Sha(sha) = selector {
        let short = &sha[..sha.len().min(ReleaseId::SHORT)];
        let mut found: Vec<ReleaseId> = Vec::new();
        for state in site.states()? {
            found.extend(state.installed.into_keys().filter(|id| id.short_sha().starts_with(short)));
        }
        found.sort();
        found.dedup();
        if let [id] = found.as_slice() {
            return Ok(id.clone());
        }
    }
    catalog.resolve(Some(selector))
}
