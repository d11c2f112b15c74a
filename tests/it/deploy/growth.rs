//! What grows with a store and a history, as a table: `cargo test --package xtask --all-features --test it growth --
//! --ignored --nocapture`. Nothing is asserted of times; docs/performance.md has what was found.

use crate::project::Project;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Wall time in seconds and the largest resident set in MiB of a command.
fn cost(p: &Project, line: &str) -> (f64, u64) {
    let inner = p.command(line);
    let mut command = Command::new("/usr/bin/time");
    command.args(["-f", "%M"]).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(inner.get_current_dir().unwrap()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let started = Instant::now();
    let output = command.stdout(Stdio::null()).output().expect("GNU time is installed");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line}: {said}");
    let kib: u64 = said.trim().lines().last().unwrap().parse().unwrap();
    (started.elapsed().as_secs_f64(), kib / 1024)
}

/// Fills the store with copies of a release, each of a commit of its own a second older than the one before.
fn fill(p: &Project, id: &str, releases: usize) {
    let text = p.read(&format!("store/{id}/manifest.json"));
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let commit = manifest["commit"]["sha"].as_str().unwrap().to_owned();
    let time = manifest["commit"]["time"].as_str().unwrap().to_owned();
    let have = fs::read_dir(p.path("store")).unwrap().count();
    for n in have..releases {
        let other = format!("20260731T{:02}{:02}{:02}-{n:07x}", n / 3600 % 24, n / 60 % 60, n % 60);
        let at = format!("2026-07-31T{:02}:{:02}:{:02}Z", n / 3600 % 24, n / 60 % 60, n % 60);
        let dir = p.path(&format!("store/{other}"));
        fs::create_dir(&dir).unwrap();
        let sha = format!("{n:07x}{}", "0".repeat(33));
        fs::write(dir.join("manifest.json"), text.replace(id, &other).replace(&commit, &sha).replace(&time, &at))
            .unwrap();
    }
}

#[test]
#[ignore = "group growth"]
fn cost_of_growing_stores_and_histories_is_printed() {
    for files in [4, 200] {
        let p = Project::new();
        for n in 0..files {
            p.write(&format!("www/{n}/a-name-of-usual-length.html"), &format!("{n}"));
        }
        let id = p.release("1");
        p.run("put").ok();
        p.run("deploy dev").ok();
        for releases in [10, 100, 1000, 10_000] {
            fill(&p, &id, releases);
            for line in ["releases", "releases --limit 10000", "plan dev", "status", "deploy dev"] {
                let (seconds, mib) = cost(&p, line);
                println!("{files} files, {releases} releases: {line}: {seconds:.2} s, {mib} MiB");
            }
        }
        let line = p.read("srv/dev/history.jsonl").lines().last().unwrap().to_owned();
        for lines in [1000, 10_000, 100_000] {
            fs::write(p.path("srv/dev/history.jsonl"), format!("{line}\n").repeat(lines)).unwrap();
            for line in ["status", "history dev", "plan dev"] {
                let (seconds, mib) = cost(&p, line);
                println!("{files} files, {lines} lines of history: {line}: {seconds:.2} s, {mib} MiB");
            }
        }
    }
}

/// Text that compresses to a third or so, as pages and programs do.
fn text(bytes: usize) -> String {
    let mut seed = 1u64;
    let mut line = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("<li>{:x} and {}</li>\n", seed >> 40, seed >> 33 & 1023)
    };
    let mut piece = String::new();
    while piece.len() < 1 << 20 {
        piece.push_str(&line());
    }
    piece.repeat(bytes / piece.len() + 1)[..bytes].to_owned()
}

#[test]
#[ignore = "group growth"]
fn cost_of_growing_files_and_bytes_is_printed() {
    const MIB: usize = 1 << 20;
    for (files, bytes) in [(100, 10_000), (1000, 10_000), (10_000, 10_000), (100_000, 10_000)].into_iter().chain([
        (1, 10 * MIB),
        (1, 100 * MIB),
        (1, 1000 * MIB),
    ]) {
        let p = Project::new();
        let text = text(bytes);
        for n in 0..files {
            p.write(&format!("www/{}/{n}.html", n / 100), &format!("{n} {text}"));
        }
        p.commit("1");
        let took = |what: &str, line: &str| {
            let (seconds, mib) = cost(&p, line);
            println!("{files} files of {bytes} bytes: {what}: {seconds:.2} s, {mib} MiB");
        };
        took("build", "build");
        took("build again", "build");
        took("verify", "verify HEAD");
        took("deploy", "deploy dev");
        took("deploy again", "deploy dev");
    }
}
