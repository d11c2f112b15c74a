//! What is needed to open a bucket, as values.

use gangplank_system::http;
use gangplank_system::http::{NetworkOptions, Secret};
use std::collections::BTreeMap;

/// The protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `s3://`: AWS and compatible servers.
    S3,
    /// `gs://`
    Google,
    /// `az://`
    Azure,
}

/// The settings to open a bucket.
#[derive(Clone)]
pub struct Settings {
    /// The protocol.
    pub scheme: Scheme,
    /// The bucket; a container in Azure.
    pub bucket: String,
    /// The prefix of all keys, without `/` at its ends; may be empty.
    pub prefix: String,
    /// Options, named like the variables in lower case. Some are secrets.
    pub options: BTreeMap<String, String>,
    /// The URL of the server; `None` if a directory replaces it.
    pub endpoint: Option<http::Url>,
    /// How the requests are signed.
    pub credentials: Credentials,
    /// Whether URLs can be signed with these credentials.
    pub signs: bool,
    /// Proxies and certificates.
    pub network: NetworkOptions,
    /// The variable or file that the key comes from, for hints.
    pub key_name: String,
}

impl Settings {
    /// Whether requests go unencrypted.
    pub fn plain_http(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|url| url.scheme() == "http")
    }
}

/// How requests are signed.
#[derive(Clone)]
pub enum Credentials {
    /// With the keys in the options.
    Given,
    /// With keys of a role, in exchange for CircleCI's token.
    Exchanged(Role),
    /// Not at all; the text lists what was looked for.
    Missing(String),
}

/// A role to assume.
#[derive(Clone)]
pub struct Role {
    /// `arn:aws:iam::ACCOUNT:role/NAME`
    pub arn: String,
    /// The identity token, from a file or a variable.
    pub token: Secret,
    /// The URL of the token service.
    pub endpoint: http::Url,
}

/// Returns the text of a file, if it exists.
pub type Files<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Variables that are set and not empty.
pub struct Vars<'a>(pub(crate) &'a BTreeMap<String, String>);

impl<'a> Vars<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The first of several variables that is set, and its value.
    pub(crate) fn first(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?.to_owned())))
    }
}

/// Whether the value of a variable means yes.
pub fn is_on(value: Option<&str>) -> bool {
    value.is_some_and(|it| ["1", "true", "on", "yes", "y"].contains(&it.to_ascii_lowercase().as_str()))
}
