//! `test`: everything that has to hold before a commit is worth building, in one command for laptops and CI.

use crate::ci::{generate, lint};
use crate::cx::{Cx, Input, exit};
use crate::error::{Failure, Kind, Result};
use crate::event::ms_since;
use crate::project::Project;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Tests that could not run append a line to the file that this variable names, so that nobody misses it.
pub const SKIPS: &str = "GANGPLANK_SKIPS";
/// How many tests run side by side.
const THREADS: &str = "RUST_TEST_THREADS";
/// Tests that need Python's validator of CircleCI configs find it here.
pub const CHECK_JSONSCHEMA: &str = "GANGPLANK_CHECK_JSONSCHEMA";

/// What `test` answers.
#[derive(Debug, Serialize)]
pub struct Tested {
    /// Each check, with its wall time.
    pub checks: Vec<Checked>,
    /// What was skipped, and why.
    pub skipped: Vec<String>,
}

/// A check that passed.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// Its name.
    pub check: String,
    /// Wall time.
    pub ms: u64,
}

/// Runs the checks in order and stops at the first that fails. `quick` leaves out the end-to-end tests, and the features
/// that the project does not use. `args` go to the test harness.
pub fn test(cx: &Cx, project: &Project, quick: bool, args: &[String]) -> Result<Tested> {
    let skips = cx.root.join("target/test-skips.txt");
    let _ = (fs::create_dir_all(cx.root.join("target")), fs::remove_file(&skips));
    let mut tested = Tested { checks: Vec::new(), skipped: Vec::new() };
    let mut timed = |name: &str, work: &mut dyn FnMut() -> Result<()>| {
        cx.note(format!("checking {name}"));
        let started = Instant::now();
        work()?;
        let ms = ms_since(started);
        tested.checks.push(Checked { check: name.to_owned(), ms });
        Ok::<(), anyhow::Error>(())
    };
    let engines = is_engines_own(cx);
    // A vendored engine was tested at home, and a project may have features that exclude each other.
    let vendored = !engines && cx.root.join("xtask/engine/Cargo.toml").is_file();
    let others: &[&str] = if vendored { &["--exclude", "gangplank"] } else { &[] };
    let features: &[&str] = if quick || !engines { &[] } else { &["--all-features"] };
    if project.ci.format {
        timed("format", &mut || {
            component(cx, "rustfmt", "fmt")?;
            cargo(cx, &["fmt", "--all", "--check"], &[], "cargo fmt --all")
        })?;
    }
    timed("clippy", &mut || {
        component(cx, "clippy", "clippy")?;
        let hint = "cargo clippy --workspace --all-targets shows them again";
        let words = ["clippy", "--quiet", "--workspace", "--all-targets", "--locked"];
        let deny: &[&str] = if project.ci.deny_warnings { &["--", "--deny", "warnings"] } else { &[] };
        cargo(cx, &[&words[..], features, others, deny].concat(), &[], hint)
    })?;
    if !quick {
        timed("documentation", &mut || {
            let words = [&["doc", "--quiet", "--workspace", "--no-deps", "--locked"], features, others].concat();
            let deny: &[_] = if project.ci.deny_warnings { &[("RUSTDOCFLAGS", "--deny warnings")] } else { &[] };
            let shown = words.join(" ");
            cargo(cx, &words, deny, &format!("RUSTDOCFLAGS='--deny warnings' cargo {shown} shows them again"))
        })?;
    }
    timed("CircleCI config", &mut || {
        generate::generate(cx, project, project.ci.pattern, true)?;
        generate::CONFIGS.iter().try_for_each(|config| without_errors(cx, config))
    })?;
    timed("tests", &mut || {
        let validator = if quick || !engines { None } else { validator(cx) };
        if !quick && engines {
            test_tools(cx);
        }
        let mut words = [&["test", "--workspace", "--locked"], features, others].concat();
        if quick {
            // The end-to-end tests are the xtask package's own.
            words.extend(["--exclude", "xtask"]);
        }
        words.push("--");
        words.extend(args.iter().map(String::as_str));
        let skips = skips.display().to_string();
        let mut vars = vec![(SKIPS, skips.as_str())];
        let threads = threads(cx).filter(|_| engines);
        vars.extend(threads.as_deref().map(|threads| (THREADS, threads)));
        let validator = validator.map(|path| path.display().to_string());
        vars.extend(validator.as_deref().map(|path| (CHECK_JSONSCHEMA, path)));
        cargo(cx, &words, &vars, "cargo test --workspace NAME runs one test alone")
    })?;
    if quick {
        tested.skipped.push("end-to-end tests: `cargo xtask test` runs them too".into());
    }
    tested.skipped.extend(fs::read_to_string(&skips).unwrap_or_default().lines().map(str::to_owned));
    tested.skipped.iter().for_each(|skipped| cx.warn(format!("skipped: {skipped}")));
    Ok(tested)
}

/// How many tests of the engine run side by side, where nobody says: they wait for hosts and deadlines half of the time.
fn threads(cx: &Cx) -> Option<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cx.var(THREADS).is_none().then(|| (cores + 2).to_string())
}

/// Whether this is the repository of the engine, whose tests need more than those of a project.
fn is_engines_own(cx: &Cx) -> bool {
    cx.root.join("tests/it/main.rs").is_file() && cx.root.join("xtask/engine").is_dir()
}

fn without_errors(cx: &Cx, config: &str) -> Result<()> {
    let findings = lint::lint_file(&cx.root.join(config))?;
    match findings.into_iter().find(|finding| finding.severity == lint::Severity::Error) {
        Some(finding) => Failure::new(Kind::Failed, format!("{config}:{}: {}", finding.line, finding.message))
            .hint(finding.hint)
            .err(),
        None => Ok(()),
    }
}

fn cargo(cx: &Cx, args: &[&str], vars: &[(&str, &str)], hint: &str) -> Result<()> {
    let mut command = cx.cargo(args);
    command.envs(vars.iter().copied());
    match cx.watch(command)? {
        Some(0) => Ok(()),
        code => Failure::new(Kind::Failed, format!("`cargo {}` {}", args[0], exit(code))).hint(hint).err(),
    }
}

/// CircleCI's Rust images come without clippy; rustup brings it.
fn component(cx: &Cx, component: &str, subcommand: &str) -> Result<()> {
    if cx.answer(cx.cargo(&[subcommand, "--version"]), Input::Empty)?.ok() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", component]);
    match cx.watch(rustup)? {
        Some(0) => Ok(()),
        _ => Failure::new(Kind::Failed, format!("`cargo {subcommand}` is not installed"))
            .hint(format!("rustup component add {component}"))
            .err(),
    }
}

/// The validator with CircleCI's own schema, from `PyPI`, in a virtual environment under `target/`. Debian splits the
/// module for environments from Python; root may have it installed.
fn validator(cx: &Cx) -> Option<PathBuf> {
    let tools = cx.root.join("target/tools");
    let program = tools.join("bin/check-jsonschema");
    if program.exists() {
        return Some(program);
    }
    cx.note("installing check-jsonschema into target/tools");
    let venv = || succeeds(cx, Path::new("python3"), &["-m", "venv", "--clear", "target/tools"]);
    let apt = || apt_install(cx, &["python3", "python3-venv"]);
    let pip = ["install", "--quiet", "--disable-pip-version-check", "check-jsonschema==0.39.0"];
    let installed = (venv() || (apt() && venv())) && succeeds(cx, &tools.join("bin/pip"), &pip);
    installed.then_some(program)
}

/// Tests run the shell recipes that this project replaces, a real S3 and real sshds. Without their tools they are skipped, and fail
/// in CI.
fn test_tools(cx: &Cx) {
    // Packages that are called like their program; the others lie in directories that are on few people's PATH.
    let programs = ["csh", "curl", "fish", "groff", "openssl", "wget", "zsh", "radosgw", "ceph-mon", "ceph-osd"];
    let mut missing: Vec<_> = programs.into_iter().filter(|tool| cx.program_on_path(tool).is_none()).collect();
    let hidden = [
        ("/lib/systemd/systemd", "systemd"),
        ("/usr/sbin/nginx", "nginx-light"),
        ("/usr/sbin/sshd", "openssh-server"),
        ("/usr/share/bash-completion/bash_completion", "bash-completion"),
    ];
    missing.extend(hidden.iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package));
    if !missing.is_empty() {
        cx.note(format!("installing {}", missing.join(", ")));
        apt_install(cx, &missing);
    }
}

/// Only root may, and only Debian and its kin have it; elsewhere it fails without harm.
fn apt_install(cx: &Cx, packages: &[&str]) -> bool {
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    succeeds(cx, Path::new("apt-get"), &["update"]) && succeeds(cx, Path::new("apt-get"), &install)
}

fn succeeds(cx: &Cx, program: &Path, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).current_dir(&cx.root);
    cx.answer(command, Input::Empty).is_ok_and(|answer| answer.ok())
}
