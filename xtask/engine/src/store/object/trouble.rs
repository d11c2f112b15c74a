//! What a bucket's refusals mean, in the words of the person who has to mend it.
//!
//! S3's codes: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.

use crate::error::{Failure, Kind};
use object_store::Error;

/// Why a request was given up that nothing is wrong with.
pub const STOPPED: &str = "stopped by a signal";

/// What was tried.
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

    /// The permission of S3 that it takes.
    fn permission(self) -> &'static str {
        match self {
            Self::Opening | Self::Listing => "s3:ListBucket on the bucket",
            // Without the second, the server denies what is not there instead of saying so.
            Self::Reading(_) | Self::Signing => "s3:GetObject on it and s3:ListBucket on the bucket",
            Self::Writing(_) => "s3:PutObject on it",
            Self::Removing(_) => "s3:DeleteObject on it",
        }
    }
}

/// The failure that an error of the library is.
pub fn explain(url: &str, doing: Doing, error: &Error) -> Failure {
    let text = full(error);
    let code = tag(&text, "Code");
    let what = doing.words(url);
    let (kind, why, hint) = match code.unwrap_or_default() {
        "NoSuchBucket" => {
            let bucket = url.split('/').nth(2).unwrap_or_default();
            let hint = match url.split_once("://") {
                Some(("s3", _)) => format!("create it: `aws s3 mb s3://{bucket}`"),
                _ => format!("create {bucket} first"),
            };
            (Kind::Usage, "there is no such bucket".to_owned(), hint)
        }
        "InvalidAccessKeyId" => (
            Kind::Auth,
            "the server does not know this access key".to_owned(),
            "is AWS_ACCESS_KEY_ID of this account and endpoint? Make a new key, and set both halves in the context"
                .into(),
        ),
        "SignatureDoesNotMatch" => (
            Kind::Auth,
            "the secret key does not belong to this access key".to_owned(),
            "set AWS_SECRET_ACCESS_KEY again: a copy may have lost its end".into(),
        ),
        "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" | "InvalidToken" => (
            Kind::Auth,
            "the session has expired".to_owned(),
            "get new credentials: rerun the job, or `aws sso login`".into(),
        ),
        "RequestTimeTooSkewed" => (
            Kind::Auth,
            "the clock of this machine is wrong".to_owned(),
            "set it (`date`), then run the same command again".into(),
        ),
        "AccessDenied" | "AllAccessDisabled" => {
            let permission = doing.permission();
            (
                Kind::Auth,
                "access denied".to_owned(),
                format!("the role or key needs {permission}, and the bucket must be yours: see docs/s3.md"),
            )
        }
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => (
            Kind::Usage,
            "the bucket is in another region".to_owned(),
            tag(&text, "Region").map_or_else(
                || "set AWS_REGION to the region of the bucket".into(),
                |region| format!("set AWS_REGION={region}"),
            ),
        ),
        _ if text.contains("redirect without LOCATION") => (
            Kind::Usage,
            "the bucket is in another region".to_owned(),
            "set AWS_REGION to the region of the bucket".into(),
        ),
        _ => other(error, &text, code),
    };
    Failure::new(kind, format!("{what}: {why}")).hint(hint)
}

fn other(error: &Error, text: &str, code: Option<&str>) -> (Kind, String, String) {
    let again = "see that the server is well, then run the same command again: it goes on where it was".to_owned();
    if let (Some(code), message) = (code, tag(text, "Message")) {
        let message = message.map(|message| format!(" ({message})")).unwrap_or_default();
        let kind = if is_denied(error) { Kind::Auth } else { Kind::Remote };
        return (kind, format!("the server answered {code}{message}"), again);
    }
    match error {
        _ if text.contains(STOPPED) => (Kind::Failed, STOPPED.into(), "run the same command again".into()),
        _ if is_denied(error) => {
            (Kind::Auth, "access denied".into(), "check the credentials and their permissions: see docs/s3.md".into())
        }
        Error::NotFound { .. } => {
            (Kind::NotFound, "it is not there".into(), "`cargo xtask releases` lists what there is".into())
        }
        _ => (Kind::Remote, innermost(error), again),
    }
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
}

/// Whether a "not found" speaks of the bucket.
pub fn is_bucket_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    full(error).contains("NoSuchBucket")
}

/// The innermost cause says it best: `Connection refused`.
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

/// The text of the first element of a name in an answer of a cloud's.
pub fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{hint_of, kind_of};

    fn error(body: &str) -> Error {
        Error::Generic { store: "S3", source: format!("Server returned non-2xx status code: 403: {body}").into() }
    }

    #[test]
    fn codes_become_advice() {
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
            let failure: anyhow::Error =
                explain("s3://builds/shop", Doing::Writing("latest/main.json"), &error(body)).into();
            assert_eq!(kind_of(&failure), kind, "{body}");
            let text = failure.to_string();
            assert!(
                text.starts_with("cannot write s3://builds/shop/latest/main.json: ") && text.contains(says),
                "{text}"
            );
            assert!(hint_of(&failure).unwrap().contains(hint), "{body}: {:?}", hint_of(&failure));
        }
    }
}
