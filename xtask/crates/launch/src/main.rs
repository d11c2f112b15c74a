//! Runs the xtask that an earlier job stored, or else `cargo xtask`.

use gangplank_launch::{circleci, inputs, program};
use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap_or(Path::new("."));
    let error = match stored(root) {
        Ok(program) => program::run(&program, &args),
        Err(reason) => {
            note(format_args!("note: compiling the xtask: {reason:#}"));
            program::compile_and_run(root, &args)
        }
    };
    note(format_args!("error: cannot run the xtask: {error}\nhint: run `cargo xtask` to see why"));
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// Prints a line to stderr, unless nothing reads it.
fn note(text: std::fmt::Arguments) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The stored program, verified and ready to run.
fn stored(root: &Path) -> anyhow::Result<std::path::PathBuf> {
    let inputs = inputs::of(root)?;
    let api = circleci::Api::from_environment(&|name| env::var(name).ok())?;
    let branch = env::var("CIRCLE_BRANCH").unwrap_or_default();
    let stored = circleci::find(&|path| api.get(path), api.slug(), &branch, &inputs)?;
    let program = program::install(&api, &stored, &program::directory(root))?;
    note(format_args!("note: running the xtask of job {}, which was compiled from the same source", stored.job));
    Ok(program)
}
