//! The command line, parsed with clap. No other module names clap.

mod ci;
mod control;
mod report;
mod setup;
mod sign;
mod test;
mod value;

pub use crate::cli::ci::{Ci, Run, Trigger};
pub use crate::cli::control::Control;
pub use crate::cli::report::Report;
pub use crate::cli::setup::Setup;
pub use crate::cli::sign::{Keygen, Sign};
pub use crate::cli::test::Test;

use crate::cli::value::{expected, selector};
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use gangplank_deploy::deploy::deployment::Options;
use gangplank_deploy::extend;
use gangplank_deploy::extend::Extensions;
use gangplank_model::release::id::{Expected, Selector};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Build, store, deploy and roll back releases, locally and on CircleCI
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    propagate_version = false,
    disable_help_subcommand = true
)]
#[command(after_help = "\
A RELEASE is an id, 4 to 40 digits of a SHA, `HEAD`, `latest`, `build:N` (of
CircleCI job N), `@ENV` (live there), or for a rollback `previous`.
Exit codes: 0 ok, 1 failed, 2 usage, 3 auth, 4 remote API, 5 not found,
6 locked, 7 verification, 8 stale, 9 NOT reverted")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// The options of every command.
#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print what would be done, and change nothing
    #[arg(short = 'n', long, global = true)]
    pub dry_run: bool,
    /// Print the result as JSON on stdout, and events as JSON lines on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Suppress informational output
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print every command that is run
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Use colours: auto, always or never; `NO_COLOR` is respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub color: Color,
    /// Answer yes to every question
    #[arg(short, long, global = true)]
    pub yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build the app and package a release into target/releases
    Build,
    /// Verify every file of a release against its manifest; `@ENV` verifies the live release
    Verify {
        /// A release, or a directory with one
        #[arg(required_unless_present = "store")]
        release: Option<String>,
        /// Unpack the release to DIR, created only after verification
        #[arg(long, value_name = "DIR")]
        unpack: Option<PathBuf>,
        /// Verify the copy of a locally built release in all stores, or in this one
        #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with = "unpack")]
        store: Option<String>,
    },
    /// Make a key to sign releases with: FILE, and FILE.pub for `require_signature`
    Keygen(Keygen),
    /// Sign a release that was built here, before `put`
    Sign(Sign),
    /// Upload a release to the stores
    Put {
        /// The release [default: current commit]
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        /// Use only this store
        #[arg(long, value_name = "URL")]
        store: Option<String>,
        /// Put only this program into CircleCI's workspace, for later jobs
        #[arg(long, conflicts_with_all = ["release", "store"])]
        program: bool,
    },
    /// Point `LATEST_BUILD_NUM` at the build of a release, never backwards
    Publish {
        /// The release [default: current commit]
        #[arg(value_parser = selector)]
        release: Option<Selector>,
    },
    /// Download a release from the first store that has it
    Fetch {
        /// The release [default: current commit]
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        /// Write the release to this directory
        #[arg(long, value_name = "DIR", default_value = "target/fetched")]
        into: PathBuf,
    },
    /// Print the steps of a deploy
    Plan {
        /// The env
        env: String,
        /// The release [default: current commit]
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        #[command(flatten)]
        deploy: OlderArgs,
    },
    /// Deploy a release to an env
    Deploy {
        /// The env
        env: String,
        /// The release [default: current commit]
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        #[command(flatten)]
        older: OlderArgs,
        #[command(flatten)]
        expect: ExpectArgs,
        #[command(flatten)]
        change: Change,
    },
    /// Deploy the release running in FROM to TO
    Promote {
        /// The env to copy from
        from: String,
        /// The env to deploy to
        to: String,
        #[command(flatten)]
        older: OlderArgs,
        #[command(flatten)]
        expect: ExpectArgs,
        #[command(flatten)]
        change: Change,
    },
    /// Activate the previous healthy release of an env
    Rollback {
        /// The env
        env: String,
        /// The release to activate [default: previous]
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        #[command(flatten)]
        expect: ExpectArgs,
        #[command(flatten)]
        change: Change,
    },
    /// Print the live release of each host
    Status {
        /// Only this env
        env: Option<String>,
        /// Print again every N seconds until interrupted [default: 5]
        #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "5",
            value_parser = clap::value_parser!(u32).range(1..=3600))]
        watch: Option<u32>,
    },
    /// Print the last lines of the service's log on each host of an env
    Logs {
        /// The env
        env: String,
        /// Follow the log
        #[arg(short, long)]
        follow: bool,
        /// Number of lines per host
        #[arg(long, value_name = "N", default_value_t = 100)]
        lines: u32,
        /// Only this host, by name or URL
        #[arg(long, value_name = "NAME_OR_URL")]
        host: Option<String>,
    },
    /// Run a command in the live release on each host, without taking the lock
    Exec {
        /// The env
        env: String,
        /// Only this host, by name or URL
        #[arg(long, value_name = "NAME_OR_URL")]
        host: Option<String>,
        /// The program and its arguments, passed without a shell; for a pipe: -- sh -c 'a | b'
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Start the service of the live release where it is stopped
    Start(Control),
    /// Stop the service of the live release
    Stop(Control),
    /// Restart the service of the live release, wave by wave
    Restart(Control),
    /// Print the history of an env
    History {
        /// The env
        env: String,
        /// Number of records
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Include installs, switches and removals
        #[arg(long)]
        all: bool,
    },
    /// List releases, their stores and the envs where they are live
    Releases {
        /// Number of releases, newest first
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Write what is live, the history and the sizes of releases as one page of HTML
    Report(Report),
    /// Compare the live release of an env with a release
    Diff {
        /// The env
        env: String,
        /// The release [default: current commit]
        #[arg(value_parser = selector)]
        release: Option<Selector>,
    },
    /// Remove old releases from the hosts of an env, or from a store
    Prune(Prune),
    /// Notify the recipients of an env that its approval is wanted
    Notify {
        /// The env
        env: String,
        /// Send a test instead, and fail if it cannot be sent
        #[arg(long)]
        test: bool,
    },
    /// Print the owner of an env's lock
    Lock {
        /// The env
        env: String,
    },
    /// Remove the lock of an env whose owner is gone
    Unlock {
        /// The env
        env: String,
        /// Remove it even if its owner may still be running
        #[arg(long)]
        force: bool,
    },
    /// Generate, check, run and trigger the CircleCI pipeline
    #[command(subcommand)]
    Ci(Ci),
    /// List every problem that would block a deploy, each with its fix
    #[command(
        after_help = "It changes nothing. Exit codes: 0 a deploy would work (there may be warnings), 1 it would not."
    )]
    Doctor {
        /// Only this env [default: all]
        env: Option<String>,
        /// Check only what a job without contexts can: no hosts, and buckets only with credentials
        #[arg(long, conflicts_with = "env")]
        ci: bool,
    },
    /// Print or run the commands that prepare each host of an env, once, as root
    #[command(
        after_help = "Pipe it to an administrator's login: cargo xtask setup ENV --host web1 | ssh admin@web1 sudo sh"
    )]
    Setup(Setup),
    /// Run format, clippy, config, unit and end-to-end tests
    Test(Test),
    /// Make a project: an app, its pipeline, a first commit
    #[command(disable_help_flag = true)]
    New(Forwarded),
    /// Measure this engine against what others do, on this machine alone
    #[command(disable_help_flag = true)]
    Bench(Forwarded),
    /// Print a script by which a shell completes what is typed: docs/shell.md
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a man page for each command
    Man {
        /// The output directory
        dir: PathBuf,
    },
    /// Print the completions of a command line, for a completion script
    #[command(hide = true)]
    Complete {
        /// All words after `cargo xtask`, the one under the cursor last
        #[arg(last = true)]
        words: Vec<OsString>,
    },
    /// A command of the project
    #[command(skip)]
    Own(&'static extend::Command, Vec<String>),
}

/// The arguments of a command that is a program of its own, in Gangplank's own repository.
#[derive(Debug, Clone, Args)]
pub struct Forwarded {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub args: Vec<OsString>,
}

#[derive(Debug, Clone, Args)]
pub struct Prune {
    /// The env
    #[arg(required_unless_present = "store", conflicts_with = "store")]
    pub env: Option<String>,
    /// Number of good releases to keep [default: the project's; in a store 10 per branch]
    #[arg(long, value_name = "N")]
    pub keep: Option<u16>,
    /// Prune this bucket; without --yes, print what would be removed
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// In a store, keep everything younger than this many days
    #[arg(long, value_name = "N", default_value_t = 30, requires = "store")]
    pub days: u32,
    #[command(flatten)]
    pub change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Fish,
    Zsh,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct OlderArgs {
    /// Allow a release older than the live one
    #[arg(long)]
    pub allow_older: bool,
    /// Replace a `current` link made by another tool; a failed deploy restores it
    #[arg(long)]
    pub take_over: bool,
}

impl OlderArgs {
    /// The options of `plan`.
    pub fn plan(self) -> Options {
        Options { dry_run: true, allow_older: self.allow_older, take_over: self.take_over, ..Options::default() }
    }
}

#[derive(Debug, Clone, Default, Args)]
pub struct ExpectArgs {
    /// Fail unless this release, or commit, is live
    #[arg(long, value_name = "SHA_OR_ID", value_parser = expected)]
    pub expect_current: Option<Expected>,
}

#[derive(Debug, Clone, Args)]
pub struct Change {
    /// Wait this long for a held lock
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub lock_wait: u64,
    /// The reason, recorded in the history
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub reason: Option<String>,
    /// Skip an unreachable host, by name or URL; may be repeated
    #[arg(long, value_name = "HOST")]
    pub skip_host: Vec<String>,
}

impl Change {
    /// The deploy options, merged with the global ones and those of `older` and `expect`.
    pub fn options(&self, global: &Global, older: Option<OlderArgs>, expect: &ExpectArgs) -> Options {
        Options {
            dry_run: global.dry_run,
            allow_older: older.is_some_and(|older| older.allow_older),
            take_over: older.is_some_and(|older| older.take_over),
            lock_wait: Duration::from_secs(self.lock_wait),
            expect_current: expect.expect_current.clone().unwrap_or_default(),
            skip_host: self.skip_host.clone(),
            approved: None,
            reason: self.reason.clone().filter(|reason| !gangplank_model::release::id::is_nil(reason)),
        }
    }
}

impl Command {
    /// Whether `--dry-run` is supported.
    pub fn can_plan(&self) -> bool {
        !matches!(
            self,
            Self::Build
                | Self::Verify { unpack: Some(_), .. }
                | Self::Put { .. }
                | Self::Publish { .. }
                | Self::Fetch { .. }
                | Self::Unlock { .. }
                | Self::Exec { .. }
                | Self::Ci(Ci::Run(_) | Ci::Trigger(_) | Ci::Approve { .. })
                | Self::Test(_)
                | Self::Bench(_)
                | Self::Man { .. }
                | Self::Report(_)
                | Self::Notify { .. }
                | Self::Own(..)
        )
    }

    /// The env the command applies to.
    pub fn env(&self) -> Option<&str> {
        match self {
            Self::Plan { env, .. }
            | Self::Deploy { env, .. }
            | Self::Promote { to: env, .. }
            | Self::Rollback { env, .. }
            | Self::Logs { env, .. }
            | Self::Exec { env, .. }
            | Self::Start(Control { env, .. })
            | Self::Stop(Control { env, .. })
            | Self::Restart(Control { env, .. })
            | Self::History { env, .. }
            | Self::Diff { env, .. }
            | Self::Lock { env }
            | Self::Unlock { env, .. }
            | Self::Ci(Ci::Approve { env, .. }) => Some(env),
            Self::Ci(Ci::Trigger(Trigger::Deploy(request) | Trigger::Rollback(request))) => Some(&request.env),
            Self::Status { env, .. } | Self::Doctor { env, .. } => env.as_deref(),
            Self::Prune(prune) => prune.env.as_deref(),
            Self::Setup(setup) => Some(&setup.env),
            _ => None,
        }
    }

    /// Whether the command streams output of hosts or waits for them, and handles Ctrl-C itself.
    pub fn listens(&self) -> bool {
        matches!(self, Self::Logs { .. } | Self::Exec { .. } | Self::Doctor { .. })
    }

    /// Whether the command runs in an invalid project.
    pub fn takes_any_project(&self) -> bool {
        matches!(self, Self::Doctor { .. }) || self.takes_any_directory()
    }

    /// Whether the command runs outside a workspace. It reads one file and nothing of the project.
    pub fn takes_any_directory(&self) -> bool {
        matches!(self, Self::Ci(Ci::Lint { .. }))
    }

    /// Whether killing the command would leave partial effects, so that Ctrl-C has to stop it at a step boundary.
    pub fn stops_when_asked(&self) -> bool {
        matches!(
            self,
            Self::Deploy { .. }
                | Self::Promote { .. }
                | Self::Rollback { .. }
                | Self::Prune(_)
                | Self::Put { .. }
                | Self::Fetch { .. }
                | Self::Ci(Ci::Run(_) | Ci::Trigger(_))
        )
    }
}

/// The clap definition of all commands.
pub type CommandLine = clap::Command;

/// The clap definition, with the project's own commands after the built-in ones.
pub fn definition(extensions: &'static Extensions) -> CommandLine {
    let own = extensions.commands.iter().map(|own| {
        let words = Arg::new(WORDS).value_name("WORDS").num_args(0..).help("The arguments of the command");
        CommandLine::new(own.name).about(own.about).arg(words)
    });
    Cli::command().subcommands(own)
}

/// The names of the built-in commands.
pub fn names() -> Vec<String> {
    Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// The argument name for the words of a project's own command.
const WORDS: &str = "words";

/// What clap prints in place of a parsed command line: help, the version or a usage error.
pub struct Refusal {
    /// The text, with colours.
    pub text: String,
    /// The exit code.
    pub code: u8,
    /// Whether it is an error.
    pub is_error: bool,
    /// Whether `--json` was given.
    pub as_json: bool,
}

impl Refusal {
    /// What clap says of `args`.
    pub fn new(error: &clap::Error, args: &[OsString]) -> Self {
        Self {
            text: error.render().ansi().to_string(),
            code: u8::try_from(error.exit_code()).unwrap_or(2),
            is_error: error.use_stderr(),
            as_json: args.iter().any(|arg| arg == "--json"),
        }
    }
}

/// Reads the command line.
pub fn parse(extensions: &'static Extensions, args: &[OsString]) -> Result<Cli, Refusal> {
    let parsed = definition(extensions).try_get_matches_from(args).and_then(|matches| {
        let own = matches.subcommand().and_then(|(name, inner)| Some((extensions.command(name)?, inner)));
        let Some((command, inner)) = own else { return Cli::from_arg_matches(&matches) };
        let words = inner.get_many(WORDS).unwrap_or_default().cloned().collect();
        Ok(Cli { global: Global::from_arg_matches(&matches)?, command: Command::Own(command, words) })
    });
    parsed.map_err(|error| Refusal::new(&error, args))
}

/// `text` without its ANSI colours.
pub fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    #[test]
    fn definition_passes_the_checks_of_clap() {
        super::definition(&super::Extensions::NONE).debug_assert();
    }
}
