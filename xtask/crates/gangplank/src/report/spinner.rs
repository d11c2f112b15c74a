//! Shows on a terminal what runs, in one line that is drawn again and again.
//!
//! The cursor stays at the start of that line, so the next frame overwrites the terminal's `^C`, and any exit leaves the
//! terminal usable.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The interval of frames, and one turn.
const FRAME: Duration = Duration::from_millis(100);
const WHEEL: [&str; 4] = ["-", "\\", "|", "/"];
/// Clears the line.
const CLEAR: &str = "\r\x1b[K";

/// The line, if something runs.
#[derive(Default)]
pub struct Spinner(Arc<Mutex<Vec<Running>>>);

struct Running {
    key: String,
    text: String,
    since: Instant,
}

impl Spinner {
    /// Something starts. The one that started last is shown.
    pub fn start(&self, key: String, text: String) {
        let mut running = lock(&self.0);
        running.push(Running { key, text, since: Instant::now() });
        if running.len() == 1 {
            self.turn();
        }
        draw(&running, "");
    }

    /// It ends.
    pub fn end(&self, key: &str) {
        let mut running = lock(&self.0);
        let before = running.len();
        running.retain(|it| it.key != key);
        if running.len() < before {
            draw(&running, "");
        }
    }

    /// Prints lines above it; returns false if nothing runs.
    pub fn print_above(&self, text: &str) -> bool {
        let running = lock(&self.0);
        if !running.is_empty() {
            draw(&running, &format!("{text}\n"));
        }
        !running.is_empty()
    }

    fn turn(&self) {
        let running = Arc::downgrade(&self.0);
        thread::spawn(move || {
            loop {
                thread::sleep(FRAME);
                let Some(running) = running.upgrade() else { return };
                let running = lock(&running);
                if running.is_empty() {
                    return;
                }
                draw(&running, "");
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
    let wheel = WHEEL[(time.as_millis() / FRAME.as_millis()) as usize % WHEEL.len()];
    format!("  {wheel}       {text}  {} s", time.as_secs())
}

fn lock(running: &Mutex<Vec<Running>>) -> MutexGuard<'_, Vec<Running>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
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
