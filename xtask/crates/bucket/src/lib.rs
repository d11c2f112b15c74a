//! `s3://`, `gs://` and `az://`: releases in object stores, and static sites that they serve.
//!
//! - [`store::BucketStore`] keeps releases, histories, locks and pointers under keys of a bucket.
//! - [`site::SiteTarget`] is an env whose files the bucket, or a directory, serves as a web site.
//! - [`object::Bucket`] is the bucket below both: requests, conditional writes, credentials from the environment, and errors that
//!   say what to change. `file:` and memory are buckets too, for sites in directories and for tests.
//! - [`local_run`] is the bucket of `ci run` on this machine, with a [`ceph`] if its programs are installed.
//! - [`BUCKETS`] is what a command line gives to [`Tool`](gangplank_deploy::tool::Tool) so that these URLs open.
//!
//! It is the only crate with an async runtime: `object_store` needs one, and [`object`] hides it behind blocking calls.

pub mod ceph;
pub mod local_run;
pub mod object;
pub mod site;
pub mod store;

use crate::site::SiteTarget;
use crate::store::BucketStore;
use gangplank_deploy::tool::Buckets;

/// Opens stores and sites in buckets.
pub const BUCKETS: Buckets = Buckets {
    store: |ctx, project, url| Ok(Box::new(BucketStore::new(ctx, project, url)?)),
    site: |ctx, url, site| Ok(Box::new(SiteTarget::new(ctx, url, site)?)),
};
