//! Queries that change nothing: status, history, releases, diff, verify.

use crate::deploy::liveness::LivenessChecker;
use crate::deploy::lock::holder;
use crate::deploy::resolve::{Catalog, FETCHED};
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::tool::Tool;
use gangplank_bundle::release::{Release, UNPACKING};
use gangplank_model::error::{Result, not_found, usage, verification};
use gangplank_model::history::{History, Record};
use gangplank_model::project::Env;
use gangplank_model::release::id::{ReleaseId, Selector};
use gangplank_model::release::layout::RELEASES;
use gangplank_model::release::manifest;
use gangplank_model::release::manifest::{Content, Manifest};
use gangplank_model::state::State;
use gangplank_model::state::{Current, Lock, Root, ServiceState};
use gangplank_system::context::Context;
use gangplank_system::git;
use gangplank_system::machine;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One target in the output of `status`.
#[derive(Debug, Serialize)]
pub struct HostStatus {
    /// The env.
    pub env: String,
    /// The target.
    pub target: String,
    /// `live`, `unconfirmed`, `switch not finished`, `empty`, [`UNREACHABLE`], or what is wrong.
    pub state: &'static str,
    /// The release that `current` points at.
    pub release: Option<ReleaseId>,
    /// The subject of its commit, if the checkout has it.
    pub subject: Option<String>,
    /// Since when the release is live.
    pub since: Option<jiff::Timestamp>,
    /// The user who activated it.
    pub by: Option<String>,
    /// The release of the last deploy or rollback, if it failed.
    pub failed: Option<ReleaseId>,
    /// The release that `rollback` would activate.
    pub previous: Option<ReleaseId>,
    /// `running`, `starting`, `stopped`, `unit changed`, `ends at logout` or `unknown`; absent if the engine does not
    /// manage the service.
    pub service: Option<&'static str>,
    /// The owner of the lock.
    pub locked_by: Option<String>,
    /// Number of installed releases.
    pub installed: usize,
}

/// The maximum number of commits whose subject is looked up.
const SUBJECTS_MAX: usize = 50;

/// The state of an unreachable host.
pub const UNREACHABLE: &str = "unreachable";

/// `status [ENV]`. Unreachable hosts do not hide the others; the command fails if no host answers.
pub fn status(tool: &Tool, env: Option<&str>) -> Result<Vec<HostStatus>> {
    let Tool { ctx, project, .. } = *tool;
    let liveness = LivenessChecker::new(ctx, project.ci.slug);
    let envs: Vec<&Env> = match env {
        Some(name) => vec![project.env(name)?],
        None => project.envs.iter().collect(),
    };
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for env in envs {
        let targets = tool.targets(env)?;
        for (target, state) in targets.iter().zip(par_map(&targets, AT_ONCE, |target| target.state())) {
            let state = state.map_err(|error| errors.push(error));
            let mut host = host_status(&liveness, env.name, target.url(), state.as_ref().unwrap_or(&State::default()));
            if state.is_err() {
                host.state = UNREACHABLE;
            }
            all.push(host);
        }
    }
    let none_answers = errors.len() == all.len();
    warn_of_unreachable(ctx, errors, none_answers)?;
    let subjects = subjects(ctx, all.iter().filter_map(|host| host.release.as_ref()));
    for host in &mut all {
        host.subject = host.release.as_ref().and_then(|id| subjects.get(id).cloned());
    }
    Ok(all)
}

/// Warns of hosts that do not answer; fails with the last one if none does.
fn warn_of_unreachable(ctx: &Context, mut errors: Vec<anyhow::Error>, none_answers: bool) -> Result<()> {
    if none_answers && let Some(error) = errors.pop() {
        return Err(error);
    }
    for error in errors {
        ctx.warn(format!("{error:#}"));
    }
    Ok(())
}

/// The subjects of the commits of releases, as far as the checkout has them.
pub fn subjects<'a>(ctx: &Context, ids: impl Iterator<Item = &'a ReleaseId>) -> BTreeMap<ReleaseId, String> {
    let ids: BTreeSet<_> = ids.collect();
    // The newest: a longer list is not read.
    let ids: Vec<_> = ids.into_iter().rev().take(SUBJECTS_MAX).collect();
    let found = git::subjects(ctx, &ids.iter().map(|id| id.short_sha()).collect::<Vec<_>>());
    let subject = |id: &ReleaseId| found.iter().find(|(sha, _)| sha.starts_with(id.short_sha()));
    ids.into_iter().filter_map(|id| Some((id.clone(), subject(id)?.1.clone()))).collect()
}

/// The subject of the commit of a release, if the checkout has it.
pub(crate) fn subject(ctx: &Context, release: Option<&ReleaseId>) -> Option<String> {
    subjects(ctx, release.into_iter()).into_values().next()
}

/// The state of a target as `status` prints it, without the subject of its commit.
pub fn host_status(liveness: &LivenessChecker, env: &str, target: &str, state: &State) -> HostStatus {
    let live = state.live();
    let record = live.and_then(|id| state.history.live_since(id));
    HostStatus {
        env: env.to_owned(),
        target: target.to_owned(),
        state: match (&state.root, &state.current) {
            (Root::NotADirectory, _) => "not a directory",
            (_, Current::NotALink) => "`current` is not a link",
            (_, Current::Foreign(_)) => "`current` is not ours",
            _ if state.unfinished => "switch not finished",
            (_, Current::None) => "empty",
            (_, Current::Release(id)) if !state.installed.contains_key(id) => "`current` dangles",
            (_, Current::Release(id)) if state.history.confirmed(id) => "live",
            (_, Current::Release(_)) => "unconfirmed",
        },
        release: live.cloned(),
        subject: None,
        since: record.map(|record| record.at),
        by: record.map(|record| record.by.clone()),
        failed: state.history.failed_last().and_then(|record| record.release.clone()),
        previous: state.history.previous(live).cloned(),
        service: match state.service {
            ServiceState::None => None,
            ServiceState::Stopped => Some("stopped"),
            ServiceState::Drifted => Some("unit changed"),
            ServiceState::Running { .. } | ServiceState::Unrecorded => Some("running"),
            ServiceState::OfSession => Some("ends at logout"),
            ServiceState::Starting => Some("starting"),
            ServiceState::Unknown => Some("unknown"),
        },
        locked_by: holder(liveness, &state.lock),
        installed: state.installed.len(),
    }
}

/// The records of one target.
#[derive(Debug, Serialize)]
pub struct HostHistory {
    /// The target, or the store.
    pub target: String,
    /// Its records, oldest first.
    pub records: Vec<Record>,
    /// Number of invalid lines.
    pub unreadable: usize,
    /// Subjects of the commits of its releases. For people: a script has git.
    #[serde(skip)]
    pub subjects: BTreeMap<ReleaseId, String>,
}

/// `history ENV`: the last `limit` records of each target and store. Without `all`, only records that changed what is
/// live. Unreachable hosts do not hide the others; the command fails if no host answers.
pub fn history(tool: &Tool, env: &str, limit: usize, all: bool) -> Result<Vec<HostHistory>> {
    let Tool { ctx, project, .. } = *tool;
    let one = |(target, history): (String, History)| {
        let is_shown = |record: &Record| all || !record.event.is_detail();
        let mut records: Vec<_> = history.records.into_iter().filter(is_shown).collect();
        records.drain(..records.len().saturating_sub(limit));
        let subjects = subjects(ctx, records.iter().filter_map(|record| record.release.as_ref()));
        HostHistory { target, records, unreadable: history.unreadable, subjects }
    };
    let (mut histories, mut errors) = (Vec::new(), Vec::new());
    let targets = tool.targets(project.env(env)?)?;
    for (target, state) in targets.iter().zip(par_map(&targets, AT_ONCE, |target| target.state())) {
        match state {
            Ok(state) => histories.push((target.url().to_owned(), state.history)),
            Err(error) => errors.push(error),
        }
    }
    warn_of_unreachable(ctx, errors, histories.is_empty())?;
    // Stores keep a copy for hosts that lost their history.
    histories.extend(Catalog::open(tool)?.deploy_log().histories(ctx, env));
    Ok(histories.into_iter().map(one).collect())
}

/// One release in the output of `releases`.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// The id.
    pub release: ReleaseId,
    /// Full SHA of the commit.
    pub commit: String,
    /// Branch of the commit.
    pub branch: Option<String>,
    /// Size of the bundle in bytes.
    pub bytes: u64,
    /// Commit time.
    pub time: jiff::Timestamp,
    /// The stores that have it.
    pub stores: Vec<String>,
    /// The envs where it is live.
    pub live_in: Vec<String>,
    /// The subject of its commit, if the checkout has it. For people: a script has git.
    #[serde(skip)]
    pub subject: Option<String>,
}

/// `releases`: the newest `most`, with a note if there are more.
pub fn releases(tool: &Tool, most: usize) -> Result<Vec<Listed>> {
    let ctx = tool.ctx;
    let mut live: BTreeMap<ReleaseId, Vec<String>> = BTreeMap::new();
    let hosts = status(tool, None).unwrap_or_else(|error| {
        ctx.warn(format!("cannot determine what is live: {error:#}"));
        vec![]
    });
    for host in hosts {
        if let Some(id) = host.release {
            let envs = live.entry(id).or_default();
            if !envs.contains(&host.env) {
                envs.push(host.env);
            }
        }
    }
    let mut found = Catalog::open(tool)?.list(most.saturating_add(1))?;
    if found.len() > most {
        found.truncate(most);
        let more = most.saturating_mul(10).max(100);
        ctx.note(format!("these are the newest {most}; `cargo xtask releases --limit {more}` shows more"));
    }
    let subjects = subjects(ctx, found.iter().map(|(head, _)| &head.id));
    let listed = found.into_iter().map(|(head, stores)| Listed {
        subject: subjects.get(&head.id).cloned(),
        live_in: live.get(&head.id).cloned().unwrap_or_default(),
        release: head.id,
        commit: head.commit.sha,
        branch: head.commit.branch,
        bytes: head.bundle.bytes,
        time: head.commit.time,
        stores,
    });
    Ok(listed.collect())
}

/// The differences between two releases.
#[derive(Debug, Serialize)]
pub struct Diff {
    /// The env.
    pub env: String,
    /// The live release.
    pub live: ReleaseId,
    /// The release it is compared with.
    pub candidate: ReleaseId,
    /// Files only in the candidate.
    pub added: Vec<FileChange>,
    /// Files only in the live release.
    pub removed: Vec<FileChange>,
    /// Files that differ.
    pub changed: Vec<FileChange>,
    /// Total bytes of the live release and the candidate.
    pub bytes: (u64, u64),
    /// Commits only in the candidate, newest first; absent if git does not know both.
    pub commits: Option<Vec<String>>,
    /// Commits only in the live release.
    pub lost_commits: Option<Vec<String>>,
}

/// One file of a [`Diff`].
#[derive(Debug, Serialize)]
pub struct FileChange {
    /// The path in the bundle.
    pub path: String,
    /// Bytes before; 0 if added.
    pub from: u64,
    /// Bytes after; 0 if removed.
    pub to: u64,
}

/// `diff ENV [RELEASE]`: compares with the first target of the env.
pub fn diff(tool: &Tool, env: &str, release: Option<&Selector>) -> Result<Diff> {
    let Tool { ctx, project, .. } = *tool;
    let env = project.env(env)?;
    let target = tool.target_of(env, env.targets[0])?;
    let Some(live) = target.state()?.live().cloned() else {
        return not_found(format!("nothing is live on {}", target.url()))
            .hint(format!("run `cargo xtask deploy {}`", env.name))
            .err();
    };
    let old = target.manifest(&live)?;
    let catalog = Catalog::open(tool)?;
    let id = catalog.resolve(release)?;
    let new = catalog.manifest(&id)?;
    Ok(compare(ctx, env.name, &old, &new))
}

/// The differences between the manifest that is live in an env and another one.
pub fn compare(ctx: &Context, env: &str, old: &Manifest, new: &Manifest) -> Diff {
    let by_path = |manifest: &Manifest| -> BTreeMap<String, (u64, u32, Content)> {
        manifest.files.iter().map(|file| (file.path.clone(), (file.bytes, file.mode, file.content.clone()))).collect()
    };
    let (before, after) = (by_path(old), by_path(new));
    let (mut added, mut removed, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for (path, file) in &after {
        match before.get(path) {
            None => added.push(FileChange { path: path.clone(), from: 0, to: file.0 }),
            Some(other) if other != file => changed.push(FileChange { path: path.clone(), from: other.0, to: file.0 }),
            Some(_) => {}
        }
    }
    for (path, file) in before.iter().filter(|(path, _)| !after.contains_key(*path)) {
        removed.push(FileChange { path: path.clone(), from: file.0, to: 0 });
    }
    let sum = |files: &BTreeMap<String, (u64, u32, Content)>| files.values().map(|file| file.0).sum();
    Diff {
        env: env.to_owned(),
        live: old.id.clone(),
        candidate: new.id.clone(),
        added,
        removed,
        changed,
        bytes: (sum(&before), sum(&after)),
        commits: git::log(ctx, &old.commit.sha, &new.commit.sha),
        lost_commits: git::log(ctx, &new.commit.sha, &old.commit.sha),
    }
}

/// The result of a successful `verify`.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// The release.
    pub release: ReleaseId,
    /// The directory of the release.
    pub dir: PathBuf,
    /// Number of verified files.
    pub files: usize,
    /// Bytes of the bundle.
    pub bytes: u64,
    /// SHA-256 of the bundle.
    pub sha256: String,
    /// The directory it was unpacked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<PathBuf>,
}

/// `verify RELEASE`, for a selector or the directory of a release. `@ENV` verifies the files on the targets of the env.
/// `unpack` is a directory to unpack the files to.
pub fn verify(tool: &Tool, release: &str, unpack: Option<&Path>) -> Result<Verified> {
    let Tool { ctx, project, .. } = *tool;
    let path = Path::new(release);
    let progress = ctx.progress("verifying");
    let unpacked = unpack.map(|into| ctx.root.join(into));
    let open = |dir: &Path| match &unpacked {
        Some(into) => {
            // Debris of a killed run.
            into.parent().into_iter().for_each(|dir| machine::sweep_of(dir, UNPACKING));
            Release::open_unpacked(dir, into, &progress)
        }
        None => Release::open(dir, &progress),
    };
    let release = if path.join(manifest::FILE).exists() || release.contains('/') {
        open(path)?
    } else {
        let selector = release.parse()?;
        let catalog = Catalog::open(tool)?;
        let id = catalog.resolve(Some(&selector))?;
        if let Selector::Env(env) = &selector {
            if unpack.is_some() {
                return usage(format!("`@{env}` cannot be unpacked here: its files are on the hosts"))
                    .hint(format!("unpack the stored release with `cargo xtask verify {id} --unpack DIR`"))
                    .err();
            }
            return verify_live(tool, project.env(env)?, &id);
        }
        let here = ctx.root.join(RELEASES).join(id.as_str());
        let is_ours = Release::read_manifest(&here).is_ok_and(|manifest| manifest.app == project.app.name);
        match (is_ours, unpack) {
            (true, _) => open(&here)?,
            (false, None) => catalog.fetch(&id, &ctx.root.join(FETCHED))?,
            (false, Some(_)) => open(catalog.fetch(&id, &ctx.root.join(FETCHED))?.dir())?,
        }
    };
    Ok(Verified { unpacked, ..Verified::new(release.manifest(), release.dir()) })
}

fn verify_live(tool: &Tool, env: &Env, id: &ReleaseId) -> Result<Verified> {
    let mut verified = None;
    for target in tool.targets(env)? {
        if let Some(bad) = target.verify(id)?.first() {
            let url = target.url();
            if let Lock::Held(owner) = target.holder()? {
                return verification(format!("{url}: a file of {id} differs while {} has the lock: {bad}", owner.by))
                    .hint("a deploy may be running: run the same command again when it has ended")
                    .err();
            }
            return verification(format!("{url}: a file of {id} was changed on the host: {bad}"))
                .hint(format!("{}, and `cargo xtask deploy {} {id}` sends it again", target.repair_hint(id), env.name))
                .err();
        }
        verified =
            Some(Verified::new(&target.manifest(id)?, &Path::new(target.root()).join("releases").join(id.as_str())));
    }
    verified.ok_or_else(|| not_found(format!("{} has no targets", env.name)).hint("see xtask/src/main.rs").into())
}

impl Verified {
    /// The result for a release in `dir`.
    pub fn new(manifest: &Manifest, dir: &Path) -> Self {
        Self {
            release: manifest.id.clone(),
            dir: dir.to_owned(),
            files: manifest.files.len(),
            bytes: manifest.bundle.bytes,
            sha256: manifest.bundle.sha256.clone(),
            unpacked: None,
        }
    }
}
