//! An env that is ready to be deployed to, and the options of the commands that change it.

use crate::deploy::deploy_log::DeployLog;
use crate::deploy::liveness::LivenessChecker;
use crate::deploy::pending_notice::PendingNotice;
use crate::health::Checker;
use crate::host::Target;
use crate::tool::Tool;
use gangplank_model::error::{Result, usage};
use gangplank_model::plan::HostPlan;
use gangplank_model::project::Env;
use gangplank_model::release::id::Expected;
use gangplank_model::service;
use gangplank_model::service::Spec;
use gangplank_system::context::Context;
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
    /// The notice to be sent in the end.
    pub(crate) pending: PendingNotice,
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
    pub(crate) fn open_most(
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
                let what = if site.targets.is_empty() { "would leave no host of" } else { "names no host of" };
                return usage(format!("--skip-host {name} {what} {}", env.name))
                    .hint(format!("the hosts of {}: {}", env.name, env.targets.join(", ")))
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
        Ok(Self {
            ctx,
            env,
            app: None,
            targets,
            spec,
            exports,
            checker,
            deploy_log: DeployLog::default(),
            liveness,
            pending: PendingNotice::default(),
        })
    }
}

/// The variables of an env that can be expanded, for what must not need a secret.
pub(crate) fn known_vars(ctx: &Context, env: &Env) -> Vec<(String, String)> {
    env.vars.iter().filter_map(|(name, value)| Some(((*name).to_owned(), ctx.expand(value).ok()?))).collect()
}

/// The variables of an env, expanded.
pub fn filled_in(ctx: &Context, env: &Env) -> Result<Vec<(String, String)>> {
    env.vars.iter().map(|(name, value)| Ok(((*name).to_owned(), ctx.expand(value)?))).collect()
}
