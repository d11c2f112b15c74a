//! The command-line arguments of `test`, parsed with clap.

use clap::Args;

#[derive(Debug, Clone, Args)]
pub struct Test {
    /// Skip the end-to-end tests
    #[arg(long, conflicts_with_all = ["all", "rotate", "list"])]
    pub quick: bool,
    /// Also run all groups of long tests; with names, run only these groups
    #[arg(long, value_name = "GROUP", num_args = 0..)]
    pub all: Option<Vec<String>>,
    /// Also run as many groups as fit into MINUTES, starting with a different group at each commit
    #[arg(long, value_name = "MINUTES", conflicts_with = "all")]
    pub rotate: Option<u32>,
    /// List the tests of each group
    #[arg(long, conflicts_with_all = ["all", "rotate"])]
    pub list: bool,
    /// Retry up to three failed tests, alone, and report those that pass as flaky
    #[arg(long)]
    pub retry: bool,
    /// Pass these arguments to the test harness, e.g. --test-threads=8
    #[arg(last = true)]
    pub args: Vec<String>,
}
