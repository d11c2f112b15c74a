//! `bench`: compares with other tools, side by side on this machine. Results of other machines or days are not
//! comparable, so the command always measures.
//!
//! A bench is a module that runs Gangplank and the other tools, a value in `cli`, and a table in `report`. `compare` has
//! the common part of all benches except the one with hosts.

pub mod cli;
pub mod compare;
pub mod copies;
pub mod figures;
pub mod files;
pub mod fleet;
mod launch;
pub mod options;
mod relink;
mod report;
#[cfg(feature = "s3")]
pub mod s3;
pub mod tools;
mod workload;

/// The values of `--against`.
pub fn names() -> impl Iterator<Item = &'static str> {
    let files = files::BUNDLERS.iter().chain(files::UNPACKERS).chain(copies::PEERS).map(|peer| peer.name);
    fleet::baselines::PEERS.iter().map(|peer| peer.name).chain(files).chain([tools::CARGO])
}
