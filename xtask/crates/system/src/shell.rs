//! xshell, for the commands, build steps and hooks that a project writes.

use crate::context::{Context, not_started, show};
use crate::process;
use gangplank_model::error::{Kind, Result, WithHint};
use std::process::Command;
use std::time::Instant;
pub use xshell::{Shell, cmd};

impl Context {
    /// A shell in the root of the project, for `cmd!`: `let sh = ctx.shell()?; ctx.run_cmd(cmd!(sh, "npm run build"))`.
    pub fn shell(&self) -> Result<Shell> {
        let sh = Shell::new().with_hint(
            Kind::Failed,
            || "cannot read the current directory".into(),
            || "change to the project".into(),
        )?;
        sh.change_dir(&self.root);
        Ok(sh)
    }

    /// Runs a command of a project and prints its output, line by line, with secrets masked. Takes what xshell's `cmd!`
    /// makes. Its stdin is empty; Ctrl-C ends it. An exit code other than 0 is an error with its last line.
    pub fn run_cmd(&self, command: impl Into<Command>) -> Result<()> {
        let mut command = command.into();
        let (shown, started, mut last) = (show(&command), Instant::now(), String::new());
        let on_line = &mut |_, line: String| {
            self.note(format!("  | {line}"));
            last = line;
        };
        let ended = process::stream(&mut command, b"", false, on_line, &|| self.interrupted(), &|| false);
        let (status, _) = ended.map_err(|e| not_started(&command, &e))?;
        self.ran(shown.clone(), started, status.success());
        if status.success() {
            return Ok(());
        }
        Err(self.unsuccessful(&shown, status.code(), &last))
    }
}
