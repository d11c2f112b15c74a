//! Uses new projects: each compiles its own engine, passes its own tests and runs its own pipeline.

use super::{command, git, make, ran};
use crate::project::{Ran, end_kept, free_port, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

/// A target directory that has what this workspace has compiled of other people's crates.
pub struct Compiled {
    pub dir: PathBuf,
    _one_at_a_time: MutexGuard<'static, ()>,
}

/// Cargo would make them wait for each other anyway.
static COMPILING: Mutex<()> = Mutex::new(());

impl Compiled {
    pub fn new() -> Self {
        let guard = COMPILING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tmp.join("made");
        for profile in ["debug", "release"].into_iter().filter(|profile| !dir.join(profile).exists()) {
            let from = tmp.parent().unwrap().join(profile);
            for part in [".fingerprint", "build", "deps"].into_iter().filter(|part| from.join(part).exists()) {
                let to = dir.join(profile).join(part);
                fs::create_dir_all(&to).unwrap();
                for entry in fs::read_dir(from.join(part)).unwrap() {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    let plain = name.trim_start_matches("lib");
                    if !["it-", "xtask", "gangplank", "app-", "pipeline", "process"]
                        .iter()
                        .any(|own| plain.starts_with(own))
                    {
                        // With its times, by which cargo tells what is fresh.
                        let copied = Command::new("cp").arg("-a").arg(from.join(part).join(&name)).arg(&to).status();
                        assert!(copied.unwrap().success());
                    }
                }
            }
        }
        Self { dir, _one_at_a_time: guard }
    }

    /// `cargo xtask` of a project.
    pub fn xtask(&self, project: &Path, line: &str, vars: &[(&str, String)]) -> Ran {
        let mut cargo = Command::new("cargo");
        let like = command(&[]);
        cargo.env_clear().envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        cargo.arg("xtask").args(line.split(' ')).current_dir(project).stdin(Stdio::null());
        cargo.env("CARGO_TARGET_DIR", &self.dir).envs(vars.iter().map(|(name, value)| (name, value)));
        ran(cargo)
    }
}

/// Ends what the pidfile service has started for a project.
pub struct Ended(pub PathBuf);

impl Drop for Ended {
    fn drop(&mut self) {
        for env in ["dev", "prod"] {
            end_kept(&self.0.join("target/deploy").join(env));
        }
    }
}

pub fn ports() -> [(&'static str, String); 2] {
    [("DEV_PORT", free_port().to_string()), ("PROD_PORT", free_port().to_string())]
}

#[test]
#[ignore = "group handoffs"]
fn new_in_made_project_is_refused() {
    let compiled = Compiled::new();
    let dir = crate::record::tempdir();
    let first = dir.path().join("first");
    make(&first, &["--name", "shop"]).ok();
    compiled.xtask(&first, "new ../second", &[]).fails(2, "is only in Gangplank's own repository", "in a checkout");
    compiled.xtask(&first, "bench bundle", &[]).fails(2, "is only in Gangplank's own repository", "in a checkout");
}

#[test]
#[ignore = "group handoffs"]
fn configs_of_new_project_match_its_compiled_main_rs() {
    let compiled = Compiled::new();
    // The engine from here is compiled once for all; the vendored one is the other test's.
    let engine = format!("path={}", root().display());
    // The third compiles object_store; it is among those that are run by hand.
    for handoff in ["workspace", "artifacts"] {
        let dir = crate::record::tempdir();
        let shop = dir.path().join("shop");
        let host = ["--target", "ssh://deploy@web1/srv/shop"];
        make(&shop, &[&["--handoff", handoff, "--engine", &engine][..], &host].concat()).ok();
        compiled.xtask(&shop, "ci generate --check", &[]).ok();
        let lint = compiled.xtask(&shop, "ci lint", &[]).ok();
        assert!(
            lint.stderr.contains("compiled without the linter: compiling it with gangplank/lint"),
            "{}",
            lint.stderr
        );
        assert_eq!(git(&shop, "status --porcelain"), "", "{handoff}");
    }
}

#[test]
#[ignore = "group handoffs"]
fn project_with_workspaces_delivers_itself() {
    delivers("workspace");
}

#[test]
#[ignore = "group handoffs"]
fn project_with_artifacts_delivers_itself() {
    delivers("artifacts");
}

#[test]
#[ignore = "group handoffs"]
fn project_with_s3_delivers_itself() {
    delivers("s3");
}

/// A project that is made passes its tests and runs its pipeline to both envs.
fn delivers(handoff: &str) {
    let compiled = Compiled::new();
    let dir = crate::record::tempdir();
    let project = dir.path().join("shop");
    make(&project, &["--handoff", handoff]).ok();
    let _ended = Ended(project.clone());
    compiled.xtask(&project, "test", &[]).ok();
    let ran = compiled.xtask(&project, "ci run --yes", &ports()).ok();
    assert!(ran.stdout.contains("success") && !ran.stdout.contains("failed"), "{handoff}: {}", ran.stdout);
    let status = compiled.xtask(&project, "status --json", &ports()).ok();
    let hosts: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let states: Vec<_> = hosts.as_array().unwrap().iter().map(|host| &host["state"]).collect();
    assert_eq!(states, ["live", "live"], "{handoff}");
    if handoff == "artifacts" {
        // With the output of the job, which says how it got its xtask.
        let on_request = "ci run --yes -v --set deploy-env=prod --set release=latest";
        let ran = compiled.xtask(&project, on_request, &ports()).ok();
        ran.stderr_has("running the xtask of job ").stderr_has("which was compiled from the same source");
        // Another engine: no program of it is stored, so it is compiled.
        let engine = project.join("xtask/crates/gangplank/src/lib.rs");
        fs::write(&engine, fs::read_to_string(&engine).unwrap() + "\n// Changed.\n").unwrap();
        git(&project, "commit --quiet --all --message changed");
        let ran = compiled.xtask(&project, on_request, &ports()).ok();
        ran.stderr_has("note: compiling the xtask: no job `check` of main");
    }
    assert_eq!(git(&project, "status --porcelain"), "");
}
