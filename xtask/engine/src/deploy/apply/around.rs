//! What comes before and after a switch: finding out whether it would fail, what releases share, and the project's hooks.

use super::{Host, Run, explain, goal_of};
use crate::deploy::history::Verb;
use crate::deploy::hooks;
use crate::deploy::plan::Step;
use crate::error::{Result, failed};
use crate::hook::{Hook, Hosts, Moment};
use crate::release::id::ReleaseId;
use crate::service::Script;
use crate::target::{Act, script};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

impl Run<'_> {
    /// What has to be so before a host is switched, and changes nothing that is live.
    pub(super) fn preparing(&self, host: &Host) -> Vec<Script> {
        let restarts = host.has(|step| matches!(step, Step::Restart { .. }));
        let switched = host.plan.steps.iter().find_map(|step| match step {
            Step::Activate { release, .. } => Some(release),
            _ => None,
        });
        let ready = self.spec.ready(host.target.root()).filter(|_| restarts);
        ready.into_iter().chain(switched.and_then(|release| self.sharing(host, release))).collect()
    }

    /// Finds out on a host whether its switch would fail, while nothing is switched anywhere.
    pub(super) fn prepare(&self, host: &Host) -> Result<()> {
        let scripts = self.preparing(host);
        let acts: Vec<_> =
            host.to_be_checked().map(Act::Whole).into_iter().chain(scripts.iter().map(Act::Run)).collect();
        if !acts.is_empty() {
            self.act(host, &acts, false)?;
        }
        host.prepared.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// The script that links what is shared into a release. On the way back a release from before it was shared keeps its
    /// own.
    pub(super) fn sharing(&self, host: &Host, release: &ReleaseId) -> Option<Script> {
        let keep_own = self.base.verb == Verb::Rollback;
        let text = || script::share(host.target.root(), release, self.env.shared, keep_own);
        (!self.env.shared.is_empty()).then(|| Script::new(text(), String::new()).called("link shared files"))
    }

    /// Links what is shared ahead of the switch, for hooks that need it.
    pub(super) fn share(&self, host: &Host) -> Result<()> {
        if host.prepared.load(Ordering::SeqCst) {
            return Ok(());
        }
        let release = goal_of(std::slice::from_ref(host.plan));
        match release.and_then(|release| self.sharing(host, &release)) {
            Some(script) => host.target.must(Act::Run(&script)),
            None => Ok(()),
        }
    }

    /// The hooks that are due on a host.
    pub(super) fn hooks<'h>(&'h self, host: &'h Host, moment: Moment, hosts: Hosts) -> impl Iterator<Item = &'h Hook> {
        let planned = host.plan.steps.iter().filter_map(|step| match step {
            Step::Hook { name, .. } => Some(name),
            _ => None,
        });
        let named = planned.filter_map(|name| self.env.hooks.iter().find(|hook| hook.name == name));
        named.filter(move |hook| hook.moment == moment && hook.hosts == hosts)
    }

    pub(super) fn hook(&self, host: &Host, hook: &Hook) -> Result<()> {
        let Some(release) = goal_of(std::slice::from_ref(host.plan)) else { return Ok(()) };
        if self.cx.interrupted() {
            return failed("stopped by a signal").hint("run the same command again to go on").err();
        }
        let name = format!("run the hook {}", hook.name);
        let run = || hooks::run(self.cx, self.env.name, self.exports, hook, host.target, &release);
        self.timed(host, &name, run).map_err(|error| explain(&error, &format!("so the hook {} failed", hook.name)))
    }

    /// Runs the hooks for when all is well. Nothing that they do, not even a panic, is a reason to take it back.
    pub(super) fn announce(&self, hosts: &[Host]) {
        for host in hosts {
            for hook in self.hooks(host, Moment::After, Hosts::First) {
                let done = catch_unwind(AssertUnwindSafe(|| self.hook(host, hook)));
                match done {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => self.cx.warn(format!("{error:#}; the release is live all the same")),
                    Err(_) => {
                        self.cx.warn(format!("the hook {} panicked; the release is live all the same", hook.name));
                    }
                }
            }
        }
    }
}
