//! A child process: started, waited for, ended.

pub use rustix::process::Signal;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for output after the program has ended, because a child may hold the pipe forever.
pub const GRACE: Duration = Duration::from_millis(500);
/// How long a program may take to stop before it is killed.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// When a program is killed.
pub struct Limits<'a> {
    /// After this time.
    pub time: Option<Duration>,
    /// Once this returns true.
    pub stop: &'a dyn Fn() -> bool,
    /// Whether it runs in a process group of its own, so that Ctrl-C on our terminal does not reach it.
    pub own_group: bool,
}

/// Starts a command, in a process group of its own if the limits say so.
pub fn start(command: &mut Command, limits: &Limits) -> io::Result<Child> {
    if limits.own_group {
        command.process_group(0);
    }
    command.spawn()
}

/// The longest interval between two checks of a child.
pub const OFTEN: Duration = Duration::from_millis(20);
/// The first interval, and the one after activity.
pub const SOON: Duration = Duration::from_micros(200);

/// Waits for a child, and kills it, with its group if it has one, at a limit.
pub fn wait(child: &mut Child, limits: &Limits) -> io::Result<(ExitStatus, bool)> {
    wait_looking(child, limits, OFTEN, &mut sleep_only)
}

/// Sleeps, without a signal that a child may have ended.
pub fn sleep_only(nap: Duration) -> bool {
    thread::sleep(nap);
    false
}

/// Like [`wait`]; checks at least as `often`, and when `on_line`, which waits at most the given time, returns that it
/// may have ended.
pub fn wait_looking(
    child: &mut Child,
    limits: &Limits,
    often: Duration,
    on_line: &mut dyn FnMut(Duration) -> bool,
) -> io::Result<(ExitStatus, bool)> {
    let started = Instant::now();
    let mut asked: Option<Instant> = None;
    let mut nap = SOON;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, asked.is_some()));
        }
        match asked {
            None if limits.time.is_some_and(|limit| started.elapsed() > limit) || (limits.stop)() => {
                asked = Some(Instant::now());
                end(child, limits.own_group, Signal::TERM);
            }
            Some(since) if limits.time.is_some() && since.elapsed() > TERM_GRACE => {
                end(child, limits.own_group, Signal::KILL);
            }
            _ => {}
        }
        nap = if on_line(nap) { SOON } else { (nap * 2).min(often) };
    }
}

/// Sends a signal to a child, or to its group. It may have just ended by itself.
pub fn end(child: &Child, group: bool, signal: Signal) {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) else { return };
    let _ = if group {
        rustix::process::kill_process_group(pid, signal)
    } else {
        rustix::process::kill_process(pid, signal)
    };
}
