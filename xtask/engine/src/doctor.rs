//! `doctor`: everything that is wrong, at once, each with its fix, before a deploy finds it out.
//!
//! Facts are gathered through the doors and adapters that a deploy uses; what they mean is decided by pure functions
//! from facts to checks. Nothing is changed that stays: no lock is taken, and what is written to see whether it can be
//! is gone again. What one trouble hides is skipped and says why, so that the first broken check is the cause.

mod account;
mod checkout;
mod hosts;
mod places;

use crate::context::{Context, var};
use crate::error::{Kind, Result, hint_of, kind_of, with_guides};
use crate::project::{self, Env, Handoff, Project};
use crate::tool::Tool;
use serde::Serialize;

/// How many seconds a question to CircleCI or a bucket may take, where nobody says otherwise: nobody waits two minutes
/// for a diagnosis.
const API_DEADLINE: &str = "15";

/// What `doctor` answers. As JSON:
///
/// ```json
/// { "works": false, "env": "dev", "ci": false, "broken": 1, "warnings": 0, "checks": [
///   { "group": "dev", "subject": "ssh://web1/srv/app", "what": "disk", "state": "broken",
///     "detail": "1.0 MiB free, a release takes 4.0 MiB", "hint": "make room ..." } ] }
/// ```
///
/// `env` is null where all envs were looked at. `subject`, `detail` and `hint` may be null; what is `broken` or a
/// `warning` has both of the latter. Checks are in the order in which they should be mended.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// Whether a deploy would work: nothing is broken.
    pub works: bool,
    /// The env that was asked about.
    pub env: Option<String>,
    /// Whether only that was looked at which a job without contexts can know.
    pub ci: bool,
    /// How many checks are broken.
    pub broken: usize,
    /// How many ask for a look.
    pub warnings: usize,
    /// Each thing that was looked at.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `tools`, `git`, `project`, `circleci`, `stores`, or the name of an env.
    pub group: String,
    /// The target that it is about.
    pub subject: Option<String>,
    /// What was looked at, in a word or two; a store by its URL.
    pub what: String,
    /// What came of it.
    pub state: State,
    /// What was found.
    pub detail: Option<String>,
    /// What to do, as a command to type where there is one.
    pub hint: Option<String>,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is as it should be.
    Ok,
    /// A deploy would work, and somebody should look.
    Warning,
    /// A deploy would not work.
    Broken,
    /// It was not looked at; the detail says why.
    Skipped,
}

impl State {
    /// The word for it.
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

    /// What a failure means for a deploy; skipped checks have no use for its hint.
    fn of(what: impl Into<String>, state: State, fault: &Fault) -> Self {
        let hint = Some(fault.hint.clone()).filter(|_| state != State::Skipped);
        Self::new(what, state, Some(fault.text.clone()), hint)
    }
}

/// A failure as a value, so that what it means is a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: Kind,
    text: String,
    hint: String,
}

/// A fact, or why there is none.
type Found<T> = Result<T, Fault>;

/// Takes an error as a fact.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` has it")]
fn fault(error: anyhow::Error) -> Fault {
    let hint = hint_of(&error).unwrap_or("run it again with -v to see the commands").to_owned();
    Fault { kind: kind_of(&error), text: format!("{error:#}"), hint }
}

/// What is looked at, and from where.
#[derive(Clone, Copy)]
struct Scope<'a> {
    tool: &'a Tool<'a>,
    project: &'a Project,
    /// The envs that were asked about.
    envs: &'a [&'a Env],
    /// Only what a job without contexts can know.
    ci: bool,
    /// Whether this is a job.
    in_job: bool,
}

impl Scope<'_> {
    /// Whether the project is meant for CircleCI at all, and not only for this machine.
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
    /// Releases are handed over by it.
    Always,
    /// A store asks it for what no other has.
    Sometimes,
    /// Nothing does.
    Never,
}

/// What a health check asks, where that is an address.
fn address(check: &project::Check) -> Option<&'static str> {
    match check {
        project::Check::Http { url, .. } => Some(url),
        project::Check::Tcp { addr } => Some(addr),
        project::Check::None | project::Check::Command(_) => None,
    }
}

/// Looks at everything; with `env` only at that one's hosts, with `ci` only at what a job without contexts can know.
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
        // Before lines are broken: half a secret is not found any more.
        for check in &mut checks {
            for text in [&mut check.detail, &mut check.hint].into_iter().flatten() {
                *text = ctx.scrub(&with_guides(text));
            }
        }
        let count = |state| checks.iter().filter(|check| check.state == state).count();
        let (broken, warnings) = (count(State::Broken), count(State::Warning));
        Self { works: broken == 0, env: env.map(str::to_owned), ci, broken, warnings, checks }
    }
}
