//! Finds what tests left on this machine: processes, mounts, users, control groups. Linux only.

use crate::record::Record;
use gangplank_system::process::tree;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long servers may take to end with the tests: a busy Ceph writes for some seconds.
const GRACE: Duration = Duration::from_secs(15);

/// Characters shown of a command line.
const COMMAND_CHARS_MAX: usize = 120;

/// The state before the tests.
pub struct Before {
    things: BTreeSet<String>,
}

impl Before {
    /// Records the state. From now on orphaned processes become our children.
    pub fn look() -> Self {
        tree::adopt_orphans();
        Self { things: things() }
    }

    /// New things, with their test if known. Processes are killed.
    pub fn left(&self, record: &Record) -> Vec<String> {
        let started = Instant::now();
        let mut left = tree::descendants();
        while !left.is_empty() && started.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(50));
            left = tree::descendants();
        }
        let processes = left.iter().map(|pid| describe(*pid, record)).collect::<Vec<_>>();
        for pid in left {
            tree::kill(pid);
        }
        // Other new mounts may belong to a user who has logged in.
        let of_a_test = |thing: &String| record.directories.iter().any(|(dir, _)| thing.contains(dir.as_str()));
        let new = things().into_iter().filter(|thing| !self.things.contains(thing));
        let new = new.filter(|thing| !thing.starts_with("mount ") || of_a_test(thing));
        processes.into_iter().chain(new.map(|thing| name(&thing, &thing, record))).collect()
    }
}

/// A description of a process and its test.
fn describe(pid: i32, record: &Record) -> String {
    let dir = Path::new("/proc").join(pid.to_string());
    let text = |name: &str| {
        String::from_utf8_lossy(&fs::read(dir.join(name)).unwrap_or_default())
            .replace(['\0', '\n'], " ")
            .trim()
            .to_owned()
    };
    let link = |name: &str| fs::read_link(dir.join(name)).unwrap_or_default().display().to_string();
    let (command, cwd) = (text("cmdline"), link("cwd"));
    let traces = [command.as_str(), &cwd, &link("exe"), &text("environ")].join(" ");
    let shown: String = command.chars().take(COMMAND_CHARS_MAX).collect();
    name(&format!("process {pid} `{shown}` in {cwd}"), &traces, record)
}

/// Appends the test whose directory occurs in `traces`.
fn name(what: &str, traces: &str, record: &Record) -> String {
    let test = record.directories.iter().find(|(dir, _)| traces.contains(dir.as_str()));
    test.map_or_else(|| format!("{what}, of an unknown test"), |(_, test)| format!("{what}, of the test {test}"))
}

/// Mounts, users and control groups of this machine.
fn things() -> BTreeSet<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut things = BTreeSet::new();
    // The fifth field is the mount point: proc(5).
    things
        .extend(read("/proc/self/mountinfo").lines().filter_map(|it| Some(format!("mount {}", it.split(' ').nth(4)?))));
    things.extend(read("/etc/passwd").lines().filter_map(|it| Some(format!("user {}", it.split(':').next()?))));
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"] {
        let groups = fs::read_dir(root).into_iter().flatten().flatten();
        let names = groups.map(|it| it.file_name().to_string_lossy().into_owned());
        let ours = names.filter(|it| it.starts_with("gangplank"));
        things.extend(ours.map(|it| format!("control group {root}/{it}")));
    }
    things
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn process_that_was_left_is_described_with_its_test() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let _before = Before::look();
        // Its parent exits at once, and it has its own session.
        let script = "setsid sleep 47.21 > /dev/null 2>&1 & echo $!";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(&path);
        let mut pid = 0;
        gangplank_system::process::lines(&mut shell, false, &mut |line| pid = line.parse().unwrap()).unwrap();
        assert!(tree::descendants().contains(&pid));
        let record = |dir: &str| Record { skipped: vec![], directories: vec![(dir.into(), "kill::before".into())] };
        let named = describe(pid, &record(&path));
        assert!(named.ends_with(&format!("in {path}, of the test kill::before")), "{named}");
        assert!(describe(pid, &record("/elsewhere")).ends_with("of an unknown test"));
        tree::kill(pid);
        while tree::descendants().contains(&pid) {
            std::thread::yield_now();
        }
    }
}
