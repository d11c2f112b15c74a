//! Releases in buckets: the contract on each of them, many writers at once, puts that are killed at any request, and
//! servers that are not well.

mod bench;
mod chains;
mod doctor;
mod faults;
mod forged;
mod locks;
mod oidc;
mod proxies;
mod pull;
mod races;
pub mod server;
mod site;
mod tls;
mod windows;

use crate::parts::{PROJECT, ctx, release};
use crate::project::Project;
use crate::store::{contract, race};
use gangplank_bucket::object::{Bucket, Memory};
use gangplank_bucket::store::BucketStore;
use gangplank_bundle::release::Release;
use gangplank_deploy::store;
use gangplank_deploy::store::{Put, Store};
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Kind, kind_of};
use gangplank_model::owner::Owner;
use gangplank_model::release::id::ReleaseId;
use gangplank_system::context::Context;
use gangplank_system::machine;
use server::{Fate, Proxy, ceph, fresh_url, with};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn leaked(ctx: Context) -> &'static Context {
    Box::leak(Box::new(ctx))
}

pub fn open(ctx: &'static Context, url: &str) -> Box<dyn Store> {
    let tool = Tool { buckets: Some(&gangplank_bucket::BUCKETS), ..Tool::bare(ctx, &crate::parts::PROJECT) };
    tool.store(url).unwrap()
}

#[test]
fn store_in_memory_keeps_the_contract() {
    let dir = crate::record::tempdir();
    let (ctx, memory) = (leaked(ctx(dir.path())), Memory::default());
    let open = || -> Box<dyn Store> {
        let bucket = Bucket::in_memory(ctx, &memory).unwrap();
        Box::new(BucketStore::with_bucket(ctx, &PROJECT, "memory:", bucket))
    };
    contract(dir.path(), &open);
    race(dir.path(), &open);
}

#[test]
fn store_in_bucket_directory_keeps_the_contract() {
    let dir = crate::record::tempdir();
    let vars = [("GANGPLANK_BUCKETS".to_owned(), dir.path().join("buckets").display().to_string())];
    keeps_contract(&vars, "s3://builds/shop");
}

#[test]
#[ignore = "group bucket"]
fn store_on_ceph_keeps_the_contract() {
    let Some(ceph) = ceph() else { return };
    keeps_contract(&ceph.vars(), &fresh_url());
}

/// The contract on a store of this URL, with variables for its server.
pub fn keeps_contract(vars: &[(String, String)], url: &str) {
    let dir = crate::record::tempdir();
    let ctx = leaked(with(dir.path(), vars));
    let open = || open(ctx, url);
    contract(dir.path(), &open);
    race(dir.path(), &open);
}

const WRITERS: usize = 20;
const ROUNDS: u32 = 50;

/// Releases of one id with different bytes, made by hand: twenty for each round would be packed all night.
fn contenders(dir: &Path, round: u32) -> Vec<Release> {
    let one = |n: usize| {
        let own = dir.join(format!("{round}-{n}"));
        std::fs::create_dir(&own).unwrap();
        release(&own, round, &[("a", &format!("{round} {n}"))])
    };
    (0..WRITERS).map(one).collect()
}

#[test]
#[ignore = "group bucket"]
fn put_of_one_id_by_twenty_writers_stores_one() {
    let Some(ceph) = ceph() else { return };
    let dir = crate::record::tempdir();
    let (ctx, url) = (leaked(with(dir.path(), &ceph.vars())), fresh_url());
    let rounds: Vec<_> = (0..ROUNDS).map(|round| contenders(dir.path(), round)).collect();
    let (start, over) = (Barrier::new(WRITERS), AtomicBool::new(false));
    let wins = std::thread::scope(|scope| {
        let rounds = &rounds;
        let (start, over, url) = (&start, &over, &url);
        // A reader sees the whole release or nothing of it.
        let reader = scope.spawn(move || {
            let (store, mut seen) = (open(ctx, url), 0);
            while !over.load(Ordering::Relaxed) {
                for manifest in store.list().unwrap().into_iter().take(2) {
                    store.get(&manifest.id, &dir_of_reader(ctx)).unwrap();
                    seen += 1;
                }
            }
            seen
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                scope.spawn(move || {
                    let store = open(ctx, url);
                    let puts = rounds.iter().map(|contenders| {
                        start.wait();
                        match store.put(&contenders[n]) {
                            Ok(put) => {
                                assert_eq!(put, Put::Stored);
                                true
                            }
                            Err(error) => {
                                assert_eq!(kind_of(&error), Kind::Verification, "{error:#}");
                                assert!(error.to_string().contains("`a` differs"), "{error:#}");
                                false
                            }
                        }
                    });
                    puts.collect::<Vec<_>>()
                })
            })
            .collect();
        let wins: Vec<Vec<bool>> = writers.into_iter().map(|it| it.join().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
        wins
    });
    let store = open(ctx, &url);
    for round in 0..ROUNDS as usize {
        let winners: Vec<_> = (0..WRITERS).filter(|n| wins[*n][round]).collect();
        let [winner] = winners.as_slice() else { panic!("round {round}: {winners:?}") };
        let won = &rounds[round][*winner];
        let got = store.get(won.id(), &dir.path().join("got")).unwrap();
        assert_eq!(got.manifest(), won.manifest());
    }
    // The losers took their bundles with them.
    let bucket = Bucket::open(ctx, &url, &settings_of(ctx, &url)).unwrap();
    assert_eq!(bucket.list("releases").unwrap().len(), 2 * ROUNDS as usize);
}

fn dir_of_reader(ctx: &Context) -> std::path::PathBuf {
    ctx.root.join("read")
}

fn settings_of(ctx: &Context, url: &str) -> gangplank_bucket::object::settings::values::Settings {
    gangplank_bucket::object::settings::settings(url, ctx.vars(), &|_| None).unwrap()
}

#[test]
#[ignore = "group bucket"]
fn publish_by_many_writers_at_once_names_the_newest() {
    let Some(ceph) = ceph() else { return };
    let dir = crate::record::tempdir();
    let (ctx, url) = (leaked(with(dir.path(), &ceph.vars())), fresh_url());
    let releases: Vec<_> = (0..20).map(|n| release(dir.path(), n, &[("a", &n.to_string())])).collect();
    let store = open(ctx, &url);
    for release in &releases {
        store.put(release).unwrap();
    }
    for round in 0..ROUNDS as usize {
        let bucket = Bucket::open(ctx, &url, &settings_of(ctx, &url)).unwrap();
        bucket.remove("latest/shop/main.json").unwrap();
        // Each round another order, and another one that is not there.
        let absent = round % WRITERS;
        let start = Barrier::new(WRITERS - 1);
        let moved = std::thread::scope(|scope| {
            let each = (0..WRITERS).map(|n| (n * 7 + round) % WRITERS).filter(|n| *n != absent);
            let (start, url, releases) = (&start, &url, &releases);
            let publishers: Vec<_> = each
                .map(|n| {
                    scope.spawn(move || {
                        let store = open(ctx, url);
                        start.wait();
                        let done = store.publish(releases[n].manifest()).unwrap().unwrap();
                        assert!(done.release.unwrap() >= *releases[n].id(), "it never names an older one");
                        done.moved
                    })
                })
                .collect();
            publishers.into_iter().map(|it| it.join().unwrap()).filter(|moved| *moved).count()
        });
        assert!(moved >= 1);
        let newest = if absent == WRITERS - 1 { WRITERS - 2 } else { WRITERS - 1 };
        assert_eq!(store.latest().unwrap().unwrap().id, *releases[newest].id(), "round {round}");
    }
}

/// A project that stores in a bucket behind a proxy, or in front of none.
fn project(url: &str, endpoint: &str) -> Project {
    let mut p = Project::new();
    p.change("store file:store\n", &format!("store {url}\n"));
    p.var("S3_ENDPOINT", endpoint);
    p.var("AWS_ACCESS_KEY_ID", "localkey");
    p.var("AWS_SECRET_ACCESS_KEY", "localsecret");
    p.var("GANGPLANK_API_DEADLINE", "20");
    p
}

/// The release of `p` in its bucket is whole, or there is none.
fn whole_or_absent(p: &Project, id: &str) -> bool {
    let listed = p.run("releases --json").ok();
    let there = serde_json::from_str::<serde_json::Value>(&listed.stdout)
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .any(|it| it["stores"].as_array().unwrap().iter().any(|it| it.as_str().unwrap().starts_with("s3:")));
    if there {
        p.run(&format!("verify {id} --store")).ok();
    }
    there
}

#[test]
#[ignore = "group bucket"]
fn put_killed_at_any_request_leaves_whole_release_or_none() {
    let Some(ceph) = ceph() else { return };
    // Big enough for three parts.
    let noise: String = crate::ci::faults::noise(20 << 20);
    let (mut absent, mut there) = (0, 0);
    for at in 0.. {
        let url = fresh_url();
        let (told, pid) = (std::sync::Arc::new(AtomicBool::new(false)), std::sync::Arc::new(std::sync::Mutex::new(0)));
        let (tell, of) = (told.clone(), pid.clone());
        let proxy = Proxy::new(
            &ceph.url(),
            Box::new(move |number, _| {
                if number == at {
                    tell.store(true, Ordering::SeqCst);
                    let pid = of.lock().unwrap().to_string();
                    std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap();
                    return Fate::CutRequest(0);
                }
                Fate::Forward
            }),
        );
        let mut p = project(&url, &proxy.url());
        p.write("www/noise", &noise);
        // Nothing runs there, and a prune can see that.
        for env in ["dev", "prod"] {
            std::fs::create_dir_all(p.path(&format!("srv/{env}"))).unwrap();
        }
        let id = p.release("1");
        {
            // The proxy must not decide before it knows whom to kill.
            let mut pid = pid.lock().unwrap();
            let child = p.start("put");
            *pid = child.id();
            drop(pid);
            child.wait_with_output().unwrap();
        }
        p.var("S3_ENDPOINT", &ceph.url());
        *(if whole_or_absent(&p, &id) { &mut there } else { &mut absent }) += 1;
        if !told.load(Ordering::SeqCst) {
            break;
        }
        // The remains belong to no release, and a prune removes them; or the same command completes the put.
        if at % 2 == 0 {
            p.run(&format!("prune --store {url} --keep 1 --days 0 --yes")).ok();
        }
        p.run("put").ok();
        assert!(whole_or_absent(&p, &id));
    }
    assert!(absent > 5 && there > 1, "{absent} {there}");
}

#[test]
#[ignore = "group bucket"]
fn release_in_bucket_goes_from_commit_to_live() {
    let Some(ceph) = ceph() else { return };
    let url = fresh_url();
    let p = project(&url, &ceph.url());
    let one = p.release("1");
    p.run("put").ok().stdout_is(&format!("{url}: {one} stored\n"));
    p.run("put").ok().stdout_has("already has it");
    p.run("verify --store").ok().stdout_has("has every byte");
    p.run("deploy dev latest").ok();
    p.run("publish").ok().stdout_is(&format!("{url}: latest/shop/main.json names {one}\n"));
    p.run("publish").ok().stdout_has("names already");
    let two = p.release("2");
    p.run("put").ok();
    p.run("publish").ok();
    p.run(&format!("publish {one}")).ok().stdout_has("it already names a newer release");
    // Another machine: nothing built there.
    std::fs::remove_dir_all(p.path("target/releases")).unwrap();
    p.run("deploy dev latest").ok().stderr_has(&format!("fetched {two} from {url}"));
    p.run("promote dev prod --yes").ok();
    p.run("releases").ok().stdout_has(&one).stdout_has(&two).stdout_has(&url);
    // What is live is known to the bucket too: what was begun, and that it is good.
    let history = p.run("history prod --all --json").ok().stdout;
    let history: serde_json::Value = serde_json::from_str(&history).unwrap();
    let told = history.as_array().unwrap().iter().find(|it| it["target"] == url.as_str()).expect("the bucket was told");
    let events: Vec<_> = told["records"].as_array().unwrap().iter().map(|it| (&it["event"], &it["release"])).collect();
    assert_eq!(events, [(&"switched".into(), &two.as_str().into()), (&"live".into(), &two.as_str().into())]);
    // So it is kept when the host has forgotten everything.
    std::fs::remove_dir_all(p.path("srv/prod")).unwrap();
    let pruned = p.run(&format!("prune --store {url} --keep 0 --days 0 --dry-run")).ok();
    assert!(pruned.stdout.contains(&format!("keep    {two}  needed by dev, prod")), "{}", pruned.stdout);
}

/// A project whose bucket is a directory.
fn project_in(dir: &Path) -> Project {
    let mut p = Project::new();
    p.change("store file:store\n", "store s3://builds/shop\n");
    p.var("GANGPLANK_BUCKETS", &dir.display().to_string());
    p
}

#[test]
fn fetch_from_bucket_finds_each_of_many_commits() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    let ids: Vec<_> = (0..12).map(|n| p.release(&n.to_string())).collect();
    for id in &ids {
        p.run(&format!("put {id}")).ok();
    }
    std::fs::remove_dir_all(p.path("target/releases")).unwrap();
    for id in &ids {
        p.run(&format!("fetch {id} --into target/got")).ok();
        p.run(&format!("fetch {} --into target/got", &id[id.len() - 7..])).ok();
    }
}

#[test]
fn deploy_of_release_that_a_prune_removes_is_refused() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    let (zero, one, two) = (p.release("0"), p.release("1"), p.release("2"));
    for id in [&zero, &one, &two] {
        p.run(&format!("put {id}")).ok();
    }
    p.run(&format!("deploy dev {one}")).ok();
    std::fs::create_dir_all(p.path("srv/prod")).unwrap();
    let doom = |since: String| {
        let text = serde_json::json!({ "since": since, "by": "bob", "releases": [two.as_str()] }).to_string();
        std::fs::write(dir.path().join("builds/shop/pending_deletion.json"), text).unwrap();
    };
    doom(jiff::Timestamp::now().to_string());
    p.run("deploy dev").fails(6, &format!("bob is removing {two}"), "run the same command again");
    assert_eq!(p.live("srv/dev"), "1", "nothing was touched");
    p.run("put").fails(6, "bob is removing", "run the same command again");
    p.run("prune --store s3://builds/shop --keep 1 --days 0 --yes").fails(
        6,
        "bob has been pruning since",
        "30 minutes",
    );
    // What was begun is needed, so the other prune, which looks again after it has told, leaves it.
    let told = std::fs::read_to_string(dir.path().join("builds/shop/live/shop/dev.jsonl")).unwrap();
    assert!(told.lines().last().unwrap().contains(&two), "{told}");
    // That of a prune which was killed means nothing after a while.
    doom((jiff::Timestamp::now() - jiff::SignedDuration::from_mins(31)).to_string());
    p.run("deploy dev").ok();
    assert_eq!(p.live("srv/dev"), "2");
}

/// Who prunes in tests.
fn ana() -> Owner {
    machine::owner(&crate::parts::ctx(Path::new("/")), "prune")
}

fn retention(store: &dyn Store, keep: usize, days: u32, needed: &[(&ReleaseId, &str)]) -> Vec<String> {
    let needed: BTreeMap<_, _> = needed.iter().map(|(id, env)| ((*id).clone(), (*env).to_owned())).collect();
    let kept = store
        .prune(store::Retention { app: "shop", keep, days }, &ana(), false, &|| Ok(needed.clone()))
        .unwrap()
        .unwrap();
    kept.into_iter().filter(|it| it.reason.is_none()).map(|it| it.what).collect()
}

#[test]
fn prune_keeps_needed_releases_and_removes_others_whole() {
    let dir = crate::record::tempdir();
    let vars = [("GANGPLANK_BUCKETS".to_owned(), dir.path().join("buckets").display().to_string())];
    let ctx = leaked(with(dir.path(), &vars));
    let store = open(ctx, "s3://builds/shop");
    let releases: Vec<_> = (0..5).map(|n| release(dir.path(), n, &[("a", &n.to_string())])).collect();
    for release in &releases {
        store.put(release).unwrap();
    }
    assert_eq!(retention(&*store, 2, 1, &[]), [""; 0], "all are young");
    let removed = retention(&*store, 2, 0, &[(releases[0].id(), "prod")]);
    assert_eq!(removed, [releases[2].id().to_string(), releases[1].id().to_string()]);
    let left: Vec<_> = store.list().unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(left, [4, 3, 0].map(|n| releases[n].id().clone()));
    let bucket = Bucket::open(ctx, "s3://builds/shop", &settings_of(ctx, "s3://builds/shop")).unwrap();
    assert_eq!(bucket.list("releases").unwrap().len(), 6, "nothing of the others is left");
    // They can be put again.
    store.put(&releases[1]).unwrap();
    store.get(releases[1].id(), &dir.path().join("got")).unwrap();
}
