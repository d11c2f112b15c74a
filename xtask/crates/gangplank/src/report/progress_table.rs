//! The progress of hosts as a table: events in, lines of text out. No drawing, no clock.

mod lines;
mod names;

pub use crate::report::progress_table::names::short as short_names;
use gangplank_model::event::{Event, Stage};

/// Step names for a narrow column, while running and when done. A hook does not change the state of a host.
const VERBS: [(&str, &str, &str); 8] = [
    ("install", "install", "installed"),
    ("activate", "switch", "switched"),
    ("restart", "restart", "restarted"),
    ("check", "check", "healthy"),
    ("record", "record", LIVE),
    ("remove", "prune", "pruned"),
    ("start", "start", "started"),
    ("stop", "stop", "stopped"),
];
const LIVE: &str = "live";

/// The hosts of an env and their progress. Times are milliseconds since the start.
pub struct ProgressTable {
    rows: Vec<Row>,
    stage: Stage,
    wave: usize,
    waves: usize,
}

struct Row {
    url: String,
    name: String,
    /// The verb of the current step, and its start.
    doing: Option<(String, u64)>,
    /// The result of the last step.
    done: Option<&'static str>,
    /// The failed step.
    failed: Option<String>,
    back: Back,
    /// Total working time.
    spent: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    Unneeded,
    Since(u64),
    Done,
    Stuck,
}

/// The status mark of a host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Working,
    Ok,
    Failed,
    Back,
    Waiting,
}

impl ProgressTable {
    /// A table of targets, in this order.
    pub fn new(urls: &[String], waves: usize) -> Self {
        let row = |(url, name): (&String, String)| Row {
            url: url.clone(),
            name,
            doing: None,
            done: None,
            failed: None,
            back: Back::Unneeded,
            spent: 0,
        };
        let rows = urls.iter().zip(names::short(urls)).map(row).collect();
        Self { rows, stage: Stage::Install, wave: 0, waves }
    }

    /// Applies an event received at `now`; returns whether the table shows it.
    pub fn take(&mut self, event: &Event, now: u64) -> bool {
        match event {
            Event::Stage { stage, wave, targets, .. } => self.enter(*stage, *wave, targets, now),
            Event::StepStarted { target, step } => {
                let Some(row) = self.row(target) else { return false };
                row.doing = Some((verb(step).0, now));
            }
            Event::StepEnded { target, step, ms, ok } => {
                let Some(row) = self.row(target) else { return false };
                row.doing = None;
                // During a revert, the clock runs from the first step to the last.
                row.spent += if matches!(row.back, Back::Since(_)) { 0 } else { *ms };
                if *ok {
                    row.done = verb(step).1.filter(|_| row.done != Some(LIVE)).or(row.done);
                } else if row.failed.is_none() {
                    row.failed = Some(step.clone());
                }
            }
            Event::Reverted { target, ok } => {
                let Some(row) = self.row(target) else { return false };
                if let Back::Since(began) = row.back {
                    row.spent += now.saturating_sub(began);
                }
                row.back = if *ok { Back::Done } else { Back::Stuck };
            }
            _ => return false,
        }
        true
    }

    /// Whether the work has ended.
    pub fn ended(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Failed)
    }

    fn enter(&mut self, stage: Stage, wave: usize, targets: &[String], now: u64) {
        (self.stage, self.wave) = (stage, wave);
        let ended = self.ended();
        for row in &mut self.rows {
            if stage == Stage::Reverted && targets.contains(&row.url) {
                row.back = Back::Since(now);
            }
            if ended {
                row.doing = None;
                row.back = if matches!(row.back, Back::Since(_)) { Back::Stuck } else { row.back };
            }
        }
    }

    fn row(&mut self, url: &str) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.url == url)
    }

    fn mark(&self, row: &Row) -> Mark {
        match row {
            Row { back: Back::Since(_), .. } | Row { doing: Some(_), .. } => Mark::Working,
            Row { failed: Some(_), .. } | Row { back: Back::Stuck, .. } => Mark::Failed,
            Row { back: Back::Done, .. } => Mark::Back,
            Row { done: Some(LIVE | "pruned"), .. } => Mark::Ok,
            _ if self.stage == Stage::Done => Mark::Ok,
            _ => Mark::Waiting,
        }
    }

    /// What a host does, or its result.
    fn word(&self, row: &Row) -> String {
        let word = match row {
            Row { back: Back::Since(_) | Back::Done, .. } => "reverted",
            Row { back: Back::Stuck, .. } => "NOT reverted",
            Row { doing: Some((verb, _)), .. } => verb,
            Row { failed: Some(step), done, .. } if *done != Some(LIVE) => return verb(step).0,
            Row { done: Some(done), .. } => done,
            _ if self.stage == Stage::Failed => "untouched",
            _ => "waiting",
        };
        word.to_owned()
    }
}

/// A step's name while it runs, and the resulting state of the host.
pub fn verb(step: &str) -> (String, Option<&'static str>) {
    if let Some(hook) = step.strip_prefix("run the ") {
        return (hook.to_owned(), None);
    }
    let first = step.split(' ').next().unwrap_or_default();
    match VERBS.iter().find(|(word, ..)| *word == first) {
        Some((_, now, done)) => ((*now).to_owned(), Some(*done)),
        None => (first.to_owned(), None),
    }
}

#[cfg(test)]
mod tests;
