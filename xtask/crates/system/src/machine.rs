//! The identity of this run: machine, process and user, for locks and the history; and the size of the terminal.

use crate::context::Context;
use gangplank_model::owner::{LEASE, Liveness, Owner, mark};
use gangplank_model::release::manifest::CiJob;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// This process as the owner of a lock, about to do something.
pub fn owner(ctx: &Context, doing: impl Into<String>) -> Owner {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let n = TAKEN.fetch_add(1, Ordering::Relaxed);
    let now = ctx.now();
    Owner {
        token: format!("{pid:x}-{:x}-{n:x}", now.as_nanosecond()),
        by: person(ctx),
        machine: machine(),
        pid,
        started: started(pid),
        since: now,
        doing: doing.into(),
        ci: ci_job(ctx),
        lease: Some(LEASE),
        seconds_since_renewal: None,
    }
}

/// Whether an owner still runs, as far as this machine can tell.
pub fn liveness(owner: &Owner) -> Liveness {
    if owner.machine != machine() {
        return Liveness::Unknown;
    }
    if runs(owner.pid) && started(owner.pid) == owner.started {
        Liveness::Alive
    } else if script_running(&owner.token) {
        Liveness::Ending
    } else {
        Liveness::Dead
    }
}

fn runs(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

/// A listening process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its id.
    pub pid: u32,
    /// Name of its program, as shortened by the system.
    pub name: String,
    /// Its working directory.
    pub dir: String,
}

/// The only process that listens on a TCP port of this machine, if the system tells: `proc(5)`, `/proc/net/tcp`.
pub fn listener(port: u16) -> Option<Listener> {
    let sockets = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let listening = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (local.ends_with(&format!(":{port:04X}")) && *state == "0A").then(|| (*inode).to_owned())
    };
    let mut inodes: Vec<String> = sockets.iter().flat_map(|text| text.lines()).filter_map(listening).collect();
    // Two programs may listen on two addresses, and it is unknown which one was meant.
    let inode = inodes.pop().filter(|_| inodes.is_empty())?;
    let socket = format!("socket:[{inode}]");
    let has_it = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|to| to.to_str() == Some(&socket))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pid = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(has_it)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    let dir = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default().display().to_string();
    Some(Listener { pid, name, dir })
}

/// Whether a script started under a lock still runs: a killed deploy leaves its last one behind, and an overlapping
/// restart would start two processes.
fn script_running(token: &str) -> bool {
    let scripts = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let mark = mark(token).into_bytes();
    scripts.into_iter().any(|line| line.windows(mark.len()).any(|piece| piece == mark))
}

/// Removes debris of killed runs in a directory of ours: names of `crate::release::scratch` whose process is gone.
pub fn sweep(dir: &Path) {
    sweep_of(dir, "");
}

/// Like [`sweep`], only for one purpose: in a shared directory.
pub fn sweep_of(dir: &Path, purpose: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        let ours =
            parts.next().and_then(|word| word.strip_prefix('.')).is_some_and(|it| purpose.is_empty() || it == purpose);
        let pid = parts.next().and_then(|pid| pid.parse().ok());
        if ours && pid.is_some_and(|pid| !runs(pid)) {
            let _ = fs::remove_dir_all(entry.path());
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The user: the CircleCI user in a job, `user@host` elsewhere.
pub fn person(ctx: &Context) -> String {
    if ctx.in_ci() {
        return ctx.var("CIRCLE_USERNAME").unwrap_or("circleci").to_owned();
    }
    let user = ctx.var("USER").or(ctx.var("LOGNAME")).map(str::to_owned);
    format!("{}@{}", user.or_else(login).unwrap_or_else(|| "unknown".to_owned()), hostname())
}

/// The login of this process, where no variable has it, as in containers and cron jobs.
fn login() -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields.find(|user| user.get(2) == Some(&uid.as_str())).map(|user| user[0].to_owned())
}

/// The CircleCI job of this process.
pub fn ci_job(ctx: &Context) -> Option<CiJob> {
    let job = ctx.var("CIRCLE_BUILD_NUM")?.parse().ok()?;
    Some(CiJob {
        job,
        url: ctx.var("CIRCLE_BUILD_URL").map(str::to_owned),
        workflow: ctx.var("CIRCLE_WORKFLOW_ID").map(str::to_owned),
        pipeline: ctx.var("PIPELINE_NUMBER").and_then(|n| n.parse().ok()),
    })
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Host name, boot and process namespace. Two containers on one host differ in the last, two boots in the second.
fn machine() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace =
        fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{} {} {namespace}", hostname(), boot.trim()).trim().to_owned()
}

/// Field 22 of `/proc/PID/stat` (proc(5)); `None` without `/proc`, or without the process.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    let mut fields = after_name.split(' ');
    // A zombie counts as dead: it will release nothing.
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Columns and rows of the terminal of an open file.
pub fn terminal_size(of: impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(of).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn listener_of_a_port_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(listener(port).unwrap().pid, std::process::id());
        drop(socket);
        // A program started by another test may briefly hold it.
        let started = std::time::Instant::now();
        while listener(port).is_some_and(|it| it.pid == std::process::id()) {
            assert!(started.elapsed() < std::time::Duration::from_secs(20));
            std::thread::yield_now();
        }
    }
}
