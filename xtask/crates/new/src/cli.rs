//! `new`, as it is typed.

use crate::cli::ci::handoff;
use gangplank_model::project::Handoff;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Clone, Args)]
pub struct New {
    /// Its directory, which must not exist or be empty
    #[arg(required_unless_present_any = ["into", "upgrade"])]
    pub path: Option<PathBuf>,
    /// Give the workspace or crate in DIR a pipeline instead, and leave alone what is there
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    pub into: Option<PathBuf>,
    /// Replace the engine of the project in DIR by this one instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["path", "into", "name", "handoff", "target", "bucket", "engine"])]
    pub upgrade: Option<PathBuf>,
    /// Replace an engine that was edited by hand, too
    #[arg(long, requires = "upgrade")]
    pub force: bool,
    /// Name of the app; that of the directory, or of the package, when left out
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How releases are handed over
    #[arg(long, value_name = "HANDOFF", value_parser = handoff())]
    pub handoff: Option<Handoff>,
    /// A host or directory of prod, or ENV=URL; may be repeated
    #[arg(long, value_name = "URL")]
    pub target: Vec<String>,
    /// The bucket of the handoff s3, e.g. `s3://shop-releases/shop`
    #[arg(long, value_name = "URL")]
    pub bucket: Option<String>,
    /// Where the engine comes from: vendor (a copy), git=URL,tag=TAG or path=DIR
    #[arg(long, value_name = "FROM", default_value = "vendor")]
    pub engine: String,
}
