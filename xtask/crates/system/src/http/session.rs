//! Talking to one server with a token: patience, redirects by hand, and downloads that are checked as they come.
//!
//! The token goes into one header, and only to the hosts that [`Allowed`] holds. Redirects are followed without it, so
//! storage that a server points at never sees it (and would refuse a signed URL that comes with one).

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

/// What to do about a token that is not accepted.
pub const NEW_TOKEN: &str = "it is wrong, or expired (at the latest after a year): make a new personal API token at \
     https://app.circleci.com/settings/user/tokens and set CIRCLE_TOKEN";
/// How long a question may take with all its attempts; for a download, how long it may stand still.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// No answer of an API is longer.
const ANSWER_MAX: u64 = 8 << 20;
/// Of an answer that means "later" only its message is read.
const MESSAGE_MAX: u64 = 4096;
/// A pause that is longer than this is worth a line.
const WORTH_A_LINE: Duration = Duration::from_secs(2);

/// A server and what it takes to talk to it.
pub struct Session<'ctx> {
    ctx: &'ctx Context,
    client: Client,
    token: Secret,
    allowed: Allowed,
    deadline: Duration,
}

/// What an API answered, whole.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// `Content-Type`, without parameters.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What a download must be.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// What it is, for messages: `manifest.json of 20260822T101500-1a2b3c4`.
    pub what: &'a str,
    /// No more than so many bytes.
    pub most: u64,
    /// So many bytes and this SHA-256.
    pub exactly: Option<(u64, &'a str)>,
}

/// Where a download goes.
pub enum Destination {
    /// Into a file.
    File(File),
    /// Into memory.
    Memory(Vec<u8>),
    /// Nowhere: only its digest is wanted.
    Nowhere,
}

/// An attempt that failed.
enum Attempt {
    /// The next one may do better.
    Again { trouble: FailureClass, asked: Option<Duration>, reason: String },
    /// There is no use in trying again.
    Final(anyhow::Error),
}

/// A download on its way.
struct Coming<'a> {
    want: &'a Want<'a>,
    place: &'a mut Destination,
    hasher: Hasher,
    bytes: u64,
}

/// How long a question may take with all its attempts.
pub fn deadline(ctx: &Context) -> Result<Duration> {
    let Some(text) = ctx.var(var::API_DEADLINE) else { return Ok(DEADLINE) };
    let seconds = text.parse().with_hint(
        Kind::Usage,
        || format!("{}={text} is no number of seconds", var::API_DEADLINE),
        || format!("unset {}, or give whole seconds", var::API_DEADLINE),
    )?;
    Ok(Duration::from_secs(seconds))
}

impl<'ctx> Session<'ctx> {
    /// Talks to `home` with `token`.
    pub fn new(ctx: &'ctx Context, home: &Url, token: Secret) -> Result<Self> {
        let deadline = deadline(ctx)?;
        let client = Client::patient(SILENCE.min(deadline.max(Duration::from_secs(1))))?;
        Ok(Self { ctx, client, token, allowed: Allowed::new(home), deadline })
    }

    /// A question to an API: a GET, or a POST of `post`. Any status that is not passing is an answer. `repeatable` says
    /// that asking twice does no harm.
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
                return Err(Attempt::Final(failure.hint("is CIRCLE_HOST a CircleCI?").into()));
            }
            Ok(Reply { status: answer.status, content_type: answer.content_type, body })
        })
    }

    /// The body of an answer, within the deadline: a server may send a byte now and then for ever.
    fn whole(&self, body: Box<dyn Read>) -> Result<Vec<u8>, Attempt> {
        let (started, mut whole, mut buffer) = (Instant::now(), Vec::new(), vec![0; 16 * 1024]);
        let mut body = body.take(ANSWER_MAX + 1);
        loop {
            self.stop_here().map_err(Attempt::Final)?;
            if started.elapsed() > self.deadline {
                return Err(Attempt::again(FailureClass::Broken, "the answer did not come to its end in time".into()));
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

    /// Downloads into a new file, which is on the disk when this returns.
    pub fn file(&self, url: &Url, want: &Want, path: &Path) -> Result<()> {
        let what = || format!("cannot write {}", path.display());
        let hint = || "check free space and permissions: `df -h .`".to_owned();
        let mut place = Destination::File(File::create(path).with_hint(Kind::Failed, what, hint)?);
        self.download(url, want, &mut place)?;
        let Destination::File(file) = place else { return Ok(()) };
        file.sync_all().with_hint(Kind::Failed, what, hint)
    }

    /// Downloads, goes on where a connection broke off, and checks size and digest. Gives size and SHA-256.
    pub fn download(&self, url: &Url, want: &Want, place: &mut Destination) -> Result<(u64, String)> {
        let progress = self.ctx.progress("fetching");
        let mut coming = Coming { want, place, hasher: Hasher::default(), bytes: 0 };
        // Only what was never there before counts: a file that always ends early would be asked for without end.
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

    /// Tries until it works, is final, or the deadline is near. An attempt that tells that it moved starts the clock
    /// anew.
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
                format!(
                    "too many questions: wait, then run the same command again; {}=SECONDS waits longer",
                    var::API_DEADLINE
                )
            }
            _ if !repeatable && *trouble != FailureClass::Unsent => {
                "nobody knows whether it was done: look at the project in CircleCI, then run the same command again"
                    .into()
            }
            FailureClass::Unsent => "check the network and CIRCLE_HOST, then run the same command again".into(),
            _ => "see https://status.circleci.com, then run the same command again".into(),
        };
        CliError::new(Kind::Remote, self.ctx.scrub(&format!("{what}: {reason}{asks} (tried {times})")))
            .hint(hint)
            .into()
    }

    /// Sleeps, but not through a signal.
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
            return failed("stopped by a signal").hint("run the same command again to go on").err();
        }
        Ok(())
    }

    /// One exchange; a passing status is a failed attempt.
    fn ask(&self, url: &Url, post: Option<&Value>, from: u64) -> Result<Response, Attempt> {
        self.stop_here().map_err(Attempt::Final)?;
        if !policy::is_secure(url) {
            return Err(insecure(url));
        }
        let token = self.allowed.holds(url).then_some(&self.token);
        let started = Instant::now();
        let answer = self.client.ask(&Request { url, post, token, from });
        // The path of a host that may not see the token can be a signed one.
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

    /// A GET that follows redirects by hand, since each hop decides anew whether it may see the token. `at_home`: what is
    /// asked decides what is trusted, so nobody else may answer it.
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
                return Err(Attempt::redirected(here, "to something that is no URL"));
            };
            if location.is_empty() || seen.contains(&next) || seen.len() > REDIRECTS_MAX {
                return Err(Attempt::redirected(here, "in a loop"));
            }
            if at_home && !self.allowed.holds(&next) {
                return Err(Attempt::redirected(here, &format!("a question to {}, another server", origin(&next))));
            }
            if !policy::is_secure(&next) || here.scheme() == "https" && next.scheme() != "https" {
                return Err(Attempt::redirected(here, &format!("to {}, which is not https", origin(&next))));
            }
            seen.push(next);
        }
    }
}

/// A request that would leave the machine in the clear.
fn insecure(url: &Url) -> Attempt {
    let what = format!("{} is neither https nor this machine", origin(url));
    Attempt::Final(gangplank_model::error::usage(what).hint("use https: nothing is sent in the clear").into())
}

impl Attempt {
    fn again(trouble: FailureClass, reason: String) -> Self {
        Self::Again { trouble, asked: None, reason }
    }

    fn redirected(from: &Url, how: &str) -> Self {
        let failure = CliError::new(Kind::Remote, format!("{} redirects {how}", origin(from)));
        Self::Final(failure.hint("nothing was taken from there; is CIRCLE_HOST a CircleCI?").into())
    }
}

impl Coming<'_> {
    /// Takes what an answer brings, and tells how far it came. What came before a break stays, for the next attempt to
    /// go on from.
    fn take(&mut self, ctx: &Context, answer: Response, progress: &dyn Fn(u64, u64)) -> (Result<(), Attempt>, u64) {
        let taken = self.begin(&answer).and_then(|()| self.read(ctx, answer, progress));
        (taken, self.bytes)
    }

    /// Whether an answer goes on where we are; else it is taken from the start.
    fn begin(&mut self, answer: &Response) -> Result<(), Attempt> {
        let what = self.want.what;
        match answer.status {
            206 if answer.content_range.as_deref().and_then(policy::range_start) == Some(self.bytes) => {}
            // Another range, or a server that knows no ranges: from the start.
            200 | 206 if self.bytes == 0 || answer.status == 200 => self.restart()?,
            206 => {
                self.restart()?;
                return Err(Attempt::again(
                    FailureClass::Broken,
                    "the server sent another part than was asked for".into(),
                ));
            }
            416 if self.bytes > 0 => {
                let ended = format!("it ended after {} bytes", self.bytes);
                self.restart()?;
                return Err(Attempt::again(FailureClass::Broken, ended));
            }
            401 => {
                let failure = CliError::new(Kind::Auth, format!("{what}: the token is not accepted (401)"));
                return Err(Attempt::Final(failure.hint(NEW_TOKEN).into()));
            }
            status => {
                let failure = not_found(format!("{what}: the server answered {status}"));
                let hint = "CircleCI keeps artifacts for 30 days at most: build the commit again";
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
                let failure = failed("stopped by a signal").hint("run the same command again to go on");
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
            let failure = verification(format!("{}: there are more bytes than {most}", self.want.what));
            return Err(Attempt::Final(
                failure.hint("the release is damaged: build it again; do not deploy it").into(),
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
                failure.hint("the release is damaged: build it again; do not deploy it").into(),
            ));
        }
        Ok(())
    }
}

fn disk(what: &str, cause: &std::io::Error) -> Attempt {
    Attempt::Final(failed(format!("{what}: cannot write it: {cause}")).hint("check free space: `df -h .`").into())
}

/// Something in 0 to 1 that two processes do not share.
fn jitter() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}
