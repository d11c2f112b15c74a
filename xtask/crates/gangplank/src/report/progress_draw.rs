//! Draws the table of hosts on a terminal, over what it drew before.
//!
//! The cursor rests at the start of the line below the table and is never hidden, so however we end, the terminal is as
//! it should be, and the `^C` that it writes itself is gone with the next frame.

use crate::report::progress_table::ProgressTable;
use crate::report::style::Style;
use gangplank_model::event::{Event, Stage};
use gangplank_system::machine;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the table is drawn again.
const FRAME: Duration = Duration::from_millis(100);

/// Of a terminal that does not say how large it is.
const USUAL: (usize, usize) = (80, 24);

/// A table while there is one, and who draws it.
pub struct ProgressDraw {
    style: Style,
    drawing: Arc<Mutex<Option<Drawing>>>,
}

struct Drawing {
    table: ProgressTable,
    style: Style,
    since: Instant,
    /// How wide each line of the last frame is.
    drawn: Vec<usize>,
}

impl ProgressDraw {
    /// Nothing to draw yet.
    pub fn new(style: Style) -> Self {
        Self { style, drawing: Arc::default() }
    }

    /// Begins a table, goes on with it or ends it. Tells whether that is all that has to be shown of the event.
    pub fn take(&self, event: &Event) -> bool {
        let mut now = lock(&self.drawing);
        let Some(drawing) = now.as_mut() else {
            // One host is told as lines: a table of one row says less.
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
        // A bar would be drawn over the table.
        taken || matches!(event, Event::Progress { .. })
    }

    /// Prints lines above the table; does nothing, and says so, where there is none.
    pub fn print_above(&self, text: &str) -> bool {
        lock(&self.drawing).as_mut().map(|drawing| drawing.frame(Some(text))).is_some()
    }

    /// Draws again and again, for as long as there is a table.
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
    /// Replaces the last frame, in one write: no other process gets in between.
    fn frame(&mut self, above: Option<&str>) {
        let mut stderr = std::io::stderr();
        let (columns, rows) = machine::terminal_size(&stderr).unwrap_or(USUAL);
        let now = gangplank_model::event::ms_since(self.since);
        let rows = if self.table.ended() { usize::MAX } else { rows };
        let lines = |style| self.table.lines(now, (columns, rows), style);
        // A window that became narrower has wrapped what is there.
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(columns).max(1)).sum();
        let mut text = if up > 0 { format!("\x1b[{up}A\r") } else { "\r".to_owned() };
        if let Some(above) = above {
            let _ = writeln!(text, "\x1b[J{above}");
        }
        // Without wrapping: a character that is two columns wide must not cost a line. What was there goes first: after a
        // line that is as wide as the screen, the cursor stands on its last character.
        text.push_str("\x1b[?7l");
        for line in lines(self.style) {
            let _ = writeln!(text, "\x1b[K{line}");
        }
        text.push_str("\x1b[?7h\x1b[J");
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        self.drawn = lines(Style::PLAIN).iter().map(|line| line.chars().count()).collect();
    }
}

/// A thread that panicked has left a table that can still be drawn.
fn lock(drawing: &Mutex<Option<Drawing>>) -> MutexGuard<'_, Option<Drawing>> {
    drawing.lock().unwrap_or_else(PoisonError::into_inner)
}
