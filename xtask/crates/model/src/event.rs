//! Events of a running command, as data.
//!
//! The engine never prints: it emits events, and a sink (terminal, JSON lines) renders them. The enum is exhaustive, so
//! that a sink cannot forget an event.

use crate::history::Verb;
use crate::release::id::ReleaseId;
use serde::Serialize;
use std::time::Instant;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A command of another program ended.
    Ran {
        /// The command as typed.
        command: String,
        /// Wall time in milliseconds.
        ms: u64,
        /// Whether it exited with 0.
        ok: bool,
    },
    /// Information.
    Note {
        /// The line, without a newline.
        text: String,
    },
    /// A problem that is not an error.
    Warning {
        /// The line, without a newline.
        text: String,
    },
    /// A plan is carried out in an env.
    Started {
        /// The command.
        verb: Verb,
        /// The env.
        env: String,
        /// The release that goes live.
        release: Option<ReleaseId>,
        /// The releases that are live now and are replaced, each once.
        replaced: Vec<ReleaseId>,
        /// The subject of the release's commit, if the checkout has it.
        subject: Option<String>,
    },
    /// A step of a plan started on a target.
    StepStarted {
        /// URL of the target.
        target: String,
        /// The step, e.g. `install 20260822T101500-1a2b3c4`.
        step: String,
    },
    /// A step of a plan ended on a target.
    StepEnded {
        /// URL of the target.
        target: String,
        /// The text of [`Event::StepStarted`].
        step: String,
        /// Wall time in milliseconds.
        ms: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// The deploy to an env entered a stage.
    Stage {
        /// The stage.
        stage: Stage,
        /// The wave, from 1; 0 outside of waves.
        wave: usize,
        /// Number of waves.
        waves: usize,
        /// URLs of the targets that take part.
        targets: Vec<String>,
    },
    /// The revert of a target ended.
    Reverted {
        /// URL of the target.
        target: String,
        /// Whether it succeeded.
        ok: bool,
    },
    /// Progress of a long task; the last event has `done == total`.
    Progress {
        /// The task, e.g. `compressing`.
        task: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The last log lines of a service that did not become healthy.
    ServiceLog {
        /// URL of the target.
        target: String,
        /// The lines, oldest first.
        lines: Vec<String>,
    },
    /// A pipeline job started, in a local run.
    JobStarted {
        /// Name of the job.
        job: String,
    },
    /// A pipeline job ended.
    JobEnded {
        /// Name of the job.
        job: String,
        /// Wall time in milliseconds.
        ms: u64,
        /// `success`, `failed`, `approved`, `on hold` or `not run`.
        status: String,
    },
}

/// The stage of a deploy to an env.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Installing releases where they are missing; nothing is switched.
    Install,
    /// Switching and checking a wave.
    Switch,
    /// All are healthy: recording that, and pruning.
    Finalize,
    /// Something failed: reverting what was switched.
    Reverted,
    /// Succeeded.
    Done,
    /// Failed.
    Failed,
}

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// What it printed.
    Stdout,
    /// What it complained.
    Stderr,
}

/// Streamed output of a host: the result of `logs` and `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum HostOutput {
    /// A line.
    Line {
        /// The name of the host.
        host: String,
        /// The column width for host names; 0 for a single host, whose name is not shown.
        #[serde(skip)]
        column: usize,
        /// The stream of the line.
        stream: Stream,
        /// The line, without a newline.
        line: String,
    },
    /// The command ended on the host.
    Ended {
        /// The name of the host.
        host: String,
        /// Its exit code.
        exit_code: i32,
    },
}

/// Receives the output; returns whether it wants more.
pub type Listener<'a> = &'a (dyn Fn(&HostOutput) -> bool + Sync);

/// Milliseconds since an instant.
pub fn ms_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The receiver of events.
pub trait Sink: Send + Sync {
    /// Receives an event; cannot fail, because there is no other place to report to.
    fn emit(&self, event: &Event);
}

/// Drops every event.
pub struct NoSink;

impl Sink for NoSink {
    fn emit(&self, _: &Event) {}
}
