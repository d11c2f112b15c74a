//! A host with a service manager: a real `systemd --user` and a real journal in a mount namespace of their own, without
//! systemd as the first process of this machine.

use crate::record::skip;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
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

/// A manager of the system that starts nothing, remembers what it is told, and lets root alone tell it something.
const SYSTEMCTL: &str = r#"#!/bin/sh
for unit; do :; done
state=@at@/state
case $1 in
  is-active|is-enabled)
    [ -e "$state/${1#is-} $unit" ] || { case $* in *-q*) ;; *) echo inactive;; esac; exit 3; }
    case $* in *-q*) ;; *) echo active;; esac
    exit 0;;
  show)
    case $* in
      *ActiveState*Result*) printf '%s\n' ActiveEnterTimestampMonotonic=2 ActiveState=active ExecMainCode=0 \
        ExecMainStartTimestampMonotonic=1 ExecMainStatus=0 NRestarts=0 Result=success SubState=running;;
      *ActiveState*) echo active;;
      *NRestarts*) echo 0;;
      *InvocationID*) wc -l < @at@/calls;;
      *NeedDaemonReload*) echo no;;
    esac
    exit 0;;
esac
[ "$(id -u)" = 0 ] || { echo "Interactive authentication required." >&2; exit 1; }
echo "$*" >> @at@/calls
case $1 in
  restart) touch "$state/active $unit";;
  start) touch "$state/active $unit";;
  stop) shift; for unit; do rm -f "$state/active $unit"; done;;
  enable) touch "$state/enabled $unit";;
  disable) rm -f "$state/enabled $unit" "$state/active $unit";;
esac
exit 0
"#;

/// Whether a host can be made that has a real sudo: a mount namespace with users, sudoers and units of its own.
pub fn has_sudo() -> bool {
    let programs = ["/usr/bin/sudo", "/usr/sbin/visudo", "/usr/sbin/useradd", "/usr/bin/systemctl", "/var/mail"];
    let is_root = fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
    let may = is_root && programs.iter().all(|path| Path::new(path).exists());
    if !may {
        skip("a host with sudo: only root of a machine with sudo and systemd's programs can make one");
    }
    may
}

/// Gives a host an `/etc` and a `/home` of its own, and the command that starts it.
pub fn boot_with_sudo(at: &str, sshd: &str) -> String {
    let at_path = Path::new(at);
    let copied = Command::new("cp").args(["-a", "/etc", at]).status().unwrap();
    assert!(copied.success());
    for file in fs::read_dir(at_path.join("etc/sudoers.d")).unwrap().flatten() {
        fs::remove_file(file.path()).unwrap();
    }
    for dir in ["state", "homes", "mail"] {
        fs::create_dir(at_path.join(dir)).unwrap();
    }
    fs::write(at_path.join("calls"), "").unwrap();
    fs::write(at_path.join("systemctl"), SYSTEMCTL.replace("@at@", at)).unwrap();
    fs::set_permissions(at_path.join("systemctl"), PermissionsExt::from_mode(0o755)).unwrap();
    let mounts = [("etc", "/etc"), ("homes", "/home"), ("mail", "/var/mail"), ("systemctl", "/usr/bin/systemctl")];
    let mounts: String = mounts.iter().map(|(from, to)| format!("mount --bind {at}/{from} {to}\n")).collect();
    fs::write(format!("{at}/boot"), format!("set -e\n{mounts}exec {sshd}\n")).unwrap();
    format!("unshare -m sh {at}/boot & pids=\"$pids $!\"")
}

/// Adds the login `deploy` to such a host.
pub fn add_login(at: &Path) {
    let more = |file: &str, line: &str| {
        let path = at.join("etc").join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{}\n{line}\n", text.trim_end())).unwrap();
    };
    more("passwd", &format!("deploy:x:65533:65533::{}/home:/bin/sh", at.display()));
    more("group", "deploy:x:65533:");
    more("shadow", "deploy:*:19000:0:99999:7:::");
    for dir in ["srv", "home"] {
        std::os::unix::fs::chown(at.join(dir), Some(65533), Some(65533)).unwrap();
    }
}
