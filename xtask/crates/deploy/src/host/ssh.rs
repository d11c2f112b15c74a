//! A host over ssh, by the system's `ssh` program, so that `ssh_config`, agent, `ProxyJump` and `known_hosts` apply.
//!
//! One connection per host, with a shell that stays open and runs short scripts, one after the other. Other commands
//! share the connection (`ssh_config(5)`, `ControlPath`). It ends with this process, even if it is killed, because the
//! shell reads a pipe that we hold open.
//!
//! ssh passes one string to the login shell of the host. That may be csh, and its profile may print, so the string is
//! always the same few words that every shell parses alike (see `frame`).

pub(crate) mod diagnose;

use crate::host::transport;
use crate::host::transport::{Incomplete, Request, Session, Transport, what};
use gangplank_model::error::{CliError, Result, failed, usage};
use gangplank_model::frame;
use gangplank_model::frame::Marker;
use gangplank_system::context::{Context, Input, Output};
use gangplank_system::machine;
use gangplank_system::process::{Coprocess, NotReady, ReplyFrame};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Host keys in the repository, in the format of `known_hosts`: CircleCI jobs start with none.
const KNOWN_HOSTS: &str = ".circleci/known_hosts";
/// The time limit of connecting: names, jump hosts, keys.
const CONNECT: Duration = Duration::from_secs(60);
/// No prompts, no terminal, no forwarding; a lost network is noticed after a minute. Everything else is left to the
/// user's `ssh_config`.
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

/// The address of a host: `ssh://[USER@]HOST[:PORT]/DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The login in the URL, if any.
    pub user: Option<String>,
    /// A host of `ssh_config` or DNS, or an IP address.
    pub host: String,
    /// The port in the URL, if any.
    pub port: Option<u16>,
    /// The directory of the target; absolute.
    pub root: String,
}

impl Address {
    /// Parses a URL without decoding: a space is a space.
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = |reason: &str| {
            usage(format!("target {url}: {reason}"))
                .hint("use ssh://USER@HOST/DIR, e.g. ssh://deploy@web1.example.com/srv/app")
        };
        let rest = url.strip_prefix("ssh://").ok_or_else(|| wrong("it does not start with ssh://"))?;
        let Some((authority, dir)) = rest.split_once('/') else { return wrong("it has no directory").err() };
        if dir.starts_with('~') {
            return Err(gangplank_model::project::no_tilde(&format!("target {url}")).into());
        }
        let root = format!("/{}", dir.trim_end_matches('/'));
        if root == "/" || root.split('/').any(|part| [".", ".."].contains(&part)) || root.contains(['\n', '\0']) {
            return wrong("its directory must be absolute, below `/`, and without `.` and `..`").err();
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
            Some(_) => return wrong("its port is not a number from 1 to 65535").err(),
        };
        // ssh parses a word that starts with a dash as an option.
        let word = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:%@+$".contains(&b))
        };
        if !word(host) || host.contains(['@', '+', '$']) {
            return wrong("its host is invalid").err();
        }
        if !user.is_none_or(|user| word(user) && !user.contains(':')) {
            return wrong("its user is invalid; a password is not supported").err();
        }
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port, root })
    }

    /// The arguments of `ssh`.
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
    /// The address.
    pub address: Address,
    connection: Mutex<Option<Connection>>,
    reached: AtomicBool,
    /// The error of an early connection, reported by the next command.
    refused: Mutex<Option<anyhow::Error>>,
}

/// An open connection; closed on drop.
struct Connection {
    /// The private directory of the socket.
    dir: PathBuf,
    /// The session of the connection itself. It has a lock of its own, so that the lock of the host is renewed while a
    /// script runs.
    shell: Arc<Mutex<Coprocess>>,
    /// The marker of its requests.
    marker: Marker,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A background process of a profile may hold the session open.
        self.shell.lock().unwrap_or_else(PoisonError::into_inner).stop();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Connection {
    fn socket(dir: &Path) -> PathBuf {
        dir.join("s")
    }
}

impl<'ctx> Ssh<'ctx> {
    /// A host without a connection.
    pub fn new(ctx: &'ctx Context, url: &str, address: Address) -> Self {
        Self {
            session: Session::new(ctx, url),
            address,
            connection: Mutex::default(),
            refused: Mutex::default(),
            reached: AtomicBool::new(false),
        }
    }

    /// The socket of the connection; opens it if needed.
    fn socket(&self, interruptible: bool) -> Result<PathBuf> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*connection {
            return Ok(Connection::socket(&open.dir));
        }
        if let Some(error) = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let dir = private_dir(self.session.ctx)?;
        let marker = Marker::random();
        let opened = self.open(&dir, &marker, interruptible);
        let shell = opened.inspect_err(|_| drop(fs::remove_dir_all(&dir)))?;
        let socket = Connection::socket(&dir);
        self.reached.store(true, Ordering::SeqCst);
        *connection = Some(Connection { dir, shell: Arc::new(Mutex::new(shell)), marker });
        Ok(socket)
    }

    /// Whether a connection was ever opened.
    pub(crate) fn was_reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }

    /// Opens the connection. The next command reports a failure.
    pub fn reach(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = self.socket(true).err();
    }

    /// The shell that stays open, and the marker of its requests.
    fn shell(&self) -> Result<(Arc<Mutex<Coprocess>>, Marker)> {
        self.socket(false)?;
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match connection.as_ref() {
            Some(open) => Ok((Arc::clone(&open.shell), open.marker.clone())),
            None => Err(diagnose::broken(&self.session.url, "connect", "").into()),
        }
    }

    /// Sends a script to the shell. Returns `None` if the shell ended before it had the whole script.
    fn request_to(&self, shell: &mut Coprocess, marker: &Marker, script: &Request) -> Option<Output> {
        let Request { what, process, marker: own, script, input } = *script;
        let request = frame::request(marker, own, process, script, input);
        let frame = ReplyFrame {
            has_begun: &|stdout| frame::has_begun(own, &String::from_utf8_lossy(stdout)),
            has_ended: &transport::growing(own, frame::is_whole),
            stderr_has_ended: &|stderr| frame::stderr_has_ended(own, stderr),
        };
        self.session.ctx.request(shell, &format!("ssh {} # {what}", self.address.host), &request, &frame)
    }

    fn open(&self, dir: &Path, marker: &Marker, interruptible: bool) -> Result<Coprocess> {
        let mut command = self.command(&Connection::socket(dir));
        command.args(["-o", "ControlMaster=yes", "-o", "ControlPersist=no"]).args(self.address.args());
        command.arg(frame::open_command(marker));
        let (begin, shown) = (marker.begin(), format!("ssh {}", self.address.host));
        let greeting = frame::greeting(marker);
        let opened =
            self.session.ctx.coprocess(&mut command, &shown, (&greeting, begin.trim()), CONNECT, interruptible)?;
        let opened = opened.map_err(|reason| {
            let url = &self.session.url;
            anyhow::Error::from(match reason {
                NotReady::Endless => transport::endless(url, "connect"),
                NotReady::Ended(Some(frame::EXIT_NO_SCRIPT), _) => transport::no_script(url, "connect"),
                NotReady::Stopped(_) if interruptible && self.session.ctx.interrupted() => {
                    failed(format!("{url}: stopped while connecting"))
                        .hint("run the same command again; nothing was changed there")
                }
                reason => diagnose::explain(url, &self.address, &reason.to_string()),
            })
        })?;
        for output in opened.so_far() {
            self.session.ignored(&frame::outside(marker, &output));
        }
        Ok(opened)
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

    /// An `ssh` command for one script, on the connection of this socket.
    fn on_connection(&self, socket: &Path, run: &str) -> Command {
        let mut command = self.command(socket);
        command.args(["-o", "ControlMaster=no"]).args(self.address.args());
        command.arg(run);
        command
    }

    /// Runs a script in parallel, if a connection is open. It neither delays others nor reports errors.
    pub(crate) fn exec_concurrent(&self, text: &str, limit: Duration) {
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

    fn request(&self, script: &Request) -> Result<Option<Output>> {
        // A connection may have ended while it was idle. Nothing was sent then, so a new one takes the request.
        for _ in 0..2 {
            let (shell, marker) = self.shell()?;
            let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(output) = self.request_to(&mut shell, &marker, script) {
                return Ok(Some(output));
            }
            drop(shell);
            self.disconnect();
        }
        Err(diagnose::broken(&self.session.url, script.what, "").into())
    }

    /// Makes the next command open a new connection.
    fn disconnect(&self) {
        drop(self.connection.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn diagnose(&self, script: &Incomplete) -> CliError {
        // If the connection broke before the first marker, the script may have started.
        if script.begun || (script.repeatable && script.stderr.is_empty()) {
            return diagnose::broken(&self.session.url, script.what, script.stderr);
        }
        diagnose::explain(&self.session.url, &self.address, script.stderr)
    }
}

/// The login for an address without one, from `ssh_config` or this machine.
pub(crate) fn configured_login(ctx: &Context, address: &Address) -> Result<String> {
    let mut command = Command::new(ctx.program_on_path("ssh").unwrap_or_else(|| "ssh".into()));
    command.arg("-G").args(address.args());
    let said = ctx.read(command)?;
    let login = said.lines().find_map(|line| line.strip_prefix("user "));
    match login {
        Some(login) => Ok(login.trim().to_owned()),
        None => failed(format!("`ssh -G {}` prints no user", address.host))
            .hint("add it to the target: ssh://USER@HOST/DIR")
            .err(),
    }
}

/// A new private directory with a path short enough for a socket.
fn private_dir(ctx: &Context) -> Result<PathBuf> {
    for base in [ctx.var("XDG_RUNTIME_DIR"), ctx.var("TMPDIR"), Some("/tmp")].into_iter().flatten() {
        // Debris of killed runs.
        machine::sweep_of(Path::new(base), "ssh");
        let dir = gangplank_bundle::release::scratch(Path::new(base), "ssh");
        // sun_path(7) has 108 bytes, and ssh appends some while it creates the socket.
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
