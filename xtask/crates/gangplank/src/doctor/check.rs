//! What a check of the doctor found, and what it was asked for.

use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Kind, Result, hint_of, kind_of};
use gangplank_model::project;
use gangplank_model::project::{Env, Handoff, Project};
use serde::Serialize;

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

impl Check {
    pub(crate) fn new(what: impl Into<String>, state: State, detail: Option<String>, hint: Option<String>) -> Self {
        Self { group: String::new(), subject: None, what: what.into(), state, detail, hint }
    }

    pub(crate) fn fine(what: impl Into<String>) -> Self {
        Self::new(what, State::Ok, None, None)
    }

    pub(crate) fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, State::Ok, Some(detail.into()), None)
    }

    pub(crate) fn skipped(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(what, State::Skipped, Some(reason.into()), None)
    }

    pub(crate) fn warning(what: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(what, State::Warning, Some(detail.into()), Some(hint.into()))
    }

    pub(crate) fn broken(what: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(what, State::Broken, Some(detail.into()), Some(hint.into()))
    }

    /// A check from an error; a skipped one has no hint.
    pub(crate) fn of(what: impl Into<String>, state: State, fault: &Fault) -> Self {
        let hint = Some(fault.hint.clone()).filter(|_| state != State::Skipped);
        Self::new(what, state, Some(fault.text.clone()), hint)
    }
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

/// An error as a value, for pure functions and tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) hint: String,
}

/// A fact, or why it is unknown.
pub type Found<T> = Result<T, Fault>;

/// Converts an error.
#[allow(clippy::needless_pass_by_value, reason = "as `map_err` has it")]
pub fn fault(error: anyhow::Error) -> Fault {
    let hint = hint_of(&error).unwrap_or("run it again with -v to see the commands").to_owned();
    Fault { kind: kind_of(&error), text: format!("{error:#}"), hint }
}

/// The scope of a diagnosis.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub(crate) tool: &'a Tool<'a>,
    pub(crate) project: &'a Project,
    /// The envs to check.
    pub(crate) envs: &'a [&'a Env],
    /// Only checks of a job without contexts.
    pub(crate) ci: bool,
    /// Whether this is a job.
    pub(crate) in_job: bool,
}

impl Scope<'_> {
    /// Whether the project uses CircleCI.
    pub(crate) fn uses_circleci(&self, has_config: bool) -> bool {
        has_config || self.project.stores.iter().any(|url| url.starts_with("circleci:"))
    }

    /// Whether a deploy needs CircleCI's API.
    pub(crate) fn need(&self) -> Need {
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
pub enum Need {
    /// Releases are passed on by the API.
    Always,
    /// A store asks it for releases that no other store has.
    Sometimes,
    /// It is not needed.
    Never,
}

/// The address that a health check requests, if any.
pub fn address(check: &project::Check) -> Option<&'static str> {
    match check {
        project::Check::Http { url, .. } => Some(url),
        project::Check::Tcp { addr } => Some(addr),
        project::Check::None | project::Check::Command(_) => None,
    }
}

pub fn grouped(group: &str, checks: Vec<Check>) -> impl Iterator<Item = Check> {
    checks.into_iter().map(move |check| Check { group: group.to_owned(), ..check })
}
