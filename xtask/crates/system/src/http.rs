//! HTTP exchanges without redirects or retries; the only module that uses reqwest. [`session`] adds a token and
//! retries, by the rules of [`policy`]. Only requests to clouds use a [`proxy`].

pub mod policy;
pub mod proxy;
pub mod session;

use crate::http::proxy::Proxies;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use serde_json::Value;
use std::io::Read;
use std::time::Duration;

/// A URL that has been parsed.
pub use reqwest::Url;

/// The maximum bytes read of a body, which suffice for a health check.
const BODY_LIMIT: u64 = 64 * 1024;
/// `User-Agent` of every request.
const AGENT: &str = concat!("gangplank/", env!("CARGO_PKG_VERSION"));
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// A secret value: has no `Display`, and its `Debug` hides it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Proxies and certificates for requests to clouds.
#[derive(Clone, Default)]
pub struct NetworkOptions {
    /// The proxies that the variables name.
    pub proxies: Proxies,
    /// Certificates that replace the system's.
    pub ca_bundle: Option<CaBundle>,
}

/// Certificates from the file of `AWS_CA_BUNDLE`.
#[derive(Clone)]
pub struct CaBundle(Vec<reqwest::Certificate>);

impl CaBundle {
    /// Parses certificates in PEM; `None` if there are none, or one is damaged.
    pub fn parse(pem: &str) -> Option<Self> {
        let found = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).ok()?;
        (!found.is_empty()).then_some(Self(found))
    }
}

impl NetworkOptions {
    fn proxy(&self) -> reqwest::Proxy {
        let proxies = self.proxies.clone();
        // An invalid variable was refused when the bucket was opened.
        reqwest::Proxy::custom(move |url| proxies.for_url(url).ok().flatten().map(|proxy| proxy.url))
    }

    /// The client for object storage.
    pub fn storage_client(&self, limits: &ClientLimits) -> Result<reqwest::Client, reqwest::Error> {
        install_tls();
        // Follows redirects, because S3 redirects requests for new buckets. Does not decompress bodies, because their
        // sizes have to match.
        let builder = reqwest::Client::builder()
            .proxy(self.proxy())
            .timeout(limits.request)
            .connect_timeout(limits.connect)
            .https_only(!limits.plain_http)
            .http1_only()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .user_agent(AGENT);
        let ca_bundle = self.ca_bundle.iter().flat_map(|it| it.0.iter().cloned());
        if self.ca_bundle.is_some() { builder.tls_certs_only(ca_bundle) } else { builder }.build()
    }
}

/// Limits of a client for object storage.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    /// How long one request may take.
    pub request: Duration,
    /// How long a connection may take.
    pub connect: Duration,
    /// Whether requests may go unencrypted.
    pub plain_http: bool,
}

/// A response with a short body: of a health check or a form.
#[derive(Debug)]
pub struct ShortResponse {
    /// Status code.
    pub status: u16,
    /// The first 64 KiB of the body.
    pub body: String,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The URL.
    pub url: &'a Url,
    /// A JSON document to POST, `null` for an empty body; a GET if `None`.
    pub post: Option<&'a Value>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<&'a Secret>,
    /// The first byte of the body to request.
    pub from: u64,
}

/// The head of a response, with a body still to be read.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// `Content-Type`, without parameters.
    pub content_type: String,
    /// `Location`, as sent.
    pub location: Option<String>,
    /// `Retry-After`, as sent.
    pub retry_after: Option<String>,
    /// `Content-Range`, as sent.
    pub content_range: Option<String>,
    /// `Sunset` or `Deprecation`: the endpoint will go away.
    pub sunset: Option<String>,
    /// The body.
    pub body: Box<dyn Read>,
}

/// A failed exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The reason, without the URL: `Connection refused`.
    pub reason: String,
    /// Whether the request never reached the server, so that a retry cannot repeat its effect.
    pub unsent: bool,
}

/// Parses an http or https URL.
pub fn url(text: &str) -> Result<Url> {
    let hint = "write e.g. http://127.0.0.1:8080/health";
    match Url::parse(text) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(parsed),
        Ok(_) => usage(format!("`{text}` is not an http or https URL")).hint(hint).err(),
        Err(e) => usage(format!("`{text}` is not a URL: {e}")).hint(hint).err(),
    }
}

/// Installs the TLS provider of this process.
pub fn install_tls() {
    // It fails only if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An HTTP client. Fails early if the machine has no trusted certificates.
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
        Self::patient(SILENCE)
    }

    /// A client that tolerates a silent server for this long, before the response and within a body.
    pub(crate) fn patient(silence: Duration) -> Result<Self> {
        Self::build(Self::builder(silence).no_proxy())
    }

    /// A client with a cloud's proxies and certificates.
    pub fn with_network(network: &NetworkOptions) -> Result<Self> {
        let builder = Self::builder(SILENCE).proxy(network.proxy());
        let ca_bundle = network.ca_bundle.iter().flat_map(|it| it.0.clone()).collect::<Vec<_>>();
        Self::build(if network.ca_bundle.is_some() { builder.tls_certs_only(ca_bundle) } else { builder })
    }

    fn builder(silence: Duration) -> reqwest::blocking::ClientBuilder {
        install_tls();
        reqwest::blocking::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // On the client, not the request, where it would limit the whole download.
            .timeout(silence)
            .user_agent(AGENT)
    }

    fn build(builder: reqwest::blocking::ClientBuilder) -> Result<Self> {
        builder.build().map(Self).with_hint(
            Kind::Failed,
            || "cannot create an HTTP client".into(),
            || "install TLS certificates, e.g. `apt-get install ca-certificates`".into(),
        )
    }

    /// A GET with a deadline for the whole exchange. The error is the reason, without the URL.
    pub fn get(&self, url: &str, timeout: Duration) -> Result<ShortResponse, String> {
        let response = self.0.get(url).timeout(timeout).send().map_err(|e| reason(&e))?;
        short(response).map_err(|e| e.to_string())
    }

    /// A POST of a form with a secret field.
    pub fn post_form(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
        (name, Secret(secret)): (&str, &Secret),
    ) -> Result<ShortResponse, Broken> {
        let mut form = url.clone();
        form.query_pairs_mut().clear().extend_pairs(fields).append_pair(name, secret);
        let request = self
            .0
            .post(url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
        short(request.send().map_err(|e| broken(&e))?).map_err(|e| Broken { reason: e.to_string(), unsent: false })
    }

    /// A POST of a JSON document with these headers, within a limit.
    pub fn post_json(
        &self,
        url: &Url,
        headers: &[(&str, String)],
        body: &str,
        limit: Duration,
    ) -> Result<ShortResponse, Broken> {
        let mut request = self.0.post(url.clone()).timeout(limit).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.body(body.to_owned()).send().map_err(|e| broken(&e))?;
        short(response).map_err(|e| Broken { reason: e.to_string(), unsent: false })
    }

    /// A PUT without a body to a signed URL; returns the status.
    pub fn put_empty(&self, url: &Url) -> Result<u16, Broken> {
        let sent = self.0.put(url.clone()).header("content-length", "0").send();
        sent.map(|it| it.status().as_u16()).map_err(|e| broken(&e))
    }

    /// One exchange. Any status is a success.
    pub fn ask(&self, ask: &Request) -> Result<Response, Broken> {
        let request = match ask.post {
            Some(Value::Null) => self.0.post(ask.url.clone()),
            Some(body) => self
                .0
                .post(ask.url.clone())
                .header("content-type", "application/json")
                .body(serde_json::to_vec(body).unwrap_or_default()),
            None => self.0.get(ask.url.clone()),
        };
        // CircleCI's v1.1 answers in another format by default.
        let mut request = request.header("accept", "application/json");
        if let Some(Secret(token)) = ask.token {
            request = request.bearer_auth(token);
        }
        if ask.from > 0 {
            request = request.header("range", format!("bytes={}-", ask.from));
        }
        let response = request.send().map_err(|e| broken(&e))?;
        let header = |name: &str| response.headers().get(name).and_then(|it| it.to_str().ok()).map(str::to_owned);
        let content_type = header("content-type").unwrap_or_default();
        Ok(Response {
            status: response.status().as_u16(),
            content_type: content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
            location: header("location"),
            retry_after: header("retry-after"),
            content_range: header("content-range"),
            sunset: header("sunset").or_else(|| header("deprecation")),
            body: Box::new(response),
        })
    }
}

/// Status and the first 64 KiB of a response.
fn short(response: reqwest::blocking::Response) -> std::io::Result<ShortResponse> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    response.take(BODY_LIMIT).read_to_end(&mut body)?;
    Ok(ShortResponse { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn broken(error: &reqwest::Error) -> Broken {
    Broken { reason: reason(error), unsent: error.is_connect() }
}

/// The innermost cause, which is the most specific: `Connection refused`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_may_be_of_any_language() {
        // Cargo.lock determines the Unicode support of `idna`: see ARCHITECTURE.md.
        for (host, ascii) in [("bücher.example", "xn--bcher-kva.example"), ("日本.example", "xn--wgv71a.example")] {
            assert_eq!(url(&format!("https://{host}/health")).unwrap().host_str(), Some(ascii), "{host}");
        }
        assert!(url("https://xn--a.example").is_err() && url("https://a\u{202e}b.example").is_err());
    }
}
