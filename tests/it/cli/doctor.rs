//! Broken set-ups, each as a whole: the first thing that the doctor calls broken is the cause, with the right fix, and
//! it leaves nothing behind. Those with hosts are in `fleet::doctor`, those with buckets in `bucket::doctor`.

mod account;

use crate::ci::with_xtask;
use crate::project::{Project, Ran};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The checks in a state, each with its hint in one line.
pub fn checks(ran: &Ran, state: &str) -> Vec<String> {
    let start = format!("  {state:<7} ");
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in ran.stdout.lines() {
        if let Some(rest) = line.strip_prefix(&start) {
            found.push(rest.to_owned());
            inside = true;
        } else if inside && line.starts_with("          ") {
            *found.last_mut().unwrap() += &line[9..];
        } else {
            inside = false;
        }
    }
    found
}

/// Every file below the project, without what git and the test itself keep.
fn everything(dir: &Path, into: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name() != ".git" && entry.file_type().is_ok_and(|it| it.is_dir()) {
            everything(&entry.path(), into);
        }
        into.insert(entry.path());
    }
}

/// Runs it and makes sure that nothing came or went.
#[track_caller]
pub fn run(p: &Project, line: &str, vars: &[(String, String)]) -> Ran {
    let all = || {
        let mut all = BTreeSet::new();
        everything(&p.path(""), &mut all);
        all
    };
    // It writes the settings.
    let _ = p.command(line);
    let before = all();
    let ran = p.run_with(line, vars);
    let after = all();
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "`{line}` left or took {changed:?}");
    let fits = |line: &str| line.len() <= 80 || line.contains('`') || line.contains("://");
    assert!(line.contains("--json") || ran.stdout.lines().all(fits), "{}", ran.stdout);
    ran
}

/// A deploy would not work, and the first of what is broken says this.
#[track_caller]
pub fn broken_with(p: &Project, line: &str, vars: &[(String, String)], says: &str, hint: &str) -> Ran {
    let ran = run(p, line, vars).code(1);
    let all = checks(&ran, "broken");
    let first = all.first().unwrap_or_else(|| panic!("nothing is broken: {ran:?}"));
    let (said, hinted) = first.split_once(" hint: ").unwrap_or((first, ""));
    assert!(said.contains(says) && hinted.contains(hint), "not `{says}` and `{hint}`:\n{first}\n\n{}", ran.stdout);
    let last = ran.stdout.lines().last().unwrap();
    assert!(last.contains("would not work: ") && last.contains(&format!("{} broken", all.len())), "{last}");
    ran
}

/// The same without more variables.
#[track_caller]
pub fn broken(p: &Project, line: &str, says: &str, hint: &str) -> Ran {
    broken_with(p, line, &[], says, hint)
}

/// Checks that a deploy would work, with this warning.
#[track_caller]
pub fn warned(p: &Project, line: &str, says: &str, hint: &str) -> Ran {
    let ran = run(p, line, &[]).code(0);
    let all = checks(&ran, "warning");
    assert!(all.iter().any(|it| it.contains(says) && it.contains(hint)), "no `{says}` with `{hint}`: {}", ran.stdout);
    ran
}

/// A directory with links to the programs of `PATH`, without some.
pub fn programs_without(dir: &Path, without: &[&str]) -> String {
    fs::create_dir_all(dir).unwrap();
    for from in std::env::var("PATH").unwrap().split(':') {
        for entry in fs::read_dir(from).into_iter().flatten().flatten() {
            if !without.iter().any(|name| entry.file_name() == *name) {
                let _ = symlink(entry.path(), dir.join(entry.file_name()));
            }
        }
    }
    dir.display().to_string()
}

#[test]
fn doctor_of_working_project_reports_no_problem() {
    let p = with_xtask();
    let ran = run(&p, "doctor", &[]).code(0);
    assert_eq!((checks(&ran, "broken"), checks(&ran, "warning")), (vec![], vec![]), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("\na deploy would work\n"), "{}", ran.stdout);
    for piece in ["\ntools\n", "\ngit\n", "project\n", "circleci\n", "stores\n", "dev: file:srv/dev\n", "prod: "] {
        assert!(format!("\n{}", ran.stdout).contains(piece), "no {piece}: {}", ran.stdout);
    }
    assert!(!p.path("srv").exists(), "what a deploy makes is not made");
    let one = run(&p, "doctor prod", &[]).code(0);
    assert!(one.stdout.ends_with("\na deploy to prod would work\n") && !one.stdout.contains("\ndev"), "{}", one.stdout);
    run(&p, "doctor stage", &[]).fails(2, "no env `stage`", "dev, prod");
    // What runs is asked for its health.
    p.release("1");
    p.run("deploy dev").ok();
    let deployed = run(&p, "doctor dev", &[]).code(0);
    assert!(checks(&deployed, "ok").iter().any(|it| it.contains("live (20260801T")), "{}", deployed.stdout);
    assert_eq!(checks(&deployed, "warning"), [""; 0]);
}

#[test]
fn doctor_with_json_lists_each_check() {
    let mut p = with_xtask();
    p.change("pidfile bin/app", "var KEY=${KEY}\npidfile bin/app");
    let ran = run(&p, "doctor dev --json", &[]).code(1);
    let it: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&it["works"], &it["env"], &it["ci"]), (&false.into(), &"dev".into(), &false.into()));
    assert_eq!((&it["broken"], &it["warnings"]), (&1.into(), &0.into()));
    let checks = it["checks"].as_array().unwrap();
    let sick = checks.iter().find(|check| check["state"] == "broken").unwrap();
    assert_eq!((&sick["group"], &sick["subject"], &sick["what"]), (&"dev".into(), &().into(), &"KEY".into()));
    assert!(sick["hint"].as_str().unwrap().starts_with("export KEY="), "{sick}");
    assert!(checks.iter().any(|check| check["subject"] == "file:srv/dev" && check["what"] == "disk"), "{it}");
    for check in checks {
        assert_eq!(
            check["hint"].is_string(),
            ["broken", "warning"].contains(&check["state"].as_str().unwrap()),
            "{check}"
        );
    }
}

#[test]
fn doctor_without_git_or_ssh_names_the_program() {
    let mut p = with_xtask();
    let tools = crate::record::tempdir();
    p.var("PATH", &programs_without(&tools.path().join("a"), &["git"]));
    let ran = broken(&p, "doctor", "git: cannot run `git`", "apt-get install git");
    assert!(checks(&ran, "skipped").iter().any(|it| it.contains("git does not run")), "{}", ran.stdout);
    assert_eq!(checks(&ran, "broken").len(), 1, "what follows from it is not broken too: {}", ran.stdout);
    p.var("PATH", &programs_without(&tools.path().join("b"), &["ssh"]));
    p.change("target file:srv/dev", "target ssh://nowhere.invalid/srv/dev");
    broken(&p, "doctor dev", "ssh: cannot run `ssh`", "apt-get install openssh-client");
}

#[test]
fn doctor_without_repository_or_commit_is_broken() {
    let p = Project::bare("include www\nstore file:store\nenv dev\ntarget file:srv/dev\n");
    broken(&p, "doctor", "is not a git checkout", "`git init`, commit");
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    broken(&p, "doctor", "has no commit yet", "git add --all && git commit");
    p.commit("1");
    warned(&p, "doctor", "alias: .cargo/config.toml has none", "printf '[alias]");
}

#[test]
fn doctor_of_dirty_detached_or_shallow_checkout_warns() {
    let p = with_xtask();
    p.write("new", "");
    warned(&p, "doctor", "uncommitted changes", "git status");
    p.commit("2");
    p.git(&["checkout", "--quiet", "--detach"]);
    warned(&p, "doctor", "is not on a branch", "git switch");
    p.git(&["switch", "--quiet", "main"]);
    let head = p.git(&["rev-parse", "HEAD"]);
    fs::write(p.path(".git/shallow"), format!("{head}\n")).unwrap();
    warned(&p, "doctor", "is shallow", "git fetch --unshallow");
    p.write(".git/shallow", "");
    run(&p, "doctor", &crate::account::vars(&[("CIRCLE_SHA1", &"1".repeat(40))])).code(1).stdout_has("CIRCLE_SHA1");
}

#[test]
fn doctor_of_invalid_or_incomplete_project_is_broken() {
    let mut p = with_xtask();
    p.change("pidfile bin/app", "keep 1\npidfile bin/app");
    let ran = broken(&p, "doctor", "keeps 1 release(s)", "set `keep` to 2 or more");
    assert!(ran.stdout.contains("dev: file:srv/dev"), "and goes on: {}", ran.stdout);
    p.change("keep 1\n", "");
    fs::remove_file(p.path(".cargo/config.toml")).unwrap();
    broken(
        &p,
        "doctor --ci",
        "alias: .cargo/config.toml has none, but every job runs `cargo xtask`",
        "printf '[alias]",
    );
    p.write(".cargo/config.toml", "[alias]\nxtask = \"check\"\n");
    broken(&p, "doctor --ci", "`cargo xtask` is `check`", "in .cargo/config.toml: xtask =");
    p.git(&["checkout", "--quiet", "."]);
    fs::remove_file(p.path("Cargo.lock")).unwrap();
    broken(&p, "doctor --ci", "Cargo.lock: there is none", "cargo generate-lockfile");
    p.git(&["checkout", "--quiet", "."]);
    p.write(".circleci/rollback.yml", "version: 2.1\n");
    broken(&p, "doctor --ci", "up to date with xtask/src/main.rs: .circleci/rollback.yml", "cargo xtask ci generate");
    // A deploy from here does not read it.
    warned(&p, "doctor", "up to date with xtask/src/main.rs: .circleci/rollback.yml", "cargo xtask ci generate");
    fs::remove_dir_all(p.path(".circleci")).unwrap();
    broken(&p, "doctor --ci", "config.yml, .circleci/rollback.yml, .circleci/deploy.yml", "cargo xtask ci generate");
    p.git(&["checkout", "--quiet", "."]);
    p.change("store circleci:workspace", "store circleci:workspace\nhandoff s3");
    broken(&p, "doctor", "which this project lacks", "add \"s3://BUCKET/PREFIX\"");
}

#[test]
fn doctor_with_file_in_place_of_store_or_target_is_broken() {
    let mut p = with_xtask();
    p.change("store circleci:workspace\n", "store circleci:workspace\nstore file:kept/store\nstore nonsense:x\n");
    p.write("kept", "");
    p.write("srv/dev", "");
    p.commit("in the way");
    let ran = broken(&p, "doctor dev", "file:kept/store: ", "move it away, or name another directory in `stores`");
    let all = checks(&ran, "broken");
    assert!(all[1].contains("is not a store URL") && all[1].contains("use file:DIR"), "{all:?}");
    assert!(all[2].contains("srv/dev is not a directory") && all[2].contains("give the env another target"), "{all:?}");
}

#[test]
fn doctor_with_unset_variable_or_invalid_check_url_is_broken() {
    let mut p = with_xtask();
    p.change("pidfile bin/app", "var PASSWORD=${DB_PASSWORD}\nvar KEY=${API_KEY}\ncontext shop-dev\npidfile bin/app");
    p.run("ci generate").ok();
    p.commit("variables");
    let ran = broken(&p, "doctor dev", "DB_PASSWORD, which is not set", "export DB_PASSWORD=");
    let all = checks(&ran, "broken");
    assert!(
        all[1].contains("API_KEY, which is not set") && all[1].contains("the variables of the context shop-dev"),
        "{all:?}"
    );
    p.var("DB_PASSWORD", "opensesame9");
    p.var("API_KEY", "opensesame8");
    let ran = run(&p, "doctor dev -v", &[]).code(0);
    assert!(!ran.stdout.contains("opensesame") && !ran.stderr.contains("opensesame"), "{ran:?}");
    let port = p.port("dev");
    p.change(&format!("http http://127.0.0.1:{port}/"), "http ftp://127.0.0.1/");
    broken(
        &p,
        "doctor dev",
        "health check: `ftp://127.0.0.1/version` is not an http or https URL",
        "http://127.0.0.1:8080/health",
    );
}

#[test]
fn doctor_of_stopped_or_unhealthy_service_warns() {
    let mut p = with_xtask();
    p.release("1");
    p.run("deploy dev").ok();
    let pid = p.read("srv/dev/service/process").split(' ').next().unwrap().to_owned();
    assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    crate::project::eventually("it is gone", || p.path("srv/dev/service/exit").exists());
    warned(&p, "doctor dev", "its service is stopped", "cargo xtask logs dev");
    let status = p.run("status dev").ok().stdout_has("its service is stopped").stdout_has("cargo xtask logs dev");
    // What it says to do helps.
    let (_, start) = status.stdout.split_once("`cargo xtask start ").expect("a command");
    p.run(&format!("start {}", start.split_once('`').expect("its end").0)).ok();
    assert!(!p.run("status dev").ok().stdout.contains("does not run"));
    p.run("deploy dev").ok();
    let (old, new) = (p.port("dev"), crate::project::free_port());
    p.change(&format!("http http://127.0.0.1:{old}/"), &format!("http http://127.0.0.1:{new}/"));
    warned(&p, "doctor dev", "which is not healthy: GET http", "cargo xtask logs dev");
}

#[test]
fn doctor_with_port_in_use_by_another_program_warns() {
    let mut p = with_xtask();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in taken.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let free = p.port("dev");
    p.change(&format!("http http://127.0.0.1:{free}/"), &format!("http http://127.0.0.1:${{DEV_PORT:-{port}}}/"));
    warned(
        &p,
        "doctor dev",
        &format!("another program answers at http://127.0.0.1:{port}/version"),
        "DEV_PORT=ANOTHER",
    );
}

const OWNER: &str = r#"{"token":"a-b-0","by":"ana@laptop","machine":"elsewhere","pid":1,"started":null,"since":"2026-08-01T00:00:00Z","doing":"deploy x to dev","ci":null,"lease":180}"#;

#[test]
fn doctor_with_held_lock_is_broken_and_with_stale_lock_warns() {
    let p = with_xtask();
    p.write("srv/dev/.lock", OWNER);
    broken(&p, "doctor dev", "lock: held by ana@laptop", "cargo xtask deploy dev --lock-wait 600");
    let lock = fs::File::options().write(true).open(p.path("srv/dev/.lock")).unwrap();
    lock.set_modified(std::time::SystemTime::now() - Duration::from_secs(600)).unwrap();
    warned(&p, "doctor dev", "the next deploy takes over", "cargo xtask unlock dev");
    assert_eq!(p.read("srv/dev/.lock"), OWNER);
}

#[test]
fn doctor_of_target_changed_by_hand_is_broken() {
    let mut p = with_xtask();
    p.change("env dev\n", "env dev\nshared config/local.toml\nshared uploads/\n");
    broken(&p, "doctor dev", "shared/config/local.toml is missing", "create it");
    p.write("srv/dev/shared/config/local.toml", "");
    run(&p, "doctor dev", &[]).code(0);
    p.write("srv/dev/current/index.html", "by hand");
    broken(&p, "doctor dev", "`current` is not a symbolic link", "mv current current.by-hand");
    fs::remove_dir_all(p.path("srv/dev/current")).unwrap();
    p.change("shared config/local.toml\nshared uploads/\n", "");
    p.release("1");
    p.run("deploy dev").ok();
    p.add("app other\n");
    broken(&p, "doctor dev", "a release of shop is live, not of other", "its own directory");
}
