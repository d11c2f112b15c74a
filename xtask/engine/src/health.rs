//! Waiting until a service is healthy, or knowing early that it never will be.

use crate::cx::Cx;
use crate::error::Result;
use crate::http;
use crate::project::{Check, Health};
use crate::release::id::ReleaseId;
use crate::service::{Script, Spec};
use crate::target::{Target, script};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// No single question may take longer than this, or one hung answer would eat the deadline.
const ONE_ANSWER: Duration = Duration::from_secs(5);

/// A health check with everything filled in.
#[derive(Debug, Clone)]
pub struct Checker {
    question: Question,
    deadline: Duration,
    interval: Duration,
    passes: u32,
    interruptible: bool,
}

#[derive(Debug, Clone)]
enum Question {
    None,
    Http { url: String, status: u16, body: Option<String> },
    Tcp { addr: String },
    Command(String),
}

impl Checker {
    /// Fills in the variables of a check. Fails before anything is touched when one is missing or a URL is wrong.
    pub fn new(cx: &Cx, health: &Health) -> Result<Self> {
        let question = match health.check {
            Check::None => Question::None,
            Check::Http { url, status, body } => {
                let url = cx.expand(url)?;
                http::check_url(&url)?;
                Question::Http { url, status, body: body.map(str::to_owned) }
            }
            Check::Tcp { addr } => Question::Tcp { addr: cx.expand(addr)? },
            Check::Command(command) => Question::Command(command.to_owned()),
        };
        Ok(Self {
            question,
            deadline: health.deadline,
            interval: health.interval,
            passes: health.passes.max(1),
            interruptible: true,
        })
    }

    /// The same check for a release that is put back: nobody may interrupt that one.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { interruptible: false, ..self.clone() }
    }

    /// Asks until there were enough passes in a row. The error is the reason to show.
    pub fn wait(
        &self,
        cx: &Cx,
        target: &dyn Target,
        spec: &Spec,
        release: &ReleaseId,
        commit: Option<&str>,
    ) -> Result<(), String> {
        let started = Instant::now();
        let mut passes = 0;
        loop {
            if let Some(status) = spec.status(target.root()) {
                let answer = target.run(&status).map_err(|e| format!("{e:#}"))?;
                // The keeper restarts nothing: a process that ended stays ended, so waiting on would be in vain.
                if !answer.ok() && matches!(spec, Spec::Keeper { .. }) {
                    return Err(format!("{release} stopped by itself: {}", answer.stdout.trim()));
                }
            }
            match self.ask(target, commit) {
                Ok(()) => passes += 1,
                Err(why) if started.elapsed() >= self.deadline => {
                    return Err(format!("{release} was not healthy within {} s: {why}", self.deadline.as_secs()));
                }
                Err(_) => passes = 0,
            }
            if passes >= self.passes || matches!(self.question, Question::None) {
                return Ok(());
            }
            if self.interruptible && cx.interrupted() {
                return Err("stopped while waiting for the health check".into());
            }
            std::thread::sleep(self.interval);
        }
    }

    fn ask(&self, target: &dyn Target, commit: Option<&str>) -> Result<(), String> {
        match &self.question {
            Question::None => Ok(()),
            Question::Http { url, status, body } => ask_http(url, *status, body.as_deref(), commit),
            Question::Tcp { addr } => ask_tcp(addr),
            Question::Command(command) => {
                let script = Script { text: script::in_current(target.root(), command), stdin: String::new() };
                let answer = target.run(&script).map_err(|e| format!("{e:#}"))?;
                let said = if answer.stderr.trim().is_empty() { answer.stdout } else { answer.stderr };
                if answer.code == Some(0) {
                    Ok(())
                } else {
                    Err(format!("`{command}` {}: {}", crate::cx::exit(answer.code), said.trim()))
                }
            }
        }
    }
}

fn ask_http(url: &str, status: u16, body: Option<&str>, commit: Option<&str>) -> Result<(), String> {
    let response = http::get(url, ONE_ANSWER).map_err(|why| format!("GET {url}: {why}"))?;
    if response.status != status {
        return Err(format!("GET {url} answered {}, not {status}: {}", response.status, first_line(&response.body)));
    }
    let Some(body) = body else { return Ok(()) };
    // A release put there before us may have no known commit; then any commit will do.
    let want = body.replace("{commit}", commit.unwrap_or_default());
    if response.body.contains(&want) {
        Ok(())
    } else {
        Err(format!("GET {url} does not hold `{want}`: {}", first_line(&response.body)))
    }
}

fn first_line(body: &str) -> String {
    body.trim().lines().next().unwrap_or("an empty body").chars().take(120).collect()
}

fn ask_tcp(addr: &str) -> Result<(), String> {
    let mut last = format!("{addr}: no such address");
    for socket in addr.to_socket_addrs().map_err(|e| format!("{addr}: {e}"))? {
        match TcpStream::connect_timeout(&socket, ONE_ANSWER) {
            Ok(_) => return Ok(()),
            Err(e) => last = format!("connect to {socket}: {e}"),
        }
    }
    Err(last)
}
