//! Which variables are secrets, and how their values are replaced in everything that is shown.

use std::collections::BTreeMap;
use std::path::Path;

/// Replaces the secrets in a text.
pub fn mask(secrets: &[String], text: &str) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "****"))
}

/// The texts that must not be shown: values of secret variables, their single lines, and both as JSON writes them. The
/// longest come first, because one secret may begin like another.
pub fn secrets(env: &BTreeMap<String, String>) -> Vec<String> {
    let mut secrets = Vec::new();
    for (_, value) in env.iter().filter(|(name, value)| is_secret(name, value)) {
        for text in std::iter::once(value.as_str()).chain(value.lines().filter(|line| line.len() >= 8)) {
            secrets.push(text.to_owned());
            let escaped = serde_json::Value::from(text).to_string();
            secrets.push(escaped[1..escaped.len() - 1].to_owned());
        }
    }
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    secrets
}

/// Whether a variable holds something that must not be shown: its name says so, or it is a URL with a password in it.
/// Short values would blank out half of every line.
fn is_secret(name: &str, value: &str) -> bool {
    const TELLING: [&str; 9] =
        ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "ACCESS_KEY", "PRIVATE_KEY", "CREDENTIAL", "DSN"];
    let name = name.to_ascii_uppercase();
    let named = TELLING.iter().any(|word| name.contains(word)) && !Path::new(value).is_absolute();
    let login =
        value.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')));
    value.len() >= 8 && (named || login)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_secret() {
        for (name, value, secret) in [
            ("CIRCLE_TOKEN", "0123456789", true),
            ("db_password", "hunter2hunter2", true),
            ("DATABASE_URL", "postgres://ana:sesame@db/shop", true),
            ("HOMEPAGE", "https://example.com/@ana", false),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token", false),
            ("TOKEN", "short", false),
            ("PATH", "/usr/bin:/bin", false),
        ] {
            assert_eq!(is_secret(name, value), secret, "{name}={value}");
        }
    }
}
