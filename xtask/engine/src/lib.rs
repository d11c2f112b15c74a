//! From a commit to production on CircleCI, without shell scripts.
//!
//! A project has two rooms: its app, and an `xtask` whose `main.rs` states the pipeline as constants and calls [`main`].
//! This crate is the engine behind it. The tour below follows a release from a commit to a host, and says where to look
//! when you want to use, or change, what happens there.
//!
//! # What a project states
//!
//! A [`Project`]: what is built, where it is handed over, and the envs where it goes live. All of it is constants, so the
//! compiler checks it and there is no file format to learn.
//!
//! ```
//! use gangplank::project::{App, Check, Ci, Env, Health, Project, Service};
//! use std::time::Duration;
//!
//! const PROJECT: Project = Project {
//!     app: App { name: "shop", packages: &["shop"], include: &["shop/static"], ..App::DEFAULT },
//!     stores: &["circleci:workspace", "file:target/store"],
//!     envs: &[Env {
//!         name: "prod",
//!         targets: &["ssh://deploy@web1.example.com/srv/shop"],
//!         vars: &[("PORT", "8080")],
//!         service: Service::Pidfile { run: &["bin/shop"], stop_timeout: Duration::from_secs(15) },
//!         health: Health::new(Check::Http { url: "http://{host}:8080/version", status: 200, body: Some("{commit}") }),
//!         approval: true,
//!         ..Env::DEFAULT
//!     }],
//!     ci: Ci::DEFAULT,
//! };
//! # PROJECT.validate().unwrap();
//! // fn main() -> std::process::ExitCode { gangplank::main(&PROJECT) }
//! ```
//!
//! What it does of its own around a switch is a [`hook`]; stores, targets, commands and steps of a build of its own are
//! [`extend::Extensions`], and [`main_with`] takes them.
//!
//! # From a commit to a release
//!
//! [`build`](mod@build) compiles the app and packs it with what is included. The result is a [`release::Release`]: a
//! directory with a bundle, a [`Manifest`](release::manifest::Manifest) and digests. There are two ways to get one,
//! [`seal`](release::Release::seal) and [`open`](release::Release::open), and both hash every byte: whoever has a
//! `&Release` needs to check nothing. The same commit gives the same bytes on every machine, under the same
//! [`ReleaseId`](release::id::ReleaseId); people point at one by a [`Selector`](release::id::Selector).
//!
//! # From job to job
//!
//! A [`Store`](store::Store) keeps whole releases and never replaces one: a directory, CircleCI's workspace, its artifacts,
//! or a bucket. [`handoff`] has the verbs. A [`Catalog`](deploy::resolve::Catalog) is the stores of a project opened, and
//! finds what somebody meant.
//!
//! # Onto the hosts
//!
//! A [`Target`](host::Target) holds many releases and makes one of them live. There is one,
//! [`HostTarget`](host::directory::HostTarget), for this machine, for ssh and for what other programs reach: each says the same
//! POSIX scripts, which [`host::script`] writes as text.
//!
//! [`deploy`](mod@deploy) reads the [`State`](deploy::state::State) of the targets, [`plan`](deploy::plan)s the steps that
//! are missing, and [`apply`](deploy::apply) carries them out: install everywhere, switch, restart, ask for health, and go
//! back where that fails. All decisions are in `plan`, which touches nothing. What was live is what the
//! [`History`](deploy::history::History) of a target says; no clock and no count of directories decides anything.
//!
//! # On CircleCI, and without it
//!
//! [`ci::pipeline`] is the pipeline as one value. [`ci::render`] writes it as YAML, [`ci::run`] carries it out on this
//! machine, with a CircleCI of its own behind it ([`ci::loopback`]). [`ci::lint`] finds faults in configs, ours or not.
//!
//! # What everything is given, and gives
//!
//! - A [`Context`]: the environment, the programs, the clock, the way out for events. Nothing else looks outside, so a test
//!   decides what a command sees.
//! - [`error::Result`]: errors are `anyhow`, with a [`CliError`](error::CliError) in the chain that carries the exit code and
//!   the hint.
//! - [`event::Event`]s while it works, and one answer at the end. Nothing below this file prints.
//!
//! # To change it
//!
//! The modules are in layers, in the order in which `lib.rs` has them, and each knows only what comes before it there.
//! ARCHITECTURE.md in the repository has the map, the rules, the reasons, and where to add what; `tests/it/tidy.rs` holds
//! the rules.

// Values: pure.
pub mod error;
pub mod event;
pub mod extend;
pub mod hook;
pub mod owner;
pub mod project;
pub mod release;
pub mod service;
pub mod store_url;

// Doors: the outside, once each.
pub mod circleci;
pub mod context;
mod git;
pub mod http;
pub mod machine;
mod process;

// Adapters: one role each.
mod health;
pub mod host;
mod include;
pub mod store;

// Verbs: read like the shell session that they replace.
pub mod bench;
pub mod build;
pub mod ci;
pub mod deploy;
pub mod doctor;
pub mod handoff;
#[cfg(feature = "new")]
pub mod new;
pub mod setup;
pub mod test;
pub mod tool;

// Face: all that prints.
mod approval;
mod cli;
mod commands;
mod complete;
#[cfg(feature = "man")]
mod man;
mod report;

use crate::cli::{Cli, Color};
use crate::commands::CommandOutput;
use crate::context::{Context, Environment};
use crate::error::{Result, hint_of, kind_of};
use crate::event::{HostOutput, Sink, Stream};
use crate::extend::Extensions;
use crate::project::Project;
use crate::report::style::Style;
use crate::report::term::{Level, TermSink};
use crate::report::{json, term, text};
use crate::tool::Tool;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs the command line of this process on a project.
pub fn main(project: &'static Project) -> ExitCode {
    main_with(project, &Extensions::NONE)
}

/// The same, with what the project adds of its own.
pub fn main_with(project: &'static Project, extensions: &'static Extensions) -> ExitCode {
    ExitCode::from(run(project, extensions, std::env::args_os()))
}

fn run(project: &'static Project, extensions: &'static Extensions, args: impl IntoIterator<Item = OsString>) -> u8 {
    let env = Environment::from_process();
    let set = |name: &str| env.vars.get(name).is_some_and(|value| !value.is_empty());
    let dumb = env.vars.get("TERM").is_some_and(|term| term == "dumb");
    let styled = |flag, width| Style::decide(flag, set("NO_COLOR"), dumb, width);
    let args: Vec<OsString> = args.into_iter().collect();
    let as_json = args.iter().any(|arg| arg == "--json");
    if let Err(error) = extensions.validate(&cli::names()) {
        return fail(None, &error, None, as_json, styled(None, width(&std::io::stderr())));
    }
    let cli = match cli::parse(extensions, args) {
        Ok(cli) => cli,
        Err((text, code, is_error)) => {
            let text = context::scrub(&env, &text);
            return print_refusal(&(text, code, is_error), as_json, &styled);
        }
    };
    if let cli::Command::Complete { words } = &cli.command {
        // Whoever is typing is told nothing else, whatever goes wrong.
        let _ = print(&mut std::io::stdout(), &complete::candidates(project, extensions, env.vars, words));
        return 0;
    }
    let flag = match cli.global.color {
        Color::Auto => None,
        Color::Always => Some(true),
        Color::Never => Some(false),
    };
    let out = styled(flag, width(&std::io::stdout()));
    let err = styled(flag, width(&std::io::stderr()));
    let level = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => Level::Quiet,
        (false, 0) => Level::Normal,
        (false, _) => Level::Verbose,
    };
    // The terminal of a CI job is a log.
    let redraws = !dumb && !set("CI");
    let sink: Arc<dyn Sink> =
        if cli.global.json { Arc::new(json::JsonSink) } else { Arc::new(TermSink::new(err, level, redraws)) };
    let here = |error| match std::env::current_dir() {
        Ok(here) if cli.command.takes_any_directory() => Ok(here),
        _ => Err(error),
    };
    let ctx = match Context::find_root().or_else(here).and_then(|root| Context::from_process(root, env, sink)) {
        Ok(ctx) => ctx,
        Err(error) => return fail(None, &error, None, cli.global.json, err),
    };
    if ctx.has_secrets() {
        process::keep_memory_private();
    }
    let print_line = |said: &HostOutput| print_host_output(said, cli.global.json, out, err);
    // The doctor says itself what is wrong with a project, and goes on.
    let valid = if cli.command.takes_any_project() { Ok(()) } else { project.validate() };
    match valid.and_then(|()| commands::run(&Tool { ctx: &ctx, project, extensions }, &cli, &print_line)) {
        Ok(answer) => print_answer(&ctx, &cli, &answer, out)
            .map_or_else(|error| fail(Some(&ctx), &error, None, cli.global.json, err), |()| verdict(&answer)),
        Err(error) => fail(Some(&ctx), &error, cli.command.env(), cli.global.json, err),
    }
}

/// Columns of a terminal; one that does not say has the usual 80.
fn width<Stream: IsTerminal + AsFd>(stream: &Stream) -> Option<usize> {
    stream.is_terminal().then(|| machine::terminal_size(stream).map_or(80, |(columns, _)| columns))
}

/// Help and version go to stdout with 0, a usage error to stderr with 2.
fn print_refusal(
    (text, code, is_error): &(String, u8, bool),
    as_json: bool,
    styled: &dyn Fn(Option<bool>, Option<usize>) -> Style,
) -> u8 {
    let width = if *is_error { width(&std::io::stderr()) } else { width(&std::io::stdout()) };
    let text = if styled(None, width).color { text.clone() } else { cli::plain(text) };
    let text = if as_json && *is_error { json::error(cli::plain(&text).trim(), None, *code) } else { text };
    // A closed pipe is how `| head` says that it has seen enough.
    let _ = if *is_error {
        std::io::stderr().write_all(text.as_bytes())
    } else {
        std::io::stdout().write_all(text.as_bytes())
    };
    *code
}

/// Passes on what a host said, to the stream that it was said to. In JSON all of it is the answer.
fn print_host_output(said: &HostOutput, as_json: bool, out: Style, err: Style) -> bool {
    let written = match said {
        _ if as_json => print(&mut std::io::stdout(), &json::host_output(said)),
        HostOutput::Line { host, column, stream: Stream::Stdout, line } => {
            print(&mut std::io::stdout(), &text::host_output(host, *column, line, out))
        }
        HostOutput::Line { host, column, stream: Stream::Stderr, line } => {
            print(&mut std::io::stderr(), &text::host_output(host, *column, line, err))
        }
        HostOutput::Ended { .. } => Ok(()),
    };
    // Whoever has closed the pipe has seen enough.
    written.is_ok()
}

fn print(to: &mut impl Write, text: &str) -> std::io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

fn print_answer(ctx: &Context, cli: &Cli, answer: &CommandOutput, style: Style) -> Result<()> {
    let text = if cli.global.json { json::answer(answer) } else { text::answer(answer, style, ctx.now()) };
    let mut stdout = std::io::stdout();
    match stdout.write_all(ctx.scrub(&text).as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            error::failed(format!("cannot print the answer: {error}"))
                .hint("what was asked for is done: `cargo xtask status` and `history` show it")
                .err()
        }
        _ => Ok(()),
    }
}

/// A linter that found errors has done its work, and still has to fail a pipeline. So has a doctor, and a status without
/// some hosts.
fn verdict(answer: &CommandOutput) -> u8 {
    match answer {
        CommandOutput::Findings(findings) => {
            u8::from(findings.iter().any(|it| it.severity == ci::lint::Severity::Error))
        }
        CommandOutput::Diagnosis(found) => u8::from(!found.works),
        CommandOutput::Status(hosts) if hosts.iter().any(|host| host.state == deploy::report::UNREACHABLE) => {
            error::Kind::Remote as u8
        }
        _ => 0,
    }
}

fn fail(ctx: Option<&Context>, error: &anyhow::Error, env: Option<&str>, as_json: bool, style: Style) -> u8 {
    let scrub = |text: &str| ctx.map_or_else(|| text.to_owned(), |ctx| ctx.scrub(text));
    let (message, hint, code) = (
        scrub(&format!("{error:#}")),
        hint_of(error).map(|hint| scrub(&error::in_env(&error::with_guides(hint), env))),
        kind_of(error) as u8,
    );
    let text = if as_json {
        json::error(&message, hint.as_deref(), code)
    } else {
        term::error(style, &message, hint.as_deref())
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
    code
}
