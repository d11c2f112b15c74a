//! The command-line arguments of `ci`, parsed with clap.

use crate::cli::value::{selector, with_hint};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use gangplank_model::project::Handoff;
use gangplank_model::release::id::Selector;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Ci {
    /// Generate the files in .circleci: config.yml, rollback.yml and deploy.yml
    Generate {
        /// Compare only: fail with a diff if a file is out of date
        #[arg(long)]
        check: bool,
        /// How jobs pass releases on [default: the project's `handoff`]
        #[arg(long, value_name = "HANDOFF", value_parser = handoff())]
        handoff: Option<Handoff>,
    },
    /// Find mistakes that CircleCI's schema misses: unknown jobs, workspaces, contexts
    Lint {
        /// The config [default: .circleci/config.yml of the project]
        file: Option<PathBuf>,
    },
    /// Run the pipeline on this machine
    Run(Run),
    /// Serve CircleCI's API over the results of `ci run` with the handoff artifacts, for other clients
    #[command(hide = true)]
    Loopback,
    /// Start a deploy or a rollback on CircleCI: `ci trigger deploy prod`
    #[command(subcommand)]
    Trigger(Trigger),
    /// Approve the waiting deploy to an env on CircleCI
    Approve {
        /// The env
        env: String,
        /// The pipeline [default: the newest one that waits]
        #[arg(long, value_name = "NUMBER")]
        pipeline: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub struct Run {
    /// Run only this job and those it requires
    pub job: Option<String>,
    /// Stop at approvals instead of asking
    #[arg(long, conflicts_with = "yes")]
    pub no_approve: bool,
    /// Run as if on this branch
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// How jobs pass releases on [default: the project's `handoff`]
    #[arg(long, value_name = "HANDOFF", value_parser = handoff())]
    pub handoff: Option<Handoff>,
    /// Run as if triggered with a parameter, e.g. deploy-env=prod, instead of by a push
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub enum Trigger {
    /// Start the workflow that deploys a release
    Deploy(Request),
    /// Start the workflow that rolls back to the previous release
    Rollback(Request),
}

#[derive(Debug, Args)]
pub struct Request {
    /// The env
    pub env: String,
    /// The release [default: current commit; for a rollback: previous]
    #[arg(value_parser = selector)]
    pub release: Option<Selector>,
    /// Wait and exit with its status
    #[arg(long)]
    pub follow: bool,
    /// The reason, recorded in the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The pipeline definition, if the project has several with this config
    #[arg(long, value_name = "ID")]
    pub definition: Option<String>,
}

pub(super) fn handoff() -> impl TypedValueParser<Value = Handoff> {
    PossibleValuesParser::new(Handoff::ALL.map(Handoff::as_str))
        .try_map(|text| text.parse::<Handoff>().map_err(with_hint))
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, e.g. deploy-env=prod")?;
    Ok((name.to_owned(), value.to_owned()))
}
