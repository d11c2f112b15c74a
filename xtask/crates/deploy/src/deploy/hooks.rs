//! Runs the hooks of a project on a host.

use crate::deploy::waves::with_ticker;
use crate::host::Target;
use gangplank_model::error::{Result, failed};
use gangplank_model::hook::{Hook, HookHost};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::service;
use gangplank_model::service::run::Script;
use gangplank_system::context::Context;
use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for a database migration.
const LIMIT: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A host as the hook sees it.
struct HostOfHook<'a> {
    ctx: &'a Context,
    env: &'a str,
    exports: &'a str,
    target: &'a dyn Target,
    release: &'a ReleaseId,
}

impl HookHost for HostOfHook<'_> {
    fn env(&self) -> &str {
        self.env
    }

    fn target(&self) -> &str {
        self.target.url()
    }

    fn release(&self) -> &str {
        self.release.as_str()
    }

    fn local(&self, mut command: Command) -> Result<()> {
        if command.get_current_dir().is_none() {
            command.current_dir(&self.ctx.root);
        }
        self.ctx.run_cmd(command)
    }

    fn run(&self, command: &str) -> Result<String> {
        let dir = format!("{}/releases/{}", self.target.root(), self.release);
        let script = service::command(&dir, self.exports, command).called("run a hook");
        let script = Script { limit: LIMIT, ..script };
        // CircleCI kills a job after ten minutes without output.
        let started = Instant::now();
        let sign_of_life = || {
            let minutes = started.elapsed().as_secs() / 60;
            self.ctx.note(format!("{}: the hook has been running for {minutes} min", self.target.url()));
        };
        let answer = with_ticker(MINUTE, sign_of_life, || self.target.run(&script))?;
        let said = [answer.stdout.trim_end(), answer.stderr.trim_end()].join("\n");
        let said = said.trim();
        for line in said.lines() {
            self.ctx.note(format!("  | {}", self.ctx.scrub(line)));
        }
        if answer.ok() {
            return Ok(answer.stdout);
        }
        let last = said.lines().last().unwrap_or("no output").to_owned();
        failed(format!(
            "`{command}` {} on {}: {}",
            gangplank_system::context::exit(answer.code),
            self.target.url(),
            self.ctx.scrub(&last)
        ))
        .hint("fix it and deploy again; all hooks run again")
        .err()
    }
}

/// Runs a hook.
pub fn run(
    ctx: &Context,
    env: &str,
    exports: &str,
    hook: &Hook,
    target: &dyn Target,
    release: &ReleaseId,
) -> Result<()> {
    (hook.run)(&HostOfHook { ctx, env, exports, target, release })
}
