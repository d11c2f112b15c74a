//! The arguments of `report`.

use clap::Args;
use gangplank_model::ci::workflows::PAGE_DIR;
use std::path::PathBuf;

#[derive(Debug, Clone, Args)]
pub struct Report {
    /// Only these envs
    pub env: Vec<String>,
    /// The directory of the page, `index.html`
    #[arg(long, value_name = "DIR", default_value = PAGE_DIR)]
    pub html: PathBuf,
    /// Include what a deploy of this commit's release would change in ENV; may be repeated
    #[arg(long, value_name = "ENV")]
    pub diff: Vec<String>,
}
