//! The processes that this one has started, and what they have started: found, measured and ended. Linux only.

use crate::process::LAST_WORDS;
use std::thread;
use std::time::{Duration, Instant};

/// From now on what our programs leave behind is our child.
pub fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    // Where it is refused, what was left is not ours to end.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Ends our children that have a variable, and takes note of their time.
pub fn end_children_with(variable: &str) {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    let started = Instant::now();
    let mut ending = Vec::new();
    loop {
        let left = children().into_iter().filter(|pid| {
            let vars = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            // One that has ended has no variables any more, until its parent has taken note of it.
            ending.contains(pid) || vars.split(|byte| *byte == 0).any(|it| it == variable.as_bytes())
        });
        ending = left.collect();
        if ending.is_empty() {
            return;
        }
        let signal = if started.elapsed() < LAST_WORDS { Signal::TERM } else { Signal::KILL };
        for pid in ending.iter().copied().filter_map(Pid::from_raw) {
            // It may have ended by itself just now.
            let _ = kill_process(pid, signal);
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Processes whose parent is this one; see proc(5).
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Processes that this one, or a child of it, started and that still run. Linux only.
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

/// The parent of a process; nothing for one that has ended and waits for its parent to notice. proc(5): the state and
/// the parent come after the name, which is in parentheses and may hold any character.
fn running_parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    fields.next()?.parse().ok().filter(|_| state != "Z")
}

/// Takes note of the end of children that this process did not start, so that they do not stay as zombies: a test
/// that waits for such a process to be gone would wait for ever. `own` is the child that it did start.
pub fn reap_orphans(own: u32) {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let orphans = children().into_iter().filter(|pid| u32::try_from(*pid) != Ok(own));
    for pid in orphans.filter_map(Pid::from_raw) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Kills a process.
pub fn kill(pid: i32) {
    // It may have ended by itself just now.
    let _ = rustix::process::Pid::from_raw(pid)
        .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
}

/// Processor time of the children that have ended, and of theirs: `cutime` and `cstime` of proc(5), in hundredths.
pub fn cpu_of_children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(13) + ticks(14)) * 10)
}
