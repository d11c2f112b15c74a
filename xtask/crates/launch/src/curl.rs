//! One HTTPS request by curl.
//!
//! Everything that curl is told, it reads from its stdin: a command line is visible to other users of a machine.
//! Redirects are followed here and not by curl, because the token is for CircleCI's hosts alone.

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The maximum number of redirects of a download.
const REDIRECTS: usize = 5;
/// The maximum size of an answer that is kept in memory.
const ANSWER_MAX: u64 = 8 << 20;
/// CircleCI's host for artifacts, and the domain of those that were before it.
const ARTIFACTS: &str = "circle-artifacts.com";

/// A client with a token.
#[derive(Clone)]
pub struct Client {
    /// Scheme and host of the API.
    origin: String,
    token: String,
    deadline: Instant,
}

impl Client {
    /// A client whose requests all end within `limit`. `origin` is `https://HOST`, or `http://` and a loopback address.
    pub fn new(origin: &str, token: &str, limit: Duration) -> Result<Self> {
        let is_token = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
        ensure!(!token.is_empty() && token.len() <= 4096 && token.chars().all(is_token), "the token is not a token");
        is_allowed(origin, origin)?;
        Ok(Self { origin: origin.to_owned(), token: token.to_owned(), deadline: Instant::now() + limit })
    }

    /// The body of an answer of the API.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let (url, mut body) = (format!("{}{path}", self.origin), Vec::new());
        let answer = self.request(&url, true, &mut body, ANSWER_MAX)?;
        ensure!(answer.status == 200, "{url} answered {}", answer.status);
        Ok(body)
    }

    /// Downloads a file of at most `max` bytes.
    pub fn download(&self, url: &str, to: &Path, max: u64) -> Result<()> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let with_token = is_allowed(&url, &self.origin)?;
            // Anew for each, so that the page of a redirect is no part of it.
            let mut file = File::create(to).with_context(|| to.display().to_string())?;
            let answer = self.request(&url, with_token, &mut file, max)?;
            match (answer.status, answer.redirect) {
                (200, _) => return Ok(()),
                (300..=399, Some(next)) => url = next,
                (status, _) => bail!("{} answered {status}", without_query(&url)),
            }
        }
        bail!("{} redirects more than {REDIRECTS} times", without_query(&url))
    }

    fn request(&self, url: &str, with_token: bool, body: &mut dyn Write, max: u64) -> Result<Answer> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "CircleCI is too slow");
        let config = config(url, with_token.then_some(&self.token), left)?;
        // `--disable` first, so that curl reads no settings of this machine.
        let mut curl = Command::new("curl");
        curl.args(["--disable", "--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut curl = curl.spawn().context("cannot run curl")?;
        // A curl that ends early says why on stderr.
        let _ = curl.stdin.take().map(|mut stdin| stdin.write_all(config.as_bytes()));
        let received = curl.stdout.take().map_or(Ok(0), |stdout| io::copy(&mut stdout.take(max + 1), body));
        // Otherwise it has ended, or ends because nothing reads its output any more.
        let ended = curl.wait_with_output().with_context(|| without_query(url).to_owned())?;
        ensure!(received? <= max, "{} is larger than {max} bytes", without_query(url));
        let stderr = String::from_utf8_lossy(&ended.stderr);
        match Answer::parse(&stderr) {
            // curl fails for 400 and more, which the caller reports.
            Some(answer) if ended.status.success() || answer.status >= 400 => Ok(answer),
            _ => bail!("{}: {}", without_query(url), stderr.lines().next().unwrap_or("curl failed")),
        }
    }
}

/// What curl is told.
fn config(url: &str, token: Option<&String>, time: Duration) -> Result<String> {
    let quoted = |text: &str| {
        ensure!(!text.chars().any(char::is_control), "a control character in {text:?}");
        Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
    };
    let scheme = url.split_once(':').map_or("https", |(scheme, _)| scheme);
    let mut lines = vec![
        format!("url = {}", quoted(url)?),
        format!("proto = \"={scheme}\""),
        "silent\nshow-error\nfail\ngloboff\nconnect-timeout = 10\nretry = 2\nretry-max-time = 20".to_owned(),
        format!("max-time = {}", time.as_secs().max(1)),
        "user-agent = \"gangplank-launch\"".to_owned(),
        // The last line of stderr; the body is on stdout.
        "write-out = \"%{stderr}\\n%{http_code} %{redirect_url}\"".to_owned(),
    ];
    if let Some(token) = token {
        lines.push(format!("header = {}", quoted(&format!("Authorization: Bearer {token}"))?));
    }
    Ok(lines.join("\n") + "\n")
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

/// Whether the token may go to a URL: to the API's origin, and to CircleCI's hosts for artifacts. Fails for a URL that
/// is not encrypted and leads to another machine.
pub fn is_allowed(url: &str, origin: &str) -> Result<bool> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("not a URL: {url:?}"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // Strict, so that curl cannot read another host: no user, no backslash, no percent sign.
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | ':' | '[' | ']');
    ensure!(!authority.is_empty() && authority.chars().all(is_plain), "not a URL of a host: {}", without_query(url));
    let loopback = ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|host| authority == *host || authority.strip_prefix(host).is_some_and(|port| port.starts_with(':')));
    ensure!(scheme == "https" || (scheme == "http" && loopback), "{} is not encrypted", without_query(url));
    let ours = origin == format!("{scheme}://{authority}");
    let artifacts = authority == ARTIFACTS || authority.strip_suffix(ARTIFACTS).is_some_and(|sub| sub.ends_with('.'));
    Ok(ours || (scheme == "https" && artifacts))
}

/// A URL for messages: a query may hold a signature.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
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
            ("http://127.0.0.1:8080/x", Some(false)),
            ("http://output.circle-artifacts.com/x", None),
            ("http://127.0.0.1.evil.example/x", None),
            ("https://circleci.com@evil.example/x", None),
            ("https://circleci.com\\@evil.example/x", None),
            ("https://CircleCI.com/x", None),
            ("file:///etc/passwd", None),
            ("circleci.com", None),
            ("https:///x", None),
        ] {
            assert_eq!(is_allowed(url, origin).ok(), want, "{url}");
        }
        assert!(is_allowed("http://127.0.0.1:8080/x", "http://127.0.0.1:8080").unwrap());
        assert!(!is_allowed("http://127.0.0.1:8081/x", "http://127.0.0.1:8080").unwrap());
    }

    #[test]
    fn client_takes_no_token_that_could_add_a_line() {
        for token in ["", "a b", "a\nurl = http://evil", "a\"b", "a\\", "é"] {
            assert!(Client::new("https://circleci.com", token, Duration::from_secs(1)).is_err(), "{token:?}");
        }
        assert!(Client::new("http://circleci.com", "CCIPAT_1", Duration::from_secs(1)).is_err());
    }

    #[test]
    fn config_quotes_what_comes_from_outside() {
        let time = Duration::from_secs(3);
        let text = config("https://a/\"b\\", Some(&"t".to_owned()), time).unwrap();
        assert!(text.starts_with("url = \"https://a/\\\"b\\\\\"\nproto = \"=https\"\n"), "{text}");
        assert!(text.ends_with("\nheader = \"Authorization: Bearer t\"\n"), "{text}");
        assert!(config("https://a/\nheader = x", None, time).is_err());
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
