//! The model of a configuration: definitions, and workflows whose jobs are linked by `requires`.
//!
//! The checks read only this. [`super::read`] builds it once, and it borrows the YAML tree for details that a single
//! check needs.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::text;
use crate::text::Parameters;
use crate::yaml::Node;

pub(super) struct Model<'a> {
    pub root: &'a Node,
    pub definitions: Vec<Definition<'a>>,
    pub lists: Vec<StepList<'a>>,
    /// Names before a `/`: orbs and functions.
    pub orbs: BTreeSet<&'a str>,
    pub functions: BTreeSet<&'a str>,
    /// Declared pipeline parameters.
    pub parameters: BTreeSet<&'a str>,
    /// Groups of jobs that a workflow runs as one.
    pub groups: BTreeMap<&'a str, &'a Node>,
    pub workflows: Vec<Workflow<'a>>,
}

/// A job, command or executor, used or not.
pub(super) struct Definition<'a> {
    pub kind: Kind,
    pub name: &'a str,
    pub line: usize,
    pub body: &'a Node,
}

/// Steps as written in a job, a command, or around a job in a workflow. Includes conditional ones; commands are not
/// expanded, parameters not filled in.
pub(super) struct StepList<'a> {
    /// For messages: ``job `build` ``.
    pub owner: String,
    pub kind: Kind,
    pub name: &'a str,
    pub steps: Vec<Step<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Job,
    Command,
    Executor,
}

/// A step. `scope` has the known parameters of its texts.
#[derive(Clone)]
pub(super) struct Step<'a> {
    pub line: usize,
    pub name: String,
    pub body: Option<&'a Node>,
    pub scope: Rc<Parameters>,
    /// Inside a `when` or `unless`, so it may not run.
    pub conditional: bool,
}

/// A text of a step with its parameters filled in.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub line: usize,
    pub text: String,
}

pub(super) struct Workflow<'a> {
    pub name: &'a str,
    /// The names in `when:`, `unless:` and a schedule.
    pub condition: Option<Vec<&'a str>>,
    pub start: Start,
    pub max_auto_reruns: Option<usize>,
    pub invocations: Vec<Invocation<'a>>,
}

/// The trigger of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Every push to any branch.
    EveryPush,
    /// Pushes to some branches.
    SomePushes,
    /// A parameter, a schedule or an event, but not a push.
    Request,
}

/// A job in a workflow.
pub(super) struct Invocation<'a> {
    /// The name in the workflow: `name:`, or the name of the job.
    pub name: String,
    /// The names of all its jobs: one, or one per combination of its matrix.
    pub names: Vec<String>,
    /// Other names for `requires`: a matrix's alias, a job group.
    pub aliases: Vec<String>,
    /// The name under `jobs:`, or `orb/job`.
    pub job: &'a str,
    pub line: usize,
    pub role: Role,
    pub body: Option<&'a Node>,
    /// The workflow's entry for the job group of this job.
    pub group: Option<&'a Node>,
    pub requires: Vec<Text>,
    /// Indexes into [`Workflow::invocations`], from `requires`.
    pub parents: Vec<usize>,
    /// All its steps in order, with commands expanded and parameters filled in.
    pub steps: Vec<Step<'a>>,
    /// Some of its steps are unknown, so nothing counts as missing.
    pub opaque: bool,
    pub matrix: bool,
    pub parallel: bool,
    /// `None` if only an orb knows it.
    pub working_directory: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs steps.
    Build,
    Approval,
    /// `no-op`, `release`, `lock`: runs no steps.
    Idle,
    /// From an orb.
    Orb,
    /// Not defined.
    Undefined,
}

/// A `persist_to_workspace` step.
pub(super) struct Persist {
    pub root: Option<Text>,
    pub paths: Vec<Text>,
}

impl Model<'_> {
    pub fn definition(&self, kind: Kind, name: &str) -> Option<&Definition<'_>> {
        self.definitions.iter().find(|it| it.kind == kind && it.name == name)
    }

    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.definitions.iter().filter(move |it| it.kind == kind).map(|it| it.name)
    }

    pub(crate) fn invocations(&self) -> impl Iterator<Item = (&Workflow<'_>, &Invocation<'_>)> {
        self.workflows
            .iter()
            .flat_map(|workflow| workflow.invocations.iter().map(move |invocation| (workflow, invocation)))
    }

    /// Version 2.1 expands `<< … >>`; version 2 does not.
    pub(crate) fn has_templates(&self) -> bool {
        let version = self.root.get("version").and_then(Node::text);
        version.is_none_or(|version| !matches!(version.trim(), "2" | "2.0"))
    }

    /// The jobs in workflows, and the commands that they call.
    pub fn used(&self) -> BTreeSet<(Kind, &str)> {
        let mut calls: BTreeMap<(Kind, &str), Vec<&str>> = BTreeMap::new();
        for (list, step) in self.steps() {
            calls.entry((list.kind, list.name)).or_default().push(&step.name);
        }
        let mut used = BTreeSet::new();
        let mut open: Vec<(Kind, &str)> = self.invocations().map(|(_, it)| (Kind::Job, it.job)).collect();
        while let Some(next) = open.pop() {
            if used.insert(next) {
                let called = calls.get(&next).map_or(&[][..], Vec::as_slice);
                open.extend(called.iter().map(|name| (Kind::Command, *name)));
            }
        }
        used
    }

    pub fn steps(&self) -> impl Iterator<Item = (&StepList<'_>, &Step<'_>)> {
        self.lists.iter().flat_map(|list| list.steps.iter().map(move |step| (list, step)))
    }
}

impl Definition<'_> {
    /// ``job `build` ``, for messages.
    pub fn title(&self) -> String {
        let kind = match self.kind {
            Kind::Job => "job",
            Kind::Command => "command",
            Kind::Executor => "executor",
        };
        format!("{kind} `{}`", self.name)
    }
}

impl Step<'_> {
    /// The scalar under `key`.
    pub fn text(&self, key: &str) -> Option<Text> {
        self.fill(self.body?.get(key)?)
    }

    /// The scalars under `key`, which may be one or a list.
    pub fn texts(&self, key: &str) -> Vec<Text> {
        let nodes = self.body.and_then(|body| body.get(key)).into_iter();
        nodes.flat_map(Node::one_or_many).filter_map(|node| self.fill(node)).collect()
    }

    /// The shell text of a `run`, in either of its forms.
    pub fn command(&self) -> Option<Text> {
        if self.name != "run" && self.name != "deploy" {
            return None;
        }
        self.body.and_then(|body| self.fill(body)).or_else(|| self.text("command"))
    }

    pub fn persist(&self) -> Option<Persist> {
        (self.name == "persist_to_workspace")
            .then(|| Persist { root: self.text("root"), paths: [self.texts("paths"), self.texts("path")].concat() })
    }

    /// The directory of an `attach_workspace`.
    pub fn attach(&self) -> Option<Text> {
        let at = || self.text("at").unwrap_or(Text { line: self.line, text: String::new() });
        (self.name == "attach_workspace").then(at)
    }

    fn fill(&self, node: &Node) -> Option<Text> {
        let text = text::fill(node.text()?, &self.scope);
        (!node.is_null()).then_some(Text { line: node.line, text })
    }
}

impl Invocation<'_> {
    pub fn persists(&self) -> impl Iterator<Item = Persist> {
        self.steps.iter().filter_map(Step::persist)
    }

    pub fn attaches(&self) -> impl Iterator<Item = Text> {
        self.steps.iter().filter_map(Step::attach)
    }

    pub(crate) fn is_persisting(&self) -> bool {
        self.persists().next().is_some()
    }

    /// Builds files for other jobs.
    pub(crate) fn is_building(&self) -> bool {
        let stores = self.steps.iter().any(|step| step.name == "store_artifacts");
        self.is_persisting() || (stores && !self.is_deploying()) || text::says_build(&self.name)
    }

    /// Deploys, according to its name.
    pub(crate) fn is_deploying(&self) -> bool {
        matches!(self.role, Role::Build | Role::Orb)
            && !text::says_build(&self.name)
            && !text::says_check(&self.name)
            && (text::says_deploy(&self.name) || text::says_deploy(self.job))
    }

    /// Whether `required` is its name, or a name of several invocations.
    pub(crate) fn answers_to(&self, required: &str) -> bool {
        let mut aliases = self.aliases.iter();
        self.names.iter().any(|name| text::may_equal(name, required)) || aliases.any(|alias| alias == required)
    }

    pub fn contexts(&self) -> Vec<&str> {
        let contexts = self.body.and_then(|body| body.get("context"));
        contexts.into_iter().flat_map(Node::one_or_many).filter_map(Node::text).collect()
    }

    pub fn serial_group(&self) -> Option<(usize, &str)> {
        serial_group(self.body?)
    }

    /// The key of its group.
    pub(crate) fn serial_group_of_group(&self) -> Option<(usize, &str)> {
        serial_group(self.group?)
    }

    /// Whether its own filters, or those of its group, exclude some branches.
    pub(crate) fn is_filtered(&self) -> bool {
        [self.body, self.group].into_iter().flatten().filter_map(|body| body.get("filters")).any(is_filter)
    }

    /// Whether it may run for a pushed tag. Without filters a job never does; an expression is not evaluated, so it
    /// may.
    pub(crate) fn may_run_on_tags(&self) -> bool {
        let filters = self.body.and_then(|body| body.get("filters"));
        filters.is_some_and(|filters| filters.text().is_some() || filters.get("tags").is_some_and(lets_tags_through))
    }

    /// Whether no branch starts it.
    pub(crate) fn ignores_branches(&self) -> bool {
        let filters = self.body.and_then(|body| body.get("filters"));
        let ignored = filters.and_then(|filters| filters.get("branches")?.get("ignore"));
        ignored.is_some_and(ignores_all)
    }

    /// Whether it runs for tags but not for branches.
    pub(crate) fn is_for_tags(&self) -> bool {
        let Some(filters) = self.body.and_then(|body| body.get("filters")) else { return false };
        if let Some(expression) = filters.text() {
            return expression.contains("pipeline.git.tag") && !expression.contains("pipeline.git.branch");
        }
        self.may_run_on_tags() && self.ignores_branches()
    }

    /// Whether it runs only on a pipeline parameter or a kind of trigger.
    pub(crate) fn is_asked_for(&self) -> bool {
        let filters = self.body.and_then(|body| body.get("filters"));
        let asks = ["pipeline.parameters.", "pipeline.trigger", "pipeline.event", "pipeline.deploy"];
        filters.and_then(Node::text).is_some_and(|expression| asks.iter().any(|ask| expression.contains(ask)))
    }
}

fn serial_group(body: &Node) -> Option<(usize, &str)> {
    let key = body.get("serial-group")?;
    Some((key.line, key.text()?))
}

fn ignores_all(ignored: &Node) -> bool {
    ignored.one_or_many().any(|it| it.text() == Some("/.*/"))
}

/// Whether a filter matches any tag.
fn lets_tags_through(tags: &Node) -> bool {
    tags.get("only").is_some_and(|only| !only.is_null()) || !tags.get("ignore").is_some_and(ignores_all)
}

/// Whether filters exclude some branches but not all.
fn is_filter(filters: &Node) -> bool {
    if let Some(expression) = filters.text() {
        return expression.contains("pipeline.");
    }
    let Some(branches) = filters.get("branches") else { return false };
    // With `only`, `ignore` has no effect.
    match branches.get("only") {
        Some(only) => only.one_or_many().all(|it| it.text() != Some("/.*/")),
        None => branches.get("ignore").is_some_and(|ignore| !ignore.is_null()),
    }
}

impl Workflow<'_> {
    /// Whether one push may start both.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.condition == other.condition || ![self.start, other.start].contains(&Start::Request)
    }

    /// The transitive dependencies of invocation `of`.
    pub fn ancestors(&self, of: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = self.invocations[of].parents.clone();
        while let Some(next) = open.pop() {
            if found.insert(next) {
                open.extend(&self.invocations[next].parents);
            }
        }
        found
    }

    /// For each invocation, whether some branches never reach it.
    ///
    /// A filtered-out job is ignored in `requires`; a job does not run only if all jobs that it requires are filtered
    /// out. So one unfiltered parent suffices to run it.
    pub(crate) fn guarded(&self) -> Vec<bool> {
        let own = |invocation: &Invocation| self.start != Start::EveryPush || invocation.is_filtered();
        let mut guarded: Vec<bool> = self.invocations.iter().map(own).collect();
        loop {
            let opened = |at: usize| {
                let parents = &self.invocations[at].parents;
                !guarded[at] && !parents.is_empty() && parents.iter().all(|&it| guarded[it])
            };
            let news: Vec<usize> = (0..guarded.len()).filter(|&at| opened(at)).collect();
            if news.is_empty() {
                return guarded;
            }
            for at in news {
                guarded[at] = true;
            }
        }
    }
}
