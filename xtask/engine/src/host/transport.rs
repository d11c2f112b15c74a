//! Scripts for hosts that another program reaches, ssh or one that a project names: how they are sent, and how their
//! output is read (see [`frame`]).

use crate::context::{Context, Input, Output, Until};
use crate::error::{CliError, Kind, Result, failed};
use crate::event::{Event, Stream};
use crate::host::frame::{self, Environment, Marker, Parser, one_line};
use crate::host::script;
use crate::host::script::attend::attended;
use crate::owner;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An input of text up to so many bytes goes as a line.
const LINE_MAX: usize = 1 << 16;
/// How much is shown, with `-v`, of output that is ignored.
const IGNORED_CHARS_MAX: usize = 200;
/// The most bytes that a profile may print before a script runs.
const PROFILE_MAX: usize = 16 << 20;
/// How long is waited for the output of what a script has left behind, once it has come to its end.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// A host that scripts are sent to, and the state between two of them.
pub struct Session<'ctx> {
    /// The outside.
    pub ctx: &'ctx Context,
    /// URL of the target.
    pub url: String,
    /// Whether the last script may still run there, because the connection broke or we went away.
    unsettled: AtomicBool,
}

impl<'ctx> Session<'ctx> {
    /// No script was sent yet.
    pub fn new(ctx: &'ctx Context, url: &str) -> Self {
        Self { ctx, url: url.to_owned(), unsettled: AtomicBool::new(false) }
    }
}

/// A script whose end marker did not arrive.
pub struct Incomplete<'a> {
    /// What it is called.
    pub what: &'a str,
    /// Exit code of the program that carried it.
    pub code: Option<i32>,
    /// Whether it has begun, as far as is known.
    pub begun: bool,
    /// What was printed on stderr.
    pub stderr: &'a str,
    /// Whether it may be sent again.
    pub repeatable: bool,
}

/// A way to a host. An implementation knows which program leads there.
pub trait Transport {
    /// The host.
    fn session(&self) -> &Session<'_>;
    /// The program that runs a command of the host's shell, and how it is shown for `what`.
    fn program(&self, what: &str, command: &str, interruptible: bool) -> Result<(Command, String)>;
    /// Whose environment its commands start in.
    fn environment(&self) -> Environment {
        Environment::OfLogin
    }
    /// Drops a connection that broke.
    fn disconnect(&self) {}
    /// Why a script did not come to its end.
    fn diagnose(&self, script: &Incomplete) -> CliError;

    /// Runs a script. If the last one may still run, its end is waited for first.
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
                    .hint("look at the processes of the host: `ps` shows the lock under which each script runs")
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
        let (what, marker) = (what(text), Marker::random());
        let (command, shown) =
            self.program(what, &command(what, &marker, token, limit, self.environment()), interruptible)?;
        let (bytes, file) = sent(&marker, text, input);
        let input = match file {
            Some(file) => Input::BytesThenFile(&bytes, file),
            None => Input::Bytes(&bytes),
        };
        // It ends with its frame. What it has left in the background may hold its output open for ever.
        let seen = Cell::new(0);
        let ended = |stdout: &[u8]| {
            let mut from = seen.get();
            let ended = frame::has_ended(&marker, stdout, &mut from);
            seen.set(from);
            ended
        };
        let flooded = Cell::new(false);
        let hopeless = |stdout: &[u8]| {
            flooded.set(stdout.len() > PROFILE_MAX && !frame::has_begun(&marker, &String::from_utf8_lossy(stdout)));
            flooded.get()
        };
        let until = Until { ended: &ended, hopeless: &hopeless, stragglers: STRAGGLERS };
        let answer = self.session().ctx.answer_until(&shown, command, input, limit, interruptible, &until)?;
        if let Some((code, stdout, stderr)) = frame::parse(&marker, &answer.stdout, &answer.stderr) {
            for output in [&answer.stdout, &answer.stderr] {
                let ignored = frame::outside(&marker, output);
                if !ignored.trim().is_empty() {
                    let shown = format!("{shown}: ignored its output `{}`", short(ignored.trim()));
                    self.session().ctx.emit(Event::Ran { command: shown, ms: 0, ok: true });
                }
            }
            let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
            return Ok(Output { code: Some(code), stdout, stderr, cut: false });
        }
        self.session().unsettled.store(true, Ordering::SeqCst);
        self.disconnect();
        if answer.cut {
            // It runs on there, and the next script waits for its end.
            let so_far = |text: &str| frame::so_far(&marker, text).to_owned();
            return Ok(Output { stdout: so_far(&answer.stdout), stderr: so_far(&answer.stderr), ..answer });
        }
        if answer.code == Some(frame::EXIT_NO_SCRIPT) {
            return no_script(&self.session().url, what).err();
        }
        if flooded.get() {
            return CliError::new(
                Kind::Remote,
                format!("{}: did not {what}: it prints without end", self.session().url),
            )
            .hint("look at the login's profile on that host: it prints more than 16 MiB before a command runs")
            .err();
        }
        let begun = [&answer.stdout, &answer.stderr].into_iter().any(|output| frame::has_begun(&marker, output));
        let stderr = frame::without_markers(&answer.stderr);
        let stderr = stderr.trim();
        Err(self.diagnose(&Incomplete { what, code: answer.code, begun, stderr, repeatable: true }).into())
    }

    /// Runs a script, hands over its lines as they come, and gives its exit code; `None` when `stop` ended it.
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

/// The command that runs a script on a host; `what` is the name of its process there.
pub fn command(
    what: &str,
    marker: &Marker,
    token: Option<&str>,
    limit: Option<Duration>,
    environment: Environment,
) -> String {
    let name = [what, &token.map(owner::mark).unwrap_or_default()].join(" ");
    frame::command(marker, &plain(name.trim()), limit, environment)
}

fn no_script(url: &str, what: &str) -> CliError {
    CliError::new(
        Kind::Remote,
        format!("{url}: did not {what}: something there took the script before its shell read it"),
    )
    .hint("does the login's profile read its input? Put `case $- in *i*) ;; *) return;; esac` at its top")
}

/// What a script is called: its first line.
pub fn what(text: &str) -> &str {
    text.strip_prefix("# ").and_then(|text| text.lines().next()).unwrap_or("run a script")
}

/// What goes over stdin: the script, and its input. An input of text goes as a line too, so that one that was cut is
/// never taken for whole; what is not text is checked by its digests.
fn sent(marker: &Marker, script: &str, input: Input<'_>) -> (Vec<u8>, Option<File>) {
    let line = |script: &str| frame::script_line(marker, script);
    match input {
        Input::Empty => (line(script).into_bytes(), None),
        Input::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if text.len() <= LINE_MAX && !text.contains('\0') => {
                let script = format!("IFS= read -r input || exit 255\nprintf %b \"$input\" | (\n{script}\n)");
                ((line(&script) + &one_line(text)).into_bytes(), None)
            }
            _ => ([line(script).as_bytes(), bytes].concat(), None),
        },
        Input::BytesThenFile(bytes, file) => ([line(script).as_bytes(), bytes].concat(), Some(file)),
    }
}

/// The beginning of a text, on one line.
fn short(text: &str) -> String {
    text.chars().take(IGNORED_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// What a process is called on the host, in characters that mean nothing to any shell.
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
