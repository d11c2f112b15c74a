//! A bucket as a store: permanent and shared by jobs, hosts and laptops, with concurrent writers.
//!
//! ```text
//! PREFIX/releases/<commit>/<id>/<digest>/<app>-<id>.tar.gz    the bundle (or .tar.zst), under its own digest
//! PREFIX/releases/<commit>/<id>/manifest.json                 created last, which commits the release
//! PREFIX/latest/<app>/<branch>.json                           the newest published release of a branch
//! PREFIX/live/<app>/<env>.jsonl                               the history of an env, in the format of hosts
//! PREFIX/locks/<app>/<env>.json                               the owner of an env's lock
//! PREFIX/pending_deletion.json                                the releases that a prune is about to remove
//! ```
//!
//! Only `latest`, `live`, `locks` and `pending_deletion` are ever overwritten, with the version that was read.

mod contract;
pub(crate) mod lock;
pub(crate) mod pointer;
pub(crate) mod retention;
mod role;

use crate::object::Bucket;
use crate::object::settings::of_machine;
use crate::object::settings::values::{Credentials, Settings};
use gangplank_bundle::release::Release;
use gangplank_deploy::store::{Put, another, branch, has_signatures};
use gangplank_model::error::{CliError, Kind, Result, verification};
use gangplank_model::project::Project;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest;
use gangplank_model::release::manifest::Manifest;
use gangplank_system::context::Context;
use std::cell::{Cell, OnceCell};

/// The directory of releases, relative to the prefix.
pub const RELEASES: &str = "releases";

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
    /// The store of a URL; sends no request yet.
    pub fn new(ctx: &'ctx Context, project: &'ctx Project, url: &str) -> Result<Self> {
        let settings = of_machine(ctx, url)?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { ctx, project, url, settings: Some(settings), bucket: OnceCell::new(), probed: Cell::new(false) })
    }

    /// The store in an open bucket.
    pub fn with_bucket(ctx: &'ctx Context, project: &'ctx Project, url: &str, bucket: Bucket<'ctx>) -> Self {
        let bucket = OnceCell::from(bucket);
        Self { ctx, project, url: url.to_owned(), settings: None, bucket, probed: Cell::new(false) }
    }

    fn bucket(&self) -> Result<&Bucket<'ctx>> {
        if let Some(bucket) = self.bucket.get() {
            return Ok(bucket);
        }
        let settings = self.settings.clone().expect("a store without a bucket has settings");
        let bucket = open(self.ctx, &self.url, settings)?;
        Ok(self.bucket.get_or_init(|| bucket))
    }

    /// The bucket, for a conditional write.
    fn trusted(&self) -> Result<&Bucket<'ctx>> {
        let bucket = self.bucket()?;
        if !self.probed.get() {
            bucket.probe()?;
            self.probed.set(true);
        }
        Ok(bucket)
    }

    /// The branch of `latest`.
    fn branch(&self) -> &str {
        branch(self.ctx, &self.project.ci)
    }

    /// Key of a small object of this app: apps that share a bucket may have envs and branches of the same names.
    fn key_of(&self, kind: &str, name: &str) -> String {
        format!("{kind}/{}/{}", pointer::part(self.project.app.name), pointer::part(name))
    }

    fn manifest_keys(&self) -> Result<Vec<String>> {
        Ok(self.bucket()?.list(RELEASES)?.into_iter().map(|it| it.key).filter(|key| is_manifest(key)).collect())
    }

    /// Reads the manifests at these keys, newest release first. Invalid ones are skipped with a warning.
    fn manifests(&self, keys: &[String]) -> Result<Vec<Manifest>> {
        let mut found = Vec::new();
        for (key, text) in self.bucket()?.read_all(keys)? {
            match self.parse(&key, &text) {
                Ok(manifest) => found.push(manifest),
                Err(error) => self.ctx.warn(format!("skipped an invalid release: {error:#}")),
            }
        }
        found.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(found)
    }

    /// Parses a manifest, which must match its key.
    fn parse(&self, key: &str, text: &[u8]) -> Result<Manifest> {
        let origin = format!("{}/{key}", self.url);
        let manifest = Manifest::parse(text, &origin)?;
        if manifest_key(&manifest) == key {
            return Ok(manifest);
        }
        verification(format!("{origin}: it is the manifest of {} of commit {}", manifest.id, manifest.commit.sha))
            .hint("remove it, do not deploy it: it was copied or moved")
            .err()
    }

    fn manifest_of(&self, id: &ReleaseId) -> Result<Option<Manifest>> {
        let found = self.bucket()?.list_from(RELEASES, id.short_sha())?;
        let want = format!("/{id}/{}", manifest::FILE);
        let Some(object) = found.into_iter().find(|object| object.key.ends_with(&want)) else { return Ok(None) };
        let Some((text, _)) = self.bucket()?.read(&object.key)? else { return Ok(None) };
        self.parse(&object.key, &text).map(Some)
    }

    /// The result of a put where a manifest exists.
    fn compare(&self, release: &Release, text: &[u8]) -> Result<Put> {
        let ours = release.manifest();
        let theirs = self.parse(&manifest_key(ours), text)?;
        if ours.bundle != theirs.bundle {
            return Err(another(&self.url, ours, &theirs).into());
        }
        has_signatures(&self.url, ours, &theirs)?;
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

    /// Checks that everything is stored: a prune may have removed the bundle before the manifest was written.
    fn read_back(&self, release: &Release) -> Result<()> {
        let (bucket, ours) = (self.bucket()?, release.manifest());
        let there = bucket.read(&manifest_key(ours))?.is_some_and(|(text, _)| text == ours.to_json());
        self.send_bundle(release)?;
        if there {
            return Ok(());
        }
        verification(format!("{}: {} differs from what was just written", self.url, ours.id))
            .hint("run the same command again; if it fails again, the server loses writes")
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

    /// Fails if a prune is removing a release, or has just removed it.
    fn stays(&self, id: &ReleaseId) -> Result<()> {
        self.not_doomed(id)?;
        // A prune may have ended before its list was read.
        if self.manifest_of(id)?.is_none() {
            return CliError::new(Kind::Locked, format!("{}: a prune has just removed {id}", self.url))
                .hint("store it again with `cargo xtask put`; `cargo xtask releases` lists the others")
                .err();
        }
        Ok(())
    }

    fn removed_by(&self, who: &str, id: &ReleaseId) -> anyhow::Error {
        CliError::new(Kind::Locked, format!("{}: {who} is removing {id}", self.url))
            .hint(
                "wait a minute, then run the same command again; if no prune runs, remove pending_deletion.json there",
            )
            .into()
    }

    /// Fails if a prune may be removing the bundle of a manifest just written; then removes the manifest too, because a
    /// release without a bundle is worse than none.
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

    /// The key of a manifest's bundle, which must exist.
    fn bundle_of(&self, manifest: &Manifest) -> Result<String> {
        let key = bundle_key(manifest);
        let reason = match self.bucket()?.size(&key)? {
            Some(bytes) if bytes == manifest.bundle.bytes => return Ok(key),
            Some(bytes) => format!("has {bytes} bytes, not {}", manifest.bundle.bytes),
            None => "is missing".to_owned(),
        };
        verification(format!("{}/{key}: the manifest of {} exists, but its bundle {reason}", self.url, manifest.id))
            .hint(format!("store it again with `cargo xtask put {}` where it was built", manifest.id))
            .err()
    }
}

/// Opens a bucket, with the credentials of a role if it has one.
pub(crate) fn open<'ctx>(ctx: &'ctx Context, url: &str, mut settings: Settings) -> Result<Bucket<'ctx>> {
    match settings.credentials.clone() {
        Credentials::Given => {}
        Credentials::Exchanged(role) => settings.options.extend(role::keys(ctx, &role, &settings.network)?),
        Credentials::Missing(what) => {
            return CliError::new(Kind::Auth, format!("{url}: no credentials: set {what}"))
                .hint("see docs/s3.md; a job needs no stored key")
                .err();
        }
    }
    Bucket::open(ctx, url, &settings)
}

fn place(manifest: &Manifest) -> String {
    format!("{RELEASES}/{}/{}", manifest.commit.sha, manifest.id)
}

fn manifest_key(manifest: &Manifest) -> String {
    format!("{}/{}", place(manifest), manifest::FILE)
}

/// The key contains the digest, so that two bundles of one id never collide.
fn bundle_key(manifest: &Manifest) -> String {
    format!("{}/{}/{}", place(manifest), &manifest.bundle.sha256[..16], manifest.bundle.file)
}

fn is_manifest(key: &str) -> bool {
    key.rsplit('/').next() == Some(manifest::FILE)
}
