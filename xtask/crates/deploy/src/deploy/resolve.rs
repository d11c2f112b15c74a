//! Resolves a selector to one release: from stores, the checkout and what the envs run.

use crate::deploy::deploy_log::DeployLog;
use crate::deploy::deployment::Deployment;
use crate::deploy::release_source::ReleaseSource;
use crate::host::Target;
use crate::store;
use crate::store::Store;
use crate::store::dir::DirStore;
use crate::tool::Tool;
use gangplank_bundle::delta;
use gangplank_bundle::release::{Release, scratch};
use gangplank_model::error::{Kind, Result, hint_of, kind_of, not_found, usage};
use gangplank_model::plan;
use gangplank_model::project::{Env, Project, Transfer};
use gangplank_model::release::id::{ReleaseId, Selector};
use gangplank_model::release::layout::RELEASES;
use gangplank_model::release::manifest;
use gangplank_model::release::manifest::{Head, Manifest};
use gangplank_model::store_url;
use gangplank_system::context::Context;
use gangplank_system::git;
use gangplank_system::machine;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The opened stores of a project. Outside CircleCI, local releases come first and CircleCI's workspace is omitted.
pub struct Catalog<'ctx> {
    tool: Tool<'ctx>,
    ctx: &'ctx Context,
    project: &'ctx Project,
    stores: Vec<Box<dyn Store + 'ctx>>,
    /// The skipped stores and why, for the error if nothing is found.
    skipped: Vec<String>,
    /// Skipped stores that record what is live.
    unnotified: Vec<String>,
}

impl<'ctx> Catalog<'ctx> {
    /// Opens the stores that are usable here.
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
            // Local stores first, so that they work without a network. In a job the project's order applies.
            catalog.stores.sort_by_key(|store| store.is_remote());
        }
        Ok(catalog)
    }

    /// The stores that record what is live.
    pub fn deploy_log(&self) -> DeployLog<'_> {
        for reason in &self.unnotified {
            self.ctx.warn(format!("{reason}; so it gets no record of what is live, and its lock is not taken"));
        }
        DeployLog::new(self.stores.iter().map(|store| -> &dyn Store { &**store }))
    }

    /// The local releases: built here, or from the workspace of this job. For `put` and `publish`.
    pub fn local(tool: &Tool<'ctx>) -> Self {
        let ctx = tool.ctx;
        let mut catalog = Self::built(tool);
        if ctx.in_ci() {
            let dir = store::workspace(ctx).join(store::DESTINATION);
            catalog.stores.push(Box::new(DirStore::new(ctx, store_url::WORKSPACE_URL, dir)));
        }
        catalog
    }

    /// Only the releases built in this checkout.
    pub fn built(tool: &Tool<'ctx>) -> Self {
        let Tool { ctx, project, .. } = *tool;
        let here = DirStore::new(ctx, &format!("file:{RELEASES}"), ctx.root.join(RELEASES));
        Self { tool: *tool, ctx, project, stores: vec![Box::new(here)], skipped: vec![], unnotified: vec![] }
    }

    /// The app whose releases count; a store may hold those of other apps.
    fn app(&self) -> &'ctx str {
        self.project.app.name
    }

    /// The newest `most` releases, newest first, each with its stores. An unreachable remote store is skipped with a
    /// warning.
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
            None => Err(self.absent(id)),
        }
    }

    fn absent(&self, id: &ReleaseId) -> anyhow::Error {
        not_found(self.and_unasked(&format!("no store has {id}")))
            .hint("`cargo xtask releases` lists what there is")
            .into()
    }

    fn and_unasked(&self, what: &str) -> String {
        std::iter::once(what).chain(self.skipped.iter().map(String::as_str)).collect::<Vec<_>>().join("; ")
    }

    /// The release that a selector means. Without one: that of the commit, which is `CIRCLE_SHA1` in a job and the
    /// checkout's elsewhere.
    pub fn resolve(&self, selector: Option<&Selector>) -> Result<ReleaseId> {
        match selector {
            None | Some(Selector::Head) => self.of_checkout(),
            Some(Selector::Previous) => usage("`previous` is only valid for a rollback")
                .hint("use `cargo xtask rollback ENV`, or name a release: `cargo xtask releases` lists them")
                .err(),
            Some(Selector::Id(id)) => Ok(id.clone()),
            Some(Selector::Sha(sha)) => self.by_sha(&self.of_commit(sha)?, sha),
            Some(Selector::Dirty(short)) => {
                let mut found = self.of_commit(&short[..ReleaseId::SHORT])?;
                found.retain(|manifest| manifest.id.short() == short);
                self.by_sha(&found, short)
            }
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
                return not_found(self.and_unasked(&format!("all stores are empty: no release of commit {sha}")))
                    .hint(store::EMPTY_WORKSPACE)
                    .err();
            }
            return self.by_sha(&found, sha);
        }
        let commit = git::commit(self.ctx)?;
        if !commit.dirty {
            let mut found = self.of_commit(&commit.sha)?;
            found.retain(|manifest| !manifest.commit.dirty);
            if found.is_empty() {
                return not_found(self.and_unasked(&format!("{} was not built yet", &commit.sha[..7])))
                    .hint("run `cargo xtask build`, or name a release: `cargo xtask releases` lists them")
                    .err();
            }
            return self.by_sha(&found, &commit.sha);
        }
        // Only a local build can be dirty, so remote stores are not asked.
        let local = self.stores.iter().filter(|store| !store.is_remote());
        let mut dirty = Vec::new();
        for store in local {
            let ours = |manifest: &Manifest| manifest.commit.dirty && manifest.app == self.app();
            dirty.extend(store.of_commit(&commit.sha)?.into_iter().filter(ours));
        }
        // A dirty tree has no commit to match: take the latest build.
        match dirty.into_iter().max_by_key(|manifest| self.built_at(&manifest.id)) {
            Some(manifest) => Ok(manifest.id),
            None => not_found(format!(
                "the checkout has uncommitted changes, and no release of them was built ({})",
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

    /// Fetches a release into its own directory, so that two deploys in one checkout do not interfere; removed after
    /// the deploy.
    ///
    /// [`Transfer::Pull`] fetches and verifies it too: hosts accept only a bundle with the digest verified here.
    ///
    /// A signature that `env` requires is checked before anything is fetched, and of what was fetched.
    pub(crate) fn fetch_for_deploy(&self, id: &ReleaseId, env: &Env) -> Result<ReleaseSource<'_>> {
        let transfer = env.transfer;
        let stores = if env.require_signature.is_empty() { &self.stores[..] } else { self.signed(id, env)? };
        let linked = if transfer == Transfer::Pull { self.linked(id) } else { None };
        let fetched = self.ctx.root.join(FETCHED);
        machine::sweep(&fetched);
        let dir = scratch(&fetched, "deploying");
        let fetched = self.fetch_from(stores, id, &dir).and_then(|release| {
            if let Some(signer) = self.tool.check_signature(env, release.manifest())? {
                self.ctx.note(format!("{id} was signed by {signer}"));
            }
            Ok(release)
        });
        let release = fetched.inspect_err(|_| drop(std::fs::remove_dir_all(&dir)))?;
        let refused = match &linked {
            _ if transfer != Transfer::Pull => None,
            None => Some(format!("no store can sign a URL of {id}")),
            Some((manifest, store)) if manifest.bundle != release.manifest().bundle => {
                Some(format!("{} has a different bundle of {id} than the verified one", store.url()))
            }
            Some(_) if !release.is_ours() => Some(format!("the bundle of {id} was compressed by another program")),
            Some(_) => None,
        };
        let origin = linked.filter(|_| refused.is_none()).map(|(_, store)| store);
        if let Some(reason) = refused {
            self.ctx.warn(format!("{reason}; sending it to the hosts from here"));
        }
        Ok(ReleaseSource::new(release, dir, self, origin))
    }

    /// The bundle that `hosts` hosts already have, as the base of a delta to `newer`. If there are files to compare, a
    /// bundle not built here is downloaded into `dir`: from a bucket only for more than one host, where the delta saves
    /// more than the download costs.
    pub fn older(&self, id: &ReleaseId, newer: &Manifest, hosts: usize, dir: &Path) -> Option<PathBuf> {
        let built = self.ctx.root.join(RELEASES).join(id.as_str());
        if let Ok(manifest) = Release::read_manifest(&built) {
            return Some(built.join(manifest.bundle.file));
        }
        // CircleCI would have to list all pipelines since then.
        let is_near = |store: &dyn Store| !store.is_remote() || hosts > 1 && store_url::is_bucket(store.url());
        let near = self.stores.iter().filter(|store| is_near(&***store));
        near.filter_map(|store| {
            let known = store.of_commit(id.short_sha()).ok()?.into_iter().find(|manifest| manifest.id == *id)?;
            delta::differ_inside(newer, &known).then(|| store.get(id, dir).ok())?
        })
        .map(|release| release.bundle())
        .next()
    }

    /// The first store that has a release and can sign URLs of it.
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
                // Signing shows whether the store has signing credentials.
                store.link(&manifest)?;
                Ok(Some(manifest))
            };
            match linked() {
                Ok(Some(manifest)) => return Some((manifest, &**store)),
                Ok(None) => {}
                Err(error) => self.ctx.warn(format!("{} skipped: {error:#}", store.url())),
            }
        }
        None
    }

    /// The first store whose copy of a release is signed as an env requires. Another one may have an unsigned copy.
    fn signed(&self, id: &ReleaseId, env: &Env) -> Result<&[Box<dyn Store + 'ctx>]> {
        let mut refusal = None;
        for (n, store) in self.stores.iter().enumerate() {
            let is_it = |manifest: &Manifest| manifest.id == *id && manifest.app == self.app();
            let checked = store.of_commit(id.short_sha()).and_then(|found| {
                let manifest = found.into_iter().find(is_it);
                manifest.map(|manifest| self.tool.check_signature(env, &manifest)).transpose()
            });
            match checked {
                Ok(Some(_)) => return Ok(&self.stores[n..=n]),
                Ok(None) => {}
                // The list of keys is wrong, whatever the store.
                Err(error) if kind_of(&error) == Kind::Usage => return Err(error),
                Err(error) if kind_of(&error) == Kind::NotFound => {}
                // Another store may still serve it.
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        match refusal {
            Some(error) => Err(error),
            None => Err(self.absent(id)),
        }
    }

    /// Fetches a release from the first store that has it, verified, into `into`.
    pub fn fetch(&self, id: &ReleaseId, into: &Path) -> Result<Release> {
        self.fetch_from(&self.stores, id, into)
    }

    fn fetch_from(&self, stores: &[Box<dyn Store + 'ctx>], id: &ReleaseId, into: &Path) -> Result<Release> {
        let release = store::fetch(self.ctx, self.app(), stores, id, into)?;
        self.of_this_commit(release.manifest())?;
        if release.id() != id {
            return gangplank_model::error::verification(format!("a store served {} as {id}", release.id()))
                .hint("run the same command again; if it fails again, find out who can write to the store")
                .err();
        }
        Ok(release)
    }

    /// Fails if the release is not of the job's commit although its id is.
    fn of_this_commit(&self, manifest: &Manifest) -> Result<()> {
        let id = &manifest.id;
        if let Some(sha) =
            self.ctx.var("CIRCLE_SHA1").filter(|sha| id.short_sha() == &sha[..sha.len().min(ReleaseId::SHORT)])
            && manifest.commit.sha != sha
        {
            return gangplank_model::error::verification(format!(
                "{id} was built from {}, not from {sha}",
                manifest.commit.sha
            ))
            .hint("rerun the build job of this commit")
            .err();
        }
        Ok(())
    }
}

/// The directory of fetched releases, below the workspace root.
pub(crate) const FETCHED: &str = "target/fetched";

/// The healthy release that all targets of an env run.
pub fn running(env: &str, targets: &[Box<dyn Target + '_>]) -> Result<ReleaseId> {
    let (mut found, mut without) = (Vec::new(), None);
    for target in targets {
        match target.state()?.confirmed_live() {
            Some(id) => found.push((target.url().to_owned(), id.clone())),
            None => without = without.or(Some(target.url())),
        }
    }
    let agreed = plan::refuse::disagreeing(env, &found);
    let Some(without) = without else { return agreed };
    let hint = match agreed {
        // As after a host was added: by its own name the release of the others goes there too.
        Ok(id) => {
            format!("see `cargo xtask status {env}`; `cargo xtask deploy {env} {id}` deploys what its other hosts run")
        }
        Err(_) => format!("see `cargo xtask status {env}`, then `cargo xtask deploy {env}`"),
    };
    not_found(format!("{without} runs no healthy release")).hint(hint).err()
}

/// The release to roll back to; one that only a target still has counts too.
pub(crate) fn for_rollback(catalog: &Catalog, site: &Deployment, selector: &Selector) -> Result<ReleaseId> {
    if let Selector::Sha(text) | Selector::Dirty(text) = selector {
        let dirty = matches!(selector, Selector::Dirty(_));
        let sha = &text[..text.len().min(ReleaseId::SHORT)];
        let is_meant = |id: &ReleaseId| if dirty { id.short() == text } else { id.short_sha().starts_with(sha) };
        let mut found: Vec<ReleaseId> = Vec::new();
        for host in site.snapshot(false)?.hosts {
            found.extend(host.state.installed.into_keys().filter(is_meant));
        }
        found.sort();
        found.dedup();
        if let [id] = found.as_slice() {
            return Ok(id.clone());
        }
    }
    catalog.resolve(Some(selector))
}
