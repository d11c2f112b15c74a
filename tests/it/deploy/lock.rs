//! Locks of deploys that run at the same time or were killed.

use crate::project::{Project, eventually};
use std::fs;

#[test]
fn lock_that_is_a_directory_holds() {
    let p = Project::new();
    p.release("1");
    fs::create_dir_all(p.path("srv/dev/.lock")).unwrap();
    p.run("deploy dev").fails(6, "a directory", "--force");
    p.run("lock dev").ok().stdout_has("locked by unknown owner");
    p.run("unlock dev --force").ok();
    p.run("deploy dev").ok();
}

#[test]
fn deploys_from_one_checkout_keep_their_releases() {
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
fn deploy_waits_for_the_last_command_of_a_killed_one() {
    let mut p = Project::new();
    let slow = "command echo begin >> log; sleep 4; echo end >> log|true|true|true\n";
    p.change("target file:srv/dev\n", &format!("target file:srv/dev\n{slow}"));
    p.release("1");
    let mut child = p.start("deploy dev");
    eventually("the restart has begun", || fs::read_to_string(p.path("srv/dev/log")).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    p.run("deploy dev").ok().stderr_has("its last command is still running");
    assert_eq!(p.read("srv/dev/log"), "begin\nend\nbegin\nend\n", "one after the other");
}
