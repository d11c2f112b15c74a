//! Reverts and rollbacks whose old release, process or files are not as they were.

use crate::project::{Project, free_port};
use std::fs;

#[test]
fn revert_starts_and_checks_the_old_release() {
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
fn revert_to_a_release_without_the_pidfile_service_works() {
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
fn revert_to_an_unhealthy_release_says_so_and_a_rollback_tries_again() {
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
    p.run("rollback dev").ok().stdout_is(&format!("dev: rolled back to {v2}\n"));
    p.run("status dev").ok().stdout_has("live");
}

#[test]
fn rollback_to_a_release_changed_on_the_host_is_refused() {
    let p = Project::new();
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    let v2 = p.release("2");
    p.run("deploy dev").ok();
    p.write(&format!("srv/dev/releases/{v1}/www/index.html"), "edited");
    p.run("rollback dev").fails(7, "was changed since it was installed: www/index.html: FAILED", "mv releases/");
    assert_eq!(p.current("srv/dev").as_deref(), Some(v2.as_str()));
    p.write(&format!("srv/dev/releases/{v2}/www/shell.php"), "");
    p.run("verify @dev").fails(7, "www/shell.php: is not part of the release", "sends it again");
}

#[test]
fn restart_that_fails_before_the_stop_keeps_the_old_process() {
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
