//! A place that a local program reaches: `docker exec -i web1`, `kubectl exec -i web1 --`, `sudo -n -u app`.
//!
//! The program gets `sh -c SCRIPT` as its last arguments and runs it there, connected to its own stdin, stdout and
//! stderr. The protocol is that of ssh: a truncated script is not run, and one that exceeds its time limit is killed
//! there.

use crate::host::ssh::diagnose;
use crate::host::transport::{Incomplete, Session, Transport};
use gangplank_model::error::{CliError, Kind, Result};
use gangplank_model::frame::Environment;
use gangplank_system::context::Context;
use std::process::Command;

/// A place behind a program.
pub struct Through<'ctx> {
    session: Session<'ctx>,
    /// The display name.
    pub name: String,
    /// The program and its first arguments.
    words: Vec<String>,
}

impl<'ctx> Through<'ctx> {
    /// A place not used yet.
    pub fn new(ctx: &'ctx Context, url: &str, name: &str, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { session: Session::new(ctx, url), name: name.to_owned(), words }
    }
}

impl Transport for Through<'_> {
    fn session(&self) -> &Session<'_> {
        &self.session
    }

    fn program(&self, what: &str, run: &str, _interruptible: bool) -> Result<(Command, String)> {
        let mut first = self.words.iter();
        let mut command = Command::new(first.next().map_or("sh", String::as_str));
        command.args(first).args(["sh", "-c", run]);
        Ok((command, format!("{} # {what}", self.words.join(" "))))
    }

    fn environment(&self) -> Environment {
        Environment::OfContainer
    }

    /// The error of a script that did not start, with the output of the program.
    fn diagnose(&self, script: &Incomplete) -> CliError {
        if script.begun {
            return diagnose::broken(&self.session.url, script.what, script.stderr);
        }
        let program = self.words.join(" ");
        let said = script.stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no output").trim();
        CliError::new(
            Kind::Remote,
            format!("{}: `{program}` {}: {said}", self.session.url, gangplank_system::context::exit(script.code)),
        )
        .hint(format!("check that it can be reached: `{program} true`"))
    }
}
