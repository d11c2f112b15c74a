//! A real S3 server on this machine, if Debian's `radosgw`, `ceph-mon` and `ceph-osd` are installed. It listens only on
//! loopback, stores objects in a directory, and ends with the process that started it, even if that is killed.

use gangplank_model::error::{CliError, Kind, Result, WithHint};
use gangplank_system::context::Context;
use gangplank_system::http::Client;
use gangplank_system::process::Background;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SCRIPT: &str = include_str!("ceph.sh");
const PROGRAMS: &[&str] = &["ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin"];
/// The first start creates file systems and pools, which takes 20 s on two busy cores.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running Ceph.
pub struct Ceph {
    port: u16,
    dir: PathBuf,
    server: Background,
}

impl Ceph {
    /// Whether its programs are on PATH.
    pub fn is_installed(ctx: &Context) -> bool {
        PROGRAMS.iter().all(|program| ctx.program_on_path(program).is_some())
    }

    /// Starts it on the contents of `dir`, creating them if missing, and waits until it answers.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, "")
    }

    /// Like [`Self::start`], with additional lines in the configuration of its gateway.
    pub fn start_with(dir: &Path, more: &str) -> Result<Self> {
        let what = || format!("cannot make {}", dir.display());
        fs::create_dir_all(dir).with_hint(Kind::Failed, what, || "check its permissions".into())?;
        let ports = ports(dir).with_hint(Kind::Failed, what, || "check its permissions".into())?;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "ceph"]).arg(dir).args(ports.map(|port| port.to_string())).arg(more);
        let server = Background::start(&mut command).with_hint(
            Kind::Failed,
            || "cannot run `sh`".into(),
            || "install a POSIX shell".into(),
        )?;
        let mut ceph = Self { port: ports[2], dir: dir.to_owned(), server };
        ceph.wait()?;
        Ok(ceph)
    }

    fn wait(&mut self) -> Result<()> {
        let (client, started) = (Client::new()?, Instant::now());
        let is_up = |it: &Self| it.dir.join("user").exists() && client.get(&it.url(), Duration::from_secs(2)).is_ok();
        while !is_up(self) {
            if started.elapsed() > PATIENCE || self.server.has_ended() {
                return CliError::new(Kind::Failed, format!("the Ceph in {} did not start", self.dir.display()))
                    .hint(format!("check {0}/log, or start anew with `rm -r {0}`", self.dir.display()))
                    .err();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The variables of a client. The key is not secret: the server is only local.
    pub fn vars(&self) -> [(String, String); 3] {
        [
            ("S3_ENDPOINT".into(), self.url()),
            ("AWS_ACCESS_KEY_ID".into(), "localkey".into()),
            ("AWS_SECRET_ACCESS_KEY".into(), "localsecret".into()),
        ]
    }
}

/// Three free ports, the same as last time, because the monitor stores them in its map.
fn ports(dir: &Path) -> std::io::Result<[u16; 3]> {
    let file = dir.join("ports");
    let kept: Vec<u16> =
        fs::read_to_string(&file).unwrap_or_default().split_whitespace().filter_map(|port| port.parse().ok()).collect();
    if let Ok(ports) = kept.try_into() {
        return Ok(ports);
    }
    // All are bound before any is released, so that they differ.
    let free = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(free) {
        *port = listener?.local_addr()?.port();
    }
    fs::write(file, ports.map(|port| port.to_string()).join(" "))?;
    Ok(ports)
}
