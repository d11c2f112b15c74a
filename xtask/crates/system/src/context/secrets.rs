//! Detects secret variables, and masks their values in all output.

use std::path::Path;

/// Minimum length of a secret: shorter values would mask parts of ordinary words.
const LENGTH_MIN: usize = 8;
/// Minimum length of a password in a URL, which is certainly a secret.
const PASSWORD_MIN: usize = 6;

/// Minimum length of a key in base64.
const KEY_MIN: usize = 20;

/// Words of names of secrets.
const WORDS: &[&str] = &[
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SSHPASS",
    "API_KEY",
    "ACCESS_KEY",
    "ACCOUNT_KEY",
    "ENCRYPTION_KEY",
    "MASTER_KEY",
    "PRIVATE_KEY",
    "SAS_KEY",
    "SIGNING_KEY",
    "STORAGE_KEY",
    "CONNECTION_STRING",
    "CREDENTIAL",
    "DSN",
    // The URL of an incoming webhook is all that is needed to post.
    "WEBHOOK",
];
/// Suffixes of names of secrets. `PWD` alone is the current directory.
const ENDS: &[&str] = &["_PASS", "_PWD"];
/// Keys of the pairs in a connection string or a query whose values are secrets, in small letters.
const PAIRS: &[&str] =
    &["accountkey", "password", "pwd", "secret", "sharedaccesskey", "sharedaccesssignature", "sig", "token"];

/// Replaces the secrets in a text.
pub fn mask(secrets: &[String], text: &str) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "****"))
}

/// The texts to mask: values of secret variables, their parts, their single lines, and all of these as in JSON, Slack and HTML.
/// The longest come first, because one secret may be a prefix of another.
pub fn secrets<'a>(env: impl IntoIterator<Item = (&'a String, &'a String)>) -> Vec<String> {
    let mut secrets = Vec::new();
    for (_, value) in env.into_iter().filter(|(name, value)| is_secret(name, value)) {
        for part in std::iter::once(value.clone()).chain(parts(value)) {
            for text in std::iter::once(part.as_str()).chain(part.lines().filter(|line| line.len() >= LENGTH_MIN)) {
                secrets.push(text.to_owned());
                let escaped = serde_json::Value::from(text).to_string();
                secrets.push(escaped[1..escaped.len() - 1].to_owned());
                // As Slack and HTML have it.
                let markup = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                secrets.push(markup.replace('"', "&quot;"));
                secrets.push(markup);
            }
        }
    }
    secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    secrets.dedup();
    secrets
}

/// Whether a variable is a secret, by its name, or because it is a URL with a login.
pub(crate) fn is_secret(name: &str, value: &str) -> bool {
    let named = is_named_secret(name) && !is_path(name, value);
    value.len() >= LENGTH_MIN && (named || !logins(value).is_empty())
}

/// Whether a value is the path of a secret. A key in base64 may also start with `/`.
fn is_path(name: &str, value: &str) -> bool {
    let of_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let like_key =
        value.len() >= KEY_MIN && value.chars().all(of_base64) && !name.to_ascii_uppercase().ends_with("_FILE");
    Path::new(value).is_absolute() && !like_key
}

fn is_named_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word)) || ENDS.iter().any(|end| name.ends_with(end))
}

/// The parts of a value that are secrets: passwords of URLs, values of a connection string or a query, and fields of a
/// JSON document.
fn parts(value: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for login in logins(value) {
        match login.split_once(':') {
            Some((user, password)) if password.len() >= PASSWORD_MIN && password != user => {
                parts.push(password.to_owned());
            }
            None if login.len() >= LENGTH_MIN => parts.push(login.to_owned()),
            _ => {}
        }
    }
    for (key, value) in value.split([';', '&', '?']).filter_map(|pair| pair.split_once('=')) {
        let key = key.trim().to_ascii_lowercase().replace(['_', '-', ' '], "");
        if PAIRS.contains(&key.as_str()) && value.len() >= LENGTH_MIN {
            parts.push(value.to_owned());
        }
    }
    if let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(value) {
        let secret = fields.iter().filter(|(name, _)| is_named_secret(name)).filter_map(|(_, value)| value.as_str());
        parts.extend(secret.filter(|text| text.len() >= LENGTH_MIN).map(str::to_owned));
    }
    let decoded: Vec<_> = parts.iter().map(|part| decoded(part)).filter(|part| part.len() >= PASSWORD_MIN).collect();
    parts.extend(decoded);
    parts
}

/// `user:password` of each URL in a text; `user` alone may be a token.
fn logins(text: &str) -> Vec<&str> {
    let mut logins = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("://") {
        rest = after;
        let authority = after.split(['/', '?', '#']).next().unwrap_or_default();
        // A password with a `/` ends the authority early, which an invalid port shows.
        let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
        let torn = !port.is_empty() && !port.ends_with(']') && !port.bytes().all(|c| c.is_ascii_digit());
        let whole = if torn && !authority.contains('@') { after } else { authority };
        logins.extend(whole.rsplit_once('@').map(|(login, _)| login).filter(|login| !login.is_empty()));
    }
    logins
}

/// A text with its `%XX` decoded.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|it| std::str::from_utf8(it).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_secret_judges_by_name_and_value() {
        for (name, value, secret) in [
            ("CIRCLE_TOKEN", "0123456789", true),
            ("db_password", "hunter2hunter2", true),
            ("DATABASE_URL", "postgres://ana:sesame@db/shop", true),
            ("DATABASE_URL", "postgres://ana:ses/ame@db/shop", true),
            ("AMQP", "amqp://one,amqp://ana:sesame@two", true),
            ("HOMEPAGE", "https://example.com/@ana", false),
            ("HOMEPAGE", "https://example.com:8080/@ana", false),
            ("HOMEPAGE", "https://[::1]:8080/@ana", false),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token", false),
            ("TOKEN", "short", false),
            ("PATH", "/usr/bin:/bin", false),
            ("AZURE_STORAGE_KEY", "bm90YWtleQ==", true),
            ("AZURE_STORAGE_ACCOUNT_KEY", "bm90YWtleQ==", true),
            ("AZURE_STORAGE_SAS_KEY", "sv=2024&sig=abc", true),
            ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=b", true),
            ("AZURE_STORAGE_ACCOUNT", "acmebuilds", false),
            ("AZURE_STORAGE_ACCESS_KEY", "bm90YWtleQ==", true),
            ("AZURE_STORAGE_MASTER_KEY", "bm90YWtleQ==", true),
            ("AZURE_STORAGE_ENCRYPTION_KEY", "bm90YWtleQ==", true),
            ("AZURE_STORAGE_SAS_TOKEN", "sv=2024&sig=abc", true),
            ("AZURE_STORAGE_TOKEN", "eyJ0eXAiOiJKV1Qi", true),
            ("AZURE_CLIENT_SECRET", "sesame-open", true),
            ("AZURE_FEDERATED_TOKEN_FILE", "/run/secrets/azure/tokens/token", false),
            ("GOOGLE_BEARER_TOKEN", "ya29.sesame", true),
            ("AZURE_STORAGE_KEY", "/8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq==", true),
            ("AWS_SECRET_ACCESS_KEY", "/JalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", true),
            ("AWS_SHARED_CREDENTIALS_FILE", "/home/ana/aws/credentials/file", false),
            ("GIT_CREDENTIAL_STORE", "/run/token", false),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\"type\":\"service_account\"}", true),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/home/ana/key.json", false),
            ("DB_PASS", "sesame-open", true),
            ("MYSQL_PWD", "sesame-open", true),
            ("SSHPASS", "sesame-open", true),
            ("GPG_PASSPHRASE", "sesame-open", true),
            ("PWD", "relative/dir", false),
            ("OLDPWD", "relative/dir", false),
            ("BYPASS", "all-the-checks", false),
        ] {
            assert_eq!(is_secret(name, value), secret, "{name}={value}");
        }
    }

    #[test]
    fn part_of_a_secret_value_is_masked_by_itself() {
        for (name, value, text, masked) in [
            (
                "DATABASE_URL",
                "postgres://ana:sesame@db/shop",
                "wrong password sesame for ana",
                "wrong password **** for ana",
            ),
            ("DATABASE_URL", "postgres://ana:se%40same@db/shop", "se@same se%40same", "**** ****"),
            ("DATABASE_URL", "postgres://ana:ses/ame@db/shop", "password ses/ame", "password ****"),
            ("DATABASE_URL", "postgres://deploy:deploy@db/shop", "deploy dev", "deploy dev"),
            ("DATABASE_URL", "postgres://ana:abc@db/shop", "abc", "abc"),
            ("AMQP", "amqp://a:first-one@x,amqp://b:other-one@y", "first-one other-one", "**** ****"),
            ("REMOTE", "https://ghp_0123456789@github.com/acme/shop", "Bearer ghp_0123456789", "Bearer ****"),
            (
                "AZURE_STORAGE_CONNECTION_STRING",
                "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=c2VzYW1lb3Blbg==;EndpointSuffix=core.windows.net",
                "acme with c2VzYW1lb3Blbg==",
                "acme with ****",
            ),
            (
                "AZURE_STORAGE_SAS_TOKEN",
                "?sv=2024-01-01&sig=ab%2Bcdefgh%3D",
                "sig=ab%2Bcdefgh%3D ab+cdefgh=",
                "sig=**** ****",
            ),
            (
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                r#"{"client_email":"ci@acme","private_key":"-----BEGIN-----\nabcdefghij\n-----END-----"}"#,
                "ci@acme abcdefghij",
                "ci@acme ****",
            ),
        ] {
            let (name, value) = (name.to_owned(), value.to_owned());
            assert_eq!(mask(&secrets([(&name, &value)]), text), masked, "{name}={value}");
        }
    }
}
