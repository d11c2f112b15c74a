//! Stores: how build jobs pass whole releases to deploy jobs.

pub mod dir;

use gangplank_bundle::release::{Release, scratch};
use gangplank_model::error::{CliError, Kind, Result, WithHint, hint_of, kind_of, not_found, usage, verification};
use gangplank_model::history::{History, Record};
use gangplank_model::owner::Owner;
use gangplank_model::project::Ci;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::{Head, Manifest};
use gangplank_model::state::Lockable;
use gangplank_system::context::{Context, var};
use gangplank_system::http::Url;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// `destination` of the `store_artifacts` step, and the directory of releases in the workspace.
pub const DESTINATION: &str = "releases";
/// The explanation of an empty workspace.
pub(crate) const EMPTY_WORKSPACE: &str =
    "rerun the build job: no job that this one `requires` persisted a workspace, or it is older than 15 days";

/// The result of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The release was stored.
    Stored,
    /// The store had the same bytes.
    AlreadyThere,
}

/// The result of `publish` in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The store.
    pub store: String,
    /// The pointer: the name of a variable, or the key of an object.
    pub pointer: Option<String>,
    /// The job that the pointer names now.
    pub job: Option<u64>,
    /// The release of that job.
    pub release: Option<ReleaseId>,
    /// Whether it was changed.
    pub moved: bool,
    /// Why it was not changed.
    pub reason: Option<String>,
}

/// The retention policy of a prune: it keeps the newest releases of each branch, everything young, what an env needs, and
/// all of other apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention<'a> {
    /// The app whose releases are pruned; those of others stay.
    pub app: &'a str,
    /// Releases kept per branch.
    pub keep: usize,
    /// Days that everything is kept.
    pub days: u32,
}

/// The decision about a release or object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetentionDecision {
    /// The id, or the key of an object that no release needs.
    pub what: String,
    /// The reason to keep it; `None` if it goes.
    pub reason: Option<String>,
}

/// Returns the releases that envs need, with the env.
pub type Needed<'a> = &'a dyn Fn() -> Result<BTreeMap<ReleaseId, String>>;

/// A place that keeps releases.
///
/// A put is immutable and atomic: it succeeds for the same bytes, and fails for other bytes under the same id with an
/// error that lists the differences; a reader sees a whole release or none. The contract suite in `tests/it/store.rs`
/// verifies this for each implementation.
pub trait Store {
    /// The URL, as in the project.
    fn url(&self) -> &str;
    /// Stores a release.
    fn put(&self, release: &Release) -> Result<Put>;
    /// Copies a release to `into/<id>` and verifies the copy.
    fn get(&self, id: &ReleaseId, into: &Path) -> Result<Release>;
    /// All manifests, newest first.
    fn list(&self) -> Result<Vec<Manifest>>;

    /// Whether requests go over the network, so that it is asked last, and only for what no other store has.
    fn is_remote(&self) -> bool {
        false
    }
    /// Why the store cannot be used here, e.g. a missing token; `None` if it can.
    fn unusable(&self) -> Option<String> {
        None
    }
    /// Tries whether a put would work, and removes what it wrote.
    fn examine(&self) -> Result<()> {
        Ok(())
    }
    /// The heads of the newest `most` releases, newest first.
    fn newest(&self, most: usize) -> Result<Vec<Head>> {
        Ok(self.list()?.into_iter().take(most).map(Head::from).collect())
    }
    /// The manifests of a commit, by its SHA or a prefix of it.
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
    /// Verifies the stored bytes of a release, and repairs them if the store can; `false` if `put` has verified them.
    fn confirm(&self, _release: &Release) -> Result<bool> {
        Ok(false)
    }
    /// Whether [`Store::link`] can sign URLs.
    fn has_links(&self) -> Result<bool> {
        Ok(false)
    }
    /// A temporary URL for anyone to download a bundle. It is a secret.
    fn link(&self, manifest: &Manifest) -> Result<Url> {
        usage(format!("{} cannot sign a URL of {}", self.url(), manifest.id))
            .hint("set `transfer: Transfer::Push`, see xtask/src/main.rs")
            .err()
    }
    /// Whether `put` only prepares a release for a later upload step of the job.
    fn is_uploaded_by_a_step(&self) -> bool {
        false
    }
    /// Points the branch of a release at it, never backwards; `None` if the store has no pointers.
    fn publish(&self, _manifest: &Manifest) -> Result<Option<Published>> {
        Ok(None)
    }
    /// Whether it keeps the history of each env.
    fn keeps_history(&self) -> bool {
        false
    }
    /// Appends to the history of an env. Fails if the release is about to be removed.
    fn append(&self, _env: &str, _record: &Record) -> Result<()> {
        Ok(())
    }
    /// The history of an env, if recorded.
    fn history(&self, _env: &str) -> Result<Option<History>> {
        Ok(None)
    }
    /// The histories of all recorded envs.
    fn histories(&self) -> Result<Vec<(String, History)>> {
        Ok(vec![])
    }
    /// The lock of an env, if the store supports locks.
    fn lock_of(&self, _env: &str) -> Option<Box<dyn Lockable + '_>> {
        None
    }
    /// Removes what is not kept, or returns what it would remove; `None` if the store cannot remove.
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
    ctx.var(var::WORKSPACE).unwrap_or(gangplank_model::store_url::WORKSPACE).into()
}

/// The branch whose releases count: the pipeline's in a job; the project's elsewhere and for tags.
pub fn branch<'a>(ctx: &'a Context, ci: &'a Ci) -> &'a str {
    ctx.var("CIRCLE_BRANCH").unwrap_or(ci.branch)
}

/// The error of a put under an id that has other bytes.
pub fn another(url: &str, ours: &Manifest, theirs: &Manifest) -> CliError {
    if ours.app != theirs.app {
        return verification(format!("{url} has {} of the app `{}`", ours.id, theirs.app))
            .hint("give each app its own directory or prefix, in `stores` of xtask/src/main.rs: apps of one repository share ids");
    }
    verification(format!("{url} has a different {}: {}", ours.id, ours.difference(theirs)))
        .hint("make the build reproducible, or commit and build again: a stored release never changes")
}

/// Fails for a put of a release that the store has without a signature: what is stored never changes. That of another
/// build of the same bytes, as of a pipeline that runs again, is of another manifest: one in the store is enough.
pub fn has_signatures(url: &str, ours: &Manifest, theirs: &Manifest) -> Result<()> {
    let has_all = ours.signatures.iter().all(|text| theirs.signatures.contains(text));
    if has_all || (!theirs.signatures.is_empty() && ours.signed_bytes() != theirs.signed_bytes()) {
        return Ok(());
    }
    verification(format!("{url} has {} without its new signature", ours.id))
        .hint("sign before the first `put`, or commit and build again: a stored release never changes")
        .err()
}

/// Creates `into/<id>` from the three files that `fill` writes to a temporary directory, after verifying them. `origin`
/// is their source, for errors.
pub fn fetch_verified(
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
        // The copy is removed, so the error names its source.
        let text = format!("{error:#}");
        // A full disk is a local problem, though.
        let is_ours = kind_of(&error) == Kind::Failed;
        let text = if is_ours { text } else { text.replace(&*aside.to_string_lossy(), origin) };
        let hint = hint_of(&error).unwrap_or("fetch it again").to_owned();
        CliError::new(kind_of(&error), text).hint(hint).into()
    })
}

/// Fetches a release of an app from the first store that has it, and reports which. The error lists the failure of each
/// store.
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
                // Absence is the least severe failure; damage must be reported.
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

/// Fails for a release of another app: apps of one repository share ids.
fn of_app(release: Release, app: &str) -> Result<Release> {
    let theirs = &release.manifest().app;
    if theirs == app {
        return Ok(release);
    }
    let failure = verification(format!("{} is a release of `{theirs}`, not of this project's `{app}`", release.id()));
    let _ = fs::remove_dir_all(release.dir());
    failure.hint("name a release of this project: `cargo xtask releases` lists them").err()
}

/// The releases of an app in the first stores that have any. Remote stores are asked only while nothing is found; their
/// failure is returned if nothing is found at all.
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

/// The newest release of an app in all stores. An unreachable remote store is skipped with a warning if another one has
/// a release.
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
            ctx.warn(format!("{url} skipped, although it may have a newer release: {error:#}"));
            Ok(newest)
        }
    }
}

/// The newest clean release of an app in one store, which may hold other apps.
fn latest(store: &dyn Store, app: &str) -> Result<Option<Manifest>> {
    match store.latest()? {
        Some(other) if other.app != app => {
            let all = store.list()?;
            Ok(all.into_iter().find(|manifest| manifest.app == app && !manifest.commit.dirty))
        }
        found => Ok(found),
    }
}

/// The release of an app that a job built. A job number of a local run counts only if no remote store is configured.
pub(crate) fn of_build(app: &str, stores: &[Box<dyn Store + '_>], job: u64) -> Result<Option<Manifest>> {
    let remote = stores.iter().any(|store| store.is_remote());
    for store in stores.iter().filter(|store| store.is_remote() || !remote) {
        if let Some(manifest) = store.of_build(job)?.filter(|manifest| manifest.app == app) {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// The newest `most` releases of an app, each id once, newest first. An unreachable remote store is skipped with a
/// warning.
pub fn list(ctx: &Context, app: &str, stores: &[Box<dyn Store + '_>], most: usize) -> Result<Vec<(Head, Vec<String>)>> {
    let mut all: BTreeMap<ReleaseId, (Head, Vec<String>)> = BTreeMap::new();
    for store in stores {
        let listed = match newest_of(&**store, app, most) {
            Err(error) if store.is_remote() => {
                ctx.warn(format!("{} skipped: {error:#}", store.url()));
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

/// The newest `most` releases of an app in one store, skipping those of other apps.
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

/// The release of a commit, or an error that lists the candidates.
pub(crate) fn by_sha(found: &[Manifest], sha: &str) -> Result<ReleaseId> {
    let mut found: Vec<_> = found.iter().map(|manifest| &manifest.id).collect();
    found.sort();
    found.dedup();
    // A clean build of a commit takes precedence over dirty ones.
    let clean: Vec<_> = found.iter().filter(|id| !id.is_dirty()).collect();
    match (clean.as_slice(), found.as_slice()) {
        ([id], _) => Ok((**id).clone()),
        ([], [.., id]) => Ok((*id).clone()),
        ([], []) => not_found(format!("no release of commit {sha}"))
            .hint("check that commit out and run `cargo xtask build`, or list all releases with `cargo xtask releases`")
            .err(),
        _ => {
            let ids: Vec<_> = clean.iter().map(|id| id.as_str()).collect();
            usage(format!("`{sha}` means several releases: {}", ids.join(", ")))
                .hint("use more digits, or a full id")
                .err()
        }
    }
}
