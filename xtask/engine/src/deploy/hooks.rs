//! Running the hooks of a project on a host.

use crate::cx::Cx;
use crate::deploy::waves::meanwhile;
use crate::error::{Result, failed};
use crate::hook::{Hook, Host};
use crate::host::Target;
use crate::release::id::ReleaseId;
use crate::service::{self, Script};
use std::time::{Duration, Instant};

/// Long enough for the migration of a database.
const LIMIT: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A host as a hook sees it.
struct Place<'a> {
    cx: &'a Cx,
    env: &'a str,
    exports: &'a str,
    target: &'a dyn Target,
    release: &'a ReleaseId,
}

impl Host for Place<'_> {
    fn env(&self) -> &str {
        self.env
    }

    fn target(&self) -> &str {
        self.target.url()
    }

    fn release(&self) -> &str {
        self.release.as_str()
    }

    fn run(&self, command: &str) -> Result<String> {
        let dir = format!("{}/releases/{}", self.target.root(), self.release);
        let script = service::command(&dir, self.exports, command).called("run a hook");
        let script = Script { limit: LIMIT, ..script };
        // CircleCI ends a job that says nothing for ten minutes.
        let started = Instant::now();
        let sign_of_life = || {
            let minutes = started.elapsed().as_secs() / 60;
            self.cx.note(format!("{}: the hook has been running for {minutes} min", self.target.url()));
        };
        let answer = meanwhile(MINUTE, sign_of_life, || self.target.run(&script))?;
        let said = [answer.stdout.trim_end(), answer.stderr.trim_end()].join("\n");
        let said = said.trim();
        for line in said.lines() {
            self.cx.note(format!("  | {}", self.cx.scrub(line)));
        }
        if answer.ok() {
            return Ok(answer.stdout);
        }
        let last = said.lines().last().unwrap_or("it said nothing").to_owned();
        failed(format!(
            "`{command}` {} on {}: {}",
            crate::cx::exit(answer.code),
            self.target.url(),
            self.cx.scrub(&last)
        ))
        .hint("mend it, then deploy again: hooks run again, too")
        .err()
    }
}

/// Runs a hook.
pub fn run(cx: &Cx, env: &str, exports: &str, hook: &Hook, target: &dyn Target, release: &ReleaseId) -> Result<()> {
    (hook.run)(&Place { cx, env, exports, target, release })
}
