//! All that the release report shows, as one value: what is live, its history, the sizes of releases, and what a deploy
//! would change. Nothing here changes anything, and what does not answer is a problem of its part only.

use gangplank_deploy::deploy::liveness::LivenessChecker;
use gangplank_deploy::deploy::report::{Diff, HostStatus, UNREACHABLE, compare, host_status, subjects};
use gangplank_deploy::deploy::resolve::Catalog;
use gangplank_deploy::deploy::waves::{AT_ONCE, par_map};
use gangplank_deploy::host::Target;
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Result, not_found};
use gangplank_model::history::{History, HistoryEvent, Record};
use gangplank_model::project::Env;
use gangplank_model::release::id::{ReleaseId, Selector};
use gangplank_model::release::manifest::{CiJob, Commit, Manifest};
use gangplank_model::state::State;
use gangplank_system::context::Context;
use gangplank_system::git;
use gangplank_system::machine::ci_job;
use std::collections::BTreeMap;

/// The number of releases whose manifests are read: each may be a request to a store.
const MANIFESTS_MAX: usize = 30;
/// The number of changes of what is live whose commits are listed.
const CHANGES_MAX: usize = 20;
/// The number of commits that are listed of each change.
const COMMITS_MAX: usize = 50;

/// A project at one moment.
#[derive(Debug)]
pub struct Overview {
    /// Name of the app.
    pub app: String,
    /// When it was read.
    pub at: jiff::Timestamp,
    /// The CircleCI job that read it.
    pub ci: Option<CiJob>,
    /// The envs that were asked for.
    pub envs: Vec<EnvOverview>,
    /// The releases of which a manifest or a list of a store is at hand, oldest first.
    pub releases: Vec<ReleaseSize>,
    /// The subjects of commits, as far as the checkout has them.
    pub subjects: BTreeMap<ReleaseId, String>,
    /// What a deploy would change, per env that was asked for.
    pub changes: Vec<Pending>,
}

/// An env.
#[derive(Debug)]
pub struct EnvOverview {
    /// Its name.
    pub name: String,
    /// Each host.
    pub hosts: Vec<HostStatus>,
    /// Where the history was read: a host, or a store.
    pub source: String,
    /// Its records, oldest first, without those of installs, switches and removals.
    pub records: Vec<Record>,
    /// The number of invalid lines.
    pub unreadable: usize,
    /// The commits of the newest changes of what is live, oldest first.
    pub changes: Vec<Change>,
    /// Errors of hosts that did not answer.
    pub problems: Vec<String>,
}

/// A change of what is live, and the commits between both releases.
#[derive(Debug)]
pub struct Change {
    /// When.
    pub at: jiff::Timestamp,
    /// The release that was live before.
    pub from: ReleaseId,
    /// The release that became live.
    pub to: ReleaseId,
    /// Its new commits, newest first; `None` if the checkout lacks them.
    pub commits: Option<Vec<String>>,
    /// Commits that it does not have any more.
    pub lost: Option<Vec<String>>,
}

/// The sizes of a release.
#[derive(Debug)]
pub struct ReleaseSize {
    /// The release.
    pub id: ReleaseId,
    /// Its commit.
    pub commit: Commit,
    /// Bytes of the bundle.
    pub bytes: u64,
    /// Bytes of each file; empty if no manifest was at hand.
    pub files: BTreeMap<String, u64>,
    /// The job that built it, if a manifest was at hand.
    pub ci: Option<CiJob>,
}

/// What a deploy to an env would change.
#[derive(Debug)]
pub struct Pending {
    /// The env.
    pub env: String,
    /// The differences, or why they are not known.
    pub diff: std::result::Result<Diff, String>,
}

/// Reads envs, all of them without names, and what a deploy of this commit's release to `pending` would change.
pub fn overview(tool: &Tool, envs: &[String], pending: &[String]) -> Result<Overview> {
    let Tool { ctx, project, .. } = *tool;
    let envs: Vec<&Env> = match envs {
        [] => project.envs.iter().collect(),
        names => names.iter().map(|name| project.env(name)).collect::<Result<_>>()?,
    };
    let pending = pending.iter().map(|name| project.env(name)).collect::<Result<Vec<_>>>()?;
    let catalog = Catalog::open(tool)?;
    let mut manifests = BTreeMap::new();
    let envs = envs.into_iter().map(|env| read_env(tool, &catalog, env, &mut manifests)).collect::<Result<Vec<_>>>()?;
    let changes = pending.into_iter().map(|env| Pending {
        env: env.name.to_owned(),
        diff: pending_diff(tool, &catalog, env).map_err(|error| format!("{error:#}")),
    });
    let changes = changes.collect();
    let releases = sizes(ctx, &catalog, manifests);
    let live = envs.iter().flat_map(|env| &env.records).filter_map(|record| record.release.as_ref());
    let hosts = envs.iter().flat_map(|env| &env.hosts).filter_map(|host| host.release.as_ref());
    let subjects = subjects(ctx, live.chain(hosts).chain(releases.iter().map(|release| &release.id)));
    Ok(Overview { app: project.app.name.to_owned(), at: ctx.now(), ci: ci_job(ctx), envs, releases, subjects, changes })
}

type Manifests = BTreeMap<ReleaseId, Manifest>;

fn read_env(tool: &Tool, catalog: &Catalog, env: &Env, manifests: &mut Manifests) -> Result<EnvOverview> {
    let Tool { ctx, project, .. } = *tool;
    let liveness = LivenessChecker::new(ctx, project.ci.slug);
    let targets = tool.targets(env)?;
    let states = par_map(&targets, AT_ONCE, |target| target.state());
    let (mut hosts, mut problems, mut histories) = (Vec::new(), Vec::new(), Vec::new());
    for (target, state) in targets.iter().zip(states) {
        let mut host = match &state {
            Ok(state) => host_status(&liveness, env.name, target.url(), state),
            Err(_) => host_status(&liveness, env.name, target.url(), &State::default()),
        };
        match state {
            Ok(state) => {
                if histories.is_empty() {
                    read_manifests(&**target, &state, manifests);
                }
                histories.push((target.url().to_owned(), state.history));
            }
            Err(error) => {
                host.state = UNREACHABLE;
                problems.push(format!("{error:#}"));
            }
        }
        hosts.push(host);
    }
    // Hosts know more; stores keep a copy for hosts that lost their history or are not reachable from here.
    if histories.iter().all(|(_, history)| history.records.is_empty()) {
        histories.extend(catalog.deploy_log().histories(ctx, env.name));
    }
    let longest = histories.into_iter().max_by_key(|(_, history)| history.records.len());
    let (source, History { records, unreadable }) = longest.unwrap_or_default();
    let records: Vec<_> = records.into_iter().filter(|record| !record.event.is_detail()).collect();
    let changes = commits_of(ctx, changes_of(&records));
    Ok(EnvOverview { name: env.name.to_owned(), hosts, source, records, unreadable, changes, problems })
}

/// The manifests of the releases that a host has.
fn read_manifests(target: &dyn Target, state: &State, manifests: &mut Manifests) {
    for id in state.installed.keys().rev().take(MANIFESTS_MAX) {
        if !manifests.contains_key(id)
            && let Ok(manifest) = target.manifest(id)
        {
            manifests.insert(id.clone(), manifest);
        }
    }
}

/// The newest changes of what is live, oldest first: when, from and to. A release that is checked again is no change.
fn changes_of(records: &[Record]) -> Vec<(jiff::Timestamp, ReleaseId, ReleaseId)> {
    let live = records.iter().filter(|record| matches!(record.event, HistoryEvent::Live | HistoryEvent::Restored));
    let live: Vec<_> = live.filter_map(|record| Some((record.at, record.release.as_ref()?))).collect();
    let pairs = live.windows(2).filter(|pair| pair[0].1 != pair[1].1);
    let pairs: Vec<_> = pairs.map(|pair| (pair[1].0, pair[0].1.clone(), pair[1].1.clone())).collect();
    pairs[pairs.len().saturating_sub(CHANGES_MAX)..].to_vec()
}

fn commits_of(ctx: &Context, changes: Vec<(jiff::Timestamp, ReleaseId, ReleaseId)>) -> Vec<Change> {
    let between = |older: &ReleaseId, newer: &ReleaseId| {
        let mut commits = git::log(ctx, older.short_sha(), newer.short_sha())?;
        if commits.len() > COMMITS_MAX {
            let more = commits.len() - COMMITS_MAX;
            commits.truncate(COMMITS_MAX);
            commits.push(format!("and {more} more"));
        }
        Some(commits)
    };
    let change = |(at, from, to): (jiff::Timestamp, ReleaseId, ReleaseId)| {
        let (commits, lost) = (between(&from, &to), between(&to, &from));
        Change { at, from, to, commits, lost }
    };
    changes.into_iter().map(change).collect()
}

/// The difference between what is live in an env and the release of this commit. An approval is about it, so what
/// a host reports of the candidate does not count.
fn pending_diff(tool: &Tool, catalog: &Catalog, env: &Env) -> Result<Diff> {
    let ctx = tool.ctx;
    let id = catalog.resolve(None::<&Selector>)?;
    let new = catalog.manifest(&id)?;
    // The job before an approval has no secrets of the env, so a store is asked first.
    let logs = catalog.deploy_log().histories(ctx, env.name);
    let recorded = logs.iter().find_map(|(_, history)| history.live_stack().last().map(|id| (*id).clone()));
    if let Some(live) = recorded
        && let Ok(old) = catalog.manifest(&live)
    {
        return Ok(compare(ctx, env.name, &old, &new));
    }
    let target = tool.target_of(env, env.targets[0])?;
    let Some(live) = target.state()?.live().cloned() else {
        return not_found(format!("nothing is live on {}", target.url()))
            .hint("the first deploy sends every file")
            .err();
    };
    Ok(compare(ctx, env.name, &target.manifest(&live)?, &new))
}

/// The sizes of the newest releases, oldest first: of those with a manifest, and of those that the stores list.
fn sizes(ctx: &Context, catalog: &Catalog, manifests: Manifests) -> Vec<ReleaseSize> {
    let listed = catalog.list(MANIFESTS_MAX).unwrap_or_else(|error| {
        ctx.warn(format!("the report lacks the releases of the stores: {error:#}"));
        vec![]
    });
    let mut all: BTreeMap<ReleaseId, ReleaseSize> = BTreeMap::new();
    for (head, _) in listed {
        let size = ReleaseSize {
            id: head.id.clone(),
            commit: head.commit,
            bytes: head.bundle.bytes,
            files: BTreeMap::new(),
            ci: None,
        };
        all.insert(head.id, size);
    }
    for (id, manifest) in manifests {
        let files = manifest.files.into_iter().map(|file| (file.path, file.bytes)).collect();
        let (commit, bytes, ci) = (manifest.commit, manifest.bundle.bytes, manifest.ci);
        all.insert(id.clone(), ReleaseSize { id, commit, bytes, files, ci });
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::history::testing::{digits, history};

    #[test]
    fn changes_of_what_is_live_are_those_to_another_release() {
        for (words, want) in [
            ("", ""),
            ("live 1", ""),
            ("live 1; live 1; live 2", "1 2"),
            ("live 1; failed 2; restored 1; live 3", "1 3"),
            ("live 1; live 2; rollback 1", "1 2, 2 1"),
        ] {
            let changes = changes_of(&history(words).records);
            let told: Vec<_> = changes.iter().map(|(_, from, to)| digits([from, to])).collect();
            assert_eq!(told.join(", "), want, "{words}");
        }
    }
}
