//! Release ids and selectors.

use crate::error::{Result, usage};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Commit time (UTC) and short SHA, e.g. `20260822T101500-1a2b3c4`. The same commit has the same id on every machine,
/// and ids sort by time. A dirty tree adds `-dirty-` and eight digits of the digest of its files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId(String);

impl ReleaseId {
    /// Digits of the SHA in an id.
    pub const SHORT: usize = 7;

    /// The id of a commit; `dirty` is the digest (hex) of the files if they differ from the commit.
    pub fn new(time: Timestamp, sha: &str, dirty: Option<&str>) -> Result<Self> {
        let time = time.strftime("%Y%m%dT%H%M%S");
        let short = sha.get(..Self::SHORT).unwrap_or(sha);
        match dirty {
            None => format!("{time}-{short}").parse(),
            Some(digest) => format!("{time}-{short}-dirty-{}", digest.get(..8).unwrap_or(digest)).parse(),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The commit time in the id; compares as text.
    pub fn time(&self) -> &str {
        &self.0[..15]
    }

    /// The first digits of the commit's SHA.
    pub fn short_sha(&self) -> &str {
        self.0[16..].split('-').next().unwrap_or_default()
    }

    /// The id without its time, which names it on a command line too.
    pub fn short(&self) -> &str {
        &self.0[16..]
    }

    /// Whether it was built from uncommitted changes.
    pub fn is_dirty(&self) -> bool {
        self.0.contains("-dirty-")
    }
}

impl FromStr for ReleaseId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if is_id(text) {
            return Ok(Self(text.to_owned()));
        }
        usage(format!("`{text}` is not a release id"))
            .hint("ids look like 20260822T101500-1a2b3c4: `cargo xtask releases` lists them")
            .err()
    }
}

fn is_id(text: &str) -> bool {
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (head, dirty) = match text.split_once("-dirty-") {
        Some((head, digest)) => (head, Some(digest)),
        None => (text, None),
    };
    let Some((time, sha)) = head.split_once('-') else { return false };
    let Some((day, clock)) = time.split_once('T') else { return false };
    day.len() == 8
        && clock.len() == 6
        && digits(day)
        && digits(clock)
        && sha.len() == ReleaseId::SHORT
        && hex(sha)
        && dirty.is_none_or(|digest| digest.len() == 8 && hex(digest))
}

impl TryFrom<String> for ReleaseId {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A release as typed by the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// A full id.
    Id(ReleaseId),
    /// The first 4 to 40 digits of a commit's SHA.
    Sha(String),
    /// The short id of a dirty release: `1a2b3c4-dirty-01234567`.
    Dirty(String),
    /// The release of the checked-out commit, as without a selector.
    Head,
    /// The newest release that is not dirty.
    Latest,
    /// The previous healthy release; only valid for a rollback.
    Previous,
    /// The live release of an env: `@dev`.
    Env(String),
    /// The release built by a CircleCI job: `build:123`.
    Build(u64),
}

impl FromStr for Selector {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        match text {
            "HEAD" => return Ok(Self::Head),
            "latest" => return Ok(Self::Latest),
            "previous" => return Ok(Self::Previous),
            _ => {}
        }
        if let Some(env) = text.strip_prefix('@') {
            return Ok(Self::Env(env.to_owned()));
        }
        if let Some(number) = text.strip_prefix("build:").and_then(|n| n.parse().ok()) {
            return Ok(Self::Build(number));
        }
        if is_id(text) {
            return Ok(Self::Id(ReleaseId(text.to_owned())));
        }
        if is_id(&format!("00000000T000000-{text}")) && text.contains("-dirty-") {
            return Ok(Self::Dirty(text.to_owned()));
        }
        if (4..=40).contains(&lower.len()) && lower.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self::Sha(lower));
        }
        if text == "<nil>" {
            return usage("CircleCI's page passed no release")
                .hint("choose a version on the page, or run `cargo xtask ci trigger deploy ENV RELEASE`")
                .err();
        }
        usage(format!("`{text}` does not name a release"))
            .hint("use an id, 4 to 40 digits of a commit's SHA, `HEAD`, `latest`, `previous`, `build:N` or `@ENV`; `cargo xtask releases` lists them")
            .err()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Sha(short) | Self::Dirty(short) => f.write_str(short),
            Self::Head => f.write_str("HEAD"),
            Self::Latest => f.write_str("latest"),
            Self::Previous => f.write_str("previous"),
            Self::Env(env) => write!(f, "@{env}"),
            Self::Build(job) => write!(f, "build:{job}"),
        }
    }
}

/// The release that is expected to be live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Expected {
    /// Any or none.
    #[default]
    Anything,
    /// This release.
    Id(ReleaseId),
    /// A release of the commit with this prefix.
    Sha(String),
}

impl Expected {
    /// Whether it matches `live`, a release of `commit` if known.
    pub fn is(&self, live: Option<&ReleaseId>, commit: Option<&str>) -> bool {
        match (self, live) {
            (Self::Anything, _) => true,
            (_, None) => false,
            (Self::Id(id), Some(live)) => id == live,
            (Self::Sha(sha), Some(live)) => match commit {
                Some(commit) => commit.starts_with(sha),
                None => live.short_sha().starts_with(&sha[..sha.len().min(ReleaseId::SHORT)]),
            },
        }
    }
}

impl FromStr for Expected {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            _ if is_nil(text) => Ok(Self::Anything),
            Ok(Selector::Id(id)) => Ok(Self::Id(id)),
            Ok(Selector::Sha(sha)) => Ok(Self::Sha(sha)),
            _ => usage(format!("`{text}` is not a release"))
                .hint("use an id or 4 to 40 digits of a commit's SHA: `cargo xtask status` shows them")
                .err(),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anything => f.write_str("anything"),
            Self::Id(id) => id.fmt(f),
            Self::Sha(sha) => f.write_str(sha),
        }
    }
}

/// Whether a text is CircleCI's rendering of a missing pipeline value.
pub fn is_nil(text: &str) -> bool {
    text.is_empty() || text == "<nil>"
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";

    #[test]
    fn ids_are_made_and_read_back() {
        let time: Timestamp = "2026-08-22T12:15:00+02:00".parse().unwrap();
        let id = ReleaseId::new(time, SHA, None).unwrap();
        assert_eq!(id.as_str(), "20260822T101500-1a2b3c4");
        assert_eq!((id.time(), id.short_sha(), id.is_dirty()), ("20260822T101500", "1a2b3c4", false));
        let dirty = ReleaseId::new(time, SHA, Some("ffeeddccbbaa")).unwrap();
        assert_eq!(dirty.as_str(), "20260822T101500-1a2b3c4-dirty-ffeeddcc");
        assert_eq!((dirty.short_sha(), dirty.is_dirty()), ("1a2b3c4", true));
        assert_eq!(dirty.as_str().parse::<ReleaseId>().unwrap(), dirty);
    }

    #[test]
    fn parse_of_invalid_release_id_is_refused() {
        for text in [
            "",
            "-",
            "x",
            "20260822T101500",
            "20260822T101500-1a2b3c",
            "20260822T101500-1A2B3C4",
            "../etc",
            "20260822T101500-1a2b3c4-dirty-",
            "20260822T101500-1a2b3c4/..",
            "20260822T101500-1a2b3c4-dirty-0123456g",
            "é0260822T101500-1a2b3c4",
        ] {
            assert!(text.parse::<ReleaseId>().is_err(), "{text}");
        }
    }

    #[test]
    fn selectors() {
        let select = |text: &str| text.parse::<Selector>().ok();
        assert_eq!(select("HEAD"), Some(Selector::Head));
        assert_eq!(select("latest"), Some(Selector::Latest));
        assert_eq!(select("previous"), Some(Selector::Previous));
        assert_eq!(select("@dev"), Some(Selector::Env("dev".into())));
        assert_eq!(select("build:123"), Some(Selector::Build(123)));
        assert_eq!(select("1A2b"), Some(Selector::Sha("1a2b".into())));
        let dirty = "1a2b3c4-dirty-01234567";
        assert_eq!(select(dirty), Some(Selector::Dirty(dirty.into())));
        let id: ReleaseId = format!("20260822T101500-{dirty}").parse().unwrap();
        assert_eq!(select(id.short()), Some(Selector::Dirty(dirty.into())));
        assert_eq!(select("1a2b-dirty-01234567"), None);
        assert!(matches!(select("20260822T101500-1a2b3c4"), Some(Selector::Id(_))));
        for text in ["", "1a2", "build:x", "nope!", "latest ", "head", &"a".repeat(41)] {
            assert_eq!(select(text), None, "{text}");
        }
    }

    #[test]
    fn expected_release_matches_by_id_or_commit() {
        let live: ReleaseId = "20260822T101500-1a2b3c4".parse().unwrap();
        for (text, commit, is) in [
            ("", None, true),
            ("<nil>", None, true),
            ("20260822T101500-1a2b3c4", None, true),
            ("20260822T101501-1a2b3c4", None, false),
            ("1A2B", Some(SHA), true),
            (SHA, Some(SHA), true),
            ("1a2b3c4d6", Some(SHA), false),
            // Without a record of the commit, only the seven digits of the id can be compared.
            (SHA, None, true),
            ("1a2b3c5d", None, false),
        ] {
            assert_eq!(text.parse::<Expected>().unwrap().is(Some(&live), commit), is, "{text}");
        }
        assert!(!SHA.parse::<Expected>().unwrap().is(None, None));
        for text in ["HEAD", "latest", "previous", "@dev", "build:3", "nope!"] {
            assert!(text.parse::<Expected>().is_err(), "{text}");
        }
    }
}
