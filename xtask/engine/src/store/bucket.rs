//! A bucket as a store: it outlives every job, host and laptop, and many write to it at once.
//!
//! ```text
//! PREFIX/releases/<commit>/<id>/<digest>/<app>-<id>.tar.gz    the bundle (or .tar.zst), under its own digest
//! PREFIX/releases/<commit>/<id>/manifest.json                 written last, and only where there is none: the commit
//! PREFIX/latest/<app>/<branch>.json                           the newest published release of a branch
//! PREFIX/live/<app>/<env>.jsonl                               what is and was live, as hosts keep it
//! PREFIX/locks/<app>/<env>.json                               who deploys the env just now
//! PREFIX/pending_deletion.json                                          what a prune is about to remove
//! ```
//!
//! Nothing is ever written over but `latest`, `live`, `locks` and `pending_deletion`, and those only in the version that was read.

mod lock;
mod pointer;
pub mod retention;
mod role;

use crate::context::Context;
use crate::deploy::history::{History, Record};
use crate::deploy::state::Lockable;
use crate::error::{CliError, Kind, Result, WithHint, not_found, verification};
use crate::http::Url;
use crate::owner::Owner;
use crate::project::Project;
use crate::release::id::ReleaseId;
use crate::release::layout::SUMS;
use crate::release::manifest::{self, Head, Manifest};
use crate::release::{Release, digest, sums};
use crate::store::bucket::lock::EnvLock;
use crate::store::object::Bucket;
use crate::store::object::settings::{Credentials, Settings, settings};
use crate::store::{Needed, Published, Put, Retention, RetentionDecision, Store, another, branch, fetch_verified};
use std::cell::{Cell, OnceCell};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long a host may take until it begins to fetch a bundle; what has begun is not cut off.
const LINK: Duration = Duration::from_secs(15 * 60);
/// How often a manifest is written that is refused and yet not there.
const CREATES: u32 = 3;
/// Where releases are, relative to the prefix.
const RELEASES: &str = "releases";

/// Releases in a bucket.
pub struct BucketStore<'ctx> {
    ctx: &'ctx Context,
    project: &'ctx Project,
    url: String,
    settings: Option<Settings>,
    bucket: OnceCell<Bucket<'ctx>>,
    probed: Cell<bool>,
}

impl<'ctx> BucketStore<'ctx> {
    /// The store of a URL; nothing is asked yet.
    pub fn new(ctx: &'ctx Context, project: &'ctx Project, url: &str) -> Result<Self> {
        let settings = settings(url, ctx.vars(), &|path| fs::read_to_string(path).ok())?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { ctx, project, url, settings: Some(settings), bucket: OnceCell::new(), probed: Cell::new(false) })
    }

    /// The store in a bucket that is open already.
    pub fn with_bucket(ctx: &'ctx Context, project: &'ctx Project, url: &str, bucket: Bucket<'ctx>) -> Self {
        let bucket = OnceCell::from(bucket);
        Self { ctx, project, url: url.to_owned(), settings: None, bucket, probed: Cell::new(false) }
    }

    fn bucket(&self) -> Result<&Bucket<'ctx>> {
        if let Some(bucket) = self.bucket.get() {
            return Ok(bucket);
        }
        let mut settings = self.settings.clone().expect("a store without a bucket has settings");
        match settings.credentials.clone() {
            Credentials::Given => {}
            Credentials::Exchanged(role) => settings.options.extend(role::keys(self.ctx, &role, &settings.network)?),
            Credentials::Missing(what) => {
                return CliError::new(Kind::Auth, format!("{}: no credentials: set {what}", self.url))
                    .hint("docs/s3.md says how a job gets them without a stored key")
                    .err();
            }
        }
        let bucket = Bucket::open(self.ctx, &self.url, &settings)?;
        Ok(self.bucket.get_or_init(|| bucket))
    }

    /// The bucket, for a write that relies on its condition.
    fn trusted(&self) -> Result<&Bucket<'ctx>> {
        let bucket = self.bucket()?;
        if !self.probed.get() {
            bucket.probe()?;
            self.probed.set(true);
        }
        Ok(bucket)
    }

    /// The branch whose releases are meant by `latest`.
    fn branch(&self) -> &str {
        branch(self.ctx, &self.project.ci)
    }

    /// Key of a small object of this app: apps that share the bucket have envs and branches of the same names.
    fn key_of(&self, kind: &str, name: &str) -> String {
        format!("{kind}/{}/{}", pointer::part(self.project.app.name), pointer::part(name))
    }

    fn manifest_keys(&self) -> Result<Vec<String>> {
        Ok(self.bucket()?.list(RELEASES)?.into_iter().map(|it| it.key).filter(|key| is_manifest(key)).collect())
    }

    /// Reads the manifests at these keys, the newest release first. What is none of ours is passed over aloud.
    fn manifests(&self, keys: &[String]) -> Result<Vec<Manifest>> {
        let mut found = Vec::new();
        for (key, text) in self.bucket()?.read_all(keys)? {
            match self.parse(&key, &text) {
                Ok(manifest) => found.push(manifest),
                Err(error) => self.ctx.warn(format!("passed over what is no release: {error:#}")),
            }
        }
        found.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(found)
    }

    /// A manifest, which must be that of its place.
    fn parse(&self, key: &str, text: &[u8]) -> Result<Manifest> {
        let origin = format!("{}/{key}", self.url);
        let manifest = Manifest::parse(text, &origin)?;
        if manifest_key(&manifest) == key {
            return Ok(manifest);
        }
        verification(format!("{origin}: it is the manifest of {} of commit {}", manifest.id, manifest.commit.sha))
            .hint("somebody copied or moved it: do not deploy it, remove it")
            .err()
    }

    fn manifest_of(&self, id: &ReleaseId) -> Result<Option<Manifest>> {
        let found = self.bucket()?.list_from(RELEASES, id.short_sha())?;
        let want = format!("/{id}/{}", manifest::FILE);
        let Some(object) = found.into_iter().find(|object| object.key.ends_with(&want)) else { return Ok(None) };
        let Some((text, _)) = self.bucket()?.read(&object.key)? else { return Ok(None) };
        self.parse(&object.key, &text).map(Some)
    }

    /// What a put means where a manifest is already.
    fn compare(&self, release: &Release, text: &[u8]) -> Result<Put> {
        let ours = release.manifest();
        let theirs = self.parse(&manifest_key(ours), text)?;
        if ours.bundle != theirs.bundle {
            return Err(another(&self.url, ours, &theirs).into());
        }
        self.not_doomed(&ours.id)?;
        self.send_bundle(release)?;
        Ok(Put::AlreadyThere)
    }

    fn send_bundle(&self, release: &Release) -> Result<()> {
        let (bucket, key) = (self.bucket()?, bundle_key(release.manifest()));
        if bucket.size(&key)? == Some(release.manifest().bundle.bytes) {
            return Ok(());
        }
        bucket.upload(&key, &release.bundle(), &self.ctx.progress("storing"))
    }

    /// Whether all of it is there now: a prune may have taken the bundle for debris before the manifest was written.
    fn read_back(&self, release: &Release) -> Result<()> {
        let (bucket, ours) = (self.bucket()?, release.manifest());
        let there = bucket.read(&manifest_key(ours))?.is_some_and(|(text, _)| text == ours.to_json());
        self.send_bundle(release)?;
        if there {
            return Ok(());
        }
        verification(format!("{}: {} is not what was written a moment ago", self.url, ours.id))
            .hint("run the same command again; if it stays so, the server loses writes")
            .err()
    }

    fn not_doomed(&self, id: &ReleaseId) -> Result<()> {
        match retention::pending_deletion(self)? {
            Some(pending_deletion) if pending_deletion.releases.contains(id) => {
                Err(self.removed_by(&pending_deletion.by, id))
            }
            _ => Ok(()),
        }
    }

    /// Whether a release that was here a moment ago stays here.
    fn stays(&self, id: &ReleaseId) -> Result<()> {
        self.not_doomed(id)?;
        // A prune may have ended between that moment and the look at its list.
        if self.manifest_of(id)?.is_none() {
            return CliError::new(Kind::Locked, format!("{}: a prune has removed {id} just now", self.url))
                .hint("`cargo xtask put` stores it again; `cargo xtask releases` lists what is left")
                .err();
        }
        Ok(())
    }

    fn removed_by(&self, who: &str, id: &ReleaseId) -> anyhow::Error {
        CliError::new(Kind::Locked, format!("{}: {who} is removing {id} just now", self.url))
            .hint(
                "wait a minute, then run the same command again; if nobody prunes, remove pending_deletion.json there",
            )
            .into()
    }

    /// Whether a manifest that was just written stays whole. A prune that looked before may be about to take its bundle,
    /// and a release without one is worse than none.
    fn settled(&self, ours: &Manifest) -> Result<()> {
        let bundle = bundle_key(ours);
        match retention::pending_deletion(self)? {
            Some(pending_deletion)
                if pending_deletion.releases.contains(&ours.id) || pending_deletion.debris.contains(&bundle) =>
            {
                self.bucket()?.remove(&manifest_key(ours))?;
                Err(self.removed_by(&pending_deletion.by, &ours.id))
            }
            _ => Ok(()),
        }
    }

    /// Where the bundle of a manifest is, if it is there.
    fn bundle_of(&self, manifest: &Manifest) -> Result<String> {
        let key = bundle_key(manifest);
        let reason = match self.bucket()?.size(&key)? {
            Some(bytes) if bytes == manifest.bundle.bytes => return Ok(key),
            Some(bytes) => format!("has {bytes} bytes, not {}", manifest.bundle.bytes),
            None => "is gone".to_owned(),
        };
        verification(format!("{}/{key}: the manifest of {} is there, but its bundle {reason}", self.url, manifest.id))
            .hint(format!("where it was built, `cargo xtask put {}` stores it again", manifest.id))
            .err()
    }
}

fn place(manifest: &Manifest) -> String {
    format!("{RELEASES}/{}/{}", manifest.commit.sha, manifest.id)
}

fn manifest_key(manifest: &Manifest) -> String {
    format!("{}/{}", place(manifest), manifest::FILE)
}

/// The digest is part of the key, so that two bundles of one id never meet.
fn bundle_key(manifest: &Manifest) -> String {
    format!("{}/{}/{}", place(manifest), &manifest.bundle.sha256[..16], manifest.bundle.file)
}

fn is_manifest(key: &str) -> bool {
    key.rsplit('/').next() == Some(manifest::FILE)
}

impl Store for BucketStore<'_> {
    fn url(&self) -> &str {
        &self.url
    }

    fn put(&self, release: &Release) -> Result<Put> {
        let (ours, bucket) = (release.manifest(), self.bucket()?);
        let key = manifest_key(ours);
        if let Some((text, _)) = bucket.read(&key)? {
            return self.compare(release, &text);
        }
        let bucket = self.trusted()?;
        self.send_bundle(release)?;
        let mut there = None;
        for _ in 0..CREATES {
            if bucket.create(&key, ours.to_json())? {
                self.settled(ours)?;
                self.read_back(release)?;
                return Ok(Put::Stored);
            }
            // Somebody was faster; or we were, and the answer to the first attempt was lost; or two came at once, and the
            // server took neither.
            there = bucket.read(&key)?;
            if there.is_some() {
                break;
            }
        }
        let Some((text, _)) = there else {
            return CliError::new(Kind::Locked, format!("{}: {} was removed while it was stored", self.url, ours.id))
                .hint("somebody prunes: run the same command again")
                .err();
        };
        let compared = self.compare(release, &text);
        if compared.is_err() && self.parse(&key, &text).is_ok_and(|theirs| theirs.bundle != ours.bundle) {
            // NoSink will ever ask for it.
            let _ = bucket.remove(&bundle_key(ours));
        }
        compared
    }

    fn get(&self, id: &ReleaseId, into: &Path) -> Result<Release> {
        let Some(manifest) = self.manifest_of(id)? else {
            return not_found(format!("{id} is not in {}", self.url))
                .hint("`cargo xtask releases` lists what there is; `cargo xtask put` in the workflow that built it stores it")
                .err();
        };
        let (bucket, key, json) = (self.bucket()?, self.bundle_of(&manifest)?, manifest.to_json());
        fetch_verified(self.ctx, id, into, &format!("{}/{}", self.url, place(&manifest)), &|aside| {
            let write = |name: &str, bytes: &[u8]| {
                let what = || format!("cannot write {}", aside.join(name).display());
                fs::write(aside.join(name), bytes)
                    .with_hint(Kind::Failed, what, || "check free space: `df -h .`".into())
            };
            write(manifest::FILE, &json)?;
            write(SUMS, sums(&manifest, &json).as_bytes())?;
            let (to, expected) = (aside.join(&manifest.bundle.file), &manifest.bundle);
            let sha256 = bucket.download(&key, expected.bytes, &to, &self.ctx.progress("fetching"))?;
            if sha256 == expected.sha256 {
                return Ok(());
            }
            verification(format!("{}/{key}: its digest is {sha256}, not {}", self.url, expected.sha256))
                .hint(format!(
                    "it was damaged in the store: where it was built, `cargo xtask verify {id} --store` mends it"
                ))
                .err()
        })
    }

    fn list(&self) -> Result<Vec<Manifest>> {
        self.manifests(&self.manifest_keys()?)
    }

    fn newest(&self, most: usize) -> Result<Vec<Head>> {
        let mut keys = self.manifest_keys()?;
        // They end with the id and the name of the file, and ids sort by time.
        keys.sort_by(|a, b| b.rsplit('/').nth(1).cmp(&a.rsplit('/').nth(1)));
        let mut found = Vec::new();
        let mut rest = keys.as_slice();
        // Among those that are read there may be some that are none of ours.
        while found.len() < most && !rest.is_empty() {
            let (next, after) = rest.split_at(rest.len().min(most - found.len()));
            found.extend(self.manifests(next)?.into_iter().map(Head::from));
            rest = after;
        }
        Ok(found)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn unusable(&self) -> Option<String> {
        match &self.settings.as_ref()?.credentials {
            Credentials::Missing(what) => Some(format!("{} was not asked: it wants {what}", self.url)),
            _ => None,
        }
    }

    fn examine(&self) -> Result<()> {
        self.bucket()?.examine()
    }

    fn of_commit(&self, sha: &str) -> Result<Vec<Manifest>> {
        let found = self.bucket()?.list_from(RELEASES, sha)?;
        let keys: Vec<_> = found.into_iter().map(|it| it.key).filter(|key| is_manifest(key)).collect();
        self.manifests(&keys)
    }

    fn latest(&self) -> Result<Option<Manifest>> {
        pointer::latest(self)
    }

    fn confirm(&self, release: &Release) -> Result<bool> {
        let (ours, bucket) = (release.manifest(), self.bucket()?);
        let key = manifest_key(ours);
        let there = bucket.read(&key)?;
        if let Some((text, version)) = there.filter(|(text, _)| digest::of(text) != digest::of(&ours.to_json())) {
            // What reads as another release of this id is left to people; what reads as none is damage.
            if self.parse(&key, &text).is_ok() {
                self.compare(release, &text)?;
            } else if self.trusted()?.replace(&key, ours.to_json(), &version)? {
                self.ctx.warn(format!("{}/{key} was damaged, and is mended", self.url));
            }
        }
        self.put(release)?;
        let aside = crate::release::scratch(release.dir().parent().unwrap_or(release.dir()), "confirming");
        let bundle = bundle_key(ours);
        let sha256 = bucket.download(&bundle, ours.bundle.bytes, &aside, &self.ctx.progress("confirming"));
        let _ = fs::remove_file(&aside);
        if sha256? != ours.bundle.sha256 {
            bucket.upload(&bundle, &release.bundle(), &self.ctx.progress("storing"))?;
            self.ctx.warn(format!("{}/{bundle} was damaged, and is mended", self.url));
        }
        Ok(true)
    }

    fn has_links(&self) -> Result<bool> {
        Ok(self.bucket()?.signs())
    }

    fn link(&self, manifest: &Manifest) -> Result<Url> {
        self.bucket()?.signed_url(&self.bundle_of(manifest)?, LINK)
    }

    fn publish(&self, manifest: &Manifest) -> Result<Option<Published>> {
        pointer::publish(self, manifest).map(Some)
    }

    fn keeps_history(&self) -> bool {
        true
    }

    fn append(&self, env: &str, record: &Record) -> Result<()> {
        let Some(id) = &record.release else { return pointer::append(self, env, record) };
        // What another store handed over need not be here, but what was here has to stay.
        let was_there = self.manifest_of(id)?.is_some();
        pointer::append(self, env, record)?;
        if was_there { self.stays(id) } else { self.not_doomed(id) }
    }

    fn lock_of(&self, env: &str) -> Option<Box<dyn Lockable + '_>> {
        Some(Box::new(EnvLock::new(self, env)))
    }

    fn history(&self, env: &str) -> Result<Option<History>> {
        pointer::history(self, env)
    }

    fn histories(&self) -> Result<Vec<(String, History)>> {
        pointer::histories(self)
    }

    fn prune(
        &self,
        retention: Retention,
        by: &Owner,
        dry_run: bool,
        needed: Needed,
    ) -> Result<Option<Vec<RetentionDecision>>> {
        retention::prune(self, retention, by, dry_run, needed).map(Some)
    }
}
