//! The command-line arguments of `setup`, parsed with clap.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Clone, Args)]
pub struct Setup {
    /// The env
    pub env: String,
    /// The public key of deploys, for `authorized_keys` of the login
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Only this host, by name or URL
    #[arg(long, value_name = "NAME_OR_URL")]
    pub host: Option<String>,
    /// Run the commands over ssh, as root
    #[arg(long)]
    pub apply: bool,
    /// The login of --apply, which must be root
    #[arg(long, value_name = "LOGIN", default_value = "root", requires = "apply")]
    pub login: String,
    /// Print the commands that undo the setup; the directory stays unless it is empty
    #[arg(long)]
    pub remove: bool,
    /// With --remove: also remove the directory with all releases, logs and shared files
    #[arg(long, requires = "remove")]
    pub data: bool,
}
