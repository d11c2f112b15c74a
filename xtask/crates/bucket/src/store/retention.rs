//! Prunes a bucket. Pure functions, tested as tables, decide which releases go and what is debris.
//!
//! There is no race between a prune and a deploy: the deploy writes its release to `live` and then reads
//! `pending_deletion`; the prune writes `pending_deletion` and then reads `live`. So one of them sees the other. The
//! same holds for a publish and `latest`, and for a put and the listing.

use crate::object::Object;
use crate::store::pointer::{Next, change};
use crate::store::{BucketStore, RELEASES, bundle_key, is_manifest, manifest_key};
use gangplank_deploy::store::{Needed, Retention, RetentionDecision};
use gangplank_model::error::{CliError, Kind, Result, verification};
use gangplank_model::owner::{Liveness, Owner};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::Manifest;
use gangplank_system::machine;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const DOOMED: &str = "pending_deletion.json";
/// The content when no prune runs. The object is never removed, because not every server has a conditional delete.
const NOTHING: &[u8] = b"{}";
/// A prune that started longer ago was killed: it removes nothing any more, and its list is ignored.
const STALE: SignedDuration = SignedDuration::from_mins(30);
/// How long a prune may remove objects: well within [`STALE`].
const LIMIT: SignedDuration = SignedDuration::from_mins(15);

/// What a prune is about to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingDeletion {
    /// The start of the prune.
    pub since: Timestamp,
    /// The user, for messages.
    pub by: String,
    /// The owner, to check whether it still runs.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// The releases.
    pub releases: BTreeSet<ReleaseId>,
    /// Keys that no release needs.
    #[serde(default)]
    pub debris: BTreeSet<String>,
}

/// A release in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The id.
    pub id: ReleaseId,
    /// The branch it was built on.
    pub branch: Option<String>,
    /// When it was put.
    pub put: Timestamp,
    /// The app.
    pub app: String,
}

/// The reason to keep each release; `None` if it may go.
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
            return Some(format!("needed by {env}"));
        }
        if it.app != retention.app {
            return Some(format!("it belongs to another app, {}", it.app));
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
            *nth += usize::from(it.app == retention.app);
            (it.id.clone(), reason(it, *nth))
        })
        .collect()
}

/// Objects of unfinished puts: of no release, and older than the minimum age. `bundles` are the keys that manifests
/// name. Keeps everything beside an unreadable manifest.
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

/// The list of a running prune.
pub fn pending_deletion(store: &BucketStore) -> Result<Option<PendingDeletion>> {
    let read = store.bucket()?.read(DOOMED)?;
    let pending_deletion = parse(&store.url, read.as_ref().map(|(text, _)| text.as_slice()))?;
    Ok(pending_deletion.filter(|pending_deletion| pending_deletion.counts(store.ctx.now())))
}

impl PendingDeletion {
    /// Whether the list must be respected: not if it is stale by any clock, or its owner is known to be gone.
    fn counts(&self, now: Timestamp) -> bool {
        let dead = self.owner.as_ref().is_some_and(|owner| machine::liveness(owner) == Liveness::Dead);
        now.duration_since(self.since).abs() < STALE && !dead
    }
}

/// Parses the list. An unreadable list is an error, because it may name any release.
fn parse(url: &str, there: Option<&[u8]>) -> Result<Option<PendingDeletion>> {
    match there {
        None | Some(NOTHING) => Ok(None),
        Some(text) => serde_json::from_slice(text).map(Some).map_err(|error| {
            verification(format!("{url}/{DOOMED}: it is not the list of a prune: {error}"))
                .hint("inspect it and remove it if no prune runs")
                .into()
        }),
    }
}

/// Removes what is not kept. `needed` is called twice, the second time after the list is visible to others.
pub fn prune(
    store: &BucketStore,
    retention: Retention,
    by: &Owner,
    dry_run: bool,
    needed: Needed,
) -> Result<Vec<RetentionDecision>> {
    let bucket = store.bucket()?;
    let objects = bucket.list(RELEASES)?;
    let (releases, bundles) = stored(store, &objects)?;
    let now = store.ctx.now();
    let mut plan = plan(&releases, &needed()?, &pointed(store)?, retention, now);
    let mut debris: BTreeSet<_> =
        debris(&objects, &bundles, retention, now).into_iter().map(|object| object.key.clone()).collect();
    let releases: BTreeSet<_> = plan.iter().filter(|(_, reason)| reason.is_none()).map(|(id, _)| id.clone()).collect();
    let goes = !releases.is_empty() || !debris.is_empty();
    if goes && !dry_run {
        let owner = Some(by.clone());
        let pending_deletion =
            PendingDeletion { since: now, by: by.by.clone(), owner, releases, debris: debris.clone() };
        announce(store, &pending_deletion)?;
        let removed = look_again(store, &mut plan, &mut debris, needed)
            .and_then(|()| remove(store, &plan, &objects, now))
            .and_then(|()| debris.iter().try_for_each(|key| not_over(store, now).and_then(|()| bucket.remove(key))));
        let ended = end(store, &pending_deletion);
        removed.and(ended)?;
    }
    let mut kept: Vec<_> =
        plan.into_iter().map(|(id, reason)| RetentionDecision { what: id.to_string(), reason }).collect();
    kept.extend(debris.into_iter().map(|key| RetentionDecision { what: key, reason: None }));
    Ok(kept)
}

/// Drops from the list what others have come to need before it was visible.
fn look_again(
    store: &BucketStore,
    plan: &mut [(ReleaseId, Option<String>)],
    debris: &mut BTreeSet<String>,
    needed: Needed,
) -> Result<()> {
    let (needed, pointed) = (needed()?, pointed(store)?);
    for (id, reason) in plan.iter_mut().filter(|(_, reason)| reason.is_none()) {
        *reason = match needed.get(id) {
            Some(env) => Some(format!("needed by {env}")),
            None if pointed.contains(id) => Some("it is the latest of a branch".into()),
            None => None,
        };
    }
    // A put that reused an existing bundle and has written its manifest since.
    let objects = store.bucket()?.list(RELEASES)?;
    let of_release = |key: &str| key.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let whole: BTreeSet<_> = objects.iter().filter(|it| is_manifest(&it.key)).map(|it| of_release(&it.key)).collect();
    let before: BTreeSet<_> = plan.iter().map(|(id, _)| id.as_str()).collect();
    debris.retain(|key| {
        let release = of_release(key);
        let known = release.rsplit('/').next().is_some_and(|id| before.contains(id));
        known || !whole.contains(&release)
    });
    Ok(())
}

/// Stops a slow prune well before others consider it killed.
fn not_over(store: &BucketStore, began: Timestamp) -> Result<()> {
    if store.ctx.interrupted() || store.ctx.now().duration_since(began) > LIMIT {
        return CliError::new(Kind::Failed, format!("{}: stopped; no release is half removed", store.url))
            .hint("run the same command again to continue")
            .err();
    }
    Ok(())
}

/// Clears the list, if it is still ours.
fn end(store: &BucketStore, ours: &PendingDeletion) -> Result<()> {
    change((&store.url, store.trusted()?), DOOMED, |there| {
        let theirs = parse(&store.url, there)?.is_none_or(|it| it != *ours);
        Ok(if theirs { Next::Leave(()) } else { Next::Write(NOTHING.to_vec(), ()) })
    })
}

/// Removes manifests first, which hides the releases.
fn remove(
    store: &BucketStore,
    plan: &[(ReleaseId, Option<String>)],
    objects: &[Object],
    began: Timestamp,
) -> Result<()> {
    for (id, _) in plan.iter().filter(|(_, reason)| reason.is_none()) {
        not_over(store, began)?;
        let inside = format!("/{id}/");
        let own = objects.iter().filter(|it| it.key.contains(&inside));
        let (manifests, others): (Vec<_>, Vec<_>) = own.partition(|it| is_manifest(&it.key));
        for object in manifests.into_iter().chain(others) {
            store.bucket()?.remove(&object.key)?;
        }
    }
    Ok(())
}

/// Publishes the list; fails if another prune runs.
fn announce(store: &BucketStore, pending_deletion: &PendingDeletion) -> Result<()> {
    let now = store.ctx.now();
    change((&store.url, store.trusted()?), DOOMED, |there| match parse(&store.url, there)? {
        Some(other) if other.counts(now) && other != *pending_deletion => {
            let since = other.since.strftime("%Y-%m-%d %H:%M:%SZ");
            CliError::new(Kind::Locked, format!("{}: {} has been pruning since {since}", store.url, other.by))
                .hint(format!(
                    "wait until it has ended; a killed one is ignored after 30 minutes, or at once if you \
                     remove {}/{DOOMED}",
                    store.url
                ))
                .err()
        }
        _ => {
            let text = serde_json::to_vec(pending_deletion).expect("a list has no maps");
            Ok(Next::Write(text, ()))
        }
    })
}

/// The releases, and the keys of their bundles.
fn stored(store: &BucketStore, objects: &[Object]) -> Result<(Vec<Stored>, BTreeSet<String>)> {
    let keys: Vec<_> = objects.iter().filter(|it| is_manifest(&it.key)).map(|it| it.key.clone()).collect();
    let put: BTreeMap<_, _> = objects.iter().map(|it| (it.key.as_str(), it.written)).collect();
    let manifests = store.manifests(&keys)?;
    let bundles = manifests.iter().map(bundle_key).collect();
    let stored = |it: Manifest| Stored {
        put: put[manifest_key(&it).as_str()],
        branch: it.commit.branch,
        id: it.id,
        app: it.app,
    };
    Ok((manifests.into_iter().map(stored).collect(), bundles))
}

/// The releases that branch pointers name.
fn pointed(store: &BucketStore) -> Result<BTreeSet<ReleaseId>> {
    #[derive(Deserialize)]
    struct Pointer {
        release: ReleaseId,
    }
    let bucket = store.bucket()?;
    let keys: Vec<_> = bucket.list("latest")?.into_iter().map(|object| object.key).collect();
    let read = bucket.read_all(&keys)?;
    read.into_iter()
        .map(|(key, text)| match serde_json::from_slice::<Pointer>(&text) {
            Ok(pointer) => Ok(pointer.release),
            // An unreadable pointer may name any release.
            Err(error) => verification(format!("{}/{key} is not a pointer: {error}", store.url))
                .hint("inspect and remove it; the next `cargo xtask publish` writes it again")
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
    fn plan_keeps_newest_recent_needed_and_pointed_to_releases() {
        let stored =
            |n, branch: &str| Stored { id: id(n), branch: Some(branch.into()), put: at(n), app: "shop".into() };
        let releases: Vec<_> = (0..6).map(|n| stored(n, "main")).chain([stored(7, "next")]).collect();
        let needed = BTreeMap::from([(id(1), "prod".to_owned())]);
        let kept = |keep, days, now| -> String {
            let retention = Retention { app: "shop", keep, days };
            let plan = plan(&releases, &needed, &BTreeSet::from([id(5)]), retention, at(now));
            let kept = plan.iter().filter(|(_, reason)| reason.is_some());
            kept.map(|(id, _)| releases.iter().position(|it| it.id == *id).unwrap().to_string()).collect()
        };
        assert_eq!(kept(1, 0, 100), "651", "the newest of each branch, and what prod needs");
        assert_eq!(kept(3, 0, 100), "65431");
        assert_eq!(kept(1, 5, 8), "6541", "what was put less than five days ago");
        assert_eq!(kept(0, 0, 100), "51", "the pointer of a branch never dangles");
        // Releases of another app are not counted.
        let mixed: Vec<_> = (0..6)
            .map(|n| Stored { app: if n % 2 == 0 { "shop" } else { "other" }.into(), ..stored(n, "main") })
            .collect();
        let retention = Retention { app: "shop", keep: 2, days: 0 };
        let kept = plan(&mixed, &BTreeMap::new(), &BTreeSet::new(), retention, at(100));
        let gone: Vec<_> = kept.iter().filter(|(_, reason)| reason.is_none()).map(|(id, _)| id.clone()).collect();
        assert_eq!(gone, [id(0)]);
        let foreign = [Stored { app: "other".into(), ..stored(1, "main") }];
        let retention = Retention { app: "shop", keep: 0, days: 0 };
        let plan = plan(&foreign, &BTreeMap::new(), &BTreeSet::new(), retention, at(100));
        assert_eq!(plan[0].1.as_deref(), Some("it belongs to another app, other"));
    }

    #[test]
    fn debris_is_old_bundles_without_a_manifest() {
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
            let debris = debris(&objects, &bundles, Retention { app: "shop", keep: 1, days }, at(10));
            debris.into_iter().map(|it| it.key.as_str()).collect()
        };
        let (lost, begun) = ("releases/aa/1/d2/shop.tar.gz", "releases/bb/2/d3/shop.tar.gz");
        assert_eq!(keys(5), [lost, begun]);
        assert_eq!(keys(0), [lost, begun, "releases/bb/3/d4/shop.tar.gz"]);
    }
}
