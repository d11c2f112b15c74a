//! Deploys of one env from several places: one at a time by the bucket's lock, whose owner CircleCI knows of, and never
//! backwards by what the bucket was told.

use crate::account::{Account, vars};
use crate::bucket::server::{Fate, Proxy, ceph, fresh_url, with};
use crate::bucket::{WRITERS, leaked, open, project, project_in};
use crate::parts::dead;
use crate::project::Project;
use gangplank_loopback::JobStatus;
use gangplank_model::owner::Owner;
use gangplank_model::release::manifest::CiJob;
use gangplank_model::state::Lock;
use gangplank_system::machine;
use std::fs;
use std::path::Path;
use std::sync::Barrier;

#[test]
#[ignore = "group bucket"]
fn lock_free_or_of_dead_owner_goes_to_one_of_many() {
    let Some(ceph) = ceph() else { return };
    let dir = crate::record::tempdir();
    let (ctx, url) = (leaked(with(dir.path(), &ceph.vars())), fresh_url());
    let store = open(ctx, &url);
    let lock = store.lock_of("prod").unwrap();
    for round in 0..10 {
        let gone = dead(&machine::owner(ctx, "killed"));
        for of_dead in [false, true] {
            if of_dead {
                assert_eq!(lock.lock(&gone).unwrap(), Lock::Free);
            }
            let (start, gone) = (Barrier::new(WRITERS), &gone);
            let winners: Vec<Owner> = std::thread::scope(|scope| {
                let (start, url) = (&start, &url);
                let each = (0..WRITERS).map(|n| {
                    scope.spawn(move || {
                        let (store, me) = (open(ctx, url), machine::owner(ctx, format!("deploy {n}")));
                        let lock = store.lock_of("prod").unwrap();
                        start.wait();
                        let got = if of_dead { lock.take_over(&me, gone, gone) } else { lock.lock(&me) };
                        match got.unwrap() {
                            Lock::Free => Some(me),
                            Lock::Held(_) => None,
                            Lock::Unreadable(text) => panic!("{text}"),
                        }
                    })
                });
                let all: Vec<_> = each.collect();
                all.into_iter().filter_map(|it| it.join().unwrap()).collect()
            });
            let [winner] = winners.as_slice() else { panic!("round {round}: {winners:?}") };
            assert_eq!(lock.holder().unwrap(), Lock::Held(Box::new(winner.clone())));
            lock.unlock(Some("not-mine")).unwrap();
            assert!(matches!(lock.holder().unwrap(), Lock::Held(_)), "only the owner's token opens");
            lock.unlock(Some(&winner.token)).unwrap();
            assert_eq!(lock.holder().unwrap(), Lock::Free);
        }
    }
}

/// A lock in a directory of buckets, held by a job that runs somewhere else.
fn held(buckets: &Path, p: &Project, account: &Account) -> (String, u64, String) {
    let pipeline = {
        let mut state = account.server.state();
        let now = state.now();
        state.push("main", &p.git(&["rev-parse", "HEAD"]), now)
    };
    let (workflow, job, id) = account.start(&pipeline, "deploy-dev");
    let ci = CiJob {
        job,
        url: Some(format!("https://circleci.com/gh/acme/shop/{job}")),
        workflow: Some(workflow.clone()),
        pipeline: None,
    };
    let ctx = crate::parts::ctx(p.path("").as_path());
    let owner =
        Owner { machine: "elsewhere".into(), by: "bob".into(), ci: Some(ci), ..machine::owner(&ctx, "deploy of his") };
    let path = buckets.join("builds/shop/locks/shop/dev.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_vec(&owner).unwrap()).unwrap();
    (workflow, job, id)
}

#[test]
fn lock_of_ended_job_is_taken_over() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    p.release("1");
    p.run("put").ok();
    let account = Account::new(&p);
    // Long ago on the server, so that the last command of a job that ends now is over.
    account.days_ago(1);
    let (workflow, job, id) = held(dir.path(), &p, &account);
    let laptop = account.laptop();
    let hint = "cargo xtask unlock dev --force";
    p.run_with("deploy dev", &laptop).fails(6, &format!("acme/shop/{job})"), hint);
    assert!(!p.path("srv/dev").exists(), "the hosts were not asked");
    p.run_with("lock dev", &laptop).ok().stdout_has("locks/shop/dev.json").stdout_has("bob since");
    p.run_with("unlock dev", &laptop).fails(6, "which may still run", "--force");
    account.end(&workflow, &id, JobStatus::Canceled);
    // Without a token the job's status is unknown.
    p.run("deploy dev").fails(6, "is locked by bob", hint);
    p.run_with("lock dev", &laptop).ok().stdout_has(&format!("CircleCI says that job {job} has ended"));
    p.run_with("deploy dev", &laptop).ok().stderr_has(&format!("CircleCI says that job {job} has ended"));
    assert_eq!(p.live("srv/dev"), "1");
    assert_eq!(fs::read_to_string(dir.path().join("builds/shop/locks/shop/dev.json")).unwrap(), "{}", "given back");
    // An API that does not answer is no reason to break a lock.
    held(dir.path(), &p, &account);
    let nowhere = vars(&[
        ("CIRCLE_HOST", "http://127.0.0.1:1"),
        ("CIRCLE_TOKEN", "x"),
        ("CIRCLE_PROJECT_SLUG", "gh/acme/shop"),
        ("GANGPLANK_API_DEADLINE", "1"),
    ]);
    p.run_with("deploy dev", &nowhere).fails(6, "is locked by bob", hint).stderr_has("does not say whether job");
    p.run_with("unlock dev --force", &nowhere).ok();
    p.run("deploy dev").ok();
}

#[test]
fn lock_of_killed_deploy_on_this_machine_is_taken_over() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    p.release("1");
    p.run("put").ok();
    let ctx = crate::parts::ctx(p.path("").as_path());
    let path = dir.path().join("builds/shop/locks/shop/dev.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, serde_json::to_vec(&dead(&machine::owner(&ctx, "deploy"))).unwrap()).unwrap();
    p.run("deploy dev").ok().stderr_has("taking over the lock");
    // An unreadable lock has no owner, and only --force removes it.
    fs::write(&path, "?").unwrap();
    p.run("deploy dev").fails(6, "unknown owner", "--force");
    p.run("unlock dev --force").ok();
    p.run("deploy dev").ok();
}

#[test]
#[ignore = "group bucket"]
fn deploy_where_bucket_refuses_locks_warns_and_goes_on() {
    let Some(ceph) = ceph() else { return };
    let denied = "<Error><Code>AccessDenied</Code></Error>";
    let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{denied}", denied.len());
    let proxy = Proxy::new(
        &ceph.url(),
        Box::new(move |_, line| if line.contains("/locks/") { Fate::Answer(answer.clone()) } else { Fate::Forward }),
    );
    let p = project(&fresh_url(), &proxy.url());
    p.release("1");
    p.run("put").ok();
    p.run("deploy dev").ok().stderr_has("deploying without the lock of s3://");
    p.run("lock dev").ok().stdout_has("unknown owner: cannot read s3://");
    assert_eq!(p.live("srv/dev"), "1");
}

#[test]
fn deploy_of_older_release_to_emptied_host_is_refused() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    let (one, two) = (p.release("1"), p.release("2"));
    for id in [&one, &two] {
        p.run(&format!("put {id}")).ok();
    }
    p.run("deploy dev").ok();
    fs::remove_dir_all(p.path("srv/dev")).unwrap();
    p.run(&format!("deploy dev {one}")).fails(8, &format!("{one} is older than {two}"), &format!("deploy dev {two}"));
    assert!(!p.path("srv/dev/releases").exists(), "nothing was installed");
    p.run(&format!("deploy dev {one} --allow-older")).ok();
    assert_eq!(p.live("srv/dev"), "1");
}
