//! `LATEST_BUILD_NUM`: who may change it, that it never goes backwards, and that readers verify it.

use crate::account::{Account, Built, SLUG, project};
use crate::project::{Project, eventually};
use gangplank_loopback::{JobStatus, Variable};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

fn three(p: &Project, account: &Account) -> [Built; 3] {
    let one = account.build(p, "main");
    p.commit("2");
    let two = account.build(p, "main");
    p.commit("3");
    [one, two, account.build(p, "main")]
}

fn set(account: &Account, value: &str) {
    let mut state = account.server.state();
    let created_at = state.now();
    state.envvars.insert("LATEST_BUILD_NUM".into(), Variable { value: value.into(), created_at });
}

#[test]
fn publish_of_three_builds_in_any_order_names_the_newest() {
    let p = project();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let account = Account::new(&p);
        let builds = three(&p, &account);
        for n in order {
            account.publish(&p, &builds[n], "main").ok();
            // All three had been built by then, so the newest is named at once.
            assert_eq!(account.pointer().unwrap(), builds[2].job.to_string(), "{order:?}");
        }
        // A commit as selector gets that commit, whatever the pointer.
        for built in &builds {
            let job = account.other_workflow(90, "main", &builds[2].sha);
            let got = p.run_with(&format!("fetch {} --into target/it", built.sha), &job).ok();
            assert!(got.stdout.trim().ends_with(&built.id));
        }
        let job = account.other_workflow(91, "main", &builds[0].sha);
        let got = p.run_with("fetch latest --into target/it", &job).ok();
        assert!(got.stdout.trim().ends_with(&builds[2].id));
    }
}

#[test]
fn pointer_follows_builds_and_stays_when_an_old_one_is_rerun() {
    let p = project();
    let account = Account::new(&p);
    let one = account.build(&p, "main");
    account
        .publish(&p, &one, "main")
        .ok()
        .stdout_is(&format!("circleci:artifacts: LATEST_BUILD_NUM names job {}, {}\n", one.job, one.id));
    account.publish(&p, &one, "main").ok().stdout_has("names already");
    p.commit("2");
    let two = account.build(&p, "main");
    account.publish(&p, &two, "main").ok();
    assert_eq!(account.pointer().unwrap(), two.job.to_string());
    // The old pipeline once more: a new job with a higher number and the old commit.
    p.git(&["checkout", "--quiet", &one.sha]);
    let again = account.build_in(&p, &one.pipeline, "main", &one.sha);
    assert!(again.job > two.job);
    account
        .publish(&p, &again, "main")
        .ok()
        .stdout_has(&format!("job {}", two.job))
        .stdout_has("has already built a newer commit");
    assert_eq!(account.pointer().unwrap(), two.job.to_string());
}

#[test]
fn publish_of_older_build_that_writes_last_restores_the_pointer() {
    let p = project();
    let (held, go, older) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(String::new())));
    let (told, free, of) = (held.clone(), go.clone(), older.clone());
    let account = Account::open(
        &p,
        SLUG,
        Box::new(move |request| {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let of = of.lock().unwrap().clone();
            if request.method == "POST" && !of.is_empty() && body.contains(&of) {
                told.store(true, Ordering::SeqCst);
                eventually("the newer one has published", || free.load(Ordering::SeqCst));
            }
            None
        }),
    );
    let one = account.build(&p, "main");
    *older.lock().unwrap() = format!("\"{}\"", one.job);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| account.publish(&p, &one, "main"));
        eventually("the older one writes", || held.load(Ordering::SeqCst));
        p.commit("2");
        let two = account.build(&p, "main");
        account.publish(&p, &two, "main").ok();
        assert_eq!(account.pointer().unwrap(), two.job.to_string());
        go.store(true, Ordering::SeqCst);
        slow.join().unwrap().ok().stdout_has("has already built a newer commit");
        assert_eq!(account.pointer().unwrap(), two.job.to_string(), "the older one wrote last");
    });
}

#[test]
fn numbers_of_five_digits_are_known_by_their_end() {
    let p = project();
    let account = Account::new(&p);
    account.server.state().next_job_number = 56_789;
    let one = account.build(&p, "main");
    account.publish(&p, &one, "main").ok();
    p.commit("2");
    let two = account.build(&p, "main");
    account.publish(&p, &two, "main").ok();
    assert_eq!(account.pointer().unwrap(), two.job.to_string());
    // The value with the same end that is no build of ours is no newer build.
    set(&account, "46790");
    account.publish(&p, &two, "main").ok();
    assert_eq!(account.pointer().unwrap(), two.job.to_string());
}

#[test]
fn publish_on_branch_without_pointer_writes_nothing() {
    let mut p = project();
    let account = Account::new(&p);
    let side = account.build(&p, "feature/x");
    account
        .publish(&p, &side, "feature/x")
        .ok()
        .stdout_has("nothing was published: only builds of `main` have a pointer");
    assert_eq!(account.pointer(), None);
    // A failed build, and one that is not there.
    let main = account.build(&p, "main");
    let id = account.server.state().job_numbered(main.job).unwrap().id.clone();
    account.end(&main.workflow, &id, JobStatus::Failed);
    account.publish(&p, &main, "main").fails(5, "ended with `failed`", "rerun the workflow");
    assert_eq!(account.pointer(), None);
    // Other names, by branch.
    p.change("handoff artifacts\n", "handoff artifacts\npointer main=NEWEST\npointer next=NEWEST_NEXT\n");
    p.commit("2");
    let next = account.build(&p, "next");
    account.publish(&p, &next, "next").ok().stdout_has("NEWEST_NEXT names job");
    assert!(account.server.state().envvars.contains_key("NEWEST_NEXT"));
}

#[test]
fn fetch_latest_checks_the_job_that_the_pointer_names() {
    let p = project();
    let account = Account::new(&p);
    let one = account.build(&p, "main");
    let side = account.build(&p, "feature/x");
    let (workflow, deploy, id) = account.start(&one.pipeline, "deploy-dev");
    account.end(&workflow, &id, JobStatus::Success);
    let latest = |value: &str| {
        set(&account, value);
        p.run_with("fetch latest --into target/it", &account.other_workflow(90, "main", &one.sha))
    };
    latest(&one.job.to_string()).ok();
    latest(&side.job.to_string()).fails(7, "built feature/x, not main", "name a job that built main");
    latest(&deploy.to_string()).fails(7, "is `deploy-dev`, not `build`", "name the build job");
    latest("4711").fails(5, "LATEST_BUILD_NUM names job 4711, but", "check the number");
    latest("v1.2").fails(2, "LATEST_BUILD_NUM is `v1.2`, which is not a job number", "delete the variable");
    account.server.state().expire_artifacts(one.job);
    latest(&one.job.to_string()).fails(5, "LATEST_BUILD_NUM names job", "store_artifacts");
    // Without a pointer, the newest good build is requested.
    p.commit("2");
    let two = account.build(&p, "main");
    let ran = p.run_with("fetch latest --into target/it", &account.laptop()).ok();
    assert!(ran.stdout.trim().ends_with(&two.id));
}

#[test]
fn publish_whose_write_fails_is_an_error() {
    let p = project();
    let account = Account::open(
        &p,
        SLUG,
        Box::new(|request| {
            let is_write = request.method == "POST" && request.path.ends_with("/envvar");
            is_write.then(|| gangplank_loopback::Reply::message(401, "You must log in first."))
        }),
    );
    let one = account.build(&p, "main");
    account.publish(&p, &one, "main").fails(3, "answered 401: You must log in first.", "new personal API token");
    assert_eq!(account.pointer(), None);
}
