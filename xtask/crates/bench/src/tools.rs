//! `bench overhead` and `bench compile`: the cost of an xtask compared with plain cargo.

use crate::compare::{Baseline, Compare, Report};
use crate::launch;
use crate::options::{Options, Scratch, private_dir};
use gangplank_model::error::{Kind, Result, WithHint};
use gangplank_system::context::Context;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The peer: cargo without an xtask.
pub const CARGO: &str = "cargo";

/// The dependencies of a typical minimal xtask.
const BRIEF: &str = r#"
[dependencies]
anyhow = "1"
clap = { version = "4", features = ["derive"] }
flate2 = "1"
reqwest = { version = "0.13", default-features = false, features = ["blocking", "rustls-no-provider"] }
rustls = { version = "0.23", default-features = false, features = ["ring", "std", "tls12"] }
serde = { version = "1", features = ["derive"] }
serde_json = "1"
sha2 = "0.11"
tar = { version = "0.4", default-features = false }
walkdir = "2"
xshell = "0.2"
"#;

/// The words of cargo that compile an xtask.
pub const BUILD_XTASK: &[&str] = &["build", "--quiet", "--package", "xtask", "--bin", "xtask"];

/// The sample app of this repository.
const APP: &str = "app";

/// `bench overhead`: a no-op build, and the start of the command, in this project.
pub fn overhead(ctx: &Context, options: &Options) -> Result<Report> {
    options.check_against("overhead", [CARGO].into_iter())?;
    let scratch = Scratch(private_dir(ctx)?);
    let empty = project(&scratch.0.join("empty"), "")?;
    let build = ["build", "--release", "--locked", "--quiet", "--package", APP];
    let races = [
        ("build", ["xtask", "build"].to_vec(), cargo(ctx, &ctx.root, &build)),
        ("--help", ["xtask", "--help"].to_vec(), cargo(ctx, &empty, &["run", "--quiet"])),
    ];
    let mut rows = Vec::new();
    for (what, ours, theirs) in races {
        let baselines = vec![baseline("ours", cargo(ctx, &ctx.root, &ours), None), baseline(CARGO, theirs, None)];
        let race = Compare { workload: APP, what, alike: false, baselines };
        // The first run has work to do.
        race.run(ctx, &scratch.0, 1)?;
        rows.extend(race.run(ctx, &scratch.0, options.rounds)?);
    }
    Ok(Report { bench: "overhead", rounds: options.rounds, cpus: crate::options::cpus(), rows, missing: vec![] })
}

/// `bench compile`: a full build of the xtask of a project that `new` makes, compared with a minimal one, and of a job on
/// request without and with a build.
pub fn compile(ctx: &Context, options: &Options) -> Result<Report> {
    options.check_against("compile", [CARGO].into_iter())?;
    let scratch = Scratch(private_dir(ctx)?);
    let brief = project(&scratch.0.join("brief"), BRIEF)?;
    let ours = new_project(ctx, &scratch.0.join("app"))?;
    // The versions of this project are available offline.
    let lock = || "is there a Cargo.lock? `cargo generate-lockfile`".to_owned();
    fs::copy(ctx.root.join("Cargo.lock"), brief.join("Cargo.lock")).with_hint(
        Kind::Failed,
        || "cannot copy Cargo.lock".into(),
        lock,
    )?;
    let baseline = |name, dir: &Path, words: &[&str]| {
        let target = scratch.0.join(format!("target-{name}"));
        let (make, out) = (cargo(ctx, dir, words), target.clone());
        let command = move || {
            let mut command = make();
            command.arg("--target-dir").arg(&out);
            command
        };
        baseline(name, Box::new(command), Some(target))
    };
    let baselines = vec![
        baseline("ours", &ours, &[BUILD_XTASK, &["--locked"]].concat()),
        baseline(CARGO, &brief, &["build", "--quiet"]),
    ];
    let race = Compare { workload: "xtask", what: "compile", alike: false, baselines };
    let mut rows = race.run(ctx, &scratch.0, options.rounds)?;
    rows.extend(launch::race(ctx, options, &scratch.0)?);
    Ok(Report { bench: "compile", rounds: options.rounds, cpus: crate::options::cpus(), rows, missing: vec![] })
}

/// A project with every answer of `new` at its default.
fn new_project(ctx: &Context, dir: &Path) -> Result<PathBuf> {
    let words = ["run", "--quiet", "--locked", "--package", "gangplank-new", "--", "new", "--yes", "--quiet"];
    let mut command = ctx.cargo(&words);
    command.arg(dir);
    ctx.read(command)?;
    Ok(dir.to_owned())
}

type Make = Box<dyn Fn() -> Command>;

/// A contender that runs a command.
pub(crate) fn baseline(name: &'static str, command: Make, makes: Option<PathBuf>) -> Baseline<'static> {
    Baseline { name, command, makes }
}

/// Cargo in a directory, with the environment of a shell.
pub(crate) fn cargo(ctx: &Context, dir: &Path, words: &[&str]) -> Make {
    let there = ctx.at(dir);
    let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
    Box::new(move || {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        there.cargo(&words)
    })
}

/// A package with an empty `main`.
fn project(dir: &Path, dependencies: &str) -> Result<PathBuf> {
    let write = || {
        fs::create_dir_all(dir.join("src"))?;
        fs::write(dir.join("src/main.rs"), "fn main() {}\n")?;
        let package = "[package]\nname = \"empty\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n";
        fs::write(dir.join("Cargo.toml"), format!("{package}{dependencies}"))
    };
    let what = || format!("cannot write into {}", dir.display());
    write().with_hint(Kind::Failed, what, || "TMPDIR names another place".into())?;
    Ok(dir.to_owned())
}
