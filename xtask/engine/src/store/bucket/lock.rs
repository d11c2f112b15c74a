//! The lock of an env: whoever deploys it from another place waits, before any host is asked.
//!
//! The object holds its owner, or `{}` when nobody deploys; it is only ever written in the version that was read, so
//! that one of many gets it. It is not removed: not every server can remove under a condition.

use crate::deploy::state::{Lock, Lockable};
use crate::error::Result;
use crate::owner::Owner;
use crate::store::bucket::BucketStore;
use crate::store::bucket::pointer::{Next, change};

/// What stands in the object when nobody has the lock.
const FREE: &[u8] = b"{}";

/// The lock of an env in a bucket.
pub struct EnvLock<'a, 'ctx> {
    store: &'a BucketStore<'ctx>,
    key: String,
    url: String,
}

impl<'a, 'ctx> EnvLock<'a, 'ctx> {
    /// Nothing is asked yet.
    pub fn new(store: &'a BucketStore<'ctx>, env: &str) -> Self {
        let key = format!("{}.json", store.key_of("locks", env));
        Self { store, url: format!("{}/{key}", store.url), key }
    }

    fn take(&self, owner: &Owner, from: Option<&Owner>) -> Result<Lock> {
        change((&self.store.url, self.store.trusted()?), &self.key, |there| {
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
}

fn parse(there: Option<&[u8]>) -> Lock {
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
        self.take(owner, None)
    }

    fn take_over(&self, owner: &Owner, seen: &Owner, _dead: &Owner) -> Result<Lock> {
        self.take(owner, Some(seen))
    }

    fn unlock(&self, token: Option<&str>) -> Result<()> {
        change((&self.store.url, self.store.trusted()?), &self.key, |there| {
            let ours = match (token, parse(there)) {
                (_, Lock::Free) => false,
                (None, _) => true,
                (Some(token), Lock::Held(holder)) => holder.token == token,
                (Some(_), Lock::Unreadable(_)) => false,
            };
            Ok(if ours { Next::Write(FREE.to_vec(), ()) } else { Next::Leave(()) })
        })
    }
}
