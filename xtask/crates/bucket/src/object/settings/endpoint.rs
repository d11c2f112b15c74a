//! The endpoint of a bucket: the URL from a variable, checked for the bucket in it.

use gangplank_model::error::{Result, usage};
use gangplank_system::http;
use gangplank_system::http::Url;
use gangplank_system::http::policy::{is_secure, origin};

/// The variable that an endpoint comes from, and its URL.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The variable, or the key of a file.
    pub name: String,
    /// Its URL.
    pub url: Url,
}

impl Endpoint {
    /// Parses the endpoint of a store. `allowed` is the variable's value that permits plain http to another machine; `None`
    /// where no variable does.
    pub fn parse(store: &str, name: &str, text: &str, allowed: Option<&str>) -> Result<Self> {
        let parsed = http::url(text).map_err(|_| {
            usage(format!("store {store}: {name}={text} is not the URL of a server"))
                .hint(format!("e.g. {name}=https://storage.example.org"))
        })?;
        if parsed.query().is_some() || parsed.fragment().is_some() || !parsed.username().is_empty() {
            return usage(format!("store {store}: {name} contains a login, a `?` or a `#`"))
                .hint(format!("set {name}={}", origin(&parsed)))
                .err();
        }
        if !is_secure(&parsed) && allowed.is_none_or(str::is_empty) {
            let how = match allowed {
                Some(_) => "use https, or set AWS_ALLOW_HTTP=true if that is what you want",
                None => "use https",
            };
            return usage(format!("store {store}: {} is another machine, and http is not encrypted", origin(&parsed)))
                .hint(how)
                .err();
        }
        Ok(Self { name: name.to_owned(), url: parsed })
    }

    /// The URL as text, without a trailing `/`.
    pub fn text(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }

    /// The endpoint of virtual-hosted style: the bucket is the first part of the host.
    pub fn with_bucket(&self, store: &str, bucket: &str) -> Result<Self> {
        let host = self.url.host_str().unwrap_or_default();
        if starts_with(host, bucket) {
            return Ok(self.clone());
        }
        let mut url = self.url.clone();
        if self.url.domain().is_none() || url.set_host(Some(&format!("{bucket}.{host}"))).is_err() {
            return usage(format!("store {store}: virtual-hosted style needs a host name, and {host} is an address"))
                .hint("unset AWS_VIRTUAL_HOSTED_STYLE_REQUEST to put the bucket into the path")
                .err();
        }
        Ok(Self { url, ..self.clone() })
    }

    /// Refuses an endpoint that contains the bucket: requests would name it twice.
    pub(crate) fn without_bucket(&self, store: &str, bucket: &str, path_style: bool) -> Result<()> {
        let host = self.url.host_str().unwrap_or_default();
        let path = self.url.path().trim_end_matches('/');
        let mut plain = self.url.clone();
        let how = if let Some(before) = path.strip_suffix(bucket).and_then(|it| it.strip_suffix('/')) {
            plain.set_path(before);
            format!("set {}={}", self.name, plain.as_str().trim_end_matches('/'))
        } else if starts_with(host, bucket) && !path_style {
            let _ = plain.set_host(host.get(bucket.len() + 1..));
            format!(
                "set {}={}, or AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true to keep it (=false if the host only happens to start so)",
                self.name,
                plain.as_str().trim_end_matches('/')
            )
        } else {
            return Ok(());
        };
        usage(format!("store {store}: {} already contains the bucket `{bucket}`", self.name)).hint(how).err()
    }
}

fn starts_with(host: &str, bucket: &str) -> bool {
    host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::{Kind, hint_of, kind_of};

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse("s3://builds/shop", "S3_ENDPOINT", text, Some("true")).unwrap()
    }

    #[test]
    fn endpoint_with_the_bucket_is_refused() {
        for (text, path_style, hint) in [
            ("https://s3.example.org", false, None),
            ("https://s3.example.org/prefix/", false, None),
            ("https://s3.example.org/my-builds", false, None),
            ("https://mybuilds.example.org", false, None),
            ("https://builds.example.org", true, None),
            ("http://127.0.0.1:9000/builds", false, Some("set S3_ENDPOINT=http://127.0.0.1:9000")),
            ("http://127.0.0.1:9000/builds/", true, Some("set S3_ENDPOINT=http://127.0.0.1:9000")),
            ("https://s3.example.org/a/builds", false, Some("set S3_ENDPOINT=https://s3.example.org/a")),
            (
                "https://builds.s3.eu-west-1.amazonaws.com",
                false,
                Some("set S3_ENDPOINT=https://s3.eu-west-1.amazonaws.com, or AWS_VIRTUAL"),
            ),
        ] {
            let done = endpoint(text).without_bucket("s3://builds/shop", "builds", path_style);
            match (done, hint) {
                (Ok(()), None) => {}
                (Err(error), Some(hint)) => {
                    assert_eq!(kind_of(&error), Kind::Usage, "{text}");
                    assert!(hint_of(&error).unwrap().starts_with(hint), "{text}: {:?}", hint_of(&error));
                }
                (done, _) => panic!("{text}: {done:?}"),
            }
        }
    }

    #[test]
    fn endpoint_in_virtual_hosted_style_gets_the_bucket_once() {
        for (text, want) in [
            ("https://s3.example.org", Some("https://builds.s3.example.org")),
            ("https://builds.s3.example.org", Some("https://builds.s3.example.org")),
            ("http://127.0.0.1:9000", None),
        ] {
            let found = endpoint(text).with_bucket("s3://builds/shop", "builds").ok().map(|it| it.text());
            assert_eq!(found.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn endpoint_that_is_invalid_or_not_encrypted_is_refused() {
        for (text, allowed, good) in [
            ("https://s3.example.org", None, true),
            ("http://127.0.0.1:9000", None, true),
            ("http://localhost:9000", Some(""), true),
            ("http://s3.lan:9000", Some("true"), true),
            ("http://s3.lan:9000", Some(""), false),
            ("http://s3.lan:9000", None, false),
            ("s3.lan:9000", Some("true"), false),
            ("https://ana:sesame@s3.lan", Some("true"), false),
            ("https://s3.lan/?x=y", Some("true"), false),
        ] {
            let done = Endpoint::parse("s3://builds/shop", "S3_ENDPOINT", text, allowed);
            assert_eq!(done.is_ok(), good, "{text}");
            assert!(good || kind_of(&done.unwrap_err()) == Kind::Usage);
        }
    }
}
