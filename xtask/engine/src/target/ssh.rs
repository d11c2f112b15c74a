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
use crate::event::Stream;
use crate::machine;
use crate::process::Background;
use crate::target::script::attend::attended;
use crate::target::script::{self, quote};
use crate::target::sequence::one_line;
use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A file of the repository with keys of hosts, one a line as in `known_hosts`: jobs of CircleCI start without any.
const KNOWN_HOSTS: &str = ".circleci/known_hosts";
/// What a host says before a script says anything.
pub(super) const READY: &str = "gangplank: ready";
/// What it says after it, with the exit code.
const DONE: &str = "gangplank: done";
/// An input of text up to so many bytes goes as a line.
const LINE_MAX: usize = 1 << 16;
/// How long a connection may take: names, jump hosts, keys.
const CONNECT: Duration = Duration::from_secs(60);
/// How long is waited for what a program has left behind, once it has come to its end.
pub(super) const STRAGGLERS: Duration = Duration::from_millis(500);
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
    reached: AtomicBool,
    /// Why it could not be opened ahead of time, for whoever asks next.
    refused: Mutex<Option<anyhow::Error>>,
    /// Whether the last command may still run there, because the connection broke or we went away.
    unsettled: AtomicBool,
}

/// An open connection; closed when dropped.
struct Connection {
    /// Holds the socket, for nobody but us.
    dir: PathBuf,
    master: Background,
    /// Whether it is of no use any more: then nobody waits for what it still carries.
    broken: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.broken {
            self.master.stop();
        }
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
        Self {
            cx,
            url: url.to_owned(),
            address,
            connection: Mutex::default(),
            refused: Mutex::default(),
            reached: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
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
        let dir = private_dir(self.cx)?;
        let opened = self.open(&dir, interruptible);
        let master = opened.inspect_err(|_| drop(fs::remove_dir_all(&dir)))?;
        let socket = Connection::socket(&dir);
        self.reached.store(true, Ordering::SeqCst);
        *connection = Some(Connection { dir, master, broken: false });
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
        command.arg(format!("sh -c 'echo \"{READY}\"; exec cat > /dev/null'"));
        let shown = format!("ssh {}", self.address.host);
        let said = self.cx.background(&mut command, &shown, READY, CONNECT, interruptible)?;
        said.map_err(|said| {
            if interruptible && self.cx.interrupted() {
                return failed(format!("{}: stopped while connecting", self.url))
                    .hint("nothing was changed there")
                    .into();
            }
            trouble::explain(&self.url, &self.address, &said).into()
        })
    }

    /// Gives up the connection: the next command opens another, and first waits for the end of what this one carried.
    fn give_up(&self) {
        self.unsettled.store(true, Ordering::SeqCst);
        if let Some(mut connection) = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take() {
            connection.broken = true;
        }
    }

    fn command(&self, socket: &Path) -> Command {
        let mut command = Command::new(self.cx.program_on_path("ssh").unwrap_or_else(|| "ssh".into()));
        for option in OPTIONS {
            command.args(["-o", option]);
        }
        let known = self.cx.home.join(KNOWN_HOSTS);
        let is_there = known.is_file();
        if is_there || self.cx.in_ci() {
            command.args(["-o", "StrictHostKeyChecking=yes"]);
        }
        if is_there {
            command.args(["-o", &format!("GlobalKnownHostsFile=\"{}\" /etc/ssh/ssh_known_hosts", known.display())]);
        }
        command.arg("-S").arg(socket);
        command
    }

    /// `ssh` for one script on the connection of this socket.
    fn session(&self, socket: &Path, what: &str, token: Option<&str>, limit: Option<Duration>) -> Command {
        let mut command = self.command(socket);
        command.args(["-o", "ControlMaster=no"]).args(self.address.args());
        let name = [what, &token.map(machine::mark).unwrap_or_default()].join(" ");
        command.arg(format!("{} {}", bootstrap(limit), quote(&plain(name.trim()))));
        command
    }

    /// Says a script beside what is being said, if there is a connection that is free for it. Whatever becomes of it,
    /// nobody is held up, and the connection stays.
    pub fn say_aside(&self, text: &str, limit: Duration) {
        let socket = match self.connection.try_lock() {
            Ok(connection) => connection.as_ref().map(|open| Connection::socket(&open.dir)),
            Err(_) => None,
        };
        let Some(socket) = socket else { return };
        let what = what(text);
        let command = self.session(&socket, what, None, Some(limit));
        let shown = format!("ssh {} # {what}", self.address.host);
        let _ = self.cx.answer_as(&shown, command, Input::Bytes(one_line(text).as_bytes()), Some(limit), false);
    }

    /// Says a script whose lines are heard as they come, and gives its exit code; `None` when `stop` ended it.
    pub fn attend(
        &self,
        text: &str,
        input: &str,
        heard: &mut dyn FnMut(Stream, String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<i32>> {
        let what = what(text);
        let command = self.session(&self.socket(true)?, what, None, None);
        let bytes = (one_line(&attended(text)) + &one_line(input)).into_bytes();
        let talk = RefCell::new(Talk::default());
        let left = || stop() || talk.borrow().ended.is_some_and(|(_, at)| at.elapsed() > STRAGGLERS);
        let shown = format!("ssh {} # {what}", self.address.host);
        let mut hear = |stream, line| {
            let lines = talk.borrow_mut().hear(stream, line);
            for line in lines {
                heard(stream, line);
            }
        };
        let (_, stopped) = self.cx.stream(&shown, command, &bytes, &mut hear, &left)?;
        let talk = talk.into_inner();
        if let Some((code, _)) = talk.ended {
            return Ok(Some(code));
        }
        self.give_up();
        if stopped {
            return Ok(None);
        }
        Err(if talk.begun {
            trouble::broken(&self.url, what, "")
        } else {
            trouble::explain(&self.url, &self.address, &talk.before)
        }
        .into())
    }

    /// Says a script to the host. `token` is that of the lock under which it is said, for whoever looks at the processes
    /// there.
    pub fn say(
        &self,
        text: &str,
        token: Option<&str>,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Answer> {
        if let Some(token) = token
            && self.unsettled.swap(false, Ordering::SeqCst)
        {
            let text = format!("# wait for the last command\n{}", script::settle(token));
            let settled = self.say_now(&text, None, Input::Empty, None, false);
            if !settled.as_ref().is_ok_and(Answer::ok) {
                self.unsettled.store(true, Ordering::SeqCst);
                let why = settled.map_or_else(|error| format!("{error:#}"), |answer| answer.stderr.trim().to_owned());
                return failed(format!("{}: {why}", self.url))
                    .hint("look at the processes of the host: `ps` shows the lock under which each script runs")
                    .err();
            }
        }
        self.say_now(text, token, input, limit, interruptible)
    }

    fn say_now(
        &self,
        text: &str,
        token: Option<&str>,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Answer> {
        let what = what(text);
        let command = self.session(&self.socket(interruptible)?, what, token, limit);
        let (bytes, file) = sent(text, input);
        let input = match file {
            Some(file) => Input::BytesThenFile(&bytes, file),
            None => Input::Bytes(&bytes),
        };
        let shown = format!("ssh {} # {what}", self.address.host);
        let answer = self.cx.answer_as(&shown, command, input, limit, interruptible)?;
        if let Some(done) = heard(&answer) {
            return Ok(done);
        }
        self.give_up();
        if answer.cut {
            // We went away; what it does there ends by itself, and is waited for before anything else is said.
            let after = |text: &str| text.split_once(&format!("{READY}\n")).map_or(text, |(_, said)| said).to_owned();
            return Ok(Answer { stdout: after(&answer.stdout), stderr: after(&answer.stderr), ..answer });
        }
        // Where the connection broke before its first word came back, nobody knows whether the script began.
        Err(match answer.stderr.trim() {
            said if said.is_empty() || answer.stdout.contains(READY) || said.contains(READY) => {
                trouble::broken(&self.url, what, said)
            }
            said => trouble::explain(&self.url, &self.address, said),
        }
        .into())
    }
}

/// What a script is called: its first line.
pub(super) fn what(text: &str) -> &str {
    text.strip_prefix("# ").and_then(|text| text.lines().next()).unwrap_or("run a script")
}

/// What was heard of a script so far.
#[derive(Default)]
pub(super) struct Talk {
    /// Whether it has begun.
    begun: bool,
    /// Whether all that is complained is its own by now, and not of a profile.
    complains: bool,
    /// What was complained before it began.
    pub(super) before: String,
    /// An empty line that it may have printed, or that comes before its last word.
    empty: bool,
    /// Its exit code, and when it ended.
    pub(super) ended: Option<(i32, Instant)>,
}

impl Talk {
    /// Takes a line, and gives those that the script wrote.
    pub(super) fn hear(&mut self, stream: Stream, line: String) -> Vec<String> {
        match stream {
            Stream::Stderr if self.complains => vec![line],
            Stream::Stderr => {
                self.complains = line == READY;
                self.before += &(line + "\n");
                vec![]
            }
            Stream::Stdout if !self.begun => {
                self.begun = line == READY;
                vec![]
            }
            Stream::Stdout if self.ended.is_some() => vec![],
            Stream::Stdout => {
                let code = line.strip_prefix(DONE).and_then(|code| code.trim().parse().ok());
                if let Some(code) = code {
                    self.ended = Some((code, Instant::now()));
                    return vec![];
                }
                let before = std::mem::replace(&mut self.empty, line.is_empty());
                before.then(String::new).into_iter().chain((!line.is_empty()).then_some(line)).collect()
            }
        }
    }
}

/// Reads a line and runs what it says with what follows it; then says how that ended. A line that was cut is not run:
/// `read` fails on it, and takes no byte more than a line, in every shell. With a limit the host ends the script itself,
/// because it does not hear of it when we go away.
pub(super) fn bootstrap(limit: Option<Duration>) -> String {
    let run = match limit {
        None => "(eval \"$script\")".to_owned(),
        Some(limit) => format!(
            "if command -v timeout > /dev/null 2>&1; then timeout -k 2 {} sh -c \"$script\" \"$0\"; else (eval \"$script\"); fi",
            limit.as_secs() + 1
        ),
    };
    format!(
        "sh -c 'echo \"{READY}\"; echo \"{READY}\" >&2; IFS= read -r script || exit 255; script=$(printf %b \"$script\"); {run}; printf \"\\n%s %s\\n\" \"{DONE}\" \"$?\"'"
    )
}

/// What goes over stdin: the script, and its input. An input of text goes as a line too, so that one that was cut is
/// never taken for whole; what is not text is checked by its digests.
pub(super) fn sent(script: &str, input: Input<'_>) -> (Vec<u8>, Option<File>) {
    match input {
        Input::Empty => (one_line(script).into_bytes(), None),
        Input::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if text.len() <= LINE_MAX && !text.contains('\0') => {
                let script = format!("IFS= read -r input || exit 255\nprintf %b \"$input\" | (\n{script}\n)");
                ((one_line(&script) + &one_line(text)).into_bytes(), None)
            }
            _ => ([one_line(script).as_bytes(), bytes].concat(), None),
        },
        Input::BytesThenFile(bytes, file) => ([one_line(script).as_bytes(), bytes].concat(), Some(file)),
    }
}

/// What a script said and how it ended, without the words of profiles and of ssh before it; `None` when it did not come to
/// its end.
pub(super) fn heard(answer: &Answer) -> Option<Answer> {
    let (_, said) = answer.stdout.split_once(&format!("{READY}\n"))?;
    let (said, code) = said.rsplit_once(&format!("\n{DONE} "))?;
    let complained = answer.stderr.split_once(&format!("{READY}\n")).map_or(answer.stderr.as_str(), |(_, said)| said);
    let code = code.trim().parse().ok()?;
    Some(Answer { code: Some(code), stdout: said.to_owned(), stderr: complained.to_owned(), cut: false })
}

/// What a process is called on the host, in characters that mean nothing to any shell.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " -_.:/[]".contains(c);
    if text.chars().all(fits) { text.into() } else { text.chars().filter(|c| fits(*c)).collect::<String>().into() }
}

/// A new directory that only we can enter, with a path so short that a socket fits in it.
fn private_dir(cx: &Cx) -> Result<PathBuf> {
    for base in [cx.var("XDG_RUNTIME_DIR"), cx.var("TMPDIR"), Some("/tmp")].into_iter().flatten() {
        // What runs that were killed have left.
        machine::sweep_of(Path::new(base), "ssh");
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
            "ssh://web1/./.",
            "ssh://a b/srv",
            "ssh:web1/srv",
        ] {
            assert_eq!(crate::error::kind_of(&parse(url).unwrap_err()), Kind::Usage, "{url}");
        }
    }

    #[test]
    fn what_was_cut_is_never_taken_for_whole() {
        let answer = |stdout: &str| Answer { code: Some(0), stdout: stdout.into(), stderr: String::new(), cut: false };
        let heard = |stdout: &str| heard(&answer(stdout)).map(|it| (it.stdout, it.code.unwrap()));
        assert_eq!(heard("hi\ngangplank: ready\nsaid\n\ngangplank: done 3\n").unwrap(), ("said\n".into(), 3));
        assert_eq!(heard("gangplank: ready\n\ngangplank: done 255\n").unwrap(), (String::new(), 255));
        for cut in
            ["", "hi\n", "gangplank: ready\n", "gangplank: ready\nsaid\n", "gangplank: ready\nx\ngangplank: done \n"]
        {
            assert_eq!(heard(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn what_is_heard_is_what_the_script_wrote() {
        let heard = |lines: &str| {
            let mut talk = Talk::default();
            let said: Vec<_> = lines.lines().flat_map(|line| talk.hear(Stream::Stdout, line.to_owned())).collect();
            (said.join("|"), talk.ended.map(|(code, _)| code))
        };
        for (lines, said, code) in [
            ("welcome\ngangplank: ready\na\n\n\nb\n\ngangplank: done 3\nleft behind\n", "a|||b", Some(3)),
            ("gangplank: ready\nno newline\ngangplank: done 0\n", "no newline", Some(0)),
            ("gangplank: ready\n\n\ngangplank: done 0\n", "", Some(0)),
            ("gangplank: ready\nso far\n", "so far", None),
            ("it says nothing of ours\n", "", None),
        ] {
            assert_eq!(heard(lines), (said.to_owned(), code), "{lines:?}");
        }
        let mut talk = Talk::default();
        assert_eq!(talk.hear(Stream::Stderr, "a profile".into()), Vec::<String>::new());
        assert_eq!(talk.hear(Stream::Stderr, READY.into()), Vec::<String>::new());
        assert_eq!(talk.hear(Stream::Stderr, "its own".into()), ["its own"]);
        assert!(!talk.begun && talk.before.starts_with("a profile\n"));
    }

    #[test]
    fn a_script_is_one_line_on_its_way() {
        let script = "printf '%s\\n' \"a\\\\b\"\nexit 3\n";
        assert_eq!(one_line(script), "printf '%s\\\\n' \"a\\\\\\\\b\"\\nexit 3\\n\n");
        assert_eq!(plain("install `x` $y 'z' [lock a-1]"), "install x y z [lock a-1]");
    }
}
