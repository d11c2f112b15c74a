//! `circleci:artifacts`: CircleCI's artifacts as a store of releases.
//!
//! - [`store::ArtifactStore`] finds the build job of a commit by the REST API, and downloads what it stored.
//! - `store::pointer` is the project variable `LATEST_BUILD_NUM`: who may move it, and what it must name.
//! - [`open`] is what a command line gives to [`Tool`](gangplank_deploy::tool::Tool) so that these URLs open.

pub mod store;

use crate::store::{ArtifactStore, Finder};
use gangplank_deploy::store::Store;
use gangplank_model::error::{Result, usage};
use gangplank_model::project::Project;
use gangplank_system::context::Context;

/// Opens `circleci:artifacts` or `circleci:latest-artifacts`.
pub fn open<'a>(ctx: &'a Context, project: &'a Project, url: &str) -> Result<Box<dyn Store + 'a>> {
    let finder = match url {
        "circleci:artifacts" => Finder::Commit,
        "circleci:latest-artifacts" => Finder::Latest,
        _ => return usage(format!("`{url}` is not a store URL")).hint("use circleci:artifacts").err(),
    };
    Ok(Box::new(ArtifactStore::new(ctx, project, url, finder)))
}
