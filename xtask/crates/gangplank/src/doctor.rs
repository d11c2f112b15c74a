//! `doctor`: lists every problem that would block a deploy, each with its fix.
//!
//! The modules of a deploy collect the facts; pure functions map facts to checks. No lasting change is made: no lock is
//! taken, and files written as a test are removed. A check that depends on a failed one is skipped with a reason, so that
//! the first broken check is the cause.

mod account;
mod checkout;
mod hosts;
mod places;

use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Kind, Result, hint_of, kind_of, with_guides};
use gangplank_model::project;
use gangplank_model::project::{Env, Handoff, Project};
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

/// A check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `tools`, `git`, `project`, `circleci`, `stores`, or the name of an env.
    pub group: String,
    /// The target that it applies to.
    pub subject: Option<String>,
    /// What was checked, in a word or two; a store by its URL.
    pub what: String,
    /// The result.
    pub state: State,
    /// The details.
    pub detail: Option<String>,
    /// The fix, as a command where possible.
    pub hint: Option<String>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Passed.
    Ok,
    /// A deploy would work, but attention is needed.
    Warning,
    /// A deploy would fail.
    Broken,
    /// Not checked; the detail says why.
    Skipped,
}

impl State {
    /// The word for the result.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Broken => "broken",
            Self::Skipped => "skipped",
        }
    }
}

impl Check {
    fn new(what: impl Into<String>, state: State, detail: Option<String>, hint: Option<String>) -> Self {
        Self { group: String::new(), subject: None, what: what.into(), state, detail, hint }
    }

    fn fine(what: impl Into<String>) -> Self {
        Self::new(what, State::Ok, None, None)
    }

    fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, State::Ok, Some(detail.into()), None)
    }

    fn skipped(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(what, State::Skipped, Some(reason.into()), None)
    }

    fn warning(what: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(what, State::Warning, Some(detail.into()), Some(hint.into()))
    }

    fn broken(what: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(what, State::Broken, Some(detail.into()), Some(hint.into()))
    }

    /// A check from an error; a skipped one has no hint.
    fn of(what: impl Into<String>, state: State, fault: &Fault) -> Self {
        let hint = Some(fault.hint.clone()).filter(|_| state != State::Skipped);
        Self::new(what, state, Some(fault.text.clone()), hint)
    }
}

/// An error as a value, for pure functions and tables.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: Kind,
    text: String,
    hint: String,
}

/// A fact, or why it is unknown.
type Found<T> = Result<T, Fault>;

/// Converts an error.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` has it")]
fn fault(error: anyhow::Error) -> Fault {
    let hint = hint_of(&error).unwrap_or("run it again with -v to see the commands").to_owned();
    Fault { kind: kind_of(&error), text: format!("{error:#}"), hint }
}

/// The scope of a diagnosis.
#[derive(Clone, Copy)]
struct Scope<'a> {
    tool: &'a Tool<'a>,
    project: &'a Project,
    /// The envs to check.
    envs: &'a [&'a Env],
    /// Only checks of a job without contexts.
    ci: bool,
    /// Whether this is a job.
    in_job: bool,
}

impl Scope<'_> {
    /// Whether the project uses CircleCI.
    fn uses_circleci(&self, has_config: bool) -> bool {
        has_config || self.project.stores.iter().any(|url| url.starts_with("circleci:"))
    }

    /// Whether a deploy needs CircleCI's API.
    fn need(&self) -> Need {
        let asks = |url: &&str| ["circleci:artifacts", "circleci:latest-artifacts"].contains(url);
        match self.project.ci.handoff {
            Handoff::Artifacts => Need::Always,
            Handoff::Workspace | Handoff::S3 if self.project.stores.iter().any(asks) => Need::Sometimes,
            Handoff::Workspace | Handoff::S3 => Need::Never,
        }
    }
}

/// Whether a deploy needs CircleCI's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Releases are passed on by the API.
    Always,
    /// A store asks it for releases that no other store has.
    Sometimes,
    /// It is not needed.
    Never,
}

/// The address that a health check requests, if any.
fn address(check: &project::Check) -> Option<&'static str> {
    match check {
        project::Check::Http { url, .. } => Some(url),
        project::Check::Tcp { addr } => Some(addr),
        project::Check::None | project::Check::Command(_) => None,
    }
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

fn grouped(group: &str, checks: Vec<Check>) -> impl Iterator<Item = Check> {
    checks.into_iter().map(move |check| Check { group: group.to_owned(), ..check })
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
