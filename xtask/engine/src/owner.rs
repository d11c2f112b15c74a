//! The owner of a lock, as data.

use crate::release::manifest::CiJob;
use serde::{Deserialize, Serialize};

/// The owner of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Unique for each taking of a lock: only its holder removes it.
    pub token: String,
    /// `ana@laptop`, or the CircleCI user.
    pub by: String,
    /// Names the machine, its boot and its process namespace: only there do the next two mean something.
    pub machine: String,
    /// Process id.
    pub pid: u32,
    /// When that process started, in the kernel's own units; tells a reused process id.
    pub started: Option<u64>,
    /// When the lock was taken, RFC 3339.
    pub since: jiff::Timestamp,
    /// What is being done, e.g. `deploy 20260822T101500-1a2b3c4 to dev`.
    pub doing: String,
    /// The CircleCI job.
    pub ci: Option<CiJob>,
    /// After so many seconds without a renewal it may be taken for dead by those who can neither see its process nor ask
    /// CircleCI. Owners of old did not renew, and have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// For how many seconds it had not been renewed when it was read, by the clock of the host that keeps the lock;
    /// absent within the first minute, and where nobody can tell.
    #[serde(skip)]
    pub seconds_since_renewal: Option<u64>,
}

/// See [`Owner::lease`]: nine renewals that did not come through.
pub const LEASE: u64 = 180;

/// What is known of the process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It runs.
    Alive,
    /// It is gone; the last command that it gave still runs, or may do so.
    Ending,
    /// It is gone.
    Dead,
    /// It runs, or ran, where nobody here can look.
    Unknown,
}

/// How scripts name the lock under which they are said.
pub fn mark(token: &str) -> String {
    format!("[lock {token}]")
}
