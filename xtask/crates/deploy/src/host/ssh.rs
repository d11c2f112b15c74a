//! A host over ssh: the system's own program, so that `ssh_config`, agent, `ProxyJump` and `known_hosts` all hold.
//!
//! One connection for each host: the first command opens it and the others share it (`ssh_config(5)`, `ControlPath`). It
//! ends with this process, however that ends, because its far end reads a pipe that we hold.
//!
//! ssh hands the login shell of the host one string. That may be csh, and its profile may talk, so the string is always
//! the same few words that every shell reads alike (see `frame`).

pub mod diagnose;

use crate::host::transport;
use crate::host::transport::{Incomplete, Session, Transport, what};
use gangplank_model::error::{CliError, Result, failed, usage};
use gangplank_model::frame;
use gangplank_model::frame::Marker;
use gangplank_system::context::{Context, Input};
use gangplank_system::machine;
use gangplank_system::process::Background;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A file of the repository with keys of hosts, one a line as in `known_hosts`: jobs of CircleCI start without any.
const KNOWN_HOSTS: &str = ".circleci/known_hosts";
/// How long a connection may take: names, jump hosts, keys.
const CONNECT: Duration = Duration::from_secs(60);
/// No question, no terminal, no forwarding; a network that is gone is noticed after a minute. All else is for the
/// `ssh_config` of whoever runs this.
const OPTIONS: &[&str] = &[
    "BatchMode=yes",
    "ClearAllForwardings=yes",
    "ConnectTimeout=15",
    "ForwardAgent=no",
    "LogLevel=ERROR",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ServerAliveCountMax=4",
    "ServerAliveInterval=15",
];

/// Where a host is: `ssh://[USER@]HOST[:PORT]/DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The login, when the URL has one.
    pub user: Option<String>,
    /// A name of `ssh_config`, of DNS, or an address.
    pub host: String,
    /// The port, when the URL has one.
    pub port: Option<u16>,
    /// The directory of the target; absolute.
    pub root: String,
}

impl Address {
    /// Reads a URL. Nothing in it is decoded: a space is a space.
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = |reason: &str| {
            usage(format!("target {url}: {reason}"))
                .hint("use ssh://USER@HOST/DIR, e.g. ssh://deploy@web1.example.com/srv/app")
        };
        let rest = url.strip_prefix("ssh://").ok_or_else(|| wrong("it does not begin with ssh://"))?;
        let Some((authority, dir)) = rest.split_once('/') else { return wrong("it names no directory").err() };
        if dir.starts_with('~') {
            return Err(gangplank_model::project::no_tilde(&format!("target {url}")).into());
        }
        let root = format!("/{}", dir.trim_end_matches('/'));
        if root == "/" || root.split('/').any(|part| [".", ".."].contains(&part)) || root.contains(['\n', '\0']) {
            return wrong("its directory has to be absolute, below `/`, and without `.` and `..`").err();
        }
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (host, port) = match (host.strip_prefix('[').and_then(|rest| rest.split_once(']')), host.split_once(':')) {
            (Some((host, "")), _) => (host, None),
            (Some((host, port)), _) => (host, Some(port.strip_prefix(':').unwrap_or(port))),
            (None, Some((host, port))) => (host, Some(port)),
            (None, None) => (host, None),
        };
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port @ 1..)) => Some(port),
            Some(_) => return wrong("its port is no number from 1 to 65535").err(),
        };
        // ssh takes a word that begins with a dash for an option.
        let word = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:%@+$".contains(&b))
        };
        if !word(host) || host.contains(['@', '+', '$']) {
            return wrong("its host is no name").err();
        }
        if !user.is_none_or(|user| word(user) && !user.contains(':')) {
            return wrong("its user is no name; a password has no place in it").err();
        }
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port, root })
    }

    /// As `ssh` is told.
    fn args(&self) -> Vec<String> {
        let mut args = Vec::new();
        if let Some(user) = &self.user {
            args.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            args.extend(["-p".to_owned(), port.to_string()]);
        }
        args.extend(["--".to_owned(), self.host.clone()]);
        args
    }
}

/// A host over ssh.
pub struct Ssh<'ctx> {
    session: Session<'ctx>,
    /// Where it is.
    pub address: Address,
    connection: Mutex<Option<Connection>>,
    reached: AtomicBool,
    /// Why it could not be opened ahead of time, for whoever asks next.
    refused: Mutex<Option<anyhow::Error>>,
}

/// An open connection; closed when dropped.
struct Connection {
    /// Holds the socket, for nobody but us.
    dir: PathBuf,
    master: Background,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // What a profile left in the background may hold the session open.
        self.master.stop();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Connection {
    fn socket(dir: &Path) -> PathBuf {
        dir.join("s")
    }
}

impl<'ctx> Ssh<'ctx> {
    /// Nothing is said yet.
    pub fn new(ctx: &'ctx Context, url: &str, address: Address) -> Self {
        Self {
            session: Session::new(ctx, url),
            address,
            connection: Mutex::default(),
            refused: Mutex::default(),
            reached: AtomicBool::new(false),
        }
    }

    /// The socket of the connection, which is opened if it is not.
    fn socket(&self, interruptible: bool) -> Result<PathBuf> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*connection {
            return Ok(Connection::socket(&open.dir));
        }
        if let Some(error) = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let dir = private_dir(self.session.ctx)?;
        let opened = self.open(&dir, interruptible);
        let master = opened.inspect_err(|_| drop(fs::remove_dir_all(&dir)))?;
        let socket = Connection::socket(&dir);
        self.reached.store(true, Ordering::SeqCst);
        *connection = Some(Connection { dir, master });
        Ok(socket)
    }

    /// Whether there ever was a connection.
    pub fn was_reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }

    /// Opens the connection. Whoever speaks next says why it could not be opened.
    pub fn reach(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = self.socket(true).err();
    }

    fn open(&self, dir: &Path, interruptible: bool) -> Result<Background> {
        let mut command = self.command(&Connection::socket(dir));
        command.args(["-o", "ControlMaster=yes", "-o", "ControlPersist=no"]).args(self.address.args());
        let marker = Marker::random();
        let begin = marker.begin();
        command.arg(format!("/bin/sh -c 'echo {}; exec cat > /dev/null'", begin.trim()));
        let shown = format!("ssh {}", self.address.host);
        let said = self.session.ctx.background(&mut command, &shown, begin.trim(), CONNECT, interruptible)?;
        said.map_err(|said| {
            if interruptible && self.session.ctx.interrupted() {
                return failed(format!("{}: stopped while connecting", self.session.url))
                    .hint("nothing was changed there")
                    .into();
            }
            diagnose::explain(&self.session.url, &self.address, &said).into()
        })
    }

    fn command(&self, socket: &Path) -> Command {
        let mut command = Command::new(self.session.ctx.program_on_path("ssh").unwrap_or_else(|| "ssh".into()));
        for option in OPTIONS {
            command.args(["-o", option]);
        }
        let known = self.session.ctx.home.join(KNOWN_HOSTS);
        let is_there = known.is_file();
        if is_there || self.session.ctx.in_ci() {
            command.args(["-o", "StrictHostKeyChecking=yes"]);
        }
        if is_there {
            command.args(["-o", &format!("GlobalKnownHostsFile=\"{}\" /etc/ssh/ssh_known_hosts", known.display())]);
        }
        command.arg("-S").arg(socket);
        command
    }

    /// `ssh` for one script on the connection of this socket.
    fn on_connection(&self, socket: &Path, run: &str) -> Command {
        let mut command = self.command(socket);
        command.args(["-o", "ControlMaster=no"]).args(self.address.args());
        command.arg(run);
        command
    }

    /// Runs a script beside another one, if there is a connection. It delays nothing, and a failure changes nothing.
    pub fn exec_concurrent(&self, text: &str, limit: Duration) {
        let socket = match self.connection.try_lock() {
            Ok(connection) => connection.as_ref().map(|open| Connection::socket(&open.dir)),
            Err(_) => None,
        };
        let Some(socket) = socket else { return };
        let (what, marker) = (what(text), Marker::random());
        let command =
            self.on_connection(&socket, &transport::command(what, &marker, None, Some(limit), self.environment()));
        let shown = format!("ssh {} # {what}", self.address.host);
        let line = frame::script_line(&marker, text);
        let _ = self.session.ctx.answer_as(&shown, command, Input::Bytes(line.as_bytes()), Some(limit), false);
    }
}

impl Transport for Ssh<'_> {
    fn session(&self) -> &Session<'_> {
        &self.session
    }

    fn program(&self, what: &str, command: &str, interruptible: bool) -> Result<(Command, String)> {
        let command = self.on_connection(&self.socket(interruptible)?, command);
        Ok((command, format!("ssh {} # {what}", self.address.host)))
    }

    /// The next command opens another connection.
    fn disconnect(&self) {
        drop(self.connection.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn diagnose(&self, script: &Incomplete) -> CliError {
        // Where the connection broke before the first marker arrived, the script may or may not have begun.
        if script.begun || (script.repeatable && script.stderr.is_empty()) {
            return diagnose::broken(&self.session.url, script.what, script.stderr);
        }
        diagnose::explain(&self.session.url, &self.address, script.stderr)
    }
}

/// The login of an address that names none: that of `ssh_config`, or of this machine.
pub fn configured_login(ctx: &Context, address: &Address) -> Result<String> {
    let mut command = Command::new(ctx.program_on_path("ssh").unwrap_or_else(|| "ssh".into()));
    command.arg("-G").args(address.args());
    let said = ctx.read(command)?;
    let login = said.lines().find_map(|line| line.strip_prefix("user "));
    match login {
        Some(login) => Ok(login.trim().to_owned()),
        None => failed(format!("`ssh -G {}` names no user", address.host))
            .hint("name it in the target: ssh://USER@HOST/DIR")
            .err(),
    }
}

/// A new directory that only we can enter, with a path so short that a socket fits in it.
fn private_dir(ctx: &Context) -> Result<PathBuf> {
    for base in [ctx.var("XDG_RUNTIME_DIR"), ctx.var("TMPDIR"), Some("/tmp")].into_iter().flatten() {
        // What runs that were killed have left.
        machine::sweep_of(Path::new(base), "ssh");
        let dir = gangplank_bundle::release::scratch(Path::new(base), "ssh");
        // sun_path(7) has 108 bytes, and ssh adds some of its own while it makes the socket.
        if dir.as_os_str().len() <= 70 && fs::DirBuilder::new().mode(0o700).create(&dir).is_ok() {
            return Ok(dir);
        }
    }
    failed("cannot make a directory for the connection, neither in TMPDIR nor in /tmp")
        .hint("check its permissions, and that it has room")
        .err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::Kind;

    #[test]
    fn addresses() {
        let parse =
            |url: &str| Address::parse(url).map(|it| format!("{:?} {} {:?} {}", it.user, it.host, it.port, it.root));
        for (url, want) in [
            ("ssh://web1/srv/app", "None web1 None /srv/app"),
            (
                "ssh://deploy@web1.example.com:2222/srv/my app/",
                "Some(\"deploy\") web1.example.com Some(2222) /srv/my app",
            ),
            ("ssh://[::1]:22/srv/a", "None ::1 Some(22) /srv/a"),
            ("ssh://ci+bot@corp.example@web1/srv/a", "Some(\"ci+bot@corp.example\") web1 None /srv/a"),
            ("ssh://svc$@web1/srv/a", "Some(\"svc$\") web1 None /srv/a"),
            ("ssh://u@[fe80::1%eth0]/it's", "Some(\"u\") fe80::1%eth0 None /it's"),
        ] {
            assert_eq!(parse(url).unwrap(), want, "{url}");
        }
        for url in [
            "ssh://web1",
            "ssh://web1/",
            "ssh:///srv",
            "ssh://-oProxyCommand=x/srv",
            "ssh://u:secret@web1/srv",
            "ssh://@web1/s",
            "ssh://web1:0/srv",
            "ssh://web1:x/srv",
            "ssh://web1:70000/srv",
            "ssh://web1/srv/../etc",
            "ssh://web1/./.",
            "ssh://a b/srv",
            "ssh://web1/~/app",
            "ssh://web1/~deploy/app",
            "ssh://u@we$b1/srv",
            "ssh://u;id@web1/srv",
            "ssh:web1/srv",
        ] {
            assert_eq!(gangplank_model::error::kind_of(&parse(url).unwrap_err()), Kind::Usage, "{url}");
        }
    }
}
