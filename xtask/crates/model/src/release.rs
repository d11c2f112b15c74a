//! Releases as values: their ids, manifests and digests.

pub mod digest;
pub mod id;
pub mod layout;
pub(crate) mod links;
pub mod manifest;
pub mod signature;
