//! Draws the table of hosts on a terminal, over its last frame.
//!
//! The cursor stays at the start of the line below the table and is never hidden, so any exit leaves the terminal
//! usable, and the next frame overwrites the terminal's `^C`.

use crate::report::progress_table::ProgressTable;
use crate::report::style::{FRAME, Style};
use gangplank_model::event::{Event, Stage};
use gangplank_system::machine;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// The size of a terminal that does not report it.
const USUAL: (usize, usize) = (80, 24);

/// The current table and its drawing thread.
pub struct ProgressDraw {
    style: Style,
    drawing: Arc<Mutex<Option<Drawing>>>,
}

struct Drawing {
    table: ProgressTable,
    style: Style,
    since: Instant,
    /// The width of each line of the last frame.
    drawn: Vec<usize>,
}

impl ProgressDraw {
    /// No table yet.
    pub fn new(style: Style) -> Self {
        Self { style, drawing: Arc::default() }
    }

    /// Starts, updates or ends a table. Returns whether the event needs no other output.
    pub fn take(&self, event: &Event) -> bool {
        let mut now = lock(&self.drawing);
        let Some(drawing) = now.as_mut() else {
            // A single host is reported in lines.
            let Event::Stage { stage: Stage::Install, targets, waves, .. } = event else { return false };
            if targets.len() < 2 {
                return false;
            }
            let (table, style) = (ProgressTable::new(targets, *waves), self.style);
            let drawing = now.insert(Drawing { table, style, since: Instant::now(), drawn: Vec::new() });
            drawing.frame(None);
            self.turn();
            return true;
        };
        let taken = drawing.table.take(event, gangplank_model::event::ms_since(drawing.since));
        if drawing.table.ended() {
            drawing.frame(None);
            *now = None;
        }
        // A progress bar would overwrite the table.
        taken || matches!(event, Event::Progress { .. })
    }

    /// Prints lines above the table; returns false if there is none.
    pub fn print_above(&self, text: &str) -> bool {
        lock(&self.drawing).as_mut().map(|drawing| drawing.frame(Some(text))).is_some()
    }

    /// Redraws while there is a table.
    fn turn(&self) {
        let drawing = Arc::downgrade(&self.drawing);
        thread::spawn(move || {
            loop {
                thread::sleep(FRAME);
                let Some(drawing) = drawing.upgrade() else { return };
                match lock(&drawing).as_mut() {
                    Some(drawing) => drawing.frame(None),
                    None => return,
                }
            }
        });
    }
}

impl Drawing {
    /// Replaces the last frame with a single write, so that no other output interleaves.
    fn frame(&mut self, above: Option<&str>) {
        let mut stderr = std::io::stderr();
        let (columns, rows) = machine::terminal_size(&stderr).unwrap_or(USUAL);
        let now = gangplank_model::event::ms_since(self.since);
        let rows = if self.table.ended() { usize::MAX } else { rows };
        let lines = |style| self.table.lines(now, (columns, rows), style);
        // A narrower window has wrapped the last frame.
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(columns).max(1)).sum();
        let mut text = if up > 0 { format!("\x1b[{up}A\r") } else { "\r".to_owned() };
        if let Some(above) = above {
            let _ = writeln!(text, "\x1b[J{above}");
        }
        // Without wrapping: a double-width character must not use another line. The old frame is cleared first: after a
        // line as wide as the screen, the cursor is on its last character.
        text.push_str("\x1b[?7l");
        for line in lines(self.style) {
            let _ = writeln!(text, "\x1b[K{line}");
        }
        text.push_str("\x1b[?7h\x1b[J");
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        self.drawn = lines(Style::PLAIN).iter().map(|line| line.chars().count()).collect();
    }
}

/// A panicked thread leaves a table that can still be drawn.
fn lock(drawing: &Mutex<Option<Drawing>>) -> MutexGuard<'_, Option<Drawing>> {
    drawing.lock().unwrap_or_else(PoisonError::into_inner)
}
