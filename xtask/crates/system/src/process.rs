//! Runs another program safely: it may print more than a pipe holds while it reads, leave a child that holds our pipe,
//! or never end.

mod child;
mod collected;
pub mod coprocess;
pub mod tree;

use crate::process::child::{GRACE, OFTEN, end, sleep_only, wait_looking};
pub use crate::process::child::{Limits, start, wait};
use crate::process::collected::Collected;
pub use crate::process::coprocess::{Background, Coprocess, NotReady, ReplyFrame};
use crate::process::tree::{adopt_orphans, cpu_of_children, end_children_with, kill, reap_orphans};
use gangplank_model::event::Stream;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The variable that marks the processes of a measured program.
const MARK: &str = "GANGPLANK_MEASURED";

/// Keeps the memory of this process, which has secrets, out of core files and from other processes of the user.
/// Programs that it starts are not affected. Linux only (prctl(2), `PR_SET_DUMPABLE`).
pub fn keep_memory_private() {
    #[cfg(target_os = "linux")]
    // A failure leaves the default behaviour.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// The stdin of a program.
pub enum Input<'a> {
    /// Nothing.
    Empty,
    /// These bytes.
    Bytes(&'a [u8]),
    /// These bytes, then the contents of this file.
    BytesThenFile(&'a [u8], File),
}

/// The end of a program.
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
    /// Whether we killed it.
    pub cut: bool,
}

/// A condition that ends a running program.
pub struct Until<'a> {
    /// Whether its output so far is complete.
    pub ended: &'a dyn Fn(&[u8]) -> bool,
    /// Whether its output so far can never become complete: then it is killed at once.
    pub is_refused: &'a dyn Fn(&[u8]) -> bool,
    /// How long it may then take to end by itself.
    pub stragglers: Duration,
}

/// Runs a command with our stdin and stdout, and the command's own stderr. With `until`, it is killed once its output
/// is complete.
pub fn run(command: &mut Command, input: Input, limits: &Limits, until: Option<&Until>) -> io::Result<Ended> {
    let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()), limits)?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    feed(child.stdin.take(), input);
    let (stdout, stderr) = (Collected::new(child.stdout.take()), Collected::new(child.stderr.take()));
    let mut complete: Option<Instant> = None;
    let (status, cut) = wait_looking(&mut child, limits, OFTEN, &mut |nap| {
        let Some(until) = until else { return stdout.ends_within(nap) };
        if complete.is_none() && stdout.is(until.ended) {
            complete = Some(Instant::now());
        }
        if complete.is_some_and(|since| since.elapsed() > until.stragglers) || stdout.is(until.is_refused) {
            kill(pid);
        }
        stdout.ends_within(nap)
    })?;
    Ok(Ended { status, stdout: stdout.text(), stderr: stderr.text(), cut })
}

/// Replaces this process by another program; returns only on failure.
pub(crate) fn become_it(command: &mut Command) -> io::Error {
    command.exec()
}

/// How long a streamed command may take to end after we close it: the far end has to notice and to kill it.
const CLOSE_GRACE: Duration = Duration::from_secs(6);
/// A line longer than this is split.
pub const LINE_BYTES_MAX: usize = 1 << 16;

/// Runs a command and streams its lines. With `stays_open` its stdin stays open after `input`, and closes when `stop`
/// returns true or we are killed; the command must exit on that. It is killed once its output is `complete`. Returns whether it was
/// stopped.
pub fn stream(
    command: &mut Command,
    input: &[u8],
    stays_open: bool,
    on_line: &mut dyn FnMut(Stream, String),
    stop: &dyn Fn() -> bool,
    complete: &dyn Fn() -> bool,
) -> io::Result<(ExitStatus, bool)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let (open, closes) = channel::<()>();
    let mut open = Some(open);
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        thread::spawn(move || {
            let _ = stdin.write_all(&input);
            if stays_open {
                let _ = closes.recv();
            }
        });
    }
    let (sender, lines) = sync_channel(1 << 8);
    read_lines(child.stdout.take(), Stream::Stdout, sender.clone());
    read_lines(child.stderr.take(), Stream::Stderr, sender);
    let mut left: Option<Instant> = None;
    let status = loop {
        match lines.recv_timeout(Duration::from_millis(20)) {
            Ok((stream, line)) => on_line(stream, line),
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(5)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if complete() {
            end(&child, true, rustix::process::Signal::KILL);
        }
        match left {
            None if stop() => {
                left = Some(Instant::now());
                drop(open.take());
            }
            Some(since) if since.elapsed() > CLOSE_GRACE => end(&child, true, rustix::process::Signal::KILL),
            _ => {}
        }
    };
    // Output in flight; a child may hold the pipe forever.
    while let Ok((stream, line)) = lines.recv_timeout(GRACE) {
        on_line(stream, line);
        if stop() || complete() {
            break;
        }
    }
    Ok((status, left.is_some()))
}

/// Runs a command in our process group and streams its stdout. With `alone`, no other thread starts programs meanwhile,
/// so every other child is an adopted orphan.
pub fn lines(command: &mut Command, alone: bool, on_line: &mut dyn FnMut(&str)) -> io::Result<ExitStatus> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let (sender, lines) = sync_channel(1 << 8);
    read_lines(child.stdout.take(), Stream::Stdout, sender);
    let mut looked = Instant::now();
    let status = loop {
        if alone && looked.elapsed() > GRACE {
            reap_orphans(child.id());
            looked = Instant::now();
        }
        match lines.recv_timeout(OFTEN) {
            Ok((_, line)) => on_line(&line),
            Err(RecvTimeoutError::Disconnected) => break child.wait()?,
            // A child may hold the pipe.
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
            }
        }
    };
    while let Ok((_, line)) = lines.recv_timeout(GRACE) {
        on_line(&line);
    }
    Ok(status)
}

fn read_lines(stream: Option<impl Read + Send + 'static>, which: Stream, to: SyncSender<(Stream, String)>) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = stream.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line) {
            // A split line has no newline to remove. Each invalid byte becomes one character, so that the length of a
            // piece is preserved.
            let text = line.strip_suffix(b"\n").map_or(line.as_slice(), |it| it.strip_suffix(b"\r").unwrap_or(it));
            let text: Vec<_> =
                text.utf8_chunks().map(|it| it.valid().to_owned() + &"?".repeat(it.invalid().len())).collect();
            let text = text.concat();
            if to.send((which, text)).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// The measured cost of a program.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Its status.
    pub status: ExitStatus,
    /// Wall time.
    pub wall: Duration,
    /// CPU time, including its children.
    pub cpu: Duration,
}

/// Runs a command to its end and measures it. Background children count and are killed. CPU time and children are known
/// only on Linux.
pub fn measure(command: &mut Command, limits: &Limits) -> io::Result<Measured> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mark = COUNT.fetch_add(1, Ordering::Relaxed).to_string();
    adopt_orphans();
    let (before, started) = (cpu_of_children(), Instant::now());
    let mut child = start(command.env(MARK, &mark), limits)?;
    let (status, _) = wait_looking(&mut child, limits, Duration::from_millis(1), &mut sleep_only)?;
    let wall = started.elapsed();
    end_children_with(&format!("{MARK}={mark}"));
    Ok(Measured { status, wall, cpu: cpu_of_children().saturating_sub(before) })
}

/// Writes in a thread, because the program may write while it reads. A program that ends early breaks the pipe, which
/// its exit code explains.
fn feed(stdin: Option<impl Write + Send + 'static>, input: Input) {
    let Some(mut stdin) = stdin else { return };
    let (bytes, file) = match input {
        Input::Empty => return,
        Input::Bytes(bytes) => (bytes.to_vec(), None),
        Input::BytesThenFile(bytes, file) => (bytes.to_vec(), Some(file)),
    };
    thread::spawn(move || {
        let written = stdin.write_all(&bytes);
        if let (Ok(()), Some(mut file)) = (written, file) {
            let _ = io::copy(&mut file, &mut stdin);
        }
    });
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};
    use std::time::Duration;

    #[test]
    fn measure_of_program_ends_the_processes_that_it_leaves() {
        let mut command = std::process::Command::new("sh");
        let busy = "n=0; while [ $n -lt 50000 ]; do n=$((n + 1)); done";
        command.args(["-c", &format!("setsid sh -c '{busy}; exec sleep 47.11' & sleep 0.5; {busy}")]);
        command.stdout(std::process::Stdio::null());
        let limits = super::Limits { time: None, stop: &|| false, own_group: true };
        let measured = super::measure(&mut command, &limits).unwrap();
        assert!(measured.status.success() && measured.wall >= Duration::from_millis(500), "{measured:?}");
        assert!(measured.cpu > Duration::ZERO, "{measured:?}");
        let commands = std::fs::read_dir("/proc").unwrap().flatten();
        let commands = commands.filter_map(|it| std::fs::read_to_string(it.path().join("cmdline")).ok());
        assert!(commands.into_iter().all(|line| !line.contains("47.11")));
    }

    #[test]
    fn run_of_program_that_closes_its_pipe_waits_for_its_end() {
        let run = |script: &str, limit| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script]).stderr(std::process::Stdio::piped());
            let limits = super::Limits { time: limit, stop: &|| false, own_group: true };
            super::run(&mut command, super::Input::Empty, &limits, None).unwrap()
        };
        let ended = run("echo out; exec >&-; sleep 0.2; echo late >&2; exit 3", None);
        assert_eq!((ended.status.code(), ended.stdout.as_str(), ended.stderr.as_str()), (Some(3), "out\n", "late\n"));
        assert!(run("exec >&- 2>&-; sleep 47.12", Some(Duration::from_millis(100))).cut);
        // The child holds the pipe, and is not waited for.
        let ended = run("sleep 2 & echo out", None);
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), "out\n"));
    }

    #[test]
    fn child_of_private_process_is_readable() {
        super::keep_memory_private();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limits = super::Limits { time: None, stop: &|| false, own_group: false };
        let mut own = std::process::Command::new("sh");
        own.args(["-c", "test -r /proc/self/environ && echo readable"]);
        own.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        assert_eq!(super::run(&mut own, super::Input::Empty, &limits, None).unwrap().stdout, "readable\n");
    }
}
