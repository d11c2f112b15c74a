//! xshell, for the commands, build steps and hooks that a project writes.

use crate::context::Context;
use gangplank_model::error::{Kind, Result, WithHint};
pub use xshell::{Shell, cmd};

impl Context {
    /// A shell in the root of the project, for `cmd!`: `ctx.run_cmd(cmd!(ctx.shell()?, "npm run build"))`.
    pub fn shell(&self) -> Result<Shell> {
        let sh = Shell::new().with_hint(
            Kind::Failed,
            || "cannot read the current directory".into(),
            || "change to the project".into(),
        )?;
        sh.change_dir(&self.root);
        Ok(sh)
    }
}
