//! The lock of an env in a bucket: stops deploys from other machines before they connect to a host.
//!
//! The object contains the owner, or `{}` if free. It is only written with the version that was read, so one of many
//! writers wins. It is never removed, because not every server has a conditional delete.

use crate::object::Bucket;
use crate::store::BucketStore;
use crate::store::pointer::{Next, change};
use gangplank_model::error::Result;
use gangplank_model::owner::Owner;
use gangplank_model::state::{Lock, Lockable};

/// The content of a free lock.
const FREE: &[u8] = b"{}";

/// The lock of an env in a bucket.
pub struct EnvLock<'a, 'ctx> {
    store: &'a BucketStore<'ctx>,
    key: String,
    url: String,
}

impl<'a, 'ctx> EnvLock<'a, 'ctx> {
    /// The lock; sends no request yet.
    pub fn new(store: &'a BucketStore<'ctx>, env: &str) -> Self {
        let key = format!("{}.json", store.key_of("locks", env));
        Self { store, url: format!("{}/{key}", store.url), key }
    }
}

/// Takes a lock that is free, or held by `from`.
pub(crate) fn take((url, bucket): (&str, &Bucket), key: &str, owner: &Owner, from: Option<&Owner>) -> Result<Lock> {
    change((url, bucket), key, |there| {
        let lock = parse(there);
        let ours = match &lock {
            Lock::Free => true,
            Lock::Held(holder) => from.is_some_and(|from| from.token == holder.token),
            Lock::Unreadable(_) => false,
        };
        if !ours {
            return Ok(Next::Leave(lock));
        }
        let json = serde_json::to_vec(owner).expect("an owner has no maps with odd keys");
        Ok(Next::Write(json, Lock::Free))
    })
}

/// Frees a lock with this token; without a token, any lock.
pub(crate) fn free((url, bucket): (&str, &Bucket), key: &str, token: Option<&str>) -> Result<()> {
    change((url, bucket), key, |there| {
        let ours = match (token, parse(there)) {
            (_, Lock::Free) => false,
            (None, _) => true,
            (Some(token), Lock::Held(holder)) => holder.token == token,
            (Some(_), Lock::Unreadable(_)) => false,
        };
        Ok(if ours { Next::Write(FREE.to_vec(), ()) } else { Next::Leave(()) })
    })
}

/// The lock in an object.
pub(crate) fn parse(there: Option<&[u8]>) -> Lock {
    match there {
        None => Lock::Free,
        Some(text) if text.trim_ascii() == FREE => Lock::Free,
        Some(text) => Lock::parse(&String::from_utf8_lossy(text)),
    }
}

impl Lockable for EnvLock<'_, '_> {
    fn url(&self) -> &str {
        &self.url
    }

    fn holder(&self) -> Result<Lock> {
        let read = self.store.bucket()?.read(&self.key)?;
        Ok(parse(read.as_ref().map(|(text, _)| text.as_slice())))
    }

    fn lock(&self, owner: &Owner) -> Result<Lock> {
        take((&self.store.url, self.store.trusted()?), &self.key, owner, None)
    }

    fn take_over(&self, owner: &Owner, seen: &Owner, _dead: &Owner) -> Result<Lock> {
        take((&self.store.url, self.store.trusted()?), &self.key, owner, Some(seen))
    }

    fn unlock(&self, token: Option<&str>) -> Result<()> {
        free((&self.store.url, self.store.trusted()?), &self.key, token)
    }
}
