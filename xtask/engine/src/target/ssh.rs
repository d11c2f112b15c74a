//! A host over ssh: the system's own program, so that `ssh_config`, agent, `ProxyJump` and `known_hosts` all hold.
//!
//! One connection for each host: the first command opens it and the others share it (`ssh_config(5)`, `ControlPath`). It
//! ends with this process, however that ends, because its far end reads a pipe that we hold.
//!
//! ssh hands the login shell of the host one string. That may be csh, and its profile may talk, so the string is always
//! the same few words that every shell reads alike. They run a script that comes as the first line on stdin, after a
//! line on stdout that tells its words from those of the profile.

pub mod trouble;

use crate::cx::{Answer, Cx, Input};
use crate::error::{Result, failed, usage};
use crate::process::Background;
use crate::target::script::quote;
use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A file of the repository with keys of hosts, one a line as in `known_hosts`: jobs of CircleCI start without any.
const KNOWN_HOSTS: &str = ".circleci/known_hosts";
/// What a host says before a script says anything.
const READY: &str = "gangplank: ready";
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
        let wrong = |why: &str| {
            usage(format!("target {url}: {why}"))
                .hint("use ssh://USER@HOST/DIR, e.g. ssh://deploy@web1.example.com/srv/app")
        };
        let rest = url.strip_prefix("ssh://").ok_or_else(|| wrong("it does not begin with ssh://"))?;
        let Some((authority, dir)) = rest.split_once('/') else { return wrong("it names no directory").err() };
        let root = format!("/{}", dir.trim_end_matches('/'));
        if root == "/" || root.split('/').any(|part| part == "..") || root.contains(['\n', '\0']) {
            return wrong("its directory has to be absolute, below `/`, and without `..`").err();
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
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:%".contains(&b))
        };
        if !word(host) {
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
pub struct Ssh<'cx> {
    cx: &'cx Cx,
    url: String,
    /// Where it is.
    pub address: Address,
    connection: Mutex<Option<Connection>>,
}

/// An open connection; closed when dropped.
struct Connection {
    /// Holds the socket, for nobody but us.
    dir: PathBuf,
    _master: Background,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Connection {
    fn socket(dir: &Path) -> PathBuf {
        dir.join("s")
    }
}

impl<'cx> Ssh<'cx> {
    /// Nothing is said yet.
    pub fn new(cx: &'cx Cx, url: &str, address: Address) -> Self {
        Self { cx, url: url.to_owned(), address, connection: Mutex::default() }
    }

    /// Opens the connection, if it is not open.
    pub fn connect(&self) -> Result<()> {
        self.socket().map(drop)
    }

    fn socket(&self) -> Result<PathBuf> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*connection {
            return Ok(Connection::socket(&open.dir));
        }
        let dir = private_dir(self.cx)?;
        let opened = self.open(&dir);
        let master = opened.inspect_err(|_| drop(fs::remove_dir_all(&dir)))?;
        let socket = Connection::socket(&dir);
        *connection = Some(Connection { dir, _master: master });
        Ok(socket)
    }

    fn open(&self, dir: &Path) -> Result<Background> {
        let mut command = self.command(&Connection::socket(dir));
        command.args(["-o", "ControlMaster=yes", "-o", "ControlPersist=no"]).args(self.address.args());
        command.arg(format!("sh -c 'echo \"{READY}\"; exec cat > /dev/null'"));
        let said = self.cx.background(&mut command, &format!("ssh {}", self.address.host), READY, CONNECT)?;
        said.map_err(|said| trouble::explain(&self.url, &self.address, &said).into())
    }

    fn command(&self, socket: &Path) -> Command {
        let mut command = Command::new(self.cx.program_on_path("ssh").unwrap_or_else(|| "ssh".into()));
        for option in OPTIONS {
            command.args(["-o", option]);
        }
        let known = self.cx.home.join(KNOWN_HOSTS);
        if known.is_file() {
            command.args(["-o", &format!("GlobalKnownHostsFile=\"{}\" /etc/ssh/ssh_known_hosts", known.display())]);
        }
        command.arg("-S").arg(socket);
        command
    }

    /// Says a script to the host. `mark` names the lock under which it is said, for whoever looks at the processes there.
    pub fn say(
        &self,
        text: &str,
        mark: Option<&str>,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Answer> {
        let what = text.strip_prefix("# ").and_then(|text| text.lines().next()).unwrap_or("a script");
        let mut command = self.command(&self.socket()?);
        command.args(["-o", "ControlMaster=no"]).args(self.address.args());
        let name = [what, mark.unwrap_or_default()].join(" ");
        command.arg(format!("{BOOTSTRAP} {}", quote(&plain(name.trim()))));
        let line = one_line(text);
        let (bytes, file) = match input {
            Input::Empty => (line, None),
            Input::Bytes(bytes) => ([&line, bytes].concat(), None),
            Input::BytesThenFile(bytes, file) => ([&line, bytes].concat(), Some(file)),
        };
        let input = match file {
            Some(file) => Input::BytesThenFile(&bytes, file),
            None => Input::Bytes(&bytes),
        };
        let shown = format!("ssh {} # {what}", self.address.host);
        let mut answer = self.cx.answer_as(&shown, command, input, limit, interruptible)?;
        match answer.stdout.split_once(&format!("{READY}\n")) {
            Some((_, said)) => answer.stdout = said.to_owned(),
            // Mostly the script never began. Where the connection broke before its first word came back, nobody knows.
            None => {
                *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
                if self.cx.interrupted() && interruptible {
                    return failed(format!("{}: stopped", self.url)).hint("run the same command again").err();
                }
                return Err(match answer.stderr.trim() {
                    "" => trouble::broken(&self.url, what, ""),
                    said => trouble::explain(&self.url, &self.address, said),
                }
                .into());
            }
        }
        if answer.code == Some(255) {
            // ssh's own: the connection broke while the script ran, and how far it came nobody knows.
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Err(trouble::broken(&self.url, what, &answer.stderr).into());
        }
        Ok(answer)
    }
}

/// Reads a line, and runs what it says with what follows it. `read` takes no byte more than the line, in every shell.
const BOOTSTRAP: &str =
    r#"sh -c 'echo "gangplank: ready"; IFS= read -r script; script=$(printf %b "$script"); eval "$script"'"#;

/// A text as one line, which `printf %b` turns back: POSIX knows `\\` and `\n` there.
fn one_line(text: &str) -> Vec<u8> {
    let mut line = text.replace('\\', "\\\\").replace('\n', "\\n").into_bytes();
    line.push(b'\n');
    line
}

/// What a process is called on the host, in characters that mean nothing to any shell.
fn plain(text: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " -_.:/[]".contains(c);
    if text.chars().all(fits) { text.into() } else { text.chars().filter(|c| fits(*c)).collect::<String>().into() }
}

/// A new directory that only we can enter, with a path so short that a socket fits in it.
fn private_dir(cx: &Cx) -> Result<PathBuf> {
    for base in [cx.var("XDG_RUNTIME_DIR"), cx.var("TMPDIR"), Some("/tmp")].into_iter().flatten() {
        let dir = crate::release::scratch(Path::new(base), "ssh");
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
    use crate::error::Kind;

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
            "ssh://a b/srv",
            "ssh:web1/srv",
        ] {
            assert_eq!(crate::error::kind_of(&parse(url).unwrap_err()), Kind::Usage, "{url}");
        }
    }

    #[test]
    fn a_script_is_one_line_on_its_way() {
        let script = "printf '%s\\n' \"a\\\\b\"\nexit 3\n";
        assert_eq!(one_line(script), b"printf '%s\\\\n' \"a\\\\\\\\b\"\\nexit 3\\n\n");
        assert_eq!(plain("install `x` $y 'z' [lock a-1]"), "install x y z [lock a-1]");
    }
}
