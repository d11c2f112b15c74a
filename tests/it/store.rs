//! What every store promises, run by each of them.

pub mod apps;
pub mod artifacts;
#[cfg(feature = "s3")]
pub mod azure;
pub mod forged;
pub mod launch;
pub mod lease;
pub mod pointer;

use crate::account::Account;
use crate::parts::{ctx, release};
use gangplank_bundle::release::Release;
use gangplank_deploy::store::{Put, Store};
use gangplank_deploy::tool::Tool;
use gangplank_loopback::JobStatus;
use gangplank_model::error::{Kind, kind_of};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::{Head, Manifest};
use gangplank_system::context::Context;
use std::fs;
use std::path::{Path, PathBuf};

/// The contract: `open` opens the same, empty store each time.
pub fn contract(dir: &Path, open: &dyn Fn() -> Box<dyn Store>) {
    let (one, two) = (release(dir, 1, &[("a", "1"), ("b/c", "x")]), release(dir, 2, &[("a", "2")]));
    let into = dir.join("fetched");
    assert_eq!(open().list().unwrap(), []);
    let absent = open().get(one.id(), &into).unwrap_err();
    assert_eq!(kind_of(&absent), Kind::NotFound);

    assert_eq!(open().put(&one).unwrap(), Put::Stored);
    assert_eq!(open().put(&one).unwrap(), Put::AlreadyThere, "the same bytes again are a success");
    assert_eq!(open().put(&two).unwrap(), Put::Stored);
    let ids: Vec<_> = open().list().unwrap().into_iter().map(|manifest| manifest.id).collect();
    assert_eq!(ids, [two.id().clone(), one.id().clone()], "the newest first");
    let newest = |most| open().newest(most).unwrap();
    assert_eq!(newest(0), []);
    assert_eq!(newest(1), [Head::from(two.manifest().clone())]);
    assert_eq!(newest(9), [&two, &one].map(|it| Head::from(it.manifest().clone())));

    let got = open().get(one.id(), &into).unwrap();
    assert_eq!(got.manifest(), one.manifest());
    assert_eq!(fs::read(got.bundle()).unwrap(), fs::read(one.bundle()).unwrap());
    open().get(one.id(), &into).expect("again, over the first copy");
    let leftovers =
        fs::read_dir(&into).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    assert_eq!(leftovers.count(), 0);

    let other = dir.join("other");
    fs::create_dir(&other).unwrap();
    let impostor = release(&other, 1, &[("a", "1"), ("b/c", "y")]);
    let error = open().put(&impostor).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Verification);
    assert!(error.to_string().contains("`b/c` differs"), "{error}");
    assert_eq!(open().get(one.id(), &into).unwrap().manifest(), one.manifest(), "the first one stays");
}

/// Many writers, one id: one content wins, and no reader sees half of it.
pub fn race(dir: &Path, open: &(dyn Fn() -> Box<dyn Store> + Sync)) {
    let contenders: Vec<Release> = (0..8)
        .map(|n| {
            let own = dir.join(format!("contender-{n}"));
            fs::create_dir(&own).unwrap();
            release(&own, 3, &[("a", if n % 2 == 0 { "even" } else { "odd" })])
        })
        .collect();
    let stored = std::thread::scope(|scope| {
        let puts: Vec<_> = contenders.iter().map(|release| scope.spawn(move || open().put(release))).collect();
        puts.into_iter().map(|put| put.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(stored.iter().filter(|put| matches!(put, Ok(Put::Stored))).count(), 1, "{stored:?}");
    let winner = open().get(contenders[0].id(), &dir.join("raced")).unwrap();
    for (release, put) in contenders.iter().zip(stored) {
        match put {
            Ok(_) => assert_eq!(release.manifest().bundle, winner.manifest().bundle),
            Err(error) => assert_eq!(kind_of(&error), Kind::Verification, "{error:#}"),
        }
    }
}

fn with(url: &str, vars: impl Fn(&Path) -> Context + Sync) {
    let dir = crate::record::tempdir();
    let open = || -> Box<dyn Store> {
        let ctx: &'static Context = Box::leak(Box::new(vars(dir.path())));
        Tool::bare(ctx, &crate::parts::PROJECT).store(url).unwrap()
    };
    contract(dir.path(), &open);
    race(dir.path(), &open);
}

#[test]
fn store_in_directory_keeps_the_contract() {
    with("file:store/of/releases", ctx);
}

#[test]
fn store_in_workspace_keeps_the_contract() {
    with("circleci:workspace", |dir| {
        let vars = [("GANGPLANK_WORKSPACE".to_owned(), dir.join("ws").display().to_string())];
        Context::new(dir.to_owned(), vars.into(), std::sync::Arc::new(Quiet))
    });
}

/// Artifacts, with CircleCI's part done: what a job has put is stored and the job ends. Each release gets a pipeline of
/// its own, as a push would.
struct Uploaded {
    ctx: &'static Context,
    account: &'static Account,
    workspace: PathBuf,
}

impl Uploaded {
    fn store(&self) -> Box<dyn Store + '_> {
        gangplank_artifacts::open(self.ctx, &crate::parts::PROJECT, "circleci:artifacts").unwrap()
    }
}

impl Store for Uploaded {
    fn url(&self) -> &'static str {
        "circleci:artifacts"
    }

    fn put(&self, release: &Release) -> gangplank_model::error::Result<Put> {
        let put = self.store().put(release)?;
        if put == Put::Stored {
            let manifest = release.manifest();
            let mut state = self.account.server.state();
            let now = state.now();
            let pipeline = state.push("main", &manifest.commit.sha, now);
            state.next_job_number = manifest.ci.as_ref().unwrap().job;
            drop(state);
            let (workflow, number, job) = self.account.start(&pipeline, "build");
            let dir = self.workspace.join("releases").join(release.id().as_str());
            self.account.store(number, &dir, &format!("releases/{}", release.id()));
            self.account.end(&workflow, &job, JobStatus::Success);
        }
        Ok(put)
    }

    fn get(&self, id: &ReleaseId, into: &Path) -> gangplank_model::error::Result<Release> {
        self.store().get(id, into)
    }

    fn list(&self) -> gangplank_model::error::Result<Vec<Manifest>> {
        self.store().list()
    }
}

#[test]
fn store_in_artifacts_keeps_the_contract() {
    let p = crate::account::project();
    let account: &'static Account = Box::leak(Box::new(Account::new(&p)));
    let dir = crate::record::tempdir();
    let workspace = dir.path().join("ws");
    let vars = account.with_token(12, "main", "c0ffee").into_iter().chain([
        ("GANGPLANK_WORKSPACE".to_owned(), workspace.display().to_string()),
        ("PATH".to_owned(), std::env::var("PATH").unwrap()),
    ]);
    let ctx: &'static Context =
        Box::leak(Box::new(Context::new(dir.path().to_owned(), vars.collect(), std::sync::Arc::new(Quiet))));
    let open = || -> Box<dyn Store> { Box::new(Uploaded { ctx, account, workspace: workspace.clone() }) };
    contract(dir.path(), &open);
}

struct Quiet;

impl gangplank_model::event::Sink for Quiet {
    fn emit(&self, _: &gangplank_model::event::Event) {}
}

#[test]
fn get_of_damaged_release_fails_and_writes_nothing() {
    let dir = crate::record::tempdir();
    let ctx = ctx(dir.path());
    let one = release(dir.path(), 1, &[("a", "1")]);
    let store = Tool::bare(&ctx, &crate::parts::PROJECT).store("file:store").unwrap();
    store.put(&one).unwrap();
    let bundle = dir.path().join("store").join(one.id().as_str()).join(&one.manifest().bundle.file);
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let error = store.get(one.id(), &dir.path().join("fetched")).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Verification);
    assert!(error.to_string().contains(&bundle.display().to_string()), "it names the store's file: {error}");
    assert!(!dir.path().join("fetched").join(one.id().as_str()).exists());
}
