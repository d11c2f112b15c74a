//! Executes a plan and reverts it on failure.
//!
//! Install on all targets first; then per wave, on its targets in parallel: switch, restart, check; finally record all
//! as live. If a step fails, every switched target reverts to its fallback and the command fails.

mod finalize;
mod prepare;
mod progress;
mod revert;

use crate::deploy::apply::progress::HostProgress;
use crate::deploy::deployment::Deployment;
use crate::deploy::failure::{service_failure, show_log};
use crate::deploy::release_source::ReleaseSource;
use crate::deploy::report::subject;
use crate::deploy::waves::{AT_ONCE, par_map, waves};
use crate::health;
use crate::health::Checker;
use crate::host::Operation;
use crate::host::zstd::Zstd;
use gangplank_model::entries;
use gangplank_model::error::{CliError, Result, failed, hint_of, kind_of, verification};
use gangplank_model::event::{Event, Stage, ms_since};
use gangplank_model::history::{HistoryEvent, Record, Took, Verb};
use gangplank_model::hook::HookPhase;
use gangplank_model::plan::{HostPlan, Step};
use gangplank_model::project::Env;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::Manifest;
use gangplank_model::service;
use gangplank_model::service::Spec;
use gangplank_model::service::run::Script;
use gangplank_system::context::{Context, Output};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The result of a changing command.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The env.
    pub env: String,
    /// The command.
    pub verb: Verb,
    /// Whether anything was changed.
    pub changed: bool,
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// The release that is live now, or would be.
    pub release: Option<ReleaseId>,
    /// Other envs where a deploy of this release failed last.
    pub failed_in: Vec<String>,
    /// What a health check asks, in a plan; absent if the env has none.
    pub health: Option<String>,
    /// The plan of each target.
    pub targets: Vec<HostPlan>,
}

impl Outcome {
    /// The outcome of a dry run.
    pub fn planned(env: &str, verb: Verb, release: Option<ReleaseId>, targets: Vec<HostPlan>) -> Self {
        Self {
            env: env.to_owned(),
            verb,
            changed: false,
            dry_run: true,
            release,
            failed_in: vec![],
            health: None,
            targets,
        }
    }

    /// Whether all targets were up to date.
    pub fn nothing_to_do(&self) -> bool {
        self.targets.iter().all(|host| host.steps.is_empty())
    }
}

/// Errors of a deploy that a signal stopped.
const UNSWITCHED: &str = "stopped before anything was switched";
const STOPPED: &str = "stopped by a signal";

struct Run<'a> {
    ctx: &'a Context,
    env: &'a Env,
    spec: &'a Spec,
    exports: &'a str,
    checker: &'a Checker,
    base: &'a Record,
    manifest: Option<&'a Manifest>,
    /// Number of waves.
    waves: usize,
    /// Whether there is only one host: then several operations share a round trip.
    alone: bool,
}

/// Executes `plans`, one per target of the deployment, in order.
pub fn apply(
    site: &Deployment,
    base: &Record,
    plans: Vec<HostPlan>,
    goal: Option<ReleaseId>,
    release: Option<&ReleaseSource>,
) -> Result<Outcome> {
    let manifest = release.map(ReleaseSource::manifest);
    let (ctx, env, spec, checker) = (site.ctx, site.env, &site.spec, &site.checker);
    let waves = waves(env.strategy, env.max_unavailable, plans.len()).len();
    let run = Run { ctx, env, spec, exports: &site.exports, checker, base, manifest, waves, alone: plans.len() == 1 };
    let hosts: Vec<_> =
        site.targets.iter().zip(&plans).map(|(target, plan)| HostProgress::new(&**target, plan)).collect();
    run.started(site.env.name, &plans, goal.as_ref());
    run.stage(Stage::Install, 0, &hosts);
    let done = run.carry_out(&hosts, release);
    site.pending.was_switched.set(hosts.iter().any(|host| host.reverted.load(Ordering::SeqCst)));
    run.stage(if done.is_ok() { Stage::Done } else { Stage::Failed }, 0, &hosts);
    done?;
    let changed = plans.iter().any(|host| !host.steps.is_empty());
    Ok(Outcome {
        env: site.env.name.to_owned(),
        verb: base.verb,
        changed,
        dry_run: false,
        release: goal,
        failed_in: vec![],
        health: None,
        targets: plans,
    })
}

/// All errors as one, each text once, with the kind and hint of the first.
pub(crate) fn all_of(done: Vec<Result<()>>) -> Result<()> {
    let errors: Vec<_> = done.into_iter().filter_map(Result::err).collect();
    let Some(first) = errors.first() else { return Ok(()) };
    let mut texts: Vec<String> = Vec::new();
    for text in errors.iter().map(|error| format!("{error:#}")) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let failure = CliError::new(kind_of(first), texts.join("; "));
    Err(match hint_of(first) {
        Some(hint) => failure.hint(hint.to_owned()).into(),
        None => failure.into(),
    })
}

impl Run<'_> {
    fn carry_out(&self, hosts: &[HostProgress], release: Option<&ReleaseSource>) -> Result<()> {
        self.install(hosts, release)?;
        // A panic must not leave an unchecked release live either.
        let switched = catch_unwind(AssertUnwindSafe(|| self.switch(hosts)));
        if let Err(error) = switched.unwrap_or_else(|_| failed("internal error (panic); see above").err()) {
            return Err(self.revert(hosts, &error));
        }
        // Hosts release their locks in `finalize`, after their `live` record. All hosts must be recorded before: if the
        // last one fails, the first one must still have its fallback. A single host does both in one round trip.
        if let Err(error) = all_of(par_map(hosts, AT_ONCE, |host| self.finalize(host))) {
            return Err(self.revert(hosts, &error));
        }
        self.announce(hosts);
        Ok(())
    }

    /// Emits what is about to be done, unless there is nothing to do.
    fn started(&self, env: &str, plans: &[HostPlan], goal: Option<&ReleaseId>) {
        if plans.iter().all(|plan| plan.steps.is_empty()) {
            return;
        }
        let froms = plans.iter().flat_map(|plan| &plan.steps).filter_map(|step| match step {
            Step::Activate { from, .. } => from.clone(),
            _ => None,
        });
        let replaced = froms.collect::<BTreeSet<_>>().into_iter().collect();
        let subject = subject(self.ctx, goal);
        let (verb, env, release) = (self.base.verb, env.to_owned(), goal.cloned());
        self.ctx.emit(Event::Started { verb, env, release, replaced, subject });
    }

    /// Emits a progress event with the hosts that take part.
    fn stage<'h>(&self, stage: Stage, wave: usize, hosts: impl IntoIterator<Item = &'h HostProgress<'h>>) {
        let working = hosts.into_iter().filter(|host| !host.plan.steps.is_empty());
        let targets = working.map(|host| host.target.url().to_owned()).collect();
        self.ctx.emit(Event::Stage { stage, wave, waves: self.waves, targets });
    }

    fn install(&self, hosts: &[HostProgress], release: Option<&ReleaseSource>) -> Result<()> {
        let installs = |step: &Step| matches!(step, Step::Install { .. });
        let (Some(release), true) = (release, hosts.iter().any(|host| host.has(installs))) else {
            return self.stop_if_asked(UNSWITCHED);
        };
        if let Some(url) = release.origin() {
            self.ctx.note(format!("the hosts fetch {} themselves from {url}", release.id()));
        }
        let wanting: Vec<_> = hosts.iter().filter(|host| host.has(installs)).collect();
        let mut have = BTreeMap::new();
        // Local installs skip deltas.
        let afar = wanting.iter().filter(|host| !host.target.url().starts_with("file:"));
        for live in afar.filter_map(|host| host.plan.fallback.clone()) {
            *have.entry(live).or_default() += 1;
        }
        let zstd = Zstd::find(self.ctx);
        let on_host = |name: &str| wanting.iter().filter(|host| host.target.host() == name).count();
        let targets = wanting.iter().map(|host| on_host(host.target.host())).max().unwrap_or(1);
        let changes = release.changes(&have, zstd.as_ref().map(|it| it as _), targets);
        let delivery = |host| Ok((host, release.delivery(&changes)?));
        let deliveries = wanting.iter().copied().map(delivery).collect::<Result<Vec<_>>>()?;
        let step = Step::Install { release: release.id().clone() };
        // The same for all hosts, so that they share an archive.
        let record = self.record(HistoryEvent::Installed, release.id(), None);
        let done = par_map(&deliveries, AT_ONCE, |(host, delivery)| {
            self.stop_if_asked(UNSWITCHED)?;
            self.recorded(
                host,
                &step.to_string(),
                |took| &mut took.install_ms,
                || host.target.install(delivery, &record),
            )
        });
        all_of(done).map_err(|error| explain(&error, "nothing was switched"))?;
        self.stop_if_asked(UNSWITCHED)
    }

    /// The place where a signal stops the changes of a deploy: before each operation on a host, never during one. Hosts
    /// that were not reached stay as they are; those that were are reverted. Waiting for a lock, for a healthy service or
    /// for a bucket ends with a signal by itself.
    fn stop_if_asked(&self, at: &str) -> Result<()> {
        if self.ctx.interrupted() { failed(at).hint("run the same command again to continue").err() } else { Ok(()) }
    }

    /// Switches, restarts and checks wave by wave, then records all hosts as live.
    fn switch(&self, hosts: &[HostProgress]) -> Result<()> {
        // A single host is prepared in the same round trip as its switch.
        if !self.alone {
            all_of(par_map(hosts, AT_ONCE, |host| self.prepare(host)))?;
        }
        for host in hosts {
            for hook in self.hooks(host, HookPhase::BeforeAll) {
                self.share(host)?;
                self.hook(host, hook)?;
            }
        }
        for (wave, part) in waves(self.env.strategy, self.env.max_unavailable, hosts.len()).into_iter().enumerate() {
            let hosts = &hosts[part];
            self.stop_if_asked(STOPPED)?;
            self.stage(Stage::Switch, wave + 1, hosts);
            all_of(par_map(hosts, hosts.len(), |host| self.switch_one(host)))?;
        }
        self.stop_if_asked(STOPPED)?;
        self.stage(Stage::Finalize, 0, hosts);
        if self.alone {
            return Ok(());
        }
        all_of(par_map(hosts, AT_ONCE, |host| self.confirm(host)))
    }

    /// Switches a host and starts its service in one round trip, then waits until it is healthy.
    fn switch_one(&self, host: &HostProgress) -> Result<()> {
        for hook in self.hooks(host, HookPhase::BeforeEach) {
            self.begin(host)?;
            self.share(host)?;
            self.hook(host, hook)?;
        }
        let steps = &host.plan.steps;
        let both = steps.iter().filter(|step| matches!(step, Step::Activate { .. } | Step::Restart { .. }));
        let names: Vec<_> = both.map(Step::to_string).collect();
        if !names.is_empty() {
            self.begin(host)?;
            self.recorded(host, &names.join(", "), |took| &mut took.switch_ms, || self.activate(host))?;
        }
        for step in steps {
            if let Step::Check { release } = step {
                self.begin(host)?;
                self.recorded(host, &step.to_string(), |took| &mut took.check_ms, || self.check(host, release))?;
            }
        }
        self.hooks(host, HookPhase::AfterEach).try_for_each(|hook| self.hook(host, hook))
    }

    fn activate(&self, host: &HostProgress) -> Result<()> {
        let switched = host.switch().map(|(release, from)| {
            let reason = host.plan.replaces.as_ref().map(|link| format!("`current` pointed to {link}"));
            (release, Record { from: from.cloned(), ..self.record(HistoryEvent::Switched, release, reason.as_deref()) })
        });
        let restart = host.restart().and_then(|id| self.spec.restart(host.target.root(), id, false));
        if let Some(link) = host.plan.replaces.as_ref().filter(|_| switched.is_some()) {
            self.ctx.note(format!("{}: `current` pointed to {link}", host.target.url()));
        }
        let scripts = self.preparing(host);
        let mut acts = if self.alone { looks(host, &scripts) } else { vec![] };
        acts.extend(switched.as_ref().map(|(release, record)| Operation::Activate(Some(release), Some(record))));
        acts.extend(restart.as_ref().map(Operation::Run));
        self.act(host, &acts, restart.is_some())
    }

    fn begin(&self, host: &HostProgress) -> Result<()> {
        self.stop_if_asked(STOPPED)?;
        host.begun.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Runs the operations of a switch. If the answer is lost, all of them may have been executed.
    fn act(&self, host: &HostProgress, acts: &[Operation], restarts: bool) -> Result<()> {
        let answers = host.target.act(acts).inspect_err(|_| {
            host.restarted.fetch_or(restarts, Ordering::SeqCst);
        })?;
        let failed = answers.iter().position(|answer| !answer.ok());
        let last = failed.is_none_or(|at| at + 1 >= acts.len());
        host.restarted.fetch_or(last && restarts, Ordering::SeqCst);
        let (act, answer) = match failed {
            Some(at) if at < acts.len() => (&acts[at], &answers[at]),
            _ if answers.len() >= acts.len() => {
                self.warn_of_extra_files(host, acts, &answers);
                for text in answers.iter().flat_map(|answer| service::warnings(&answer.stderr)) {
                    self.ctx.warn(format!("{}: {text}", host.target.url()));
                }
                return Ok(());
            }
            _ => (&acts[answers.len()], &Output::NONE),
        };
        match act {
            Operation::Run(_) if last && restarts => {
                self.show_log(host);
                self.service_failed(host, answer)
            }
            Operation::VerifyFiles(release) => {
                let differences = entries::differences(&answer.stderr);
                let first = differences.first().map(String::as_str).or_else(|| answer.stderr.trim().lines().next());
                let reason = first.unwrap_or("its files differ").to_owned();
                if answer.code != Some(gangplank_model::script::compare::EXIT_VERIFICATION) {
                    return Err(host.target.complaint(act, answer));
                }
                verification(format!("{}: {release} was changed since it was installed: {reason}", host.target.url()))
                    .hint(format!("{}, and run the same command again", host.target.repair_hint(release)))
                    .err()
            }
            _ => Err(host.target.complaint(act, answer)),
        }
    }

    /// Warns of a file that the app wrote into its release; it does not block a switch.
    fn warn_of_extra_files(&self, host: &HostProgress, acts: &[Operation], answers: &[Output]) {
        for (act, answer) in acts.iter().zip(answers) {
            let Operation::VerifyFiles(release) = act else { continue };
            let extra = entries::differences(&answer.stdout);
            if let Some(first) = extra.first() {
                let more = if extra.len() > 1 { format!(", and {} more", extra.len() - 1) } else { String::new() };
                self.ctx.warn(format!(
                    "{}: {release}: {first}{more}; `shared` in xtask/src/main.rs keeps what an app writes",
                    host.target.url()
                ));
            }
        }
    }

    fn check(&self, host: &HostProgress, release: &ReleaseId) -> Result<()> {
        let commit = self.commit(host, release);
        self.checker.wait(self.ctx, host.target, self.spec, release, commit.as_deref()).map_err(|reason| {
            self.show_log(host);
            let failure = failed(format!("{}: {reason}", host.target.url()));
            match health::hint(&reason) {
                Some(hint) => failure.hint(hint).into(),
                None => failure.into(),
            }
        })
    }

    fn confirm(&self, host: &HostProgress) -> Result<()> {
        let Some((name, record)) = self.lives(host) else { return Ok(()) };
        self.timed(host, &name, || match host.target.record(&record) {
            // Only the answer was lost.
            Err(_) if finalize::is_recorded(host, &record) => Ok(()),
            done => done,
        })
    }

    /// The record that a host is live, and the step that writes it.
    fn lives(&self, host: &HostProgress) -> Option<(String, Record)> {
        host.plan.steps.iter().find_map(|step| match step {
            Step::Confirm { release } => {
                let took = *host.took.lock().unwrap_or_else(PoisonError::into_inner);
                let record = Record {
                    from: host.switch().and_then(|(_, from)| from.cloned()),
                    took: (took != Took::default()).then_some(took),
                    ..self.record(HistoryEvent::Live, release, None)
                };
                Some((step.to_string(), record))
            }
            _ => None,
        })
    }

    /// Full SHA of a release's commit, from a local manifest or the host's history.
    fn commit(&self, host: &HostProgress, id: &ReleaseId) -> Option<String> {
        let on_host = || host.target.manifest(id).ok().map(|manifest| manifest.commit.sha);
        self.commit_at_hand(id).or_else(on_host)
    }

    fn optional(&self, host: &HostProgress, script: Option<&Script>) -> Result<()> {
        let Some(script) = script else { return Ok(()) };
        let answer = host.target.run(script)?;
        if answer.ok() { Ok(()) } else { self.service_failed(host, &answer) }
    }

    fn service_failed(&self, host: &HostProgress, answer: &Output) -> Result<()> {
        Err(service_failure(self.ctx, host.target.url(), answer, None))
    }

    fn show_log(&self, host: &HostProgress) {
        show_log(self.ctx, self.spec, host.target);
    }

    fn record(&self, event: HistoryEvent, id: &ReleaseId, reason: Option<&str>) -> Record {
        let reason = reason.map(str::to_owned).or_else(|| self.base.reason.clone());
        Record {
            at: self.ctx.now(),
            event,
            release: Some(id.clone()),
            commit: self.commit_at_hand(id),
            reason,
            ..self.base.clone()
        }
    }

    /// The commit of a release, from its manifest or a history, if either has it.
    fn commit_at_hand(&self, id: &ReleaseId) -> Option<String> {
        match self.manifest.filter(|manifest| manifest.id == *id) {
            Some(manifest) => Some(manifest.commit.sha.clone()),
            None => self.base.commit.clone().filter(|_| self.base.release.as_ref() == Some(id)),
        }
    }

    /// Like [`Self::timed`], and keeps the duration for the record `live`.
    fn recorded(
        &self,
        host: &HostProgress,
        step: &str,
        slot: fn(&mut Took) -> &mut Option<u64>,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let started = Instant::now();
        self.timed(host, step, work)?;
        *slot(&mut host.took.lock().unwrap_or_else(PoisonError::into_inner)) = Some(ms_since(started));
        Ok(())
    }

    fn timed<T>(&self, host: &HostProgress, step: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (ctx, target) = (self.ctx, host.target.url().to_owned());
        ctx.emit(Event::StepStarted { target: target.clone(), step: step.to_string() });
        let started = Instant::now();
        let done = work();
        let ms = ms_since(started);
        ctx.emit(Event::StepEnded { target, step: step.to_string(), ms, ok: done.is_ok() });
        done
    }
}

/// The operations that check whether a host can be switched.
fn looks<'s>(host: &HostProgress<'s>, scripts: &'s [Script]) -> Vec<Operation<'s>> {
    host.to_be_checked().map(Operation::VerifyFiles).into_iter().chain(scripts.iter().map(Operation::Run)).collect()
}

fn explain(error: &anyhow::Error, state: &str) -> anyhow::Error {
    let hint = hint_of(error).unwrap_or("fix it and run the same command again").to_owned();
    CliError::new(kind_of(error), format!("{error:#}; {state}")).hint(hint).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::Kind;

    #[test]
    fn all_of_names_each_cause_once_with_the_kind_and_hint_of_the_first() {
        let error = |text: &str| Err(CliError::new(Kind::Remote, text.to_owned()).hint("start it").into());
        assert!(all_of(vec![Ok(()), Ok(())]).is_ok());
        for (texts, all) in [
            (&["web1 is down"][..], "web1 is down"),
            (&["web1 is down", "web2 is down"], "web1 is down; web2 is down"),
            (
                &["stopped by a signal", "stopped by a signal", "web2 is down", "stopped by a signal"],
                "stopped by a signal; web2 is down",
            ),
        ] {
            let failed = all_of(texts.iter().map(|text| error(text)).collect()).unwrap_err();
            assert_eq!(format!("{failed:#}"), all);
            assert_eq!((kind_of(&failed), hint_of(&failed)), (Kind::Remote, Some("start it")));
        }
    }
}
