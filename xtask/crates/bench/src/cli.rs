//! The commands of `bench`.

use crate::options::Options;
use crate::{compare, files, fleet, report, tools};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use gangplank::program::{Answer, Commands, Global, Style};
use gangplank_bundle::release::Release;
use gangplank_model::error::Result;
use gangplank_model::project::Compression;
use gangplank_model::release::id::Selector;
use gangplank_system::context::Context;
use std::path::PathBuf;

/// What can be typed.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Benchmark against other tools
    Bench {
        /// What to measure: `bundle` (packing), `fetch` (unpacking), `overhead` and `compile` (cost of the xtask over
        /// cargo), `s3` (upload and download), `fleet` (a first deploy and a small change to many hosts over ssh)
        what: Bench,
        /// How it is measured
        #[command(flatten)]
        options: BenchOptions,
    },
    /// Run the build that `bench bundle` measures
    #[command(hide = true)]
    BenchBundle {
        /// Write a `.tar.zst` instead of a `.tar.gz`
        #[arg(long)]
        zstd: bool,
    },
    /// The unpacking that `bench fetch` measures
    #[command(hide = true)]
    BenchUnpack {
        /// The directory of a release
        release: PathBuf,
        /// Write the release to this directory
        into: PathBuf,
    },
    /// Run the copies that `bench s3` measures
    #[cfg(feature = "s3")]
    #[command(hide = true)]
    BenchCopy {
        /// The release
        release: Selector,
        /// URL of the bucket
        store: String,
        /// The directory that it is copied to; without it, it is copied to the bucket
        into: Option<PathBuf>,
    },
    /// Run the deploy that `bench fleet` measures
    #[command(hide = true)]
    BenchDeploy {
        /// The release
        release: Selector,
        /// URLs of the targets
        targets: Vec<String>,
    },
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    // Without texts of their own: with one, clap makes each option three lines long.
    #[expect(missing_docs)]
    Bundle,
    #[expect(missing_docs)]
    Fetch,
    #[expect(missing_docs)]
    Overhead,
    #[expect(missing_docs)]
    Compile,
    #[expect(missing_docs)]
    S3,
    #[expect(missing_docs)]
    Fleet,
}

/// How it is measured.
#[derive(Debug, Clone, Args)]
pub struct BenchOptions {
    /// Number of hosts that `fleet` starts
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    hosts: u16,
    /// Pack this directory; `fleet` deploys DIR.v2 beside it second [default: a small sample]
    #[arg(long, value_name = "DIR")]
    workload: Vec<PathBuf>,
    /// Build the sample app twice, with a few lines changed, and deploy that with `fleet`
    #[arg(long)]
    relink: bool,
    /// Delay added to each round trip of `fleet`
    #[arg(long, value_name = "MS", default_values_t = [0, 50])]
    delay_ms: Vec<u64>,
    /// Number of rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Compare only with these tools [default: all that are installed]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(crate::names()))]
    against: Vec<String>,
}

impl Commands for Command {
    fn stops_when_asked(&self) -> bool {
        matches!(self, Self::Bench { .. } | Self::BenchDeploy { .. })
    }

    fn run(&self, ctx: &Context, global: &Global) -> Result<Box<dyn Answer>> {
        match self {
            Self::Bench { what, options } => {
                let options = Options {
                    hosts: options.hosts.into(),
                    workloads: options.workload.clone(),
                    relink: options.relink,
                    delays_ms: options.delay_ms.clone(),
                    rounds: options.rounds.into(),
                    against: options.against.clone(),
                    verbose: global.verbose > 0,
                };
                bench(ctx, *what, &options)
            }
            Self::BenchBundle { zstd } => {
                let compression = if *zstd { Compression::Zstd } else { Compression::Gzip };
                Ok(Box::new(files::seal(ctx, compression)?))
            }
            Self::BenchUnpack { release, into } => {
                Release::open_unpacked(release, into, &ctx.progress("verifying"))?;
                Ok(Box::new(()))
            }
            #[cfg(feature = "s3")]
            Self::BenchCopy { release, store, into } => {
                crate::s3::copy(ctx, release, store, into.as_deref())?;
                Ok(Box::new(()))
            }
            Self::BenchDeploy { release, targets } => Ok(Box::new(fleet::deploy(ctx, release, targets)?)),
        }
    }
}

fn bench(ctx: &Context, what: Bench, options: &Options) -> Result<Box<dyn Answer>> {
    Ok(match what {
        Bench::Bundle => Box::new(files::bundle(ctx, options)?),
        Bench::Fetch => Box::new(files::fetch(ctx, options)?),
        Bench::Overhead => Box::new(tools::overhead(ctx, options)?),
        Bench::Compile => Box::new(tools::compile(ctx, options)?),
        #[cfg(feature = "s3")]
        Bench::S3 => Box::new(crate::s3::s3(ctx, options)?),
        #[cfg(not(feature = "s3"))]
        Bench::S3 => {
            ctx.note("`bench` was compiled without buckets: compiling it with the feature s3");
            return Err(ctx.become_program("gangplank-bench", Some("s3")));
        }
        Bench::Fleet => Box::new(fleet::fleet(ctx, options)?),
    })
}

impl Answer for compare::Report {
    fn text(&self, style: Style) -> String {
        report::compare(self, style)
    }
}

impl Answer for fleet::Report {
    fn text(&self, style: Style) -> String {
        report::fleet(self, style)
    }
}
