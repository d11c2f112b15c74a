//! deploy, promote, rollback and prune: lock, state, plan, apply, in this order on every target of an env.

pub mod apply;
pub mod control;
pub mod deploy_log;
mod elsewhere;
pub mod history;
mod hooks;
pub mod hosts;
pub mod lease;
pub mod liveness;
pub mod lock;
pub mod markers;
pub mod plan;
pub mod release_source;
pub mod report;
pub mod resolve;
pub mod state;
pub mod waves;

use crate::context::Context;
use crate::deploy::apply::Outcome;
use crate::deploy::deploy_log::DeployLog;
use crate::deploy::history::{Record, Verb};
use crate::deploy::liveness::LivenessChecker;
use crate::deploy::lock::Locks;
use crate::deploy::markers::Markers;
use crate::deploy::plan::{Age, Ancestry, Goal, HostPlan};
use crate::deploy::release_source::ReleaseSource;
use crate::deploy::resolve::Catalog;
use crate::deploy::state::State;
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::error::{CliError, Kind, Result, kind_of, usage, verification};
use crate::git;
use crate::health::Checker;
use crate::host::Target;
use crate::machine;
use crate::machine::{ci_job, person};
use crate::project::Env;
use crate::release::id::{Expected, ReleaseId, Selector};
use crate::service::{self, Spec};
use crate::tool::Tool;
use jiff::Timestamp;
use std::time::Duration;

/// What all changing commands take.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Deploy although the release is older than what is live.
    pub allow_older: bool,
    /// Replace a `current` that another tool made.
    pub take_over: bool,
    /// What has to be live, or nothing is changed.
    pub expect_current: Expected,
    /// How long to wait for somebody else's lock.
    pub lock_wait: Duration,
    /// The reason, for the history.
    pub reason: Option<String>,
    /// Hosts, or URLs of targets, that are left out.
    pub skip_host: Vec<String>,
    /// The plans that somebody said yes to: nothing else is done.
    pub approved: Option<Vec<HostPlan>>,
}

/// An env with everything filled in and opened.
pub struct Deployment<'ctx> {
    /// The outside.
    pub ctx: &'ctx Context,
    /// The env as the project states it.
    pub env: &'ctx Env,
    /// Name of the app; unknown where a site was opened without a project.
    pub app: Option<&'ctx str>,
    /// Its targets.
    pub targets: Vec<Box<dyn Target + 'ctx>>,
    /// Its service, with variables.
    pub spec: Spec,
    /// Lines that export its variables, for hooks.
    pub exports: String,
    /// Its health check, with variables.
    pub checker: Checker,
    /// Who is told what is live.
    pub deploy_log: DeployLog<'ctx>,
    /// Who knows whether others still run.
    pub liveness: LivenessChecker<'ctx>,
}

impl<'ctx> Deployment<'ctx> {
    /// Opens the targets of an env. Fails before anything is touched when a variable is missing or a URL is wrong.
    pub fn open(tool: &Tool<'ctx>, env: &'ctx Env, deploy_log: DeployLog<'ctx>) -> Result<Self> {
        let Tool { ctx, project, .. } = *tool;
        let liveness = LivenessChecker::new(ctx, project.ci.slug);
        let app = Some(project.app.name);
        Ok(Self { app, deploy_log, liveness, ..Self::with_targets(ctx, env, tool.targets(env)?)? })
    }

    /// The same without the targets that somebody leaves out because they do not answer.
    pub fn open_most(
        tool: &Tool<'ctx>,
        env: &'ctx Env,
        deploy_log: DeployLog<'ctx>,
        skip_hosts: &[String],
    ) -> Result<Self> {
        let ctx = tool.ctx;
        let mut site = Self::open(tool, env, deploy_log)?;
        for name in skip_hosts {
            let before = site.targets.len();
            site.targets.retain(|target| !target.is_called(name));
            if site.targets.len() == before || site.targets.is_empty() {
                return usage(format!(
                    "--skip-host {name}: that leaves {} with {} of its targets",
                    env.name,
                    site.targets.len()
                ))
                .hint(format!("name some of {}", env.targets.join(", ")))
                .err();
            }
            ctx.warn(format!("{name} is left out; the next deploy with it brings it up to date"));
        }
        Ok(site)
    }

    /// The same on targets that are open already.
    pub fn with_targets(ctx: &'ctx Context, env: &'ctx Env, targets: Vec<Box<dyn Target + 'ctx>>) -> Result<Self> {
        let vars = filled_in(ctx, env)?;
        let spec = Spec::new(&env.service, &vars);
        let checker = Checker::new(ctx, &env.health, &spec)?;
        let (liveness, exports) = (LivenessChecker::new(ctx, None), service::exports(&vars));
        Ok(Self { ctx, env, app: None, targets, spec, exports, checker, deploy_log: DeployLog::default(), liveness })
    }

    /// The state of every target.
    pub fn states(&self) -> Result<Vec<State>> {
        let states =
            par_map(&self.targets, AT_ONCE, |target| target.state()).into_iter().collect::<Result<Vec<_>>>()?;
        for (target, state) in self.targets.iter().zip(&states) {
            if let (Some(ours), Some(theirs)) = (self.app, &state.app)
                && ours != theirs
            {
                return usage(format!("{} runs a release of {theirs}, not of {ours}", target.url()))
                    .hint("give each app a directory of its own, in `targets` of xtask/src/main.rs")
                    .err();
            }
            if state.history.unreadable > 0 {
                let lines = state.history.unreadable;
                self.ctx.warn(format!(
                    "{}: passed over {lines} torn line(s) of history.jsonl, left by a crash",
                    target.url()
                ));
            }
        }
        Ok(states)
    }

    /// Does `work` under the locks of all targets, or without them when nothing will be changed. It is told when a run
    /// began that did the same and was killed.
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
        // From the first lock on: whoever waits for the second one must not lose it.
        lease::renewed(&self.targets, lease::OFTEN, || {
            let locks = Locks::take(&self.liveness, &stores, &self.targets, &me, options.lock_wait)?;
            for (url, error) in locks.unanswered() {
                self.deploy_log.lose(url, error);
            }
            work(locks.interrupted(doing))
        })
    }

    /// Refuses when something else is live than was expected. What a killed run of the same command made live already
    /// is no surprise.
    fn expected(&self, goal: Option<&ReleaseId>, states: &[State], interrupted: bool, options: &Options) -> Result<()> {
        let expected = &options.expect_current;
        for (target, state) in self.targets.iter().zip(states) {
            let live = state.live();
            let commit = live.and_then(|live| state.history.commit(live));
            if expected.is(live, commit) || (interrupted && live.is_some() && live == goal) {
                continue;
            }
            let live = live.map_or("nothing", ReleaseId::as_str);
            return CliError::new(Kind::Stale, format!("{live} is live on {}, not {expected}", target.url()))
                .hint(format!("somebody was faster: look at `cargo xtask status {}`, then decide again", self.env.name))
                .err();
        }
        Ok(())
    }

    /// Hosts that are new, or have lost everything, do not know what ran in this env; a store may.
    fn never_backwards(&self, release: &ReleaseSource, states: &[State], options: &Options) -> Result<()> {
        if options.allow_older || states.iter().any(|state| state.live().is_some()) {
            return Ok(());
        }
        for (url, history) in self.deploy_log.histories(self.ctx, self.env.name) {
            let Some(live) = history.live_stack().last().copied() else { continue };
            let live_sha = history.commit(live).unwrap_or(live.short_sha());
            let ancestry = git::ancestry(self.ctx, &release.manifest().commit.sha, live_sha);
            if plan::age(release.id(), live, ancestry) == Age::Older {
                let (env, new) = (self.env.name, release.id());
                return CliError::new(Kind::Stale, format!("{new} is older than {live}, which ran in {env} by what {url} was told, and the hosts run nothing"))
                    .hint(format!("`cargo xtask deploy {env} {live}` brings that back; to insist, deploy with --allow-older"))
                    .err();
            }
        }
        Ok(())
    }

    fn goal(
        &self,
        verb: Verb,
        release: &ReleaseId,
        bundle: Option<&ReleaseSource>,
        states: &[State],
        options: &Options,
    ) -> Goal {
        let sha = bundle.map_or(release.short_sha(), |release| &release.manifest().commit.sha);
        let lives = states.iter().filter_map(|state| Some((state.live()?, state)));
        let ages = lives.map(|(live, state)| {
            let live_sha = state.history.commit(live).unwrap_or(live.short_sha());
            let ancestry = if live == release { Ancestry::Unknown } else { git::ancestry(self.ctx, sha, live_sha) };
            (live.clone(), plan::age(release, live, ancestry))
        });
        Goal {
            verb,
            release: release.clone(),
            bundle: bundle.map(|release| release.manifest().bundle.sha256.clone()),
            service: self.spec.digest(),
            vars: self.spec.vars(),
            has_service: self.spec != Spec::None,
            allow_older: options.allow_older,
            take_over: options.take_over,
            ages: ages.collect(),
        }
    }

    fn plans(&self, goal: &Goal, states: &[State]) -> Result<Vec<HostPlan>> {
        let each = self.targets.iter().zip(states);
        let plans = each.map(|(target, state)| plan::plan(target.url(), goal, state, self.env.keep));
        let mut plans = plans.collect::<Result<Vec<_>>>()?;
        plan::add_hooks(&mut plans, self.env.hooks);
        Ok(plans)
    }

    /// Refuses to do anything else than what was approved.
    fn still_approved(&self, plans: &[HostPlan], options: &Options) -> Result<()> {
        match &options.approved {
            Some(approved) if approved != plans => {
                CliError::new(Kind::Stale, format!("{} has changed since the question was asked", self.env.name))
                    .hint(format!("look at `cargo xtask status {}`, then run the same command again", self.env.name))
                    .err()
            }
            _ => Ok(()),
        }
    }

    /// What all targets would go back to. One that joined later knows no way back of its own, and follows the others.
    fn agreed_rollback(&self, states: &[State], interrupted: Option<Timestamp>) -> Result<ReleaseId> {
        let (mut found, mut lost) = (Vec::new(), None);
        for (target, state) in self.targets.iter().zip(states) {
            match plan::rollback_to(target.url(), state, interrupted) {
                Ok(id) => found.push((target.url().to_owned(), id)),
                Err(error) if kind_of(&error) == Kind::NotFound => lost = lost.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        match lost {
            Some(error) if found.is_empty() => Err(error),
            lost => {
                let id = plan::agreed(self.env.name, &found)?;
                if let Some(error) = lost {
                    self.ctx.note(format!("{error:#}: it follows the others to {id}"));
                }
                Ok(id)
            }
        }
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
            // A history outlives the variables that would mask a secret in it.
            reason: reason.map(|reason| self.ctx.scrub(reason)),
        }
    }

    fn work(
        &self,
        verb: Verb,
        goal: Option<ReleaseId>,
        states: &[State],
        plans: Vec<HostPlan>,
        release: Option<&ReleaseSource>,
        options: &Options,
    ) -> Result<Outcome> {
        if options.dry_run {
            return Ok(Outcome::planned(self.env.name, verb, goal, plans));
        }
        self.still_approved(&plans, options)?;
        let changes = plans.iter().any(|plan| !plan.steps.is_empty());
        let known = |id: &ReleaseId| states.iter().find_map(|state| state.history.commit(id).map(str::to_owned));
        let commit = release.map(|release| release.manifest().commit.sha.clone());
        let commit = commit.or_else(|| goal.as_ref().and_then(known));
        let told = Record { release: goal.clone(), commit, ..self.record(verb, options.reason.as_deref()) };
        self.deploy_log.begins(self.ctx, self.env.name, &told, changes)?;
        let markers = Markers::begin(self, verb, goal.as_ref(), &plans, release);
        let done = apply::apply(self, &told, plans, goal, release);
        markers.end(done.as_ref().err());
        if changes {
            self.deploy_log.ended(self.ctx, self.env.name, &told, done.as_ref().err());
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
    allowed(site.env, &id)?;
    let release = catalog.fetch_for_deploy(&id, site.env.transfer)?;
    let failed_in = elsewhere::warn_of_failures(tool, &site, &id, options);
    Ok(Outcome { failed_in, ..put_live(&site, Verb::Deploy, &release, options)? })
}

/// Makes a verified release live on a site.
pub fn put_live(site: &Deployment, verb: Verb, release: &ReleaseSource, options: &Options) -> Result<Outcome> {
    keeps_off_shared(site.env, release)?;
    let doing = format!("{} {} to {}", verb.as_str(), release.id(), site.env.name);
    site.locked(&doing, options, |interrupted| {
        let states = site.states()?;
        site.expected(Some(release.id()), &states, interrupted.is_some(), options)?;
        site.never_backwards(release, &states, options)?;
        let goal = site.goal(verb, release.id(), Some(release), &states, options);
        site.work(verb, Some(goal.release.clone()), &states, site.plans(&goal, &states)?, Some(release), options)
    })
}

fn allowed(env: &Env, id: &ReleaseId) -> Result<()> {
    if env.approval && id.is_dirty() {
        return usage(format!("{id} was built from files that no commit holds, and {} needs approval", env.name))
            .hint("commit, build again, and deploy that")
            .err();
    }
    Ok(())
}

/// The variables of an env, each with its value.
pub(crate) fn filled_in(ctx: &Context, env: &Env) -> Result<Vec<(String, String)>> {
    env.vars.iter().map(|(name, value)| Ok(((*name).to_owned(), ctx.expand(value)?))).collect()
}

/// Refuses a release that holds what all releases of an env share.
fn keeps_off_shared(env: &Env, release: &ReleaseSource) -> Result<()> {
    let below = |path: &str, shared: &str| {
        let rest = path.strip_prefix(shared.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for file in &release.manifest().files {
        if let Some(shared) = env.shared.iter().find(|shared| below(&file.path, shared)) {
            return usage(format!(
                "{} holds {}, and {} shares {shared} among its releases",
                release.id(),
                file.path,
                env.name
            ))
            .hint("take it out of `include`, or out of `shared`, in xtask/src/main.rs")
            .err();
        }
    }
    Ok(())
}

/// `promote FROM TO`: what runs in one env goes live in another, the same bytes, never rebuilt.
pub fn promote(tool: &Tool, from: &str, to: &str, options: &Options) -> Result<Outcome> {
    let project = tool.project;
    let env = project.env(to)?;
    let catalog = Catalog::open(tool)?;
    let site = Deployment::open_most(tool, env, catalog.deploy_log(), &options.skip_host)?;
    // The source is only looked at: its variables may be secrets that this job does not have.
    let source = tool.targets(project.env(from)?)?;
    let id = resolve::running(from, &source)?;
    allowed(site.env, &id)?;
    let release = catalog.fetch_for_deploy(&id, site.env.transfer)?;
    for target in &source {
        if target.manifest(&id)?.bundle.sha256 != release.manifest().bundle.sha256 {
            return verification(format!("{} runs other bytes of {id} than the stores hold", target.url()))
                .hint(format!("deploy {id} to {from} again, then promote"))
                .err();
        }
    }
    let failed_in = elsewhere::warn_of_failures(tool, &site, &id, options);
    Ok(Outcome { failed_in, ..put_live(&site, Verb::Promote, &release, options)? })
}

/// `rollback ENV [RELEASE]`
pub fn rollback(tool: &Tool, env: &str, release: Option<&Selector>, options: &Options) -> Result<Outcome> {
    let project = tool.project;
    let of = project.env(env)?;
    let catalog = Catalog::open(tool)?;
    let site = Deployment::open_most(tool, of, catalog.deploy_log(), &options.skip_host)?;
    let named = match release {
        None | Some(Selector::Previous) => None,
        // It would find what is live already and leave it there, with success: no way to take a bad commit back.
        Some(Selector::Head) => {
            return usage("HEAD is what a deploy brings, and no release to go back to")
                .hint(format!("say `cargo xtask rollback {env} previous`, or name a release"))
                .err();
        }
        Some(selector) => Some(resolve::for_rollback(&catalog, &site, selector)?),
    };
    roll_back(&site, named.as_ref(), options, |id| catalog.fetch_for_deploy(id, of.transfer))
}

/// Goes back to `named`, or to what was live and healthy before. `fetch` is asked only when a target no longer has it.
pub fn roll_back<'a>(
    site: &Deployment,
    named: Option<&ReleaseId>,
    options: &Options,
    fetch: impl FnOnce(&ReleaseId) -> Result<ReleaseSource<'a>>,
) -> Result<Outcome> {
    site.locked(&format!("rollback of {}", site.env.name), options, |interrupted| {
        let states = site.states()?;
        let id = match named {
            Some(id) => Ok(id.clone()),
            None => site.agreed_rollback(&states, interrupted),
        };
        site.expected(id.as_ref().ok(), &states, interrupted.is_some(), options)?;
        let id = id?;
        allowed(site.env, &id)?;
        let everywhere = states.iter().all(|state| state.installed.contains_key(&id));
        let release = if everywhere { None } else { Some(fetch(&id)?) };
        let goal = site.goal(Verb::Rollback, &id, release.as_ref(), &states, options);
        site.work(Verb::Rollback, Some(id), &states, site.plans(&goal, &states)?, release.as_ref(), options)
    })
}

/// `prune ENV`
pub fn prune(tool: &Tool, env: &str, keep: Option<usize>, options: &Options) -> Result<Outcome> {
    let project = tool.project;
    let site = Deployment::open_most(tool, project.env(env)?, DeployLog::default(), &options.skip_host)?;
    prune_site(&site, keep.unwrap_or(site.env.keep), options)
}

/// Prunes the targets of a site.
pub fn prune_site(site: &Deployment, keep: usize, options: &Options) -> Result<Outcome> {
    site.locked(&format!("prune of {}", site.env.name), options, |_| {
        let states = site.states()?;
        let plans = site.targets.iter().zip(&states).map(|(target, state)| plan::plan_prune(target.url(), state, keep));
        site.work(Verb::Prune, None, &states, plans.collect::<Result<_>>()?, None, options)
    })
}
