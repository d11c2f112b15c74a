//! The one door to reqwest. Health checks go through it now; the CircleCI API will.
//!
//! Redirects are never followed by the client, no proxy of the environment is used, and nothing here holds a token.

use crate::error::{Explain, Kind, Result, usage};
use std::io::Read;
use std::time::Duration;

/// A body longer than this is cut: a health check needs no more.
const BODY_LIMIT: u64 = 64 * 1024;

/// What a server answered.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The first 64 KiB of the body.
    pub body: String,
}

/// Checks that a URL is one that a [`Client`] can ask for.
pub fn check_url(url: &str) -> Result<()> {
    match reqwest::Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(()),
        Ok(_) => {
            usage(format!("`{url}` is not an http or https URL")).hint("write e.g. http://127.0.0.1:8080/health").err()
        }
        Err(e) => usage(format!("`{url}` is not a URL: {e}")).hint("write e.g. http://127.0.0.1:8080/health").err(),
    }
}

/// A client, made before anything is touched: it fails where the machine has no certificates to trust.
#[derive(Clone)]
pub struct Client(reqwest::blocking::Client);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// A client that follows no redirects.
    pub fn new() -> Result<Self> {
        // A second call fails because a provider is there already, which is what we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::blocking::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("gangplank/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map(Self).explain(
            Kind::Failed,
            || "cannot make HTTP requests on this machine".into(),
            || "install the certificates that TLS needs, e.g. `apt-get install ca-certificates`".into(),
        )
    }

    /// A GET with a deadline for the whole exchange. The error is the short reason, without the URL.
    pub fn get(&self, url: &str, timeout: Duration) -> Result<Response, String> {
        let response = self.0.get(url).timeout(timeout).send().map_err(|e| reason(&e))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        response.take(BODY_LIMIT).read_to_end(&mut body).map_err(|e| e.to_string())?;
        Ok(Response { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// The innermost cause says it best: `Connection refused`.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
