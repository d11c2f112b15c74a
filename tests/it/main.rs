//! End-to-end tests, one binary. `project` is the builder that they are written with, `account` its
//! project on a CircleCI.

mod account;
mod project;
mod record;
mod sample;

mod browser;
#[cfg(feature = "s3")]
mod bucket;
mod build;
mod ci;
mod cli;
mod deploy;
mod docs;
mod fleet;
mod host;
mod new;
mod parts;
mod sign;
mod store;
mod tidy;
