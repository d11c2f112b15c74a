//! Maps errors of a bucket to messages with hints.

mod codes;

use crate::object::diagnose::codes::Diagnosis;
use crate::object::settings::values::{Scheme, Settings};
use gangplank_model::error::{CliError, Kind, Result};
use gangplank_system::http::Url;
use gangplank_system::http::proxy::Proxy;
use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

/// The reason of an interrupted request.
pub(crate) const STOPPED: &str = "stopped by a signal";

/// The attempted operation.
#[derive(Debug, Clone, Copy)]
pub enum Doing<'a> {
    /// Opening the bucket.
    Opening,
    /// Reading an object.
    Reading(&'a str),
    /// Writing an object.
    Writing(&'a str),
    /// Listing a prefix.
    Listing,
    /// Removing an object.
    Removing(&'a str),
    /// Signing a URL.
    Signing,
}

impl Doing<'_> {
    fn words(self, url: &str) -> String {
        match self {
            Self::Opening => format!("cannot open {url}"),
            Self::Reading(key) => format!("cannot read {url}/{key}"),
            Self::Writing(key) => format!("cannot write {url}/{key}"),
            Self::Listing => format!("cannot list {url}"),
            Self::Removing(key) => format!("cannot remove {url}/{key}"),
            Self::Signing => format!("cannot sign a URL of {url}"),
        }
    }

    /// The S3 permission that it needs.
    fn permission(self) -> &'static str {
        match self {
            Self::Opening | Self::Listing => "s3:ListBucket on the bucket",
            // Without the second, the server answers "denied" for a missing object.
            Self::Reading(_) | Self::Signing => "s3:GetObject on it and s3:ListBucket on the bucket",
            Self::Writing(_) => "s3:PutObject on it",
            Self::Removing(_) => "s3:DeleteObject on it",
        }
    }
}

/// The server of a store, for messages.
pub struct Server {
    /// The URL of the store.
    pub url: String,
    /// The protocol; `None` for a directory.
    scheme: Option<Scheme>,
    /// The variable that the key comes from.
    key_name: String,
    account: Option<String>,
    /// Whether the credential is a shared access signature of Azure.
    by_signature: bool,
    endpoint: Option<Url>,
    proxy: Option<Proxy>,
}

impl Server {
    /// A directory or memory in place of a server.
    pub fn new(url: &str) -> Self {
        let url = url.to_owned();
        let key_name = String::new();
        Self { url, scheme: None, key_name, account: None, by_signature: false, endpoint: None, proxy: None }
    }

    /// The server of a store. Fails for an invalid proxy variable.
    pub fn of(url: &str, settings: &Settings) -> Result<Self> {
        let proxy =
            settings.endpoint.as_ref().map(|endpoint| settings.network.proxies.for_url(endpoint)).transpose()?;
        Ok(Self {
            url: url.to_owned(),
            scheme: Some(settings.scheme),
            key_name: settings.key_name.clone(),
            account: settings.options.get("azure_storage_account_name").cloned(),
            by_signature: settings.options.contains_key("azure_storage_sas_key"),
            endpoint: settings.endpoint.clone(),
            proxy: proxy.flatten(),
        })
    }

    fn bucket(&self) -> &str {
        self.url.split('/').nth(2).unwrap_or_default()
    }

    fn account(&self) -> &str {
        self.account.as_deref().unwrap_or("ACCOUNT")
    }
}

/// The error for an error of the library.
pub fn explain(server: &Server, doing: Doing, error: &Error) -> CliError {
    let text = full(error);
    let code = tag(&text, "Code");
    let region = || {
        let hint = "set AWS_REGION to the region of the bucket".to_owned();
        text.contains("redirect without LOCATION")
            .then(|| (Kind::Usage, "the bucket is in another region".into(), hint))
    };
    let known = code.and_then(|code| codes::diagnose(server, doing, code, &text)).or_else(region);
    let (kind, reason, hint) = known.unwrap_or_else(|| other(server, doing, error, &text, code));
    CliError::new(kind, format!("{}: {reason}", doing.words(&server.url))).hint(hint)
}

fn other(server: &Server, doing: Doing, error: &Error, text: &str, code: Option<&str>) -> Diagnosis {
    let again = "check the server, then run the same command again: it continues where it stopped".to_owned();
    if let (Some(code), message) = (code, tag(text, "Message")) {
        let line = message.and_then(|message| message.lines().next()).unwrap_or_default();
        let message = if line.is_empty() { String::new() } else { format!(" ({line})") };
        let kind = if is_denied(error) { Kind::Auth } else { Kind::Remote };
        return (kind, format!("the server answered {code}{message}"), again);
    }
    if text.contains(STOPPED) {
        return (Kind::Failed, STOPPED.into(), "run the same command again".into());
    }
    if let Some(meaning) = codes::diagnose_token_service(server, text) {
        return meaning;
    }
    if let Some(proxy) = &server.proxy {
        if text.contains("status code: 407") || text.contains("proxy authorization required") {
            let hint = format!("set {}=http://USER:PASSWORD@HOST:PORT", proxy.variable);
            return (Kind::Remote, format!("{} requires a login", proxy.label()), hint);
        }
        if is_unanswered(error) {
            let hint = proxy.hint(server.endpoint.as_ref());
            return (Kind::Remote, format!("{}: {}", proxy.label(), innermost(error)), hint);
        }
    }
    let (kind, reason, hint) = match error {
        _ if is_denied(error) => {
            (Kind::Auth, "access denied".into(), "check the credentials and their permissions: see docs/s3.md".into())
        }
        // A write or a listing needs only the bucket.
        Error::NotFound { .. } if matches!(doing, Doing::Writing(_) | Doing::Listing) => codes::missing(server),
        Error::NotFound { .. } => {
            (Kind::NotFound, "it does not exist".into(), "`cargo xtask releases` lists what there is".into())
        }
        _ if matches!(doing, Doing::Opening) => {
            (Kind::Auth, innermost(error), format!("check {}: see docs/s3.md", server.key_name))
        }
        _ => (Kind::Remote, innermost(error), hint_of_network(server, text).unwrap_or(again)),
    };
    match &server.proxy {
        Some(proxy) => (
            kind,
            format!("{reason}, through {}", proxy.label()),
            format!("{hint}; or {}", proxy.hint(server.endpoint.as_ref())),
        ),
        None => (kind, reason, hint),
    }
}

/// The hint for a network error with a known cause.
fn hint_of_network(server: &Server, text: &str) -> Option<String> {
    let host = server.endpoint.as_ref().and_then(Url::host_str)?;
    if text.contains("certificate") {
        let variable = if server.scheme == Some(Scheme::S3) { "AWS_CA_BUNDLE" } else { "SSL_CERT_FILE" };
        return Some(format!(
            "if the certificate of {host} is from an authority of your own, set {variable} to its file in PEM"
        ));
    }
    let account = match (&server.account, text.contains("lookup address")) {
        (_, false) => return None,
        (Some(account), true) => format!(" of the account {account}"),
        (None, true) => String::new(),
    };
    Some(format!("check that the host {host}{account} exists, and the network: see docs/s3.md"))
}

/// Whether the connection failed: to the proxy, if there is one.
fn is_unanswered(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if inner.downcast_ref::<HttpError>().is_some_and(|it| it.kind() == HttpErrorKind::Connect) {
            return true;
        }
        cause = inner.source();
    }
    false
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
}

/// Whether a "not found" is about the bucket.
pub(crate) fn is_bucket_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    let text = full(error);
    tag(&text, "Code").is_some_and(|code| codes::MISSING.contains(&code))
}

/// The innermost cause, which is the most specific: `Connection refused`.
fn innermost(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(200).collect()
}

fn full(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// The text of the first element of this name in a cloud's answer.
pub fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::{hint_of, kind_of};
    use std::collections::BTreeMap;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "x", source: text.into() }
    }

    fn answered(body: &str) -> Error {
        generic(&format!("Server returned non-2xx status code: 403: {body}"))
    }

    fn server(url: &str, vars: &[(&str, &str)]) -> Server {
        let vars: BTreeMap<_, _> = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Server::of(url, &crate::object::settings::settings(url, &vars, &|_| None).unwrap()).unwrap()
    }

    fn azure() -> Server {
        server("az://builds/shop", &[("AZURE_STORAGE_ACCOUNT", "acme"), ("AZURE_STORAGE_KEY", "c2VzYW1l")])
    }

    fn check(server: &Server, error: &Error, kind: Kind, says: &str, hint: &str) {
        let failure: anyhow::Error = explain(server, Doing::Writing("latest/main.json"), error).into();
        assert_eq!(kind_of(&failure), kind, "{error}");
        let text = failure.to_string();
        let begins = format!("cannot write {}/latest/main.json: ", server.url);
        assert!(text.starts_with(&begins) && text.contains(says), "{text}");
        assert!(hint_of(&failure).unwrap().contains(hint), "{error}: {:?}", hint_of(&failure));
    }

    #[test]
    fn code_of_s3_becomes_advice() {
        for (body, kind, says, hint) in [
            ("<Error><Code>NoSuchBucket</Code></Error>", Kind::Usage, "no such bucket", "aws s3 mb s3://builds"),
            ("<Error><Code>SignatureDoesNotMatch</Code></Error>", Kind::Auth, "secret key", "AWS_SECRET_ACCESS_KEY"),
            ("<Error><Code>ExpiredToken</Code></Error>", Kind::Auth, "expired", "rerun"),
            ("<Error><Code>RequestTimeTooSkewed</Code></Error>", Kind::Auth, "clock", "date"),
            ("<Error><Code>AccessDenied</Code></Error>", Kind::Auth, "access denied", "s3:PutObject"),
            (
                "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
                Kind::Usage,
                "another region",
                "AWS_REGION=eu-west-1",
            ),
            (
                "<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>",
                Kind::Remote,
                "SlowDown (Reduce your rate)",
                "again",
            ),
            ("<html>", Kind::Remote, "403", "again"),
        ] {
            check(&server("s3://builds/shop", &[]), &answered(body), kind, says, hint);
        }
    }

    #[test]
    fn code_of_azure_becomes_advice() {
        for (code, detail, kind, says, hint) in [
            ("ContainerNotFound", "", Kind::Usage, "no such container", "create --name builds --account-name acme"),
            ("ContainerBeingDeleted", "", Kind::Usage, "is being deleted", "wait a minute"),
            ("AuthenticationFailed", "", Kind::Auth, "the key does not belong", "set AZURE_STORAGE_KEY again"),
            (
                "AuthenticationFailed",
                "Signature not valid in the specified time frame",
                Kind::Auth,
                "has expired",
                "generate-sas",
            ),
            ("AuthenticationFailed", "Request date header too old: 'x'", Kind::Auth, "clock", "date"),
            ("AuthorizationPermissionMismatch", "", Kind::Auth, "access denied", "Storage Blob Data Contributor"),
            ("AuthorizationFailure", "", Kind::Auth, "access denied", "network rules"),
            ("KeyBasedAuthenticationNotPermitted", "", Kind::Auth, "does not allow keys", "AZURE_CLIENT_SECRET"),
            ("ServerBusy", "", Kind::Remote, "the server answered ServerBusy", "again"),
        ] {
            let detail = format!("<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>");
            check(&azure(), &answered(&format!("<Error><Code>{code}</Code>{detail}</Error>")), kind, says, hint);
        }
        let invalid =
            r#"400: {"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret.\r\nTrace"}"#;
        check(
            &azure(),
            &generic(invalid),
            Kind::Auth,
            "invalid_client (AADSTS7000215: Invalid client secret.)",
            "AZURE_TENANT_ID",
        );
    }

    #[test]
    fn code_of_google_becomes_advice() {
        let google = server("gs://builds/shop", &[("GOOGLE_BEARER_TOKEN", "t")]);
        for (body, kind, says, hint) in [
            ("<Code>NoSuchBucket</Code>", Kind::Usage, "no such bucket", "gcloud storage buckets create gs://builds"),
            ("<Code>AuthenticationRequired</Code>", Kind::Auth, "these credentials", "set GOOGLE_BEARER_TOKEN again"),
            ("<Code>SignatureDoesNotMatch</Code>", Kind::Auth, "the private key", "set GOOGLE_BEARER_TOKEN again"),
            ("<Code>AccessDenied</Code>", Kind::Auth, "access denied", "Storage Object User"),
            (
                r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#,
                Kind::Auth,
                "invalid_grant (Invalid JWT Signature.)",
                "check GOOGLE_BEARER_TOKEN",
            ),
        ] {
            check(&google, &answered(body), kind, says, hint);
        }
    }

    #[test]
    fn bucket_that_is_missing_is_known_without_a_code() {
        let error = Error::NotFound { path: "x".into(), source: "404: {\"message\": \"Not Found\"}".into() };
        let google = server("gs://builds/shop", &[("GOOGLE_BEARER_TOKEN", "t")]);
        check(&google, &error, Kind::Usage, "there is no such bucket", "gcloud storage buckets create gs://builds");
        check(&azure(), &error, Kind::Usage, "there is no such container", "az storage container create");
        let read: anyhow::Error = explain(&google, Doing::Reading("a"), &error).into();
        assert_eq!(kind_of(&read), Kind::NotFound);
    }

    #[test]
    fn host_that_does_not_exist_is_named() {
        let error = generic("dns error: failed to lookup address information: Name or service not known");
        check(
            &azure(),
            &error,
            Kind::Remote,
            "failed to lookup",
            "the host acme.blob.core.windows.net of the account acme exists",
        );
        let error = generic("invalid peer certificate: UnknownIssuer");
        check(&azure(), &error, Kind::Remote, "UnknownIssuer", "SSL_CERT_FILE");
        let s3 = server("s3://builds/shop", &[("S3_ENDPOINT", "https://s3.lan")]);
        check(&s3, &error, Kind::Remote, "UnknownIssuer", "s3.lan is from an authority of your own, set AWS_CA_BUNDLE");
    }

    #[test]
    fn proxy_that_may_be_the_cause_is_named() {
        let vars = [("S3_ENDPOINT", "https://s3.lan"), ("HTTPS_PROXY", "http://ana:sesame@p:3128")];
        let s3 = server("s3://builds/shop", &vars);
        let refused = HttpError::new(HttpErrorKind::Connect, std::io::Error::other("Connection refused"));
        let refused = Error::Generic { store: "S3", source: Box::new(refused) };
        let proxy = "the proxy http://p:3128 (HTTPS_PROXY)";
        check(&s3, &refused, Kind::Remote, &format!("{proxy}: Connection refused"), "NO_PROXY=s3.lan");
        for text in ["non-2xx status code: 407: ", "tunnel error: proxy authorization required"] {
            let says = format!("{proxy} requires a login");
            check(&s3, &generic(text), Kind::Remote, &says, "HTTPS_PROXY=http://USER:PASSWORD@");
        }
        check(
            &s3,
            &generic("non-2xx status code: 502: "),
            Kind::Remote,
            &format!("through {proxy}"),
            "start the proxy",
        );
        check(&server("s3://builds/shop", &vars[..1]), &refused, Kind::Remote, "Connection refused", "again");
    }
}
