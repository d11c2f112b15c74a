//! Why a command is refused: every reason, as a pure function, each with a row in the tables of its tests.

use super::{Age, Goal, HostPlan};
use crate::error::{CliError, Kind, Result, failed, usage, verification};
use crate::hook::Hook;
use crate::release::id::{Expected, ReleaseId};
use crate::state::{Current, Root, State};

/// Everything that a decision depends on outside of the command line and the project, asked once.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The targets, in the order of the env.
    pub hosts: Vec<HostSnapshot>,
    /// The releases that stores recorded as live; empty if a host runs one, which decides then.
    pub stores: Vec<StoreSnapshot>,
    /// Whether a run of the same command was killed before.
    pub interrupted: bool,
}

/// A target and its state.
#[derive(Debug, Clone)]
pub struct HostSnapshot {
    /// URL of the target.
    pub url: String,
    /// What it reported.
    pub state: State,
}

/// What a store recorded as live in an env.
#[derive(Debug, Clone)]
pub struct StoreSnapshot {
    /// URL of the store.
    pub url: String,
    /// The release.
    pub live: ReleaseId,
    /// The age of the goal's release relative to it.
    pub age: Age,
}

/// What the project and the command line demand.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Name of the env.
    pub env: &'a str,
    /// Whether the env needs approval.
    pub approval: bool,
    /// Paths that releases share.
    pub shared: &'a [&'a str],
    /// How many good releases stay on a target.
    pub keep: usize,
    /// The hooks of the env.
    pub hooks: &'a [Hook],
    /// The release that must be live.
    pub expect_current: &'a Expected,
    /// The approved plans. Another plan is refused.
    pub approved: Option<&'a [HostPlan]>,
}

/// A target that runs a release of another app than `ours`; without a project, there is none to compare.
pub fn other_app(ours: Option<&str>, snapshot: &Snapshot) -> Result<()> {
    let Some(ours) = ours else { return Ok(()) };
    for host in &snapshot.hosts {
        if let Some(theirs) = host.state.app.as_ref().filter(|theirs| *theirs != ours) {
            return usage(format!("{} runs a release of {theirs}, not of {ours}", host.url))
                .hint("give each app its own directory, in `targets` of xtask/src/main.rs")
                .err();
        }
    }
    Ok(())
}

/// A release of uncommitted changes, for an env that needs approval.
pub fn uncommitted(id: &ReleaseId, rules: &Rules) -> Result<()> {
    if rules.approval && id.is_dirty() {
        return usage(format!("{id} was built from uncommitted changes, and {} needs approval", rules.env))
            .hint("commit, build, and deploy again")
            .err();
    }
    Ok(())
}

/// A release that contains a path that the env shares among releases.
pub(crate) fn shared_file(goal: &Goal, rules: &Rules) -> Result<()> {
    let below = |path: &str, shared: &str| {
        let rest = path.strip_prefix(shared.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for file in &goal.files {
        if let Some(shared) = rules.shared.iter().find(|shared| below(file, shared)) {
            return usage(format!(
                "{} holds {file}, and {} shares {shared} among its releases",
                goal.release, rules.env
            ))
            .hint("remove it from `include` or from `shared` in xtask/src/main.rs")
            .err();
        }
    }
    Ok(())
}

/// A target where another release than the expected one is live, unless a killed run of the same command made `goal` live.
pub fn unexpected(goal: Option<&ReleaseId>, rules: &Rules, snapshot: &Snapshot) -> Result<()> {
    for host in &snapshot.hosts {
        let live = host.state.live();
        let commit = live.and_then(|live| host.state.history.commit(live));
        if rules.expect_current.is(live, commit) || (snapshot.interrupted && live.is_some() && live == goal) {
            continue;
        }
        let live = live.map_or("nothing", ReleaseId::as_str);
        return CliError::new(Kind::Stale, format!("{live} is live on {}, not {}", host.url, rules.expect_current))
            .hint(format!("another deploy finished first: check `cargo xtask status {}`", rules.env))
            .err();
    }
    Ok(())
}

/// A release that is older than the one that a store recorded as live, while the hosts run nothing: they are new, or lost
/// their history.
pub(crate) fn older_than_stores(goal: &Goal, rules: &Rules, snapshot: &Snapshot) -> Result<()> {
    if goal.may_go_back() || snapshot.hosts.iter().any(|host| host.state.live().is_some()) {
        return Ok(());
    }
    match snapshot.stores.iter().find(|store| store.age == Age::Older) {
        None => Ok(()),
        Some(StoreSnapshot { url, live, .. }) => {
            let (env, new) = (rules.env, &goal.release);
            CliError::new(
                Kind::Stale,
                format!("{new} is older than {live}, which ran in {env} according to {url}; the hosts run nothing"),
            )
            .hint(format!("restore it with `cargo xtask deploy {env} {live}`, or deploy with --allow-older"))
            .err()
        }
    }
}

/// A release that is older than the live one.
pub(crate) fn older_than_live(target: &str, goal: &Goal, state: &State) -> Result<()> {
    let Some(live) = state.live() else { return Ok(()) };
    if goal.ages.get(live) != Some(&Age::Older) {
        return Ok(());
    }
    CliError::new(Kind::Stale, format!("{} is older than {live}, which is live on {target}", goal.release))
        .hint(format!("roll back with `cargo xtask rollback ENV {}`, or deploy with --allow-older", goal.release))
        .err()
}

/// A release that is installed with other bytes.
pub(crate) fn other_bytes_installed(target: &str, goal: &Goal, state: &State) -> Result<()> {
    if let (Some(have), Some(want)) = (state.installed.get(&goal.release), &goal.bundle)
        && have != want
    {
        return verification(format!(
            "{target} already has a {} with other bytes: bundle {}, this one is {}",
            goal.release,
            short(have),
            short(want)
        ))
        .hint("one commit was built twice with different results: make the build reproducible, or deploy a new commit")
        .err();
    }
    Ok(())
}

/// A release to promote whose bytes on the hosts of `from` are not those of the stores: URL and digest of each host.
pub fn other_bytes_running(from: &str, id: &ReleaseId, bundle: &str, running: &[(String, String)]) -> Result<()> {
    match running.iter().find(|(_, digest)| digest != bundle) {
        None => Ok(()),
        Some((url, _)) => verification(format!("{url} runs other bytes of {id} than the stores hold"))
            .hint(format!("deploy {id} to {from} again, then promote"))
            .err(),
    }
}

/// Fails if a person has to repair the target first.
pub fn unusable(target: &str, state: &State) -> Result<()> {
    match (&state.root, &state.current) {
        (Root::NotADirectory, _) => {
            failed(format!("{target} is not a directory")).hint("remove the file, or give the env another target").err()
        }
        (_, Current::NotALink) => failed(format!("{target}: `current` is not a symbolic link"))
            .hint("what it serves is offline once it is moved away: choose a moment, then `mv current current.by-hand` on the host and deploy again")
            .err(),
        (_, Current::Foreign(to)) => {
            failed(format!("{target}: `current` points to `{to}`, which is no release of this tool"))
                .hint("`cargo xtask deploy ENV --take-over` replaces it without a gap and restores it if the deploy fails; or deploy to an empty directory")
                .err()
        }
        _ => Ok(()),
    }
}

/// The release that several targets agree on; otherwise an error that lists the differences.
pub fn disagreeing(env: &str, found: &[(String, ReleaseId)]) -> Result<ReleaseId> {
    match found.first() {
        Some((_, first)) if found.iter().all(|(_, id)| id == first) => Ok(first.clone()),
        _ => {
            let each: Vec<_> = found.iter().map(|(target, id)| format!("{target} to {id}")).collect();
            usage(format!("the targets of {env} would roll back to different releases: {}", each.join(", ")))
                .hint(format!("name one: `cargo xtask rollback {env} RELEASE`"))
                .err()
        }
    }
}

/// A plan that differs from the approved one.
pub(crate) fn unapproved(plans: &[HostPlan], rules: &Rules) -> Result<()> {
    match rules.approved {
        Some(approved) if approved != plans => {
            CliError::new(Kind::Stale, format!("{} has changed since the plan was approved", rules.env))
                .hint(format!("check `cargo xtask status {}`, then run the same command again", rules.env))
                .err()
        }
        _ => Ok(()),
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
#[path = "refuse_tests.rs"]
mod tests;
