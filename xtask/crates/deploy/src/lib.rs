//! Stores, hosts, and the commands that build, store and deploy a release.
//!
//! - [`store::Store`] keeps whole releases: a directory, CircleCI's workspace or artifacts. Stores in buckets are in
//!   `gangplank-bucket`.
//! - [`host::Target`] has several releases installed and one live; [`host::directory::HostTarget`] is every host with a
//!   shell: on this machine, over ssh, or through a program such as sudo.
//! - [`deploy`](mod@deploy): deploy, promote, rollback, prune, start, stop, logs, status.
//! - [`build`](mod@build), [`handoff`], [`setup`](mod@setup), [`ci`]: the other commands.
//! - [`tool::Tool`] opens stores and targets by URL; [`extend`] has the kinds that a project adds.

pub mod build;
pub mod ci;
pub mod deploy;
pub mod extend;
pub mod handoff;
pub mod health;
pub mod host;
pub mod include;
pub mod setup;
pub mod store;
pub mod tool;
