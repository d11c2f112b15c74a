//! Programs that keep running: in the background, or to answer what they are asked.

use crate::process::child::{Limits, SOON, Signal, end, start, wait};
use crate::process::collected::Collected;
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A program that runs until its stdin closes: on drop, or when this process is killed.
pub struct Background(Child);

impl Background {
    /// Starts it without output.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let limits = Limits { time: None, stop: &|| false, own_group: true };
        Ok(Self(start(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()), &limits)?))
    }

    /// Kills it.
    pub fn stop(&mut self) {
        end(&self.0, true, Signal::TERM);
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let limits = Limits { time: Some(Duration::from_secs(15)), stop: &|| false, own_group: true };
        let _ = wait(&mut self.0, &limits);
    }
}

/// A program that answers on stdout and stderr what is written to its stdin.
pub struct Conversation {
    program: Background,
    stdout: Collected,
    stderr: Collected,
}

/// An answer so far.
pub struct Said {
    /// The stdout output since the question.
    pub stdout: String,
    /// The stderr output since the question.
    pub stderr: String,
    /// Whether the program ended before its answer was complete.
    pub ended: bool,
}

/// The maximum bytes that a program may print before its word.
const BEFORE_MAX: usize = 16 << 20;
/// The error of a program that printed more.
pub const ENDLESS: &str = "it prints more than 16 MiB before it starts";
/// The longest interval between two looks at an answer.
const NAP: Duration = Duration::from_millis(1);
/// How long to wait for stderr once stdout is complete.
const STDERR_GRACE: Duration = Duration::from_millis(500);

impl Conversation {
    /// Starts it, writes `greeting`, and waits until it prints `word`. Returns its stderr if it ends before, at a limit, or
    /// if it prints too much before.
    pub(crate) fn start(
        command: &mut Command,
        greeting: &[u8],
        word: &str,
        limits: &Limits,
    ) -> io::Result<Result<Self, String>> {
        let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()), limits)?;
        // A failure means that the program has ended.
        let _ = child.stdin.as_mut().map(|stdin| stdin.write_all(greeting));
        let (stdout, stderr) = (Collected::new(child.stdout.take()), Collected::new(child.stderr.take()));
        let mut program = Background(child);
        let started = Instant::now();
        loop {
            if stdout.so_far().contains(word) {
                return Ok(Ok(Self { program, stdout, stderr }));
            }
            if program.has_ended() {
                return Ok(Err(format!("{}\n{}", stdout.text(), stderr.text())));
            }
            if stdout.is(&|bytes| bytes.len() > BEFORE_MAX) {
                end(&program.0, true, Signal::KILL);
                return Ok(Err(ENDLESS.to_owned()));
            }
            let late = limits.time.is_some_and(|limit| started.elapsed() >= limit);
            if late || (limits.stop)() {
                end(&program.0, true, Signal::TERM);
                let reason =
                    if late { format!("it did not end within {:.1?}", started.elapsed()) } else { "stopped".into() };
                return Ok(Err(format!("{}\n{reason}", stderr.so_far())));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The output so far: stdout and stderr.
    pub fn so_far(&self) -> [String; 2] {
        [self.stdout.so_far(), self.stderr.so_far()]
    }

    /// Writes a question, and waits until stdout is complete, and stderr or half a second more.
    pub(crate) fn ask(
        &mut self,
        question: &[u8],
        is_whole: &dyn Fn(&[u8]) -> bool,
        is_whole_stderr: &dyn Fn(&[u8]) -> bool,
    ) -> Said {
        // What a background process of an earlier script printed.
        self.stdout.forget();
        self.stderr.forget();
        // A program that has ended breaks the pipe, which the loop notices.
        let _ = self.program.0.stdin.as_mut().map(|stdin| stdin.write_all(question).and_then(|()| stdin.flush()));
        let (mut whole, mut nap): (Option<Instant>, _) = (None, SOON);
        loop {
            if whole.is_none() && self.stdout.is(is_whole) {
                whole = Some(Instant::now());
            }
            let ended = whole.is_none() && self.program.has_ended();
            if ended {
                return Said { stdout: self.stdout.text(), stderr: self.stderr.text(), ended };
            }
            if whole.is_some_and(|since| self.stderr.is(is_whole_stderr) || since.elapsed() > STDERR_GRACE) {
                return Said { stdout: self.stdout.so_far(), stderr: self.stderr.so_far(), ended };
            }
            thread::sleep(nap);
            nap = (nap * 2).min(NAP);
        }
    }

    /// The exit code, if the program has ended.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.program.0.try_wait().ok().flatten().and_then(|status| status.code())
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.program.stop();
    }
}
