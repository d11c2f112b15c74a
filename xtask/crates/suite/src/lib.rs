//! `cargo xtask test` of this repository: the checks of every project, then the end-to-end tests and groups of long tests.

pub mod cli;
mod failures;
pub mod groups;
mod leftovers;
pub mod record;
pub mod times;
mod tools;

use crate::failures::Failures;
use crate::groups::{GROUPS, Group, Grouped};
use crate::leftovers::Before;
use crate::record::{RECORD, Record};
use crate::times::{Slow, Times};
use gangplank::program::Checked;
use gangplank_model::error::{CliError, Kind, Result};
use gangplank_system::context::{Context, exit};
use gangplank_system::git;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The variable with the number of parallel tests.
const THREADS: &str = "RUST_TEST_THREADS";
/// The variable with the path of Python's validator of CircleCI configs, for tests.
pub const CHECK_JSONSCHEMA: &str = "GANGPLANK_CHECK_JSONSCHEMA";
/// The variable with the seed of randomized tests.
pub const SEED: &str = "GANGPLANK_TEST_SEED";
/// The number of slowest tests shown.
const SLOWEST: usize = 10;
/// A faster test is not listed as slow.
const SLOW: Duration = Duration::from_secs(1);

/// The options of the command.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Skip the end-to-end tests, documentation, and features that the project does not use.
    pub quick: bool,
    /// Groups: `Some` without names means the default checks and all groups, `Some` with names only these groups.
    pub all: Option<&'a [String]>,
    /// After the default checks, as many groups as fit into this many minutes.
    pub rotate: Option<u32>,
    /// Retry failed tests alone; those that then pass are reported as flaky.
    pub retry: bool,
    /// Arguments for the test harness.
    pub args: &'a [String],
}

/// The result of `test`.
#[derive(Debug, Serialize)]
pub struct Tested {
    /// Each check, with its wall time.
    pub checks: Vec<Checked>,
    /// The slowest tests, slowest first.
    pub slowest: Vec<Slow>,
    /// Skipped tests, with the reason.
    pub skipped: Vec<String>,
    /// Tests that failed and then passed alone.
    pub flaky: Vec<String>,
}

/// Runs the checks in order and stops at the first that fails.
pub fn test(ctx: &Context, options: &Options) -> Result<Tested> {
    let mut run = Run::new(ctx, options);
    let (groups, left) = run.groups()?;
    if !groups.is_empty() {
        ctx.note(format!("groups of tests in this run: {}; skipped: {}", groups::names(&groups), groups::names(&left)));
    }
    if options.all.is_none_or(<[_]>::is_empty) {
        run.default_checks()?;
    }
    for group in &groups {
        run.group(group)?;
    }
    Ok(run.end(&left))
}

/// The tests that `test` skips by default, by group.
pub fn list(ctx: &Context) -> Result<Vec<Grouped>> {
    let words = [&["test", "--quiet"][..], END_TO_END, &["--", "--ignored", "--list"]].concat();
    groups::sort(GROUPS, &ctx.read(ctx.cargo(&words))?)
}

/// The cargo arguments for the end-to-end tests of this repository. With the whole workspace, so that features match
/// the default run and nothing compiles twice.
const END_TO_END: &[&str] = &["--workspace", "--locked", "--all-features", "--test", "it"];

/// A run of the command.
struct Run<'a> {
    ctx: &'a Context,
    options: &'a Options<'a>,
    /// The file for records of tests.
    record: PathBuf,
    tested: Tested,
}

impl<'a> Run<'a> {
    fn new(ctx: &'a Context, options: &'a Options<'a>) -> Self {
        let record = ctx.root.join("target/test-record.txt");
        let _ = (fs::create_dir_all(ctx.root.join("target")), fs::remove_file(&record));
        let tested = Tested { checks: vec![], slowest: vec![], skipped: vec![], flaky: vec![] };
        Self { ctx, options, record, tested }
    }

    /// The groups to run, and the others.
    fn groups(&self) -> Result<(Vec<&'static Group>, Vec<&'static Group>)> {
        match (self.options.all, self.options.rotate) {
            (None, None) => Ok((vec![], GROUPS.iter().filter(|_| !self.options.quick).collect())),
            (Some(names), _) => Ok((groups::named(GROUPS, names)?, vec![])),
            (None, Some(minutes)) => Ok(groups::rotation(GROUPS, git::count(self.ctx), minutes)),
        }
    }

    /// The checks of every project, which xtask/src/main.rs configures, then the tests.
    fn default_checks(&mut self) -> Result<()> {
        let (ctx, quick) = (self.ctx, self.options.quick);
        self.check("the workspace", || {
            let mut command = ctx.cargo(&["run", "--quiet", "--package", "xtask", "--", "test", "--no-tests"]);
            command.arg(if quick { "--quick" } else { "--all-features" });
            match ctx.watch(command)? {
                Some(0) => Ok(()),
                code => CliError::new(Kind::Failed, format!("`cargo xtask test --no-tests` {}", exit(code)))
                    .hint("the error is above")
                    .err(),
            }
        })?;
        if quick {
            return self.tests("tests", &["--workspace", "--locked", "--exclude", "xtask"], self.options.args);
        }
        tools::install_for_default(ctx);
        self.tests("tests", &["--workspace", "--locked", "--all-features"], self.options.args)
    }

    fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.tested.checks.push(Checked::run(self.ctx, name, work)?);
        Ok(())
    }

    /// Runs the tests of a group.
    fn group(&mut self, group: &Group) -> Result<()> {
        tools::install_for_group(self.ctx, group);
        let filter = format!("{}::", group.name);
        let args = [&["--ignored".to_owned(), filter], self.options.args].concat();
        self.tests(&format!("group {}", group.name), END_TO_END, &args)
    }

    /// Runs `cargo test`, measures each test, and looks for what the tests left on this machine.
    fn tests(&mut self, name: &str, words: &[&str], args: &[String]) -> Result<()> {
        let (ctx, record) = (self.ctx, self.record.clone());
        let variables = self.variables();
        let threads = threads(ctx, args);
        let harness = |more: &[&str], args: &[String]| {
            let mut command = ctx.cargo(&[&["test"], words, more, &["--"]].concat());
            command.args(args).env(RECORD, &record).env(THREADS, threads.to_string()).envs(variables.clone());
            command
        };
        // Later binaries must run too before a failed one is retried.
        let command = harness(if self.options.retry { &["--no-fail-fast"] } else { &[] }, args);
        let before = Before::look();
        let (started, mut times) = (Instant::now(), Times::new(threads));
        let (mut failures, mut flaky) = (Failures::default(), vec![]);
        let ended = self.check(name, || {
            let mut code = ctx.watch_lines(command, &mut |line| {
                times.line(line, started.elapsed());
                failures.line(line);
            })?;
            let alone = failures.alone().map(<[_]>::to_vec);
            if let (Some(tests), true, false) = (alone, self.options.retry, code == Some(0)) {
                ctx.warn(format!("failed, retrying: {}", tests.join(", ")));
                let exactly = ["--include-ignored", "--exact"].map(str::to_owned);
                let command = harness(&[], &[&exactly[..], &tests].concat());
                code = ctx.watch_lines(command, &mut |line| failures.line(line))?;
                flaky = tests;
            }
            let left = before.left(&Record::read(&record));
            for what in &left {
                ctx.warn(format!("the tests left behind: {what}"));
            }
            match code {
                Some(0) if left.is_empty() => Ok(()),
                Some(0) => CliError::new(Kind::Failed, format!("the tests left {} things behind", left.len()))
                    .hint("make the test clean up, also on failure; see the warnings above")
                    .err(),
                code => CliError::new(Kind::Failed, format!("`cargo test` {}", exit(code)))
                    .hint("run a single test with `cargo test --workspace NAME`")
                    .err(),
            }
        });
        let slowest = times.slowest(SLOWEST, SLOW);
        if ended.is_err() {
            // A failed run has no result that lists them.
            for Slow { test, ms } in &slowest {
                ctx.note(format!("slow: {test} ({:.1} s)", *ms as f64 / 1000.0));
            }
            for message in failures.messages() {
                ctx.note(format!("failed: {message}"));
            }
        }
        self.tested.slowest.extend(slowest);
        self.tested.flaky.extend(flaky);
        ended
    }

    /// Variables that the tests of this repository read.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let ctx = self.ctx;
        let mut variables = Vec::new();
        if !self.options.quick {
            let validator = ctx.var(CHECK_JSONSCHEMA).map(PathBuf::from).or_else(|| tools::validator(ctx));
            variables.extend(validator.map(|path| (CHECK_JSONSCHEMA, path.display().to_string())));
        }
        let seed = ctx.var(SEED).map(str::to_owned).or_else(|| git::head_sha(ctx));
        if let Some(seed) = seed {
            ctx.note(format!("using {SEED}={seed} for random samples"));
            variables.push((SEED, seed));
        }
        variables
    }

    /// The result, after warnings for everything skipped.
    fn end(mut self, left: &[&Group]) -> Tested {
        let tested = &mut self.tested;
        tested.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.ms));
        tested.slowest.truncate(SLOWEST);
        if self.options.quick {
            tested.skipped.push("end-to-end tests: run them with `cargo xtask test`".into());
        }
        tested.skipped.extend(Record::read(&self.record).skipped);
        if !left.is_empty() {
            tested.skipped.push(format!("groups {}: run one with `cargo xtask test --all GROUP`", groups::names(left)));
        }
        tested.skipped.iter().for_each(|skipped| self.ctx.warn(format!("skipped: {skipped}")));
        tested.flaky.iter().for_each(|test| self.ctx.warn(format!("flaky: {test} failed, then passed alone")));
        self.tested
    }
}

/// The number of parallel tests: from the arguments, or, in the engine's repository, two more than cores, because tests
/// spend half of the time waiting.
fn threads(ctx: &Context, args: &[String]) -> usize {
    let option = args.iter().position(|arg| arg == "--test-threads").and_then(|at| args.get(at + 1));
    let stated = option.map(String::as_str).or_else(|| args.iter().find_map(|arg| arg.strip_prefix("--test-threads=")));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    stated.or_else(|| ctx.var(THREADS)).and_then(|n| n.parse().ok()).unwrap_or(cores + 2)
}
