//! Programs of their own beside the xtask, with its global options and its output: `new` and `bench` of Gangplank's own
//! repository.

pub use crate::approval::ask_text;
pub use crate::cli::Global;
use crate::cli::Refusal;
use crate::commands;
pub use crate::report::style::{Style, bytes, count, duration, table};
use crate::run::Terminal;
pub use crate::test::Checked;
use clap::{Parser, Subcommand};
use gangplank_model::error::Result;
use gangplank_system::context::Context;
use serde::Serialize;
use std::ffi::OsString;
use std::process::ExitCode;

/// The answer of a program: serialized with `--json`, text without.
pub trait Answer: erased::Json {
    /// The answer for people.
    fn text(&self, style: Style) -> String;
}

/// No answer.
impl Answer for () {
    fn text(&self, _: Style) -> String {
        String::new()
    }
}

/// A build.
impl Answer for gangplank_deploy::build::Built {
    fn text(&self, style: Style) -> String {
        crate::report::text::built(self, style)
    }
}

/// A deploy.
impl Answer for gangplank_deploy::deploy::apply::Outcome {
    fn text(&self, style: Style) -> String {
        crate::report::text::outcome(self, style)
    }
}

/// `Serialize` behind a `dyn`.
mod erased {
    /// Gives itself as JSON.
    pub trait Json {
        /// Pretty JSON.
        fn json(&self) -> String;
    }

    impl<T: super::Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
        }
    }
}

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, disable_help_subcommand = true)]
struct Line<C: Subcommand> {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: C,
}

/// The commands of a program.
pub trait Commands: Subcommand {
    /// Whether `--dry-run` is supported.
    fn can_plan(&self) -> bool {
        false
    }

    /// Whether a signal asks the command to stop instead of ending the process.
    fn stops_when_asked(&self) -> bool {
        false
    }

    /// Runs the command.
    fn run(&self, ctx: &Context, global: &Global) -> Result<Box<dyn Answer>>;
}

/// Runs a program on the command line of this process. `C` is its commands.
pub fn main<C: Commands>() -> ExitCode {
    let terminal = Terminal::new();
    let args: Vec<OsString> = std::env::args_os().collect();
    let line = match Line::<C>::try_parse_from(&args) {
        Ok(line) => line,
        Err(error) => return terminal.print_refusal(&Refusal::new(&error, &args)).into(),
    };
    let (ui, ctx) = match terminal.open(&line.global, false) {
        Ok(opened) => opened,
        Err(code) => return code.into(),
    };
    let answer = commands::refuse_dry_run(&line.global, line.command.can_plan())
        .and_then(|()| if line.command.stops_when_asked() { ctx.catch_interrupts(true) } else { Ok(()) })
        .and_then(|()| line.command.run(&ctx, &line.global));
    match answer {
        Ok(answer) => match ui.print_answer(&ctx, &|| answer.json(), &|style, _| answer.text(style)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => ui.fail(Some(&ctx), &error, None).into(),
        },
        Err(error) => ui.fail(Some(&ctx), &error, None).into(),
    }
}
