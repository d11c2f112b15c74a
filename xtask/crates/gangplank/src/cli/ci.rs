//! What can be typed after `ci`.

use crate::cli::{selector, with_hint};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use gangplank_model::project::Handoff;
use gangplank_model::release::id::Selector;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Ci {
    /// Write .circleci/config.yml, and rollback.yml and deploy.yml for CircleCI's Deploys page
    Generate {
        /// Only compare: fail with a diff when a file is not as it should be
        #[arg(long)]
        check: bool,
        /// How releases are handed over; the project's `handoff` when left out
        #[arg(long, value_name = "HANDOFF", value_parser = handoff())]
        handoff: Option<Handoff>,
    },
    /// Find what CircleCI's schema does not: missing jobs, workspaces, contexts
    Lint {
        /// The config
        #[arg(default_value = ".circleci/config.yml")]
        file: PathBuf,
    },
    /// Run the pipeline on this machine
    Run {
        /// Only this job and those that it requires
        job: Option<String>,
        /// Hold at approvals instead of asking
        #[arg(long, conflicts_with = "yes")]
        no_approve: bool,
        /// The branch that CircleCI would see
        #[arg(long, value_name = "NAME")]
        branch: Option<String>,
        /// How releases are handed over; the project's `handoff` when left out
        #[arg(long, value_name = "HANDOFF", value_parser = handoff())]
        handoff: Option<Handoff>,
        /// Start it with a parameter, e.g. deploy-env=prod, instead of a push
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
        set: Vec<(String, String)>,
    },
    /// Answer CircleCI's API from what `ci run` has left, for other clients
    #[command(hide = true)]
    Loopback,
    /// Start a deploy or a rollback on CircleCI: `ci trigger deploy prod`
    #[command(subcommand)]
    Trigger(Trigger),
    /// Approve, on CircleCI, the deploy to an env that waits for it
    Approve {
        /// The env
        env: String,
        /// The pipeline; the newest one that waits when left out
        #[arg(long, value_name = "NUMBER")]
        pipeline: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Trigger {
    /// Start the workflow that deploys a release
    Deploy(Request),
    /// Start the workflow that goes back to what was live before
    Rollback(Request),
}

#[derive(Debug, Args)]
pub struct Request {
    /// The env
    pub env: String,
    /// The release; that of the checkout, or for a rollback `previous`, when left out
    #[arg(value_parser = selector)]
    pub release: Option<Selector>,
    /// Stay, show its jobs, and end as it ends
    #[arg(long)]
    pub follow: bool,
    /// The reason, for the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The pipeline definition, where the project has several with this config
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
