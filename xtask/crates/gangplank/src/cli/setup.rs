//! What follows `cargo xtask setup`.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Clone, Args)]
pub struct Setup {
    /// The env
    pub env: String,
    /// The public key that deploys use, for `authorized_keys` of the login
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Only this host, by name or URL
    #[arg(long, value_name = "NAME_OR_URL")]
    pub host: Option<String>,
    /// Run the commands over ssh, as root
    #[arg(long)]
    pub apply: bool,
    /// The login of --apply, which has to be root there
    #[arg(long, value_name = "LOGIN", default_value = "root", requires = "apply")]
    pub login: String,
    /// Print the commands that take it back; the directory stays unless it is empty
    #[arg(long)]
    pub remove: bool,
    /// With --remove: remove the directory too, with all releases, logs and shared files
    #[arg(long, requires = "remove")]
    pub data: bool,
}
