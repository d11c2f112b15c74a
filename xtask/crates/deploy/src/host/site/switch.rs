//! Changes of what a site serves.

use crate::host::site::SiteTarget;
use crate::host::site::layout::{
    self, CURRENT, FILES, HISTORY, Now, OUTDATED, RELEASES, digest_of_key, installed, now, of_release_key,
};
use crate::store::bucket::pointer;
use crate::store::bucket::pointer::{Next, change};
use crate::store::object::Bucket;
use gangplank_model::error::{CliError, Kind, Result};
use gangplank_model::history::Record;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::{Content, Manifest};
use gangplank_model::site;
use gangplank_model::site::{Outdated, Served};
use std::collections::{BTreeMap, BTreeSet};

impl SiteTarget<'_> {
    /// Serves an installed release.
    pub(super) fn activate_in(&self, bucket: &Bucket, id: &ReleaseId, record: Option<&Record>) -> Result<()> {
        self.fenced(bucket)?;
        let (manifest, to) = self.read(bucket, id)?;
        if let Some(record) = record {
            pointer::append_to((&self.url, bucket), HISTORY, record)?;
        }
        let before = self.now(bucket)?;
        let served = self.may_be_served(bucket, &before)?;
        let begun = self.begin(bucket, id)?;
        // What is damaged is noticed before anything is written.
        self.note_outdated(bucket, |known| known)?;
        let plan = site::switch(&served.iter().collect::<Vec<_>>(), &to);
        for phase in &plan.phases {
            bucket.copy_all(phase)?;
        }
        let outdated = self.note_outdated(bucket, |known| site::outdated(known, &plan, &to, self.ctx.now()))?;
        let done = Now { release: Some(id.clone()), switching: vec![], app: Some(manifest.app) };
        self.swap(bucket, &begun, &done)?;
        self.remove_due(bucket, &outdated)
    }

    /// Serves nothing: removes every file of the live release.
    pub(super) fn deactivate(&self, bucket: &Bucket, record: Option<&Record>) -> Result<()> {
        self.fenced(bucket)?;
        if let Some(record) = record {
            pointer::append_to((&self.url, bucket), HISTORY, record)?;
        }
        let before = self.now(bucket)?;
        let served = self.may_be_served(bucket, &before)?;
        let paths: BTreeSet<_> = served.iter().flat_map(|served| served.keys().cloned()).collect();
        // Pages first: no page is left that names a file which is gone.
        let (pages, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| site::is_page(path));
        bucket.remove_paths(&pages)?;
        bucket.remove_paths(&others)?;
        self.swap(bucket, &before, &Now::default())
    }

    /// Says that a switch to a release begins; returns what is there from now on.
    fn begin(&self, bucket: &Bucket, id: &ReleaseId) -> Result<Now> {
        let before = self.now(bucket)?;
        let mut begun = before.clone();
        if !begun.switching.contains(id) {
            begun.switching.push(id.clone());
        }
        self.swap(bucket, &before, &begun)?;
        Ok(begun)
    }

    fn now(&self, bucket: &Bucket) -> Result<Now> {
        let read = bucket.read(CURRENT)?;
        now(&self.url, read.as_ref().map(|(text, _)| text.as_slice()))
    }

    /// Replaces `current.json`, which must be as it was read.
    fn swap(&self, bucket: &Bucket, from: &Now, to: &Now) -> Result<()> {
        let json = serde_json::to_vec(to).expect("it has no maps with odd keys");
        let swapped = change((&self.url, bucket), CURRENT, |there| {
            let there = now(&self.url, there)?;
            Ok(if there == *to {
                Next::Leave(true)
            } else if there == *from {
                Next::Write(json.clone(), true)
            } else {
                Next::Leave(false)
            })
        })?;
        if swapped {
            return Ok(());
        }
        CliError::new(Kind::Locked, format!("{}: another deploy changed what is live", self.url))
            .hint("check what is live with `cargo xtask status`, then run the same command again")
            .err()
    }

    /// What clients may get now: the live release, and those whose switch was interrupted.
    fn may_be_served(&self, bucket: &Bucket, now: &Now) -> Result<Vec<Served>> {
        let mut served = Vec::new();
        for id in now.release.iter().chain(&now.switching) {
            // Without its list every file is written again.
            served.push(self.find(bucket, id)?.map(|(_, served)| served).unwrap_or_default());
        }
        Ok(served)
    }

    fn note_outdated(&self, bucket: &Bucket, next: impl Fn(Outdated) -> Outdated) -> Result<Outdated> {
        change((&self.url, bucket), OUTDATED, |there| {
            let known = layout::outdated(&self.url, there)?;
            let changed = next(known.clone());
            Ok(if changed == known {
                Next::Leave(changed)
            } else {
                let json = serde_json::to_vec(&changed).expect("its keys are texts");
                Next::Write(json, changed)
            })
        })
    }

    /// Removes what is outdated for longer than the grace.
    fn remove_due(&self, bucket: &Bucket, outdated: &Outdated) -> Result<()> {
        let due = site::due(outdated, self.site.grace, self.ctx.now());
        if due.is_empty() {
            return Ok(());
        }
        bucket.remove_paths(&due)?;
        self.note_outdated(bucket, |mut known| {
            known.retain(|path, _| !due.contains(path));
            known
        })
        .map(drop)
    }

    /// Removes releases but the live one, contents that no release has any more, and outdated paths after their grace.
    pub(super) fn clean(&self, bucket: &Bucket, releases: &[ReleaseId], record: &Record) -> Result<()> {
        self.fenced(bucket)?;
        let now = self.now(bucket)?;
        let stays = |id: &ReleaseId| now.release.as_ref() == Some(id) || now.switching.contains(id);
        let keys: Vec<_> = bucket.list(RELEASES)?.into_iter().map(|object| object.key).collect();
        let goes = |key: &&String| of_release_key(key).is_some_and(|(id, _)| releases.contains(&id) && !stays(&id));
        let (gone, left): (Vec<_>, Vec<_>) = keys.iter().partition(goes);
        bucket.remove_all(&gone.into_iter().cloned().collect::<Vec<_>>())?;
        let mut needed = BTreeSet::new();
        for key in left {
            // What cannot be read is kept with everything that it may need.
            let Some((text, _)) = bucket.read(key)? else { continue };
            needed.extend(installed(&self.url, key, &text)?.1.into_values());
        }
        let contents = bucket.list(FILES)?.into_iter().map(|object| object.key);
        let unneeded: Vec<_> = contents.filter(|key| digest_of_key(key).is_some() && !needed.contains(key)).collect();
        bucket.remove_all(&unneeded)?;
        let outdated = self.note_outdated(bucket, |known| known)?;
        self.remove_due(bucket, &outdated)?;
        pointer::append_to((&self.url, bucket), HISTORY, record)
    }

    /// The files of a release that are missing or changed. `whole` reads every byte: of the paths that clients ask for if
    /// the release is live, else of the stored contents. Otherwise the sizes of the stored contents are compared.
    pub(super) fn damaged(&self, bucket: &Bucket, manifest: &Manifest, whole: bool) -> Result<Vec<String>> {
        let (_, served) = self.read(bucket, &manifest.id)?;
        let sizes: BTreeMap<_, _> = manifest
            .files
            .iter()
            .filter_map(|file| match &file.content {
                Content::Sha256(digest) => Some((digest.as_str(), file.bytes)),
                Content::Link(_) => None,
            })
            .collect();
        let there = if whole { BTreeMap::new() } else { bucket.sizes(FILES)? };
        let is_live = self.now(bucket)?.release.as_ref() == Some(&manifest.id);
        let mut bad = Vec::new();
        for (path, key) in &served {
            let digest = digest_of_key(key).unwrap_or_default();
            let ok = if whole {
                let found = if is_live { bucket.digest_of_path(path)? } else { bucket.digest_of(key)? };
                found.as_deref() == Some(digest)
            } else {
                there.get(key) == sizes.get(digest)
            };
            if !ok {
                bad.push(format!("{path}: FAILED"));
            }
        }
        Ok(bad)
    }
}
