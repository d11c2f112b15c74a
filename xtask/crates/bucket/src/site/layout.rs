//! What a site keeps beside its files, below `.gangplank/`:
//!
//! ```text
//! current.json                   the live release, and those whose switch has begun and not ended
//! releases/<id>.<digest>.json    the manifest of an installed release, created last, which completes it
//! served/<id>.<digest>.json      the object of each path that it serves
//! files/<digest>-<headers>       contents, each under its own digest, with the headers that it is served with
//! outdated.json                  paths that the live release no longer has, and since when
//! check.json                     the health check with which the live release was healthy
//! history.jsonl, lock.json       as in a store
//! ```
//!
//! Everything is hostile until checked: other logins may write to the bucket too.

use gangplank_model::error::{Result, verification};
use gangplank_model::release::digest::{is_digest, of};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::{Content, Manifest};
use gangplank_model::site::{Outdated, Served};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

pub const OWN: &str = ".gangplank";
pub const CHECK: &str = ".gangplank/check.json";
pub const CURRENT: &str = ".gangplank/current.json";
pub const HISTORY: &str = ".gangplank/history.jsonl";
pub const LOCK: &str = ".gangplank/lock.json";
pub const OUTDATED: &str = ".gangplank/outdated.json";
pub const RELEASES: &str = ".gangplank/releases";
pub const SERVED: &str = ".gangplank/served";
pub const FILES: &str = ".gangplank/files";
/// The largest file that can be copied inside S3, in bytes.
pub const FILE_BYTES_MAX: u64 = 5 << 30;

/// What is live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Now {
    /// The live release.
    pub release: Option<ReleaseId>,
    /// Releases whose switch has begun and not ended: paths may have the content of any.
    pub switching: Vec<ReleaseId>,
    /// Name of the app.
    pub app: Option<String>,
}

/// The key of an installed release.
pub fn release_key(id: &ReleaseId, digest: &str) -> String {
    format!("{RELEASES}/{id}.{digest}.json")
}

/// The key of the paths of an installed release, of its key.
pub fn served_key(release_key: &str) -> String {
    release_key.replacen(RELEASES, SERVED, 1)
}

/// The release of a key, and the digest of its bundle.
pub fn of_release_key(key: &str) -> Option<(ReleaseId, String)> {
    let name = key.strip_prefix(RELEASES)?.strip_prefix('/')?.strip_suffix(".json")?;
    let (id, digest) = name.split_once('.')?;
    Some((id.parse().ok()?, digest.to_owned())).filter(|_| is_digest(digest))
}

/// The key of a content with headers.
pub fn file_key(digest: &str, content_type: &str, cache_control: &str) -> String {
    format!("{FILES}/{digest}-{}", &of(format!("{content_type}\n{cache_control}").as_bytes())[..16])
}

/// The digest of a content, of its key.
pub fn digest_of_key(key: &str) -> Option<&str> {
    let (digest, _) = key.strip_prefix(FILES)?.strip_prefix('/')?.split_once('-')?;
    is_digest(digest).then_some(digest)
}

/// Parses `current.json`.
pub fn now(url: &str, text: Option<&[u8]>) -> Result<Now> {
    text.map_or(Ok(Now::default()), |text| parse(url, CURRENT, text))
}

/// Parses `outdated.json`.
pub fn outdated(url: &str, text: Option<&[u8]>) -> Result<Outdated> {
    let known: Outdated = text.map_or(Ok(Outdated::new()), |text| parse(url, OUTDATED, text))?;
    match known.keys().find(|path| is_own(path)) {
        Some(path) => not_ours(url, OUTDATED, &format!("it names {path:?}")),
        None => Ok(known),
    }
}

/// Parses and checks an installed release: its manifest is that of the key, and each object has the digest that the
/// manifest has for a file.
pub fn installed(url: &str, key: &str, manifest: &[u8], served: &[u8]) -> Result<(Manifest, Served)> {
    let manifest = Manifest::parse(manifest, &format!("{url}/{key}"))?;
    if release_key(&manifest.id, &manifest.bundle.sha256) != key {
        return not_ours(url, key, &format!("it is the manifest of {}", manifest.id));
    }
    let key = served_key(key);
    let served: Served = parse(url, &key, served)?;
    let digests: BTreeSet<&str> = manifest
        .files
        .iter()
        .filter_map(|file| match &file.content {
            Content::Sha256(digest) => Some(digest.as_str()),
            Content::Link(_) => None,
        })
        .collect();
    let is_bad = |(path, object): &(&String, &String)| {
        is_own(path) || !digest_of_key(object).is_some_and(|digest| digests.contains(digest))
    };
    match served.iter().find(is_bad) {
        Some((path, _)) => not_ours(url, &key, &format!("{path:?} is not of its manifest")),
        None => Ok((manifest, served)),
    }
}

/// Parses the paths of a release, of which the manifest may be missing.
pub fn served(url: &str, key: &str, text: &[u8]) -> Result<Served> {
    parse(url, key, text)
}

/// Whether a path is in the directory of this file's objects.
pub fn is_own(path: &str) -> bool {
    path == OWN || path.starts_with(".gangplank/")
}

fn parse<T: for<'de> Deserialize<'de>>(url: &str, key: &str, text: &[u8]) -> Result<T> {
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        Err(error) => not_ours(url, key, &error.to_string()),
    }
}

fn not_ours<T>(url: &str, key: &str, reason: &str) -> Result<T> {
    verification(format!("{url}/{key} is damaged: {reason}"))
        .hint("find out who writes to this bucket; move the object away, then deploy again")
        .err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_and_read() {
        let digest = "a".repeat(64);
        let id: ReleaseId = "20260822T101500-1a2b3c4".parse().unwrap();
        let key = release_key(&id, &digest);
        assert_eq!(of_release_key(&key), Some((id, digest.clone())));
        for bad in ["x", ".gangplank/releases/x.json", ".gangplank/releases/20260822T101500-1a2b3c4.zz.json"] {
            assert_eq!(of_release_key(bad), None, "{bad}");
        }
        assert_eq!(digest_of_key(&file_key(&digest, "text/html", "no-cache")), Some(digest.as_str()));
        assert_ne!(file_key(&digest, "text/html", "no-cache"), file_key(&digest, "text/html", "max-age=1"));
    }

    #[test]
    fn damaged_objects_are_refused() {
        for text in ["", "{}x", "[]", r#"{"release":"../x","switching":[],"app":null}"#, r#"{"more":1}"#] {
            assert!(now("site", Some(text.as_bytes())).is_err(), "{text}");
        }
        assert_eq!(now("site", None).unwrap(), Now::default());
        let own = r#"{".gangplank/current.json":"2026-08-22T10:15:00Z"}"#;
        assert!(outdated("site", Some(own.as_bytes())).is_err());
        assert!(outdated("site", Some(br#"{"a/b.css":"2026-08-22T10:15:00Z"}"#)).is_ok());
    }
}
