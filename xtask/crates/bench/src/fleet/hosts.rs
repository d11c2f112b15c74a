//! The hosts of a bench: private sshds on this machine, which end with the bench, even if it is killed.

use crate::fleet::proxy::Network;
use gangplank_model::error::{Kind, Result, WithHint, failed, usage};
use gangplank_system::context::Context;
use gangplank_system::process::Background;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
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
    _sshds: Background,
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
        let ports = ports(n).and_then(|ports| ports.into_iter().map(|port| Ok((port, network.proxy(port)?))).collect());
        let ports: Vec<(u16, u16)> = ports.with_hint(
            Kind::Failed,
            || format!("cannot find ports on loopback for {n} hosts"),
            || "try with fewer: --hosts 2".into(),
        )?;
        command.args(ports.iter().flat_map(|(port, proxy)| [port.to_string(), proxy.to_string()]));
        let sshds = ctx.background(&mut command, &format!("sshd # {n} of them"), "up", PATIENCE, true)?;
        let sshds = sshds.or_else(|said| {
            failed(format!("the hosts did not start: {}", said.trim()))
                .hint("as root sshd needs /run/sshd; `--hosts 1` shows whether one starts")
                .err()
        })?;
        let names = (0..n).map(|n| format!("h{n}")).collect();
        Ok(Self { dir: dir.to_owned(), names, network, _sshds: sshds })
    }

    /// The directory on a host that is this baseline's own.
    pub fn root(&self, host: &str, baseline: &str) -> PathBuf {
        self.dir.join(host).join("srv").join(baseline)
    }
}

/// Free ports. All are bound before any is released, so that they differ.
fn ports(n: usize) -> std::io::Result<Vec<u16>> {
    let listeners: Vec<_> = (0..n).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
