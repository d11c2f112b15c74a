//! Checks of an env that need no host: its variables, and the recipients of its notifications.

use crate::doctor::check::{Check, Fault, Found, fault};
use gangplank_deploy::deploy::notify::destination;
use gangplank_deploy::health::Checker;
use gangplank_model::project::Env;
use gangplank_model::service::Spec;
use gangplank_system::context::Context;

/// An env with the variables available here.
pub struct EnvCheck<'a> {
    /// The env.
    pub env: &'a Env,
    /// Its service.
    pub spec: Spec,
    /// Its health check.
    pub checker: Option<Checker>,
    /// Unset variables and invalid addresses.
    faults: Vec<(&'static str, Fault)>,
    /// Each recipient of notifications, and whether its variables are set here.
    recipients: Vec<(String, Found<bool>)>,
}

impl<'a> EnvCheck<'a> {
    /// The env, with the variables of this process.
    pub fn new(ctx: &Context, env: &'a Env) -> Self {
        let (mut vars, mut faults) = (Vec::new(), Vec::new());
        for (name, text) in env.vars {
            match ctx.expand(text) {
                Ok(value) => vars.push(((*name).to_owned(), value)),
                Err(error) => faults.push((*name, fault(error))),
            }
        }
        let spec = Spec::new(&env.service, &vars);
        let checker =
            Checker::new(ctx, &env.health, &spec).map_err(|error| faults.push(("health check", fault(error))));
        let checker = checker.ok();
        let recipients = env.notify.iter().map(|notify| {
            let found = destination(ctx, &notify.to).map(|to| to.is_some()).map_err(fault);
            (format!("{} {}", notify.to.kind(), notify.to.variables()), found)
        });
        Self { env, spec, checker, faults, recipients: recipients.collect() }
    }

    /// The checks of its variables.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        let vars = self.env.vars.len();
        for (name, fault) in &self.faults {
            let hint = match self.env.context {
                Some(context) => format!("{}; jobs have the variables of the context {context}", fault.hint),
                None => fault.hint.clone(),
            };
            checks.push(Check::broken(*name, &fault.text, hint));
        }
        if checks.is_empty() && vars > 0 {
            checks.push(Check::fine("variables"));
        }
        checks.extend(self.recipients.iter().map(|(name, found)| match found {
            Ok(true) => Check::ok("notify", name),
            Ok(false) => Check::skipped("notify", format!("{name}: empty here, so it is not notified from here")),
            // A notification that cannot be sent fails no deploy.
            Err(fault) => Check::warning("notify", format!("{name}: {}", fault.text), fault.hint.clone()),
        }));
        checks
    }
}
