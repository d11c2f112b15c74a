//! All I/O of a command: environment, clock, other programs, machine, and the sink of events.
//!
//! Everything below takes a [`Context`] as its only access to the outside, so a test controls what a command sees.

mod cargo;
mod environment;
mod root;
mod secrets;
mod signals;

pub use crate::context::environment::{Environment, is_cargos_own, var};
pub use crate::context::root::{ENGINE_SUMS, PARTS, is_left_out, left_out_hint, run_xtask, stands_alone};
use crate::context::secrets::{mask, secrets};
use crate::process;
use crate::process::{Coprocess, Limits, NotReady, ReplyFrame};
pub use crate::process::{Input, LINE_BYTES_MAX, Measured, Until};
use gangplank_model::error::{Kind, Result, WithHint, failed, usage};
use gangplank_model::event::{Event, Sink, Stream, ms_since};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicI32;
use std::sync::{Arc, atomic::AtomicBool, atomic::AtomicUsize, atomic::Ordering};
use std::time::{Duration, Instant};

/// The I/O context of a command.
pub struct Context {
    /// Root of the Cargo workspace.
    pub root: PathBuf,
    /// The base of relative `file:` URLs.
    pub home: PathBuf,
    env: BTreeMap<String, String>,
    not_utf8: BTreeMap<String, String>,
    secrets: Vec<String>,
    sink: Arc<dyn Sink>,
    interrupts: Arc<AtomicUsize>,
    /// The exit code, once all changes are made; -1 before.
    finished: Arc<AtomicI32>,
    catching: AtomicBool,
    asking: Arc<AtomicBool>,
}

/// The result of another program.
#[derive(Debug)]
pub struct Output {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
    /// Whether we killed it, after a time limit or an interrupt.
    pub cut: bool,
}

impl Output {
    /// The result of a program of which nothing is known.
    pub const NONE: Self = Self { code: None, stdout: String::new(), stderr: String::new(), cut: false };

    /// Whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl Context {
    /// A context with the environment `env`.
    pub fn new(root: PathBuf, env: BTreeMap<String, String>, sink: Arc<dyn Sink>) -> Self {
        let home = env.get(var::HOME).filter(|home| !home.is_empty()).map_or_else(|| root.clone(), PathBuf::from);
        let secrets = secrets(&env);
        Self {
            root,
            home,
            env,
            not_utf8: BTreeMap::new(),
            secrets,
            sink,
            interrupts: Arc::default(),
            finished: Arc::new(AtomicI32::new(-1)),
            catching: AtomicBool::new(false),
            asking: Arc::default(),
        }
    }

    /// A context with the environment of a process. Variables that the engine reads must be UTF-8.
    pub fn from_process(root: PathBuf, env: Environment, sink: Arc<dyn Sink>) -> Result<Self> {
        if let Some(name) = env.unreadable() {
            return environment::not_utf8(name).err();
        }
        let secrets = secrets(env.vars.iter().chain(&env.not_utf8));
        Ok(Self { secrets, not_utf8: env.not_utf8, ..Self::new(root, env.vars, sink) })
    }

    /// The root of the nearest project at or above the current directory: see `context::root`.
    pub fn find_root() -> Result<PathBuf> {
        let here = std::env::current_dir().with_hint(
            Kind::Failed,
            || "cannot read the current directory".into(),
            || "change to the project".into(),
        )?;
        if let Some(root) = root::above(&here) {
            return Ok(root.to_owned());
        }
        usage(format!("no Cargo workspace at or above {}", here.display()))
            .hint("change to the project: `cd PROJECT`")
            .err()
    }

    /// A context with other values of some variables; secret values stay secret.
    #[must_use]
    pub fn with_vars(&self, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let (mut env, mut not_utf8) = (self.env.clone(), self.not_utf8.clone());
        for (name, value) in vars {
            not_utf8.remove(&name);
            env.insert(name, value);
        }
        Self {
            root: self.root.clone(),
            home: self.home.clone(),
            secrets: secrets(env.iter().chain(&not_utf8)),
            env,
            not_utf8,
            sink: Arc::clone(&self.sink),
            interrupts: Arc::clone(&self.interrupts),
            finished: Arc::clone(&self.finished),
            catching: AtomicBool::new(self.catching.load(Ordering::Relaxed)),
            asking: Arc::clone(&self.asking),
        }
    }

    /// A context for another checkout.
    #[must_use]
    pub fn at(&self, root: &Path) -> Self {
        Self { root: root.to_owned(), home: root.to_owned(), ..self.with_vars([]) }
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All variables.
    pub fn vars(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Whether this runs in a CircleCI job.
    pub fn in_ci(&self) -> bool {
        self.var("CIRCLECI") == Some("true")
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// The directory of Gangplank's guides, relative to the root: with the vendored crates, where there are some.
    pub fn guides(&self) -> &'static str {
        const VENDORED: &str = "xtask/crates/gangplank/docs";
        if self.root.join(VENDORED).is_dir() { VENDORED } else { "docs" }
    }

    /// Expands `${NAME:-default}` from the environment.
    pub fn expand(&self, text: &str) -> Result<String> {
        gangplank_model::project::expand(text, &|name| {
            if self.not_utf8.contains_key(name) {
                return environment::not_utf8(name).err();
            }
            Ok(self.var(name).map(str::to_owned))
        })
    }

    /// The path of the running program.
    pub fn program() -> Result<PathBuf> {
        std::env::current_exe().with_hint(
            Kind::Failed,
            || "cannot find the path of this program".into(),
            || "run it with its path".into(),
        )
    }

    /// The path of a program on PATH.
    pub fn program_on_path(&self, name: &str) -> Option<PathBuf> {
        let dirs = self.var("PATH").unwrap_or_default().split(':').filter(|dir| !dir.is_empty());
        dirs.map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
    }

    /// Emits an event, with secret values masked.
    pub fn emit(&self, event: Event) {
        self.sink.emit(&self.scrubbed(event));
    }

    /// An [`Event::Note`].
    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note { text: text.into() });
    }

    /// An [`Event::Warning`].
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning { text: text.into() });
    }

    /// A progress report for `task` that emits [`Event::Progress`].
    pub fn progress(&self, task: &str) -> impl Fn(u64, u64) + Sync {
        let task = task.to_owned();
        move |done, total| self.sink.emit(&Event::Progress { task: task.clone(), done, total })
    }

    /// Whether any variable is a secret.
    pub fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Replaces the values of secret variables by `****`.
    pub fn scrub(&self, text: &str) -> String {
        mask(&self.secrets, text)
    }

    fn scrubbed(&self, event: Event) -> Event {
        let scrub = |text: String| if self.secrets.is_empty() { text } else { self.scrub(&text) };
        match event {
            Event::Ran { command, ms, ok } => Event::Ran { command: scrub(command), ms, ok },
            Event::Note { text } => Event::Note { text: scrub(text) },
            Event::Warning { text } => Event::Warning { text: scrub(text) },
            Event::ServiceLog { target, lines } => {
                Event::ServiceLog { target, lines: lines.into_iter().map(scrub).collect() }
            }
            Event::Started { verb, env, release, replaced, subject } => {
                Event::Started { verb, env, release, replaced, subject: subject.map(scrub) }
            }
            other @ (Event::StepStarted { .. }
            | Event::StepEnded { .. }
            | Event::Stage { .. }
            | Event::Reverted { .. }
            | Event::Progress { .. }
            | Event::JobStarted { .. }
            | Event::JobEnded { .. }) => other,
        }
    }

    /// Runs a command to its end and returns its output. Any exit code is a success.
    pub fn answer(&self, command: Command, input: Input) -> Result<Output> {
        self.answer_within(command, input, None, false)
    }

    /// Like [`Self::answer`], but kills the command and its children after `limit`, or on an interrupt if it is
    /// `interruptible`.
    pub fn answer_within(
        &self,
        command: Command,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Output> {
        self.answer_as(&show(&command), command, input, limit, interruptible)
    }

    /// Like [`Self::answer`], with another display text.
    pub fn answer_as(
        &self,
        shown: &str,
        mut command: Command,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Output> {
        command.stderr(Stdio::piped());
        self.run(&mut command, shown.to_owned(), input, limit, interruptible, None)
    }

    /// Like [`Self::answer`], for a command whose output shows when it is complete.
    pub fn answer_until(
        &self,
        shown: &str,
        mut command: Command,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
        until: &Until,
    ) -> Result<Output> {
        command.stderr(Stdio::piped());
        self.run(&mut command, shown.to_owned(), input, limit, interruptible, Some(until))
    }

    /// Runs a command and streams its lines until it ends or `stop` returns true; see `process::stream`.
    pub fn stream(
        &self,
        shown: &str,
        mut command: Command,
        input: &[u8],
        on_line: &mut dyn FnMut(Stream, String),
        stop: &dyn Fn() -> bool,
        complete: &dyn Fn() -> bool,
    ) -> Result<(Option<i32>, bool)> {
        let started = Instant::now();
        let ended = process::stream(&mut command, input, true, on_line, stop, complete);
        let (status, stopped) = ended.map_err(|e| not_started(&command, &e))?;
        self.ran(shown.to_owned(), started, status.success());
        Ok((status.code(), stopped))
    }

    /// Starts a command that answers requests, killed on drop. Writes `greeting`, and waits until it prints `ready`.
    pub fn coprocess(
        &self,
        command: &mut Command,
        shown: &str,
        (greeting, ready): (&str, &str),
        limit: Duration,
        interruptible: bool,
    ) -> Result<Result<Coprocess, NotReady>> {
        let started = Instant::now();
        let stop = || interruptible && self.interrupted();
        let limits = Limits { time: Some(limit), stop: &stop, own_group: true };
        let began =
            Coprocess::start(command, greeting.as_bytes(), ready, &limits).map_err(|e| not_started(command, &e))?;
        self.ran(shown.to_owned(), started, began.is_ok());
        Ok(began)
    }

    /// Sends a request to a coprocess (see `Coprocess::request`). The output has an exit code only if the program ended.
    pub fn request(&self, to: &mut Coprocess, shown: &str, request: &str, frame: &ReplyFrame) -> Option<Output> {
        let started = Instant::now();
        let reply = to.request(request.as_bytes(), frame, &|| self.interrupted())?;
        self.ran(shown.to_owned(), started, reply.whole);
        let code = if reply.whole { None } else { to.code() };
        Some(Output { code, stdout: reply.stdout, stderr: reply.stderr, cut: false })
    }

    /// Runs a command with our stderr, for its own progress display.
    pub fn answer_with_stderr(&self, mut command: Command) -> Result<Output> {
        command.stderr(Stdio::inherit());
        let shown = show(&command);
        self.run(&mut command, shown, Input::Empty, None, false, None)
    }

    /// Runs a command and returns its stdout without the final newline. Another exit code than 0 is an error with the
    /// command and its stderr.
    pub fn read(&self, command: Command) -> Result<String> {
        let shown = show(&command);
        let answer = self.answer(command, Input::Empty)?;
        if answer.ok() {
            return Ok(answer.stdout.trim_end_matches('\n').to_owned());
        }
        Err(self.unsuccessful(&shown, answer.code, &answer.stderr))
    }

    /// The error of a command that did not exit with 0, with what it printed.
    pub(crate) fn unsuccessful(&self, shown: &str, code: Option<i32>, printed: &str) -> anyhow::Error {
        let printed = if printed.trim().is_empty() { "no output" } else { printed.trim() };
        failed(self.scrub(&format!("`{shown}` {}: {printed}", exit(code))))
            .hint("run it by hand for more output")
            .into()
    }

    /// Runs a command with output to our stderr and returns its exit code. An interrupt is passed on to it.
    pub fn watch(&self, mut command: Command) -> Result<Option<i32>> {
        let to_stderr = io::stderr().as_fd().try_clone_to_owned()?;
        command.stdout(to_stderr).stderr(Stdio::inherit());
        self.watch_outside(command)
    }

    /// Like [`Self::watch`], with the output in a file.
    pub fn watch_into(&self, mut command: Command, output: &std::fs::File) -> Result<Option<i32>> {
        command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        self.watch_outside(command)
    }

    fn watch_outside(&self, mut command: Command) -> Result<Option<i32>> {
        let shown = show(&command);
        let started = Instant::now();
        command.stdin(Stdio::null());
        let limits =
            Limits { time: None, stop: &|| self.interrupted(), own_group: self.catching.load(Ordering::Relaxed) };
        let mut child = process::start(&mut command, &limits).map_err(|e| not_started(&command, &e))?;
        let (status, _) = process::wait(&mut child, &limits)?;
        self.ran(shown, started, status.success());
        Ok(status.code())
    }

    /// Like [`Self::watch`]; also passes each line of its stdout to `on_line`.
    pub fn watch_lines(&self, mut command: Command, on_line: &mut dyn FnMut(&str)) -> Result<Option<i32>> {
        let (shown, started) = (show(&command), Instant::now());
        command.stderr(Stdio::inherit());
        let status = process::lines(&mut command, true, &mut |line| {
            let _ = writeln!(io::stderr(), "{line}");
            on_line(line);
        });
        let status = status.map_err(|e| not_started(&command, &e))?;
        self.ran(shown, started, status.success());
        Ok(status.code())
    }

    /// Runs a command to its end and measures it, with its output in a file. Kills what it leaves in the background.
    pub fn measure(&self, mut command: Command, output: &std::fs::File) -> Result<Measured> {
        let shown = show(&command);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        let limits = Limits { time: None, stop: &|| self.interrupted(), own_group: true };
        let started = Instant::now();
        let measured = process::measure(&mut command, &limits).map_err(|e| not_started(&command, &e))?;
        self.ran(shown, started, measured.status.success());
        Ok(measured)
    }

    fn run(
        &self,
        command: &mut Command,
        shown: String,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
        until: Option<&Until>,
    ) -> Result<Output> {
        let started = Instant::now();
        // A group of its own, so that Ctrl-C reaches only us and we can revert partial changes.
        let own_group = limit.is_some() || self.catching.load(Ordering::Relaxed);
        let limits = Limits { time: limit, stop: &|| interruptible && self.interrupted(), own_group };
        let mut ended = process::run(command, input, &limits, until).map_err(|e| not_started(command, &e))?;
        if ended.cut {
            let _ = write!(ended.stderr, "\nit did not end within {:.1?} and was stopped", started.elapsed());
        }
        self.ran(shown, started, ended.status.success());
        Ok(Output { code: ended.status.code(), stdout: ended.stdout, stderr: ended.stderr, cut: ended.cut })
    }

    pub(crate) fn ran(&self, command: String, started: Instant, ok: bool) {
        let ms = ms_since(started);
        self.emit(Event::Ran { command, ms, ok });
    }
}

pub(crate) fn not_started(command: &Command, cause: &io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy().into_owned();
    if cause.kind() == io::ErrorKind::NotFound {
        return usage(format!("cannot run `{program}`: not installed, or not on PATH"))
            .hint(format!("install {program}"))
            .into();
    }
    failed(format!("cannot run `{}`: {cause}", show(command))).hint("check the program").into()
}

/// The command as typed; a script is cut to its first line.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut shown = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        shown.push(' ');
        let mut lines = arg.trim().lines().filter(|line| !line.starts_with("# [lock "));
        let first = lines.next().unwrap_or_default();
        let more = if lines.next().is_some() { " ..." } else { "" };
        shown.push_str(&gangplank_model::shell::quote(&format!("{first}{more}")));
    }
    shown
}

/// [`Context::scrub`] for use before a context exists.
pub fn scrub(env: &Environment, text: &str) -> String {
    mask(&secrets(env.vars.iter().chain(&env.not_utf8)), text)
}

/// `failed with exit code 2`, `was ended by a signal`.
pub fn exit(code: Option<i32>) -> String {
    code.map_or("was ended by a signal".into(), |code| format!("failed with exit code {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default, Clone)]
    struct Memory(Arc<Mutex<Vec<Event>>>);

    impl Sink for Memory {
        fn emit(&self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    fn ctx(vars: &[(&str, &str)]) -> (Context, Memory) {
        let memory = Memory::default();
        let env = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        (Context::new("/".into(), env, Arc::new(memory.clone())), memory)
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn secrets_never_reach_an_event_or_an_error() {
        let (ctx, memory) = ctx(&[("CIRCLE_TOKEN", "CCIPAT_sesame"), ("SECRET_SHORT", "on"), ("HOME", "/root")]);
        ctx.note("got CCIPAT_sesame on");
        let error = ctx.read(sh("echo CCIPAT_sesame >&2; exit 3")).unwrap_err();
        assert!(!format!("{error:#}").contains("sesame"), "{error:#}");
        let events = format!("{:?}", memory.0.lock().unwrap());
        assert!(!events.contains("sesame") && events.contains("got **** on"), "{events}");
    }

    #[test]
    fn variable_with_the_key_of_a_cloud_makes_memory_private() {
        for (name, value, private) in [
            ("AZURE_STORAGE_KEY", "c2VzYW1lb3Blbg==", true),
            ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=c2VzYW1l", true),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\"type\": \"service_account\"}", true),
            ("DB_PASS", "sesame-open", true),
            ("AZURE_STORAGE_ACCOUNT", "acmebuilds", false),
        ] {
            assert_eq!(ctx(&[(name, value)]).0.has_secrets(), private, "{name}");
        }
        let not_utf8 = [("DB_PASS".to_owned(), "caf\u{fffd}-au-lait".to_owned())].into();
        let env = Environment { vars: BTreeMap::new(), not_utf8 };
        let ctx = Context::from_process("/".into(), env, Arc::new(Memory::default())).ok().unwrap();
        assert!(ctx.has_secrets() && ctx.with_vars([]).has_secrets());
    }

    #[test]
    fn secrets_that_begin_alike_or_need_escaping_are_covered_whole() {
        let key = "-----BEGIN-----\nabcdefghij\n-----END-----";
        let (ctx, _) = ctx(&[
            ("A_TOKEN", "abcdefgh"),
            ("B_TOKEN", "abcdefgh12345"),
            ("C_TOKEN", "with\"quote\\s"),
            ("PRIVATE_KEY", key),
        ]);
        assert_eq!(ctx.scrub("abcdefgh12345 abcdefgh"), "**** ****");
        assert_eq!(ctx.scrub(r#""with\"quote\\s""#), r#""****""#);
        assert_eq!(ctx.scrub("line: abcdefghij"), "line: ****");
    }

    #[test]
    fn command_that_hangs_or_leaves_its_pipe_open_is_ended() {
        let (ctx, _) = ctx(&[("PATH", "/usr/bin:/bin")]);
        let limit = Some(Duration::from_millis(200));
        let answer = ctx.answer_within(sh("echo begun; sleep 60"), Input::Empty, limit, false).unwrap();
        assert_eq!((answer.code, answer.stdout.trim()), (None, "begun"));
        assert!(answer.stderr.contains("was stopped"), "{}", answer.stderr);
        let answer = ctx.answer(sh("sleep 5 & echo done"), Input::Empty).unwrap();
        assert_eq!((answer.code, answer.stdout.trim()), (Some(0), "done"));
    }

    #[test]
    fn command_that_fails_is_an_error_with_its_output() {
        let (ctx, _) = ctx(&[]);
        let error = ctx.read(sh("echo why >&2; exit 3")).unwrap_err();
        assert_eq!(format!("{error:#}"), "`sh -c 'echo why >&2; exit 3'` failed with exit code 3: why");
        let error = ctx.read(Command::new("no-such-program-here")).unwrap_err();
        assert!(format!("{error:#}").contains("not installed"), "{error:#}");
    }

    #[test]
    fn run_cmd_masks_output_and_fails_with_the_last_line() {
        let (ctx, memory) = ctx(&[("CIRCLE_TOKEN", "CCIPAT_sesame")]);
        ctx.run_cmd(sh("echo CCIPAT_sesame; cat; echo done >&2")).unwrap();
        let error = ctx.run_cmd(sh("echo is CCIPAT_sesame right; exit 3")).unwrap_err();
        assert!(format!("{error:#}").ends_with("failed with exit code 3: is **** right"), "{error:#}");
        let events = format!("{:?}", memory.0.lock().unwrap());
        assert!(!events.contains("sesame") && events.contains("  | ****") && events.contains("  | done"), "{events}");
    }

    #[test]
    fn input_larger_than_a_pipe_reaches_a_program_that_answers_while_it_reads() {
        let (ctx, _) = ctx(&[]);
        let bytes = vec![b'x'; 1 << 20];
        assert_eq!(ctx.answer(sh("cat"), Input::Bytes(&bytes)).unwrap().stdout.len(), 1 << 20);
        assert_eq!(ctx.answer(sh("exit 4"), Input::Bytes(&bytes)).unwrap().code, Some(4));
    }
}
