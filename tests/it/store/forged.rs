//! Releases in a store that an attacker wrote: manifest and digests agree with the forgery. Each is refused by `verify`,
//! `fetch` and `deploy` before a host is contacted, within a bound of memory and time.

mod archives;
mod hosts;
mod manifests;
mod tar;

use crate::fleet::hosts::Fleet;
use crate::project::Project;
use gangplank_model::release::digest;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tar::{END, entry};

/// The time of the commit of each forged release.
const TIME: &str = "2026-08-01T12:00:00Z";
pub const ID: &str = "20260801T120000-1a2b3c4";
pub const SHA: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f80912345678";
const TIME_MAX: Duration = Duration::from_secs(5);
/// Resident memory, in KiB.
const MEMORY_MAX: u64 = 64 << 10;

/// A release of a program, a file and a link, and how to forge it.
pub struct Forgery {
    /// Entries of the tar in order, without its end.
    entries: Vec<Vec<u8>>,
    /// What comes after them.
    end: Vec<u8>,
    /// As the bundle, in the place of what is made of the tar.
    bundle: Option<Vec<u8>>,
    /// The manifest, but for the digests of the bundle.
    pub manifest: Value,
    /// The last touch to the directory of the release.
    pub touch: Option<fn(&Path)>,
}

/// A forgery and what it is.
pub type Named = (&'static str, Forgery);

/// Every forgery.
#[cfg(feature = "s3")]
pub fn all() -> Vec<Named> {
    [archives::all(), manifests::all()].into_iter().flatten().collect()
}

impl Forgery {
    pub fn new() -> Self {
        let file = |path: &str, mode: u32, text: &str| json!({ "path": path, "bytes": text.len(), "mode": mode, "sha256": digest::of(text.as_bytes()) });
        Self {
            entries: vec![
                entry(b'0', "bin/app", 0o755, b"#!/bin/sh\n"),
                entry(b'0', "top/file", 0o644, b"hello\n"),
                link("top/link", "file"),
            ],
            end: END.into(),
            bundle: None,
            manifest: json!({
                "schema": 1, "app": "shop", "id": ID,
                "commit": { "sha": SHA, "time": TIME, "branch": "main", "tag": null, "dirty": false },
                "ci": null, "toolchain": null,
                "bundle": { "file": format!("shop-{ID}.tar.gz"), "bytes": 0, "sha256": "", "tar_sha256": "" },
                "files": [
                    file("bin/app", 0o755, "#!/bin/sh\n"),
                    file("top/file", 0o644, "hello\n"),
                    { "path": "top/link", "bytes": 0, "mode": 0o755, "link": "file" },
                ],
            }),
            touch: None,
        }
    }

    /// Adds a file, or a link with `to`, to the tar and to the manifest.
    fn add(&mut self, path: &str, to: Option<&str>) -> &mut Self {
        let files = self.manifest["files"].as_array_mut().unwrap();
        match to {
            Some(to) => {
                files.push(json!({ "path": path, "bytes": 0, "mode": 0o755, "link": to }));
                let long_to = if to.len() > 100 { tar::long(b'K', to) } else { vec![] };
                self.entries.push([long_to, long_path(path), link(path, to)].concat());
            }
            None => {
                files.push(json!({ "path": path, "bytes": 1, "mode": 0o644, "sha256": digest::of(b"x") }));
                self.entries.push([long_path(path), entry(b'0', path, 0o644, b"x")].concat());
            }
        }
        self
    }

    /// Writes the release into a store.
    pub fn write(&self, store: &Path) -> PathBuf {
        let dir = store.join(self.manifest["id"].as_str().unwrap());
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let tar = [self.entries.concat(), self.end.clone()].concat();
        let bundle = self.bundle.clone().unwrap_or_else(|| tar::row(&tar));
        let mut manifest = self.manifest.clone();
        let fields = [
            ("bytes", json!(bundle.len())),
            ("sha256", digest::of(&bundle).into()),
            ("tar_sha256", digest::of(&tar).into()),
        ];
        for (field, value) in fields {
            if manifest["bundle"][field] == json!(0) || manifest["bundle"][field] == json!("") {
                manifest["bundle"][field] = value;
            }
        }
        let json = serde_json::to_string_pretty(&manifest).unwrap() + "\n";
        let name = manifest["bundle"]["file"].as_str().unwrap().to_owned();
        let sums = format!(
            "{}  {name}\n{}  manifest.json\n",
            manifest["bundle"]["sha256"].as_str().unwrap(),
            digest::of(json.as_bytes())
        );
        if !name.contains('/') {
            fs::write(dir.join(&name), bundle).unwrap();
        }
        fs::write(dir.join("SHA256SUMS"), sums).unwrap();
        fs::write(dir.join("manifest.json"), json).unwrap();
        if let Some(touch) = self.touch {
            touch(&dir);
        }
        dir
    }
}

fn link(path: &str, to: &str) -> Vec<u8> {
    tar::Header::new(b'2', path, 0o755, 0).link(to).done()
}

fn long_path(path: &str) -> Vec<u8> {
    if path.len() > 100 { tar::long(b'L', path) } else { vec![] }
}

/// A project whose store is a directory, with hosts here and over ssh.
fn project(fleet: Option<&Fleet>) -> Project {
    let mut p = Project::new();
    if let Some(fleet) = fleet {
        p.change("target file:srv/prod\napproval\n", &format!("target {}\n", fleet.target(0, "app")));
        p.var("PATH", &fleet.path());
    }
    p
}

/// Every file below a directory, to see what a command wrote.
fn all_files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().unwrap().is_dir() {
            found.extend(all_files(&entry.path()));
        }
    }
    found.sort();
    found
}

/// Runs a command within the bounds. Gives its exit code and what it printed.
fn bounded(p: &Project, what: &str, line: &str) -> (i32, String) {
    let started = Instant::now();
    let mut child = p.start(line);
    let (status, exe) = (format!("/proc/{}/status", child.id()), format!("/proc/{}/exe", child.id()));
    let own = std::env::current_exe().ok();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        // For a phase before it becomes the program, the child has the memory of this process.
        let is_program = fs::read_link(&exe).is_ok_and(|exe| Some(exe) != own);
        let text = fs::read_to_string(&status).unwrap_or_default();
        let resident = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).filter(|_| is_program);
        peak = peak.max(resident.map_or(0, |kib| kib.trim().trim_end_matches(" kB").parse().unwrap()));
        if started.elapsed() > TIME_MAX {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{what}: `{line}` runs for more than {TIME_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(peak < MEMORY_MAX, "{what}: `{line}` needs {peak} KiB: {said}");
    (output.status.code().unwrap_or(-1), said)
}

/// Everything that a forged release must not do. Gives what is wrong.
fn misdeeds(p: &Project, fleet: &Fleet, name: &str, forgery: &Forgery) -> Vec<String> {
    let mut wrong = Vec::new();
    let dir = forgery.write(&p.path("store"));
    let outside = [p.path("srv"), fleet.srv(0), p.path("target/got")];
    let before: Vec<_> = outside.iter().map(|dir| all_files(dir)).collect();
    let verify = format!("verify '{}'", dir.display());
    let mut lines = vec![verify.as_str(), "fetch 20260801T120000-1a2b3c4 --into target/got"];
    lines.extend(["deploy dev 20260801T120000-1a2b3c4", "deploy prod 20260801T120000-1a2b3c4", "deploy dev latest"]);
    for line in lines {
        let (code, said) = bounded(p, name, line);
        // What has no release that can be read has none at all.
        if ![7, 5].contains(&code) || said.contains("panicked") || !said.contains("hint: ") {
            wrong.push(format!("{name}: `{line}` ended with {code}: {}", said.trim()));
        }
    }
    let (code, said) = bounded(p, name, "releases");
    if code != 0 || said.chars().any(|c| c == '\u{202e}') || said.len() > 20_000 {
        wrong.push(format!("{name}: `releases` ended with {code}: {}", said.chars().take(2000).collect::<String>()));
    }
    for (dir, before) in outside.iter().zip(before) {
        let after = all_files(dir);
        let new: Vec<_> = after.iter().filter(|path| !before.contains(path)).collect();
        let harmless =
            |path: &&String| path.ends_with("/got") || path.ends_with("srv/dev") || path.ends_with("srv/app");
        if !new.iter().all(harmless) {
            wrong.push(format!("{name}: it wrote {new:?}"));
        }
    }
    wrong
}

/// Tries each forgery; a release that is not forged goes live first, so that no test passes by refusing everything.
fn refuse_all(forgeries: &[Named]) {
    let Some(fleet) = Fleet::start(1) else { return };
    let p = project(Some(&fleet));
    let dir = Forgery::new().write(&p.path("store"));
    p.run(&format!("verify '{}'", dir.display())).ok();
    p.run("deploy dev latest").ok();
    p.run("deploy prod latest").ok();
    p.run("verify @prod").ok();
    for root in [p.path("srv/dev"), fleet.srv(0).join("app")] {
        fs::remove_dir_all(root).unwrap();
    }
    let wrong: Vec<_> = forgeries.iter().flat_map(|(name, forgery)| misdeeds(&p, &fleet, name, forgery)).collect();
    assert!(wrong.is_empty(), "{} of {} forgeries:\n{}", wrong.len(), forgeries.len(), wrong.join("\n"));
}
