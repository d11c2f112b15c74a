//! Owners of locks on unreachable machines: one that is silent for longer than its lease is taken over from, a working
//! one is not, and one that wakes up too late does nothing more.

use crate::fleet::hosts::Fleet;
use crate::parts::ctx;
use crate::project::{Project, eventually, free_port};
use gangplank_deploy::deploy::lease;
use gangplank_deploy::host::Target;
use gangplank_deploy::host::directory::HostTarget;
use gangplank_deploy::tool::Tool;
use gangplank_model::owner::Owner;
use gangplank_model::script;
use gangplank_model::service::run::Script;
use gangplank_model::state::Lock;
use gangplank_system::machine;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, SystemTime};

/// Makes a lock one that was last renewed so many seconds ago.
fn age(lock: &Path, seconds: u64) {
    let at = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::open(lock).unwrap().set_modified(at).unwrap();
}

fn is_fresh(lock: &Path) -> bool {
    let at = fs::metadata(lock).and_then(|meta| meta.modified()).unwrap();
    SystemTime::now().duration_since(at).unwrap_or_default() < Duration::from_secs(60)
}

/// Moves the owner of a lock to an unknown machine.
fn move_away(lock: &Path) {
    let text = fs::read_to_string(lock).unwrap();
    let mut owner: serde_json::Value = serde_json::from_str(&text).unwrap();
    owner["machine"] = "elsewhere".into();
    owner["by"] = "bob@far".into();
    fs::write(lock, owner.to_string()).unwrap();
}

/// A project whose dev env is locked from elsewhere.
fn locked(lease: &str, ci: &str) -> (Project, PathBuf) {
    let p = Project::new();
    p.release("1");
    let owner = format!(
        r#"{{"token":"t","by":"bob@far","machine":"elsewhere","pid":1,"started":null,"since":"2026-08-01T00:00:00Z","doing":"deploy x to dev","ci":{ci}{lease}}}"#
    );
    p.write("srv/dev/.lock", &owner);
    let lock = p.path("srv/dev/.lock");
    (p, lock)
}

const LEASE: &str = r#","lease":180"#;

#[test]
fn lock_not_renewed_within_its_lease_is_taken_over() {
    let (p, lock) = locked(LEASE, "null");
    p.run("deploy dev").fails(6, "is locked by bob@far since", "unlock dev --force");
    age(&lock, 100);
    p.run("deploy dev").fails(6, "last renewed 10", "its lease expires in ");
    p.run("lock dev").ok().stdout_has("bob@far").stdout_has("last renewed 10");
    p.run("unlock dev").fails(6, "which may still run", "--force");
    age(&lock, 250);
    p.run("lock dev").ok().stdout_has("its lock was not renewed for 4 min, the next deploy takes over");
    p.run("status dev").ok().stdout_has("its lock was not renewed for 4 min");
    p.run("deploy dev")
        .ok()
        .stderr_has("taking over the lock of bob@far")
        .stderr_has("its lock was not renewed for 4 min");
    assert!(!lock.exists());
    assert_eq!(p.live("srv/dev"), "1");
    // While it is waited for, its lease may run out.
    let (p, lock) = locked(LEASE, "null");
    age(&lock, 178);
    p.run("deploy dev --lock-wait 20").ok().stderr_has("its lock was not renewed for 3 min");
}

#[test]
fn lock_without_lease_or_from_the_future_is_not_taken_over() {
    let (p, lock) = locked("", "null");
    age(&lock, 1_000_000);
    p.run("deploy dev").fails(6, "is locked by bob@far", "unlock dev --force");
    assert!(lock.exists());
    // A clock that was set back.
    let (p, lock) = locked(LEASE, "null");
    let file = fs::File::open(&lock).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(100_000)).unwrap();
    p.run("deploy dev").fails(6, "is locked by bob@far", "unlock dev --force");
}

#[test]
fn lock_of_job_past_its_lease_is_taken_over_without_a_token() {
    let ci = r#"{"job":7,"url":null,"workflow":"w","pipeline":null}"#;
    let (p, lock) = locked(LEASE, ci);
    p.run("deploy dev").fails(6, "is locked by bob@far", "--force");
    age(&lock, 250);
    p.run("deploy dev").ok().stderr_has("its lock was not renewed for 4 min");
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn deploy_that_lost_its_lock_changes_nothing_more() {
    let mut p = Project::new();
    let check = format!("tcp 127.0.0.1:{}\npatience 3000|20|1\n", free_port());
    p.release("1");
    p.run("deploy dev").ok();
    p.change("target file:srv/dev\n", &format!("target file:srv/dev\n{check}"));
    let two = p.release("2");
    let first = p.start("deploy dev");
    eventually("it is switched", || p.current("srv/dev").as_ref() == Some(&two));
    signal(&first, "-STOP");
    let lock = p.path("srv/dev/.lock");
    move_away(&lock);
    p.change(&check, "");
    p.release("3");
    p.run("deploy dev").fails(6, "is locked by bob@far", "--force");
    age(&lock, 250);
    p.run("deploy dev").ok().stderr_has("its lock was not renewed for 4 min");
    let history = p.read("srv/dev/history.jsonl");
    signal(&first, "-CONT");
    let output = first.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(9), "{stderr}");
    assert!(stderr.contains("lost the lock, it was removed"), "{stderr}");
    assert_eq!(p.live("srv/dev"), "3", "it put nothing back");
    assert_eq!(p.read("srv/dev/history.jsonl"), history, "and wrote nothing");
}

#[test]
fn deploy_that_works_slowly_renews_its_lock() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nhealthy test -e ../../go\npatience 60000|50|1\n");
    p.release("1");
    let slow = p.start("deploy dev");
    let lock = p.path("srv/dev/.lock");
    eventually("it has the lock", || lock.exists());
    move_away(&lock);
    age(&lock, 250);
    eventually("it renews its lock", || is_fresh(&lock));
    p.run("deploy dev").fails(6, "is locked by bob@far", "--force");
    p.write("srv/dev/go", "");
    let output = slow.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a target does for a lease, here and over ssh.
fn renewals(dir: &Path, target: Box<dyn Target + '_>, root: &Path) {
    let ctx = ctx(dir);
    let lock = root.join(".lock");
    let me = Owner { machine: "elsewhere".into(), ..machine::owner(&ctx, "deploy") };
    assert_eq!(target.lock(&me).unwrap(), Lock::Free);
    let targets = [target];
    let target = &targets[0];
    age(&lock, 500);
    let Lock::Held(seen) = target.holder().unwrap() else { panic!("it is held") };
    assert!((500..530).contains(&seen.seconds_since_renewal.unwrap()), "{seen:?}");
    // A script of it runs: no takeover, however old the lock is.
    let other = machine::owner(&ctx, "another");
    std::thread::scope(|scope| {
        let begun = root.join("begun");
        let slow = format!("touch {}; sleep 2", gangplank_model::shell::quote(&begun.display().to_string()));
        let slow = scope.spawn(move || target.run(&Script::new(slow, String::new())).unwrap());
        eventually("it runs", || begun.exists());
        let text = script::take_over(&root.display().to_string(), &other.token, &seen.token, &seen.token, 500);
        let said = Command::new("sh").args(["-c", &text]).stdin(std::process::Stdio::null()).output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).starts_with("held 5"), "{said:?}");
        assert!(slow.join().unwrap().ok());
    });
    lease::renewed(&targets, Duration::from_millis(20), || eventually("it is renewed", || is_fresh(&lock)));
    // It was renewed after the other has looked.
    let thief = machine::owner(&ctx, "another");
    let text = script::take_over(&root.display().to_string(), &thief.token, &me.token, &me.token, 500);
    let said = Command::new("sh").args(["-c", &text]).stdin(std::process::Stdio::null()).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("held"), "{said:?}");
    // A lock that is another's by now is neither renewed nor worked under, and not removed.
    let text = fs::read_to_string(&lock).unwrap().replace(&me.token, "other");
    fs::write(&lock, text).unwrap();
    age(&lock, 500);
    target.renew();
    assert!(!is_fresh(&lock));
    let error = target.run(&Script::new("true".into(), String::new())).unwrap_err();
    assert!(format!("{error:#}").contains("lost the lock"), "{error:#}");
    target.unlock(Some(&me.token)).unwrap();
    assert!(lock.exists());
}

#[test]
fn locks_are_renewed_here() {
    let dir = crate::record::tempdir();
    let root = dir.path().join("it's here");
    let ctx = ctx(dir.path());
    renewals(
        dir.path(),
        Tool::bare(&ctx, &crate::parts::PROJECT).target(&format!("file:{}", root.display())).unwrap(),
        &root,
    );
}

#[test]
fn locks_are_renewed_behind_another_program() {
    let dir = crate::record::tempdir();
    let root = dir.path().join("it's here");
    let ctx = ctx(dir.path());
    let target = HostTarget::through(&ctx, "env:here", "here", root.to_str().unwrap(), &["env"]);
    renewals(dir.path(), Box::new(target), &root);
}

#[test]
fn locks_are_renewed_over_ssh() {
    let Some(fleet) = Fleet::start(1) else { return };
    let dir = crate::record::tempdir();
    let ctx = ctx(dir.path()).with_vars([("PATH".to_owned(), fleet.path())]);
    let target = Tool::bare(&ctx, &crate::parts::PROJECT).target(&fleet.target(0, "it's there")).unwrap();
    target.renew();
    renewals(dir.path(), target, &fleet.srv(0).join("it's there"));
}
