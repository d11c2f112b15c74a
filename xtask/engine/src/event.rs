//! What happens while a command runs, as data.
//!
//! The engine never prints: it emits events, and a sink (terminal, JSON lines) decides what a reader sees. The enum
//! is closed on purpose, so that a sink that forgets one does not compile.

use serde::Serialize;
use std::time::Instant;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A command of another program ended. `ms` is its wall time.
    Ran {
        /// The command as it could be typed.
        command: String,
        /// Wall time in milliseconds.
        ms: u64,
        /// Whether it exited with 0.
        ok: bool,
    },
    /// Something worth a line.
    Note {
        /// The line, without a newline.
        text: String,
    },
    /// Something that is not an error, but that somebody should look at.
    Warning {
        /// The line, without a newline.
        text: String,
    },
    /// A step of a plan began on a target.
    StepStarted {
        /// URL of the target.
        target: String,
        /// What is being done, e.g. `install 20260822T101500-1a2b3c4`.
        step: String,
    },
    /// A step of a plan ended on a target.
    StepEnded {
        /// URL of the target.
        target: String,
        /// The words that [`Event::StepStarted`] had.
        step: String,
        /// Wall time in milliseconds.
        ms: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// The work on the targets of an env came to a stage.
    Stage {
        /// To which one.
        stage: Stage,
        /// Which wave it is, from 1; 0 outside of waves.
        wave: usize,
        /// How many waves there are.
        waves: usize,
        /// URLs of the targets that have a part in it.
        targets: Vec<String>,
    },
    /// Putting a target back ended.
    Reverted {
        /// URL of the target.
        target: String,
        /// Whether it is as it was before.
        ok: bool,
    },
    /// How far a long task is. Ends with `done == total`.
    Progress {
        /// What is being done, e.g. `compressing`.
        task: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The last lines that a service wrote, shown when it did not become healthy.
    ServiceLog {
        /// URL of the target.
        target: String,
        /// The lines, oldest first.
        lines: Vec<String>,
    },
    /// A job of the pipeline began, in a run on this machine.
    JobStarted {
        /// Name of the job.
        job: String,
    },
    /// A job of the pipeline ended.
    JobEnded {
        /// Name of the job.
        job: String,
        /// Wall time in milliseconds.
        ms: u64,
        /// `success`, `failed`, `approved`, `on hold` or `not run`.
        status: String,
    },
}

/// How far the work on the targets of an env has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing is switched yet: releases are installed where they are missing.
    Install,
    /// A wave is switched and checked.
    Switch,
    /// All are healthy, which is recorded; what is old is removed.
    Finalize,
    /// Something failed, and what was switched goes back.
    Reverted,
    /// It ended well.
    Done,
    /// It ended in an error.
    Failed,
}

/// Which of its two streams a program wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// What it printed.
    Stdout,
    /// What it complained.
    Stderr,
}

/// What a host said while somebody listens: the answer of `logs` and `exec`, which comes line by line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum HostOutput {
    /// A line.
    Line {
        /// What the host is called.
        host: String,
        /// As how wide a column people see the hosts' names; 0 when there is only one, which needs none.
        #[serde(skip)]
        column: usize,
        /// Where it was written to.
        stream: Stream,
        /// The line, without a newline.
        line: String,
    },
    /// The command came to its end there.
    Ended {
        /// What the host is called.
        host: String,
        /// Its exit code.
        exit_code: i32,
    },
}

/// Who listens. Tells whether it wants to hear more.
pub type Listener<'a> = &'a (dyn Fn(&HostOutput) -> bool + Sync);

/// Milliseconds since an instant, as events give them.
pub fn ms_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Where events go.
pub trait Sink: Send + Sync {
    /// Takes one event; never fails, because there is nobody left to tell.
    fn emit(&self, event: &Event);
}

/// Drops every event.
pub struct NoSink;

impl Sink for NoSink {
    fn emit(&self, _: &Event) {}
}
