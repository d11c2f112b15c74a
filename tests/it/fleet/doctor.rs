//! Hosts that would fail a deploy, each in its own way: the doctor reports the problem and its fix.

use super::hosts::Fleet;
use crate::cli::doctor::{broken, checks, programs_without, run, warned};
use crate::project::{Project, free_port};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A project whose dev env is on some hosts.
fn project(fleet: &Fleet, hosts: usize) -> Project {
    let mut p = super::project(fleet, hosts, "");
    p.change("store file:store\n", "store file:store\nstore circleci:workspace\n");
    p.write(".cargo/config.toml", "[alias]\nxtask = \"run --package xtask --\"\n");
    p.write("Cargo.lock", "");
    p.run("ci generate").ok();
    p.commit("a project");
    p
}

/// A host whose `PATH` begins with its own directory.
fn with_programs() -> Option<(Fleet, Project)> {
    let path = std::env::var("PATH").unwrap();
    let fleet = Fleet::with_vars(1, &format!("PATH=@dir@/own:{path}"))?;
    let p = project(&fleet, 1);
    Some((fleet, p))
}

pub fn program(fleet: &Fleet, name: &str, text: &str) {
    let path = fleet.file("own").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// What is in a host's directory.
fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().flatten().map(|it| it.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn hosts_that_are_well_are_asked_once_each() {
    let Some(fleet) = Fleet::start(3) else { return };
    let p = project(&fleet, 3);
    let ran = run(&p, "doctor dev -v", &[]).code(0);
    assert!(ran.stdout.ends_with("\na deploy to dev would work\n"), "{}", ran.stdout);
    assert_eq!((checks(&ran, "warning"), checks(&ran, "broken")), (vec![], vec![]), "{}", ran.stdout);
    assert_eq!(ran.stderr.matches("# look around").count(), 3, "{}", ran.stderr);
    assert!((0..3).all(|host| names(&fleet.srv(host)).is_empty()), "nothing is left there");
    p.release("1");
    p.run("deploy dev").ok();
    let before = names(&fleet.srv(0).join("app"));
    run(&p, "doctor dev", &[]).code(0);
    assert_eq!(names(&fleet.srv(0).join("app")), before);
}

#[test]
fn doctor_with_unreachable_host_checks_the_others() {
    let Some(fleet) = Fleet::start(2) else { return };
    let mut p = project(&fleet, 2);
    fleet.reach_by(0, free_port());
    fs::write(fleet.srv(1).join("app"), "").unwrap();
    let ran = broken(&p, "doctor dev", "Connection refused", "check that it can be reached: `ssh fleet0 true`");
    let all = checks(&ran, "broken");
    assert!(all[1].contains("app is not a directory") && all.len() == 3, "{all:?}");
    assert!(checks(&ran, "skipped").iter().any(|it| it == "host: not reached"), "{}", ran.stdout);
    p.change(&fleet.target(0, "app"), "ssh://no-such-host.invalid/srv/app");
    broken(&p, "doctor dev", "unknown host", "check its name and DNS");
    p.change("ssh://no-such-host.invalid/srv/app", "ssh://fleet0");
    broken(&p, "doctor dev", "it has no directory", "use ssh://USER@HOST/DIR");
}

#[test]
fn doctor_of_host_with_unknown_or_changed_key_is_broken() {
    let Some(fleet) = Fleet::start(1) else { return };
    let p = project(&fleet, 1);
    let known = fs::read_to_string(fleet.file("known_hosts")).unwrap();
    fs::write(fleet.file("known_hosts"), "").unwrap();
    broken(&p, "doctor dev", "its host key is unknown", "`ssh-keyscan fleet0`");
    let other = fs::read_to_string(fleet.file("client.pub")).unwrap();
    let other: Vec<_> = other.split(' ').take(2).collect();
    fs::write(fleet.file("known_hosts"), format!("fleet0 {}\n", other.join(" "))).unwrap();
    broken(&p, "doctor dev", "its host key differs from known_hosts", "ssh-keygen -R 'fleet0'");
    fs::write(fleet.file("known_hosts"), known).unwrap();
    fs::write(fleet.file("client.pub"), "").unwrap();
    broken(&p, "doctor dev", "authentication failed", "check which key is used: `ssh -v fleet0`");
}

#[test]
fn doctor_of_silent_host_ends_and_is_broken() {
    let Some(fleet) = Fleet::start(1) else { return };
    let p = project(&fleet, 1);
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    fleet.reach_by(0, silent.local_addr().unwrap().port());
    let started = Instant::now();
    broken(&p, "doctor dev", "ssh: ", "fleet0");
    assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
}

#[test]
fn doctor_of_host_without_programs_names_them() {
    let Some(fleet) = Fleet::with_vars(1, "PATH=@dir@/own") else { return };
    let mut p = project(&fleet, 1);
    programs_without(&fleet.file("own"), &["tar", "sha256sum", "shasum", "curl", "wget"]);
    let sick = "missing, or not on PATH: tar, sha256sum";
    broken(&p, "doctor dev", sick, "on that host, e.g. `apt-get install tar coreutils`");
    p.change("env dev\n", "env dev\npull\n");
    p.run("ci generate").ok();
    p.commit("pull");
    broken(&p, "doctor dev", "tar, sha256sum, curl", "`apt-get install tar coreutils curl`");
}

#[test]
fn doctor_of_unwritable_directory_names_the_remedy() {
    if !rustix_is_root() {
        return crate::record::skip("a login that may not write: only root can become another user");
    }
    let daemon = "ForceCommand exec setpriv --reuid=1 --regid=1 --clear-groups sh -c \"$SSH_ORIGINAL_COMMAND\"\n";
    let Some(fleet) = Fleet::with(1, |_| daemon.into()) else { return };
    let p = project(&fleet, 1);
    // Others cannot even look into a temporary directory.
    broken(&p, "doctor dev", "may not write", "as root of that host: `mkdir -p ");
    fs::set_permissions(fleet.file("."), PermissionsExt::from_mode(0o755)).unwrap();
    let (app, srv) = (fleet.srv(0).join("app"), fleet.srv(0));
    broken(&p, "doctor dev", &format!("may not write {}", srv.display()), &format!("chown daemon {}`", app.display()));
    fs::create_dir_all(app.join("releases")).unwrap();
    std::os::unix::fs::chown(&app, Some(1), None).unwrap();
    broken(&p, "doctor dev", "app/releases", &format!("chown -R daemon {}`", app.display()));
    std::os::unix::fs::chown(app.join("releases"), Some(1), None).unwrap();
    run(&p, "doctor dev", &[]).code(0);
}

fn rustix_is_root() -> bool {
    let id = std::process::Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

#[test]
fn doctor_of_full_or_hanging_disk_is_broken_and_nearly_full_warns() {
    let Some((fleet, p)) = with_programs() else { return };
    let df = |kib: &str, inodes: &str| {
        program(
            &fleet,
            "df",
            &format!(
                "free={kib}; [ \"$1\" = -Pk ] || free={inodes}; echo head; echo \"/dev/a b\" >&2; echo \"/dev/a 9 9 $free 9% /\""
            ),
        );
    };
    df("2048", "100");
    broken(&p, "doctor dev", "disk: 2.0 MiB free, but installing a release takes 16 MiB", "cargo xtask prune");
    df("204800", "0");
    broken(&p, "doctor dev", "no inodes left", "df -i");
    df("204800", "100");
    warned(&p, "doctor dev", "disk: 200 MiB free", "df -h");
    program(&fleet, "df", "exec sleep 60");
    let started = Instant::now();
    broken(&p, "doctor dev", "disk: it did not report its free space within 15 s", "df -k");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn doctor_of_host_with_wrong_clock_warns() {
    let Some((fleet, p)) = with_programs() else { return };
    program(&fleet, "date", "echo $(($(/bin/date \"$@\") - 3600))");
    warned(&p, "doctor dev", "behind ours", "timedatectl set-ntp true");
    program(&fleet, "date", "echo $(($(/bin/date \"$@\") + 120))");
    warned(&p, "doctor dev", "ahead of ours", "timedatectl set-ntp true");
}

#[test]
fn doctor_of_login_without_lasting_user_systemd_is_broken() {
    let Some((fleet, mut p)) = with_programs() else { return };
    p.change("healthy test ! -e www/broken\n", "systemd shop|restart|bin/app\n");
    p.run("ci generate").ok();
    p.commit("systemd");
    program(&fleet, "systemctl", "echo 'Failed to connect to bus' >&2; exit 1");
    broken(&p, "doctor dev", "systemd does not answer this login", "loginctl enable-linger");
    program(&fleet, "systemctl", "exit 0");
    program(&fleet, "loginctl", "echo no");
    broken(
        &p,
        "doctor dev",
        "when the last session of that login ends",
        "as root of that host `loginctl enable-linger",
    );
    program(&fleet, "loginctl", "echo yes");
    run(&p, "doctor dev", &[]).code(0);
    assert!(names(&fleet.srv(0)).is_empty(), "nothing is left there");
}

#[test]
fn doctor_of_login_with_systemd_passes_before_and_after_a_deploy() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (p, _) = super::systemd::project(&fleet, 1, "restart");
    p.release("1");
    let ran = run(&p, "doctor dev", &[]).code(0);
    assert!(checks(&ran, "ok").iter().any(|it| it.contains("systemd")), "{}", ran.stdout);
    p.run("deploy dev").ok();
    run(&p, "doctor dev", &[]).code(0);
    let unit = fleet.home(0).join(".config/systemd/user/shop.service");
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    broken(&p, "doctor dev", "shop.service is not ours", "give the env another `unit`");
}
