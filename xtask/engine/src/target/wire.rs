//! Scripts for places that another program reaches, ssh or one that a project names: how they are sent, and how one knows
//! that a script came to its end.
//!
//! The program runs always the same few words. They run a script that comes as the first line on stdin, after a line that
//! tells what the script says from what a profile, or the program itself, has said before.

use crate::cx::{Answer, Cx, Input};
use crate::error::{Failure, Result, failed};
use crate::event::Stream;
use crate::machine;
use crate::target::script::attend::attended;
use crate::target::script::{self, quote};
use crate::target::sequence::one_line;
use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a host says before a script says anything.
pub const READY: &str = "gangplank: ready";
/// What it says after it, with the exit code.
const DONE: &str = "gangplank: done";
/// An input of text up to so many bytes goes as a line.
const LINE_MAX: usize = 1 << 16;
/// How long is waited for what a program has left behind, once it has come to its end.
const STRAGGLERS: Duration = Duration::from_millis(500);

/// Where something is said, and what is left of what was said before.
pub struct Line<'cx> {
    /// The outside.
    pub cx: &'cx Cx,
    /// URL of the target.
    pub url: String,
    /// Whether the last script may still run there, because the connection broke or we went away.
    unsettled: AtomicBool,
}

impl<'cx> Line<'cx> {
    /// Nothing is said yet.
    pub fn new(cx: &'cx Cx, url: &str) -> Self {
        Self { cx, url: url.to_owned(), unsettled: AtomicBool::new(false) }
    }
}

/// A script of whose end nothing was heard.
pub struct Lost<'a> {
    /// What it is called.
    pub what: &'a str,
    /// How the program ended that it was said through.
    pub code: Option<i32>,
    /// Whether it has begun, as far as is known.
    pub begun: bool,
    /// What was complained.
    pub said: &'a str,
    /// Whether it may be said again.
    pub repeatable: bool,
}

/// A way to a place. Whoever knows which program leads there has `say` and `attend`.
pub trait Wire {
    /// Where it leads.
    fn line(&self) -> &Line<'_>;
    /// The program that runs a script, and what people are told that it is. `token` is that of the lock under which it is said, for
    /// whoever looks at the processes there.
    fn program(
        &self,
        what: &str,
        token: Option<&str>,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<(Command, String)>;
    /// Whatever the last script was said through is of no use any more.
    fn give_up(&self) {}
    /// Why a script did not come to its end.
    fn trouble(&self, lost: &Lost) -> Failure;

    /// Says a script. After one that may still run there, its end is waited for first.
    fn say(
        &self,
        text: &str,
        token: Option<&str>,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Answer> {
        let Line { url, unsettled, .. } = self.line();
        if let Some(token) = token
            && unsettled.swap(false, Ordering::SeqCst)
        {
            let text = format!("# wait for the last command\n{}", script::settle(token));
            let settled = self.say_now(&text, None, Input::Empty, None, false);
            if !settled.as_ref().is_ok_and(Answer::ok) {
                unsettled.store(true, Ordering::SeqCst);
                let why = settled.map_or_else(|error| format!("{error:#}"), |answer| answer.stderr.trim().to_owned());
                return failed(format!("{url}: {why}"))
                    .hint("look at the processes of the host: `ps` shows the lock under which each script runs")
                    .err();
            }
        }
        self.say_now(text, token, input, limit, interruptible)
    }

    /// Says a script without a look at the last one.
    fn say_now(
        &self,
        text: &str,
        token: Option<&str>,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Answer> {
        let what = what(text);
        let (command, shown) = self.program(what, token, limit, interruptible)?;
        let (bytes, file) = sent(text, input);
        let input = match file {
            Some(file) => Input::BytesThenFile(&bytes, file),
            None => Input::Bytes(&bytes),
        };
        let answer = self.line().cx.answer_as(&shown, command, input, limit, interruptible)?;
        if let Some(done) = heard(&answer) {
            return Ok(done);
        }
        self.line().unsettled.store(true, Ordering::SeqCst);
        self.give_up();
        if answer.cut {
            // We went away; what it does there ends by itself, and is waited for before anything else is said.
            let after = |text: &str| text.split_once(&format!("{READY}\n")).map_or(text, |(_, said)| said).to_owned();
            return Ok(Answer { stdout: after(&answer.stdout), stderr: after(&answer.stderr), ..answer });
        }
        let begun = answer.stdout.contains(READY) || answer.stderr.contains(READY);
        let said = answer.stderr.trim();
        Err(self.trouble(&Lost { what, code: answer.code, begun, said, repeatable: true }).into())
    }

    /// Says a script whose lines are heard as they come, and gives its exit code; `None` when `stop` ended it.
    fn attend(
        &self,
        text: &str,
        input: &str,
        heard: &mut dyn FnMut(Stream, String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<i32>> {
        let what = what(text);
        let (command, shown) = self.program(what, None, None, true)?;
        let bytes = (one_line(&attended(text)) + &one_line(input)).into_bytes();
        let talk = RefCell::new(Talk::default());
        let left = || stop() || talk.borrow().ended.is_some_and(|(_, at)| at.elapsed() > STRAGGLERS);
        let mut hear = |stream, line| {
            let lines = talk.borrow_mut().hear(stream, line);
            for line in lines {
                heard(stream, line);
            }
        };
        let (code, stopped) = self.line().cx.stream(&shown, command, &bytes, &mut hear, &left)?;
        let talk = talk.into_inner();
        if let Some((code, _)) = talk.ended {
            return Ok(Some(code));
        }
        self.line().unsettled.store(true, Ordering::SeqCst);
        self.give_up();
        if stopped {
            return Ok(None);
        }
        let said = if talk.begun { "" } else { &talk.before };
        Err(self.trouble(&Lost { what, code, begun: talk.begun, said, repeatable: false }).into())
    }
}

/// The words that run a script there, under a name that tells those who look at the processes what it is.
pub fn words(what: &str, token: Option<&str>, limit: Option<Duration>) -> String {
    let name = [what, &token.map(machine::mark).unwrap_or_default()].join(" ");
    format!("{} {}", bootstrap(limit), quote(&plain(name.trim())))
}

/// What a script is called: its first line.
pub fn what(text: &str) -> &str {
    text.strip_prefix("# ").and_then(|text| text.lines().next()).unwrap_or("run a script")
}

/// What was heard of a script so far.
#[derive(Default)]
struct Talk {
    /// Whether it has begun.
    begun: bool,
    /// Whether all that is complained is its own by now, and not of a profile.
    complains: bool,
    /// What was complained before it began.
    before: String,
    /// An empty line that it may have printed, or that comes before its last word.
    empty: bool,
    /// Its exit code, and when it ended.
    ended: Option<(i32, Instant)>,
}

impl Talk {
    /// Takes a line, and gives those that the script wrote.
    fn hear(&mut self, stream: Stream, line: String) -> Vec<String> {
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
fn bootstrap(limit: Option<Duration>) -> String {
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
fn sent(script: &str, input: Input<'_>) -> (Vec<u8>, Option<File>) {
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
fn heard(answer: &Answer) -> Option<Answer> {
    let (_, said) = answer.stdout.split_once(&format!("{READY}\n"))?;
    let (said, code) = said.rsplit_once(&format!("\n{DONE} "))?;
    let complained = answer.stderr.split_once(&format!("{READY}\n")).map_or(answer.stderr.as_str(), |(_, said)| said);
    let code = code.trim().parse().ok()?;
    Some(Answer { code: Some(code), stdout: said.to_owned(), stderr: complained.to_owned(), cut: false })
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
