//! The command-line arguments of `new`, parsed with clap.

use super::ci::handoff;
use crate::project::Handoff;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Clone, Args)]
pub struct New {
    /// The directory, which must be empty or missing
    #[arg(required_unless_present_any = ["into", "upgrade"])]
    pub path: Option<PathBuf>,
    /// Add a pipeline to the workspace or crate in DIR, without changing existing files
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    pub into: Option<PathBuf>,
    /// Replace the engine of the project in DIR by this one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["path", "into", "name", "handoff", "target", "bucket", "engine"])]
    pub upgrade: Option<PathBuf>,
    /// Replace an engine even if it was edited by hand
    #[arg(long, requires = "upgrade")]
    pub force: bool,
    /// The name of the app [default: that of the directory or package]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How jobs pass releases on
    #[arg(long, value_name = "HANDOFF", value_parser = handoff())]
    pub handoff: Option<Handoff>,
    /// A host or directory of prod, or ENV=URL; may be repeated
    #[arg(long, value_name = "URL")]
    pub target: Vec<String>,
    /// The bucket of the handoff `s3`, e.g. `s3://shop-releases/shop`
    #[arg(long, value_name = "URL")]
    pub bucket: Option<String>,
    /// The source of the engine: vendor (a copy), git=URL,tag=TAG or path=DIR
    #[arg(long, value_name = "FROM", default_value = "vendor")]
    pub engine: String,
}
