//! What others do between two requests of ours: each window is opened by hand, because no race is sure to hit it.

use crate::bucket::server::with;
use crate::bucket::{ana, leaked, open, project_in, settings_of};
use crate::parts::{dead, release};
use crate::project::Project;
use gangplank_bucket::object::Bucket;
use gangplank_bundle::release::Release;
use gangplank_deploy::deploy::liveness::LivenessChecker;
use gangplank_deploy::deploy::lock::Locks;
use gangplank_deploy::store::{Put, Retention, Store};
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Kind, Result, failed, kind_of};
use gangplank_model::owner::Owner;
use gangplank_model::state::{Lock, Lockable};
use gangplank_system::context::Context;
use gangplank_system::machine;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const URL: &str = "s3://builds/shop";
const NOTHING: Retention = Retention { app: "shop", keep: 0, days: 0 };

fn setup() -> (TempDir, &'static Context) {
    let dir = crate::record::tempdir();
    let vars = [("GANGPLANK_BUCKETS".to_owned(), dir.path().join("buckets").display().to_string())];
    let ctx = leaked(with(dir.path(), &vars));
    (dir, ctx)
}

fn bucket(ctx: &'static Context) -> Bucket<'static> {
    Bucket::open(ctx, URL, &settings_of(ctx, URL)).unwrap()
}

fn manifest_key(release: &Release) -> String {
    format!("releases/{}/{}/manifest.json", release.manifest().commit.sha, release.id())
}

/// Prunes everything, and does something between the list that all can see and the second look.
fn prune_and(store: &dyn Store, meanwhile: impl Fn()) {
    let looks = Cell::new(0);
    let needed = || {
        looks.set(looks.get() + 1);
        if looks.get() == 2 {
            meanwhile();
        }
        Ok(BTreeMap::new())
    };
    store.prune(NOTHING, &ana(), false, &needed).unwrap();
}

/// All of it is there, or nothing.
fn whole_or_absent(store: &dyn Store, dir: &Path) -> bool {
    let listed = store.list().unwrap();
    for manifest in &listed {
        store.get(&manifest.id, &dir.join("got")).unwrap();
    }
    !listed.is_empty()
}

#[test]
fn put_that_finds_bundle_listed_by_a_prune_is_refused() {
    let (dir, ctx) = setup();
    let (store, one) = (open(ctx, URL), release(dir.path(), 1, &[("a", "1")]));
    store.put(&one).unwrap();
    bucket(ctx).remove(&manifest_key(&one)).unwrap();
    let put = Cell::new(None);
    prune_and(&*store, || put.set(Some(open(ctx, URL).put(&one))));
    let error = put.take().unwrap().expect_err("it cannot stay");
    assert_eq!(kind_of(&error), Kind::Locked, "{error:#}");
    assert!(!whole_or_absent(&*store, dir.path()));
    assert_eq!(store.put(&one).unwrap(), Put::Stored);
    assert!(whole_or_absent(&*store, dir.path()));
}

#[test]
fn put_between_removals_of_a_prune_leaves_no_manifest() {
    let (dir, ctx) = setup();
    let (store, one) = (open(ctx, URL), release(dir.path(), 1, &[("a", "1")]));
    store.put(&one).unwrap();
    bucket(ctx).remove(&manifest_key(&one)).unwrap();
    let list = serde_json::json!({ "since": jiff::Timestamp::now().to_string(), "by": "bob", "releases": [one.id().as_str()] });
    fs::write(dir.path().join("buckets/builds/shop/pending_deletion.json"), list.to_string()).unwrap();
    let error = store.put(&one).unwrap_err();
    assert!(error.to_string().contains("bob is removing"), "{error:#}");
    assert!(store.list().unwrap().is_empty(), "no manifest is left without its bundle");
}

#[test]
fn publish_during_prune_fails_and_its_release_is_kept() {
    let (dir, ctx) = setup();
    let (store, one) = (open(ctx, URL), release(dir.path(), 1, &[("a", "1")]));
    store.put(&one).unwrap();
    prune_and(&*store, || {
        let error = open(ctx, URL).publish(one.manifest()).unwrap_err();
        assert_eq!(kind_of(&error), Kind::Locked, "{error:#}");
    });
    assert_eq!(store.latest().unwrap().unwrap().id, *one.id(), "what a pointer names is kept");
}

#[test]
fn prune_that_ends_late_leaves_the_list_of_the_next_prune() {
    let (dir, ctx) = setup();
    let store = open(ctx, URL);
    store.put(&release(dir.path(), 1, &[("a", "1")])).unwrap();
    let list = dir.path().join("buckets/builds/shop/pending_deletion.json");
    let bobs =
        serde_json::json!({ "since": jiff::Timestamp::now().to_string(), "by": "bob", "releases": [] }).to_string();
    prune_and(&*store, || fs::write(&list, &bobs).unwrap());
    assert_eq!(fs::read_to_string(&list).unwrap(), bobs);
    fs::remove_file(&list).unwrap();
    store.put(&release(dir.path(), 2, &[("a", "2")])).unwrap();
    fs::write(&list, "?").unwrap();
    let error = store.prune(NOTHING, &ana(), false, &|| Ok(BTreeMap::new())).unwrap_err();
    assert!(error.to_string().contains("it is not the list of a prune"), "{error:#}");
}

#[test]
fn put_of_listed_release_is_refused_while_the_prune_may_run() {
    let (dir, ctx) = setup();
    let (store, one) = (open(ctx, URL), release(dir.path(), 1, &[("a", "1")]));
    store.put(&one).unwrap();
    let list = dir.path().join("buckets/builds/shop/pending_deletion.json");
    let at = |minutes| (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes)).to_string();
    let write = |since: String, owner: Option<Owner>| {
        let text = serde_json::json!({ "since": since, "by": "bob", "owner": owner, "releases": [one.id().as_str()] });
        fs::write(&list, text.to_string()).unwrap();
    };
    for (since, owner, counts) in [
        (at(0), None, true),
        (at(-29), Some(ana()), true),
        (at(-31), None, false),
        // A clock that is wrong by a day.
        (at(24 * 60), None, false),
        (at(0), Some(dead(&ana())), false),
    ] {
        write(since.clone(), owner);
        assert_eq!(store.put(&one).is_err(), counts, "{since}");
    }
}

#[test]
fn get_of_manifest_without_bundle_fails_until_a_put_repairs_it() {
    let (dir, ctx) = setup();
    let (store, one) = (open(ctx, URL), release(dir.path(), 1, &[("a", "1")]));
    store.put(&one).unwrap();
    for object in bucket(ctx).list("releases").unwrap().iter().filter(|it| it.key.ends_with(".tar.gz")) {
        bucket(ctx).remove(&object.key).unwrap();
    }
    let error = store.get(one.id(), &dir.path().join("got")).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Verification, "{error:#}");
    assert!(error.to_string().contains("its bundle is missing"), "{error:#}");
    assert_eq!(store.put(&one).unwrap(), Put::AlreadyThere, "and a put repairs it");
    store.get(one.id(), &dir.path().join("got")).unwrap();
}

#[test]
fn signed_url_ignores_variables_that_name_another_bucket() {
    let dir = crate::record::tempdir();
    for extra in ["AWS_BUCKET_NAME", "AWS_BUCKET", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_STS", "NONE"] {
        let vars = [
            ("AWS_ACCESS_KEY_ID", "AKIAAAAAAAAA"),
            ("AWS_SECRET_ACCESS_KEY", "abcdefghijkl"),
            (extra, "someone-elses"),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let ctx = leaked(with(dir.path(), &vars));
        let url = bucket(ctx).signed_url("x", Duration::from_secs(60)).unwrap();
        let at = format!("{}{}", url.host_str().unwrap(), url.path());
        assert_eq!(at, "s3.us-east-1.amazonaws.com/builds/shop/x", "{extra}");
    }
}

/// A lock that another run takes over first, and dies; or whose answer to a takeover is lost.
struct Racy<'a> {
    inner: &'a dyn Lockable,
    other: Option<Owner>,
    loses_answers: bool,
    calls: Cell<u32>,
}

impl Lockable for Racy<'_> {
    fn url(&self) -> &str {
        self.inner.url()
    }
    fn holder(&self) -> Result<Lock> {
        self.inner.holder()
    }
    fn lock(&self, owner: &Owner) -> Result<Lock> {
        let lock = self.inner.lock(owner)?;
        if self.loses_answers { failed("no answer in time").err() } else { Ok(lock) }
    }
    fn take_over(&self, owner: &Owner, seen: &Owner, gone: &Owner) -> Result<Lock> {
        if let (0, Some(other)) = (self.calls.replace(self.calls.get() + 1), &self.other) {
            assert_eq!(self.inner.take_over(other, seen, gone)?, Lock::Free);
        }
        assert!(self.calls.get() < 20, "it is tried for ever");
        self.inner.take_over(owner, seen, gone)
    }
    fn unlock(&self, token: Option<&str>) -> Result<()> {
        self.inner.unlock(token)
    }
}

fn take(ctx: &'static Context, racy: Racy) -> Result<()> {
    let (places, registry) = ([Box::new(racy) as Box<dyn Lockable>], LivenessChecker::new(ctx, None));
    Locks::take(&registry, &places, &[], &machine::owner(ctx, "mine"), Duration::ZERO).map(drop)
}

#[test]
fn lock_whose_second_owner_died_too_is_taken_over() {
    let (_dir, ctx) = setup();
    let (store, host) = (open(ctx, URL), Tool::bare(ctx, &crate::parts::PROJECT).target("file:srv/x").unwrap());
    let of_store = store.lock_of("prod").unwrap();
    for inner in [&*of_store, &*host] {
        let calls = Cell::new(0);
        inner.lock(&dead(&machine::owner(ctx, "killed"))).unwrap();
        let other = Some(dead(&machine::owner(ctx, "killed too")));
        take(ctx, Racy { inner, other, loses_answers: false, calls }).unwrap();
        assert_eq!(inner.holder().unwrap(), Lock::Free, "taken, and given back");
    }
}

#[test]
fn lock_whose_answer_was_lost_is_given_back() {
    let (_dir, ctx) = setup();
    let store = open(ctx, URL);
    let inner = store.lock_of("prod").unwrap();
    take(ctx, Racy { inner: &*inner, other: None, loses_answers: true, calls: Cell::new(0) }).unwrap();
    assert_eq!(inner.holder().unwrap(), Lock::Free);
}

#[test]
fn rollback_with_old_lock_left_in_bucket_goes_back_once_more() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    for n in ["1", "2", "3"] {
        let id = p.release(n);
        p.run(&format!("put {id}")).ok();
        p.run(&format!("deploy dev {id}")).ok();
    }
    let since = jiff::Timestamp::now();
    p.run("rollback dev").ok();
    // It was over, but its lock in the bucket could not be given back.
    let ctx = crate::parts::ctx(p.path("").as_path());
    let owner = dead(&Owner { since, ..machine::owner(&ctx, "rollback of dev") });
    fs::write(dir.path().join("builds/shop/locks/shop/dev.json"), serde_json::to_vec(&owner).unwrap()).unwrap();
    p.run("rollback dev").ok();
    assert_eq!(p.live("srv/dev"), "1", "two rollbacks go back two");
}

const PRUNE: &str = "prune --store s3://builds/shop --days 0 --keep 0 --yes";

fn stored(dir: &Path, id: &str) -> bool {
    fs::read_dir(dir.join("builds/shop/releases"))
        .into_iter()
        .flatten()
        .flatten()
        .any(|commit| commit.path().join(id).join("manifest.json").exists())
}

#[test]
fn prune_of_bucket_keeps_releases_that_may_be_live_elsewhere() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    let one = p.release("1");
    p.run("put").ok();
    // Nothing is deployed here and nothing recorded, so another machine may run it.
    p.run(PRUNE).fails(1, "cannot determine what dev runs", "after a deploy to dev");
    fs::create_dir_all(p.path("srv/prod")).unwrap();
    p.run("deploy dev").ok();
    let live = dir.path().join("builds/shop/live/shop");
    fs::remove_dir_all(&live).unwrap();
    fs::rename(p.path("srv/dev"), p.path("elsewhere")).unwrap();
    p.run(PRUNE).fails(1, "cannot determine what dev runs", "nothing was removed");
    assert!(stored(dir.path(), &one));
    // An env of another branch, which this checkout does not have.
    fs::rename(p.path("elsewhere"), p.path("srv/dev")).unwrap();
    p.run("deploy dev").ok();
    fs::rename(live.join("dev.jsonl"), live.join("review-7.jsonl")).unwrap();
    fs::remove_dir_all(p.path("srv/dev")).unwrap();
    fs::create_dir_all(p.path("srv/dev")).unwrap();
    p.run(PRUNE).ok().stdout_has(&format!("keep    {one}  needed by review-7"));
    fs::write(live.join("review-7.jsonl"), "?\n").unwrap();
    p.run(PRUNE).fails(7, "review-7.jsonl: 1 line(s) are not valid records", "fix or remove");
    assert!(stored(dir.path(), &one));
}

#[test]
fn prune_keeps_releases_of_other_apps() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    let one = p.release("1");
    p.run("put").ok();
    let mut q = Project::new();
    q.change("store file:store\n", "store s3://other/app\n");
    q.var("GANGPLANK_BUCKETS", &dir.path().display().to_string());
    q.run(PRUNE).fails(2, "is not a store of this project", "s3://other/app");
    q.change("store s3://other/app\n", "app blog\nstore s3://builds/shop\n");
    for env in ["dev", "prod"] {
        fs::create_dir_all(q.path(&format!("srv/{env}"))).unwrap();
    }
    q.run(PRUNE).ok().stdout_has("it belongs to another app, shop");
    assert!(stored(dir.path(), &one));
}

#[test]
fn deploy_without_credentials_of_bucket_warns() {
    let dir = crate::record::tempdir();
    let mut p = project_in(dir.path());
    p.release("1");
    p.var("GANGPLANK_BUCKETS", "");
    p.run("deploy dev").ok().stderr_has("so it gets no record of what is live");
    p.run("lock dev").ok().stderr_has("its lock is not taken");
}
