//! What a project does of its own around a switch, as functions in its `main.rs`.
//!
//! ```
//! use gangplank::error::Result;
//! use gangplank::hook::{Hook, HookHost, HookPhase};
//!
//! const MIGRATE: Hook = Hook { name: "migrate", phase: HookPhase::BeforeAll, run: migrate };
//!
//! fn migrate(host: &dyn HookHost) -> Result<()> {
//!     host.run("bin/app migrate").map(drop)
//! }
//! ```
//!
//! A deploy that was killed runs its hooks again when it is run again, so they have to be such that this does no harm. A
//! revert runs none: what a hook did before a switch has to suit the old release, too.

use crate::error::Result;

/// One thing that a project does when a release is switched, or has gone live.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// What it is called in plans and errors: letters, digits, `-` and `_`.
    pub name: &'static str,
    /// When and where it runs.
    pub phase: HookPhase,
    /// What.
    pub run: fn(&dyn HookHost) -> Result<()>,
}

/// When and where a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPhase {
    /// Once, on the first host that is switched, when the release is installed on all hosts and none is switched. If it
    /// fails, nothing is switched.
    BeforeAll,
    /// On each host before it is switched. If it fails, all hosts that were switched are reverted.
    BeforeEach,
    /// On each host that has become healthy. If it fails, all hosts that were switched are reverted.
    AfterEach,
    /// Once, on the first host, when all hosts are live. If it fails that is a warning, because what is live is healthy.
    AfterAll,
}

/// What a hook sees of a deploy.
pub trait HookHost {
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
