//! The last steps on a healthy host.

use crate::deploy::apply::Run;
use crate::deploy::apply::progress::HostProgress;
use crate::host::Operation;
use gangplank_model::error::Result;
use gangplank_model::history::{HistoryEvent, Record, Verb};
use gangplank_model::hook::HookPhase;
use gangplank_model::plan::Step;
use gangplank_model::service::run::Script;

impl Run<'_> {
    /// Stores how the service was started and checked, for a later revert to this release, then prunes and unlocks.
    /// Failures here do not revert the release, except that of the `live` record, which a single host writes here.
    pub(super) fn finalize(&self, host: &HostProgress) -> Result<()> {
        let root = host.target.root();
        let live = self.lives(host);
        let kept: Vec<Script> = live.iter().filter_map(|_| self.spec.confirm(root)).collect();
        let check = live.is_some().then(|| self.checker.to_json());
        let prune = host.plan.steps.iter().find_map(|step| match step {
            Step::Remove { releases } => {
                let reason = (!releases.is_empty()).then(|| step.to_string()).or_else(|| self.base.reason.clone());
                let record =
                    Record { event: HistoryEvent::Removed, release: None, commit: None, reason, ..self.base.clone() };
                Some((step.to_string(), releases, record))
            }
            _ => None,
        });
        let live = live.filter(|_| self.alone);
        let names: Vec<_> =
            live.iter().map(|(name, _)| name.clone()).chain(prune.iter().map(|(name, ..)| name.clone())).collect();
        let mut acts: Vec<_> = live.iter().map(|(_, record)| Operation::Record(record)).collect();
        acts.extend(kept.iter().map(Operation::Run));
        acts.extend(check.as_deref().map(Operation::KeepCheck));
        acts.extend(prune.iter().map(|(_, releases, record)| Operation::Remove(releases, record)));
        if acts.is_empty() {
            return Ok(());
        }
        // A hook still runs under the lock.
        if self.hooks(host, HookPhase::AfterAll).next().is_none() {
            acts.push(Operation::Unlock);
        }
        let done = || self.go_on(host, &acts, live.as_ref().map(|(_, record)| record));
        if names.is_empty() { done() } else { self.timed(host, &names.join(", "), done) }
    }

    /// Runs the operations and continues after a failure, unless the first one fails and writes the record `live`.
    fn go_on(&self, host: &HostProgress, acts: &[Operation], live: Option<&Record>) -> Result<()> {
        let mut left = acts;
        while !left.is_empty() {
            let vital = live.filter(|_| left.len() == acts.len());
            let answers = match (host.target.act(left), vital) {
                (Ok(answers), _) => answers,
                // The answer was lost. The history tells whether the record was written; the later operations depend on
                // it.
                (Err(error), Some(record)) if !is_recorded(host, record) => return Err(error),
                (Err(error), _) => {
                    self.ctx.warn(format!("{error:#}"));
                    return Ok(());
                }
            };
            let Some(at) = answers.iter().position(|answer| !answer.ok()) else { return Ok(()) };
            let error = host.target.complaint(&left[at], &answers[at]);
            if at == 0 && vital.is_some_and(|record| !is_recorded(host, record)) {
                return Err(error);
            }
            if self.base.verb == Verb::Prune {
                return Err(error);
            }
            // The release is live and healthy; a full disk or a wrong file owner does not justify a revert.
            self.ctx.warn(format!("{error:#}"));
            left = &left[at + 1..];
        }
        Ok(())
    }
}

/// Whether the history has a record whose answer was lost.
pub(super) fn is_recorded(host: &HostProgress, record: &Record) -> bool {
    let Ok(state) = host.target.state() else { return false };
    state.live() == record.release.as_ref() && state.history.records.contains(record)
}
