//! deploy, promote, rollback and prune. Each says what is wanted and passes straight through the stages: `resolve` which
//! release is meant, `snapshot` what hosts, stores and git know, [`plan`] the steps or the refusal, `apply` them, and
//! report the outcome. `--dry-run` skips `apply`.

pub mod apply;
pub mod control;
pub(crate) mod deploy_log;
pub mod deployment;
mod elsewhere;
mod failure;
mod hooks;
pub mod hosts;
pub mod lease;
pub mod liveness;
pub mod lock;
pub(crate) mod markers;
pub mod notify;
mod pending_notice;
pub(crate) mod release_source;
pub mod report;
pub mod resolve;
mod snapshot;
pub mod waves;

use crate::deploy::apply::Outcome;
use crate::deploy::deploy_log::DeployLog;
use crate::deploy::deployment::{Deployment, Options};
use crate::deploy::lock::Locks;
use crate::deploy::markers::Markers;
use crate::deploy::release_source::ReleaseSource;
use crate::deploy::resolve::Catalog;
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::host::Target;
use crate::tool::Tool;
use gangplank_model::error::{Result, usage};
use gangplank_model::history;
use gangplank_model::history::{Record, Verb};
use gangplank_model::plan;
use gangplank_model::plan::HostPlan;
use gangplank_model::plan::refuse::{self, Rules, Snapshot};
use gangplank_model::release::id::{ReleaseId, Selector};
use gangplank_system::machine;
use gangplank_system::machine::{ci_job, person};
use jiff::Timestamp;
use std::thread;

impl Deployment<'_> {
    /// Runs `work` under the locks of all targets, or without locks for a dry run. `work` receives the start time of a
    /// killed run of the same command.
    fn locked<T>(
        &self,
        doing: &str,
        options: &Options,
        work: impl FnOnce(Option<Timestamp>) -> Result<T>,
    ) -> Result<T> {
        let stores = self.deploy_log.locks(self.env.name);
        if options.dry_run {
            let killed = || lock::killed(&self.liveness, &stores, &self.targets, doing);
            return work(if self.env.approval { killed() } else { None });
        }
        let me = machine::owner(self.ctx, doing);
        // Renewal starts with the first lock, so that the lock does not expire while the second one is held by another
        // run.
        lease::renewed(&self.targets, lease::OFTEN, || {
            let locks = Locks::take(&self.liveness, &stores, &self.targets, &me, options.lock_wait)?;
            for (url, error) in locks.unanswered() {
                self.deploy_log.lose(url, error);
            }
            work(locks.interrupted(doing))
        })
    }

    /// Fetches and verifies a release while the hosts are being connected to. Neither changes anything.
    fn fetch_while_connecting<'c>(&self, catalog: &'c Catalog, id: &ReleaseId) -> Result<ReleaseSource<'c>> {
        let targets = &self.targets;
        thread::scope(|scope| {
            scope.spawn(|| par_map(targets, AT_ONCE, |target| target.reach()));
            catalog.fetch_for_deploy(id, self.env)
        })
    }

    fn record(&self, verb: Verb, reason: Option<&str>) -> Record {
        Record {
            at: self.ctx.now(),
            event: history::HistoryEvent::Installed,
            verb,
            release: None,
            from: None,
            commit: None,
            by: person(self.ctx),
            ci: ci_job(self.ctx),
            // The history outlives the variables that would mask a secret in it.
            reason: reason.map(|reason| self.ctx.scrub(reason)),
            took: None,
        }
    }

    /// Applies plans and tells the stores and CircleCI; a dry run only returns them.
    fn work(
        &self,
        verb: Verb,
        goal: Option<ReleaseId>,
        snapshot: &Snapshot,
        plans: Vec<HostPlan>,
        release: Option<&ReleaseSource>,
        options: &Options,
    ) -> Result<Outcome> {
        if options.dry_run {
            let health = self.env.health.check.describe();
            return Ok(Outcome { health, ..Outcome::planned(self.env.name, verb, goal, plans) });
        }
        let changes = plans.iter().any(|plan| !plan.steps.is_empty());
        let known =
            |id: &ReleaseId| snapshot.hosts.iter().find_map(|host| host.state.history.commit(id).map(str::to_owned));
        let commit = release.map(|release| release.manifest().commit.sha.clone());
        let commit = commit.or_else(|| goal.as_ref().and_then(known));
        let told = Record { release: goal.clone(), commit, ..self.record(verb, options.reason.as_deref()) };
        self.deploy_log.begins(self.ctx, self.env.name, &told, changes)?;
        let (from, goes_live) = (notify::replaced(&plans), notify::goes_live(&plans));
        let markers = Markers::begin(self, verb, goal.as_ref(), &plans, release);
        let done = apply::apply(self, &told, plans, goal, release);
        markers.end(done.as_ref().err());
        if changes {
            self.deploy_log.ended(self.ctx, self.env.name, &told, done.as_ref().err());
            if verb != Verb::Prune && (goes_live || done.is_err()) {
                self.keep_notice(&told, from, done.as_ref().err());
            }
        }
        done
    }
}

/// `deploy ENV [RELEASE]`
pub fn deploy(tool: &Tool, env: &str, release: Option<&Selector>, options: &Options) -> Result<Outcome> {
    let project = tool.project;
    let env = project.env(env)?;
    let catalog = Catalog::open(tool)?;
    let site = Deployment::open_most(tool, env, catalog.deploy_log(), &options.skip_host)?;
    let id = catalog.resolve(release)?;
    refuse::uncommitted(&id, &site.rules(options))?;
    site.notifying(Verb::Deploy, Some(&id), options.dry_run, || {
        let release = site.fetch_while_connecting(&catalog, &id)?;
        let failed_in = elsewhere::warn_of_failures(tool, &site, &id, options);
        Ok(Outcome { failed_in, ..put_live(&site, Verb::Deploy, &release, options)? })
    })
}

/// Deploys a verified release.
pub fn put_live(site: &Deployment, verb: Verb, release: &ReleaseSource, options: &Options) -> Result<Outcome> {
    let doing = format!("{} {} to {}", verb.as_str(), release.id(), site.env.name);
    site.locked(&doing, options, |interrupted| {
        let mut snapshot = site.snapshot(interrupted.is_some())?;
        let goal = site.goal(verb, release.id(), Some(release), &mut snapshot, options);
        let plans = plan::plan(&goal, &site.rules(options), &snapshot)?;
        site.work(verb, Some(goal.release), &snapshot, plans, Some(release), options)
    })
}

/// `promote FROM TO`: deploys the bytes that run in FROM to TO, without a rebuild.
pub fn promote(tool: &Tool, from: &str, to: &str, options: &Options) -> Result<Outcome> {
    let project = tool.project;
    let env = project.env(to)?;
    let catalog = Catalog::open(tool)?;
    let site = Deployment::open_most(tool, env, catalog.deploy_log(), &options.skip_host)?;
    // The source is only read: its variables may be secrets that this job does not have.
    let source = tool.targets(project.env(from)?)?;
    let id = resolve::running(from, &source)?;
    refuse::uncommitted(&id, &site.rules(options))?;
    site.notifying(Verb::Promote, Some(&id), options.dry_run, || {
        let release = site.fetch_while_connecting(&catalog, &id)?;
        let digest = |target: &dyn Target| Ok((target.url().to_owned(), target.manifest(&id)?.bundle.sha256));
        let digests = source.iter().map(|target| digest(&**target)).collect::<Result<Vec<_>>>()?;
        refuse::other_bytes_running(from, &id, &release.manifest().bundle.sha256, &digests)?;
        let failed_in = elsewhere::warn_of_failures(tool, &site, &id, options);
        Ok(Outcome { failed_in, ..put_live(&site, Verb::Promote, &release, options)? })
    })
}

/// `rollback ENV [RELEASE]`
pub fn rollback(tool: &Tool, env: &str, release: Option<&Selector>, options: &Options) -> Result<Outcome> {
    let project = tool.project;
    let of = project.env(env)?;
    let catalog = Catalog::open(tool)?;
    let site = Deployment::open_most(tool, of, catalog.deploy_log(), &options.skip_host)?;
    let named = match release {
        None | Some(Selector::Previous) => None,
        // HEAD is usually live already, so a rollback to it would succeed without any change.
        Some(Selector::Head) => {
            return usage("HEAD is not a release to roll back to")
                .hint(format!("run `cargo xtask rollback {env} previous`, or name a release"))
                .err();
        }
        Some(selector) => Some(resolve::for_rollback(&catalog, &site, selector)?),
    };
    site.notifying(Verb::Rollback, named.as_ref(), options.dry_run, || {
        let failed_in = named.as_ref().map(|id| elsewhere::warn_of_failures(tool, &site, id, options));
        let done = roll_back(&site, named.as_ref(), options, |id| catalog.fetch_for_deploy(id, of))?;
        warn_of_signature(tool, &site, done.release.as_ref());
        Ok(Outcome { failed_in: failed_in.unwrap_or_default(), ..done })
    })
}

/// A way back must not depend on a store, so what hosts have is not refused. But a key may not be trusted any more.
fn warn_of_signature(tool: &Tool, site: &Deployment, release: Option<&ReleaseId>) {
    let (Some(id), Some(target)) = (release, site.targets.first()) else { return };
    if site.env.require_signature.is_empty() {
        return;
    }
    if let Err(error) = target.manifest(id).and_then(|manifest| tool.check_signature(site.env, &manifest)) {
        site.ctx.warn(format!("the rollback is to what {} would refuse in a deploy: {error:#}", site.env.name));
    }
}

/// Rolls back to `named`, or to the previous healthy release. `fetch` is called only if a target no longer has the
/// release.
pub fn roll_back<'a>(
    site: &Deployment,
    named: Option<&ReleaseId>,
    options: &Options,
    fetch: impl FnOnce(&ReleaseId) -> Result<ReleaseSource<'a>>,
) -> Result<Outcome> {
    site.locked(&format!("rollback of {}", site.env.name), options, |interrupted| {
        let mut snapshot = site.snapshot(interrupted.is_some())?;
        let rules = site.rules(options);
        let target = match named {
            Some(id) => Ok((id.clone(), None)),
            None => plan::rollback_target(rules.env, &snapshot, interrupted),
        };
        refuse::unexpected(target.as_ref().ok().map(|(id, _)| id), &rules, &snapshot)?;
        let (id, note) = target?;
        refuse::uncommitted(&id, &rules)?;
        if let Some(note) = note {
            site.ctx.note(note);
        }
        let everywhere = snapshot.hosts.iter().all(|host| host.state.installed.contains_key(&id));
        let release = if everywhere { None } else { Some(fetch(&id)?) };
        let goal = site.goal(Verb::Rollback, &id, release.as_ref(), &mut snapshot, options);
        let plans = plan::plan(&goal, &rules, &snapshot)?;
        site.work(Verb::Rollback, Some(id), &snapshot, plans, release.as_ref(), options)
    })
}

/// `prune ENV`
pub fn prune(tool: &Tool, env: &str, keep: Option<usize>, options: &Options) -> Result<Outcome> {
    let project = tool.project;
    let site = Deployment::open_most(tool, project.env(env)?, DeployLog::default(), &options.skip_host)?;
    prune_site(&site, keep.unwrap_or(site.env.keep), options)
}

/// Prunes the targets of a deployment.
pub fn prune_site(site: &Deployment, keep: usize, options: &Options) -> Result<Outcome> {
    site.locked(&format!("prune of {}", site.env.name), options, |_| {
        let snapshot = site.snapshot(false)?;
        let plans = plan::plan_prune(&Rules { keep, ..site.rules(options) }, &snapshot)?;
        site.work(Verb::Prune, None, &snapshot, plans, None, options)
    })
}
