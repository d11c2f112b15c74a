//! Envs of several hosts: skipped, added later, shared by apps; and the list of releases.

use crate::project::Project;
use std::fs;

/// One host of three does not answer at night, and the others have to go back.
#[test]
fn skipped_host_is_reported_and_catches_up() {
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
        "the hosts of dev: file:srv/dev",
    );
    p.run("rollback dev --skip-host file:srv/two").ok().stderr_has("file:srv/two skipped");
    assert_eq!(p.live("srv/dev"), "1");
    fs::remove_file(p.path("srv/two")).unwrap();
    fs::rename(p.path("srv/gone"), p.path("srv/two")).unwrap();
    p.run("deploy dev").ok();
    assert_eq!((p.live("srv/dev"), p.live("srv/two")), ("2".into(), "2".into()));
}

#[test]
fn rollback_takes_a_host_that_joined_later_along() {
    let mut p = Project::new();
    let one = p.release("1");
    p.run("put").ok();
    p.run("deploy dev").ok();
    p.change("target file:srv/dev\n", "target file:srv/dev\ntarget file:srv/new\n");
    p.release("2");
    p.run("put").ok();
    p.run("status dev").ok().stdout_has("file:srv/new");
    p.run("deploy dev").ok();
    assert_eq!((p.live("srv/dev"), p.live("srv/new")), ("2".into(), "2".into()));
    p.run("rollback dev").ok().stderr_has(&format!("rolling it back to {one}"));
    assert_eq!((p.live("srv/dev"), p.live("srv/new")), ("1".into(), "1".into()));
    // A decommissioned host is removed from the list without a warning.
    p.change("target file:srv/dev\n", "");
    p.run("deploy dev").ok();
    assert_eq!(p.live("srv/new"), "2");
}

#[test]
fn two_apps_in_one_directory_are_refused() {
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
fn releases_shows_the_newest_and_counts_the_rest() {
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
    p.run("releases --limit 0").code(2).stderr_has("0 is not in 1..");
    // A beginning that tells nothing makes all of it be looked at, and then it is said what is wrong.
    p.write(&format!("target/releases/{}/manifest.json", ids[1]), "{\"schema\": 7}");
    let (which, said) = shown("releases");
    assert_eq!(which, [true, false, true]);
    assert!(said.contains("skipped an unreadable release") && said.contains("schema 7"), "{said}");
}
