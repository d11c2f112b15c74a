//! A place that a program of this machine reaches: `docker exec -i web1`, `kubectl exec -i web1 --`, `sudo -n -u app`.
//!
//! The program is given `sh -c SCRIPT` as its last words and runs them there, with its own stdin, stdout and stderr. What
//! is said is what ssh says, so a script that was cut off on its way is not run, and one that is over time is ended there.

use super::ssh::{STRAGGLERS, Talk, bootstrap, heard, plain, sent, trouble, what};
use crate::cx::{Answer, Cx, Input};
use crate::error::{Failure, Kind, Result, failed};
use crate::event::Stream;
use crate::machine;
use crate::target::script::attend::attended;
use crate::target::script::{self, quote};
use crate::target::sequence::one_line;
use std::cell::RefCell;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A place behind a program.
pub struct Through<'cx> {
    cx: &'cx Cx,
    url: String,
    /// What it is called.
    pub name: String,
    /// The program and its first arguments.
    words: Vec<String>,
    /// Whether the last command may still run there, because we went away.
    unsettled: AtomicBool,
}

impl<'cx> Through<'cx> {
    /// Nothing is said yet.
    pub fn new(cx: &'cx Cx, url: &str, name: &str, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { cx, url: url.to_owned(), name: name.to_owned(), words, unsettled: AtomicBool::new(false) }
    }

    fn command(&self, what: &str, token: Option<&str>, limit: Option<Duration>) -> (Command, String) {
        let name = [what, &token.map(machine::mark).unwrap_or_default()].join(" ");
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or("sh", String::as_str));
        command.args(words).args(["sh", "-c", &format!("{} {}", bootstrap(limit), quote(&plain(name.trim())))]);
        (command, format!("{} # {what}", self.words.join(" ")))
    }

    /// Says a script. `token` is that of the lock under which it is said.
    pub fn say(
        &self,
        text: &str,
        token: Option<&str>,
        input: Input,
        limit: Option<Duration>,
        interruptible: bool,
    ) -> Result<Answer> {
        if let Some(token) = token
            && self.unsettled.load(Ordering::SeqCst)
        {
            let settle = format!("# wait for the last command\n{}", script::settle(token));
            let settled = self.say_now(&settle, None, Input::Empty, None, false)?;
            if !settled.ok() {
                return failed(format!("{}: {}", self.url, settled.stderr.trim()))
                    .hint("look at the processes there: `ps` shows the lock under which each script runs")
                    .err();
            }
            self.unsettled.store(false, Ordering::SeqCst);
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
        let (command, shown) = self.command(what, token, limit);
        let (bytes, file) = sent(text, input);
        let input = match file {
            Some(file) => Input::BytesThenFile(&bytes, file),
            None => Input::Bytes(&bytes),
        };
        let answer = self.cx.answer_as(&shown, command, input, limit, interruptible)?;
        if let Some(done) = heard(&answer) {
            return Ok(done);
        }
        self.unsettled.store(true, Ordering::SeqCst);
        if answer.cut {
            Ok(answer)
        } else {
            Err(self.trouble(what, answer.code, &answer.stdout, &answer.stderr).into())
        }
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
        let (command, shown) = self.command(what, None, None);
        let bytes = (one_line(&attended(text)) + &one_line(input)).into_bytes();
        let talk = RefCell::new(Talk::default());
        let left = || stop() || talk.borrow().ended.is_some_and(|(_, at)| at.elapsed() > STRAGGLERS);
        let mut hear = |stream, line| {
            let lines = talk.borrow_mut().hear(stream, line);
            for line in lines {
                heard(stream, line);
            }
        };
        let (code, stopped) = self.cx.stream(&shown, command, &bytes, &mut hear, &left)?;
        let talk = talk.into_inner();
        match talk.ended {
            Some((code, _)) => Ok(Some(code)),
            None if stopped => Ok(None),
            None => Err(self.trouble(what, code, "", &talk.before).into()),
        }
    }

    /// Why a script did not come to its end: in the words of the program, where it did not even begin.
    fn trouble(&self, what: &str, code: Option<i32>, stdout: &str, stderr: &str) -> Failure {
        if stdout.contains(super::ssh::READY) || stderr.contains(super::ssh::READY) {
            return trouble::broken(&self.url, what, stderr);
        }
        let program = self.words.join(" ");
        let said = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
        Failure::new(Kind::Remote, format!("{}: `{program}` {}: {said}", self.url, crate::cx::exit(code)))
            .hint(format!("can it be reached? `{program} true`"))
    }
}
