//! Signatures of releases, in the format of `ssh-keygen -Y sign`: who may deploy what to an env that requires them.
//!
//! - A signature covers the manifest, and the manifest has the digest of every file. [`verify`] is the decision, over plain
//!   values.
//! - [`allowed`] reads the keys that an env trusts: lines of main.rs, or files in the format of `allowed_signers`.
//! - [`key`] finds the key to sign with: a variable, a file, or `ssh-agent`. [`sign`](mod@sign) signs a release that was
//!   built.
//! - [`SIGNATURES`] is what a command line gives to [`Tool`](gangplank_deploy::tool::Tool) so that deploys check them.
//!
//! The format is OpenSSH's `PROTOCOL.sshsig`, with the namespace `gangplank` and keys of the type ed25519.

pub mod allowed;
pub mod key;
pub mod sign;
pub mod verify;

use gangplank_deploy::tool::Signatures;

/// Checks the signatures of releases.
pub const SIGNATURES: Signatures = Signatures { check: verify::check };
