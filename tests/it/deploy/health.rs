//! Health checks and starts: what hangs, dies or lies.

use crate::project::{Project, eventually};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn deploy_without_certificates_fails_before_any_change() {
    let mut p = Project::with_service();
    p.release("1");
    p.var("SSL_CERT_FILE", "/nonexistent");
    p.var("SSL_CERT_DIR", "/nonexistent");
    p.run("deploy dev").code(1).stderr_has("cannot create an HTTP client").stderr_has("ca-certificates");
    assert!(!p.path("srv/dev").exists());
}

#[test]
fn check_that_hangs_ends_at_its_deadline_and_at_ctrl_c() {
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
fn restart_command_whose_child_keeps_the_pipe_does_not_block() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\ncommand sleep 30 &|true|true|true\n");
    p.release("1");
    let started = Instant::now();
    p.run("deploy dev").ok();
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[test]
fn status_command_that_fails_fails_the_deploy() {
    let mut p = Project::new();
    p.change(
        "target file:srv/dev\n",
        "target file:srv/dev\ncommand true|true|echo inactive; false|true\npatience 200|50|2\n",
    );
    p.release("1");
    p.run("deploy dev").fails(1, "its status command failed with exit code 1: inactive", "deploy again");
}

#[test]
fn process_that_dies_after_its_start_fails_the_deploy() {
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
fn child_of_an_ended_process_does_not_keep_the_port() {
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
