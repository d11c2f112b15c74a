//! The options of a bench, and where it writes.

use gangplank_bundle::release::scratch;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use gangplank_system::context::Context;
use gangplank_system::machine;
use serde::Serialize;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The options of a bench.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of hosts.
    pub hosts: usize,
    /// Directories with a `.v2` beside each; a generated workload if empty.
    pub workloads: Vec<PathBuf>,
    /// Whether to deploy W3, which is built first.
    pub relink: bool,
    /// The delays added to a round trip, one table each.
    pub delays_ms: Vec<u64>,
    /// Number of rounds.
    pub rounds: usize,
    /// Names of the peers; all installed ones if empty.
    pub against: Vec<String>,
    /// Whether to print the output of baselines, and the times of our own commands.
    pub verbose: bool,
}

impl Options {
    /// The directories, or `None` for a generated workload.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Option<&Path>> {
        let own = (self.workloads.is_empty() && !self.relink).then_some(None);
        own.into_iter().chain(self.workloads.iter().map(|dir| Some(dir.as_path())))
    }

    /// Fails for a peer that this bench does not have.
    pub(crate) fn check_against(&self, bench: &str, peers: impl Iterator<Item = &'static str>) -> Result<()> {
        let peers: Vec<_> = peers.collect();
        match self.against.iter().find(|name| !peers.contains(&name.as_str())) {
            Some(name) => usage(format!("{name} does not take part in bench {bench}"))
                .hint(format!("choose from {}", peers.join(", ")))
                .err(),
            None => Ok(()),
        }
    }
}

/// A peer that is not installed.
#[derive(Debug, Serialize)]
pub struct Missing {
    /// Its name.
    pub peer: &'static str,
    /// How to install it.
    pub install: &'static str,
}

/// A directory removed on drop.
pub struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// In `TMPDIR` or `/tmp`, because paths of sockets must be short. Needs space for all hosts and baselines.
pub fn private_dir(ctx: &Context) -> Result<PathBuf> {
    let base = PathBuf::from(ctx.var("TMPDIR").unwrap_or("/tmp"));
    // Debris of killed benches.
    machine::sweep_of(&base, "bench");
    let dir = scratch(&base, "bench");
    fs::DirBuilder::new().mode(0o700).create(&dir).with_hint(
        Kind::Failed,
        || format!("cannot make {}", dir.display()),
        || "TMPDIR names another place".into(),
    )?;
    Ok(dir)
}

/// How many cores the contestants share.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
