//! Sends scripts to a host through a program, ssh or one of the project, and reads their output (see [`frame`]).

use gangplank_model::error::{CliError, Kind, Result, failed};
use gangplank_model::event::{Event, Stream};
use gangplank_model::frame;
use gangplank_model::frame::{Environment, Marker, Parser, one_line};
use gangplank_model::owner;
use gangplank_model::script;
use gangplank_model::script::attend::attended;
use gangplank_system::context::{Context, Input, Output, Until};
use gangplank_system::process::coprocess::BEFORE_MAX;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The maximum text input in bytes that is sent as a line.
const LINE_MAX: usize = 1 << 16;
/// The maximum characters of ignored output that `-v` shows.
const IGNORED_CHARS_MAX: usize = 200;
/// How long to wait for the output of background processes after the script has ended.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// A host and the state between two scripts.
pub struct Session<'ctx> {
    /// The I/O context.
    pub ctx: &'ctx Context,
    /// URL of the target.
    pub url: String,
    /// Whether the last script may still run, because the connection broke or we stopped waiting.
    unsettled: AtomicBool,
}

impl<'ctx> Session<'ctx> {
    /// A session without any script yet.
    pub fn new(ctx: &'ctx Context, url: &str) -> Self {
        Self { ctx, url: url.to_owned(), unsettled: AtomicBool::new(false) }
    }

    /// Shows with `-v` what a profile or a background process printed around a script.
    pub(crate) fn ignored(&self, output: &str) {
        if !output.trim().is_empty() {
            let command = format!("{}: ignored its output `{}`", self.url, short(output.trim()));
            self.ctx.emit(Event::Ran { command, ms: 0, ok: true });
        }
    }
}

/// A script whose end marker did not arrive.
pub struct Incomplete<'a> {
    /// The name of the script.
    pub what: &'a str,
    /// Exit code of the program that carried it.
    pub code: Option<i32>,
    /// Whether it is known to have started.
    pub begun: bool,
    /// The stderr output.
    pub stderr: &'a str,
    /// Whether it may be sent again.
    pub repeatable: bool,
}

/// A script for a shell that stays open.
pub struct Request<'a> {
    /// The name of the script.
    pub what: &'a str,
    /// Its name in the process list.
    pub process: &'a str,
    /// Frames its output.
    pub marker: &'a Marker,
    /// The script.
    pub script: &'a str,
    /// Its stdin.
    pub input: &'a str,
}

/// How a script is run.
pub struct Call<'a> {
    what: &'a str,
    marker: Marker,
    script: &'a str,
    /// The token of the lock that it runs under.
    token: Option<&'a str>,
    limit: Option<Duration>,
    interruptible: bool,
}

/// A way to run commands on a host.
pub trait Transport {
    /// The session.
    fn session(&self) -> &Session<'_>;
    /// The program that runs a command in the host's shell, and its display text for `what`.
    fn program(&self, what: &str, command: &str, interruptible: bool) -> Result<(Command, String)>;
    /// The environment that its commands start in.
    fn environment(&self) -> Environment {
        Environment::OfLogin
    }
    /// Runs a script in a shell that stays open, and returns its raw output; `None` where there is no such shell. The
    /// output is incomplete if the connection ends.
    fn request(&self, _script: &Request) -> Result<Option<Output>> {
        Ok(None)
    }
    /// Drops a broken connection.
    fn disconnect(&self) {}
    /// The error of a script that did not finish.
    fn diagnose(&self, script: &Incomplete) -> CliError;

    /// Runs a script. If the last one may still run, waits for its end first.
    fn exec(
        &self,
        text: &str,
        token: Option<&str>,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Output> {
        let Session { url, unsettled, .. } = self.session();
        if let Some(token) = token
            && unsettled.swap(false, Ordering::SeqCst)
        {
            let text = format!("# wait for the last command\n{}", script::finalize(token));
            let settled = self.exec_unsynced(&text, None, Input::Empty, None, false);
            if !settled.as_ref().is_ok_and(Output::ok) {
                unsettled.store(true, Ordering::SeqCst);
                let reason =
                    settled.map_or_else(|error| format!("{error:#}"), |answer| answer.stderr.trim().to_owned());
                return failed(format!("{url}: {reason}"))
                    .hint("check the processes of the host with `ps`: it shows the lock of each script")
                    .err();
            }
        }
        self.exec_unsynced(text, token, input, limit, interruptible)
    }

    /// Runs a script without waiting for the last one.
    fn exec_unsynced(
        &self,
        text: &str,
        token: Option<&str>,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Output> {
        let call = Call { what: what(text), marker: Marker::random(), script: text, token, limit, interruptible };
        let (answer, flooded) = match self.request_if_short(&call, &input)? {
            Some(answer) => (answer, false),
            None => self.run_alone(&call, input)?,
        };
        let Call { what, marker, .. } = call;
        if let Some((code, stdout, stderr)) = frame::parse(&marker, &answer.stdout, &answer.stderr) {
            for output in [&answer.stdout, &answer.stderr] {
                let ignored = frame::outside(&marker, output);
                self.session().ignored(&ignored);
            }
            let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
            return Ok(Output { code: Some(code), stdout, stderr, cut: false });
        }
        self.session().unsettled.store(true, Ordering::SeqCst);
        self.disconnect();
        if answer.cut {
            // The script still runs on the host, and the next one waits for its end.
            let so_far = |text: &str| frame::so_far(&marker, text).to_owned();
            return Ok(Output { stdout: so_far(&answer.stdout), stderr: so_far(&answer.stderr), ..answer });
        }
        if answer.code == Some(frame::EXIT_NO_SCRIPT) {
            return no_script(&self.session().url, what).err();
        }
        if flooded {
            return endless(&self.session().url, what).err();
        }
        let begun = [&answer.stdout, &answer.stderr].into_iter().any(|output| frame::has_begun(&marker, output));
        let stderr = frame::without_markers(&answer.stderr);
        let stderr = stderr.trim();
        Err(self.diagnose(&Incomplete { what, code: answer.code, begun, stderr, repeatable: true }).into())
    }

    /// Uses the shell that stays open, if there is one, for a short script with text for stdin that has neither a limit nor
    /// may be interrupted.
    fn request_if_short(&self, call: &Call, input: &Input) -> Result<Option<Output>> {
        let input = match input {
            Input::Empty => Some(""),
            Input::Bytes(bytes) => line_input(bytes),
            Input::BytesThenFile(..) => None,
        };
        let fits = call.limit.is_none() && !call.interruptible && call.script.len() <= frame::REQUEST_MAX;
        let Some(input) = input.filter(|_| fits) else { return Ok(None) };
        let process = process_name(call.what, call.token);
        let Call { what, marker, script, .. } = call;
        self.request(&Request { what, process: &process, marker, script, input })
    }

    /// Runs a script in a command of its own. Returns its raw output, and whether a profile printed too much before it.
    fn run_alone(&self, call: &Call, input: Input) -> Result<(Output, bool)> {
        let Call { what, marker, script, token, limit, interruptible } = call;
        let (command, shown) =
            self.program(what, &command(what, marker, *token, *limit, self.environment()), *interruptible)?;
        let (bytes, file) = sent(marker, script, input);
        let input = match file {
            Some(file) => Input::BytesThenFile(&bytes, file),
            None => Input::Bytes(&bytes),
        };
        // The script ends with its frame; its background processes may hold the output open forever.
        let ended = growing(marker, frame::has_ended);
        let refused = Cell::new(false);
        let is_refused = |stdout: &[u8]| {
            refused.set(stdout.len() > BEFORE_MAX && !frame::has_begun(marker, &String::from_utf8_lossy(stdout)));
            refused.get()
        };
        let until = Until { ended: &ended, is_refused: &is_refused, stragglers: STRAGGLERS };
        let answer = self.session().ctx.answer_until(&shown, command, input, *limit, *interruptible, &until)?;
        Ok((answer, refused.get()))
    }

    /// Runs a script and streams its lines; returns its exit code, or `None` if `stop` ended it.
    fn stream(
        &self,
        text: &str,
        input: &str,
        heard: &mut dyn FnMut(Stream, String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<i32>> {
        let (what, marker) = (what(text), Marker::random());
        let (command, shown) = self.program(what, &command(what, &marker, None, None, self.environment()), true)?;
        let bytes = (frame::script_line(&marker, &attended(text)) + &one_line(input)).into_bytes();
        let parser = RefCell::new(Parser::new(marker));
        let complete = || parser.borrow().ended.is_some_and(|(_, at)| at.elapsed() > STRAGGLERS);
        let mut hear = |stream, line| {
            let lines = parser.borrow_mut().line(stream, line);
            for line in lines {
                heard(stream, line);
            }
        };
        let (code, stopped) = self.session().ctx.stream(&shown, command, &bytes, &mut hear, stop, &complete)?;
        let parser = parser.into_inner();
        if let Some((code, _)) = parser.ended {
            return Ok(Some(code));
        }
        self.session().unsettled.store(true, Ordering::SeqCst);
        self.disconnect();
        if stopped {
            return Ok(None);
        }
        if code == Some(frame::EXIT_NO_SCRIPT) {
            return no_script(&self.session().url, what).err();
        }
        let stderr = if parser.has_begun() { "" } else { &parser.before };
        Err(self.diagnose(&Incomplete { what, code, begun: parser.has_begun(), stderr, repeatable: false }).into())
    }
}

/// The command that runs a script on a host; `what` is its process name there.
pub fn command(
    what: &str,
    marker: &Marker,
    token: Option<&str>,
    limit: Option<Duration>,
    environment: Environment,
) -> String {
    frame::command(marker, &process_name(what, token), limit, environment)
}

/// The name of a script in the host's process list, by which a later run finds it.
fn process_name(what: &str, token: Option<&str>) -> String {
    let name = [what, &token.map(owner::mark).unwrap_or_default()].join(" ");
    plain(name.trim()).into_owned()
}

/// The error of a login that prints before anything runs, and does not end.
pub fn endless(url: &str, what: &str) -> CliError {
    CliError::new(Kind::Remote, format!("{url}: cannot {what}: the login prints without end"))
        .hint("check the login's profile on that host: it prints more than 16 MiB before a command runs")
}

/// The error of a login whose profile reads the script.
pub fn no_script(url: &str, what: &str) -> CliError {
    CliError::new(Kind::Remote, format!("{url}: cannot {what}: another program consumed the script before the shell"))
        .hint("put `case $- in *i*) ;; *) return;; esac` at the top of the login's profile: it may read stdin")
}

/// The name of a script: its first line.
pub fn what(text: &str) -> &str {
    text.strip_prefix("# ").and_then(|text| text.lines().next()).unwrap_or("run a script")
}

/// The stdin for a script and its input. Text input is sent as a line, so that a truncated one is detected; other input
/// is verified by its digests.
fn sent(marker: &Marker, script: &str, input: Input<'_>) -> (Vec<u8>, Option<File>) {
    let line = |script: &str| frame::script_line(marker, script);
    match input {
        Input::Empty => (line(script).into_bytes(), None),
        Input::Bytes(bytes) => match line_input(bytes) {
            Some(text) => {
                let script = format!("IFS= read -r input || exit 255\nprintf %b \"$input\" | (\n{script}\n)");
                ((line(&script) + &one_line(text)).into_bytes(), None)
            }
            None => ([line(script).as_bytes(), bytes].concat(), None),
        },
        Input::BytesThenFile(bytes, file) => ([line(script).as_bytes(), bytes].concat(), Some(file)),
    }
}

/// The input as text, if it is sent as a line.
fn line_input(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.len() <= LINE_MAX && !text.contains('\0'))
}

/// A condition on growing output, which searches each byte once.
pub fn growing(marker: &Marker, holds: fn(&Marker, &[u8], &mut usize) -> bool) -> impl Fn(&[u8]) -> bool {
    let seen = Cell::new(0);
    move |output| {
        let mut from = seen.get();
        let found = holds(marker, output, &mut from);
        seen.set(from);
        found
    }
}

/// The start of a text, on one line.
fn short(text: &str) -> String {
    text.chars().take(IGNORED_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// The process name on the host, without characters special to a shell.
fn plain(text: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " -_.:/[]".contains(c);
    if text.chars().all(fits) { text.into() } else { text.chars().filter(|c| fits(*c)).collect::<String>().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_mean_nothing_to_a_shell() {
        assert_eq!(plain("install `x` $y 'z' [lock a-1]"), "install x y z [lock a-1]");
    }
}
