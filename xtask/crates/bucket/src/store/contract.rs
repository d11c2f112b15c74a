//! A bucket in the role of a store.

use crate::object::settings::values::Credentials;
use crate::store::lock::EnvLock;
use crate::store::{BucketStore, RELEASES, bundle_key, is_manifest, manifest_key, place, pointer, retention};
use gangplank_bundle::release::{Release, sums};
use gangplank_deploy::store::{Needed, Published, Put, Retention, RetentionDecision, Store, fetch_verified};
use gangplank_model::error::{CliError, Kind, Result, WithHint, not_found, verification};
use gangplank_model::history::{History, Record};
use gangplank_model::owner::Owner;
use gangplank_model::release::digest;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::layout::SUMS;
use gangplank_model::release::manifest;
use gangplank_model::release::manifest::{Head, Manifest};
use gangplank_model::state::Lockable;
use gangplank_system::http::Url;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The time within which a host must start a download; a started one is not cut off.
const LINK: Duration = Duration::from_secs(15 * 60);

/// How often a refused manifest that does not exist is written.
const CREATES: u32 = 3;

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
            // Another job was faster, or the answer to our first attempt was lost, or the server rejected two
            // concurrent writes.
            there = bucket.read(&key)?;
            if there.is_some() {
                break;
            }
        }
        let Some((text, _)) = there else {
            return CliError::new(Kind::Locked, format!("{}: {} was removed while it was stored", self.url, ours.id))
                .hint("run the same command again: a prune is running")
                .err();
        };
        let compared = self.compare(release, &text);
        if compared.is_err() && self.parse(&key, &text).is_ok_and(|theirs| theirs.bundle != ours.bundle) {
            // No manifest names it.
            let _ = bucket.remove(&bundle_key(ours));
        }
        compared
    }

    fn get(&self, id: &ReleaseId, into: &Path) -> Result<Release> {
        let Some(manifest) = self.manifest_of(id)? else {
            return not_found(format!("{id} is not in {}", self.url))
                .hint("list the stored ones with `cargo xtask releases`, or store it with `cargo xtask put` in the workflow that built it")
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
                .hint(format!("repair it with `cargo xtask verify {id} --store` where it was built"))
                .err()
        })
    }

    fn list(&self) -> Result<Vec<Manifest>> {
        self.manifests(&self.manifest_keys()?)
    }

    fn newest(&self, most: usize) -> Result<Vec<Head>> {
        let mut keys = self.manifest_keys()?;
        // The keys end with the id and the file name, and ids sort by time.
        keys.sort_by(|a, b| b.rsplit('/').nth(1).cmp(&a.rsplit('/').nth(1)));
        let mut found = Vec::new();
        let mut rest = keys.as_slice();
        // Some of them may be invalid.
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
            Credentials::Missing(what) => Some(format!("{} skipped: missing {what}", self.url)),
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
            // A manifest of another release is left to a person; anything else is damage.
            if self.parse(&key, &text).is_ok() {
                self.compare(release, &text)?;
            } else if self.trusted()?.replace(&key, ours.to_json(), &version)? {
                self.ctx.warn(format!("{}/{key} was damaged and has been repaired", self.url));
            }
        }
        self.put(release)?;
        let aside = gangplank_bundle::release::scratch(release.dir().parent().unwrap_or(release.dir()), "confirming");
        let bundle = bundle_key(ours);
        let sha256 = bucket.download(&bundle, ours.bundle.bytes, &aside, &self.ctx.progress("confirming"));
        let _ = fs::remove_file(&aside);
        if sha256? != ours.bundle.sha256 {
            bucket.upload(&bundle, &release.bundle(), &self.ctx.progress("storing"))?;
            self.ctx.warn(format!("{}/{bundle} was damaged and has been repaired", self.url));
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
        // A release from another store need not be here, but one that was here has to stay.
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
