//! Questions that change nothing: status, history, releases, diff, and whether a release is whole.

use crate::context::Context;
use crate::deploy::history::{History, HistoryEvent, Record};
use crate::deploy::liveness::LivenessChecker;
use crate::deploy::lock::holder;
use crate::deploy::resolve::{Catalog, FETCHED};
use crate::deploy::state::State;
use crate::deploy::state::{Current, Root, ServiceState};
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::error::{Result, not_found, usage, verification};
use crate::git;
use crate::machine;
use crate::project::Env;
use crate::release::id::{ReleaseId, Selector};
use crate::release::layout::RELEASES;
use crate::release::manifest::{Content, Manifest};
use crate::release::{Release, UNPACKING, manifest};
use crate::tool::Tool;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One target as `status` shows it.
#[derive(Debug, Serialize)]
pub struct HostStatus {
    /// The env.
    pub env: String,
    /// The target.
    pub target: String,
    /// `live`, `unconfirmed`, `empty`, [`UNREACHABLE`], or what is wrong.
    pub state: &'static str,
    /// What `current` points at.
    pub release: Option<ReleaseId>,
    /// Since when it is live.
    pub since: Option<jiff::Timestamp>,
    /// Who made it live.
    pub by: Option<String>,
    /// What `rollback` would go back to.
    pub previous: Option<ReleaseId>,
    /// `running`, `starting`, `stopped`, `unit changed`, `ends at logout`, `unknown`, or absent when the service is not kept
    /// by us.
    pub service: Option<&'static str>,
    /// Who has the lock.
    pub locked_by: Option<String>,
    /// How many releases are installed.
    pub installed: usize,
}

/// The state of a host that does not answer.
pub const UNREACHABLE: &str = "unreachable";

/// `status [ENV]`. One host that does not answer does not hide the others; when none does, that is the error.
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
    if errors.len() == all.len()
        && let Some(error) = errors.pop()
    {
        return Err(error);
    }
    for error in errors {
        ctx.warn(format!("{error:#}"));
    }
    Ok(all)
}

fn host_status(liveness: &LivenessChecker, env: &str, target: &str, state: &State) -> HostStatus {
    let live = state.live();
    let record = live.and_then(|id| state.history.last_live(id));
    HostStatus {
        env: env.to_owned(),
        target: target.to_owned(),
        state: match (&state.root, &state.current) {
            (Root::NotADirectory, _) => "not a directory",
            (_, Current::NotALink) => "`current` is not a link",
            (_, Current::Foreign(_)) => "`current` is not ours",
            (_, Current::None) => "empty",
            (_, Current::Release(id)) if !state.installed.contains_key(id) => "`current` dangles",
            (_, Current::Release(id)) if state.history.confirmed(id) => "live",
            (_, Current::Release(_)) => "unconfirmed",
        },
        release: live.cloned(),
        since: record.map(|record| record.at),
        by: record.map(|record| record.by.clone()),
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
    /// The target, or the store that was told.
    pub target: String,
    /// Its records, oldest first.
    pub records: Vec<Record>,
    /// Lines that could not be read.
    pub unreadable: usize,
}

/// `history ENV`: the last `limit` records of each target, and of each store that was told. Without `all` only what
/// changed what is live.
pub fn history(tool: &Tool, env: &str, limit: usize, all: bool) -> Result<Vec<HostHistory>> {
    let Tool { ctx, project, .. } = *tool;
    let one = |(target, history): (String, History)| {
        let telling = |record: &Record| {
            all || !matches!(record.event, HistoryEvent::Installed | HistoryEvent::Switched | HistoryEvent::Removed)
        };
        let mut records: Vec<_> = history.records.into_iter().filter(telling).collect();
        records.drain(..records.len().saturating_sub(limit));
        HostHistory { target, records, unreadable: history.unreadable }
    };
    let mut histories = Vec::new();
    for target in tool.targets(project.env(env)?)? {
        histories.push((target.url().to_owned(), target.state()?.history));
    }
    // Stores know of it too, also when a host has lost what it knew.
    histories.extend(Catalog::open(tool)?.deploy_log().histories(ctx, env));
    Ok(histories.into_iter().map(one).collect())
}

/// One release as `releases` shows it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its id.
    pub release: ReleaseId,
    /// Full SHA of its commit.
    pub commit: String,
    /// Branch of its commit.
    pub branch: Option<String>,
    /// Size of the bundle in bytes.
    pub bytes: u64,
    /// Commit time.
    pub time: jiff::Timestamp,
    /// Which stores keep it.
    pub stores: Vec<String>,
    /// In which envs it is live.
    pub live_in: Vec<String>,
}

/// `releases`: the newest `most`; that there are more is said.
pub fn releases(tool: &Tool, most: usize) -> Result<Vec<Listed>> {
    let ctx = tool.ctx;
    let mut live: BTreeMap<ReleaseId, Vec<String>> = BTreeMap::new();
    let hosts = status(tool, None).unwrap_or_else(|error| {
        ctx.warn(format!("what is live is not known: {error:#}"));
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
    let listed = found.into_iter().map(|(head, stores)| Listed {
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

/// What would change.
#[derive(Debug, Serialize)]
pub struct Diff {
    /// The env.
    pub env: String,
    /// What is live there.
    pub live: ReleaseId,
    /// What it is compared with.
    pub candidate: ReleaseId,
    /// Files only in the candidate.
    pub added: Vec<FileChange>,
    /// Files only in what is live.
    pub removed: Vec<FileChange>,
    /// Files that differ.
    pub changed: Vec<FileChange>,
    /// Bytes of all files now and then.
    pub bytes: (u64, u64),
    /// Commits that the candidate brings, the newest first; absent when git does not know both.
    pub commits: Option<Vec<String>>,
    /// Commits that the candidate takes away.
    pub lost_commits: Option<Vec<String>>,
}

/// One file of a [`Diff`].
#[derive(Debug, Serialize)]
pub struct FileChange {
    /// Its path in the bundle.
    pub path: String,
    /// Bytes before; 0 when it is new.
    pub from: u64,
    /// Bytes after; 0 when it goes.
    pub to: u64,
}

/// `diff ENV [RELEASE]`: the first target speaks for the env.
pub fn diff(tool: &Tool, env: &str, release: Option<&Selector>) -> Result<Diff> {
    let Tool { ctx, project, .. } = *tool;
    let env = project.env(env)?;
    let target = tool.target(env.targets[0])?;
    let Some(live) = target.state()?.live().cloned() else {
        return not_found(format!("nothing is live on {}", target.url()))
            .hint(format!("`cargo xtask deploy {}` makes it so", env.name))
            .err();
    };
    let old = target.manifest(&live)?;
    let catalog = Catalog::open(tool)?;
    let id = catalog.resolve(release)?;
    let new = catalog.manifest(&id)?;
    Ok(compare(ctx, env.name, &old, &new))
}

fn compare(ctx: &Context, env: &str, old: &Manifest, new: &Manifest) -> Diff {
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

/// What `verify` answers when all is well.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// The release.
    pub release: ReleaseId,
    /// Where it lies.
    pub dir: PathBuf,
    /// Number of files checked.
    pub files: usize,
    /// Bytes of the bundle.
    pub bytes: u64,
    /// Digest of the bundle.
    pub sha256: String,
    /// Where it was unpacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<PathBuf>,
}

/// `verify RELEASE`: a selector, or the directory of a release. `@ENV` checks the files on the targets of the env.
/// With `unpack` its files are in that directory afterwards.
pub fn verify(tool: &Tool, release: &str, unpack: Option<&Path>) -> Result<Verified> {
    let Tool { ctx, project, .. } = *tool;
    let path = Path::new(release);
    let progress = ctx.progress("verifying");
    let unpacked = unpack.map(|into| ctx.root.join(into));
    let open = |dir: &Path| match &unpacked {
        Some(into) => {
            // What a run that was killed has left.
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
                return usage(format!("what runs in {env} is unpacked there already"))
                    .hint(format!("to have it here as well: `cargo xtask verify {id} --unpack DIR`"))
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
            return verification(format!("{url}: a file of {id} was changed on the host: {bad}"))
                .hint(format!(
                    "find out who edited it; then on that host `mv releases/{id} releases/{id}.edited`, and `cargo xtask deploy {} {id}` sends it again",
                    env.name
                ))
                .err();
        }
        verified =
            Some(Verified::new(&target.manifest(id)?, &Path::new(target.root()).join("releases").join(id.as_str())));
    }
    verified.ok_or_else(|| not_found(format!("{} has no targets", env.name)).hint("see xtask/src/main.rs").into())
}

impl Verified {
    /// What was verified, and where.
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
