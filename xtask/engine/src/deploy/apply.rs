//! Doing what a plan says, and undoing it when it goes wrong.
//!
//! Install everywhere before anything is switched; then wave by wave, the targets of a wave at once: switch,
//! restart, check; then record all as live. When a step fails, every target that was switched goes back to its fallback, and the command fails.

use crate::cx::{Answer, Cx};
use crate::deploy::Site;
use crate::deploy::fetched::Fetched;
use crate::deploy::history::{Happened, Record, Verb};
use crate::deploy::plan::{HostPlan, Step};
use crate::deploy::state::{Kept, State};
use crate::deploy::waves::{AT_ONCE, each, waves};
use crate::error::{Failure, Kind, Result, failed, hint_of, kind_of, verification};
use crate::event::{Event, ms_since};
use crate::health::Checker;
use crate::project::Env;
use crate::release::delta::Changes;
use crate::release::id::ReleaseId;
use crate::release::manifest::Manifest;
use crate::service::{Script, Spec};
use crate::target::{Act, Target, script};
use serde::Serialize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How many lines of a service's log are shown when it fails.
const LOG_LINES: u32 = 20;

/// What a changing command answers.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The env.
    pub env: String,
    /// What was asked for.
    pub verb: Verb,
    /// Whether anything was changed.
    pub changed: bool,
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// What is live now, or would be.
    pub release: Option<ReleaseId>,
    /// The steps, target by target.
    pub targets: Vec<HostPlan>,
}

impl Outcome {
    /// A plan that is not carried out.
    pub fn planned(env: &str, verb: Verb, release: Option<ReleaseId>, targets: Vec<HostPlan>) -> Self {
        Self { env: env.to_owned(), verb, changed: false, dry_run: true, release, targets }
    }

    /// Whether everything was as wanted already.
    pub fn nothing_to_do(&self) -> bool {
        self.targets.iter().all(|host| host.steps.is_empty())
    }
}

fn goal_of(plans: &[HostPlan]) -> Option<ReleaseId> {
    plans.iter().flat_map(|host| &host.steps).find_map(|step| match step {
        Step::Confirm { release } | Step::Activate { release, .. } => Some(release.clone()),
        _ => None,
    })
}

/// A target with its plan, and how far it has come.
struct Host<'a> {
    target: &'a dyn Target,
    plan: &'a HostPlan,
    /// Whether a step of the switch was begun, successful or not.
    begun: AtomicBool,
    /// Whether the service was told to restart.
    restarted: AtomicBool,
}

impl<'a> Host<'a> {
    fn new(target: &'a dyn Target, plan: &'a HostPlan) -> Self {
        Self { target, plan, begun: AtomicBool::new(false), restarted: AtomicBool::new(false) }
    }

    fn has(&self, wanted: impl Fn(&Step) -> bool) -> bool {
        self.plan.steps.iter().any(wanted)
    }
}

struct Run<'a> {
    cx: &'a Cx,
    env: &'a Env,
    spec: &'a Spec,
    checker: &'a Checker,
    base: &'a Record,
    manifest: Option<&'a Manifest>,
}

/// Carries out `plans`, one for each target of the site, in order.
pub fn apply(
    site: &Site,
    base: &Record,
    plans: Vec<HostPlan>,
    goal: Option<ReleaseId>,
    release: Option<&Fetched>,
) -> Result<Outcome> {
    let manifest = release.map(Fetched::manifest);
    let run = Run { cx: site.cx, env: site.env, spec: &site.spec, checker: &site.checker, base, manifest };
    let hosts: Vec<_> = site.targets.iter().zip(&plans).map(|(target, plan)| Host::new(&**target, plan)).collect();
    run.install(&hosts, release)?;
    // A bug of ours must not leave an unchecked release live either.
    let switched = catch_unwind(AssertUnwindSafe(|| run.switch(&hosts)));
    if let Err(error) = switched.unwrap_or_else(|_| failed("the engine panicked: its words are above").err()) {
        return Err(run.put_back(&hosts, &error));
    }
    let changed = plans.iter().any(|host| !host.steps.is_empty());
    Ok(Outcome {
        env: site.env.name.to_owned(),
        verb: base.verb,
        changed,
        dry_run: false,
        release: goal,
        targets: plans,
    })
}

/// What went wrong on some hosts, as one error: of the kind and with the hint of the first one.
fn all_of(done: Vec<Result<()>>) -> Result<()> {
    let errors: Vec<_> = done.into_iter().filter_map(Result::err).collect();
    let Some(first) = errors.first() else { return Ok(()) };
    let text = errors.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("; ");
    let failure = Failure::new(kind_of(first), text);
    Err(match hint_of(first) {
        Some(hint) => failure.hint(hint.to_owned()).into(),
        None => failure.into(),
    })
}

impl Run<'_> {
    fn install(&self, hosts: &[Host], release: Option<&Fetched>) -> Result<()> {
        let installs = |step: &Step| matches!(step, Step::Install { .. });
        let (Some(release), true) = (release, hosts.iter().any(|host| host.has(installs))) else {
            return self.stop_here();
        };
        if let Some(url) = release.origin() {
            self.cx.note(format!("the hosts fetch {} themselves from {url}", release.id()));
        }
        let wanting: Vec<_> = hosts.iter().filter(|host| host.has(installs)).collect();
        let changes = Changes::default();
        let delivery = |host| Ok((host, release.delivery(&changes)?));
        let deliveries = wanting.iter().copied().map(delivery).collect::<Result<Vec<_>>>()?;
        let (id, step) = (release.id(), Step::Install { release: release.id().clone() });
        let done = each(&deliveries, AT_ONCE, |(host, delivery)| {
            self.stop_here()?;
            let record = self.record(Happened::Installed, id, None);
            self.timed(host, &step.to_string(), || host.target.install(delivery, &record))
        });
        all_of(done).map_err(|error| explain(&error, "nothing was switched"))?;
        self.stop_here()
    }

    fn stop_here(&self) -> Result<()> {
        if self.cx.interrupted() {
            return failed("stopped before anything was switched").hint("run the same command again to go on").err();
        }
        Ok(())
    }

    /// Switches, restarts and checks wave by wave, then records all hosts as live.
    fn switch(&self, hosts: &[Host]) -> Result<()> {
        for wave in waves(self.env.strategy, hosts.len()) {
            let hosts = &hosts[wave];
            all_of(each(hosts, hosts.len(), |host| self.switch_one(host)))?;
        }
        if self.cx.interrupted() {
            return failed("stopped by a signal").err();
        }
        // What follows `live` must find every host recorded: a failure on the last one has to find the first one's old
        // way still there. One host alone can be told all of it at once.
        let alone = hosts.len() == 1;
        if !alone {
            all_of(each(hosts, AT_ONCE, |host| self.confirm(host)))?;
        }
        all_of(each(hosts, AT_ONCE, |host| self.settle(host, alone)))
    }

    /// Switches a host and starts its service in one round trip, then waits until it is healthy.
    fn switch_one(&self, host: &Host) -> Result<()> {
        let root = host.target.root();
        let (mut record, mut ready, mut restart) = (None, None, None);
        let (mut names, mut switched, mut check) = (Vec::new(), None, None);
        for step in &host.plan.steps {
            match step {
                Step::Activate { release, from } => {
                    record = Some(Record { from: from.clone(), ..self.record(Happened::Switched, release, None) });
                    switched = Some(release);
                }
                Step::Restart { release } => {
                    ready = self.spec.ready(root);
                    restart = self.spec.restart(root, release, false);
                }
                Step::Check { .. } => {
                    check = Some(step);
                    continue;
                }
                Step::Install { .. } | Step::Confirm { .. } | Step::Remove { .. } => continue,
            }
            names.push(step.to_string());
        }
        let mut acts = Vec::new();
        if let Some(release) = switched {
            // A release that was installed some day, and not just now, is looked at again before it goes live.
            if !host.has(|step| matches!(step, Step::Install { .. })) {
                acts.push(Act::Whole(release));
            }
        }
        acts.extend(ready.as_ref().map(Act::Run));
        acts.extend(switched.map(|release| Act::Activate(Some(release), record.as_ref())));
        acts.extend(restart.as_ref().map(Act::Run));
        if !acts.is_empty() {
            self.begin(host)?;
            self.timed(host, &names.join(", "), || self.act(host, &acts))?;
        }
        if let Some(step @ Step::Check { release }) = check {
            self.begin(host)?;
            self.timed(host, &step.to_string(), || self.check(host, release))?;
        }
        Ok(())
    }

    fn begin(&self, host: &Host) -> Result<()> {
        host.begun.store(true, Ordering::SeqCst);
        if self.cx.interrupted() { failed("stopped by a signal").err() } else { Ok(()) }
    }

    /// Does what a switch consists of. Where the answer is lost, all of it may have been done.
    fn act(&self, host: &Host, acts: &[Act]) -> Result<()> {
        let restarts = |began: &[Act]| self.spec.restarts() && matches!(began.last(), Some(Act::Run(_)));
        let answers = host.target.act(acts).inspect_err(|_| {
            host.restarted.fetch_or(restarts(acts), Ordering::SeqCst);
        })?;
        let began = &acts[..answers.len().min(acts.len())];
        host.restarted.fetch_or(began.len() == acts.len() && restarts(began), Ordering::SeqCst);
        let Some((act, answer)) = began.iter().zip(&answers).find(|(_, answer)| !answer.ok()) else { return Ok(()) };
        match act {
            Act::Run(_) => {
                if began.len() == acts.len() {
                    self.show_log(host);
                }
                self.service_failed(host, answer)
            }
            Act::Whole(release) => {
                let why = answer.stderr.trim().lines().next().unwrap_or("its files differ").to_owned();
                if answer.code != Some(script::EXIT_VERIFICATION) {
                    return Err(host.target.complaint(act, answer));
                }
                verification(format!("{}: {release} was changed since it was installed: {why}", host.target.url()))
                    .hint(format!("move releases/{release} away on the host, then run the same command again"))
                    .err()
            }
            _ => Err(host.target.complaint(act, answer)),
        }
    }

    fn check(&self, host: &Host, release: &ReleaseId) -> Result<()> {
        let commit = self.commit(host, release);
        self.checker.wait(self.cx, host.target, self.spec, release, commit.as_deref()).map_err(|why| {
            self.show_log(host);
            failed(format!("{}: {why}", host.target.url())).into()
        })
    }

    fn confirm(&self, host: &Host) -> Result<()> {
        let Some((name, record)) = self.lives(host) else { return Ok(()) };
        self.timed(host, &name, || host.target.record(&record))
    }

    /// The record that a host is live, and the step that writes it.
    fn lives(&self, host: &Host) -> Option<(String, Record)> {
        host.plan.steps.iter().find_map(|step| match step {
            Step::Confirm { release } => {
                let record = Record { from: replaced(host), ..self.record(Happened::Live, release, None) };
                Some((step.to_string(), record))
            }
            _ => None,
        })
    }

    /// What is left to do on a host that is healthy: keep how it was started and checked, for the day on which this release
    /// is put back, prune, and give up the lock. None of it is a reason to take the release back; the record that it is
    /// live, with `confirm`, is.
    fn settle(&self, host: &Host, confirm: bool) -> Result<()> {
        let root = host.target.root();
        let live = self.lives(host);
        let mut kept = Vec::new();
        if live.is_some() {
            kept.extend(self.spec.confirm(root));
            kept.push(Script::new(script::keep_check(root), self.checker.to_json()).called("keep the health check"));
        }
        let prune = host.plan.steps.iter().find_map(|step| match step {
            Step::Remove { releases } => {
                let why = (!releases.is_empty()).then(|| step.to_string()).or_else(|| self.base.why.clone());
                let record = Record { event: Happened::Removed, release: None, commit: None, why, ..self.base.clone() };
                Some((step.to_string(), releases, record))
            }
            _ => None,
        });
        let live = live.filter(|_| confirm);
        let names: Vec<_> =
            live.iter().map(|(name, _)| name.clone()).chain(prune.iter().map(|(name, ..)| name.clone())).collect();
        let mut acts: Vec<_> = live.iter().map(|(_, record)| Act::Record(record)).collect();
        acts.extend(kept.iter().map(Act::Run));
        acts.extend(prune.iter().map(|(_, releases, record)| Act::Remove(releases, record)));
        if acts.is_empty() {
            return Ok(());
        }
        acts.push(Act::Unlock);
        let done = || self.go_on(host, &acts, live.as_ref().map(|(_, record)| record));
        if names.is_empty() { done() } else { self.timed(host, &names.join(", "), done) }
    }

    /// Does the acts, and goes on after one that fails, unless that is the first and `live` the record that it writes.
    fn go_on(&self, host: &Host, acts: &[Act], live: Option<&Record>) -> Result<()> {
        let mut left = acts;
        while !left.is_empty() {
            let vital = live.filter(|_| left.len() == acts.len());
            let answers = match (host.target.act(left), vital) {
                (Ok(answers), _) => answers,
                // The answer was lost; the history says whether the record was written, and only then was more done.
                (Err(error), Some(record)) if !self.is_recorded(host, record) => return Err(error),
                (Err(error), _) => {
                    self.cx.warn(format!("{error:#}"));
                    return Ok(());
                }
            };
            let Some(at) = answers.iter().position(|answer| !answer.ok()) else { return Ok(()) };
            let error = host.target.complaint(&left[at], &answers[at]);
            if at == 0 && vital.is_some() {
                return Err(error);
            }
            // What is live is healthy; a full disk or a wrong owner is no reason to take it back.
            self.cx.warn(format!("{error:#}"));
            left = &left[at + 1..];
        }
        Ok(())
    }

    fn is_recorded(&self, host: &Host, record: &Record) -> bool {
        let Ok(state) = host.target.state() else { return false };
        state.live() == record.release.as_ref() && state.history.records.contains(record)
    }

    /// Full SHA of a release's commit: of the one at hand, or as the host knows it.
    fn commit(&self, host: &Host, id: &ReleaseId) -> Option<String> {
        let on_host = || host.target.manifest(id).ok().map(|manifest| manifest.commit.sha);
        self.commit_at_hand(id).or_else(on_host)
    }

    fn optional(&self, host: &Host, script: Option<&Script>) -> Result<()> {
        let Some(script) = script else { return Ok(()) };
        let answer = host.target.run(script)?;
        if answer.ok() { Ok(()) } else { self.service_failed(host, &answer) }
    }

    fn service_failed(&self, host: &Host, answer: &Answer) -> Result<()> {
        let said = [answer.stderr.trim(), answer.stdout.trim()].join(" ");
        failed(format!(
            "{}: the service command {}: {}",
            host.target.url(),
            crate::cx::exit(answer.code),
            self.cx.scrub(said.trim())
        ))
        .err()
    }

    fn show_log(&self, host: &Host) {
        let Some(script) = self.spec.log(host.target.root(), LOG_LINES) else { return };
        if let Ok(answer) = host.target.run(&script) {
            let lines = answer.stdout.lines().map(str::to_owned).collect();
            self.cx.emit(Event::ServiceLog { target: host.target.url().to_owned(), lines });
        }
    }

    /// Puts the fallback back on every target that was begun. The error says what failed and whether it was put back.
    fn put_back(&self, hosts: &[Host], cause: &anyhow::Error) -> anyhow::Error {
        let begun: Vec<_> = hosts.iter().filter(|host| host.begun.load(Ordering::SeqCst)).collect();
        let (mut stuck, mut back) = (Vec::new(), Vec::new());
        for (host, done) in begun.iter().zip(each(&begun, AT_ONCE, |host| self.put_back_one(host, cause))) {
            match done {
                Ok(now) => back.push(now),
                Err(error) => stuck.push(format!("{}: {error:#}", host.target.url())),
            }
        }
        let env = self.env.name;
        if stuck.is_empty() {
            let hint = hint_of(cause).map_or_else(
                || format!("mend it and deploy again; `cargo xtask status {env}` shows what is live"),
                str::to_owned,
            );
            let switches = |host: &&Host| host.has(|step| matches!(step, Step::Activate { .. } | Step::Restart { .. }));
            let unreached = hosts.iter().filter(switches).filter(|host| !host.begun.load(Ordering::SeqCst)).count();
            if unreached > 0 {
                back.push(format!("{unreached} host(s) were not reached"));
            }
            let now = if back.is_empty() { "nothing was switched".to_owned() } else { back.join(", ") };
            return Failure::new(kind_of(cause), format!("{cause:#}; {now}")).hint(hint).into();
        }
        Failure::new(Kind::NotPutBack, format!("{cause:#}; and it could NOT be put back: {}", stuck.join("; ")))
            .hint(format!("look at the host now, then go back by hand: `cargo xtask rollback {env}` tries the last healthy release again"))
            .into()
    }

    fn put_back_one(&self, host: &Host, cause: &anyhow::Error) -> Result<String> {
        let why = self.cx.scrub(&format!("{cause:#}"));
        let (spec, url, root) = (self.spec, host.target.url(), host.target.root());
        let restarted = host.restarted.load(Ordering::SeqCst);
        let tried = goal_of(std::slice::from_ref(host.plan));
        let Some(old) = &host.plan.fallback else {
            if restarted {
                self.optional(host, spec.stop(root).as_ref())?;
            }
            host.target.activate(None, None)?;
            self.remember(host, Happened::Failed, tried.as_ref(), &why);
            return Ok(format!("nothing is live on {url}: there was no healthy release to go back to"));
        };
        let live = host.target.state()?;
        let still_runs = self.still_runs(&live, old, tried.as_ref());
        let restarted = restarted && !still_runs;
        if live.live() == Some(old) && !restarted && live.history.confirmed(old) {
            return Ok(format!("nothing was switched on {url}, {old} is live as before"));
        }
        if live.live() != Some(old) {
            let step = Step::Activate { release: old.clone(), from: live.live().cloned() };
            self.timed(host, &step.to_string(), || host.target.activate(Some(old), None))?;
        }
        if restarted {
            let step = Step::Restart { release: old.clone() };
            let script = spec.restart(root, old, true);
            self.timed(host, &step.to_string(), || self.optional(host, script.as_ref()))
                .inspect_err(|_| self.show_log(host))?;
        }
        self.remember(host, Happened::Failed, tried.as_ref().filter(|new| *new != old), &why);
        let commit = self.commit(host, old);
        let kept = host.target.run(&Script::new(script::kept_check(root), String::new()))?;
        let checker = self.checker.as_kept(&kept.stdout);
        checker
            .wait(self.cx, host.target, spec, old, commit.as_deref())
            .map_err(|why| failed(format!("{old} was put back, but {why}")))?;
        self.remember(host, Happened::Restored, Some(old), &why);
        Ok(format!("{old} is live again on {url}"))
    }

    /// Whether the process of the old release was never stopped: then it is best left alone.
    fn still_runs(&self, state: &State, old: &ReleaseId, tried: Option<&ReleaseId>) -> bool {
        match &state.service {
            Kept::Running { spec, release } => {
                release == old && (tried != Some(old) || Some(spec) != self.spec.digest().as_ref())
            }
            Kept::None | Kept::Stopped => false,
        }
    }

    /// Writes a record if the host will take it: a full disk must not keep the old release from coming back.
    fn remember(&self, host: &Host, event: Happened, id: Option<&ReleaseId>, why: &str) {
        let Some(id) = id else { return };
        if let Err(error) = host.target.record(&self.record(event, id, Some(why))) {
            self.cx.warn(format!("{error:#}"));
        }
    }

    fn record(&self, event: Happened, id: &ReleaseId, why: Option<&str>) -> Record {
        let why = why.map(str::to_owned).or_else(|| self.base.why.clone());
        Record {
            at: self.cx.now(),
            event,
            release: Some(id.clone()),
            commit: self.commit_at_hand(id),
            why,
            ..self.base.clone()
        }
    }

    /// The commit of a release, where its manifest or a history has told it.
    fn commit_at_hand(&self, id: &ReleaseId) -> Option<String> {
        match self.manifest.filter(|manifest| manifest.id == *id) {
            Some(manifest) => Some(manifest.commit.sha.clone()),
            None => self.base.commit.clone().filter(|_| self.base.release.as_ref() == Some(id)),
        }
    }

    fn timed<T>(&self, host: &Host, step: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (cx, target) = (self.cx, host.target.url().to_owned());
        cx.emit(Event::StepStarted { target: target.clone(), step: step.to_string() });
        let started = Instant::now();
        let done = work();
        let ms = ms_since(started);
        cx.emit(Event::StepEnded { target, step: step.to_string(), ms, ok: done.is_ok() });
        done
    }
}

/// What a plan takes the place of.
fn replaced(host: &Host) -> Option<ReleaseId> {
    host.plan.steps.iter().find_map(|step| match step {
        Step::Activate { from, .. } => from.clone(),
        _ => None,
    })
}

fn explain(error: &anyhow::Error, state: &str) -> anyhow::Error {
    let hint = hint_of(error).unwrap_or("mend it and run the same command again").to_owned();
    Failure::new(kind_of(error), format!("{error:#}; {state}")).hint(hint).into()
}
