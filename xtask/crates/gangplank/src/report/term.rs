//! Text output: events as lines on stderr, progress as a bar on a terminal only.

use crate::report::progress_draw::ProgressDraw;
use crate::report::progress_table::verb;
use crate::report::spinner::Spinner;
use crate::report::steps::StepLines;
use crate::report::style::{Style, duration, visible, wrapped};
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
    /// The progress table, on a terminal that can be redrawn.
    live: Option<ProgressDraw>,
    running: Mutex<BTreeMap<String, Bar>>,
    steps: Mutex<StepLines>,
    spinner: Spinner,
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
        Self {
            style,
            level,
            bars,
            live,
            running: Mutex::default(),
            steps: Mutex::new(StepLines::new(style)),
            spinner: Spinner::default(),
        }
    }

    fn line(&self, text: &str) {
        if self.live.as_ref().is_some_and(|live| live.print_above(text)) || self.spinner.print_above(text) {
            return;
        }
        let print = || drop(writeln!(std::io::stderr(), "{text}"));
        let running = lock(&self.running);
        match running.values().find_map(|bar| bar.bar.as_ref()) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn progress(&self, task: &str, done: u64, total: u64) {
        if !self.bars {
            return;
        }
        let mut running = lock(&self.running);
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
        if self.live.as_ref().is_some_and(|live| live.take(event)) {
            return;
        }
        if let Event::Progress { task, done, total } = event {
            return self.progress(task, *done, *total);
        }
        self.spin(event);
        let text = self.text(event);
        let mut steps = lock(&self.steps);
        let lines = match steps.take(event) {
            Some(lines) => lines,
            // Only what is printed ends a line that hosts share.
            None if text.is_some() => steps.flush(),
            None => vec![],
        };
        drop(steps);
        let lines = lines.into_iter().filter(|_| self.level > Level::Quiet);
        lines.chain(text).for_each(|line| self.line(&line));
    }
}

impl TermSink {
    /// The line of an event that is no step.
    fn text(&self, event: &Event) -> Option<String> {
        let style = self.style;
        let text = match event {
            Event::Warning { text } => labelled(style, Style::warn, "warning:", text),
            Event::ServiceLog { target, lines } if lines.is_empty() => format!("{target}: the service wrote no log"),
            Event::ServiceLog { target, lines } => {
                let lines: String = lines.iter().map(|line| format!("\n  | {}", visible(line))).collect();
                format!("{target}: the last lines of its log:{lines}")
            }
            _ if self.level == Level::Quiet => return None,
            Event::Note { text } => paragraph(style, text, 2),
            // The job turns as long as it runs.
            Event::JobStarted { .. } if self.live.is_some() => return None,
            Event::JobStarted { job } => format!("  {}  {job}", style.dim("start ")),
            Event::JobEnded { job, ms, status } => job_ended(style, job, *ms, status),
            Event::Ran { .. } | Event::StepStarted { .. } if self.level < Level::Verbose => return None,
            Event::Ran { command, ms, ok } => {
                let how = if *ok { "" } else { ", failed" };
                style.dim(&format!("$ {command} ({}{how})", duration(*ms)))
            }
            Event::StepStarted { target, step } => format!("{target}: {step}"),
            Event::Started { .. }
            | Event::Stage { .. }
            | Event::StepEnded { .. }
            | Event::Reverted { .. }
            | Event::Progress { .. } => return None,
        };
        Some(text)
    }

    /// Shows a step while it runs, on a terminal.
    fn spin(&self, event: &Event) {
        if self.live.is_none() {
            return;
        }
        match event {
            Event::StepStarted { target, step } => self.spinner.start(key(target, step), verb(step).0),
            Event::StepEnded { target, step, .. } => self.spinner.end(&key(target, step)),
            Event::JobStarted { job } => self.spinner.start(job.clone(), job.clone()),
            Event::JobEnded { job, .. } => self.spinner.end(job),
            _ => {}
        }
    }
}

/// `ok      build                    12.3 s`
fn job_ended(style: Style, job: &str, ms: u64, status: &str) -> String {
    let (paint, mark): (fn(Style, &str) -> String, _) = match status {
        "success" | "approved" => (Style::good, "ok"),
        "failed" => (Style::bad, "failed"),
        _ => (Style::dim, status),
    };
    let pad = " ".repeat(7_usize.saturating_sub(mark.len()));
    format!("  {}{pad} {job:<22}{}", paint(style, mark), style.dim(&format!("{:>9}", duration(ms))))
}

fn key(target: &str, step: &str) -> String {
    format!("{target}: {step}")
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
    let hint = hint.map(|hint| labelled(style, Style::strong, "hint:", hint) + "\n").unwrap_or_default();
    format!("{}\n{hint}", labelled(style, Style::bad, "error:", message))
}

/// A text behind a label.
fn labelled(style: Style, paint: fn(Style, &str) -> String, label: &str, text: &str) -> String {
    format!("{} {}", paint(style, label), paragraph(style, text, label.len() + 1))
}

/// A text whose first line is wrapped at the width of the terminal, with an indent. The lines below it are a listing, such
/// as a diff.
fn paragraph(style: Style, text: &str, indent: usize) -> String {
    let width = style.width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(20));
    let text = style.ids(&printable(text));
    let (first, below) = text.split_at(text.find('\n').unwrap_or(text.len()));
    wrapped(first, width).join(&format!("\n{}", " ".repeat(indent))) + below
}

/// Prints a question on stderr, without a newline.
pub fn prompt(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{text}");
    let _ = stderr.flush();
}
