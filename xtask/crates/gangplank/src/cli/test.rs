//! The arguments of `test`.

use clap::Args;

#[derive(Debug, Clone, Args)]
pub struct Test {
    /// Skip the documentation and the end-to-end tests
    #[arg(long)]
    pub quick: bool,
    /// Skip all tests
    #[arg(long)]
    pub no_tests: bool,
    /// Check with all Cargo features
    #[arg(long)]
    pub all_features: bool,
    /// Arguments for the test harness, e.g. --test-threads=8
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}
