//! The hosts of a bench: private sshds on this machine, which end with the bench, even if it is killed.

use crate::fleet::proxy::Network;
use gangplank_model::error::{Kind, Result, WithHint, failed, usage};
use gangplank_system::context::Context;
use gangplank_system::process::Coprocess;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const SCRIPT: &str = include_str!("hosts.sh");
/// Each host generates a key first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Running hosts `h0`, `h1`, ...
pub struct Fleet {
    /// Holds `hN/srv`, `bin/ssh` and `ssh_config`.
    pub dir: PathBuf,
    /// Their names, for the `ssh_config`.
    pub names: Vec<String>,
    /// What is between us and them.
    pub network: Arc<Network>,
    _sshds: Coprocess,
}

impl Fleet {
    /// Starts `n` hosts in an empty directory.
    pub fn start(ctx: &Context, dir: &Path, n: usize) -> Result<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].map(PathBuf::from).into_iter().find(|it| it.is_file());
        let Some(sshd) = ctx.program_on_path("sshd").or(sshd) else {
            return usage("cannot start hosts: there is no sshd").hint("apt-get install openssh-server").err();
        };
        let Some(ssh) = ctx.program_on_path("ssh") else {
            return usage("cannot reach hosts: there is no ssh").hint("apt-get install openssh-client").err();
        };
        let network = Arc::new(Network::default());
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "hosts"]).args([dir, &sshd, &ssh]);
        let ports = ports(n, &|port| network.proxy(port));
        let ports = ports.with_hint(
            Kind::Failed,
            || format!("cannot find ports on loopback for {n} hosts"),
            || "try with fewer: --hosts 2".into(),
        )?;
        command.args(ports.iter().flat_map(|(port, proxy)| [port.to_string(), proxy.to_string()]));
        let sshds = ctx.coprocess(&mut command, &format!("sshd # {n} of them"), ("", "up"), PATIENCE, true)?;
        let sshds = sshds.or_else(|said| {
            failed(format!("the hosts did not start: {}", said.to_string().trim()))
                .hint("as root sshd needs /run/sshd; `--hosts 1` shows whether one starts")
                .err()
        })?;
        let names = (0..n).map(|n| format!("h{n}")).collect();
        Ok(Self { dir: dir.to_owned(), names, network, _sshds: sshds })
    }

    /// CPU time so far of what ran on the hosts, in seconds. A connection counts once its sshd has ended, up to two
    /// seconds later. `None` where there is no `/proc`.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let listeners: Vec<u32> = self
            .names
            .iter()
            .map(|name| fs::read_to_string(self.dir.join(name).join("pid")).ok()?.trim().parse().ok())
            .collect::<Option<_>>()?;
        for _ in 0..100 {
            if !listeners.iter().any(|pid| has_children(*pid)) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        listeners.into_iter().map(cpu_seconds).sum()
    }

    /// The directory on a host that is this baseline's own.
    pub fn root(&self, host: &str, baseline: &str) -> PathBuf {
        self.dir.join(host).join("srv").join(baseline)
    }
}

/// Free ports, each with that of its proxy. The proxies are bound before any port is released: otherwise the kernel may
/// give one of those to a proxy.
fn ports(n: usize, proxy: &dyn Fn(u16) -> std::io::Result<u16>) -> std::io::Result<Vec<(u16, u16)>> {
    let listeners: Vec<_> = (0..n).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    let ports = listeners.iter().map(|listener| {
        let port = listener.local_addr()?.port();
        Ok((port, proxy(port)?))
    });
    ports.collect()
}

/// Ticks of the clock that `/proc` counts in: a hundred a second on every Linux.
const TICKS: f64 = 100.0;

fn has_children(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).is_ok_and(|children| !children.trim().is_empty())
}

/// The CPU time of a process and of its children that have ended: `utime`, `stime`, `cutime` and `cstime` of proc(5).
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 =
        fields.get(11..15)?.iter().map(|field| field.parse::<u64>()).sum::<std::result::Result<_, _>>().ok()?;
    Some(ticks as f64 / TICKS)
}
