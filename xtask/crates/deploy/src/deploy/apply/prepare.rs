//! What comes before and after a switch: finding out whether it would fail, what releases share, and the project's hooks.

use crate::deploy::apply::{HostProgress, Run, explain, looks};
use crate::deploy::hooks;
use crate::host::Operation;
use gangplank_model::error::{Result, failed};
use gangplank_model::history::Verb;
use gangplank_model::hook::{Hook, HookPhase};
use gangplank_model::plan::Step;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::script;
use gangplank_model::service::Script;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Run<'_> {
    /// What has to be so before a host is switched, and changes nothing that is live.
    pub(super) fn preparing(&self, host: &HostProgress) -> Vec<Script> {
        let ready = host.restart().and_then(|_| self.spec.ready(host.target.root()));
        let share = host.switch().and_then(|(release, _)| self.sharing(host, release));
        ready.into_iter().chain(share).collect()
    }

    /// Finds out on a host whether its switch would fail, while nothing is switched anywhere.
    pub(super) fn prepare(&self, host: &HostProgress) -> Result<()> {
        let scripts = self.preparing(host);
        let acts = looks(host, &scripts);
        if acts.is_empty() { Ok(()) } else { self.act(host, &acts, false) }
    }

    /// The script that links what is shared into a release. On the way back a release from before it was shared keeps its
    /// own.
    fn sharing(&self, host: &HostProgress, release: &ReleaseId) -> Option<Script> {
        let keep_own = self.base.verb == Verb::Rollback;
        let text = || script::share(host.target.root(), release, self.env.shared, keep_own);
        (!self.env.shared.is_empty()).then(|| Script::new(text(), String::new()).called("link shared files"))
    }

    /// Links what is shared ahead of the switch, for hooks that need it. Where there are several hosts, that is done.
    pub(super) fn share(&self, host: &HostProgress) -> Result<()> {
        match host.goal().filter(|_| self.alone).and_then(|release| self.sharing(host, release)) {
            Some(script) => host.target.must(Operation::Run(&script)),
            None => Ok(()),
        }
    }

    /// The hooks that are due on a host.
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
        if self.ctx.interrupted() {
            return failed("stopped by a signal").hint("run the same command again to go on").err();
        }
        let name = format!("run the hook {}", hook.name);
        let run = || hooks::run(self.ctx, self.env.name, self.exports, hook, host.target, release);
        self.timed(host, &name, run).map_err(|error| explain(&error, &format!("so the hook {} failed", hook.name)))
    }

    /// Runs the hooks for when all is well. Nothing that they do, not even a panic, is a reason to take it back.
    pub(super) fn announce(&self, hosts: &[HostProgress]) {
        for host in hosts {
            for hook in self.hooks(host, HookPhase::AfterAll) {
                let done = catch_unwind(AssertUnwindSafe(|| self.hook(host, hook)));
                match done {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => self.ctx.warn(format!("{error:#}; the release is live all the same")),
                    Err(_) => {
                        self.ctx.warn(format!("the hook {} panicked; the release is live all the same", hook.name));
                    }
                }
            }
        }
    }
}
