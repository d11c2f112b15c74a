//! Where releases are handed from the job that builds to the jobs that deploy: whole releases, never loose files.

pub mod artifacts;
#[cfg(feature = "s3")]
pub mod bucket;
pub mod dir;
#[cfg(feature = "s3")]
pub mod object;

use crate::context::{Context, var};
use crate::deploy::history::{History, Record};
use crate::deploy::state::Lockable;
use crate::error::{CliError, Kind, Result, WithHint, hint_of, kind_of, not_found, usage, verification};
use crate::http::Url;
use crate::owner::Owner;
use crate::project::Ci;
use crate::release::id::ReleaseId;
use crate::release::manifest::{Head, Manifest};
use crate::release::{Release, scratch};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What an empty workspace means.
pub const EMPTY_WORKSPACE: &str = "an empty workspace means that no job that this one `requires` persisted it, or that it is older than 15 days: rerun the build job";

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The store has it now.
    Stored,
    /// The store had the same bytes already.
    AlreadyThere,
}

/// What `publish` did with a store's pointer to the newest release of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The store.
    pub store: String,
    /// What points: the name of a variable, or the key of an object.
    pub pointer: Option<String>,
    /// What it points at now: the number of the job that built the release.
    pub job: Option<u64>,
    /// The release of that job.
    pub release: Option<ReleaseId>,
    /// Whether it was moved just now.
    pub moved: bool,
    /// Why it was left, in words.
    pub reason: Option<String>,
}

/// What a prune of a store leaves: of each branch the newest, and everything that is young.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention<'a> {
    /// The app whose releases go; those of others in the same place stay.
    pub app: &'a str,
    /// How many releases of each branch.
    pub keep: usize,
    /// How many days everything stays.
    pub days: u32,
}

/// A release or object of a store, seen by a prune.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetentionDecision {
    /// The id, or the key of what no release needs.
    pub what: String,
    /// Why it stays; without a reason it goes.
    pub reason: Option<String>,
}

/// Says which releases are needed, and by whom.
pub type Needed<'a> = &'a dyn Fn() -> Result<BTreeMap<ReleaseId, String>>;

/// A place that keeps releases.
///
/// A put is immutable and atomic: the same bytes again are a success, other bytes under the same id an error that names
/// what differs, and a reader sees a release whole or not at all. The contract suite in `tests/it/store.rs` says so
/// for each implementation.
pub trait Store {
    /// Its URL, as the project names it.
    fn url(&self) -> &str;
    /// Keeps a release.
    fn put(&self, release: &Release) -> Result<Put>;
    /// Copies a release to `into/<id>` and checks every byte of the copy.
    fn get(&self, id: &ReleaseId, into: &Path) -> Result<Release>;
    /// Manifests of everything it keeps, the newest first.
    fn list(&self) -> Result<Vec<Manifest>>;

    /// Whether a question to it goes over the network, so that it is asked last, and only for what no other has.
    fn is_remote(&self) -> bool {
        false
    }
    /// Why it cannot be asked at all here, e.g. for want of a token; `None` when it can.
    fn unusable(&self) -> Option<String> {
        None
    }
    /// Whether a put would work, by trying; what is written for that is gone again.
    fn examine(&self) -> Result<()> {
        Ok(())
    }
    /// What the newest `most` releases are, the newest first, for a list of them.
    fn newest(&self, most: usize) -> Result<Vec<Head>> {
        Ok(self.list()?.into_iter().take(most).map(Head::from).collect())
    }
    /// Manifests of a commit, by its SHA or the first digits of it.
    fn of_commit(&self, sha: &str) -> Result<Vec<Manifest>> {
        Ok(self.list()?.into_iter().filter(|manifest| manifest.commit.sha.starts_with(sha)).collect())
    }
    /// The newest release that is not dirty.
    fn latest(&self) -> Result<Option<Manifest>> {
        Ok(self.list()?.into_iter().find(|manifest| !manifest.commit.dirty))
    }
    /// The release that a CircleCI job built.
    fn of_build(&self, job: u64) -> Result<Option<Manifest>> {
        Ok(self.list()?.into_iter().find(|manifest| manifest.ci.as_ref().is_some_and(|ci| ci.job == job)))
    }
    /// Looks at every byte of a release where the store keeps it for others, and mends it where the store can; `false`
    /// where `put` has seen to it.
    fn confirm(&self, _release: &Release) -> Result<bool> {
        Ok(false)
    }
    /// Whether [`Store::link`] can give URLs.
    fn has_links(&self) -> Result<bool> {
        Ok(false)
    }
    /// A URL by which anybody can fetch a bundle for a while. It is a secret.
    fn link(&self, manifest: &Manifest) -> Result<Url> {
        usage(format!("{} has no URL of {} to give away", self.url(), manifest.id))
            .hint("set `transfer: Transfer::Push`, see xtask/src/main.rs")
            .err()
    }
    /// Whether `put` only lays a release ready, for a later step of the job to upload.
    fn is_uploaded_by_a_step(&self) -> bool {
        false
    }
    /// Moves the pointer to the newest release of a branch, never backwards; `None` where there is none to move.
    fn publish(&self, _manifest: &Manifest) -> Result<Option<Published>> {
        Ok(None)
    }
    /// Whether it keeps what is and was live in each env.
    fn keeps_history(&self) -> bool {
        false
    }
    /// Adds to what is and was live in an env. Fails when the release is about to be removed.
    fn append(&self, _env: &str, _record: &Record) -> Result<()> {
        Ok(())
    }
    /// What is and was live in an env, where somebody has said so.
    fn history(&self, _env: &str) -> Result<Option<History>> {
        Ok(None)
    }
    /// What is and was live in every env that the store was told of.
    fn histories(&self) -> Result<Vec<(String, History)>> {
        Ok(vec![])
    }
    /// The lock of an env, where the store can keep one.
    fn lock_of(&self, _env: &str) -> Option<Box<dyn Lockable + '_>> {
        None
    }
    /// Removes what is not kept, or only says what it would remove; `None` where nothing can be removed.
    fn prune(
        &self,
        _retention: Retention,
        _by: &Owner,
        _dry_run: bool,
        _needed: Needed,
    ) -> Result<Option<Vec<RetentionDecision>>> {
        Ok(None)
    }
}

/// The directory of the CircleCI workspace.
pub fn workspace(ctx: &Context) -> PathBuf {
    ctx.var(var::WORKSPACE).unwrap_or(crate::store_url::WORKSPACE).into()
}

/// The branch whose releases count: that of the pipeline in a job, the project's elsewhere and for tags.
fn branch<'a>(ctx: &'a Context, ci: &'a Ci) -> &'a str {
    ctx.var("CIRCLE_BRANCH").unwrap_or(ci.branch)
}

/// The refusal to store a release under an id that other bytes have.
fn another(url: &str, ours: &Manifest, theirs: &Manifest) -> CliError {
    if ours.app != theirs.app {
        return verification(format!("{url} has {} of another app, `{}`", ours.id, theirs.app))
            .hint("apps of one repository have releases of the same ids: give each app a directory or prefix of its own, in `stores` of xtask/src/main.rs");
    }
    verification(format!("{url} has another {}: {}", ours.id, ours.difference(theirs)))
        .hint("a release never changes: make the build reproducible, or commit and build anew")
}

/// Makes `into/<id>` out of the three files that `fill` puts into a directory aside, once every byte of them is what it
/// should be. `origin` is where they come from, for errors.
fn fetch_verified(
    ctx: &Context,
    id: &ReleaseId,
    into: &Path,
    origin: &str,
    fill: &dyn Fn(&Path) -> Result<()>,
) -> Result<Release> {
    let aside = scratch(into, "fetching");
    let what = || format!("cannot write {}", aside.display());
    let hint = || "check free space and permissions: `df -h .`".to_owned();
    let took = || -> Result<Release> {
        fs::create_dir_all(&aside).with_hint(Kind::Failed, what, hint)?;
        fill(&aside)?;
        let release = Release::open(&aside, &ctx.progress("verifying"))?;
        release.moved_to(&into.join(id.as_str())).with_hint(Kind::Failed, what, hint)
    };
    took().map_err(|error| {
        let _ = fs::remove_dir_all(&aside);
        // The copy is gone, so the error has to speak of what it was a copy of.
        let text = format!("{error:#}");
        // A disk that is full is here, though.
        let is_ours = kind_of(&error) == Kind::Failed;
        let text = if is_ours { text } else { text.replace(&*aside.to_string_lossy(), origin) };
        let hint = hint_of(&error).unwrap_or("fetch it again").to_owned();
        CliError::new(kind_of(&error), text).hint(hint).into()
    })
}

/// Asks the stores in order for a release of an app and says which one served. Fails with what each of them said.
pub fn fetch(ctx: &Context, app: &str, stores: &[Box<dyn Store + '_>], id: &ReleaseId, into: &Path) -> Result<Release> {
    let mut said = Vec::new();
    let mut worst: Option<anyhow::Error> = None;
    for store in stores {
        match store.get(id, into).and_then(|release| of_app(release, app)) {
            Ok(release) => {
                for reason in said {
                    ctx.note(reason);
                }
                ctx.note(format!("fetched {id} from {}", store.url()));
                return Ok(release);
            }
            Err(error) => {
                said.push(format!("{} could not serve {id}: {error:#}", store.url()));
                // Absence is the least that can be wrong; damage is what a person has to hear of.
                if worst.as_ref().is_none_or(|worst| kind_of(worst) == Kind::NotFound) {
                    worst = Some(error);
                }
            }
        }
    }
    let Some(worst) = worst else {
        return usage("the project names no store").hint("set `stores`, see xtask/src/main.rs").err();
    };
    let hint = hint_of(&worst).unwrap_or("`cargo xtask releases` lists what there is").to_owned();
    CliError::new(kind_of(&worst), said.join("; ")).hint(hint).err()
}

/// Refuses a release of another app: those of one repository have the same ids.
fn of_app(release: Release, app: &str) -> Result<Release> {
    let theirs = &release.manifest().app;
    if theirs == app {
        return Ok(release);
    }
    let failure = verification(format!("{} is a release of `{theirs}`, and this project is `{app}`", release.id()));
    let _ = fs::remove_dir_all(release.dir());
    failure.hint("`cargo xtask releases` lists what there is; name a release of this project").err()
}

/// Asks the stores in order for releases of an app. Stores over the network are asked only while nothing is found; the
/// failure of one of them is the answer when nothing is found at all.
pub fn find(
    app: &str,
    stores: &[Box<dyn Store + '_>],
    ask: &dyn Fn(&dyn Store) -> Result<Vec<Manifest>>,
) -> Result<Vec<Manifest>> {
    let mut found: Vec<Manifest> = Vec::new();
    let mut worst: Option<anyhow::Error> = None;
    for store in stores {
        if store.is_remote() && !found.is_empty() {
            continue;
        }
        match ask(&**store) {
            Ok(manifests) => found.extend(manifests.into_iter().filter(|manifest| manifest.app == app)),
            Err(error) if store.is_remote() => {
                if worst.as_ref().is_none_or(|worst| kind_of(worst) == Kind::NotFound) {
                    worst = Some(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    match worst {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// The newest release of an app in all stores. A store over the network that does not answer is skipped with a warning,
/// as long as another one has a release.
pub fn newest(ctx: &Context, app: &str, stores: &[Box<dyn Store + '_>]) -> Result<Option<Manifest>> {
    let (mut newest, mut unanswered) = (None::<Manifest>, None);
    for store in stores {
        match latest(&**store, app) {
            Ok(found) => newest = newest.into_iter().chain(found).max_by(|a, b| a.id.cmp(&b.id)),
            Err(error) if store.is_remote() => unanswered = Some((store.url(), error)),
            Err(error) => return Err(error),
        }
    }
    match (newest, unanswered) {
        (None, Some((_, error))) => Err(error),
        (newest, None) => Ok(newest),
        (newest, Some((url, error))) => {
            ctx.warn(format!("{url} is left out, and may have a newer release: {error:#}"));
            Ok(newest)
        }
    }
}

/// The newest clean release of an app in one store, which may hold releases of other apps.
fn latest(store: &dyn Store, app: &str) -> Result<Option<Manifest>> {
    match store.latest()? {
        Some(other) if other.app != app => {
            let all = store.list()?;
            Ok(all.into_iter().find(|manifest| manifest.app == app && !manifest.commit.dirty))
        }
        found => Ok(found),
    }
}

/// The release of an app that a job built. CircleCI numbers the jobs: a number from a run on this machine counts only if no
/// store over the network is configured.
pub fn of_build(app: &str, stores: &[Box<dyn Store + '_>], job: u64) -> Result<Option<Manifest>> {
    let remote = stores.iter().any(|store| store.is_remote());
    for store in stores.iter().filter(|store| store.is_remote() || !remote) {
        if let Some(manifest) = store.of_build(job)?.filter(|manifest| manifest.app == app) {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// The newest `most` releases of an app that the stores keep, each id once, the newest first. A store over the network
/// that does not answer is skipped with a warning.
pub fn list(ctx: &Context, app: &str, stores: &[Box<dyn Store + '_>], most: usize) -> Result<Vec<(Head, Vec<String>)>> {
    let mut all: BTreeMap<ReleaseId, (Head, Vec<String>)> = BTreeMap::new();
    for store in stores {
        let listed = match newest_of(&**store, app, most) {
            Err(error) if store.is_remote() => {
                ctx.warn(format!("{} is left out: {error:#}", store.url()));
                continue;
            }
            listed => listed?,
        };
        for head in listed {
            let known = all.entry(head.id.clone()).or_insert_with(|| (head, vec![]));
            known.1.push(store.url().to_owned());
        }
    }
    Ok(all.into_values().rev().take(most).collect())
}

/// The newest `most` releases of an app in one store. Releases of other apps may lie between them.
fn newest_of(store: &dyn Store, app: &str, most: usize) -> Result<Vec<Head>> {
    let mut asked = most;
    loop {
        let mut heads = store.newest(asked)?;
        let all = heads.len() < asked;
        heads.retain(|head| head.app == app);
        if all || heads.len() >= most {
            heads.truncate(most);
            return Ok(heads);
        }
        asked = asked.saturating_mul(4);
    }
}

/// The release of a commit, or an error that says what there is instead.
pub fn by_sha(found: &[Manifest], sha: &str) -> Result<ReleaseId> {
    let mut found: Vec<_> = found.iter().map(|manifest| &manifest.id).collect();
    found.sort();
    found.dedup();
    // A clean build of a commit beats the dirty ones that were tried on the way to it.
    let clean: Vec<_> = found.iter().filter(|id| !id.is_dirty()).collect();
    match (clean.as_slice(), found.as_slice()) {
        ([id], _) => Ok((**id).clone()),
        ([], [.., id]) => Ok((*id).clone()),
        ([], []) => not_found(format!("no release of commit {sha}"))
            .hint("`cargo xtask build` makes one of the commit that is checked out; `cargo xtask releases` lists them")
            .err(),
        _ => {
            let ids: Vec<_> = clean.iter().map(|id| id.as_str()).collect();
            usage(format!("`{sha}` means several releases: {}", ids.join(", ")))
                .hint("give more digits, or a whole id")
                .err()
        }
    }
}
