//! `keygen`, `sign`, and the commands that need signatures compiled in.

use crate::cli::Command;
use crate::commands::{CommandOutput, feature};
use crate::parts::SIGNATURES;
use gangplank_deploy::tool::Tool;
use gangplank_model::error::Result;
use gangplank_model::project::Project;

/// Continues as an xtask with signatures for a command that needs them. Returns only on failure, or if there is no need.
pub fn compile_if_needed(tool: &Tool, command: &Command) -> Result<()> {
    if SIGNATURES.is_none() && needs(tool.project, command) {
        return Err(feature::compile_with(tool.ctx, &["gangplank/sign"], "signatures"));
    }
    Ok(())
}

/// Whether a command signs, or deploys to an env that requires a signature.
fn needs(project: &Project, command: &Command) -> bool {
    match command {
        Command::Keygen(_) | Command::Sign(_) => true,
        Command::Deploy { env, .. }
        | Command::Plan { env, .. }
        | Command::Promote { to: env, .. }
        | Command::Rollback { env, .. } => project.env(env).is_ok_and(|env| !env.require_signature.is_empty()),
        // Later jobs run this program.
        Command::Put { program: true, .. } => {
            project.ci.sign.is_some() || project.envs.iter().any(|env| !env.require_signature.is_empty())
        }
        _ => false,
    }
}

/// Runs `keygen` or `sign`.
#[cfg(feature = "gangplank-sign")]
pub fn run(tool: &Tool, command: &Command) -> Result<CommandOutput> {
    match command {
        Command::Keygen(it) => gangplank_sign::key::keygen(tool.ctx, &it.file).map(CommandOutput::Keygen),
        Command::Sign(it) => {
            gangplank_sign::sign::sign(tool, it.release.as_ref(), it.key.as_deref()).map(CommandOutput::Signed)
        }
        _ => Ok(CommandOutput::Streamed),
    }
}

/// Was answered by [`compile_if_needed`].
#[cfg(not(feature = "gangplank-sign"))]
pub fn run(tool: &Tool, _: &Command) -> Result<CommandOutput> {
    Err(feature::compile_with(tool.ctx, &["gangplank/sign"], "signatures"))
}
