//! The zstd program of this machine, which makes patches and compresses releases. Without it the feature `zstd` of the
//! engine can compress, and makes no patches.

use gangplank_bundle::delta;
use gangplank_model::error::{Result, failed};
use gangplank_model::script::install::WINDOW_LOG;
use gangplank_system::context::Context;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The zstd program.
pub struct Zstd<'ctx> {
    ctx: &'ctx Context,
    program: PathBuf,
}

impl<'ctx> Zstd<'ctx> {
    /// The program on PATH, if it is there.
    pub fn find(ctx: &'ctx Context) -> Option<Self> {
        Some(Self { ctx, program: ctx.program_on_path("zstd")? })
    }

    fn run(&self, words: &[&str], from: &Path, to: &Path) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["-q", "-3"]).args(words).arg(from).arg("-o").arg(to);
        // Whatever the cause, there is another way to send a release.
        self.ctx
            .read(command)
            .map(drop)
            .map_err(|error| failed(format!("{error:#}")).hint("check `zstd --version`").into())
    }
}

impl delta::Zstd for Zstd<'_> {
    fn compress(&self, file: &Path, to: &Path) -> Result<()> {
        self.run(&["-T0"], file, to)
    }

    fn patch(&self, older: &Path, newer: &Path, to: &Path) -> Result<()> {
        let long = format!("--long={WINDOW_LOG}");
        self.run(&[&long, &format!("--patch-from={}", older.display())], newer, to)
    }
}

impl fmt::Debug for Zstd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd").field("program", &self.program).finish_non_exhaustive()
    }
}
