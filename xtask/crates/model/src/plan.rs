//! Every decision of deploy, promote, rollback and prune, as pure functions from values to steps.
//!
//! `--dry-run` prints the result, and `apply` executes it. Every refusal is here or in [`refuse`].

pub mod refuse;

use crate::error::{Kind, Result, kind_of, not_found};
use crate::history::{HistoryEvent, Record, Verb};
use crate::hook::{Hook, HookPhase};
use crate::plan::refuse::{Rules, Snapshot};
use crate::release::id::ReleaseId;
use crate::state::{Current, ServiceState, State};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How many failed releases a target keeps, for diagnosis.
const FAILED_KEPT: usize = 2;

/// The wanted state of a target.
#[derive(Debug, Clone)]
pub struct Goal {
    /// The command.
    pub verb: Verb,
    /// The release to be live.
    pub release: ReleaseId,
    /// Digest of its bundle; `None` for a rollback that did not fetch it.
    pub bundle: Option<String>,
    /// Digest of the service to run; `None` if the engine does not manage the service.
    pub service: Option<String>,
    /// Digest of the variables of a command service.
    pub vars: Option<String>,
    /// Whether there is a service to restart.
    pub has_service: bool,
    /// Allow a release older than the live one.
    pub allow_older: bool,
    /// Replace a `current` that another tool made.
    pub take_over: bool,
    /// Paths of the files in the release; empty for a rollback that did not fetch it.
    pub files: Vec<String>,
    /// The age of the release relative to each live release.
    pub ages: BTreeMap<ReleaseId, Age>,
}

impl Goal {
    /// Whether an older release than the live one is meant.
    pub fn may_go_back(&self) -> bool {
        self.verb == Verb::Rollback || self.allow_older
    }
}

/// The age of a release relative to the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// A descendant of the live commit, or younger.
    Newer,
    /// The same commit.
    Same,
    /// An ancestor of the live commit, or older.
    Older,
}

/// The relation of two commits according to git.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ancestry {
    /// The candidate is an ancestor of the live commit.
    CandidateFirst,
    /// The live commit is an ancestor of the candidate.
    LiveFirst,
    /// Neither, or unknown because the checkout is shallow.
    Unknown,
}

/// The age of `candidate` relative to `live`: by the commit graph if known, else by commit time.
pub fn age(candidate: &ReleaseId, live: &ReleaseId, ancestry: Ancestry) -> Age {
    if candidate.short_sha() == live.short_sha() && candidate.time() == live.time() {
        return Age::Same;
    }
    match ancestry {
        Ancestry::CandidateFirst => Age::Older,
        Ancestry::LiveFirst => Age::Newer,
        Ancestry::Unknown if candidate.time() < live.time() => Age::Older,
        Ancestry::Unknown => Age::Newer,
    }
}

/// One step on one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Install the verified release on the target, without activating it.
    Install {
        /// The release.
        release: ReleaseId,
    },
    /// Point `current` at the release.
    Activate {
        /// The release.
        release: ReleaseId,
        /// The release that was live.
        from: Option<ReleaseId>,
    },
    /// Run a hook of the project.
    Hook {
        /// The name of the hook.
        name: String,
        /// The release that goes live.
        release: ReleaseId,
    },
    /// Stop the old process and start the new one.
    Restart {
        /// The release.
        release: ReleaseId,
    },
    /// Wait until the release is healthy.
    Check {
        /// The release.
        release: ReleaseId,
    },
    /// Record that the release is live and healthy.
    Confirm {
        /// The release.
        release: ReleaseId,
    },
    /// Remove old releases.
    Remove {
        /// The releases; empty when only debris is removed.
        releases: Vec<ReleaseId>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install { release } => write!(f, "install {release}"),
            Self::Activate { release, from: Some(from) } => write!(f, "activate {release} (was {from})"),
            Self::Activate { release, from: None } => write!(f, "activate {release} (first release)"),
            Self::Hook { name, .. } => write!(f, "run the hook {name}"),
            Self::Restart { release } => write!(f, "restart the service with {release}"),
            Self::Check { release } => write!(f, "check the health of {release}"),
            Self::Confirm { release } => write!(f, "record that {release} is live"),
            Self::Remove { releases } if releases.is_empty() => f.write_str("remove what interrupted runs left"),
            Self::Remove { releases } => {
                let names: Vec<_> = releases.iter().map(ReleaseId::as_str).collect();
                write!(f, "remove {}", names.join(", "))
            }
        }
    }
}

/// The steps on one target, and the release to revert to on failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostPlan {
    /// URL of the target.
    pub target: String,
    /// The steps, in order; empty if the target is up to date.
    pub steps: Vec<Step>,
    /// The release that a failure reverts to; `None` if there was no good one.
    pub fallback: Option<ReleaseId>,
    /// The link target of a `current` made by another tool: a failure restores it if there is no release to revert to.
    pub replaces: Option<String>,
}

/// Plans a deploy, promote or rollback on all targets of an env, or refuses it.
pub fn plan(goal: &Goal, rules: &Rules, snapshot: &Snapshot) -> Result<Vec<HostPlan>> {
    refuse::uncommitted(&goal.release, rules)?;
    refuse::shared_file(goal, rules)?;
    refuse::unexpected(Some(&goal.release), rules, snapshot)?;
    refuse::older_than_stores(goal, rules, snapshot)?;
    let plans = snapshot.hosts.iter().map(|host| plan_host(&host.url, goal, &host.state, rules.keep));
    let mut plans = plans.collect::<Result<Vec<_>>>()?;
    add_hooks(&mut plans, rules.hooks);
    refuse::unapproved(&plans, rules)?;
    Ok(plans)
}

/// Plans a prune on all targets of an env, or refuses it.
pub fn plan_prune(rules: &Rules, snapshot: &Snapshot) -> Result<Vec<HostPlan>> {
    let plans = snapshot.hosts.iter().map(|host| prune_host(&host.url, &host.state, rules.keep));
    let plans = plans.collect::<Result<Vec<_>>>()?;
    refuse::unapproved(&plans, rules)?;
    Ok(plans)
}

/// Plans one target.
pub(crate) fn plan_host(target: &str, goal: &Goal, state: &State, keep: usize) -> Result<HostPlan> {
    if !(goal.take_over && matches!(state.current, Current::Foreign(_))) {
        refuse::unusable(target, state)?;
    }
    let release = &goal.release;
    refuse::other_bytes_installed(target, goal, state)?;
    if !goal.may_go_back() {
        refuse::older_than_live(target, goal, state)?;
    }
    let release = release.clone();
    let mut steps = Vec::new();
    if !state.installed.contains_key(&release) {
        steps.push(Step::Install { release: release.clone() });
    }
    let switch = state.live() != Some(&release) || state.unfinished;
    let confirmed = state.history.confirmed(&release) && !switch;
    let runs = match (&goal.service, &state.service) {
        // The live release's files are gone while its service runs.
        _ if goal.has_service && !state.installed.contains_key(&release) => false,
        (Some(want), ServiceState::Running { spec, release: running }) => want == spec && *running == release,
        (Some(_), _) => false,
        (None, _) if !goal.has_service => true,
        // A host reports only its variables, so an unconfirmed switch is another reason to restart.
        (None, _) => confirmed && (state.vars.is_none() || goal.vars == state.vars),
    };
    if switch {
        steps.push(Step::Activate { release: release.clone(), from: state.live().cloned() });
    }
    if goal.has_service && (switch || !runs) {
        steps.push(Step::Restart { release: release.clone() });
    }
    if switch || !runs || !confirmed {
        steps.push(Step::Check { release: release.clone() });
        steps.push(Step::Confirm { release: release.clone() });
    }
    steps.extend(prune_step(&once_live(goal, state), keep));
    Ok(HostPlan { target: target.to_owned(), steps, fallback: fallback(state), replaces: replaces(state) })
}

/// Adds the hooks of a project to the plans of the hosts that are switched. The `after` hooks run wherever a release is
/// recorded as live, which completes a killed run.
pub(crate) fn add_hooks(plans: &mut [HostPlan], hooks: &[Hook]) {
    let due = |phase, release: &ReleaseId| -> Vec<Step> {
        let these = hooks.iter().filter(|hook| hook.phase == phase);
        these.map(|hook| Step::Hook { name: hook.name.to_owned(), release: release.clone() }).collect()
    };
    let (mut first_switch, mut first_live) = (true, true);
    for plan in plans {
        let at = |plan: &HostPlan, wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted);
        let Some(live) = at(plan, |step| matches!(step, Step::Confirm { .. })) else { continue };
        let Step::Confirm { release } = plan.steps[live].clone() else { continue };
        plan.steps.splice(live..live, due(HookPhase::AfterEach, &release));
        if std::mem::take(&mut first_live) {
            plan.steps.extend(due(HookPhase::AfterAll, &release));
        }
        if let Some(switch) = at(plan, |step| matches!(step, Step::Activate { .. })) {
            plan.steps.splice(switch..switch, due(HookPhase::BeforeEach, &release));
            if std::mem::take(&mut first_switch) {
                plan.steps.splice(switch..switch, due(HookPhase::BeforeAll, &release));
            }
        }
    }
}

/// Plans a prune.
pub(crate) fn prune_host(target: &str, state: &State, keep: usize) -> Result<HostPlan> {
    refuse::unusable(target, state)?;
    Ok(HostPlan {
        target: target.to_owned(),
        steps: prune_step(state, keep).into_iter().collect(),
        fallback: None,
        replaces: None,
    })
}

/// The link target of a `current` made by another tool.
fn replaces(state: &State) -> Option<String> {
    match &state.current {
        Current::Foreign(to) => Some(to.clone()),
        _ => state.taken_over.clone(),
    }
}

/// The release that all targets of an env roll back to. A target without a previous release follows the others; the
/// texts say so. `interrupted` is the start of a rollback that was killed and runs again.
pub fn rollback_target(
    env: &str,
    snapshot: &Snapshot,
    interrupted: Option<jiff::Timestamp>,
) -> Result<(ReleaseId, Option<String>)> {
    let (mut found, mut lost) = (Vec::new(), None);
    for host in &snapshot.hosts {
        match rollback_to(&host.url, &host.state, interrupted) {
            Ok(id) => found.push((host.url.clone(), id)),
            Err(error) if kind_of(&error) == Kind::NotFound => lost = lost.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match lost {
        Some(error) if found.is_empty() => Err(error),
        lost => {
            let id = refuse::disagreeing(env, &found)?;
            let note = lost.map(|error| format!("{error:#}; rolling it back to {id} like the others"));
            Ok((id, note))
        }
    }
}

/// The release that `rollback` activates on a target. `interrupted` is the start of a killed rollback that is now
/// repeated: if it had finished on this target, the target stays as it is.
pub(crate) fn rollback_to(target: &str, state: &State, interrupted: Option<jiff::Timestamp>) -> Result<ReleaseId> {
    refuse::unusable(target, state)?;
    if let Some(done) = interrupted.and_then(|since| state.history.rolled_back_since(since)) {
        return Ok(done.clone());
    }
    match state.history.previous(state.live()) {
        Some(id) => Ok(id.clone()),
        None => not_found(match state.live() {
            Some(live) => {
                format!("{target} has nothing to roll back to: nothing was live and healthy before {live}")
            }
            None => format!("{target} has nothing to roll back to: nothing was ever deployed there"),
        })
        .hint(match &state.taken_over {
            Some(to) => format!(
                "`current` pointed to `{to}` before: deploy again, and a deploy that fails restores it; or make it again on the host"
            ),
            None => "name a release to go back to: `cargo xtask rollback ENV RELEASE`; `cargo xtask releases` lists them"
                .to_owned(),
        })
        .err(),
    }
}

/// The release to revert to: the last one that was healthy here and is still installed.
fn fallback(state: &State) -> Option<ReleaseId> {
    if let Some(live) = state.confirmed_live() {
        return Some(live.clone());
    }
    let good = state.history.live_stack().into_iter().rev().find(|id| state.installed.contains_key(*id));
    match good {
        Some(id) => Some(id.clone()),
        // Activated by another tool: better than nothing.
        None if !state.history.knows_a_switch() => state.live().cloned(),
        None => None,
    }
}

/// Removes good releases beyond `keep`, failed ones beyond [`FAILED_KEPT`], and those installed but never tried. A
/// release without any record is not ours and stays.
fn prune_step(state: &State, keep: usize) -> Option<Step> {
    let history = &state.history;
    let installed = |id: &&&ReleaseId| state.installed.contains_key(**id);
    let mut stay: BTreeSet<&ReleaseId> = state.live().into_iter().chain(history.previous(state.live())).collect();
    // The fallback of an unconfirmed release.
    stay.extend(history.live_stack().iter().rev().find(installed));
    stay.extend(history.good().iter().filter(installed).take(keep));
    stay.extend(history.bad().iter().filter(installed).take(FAILED_KEPT));
    let gone: Vec<_> = state.installed.keys().filter(|id| !stay.contains(id) && history.knows(id)).cloned().collect();
    (!gone.is_empty() || state.debris > 0).then_some(Step::Remove { releases: gone })
}

/// The state once the goal is live, so that a deploy prunes what a later `prune` would.
fn once_live(goal: &Goal, state: &State) -> State {
    let mut after = state.clone();
    if !(state.live() == Some(&goal.release) && state.history.confirmed(&goal.release)) {
        after.history.records.push(Record {
            at: jiff::Timestamp::UNIX_EPOCH,
            event: HistoryEvent::Live,
            verb: goal.verb,
            release: Some(goal.release.clone()),
            from: None,
            commit: None,
            by: String::new(),
            ci: None,
            reason: None,
            took: None,
        });
    }
    after.current = Current::Release(goal.release.clone());
    after.installed.insert(goal.release.clone(), goal.bundle.clone().unwrap_or_default());
    after
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
