//! The descendants of this process: found, measured and killed. Linux only.

use crate::process::child::TERM_GRACE;
use std::thread;
use std::time::{Duration, Instant};

/// Makes orphans of our programs our children.
pub fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    // On failure, orphans are not killed.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Kills our children that have a variable, and counts their time.
pub(crate) fn end_children_with(variable: &str) {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    let started = Instant::now();
    let mut ending = Vec::new();
    loop {
        let left = children().into_iter().filter(|pid| {
            let vars = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            // An ended child has no variables until it is reaped.
            ending.contains(pid) || vars.split(|byte| *byte == 0).any(|it| it == variable.as_bytes())
        });
        ending = left.collect();
        if ending.is_empty() {
            return;
        }
        let signal = if started.elapsed() < TERM_GRACE { Signal::TERM } else { Signal::KILL };
        for pid in ending.iter().copied().filter_map(Pid::from_raw) {
            // It may have just ended by itself.
            let _ = kill_process(pid, signal);
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The children of this process; see proc(5).
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The running descendants of this process. Linux only.
pub fn descendants() -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<_> = pids.filter_map(|pid| Some((pid, running_parent(pid)?))).collect();
    let mut found = vec![rustix::process::getpid().as_raw_pid()];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// The parent of a process; `None` for a zombie. proc(5): state and parent come after the name, which is in parentheses
/// and may contain any character.
fn running_parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    fields.next()?.parse().ok().filter(|_| state != "Z")
}

/// Reaps children that this process did not start, so that a test that waits for their end does not wait forever. `own`
/// is the child that it did start.
pub(crate) fn reap_orphans(own: u32) {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let orphans = children().into_iter().filter(|pid| u32::try_from(*pid) != Ok(own));
    for pid in orphans.filter_map(Pid::from_raw) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Kills a process.
pub fn kill(pid: i32) {
    // It may have just ended by itself.
    let _ = rustix::process::Pid::from_raw(pid)
        .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
}

/// CPU time of the reaped children and their descendants: `cutime` and `cstime` of proc(5), in hundredths.
pub(crate) fn cpu_of_children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(13) + ticks(14)) * 10)
}
