//! A deploy that is killed, for real, before and after each of its scripts; and a host that is used at the same time.

use crate::project::{Project, Ran, eventually};
use crate::sample::draw;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::time::Duration;

/// A `sh`, first on PATH, that kills its caller at the n-th call: before its work, or after.
const DEADLY_SH: &str = r#"#!/bin/sh
here=${0%/*}
case $(cat /proc/$PPID/comm) in
  xtask-fixture) ;;
  *) exec /bin/sh "$@" ;;
esac
n=$(($(cat "$here/count") + 1)); echo $n > "$here/count"
read -r at when < "$here/plan"
if [ $n = $at ] && [ $when = before ]; then kill -KILL $PPID; exit 1; fi
/bin/sh "$@"; code=$?
if [ $n = $at ]; then kill -KILL $PPID; fi
exit $code
"#;

/// Runs a command that is killed at the n-th script. Gives whether it lived to its end.
fn killed(p: &Project, line: &str, at: u32, when: &str) -> bool {
    p.write("target/deadly/sh", DEADLY_SH);
    p.write("target/deadly/count", "0");
    p.write("target/deadly/plan", &format!("{at} {when}"));
    let sh = p.path("target/deadly/sh");
    fs::set_permissions(&sh, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", sh.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = p.command(line).env("PATH", path).output().unwrap();
    output.status.code().is_some()
}

/// A host always has a whole release live that answers, or nothing when nothing was live before.
fn check_host(p: &Project, target: &str, allowed: &[&str]) {
    let Some(id) = p.current(target) else { return assert!(allowed.contains(&""), "nothing is live on {target}") };
    assert!(allowed.contains(&id.as_str()), "{id} is live on {target}, not one of {allowed:?}");
    let check = Command::new("sha256sum")
        .args(["--check", "--quiet", ".gangplank/SHA256SUMS"])
        .current_dir(p.path(target).join("current/"))
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

/// Kills a deploy to two hosts at its n-th script and runs it again. Gives whether it was killed.
fn converges_when_killed(at: u32, when: &str) -> bool {
    let mut p = Project::with_service();
    p.change("target file:srv/dev\n", "target file:srv/dev\ntarget file:srv/dev2\n");
    // Two hosts cannot share a port, so the second one only gets the files.
    let v1 = p.release("1");
    p.change("pidfile bin/app\n", "command true|true|true|true\n");
    p.change(
        &format!("http http://127.0.0.1:{}/version|200|{{commit}}\n", p.port("dev")),
        "healthy test -s www/index.html\n",
    );
    p.run("deploy dev").ok();
    let v2 = p.release("2");
    let lived = killed(&p, "deploy dev", at, when);
    for host in ["srv/dev", "srv/dev2"] {
        check_host(&p, host, &[&v1, &v2]);
    }
    let locked = ["srv/dev/.lock", "srv/dev2/.lock"].iter().any(|lock| p.path(lock).exists());
    let again = p.run("deploy dev").ok();
    assert_eq!(
        again.stderr.contains("taking over the lock"),
        locked,
        "it says so when it takes over: {}",
        again.stderr
    );
    for host in ["srv/dev", "srv/dev2"] {
        check_host(&p, host, &[&v2]);
        assert!(!p.path(host).join(".lock").exists(), "the lock of {host} stayed");
    }
    p.run("rollback dev").ok().stdout_has(&v1);
    !lived
}

/// The same with one host whose service is restarted.
fn converges_with_a_service_when_killed(at: u32) -> bool {
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    p.release("2");
    let lived = killed(&p, "deploy dev", at, "after");
    p.run("deploy dev").ok();
    assert_eq!(p.get("dev").unwrap(), "2", "killed after script {at}");
    p.run("rollback dev").ok();
    assert_eq!(p.get("dev").unwrap(), "1", "killed after script {at}");
    !lived
}

/// Kills at every script, until a deploy has fewer.
fn at_every_script(least: u32, most: u32, converges_when_killed: impl Fn(u32) -> bool) {
    let scripts = (1..most).find(|at| !converges_when_killed(*at)).expect("it never came to its end") - 1;
    assert!(scripts > least, "a deploy has more than {scripts} scripts");
}

#[test]
fn deploy_killed_at_sampled_scripts_converges() {
    for (when, test) in [("before", "killed before"), ("after", "killed after")] {
        for at in draw(test, 9, 1) {
            assert!(converges_when_killed(at, when), "script {at} was reached");
        }
    }
    for at in draw("killed with a service", 5, 1) {
        assert!(converges_with_a_service_when_killed(at), "script {at} was reached");
    }
}

#[test]
#[ignore = "group kill"]
fn deploy_killed_before_every_script_converges() {
    at_every_script(8, 60, |at| converges_when_killed(at, "before"));
}

#[test]
#[ignore = "group kill"]
fn deploy_killed_after_every_script_converges() {
    at_every_script(8, 60, |at| converges_when_killed(at, "after"));
}

#[test]
#[ignore = "group kill"]
fn deploy_with_a_service_killed_after_every_script_converges() {
    at_every_script(4, 40, converges_with_a_service_when_killed);
}

fn end(mut child: Child, line: &str) -> Ran {
    let code = child.wait().unwrap().code().unwrap_or(-1);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Ran { line: line.into(), code, stdout, stderr }
}

#[test]
fn ctrl_c_puts_the_old_release_back() {
    let mut p = Project::with_service();
    p.change("env prod", "patience 60000|50|2\nenv prod");
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    for signal in ["-INT", "-TERM"] {
        p.write("behavior", "hang\n");
        let v2 = p.release(signal);
        let child = p.start("deploy dev");
        eventually("it is switched", || p.current("srv/dev").as_deref() == Some(v2.as_str()));
        eventually("it hangs", || p.get("dev").is_err());
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        end(child, "deploy dev")
            .fails(1, &format!("{v1} is live again"), "run the same command again")
            .stderr_has("stopping at the next safe point");
        assert_eq!(p.get("dev").unwrap(), "1");
        p.run("lock dev").ok().stdout_has("not locked");
    }
}

#[test]
fn lock_of_user_with_odd_name_shows_the_name() {
    let mut p = Project::new();
    p.var("USER", "DOMAIN\\n\"ana\" $HOME");
    p.change("target file:srv/dev\n", "target file:srv/dev\nhealthy test ! -e ../../wait\npatience 20000|20|1\n");
    p.release("1");
    p.write("srv/dev/wait", "");
    let first = p.start("deploy dev");
    eventually("it has the lock", || p.path("srv/dev/.lock").exists());
    p.run("lock dev").ok().stdout_has("locked by DOMAIN\\n\"ana\" $HOME@");
    fs::remove_file(p.path("srv/dev/wait")).unwrap();
    end(first, "first").ok();
}

#[test]
fn deploy_during_another_waits_or_names_the_lock_owner() {
    let mut p = Project::new();
    let slow = "healthy test ! -e ../../wait\npatience 20000|20|1\n";
    p.change("target file:srv/dev\n", &format!("target file:srv/dev\n{slow}"));
    p.release("1");
    p.write("srv/dev/wait", "");
    let first = p.start("deploy dev");
    eventually("the first has the lock", || p.path("srv/dev/.lock").exists());
    p.run("deploy dev").fails(6, "file:srv/dev is locked by ana@", "--lock-wait").stderr_has("deploy 2026");
    p.run("lock dev").ok().stdout_has("locked by ana@");
    p.run("unlock dev").fails(6, "which may still run", "--force");
    let waiting = p.start("deploy dev --lock-wait 30");
    std::thread::sleep(Duration::from_millis(300));
    fs::remove_file(p.path("srv/dev/wait")).unwrap();
    end(first, "first").ok().stdout_has("is live");
    end(waiting, "second").ok().stdout_has("nothing to do").stderr_has("waiting up to 30 s for the lock of ana@");
}

#[test]
fn unlock_of_unreadable_lock_needs_force() {
    let p = Project::new();
    p.release("1");
    p.run("deploy dev").ok();
    p.write("srv/dev/.lock", "made by hand\n");
    p.release("2");
    p.run("deploy dev").fails(6, "unknown owner (unreadable lock: `made by hand`)", "--force");
    p.run("status dev").ok().stdout_has("is locked by unknown owner");
    p.run("unlock dev --force").ok().stdout_has("removed the lock");
    p.run("deploy dev").ok();
}

#[test]
fn deploy_with_lock_of_another_machine_is_refused() {
    let p = Project::new();
    p.release("1");
    let owner = r#"{"token":"t","by":"bob@far","machine":"far away","pid":1,"started":null,"since":"2026-08-01T00:00:00Z","doing":"deploy x to dev","ci":{"job":7,"url":"https://circleci.com/gh/o/r/7","workflow":null,"pipeline":null}}"#;
    p.write("srv/dev/.lock", owner);
    p.run("deploy dev").fails(
        6,
        "bob@far since 2026-08-01 00:00:00Z (deploy x to dev, https://circleci.com/gh/o/r/7)",
        "unlock",
    );
    assert_eq!(p.read("srv/dev/.lock"), owner);
}

#[test]
fn read_during_deploys_always_finds_a_whole_release() {
    let p = Project::new();
    p.release("0");
    p.run("deploy dev").ok();
    let index = p.path("srv/dev/current/www/index.html");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u32;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let text = fs::read_to_string(&index).expect("there is always a whole release");
                assert!(text.trim().parse::<u32>().is_ok(), "{text:?}");
                reads += 1;
            }
            reads
        });
        for n in 1..8 {
            p.release(&n.to_string());
            p.run("deploy dev").ok();
        }
        p.run("rollback dev").ok();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 1000);
    });
}
