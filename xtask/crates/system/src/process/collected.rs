//! The output of a program, read by a thread while we wait.

use crate::process::child::{GRACE, sleep_only};
use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes kept of the start and of the end of long output.
const KEPT: usize = 32 << 20;

/// Drops the middle of long output.
fn keep_ends(bytes: &mut Vec<u8>) {
    if bytes.len() > 3 * KEPT {
        bytes.drain(KEPT..bytes.len() - KEPT);
    }
}

/// The output of a stream so far, collected by a thread.
pub struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    whole: Receiver<()>,
}

impl Collected {
    /// Starts to collect a stream.
    pub fn new(stream: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (ended, whole) = channel();
        if let Some(mut stream) = stream {
            let bytes = Arc::clone(&bytes);
            thread::spawn(move || {
                let mut piece = [0; 1 << 14];
                while let Ok(n @ 1..) = stream.read(&mut piece) {
                    let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                    bytes.extend_from_slice(&piece[..n]);
                    keep_ends(&mut bytes);
                }
                let _ = ended.send(());
            });
        }
        Self { bytes, whole }
    }

    /// Whether a condition holds for the output so far.
    pub fn is(&self, complete: &dyn Fn(&[u8]) -> bool) -> bool {
        complete(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The output so far.
    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits up to `nap`; returns whether the stream has just ended, which happens when the program ends.
    pub fn ends_within(&self, nap: Duration) -> bool {
        match self.whole.recv_timeout(nap) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            // It ended before, or never existed.
            Err(RecvTimeoutError::Disconnected) => sleep_only(nap),
        }
    }

    /// Forgets the output so far.
    pub fn forget(&self) {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The output, once the stream has ended.
    pub fn text(&self) -> String {
        // Without a stream the sender is gone, and this returns at once.
        let _ = self.whole.recv_timeout(GRACE);
        self.so_far()
    }
}
