//! Rules for requests with a token: which URLs are secure, where the token may be sent, when to retry and for how long.
//! Pure functions, tested as tables.

use crate::http::Url;
use jiff::Timestamp;
use std::net::IpAddr;
use std::time::Duration;

/// The maximum number of redirects.
pub(crate) const REDIRECTS_MAX: usize = 10;
/// The first pause between two attempts; doubled each time.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause of our own choice.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Whether a URL is secure: https, or this machine.
pub fn is_secure(url: &Url) -> bool {
    match url.scheme() {
        "https" => url.has_host(),
        "http" => is_loopback(url.host_str().unwrap_or_default()),
        _ => false,
    }
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let ip: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    host == "localhost" || ip.is_some_and(|ip| ip.is_loopback())
}

/// `scheme://host:port` of a URL, the only part to be shown, because a path may contain a signature.
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The servers that the token may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    home: String,
    cloud: bool,
}

impl Allowed {
    /// The server of the token. CircleCI's cloud serves artifacts from other hosts.
    pub fn new(home: &Url) -> Self {
        Self { home: origin(home), cloud: home.scheme() == "https" && home.host_str() == Some("circleci.com") }
    }

    /// Whether the token may be sent to this URL.
    pub fn holds(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let artifacts = host == "circle-artifacts.com" || host.ends_with(".circle-artifacts.com");
        is_secure(url)
            && (origin(url) == self.home
                || self.cloud && artifacts && url.scheme() == "https" && url.port_or_known_default() == Some(443))
    }
}

/// The class of a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureClass {
    /// No answer, and the request never reached the server.
    Unsent,
    /// No answer, or an incomplete one.
    Broken,
    /// A transient status: 429, or 5xx.
    Status(u16),
}

/// The pause before the next attempt; `None` to give up, because a retry would repeat an effect, or the server asks for
/// more time than is left. `jitter` in 0 to 1 spreads clients that failed together.
pub fn pause(
    attempt: u32,
    trouble: &FailureClass,
    asked: Option<Duration>,
    repeatable: bool,
    left: Duration,
    jitter: f64,
) -> Option<Duration> {
    let harmless = repeatable || matches!(trouble, FailureClass::Unsent | FailureClass::Status(429));
    let own = PAUSE.saturating_mul(1 << attempt.min(10)).min(PAUSE_MAX).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
    let pause = asked.map_or(own, |asked| asked.max(own));
    (harmless && pause < left).then_some(pause)
}

/// Whether a status is transient.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504)
}

/// Parses `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_zoned(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// The first byte of a `Content-Range: bytes 5-9/10` (RFC 9110, 14.4).
pub(crate) fn range_start(text: &str) -> Option<u64> {
    text.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn is_secure_accepts_only_https_and_this_machine() {
        for (text, secure) in [
            ("https://circleci.com/api", true),
            ("http://circleci.com/api", false),
            ("http://127.0.0.1:8080/x", true),
            ("http://[::1]:8080/x", true),
            ("http://localhost/x", true),
            ("http://localhost.evil.example/x", false),
            ("http://127.0.0.1.evil.example/x", false),
            ("file:///etc/passwd", false),
            ("ftp://127.0.0.1/x", false),
        ] {
            assert_eq!(is_secure(&url(text)), secure, "{text}");
        }
    }

    #[test]
    fn allowed_hosts_are_those_of_circleci_alone() {
        let cloud = Allowed::new(&url("https://circleci.com"));
        for (text, may) in [
            ("https://circleci.com/api/v2/me", true),
            ("https://circleci.com:444/api", false),
            ("http://circleci.com/api", false),
            ("https://output.circle-artifacts.com/output/job/1", true),
            ("https://12-34-gh.circle-artifacts.com/0/x", true),
            ("http://output.circle-artifacts.com/x", false),
            ("https://output.circle-artifacts.com:8443/x", false),
            ("https://evilcircle-artifacts.com/x", false),
            ("https://circleci.com.evil.example/", false),
            ("https://bucket.s3.amazonaws.com/x?X-Amz-Signature=1", false),
        ] {
            assert_eq!(cloud.holds(&url(text)), may, "{text}");
        }
        let local = Allowed::new(&url("http://127.0.0.1:4000"));
        for (text, may) in [
            ("http://127.0.0.1:4000/output/job/1", true),
            ("http://127.0.0.1:4001/bucket", false),
            ("http://localhost:4000/", false),
            ("https://circleci.com/", false),
            ("https://output.circle-artifacts.com/", false),
        ] {
            assert_eq!(local.holds(&url(text)), may, "{text}");
        }
    }

    #[test]
    fn pause_depends_on_failure_attempt_and_deadline() {
        let minute = Duration::from_secs(60);
        let ms = |attempt, trouble, asked, repeatable, left| {
            pause(attempt, &trouble, asked, repeatable, left, 1.0).map(|pause| pause.as_millis())
        };
        assert_eq!(ms(0, FailureClass::Broken, None, true, minute), Some(250));
        assert_eq!(ms(3, FailureClass::Status(503), None, true, minute), Some(2000));
        assert_eq!(ms(60, FailureClass::Status(503), None, true, minute), Some(10_000));
        assert_eq!(ms(0, FailureClass::Broken, None, false, minute), None, "it may have been done");
        assert_eq!(ms(0, FailureClass::Status(502), None, false, minute), None);
        assert_eq!(ms(0, FailureClass::Unsent, None, false, minute), Some(250));
        assert_eq!(ms(0, FailureClass::Status(429), None, false, minute), Some(250), "429 says that nothing was done");
        assert_eq!(ms(0, FailureClass::Status(429), Some(Duration::from_secs(7)), true, minute), Some(7000));
        assert_eq!(ms(0, FailureClass::Status(429), Some(Duration::from_secs(3600)), true, minute), None);
        assert_eq!(ms(4, FailureClass::Broken, None, true, Duration::from_secs(1)), None, "the deadline would pass");
        assert_eq!(pause(0, &FailureClass::Broken, None, true, minute, 0.0), Some(Duration::from_millis(125)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-08-22T10:15:00Z".parse().unwrap();
        let seconds = |text: &str| retry_after(text, now).map(|it| it.as_secs());
        assert_eq!(seconds("12"), Some(12));
        assert_eq!(seconds("Sat, 22 Aug 2026 10:15:30 GMT"), Some(30));
        assert_eq!(seconds("Sat, 22 Aug 2026 10:14:30 GMT"), Some(0), "it has passed");
        assert_eq!((seconds("soon"), seconds("-1")), (None, None));
    }

    #[test]
    fn ranges() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!((range_start("bytes */10"), range_start("5-9")), (None, None));
    }
}
