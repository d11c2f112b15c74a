//! The owner of a lock, as data.

use crate::release::manifest::CiJob;
use serde::{Deserialize, Serialize};

/// The owner of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Unique per lock: only its holder removes it.
    pub token: String,
    /// `ana@laptop`, or the CircleCI user.
    pub by: String,
    /// Identifies the machine, its boot and its process namespace, within which the next two are valid.
    pub machine: String,
    /// Process id.
    pub pid: u32,
    /// Start time of that process, in kernel units; detects a reused process id.
    pub started: Option<u64>,
    /// Time of the lock, RFC 3339.
    pub since: jiff::Timestamp,
    /// The operation, e.g. `deploy 20260822T101500-1a2b3c4 to dev`.
    pub doing: String,
    /// The CircleCI job.
    pub ci: Option<CiJob>,
    /// Seconds without a renewal after which runs that can neither see its process nor ask CircleCI may consider it
    /// dead. Absent for versions without renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// Seconds since the last renewal when it was read, by the clock of the host that keeps the lock; absent within the
    /// first minute, and where unknown.
    #[serde(skip)]
    pub seconds_since_renewal: Option<u64>,
}

/// See [`Owner::lease`]: nine missed renewals.
pub const LEASE: u64 = 180;

/// The state of the process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Running.
    Alive,
    /// Gone, while its last command may still run.
    Ending,
    /// Gone.
    Dead,
    /// Not visible from here.
    Unknown,
}

/// The mark of a lock on the command lines of its scripts.
pub fn mark(token: &str) -> String {
    format!("[lock {token}]")
}
