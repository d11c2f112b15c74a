//! Error codes of S3, Azure and Google, with exit code, reason and hint.
//!
//! S3: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>, Azure:
//! <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>, Google:
//! <https://cloud.google.com/storage/docs/xml-api/reference-status>.

use crate::object::diagnose::{Doing, Server, tag};
use crate::object::settings::values::Scheme;
use gangplank_model::error::Kind;
use serde_json::Value;

/// Exit code, reason and hint.
pub type Diagnosis = (Kind, String, String);

/// Codes of a missing bucket.
pub(crate) const MISSING: &[&str] = &["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"];

/// The diagnosis of an error code; `None` for codes that are not in the tables.
pub fn diagnose(server: &Server, doing: Doing, code: &str, text: &str) -> Option<Diagnosis> {
    diagnose_s3(server, doing, code, text)
        .or_else(|| diagnose_azure(server, doing, code, text))
        .or_else(|| diagnose_google(server, code))
}

fn diagnose_s3(server: &Server, doing: Doing, code: &str, text: &str) -> Option<Diagnosis> {
    let (kind, reason, hint) = match code {
        "NoSuchBucket" | "ContainerNotFound" => return Some(missing(server)),
        "InvalidAccessKeyId" => (
            Kind::Auth,
            "the server does not know this access key",
            "check that AWS_ACCESS_KEY_ID belongs to this account and endpoint, or make a new key and set both halves in the context"
                .into(),
        ),
        "SignatureDoesNotMatch" if server.scheme == Some(Scheme::Google) => (
            Kind::Auth,
            "the private key does not belong to this service account",
            format!("make a new key and set {} again", server.key_name),
        ),
        "SignatureDoesNotMatch" => (
            Kind::Auth,
            "the secret key does not belong to this access key",
            "set AWS_SECRET_ACCESS_KEY again: it may be truncated".into(),
        ),
        "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" | "InvalidToken" => {
            (Kind::Auth, "the session has expired", "get new credentials: rerun the job, or `aws sso login`".into())
        }
        "RequestTimeTooSkewed" => (Kind::Auth, CLOCK.0, CLOCK.1.into()),
        "AccessDenied" | "AllAccessDisabled" => return Some(denied(server, doing)),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => (
            Kind::Usage,
            "the bucket is in another region",
            tag(text, "Region").map_or_else(
                || "set AWS_REGION to the region of the bucket".into(),
                |region| format!("set AWS_REGION={region}"),
            ),
        ),
        _ => return None,
    };
    Some((kind, reason.to_owned(), hint))
}

fn diagnose_azure(server: &Server, doing: Doing, code: &str, text: &str) -> Option<Diagnosis> {
    let key = &server.key_name;
    let detail = tag(text, "AuthenticationErrorDetail").unwrap_or_default().to_ascii_lowercase();
    let (kind, reason, hint) = match code {
        "ContainerBeingDeleted" => (
            Kind::Usage,
            "the container is being deleted",
            "wait a minute, create it again, then run the same command again".into(),
        ),
        "AuthenticationFailed" if detail.contains("date header") || text.contains("x-ms-date") => {
            (Kind::Auth, CLOCK.0, CLOCK.1.into())
        }
        "AuthenticationFailed" if detail.contains("time frame") => (
            Kind::Auth,
            "the shared access signature has expired or is not valid yet",
            format!("make a new one and set {key} again: `az storage container generate-sas`"),
        ),
        // Azurite answers the second.
        "AuthenticationFailed" | "AuthorizationFailure" if text.contains("failed to authenticate") => {
            unknown_key(server)
        }
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => unknown_key(server),
        "KeyBasedAuthenticationNotPermitted" => (
            Kind::Auth,
            "the account does not allow keys",
            "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET in place of the key: see docs/s3.md".into(),
        ),
        "AccountIsDisabled" | "ContainerDisabled" => {
            (Kind::Auth, "the account or the container is disabled", "enable it in Azure's portal".into())
        }
        "AuthorizationFailure" | "AuthorizationSourceIPMismatch" => {
            let (kind, reason, hint) = denied(server, doing);
            return Some((kind, reason, format!("{hint}; the account's network rules may also block this machine")));
        }
        "InsufficientAccountPermissions" | "PublicAccessNotPermitted" => return Some(denied(server, doing)),
        _ if code.starts_with("Authorization") && code.ends_with("Mismatch") => return Some(denied(server, doing)),
        _ => return None,
    };
    Some((kind, reason.to_owned(), hint))
}

fn unknown_key(server: &Server) -> (Kind, &'static str, String) {
    let key = &server.key_name;
    if server.by_signature {
        let hint = format!("make a new one and set {key} again: `az storage container generate-sas`");
        return (
            Kind::Auth,
            "the shared access signature is rejected: it has expired, or is for another container",
            hint,
        );
    }
    let hint = format!(
        "set {key} again: it may be truncated; `az storage account keys list --account-name {}`",
        server.account()
    );
    (Kind::Auth, "the key does not belong to this account", hint)
}

fn diagnose_google(server: &Server, code: &str) -> Option<Diagnosis> {
    let reason = match code {
        "AuthenticationRequired" | "InvalidSecurity" => "the server does not know these credentials",
        "UserProjectAccountProblem" => "the project of the bucket has no active billing account",
        _ => return None,
    };
    Some((
        Kind::Auth,
        reason.to_owned(),
        format!("make a new key of the service account and set {} again", server.key_name),
    ))
}

const CLOCK: (&str, &str) = ("the clock of this machine is wrong", "set it (`date`), then run the same command again");

/// The diagnosis of a missing bucket.
pub fn missing(server: &Server) -> Diagnosis {
    let bucket = server.bucket();
    let (what, create) = match server.scheme {
        Some(Scheme::Azure) => {
            let account = server.account();
            ("container", format!("az storage container create --name {bucket} --account-name {account}"))
        }
        Some(Scheme::Google) => ("bucket", format!("gcloud storage buckets create gs://{bucket}")),
        _ => ("bucket", format!("aws s3 mb s3://{bucket}")),
    };
    (Kind::Usage, format!("there is no such {what}"), format!("create it: `{create}`"))
}

/// The diagnosis of a missing permission.
pub fn denied(server: &Server, doing: Doing) -> Diagnosis {
    let needs = match server.scheme {
        Some(Scheme::Azure) => "needs the role `Storage Blob Data Contributor`, or a signature with `sp=rcwdl`",
        Some(Scheme::Google) => "needs the role `Storage Object User` on the bucket",
        _ => {
            let permission = doing.permission();
            let hint = format!("the role or key needs {permission}, and the bucket must be yours: see docs/s3.md");
            return (Kind::Auth, "access denied".to_owned(), hint);
        }
    };
    (Kind::Auth, "access denied".to_owned(), format!("the key in {} {needs}: see docs/s3.md", server.key_name))
}

/// The diagnosis of a token service's error: `{"error": "invalid_client", ...}`.
pub(crate) fn diagnose_token_service(server: &Server, text: &str) -> Option<Diagnosis> {
    // The text of an error repeats the text of its cause.
    let mut documents = serde_json::Deserializer::from_str(text.get(text.find('{')?..)?).into_iter::<Value>();
    let answer = documents.next()?.ok()?;
    let code = answer.get("error")?.as_str()?;
    let described = answer.get("error_description").and_then(Value::as_str).unwrap_or_default();
    let line = described.lines().next().unwrap_or_default();
    let reason = if line.is_empty() { code.to_owned() } else { format!("{code} ({line})") };
    let with = match server.scheme {
        Some(Scheme::Azure) => ", AZURE_TENANT_ID and AZURE_CLIENT_ID",
        _ => "",
    };
    Some((
        Kind::Auth,
        format!("the token service answered {reason}"),
        format!("check {}{with}: see docs/s3.md", server.key_name),
    ))
}
