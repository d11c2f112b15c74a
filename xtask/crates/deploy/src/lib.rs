//! Stores, hosts, and the commands that build, store and deploy a release.

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
