//! The address and credentials of a bucket, from a store's URL and the cloud's usual variables and files.

mod aws;
mod azure;
mod endpoint;
mod google;
pub mod values;

use crate::object::settings::values::{Credentials, Files, Scheme, Settings};
use gangplank_model::error::{Result, usage};
use gangplank_system::context::{Context, var};
use gangplank_system::http::NetworkOptions;
use std::collections::BTreeMap;
use std::fs;

/// The settings of a store from the variables of the context and the files of this machine.
pub fn of_machine(ctx: &Context, url: &str) -> Result<Settings> {
    settings(url, ctx.vars(), &|path| fs::read_to_string(path).ok())
}

/// Parses the settings of a store.
pub fn settings(url: &str, vars: &BTreeMap<String, String>, files: Files) -> Result<Settings> {
    let (scheme, bucket, prefix) = parts(url)?;
    let vars = &clean(vars)?;
    if vars.get(var::BUCKETS).is_some_and(|dir| !dir.is_empty()) {
        // A directory replaces the server and needs no credentials.
        return Ok(Settings {
            scheme,
            bucket,
            prefix,
            options: BTreeMap::new(),
            endpoint: None,
            credentials: Credentials::Given,
            signs: false,
            network: NetworkOptions::default(),
            key_name: String::new(),
        });
    }
    match scheme {
        Scheme::S3 => aws::settings(url, (bucket, prefix), vars, files),
        Scheme::Google => google::settings(url, (bucket, prefix), vars, files),
        Scheme::Azure => azure::settings(url, (bucket, prefix), vars, files),
    }
}

/// The clouds' variables without surrounding blanks. Fails for characters that cannot be sent.
fn clean(vars: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let own = ["AWS_", "AZURE_", "GCE_METADATA_", "GOOGLE_", "IDENTITY_", "S3_", "STORAGE_EMULATOR_", "CIRCLE_OIDC_"];
    let ours = |name: &str| own.iter().any(|own| name.starts_with(own));
    let clean = |(name, value): (&String, &String)| {
        let value = if ours(name) { value.trim() } else { value.as_str() };
        // A Google service account may be a document of many lines.
        if ours(name)
            && name != "GOOGLE_SERVICE_ACCOUNT_KEY"
            && value.contains(|c: char| c.is_control() || !c.is_ascii())
        {
            return usage(format!("{name} contains an invalid character, e.g. a newline"))
                .hint("set it again, on one line")
                .err();
        }
        Ok((name.clone(), value.to_owned()))
    };
    vars.iter().map(clean).collect()
}

fn parts(url: &str) -> Result<(Scheme, String, String)> {
    let wrong = |reason: &str| usage(format!("store {url}: {reason}")).hint("write s3://BUCKET/PREFIX");
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it names no bucket"))?;
    let scheme = match scheme {
        "s3" => Scheme::S3,
        "gs" => Scheme::Google,
        "az" => Scheme::Azure,
        _ => return wrong("it is not the URL of a bucket").err(),
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    // Google's may also contain `_`.
    let of_bucket = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.') || c == '_' && scheme == Scheme::Google
    };
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let whole = bucket.chars().all(of_bucket) && bucket.starts_with(ends) && bucket.ends_with(ends);
    if bucket.len() < 3 || bucket.len() > 63 || !whole || bucket.contains("..") {
        return wrong("the bucket name must have 3 to 63 lower-case letters, digits, `-` and `.`").err();
    }
    let prefix = prefix.trim_end_matches('/');
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || !part.chars().all(is_name);
    if !prefix.is_empty() && prefix.split('/').any(bad) {
        return wrong("the prefix may contain letters, digits, `-`, `.`, `_` and single `/`").err();
    }
    Ok((scheme, bucket.to_owned(), prefix.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::{Kind, hint_of, kind_of};

    fn of(url: &str) -> Result<Settings> {
        settings(url, &BTreeMap::new(), &|_| None)
    }

    #[test]
    fn urls_of_buckets() {
        for (url, bucket, prefix) in [
            ("s3://acme-builds/shop", "acme-builds", "shop"),
            ("s3://acme-builds", "acme-builds", ""),
            ("gs://acme-builds/a/b/", "acme-builds", "a/b"),
            ("az://builds/shop", "builds", "shop"),
        ] {
            let it = of(url).unwrap();
            assert_eq!((it.bucket.as_str(), it.prefix.as_str()), (bucket, prefix), "{url}");
        }
        for url in [
            "s3://",
            "s3://a",
            "s3://a b/c",
            "s3://bucket/../x",
            "s3://bucket//x",
            "s3://user@bucket/x",
            "s3://...",
            "s3://App-Bucket/x",
            "s3://app_bucket/x",
            "s3://-bucket/x",
            "ftp://bucket/x",
        ] {
            let error = of(url).map(drop).unwrap_err();
            assert_eq!(kind_of(&error), Kind::Usage, "{url}");
            assert!(hint_of(&error).is_some());
        }
    }
}
