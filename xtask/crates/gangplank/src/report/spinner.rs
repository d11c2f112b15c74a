//! Shows on a terminal what runs, in one line that is drawn again and again.
//!
//! The cursor stays at the start of that line, so the next frame overwrites the terminal's `^C`, and any exit leaves the
//! terminal usable.

use crate::report::style::{FRAME, wheel};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Clears the line.
const CLEAR: &str = "\r\x1b[K";

/// The line, if something runs.
#[derive(Default)]
pub struct Spinner(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    running: Vec<Running>,
    /// Whether a thread draws it.
    turns: bool,
}

struct Running {
    key: String,
    text: String,
    since: Instant,
}

impl Spinner {
    /// Something starts. The one that started last is shown.
    pub fn start(&self, key: String, text: String) {
        let mut state = lock(&self.0);
        state.running.push(Running { key, text, since: Instant::now() });
        if !std::mem::replace(&mut state.turns, true) {
            self.turn();
        }
        draw(&state.running, "");
    }

    /// It ends.
    pub fn end(&self, key: &str) {
        let running = &mut lock(&self.0).running;
        let before = running.len();
        running.retain(|it| it.key != key);
        if running.len() < before {
            draw(running, "");
        }
    }

    /// Prints lines above it; returns false if nothing runs.
    pub fn print_above(&self, text: &str) -> bool {
        let running = &lock(&self.0).running;
        if !running.is_empty() {
            draw(running, &format!("{text}\n"));
        }
        !running.is_empty()
    }

    fn turn(&self) {
        let state = Arc::downgrade(&self.0);
        thread::spawn(move || {
            loop {
                thread::sleep(FRAME);
                let Some(state) = state.upgrade() else { return };
                let mut state = lock(&state);
                state.turns = !state.running.is_empty();
                if !state.turns {
                    return;
                }
                draw(&state.running, "");
            }
        });
    }
}

/// One write, so that no other output interleaves.
fn draw(running: &[Running], above: &str) {
    let line = running.last().map(|it| frame(&it.text, it.since.elapsed())).unwrap_or_default();
    let mut stderr = std::io::stderr();
    // Without wrapping: a narrow window cuts the line.
    let text = format!("{CLEAR}{above}\x1b[?7l{line}\x1b[?7h\r");
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn frame(text: &str, time: Duration) -> String {
    format!("  {}       {text}  {} s", wheel(time.as_millis() as u64), time.as_secs())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_turns_and_counts_seconds() {
        assert_eq!(frame("check", Duration::from_millis(50)), "  -       check  0 s");
        assert_eq!(frame("check", Duration::from_millis(2150)), "  \\       check  2 s");
    }
}
