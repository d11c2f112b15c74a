//! Many objects at once: uploads with headers, copies inside the bucket, removals.

use crate::object::diagnose::Doing;
use crate::object::{Bucket, Object};
use futures_util::{StreamExt, stream};
use gangplank_bundle::release::Progress;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use gangplank_model::release::digest::Hasher;
use object_store::path::Path as Key;
use object_store::{Attribute, Attributes, Error, ObjectStoreExt, PutMode, PutOptions};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Concurrent requests.
const ROUND: usize = 16;
/// The headers with which an object is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// `Content-Type`
    pub content_type: String,
    /// `Cache-Control`
    pub cache_control: String,
}

/// A file to be uploaded.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Its key.
    pub key: String,
    /// The file.
    pub from: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// The headers of the object. A directory keeps none.
    pub headers: Headers,
}

impl Bucket<'_> {
    /// Whether the bucket is a directory of this machine.
    pub fn is_directory(&self) -> bool {
        self.lock.is_some()
    }

    /// The key of a path that clients ask for, as it is: [`Key::from`] would escape characters. Fails for a path that
    /// cannot be a key.
    fn as_it_is(&self, path: &str) -> Result<Key> {
        match Key::parse(path) {
            Ok(key) if key.as_ref() == path => Ok(self.root.parts().chain(key.parts()).collect()),
            _ => usage(format!("`{}` cannot be the name of an object", path.escape_debug()))
                .hint("rename the file: no `//`, `.` or `..` between slashes")
                .err(),
        }
    }

    /// Uploads files, several at once.
    pub fn put_all(&self, uploads: &[Upload], progress: Progress) -> Result<()> {
        let total = uploads.iter().map(|it| it.bytes).sum();
        let mut done = 0;
        for round in uploads.chunks(ROUND) {
            // Whole files in memory: a big one goes in parts, alone.
            let (big, small): (Vec<_>, Vec<_>) = round.iter().partition(|it| it.bytes > super::PART as u64);
            for upload in big {
                let attributes = self.attributes(&upload.headers);
                self.wait(None, self.send_with(&upload.key, &upload.from, attributes, &|_, _| {}))?;
            }
            self.round(small.into_iter().map(|upload| self.put_one(upload)))?;
            done += round.iter().map(|it| it.bytes).sum::<u64>();
            progress(done, total);
        }
        Ok(())
    }

    /// Waits for all requests of a round, whatever becomes of them and of a signal: one that was left alone could be
    /// carried out after what follows. Returns the first error.
    fn round<F: Future<Output = Result<()>>>(&self, requests: impl Iterator<Item = F>) -> Result<()> {
        let all = stream::iter(requests).buffer_unordered(ROUND).collect::<Vec<_>>();
        self.runtime.block_on(all).into_iter().collect()
    }

    async fn put_one(&self, upload: &Upload) -> Result<()> {
        let what = || format!("cannot read {}", upload.from.display());
        let bytes = std::fs::read(&upload.from).with_hint(Kind::Failed, what, || "check the disk".into())?;
        let options = PutOptions {
            mode: PutMode::Overwrite,
            attributes: self.attributes(&upload.headers),
            ..PutOptions::default()
        };
        let done = self.store.put_opts(&self.key(&upload.key), bytes.into(), options).await;
        self.explained(Doing::Writing(&upload.key), done).map(drop)
    }

    fn attributes(&self, headers: &Headers) -> Attributes {
        if self.is_directory() {
            return Attributes::new();
        }
        let pairs = [
            (Attribute::ContentType, headers.content_type.clone()),
            (Attribute::CacheControl, headers.cache_control.clone()),
        ];
        Attributes::from_iter(pairs)
    }

    /// Copies objects to the paths that clients ask for, with their headers, several at once. `goes_on` is asked before
    /// each round.
    pub fn copy_all(&self, copies: &[(String, String)], goes_on: &dyn Fn() -> Result<()>) -> Result<()> {
        for round in copies.chunks(ROUND) {
            goes_on()?;
            if let Some(dir) = &self.served {
                round.iter().try_for_each(|(path, from)| self.copy_file(dir, from, path))?;
                continue;
            }
            self.round(round.iter().map(|(path, from)| async move {
                let to = self.as_it_is(path)?;
                self.explained(Doing::Writing(path), self.store.copy(&self.key(from), &to).await)
            }))?;
        }
        Ok(())
    }

    /// Fails for a path that cannot be the key of an object.
    pub fn can_serve(&self, path: &str) -> Result<()> {
        self.as_it_is(path).map(drop)
    }

    /// Removes the objects of paths that clients ask for; a missing one is a success.
    pub fn remove_paths(&self, paths: &[String]) -> Result<()> {
        if let Some(dir) = &self.served {
            return paths.iter().try_for_each(|path| self.can_serve(path).and_then(|()| self.remove_file(dir, path)));
        }
        let keys = paths.iter().map(|path| self.as_it_is(path)).collect::<Result<Vec<_>>>()?;
        self.remove_keys(&keys)
    }

    /// Removes objects, several at once; a missing one is a success.
    pub fn remove_all(&self, keys: &[String]) -> Result<()> {
        self.remove_keys(&keys.iter().map(|key| self.key(key)).collect::<Vec<_>>())
    }

    fn remove_keys(&self, keys: &[Key]) -> Result<()> {
        for round in keys.chunks(ROUND) {
            self.round(round.iter().map(|key| async move {
                match self.store.delete(key).await {
                    Err(Error::NotFound { .. }) => Ok(()),
                    done => self.explained(Doing::Removing(key.as_ref()), done),
                }
            }))?;
        }
        Ok(())
    }

    /// The object of a path that clients ask for: the SHA-256 of its content; `None` if it is missing.
    pub fn digest_of_path(&self, path: &str) -> Result<Option<String>> {
        if let Some(dir) = &self.served {
            return self.can_serve(path).and_then(|()| self.digest_of_file(dir, path));
        }
        let key = self.as_it_is(path)?;
        self.digest(&key, path)
    }

    /// The same for an object of ours.
    pub fn digest_of(&self, key: &str) -> Result<Option<String>> {
        self.digest(&self.key(key), key)
    }

    fn digest(&self, key: &Key, name: &str) -> Result<Option<String>> {
        let read = async {
            let got = match self.store.get(key).await {
                Err(Error::NotFound { .. }) => return Ok(None),
                got => self.explained(Doing::Reading(name), got)?,
            };
            let mut hasher = Hasher::default();
            let mut parts = got.into_stream();
            while let Some(part) = parts.next().await {
                let part = self.explained(Doing::Reading(name), part)?;
                hasher.update(&part);
            }
            Ok(Some(hasher.hex()))
        };
        self.wait(Some(super::SLOW), read)
    }

    /// The size of each object below a prefix.
    pub fn sizes(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        Ok(self.list(prefix)?.into_iter().map(|Object { key, bytes, .. }| (key, bytes)).collect())
    }
}
