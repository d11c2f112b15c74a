//! Waits until a service is healthy, or fails early if it never will be.

use crate::host::Target;
use gangplank_model::error::Result;
use gangplank_model::project::{Check, Health};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::script;
use gangplank_model::service::Spec;
use gangplank_model::service::run::Script;
use gangplank_system::context::Context;
use gangplank_system::http;
use gangplank_system::http::Client;
use serde::{Deserialize, Serialize};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The placeholder for the host of each target.
const HOST: &str = "{host}";
/// The time limit of a request, so that a hung one does not use up the deadline.
const ONE_ANSWER: Duration = Duration::from_secs(5);
/// The shortest time of a request, even at the deadline.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long a systemd unit has to stay up if there is no other check.
const STAYS_UP: Duration = Duration::from_secs(5);

/// The pause before an ended service is restarted.
const BEFORE_START: Duration = Duration::from_millis(500);

/// Linux keeps the address of a closed connection for 60 s (`TCP_TIMEWAIT_LEN`). The restart of a reverted release is
/// retried for that long, whatever its deadline.
const ADDRESS_IN_USE: Duration = Duration::from_secs(75);

/// A health check with its variables expanded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checker {
    question: Question,
    #[serde(skip)]
    client: Option<Client>,
    deadline: Duration,
    interval: Duration,
    passes: u32,
    /// Whether the service's own status is checked too.
    with_service: bool,
    #[serde(skip)]
    interruptible: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Question {
    None,
    Http { url: String, status: u16, body: Option<String> },
    Tcp { addr: String },
    Command(String),
}

impl Checker {
    /// Expands the variables of a check. Fails before any change if one is missing or a URL is invalid.
    pub fn new(ctx: &Context, health: &Health, spec: &Spec) -> Result<Self> {
        let question = match health.check {
            Check::None => Question::None,
            Check::Http { url, status, body } => {
                let url = ctx.expand(url)?;
                http::url(&url.replace(HOST, "localhost"))?;
                Question::Http { url, status, body: body.map(str::to_owned) }
            }
            Check::Tcp { addr } => Question::Tcp { addr: ctx.expand(addr)? },
            Check::Command(command) => Question::Command(command.to_owned()),
        };
        let client = if matches!(question, Question::Http { .. }) { Some(Client::new()?) } else { None };
        Ok(Self {
            client,
            question,
            deadline: health.deadline,
            interval: health.interval,
            passes: health.passes.max(1),
            with_service: *spec != Spec::None,
            interruptible: true,
        })
    }

    /// The stored check of the release to revert to; not interruptible. Falls back to this check.
    #[must_use]
    pub(crate) fn as_kept(&self, kept: &str) -> Self {
        let old: Self = serde_json::from_str(kept).unwrap_or_else(|_| self.clone());
        let asks = matches!(old.question, Question::Http { .. });
        let client = self.client.clone().or_else(|| if asks { Client::new().ok() } else { None });
        Self { interruptible: false, client, ..old }
    }

    /// The check as JSON, to be stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a check has no maps with odd keys")
    }

    /// Checks until enough passes in a row. The error is the reason to print.
    pub fn wait(
        &self,
        ctx: &Context,
        target: &dyn Target,
        spec: &Spec,
        release: &ReleaseId,
        commit: Option<&str>,
    ) -> Result<(), String> {
        let started = Instant::now();
        let (mut passes, mut in_use, mut told) = (0, false, false);
        loop {
            let left = self.deadline.saturating_sub(started.elapsed()).max(SHORTEST);
            let else_asked = !matches!(self.question, Question::None);
            let running =
                if self.with_service { runs(target, spec, else_asked, (self.port(target), false)) } else { Ok(()) };
            let asked = running.and_then(|()| self.ask(target, commit, left).map_err(Sick::Now));
            // Another process may have answered while the service ended.
            let last = asked.is_ok() && passes + 1 >= self.passes && else_asked && self.with_service;
            match if last { runs(target, spec, else_asked, (self.port(target), true)) } else { asked } {
                Ok(()) => passes += 1,
                Err(sick) => {
                    passes = 0;
                    in_use |= Spec::is_address_in_use(sick.reason());
                    match self.next(&sick, in_use, started.elapsed()) {
                        Next::Wait => {}
                        Next::StartAgain => {
                            let reason = sick.reason();
                            if !std::mem::replace(&mut told, true) {
                                ctx.note(format!("{}: {release} ended; restarting it: {reason}", target.url()));
                            }
                            std::thread::sleep(BEFORE_START);
                            start_again(target, spec, release)?;
                        }
                        Next::GiveUp => return Err(self.reason(release, &sick)),
                    }
                }
            }
            if self.interruptible && ctx.interrupted() {
                return Err("stopped while waiting for the health check".into());
            }
            // A service that crashes a second after its start looks healthy at first.
            let long_enough = else_asked || !matches!(spec, Spec::Systemd(_)) || started.elapsed() >= STAYS_UP;
            if (passes >= self.passes && long_enough) || (!else_asked && !self.with_service) {
                return Ok(());
            }
            std::thread::sleep(self.interval);
        }
    }

    /// What to do about an unhealthy service. A reverted release was healthy once, so its start is retried while there
    /// is time; a new one only if its address was in use.
    fn next(&self, sick: &Sick, in_use: bool, elapsed: Duration) -> Next {
        let reverts = !self.interruptible;
        let limit = if reverts && in_use { self.deadline.max(ADDRESS_IN_USE) } else { self.deadline };
        match sick {
            Sick::ForEver(_) if (reverts || in_use) && elapsed < limit => Next::StartAgain,
            Sick::Now(_) if elapsed < limit => Next::Wait,
            Sick::ForEver(_) | Sick::Now(_) => Next::GiveUp,
        }
    }

    fn reason(&self, release: &ReleaseId, sick: &Sick) -> String {
        match sick {
            Sick::ForEver(reason) => format!("{release} stopped by itself: {reason}"),
            Sick::Now(reason) => format!("{release} was not healthy within {:?}: {reason}", self.deadline),
        }
    }

    /// The checked port, if it is one of the target.
    pub fn port(&self, target: &dyn Target) -> Option<u16> {
        let (host, port) = match &self.question {
            Question::Http { url, .. } => {
                let url = http::url(&at(url, target.host())).ok()?;
                (url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?)
            }
            Question::Tcp { addr } => {
                let addr = at(addr, target.host());
                let (host, port) = addr.rsplit_once(':')?;
                (host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?)
            }
            Question::None | Question::Command(_) => return None,
        };
        // A loopback name means the target only if the target is this machine.
        (host == target.host() || (is_loopback(&host) && is_loopback(target.host()))).then_some(port)
    }

    /// Checks once.
    pub fn once(&self, target: &dyn Target, commit: Option<&str>) -> Result<(), String> {
        self.ask(target, commit, ONE_ANSWER)
    }

    /// The checked address, if something answers there. A proxy without a backend answers with 5xx, which does not
    /// count.
    pub fn answered(&self, target: &dyn Target) -> Option<String> {
        let address = match &self.question {
            Question::Http { url, .. } => at(url, target.host()),
            Question::Tcp { addr } => at(addr, target.host()),
            Question::None | Question::Command(_) => return None,
        };
        let answers = match &self.client {
            Some(client) => client.get(&address, ONE_ANSWER).is_ok_and(|response| response.status < 500),
            None => ask_tcp(&address).is_ok(),
        };
        answers.then_some(address)
    }

    fn ask(&self, target: &dyn Target, commit: Option<&str>, left: Duration) -> Result<(), String> {
        match &self.question {
            Question::None => Ok(()),
            Question::Http { url, status, body } => {
                self.ask_http(&at(url, target.host()), *status, body.as_deref(), commit)
            }
            Question::Tcp { addr } => ask_tcp(&at(addr, target.host())),
            Question::Command(command) => {
                let text = script::in_current(target.root(), command);
                let script =
                    Script { limit: left, interruptible: self.interruptible, ..Script::new(text, String::new()) }
                        .of_project()
                        .called("check the health");
                let answer = target.run(&script).map_err(|e| format!("{e:#}"))?;
                let said = if answer.stderr.trim().is_empty() { answer.stdout } else { answer.stderr };
                if answer.code == Some(0) {
                    Ok(())
                } else {
                    let exit = gangplank_system::context::exit(answer.code);
                    let said = if said.trim().is_empty() { "no output" } else { said.trim() };
                    Err(format!("`{command}` {exit}: {said}"))
                }
            }
        }
    }

    fn ask_http(&self, url: &str, status: u16, body: Option<&str>, commit: Option<&str>) -> Result<(), String> {
        let Some(client) = &self.client else { return Err("no HTTP client".into()) };
        let response = client.get(url, ONE_ANSWER).map_err(|reason| format!("GET {url}: {reason}"))?;
        if response.status != status {
            return Err(format!(
                "GET {url} answered {}, not {status}: {}",
                response.status,
                first_line(&response.body)
            ));
        }
        let Some(body) = body else { return Ok(()) };
        // A release deployed by another tool may have no known commit; then any commit is accepted.
        let want = body.replace("{commit}", commit.unwrap_or_default());
        if response.body.contains(&want) {
            Ok(())
        } else {
            Err(format!("GET {url} does not contain `{want}`: {}", first_line(&response.body)))
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// An address with its host filled in, in brackets if it is IPv6.
fn at(address: &str, host: &str) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    address.replace(HOST, &host)
}

/// Whether the service's own status says that it runs; fails at once if it will not come back.
fn runs(target: &dyn Target, spec: &Spec, else_asked: bool, (port, last): (Option<u16>, bool)) -> Result<(), Sick> {
    let Some(status) = spec.status(target.root(), else_asked, port, last) else { return Ok(()) };
    let answer = target.run(&status).map_err(|e| Sick::Now(format!("{e:#}")))?;
    let said = answer.stdout.trim().replace('\n', ", ");
    match spec {
        _ if answer.ok() => Ok(()),
        _ if spec.is_gone(answer.code) => Err(Sick::ForEver(said)),
        Spec::Pidfile { .. } | Spec::Systemd(_) => Err(Sick::Now(said)),
        _ => Err(Sick::Now(format!("its status command {}: {said}", gangplank_system::context::exit(answer.code)))),
    }
}

/// Restarts an ended service.
fn start_again(target: &dyn Target, spec: &Spec, release: &ReleaseId) -> Result<(), String> {
    let Some(script) = spec.start_again(target.root(), release) else { return Ok(()) };
    let answer = target.run(&script).map_err(|error| format!("{error:#}"))?;
    if answer.ok() { Ok(()) } else { Err(format!("{release} cannot be restarted: {}", answer.stderr.trim())) }
}

/// A hint for a known reason of an unhealthy service.
pub fn hint(reason: &str) -> Option<&'static str> {
    Spec::is_address_in_use(reason).then_some(
        "find the program that has it with `ss -ltnp` on that host; if there is none, the system keeps it for a minute after connections \
         were closed: let the app set SO_REUSEADDR, or give the check a `deadline` of more than 60 s",
    )
}

/// Why a service is unhealthy.
#[derive(Debug)]
enum Sick {
    /// It may still become healthy.
    Now(String),
    /// It has ended, and will not come back by itself.
    ForEver(String),
}

impl Sick {
    fn reason(&self) -> &str {
        match self {
            Self::Now(reason) | Self::ForEver(reason) => reason,
        }
    }
}

/// What to do about an unhealthy service.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Check again.
    Wait,
    /// Restart it.
    StartAgain,
    /// Fail.
    GiveUp,
}

fn first_line(body: &str) -> String {
    body.trim().lines().next().unwrap_or("an empty body").chars().take(120).collect()
}

fn ask_tcp(addr: &str) -> Result<(), String> {
    let mut last = format!("{addr}: unknown address");
    for socket in addr.to_socket_addrs().map_err(|e| format!("{addr}: {e}"))? {
        match TcpStream::connect_timeout(&socket, ONE_ANSWER) {
            Ok(_) => return Ok(()),
            Err(e) => last = format!("connect to {socket}: {e}"),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_end_are_started_again_within_the_deadline() {
        let checker = |interruptible| Checker {
            question: Question::None,
            client: None,
            deadline: Duration::from_secs(30),
            interval: Duration::from_millis(250),
            passes: 2,
            with_service: true,
            interruptible,
        };
        let (new, old) = (checker(true), checker(false));
        let ended = || Sick::ForEver("exit code 1".into());
        let starting = || Sick::Now("connection refused".into());
        for (checker, sick, in_use, seconds, next) in [
            (&new, starting(), false, 29, Next::Wait),
            (&new, starting(), false, 30, Next::GiveUp),
            (&new, ended(), false, 0, Next::GiveUp),
            (&new, ended(), true, 29, Next::StartAgain),
            (&new, ended(), true, 30, Next::GiveUp),
            (&old, ended(), false, 29, Next::StartAgain),
            (&old, ended(), false, 30, Next::GiveUp),
            (&old, ended(), true, 74, Next::StartAgain),
            (&old, ended(), true, 75, Next::GiveUp),
            (&old, starting(), false, 30, Next::GiveUp),
            (&old, starting(), true, 74, Next::Wait),
        ] {
            let found = checker.next(&sick, in_use, Duration::from_secs(seconds));
            assert_eq!(found, next, "{sick:?}, address in use: {in_use}, after {seconds} s");
        }
    }

    #[test]
    fn at_replaces_host_and_brackets_ipv6() {
        assert_eq!(at("http://{host}:80/x", "web1"), "http://web1:80/x");
        assert_eq!(at("{host}:80", "fe80::1"), "[fe80::1]:80");
        assert_eq!(at("127.0.0.1:80", "web1"), "127.0.0.1:80");
    }
}
