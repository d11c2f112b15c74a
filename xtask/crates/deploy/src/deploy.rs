//! `deploy`, `promote`, `rollback` and `prune`: lock, read the state, plan, apply, in this order on every target of an
//! env.

pub mod apply;
pub mod control;
pub mod deploy_log;
mod elsewhere;
mod hooks;
pub mod hosts;
pub mod lease;
pub mod liveness;
pub mod lock;
pub mod markers;
pub mod release_source;
pub mod report;
pub mod resolve;
pub mod waves;

use crate::deploy::apply::Outcome;
use crate::deploy::deploy_log::DeployLog;
use crate::deploy::liveness::LivenessChecker;
use crate::deploy::lock::Locks;
use crate::deploy::markers::Markers;
use crate::deploy::release_source::ReleaseSource;
use crate::deploy::resolve::Catalog;
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::health::Checker;
use crate::host::Target;
use crate::tool::Tool;
use gangplank_model::error::{CliError, Kind, Result, kind_of, usage, verification};
use gangplank_model::history;
use gangplank_model::history::{Record, Verb};
use gangplank_model::plan;
use gangplank_model::plan::{Age, Ancestry, Goal, HostPlan};
use gangplank_model::project::Env;
use gangplank_model::release::id::{Expected, ReleaseId, Selector};
use gangplank_model::service;
use gangplank_model::service::Spec;
use gangplank_model::state::State;
use gangplank_system::context::Context;
use gangplank_system::git;
use gangplank_system::machine;
use gangplank_system::machine::{ci_job, person};
use jiff::Timestamp;
use std::time::Duration;

/// The options of all changing commands.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Print the plan and change nothing.
    pub dry_run: bool,
    /// Allow a release older than the live one.
    pub allow_older: bool,
    /// Replace a `current` that another tool made.
    pub take_over: bool,
    /// The release that must be live; otherwise nothing is changed.
    pub expect_current: Expected,
    /// How long to wait for a held lock.
    pub lock_wait: Duration,
    /// The reason, for the history.
    pub reason: Option<String>,
    /// Hosts to skip, by name or URL of the target.
    pub skip_host: Vec<String>,
    /// The approved plans. A different plan is refused.
    pub approved: Option<Vec<HostPlan>>,
}

/// An env, ready to deploy to: targets opened, variables expanded.
pub struct Deployment<'ctx> {
    /// The I/O context.
    pub ctx: &'ctx Context,
    /// The env as defined in the project.
    pub env: &'ctx Env,
    /// Name of the app; `None` for a deployment without a project.
    pub app: Option<&'ctx str>,
    /// The targets of the env.
    pub targets: Vec<Box<dyn Target + 'ctx>>,
    /// The service, with variables.
    pub spec: Spec,
    /// Shell lines that export the variables, for hooks.
    pub exports: String,
    /// The health check, with variables.
    pub checker: Checker,
    /// The stores that record what is live.
    pub deploy_log: DeployLog<'ctx>,
    /// Tells whether the owner of a lock still runs.
    pub liveness: LivenessChecker<'ctx>,
}

impl<'ctx> Deployment<'ctx> {
    /// Opens the targets of an env. Fails before any change if a variable is missing or a URL is invalid.
    pub fn open(tool: &Tool<'ctx>, env: &'ctx Env, deploy_log: DeployLog<'ctx>) -> Result<Self> {
        let Tool { ctx, project, .. } = *tool;
        let liveness = LivenessChecker::new(ctx, project.ci.slug);
        let app = Some(project.app.name);
        Ok(Self { app, deploy_log, liveness, ..Self::with_targets(ctx, env, tool.targets(env)?)? })
    }

    /// Like [`Self::open`], without the skipped hosts.
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
                    "--skip-host {name} leaves {} with {} of its targets",
                    env.name,
                    site.targets.len()
                ))
                .hint(format!("name some of {}", env.targets.join(", ")))
                .err();
            }
            ctx.warn(format!("{name} skipped; the next deploy that includes it brings it up to date"));
        }
        Ok(site)
    }

    /// Like [`Self::open`], for targets that are already open.
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
                    .hint("give each app its own directory, in `targets` of xtask/src/main.rs")
                    .err();
            }
            if state.history.unreadable > 0 {
                let lines = state.history.unreadable;
                self.ctx
                    .warn(format!("{}: skipped {lines} torn line(s) of history.jsonl, left by a crash", target.url()));
            }
        }
        Ok(states)
    }

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

    /// Fails if a release other than the expected one is live, unless a killed run of the same command activated it.
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
                .hint(format!("another deploy finished first: check `cargo xtask status {}`", self.env.name))
                .err();
        }
        Ok(())
    }

    /// Fails if the release is older than the one that a store recorded as live. Needed for hosts that are new or lost
    /// their history.
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
                return CliError::new(
                    Kind::Stale,
                    format!("{new} is older than {live}, which ran in {env} according to {url}; the hosts run nothing"),
                )
                .hint(format!("restore it with `cargo xtask deploy {env} {live}`, or deploy with --allow-older"))
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

    /// Fails if the plan differs from the approved one.
    fn still_approved(&self, plans: &[HostPlan], options: &Options) -> Result<()> {
        match &options.approved {
            Some(approved) if approved != plans => {
                CliError::new(Kind::Stale, format!("{} has changed since the plan was approved", self.env.name))
                    .hint(format!("check `cargo xtask status {}`, then run the same command again", self.env.name))
                    .err()
            }
            _ => Ok(()),
        }
    }

    /// The release that all targets roll back to. A target without a previous release follows the others.
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
                    self.ctx.note(format!("{error:#}; rolling it back to {id} like the others"));
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
            // The history outlives the variables that would mask a secret in it.
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

/// Deploys a verified release.
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
        return usage(format!("{id} was built from uncommitted changes, and {} needs approval", env.name))
            .hint("commit, build, and deploy again")
            .err();
    }
    Ok(())
}

/// The variables of an env, expanded.
pub fn filled_in(ctx: &Context, env: &Env) -> Result<Vec<(String, String)>> {
    env.vars.iter().map(|(name, value)| Ok(((*name).to_owned(), ctx.expand(value)?))).collect()
}

/// Fails if a release contains a path that the env shares among releases.
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
            .hint("remove it from `include` or from `shared` in xtask/src/main.rs")
            .err();
        }
    }
    Ok(())
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
        // HEAD is usually live already, so a rollback to it would succeed without any change.
        Some(Selector::Head) => {
            return usage("HEAD is not a release to roll back to")
                .hint(format!("run `cargo xtask rollback {env} previous`, or name a release"))
                .err();
        }
        Some(selector) => Some(resolve::for_rollback(&catalog, &site, selector)?),
    };
    roll_back(&site, named.as_ref(), options, |id| catalog.fetch_for_deploy(id, of.transfer))
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

/// Prunes the targets of a deployment.
pub fn prune_site(site: &Deployment, keep: usize, options: &Options) -> Result<Outcome> {
    site.locked(&format!("prune of {}", site.env.name), options, |_| {
        let states = site.states()?;
        let plans = site.targets.iter().zip(&states).map(|(target, state)| plan::plan_prune(target.url(), state, keep));
        site.work(Verb::Prune, None, &states, plans.collect::<Result<_>>()?, None, options)
    })
}
