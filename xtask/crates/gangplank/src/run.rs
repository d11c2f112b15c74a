//! Runs a command line: parses it, runs the command, prints the answer or the error, and returns the exit code.

use crate::cli::{self, Color, Command, Global};
use crate::commands::{self, CommandOutput};
use crate::complete;
use crate::parts::tool;
use crate::report::style::Style;
use crate::report::term::{Level, TermSink};
use crate::report::{json, term, text};
use gangplank_deploy::extend::Extensions;
use gangplank_model::error::{self, Kind, Result, hint_of, kind_of};
use gangplank_model::event::{HostOutput, Sink, Stream};
use gangplank_model::project::Project;
use gangplank_system::context::{self, Context, Environment, var};
use gangplank_system::{machine, process};
use jiff::Timestamp;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Moves the cursor to the top of the screen and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Runs the command line of this process for a project.
pub fn main(project: &'static Project) -> ExitCode {
    main_with(project, &Extensions::NONE)
}

/// Like [`main`], with the extensions of the project.
pub fn main_with(project: &'static Project, extensions: &'static Extensions) -> ExitCode {
    ExitCode::from(run(project, extensions, std::env::args_os()))
}

fn run(project: &'static Project, extensions: &'static Extensions, args: impl IntoIterator<Item = OsString>) -> u8 {
    let terminal = Terminal::new();
    let args: Vec<OsString> = args.into_iter().collect();
    if let Err(error) = extensions.validate(&cli::names()) {
        return terminal.fail_early(&error, &args);
    }
    let cli = match cli::parse(extensions, &args) {
        Ok(cli) => cli,
        Err(refusal) => return terminal.print_refusal(&refusal),
    };
    if let Command::Complete { words } = &cli.command {
        // A person is typing: nothing else is printed, whatever goes wrong.
        let _ = print(&mut std::io::stdout(), &complete::candidates(project, extensions, terminal.env.vars, words));
        return 0;
    }
    let (ui, ctx) = match terminal.open(&cli.global, cli.command.takes_any_directory()) {
        Ok(opened) => opened,
        Err(code) => return code,
    };
    let print_line = |said: &HostOutput| ui.print_host_output(said);
    // The doctor reports what is wrong with a project, and goes on.
    let valid = if cli.command.takes_any_project() { Ok(()) } else { project.validate() };
    let run = || commands::run(&tool(&ctx, project, extensions), &cli, &print_line);
    if let (Ok(()), Command::Status { watch: Some(seconds), .. }) = (&valid, &cli.command) {
        return ui.watch(&ctx, &run, Duration::from_secs(u64::from(*seconds)));
    }
    match valid.and_then(|()| run()) {
        Ok(answer) => {
            match ui.print_answer(&ctx, &|| json::answer(&answer), &|style, now| text::answer(&answer, style, now)) {
                Ok(()) => verdict(&answer),
                Err(error) => ui.fail(Some(&ctx), &error, None),
            }
        }
        Err(error) => ui.fail(Some(&ctx), &error, cli.command.env()),
    }
}

/// The process's environment and terminal, before the command line is known.
pub struct Terminal {
    env: Environment,
    no_color: bool,
    dumb: bool,
    ci: bool,
}

impl Terminal {
    /// Those of this process.
    pub fn new() -> Self {
        let env = Environment::from_process();
        let set = |name: &str| env.vars.get(name).is_some_and(|value| !value.is_empty());
        let dumb = env.vars.get("TERM").is_some_and(|term| term == "dumb");
        Self { no_color: set("NO_COLOR"), dumb, ci: set("CI"), env }
    }

    fn style(&self, flag: Option<bool>, width: Option<usize>) -> Style {
        Style::decide(flag, self.no_color, self.dumb, width)
    }

    /// Prints an error that was found before the command line was read.
    fn fail_early(&self, error: &anyhow::Error, args: &[OsString]) -> u8 {
        let style = self.style(None, width(&std::io::stderr()));
        Ui { out: style, err: style, as_json: args.iter().any(|arg| arg == "--json") }.fail(None, error, None)
    }

    /// The output that the global options ask for, and the context. An error has been printed already and is its exit
    /// code. With `any_directory` the command needs no project.
    pub fn open(self, global: &Global, any_directory: bool) -> Result<(Ui, Context), u8> {
        let flag = match global.color {
            Color::Auto => None,
            Color::Always => Some(true),
            Color::Never => Some(false),
        };
        let out = self.style(flag, width(&std::io::stdout()));
        let err = self.style(flag, width(&std::io::stderr()));
        let ui = Ui { out, err, as_json: global.json };
        let level = match (global.quiet, global.verbose) {
            (true, _) => Level::Quiet,
            (false, 0) => Level::Normal,
            (false, _) => Level::Verbose,
        };
        // The terminal of a CI job is a log.
        let redraws = !self.dumb && !self.ci;
        let sink: Arc<dyn Sink> =
            if ui.as_json { Arc::new(json::JsonSink) } else { Arc::new(TermSink::new(err, level, redraws)) };
        let here = |error| match std::env::current_dir() {
            Ok(here) if any_directory => Ok(here),
            _ => Err(error),
        };
        let mut env = self.env;
        if global.quiet {
            env.vars.insert(var::CARGO_QUIET.into(), "true".into());
        }
        let opened = Context::find_root().or_else(here);
        match opened.and_then(|root| Context::from_process(root, env, sink)) {
            Ok(ctx) => {
                if ctx.has_secrets() {
                    process::keep_memory_private();
                }
                Ok((ui, ctx))
            }
            Err(error) => Err(ui.fail(None, &error, None)),
        }
    }

    /// Prints help and version to stdout with exit code 0, a usage error to stderr with 2.
    pub fn print_refusal(&self, refusal: &cli::Refusal) -> u8 {
        let (text, is_error) = (context::scrub(&self.env, &refusal.text), refusal.is_error);
        let width = if is_error { width(&std::io::stderr()) } else { width(&std::io::stdout()) };
        let text = if self.style(None, width).color { text } else { cli::plain(&text) };
        let text =
            if refusal.as_json && is_error { json::error(cli::plain(&text).trim(), None, refusal.code) } else { text };
        // A closed pipe is how `| head` ends what it reads.
        let _ = if is_error {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            std::io::stdout().write_all(text.as_bytes())
        };
        refusal.code
    }
}

/// How a command prints.
pub struct Ui {
    out: Style,
    err: Style,
    as_json: bool,
}

impl Ui {
    /// Prints a line of a host to the same stream, or as JSON to stdout.
    fn print_host_output(&self, said: &HostOutput) -> bool {
        let written = match said {
            _ if self.as_json => print(&mut std::io::stdout(), &json::host_output(said)),
            HostOutput::Line { host, column, stream: Stream::Stdout, line } => {
                print(&mut std::io::stdout(), &text::host_output(host, *column, line, self.out))
            }
            HostOutput::Line { host, column, stream: Stream::Stderr, line } => {
                print(&mut std::io::stderr(), &text::host_output(host, *column, line, self.err))
            }
            HostOutput::Ended { .. } => Ok(()),
        };
        // A closed pipe ends the command.
        written.is_ok()
    }

    /// The answer of a command, as JSON or as text.
    fn render(&self, ctx: &Context, json: &dyn Fn() -> String, text: &dyn Fn(Style, Timestamp) -> String) -> String {
        ctx.scrub(&if self.as_json { json() } else { text(self.out, ctx.now()) })
    }

    /// Prints the answer of a command.
    pub fn print_answer(
        &self,
        ctx: &Context,
        json: &dyn Fn() -> String,
        text: &dyn Fn(Style, Timestamp) -> String,
    ) -> Result<()> {
        match print(&mut std::io::stdout(), &self.render(ctx, json, text)) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                error::failed(format!("cannot print the answer: {error}"))
                    .hint("what was asked for is done: `cargo xtask status` and `history` show it")
                    .err()
            }
            _ => Ok(()),
        }
    }

    /// Prints the answer again and again, on a terminal in place of the last one. Ends with a wrong command line, and when
    /// nothing reads it any more; an interrupt ends the process.
    fn watch(&self, ctx: &Context, run: &dyn Fn() -> Result<CommandOutput>, interval: Duration) -> u8 {
        let clear = if self.out.is_terminal() && !self.as_json { CLEAR } else { "" };
        loop {
            let text = match run() {
                Ok(answer) => {
                    self.render(ctx, &|| json::answer(&answer), &|style, now| text::answer(&answer, style, now))
                }
                Err(error) => {
                    let code = self.fail(Some(ctx), &error, None);
                    if kind_of(&error) == Kind::Usage {
                        return code;
                    }
                    // A host that does not answer now may answer soon.
                    String::new()
                }
            };
            if print(&mut std::io::stdout(), &format!("{clear}{text}")).is_err() {
                return 0;
            }
            thread::sleep(interval);
        }
    }

    /// Prints an error; returns its exit code. `env` is the env that the command is about.
    pub fn fail(&self, ctx: Option<&Context>, error: &anyhow::Error, env: Option<&str>) -> u8 {
        let scrub = |text: &str| ctx.map_or_else(|| text.to_owned(), |ctx| ctx.scrub(text));
        let guides = ctx.map_or("docs", Context::guides);
        let (message, hint, code) = (
            scrub(&format!("{error:#}")),
            hint_of(error).map(|hint| scrub(&error::in_env(&error::with_guides(hint, guides), env))),
            kind_of(error) as u8,
        );
        let text = if self.as_json {
            json::error(&message, hint.as_deref(), code)
        } else {
            term::error(self.err, &message, hint.as_deref())
        };
        let _ = std::io::stderr().write_all(text.as_bytes());
        code
    }
}

/// Columns of a terminal; 80 if unknown.
fn width<Stream: IsTerminal + AsFd>(stream: &Stream) -> Option<usize> {
    stream.is_terminal().then(|| machine::terminal_size(stream).map_or(80, |(columns, _)| columns))
}

fn print(to: &mut impl Write, text: &str) -> std::io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// The exit code of a successful command. A linter or doctor with findings, and a status without some hosts, must fail
/// a pipeline.
fn verdict(answer: &CommandOutput) -> u8 {
    match answer {
        #[cfg(feature = "gangplank-lint")]
        CommandOutput::Findings(findings) => {
            u8::from(findings.iter().any(|it| it.severity == gangplank_lint::Severity::Error))
        }
        CommandOutput::Diagnosis(found) => u8::from(!found.works),
        CommandOutput::Status(hosts)
            if hosts.iter().any(|host| host.state == gangplank_deploy::deploy::report::UNREACHABLE) =>
        {
            error::Kind::Remote as u8
        }
        _ => 0,
    }
}
