//! Bad days: checks that hang, machines without certificates, damage between two deploys, and old ways that changed.

use crate::project::{Project, eventually, free_port};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn a_machine_without_certificates_is_told_before_anything_is_touched() {
    let mut p = Project::with_service();
    p.release("1");
    p.var("SSL_CERT_FILE", "/nonexistent");
    p.var("SSL_CERT_DIR", "/nonexistent");
    p.run("deploy dev").code(1).told("cannot create an HTTP client").told("ca-certificates");
    assert!(!p.path("srv/dev").exists());
}

#[test]
fn a_check_that_hangs_ends_at_its_deadline_and_at_ctrl_c() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nhealthy sleep 60\npatience 300|50|1\n");
    p.release("1");
    let started = Instant::now();
    p.run("deploy dev").fails(1, "was stopped", "deploy again");
    assert!(started.elapsed() < Duration::from_secs(20));
    p.change("patience 300|50|1\n", "patience 60000|50|1\n");
    let child = p.start("deploy dev");
    eventually("it is switched", || p.current("srv/dev").is_some());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(started.elapsed() < Duration::from_secs(40));
    assert_eq!(p.current("srv/dev"), None);
}

#[test]
fn a_restart_command_that_leaves_a_child_with_our_pipe_does_not_hold_us() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\ncommand sleep 30 &|true|true|true\n");
    p.release("1");
    let started = Instant::now();
    p.run("deploy dev").ok();
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_status_command_that_fails_is_no_health() {
    let mut p = Project::new();
    p.change(
        "target file:srv/dev\n",
        "target file:srv/dev\ncommand true|true|echo inactive; false|true\npatience 200|50|2\n",
    );
    p.release("1");
    p.run("deploy dev").fails(1, "its status command failed with exit code 1: inactive", "deploy again");
}

#[test]
fn a_process_that_dies_a_moment_after_its_start_is_not_healthy() {
    let mut p = Project::with_service();
    p.write_program("bin/short", "#!/bin/sh\nsleep 0.1\nexit 7\n");
    let port = p.port("dev");
    p.change("include bin/app\n", "include bin/app\ninclude bin/short\n");
    p.change(
        &format!("pidfile bin/app\nhttp http://127.0.0.1:{port}/version|200|{{commit}}\n"),
        "pidfile bin/short\npatience 5000|200|10\n",
    );
    p.release("1");
    p.run("deploy dev").fails(1, "the process ended with exit code 7", "deploy again");
}

#[test]
fn what_is_put_back_is_started_and_checked_as_it_was() {
    let mut p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    let (old, new) = (p.port("dev"), free_port());
    p.move_port(old, new);
    p.write("behavior", "exit 3\n");
    p.release("2");
    p.run("deploy dev").fails(1, "is live again", "deploy again");
    p.change(&format!("PORT={new}"), &format!("PORT={old}"));
    assert_eq!(p.get("dev").unwrap(), "1", "on its own port, with its own check");
}

#[test]
fn a_release_from_before_the_pidfile_service_is_put_back_without_it() {
    let mut p = Project::with_service();
    let port = p.port("dev");
    let pidfile = format!("pidfile bin/app\nhttp http://127.0.0.1:{port}/version|200|{{commit}}\n");
    p.change(&pidfile, "healthy true\n");
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    p.change("healthy true\n", &pidfile.replace("200", "299"));
    p.change("env prod", "patience 300|50|1\nenv prod");
    p.release("2");
    p.run("deploy dev").fails(1, &format!("{v1} is live again"), "deploy again");
    assert!(p.get("dev").is_err(), "the process of the failed release is gone");
}

#[test]
fn when_even_the_old_release_is_sick_it_says_so_and_a_rollback_tries_it_again() {
    let mut p = Project::new();
    let check = "healthy test ! -e ../../sick\npatience 0|1|1\n";
    p.change("target file:srv/dev\n", &format!("target file:srv/dev\n{check}"));
    p.release("1");
    p.run("deploy dev").ok();
    let v2 = p.release("2");
    p.run("deploy dev").ok();
    p.release("3");
    p.write("srv/dev/sick", "");
    p.run("deploy dev").fails(9, "could NOT be reverted", "rollback dev");
    assert_eq!(p.current("srv/dev").as_deref(), Some(v2.as_str()));
    fs::remove_file(p.path("srv/dev/sick")).unwrap();
    p.run("rollback dev").ok().says(&format!("dev: rolled back to {v2}\n"));
    p.run("status dev").ok().has("live");
}

#[test]
fn a_release_that_was_changed_on_the_host_does_not_go_live_again() {
    let p = Project::new();
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    let v2 = p.release("2");
    p.run("deploy dev").ok();
    p.write(&format!("srv/dev/releases/{v1}/www/index.html"), "edited");
    p.run("rollback dev").fails(7, "was changed since it was installed: www/index.html: FAILED", "move releases/");
    assert_eq!(p.current("srv/dev").as_deref(), Some(v2.as_str()));
    p.write(&format!("srv/dev/releases/{v2}/www/shell.php"), "");
    p.run("verify @dev").fails(7, "www/shell.php: is not part of the release", "sends it again");
}

#[test]
fn a_damaged_copy_in_a_store_is_replaced_by_the_next_put_and_a_damaged_build_by_the_next_build() {
    let p = Project::new();
    let id = p.release("1");
    p.run("put").ok().has("stored");
    let damage = |dir: &str| {
        let path = p.path(&format!("{dir}/{id}/shop-{id}.tar.gz"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    damage("store");
    p.run("put").ok().has("stored").told("replacing a damaged release");
    p.run("put").ok().has("already has it");
    damage("target/releases");
    p.run("build").ok().has(" built: ");
    p.run(&format!("verify {id}")).ok();
}

#[test]
fn of_several_dirty_builds_the_last_is_deployed_and_a_clean_checkout_wants_a_clean_one() {
    let p = Project::new();
    for n in 1..6 {
        p.write("www/index.html", &format!("edit {n}"));
        p.run("build").ok();
        p.run("deploy dev").ok();
        assert_eq!(p.live("srv/dev"), format!("edit {n}"));
    }
    p.write("www/index.html", "edit 2");
    p.run("build").ok().has("up to date");
    p.run("deploy dev").ok();
    assert_eq!(p.live("srv/dev"), "edit 2");
    p.git(&["checkout", "--quiet", "--", "."]);
    p.run("deploy dev").fails(5, "no release of commit", "cargo xtask build");
}

#[test]
fn a_lock_that_is_a_directory_holds_too() {
    let p = Project::new();
    p.release("1");
    fs::create_dir_all(p.path("srv/dev/.lock")).unwrap();
    p.run("deploy dev").fails(6, "a directory", "--force");
    p.run("lock dev").ok().has("locked by unknown owner");
    p.run("unlock dev --force").ok();
    p.run("deploy dev").ok();
}

#[test]
fn a_dry_run_that_cannot_be_dry_is_refused() {
    let p = Project::new();
    for line in ["build -n", "put -n", "fetch -n", "unlock dev --force -n", "ci run --yes -n", "test -n"] {
        p.run(line).fails(2, "this command has no --dry-run", "plan");
    }
    // A program of its own reads the options that follow its name; those before it are the xtask's.
    for line in ["bench overhead -n", "-n bench overhead"] {
        p.run(line).fails(2, "this command has no --dry-run", "plan");
    }
    // `new` has one, here as in Gangplank's own repository.
    p.run("-n new ../shop").fails(2, "only in Gangplank's own repository", "cargo xtask new --help");
    assert!(!p.path("target/releases").exists());
}

#[test]
fn an_include_does_not_leave_through_a_link() {
    let mut p = Project::new();
    let outside = crate::record::tempdir();
    fs::write(outside.path().join("key.pem"), "secret").unwrap();
    symlink(outside.path(), p.path("pub")).unwrap();
    p.change("include www\n", "include www\ninclude pub/key.pem\n");
    p.commit("1");
    p.run("build").fails(2, "leaves the workspace through a link", "below the workspace root");
    p.change("include pub/key.pem\n", "include pub\n");
    p.run("build").fails(2, "leaves the bundle", "remove the link");
}

#[test]
fn three_deploys_from_one_checkout_do_not_take_the_release_from_each_other() {
    let mut p = Project::new();
    p.change("env prod", "env b\ntarget file:srv/b\nenv c\ntarget file:srv/c\nenv prod");
    for n in 0..3 {
        p.release(&n.to_string());
        let children = ["dev", "b", "c"].map(|env| p.start(&format!("deploy {env}")));
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let left = fs::read_dir(p.path("target/fetched")).unwrap().count();
    assert_eq!(left, 0, "what was fetched for a deploy goes with it");
}

#[test]
fn the_last_command_of_a_killed_deploy_is_waited_for() {
    let mut p = Project::new();
    let slow = "command echo begin >> log; sleep 4; echo end >> log|true|true|true\n";
    p.change("target file:srv/dev\n", &format!("target file:srv/dev\n{slow}"));
    p.release("1");
    let mut child = p.start("deploy dev");
    eventually("the restart has begun", || fs::read_to_string(p.path("srv/dev/log")).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    p.run("deploy dev").ok().told("its last command is still running");
    assert_eq!(p.read("srv/dev/log"), "begin\nend\nbegin\nend\n", "one after the other");
}

#[test]
fn what_an_ended_process_leaves_behind_does_not_keep_the_port() {
    let mut p = Project::with_service();
    // It ends at once: on a busy machine what it left would be well before.
    let left = p.path("left");
    p.write_program("bin/leaver", &format!("#!/bin/sh\nbin/app &\necho $! > {}\nexit 5\n", left.display()));
    p.change("include bin/app\n", "include bin/app\ninclude bin/leaver\n");
    p.change("pidfile bin/app", "pidfile bin/leaver");
    p.change("env prod", "patience 5000|100|20\nenv prod");
    p.release("1");
    p.run("deploy dev").fails(1, "the process ended with exit code 5", "deploy again");
    let process = PathBuf::from("/proc").join(fs::read_to_string(left).unwrap().trim());
    eventually("what it left is gone, and the port free", || !process.exists() && p.get("dev").is_err());
}

#[test]
fn a_reason_holds_no_secret_and_steers_no_terminal() {
    let mut p = Project::new();
    p.var("CIRCLE_TOKEN", "CCIPAT_secret123456");
    p.release("1");
    p.run("deploy dev --reason 'with CCIPAT_secret123456 \u{1b}[2J\u{7}'").ok();
    assert!(!p.read("srv/dev/history.jsonl").contains("secret123456"));
    let ran = p.run("history dev").ok().has("with ****");
    assert!(!ran.stdout.contains(['\u{1b}', '\u{7}']), "{:?}", ran.stdout);
    for line in
        ["deploy CCIPAT_secret123456", "deploy dev CCIPAT_secret123456", "deploy dev CCIPAT_secret123456 --json"]
    {
        let ran = p.run(line).code(2);
        assert!(!ran.stderr.contains("secret123456"), "{}", ran.stderr);
    }
    let refused = p.run("deploy dev nope! --json").code(2).stderr;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&refused).unwrap()["exit_code"], 2);
}

#[test]
fn a_restart_that_fails_before_the_old_process_is_stopped_leaves_it_alone() {
    let p = Project::with_service();
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    let process = p.read("srv/dev/service/process");
    // In the way of what would be written.
    fs::create_dir(p.path("srv/dev/service/spec.new")).unwrap();
    p.release("2");
    p.run("deploy dev").fails(1, &format!("{v1} is live"), "deploy again");
    assert_eq!(p.read("srv/dev/service/process"), process, "the very process");
    assert_eq!(p.get("dev").unwrap(), "1");
    fs::remove_dir(p.path("srv/dev/service/spec.new")).unwrap();
    p.run("deploy dev").ok();
    assert_eq!(p.get("dev").unwrap(), "2");
}

/// One host of three does not answer at night, and the others have to go back.
#[test]
fn a_host_that_is_left_out() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\ntarget file:srv/two\n");
    p.release("1");
    p.run("deploy dev").ok();
    p.release("2");
    p.run("deploy dev").ok();
    fs::rename(p.path("srv/two"), p.path("srv/gone")).unwrap();
    p.write("srv/two", "no directory");
    p.run("rollback dev").code(1);
    assert_eq!(p.live("srv/dev"), "2");
    p.run("rollback dev --skip-host file:srv/three").fails(
        2,
        "--skip-host file:srv/three",
        "name some of file:srv/dev",
    );
    p.run("rollback dev --skip-host file:srv/two").ok().told("file:srv/two skipped");
    assert_eq!(p.live("srv/dev"), "1");
    fs::remove_file(p.path("srv/two")).unwrap();
    fs::rename(p.path("srv/gone"), p.path("srv/two")).unwrap();
    p.run("deploy dev").ok();
    assert_eq!((p.live("srv/dev"), p.live("srv/two")), ("2".into(), "2".into()));
}

#[test]
fn a_host_that_joined_later_goes_back_with_the_others() {
    let mut p = Project::new();
    let one = p.release("1");
    p.run("put").ok();
    p.run("deploy dev").ok();
    p.change("target file:srv/dev\n", "target file:srv/dev\ntarget file:srv/new\n");
    p.release("2");
    p.run("put").ok();
    p.run("status dev").ok().has("file:srv/new");
    p.run("deploy dev").ok();
    assert_eq!((p.live("srv/dev"), p.live("srv/new")), ("2".into(), "2".into()));
    p.run("rollback dev").ok().told(&format!("rolling it back to {one}"));
    assert_eq!((p.live("srv/dev"), p.live("srv/new")), ("1".into(), "1".into()));
    // A decommissioned host is removed from the list without a warning.
    p.change("target file:srv/dev\n", "");
    p.run("deploy dev").ok();
    assert_eq!(p.live("srv/new"), "2");
}

#[test]
fn two_apps_do_not_share_a_directory() {
    let mut p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    p.change("include www\n", "app other\ninclude www\n");
    p.release("2");
    p.run("deploy dev").fails(2, "file:srv/dev runs a release of shop, not of other", "its own directory");
    for line in ["prune dev", "restart dev", "stop dev", "start dev", "rollback dev"] {
        p.run(line).fails(2, "file:srv/dev runs a release of shop, not of other", "its own directory");
    }
    assert_eq!(p.live("srv/dev"), "1");
}

#[test]
fn of_many_releases_the_newest_are_shown_and_the_rest_is_said() {
    let p = Project::new();
    let ids = ["1", "2", "3"].map(|n| p.release(n));
    let shown = |line: &str| {
        let ran = p.run(line).ok();
        let which: Vec<_> = ids.iter().map(|id| ran.stdout.contains(id.as_str())).collect();
        (which, ran.stderr)
    };
    let (which, said) = shown("releases --limit 2");
    assert_eq!(which, [false, true, true]);
    assert!(said.contains("these are the newest 2; `cargo xtask releases --limit 100` shows more"), "{said}");
    for line in ["releases --limit 3", "releases"] {
        let (which, said) = shown(line);
        assert_eq!((which.as_slice(), said.contains("newest")), ([true; 3].as_slice(), false), "{line}");
    }
    p.run("releases --limit 0").code(2).told("0 is not in 1..");
    // A beginning that tells nothing makes all of it be looked at, and then it is said what is wrong.
    p.write(&format!("target/releases/{}/manifest.json", ids[1]), "{\"schema\": 7}");
    let (which, said) = shown("releases");
    assert_eq!(which, [true, false, true]);
    assert!(said.contains("skipped an unreadable release") && said.contains("schema 7"), "{said}");
}
