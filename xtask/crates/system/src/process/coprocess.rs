//! Programs that keep running: in the background, or to answer requests.

use crate::process::child::{Limits, SOON, Signal, end, start, wait};
use crate::process::collected::Collected;
use std::fmt;
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

    /// The exit code, if it has ended.
    fn code(&mut self) -> Option<i32> {
        self.0.try_wait().ok().flatten().and_then(|status| status.code())
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
pub struct Coprocess {
    program: Background,
    stdout: Collected,
    stderr: Collected,
}

/// Why a coprocess did not get ready.
pub enum NotReady {
    /// It ended, with this exit code and output.
    Ended(Option<i32>, String),
    /// It printed more than [`BEFORE_MAX`] bytes.
    Endless,
    /// It was stopped, at the limit or on request, with this stderr.
    Stopped(String),
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(_, output) | Self::Stopped(output) => f.write_str(output),
            Self::Endless => write!(f, "it prints more than {} MiB before it is ready", BEFORE_MAX >> 20),
        }
    }
}

/// How the reply to a request is recognised, in the output so far.
pub struct ReplyFrame<'a> {
    /// Whether stdout contains the begin.
    pub has_begun: &'a dyn Fn(&[u8]) -> bool,
    /// Whether stdout contains the end.
    pub has_ended: &'a dyn Fn(&[u8]) -> bool,
    /// Whether stderr contains the end.
    pub stderr_has_ended: &'a dyn Fn(&[u8]) -> bool,
}

/// A reply, or what there is of it.
pub struct Reply {
    /// The stdout output since the request.
    pub stdout: String,
    /// The stderr output since the request.
    pub stderr: String,
    /// Whether it is complete. If not, the program has ended.
    pub whole: bool,
}

/// The maximum bytes that a program may print before it is ready.
pub const BEFORE_MAX: usize = 16 << 20;
/// How long a reply may take to begin.
const BEGIN: Duration = Duration::from_secs(60);
/// The same once a stop was requested. Cleaning up after a stop has requests too.
const BEGIN_STOPPED: Duration = Duration::from_secs(5);
/// The longest interval between two looks at a reply.
const NAP: Duration = Duration::from_millis(1);
/// How long to wait for stderr once stdout is complete.
const STDERR_GRACE: Duration = Duration::from_millis(500);

impl Coprocess {
    /// Starts it, writes `greeting`, and waits until it prints `ready`.
    pub(crate) fn start(
        command: &mut Command,
        greeting: &[u8],
        ready: &str,
        limits: &Limits,
    ) -> io::Result<Result<Self, NotReady>> {
        let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()), limits)?;
        // A failure means that the program has ended.
        let _ = child.stdin.as_mut().map(|stdin| stdin.write_all(greeting));
        let (stdout, stderr) = (Collected::new(child.stdout.take()), Collected::new(child.stderr.take()));
        let mut program = Background(child);
        let started = Instant::now();
        loop {
            if stdout.so_far().contains(ready) {
                return Ok(Ok(Self { program, stdout, stderr }));
            }
            if program.has_ended() {
                return Ok(Err(NotReady::Ended(program.code(), format!("{}\n{}", stdout.text(), stderr.text()))));
            }
            if stdout.is(&|bytes| bytes.len() > BEFORE_MAX) {
                end(&program.0, true, Signal::KILL);
                return Ok(Err(NotReady::Endless));
            }
            let late = limits.time.is_some_and(|limit| started.elapsed() >= limit);
            if late || (limits.stop)() {
                end(&program.0, true, Signal::TERM);
                let reason =
                    if late { format!("it did not end within {:.1?}", started.elapsed()) } else { "stopped".into() };
                return Ok(Err(NotReady::Stopped(format!("{}\n{reason}", stderr.so_far()))));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The output so far: stdout and stderr.
    pub fn so_far(&self) -> [String; 2] {
        [self.stdout.so_far(), self.stderr.so_far()]
    }

    /// Writes a request and waits for the reply. Returns `None` if the program ended before it had the whole request. A
    /// reply that does not begin within a minute, or soon after `stop`, ends the program.
    pub(crate) fn request(&mut self, request: &[u8], frame: &ReplyFrame, stop: &dyn Fn() -> bool) -> Option<Reply> {
        if self.program.has_ended() {
            return None;
        }
        // What a background process of an earlier script printed.
        self.stdout.forget();
        self.stderr.forget();
        let stdin = self.program.0.stdin.as_mut()?;
        stdin.write_all(request).and_then(|()| stdin.flush()).ok()?;
        let (sent, mut begun, mut whole, mut nap) = (Instant::now(), false, None::<Instant>, SOON);
        loop {
            begun = begun || self.stdout.is(frame.has_begun);
            if whole.is_none() && self.stdout.is(frame.has_ended) {
                whole = Some(Instant::now());
            }
            if whole.is_some_and(|at| self.stderr.is(frame.stderr_has_ended) || at.elapsed() > STDERR_GRACE) {
                return Some(Reply { stdout: self.stdout.so_far(), stderr: self.stderr.so_far(), whole: true });
            }
            if whole.is_none() && self.program.has_ended() {
                return Some(Reply { stdout: self.stdout.text(), stderr: self.stderr.text(), whole: false });
            }
            if !begun && sent.elapsed() > if stop() { BEGIN_STOPPED } else { BEGIN } {
                self.stop();
                let stderr = format!("{}\nit did not begin within {:.0?}", self.stderr.so_far(), sent.elapsed());
                return Some(Reply { stdout: String::new(), stderr, whole: false });
            }
            thread::sleep(nap);
            nap = (nap * 2).min(NAP);
        }
    }

    /// The exit code, if the program has ended.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.program.code()
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.program.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(script: &str) -> Result<Coprocess, NotReady> {
        let limits = Limits { time: Some(Duration::from_secs(20)), stop: &|| false, own_group: true };
        Coprocess::start(Command::new("sh").args(["-c", script]), b"hello\n", "ready", &limits).unwrap()
    }

    fn request(to: &mut Coprocess, text: &str) -> Option<(String, String, bool)> {
        let has = |output: &[u8], text: &str| String::from_utf8_lossy(output).contains(text);
        let frame = ReplyFrame {
            has_begun: &|stdout| has(stdout, "begin"),
            has_ended: &|stdout| has(stdout, "end\n"),
            stderr_has_ended: &|stderr| has(stderr, "end\n"),
        };
        to.request(text.as_bytes(), &frame, &|| true).map(|it| (it.stdout, it.stderr, it.whole))
    }

    #[test]
    fn request_is_answered_again_and_again() {
        let reply = "echo begin $line; sleep 0.1; echo end; echo bad $line end >&2";
        let mut it =
            started(&format!("read -r line; echo $line >&2; echo ready; while read -r line; do {reply}; done"))
                .ok()
                .unwrap();
        // Another thread reads it.
        while it.so_far()[1] != "hello\n" {
            thread::sleep(NAP);
        }
        for text in ["a", "b"] {
            let want = (format!("begin {text}\nend\n"), format!("bad {text} end\n"), true);
            assert_eq!(request(&mut it, &format!("{text}\n")), Some(want));
        }
    }

    #[test]
    fn request_to_program_that_ends_is_not_sent_or_not_whole() {
        let mut idle = started("read -r line; echo ready; read -r line; exit 3").ok().unwrap();
        idle.program.0.stdin.as_ref().unwrap().write_all(b"end\n").unwrap();
        while !idle.program.has_ended() {
            thread::sleep(NAP);
        }
        assert_eq!(request(&mut idle, "a\n"), None);
        let mut half =
            started("echo ready; read -r line; read -r line; echo begin; echo bad >&2; exit 254").ok().unwrap();
        assert_eq!(request(&mut half, "a\n"), Some(("begin\n".into(), "bad\n".into(), false)));
        assert_eq!(half.code(), Some(254));
    }

    #[test]
    fn request_that_nothing_begins_ends_the_program() {
        let mut deaf = started("echo ready; cat > /dev/null").ok().unwrap();
        let (stdout, stderr, whole) = request(&mut deaf, "a\n").unwrap();
        assert!(stdout.is_empty() && stderr.contains("it did not begin within 5s") && !whole, "{stderr}");
    }

    #[test]
    fn start_says_why_a_program_is_not_ready() {
        assert!(
            matches!(started("echo no >&2; exit 254"), Err(NotReady::Ended(Some(254), said)) if said.contains("no"))
        );
        assert!(matches!(started("yes"), Err(NotReady::Endless)));
    }
}
