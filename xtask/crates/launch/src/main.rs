//! Runs the xtask that an earlier job stored, or else `cargo xtask`.

use gangplank_launch::inputs::Inputs;
use gangplank_launch::{circleci, program};
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap_or(Path::new("."));
    let reason = match stored(root) {
        Ok(program) => program::run(&program, &args).into(),
        Err(reason) => reason,
    };
    note(format_args!("note: compiling the xtask: {reason:#}"));
    let error = program::compile_and_run(&args);
    note(format_args!("error: cannot run cargo: {error}\nhint: run `cargo xtask` to see why"));
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// Prints a line to stderr, unless nothing reads it.
fn note(text: std::fmt::Arguments) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The stored program, verified and ready to run.
fn stored(root: &Path) -> anyhow::Result<PathBuf> {
    let inputs = Inputs::of(root, &env::vars_os().collect())?;
    let variable = |name: &str| env::var(name).ok();
    let api = circleci::Api::from_environment(&variable)?;
    let branch = variable("CIRCLE_BRANCH").unwrap_or_default();
    let stored = circleci::find(&api.search(), api.slug(), &branch, &inputs.digest)?;
    let program = program::install(&api, &stored, &program::directory(root))?;
    note(format_args!("note: running the xtask of job {}, which was compiled from the same source", stored.job));
    Ok(program)
}
