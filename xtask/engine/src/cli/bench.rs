//! The command-line arguments of `bench`, parsed with clap.

use super::Global;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    // Without doc comments: with them, clap prints three lines per value.
    Bundle,
    Fetch,
    Overhead,
    Compile,
    S3,
    Fleet,
}

#[derive(Debug, Clone, Args)]
pub struct Fleet {
    /// Number of hosts that `fleet` starts
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    hosts: u16,
    /// Pack this directory; `fleet` deploys DIR.v2 beside it second [default: a small sample]
    #[arg(long, value_name = "DIR")]
    workload: Vec<PathBuf>,
    /// Delay added to each round trip of `fleet`
    #[arg(long, value_name = "MS", default_values_t = [0, 50])]
    delay_ms: Vec<u64>,
    /// Number of rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Compare only with these tools [default: all that are installed]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(crate::bench::names()))]
    against: Vec<String>,
}

impl Fleet {
    /// The options of the benchmark.
    pub fn options(&self, global: &Global) -> crate::bench::Options {
        crate::bench::Options {
            hosts: self.hosts.into(),
            workloads: self.workload.clone(),
            delays_ms: self.delay_ms.clone(),
            rounds: self.rounds.into(),
            against: self.against.clone(),
            verbose: global.verbose > 0,
        }
    }
}
