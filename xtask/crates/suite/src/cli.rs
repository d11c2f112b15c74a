//! The command line of `test`.

use crate::groups::Grouped;
use crate::times::Slow;
use crate::{Options, Tested, list, test};
use clap::{Args, Subcommand};
use gangplank::program::{Answer, Commands, Global, Style, duration};
use gangplank_model::error::Result;
use gangplank_system::context::Context;
use serde::Serialize;
use std::fmt::Write;

/// What can be typed.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run format, clippy, config, unit and end-to-end tests
    Test(Test),
}

/// The arguments of `test`.
#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
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
    /// Run only the commands in the README and the guides, in fresh clones: the group `docs`
    #[arg(long, conflicts_with_all = ["quick", "all", "rotate", "list"])]
    pub docs: bool,
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

impl Commands for Command {
    fn run(&self, ctx: &Context, _: &Global) -> Result<Box<dyn Answer>> {
        let Self::Test(args) = self;
        if args.list {
            return Ok(Box::new(Listing(list(ctx)?)));
        }
        let docs = ["docs".to_owned()];
        let options = Options {
            quick: args.quick,
            all: if args.docs { Some(&docs) } else { args.all.as_deref() },
            rotate: args.rotate,
            retry: args.retry,
            args: &args.args,
        };
        Ok(Box::new(test(ctx, &options)?))
    }
}

/// The tests of `test --list`.
#[derive(Serialize)]
#[serde(transparent)]
struct Listing(Vec<Grouped>);

impl Answer for Listing {
    fn text(&self, _: Style) -> String {
        self.0.iter().map(|it| format!("{:<10} {}\n", it.group, it.test)).collect()
    }
}

impl Answer for Tested {
    fn text(&self, _: Style) -> String {
        let mut out = String::new();
        if !self.slowest.is_empty() {
            out.push_str("slowest tests:\n");
        }
        for Slow { test, ms } in &self.slowest {
            let _ = writeln!(out, "{:>10}  {test}", duration(*ms));
        }
        let checks: Vec<_> = self.checks.iter().map(|it| format!("{} ({})", it.check, duration(it.ms))).collect();
        let skipped = match self.skipped.len() {
            0 => String::new(),
            n => format!("; {n} skipped, see above"),
        };
        out + &format!("passed: {}{skipped}\n", checks.join(", "))
    }
}
