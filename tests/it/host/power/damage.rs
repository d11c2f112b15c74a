//! Files of the engine that an earlier version, or a bad disk, left empty or full of NULs.

use super::{Host, Service, own_files};
use crate::sample::draw;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of the engine on a host, with those of the process that runs.
fn damageable(host: &Host) -> Vec<PathBuf> {
    let own =
        own_files(&host.root).into_iter().filter(|file| !file.components().any(|part| part.as_os_str() == "releases"));
    let processes =
        ["process", "exit", "log.start", "since", "crashes"].map(|file| host.root.join("service").join(file));
    let units = own_files(&host.root.with_file_name("units"))
        .into_iter()
        .filter(|file| file.extension().is_some_and(|it| it == "service"));
    let mut files: Vec<_> = own.chain(processes.into_iter().filter(|file| file.exists())).collect();
    if matches!(host.service, Service::Systemd(..)) {
        files.extend(units);
    }
    files.push(host.root.join(".lock"));
    files
}

/// Damages a file: it is left empty, or its bytes are NULs.
fn damage(file: &Path, nuls: bool) {
    let bytes = fs::read(file).unwrap_or_else(|_| vec![b'x'; 100]);
    let bytes = if nuls { vec![0; bytes.len().max(1)] } else { vec![] };
    fs::write(file, bytes).unwrap();
}

/// Damages each file in turn, or some of them. After each, all commands work: `status`, a deploy that fails and is reverted, one that does not, and
/// a rollback, which knows the way back unless it is the history that was lost.
fn repair(name: &str, host: &Host, count: Option<usize>) {
    let p = &host.p;
    host.prepare();
    p.release("1");
    p.run("deploy dev").ok();
    p.release("2");
    p.run("deploy dev").ok();
    let files = damageable(host);
    assert!(files.len() > 2, "{files:?}");
    let all = u32::try_from(files.len() * 2).unwrap();
    for n in count.map_or_else(|| (1..=all).collect(), |count| draw(name, all, count)) {
        let (file, nuls) = (&files[(n as usize - 1) / 2], n % 2 == 0);
        let of = format!("{} {}", file.display(), if nuls { "has NULs" } else { "is empty" });
        eprintln!("{of}");
        let history = file.ends_with("history.jsonl");
        damage(file, nuls);
        p.run("status dev").ok();
        if matches!(host.service, Service::Pidfile | Service::Systemd(..)) {
            p.run("logs dev").ok();
        }
        host.break_next(true);
        p.release(&format!("{of}, broken"));
        let failed = p.run("deploy dev").code(1);
        assert!(history || failed.stderr.contains("is live again"), "{of}: {}", failed.stderr);
        host.break_next(false);
        p.release(&of);
        damage(file, nuls);
        p.run("deploy dev").ok();
        host.answers().unwrap_or_else(|reason| panic!("{of}: {reason}"));
        if !file.ends_with(".lock") {
            assert!(
                fs::read(file)
                    .map_or(true, |bytes| (!bytes.is_empty() || file.ends_with("socket")) && !bytes.contains(&0)),
                "{of}: it was not repaired"
            );
        }
        p.run("status dev").ok().stdout_has("live");
        if !history {
            damage(file, nuls);
            p.run("rollback dev").ok();
            host.answers().unwrap_or_else(|reason| panic!("{of}: {reason}"));
        }
    }
}

#[test]
fn deploy_repairs_damaged_files() {
    repair("damage without service", &Host::without_service(), Some(2));
    repair("damage with pidfile", &Host::with_pidfile(), Some(2));
    repair("damage with commands", &Host::with_commands(), Some(2));
}

#[test]
#[ignore = "group power"]
fn deploy_repairs_each_damaged_file() {
    repair("damage without service", &Host::without_service(), None);
    repair("damage with pidfile", &Host::with_pidfile(), None);
    repair("damage with commands", &Host::with_commands(), None);
}

#[test]
#[ignore = "group power"]
fn deploy_with_systemd_repairs_each_damaged_file() {
    let Some(host) = Host::with_systemd() else { return };
    fs::create_dir_all(host.root.with_file_name("units")).unwrap();
    repair("damage with systemd", &host, None);
}
