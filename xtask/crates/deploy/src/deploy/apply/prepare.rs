//! Work around a switch: checks before it, shared files, and the project's hooks.

use crate::deploy::apply::{HostProgress, Run, STOPPED, explain, looks};
use crate::deploy::hooks;
use crate::host::Operation;
use gangplank_model::error::Result;
use gangplank_model::history::Verb;
use gangplank_model::hook::{Hook, HookPhase};
use gangplank_model::plan::Step;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::script;
use gangplank_model::service::run::Script;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Run<'_> {
    /// The scripts that prepare a host for a switch without changing what is live.
    pub(super) fn preparing(&self, host: &HostProgress) -> Vec<Script> {
        let ready = host.restart().and_then(|_| self.spec.ready(host.target.root()));
        let share = host.switch().and_then(|(release, _)| self.sharing(host, release));
        ready.into_iter().chain(share).collect()
    }

    /// Checks whether the switch of a host would fail, before any host is switched.
    pub(super) fn prepare(&self, host: &HostProgress) -> Result<()> {
        let scripts = self.preparing(host);
        let acts = looks(host, &scripts);
        if acts.is_empty() { Ok(()) } else { self.act(host, &acts, false) }
    }

    /// The script that links shared files into a release. On a rollback, a release from before the path was shared
    /// keeps its own file.
    fn sharing(&self, host: &HostProgress, release: &ReleaseId) -> Option<Script> {
        let keep_own = self.base.verb == Verb::Rollback;
        let text = || script::share(host.target.root(), release, self.env.shared, keep_own);
        (!self.env.shared.is_empty()).then(|| Script::new(text(), String::new()).called("link shared files"))
    }

    /// Links shared files before the switch, for hooks that need them. With several hosts this is already done.
    pub(super) fn share(&self, host: &HostProgress) -> Result<()> {
        match host.goal().filter(|_| self.alone).and_then(|release| self.sharing(host, release)) {
            Some(script) => host.target.must(Operation::Run(&script)),
            None => Ok(()),
        }
    }

    /// The hooks of a phase on a host.
    pub(super) fn hooks<'h>(&'h self, host: &'h HostProgress, phase: HookPhase) -> impl Iterator<Item = &'h Hook> {
        let planned = host.plan.steps.iter().filter_map(|step| match step {
            Step::Hook { name, .. } => Some(name),
            _ => None,
        });
        let named = planned.filter_map(|name| self.env.hooks.iter().find(|hook| hook.name == name));
        named.filter(move |hook| hook.phase == phase)
    }

    pub(super) fn hook(&self, host: &HostProgress, hook: &Hook) -> Result<()> {
        let Some(release) = host.goal() else { return Ok(()) };
        self.stop_if_asked(STOPPED)?;
        let name = format!("run the hook {}", hook.name);
        let run = || hooks::run(self.ctx, self.env.name, self.exports, hook, host.target, release);
        self.timed(host, &name, run).map_err(|error| explain(&error, &format!("so the hook {} failed", hook.name)))
    }

    /// Runs the `AfterAll` hooks. Neither a failure nor a panic reverts the deploy.
    pub(super) fn announce(&self, hosts: &[HostProgress]) {
        for host in hosts {
            for hook in self.hooks(host, HookPhase::AfterAll) {
                let done = catch_unwind(AssertUnwindSafe(|| self.hook(host, hook)));
                match done {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => self.ctx.warn(format!("{error:#}; the release is live")),
                    Err(_) => {
                        self.ctx.warn(format!("the hook {} panicked; the release is live", hook.name));
                    }
                }
            }
        }
    }
}
