//! What a bucket may forget. Pure but for the last function: which releases go is a table of tests.
//!
//! A prune and a deploy that meet: the deploy writes to `live` what it is about to bring and then looks at `doomed`,
//! the prune writes `doomed` and then looks at `live`. One of them sees the other.

use crate::error::{Failure, Kind, Result, verification};
use crate::release::id::ReleaseId;
use crate::release::manifest::Manifest;
use crate::store::bucket::pointer::{Next, change};
use crate::store::bucket::{BucketStore, RELEASES, bundle_key, is_manifest, manifest_key};
use crate::store::object::{Bucket, Object};
use crate::store::{Kept, Needed, Retention};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const DOOMED: &str = "doomed.json";
/// A prune that has not ended after this long was killed: it removes nothing any more, and its list means nothing.
const STALE: SignedDuration = SignedDuration::from_mins(30);
/// How long a prune goes on removing: well before others take it for dead.
const LIMIT: SignedDuration = SignedDuration::from_mins(15);

/// What a prune is about to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doomed {
    /// Since when.
    pub since: Timestamp,
    /// Who prunes.
    pub by: String,
    /// Its releases.
    pub releases: BTreeSet<ReleaseId>,
}

/// A release in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Which.
    pub id: ReleaseId,
    /// The branch it was built on.
    pub branch: Option<String>,
    /// When it was put.
    pub put: Timestamp,
}

/// Each release with the reason to keep it; without one it may go.
pub fn plan(
    releases: &[Stored],
    needed: &BTreeMap<ReleaseId, String>,
    pointed: &BTreeSet<ReleaseId>,
    retention: Retention,
    now: Timestamp,
) -> Vec<(ReleaseId, Option<String>)> {
    let mut newest_first: Vec<_> = releases.iter().collect();
    newest_first.sort_by(|a, b| b.id.cmp(&a.id));
    let mut of_branch: BTreeMap<&Option<String>, usize> = BTreeMap::new();
    let reason = |it: &Stored, nth: usize| {
        if let Some(env) = needed.get(&it.id) {
            return Some(format!("{env} needs it"));
        }
        if pointed.contains(&it.id) {
            return Some("it is the latest of a branch".into());
        }
        if now.duration_since(it.put) < SignedDuration::from_hours(24 * i64::from(retention.days)) {
            return Some(format!("younger than {} days", retention.days));
        }
        (nth <= retention.keep).then(|| format!("one of the newest {} of its branch", retention.keep))
    };
    newest_first
        .into_iter()
        .map(|it| {
            let nth = of_branch.entry(&it.branch).or_default();
            *nth += 1;
            (it.id.clone(), reason(it, *nth))
        })
        .collect()
}

/// Objects of puts that never came to their end: older than the time that every release is kept, and of no release.
/// `bundles` are the keys that manifests name. Beside a manifest that could not be read everything stays.
pub fn debris<'a>(
    objects: &'a [Object],
    bundles: &BTreeSet<String>,
    retention: Retention,
    now: Timestamp,
) -> Vec<&'a Object> {
    let dir = |key: &str| key.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let read: BTreeSet<_> = bundles.iter().map(|key| dir(key)).collect();
    let manifests = objects.iter().filter(|it| is_manifest(&it.key)).map(|it| dir(&it.key));
    let unread: BTreeSet<_> = manifests.filter(|dir| !read.contains(dir)).collect();
    let limit = SignedDuration::from_hours(24 * i64::from(retention.days));
    let is_debris = |it: &&Object| {
        !is_manifest(&it.key)
            && !bundles.contains(&it.key)
            && !unread.contains(&dir(&it.key))
            && now.duration_since(it.written) >= limit
    };
    objects.iter().filter(is_debris).collect()
}

/// The list of a prune that is under way.
pub fn doomed(bucket: &Bucket, now: Timestamp) -> Result<Option<Doomed>> {
    let Some((text, _)) = bucket.read(DOOMED)? else { return Ok(None) };
    let doomed: Option<Doomed> = serde_json::from_slice(&text).ok();
    Ok(doomed.filter(|doomed| now.duration_since(doomed.since) < STALE))
}

/// Removes what is not kept. `needed` is asked twice, the second time after everybody can see what is about to go.
pub fn prune(store: &BucketStore, retention: Retention, by: &str, dry_run: bool, needed: Needed) -> Result<Vec<Kept>> {
    let bucket = store.bucket()?;
    let objects = bucket.list(RELEASES)?;
    let (releases, bundles) = stored(store, &objects)?;
    let pointed = pointed(bucket)?;
    let now = store.cx.now();
    let mut plan = plan(&releases, &needed()?, &pointed, retention, now);
    let debris = debris(&objects, &bundles, retention, now);
    if !dry_run {
        let doom: BTreeSet<_> = plan.iter().filter(|(_, why)| why.is_none()).map(|(id, _)| id.clone()).collect();
        announce(store, &Doomed { since: now, by: by.to_owned(), releases: doom })?;
        let needed = needed()?;
        for (id, why) in &mut plan {
            if let (None, Some(env)) = (&why, needed.get(id)) {
                *why = Some(format!("{env} needs it"));
            }
        }
        let removed = remove(store, &plan, &objects, now)
            .and_then(|()| debris.iter().try_for_each(|object| bucket.remove(&object.key)));
        bucket.remove(DOOMED)?;
        removed?;
    }
    let mut kept: Vec<_> = plan.into_iter().map(|(id, why)| Kept { what: id.to_string(), why }).collect();
    kept.extend(debris.iter().map(|object| Kept { what: object.key.clone(), why: None }));
    Ok(kept)
}

/// Manifests go first: from then on nobody finds the release.
fn remove(
    store: &BucketStore,
    plan: &[(ReleaseId, Option<String>)],
    objects: &[Object],
    began: Timestamp,
) -> Result<()> {
    for (id, _) in plan.iter().filter(|(_, why)| why.is_none()) {
        if store.cx.interrupted() || store.cx.now().duration_since(began) > LIMIT {
            return Failure::new(
                Kind::Failed,
                format!("{}: stopped before {id}; what was removed is gone whole", store.url),
            )
            .hint("the same command again goes on")
            .err();
        }
        let inside = format!("/{id}/");
        let own = objects.iter().filter(|it| it.key.contains(&inside));
        let (manifests, others): (Vec<_>, Vec<_>) = own.partition(|it| is_manifest(&it.key));
        for object in manifests.into_iter().chain(others) {
            store.bucket()?.remove(&object.key)?;
        }
    }
    Ok(())
}

/// One prune at a time, and everybody can see what it removes.
fn announce(store: &BucketStore, doomed: &Doomed) -> Result<()> {
    let now = store.cx.now();
    change((&store.url, store.trusted()?), DOOMED, |there| {
        let other: Option<Doomed> = there.and_then(|text| serde_json::from_slice(text).ok());
        match other {
            Some(other) if now.duration_since(other.since) < STALE && other != *doomed => {
                Failure::new(Kind::Locked, format!("{}: {} prunes since {}", store.url, other.by, other.since))
                    .hint("wait until it has ended; one that was killed is passed over after 30 minutes")
                    .err()
            }
            _ => {
                let text = serde_json::to_vec(doomed).expect("a list has no maps");
                Ok(Next::Write(text, ()))
            }
        }
    })
}

/// The releases, and the keys of their bundles.
fn stored(store: &BucketStore, objects: &[Object]) -> Result<(Vec<Stored>, BTreeSet<String>)> {
    let keys: Vec<_> = objects.iter().filter(|it| is_manifest(&it.key)).map(|it| it.key.clone()).collect();
    let put: BTreeMap<_, _> = objects.iter().map(|it| (it.key.as_str(), it.written)).collect();
    let manifests = store.manifests(&keys)?;
    let bundles = manifests.iter().map(bundle_key).collect();
    let stored = |it: Manifest| Stored { put: put[manifest_key(&it).as_str()], branch: it.commit.branch, id: it.id };
    Ok((manifests.into_iter().map(stored).collect(), bundles))
}

/// What the pointers of branches name.
fn pointed(bucket: &Bucket) -> Result<BTreeSet<ReleaseId>> {
    #[derive(Deserialize)]
    struct Pointer {
        release: ReleaseId,
    }
    let keys: Vec<_> = bucket.list("latest")?.into_iter().map(|object| object.key).collect();
    let read = bucket.read_all(&keys)?;
    read.into_iter()
        .map(|(key, text)| match serde_json::from_slice::<Pointer>(&text) {
            Ok(pointer) => Ok(pointer.release),
            // A pointer that cannot be read may point to anything.
            Err(error) => verification(format!("{key} is no pointer: {error}"))
                .hint("look at it and remove it; the next `cargo xtask publish` writes it again")
                .err(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: i64) -> ReleaseId {
        ReleaseId::new(at(n), &format!("{n:040x}"), None).unwrap()
    }

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_780_000_000 + day * 86_400).unwrap()
    }

    #[test]
    fn what_is_kept() {
        let stored = |n, branch: &str| Stored { id: id(n), branch: Some(branch.into()), put: at(n) };
        let releases: Vec<_> = (0..6).map(|n| stored(n, "main")).chain([stored(7, "next")]).collect();
        let needed = BTreeMap::from([(id(1), "prod".to_owned())]);
        let kept = |keep, days, now| -> String {
            let plan = plan(&releases, &needed, &BTreeSet::from([id(5)]), Retention { keep, days }, at(now));
            let kept = plan.iter().filter(|(_, why)| why.is_some());
            kept.map(|(id, _)| releases.iter().position(|it| it.id == *id).unwrap().to_string()).collect()
        };
        assert_eq!(kept(1, 0, 100), "651", "the newest of each branch, and what prod needs");
        assert_eq!(kept(3, 0, 100), "65431");
        assert_eq!(kept(1, 5, 8), "6541", "what was put less than five days ago");
        assert_eq!(kept(0, 0, 100), "51", "the pointer of a branch never dangles");
    }

    #[test]
    fn what_was_never_finished() {
        let object = |key: &str, day| Object { key: key.into(), bytes: 1, written: at(day) };
        let objects = [
            object("releases/aa/1/manifest.json", 0),
            object("releases/aa/1/d1/shop.tar.gz", 0),
            object("releases/aa/1/d2/shop.tar.gz", 0),
            object("releases/bb/2/d3/shop.tar.gz", 0),
            object("releases/bb/3/d4/shop.tar.gz", 9),
            object("releases/cc/4/manifest.json", 0),
            object("releases/cc/4/d5/shop.tar.gz", 0),
        ];
        let bundles = BTreeSet::from(["releases/aa/1/d1/shop.tar.gz".to_owned()]);
        let keys = |days| -> Vec<&str> {
            let debris = debris(&objects, &bundles, Retention { keep: 1, days }, at(10));
            debris.into_iter().map(|it| it.key.as_str()).collect()
        };
        let (lost, begun) = ("releases/aa/1/d2/shop.tar.gz", "releases/bb/2/d3/shop.tar.gz");
        assert_eq!(keys(5), [lost, begun]);
        assert_eq!(keys(0), [lost, begun, "releases/bb/3/d4/shop.tar.gz"]);
    }
}
