//! `bench`, as it is typed.

use crate::cli::Global;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    // Without texts of their own: with one, clap makes each option three lines long.
    Bundle,
    Fetch,
    Overhead,
    Compile,
    S3,
    Fleet,
}

#[derive(Debug, Clone, Args)]
pub struct Fleet {
    /// How many hosts `fleet` starts
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    hosts: u16,
    /// Pack this directory, and for `fleet` as its second release DIR.v2 beside it; a small one of our own when left out
    #[arg(long, value_name = "DIR")]
    workload: Vec<PathBuf>,
    /// How much longer a round trip of `fleet` takes
    #[arg(long, value_name = "MS", default_values_t = [0, 50])]
    delay_ms: Vec<u64>,
    /// How often everybody has a turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only against these; all that are installed when left out
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(gangplank_bench::names()))]
    against: Vec<String>,
}

impl Fleet {
    /// What a bench is asked.
    pub fn options(&self, global: &Global) -> gangplank_bench::Options {
        gangplank_bench::Options {
            hosts: self.hosts.into(),
            workloads: self.workload.clone(),
            delays_ms: self.delay_ms.clone(),
            rounds: self.rounds.into(),
            against: self.against.clone(),
            verbose: global.verbose > 0,
        }
    }
}
