//! `doctor`: lists every problem that would block a deploy, each with its fix.
//!
//! The modules of a deploy collect the facts; pure functions map facts to checks. No lasting change is made: no lock is
//! taken, and files written as a test are removed. A check that depends on a failed one is skipped with a reason, so that
//! the first broken check is the cause.

mod account;
pub(crate) mod check;
mod checkout;
mod env;
mod hosts;
mod places;

use crate::doctor::check::{Check, Scope, State, grouped};
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Result, with_guides};
use gangplank_model::project::Env;
use gangplank_system::context::{Context, var};
use serde::Serialize;

/// The time limit of a request to CircleCI or a bucket in seconds, unless set: a diagnosis should be fast.
const API_DEADLINE: &str = "15";

/// The result of `doctor`. As JSON:
///
/// ```json
/// { "works": false, "env": "dev", "ci": false, "broken": 1, "warnings": 0, "checks": [
///   { "group": "dev", "subject": "ssh://web1/srv/app", "what": "disk", "state": "broken",
///     "detail": "1.0 MiB free, a release takes 4.0 MiB", "hint": "make room ..." } ] }
/// ```
///
/// `env` is null if all envs were checked. `subject`, `detail` and `hint` may be null; a check that is `broken` or a
/// `warning` has the latter two. Checks are in the order in which to fix them.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// Whether a deploy would work: nothing is broken.
    pub works: bool,
    /// The env that was checked.
    pub env: Option<String>,
    /// Whether only checks of a job without contexts were made.
    pub ci: bool,
    /// Number of broken checks.
    pub broken: usize,
    /// Number of warnings.
    pub warnings: usize,
    /// The checks.
    pub checks: Vec<Check>,
}

/// Checks everything; with `env` only that env's hosts, with `ci` only what a job without contexts can.
pub fn doctor(tool: &Tool, env: Option<&str>, ci: bool) -> Result<Diagnosis> {
    let Tool { ctx, project, .. } = *tool;
    let envs: Vec<&Env> = match env {
        Some(name) => vec![project.env(name)?],
        None => project.envs.iter().collect(),
    };
    let impatient = [(var::API_DEADLINE.to_owned(), API_DEADLINE.to_owned())];
    let ctx = &if ctx.var(var::API_DEADLINE).is_some() { ctx.with_vars([]) } else { ctx.with_vars(impatient) };
    let tool = &Tool { ctx, ..*tool };
    let scope = Scope { tool, project, envs: &envs, ci, in_job: ctx.in_ci() };
    let mut checks = checkout::look(ctx, &scope);
    let (of_account, answers) = account::look(ctx, &scope);
    checks.extend(grouped("circleci", of_account));
    let (of_stores, locks) = places::look(ctx, &scope, answers);
    checks.extend(grouped("stores", of_stores));
    if !ci {
        checks.extend(hosts::look(ctx, &scope, &locks));
    }
    Ok(Diagnosis::new(ctx, env, ci, checks))
}

impl Diagnosis {
    fn new(ctx: &Context, env: Option<&str>, ci: bool, mut checks: Vec<Check>) -> Self {
        // Before lines are wrapped: half a secret would not be detected.
        for check in &mut checks {
            for text in [&mut check.detail, &mut check.hint].into_iter().flatten() {
                *text = ctx.scrub(&with_guides(text, ctx.guides()));
            }
        }
        let count = |state| checks.iter().filter(|check| check.state == state).count();
        let (broken, warnings) = (count(State::Broken), count(State::Warning));
        Self { works: broken == 0, env: env.map(str::to_owned), ci, broken, warnings, checks }
    }
}
