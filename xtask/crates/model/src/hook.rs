//! Hooks: actions of a project around a switch, as functions in its `main.rs`.
//!
//! ```
//! use gangplank_model::error::Result;
//! use gangplank_model::hook::{Hook, HookHost, HookPhase};
//!
//! const MIGRATE: Hook = Hook { name: "migrate", phase: HookPhase::BeforeAll, run: migrate };
//!
//! fn migrate(host: &dyn HookHost) -> Result<()> {
//!     host.run("bin/app migrate").map(drop)
//! }
//! ```
//!
//! Hooks must be idempotent: repeating a killed deploy runs them again. A revert runs none, so the effect of a hook before
//! a switch must be compatible with the old release too.

use crate::error::Result;
use std::process::Command;

/// An action of the project around a switch.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// The name in plans and errors: letters, digits, `-` and `_`.
    pub name: &'static str,
    /// When and where it runs.
    pub phase: HookPhase,
    /// The action.
    pub run: fn(&dyn HookHost) -> Result<()>,
}

/// When and where a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPhase {
    /// Once, on the first host to be switched, after the install on all hosts. A failure leaves everything unswitched.
    BeforeAll,
    /// On each host before its switch. A failure reverts all switched hosts.
    BeforeEach,
    /// On each host that has become healthy. A failure reverts all switched hosts.
    AfterEach,
    /// Once, on the first host, when all hosts are live. A failure is a warning, because the release is healthy.
    AfterAll,
}

/// The deploy as seen by a hook.
pub trait HookHost {
    /// The env.
    fn env(&self) -> &str;
    /// URL of the target.
    fn target(&self) -> &str;
    /// Id of the release that goes live.
    fn release(&self) -> &str;
    /// Runs a command with `sh` in the release's directory on the host, with the env's `vars`, for up to an hour.
    /// Prints and returns its output; the error has its last lines. The command line is visible to all users of the
    /// host, so pass secrets in `vars`. Ctrl-C waits for its end.
    fn run(&self, command: &str) -> Result<String>;
    /// Runs a program on this machine, in the root of the project, and prints its output with secrets masked. Takes what
    /// xshell's `cmd!` makes: `let sh = Shell::new()?; host.local(cmd!(sh, "notify {env}").into())`.
    fn local(&self, command: Command) -> Result<()>;
}
