//! Waiting until a service is healthy, or knowing early that it never will be.

use crate::cx::Cx;
use crate::error::Result;
use crate::http::{self, Client};
use crate::project::{Check, Health};
use crate::release::id::ReleaseId;
use crate::service::{Script, Spec};
use crate::target::{Target, script};
use serde::{Deserialize, Serialize};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Stands for the host of each target.
const HOST: &str = "{host}";
/// No request may take longer than this, or one hung answer would eat the deadline.
const ONE_ANSWER: Duration = Duration::from_secs(5);
/// Even at its deadline a check may take this long: a service gets one fair question.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long a unit of systemd has to stay up where nothing else is asked.
const STAYS_UP: Duration = Duration::from_secs(5);

/// A health check with everything filled in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checker {
    question: Question,
    #[serde(skip)]
    client: Option<Client>,
    deadline: Duration,
    interval: Duration,
    passes: u32,
    /// Whether the service is asked too whether it runs.
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
    /// Fills in the variables of a check. Fails before anything is touched when one is missing or a URL is wrong.
    pub fn new(cx: &Cx, health: &Health, spec: &Spec) -> Result<Self> {
        let question = match health.check {
            Check::None => Question::None,
            Check::Http { url, status, body } => {
                let url = cx.expand(url)?;
                http::url(&url.replace(HOST, "localhost"))?;
                Question::Http { url, status, body: body.map(str::to_owned) }
            }
            Check::Tcp { addr } => Question::Tcp { addr: cx.expand(addr)? },
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

    /// The check of a release that is put back, as it was kept when that release became healthy; nobody may interrupt
    /// it. Without one it is this check.
    #[must_use]
    pub fn as_kept(&self, kept: &str) -> Self {
        let old: Self = serde_json::from_str(kept).unwrap_or_else(|_| self.clone());
        let asks = matches!(old.question, Question::Http { .. });
        let client = self.client.clone().or_else(|| if asks { Client::new().ok() } else { None });
        Self { interruptible: false, client, ..old }
    }

    /// The check as text, to be kept.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a check has no maps with odd keys")
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
            let left = self.deadline.saturating_sub(started.elapsed()).max(SHORTEST);
            let else_asked = !matches!(self.question, Question::None);
            let running = if self.with_service { runs(target, spec, else_asked, None) } else { Ok(()) };
            let asked = running.and_then(|()| self.ask(target, commit, left).map_err(Sick::Now));
            // Something else may have answered while the service ended.
            let last = asked.is_ok() && passes + 1 >= self.passes && else_asked && self.with_service;
            match if last { runs(target, spec, else_asked, self.port(target)) } else { asked } {
                Ok(()) => passes += 1,
                Err(Sick::ForEver(why)) => return Err(format!("{release} stopped by itself: {why}")),
                Err(Sick::Now(why)) if started.elapsed() >= self.deadline => {
                    return Err(format!("{release} was not healthy within {:?}: {why}", self.deadline));
                }
                Err(Sick::Now(_)) => passes = 0,
            }
            if self.interruptible && cx.interrupted() {
                return Err("stopped while waiting for the health check".into());
            }
            // What crashes a second after its start looks well at first.
            let long_enough = else_asked || !matches!(spec, Spec::Systemd(_)) || started.elapsed() >= STAYS_UP;
            if (passes >= self.passes && long_enough) || (!else_asked && !self.with_service) {
                return Ok(());
            }
            std::thread::sleep(self.interval);
        }
    }

    /// The port that is asked, where it is one of the target itself.
    fn port(&self, target: &dyn Target) -> Option<u16> {
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
        // A name of this machine means the target only where the target is this machine.
        (host == target.host() || (is_loopback(&host) && is_loopback(target.host()))).then_some(port)
    }

    /// Asks once.
    pub fn once(&self, target: &dyn Target, commit: Option<&str>) -> Result<(), String> {
        self.ask(target, commit, ONE_ANSWER)
    }

    /// The address that is asked, where something answers there. A proxy says with 5xx that nothing is behind it.
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
                        .called("check the health");
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

    fn ask_http(&self, url: &str, status: u16, body: Option<&str>, commit: Option<&str>) -> Result<(), String> {
        let Some(client) = &self.client else { return Err("no HTTP client".into()) };
        let response = client.get(url, ONE_ANSWER).map_err(|why| format!("GET {url}: {why}"))?;
        if response.status != status {
            return Err(format!(
                "GET {url} answered {}, not {status}: {}",
                response.status,
                first_line(&response.body)
            ));
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
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// An address with the host in its place, in brackets where a colon follows colons.
fn at(address: &str, host: &str) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    address.replace(HOST, &host)
}

/// Whether the service itself says that it runs. What will not come back by itself is not waited for.
fn runs(target: &dyn Target, spec: &Spec, else_asked: bool, port: Option<u16>) -> Result<(), Sick> {
    let Some(status) = spec.status(target.root(), else_asked, port) else { return Ok(()) };
    let answer = target.run(&status).map_err(|e| Sick::Now(format!("{e:#}")))?;
    let said = answer.stdout.trim();
    match spec {
        _ if answer.ok() => Ok(()),
        _ if spec.is_gone(answer.code) => Err(Sick::ForEver(said.to_owned())),
        Spec::Keeper { .. } | Spec::Systemd(_) => Err(Sick::Now(said.to_owned())),
        _ => Err(Sick::Now(format!("its status command {}: {said}", crate::cx::exit(answer.code)))),
    }
}

/// Why a service is not healthy.
enum Sick {
    /// It may still become so.
    Now(String),
    /// It never will.
    ForEver(String),
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

#[cfg(test)]
mod tests {
    use super::at;

    #[test]
    fn the_host_in_an_address() {
        assert_eq!(at("http://{host}:80/x", "web1"), "http://web1:80/x");
        assert_eq!(at("{host}:80", "fe80::1"), "[fe80::1]:80");
        assert_eq!(at("127.0.0.1:80", "web1"), "127.0.0.1:80");
    }
}
