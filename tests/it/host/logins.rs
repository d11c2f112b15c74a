//! Logins that are not root, on this machine. Only root can become them.

use crate::project::{Project, Ran};
use crate::record::skip;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

/// The group of two logins.
const GROUP: u32 = 54_321;

/// A project that everybody may read and build in, and its target, which belongs to the group.
fn project() -> Option<Project> {
    let mut p = Project::new();
    // The repository is root's.
    for (name, value) in [("COUNT", "1"), ("KEY_0", "safe.directory"), ("VALUE_0", "*")] {
        p.var(&format!("GIT_CONFIG_{name}"), value);
    }
    let may = Command::new("setpriv").args(["--reuid", "54322", "true"]).output().is_ok_and(|it| it.status.success());
    if !may {
        skip("logins other than root: only root has them, with setpriv");
        return None;
    }
    p.release("1");
    p.release("2");
    p.release("3");
    fs::create_dir_all(p.path("target/fetched")).unwrap();
    fs::create_dir_all(p.path("srv/dev")).unwrap();
    sh(&p.path("."), "chmod -R a+rwX . && chmod 755 .");
    chown(p.path("srv/dev"), None, Some(GROUP)).unwrap();
    Some(p)
}

fn sh(dir: &Path, script: &str) {
    assert!(Command::new("sh").args(["-c", script]).current_dir(dir).status().unwrap().success(), "{script}");
}

fn run_as(p: &Project, uid: u32, line: &str) -> Ran {
    let command = p.command(line);
    let uid = uid.to_string();
    let mut as_login = Command::new("setpriv");
    as_login.args(["--reuid", &uid, "--regid", &uid, "--groups", &GROUP.to_string(), "--"]);
    as_login.arg(command.get_program()).args(command.get_args()).current_dir(p.path(".")).env_clear();
    as_login.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ran::of(line, as_login.env("HOME", p.path(".")))
}

#[test]
fn two_logins_deploy_into_one_directory_of_their_group() {
    let Some(p) = project() else { return };
    fs::set_permissions(p.path("srv/dev"), fs::Permissions::from_mode(0o2775)).unwrap();
    let ids: Vec<String> = releases(&p);
    let [three, two, one] = ids.as_slice() else { panic!("{ids:?}") };
    let (ana, ben) = (54_322, 54_323);
    run_as(&p, ana, &format!("deploy dev {one}")).ok();
    run_as(&p, ben, &format!("deploy dev {two}")).ok();
    run_as(&p, ana, &format!("deploy dev {three}")).ok();
    run_as(&p, ben, "rollback dev").ok();
    run_as(&p, ana, "verify @dev").ok();
    run_as(&p, ben, "prune dev --keep 1").ok();
    assert!(!p.path(&format!("srv/dev/releases/{three}")).exists(), "what ana installed");
    let of = |path: &str| fs::metadata(p.path(&format!("srv/dev/{path}"))).unwrap();
    assert_eq!((of("history.jsonl").gid(), of("history.jsonl").mode() & 0o777), (GROUP, 0o664));
    let health = of(".health").mode() & 0o777;
    assert_eq!(health, 0o660, "a check may hold a secret: {health:o}");
}

#[test]
fn files_of_one_login_are_not_for_its_group() {
    let Some(p) = project() else { return };
    chown(p.path("srv/dev"), Some(54_322), Some(GROUP)).unwrap();
    fs::set_permissions(p.path("srv/dev"), fs::Permissions::from_mode(0o755)).unwrap();
    run_as(&p, 54_322, "deploy dev latest").ok();
    let mode = |path: &str| fs::metadata(p.path(&format!("srv/dev/{path}"))).unwrap().mode() & 0o777;
    assert_eq!((mode("history.jsonl"), mode(".health"), mode("releases")), (0o644, 0o600, 0o755));
}

#[test]
fn prune_that_may_not_remove_a_file_fails() {
    let Some(p) = project() else { return };
    let ids = releases(&p);
    chown(p.path("srv/dev"), Some(54_322), None).unwrap();
    for id in ids.iter().rev() {
        run_as(&p, 54_322, &format!("deploy dev {id}")).ok();
    }
    let oldest = p.path(&format!("srv/dev/releases/{}", ids[2]));
    // What root has put there.
    fs::create_dir(oldest.join("cache")).unwrap();
    fs::write(oldest.join("cache/file"), "").unwrap();
    run_as(&p, 54_322, "prune dev --keep 1").fails(1, "ermission denied", "who owns");
    let history = p.read("srv/dev/history.jsonl");
    assert!(!history.contains("\"removed\""), "{history}");
    remove(&p.path("srv/dev/releases"));
    run_as(&p, 54_322, "prune dev --keep 1").ok();
}

/// Removes what root has put there, wherever it was moved.
fn remove(releases: &Path) {
    sh(releases, "rm -rf .removing-*/cache */cache");
}

/// The releases that were built, the newest first.
fn releases(p: &Project) -> Vec<String> {
    let listed: serde_json::Value = serde_json::from_str(&p.run("releases --json").ok().stdout).unwrap();
    listed.as_array().unwrap().iter().map(|it| it["release"].as_str().unwrap().to_owned()).collect()
}
