//! Small mutable objects: the newest release of a branch, and what is live in an env. Each is written only with the
//! version that was read; after a conflict the new content is computed again.

use crate::object::Bucket;
use crate::store::BucketStore;
use gangplank_deploy::store::Published;
use gangplank_model::error::{CliError, Kind, Result, not_found, verification};
use gangplank_model::history::{History, Record};
use gangplank_model::plan::{Age, age};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::Manifest;
use gangplank_system::git;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often a conflicting write is retried.
const ROUNDS: u32 = 60;
/// Lines kept of an env's history.
const LINES_MAX: usize = 1000;

/// `latest/<app>/<branch>.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Latest {
    /// Always 1.
    schema: u32,
    release: ReleaseId,
    commit: String,
    /// The CircleCI job that built it.
    job: Option<u64>,
    /// Time of the publish.
    at: Timestamp,
}

/// The next content of an object.
pub enum Next<T> {
    /// Write these bytes, then done.
    Write(Vec<u8>, T),
    /// Done without a write.
    Leave(T),
}

/// Changes an object; `decide` is called again after each conflict.
pub fn change<T>(
    (url, bucket): (&str, &Bucket),
    key: &str,
    mut decide: impl FnMut(Option<&[u8]>) -> Result<Next<T>>,
) -> Result<T> {
    for round in 0..ROUNDS {
        let there = bucket.read(key)?;
        let (bytes, done) = match decide(there.as_ref().map(|(bytes, _)| bytes.as_slice()))? {
            Next::Leave(done) => return Ok(done),
            Next::Write(bytes, done) => (bytes, done),
        };
        let written = match &there {
            None => bucket.create(key, bytes.clone())?,
            Some((_, version)) => bucket.replace(key, bytes.clone(), version)?,
        };
        // A refusal may follow a successful first attempt whose answer was lost.
        if written || bucket.read(key)?.is_some_and(|(now, _)| now == bytes) {
            return Ok(done);
        }
        // Staggered, so that twenty concurrent writers all succeed.
        std::thread::sleep(Duration::from_millis(u64::from(5 + (round * 7 + std::process::id()) % 50)));
    }
    CliError::new(Kind::Remote, format!("{url}/{key}: other writers changed it {ROUNDS} times"))
        .hint("find the other writer, then run the same command again")
        .err()
}

/// A branch or env as one part of a key.
pub fn part(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("={byte:02X}") }).collect()
}

fn latest_key(store: &BucketStore, branch: &str) -> String {
    format!("{}.json", store.key_of("latest", branch))
}

fn live_key(store: &BucketStore, env: &str) -> String {
    format!("{}.jsonl", store.key_of("live", env))
}

fn parse(store: &BucketStore, key: &str, text: &[u8]) -> Result<Latest> {
    serde_json::from_slice(text).map_err(|error| {
        verification(format!("{}/{key}: it is not a pointer: {error}", store.url))
            .hint("inspect and remove it; the next `cargo xtask publish` writes it again")
            .into()
    })
}

/// The release that the pointer of the branch names.
pub fn latest(store: &BucketStore) -> Result<Option<Manifest>> {
    let key = latest_key(store, store.branch());
    let Some((text, _)) = store.bucket()?.read(&key)? else { return Ok(None) };
    let latest = parse(store, &key, &text)?;
    match store.manifest_of(&latest.release)? {
        Some(manifest) => Ok(Some(manifest)),
        None => not_found(format!("{}/{key} names {}, which is gone", store.url, latest.release))
            .hint("name a release: `cargo xtask releases` lists them; the next `cargo xtask publish` corrects the pointer")
            .err(),
    }
}

/// The histories of all envs of this app that a deploy has recorded, including envs unknown to this checkout.
pub fn histories(store: &BucketStore) -> Result<Vec<(String, History)>> {
    let of_app = store.key_of("live", "");
    // Earlier versions used the key `live/<env>.jsonl` for all apps; a prune must respect it.
    let is_ours = |key: &String| key.starts_with(&of_app) || key.matches('/').count() == 1;
    let keys: Vec<_> = store.bucket()?.list("live")?.into_iter().map(|it| it.key).filter(is_ours).collect();
    let read = store.bucket()?.read_all(&keys)?;
    let of = |(key, text): (String, Vec<u8>)| {
        let env = key.rsplit('/').next().unwrap_or(&key).trim_end_matches(".jsonl").to_owned();
        let history = History::parse(&String::from_utf8_lossy(&text));
        // The object is written as a whole, so an invalid line is not a torn one and may name any release.
        if history.unreadable > 0 {
            return verification(format!("{}/{key}: {} line(s) are not valid records", store.url, history.unreadable))
                .hint("inspect it, then fix or remove those lines")
                .err();
        }
        Ok((env, history))
    };
    read.into_iter().map(of).collect()
}

/// Points the branch of a release at it, unless it points at a newer one.
pub fn publish(store: &BucketStore, manifest: &Manifest) -> Result<Published> {
    let left = |reason: &str| Published {
        store: store.url.clone(),
        pointer: None,
        job: None,
        release: None,
        moved: false,
        reason: Some(reason.to_owned()),
    };
    let Some(branch) = manifest.commit.branch.as_deref().filter(|_| !manifest.commit.dirty) else {
        return Ok(left("only a clean build can be the newest of a branch"));
    };
    if store.manifest_of(&manifest.id)?.is_none_or(|theirs| theirs.bundle != manifest.bundle) {
        return not_found(format!("{} does not have {}", store.url, manifest.id))
            .hint("run `cargo xtask put` first")
            .err();
    }
    let key = latest_key(store, branch);
    let published = |latest: &Latest, moved: bool, reason: Option<&str>| Published {
        pointer: Some(key.clone()),
        job: latest.job,
        release: Some(latest.release.clone()),
        moved,
        reason: reason.map(str::to_owned),
        ..left("")
    };
    let done = change((&store.url, store.trusted()?), &key, |there| {
        let ours = Latest {
            schema: 1,
            release: manifest.id.clone(),
            commit: manifest.commit.sha.clone(),
            job: manifest.ci.as_ref().map(|ci| ci.job),
            at: store.ctx.now(),
        };
        if let Some(theirs) = there.map(|text| parse(store, &key, text)).transpose()? {
            let ancestry = git::ancestry(store.ctx, &ours.commit, &theirs.commit);
            match age(&ours.release, &theirs.release, ancestry) {
                Age::Newer => {}
                Age::Same => return Ok(Next::Leave(published(&theirs, false, None))),
                Age::Older => {
                    return Ok(Next::Leave(published(&theirs, false, Some("it already names a newer release"))));
                }
            }
        }
        let text = serde_json::to_vec(&ours).expect("a pointer has no maps");
        Ok(Next::Write(text, published(&ours, true, None)))
    })?;
    // A prune that read the pointer before this write may remove the release, or have removed it.
    store.stays(&manifest.id)?;
    Ok(done)
}

/// Appends a record to the history of an env.
pub fn append(store: &BucketStore, env: &str, record: &Record) -> Result<()> {
    append_to((&store.url, store.trusted()?), &live_key(store, env), record)
}

/// Appends a record to a history, of which the newest lines are kept.
pub fn append_to((url, bucket): (&str, &Bucket), key: &str, record: &Record) -> Result<()> {
    change((url, bucket), key, |there| {
        let mut text = String::from_utf8_lossy(there.unwrap_or_default()).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&record.to_line());
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        Ok(Next::Write(lines[lines.len().saturating_sub(LINES_MAX)..].concat().into_bytes(), ()))
    })
}

/// The history of an env, if any.
pub fn history(store: &BucketStore, env: &str) -> Result<Option<History>> {
    let read = store.bucket()?.read(&live_key(store, env))?;
    Ok(read.map(|(text, _)| History::parse(&String::from_utf8_lossy(&text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_part_of_a_key() {
        assert_eq!(part("main"), "main");
        assert_eq!(part("feature/x y"), "feature=2Fx=20y");
        assert_ne!(part("a=2F"), part("a/"));
    }
}
