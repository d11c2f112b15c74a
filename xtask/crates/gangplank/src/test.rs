//! `test`: format, clippy, documentation, CircleCI config and tests, in one command for laptops and CI.

use gangplank_deploy::ci::generate;
use gangplank_model::error::{CliError, Kind, Result};
use gangplank_model::event::ms_since;
use gangplank_model::project::Project;
use gangplank_system::context::{Context, ENGINE_SUMS, Input, exit, stands_alone};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The options of the command.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Skip the end-to-end tests, documentation, and features that the project does not use.
    pub quick: bool,
    /// Everything but the tests.
    pub no_tests: bool,
    /// With all features of the workspace.
    pub all_features: bool,
    /// Arguments for the test harness.
    pub args: &'a [String],
}

/// The result of `test`.
#[derive(Debug, Serialize)]
pub struct Tested {
    /// Each check, with its wall time.
    pub checks: Vec<Checked>,
    /// Skipped tests, with the reason.
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

impl Checked {
    /// Runs a check and measures it.
    pub fn run(ctx: &Context, name: &str, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        ctx.note(format!("checking {name}"));
        let started = Instant::now();
        work()?;
        Ok(Self { check: name.to_owned(), ms: ms_since(started) })
    }
}

/// Runs the checks in order and stops at the first that fails.
pub fn test(ctx: &Context, project: &Project, options: &Options) -> Result<Tested> {
    // A copy was tested where it comes from, and a project may have features that exclude each other.
    let copies = if stands_alone(&ctx.root) { vec![] } else { vendored(&ctx.root) };
    let mut scope: Vec<_> = copies.iter().flat_map(|name| ["--exclude", name]).collect();
    scope.extend(project.app.features.iter().flat_map(|feature| ["--features", feature]));
    if options.all_features {
        scope.push("--all-features");
    }
    let mut checks = Vec::new();
    let mut check = |name: &str, work: &dyn Fn() -> Result<()>| -> Result<()> {
        checks.push(Checked::run(ctx, name, work)?);
        Ok(())
    };
    if project.ci.format {
        check("format", &|| {
            component(ctx, "rustfmt", "fmt")?;
            cargo(ctx, &["fmt", "--all", "--check"], &[], "cargo fmt --all")
        })?;
    }
    check("clippy", &|| {
        component(ctx, "clippy", "clippy")?;
        let hint = "cargo clippy --workspace --bins --tests --examples shows them again";
        // A bench may need the nightly compiler; with `--tests` the library is checked.
        let words = ["clippy", "--quiet", "--workspace", "--bins", "--tests", "--examples", "--locked"];
        let deny: &[&str] = if project.ci.deny_warnings { &["--", "--deny", "warnings"] } else { &[] };
        cargo(ctx, &[&words[..], &scope, deny].concat(), &[], hint)
    })?;
    if !options.quick {
        check("documentation", &|| {
            let words = [&["doc", "--quiet", "--workspace", "--no-deps", "--locked"], &scope[..]].concat();
            let deny: &[_] = if project.ci.deny_warnings { &[("RUSTDOCFLAGS", "--deny warnings")] } else { &[] };
            let shown = words.join(" ");
            cargo(ctx, &words, deny, &format!("RUSTDOCFLAGS='--deny warnings' cargo {shown} shows them again"))
        })?;
    }
    check("CircleCI config", &|| {
        generate::generate(ctx, project, project.ci.handoff, true)?;
        generate::CONFIGS.iter().try_for_each(|config| without_errors(ctx, config))
    })?;
    let mut skipped = Vec::new();
    if !options.no_tests {
        let mut words = [&["test", "--workspace", "--locked"], &scope[..]].concat();
        if options.quick && !stands_alone(&ctx.root) {
            // The end-to-end tests belong to the xtask package.
            words.extend(["--exclude", "xtask"]);
            skipped.push("end-to-end tests: `cargo xtask test` runs them".to_owned());
        }
        words.push("--");
        words.extend(options.args.iter().map(String::as_str));
        check("tests", &|| cargo(ctx, &words, &[], "cargo test --workspace NAME runs one test alone"))?;
    }
    for what in &skipped {
        ctx.warn(format!("skipped: {what}"));
    }
    Ok(Tested { checks, skipped })
}

/// The names of the crates that the digests list.
fn vendored(root: &Path) -> Vec<String> {
    let sums = fs::read_to_string(root.join(ENGINE_SUMS)).unwrap_or_default();
    let dirs = sums.lines().filter_map(|line| line.split_once("  ")?.1.strip_suffix("/Cargo.toml"));
    dirs.map(|dir| if dir == "gangplank" { dir.to_owned() } else { format!("gangplank-{dir}") }).collect()
}

/// CircleCI's Rust images come without clippy; rustup brings it.
fn component(ctx: &Context, component: &str, subcommand: &str) -> Result<()> {
    if ctx.answer(ctx.cargo(&[subcommand, "--version"]), Input::Empty)?.ok() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", component]);
    match ctx.watch(rustup)? {
        Some(0) => Ok(()),
        _ => CliError::new(Kind::Failed, format!("`cargo {subcommand}` is not installed"))
            .hint(format!("rustup component add {component}"))
            .err(),
    }
}

#[cfg(feature = "gangplank-lint")]
fn without_errors(ctx: &Context, config: &str) -> Result<()> {
    let findings = gangplank_lint::lint_file(&ctx.root.join(config))?;
    match findings.into_iter().find(|finding| finding.severity == gangplank_lint::Severity::Error) {
        Some(finding) => CliError::new(Kind::Failed, format!("{config}:{}: {}", finding.line, finding.message))
            .hint(finding.hint)
            .err(),
        None => Ok(()),
    }
}

/// Without the linter a config is only compared with what `ci generate` writes.
#[cfg(not(feature = "gangplank-lint"))]
#[allow(clippy::unnecessary_wraps, reason = "as the other one")]
fn without_errors(_: &Context, _: &str) -> Result<()> {
    Ok(())
}

fn cargo(ctx: &Context, args: &[&str], vars: &[(&str, &str)], hint: &str) -> Result<()> {
    let mut command = ctx.cargo(args);
    command.envs(vars.iter().copied());
    match ctx.watch(command)? {
        Some(0) => Ok(()),
        code => CliError::new(Kind::Failed, format!("`cargo {}` {}", args[0], exit(code))).hint(hint).err(),
    }
}
