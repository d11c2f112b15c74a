//! `keygen`, `sign`, and the commands that need signatures compiled in.

use crate::cli::{Command, Keygen, Sign};
use crate::commands::{CommandOutput, feature};
use crate::parts::SIGNATURES;
use gangplank_deploy::tool::Tool;
use gangplank_model::error::Result;
use gangplank_model::project::Project;

/// Continues as an xtask with signatures for a deploy that checks them. Returns only on failure, or if there is no need.
pub fn compile_if_needed(tool: &Tool, command: &Command) -> Result<()> {
    if SIGNATURES.is_none() && needs(tool.project, command) {
        return Err(compile(tool));
    }
    Ok(())
}

/// Whether a command deploys to an env that requires a signature, or passes on the program that will.
fn needs(project: &Project, command: &Command) -> bool {
    match command {
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

/// `keygen FILE`
#[cfg(feature = "gangplank-sign")]
pub fn keygen(tool: &Tool, it: &Keygen) -> Result<CommandOutput> {
    gangplank_sign::key::keygen(tool.ctx, &it.file).map(CommandOutput::Keygen)
}

#[cfg(not(feature = "gangplank-sign"))]
pub fn keygen(tool: &Tool, _: &Keygen) -> Result<CommandOutput> {
    Err(compile(tool))
}

/// `sign [RELEASE]`
#[cfg(feature = "gangplank-sign")]
pub fn sign(tool: &Tool, it: &Sign) -> Result<CommandOutput> {
    gangplank_sign::sign::sign(tool, it.release.as_ref(), it.key.as_deref()).map(CommandOutput::Signed)
}

#[cfg(not(feature = "gangplank-sign"))]
pub fn sign(tool: &Tool, _: &Sign) -> Result<CommandOutput> {
    Err(compile(tool))
}

/// Continues as an xtask with signatures. Returns only on failure.
fn compile(tool: &Tool) -> anyhow::Error {
    feature::compile_with(tool.ctx, &["gangplank/sign"], "signatures")
}
