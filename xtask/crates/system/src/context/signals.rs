//! Signals: Ctrl-C, SIGTERM and a hangup.

use crate::context::Context;
use gangplank_model::error::{Kind, Result};
use gangplank_model::event::Event;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

impl Context {
    /// Makes Ctrl-C, SIGTERM and a hangup request a stop at the next safe point, with a revert of partial changes. The
    /// third signal exits at once; so does the second if nothing is `at_stake`.
    pub fn catch_interrupts(&self, at_stake: bool) -> Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        self.catching.store(true, Ordering::Relaxed);
        let (count, sink, asking) = (Arc::clone(&self.interrupts), Arc::clone(&self.sink), Arc::clone(&self.asking));
        let finished = Arc::clone(&self.finished);
        thread::spawn(move || {
            for _ in signals.forever() {
                if asking.load(Ordering::Relaxed) {
                    // Nothing runs during a question. Its line is still open.
                    sink.emit(&Event::Warning { text: "no answer; stopped".into() });
                    std::process::exit(Kind::Failed as i32);
                }
                let code = finished.load(Ordering::Relaxed);
                if code >= 0 {
                    sink.emit(&Event::Warning { text: "stopped; everything but a notification was done".into() });
                    std::process::exit(code);
                }
                let text = match count.fetch_add(1, Ordering::Relaxed) {
                    0 if !at_stake => continue,
                    _ if !at_stake => std::process::exit(Kind::Failed as i32),
                    0 => "stopping at the next safe point; partial changes are reverted",
                    1 => "still reverting; press Ctrl-C again to exit without finishing the revert",
                    _ => {
                        let text = "stopped with partial changes; check `cargo xtask status`, then run the same command again to continue";
                        sink.emit(&Event::Warning { text: text.into() });
                        std::process::exit(Kind::RevertFailed as i32)
                    }
                };
                sink.emit(&Event::Warning { text: text.into() });
            }
        });
        Ok(())
    }

    /// Sets whether a question is open on the terminal, which a signal answers.
    pub fn asking(&self, open: bool) {
        self.asking.store(open, Ordering::Relaxed);
    }

    /// Records that all changes are made: from now on a signal ends the process with this exit code.
    pub fn finish(&self, code: i32) {
        self.finished.store(code, Ordering::Relaxed);
    }

    /// Whether a stop was requested.
    pub fn interrupted(&self) -> bool {
        self.interrupts.load(Ordering::Relaxed) > 0
    }
}
