//! Concurrent prunes, puts and deploys: no release is half removed, and none that is about to go live is removed.

use crate::bucket::server::{ceph, fresh_url, with};
use crate::bucket::{ana, leaked, open};
use crate::parts::{record, release};
use gangplank_bundle::release::Release;
use gangplank_deploy::store::{Retention, Store};
use gangplank_model::error::{Kind, kind_of};
use gangplank_model::history::{HistoryEvent, Record};
use gangplank_system::context::Context;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;

const NOTHING: Retention = Retention { app: "shop", keep: 0, days: 0 };

/// A prune that keeps only what `live` names, as the verb does it.
fn prune(store: &dyn Store) -> usize {
    let needed = || {
        let history = store.history("prod")?;
        let ids: Vec<_> = history.iter().flat_map(|it| it.records.iter().filter_map(|it| it.release.clone())).collect();
        Ok(ids.into_iter().map(|id| (id, "prod".to_owned())).collect::<BTreeMap<_, _>>())
    };
    let kept = store.prune(NOTHING, &ana(), false, &needed).unwrap().unwrap();
    kept.iter().filter(|it| it.reason.is_none()).count()
}

fn whole(store: &dyn Store, release: &Release, into: &Path) -> bool {
    let listed = store.list().unwrap().iter().any(|it| it.id == *release.id());
    if listed {
        let got = store.get(release.id(), into).unwrap();
        assert_eq!(got.manifest(), release.manifest());
    }
    listed
}

fn put_meets_prune(ctx: &'static Context, url: &str, dir: &Path, rounds: u32) {
    let (mut removed, mut refused, mut there) = (0, 0, 0);
    for round in 0..rounds {
        let release = release(dir, round, &[("a", &round.to_string())]);
        if round % 2 == 0 {
            open(ctx, url).put(&release).unwrap();
        }
        let start = Barrier::new(2);
        let (put, gone) = std::thread::scope(|scope| {
            let put = scope.spawn(|| {
                let store = open(ctx, url);
                start.wait();
                store.put(&release)
            });
            let prune = scope.spawn(|| {
                let store = open(ctx, url);
                start.wait();
                prune(&*store)
            });
            (put.join().unwrap(), prune.join().unwrap())
        });
        removed += gone;
        if let Err(error) = put {
            assert_eq!(kind_of(&error), Kind::Locked, "round {round}: {error:#}");
            refused += 1;
        }
        let store = open(ctx, url);
        there += u32::from(whole(&*store, &release, &dir.join("got")));
        store.put(&release).unwrap_or_else(|error| panic!("round {round}, again: {error:#}"));
        assert!(whole(&*store, &release, &dir.join("got")), "round {round}");
        prune(&*store);
        assert!(store.list().unwrap().is_empty(), "round {round}");
    }
    assert!(removed > 0, "{removed} {refused} {there}");
}

#[test]
fn put_during_prune_in_directory_stores_whole_release_or_none() {
    let dir = crate::record::tempdir();
    let vars = [("GANGPLANK_BUCKETS".to_owned(), dir.path().join("buckets").display().to_string())];
    put_meets_prune(leaked(with(dir.path(), &vars)), "s3://builds/shop", dir.path(), 100);
}

#[test]
#[ignore = "group bucket"]
fn put_during_prune_on_ceph_stores_whole_release_or_none() {
    let Some(ceph) = ceph() else { return };
    let dir = crate::record::tempdir();
    put_meets_prune(leaked(with(dir.path(), &ceph.vars())), &fresh_url(), dir.path(), 12);
}

/// A release about to go live is in the store, or its deploy fails because of the prune.
#[test]
#[ignore = "group bucket"]
fn deploy_during_prune_on_ceph_keeps_its_release_or_is_refused() {
    let Some(ceph) = ceph() else { return };
    let dir = crate::record::tempdir();
    let ctx = leaked(with(dir.path(), &ceph.vars()));
    for round in 0..12 {
        let (url, release) = (fresh_url(), release(dir.path(), round, &[("a", &round.to_string())]));
        open(ctx, &url).put(&release).unwrap();
        let start = Barrier::new(2);
        let (told, pruned) = std::thread::scope(|scope| {
            let deploy = scope.spawn(|| {
                let store = open(ctx, &url);
                let line = Record { event: HistoryEvent::Switched, release: Some(release.id().clone()), ..record() };
                start.wait();
                store.append("prod", &line)
            });
            let prune = scope.spawn(|| {
                let store = open(ctx, &url);
                start.wait();
                prune(&*store)
            });
            (deploy.join().unwrap(), prune.join().unwrap())
        });
        let there = whole(&*open(ctx, &url), &release, &dir.path().join("got"));
        match told {
            Ok(()) => assert!(there, "round {round}: a deploy went on, and the prune removed {pruned}"),
            Err(error) => assert_eq!(kind_of(&error), Kind::Locked, "round {round}: {error:#}"),
        }
    }
}
