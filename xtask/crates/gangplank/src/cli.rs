//! The command line: what can be typed, and which function answers. clap stops here.

mod ci;
mod control;
mod setup;
mod test;

pub use crate::cli::ci::{Ci, Trigger};
pub use crate::cli::control::Control;
pub use crate::cli::setup::Setup;
pub use crate::cli::test::Test;

use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use gangplank_deploy::deploy::Options;
use gangplank_deploy::extend;
use gangplank_deploy::extend::Extensions;
use gangplank_model::release::id::{Expected, Selector};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// From a commit to production on CircleCI, without shell scripts
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    propagate_version = false,
    disable_help_subcommand = true
)]
#[command(after_help = "\
A RELEASE is an id, 4 to 40 digits of a commit's SHA, `HEAD` (of this commit), `latest`, `build:N`
(of job N on CircleCI), `@ENV` (what runs there now), or for a rollback `previous`.
Exit codes: 0 ok, 1 failed (nothing changed or all reverted), 2 usage, 3 authentication, 4 remote
API, 5 not found, 6 locked, 7 verification failed, 8 stale, 9 failed and NOT reverted: README.md")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// The options of every command.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Only say what would be done
    #[arg(short = 'n', long, global = true)]
    pub dry_run: bool,
    /// Answer in JSON on stdout, events as JSON lines on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Say less
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more: every command that is run
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Colours: auto, always or never; `NO_COLOR` is honoured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub color: Color,
    /// Answer every question with yes
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
    /// Build the app and seal a release into target/releases
    Build,
    /// Check every byte of a release against its manifest; `@ENV` checks what is live there
    Verify {
        /// A release, or the directory of one
        #[arg(required_unless_present = "store")]
        release: Option<String>,
        /// Unpack it to DIR; DIR is created only after verification
        #[arg(long, value_name = "DIR")]
        unpack: Option<PathBuf>,
        /// Verify the copy of a release that was built here in all stores, or in this one
        #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with = "unpack")]
        store: Option<String>,
    },
    /// Put a release into the stores
    Put {
        /// The release; that of the checkout when left out
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        /// Only this store
        #[arg(long, value_name = "URL")]
        store: Option<String>,
    },
    /// Point `LATEST_BUILD_NUM` to the build of a release, never backwards
    Publish {
        /// The release; that of the checkout when left out
        #[arg(value_parser = selector)]
        release: Option<Selector>,
    },
    /// Fetch a release from the first store that has it
    Fetch {
        /// The release; that of the checkout when left out
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        /// Where to put it
        #[arg(long, value_name = "DIR", default_value = "target/fetched")]
        into: PathBuf,
    },
    /// Show what `deploy` would do
    Plan {
        /// The env
        env: String,
        /// The release; that of the checkout when left out
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        #[command(flatten)]
        deploy: OlderArgs,
    },
    /// Make a release live in an env
    Deploy {
        /// The env
        env: String,
        /// The release; that of the checkout when left out
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        #[command(flatten)]
        older: OlderArgs,
        #[command(flatten)]
        expect: ExpectArgs,
        #[command(flatten)]
        change: Change,
    },
    /// Make live in one env what runs in another: the same bytes
    Promote {
        /// The env to take it from
        from: String,
        /// The env to make it live in
        to: String,
        #[command(flatten)]
        older: OlderArgs,
        #[command(flatten)]
        expect: ExpectArgs,
        #[command(flatten)]
        change: Change,
    },
    /// Go back to what was live and healthy before
    Rollback {
        /// The env
        env: String,
        /// Go back to this one; `previous`, the release before, when left out
        #[arg(value_parser = selector)]
        release: Option<Selector>,
        #[command(flatten)]
        expect: ExpectArgs,
        #[command(flatten)]
        change: Change,
    },
    /// Show what is live where
    Status {
        /// Only this env
        env: Option<String>,
    },
    /// Show the last lines of the service's log on each host of an env; as JSON a line each
    Logs {
        /// The env
        env: String,
        /// Go on with what is written from now on, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        /// How many lines of each host
        #[arg(long, value_name = "N", default_value_t = 100)]
        lines: u32,
        /// Only this host, by name or URL
        #[arg(long, value_name = "NAME_OR_URL")]
        host: Option<String>,
    },
    /// Run a command in the live release on each host, with the env's `vars`, under no lock
    Exec {
        /// The env
        env: String,
        /// Only this host, by name or URL
        #[arg(long, value_name = "NAME_OR_URL")]
        host: Option<String>,
        /// The program and its arguments, each as it is; for pipes and the like: -- sh -c 'a | b'
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Start the service of the live release, where it does not run
    Start(Control),
    /// Stop the service of the live release
    Stop(Control),
    /// Restart the service of the live release, wave by wave
    Restart(Control),
    /// Show what happened in an env
    History {
        /// The env
        env: String,
        /// How many records
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Installs, switches and removals too
        #[arg(long)]
        all: bool,
    },
    /// List releases: where they are kept and where they are live
    Releases {
        /// How many, the newest first
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Compare what is live in an env with a release
    Diff {
        /// The env
        env: String,
        /// The release; that of the checkout when left out
        #[arg(value_parser = selector)]
        release: Option<Selector>,
    },
    /// Remove old releases from the targets of an env, or from a store
    Prune(Prune),
    /// Show the owner of an env's lock
    Lock {
        /// The env
        env: String,
    },
    /// Remove the lock of an env whose owner is gone
    Unlock {
        /// The env
        env: String,
        /// Remove it even if its owner may still run
        #[arg(long)]
        force: bool,
    },
    /// CircleCI: write, check and run the pipeline
    #[command(subcommand)]
    Ci(Ci),
    /// Say everything that would keep a deploy from working, each with its fix
    #[command(
        after_help = "It changes nothing. Exit codes: 0 a deploy would work (there may be warnings), 1 it would not."
    )]
    Doctor {
        /// Only this env; all when left out
        env: Option<String>,
        /// Only what a job without contexts can know: no hosts, and buckets only with credentials
        #[arg(long, conflicts_with = "env")]
        ci: bool,
    },
    /// Print the commands that root runs once on each host of an env, or run them
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
        /// Where to
        dir: PathBuf,
    },
    /// What a shell asks for: what may follow these words
    #[command(hide = true)]
    Complete {
        /// All words after `cargo xtask`, the one under the cursor last
        #[arg(last = true)]
        words: Vec<OsString>,
    },
    /// One of the project's own
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
    /// How many good releases stay, the project's number when left out; in a store, how many of each branch, 10 then
    #[arg(long, value_name = "N")]
    pub keep: Option<u16>,
    /// A bucket to prune; without --yes it is only shown what would go
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// In a store, for how many days everything stays
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
    /// Go on although the release is older than what is live
    #[arg(long)]
    pub allow_older: bool,
    /// Replace a `current` link that another tool made; a deploy that fails restores it
    #[arg(long)]
    pub take_over: bool,
}

impl OlderArgs {
    /// What a plan is asked for.
    pub fn plan(self) -> Options {
        Options { dry_run: true, allow_older: self.allow_older, take_over: self.take_over, ..Options::default() }
    }
}

#[derive(Debug, Clone, Default, Args)]
pub struct ExpectArgs {
    /// Change nothing unless this release, or commit, is live
    #[arg(long, value_name = "SHA_OR_ID", value_parser = expected)]
    pub expect_current: Option<Expected>,
}

#[derive(Debug, Clone, Args)]
pub struct Change {
    /// How long to wait for somebody else's lock
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub lock_wait: u64,
    /// The reason, for the history
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub reason: Option<String>,
    /// Leave out a target that does not answer, by the name of its host or its URL; may be repeated
    #[arg(long, value_name = "HOST")]
    pub skip_host: Vec<String>,
}

impl Change {
    /// With the global options and those of `older` and `expect`.
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
    /// Whether it changes nothing with `--dry-run`.
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
                | Self::Ci(Ci::Run { .. } | Ci::Trigger(_) | Ci::Approve { .. })
                | Self::Test(_)
                | Self::New(_)
                | Self::Bench(_)
                | Self::Man { .. }
                | Self::Own(..)
        )
    }

    /// The env that it is about.
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
            Self::Status { env } | Self::Doctor { env, .. } => env.as_deref(),
            Self::Prune(prune) => prune.env.as_deref(),
            Self::Setup(setup) => Some(&setup.env),
            _ => None,
        }
    }

    /// Whether it shows what hosts say while they say it, or waits for them, and wants to end that itself.
    pub fn listens(&self) -> bool {
        matches!(self, Self::Logs { .. } | Self::Exec { .. } | Self::Doctor { .. })
    }

    /// Whether it works on a project that does not make sense.
    pub fn takes_any_project(&self) -> bool {
        matches!(self, Self::Doctor { .. }) || self.takes_any_directory()
    }

    /// Whether it works outside a workspace: it reads one file and nothing of the project.
    pub fn takes_any_directory(&self) -> bool {
        matches!(self, Self::Ci(Ci::Lint { .. }))
    }

    /// Whether it leaves something half done or unsaid when it is killed, and so wants to be asked to stop instead.
    pub fn stops_when_asked(&self) -> bool {
        matches!(
            self,
            Self::Deploy { .. }
                | Self::Promote { .. }
                | Self::Rollback { .. }
                | Self::Prune(_)
                | Self::Put { .. }
                | Self::Fetch { .. }
                | Self::Ci(Ci::Run { .. } | Ci::Trigger(_))
        )
    }
}

/// Reads a release.
fn selector(text: &str) -> Result<Selector, String> {
    text.parse().map_err(with_hint)
}

fn expected(text: &str) -> Result<Expected, String> {
    text.parse().map_err(with_hint)
}

/// clap would drop the hint.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` has it")]
fn with_hint(error: anyhow::Error) -> String {
    format!("{error}\nhint: {}", gangplank_model::error::hint_of(&error).unwrap_or("see --help"))
}

/// Everything that can be typed.
pub type CommandLine = clap::Command;

/// The same, with the commands of the project's own after ours.
pub fn definition(extensions: &'static Extensions) -> CommandLine {
    let own = extensions.commands.iter().map(|own| {
        let words = Arg::new(WORDS).value_name("WORDS").num_args(0..).help("What it is to be about");
        CommandLine::new(own.name).about(own.about).arg(words)
    });
    Cli::command().subcommands(own)
}

/// What our commands are called.
pub fn names() -> Vec<String> {
    Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// The arguments of a command of the project's own.
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

/// The same text without colours.
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
    fn the_definitions_are_sound() {
        super::definition(&super::Extensions::NONE).debug_assert();
    }
}
