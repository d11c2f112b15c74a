//! Reverts a failed switch.

use crate::deploy::apply::Run;
use crate::deploy::apply::progress::HostProgress;
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::host::Operation;
use gangplank_model::error::{CliError, Kind, Result, failed, hint_of, kind_of};
use gangplank_model::event::{Event, Stage};
use gangplank_model::history::{HistoryEvent, Record};
use gangplank_model::plan::Step;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::service::run::Script;
use gangplank_model::state::{Current, ServiceState, State};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The pause before a failed start of an old release is retried.
const START_AGAIN: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Reverts every target whose switch was started to its fallback. Returns an error that says what failed and
    /// whether the revert succeeded.
    pub(super) fn revert(&self, hosts: &[HostProgress], cause: &anyhow::Error) -> anyhow::Error {
        let begun: Vec<_> = hosts.iter().filter(|host| host.begun.load(Ordering::SeqCst)).collect();
        let (mut stuck, mut back) = (Vec::new(), Vec::new());
        self.stage(Stage::Reverted, 0, begun.iter().copied());
        let revert = |host: &&HostProgress| {
            let done = self.revert_one(host, cause);
            self.ctx.emit(Event::Reverted { target: host.target.url().to_owned(), ok: done.is_ok() });
            done
        };
        for (host, done) in begun.iter().zip(par_map(&begun, AT_ONCE, revert)) {
            match done {
                Ok(now) => back.push(now),
                Err(error) => stuck.push(format!("{}: {error:#}", host.target.url())),
            }
        }
        let env = self.env.name;
        if stuck.is_empty() {
            let hint = hint_of(cause).map_or_else(
                || {
                    let then =
                        if self.ctx.interrupted() { "run the same command again" } else { "fix it and deploy again" };
                    format!("{then}; `cargo xtask status {env}` shows what is live")
                },
                str::to_owned,
            );
            let switches = |host: &&HostProgress| host.switch().is_some() || host.restart().is_some();
            let unreached = hosts.iter().filter(switches).filter(|host| !host.begun.load(Ordering::SeqCst)).count();
            if unreached > 0 && !begun.is_empty() {
                let (hosts, were) = if unreached == 1 { ("host", "was") } else { ("hosts", "were") };
                back.push(format!("{unreached} other {hosts} {were} not switched"));
            }
            let now = if back.is_empty() { "nothing was switched".to_owned() } else { back.join(", ") };
            return CliError::new(kind_of(cause), format!("{cause:#}; {now}")).hint(hint).into();
        }
        CliError::new(Kind::RevertFailed, format!("{cause:#}; and it could NOT be reverted: {}", stuck.join("; ")))
            .hint(match begun.iter().find_map(|host| host.plan.fallback.as_ref()) {
                Some(old) => format!("repair that host now, then run `cargo xtask rollback {env} {old}`; hosts that run {old} are not touched"),
                None => format!("repair that host now, then deploy again; `cargo xtask status {env}` shows what is live"),
            })
            .into()
    }

    fn revert_one(&self, host: &HostProgress, cause: &anyhow::Error) -> Result<String> {
        let reason = self.ctx.scrub(&format!("{cause:#}"));
        let (spec, url, root) = (self.spec, host.target.url(), host.target.root());
        let restarted = host.restarted.load(Ordering::SeqCst);
        let tried = host.goal();
        let Some(old) = &host.plan.fallback else {
            let live = host.target.state()?;
            // An unconfirmed release may still be the only one that answers.
            if !restarted && !live.unfinished && live.live() != tried {
                let live = live.live().map_or_else(String::new, |id| format!(", {id} is live as before"));
                return Ok(format!("nothing was switched on {url}{live}"));
            }
            host.reverted.store(true, Ordering::SeqCst);
            if restarted {
                self.optional(host, spec.stop(root).as_ref())?;
            }
            host.target.activate(None, None)?;
            self.remember(host, HistoryEvent::Failed, tried, &reason);
            // `activate` has restored the link of another tool.
            if let Current::Foreign(to) = host.target.state()?.current {
                return Ok(format!("`current` of {url} points to {to} again"));
            }
            return Ok(format!("nothing is live on {url}: there was no healthy release to go back to"));
        };
        let live = host.target.state()?;
        let still_runs = self.still_runs(&live, old, tried);
        let restarted = restarted && !still_runs;
        if live.live() == Some(old) && !live.unfinished && !restarted && live.history.confirmed(old) {
            return Ok(format!("nothing was switched on {url}, {old} is live as before"));
        }
        host.reverted.store(true, Ordering::SeqCst);
        if live.live() != Some(old) || live.unfinished {
            let step = Step::Activate { release: old.clone(), from: live.live().cloned() };
            self.timed(host, &step.to_string(), || host.target.activate(Some(old), None))?;
        }
        if restarted {
            let step = Step::Restart { release: old.clone() };
            let script = spec.restart(root, old, true);
            self.timed(host, &step.to_string(), || self.start_old(host, script.as_ref()))
                .inspect_err(|_| self.show_log(host))?;
        }
        self.remember(host, HistoryEvent::Failed, tried.filter(|new| *new != old), &reason);
        let commit = self.commit(host, old);
        let kept = host.target.one(Operation::KeptCheck)?;
        let checker = self.checker.as_kept(&kept.stdout);
        checker
            .wait(self.ctx, host.target, spec, old, commit.as_deref())
            .map_err(|reason| failed(format!("{old} was reverted, but {reason}")))?;
        self.remember(host, HistoryEvent::Restored, Some(old), &reason);
        Ok(format!("{old} is live again on {url}"))
    }

    /// Starts the old release, with retries while there is time. A project command runs once.
    fn start_old(&self, host: &HostProgress, script: Option<&Script>) -> Result<()> {
        let started = Instant::now();
        let once = script.is_some_and(|script| script.of_project);
        loop {
            match self.optional(host, script) {
                Err(error)
                    if !once && kind_of(&error) == Kind::Failed && started.elapsed() < self.env.health.deadline =>
                {
                    self.ctx.note(format!("{error:#}; trying again"));
                    std::thread::sleep(START_AGAIN);
                }
                done => return done,
            }
        }
    }

    /// Whether the process of the old release was never stopped, so that it needs no restart.
    fn still_runs(&self, state: &State, old: &ReleaseId, tried: Option<&ReleaseId>) -> bool {
        match &state.service {
            ServiceState::Running { spec, release } => {
                release == old && (tried != Some(old) || Some(spec) != self.spec.digest().as_ref())
            }
            _ => false,
        }
    }

    /// Writes a record if possible: a full disk must not prevent the revert.
    fn remember(&self, host: &HostProgress, event: HistoryEvent, id: Option<&ReleaseId>, reason: &str) {
        let Some(id) = id else { return };
        let from = host.switch().and_then(|(_, from)| from.cloned()).filter(|from| from != id);
        if let Err(error) = host.target.record(&Record { from, ..self.record(event, id, Some(reason)) }) {
            self.ctx.warn(format!("{error:#}"));
        }
    }
}
