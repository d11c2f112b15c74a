//! Which server is spoken to: the URL that a variable names, and whether it holds the bucket already.

use crate::error::{Result, usage};
use crate::http::policy::{is_secure, origin};
use crate::http::{self, Url};

/// The variable that an endpoint comes from, and its URL.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The variable, or the key of a file.
    pub name: String,
    /// Its URL.
    pub url: Url,
}

impl Endpoint {
    /// Reads the endpoint of a store. Plain http to another machine needs a word of its own: `allowed`.
    pub fn parse(store: &str, name: &str, text: &str, allowed: Option<&str>) -> Result<Self> {
        let parsed = http::url(text).map_err(|_| {
            usage(format!("store {store}: {name}={text} is no URL of a server"))
                .hint(format!("e.g. {name}=https://storage.example.org"))
        })?;
        if parsed.query().is_some() || parsed.fragment().is_some() || !parsed.username().is_empty() {
            return usage(format!("store {store}: {name} has a login, a `?` or a `#` in it"))
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

    /// Its text, without `/` at the end.
    pub fn text(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }

    /// The endpoint for requests whose host names the bucket: with the bucket in front, if it is not there already.
    pub fn with_bucket(&self, store: &str, bucket: &str) -> Result<Self> {
        let host = self.url.host_str().unwrap_or_default();
        if starts_with(host, bucket) {
            return Ok(self.clone());
        }
        let mut url = self.url.clone();
        if self.url.domain().is_none() || url.set_host(Some(&format!("{bucket}.{host}"))).is_err() {
            return usage(format!("store {store}: `{bucket}` cannot stand before {host}"))
                .hint("unset AWS_VIRTUAL_HOSTED_STYLE_REQUEST: the bucket then stands in the path")
                .err();
        }
        Ok(Self { url, ..self.clone() })
    }

    /// Refuses an endpoint that names the bucket, which would be asked for a bucket inside it.
    pub fn without_bucket(&self, store: &str, bucket: &str, in_path_by_choice: bool) -> Result<()> {
        let host = self.url.host_str().unwrap_or_default();
        let path = self.url.path().trim_end_matches('/');
        let mut plain = self.url.clone();
        let how = if let Some(before) = path.strip_suffix(bucket).and_then(|it| it.strip_suffix('/')) {
            plain.set_path(before);
            format!("set {}={}", self.name, plain.as_str().trim_end_matches('/'))
        } else if starts_with(host, bucket) && !in_path_by_choice {
            let _ = plain.set_host(host.get(bucket.len() + 1..));
            format!(
                "set {}={}, or AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true to keep it (=false where the server is called so by chance)",
                self.name,
                plain.as_str().trim_end_matches('/')
            )
        } else {
            return Ok(());
        };
        usage(format!("store {store}: {} names the bucket `{bucket}` already", self.name)).hint(how).err()
    }
}

fn starts_with(host: &str, bucket: &str) -> bool {
    host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, hint_of, kind_of};

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse("s3://builds/shop", "S3_ENDPOINT", text, Some("true")).unwrap()
    }

    #[test]
    fn endpoint_that_names_the_bucket_is_refused() {
        for (text, by_choice, hint) in [
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
            let done = endpoint(text).without_bucket("s3://builds/shop", "builds", by_choice);
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
    fn endpoint_that_cannot_be_spoken_to_is_refused() {
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
