//! Changes of what a site serves.
//!
//! `current.json` names a release as `switching` before the first file of it is written, and until the last one is. While
//! it does, it is unknown what is served: the next switch writes every file.

use crate::object::Bucket;
use crate::site::layout::{
    self, CURRENT, FILES, HISTORY, Now, OUTDATED, RELEASES, SERVED, digest_of_key, now, of_release_key, served_key,
};
use crate::site::{SiteTarget, is_stored};
use crate::store::pointer;
use crate::store::pointer::{Next, change};
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
        let before = self.now(bucket)?;
        let (live, others) = self.served_now(bucket, &before)?;
        let plan = site::switch(live.as_ref(), &others.iter().collect::<Vec<_>>(), &to);
        // What is damaged is noticed before anything is written. A path that is served again must not be removed.
        let known =
            self.note_outdated(bucket, |known| site::outdated(known, &site::Switch::default(), &to, self.ctx.now()))?;
        if let Some(record) = record {
            pointer::append_to((&self.url, bucket), HISTORY, record)?;
        }
        self.begin(bucket, id)?;
        if bucket.is_directory() {
            bucket.remove_paths(&site::in_the_way(&plan, &to).cloned().collect::<Vec<_>>())?;
        }
        self.copy(bucket, id, &plan)?;
        let outdated = if plan.outdated.is_empty() {
            known
        } else {
            self.note_outdated(bucket, |known| site::outdated(known, &plan, &to, self.ctx.now()))?
        };
        self.end(bucket, &before, id, &manifest.app)?;
        self.remove_due(bucket, &outdated, &to)
    }

    /// Writes the files of the live release again, after damaged contents of it were replaced.
    pub(super) fn serve_again(&self, bucket: &Bucket, manifest: &Manifest, served: &Served) -> Result<()> {
        let before = self.now(bucket)?;
        if before.release.as_ref() != Some(&manifest.id) {
            return Ok(());
        }
        self.begin(bucket, &manifest.id)?;
        self.copy(bucket, &manifest.id, &site::switch(None, &[], served))?;
        self.end(bucket, &before, &manifest.id, &manifest.app)
    }

    /// Writes the files of a switch.
    fn copy(&self, bucket: &Bucket, id: &ReleaseId, plan: &site::Switch) -> Result<()> {
        let done = plan.phases.iter().try_for_each(|phase| bucket.copy_all(phase, &|| self.fenced(bucket)));
        done.inspect_err(|_| {
            // The run that has our lock now may have ended its switch, and our last round may have come after it.
            let _ = self.begin(bucket, id);
        })
    }

    /// Serves nothing: removes every file of the live release.
    pub(super) fn deactivate(&self, bucket: &Bucket, record: Option<&Record>) -> Result<()> {
        self.fenced(bucket)?;
        if let Some(record) = record {
            pointer::append_to((&self.url, bucket), HISTORY, record)?;
        }
        let before = self.now(bucket)?;
        let (live, others) = self.served_now(bucket, &before)?;
        let paths: BTreeSet<_> = live.iter().chain(&others).flat_map(|served| served.keys().cloned()).collect();
        // From now on nothing is live, and any file may be missing.
        let switching: Vec<_> = before.release.iter().chain(&before.switching).cloned().collect();
        self.swap(bucket, |there| (*there == before).then(|| Now { switching: switching.clone(), ..Now::default() }))?;
        // Pages first: no page is left that names a file which is gone.
        let (pages, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| site::is_page(path));
        bucket.remove_paths(&pages)?;
        bucket.remove_paths(&others)?;
        self.swap(bucket, |there| there.release.is_none().then(Now::default))
    }

    /// Records that a switch to a release begins.
    fn begin(&self, bucket: &Bucket, id: &ReleaseId) -> Result<()> {
        self.swap(bucket, |there| {
            let mut begun = there.clone();
            if !begun.switching.contains(id) {
                begun.switching.push(id.clone());
            }
            Some(begun)
        })
    }

    /// Records that a switch has ended. A run that lost its lock meanwhile may have named another release: it stays, and with
    /// it the doubt about what is served.
    fn end(&self, bucket: &Bucket, before: &Now, id: &ReleaseId, app: &str) -> Result<()> {
        self.fenced(bucket)?;
        self.swap(bucket, |there| {
            if there.release != before.release || !there.switching.contains(id) {
                return None;
            }
            let known = |other: &&ReleaseId| *other != id && !before.switching.contains(other);
            let switching = there.switching.iter().filter(known).cloned().collect();
            Some(Now { release: Some(id.clone()), switching, app: Some(app.to_owned()) })
        })
    }

    fn now(&self, bucket: &Bucket) -> Result<Now> {
        let read = bucket.read(CURRENT)?;
        now(&self.url, read.as_ref().map(|(text, _)| text.as_slice()))
    }

    /// Changes `current.json`; `next` is asked again after each conflict, and refuses by `None`.
    fn swap(&self, bucket: &Bucket, next: impl Fn(&Now) -> Option<Now>) -> Result<()> {
        let swapped = change((&self.url, bucket), CURRENT, |there| {
            let there = now(&self.url, there)?;
            Ok(match next(&there) {
                None => Next::Leave(false),
                Some(next) if next == there => Next::Leave(true),
                Some(next) => Next::Write(serde_json::to_vec(&next).expect("it has no maps with odd keys"), true),
            })
        })?;
        if swapped {
            return Ok(());
        }
        CliError::new(Kind::Locked, format!("{}: another deploy changed what is live", self.url))
            .hint("check what is live with `cargo xtask status`, then run the same command again")
            .err()
    }

    /// The paths of the live release, and of those whose switch has not ended.
    fn served_now(&self, bucket: &Bucket, now: &Now) -> Result<(Option<Served>, Vec<Served>)> {
        let paths = |id: &ReleaseId| Ok::<_, anyhow::Error>(self.find(bucket, id)?.map(|(_, served)| served));
        let live = now.release.as_ref().map(paths).transpose()?.flatten();
        let others = now.switching.iter().map(|id| Ok(paths(id)?.unwrap_or_default())).collect::<Result<_>>()?;
        Ok((live, others))
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

    /// Removes what is outdated for longer than the grace, and not served.
    fn remove_due(&self, bucket: &Bucket, outdated: &Outdated, served: &Served) -> Result<()> {
        let mut due = site::due(outdated, self.site.grace, self.ctx.now());
        due.retain(|path| !served.contains_key(path));
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
        bucket.remove_all(&gone.iter().map(|key| (*key).clone()).collect::<Vec<_>>())?;
        bucket.remove_all(&gone.iter().map(|key| served_key(key)).collect::<Vec<_>>())?;
        // Of an install that was killed, the paths are there and not the release: its contents stay until it is repeated.
        let mut needed = BTreeSet::new();
        for object in bucket.list(SERVED)? {
            let Some((text, _)) = bucket.read(&object.key)? else { continue };
            needed.extend(layout::served(&self.url, &object.key, &text)?.into_values());
        }
        for key in left {
            // What is damaged is an error before anything that it may need is removed.
            self.read_release(bucket, key)?;
        }
        let contents = bucket.list(FILES)?.into_iter().map(|object| object.key);
        let unneeded: Vec<_> = contents.filter(|key| digest_of_key(key).is_some() && !needed.contains(key)).collect();
        self.fenced(bucket)?;
        bucket.remove_all(&unneeded)?;
        let (live, others) = self.served_now(bucket, &now)?;
        let served = live.into_iter().chain(others).flatten().collect();
        let outdated = self.note_outdated(bucket, |known| known)?;
        self.remove_due(bucket, &outdated, &served)?;
        pointer::append_to((&self.url, bucket), HISTORY, record)
    }

    /// The files of a release that are missing or changed. `whole` reads every byte: of the paths that clients ask for if
    /// the release is live, else of the stored contents.
    pub(super) fn damaged(&self, bucket: &Bucket, id: &ReleaseId, whole: bool) -> Result<Vec<String>> {
        let (manifest, served) = self.read(bucket, id)?;
        let sizes: BTreeMap<_, _> = manifest
            .files
            .iter()
            .filter_map(|file| match &file.content {
                Content::Sha256(digest) => Some((digest.as_str(), file.bytes)),
                Content::Link(_) => None,
            })
            .collect();
        let there = if whole { BTreeMap::new() } else { bucket.sizes(FILES)? };
        let is_live = self.now(bucket)?.release.as_ref() == Some(id);
        let mut bad = Vec::new();
        for (path, key) in &served {
            let digest = digest_of_key(key).unwrap_or_default();
            let ok = if whole {
                let found = if is_live { bucket.digest_of_path(path)? } else { bucket.digest_of(key)? };
                found.as_deref() == Some(digest)
            } else {
                is_stored(bucket, &there, key, sizes.get(digest).copied().unwrap_or_default())?
            };
            if !ok {
                bad.push(format!("{path}: FAILED"));
            }
        }
        Ok(bad)
    }
}
