//! Project slugs: how the API names a project.
//!
//! `gh/ORG/REPO` and `bb/ORG/REPO` for projects of GitHub's and Bitbucket's OAuth apps, `circleci/ORG-ID/PROJECT-ID`
//! for all others. The ids of the latter are opaque and cannot be guessed from a git remote.
//! Source: <https://circleci.com/docs/api-developers-guide/#getting-started-with-the-api>.

use crate::error::{Result, usage};
use std::fmt;

/// A project slug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slug {
    provider: &'static str,
    org: String,
    repo: String,
}

const HINT: &str = "set CIRCLE_PROJECT_SLUG to the slug that CircleCI shows in the project's settings, e.g. \
     gh/acme/shop or circleci/ORG-ID/PROJECT-ID; in a job: `CIRCLE_PROJECT_SLUG: << pipeline.project.slug >>`";

impl Slug {
    /// Parses a slug; `github` and `bitbucket` are aliases of `gh` and `bb`.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || usage(format!("`{text}` is not a project slug")).hint(HINT);
        let parts: Vec<&str> = text.trim().split('/').collect();
        let [provider, org, repo] = parts.as_slice() else { return wrong().err() };
        let provider = match *provider {
            "gh" | "github" => "gh",
            "bb" | "bitbucket" => "bb",
            "circleci" => "circleci",
            _ => return wrong().err(),
        };
        let odd = |part: &str| {
            part.is_empty()
                || part == "."
                || part == ".."
                || part.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if odd(org) || odd(repo) {
            return wrong().err();
        }
        Ok(Self { provider, org: (*org).to_owned(), repo: (*repo).to_owned() })
    }

    /// The slug of a git remote on GitHub or Bitbucket.
    pub fn of_remote(url: &str) -> Option<Self> {
        let rest =
            ["git@", "ssh://git@", "https://", "http://"].iter().find_map(|start| url.trim().strip_prefix(start))?;
        // A token before the host is ignored.
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let (host, path) = rest.split_once([':', '/'])?;
        let provider = match host {
            "github.com" => "gh",
            "bitbucket.org" => "bb",
            _ => return None,
        };
        let (org, repo) = path.trim_end_matches('/').trim_end_matches(".git").split_once('/')?;
        Self::parse(&format!("{provider}/{org}/{repo}")).ok()
    }

    /// The slug as a part of a URL's path, each segment escaped separately: an escaped `/` is a 404 on some routes.
    pub fn path(&self) -> String {
        [self.provider, &self.org, &self.repo].map(escape).join("/")
    }

    /// The slug for v1.1, which has other prefixes and no `circleci/` projects.
    pub fn v1_path(&self) -> Result<String> {
        let provider = match self.provider {
            "gh" => "github",
            "bb" => "bitbucket",
            _ => {
                return usage(format!(
                    "API v1.1 does not support the project {self}: only those of GitHub's and Bitbucket's OAuth apps"
                ))
                .hint("use the store circleci:artifacts, which asks API v2")
                .err();
            }
        };
        Ok([provider, &self.org, &self.repo].map(escape).join("/"))
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.provider, self.org, self.repo)
    }
}

/// The error for an unknown project.
pub fn unknown() -> anyhow::Error {
    usage(
        "unknown CircleCI project: CIRCLE_PROJECT_SLUG is not set, and `git remote` names no \
           repository on github.com or bitbucket.org",
    )
    .hint(HINT)
    .into()
}

/// A text as one segment of a path or one value of a query (RFC 3986, 2.3: all but unreserved characters).
pub fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_of_all_kinds() {
        for (text, want) in [
            ("gh/acme/shop", "gh/acme/shop"),
            ("github/acme/shop", "gh/acme/shop"),
            ("bitbucket/acme/shop", "bb/acme/shop"),
            (
                "circleci/43G3lM5RtfFE7v5sa4nWAU/44n9wujWcTnVZ2b5S8Fnat",
                "circleci/43G3lM5RtfFE7v5sa4nWAU/44n9wujWcTnVZ2b5S8Fnat",
            ),
        ] {
            assert_eq!(Slug::parse(text).unwrap().to_string(), want);
        }
        for text in [
            "",
            "acme/shop",
            "gl/acme/shop",
            "gh/acme",
            "gh/acme/",
            "gh//shop",
            "gh/acme/shop/x",
            "gh/../x",
            "gh/a b/c",
        ] {
            assert!(Slug::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn slugs_of_remotes() {
        for (url, want) in [
            ("git@github.com:acme/shop.git", Some("gh/acme/shop")),
            ("https://github.com/acme/shop", Some("gh/acme/shop")),
            ("https://x-access-token:s3cret@github.com/acme/shop.git", Some("gh/acme/shop")),
            ("ssh://git@bitbucket.org/acme/shop.git", Some("bb/acme/shop")),
            ("git@gitlab.com:acme/shop.git", None),
            ("/srv/git/shop.git", None),
            ("https://github.com/acme", None),
        ] {
            assert_eq!(Slug::of_remote(url).map(|slug| slug.to_string()).as_deref(), want, "{url}");
        }
    }

    #[test]
    fn segments_are_escaped_one_by_one() {
        assert_eq!(Slug::parse("gh/acme inc./sh%op").err().map(|_| ()), Some(()));
        assert_eq!(Slug::parse("gh/acme+co/é").unwrap().path(), "gh/acme%2Bco/%C3%A9");
        assert_eq!(Slug::parse("bb/acme/shop").unwrap().v1_path().unwrap(), "bitbucket/acme/shop");
        assert!(Slug::parse("circleci/a/b").unwrap().v1_path().is_err());
    }
}
