//! A script of a service, and what it reads.

use std::time::Duration;

/// Longer than any restart worth waiting for.
const LIMIT: Duration = Duration::from_secs(600);

/// A script and its stdin. The stdin may contain secrets; the script never does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// A description, shown in the host's process list.
    pub what: &'static str,
    /// POSIX commands.
    pub text: String,
    /// Standard input.
    pub stdin: String,
    /// The time limit; a script that exceeds it is killed with its children.
    pub limit: Duration,
    /// Whether Ctrl-C ends it.
    pub interruptible: bool,
    /// Whether it contains a command of the project, which must not be run twice.
    pub of_project: bool,
}

impl Script {
    /// A script that is not interruptible.
    pub fn new(text: String, stdin: String) -> Self {
        Self { what: "run a script", text, stdin, limit: LIMIT, interruptible: false, of_project: false }
    }

    /// Marks the script as containing a command of the project.
    #[must_use]
    pub fn of_project(self) -> Self {
        Self { of_project: true, ..self }
    }

    /// Sets the description.
    #[must_use]
    pub fn called(self, what: &'static str) -> Self {
        Self { what, ..self }
    }
}

/// Exit code of `Spec::status` if the service will not come back by itself.
pub(crate) const GONE: i32 = 3;
