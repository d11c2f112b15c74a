//! Benches from start to end, as small as they get. How fast anybody was is not asked.

use crate::project::Project;
use crate::record::skip;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A project, and a directory for all that its bench writes; nothing where sshd is not installed.
pub fn bench() -> Option<(Project, tempfile::TempDir)> {
    if !["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().any(|path| Path::new(path).exists()) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "install openssh-server");
        skip("bench fleet: there is no sshd (openssh-server)");
        return None;
    }
    let (mut p, own) = (Project::new(), crate::record::tempdir());
    p.var("TMPDIR", own.path().to_str().unwrap());
    for (dir, changed) in [("w", "first"), ("w.v2", "second")] {
        p.write(&format!("{dir}/same"), "same");
        p.write(&format!("{dir}/it"), changed);
    }
    Some((p, own))
}

/// Processes that have the directory of a bench in their command line.
pub fn left(own: &tempfile::TempDir) -> Vec<String> {
    let own = own.path().to_str().unwrap();
    let lines = fs::read_dir("/proc").unwrap().flatten();
    let lines = lines.filter_map(|it| fs::read(it.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(own)).collect()
}

#[test]
fn bench_fleet_reports_each_peer_and_leaves_nothing() {
    let Some((p, own)) = bench() else { return };
    let words = "--hosts 2 --rounds 1 --delay-ms 0 --workload w --against scp --against tar-ssh";
    let ran = p.run(&format!("bench fleet {words} --json")).ok();
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["bench"], &report["hosts"], &report["rounds"]), (&"fleet".into(), &2.into(), &1.into()));
    assert_eq!(report["missing"], serde_json::json!([]));
    let rows: Vec<_> = report["rows"].as_array().unwrap().iter().collect();
    let of = |name: &str| rows.iter().map(|row| row[name].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("release"), ["first", "first", "change", "change"]);
    assert_eq!(of("against"), ["scp", "tar-ssh", "scp", "tar-ssh"]);
    for row in &rows {
        assert_eq!((&row["workload"], &row["delay_ms"]), (&"w".into(), &0.into()));
        assert!(row["ratio"].as_f64().unwrap() > 0.0, "{row}");
        for who in ["ours", "theirs"] {
            assert!(row[who]["seconds"].as_f64().unwrap() > 0.0, "{row}");
            assert!(row[who]["cpu_seconds"].is_f64(), "{row}");
            assert!(row[who]["bytes"].as_u64().unwrap() > 1000, "all goes by the proxy: {row}");
        }
    }
    ran.stderr_has("w, 0 ms, round 1 of 1: tar-ssh change ");
    assert_eq!(left(&own), [""; 0]);
    assert_eq!(fs::read_dir(own.path()).unwrap().count(), 0, "its files are gone");
}

#[test]
fn bench_fleet_with_peer_that_does_not_deliver_fails() {
    let Some((mut p, own)) = bench() else { return };
    // It makes the directory and brings nothing; the host is this machine.
    p.write_program("lazy/rsync", "#!/bin/sh\nfor last; do :; done\necho lazy; mkdir -p \"${last#*:}\"\n");
    p.var("PATH", &format!("{}:{}", p.path("lazy").display(), std::env::var("PATH").unwrap()));
    let words = "--hosts 1 --rounds 1 --delay-ms 0 --workload w --against rsync";
    let ran = p.run(&format!("bench fleet {words}")).fails(7, "rsync succeeded, but on h0", "--against");
    assert!(ran.stderr.contains("\nlazy\n"), "its last words: {}", ran.stderr);
    p.write_program("lazy/rsync", "#!/bin/sh\nexit 3\n");
    p.run(&format!("bench fleet {words}")).fails(1, "rsync failed with exit code", "--against NAME");
    p.write("w.v2/it", "first");
    p.run(&format!("bench fleet {words}")).fails(2, "the second release has the same files", "DIR.v2");
    assert_eq!(left(&own), [""; 0]);
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let Some((p, own)) = bench() else { return };
    let words = "--hosts 1 --delay-ms 300 --workload w --against scp";
    let mut child =
        p.command(&format!("bench fleet {words}")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    let begun = || left(&own).iter().any(|line| line.contains("bench-deploy") && line.contains("ssh://h0"));
    while !begun() {
        assert!(started.elapsed() < Duration::from_secs(60), "the first run does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(left(&own), [""; 0]);
    assert_eq!(fs::read_dir(own.path()).unwrap().count(), 0, "its files are gone");
}

/// The rows of a bench on a small directory: who was met, each with figures that make sense.
#[track_caller]
fn raced(p: &Project, line: &str, against: &[&str]) -> Vec<serde_json::Value> {
    let ran = p.run(&format!("{line} --rounds 1 --json")).ok();
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap().clone();
    assert_eq!(rows.iter().map(|row| row["against"].as_str().unwrap()).collect::<Vec<_>>(), against, "{report}");
    for row in &rows {
        let number = |who: &str, what: &str| row[who][what].as_f64().unwrap();
        assert!(row["ratio"].as_f64().unwrap() > 0.0 && number("ours", "seconds") > 0.0, "{row}");
        assert!(number("theirs", "seconds") > 0.0, "{row}");
    }
    rows
}

#[test]
fn packing_and_unpacking_are_measured_and_gone() {
    let (mut p, own) = (Project::new(), crate::record::tempdir());
    p.var("TMPDIR", own.path().to_str().unwrap());
    p.write("w/text", &"some text\n".repeat(1000));
    p.write("w/more/file", "more");
    let bundled = raced(&p, "bench bundle --workload w --against tar-gz", &["tar-gz"]);
    assert!(bundled[0]["ours"]["bytes"].as_u64().unwrap() > 500, "a manifest as well: {}", bundled[0]);
    let fetched = raced(&p, "bench fetch --workload w", &["tar", "tar-files"]);
    for row in &fetched {
        assert_eq!((&row["ours"]["bytes"], &row["theirs"]["bytes"]), (&10_004.into(), &10_004.into()), "{row}");
    }
    // Without a directory it makes one.
    let own_bytes = raced(&p, "bench fetch --against tar", &["tar"]);
    assert_eq!(own_bytes[0]["workload"], "small");
    for (bench, name) in [("bundle", "scp"), ("fetch", "tar-gz"), ("fleet", "cargo"), ("compile", "tar")] {
        let says = format!("{name} does not take part in bench {bench}");
        p.run(&format!("bench {bench} --against {name}")).fails(2, &says, "choose from ");
    }
    p.run("bench bundle --workload nowhere").fails(2, "nowhere is not there", "a workload is a directory DIR");
    assert_eq!(fs::read_dir(own.path()).unwrap().count(), 0, "its files are gone");
}
