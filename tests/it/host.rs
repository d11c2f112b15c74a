//! What every target promises, run by each of them.

pub mod control;
pub mod full;
pub mod logins;
pub mod power;
pub mod service;
pub mod setup;
pub mod take_over;
pub mod vm;

use crate::parts::{ctx, dead, record, release};
use gangplank_bundle::delta::Changes;
use gangplank_bundle::release::Release;
use gangplank_deploy::host::directory::HostTarget;
use gangplank_deploy::host::{Delivery, Target};
use gangplank_deploy::tool::Tool;
use gangplank_model::owner::Owner;
use gangplank_model::service::run::Script;
use gangplank_model::state::{Current, Lock, Root};
use gangplank_system::context::Context;
use gangplank_system::machine;
use std::path::Path;

/// The contract, on a target that does not exist yet and gets its releases by `deliver`.
pub fn contract(ctx: &Context, dir: &Path, target: &dyn Target, deliver: &dyn Fn(&Release) -> Delivery<'_>) {
    let releases = [1, 2, 3].map(|n| release(dir, n, &[("a b/c'd", &n.to_string()), ("x", "y")]));
    let [one, two, three] = &releases;
    assert_eq!(target.state().unwrap().root, Root::Absent, "looking changes nothing");

    let me = machine::owner(ctx, "deploy");
    assert_eq!(target.lock(&me).unwrap(), Lock::Free);
    let held = Lock::Held(Box::new(me.clone()));
    assert_eq!(target.lock(&machine::owner(ctx, "another")).unwrap(), held);
    assert_eq!(target.state().unwrap().lock, held);
    target.unlock(Some("not-mine")).unwrap();
    assert_eq!(target.state().unwrap().lock, held, "only the owner's token opens");

    target.install(&deliver(one), &record()).unwrap();
    target.install(&deliver(one), &record()).expect("again");
    let state = target.state().unwrap();
    assert_eq!(
        (state.current.clone(), state.installed.len(), state.debris),
        (Current::None, 1, 0),
        "installed is not live"
    );
    assert_eq!(state.installed[one.id()], one.manifest().bundle.sha256);
    assert_eq!(state.history.records.len(), 1, "the second install did nothing");
    assert_eq!(target.manifest(one.id()).unwrap(), *one.manifest());
    assert_eq!(target.verify(one.id()).unwrap(), Vec::<String>::new());

    target.activate(Some(two.id()), None).expect_err("not installed");
    assert_eq!(target.state().unwrap().live(), None);
    target.activate(Some(one.id()), Some(&record())).unwrap();
    target.install(&deliver(two), &record()).unwrap();
    assert_eq!(target.state().unwrap().live(), Some(one.id()));
    for _ in 0..2 {
        target.activate(Some(two.id()), Some(&record())).unwrap();
        assert_eq!(target.state().unwrap().live(), Some(two.id()));
    }
    let read = Script::new(
        format!("cat {}", gangplank_model::shell::quote(&format!("{}/current/a b/c'd", target.root()))),
        String::new(),
    );
    assert_eq!(target.run(&read).unwrap().stdout, "2");

    target.install(&deliver(three), &record()).unwrap();
    target.remove(&[one.id().clone(), two.id().clone()], &record()).unwrap();
    let state = target.state().unwrap();
    assert_eq!(state.installed.keys().collect::<Vec<_>>(), [two.id(), three.id()], "the live one is never removed");
    target.remove(&[one.id().clone()], &record()).expect("it is gone already");

    let damage = Script::new(
        format!("echo z > {}/releases/{}/x", gangplank_model::shell::quote(target.root()), three.id()),
        String::new(),
    );
    target.run(&damage).unwrap();
    assert_eq!(target.verify(three.id()).unwrap(), ["x: FAILED"]);

    target.activate(None, Some(&record())).unwrap();
    assert_eq!(target.state().unwrap().current, Current::None);
    target.unlock(Some(&me.token)).unwrap();
    assert_eq!(target.state().unwrap().lock, Lock::Free);
    locks(ctx, target, &|owners| successor_died(ctx, target, owners));
    last_words(ctx, target);
}

/// Many competitors for a lock, free or of a dead owner: exactly one gets it.
pub fn locks(ctx: &Context, target: &dyn Target, after_each: &dyn Fn(&[Owner])) {
    let owners: Vec<_> = (0..8).map(|n| machine::owner(ctx, format!("deploy {n}"))).collect();
    let wins = |got: Vec<Lock>| got.iter().filter(|lock| **lock == Lock::Free).count();
    for round in 0..5 {
        let got = std::thread::scope(|scope| {
            let tries: Vec<_> = owners.iter().map(|owner| scope.spawn(|| target.lock(owner).unwrap())).collect();
            tries.into_iter().map(|lock| lock.join().unwrap()).collect()
        });
        assert_eq!(wins(got), 1, "round {round}");
        target.unlock(None).unwrap();

        let gone = dead(&machine::owner(ctx, "killed"));
        target.lock(&gone).unwrap();
        let got = std::thread::scope(|scope| {
            let tries: Vec<_> =
                owners.iter().map(|owner| scope.spawn(|| target.take_over(owner, &gone, &gone).unwrap())).collect();
            tries.into_iter().map(|lock| lock.join().unwrap()).collect()
        });
        assert_eq!(wins(got), 1, "taking over, round {round}");
        let Lock::Held(winner) = target.state().unwrap().lock else { panic!("the lock is free") };
        assert!(owners.contains(&winner));
        target.unlock(None).unwrap();
        after_each(&owners);
    }
}

/// The last script of a dead owner still runs on the host: no takeover before it has ended.
fn last_words(ctx: &Context, target: &dyn Target) {
    let (gone, me) = (dead(&machine::owner(ctx, "killed")), machine::owner(ctx, "next"));
    target.lock(&gone).unwrap();
    let mark = gangplank_model::owner::mark(&gone.token);
    let run = |text: String| assert!(target.run(&Script::new(text, String::new())).unwrap().ok());
    // It runs until it is told to end, or a time limit.
    let busy = format!("{}/busy", gangplank_model::shell::quote(target.root()));
    let work = "n=0; while [ -e \"$1\" ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done";
    let mark = gangplank_model::shell::quote(&mark);
    run(format!("touch {busy}; sh -c '{work}' {mark} {busy} > /dev/null 2>&1 < /dev/null &"));
    let seen = Lock::Held(Box::new(gone.clone()));
    assert_eq!(target.take_over(&me, &gone, &gone).unwrap(), seen, "it may still restart something");
    run(format!("rm {busy}"));
    let started = std::time::Instant::now();
    while target.take_over(&me, &gone, &gone).unwrap() != Lock::Free {
        assert!(started.elapsed() < std::time::Duration::from_secs(30));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    target.unlock(Some(&me.token)).unwrap();
}

/// One died with the lock, and the next while it took over: it had made its mark and not yet replaced the lock.
fn successor_died(ctx: &Context, target: &dyn Target, owners: &[Owner]) {
    let (first, second) = (dead(&machine::owner(ctx, "killed")), dead(&machine::owner(ctx, "killed too")));
    target.lock(&first).unwrap();
    let mark = format!("cat > {}/.lock.after.{}", gangplank_model::shell::quote(target.root()), first.token);
    let json = serde_json::to_string(&second).unwrap();
    assert!(target.run(&Script::new(mark, json)).unwrap().ok());
    assert_eq!(target.take_over(&owners[0], &first, &first).unwrap(), Lock::Held(Box::new(second.clone())));
    assert_eq!(target.take_over(&owners[0], &first, &second).unwrap(), Lock::Free);
    assert_eq!(target.state().unwrap().lock, Lock::Held(Box::new(owners[0].clone())));
    target.unlock(Some(&owners[0].token)).unwrap();
}

#[test]
fn empty_lock_whose_successor_died_is_taken_over() {
    let dir = crate::record::tempdir();
    let ctx = ctx(dir.path());
    let target = Tool::bare(&ctx, &crate::parts::PROJECT).target("file:srv").unwrap();
    let (me, gone) = (machine::owner(&ctx, "next"), dead(&machine::owner(&ctx, "killed")));
    target.lock(&me).unwrap();
    target.unlock(Some(&me.token)).unwrap();
    for left in [&b""[..], b"\0\0\0"] {
        std::fs::write(dir.path().join("srv/.lock"), left).unwrap();
        // It had made its mark and not yet replaced the lock.
        std::fs::write(dir.path().join("srv/.lock.after.empty"), serde_json::to_string(&gone).unwrap()).unwrap();
        assert_eq!(target.lock(&me).unwrap(), Lock::Held(Box::new(gone.clone())));
        assert_eq!(target.take_over(&me, &gone, &gone).unwrap(), Lock::Free);
        assert_eq!(target.state().unwrap().lock, Lock::Held(Box::new(me.clone())));
        assert!(!dir.path().join("srv/.lock.after.empty").exists());
        target.unlock(Some(&me.token)).unwrap();
        std::fs::write(dir.path().join("srv/.lock"), left).unwrap();
        assert_eq!(target.lock(&me).unwrap(), Lock::Free);
        target.unlock(Some(&me.token)).unwrap();
    }
}

#[test]
fn lock_that_is_a_link_to_nothing_is_held_until_it_is_released() {
    let dir = crate::record::tempdir();
    let ctx = ctx(dir.path());
    let target = Tool::bare(&ctx, &crate::parts::PROJECT).target("file:srv").unwrap();
    let me = machine::owner(&ctx, "next");
    std::fs::create_dir(dir.path().join("srv")).unwrap();
    std::os::unix::fs::symlink("../outside", dir.path().join("srv/.lock")).unwrap();
    let held = Lock::Unreadable("a link to nothing".into());
    assert_eq!(target.lock(&me).unwrap(), held);
    assert_eq!(target.state().unwrap().lock, held);
    target.unlock(None).unwrap();
    assert_eq!(target.lock(&me).unwrap(), Lock::Free);
    assert!(!dir.path().join("outside").exists());
}

#[test]
fn history_that_is_a_link_out_of_the_root_is_copied_and_not_written_through() {
    let dir = crate::record::tempdir();
    let ctx = ctx(dir.path());
    let target = Tool::bare(&ctx, &crate::parts::PROJECT).target("file:srv").unwrap();
    target.lock(&machine::owner(&ctx, "deploy")).unwrap();
    target.record(&record()).unwrap();
    let (history, outside) = (dir.path().join("srv/history.jsonl"), dir.path().join("outside"));
    std::fs::rename(&history, &outside).unwrap();
    std::os::unix::fs::symlink("../outside", &history).unwrap();
    target.record(&record()).unwrap();
    assert!(!history.is_symlink());
    assert_eq!(target.state().unwrap().history.records.len(), 2);
    assert_eq!(std::fs::read_to_string(outside).unwrap().lines().count(), 1);
}

#[test]
fn target_in_directory_keeps_the_contract() {
    let dir = crate::record::tempdir();
    let ctx = ctx(dir.path());
    let changes: &Changes = Box::leak(Box::default());
    contract(
        &ctx,
        dir.path(),
        &*Tool::bare(&ctx, &crate::parts::PROJECT).target("file:srv/with space/it's").unwrap(),
        &|release| Delivery::Push(release, changes),
    );
}

#[test]
fn target_behind_another_program_keeps_the_contract() {
    let dir = crate::record::tempdir();
    let ctx = ctx(dir.path());
    let changes: &Changes = Box::leak(Box::default());
    // `env` runs the words after it, as `docker exec -i NAME` does.
    let root = dir.path().join("srv/with space/it's");
    let target = HostTarget::through(&ctx, "env:here", "here", root.to_str().unwrap(), &["env"]);
    contract(&ctx, dir.path(), &target, &|release| Delivery::Push(release, changes));
}

#[test]
fn install_of_bundle_changed_after_verification_is_refused() {
    let dir = crate::record::tempdir();
    let ctx = ctx(dir.path());
    let target = Tool::bare(&ctx, &crate::parts::PROJECT).target("file:srv").unwrap();
    let one = release(dir.path(), 1, &[("a", "1")]);
    // It verified when it was opened, and changes before it is sent.
    let other = release(dir.path(), 2, &[("a", "2")]);
    std::fs::copy(other.bundle(), one.bundle()).unwrap();
    let error = target.install(&Delivery::Push(&one, &Changes::default()), &record()).unwrap_err();
    assert_eq!(gangplank_model::error::kind_of(&error), gangplank_model::error::Kind::Verification);
    assert!(error.to_string().contains("it changed after verification"), "{error}");
    let state = target.state().unwrap();
    assert_eq!((state.installed.len(), state.debris), (0, 0));
}
