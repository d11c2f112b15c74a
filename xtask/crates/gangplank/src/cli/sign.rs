//! The arguments of `keygen` and `sign`.

use crate::cli::value::selector;
use clap::Args;
use gangplank_model::release::id::Selector;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Keygen {
    /// The file of the private key
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Sign {
    /// The release [default: current commit]
    #[arg(value_parser = selector)]
    pub release: Option<Selector>,
    /// A private key, or a public key whose private one is in ssh-agent [default: `GANGPLANK_SIGNING_KEY`]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}
