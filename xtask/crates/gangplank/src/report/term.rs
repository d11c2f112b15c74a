//! Text output: events as lines on stderr, progress as a bar on a terminal only.

use crate::report::progress_draw::ProgressDraw;
use crate::report::style::{Style, duration, visible};
use gangplank_model::event::{Event, Sink};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Shorter tasks draw no bar.
const PATIENCE: Duration = Duration::from_millis(700);

/// The amount of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Warnings and errors.
    Quiet,
    /// Events.
    Normal,
    /// Also every command.
    Verbose,
}

/// Prints events as lines.
pub struct TermSink {
    style: Style,
    level: Level,
    bars: bool,
    /// The progress table, if it replaces lines.
    live: Option<ProgressDraw>,
    running: Mutex<BTreeMap<String, Bar>>,
}

struct Bar {
    since: Instant,
    bar: Option<ProgressBar>,
}

impl TermSink {
    /// A sink for stderr. `redraws` is whether stderr is an interactive terminal.
    pub fn new(style: Style, level: Level, redraws: bool) -> Self {
        let bars = level != Level::Quiet && std::io::stderr().is_terminal();
        let live = (redraws && bars && level == Level::Normal).then(|| ProgressDraw::new(style));
        Self { style, level, bars, live, running: Mutex::default() }
    }

    fn line(&self, text: &str) {
        if self.live.as_ref().is_some_and(|live| live.print_above(text)) {
            return;
        }
        let print = || drop(writeln!(std::io::stderr(), "{text}"));
        let running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match running.values().find_map(|bar| bar.bar.as_ref()) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn progress(&self, task: &str, done: u64, total: u64) {
        if !self.bars {
            return;
        }
        let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if done >= total {
            if let Some(bar) = running.remove(task).and_then(|bar| bar.bar) {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = running.entry(task.to_owned()).or_insert_with(|| Bar { since: Instant::now(), bar: None });
        if bar.bar.is_none() && bar.since.elapsed() > PATIENCE {
            bar.bar = Some(new_bar(task, total));
        }
        if let Some(bar) = &bar.bar {
            bar.set_position(done);
        }
    }
}

fn new_bar(task: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{msg:>12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(task.to_owned());
    bar
}

impl Sink for TermSink {
    fn emit(&self, event: &Event) {
        let style = self.style;
        if self.live.as_ref().is_some_and(|live| live.take(event)) {
            return;
        }
        let text = match event {
            Event::Progress { task, done, total } => return self.progress(task, *done, *total),
            Event::Warning { text } => format!("{} {}", style.warn("warning:"), printable(text)),
            Event::ServiceLog { target, lines } if lines.is_empty() => format!("{target}: the service wrote no log"),
            Event::ServiceLog { target, lines } => {
                let lines: String = lines.iter().map(|line| format!("\n  | {}", visible(line))).collect();
                format!("{target}: the last lines of its log:{lines}")
            }
            _ if self.level == Level::Quiet => return,
            Event::Note { text } => printable(text),
            Event::StepEnded { target, step, ms, ok: true } => {
                format!("{} {target}: {step} ({})", style.good("ok"), duration(*ms))
            }
            Event::StepEnded { target, step, ms, ok: false } => {
                format!("{} {target}: {step} ({})", style.bad("failed"), duration(*ms))
            }
            Event::JobStarted { job } => style.strong(&format!("== {job}")),
            Event::JobEnded { job, ms, status } => style.strong(&format!("== {job}: {status} ({})", duration(*ms))),
            Event::Ran { .. } | Event::StepStarted { .. } if self.level < Level::Verbose => return,
            Event::Ran { command, ms, ok } => {
                let how = if *ok { "" } else { ", failed" };
                style.dim(&format!("$ {command} ({}{how})", duration(*ms)))
            }
            Event::StepStarted { target, step } => format!("{target}: {step}"),
            // The lines of the steps suffice.
            Event::Stage { .. } | Event::Reverted { .. } => return,
        };
        self.line(&text);
    }
}

/// A text of a host without control characters. Line breaks stay.
fn printable(text: &str) -> String {
    text.split('\n')
        .map(|line| line.split('\t').map(visible).collect::<Vec<_>>().join("\t"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The text of an error.
pub fn error(style: Style, message: &str, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!("{} {}\n", style.strong("hint:"), printable(hint))).unwrap_or_default();
    format!("{} {}\n{hint}", style.bad("error:"), printable(message))
}

/// Prints a question on stderr, without a newline.
pub fn prompt(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{text}");
    let _ = stderr.flush();
}
