//! What a project does of its own around a switch, as functions in its `main.rs`.
//!
//! ```
//! use gangplank::error::Result;
//! use gangplank::hook::{Hook, Host, Hosts, Moment};
//!
//! const MIGRATE: Hook = Hook { name: "migrate", moment: Moment::Before, hosts: Hosts::First, run: migrate };
//!
//! fn migrate(host: &dyn Host) -> Result<()> {
//!     host.run("bin/app migrate").map(drop)
//! }
//! ```
//!
//! A deploy that was killed runs its hooks again when it is run again, so they have to be such that this does no harm. A
//! put-back runs none: what a hook did before a switch has to suit the old release, too.

use crate::error::Result;

/// One thing that a project does when a release is switched, or has gone live.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// What it is called in plans and errors: letters, digits, `-` and `_`.
    pub name: &'static str,
    /// When.
    pub moment: Moment,
    /// Where.
    pub hosts: Hosts,
    /// What.
    pub run: fn(&dyn Host) -> Result<()>,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The release is installed on all hosts. On the first: before any is switched; when it fails, nothing is. On each:
    /// before that host is switched; when it fails, all that were switched go back.
    Before,
    /// On each: the host is healthy; when it fails, all that were switched go back. On the first: all hosts are live; when
    /// it fails that is a warning, because what is live is good.
    After,
}

/// Where a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Once, on the first host that is switched.
    First,
    /// On each host that is switched.
    Each,
}

/// What a hook sees of a deploy.
pub trait Host {
    /// The env.
    fn env(&self) -> &str;
    /// URL of the target.
    fn target(&self) -> &str;
    /// Id of the release that goes live.
    fn release(&self) -> &str;
    /// Runs a command with `sh` in the directory of the release on the host, with the env's `vars` set, for up to an hour.
    /// What it says is shown, and given back. The error has its last words. The command itself is for everybody on the host
    /// to read: a secret belongs into `vars`. It runs to its end; Ctrl-C waits for it.
    fn run(&self, command: &str) -> Result<String>;
}
