//! A host with a service manager: a real `systemd --user` and a real journal in a mount namespace of their own, without
//! systemd as the first process of this machine.

use crate::record::skip;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The hierarchies of control groups in which systemd keeps its units; nothing where we may make none.
pub fn groups() -> Option<Vec<PathBuf>> {
    let hybrid = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let mut roots: Vec<_> = hybrid.into_iter().filter(|root| root.join("cgroup.procs").exists()).collect();
    if roots.is_empty() && Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        roots.push("/sys/fs/cgroup".into());
    }
    let mine = |root: &Path| root.join(format!("gangplank-probe-{}", std::process::id()));
    let may = |root: &PathBuf| fs::create_dir(mine(root)).is_ok() && fs::remove_dir(mine(root)).is_ok();
    if roots.is_empty() || !roots.iter().all(may) || !Path::new("/lib/systemd/systemd").exists() {
        skip(
            "services of systemd: only root of a machine with systemd's programs and writable control groups has them",
        );
        return None;
    }
    Some(roots)
}

/// Writes the script that is a host at `at`, and gives the command that starts it, remembers in `$pids` whom to stop, and in
/// `$groups` what to remove. journald tells a user's units, and the
/// user, by the names of their control groups.
pub fn boot(at: &str, environment: &str, groups: &[PathBuf], sshd: &str) -> String {
    let slice = format!("gangplank{}.slice", at.replace(['/', '.', '-'], "_"));
    let slices: Vec<_> = groups.iter().map(|root| root.join(&slice).display().to_string()).collect();
    let slices = slices.join(" ");
    let script = format!(
        "mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/systemd/journal /run/log/journal /run/sshd {at}/home
mkdir -m 700 {at}/run
# journald looks there for the ids of what a user's manager starts.
mkdir /run/user; ln -s {at}/run /run/user/0
mount -t tmpfs tmpfs /var/lib/systemd; mkdir /var/lib/systemd/linger; touch /var/lib/systemd/linger/root
/lib/systemd/systemd-journald > {at}/journald.log 2>&1 & journal=$!
echo $journal > {at}/journal.pid
{sshd} & door=$!
(for slice in {slices}; do
  own=$slice/user-0.slice/user@0.service; mkdir -p $own; sh -c 'echo $PPID' > $own/cgroup.procs
done
exec env -i {environment} USER=root PATH=/usr/bin:/bin:/usr/sbin:/sbin /lib/systemd/systemd --user --log-target=journal) \
  > {at}/systemd.log 2>&1 & manager=$!
trap 'kill $manager; wait $manager; kill $door $journal; wait; exit 0' TERM
wait
"
    );
    fs::write(format!("{at}/boot"), script).unwrap();
    format!("setsid unshare -m sh {at}/boot < /dev/null & pids=\"$pids $!\"; groups=\"$groups {slices}\"")
}

/// Waits for its manager.
pub fn wait(at: &Path) {
    let started = Instant::now();
    while !at.join("run/systemd/private").exists() {
        let log = fs::read_to_string(at.join("systemd.log")).unwrap_or_default();
        assert!(started.elapsed() < Duration::from_secs(30), "systemd did not start: {log}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
