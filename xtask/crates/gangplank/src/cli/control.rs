//! Arguments of `start`, `stop` and `restart`.

use crate::cli::Global;
use clap::Args;
use gangplank_deploy::deploy::deployment::Options;
use std::time::Duration;

/// A service to start, stop or restart.
#[derive(Debug, Clone, Args)]
pub struct Control {
    /// The env
    pub env: String,
    /// Only this host, by name or URL
    #[arg(long, value_name = "NAME_OR_URL")]
    pub host: Option<String>,
    /// Wait this long for a held lock
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub lock_wait: u64,
    /// The reason, recorded in the history
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub reason: Option<String>,
}

impl Control {
    /// The deploy options, merged with the global ones.
    pub fn options(&self, global: &Global) -> Options {
        Options {
            dry_run: global.dry_run,
            lock_wait: Duration::from_secs(self.lock_wait),
            reason: self.reason.clone().filter(|reason| !gangplank_model::release::id::is_nil(reason)),
            ..Options::default()
        }
    }
}
