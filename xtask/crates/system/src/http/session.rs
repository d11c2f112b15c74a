//! Requests to one server with a token: retries, redirects, and verified downloads.
//!
//! The token is sent in one header, and only to the hosts that [`Allowed`] permits. Redirects are followed without it, so
//! that storage never sees it (and would reject a signed URL with a token).

use crate::context::{Context, var};
use crate::http::policy;
use crate::http::policy::{Allowed, FailureClass, REDIRECTS_MAX, origin};
use crate::http::{Client, Request, Response, Secret, Url};
use gangplank_model::error::{CliError, Kind, Result, WithHint, failed, not_found, verification};
use gangplank_model::event::{Event, ms_since};
use gangplank_model::release::digest::Hasher;
use serde_json::Value;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// The hint for a rejected token.
pub(crate) const NEW_TOKEN: &str = "it is invalid or expired (at the latest after a year): create a new personal API token at \
     https://app.circleci.com/settings/user/tokens and set CIRCLE_TOKEN";
/// The time limit of a request with all its attempts; for a download, the time without progress.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// The maximum bytes of an API's answer.
const ANSWER_MAX: u64 = 8 << 20;
/// Of a transient error, only the message is read.
const MESSAGE_MAX: u64 = 4096;
/// A longer pause is reported.
const WORTH_A_LINE: Duration = Duration::from_secs(2);

/// A server and the state to talk to it.
pub struct Session<'ctx> {
    ctx: &'ctx Context,
    client: Client,
    token: Secret,
    allowed: Allowed,
    deadline: Duration,
}

/// The complete answer of an API.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// `Content-Type`, without parameters.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

/// The requirements of a download.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// Its description, for messages: `manifest.json of 20260822T101500-1a2b3c4`.
    pub what: &'a str,
    /// The maximum bytes.
    pub most: u64,
    /// The exact bytes and SHA-256.
    pub exactly: Option<(u64, &'a str)>,
}

/// The destination of a download.
pub enum Destination {
    /// A file.
    File(File),
    /// Memory.
    Memory(Vec<u8>),
    /// None: only the digest is wanted.
    Nowhere,
}

/// A failed attempt.
enum Attempt {
    /// The next one may succeed.
    Again { trouble: FailureClass, asked: Option<Duration>, reason: String },
    /// A retry is useless.
    Final(anyhow::Error),
}

/// A download in progress.
struct Coming<'a> {
    want: &'a Want<'a>,
    place: &'a mut Destination,
    hasher: Hasher,
    bytes: u64,
}

/// The time limit of a request with all its attempts.
pub fn deadline(ctx: &Context) -> Result<Duration> {
    let Some(text) = ctx.var(var::API_DEADLINE) else { return Ok(DEADLINE) };
    let seconds = text.parse().with_hint(
        Kind::Usage,
        || format!("{}={text} is not a number of seconds", var::API_DEADLINE),
        || format!("unset {}, or use whole seconds", var::API_DEADLINE),
    )?;
    Ok(Duration::from_secs(seconds))
}

impl<'ctx> Session<'ctx> {
    /// A session with `home` and `token`.
    pub fn new(ctx: &'ctx Context, home: &Url, token: Secret) -> Result<Self> {
        let deadline = deadline(ctx)?;
        let client = Client::patient(SILENCE.min(deadline.max(Duration::from_secs(1))))?;
        Ok(Self { ctx, client, token, allowed: Allowed::new(home), deadline })
    }

    /// A request to an API: a GET, or a POST of `post`. Any status that is not transient is an answer. `repeatable`
    /// means that a retry is harmless.
    pub fn call(&self, url: &Url, post: Option<&Value>, repeatable: bool) -> Result<Reply> {
        let what = format!("{} {}{}", if post.is_some() { "POST" } else { "GET" }, origin(url), url.path());
        self.patiently(&what, repeatable, |_| {
            let answer = match post {
                None => self.follow(url, 0, true)?,
                Some(_) => self.ask(url, post, 0)?,
            };
            if let Some(sunset) = &answer.sunset {
                self.ctx.warn(format!("{what}: CircleCI announces the end of this endpoint ({sunset})"));
            }
            let body = self.whole(answer.body)?;
            if body.len() as u64 > ANSWER_MAX {
                let failure =
                    CliError::new(Kind::Remote, format!("{what}: the answer is longer than {ANSWER_MAX} bytes"));
                return Err(Attempt::Final(failure.hint("check that CIRCLE_HOST is a CircleCI server").into()));
            }
            Ok(Reply { status: answer.status, content_type: answer.content_type, body })
        })
    }

    /// The body of an answer, within the deadline: a server may send single bytes forever.
    fn whole(&self, body: Box<dyn Read>) -> Result<Vec<u8>, Attempt> {
        let (started, mut whole, mut buffer) = (Instant::now(), Vec::new(), vec![0; 16 * 1024]);
        let mut body = body.take(ANSWER_MAX + 1);
        loop {
            self.stop_here().map_err(Attempt::Final)?;
            if started.elapsed() > self.deadline {
                return Err(Attempt::again(FailureClass::Broken, "the answer was not complete in time".into()));
            }
            match body.read(&mut buffer) {
                Ok(0) => return Ok(whole),
                Ok(n) => whole.extend_from_slice(&buffer[..n]),
                Err(e) => return Err(Attempt::again(FailureClass::Broken, format!("the answer broke off: {e}"))),
            }
        }
    }

    /// Downloads into memory.
    pub fn bytes(&self, url: &Url, want: &Want) -> Result<Vec<u8>> {
        let mut place = Destination::Memory(Vec::new());
        self.download(url, want, &mut place)?;
        match place {
            Destination::Memory(bytes) => Ok(bytes),
            Destination::File(_) | Destination::Nowhere => Ok(Vec::new()),
        }
    }

    /// Downloads into a new file, synced on return.
    pub fn file(&self, url: &Url, want: &Want, path: &Path) -> Result<()> {
        let what = || format!("cannot write {}", path.display());
        let hint = || "check free space and permissions: `df -h .`".to_owned();
        let mut place = Destination::File(File::create(path).with_hint(Kind::Failed, what, hint)?);
        self.download(url, want, &mut place)?;
        let Destination::File(file) = place else { return Ok(()) };
        file.sync_all().with_hint(Kind::Failed, what, hint)
    }

    /// Downloads with resume, and verifies size and digest. Returns size and SHA-256.
    pub fn download(&self, url: &Url, want: &Want, place: &mut Destination) -> Result<(u64, String)> {
        let progress = self.ctx.progress("fetching");
        let mut coming = Coming { want, place, hasher: Hasher::default(), bytes: 0 };
        // Only new bytes count as progress: otherwise a file that always ends early would be requested forever.
        let mut furthest = 0;
        self.patiently(&format!("{} from {}", want.what, origin(url)), true, |moved| {
            let answer = self.follow(url, coming.bytes, false)?;
            let (done, came) = coming.take(self.ctx, answer, &progress);
            *moved = came > furthest;
            furthest = furthest.max(came);
            done
        })?;
        Ok((coming.bytes, coming.hasher.hex()))
    }

    /// Retries until success, a final error, or the deadline. Progress resets the deadline.
    fn patiently<T>(
        &self,
        what: &str,
        repeatable: bool,
        mut attempt: impl FnMut(&mut bool) -> Result<T, Attempt>,
    ) -> Result<T> {
        let (mut started, mut tries, mut told) = (Instant::now(), 0, false);
        loop {
            let mut moved = false;
            let (trouble, asked, reason) = match attempt(&mut moved) {
                Ok(done) => return Ok(done),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Again { trouble, asked, reason }) => (trouble, asked, reason),
            };
            if moved {
                (started, tries) = (Instant::now(), 0);
            }
            let left = self.deadline.saturating_sub(started.elapsed());
            let Some(pause) = policy::pause(tries, &trouble, asked, repeatable, left, jitter()) else {
                return Err(self.gave_up(what, &reason, &trouble, asked, tries + 1, repeatable));
            };
            if pause > WORTH_A_LINE && !told {
                self.ctx.note(format!("{what}: {reason}; trying again in {} s", pause.as_secs()));
                told = true;
            }
            self.sleep(pause)?;
            tries += 1;
        }
    }

    fn gave_up(
        &self,
        what: &str,
        reason: &str,
        trouble: &FailureClass,
        asked: Option<Duration>,
        tries: u32,
        repeatable: bool,
    ) -> anyhow::Error {
        let asks = asked.map(|asked| format!(", and asks to wait {} s", asked.as_secs())).unwrap_or_default();
        let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
        let hint = match trouble {
            FailureClass::Status(429) => {
                format!("wait, then run the same command again; {}=SECONDS waits longer", var::API_DEADLINE)
            }
            _ if !repeatable && *trouble != FailureClass::Unsent => {
                "check in CircleCI whether it was done, then run the same command again".into()
            }
            FailureClass::Unsent => "check the network and CIRCLE_HOST, then run the same command again".into(),
            _ => "see https://status.circleci.com, then run the same command again".into(),
        };
        CliError::new(Kind::Remote, self.ctx.scrub(&format!("{what}: {reason}{asks} (tried {times})")))
            .hint(hint)
            .into()
    }

    /// Sleeps, interruptibly.
    fn sleep(&self, pause: Duration) -> Result<()> {
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.stop_here()?;
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }

    fn stop_here(&self) -> Result<()> {
        if self.ctx.interrupted() {
            return failed("stopped by a signal").hint("run the same command again to continue").err();
        }
        Ok(())
    }

    /// One exchange; a transient status is a failed attempt.
    fn ask(&self, url: &Url, post: Option<&Value>, from: u64) -> Result<Response, Attempt> {
        self.stop_here().map_err(Attempt::Final)?;
        if !policy::is_secure(url) {
            return Err(insecure(url));
        }
        let token = self.allowed.holds(url).then_some(&self.token);
        let started = Instant::now();
        let answer = self.client.ask(&Request { url, post, token, from });
        // The path on a host without the token may contain a signature.
        let path = if token.is_some() { url.path() } else { "/..." };
        let command = format!("{} {}{path}", if post.is_some() { "POST" } else { "GET" }, origin(url));
        let ok = answer.as_ref().is_ok_and(|answer| answer.status < 400);
        self.ctx.emit(Event::Ran { command, ms: ms_since(started), ok });
        let answer = answer.map_err(|broken| {
            Attempt::again(if broken.unsent { FailureClass::Unsent } else { FailureClass::Broken }, broken.reason)
        })?;
        if policy::is_passing(answer.status) {
            let asked = answer.retry_after.as_deref().and_then(|text| policy::retry_after(text, self.ctx.now()));
            let mut body = Vec::new();
            let _ = answer.body.take(MESSAGE_MAX).read_to_end(&mut body);
            let message =
                serde_json::from_slice::<Value>(&body).ok().and_then(|it| Some(it["message"].as_str()?.to_owned()));
            let message = message.map(|it| format!(" ({it})")).unwrap_or_default();
            let reason = format!("{} answered {}{message}", origin(url), answer.status);
            return Err(Attempt::Again { trouble: FailureClass::Status(answer.status), asked, reason });
        }
        Ok(answer)
    }

    /// A GET that follows redirects itself, because each hop decides again about the token. `at_home`: the answer
    /// decides what is trusted, so no other server may give it.
    fn follow(&self, url: &Url, from: u64, at_home: bool) -> Result<Response, Attempt> {
        let mut seen = vec![url.clone()];
        loop {
            let here = seen.last().unwrap_or(url);
            let answer = self.ask(here, None, from)?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer.location.unwrap_or_default();
            let Ok(next) = here.join(&location) else {
                return Err(Attempt::redirected(here, "to an invalid URL"));
            };
            if location.is_empty() || seen.contains(&next) || seen.len() > REDIRECTS_MAX {
                return Err(Attempt::redirected(here, "in a loop"));
            }
            if at_home && !self.allowed.holds(&next) {
                return Err(Attempt::redirected(here, &format!("to {}, another server", origin(&next))));
            }
            if !policy::is_secure(&next) || here.scheme() == "https" && next.scheme() != "https" {
                return Err(Attempt::redirected(here, &format!("to {}, which is not https", origin(&next))));
            }
            seen.push(next);
        }
    }
}

/// The error of an unencrypted request to another machine.
fn insecure(url: &Url) -> Attempt {
    let what = format!("{} is neither https nor this machine", origin(url));
    Attempt::Final(gangplank_model::error::usage(what).hint("use https: nothing is sent unencrypted").into())
}

impl Attempt {
    fn again(trouble: FailureClass, reason: String) -> Self {
        Self::Again { trouble, asked: None, reason }
    }

    fn redirected(from: &Url, how: &str) -> Self {
        let failure = CliError::new(Kind::Remote, format!("{} redirects {how}", origin(from)));
        Self::Final(failure.hint("check that CIRCLE_HOST is a CircleCI server; the answer was ignored").into())
    }
}

impl Coming<'_> {
    /// Reads an answer, and reports its progress. Bytes before an interruption are kept, for the next attempt to
    /// resume.
    fn take(&mut self, ctx: &Context, answer: Response, progress: &dyn Fn(u64, u64)) -> (Result<(), Attempt>, u64) {
        let taken = self.begin(&answer).and_then(|()| self.read(ctx, answer, progress));
        (taken, self.bytes)
    }

    /// Whether an answer continues at our position; otherwise the download restarts.
    fn begin(&mut self, answer: &Response) -> Result<(), Attempt> {
        let what = self.want.what;
        match answer.status {
            206 if answer.content_range.as_deref().and_then(policy::range_start) == Some(self.bytes) => {}
            // Another range, or a server without ranges: restart.
            200 | 206 if self.bytes == 0 || answer.status == 200 => self.restart()?,
            206 => {
                self.restart()?;
                return Err(Attempt::again(
                    FailureClass::Broken,
                    "the server sent another range than requested".into(),
                ));
            }
            416 if self.bytes > 0 => {
                let ended = format!("it ended after {} bytes", self.bytes);
                self.restart()?;
                return Err(Attempt::again(FailureClass::Broken, ended));
            }
            401 => {
                let failure = CliError::new(Kind::Auth, format!("{what}: the token is rejected (401)"));
                return Err(Attempt::Final(failure.hint(NEW_TOKEN).into()));
            }
            status => {
                let failure = not_found(format!("{what}: the server answered {status}"));
                let hint = "build the commit again: CircleCI keeps artifacts for 30 days at most";
                return Err(Attempt::Final(failure.hint(hint).into()));
            }
        }
        Ok(())
    }

    fn read(&mut self, ctx: &Context, answer: Response, progress: &dyn Fn(u64, u64)) -> Result<(), Attempt> {
        let total = self.want.exactly.map_or(0, |(bytes, _)| bytes);
        let (mut body, mut buffer) = (answer.body, vec![0; 128 * 1024]);
        loop {
            if ctx.interrupted() {
                let failure = failed("stopped by a signal").hint("run the same command again to continue");
                return Err(Attempt::Final(failure.into()));
            }
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(_) if total > 0 && self.bytes == total => break,
                Err(e) => return Err(Attempt::again(FailureClass::Broken, format!("it broke off: {e}"))),
            };
            self.add(&buffer[..n])?;
            if total > 0 {
                progress(self.bytes, total);
            }
        }
        self.check()
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Attempt> {
        let most = self.want.exactly.map_or(self.want.most, |(bytes, _)| bytes);
        if self.bytes + bytes.len() as u64 > most {
            let failure = verification(format!("{}: it has more than {most} bytes", self.want.what));
            return Err(Attempt::Final(
                failure.hint("build it again, do not deploy it: the release is damaged").into(),
            ));
        }
        let written = match self.place {
            Destination::File(file) => file.write_all(bytes),
            Destination::Memory(memory) => {
                memory.extend_from_slice(bytes);
                Ok(())
            }
            Destination::Nowhere => Ok(()),
        };
        written.map_err(|e| disk(self.want.what, &e))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Attempt> {
        (self.hasher, self.bytes) = (Hasher::default(), 0);
        match self.place {
            Destination::File(file) => {
                file.set_len(0).and_then(|()| file.rewind()).map_err(|e| disk(self.want.what, &e))?;
            }
            Destination::Memory(memory) => memory.clear(),
            Destination::Nowhere => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Attempt> {
        let Some((bytes, sha256)) = self.want.exactly else { return Ok(()) };
        if self.bytes < bytes {
            return Err(Attempt::again(
                FailureClass::Broken,
                format!("it ended after {} of {bytes} bytes", self.bytes),
            ));
        }
        let got = self.hasher.clone().hex();
        if got != sha256 {
            let failure = verification(format!("{}: its SHA-256 is {got}, not {sha256}", self.want.what));
            return Err(Attempt::Final(
                failure.hint("build it again, do not deploy it: the release is damaged").into(),
            ));
        }
        Ok(())
    }
}

fn disk(what: &str, cause: &std::io::Error) -> Attempt {
    Attempt::Final(failed(format!("{what}: cannot write it: {cause}")).hint("check free space: `df -h .`").into())
}

/// A number in 0 to 1 that differs between processes.
fn jitter() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}
