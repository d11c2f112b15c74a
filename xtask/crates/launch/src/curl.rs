//! One HTTPS request by curl.
//!
//! Everything that curl is told, it reads from its stdin: a command line is visible to other users of a machine.
//! Redirects are followed here and not by curl, because the token is for CircleCI's hosts alone.

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The maximum number of redirects of a download.
const REDIRECTS: usize = 5;
/// The maximum size of an answer that is kept in memory.
const ANSWER_MAX: u64 = 8 << 20;
/// CircleCI's host for artifacts, and the domain of those that were before it.
const ARTIFACTS: &str = "circle-artifacts.com";

/// The maximum size of what curl writes to stderr: messages, and the URL of a redirect.
const STDERR_MAX: u64 = 16 << 10;
/// The maximum length of a URL.
const URL_MAX: usize = 8 << 10;

/// A client with a token.
pub struct Client {
    /// Scheme and host of the API.
    origin: String,
    token: String,
}

impl Client {
    /// `origin` is `https://HOST`, or `http://` and a loopback address.
    pub fn new(origin: &str, token: &str) -> Result<Self> {
        let is_token = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
        ensure!(
            !token.is_empty() && token.len() <= 4096 && token.chars().all(is_token),
            "CIRCLE_TOKEN has a character that no token has"
        );
        is_allowed(origin, origin)?;
        Ok(Self { origin: origin.to_owned(), token: token.to_owned() })
    }

    /// The body of an answer of the API.
    pub fn read(&self, path: &str, deadline: Instant) -> Result<Vec<u8>> {
        let (url, mut body) = (format!("{}{path}", self.origin), Vec::new());
        let answer = self.request(&url, &mut body, ANSWER_MAX, deadline)?;
        ensure!(answer.status == 200, "{} answered {}", shown(&url), answer.status);
        Ok(body)
    }

    /// Downloads a file of at most `max` bytes.
    pub fn download(&self, url: &str, to: &Path, max: u64, deadline: Instant) -> Result<()> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            // Anew for each, so that the page of a redirect is no part of it.
            let mut file = File::create(to).with_context(|| to.display().to_string())?;
            let answer = self.request(&url, &mut file, max, deadline)?;
            match (answer.status, answer.redirect) {
                (200, _) => return Ok(()),
                (300..=399, Some(next)) => url = next,
                (status, _) => bail!("{} answered {status}", shown(&url)),
            }
        }
        bail!("{} redirects more than {REDIRECTS} times", shown(&url))
    }

    fn request(&self, url: &str, body: &mut dyn Write, max: u64, deadline: Instant) -> Result<Answer> {
        let token = is_allowed(url, &self.origin)?.then_some(&*self.token);
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "CircleCI did not answer in time");
        // `--disable` first, so that curl reads no settings of this machine.
        let mut curl = Command::new("curl");
        curl.args(["--disable", "--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut curl = curl.spawn().context("cannot run curl")?;
        // A curl that ends early says why on stderr.
        let _ = curl.stdin.take().map(|mut stdin| stdin.write_all(config(url, token, left).as_bytes()));
        let (stdout, stderr) = (curl.stdout.take(), curl.stderr.take());
        // Both at once: curl waits until what it writes is read, and the server chooses how much that is. It ends where
        // nothing reads it any more.
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.map(|stderr| stderr.take(STDERR_MAX).read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        });
        let received = stdout.map_or(Ok(0), |stdout| io::copy(&mut stdout.take(max + 1), body));
        let status = curl.wait().with_context(|| shown(url))?;
        let stderr = stderr.join().unwrap_or_default();
        ensure!(received? <= max, "{} is larger than {max} bytes", shown(url));
        match Answer::parse(&stderr) {
            // curl fails for 400 and more, which the caller reports.
            Some(answer) if status.success() || answer.status >= 400 => Ok(answer),
            // Its own messages start with its name; nothing else of them is printed.
            _ => match stderr.lines().find(|line| line.starts_with("curl: (")) {
                Some(line) => bail!("{}: {}", shown(url), line.escape_debug()),
                None => bail!("{}: curl failed", shown(url)),
            },
        }
    }
}

/// What curl is told. [`is_allowed`] and [`Client::new`] let nothing pass that would have to be quoted.
fn config(url: &str, token: Option<&str>, time: Duration) -> String {
    let scheme = url.split_once(':').map_or("https", |(scheme, _)| scheme);
    let time = time.as_secs().max(1);
    let header = token.map(|token| format!("header = \"Authorization: Bearer {token}\"\n")).unwrap_or_default();
    // The status is the last line of stderr; the body is on stdout.
    format!(
        "url = \"{url}\"\nproto = \"={scheme}\"\n{header}silent\nshow-error\nfail\ngloboff\nconnect-timeout = 10\n\
         max-time = {time}\nuser-agent = \"gangplank-launch\"\nwrite-out = \"%{{stderr}}\\n%{{http_code}} %{{redirect_url}}\"\n"
    )
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    redirect: Option<String>,
}

impl Answer {
    /// From the last line of stderr.
    fn parse(stderr: &str) -> Option<Self> {
        let (status, redirect) = stderr.rsplit('\n').next()?.split_once(' ')?;
        let redirect = Some(redirect.trim().to_owned()).filter(|url| !url.is_empty());
        // 000: there was no answer.
        Some(Self { status: status.parse().ok().filter(|status| *status >= 100)?, redirect })
    }
}

/// Whether the token may go to a URL: to the API's origin, and to CircleCI's hosts for artifacts. Fails for a text that
/// curl could read as another URL, and for one that is not encrypted, unless the API is not either.
pub fn is_allowed(url: &str, origin: &str) -> Result<bool> {
    let is_graphic = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    ensure!(url.len() <= URL_MAX && url.chars().all(is_graphic), "{} is no URL", shown(url));
    let (scheme, rest) = url.split_once("://").with_context(|| format!("{} is no URL", shown(url)))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // No user, no percent sign.
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | ':' | '[' | ']');
    ensure!(!authority.is_empty() && authority.chars().all(is_plain), "{} has no plain host", shown(url));
    let loopback = ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|host| authority == *host || authority.strip_prefix(host).is_some_and(|port| port.starts_with(':')));
    let local = scheme == "http" && loopback && origin.starts_with("http://");
    ensure!(scheme == "https" || local, "{} is not encrypted", shown(url));
    let ours = origin == format!("{scheme}://{authority}");
    let artifacts = authority == ARTIFACTS || authority.strip_suffix(ARTIFACTS).is_some_and(|sub| sub.ends_with('.'));
    Ok(ours || (scheme == "https" && artifacts))
}

/// A URL for messages: short, without control characters, and without its query, which may hold a signature.
fn shown(url: &str) -> String {
    let start: String = url.split(['?', '#']).next().unwrap_or(url).chars().take(200).collect();
    start.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_goes_to_circlecis_hosts_alone() {
        let origin = "https://circleci.com";
        for (url, want) in [
            ("https://circleci.com/api/v2/me", Some(true)),
            ("https://output.circle-artifacts.com/output/job/1", Some(true)),
            ("https://circle-artifacts.com/x", Some(true)),
            ("https://evilcircle-artifacts.com/x", Some(false)),
            ("https://circleci.com.evil.example/x", Some(false)),
            ("https://output.circle-artifacts.com:8443/x", Some(false)),
            ("https://bucket.s3.amazonaws.com/x?X-Amz-Signature=1", Some(false)),
            ("http://127.0.0.1:8080/x", None),
            ("http://output.circle-artifacts.com/x", None),
            ("http://127.0.0.1.evil.example/x", None),
            ("https://circleci.com@evil.example/x", None),
            ("https://circleci.com\\@evil.example/x", None),
            ("https://CircleCI.com/x", None),
            ("file:///etc/passwd", None),
            ("circleci.com", None),
            ("https:///x", None),
            ("https://circleci.com/\nheader = x", None),
            ("https://circleci.com/\"x", None),
            ("https://circleci.com/é", None),
        ] {
            assert_eq!(is_allowed(url, origin).ok(), want, "{url}");
        }
        assert!(is_allowed("http://127.0.0.1:8080/x", "http://127.0.0.1:8080").unwrap());
        assert!(!is_allowed("http://127.0.0.1:8081/x", "http://127.0.0.1:8080").unwrap());
    }

    #[test]
    fn client_takes_no_token_that_could_add_a_line() {
        for token in ["", "a b", "a\nurl = http://evil", "a\"b", "a\\", "é"] {
            assert!(Client::new("https://circleci.com", token).is_err(), "{token:?}");
        }
        assert!(Client::new("http://circleci.com", "CCIPAT_1").is_err());
    }

    #[test]
    fn url_in_a_message_is_short_and_has_no_query_and_no_control_characters() {
        assert_eq!(shown("https://a/\u{1b}[31m\nerror: x?X-Amz-Signature=1"), "https://a/\\u{1b}[31m\\nerror: x");
        assert_eq!(shown(&format!("https://a/{}", "x".repeat(10_000))).len(), 200);
        let long = format!("https://circleci.com/{}", "x".repeat(URL_MAX));
        assert!(is_allowed(&long, "https://circleci.com").is_err());
    }

    #[test]
    fn config_has_the_token_only_for_those_who_get_it() {
        let (url, time) = ("https://a/b?c=%20", Duration::from_secs(3));
        let text = config(url, Some("t"), time);
        assert!(
            text.starts_with("url = \"https://a/b?c=%20\"\nproto = \"=https\"\nheader = \"Authorization: Bearer t\"\n")
        );
        assert!(!config(url, None, time).contains("header"));
    }

    #[test]
    fn answer_is_the_last_line_of_stderr() {
        let answer = |status, redirect: &str| {
            Some(Answer { status, redirect: Some(redirect.to_owned()).filter(|url| !url.is_empty()) })
        };
        assert_eq!(Answer::parse("\n302 https://b/x"), answer(302, "https://b/x"));
        assert_eq!(Answer::parse("curl: (22) 404\n\n404 "), answer(404, ""));
        for none in ["", "curl: (6) no host\n\n000 ", "\nabc ", "\n200"] {
            assert_eq!(Answer::parse(none), None, "{none}");
        }
    }
}
