//! Builds the [`Model`] from the YAML tree: finds the definitions, expands commands in the jobs that call them, fills
//! in parameters, and links the jobs of a workflow.
//!
//! Reports nothing. A value of the wrong shape, which the schema reports, counts as absent.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::matrix;
use crate::model::{Definition, Invocation, Kind, Model, Role, Start, Step, StepList, Text, Workflow};
use crate::text;
use crate::text::Parameters;
use crate::yaml::Node;

/// The limits of the expansion of nested commands.
const CALLS_DEEP_MAX: usize = 16;
const STEPS_MAX: usize = 2_000;

/// Built-in steps of CircleCI. `steps` stands for a parameter of type `steps`.
pub(super) const BUILT_IN_STEPS: &[&str] = &[
    "add_ssh_keys",
    "attach_workspace",
    "checkout",
    "deploy",
    "install_signing_bundle",
    "persist_to_workspace",
    "restore_cache",
    "run",
    "save_cache",
    "setup_remote_docker",
    "steps",
    "store_artifacts",
    "store_test_results",
    "unless",
    "when",
    "with_tool_cache",
];

pub(super) fn model(root: &Node) -> Model<'_> {
    let mut model = Model {
        root,
        definitions: definitions(root),
        lists: Vec::new(),
        orbs: keys(root, "orbs"),
        functions: keys(root, "functions"),
        parameters: keys(root, "parameters"),
        groups: section(root, "job-groups").map(|(key, _, body)| (key, body)).collect(),
        workflows: Vec::new(),
    };
    model.workflows = workflows(&model);
    model.lists = lists(&model);
    model
}

/// The named entries of a top-level key.
fn section<'a>(root: &'a Node, key: &str) -> impl Iterator<Item = (&'a str, usize, &'a Node)> {
    let entries = root.get(key).map_or(&[][..], Node::entries);
    entries.iter().filter_map(|(key, body)| Some((key.text()?, key.line, body)))
}

fn keys<'a>(root: &'a Node, key: &str) -> BTreeSet<&'a str> {
    section(root, key).map(|(name, _, _)| name).collect()
}

fn definitions(root: &Node) -> Vec<Definition<'_>> {
    let kinds = [(Kind::Job, "jobs"), (Kind::Command, "commands"), (Kind::Executor, "executors")];
    let of_kind = |(kind, key)| section(root, key).map(move |(name, line, body)| Definition { kind, name, line, body });
    kinds.into_iter().flat_map(of_kind).collect()
}

fn lists<'a>(model: &Model<'a>) -> Vec<StepList<'a>> {
    let list = |owner, kind, name, list: &'a Node| StepList { owner, kind, name, steps: steps(list, &Rc::default()) };
    let defined =
        model.definitions.iter().filter_map(|it| Some(list(it.title(), it.kind, it.name, it.body.get("steps")?)));
    let around = model.workflows.iter().flat_map(|workflow| {
        let invocations = workflow.invocations.iter().filter_map(|it| Some((it.job, it.body?)));
        invocations.flat_map(move |(job, body)| {
            let lists = ["pre-steps", "post-steps"].into_iter().filter_map(|key| body.get(key));
            lists.map(move |steps| list(format!("job `{job}` of workflow `{}`", workflow.name), Kind::Job, job, steps))
        })
    });
    defined.chain(around).collect()
}

/// The steps of a list, including those under `when`, `unless` and `with_tool_cache`.
fn steps<'a>(list: &'a Node, scope: &Rc<Parameters>) -> Vec<Step<'a>> {
    let mut found = Vec::new();
    collect(list, scope, false, &mut found);
    found
}

fn collect<'a>(node: &'a Node, scope: &Rc<Parameters>, conditional: bool, found: &mut Vec<Step<'a>>) {
    if let Some(text) = node.text() {
        let name = text::fill(text, scope);
        found.push(Step { line: node.line, name, body: None, scope: Rc::clone(scope), conditional });
    }
    for item in node.items() {
        collect(item, scope, conditional, found);
    }
    let Some((key, body)) = node.entries().first() else { return };
    let name = text::fill(key.text().unwrap_or_default(), scope);
    let inner = match name.as_str() {
        "when" | "unless" | "with_tool_cache" => body.get("steps"),
        _ => None,
    };
    if let Some(inner) = inner {
        return collect(inner, scope, conditional || name != "with_tool_cache", found);
    }
    found.push(Step { line: key.line, name, body: Some(body), scope: Rc::clone(scope), conditional });
}

fn workflows<'a>(model: &Model<'a>) -> Vec<Workflow<'a>> {
    if model.root.get("workflows").is_none() {
        return implicit_workflow(model).into_iter().collect();
    }
    // Old configurations have `version: 2` among the workflows.
    let named = section(model.root, "workflows").filter(|(_, _, body)| body.text().is_none());
    named
        .map(|(name, _, body)| {
            let jobs = body.get("jobs").map_or(&[][..], Node::items);
            let invocations = jobs.iter().flat_map(|job| invoked(model, job)).collect();
            workflow(model, name, body, invocations)
        })
        .collect()
}

/// Without `workflows:`, CircleCI runs the job named `build`.
fn implicit_workflow<'a>(model: &Model<'a>) -> Option<Workflow<'a>> {
    let build = model.definitions.iter().find(|it| it.kind == Kind::Job && it.name == "build")?;
    let invocation = invocation(model, build.name, build.line, None);
    Some(workflow(model, "build", model.root, vec![invocation]))
}

fn workflow<'a>(model: &Model<'a>, name: &'a str, body: &'a Node, invocations: Vec<Invocation<'a>>) -> Workflow<'a> {
    let conditions = ["when", "unless", "triggers"].into_iter().filter_map(|key| {
        let texts = body.get(key)?.texts();
        Some([vec![key], texts].concat())
    });
    let condition = conditions.reduce(|one, other| [one, other].concat());
    let max_auto_reruns = body.entry("max_auto_reruns").map(|(key, _)| key.line);
    let mut workflow = Workflow { name, condition, start: start(model, body), max_auto_reruns, invocations };
    link(&mut workflow);
    workflow
}

/// The trigger of a workflow. A condition that is not a chain of comparisons is assumed to be true.
fn start(model: &Model, body: &Node) -> Start {
    let written = |key| body.get(key).filter(|node| !node.is_null());
    if written("unless").is_some() || written("triggers").is_some() {
        return Start::Request;
    }
    let Some(when) = written("when") else { return Start::EveryPush };
    let Some(expression) = when.text().filter(|text| !text.contains(" or ")) else { return Start::Request };
    let mut start = Start::EveryPush;
    for clause in expression.trim_start_matches("<<").trim_end_matches(">>").split(" and ").map(str::trim) {
        if clause.contains("pipeline.git.") {
            start = Start::SomePushes;
        } else if !holds_by_default(model, clause) {
            return Start::Request;
        }
    }
    start
}

/// Whether `pipeline.parameters.x == "y"` holds for the default of x.
fn holds_by_default(model: &Model, clause: &str) -> bool {
    let Some((name, is)) = clause.split_once("==") else { return false };
    let Some(name) = name.trim().strip_prefix("pipeline.parameters.") else { return false };
    let default = model.root.get("parameters").and_then(|it| it.get(name)?.get("default")?.text());
    default == Some(is.trim().trim_matches(['"', '\'']))
}

/// Resolves the names in `requires` to indexes. A check reports unknown names.
fn link(workflow: &mut Workflow) {
    let mut named: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, invocation) in workflow.invocations.iter().enumerate() {
        let aliases = invocation.aliases.iter().map(String::as_str);
        for name in aliases.chain([invocation.name.as_str()]) {
            named.entry(name).or_default().push(at);
        }
    }
    let parents = |invocation: &Invocation| -> Vec<usize> {
        let required = invocation.requires.iter().flat_map(|required| {
            let known = named.get(required.text.as_str()).cloned();
            known.unwrap_or_else(|| {
                let answers = |at: &usize| workflow.invocations[*at].answers_to(&required.text);
                (0..workflow.invocations.len()).filter(answers).collect()
            })
        });
        required.collect::<BTreeSet<_>>().into_iter().collect()
    };
    let linked: Vec<Vec<usize>> = workflow.invocations.iter().map(parents).collect();
    for (invocation, parents) in workflow.invocations.iter_mut().zip(linked) {
        invocation.parents = parents;
    }
}

/// The jobs of an item of a workflow's `jobs:`: one, or all of a group.
fn invoked<'a>(model: &Model<'a>, item: &'a Node) -> Vec<Invocation<'a>> {
    let Some((job, line, body)) = named_item(item) else { return Vec::new() };
    match model.groups.get(job) {
        Some(group) => grouped(model, job, group, body),
        None => vec![invocation(model, job, line, body)],
    }
}

/// `- build`, or `- build: {…}`.
fn named_item(item: &Node) -> Option<(&str, usize, Option<&Node>)> {
    if let Some(name) = item.text() {
        return Some((name, item.line, None));
    }
    let (key, body) = item.entries().first()?;
    Some((key.text()?, key.line, Some(body)))
}

/// The jobs of a group are named `group/job` in the workflow; the group's name stands for all.
fn grouped<'a>(model: &Model<'a>, name: &str, group: &'a Node, outer: Option<&'a Node>) -> Vec<Invocation<'a>> {
    let jobs = group.get("jobs").map_or(&[][..], Node::items);
    let inner = jobs.iter().filter_map(named_item).map(|(job, line, body)| {
        let mut invocation = invocation(model, job, line, body);
        invocation.name = format!("{name}/{}", invocation.name);
        invocation.names = invocation.names.iter().map(|it| format!("{name}/{it}")).collect();
        let aliases = invocation.aliases.iter().map(|alias| format!("{name}/{alias}"));
        invocation.aliases = aliases.chain([name.to_owned()]).collect();
        for required in &mut invocation.requires {
            required.text = format!("{name}/{}", required.text);
        }
        invocation.requires.extend(requires(outer, None));
        invocation.group = outer;
        invocation
    });
    inner.collect()
}

fn invocation<'a>(model: &Model<'a>, job: &'a str, line: usize, body: Option<&'a Node>) -> Invocation<'a> {
    let definition = model.definitions.iter().find(|it| it.kind == Kind::Job && it.name == job);
    let value = |key| body.and_then(|body| body.get(key));
    let matrix = value("matrix");
    let scope = Rc::new(job_parameters(definition.map(|it| it.body), body));
    let own = definition.map(|it| it.body).and_then(|job| job.get("steps"));
    let lists = [value("pre-steps"), own, value("post-steps")];
    let mut expanded = Expanded::default();
    for list in lists.into_iter().flatten() {
        expand(model, steps(list, &scope), 0, &mut expanded);
    }
    let role = role(definition, job, body);
    let named = value("name").and_then(Node::text);
    Invocation {
        name: named.unwrap_or(job).to_owned(),
        names: matrix::names(named, job, matrix),
        aliases: matrix.map_or(Vec::new(), |it| vec![it.get("alias").and_then(Node::text).unwrap_or(job).to_owned()]),
        job,
        line,
        role,
        body,
        group: None,
        requires: requires(body, matrix),
        parents: Vec::new(),
        steps: expanded.steps,
        opaque: expanded.opaque || matches!(role, Role::Orb | Role::Undefined),
        matrix: matrix.is_some(),
        parallel: definition.is_some_and(|it| is_parallel(it.body, &scope)),
        working_directory: working_directory(model, definition, &scope),
    }
}

fn role(definition: Option<&Definition>, job: &str, body: Option<&Node>) -> Role {
    let types = [body, definition.map(|it| it.body)];
    let kind = types.into_iter().flatten().find_map(|it| it.get("type").and_then(Node::text));
    match kind {
        Some("approval") => Role::Approval,
        None | Some("build") if definition.is_some() => Role::Build,
        None | Some("build") if job.contains('/') || text::is_open(job) => Role::Orb,
        None | Some("build") => Role::Undefined,
        Some(_) => Role::Idle,
    }
}

/// `requires` in its three forms: a name, `name: status`, `name: [statuses]`. A name with matrix values is expanded for
/// each job.
fn requires(body: Option<&Node>, matrix: Option<&Node>) -> Vec<Text> {
    let list = body.and_then(|body| body.get("requires"));
    let items = list.into_iter().flat_map(|list| match list.text() {
        Some(_) => std::slice::from_ref(list),
        None => list.items(),
    });
    let names = items.filter_map(named_item);
    let texts = |(name, line, _)| matrix::written_out(name, matrix).into_iter().map(move |text| Text { line, text });
    names.flat_map(texts).collect()
}

/// Defaults, then the workflow's arguments. Matrix values are unknown.
fn job_parameters(job: Option<&Node>, call: Option<&Node>) -> Parameters {
    let mut parameters = defaults(job);
    pass(&mut parameters, call, &Parameters::new());
    let varied = call.and_then(|call| call.get("matrix")?.get("parameters"));
    for (name, _) in varied.map_or(&[][..], Node::entries) {
        parameters.remove(name.text().unwrap_or_default());
    }
    parameters
}

fn defaults(definition: Option<&Node>) -> Parameters {
    let declared = definition.and_then(|it| it.get("parameters")).map_or(&[][..], Node::entries);
    let default =
        |(name, body): &(Node, Node)| Some((name.text()?.to_owned(), body.get("default")?.text()?.to_owned()));
    declared.iter().filter_map(default).collect()
}

/// Evaluates arguments in the caller's scope.
fn pass(parameters: &mut Parameters, call: Option<&Node>, caller: &Parameters) {
    for (name, value) in call.map_or(&[][..], Node::entries) {
        if let (Some(name), Some(value)) = (name.text(), value.text()) {
            parameters.insert(name.to_owned(), text::fill(value, caller));
        }
    }
}

#[derive(Default)]
struct Expanded<'a> {
    steps: Vec<Step<'a>>,
    /// Number of expanded calls, which bounds mutual recursion.
    seen: usize,
    opaque: bool,
}

/// Expands commands. A call that is too deep, or to an orb, makes the result opaque.
fn expand<'a>(model: &Model<'a>, steps: Vec<Step<'a>>, deep: usize, into: &mut Expanded<'a>) {
    for step in steps {
        let conditional = step.conditional;
        into.seen += 1;
        if into.seen > STEPS_MAX || deep > CALLS_DEEP_MAX {
            into.opaque = true;
            return;
        }
        let command = model.definitions.iter().find(|it| it.kind == Kind::Command && it.name == step.name);
        if let Some(command) = command {
            let mut parameters = defaults(Some(command.body));
            pass(&mut parameters, step.body, &step.scope);
            let inner = command.body.get("steps");
            let mut inner = inner.map_or(Vec::new(), |list| self::steps(list, &Rc::new(parameters)));
            for step in &mut inner {
                step.conditional |= conditional;
            }
            expand(model, inner, deep + 1, into);
        } else {
            into.opaque |= !BUILT_IN_STEPS.contains(&step.name.as_str()) || step.name == "steps";
            into.steps.push(step);
        }
    }
}

fn is_parallel(job: &Node, scope: &Parameters) -> bool {
    let parallelism = job.get("parallelism").and_then(Node::text).unwrap_or("1");
    // An unknown expression may or may not be more than one.
    text::fill(parallelism, scope).trim().parse::<u64>().is_ok_and(|nodes| nodes > 1)
}

/// The executor of a job.
pub(super) fn executor(job: &Node) -> Option<&Node> {
    let executor = job.get("executor")?;
    if executor.text().is_some() { Some(executor) } else { executor.get("name") }
}

fn working_directory(model: &Model, definition: Option<&Definition>, scope: &Parameters) -> Option<String> {
    let job = definition?.body;
    let name = executor(job).and_then(Node::text).map(|name| text::fill(name, scope));
    let shared = match &name {
        Some(name) => Some(model.definition(Kind::Executor, name)?.body),
        None => None,
    };
    let stated = [Some(job), shared].into_iter().flatten().find_map(|it| it.get("working_directory"));
    // An unquoted `~` is null, which CircleCI treats as absent.
    match stated.filter(|node| !node.is_null()).and_then(Node::text) {
        Some(directory) => text::directory(&text::fill(directory, scope), Some("~")),
        None => Some(text::DEFAULT_DIRECTORY.to_owned()),
    }
}
