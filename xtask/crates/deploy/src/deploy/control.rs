//! `start`, `stop` and `restart`: control the service of the live release, under the lock, with a record in the
//! history.
//!
//! A service starts as it did when it was last healthy, so no variables of the env are needed. An unconfirmed release
//! is left to deploy or rollback, which can revert.

use crate::deploy::apply;
use crate::deploy::deployment::{Deployment, Options, filled_in, known_vars};
use crate::deploy::lease;
use crate::deploy::liveness::LivenessChecker;
use crate::deploy::lock::Locks;
use crate::deploy::pending_notice::PendingNotice;
use crate::deploy::resolve::Catalog;
use crate::deploy::waves::{AT_ONCE, par_map, waves};
use crate::health::Checker;
use crate::host::{Operation, Target};
use crate::tool::Tool;
use gangplank_model::error::{CliError, Kind, Result, failed, not_found, usage};
use gangplank_model::event::{Event, ms_since};
use gangplank_model::history::{HistoryEvent, Record, Verb};
use gangplank_model::project::{Check, Env, Health, Service, Strategy};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::script;
use gangplank_model::service;
use gangplank_model::service::Spec;
use gangplank_model::service::run::Script;
use gangplank_model::state::{ServiceState, State};
use gangplank_system::context::{Context, Output};
use gangplank_system::machine;
use serde::Serialize;
use std::time::Instant;

/// The result of `start`, `stop` or `restart`.
#[derive(Debug, Serialize)]
pub struct Controlled {
    /// The env.
    pub env: String,
    /// The command.
    pub verb: Verb,
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// The hosts, in order.
    pub targets: Vec<ControlledHost>,
}

/// One host.
#[derive(Debug, Serialize)]
pub struct ControlledHost {
    /// URL of the target.
    pub target: String,
    /// The live release.
    pub release: ReleaseId,
    /// Whether the service was changed, or would be; a running service is not started.
    pub changed: bool,
}

/// Starts, stops or restarts the service of an env, on one host or all.
pub fn control(tool: &Tool, env: &str, verb: Verb, host: Option<&str>, options: &Options) -> Result<Controlled> {
    let Tool { ctx, project, .. } = *tool;
    let env = project.env(env)?;
    if matches!(env.service, Service::None) {
        return usage(format!("{} has no service", env.name))
            .hint("give it one: `service` of the env in xtask/src/main.rs, see docs/service.md")
            .err();
    }
    let catalog = Catalog::open(tool)?;
    let site = open(tool, env, verb, host, &catalog)?;
    if options.dry_run {
        return Ok(controlled(&site, verb, true, plans(&site, verb)?));
    }
    let me = machine::owner(ctx, format!("{} of {}", verb.as_str(), env.name));
    let stores = site.deploy_log.locks(env.name);
    lease::renewed(&site.targets, lease::OFTEN, || {
        let _locks = Locks::take(&site.liveness, &stores, &site.targets, &me, options.lock_wait)?;
        let plans = plans(&site, verb)?;
        let base = site.record(verb, options.reason.as_deref());
        let run = Run { ctx, env, spec: &site.spec, checker: &site.checker, verb, base };
        run.ready(&plans)?;
        run.carry_out(&plans)?;
        Ok(controlled(&site, verb, false, plans))
    })
}

/// The env with the variables that are set: stopping a service must not need a secret.
fn open<'ctx>(
    tool: &Tool<'ctx>,
    env: &'ctx Env,
    verb: Verb,
    host: Option<&str>,
    catalog: &'ctx Catalog<'ctx>,
) -> Result<Deployment<'ctx>> {
    let Tool { ctx, project, .. } = *tool;
    // Project commands need their variables; other services start from the host's record.
    let vars = if verb != Verb::Stop && matches!(env.service, Service::Command { .. }) {
        filled_in(ctx, env)?
    } else {
        known_vars(ctx, env)
    };
    let spec = Spec::new(&env.service, &vars);
    let health = if verb == Verb::Stop { Health { check: Check::None, ..env.health } } else { env.health };
    let checker = Checker::new(ctx, &health, &spec)?;
    let targets = tool.targets_called(env, host)?;
    let liveness = LivenessChecker::new(ctx, project.ci.slug);
    let (deploy_log, exports) = (catalog.deploy_log(), service::exports(&vars));
    let pending = PendingNotice::default();
    Ok(Deployment {
        ctx,
        env,
        app: Some(project.app.name),
        targets,
        spec,
        exports,
        checker,
        deploy_log,
        liveness,
        pending,
    })
}

/// The action on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    release: ReleaseId,
    commit: Option<String>,
    changes: bool,
}

/// A target with its plan.
type Planned<'t, 'ctx> = (&'t (dyn Target + 'ctx), Plan);

/// The plans of the targets, in order. One on which nothing is live has none where others are stopped.
fn plans<'t, 'ctx>(site: &'t Deployment<'ctx>, verb: Verb) -> Result<Vec<Planned<'t, 'ctx>>> {
    let hosts = site.snapshot(false)?.hosts;
    let skips = verb == Verb::Stop && hosts.iter().any(|host| host.state.live().is_some());
    let hosts = site.targets.iter().zip(&hosts).filter(|(_, host)| !skips || host.state.live().is_some());
    hosts.map(|(target, host)| Ok((&**target, plan(site.env.name, &host.url, verb, &host.state)?))).collect()
}

/// Fails if nothing is live, or on a start if no deploy has confirmed the release.
fn plan(env: &str, url: &str, verb: Verb, state: &State) -> Result<Plan> {
    let Some(live) = state.live() else {
        return not_found(format!("nothing is live on {url}"))
            .hint(format!("`cargo xtask deploy {env}` makes a release live"))
            .err();
    };
    if verb != Verb::Stop && !state.history.confirmed(live) {
        return CliError::new(Kind::Stale, format!("{url}: no deploy has found {live} healthy yet"))
            .hint(format!("`cargo xtask deploy {env} {live}` finishes it, `cargo xtask rollback {env}` goes back"))
            .err();
    }
    let changes = match (verb, &state.service) {
        (Verb::Start, ServiceState::Running { release, .. }) => release != live,
        (Verb::Start, ServiceState::Drifted | ServiceState::Unrecorded | ServiceState::OfSession)
        | (Verb::Stop, ServiceState::Stopped) => false,
        _ => true,
    };
    Ok(Plan { release: live.clone(), commit: state.history.commit(live).map(str::to_owned), changes })
}

fn controlled(site: &Deployment, verb: Verb, dry_run: bool, plans: Vec<Planned>) -> Controlled {
    let hosts = plans.into_iter().map(|(target, plan)| ControlledHost {
        target: target.url().to_owned(),
        release: plan.release,
        changed: plan.changes,
    });
    Controlled { env: site.env.name.to_owned(), verb, dry_run, targets: hosts.collect() }
}

/// A plan being executed.
struct Run<'a> {
    ctx: &'a Context,
    env: &'a Env,
    spec: &'a Spec,
    checker: &'a Checker,
    verb: Verb,
    base: Record,
}

impl Run<'_> {
    /// Fails, before any service is touched, if a command would fail or a start would not last.
    fn ready(&self, plans: &[Planned]) -> Result<()> {
        let hosts: Vec<_> = plans.iter().filter(|(_, plan)| plan.changes).collect();
        let ask = |target: &dyn Target| {
            let (root, stop) = (target.root(), self.verb == Verb::Stop);
            let script = if stop { self.spec.ready_to_halt(root) } else { self.spec.ready(root) };
            let startable = self.spec.startable(root).filter(|_| !stop);
            for script in script.into_iter().chain(startable) {
                let answer = target.run(&script)?;
                for text in service::warnings(&answer.stderr) {
                    self.ctx.warn(format!("{}: {text}", target.url()));
                }
                if !answer.ok() {
                    return Err(self.failed(target, &answer));
                }
            }
            Ok(())
        };
        apply::all_of(par_map(&hosts, AT_ONCE, |(target, _)| ask(*target)))
    }

    fn failed(&self, target: &dyn Target, answer: &Output) -> anyhow::Error {
        crate::deploy::failure::service_failure(self.ctx, target.url(), answer, Some(self.look()))
    }

    /// Acts wave by wave, like a deploy: a wave must be healthy before the next. Stops all hosts at once.
    fn carry_out(&self, plans: &[Planned]) -> Result<()> {
        let hosts: Vec<_> = plans.iter().filter(|(_, plan)| plan.changes).collect();
        let waves = match self.verb {
            Verb::Stop => waves(Strategy::All, None, hosts.len()),
            _ => waves(self.env.strategy, self.env.max_unavailable, hosts.len()),
        };
        for wave in waves {
            if self.ctx.interrupted() {
                return failed("stopped by a signal").hint("run it again to continue").err();
            }
            apply::all_of(par_map(&hosts[wave], AT_ONCE, |(target, plan)| self.one(*target, plan)))?;
        }
        Ok(())
    }

    fn one(&self, target: &dyn Target, plan: &Plan) -> Result<()> {
        let (root, id) = (target.root(), &plan.release);
        let (step, event, script) = match self.verb {
            Verb::Stop => ("stop the service", HistoryEvent::Stopped, self.spec.halt(root)),
            Verb::Start => ("start the service", HistoryEvent::Started, self.spec.start(root, id)),
            _ => ("restart the service", HistoryEvent::Restarted, self.spec.restart(root, id, true)),
        };
        let record = Record {
            at: self.ctx.now(),
            event,
            release: Some(id.clone()),
            commit: plan.commit.clone(),
            ..self.base.clone()
        };
        let (url, step) = (target.url().to_owned(), step.to_owned());
        self.ctx.emit(Event::StepStarted { target: url.clone(), step: step.clone() });
        let started = Instant::now();
        let done = self.run_and_check(target, plan, script.as_ref(), &record);
        self.ctx.emit(Event::StepEnded { target: url, step, ms: ms_since(started), ok: done.is_ok() });
        if done.is_err() && self.verb != Verb::Stop {
            crate::deploy::failure::show_log(self.ctx, self.spec, target);
        }
        done
    }

    fn run_and_check(&self, target: &dyn Target, plan: &Plan, script: Option<&Script>, record: &Record) -> Result<()> {
        let url = target.url();
        // Written first, as for a switch, so that a lost connection or a kill shows in the history.
        target.must(Operation::Record(record))?;
        if let Some(script) = script {
            let answer = target.run(script)?;
            if !answer.ok() {
                return Err(self.failed(target, &answer));
            }
        }
        if self.verb == Verb::Stop {
            return Ok(());
        }
        let kept = target.run(&Script::new(script::kept_check(target.root()), String::new()))?;
        let checker = self.checker.as_kept(&kept.stdout);
        let healthy = checker.wait(self.ctx, target, self.spec, &plan.release, plan.commit.as_deref());
        healthy.or_else(|reason| failed(format!("{url}: {reason}")).hint(self.look()).err())
    }

    fn look(&self) -> String {
        let env = self.env.name;
        format!("`cargo xtask logs {env}` shows its log; `cargo xtask rollback {env}` goes back to the release before")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::history::testing::{history, id};
    use gangplank_model::state::Current;

    #[test]
    fn plan_of_a_service() {
        let running = |n: &str| ServiceState::Running { spec: "d".into(), release: id(n) };
        for (verb, words, current, service, want) in [
            (Verb::Start, "live 1", "1", ServiceState::Stopped, "changes"),
            (Verb::Start, "live 1", "1", running("1"), "nothing"),
            // A deploy was killed before it restarted the service.
            (Verb::Start, "live 1; live 2", "2", running("1"), "changes"),
            // A command service does not report whether it runs.
            (Verb::Start, "live 1", "1", ServiceState::None, "changes"),
            (Verb::Stop, "live 1", "1", ServiceState::None, "changes"),
            (Verb::Stop, "live 1", "1", running("1"), "changes"),
            (Verb::Stop, "live 1", "1", ServiceState::Stopped, "nothing"),
            (Verb::Stop, "live 1; switched 2", "2", running("2"), "changes"),
            (Verb::Restart, "live 1", "1", running("1"), "changes"),
            (Verb::Restart, "live 1", "1", ServiceState::Stopped, "changes"),
            (Verb::Restart, "live 1; switched 2", "2", running("2"), "Stale"),
            (Verb::Start, "live 1; switched 2", "2", ServiceState::Stopped, "Stale"),
            (Verb::Start, "", "", ServiceState::None, "NotFound"),
            (Verb::Stop, "live 1", "", ServiceState::None, "NotFound"),
        ] {
            let current = if current.is_empty() { Current::None } else { Current::Release(id(current)) };
            let state = State { current, service, history: history(words), ..State::default() };
            let found = match plan("dev", "file:x", verb, &state) {
                Ok(Plan { changes: true, .. }) => "changes".to_owned(),
                Ok(_) => "nothing".to_owned(),
                Err(error) => format!("{:?}", gangplank_model::error::kind_of(&error)),
            };
            assert_eq!(found, want, "{verb:?} {state:?}");
        }
    }
}
