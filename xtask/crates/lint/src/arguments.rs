//! Checks the arguments of commands, jobs and executors: none missing, none unknown, values of the declared type. The
//! parameters of an orb are unknown.

use std::collections::BTreeSet;

use crate::declared;
use crate::declared::Declared;
use crate::finding::Report;
use crate::model::{Kind, Model, Role};
use crate::read;
use crate::text;
use crate::text::did_you_mean;
use crate::yaml::Node;

/// Keys of a job in a workflow that are not arguments.
const JOB_KEYS: &[&str] = &[
    "context",
    "filters",
    "matrix",
    "name",
    "override-with",
    "post-steps",
    "pre-steps",
    "requires",
    "serial-group",
    "type",
    "unless",
    "when",
];

/// A call and its arguments.
struct Call<'a> {
    /// For messages: ``command `greet` of job `build` ``.
    title: String,
    line: usize,
    given: Vec<(&'a Node, &'a Node)>,
    /// Set by a matrix: only the names are known.
    varied: BTreeSet<&'a str>,
}

pub(super) fn wrong_arguments(model: &Model, report: &mut Report) {
    if !model.has_templates() {
        return;
    }
    for (list, step) in model.steps() {
        let Some(command) = model.definition(Kind::Command, &step.name) else { continue };
        // The schema reports a single value instead of a map.
        if read::BUILT_IN_STEPS.contains(&step.name.as_str()) || step.body.is_some_and(is_single) {
            continue;
        }
        let title = format!("{}, called by {},", command.title(), list.owner);
        let call = Call { title, line: step.line, given: given(step.body, &[]), varied: BTreeSet::new() };
        check(&call, &declared::parameters(command.body), report);
    }
    for (workflow, invocation) in model.invocations() {
        let Some(job) = model.definition(Kind::Job, invocation.job).filter(|_| invocation.role == Role::Build) else {
            continue;
        };
        let body = invocation.body;
        if body.is_some_and(|body| is_single(body) || body.get("override-with").is_some()) {
            continue;
        }
        let matrix = body.and_then(|body| body.get("matrix")?.get("parameters"));
        let varied = matrix.map_or(&[][..], Node::entries).iter().filter_map(|(name, _)| name.text());
        let call = Call {
            title: format!("job `{}` of workflow `{}`", invocation.name, workflow.name),
            line: invocation.line,
            given: given(body, JOB_KEYS),
            varied: varied.collect(),
        };
        check(&call, &declared::parameters(job.body), report);
    }
    for job in model.definitions.iter().filter(|it| it.kind == Kind::Job) {
        let Some(name) = read::executor(job.body) else { continue };
        let Some(executor) = name.text().and_then(|name| model.definition(Kind::Executor, name)) else { continue };
        let title = format!("{}, named by {},", executor.title(), job.title());
        let body = job.body.get("executor").filter(|body| !is_single(body));
        let call = Call { title, line: name.line, given: given(body, &["name"]), varied: BTreeSet::new() };
        check(&call, &declared::parameters(executor.body), report);
    }
}

fn is_single(body: &Node) -> bool {
    !body.is_null() && body.text().is_some()
}

fn given<'a>(body: Option<&'a Node>, without: &[&str]) -> Vec<(&'a Node, &'a Node)> {
    let entries = body.map_or(&[][..], Node::entries).iter();
    let is_argument = |name: &Node| name.text().is_some_and(|it| it != "<<" && !without.contains(&it));
    entries.filter(|(name, _)| is_argument(name)).map(|(name, value)| (name, value)).collect()
}

fn check(call: &Call, declared: &[Declared], report: &mut Report) {
    let known = || declared.iter().map(|it| it.name);
    for (name, value) in &call.given {
        let text = name.text().unwrap_or_default();
        let Some(parameter) = declared.iter().find(|it| it.name == text) else {
            report.error(
                "unknown-argument",
                name.line,
                format!("{} has no parameter `{text}`", call.title),
                format!("declare it there, or remove the argument{}", did_you_mean(text, known())),
            );
            continue;
        };
        if let Some(wanted) = parameter.mismatch(value) {
            let value = value.text().map_or(String::new(), |value| format!(" `{value}`"));
            report.error(
                "wrong-argument",
                name.line,
                format!("{} gets{value} for `{text}`, which takes {wanted}", call.title),
                "change the value, or the type of the parameter",
            );
        }
    }
    let is_given = |it: &&Declared| call.given.iter().any(|(name, _)| name.text() == Some(it.name));
    let missing: Vec<&str> = declared
        .iter()
        .filter(|it| it.is_required() && !is_given(it) && !call.varied.contains(it.name))
        .map(|it| it.name)
        .collect();
    if !missing.is_empty() {
        report.error(
            "missing-argument",
            call.line,
            format!("{} is called without {}", call.title, text::listed(&missing)),
            "pass a value, or give the parameter a `default:`",
        );
    }
}

pub(super) fn wrong_defaults(model: &Model, report: &mut Report) {
    if !model.has_templates() {
        return;
    }
    let defined = model.definitions.iter().map(|it| (it.title(), it.body));
    for (owner, body) in defined.chain([("the pipeline".to_owned(), model.root)]) {
        for parameter in declared::parameters(body) {
            let Some(default) = parameter.default else { continue };
            if let Some(wanted) = parameter.mismatch(default) {
                let value = default.text().map_or(String::new(), |value| format!(" `{value}`"));
                report.add(
                    parameter.mismatch_severity(),
                    "wrong-default",
                    default.line,
                    format!("parameter `{}` of {owner} has the default{value}, but takes {wanted}", parameter.name),
                    "change the default, or the type of the parameter".to_owned(),
                );
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::expect;

    use crate::tests::check;

    #[test]
    fn argument_that_is_missing_unknown_or_wrong_is_an_error() {
        check(
            "
            orbs: { aws: circleci/aws-cli@5.1 }
            executors: { linux: { parameters: { tag: { type: string } }, docker: [{ image: a:1 }] } }
            commands:
              greet:
                parameters: { who: { type: string }, times: { type: integer, default: 1 }, how: { type: enum, enum: [a, b], default: a } }
                steps: [{ run: echo << parameters.who >> }]
            jobs:
              build:
                parameters: { os: { type: string }, fast: { type: boolean, default: false } }
                executor: { name: linux, tga: '1' }
                steps:
                  - greet
                  - greet: { who: ana, tims: 2 }
                  - greet: { who: 8, times: '2', how: c }
                  - greet: { who: << parameters.os >>, how: << parameters.os >> }
                  - aws/setup: { whatever: 1 }
            workflows:
              w:
                jobs:
                  - build: { context: x, os: linux }
                  - build: { name: b, os: linux, filter: main }
                  - build: { name: c, fast: maybe, matrix: { parameters: { os: [a] } } }
                  - build: { name: d }
                  - aws/deploy: { whatever: 1 }
            ",
            expect![[r#"
                10 error missing-argument: executor `linux`, named by job `build`, is called without `tag`
                    pass a value, or give the parameter a `default:`
                10 error unknown-argument: executor `linux`, named by job `build`, has no parameter `tga`
                    declare it there, or remove the argument; did you mean `tag`?
                12 error missing-argument: command `greet`, called by job `build`, is called without `who`
                    pass a value, or give the parameter a `default:`
                13 error unknown-argument: command `greet`, called by job `build`, has no parameter `tims`
                    declare it there, or remove the argument; did you mean `times`?
                14 error wrong-argument: command `greet`, called by job `build`, gets `2` for `times`, which takes an integer, and this text is quoted
                    change the value, or the type of the parameter
                14 error wrong-argument: command `greet`, called by job `build`, gets `8` for `who`, which takes a text: quote it
                    change the value, or the type of the parameter
                14 error wrong-argument: command `greet`, called by job `build`, gets `c` for `how`, which takes one of `a` and `b`
                    change the value, or the type of the parameter
                21 error unknown-argument: job `b` of workflow `w` has no parameter `filter`
                    declare it there, or remove the argument
                22 error wrong-argument: job `c` of workflow `w` gets `maybe` for `fast`, which takes a boolean
                    change the value, or the type of the parameter
                23 error missing-argument: job `d` of workflow `w` is called without `os`
                    pass a value, or give the parameter a `default:`
                24 warning deploy-without-serial-group: job `aws/deploy` has no serial group: two pipelines can deploy at once, and in the wrong order
                    add `serial-group: << pipeline.project.slug >>/<environment>`
            "#]],
        );
    }

    #[test]
    fn default_of_the_wrong_type_is_an_error() {
        check(
            "
            parameters: { env: { type: enum, enum: [dev, prod], default: stage }, run: { type: boolean, default: 'no' } }
            commands: { c: { parameters: { n: { type: integer, default: many }, t: { type: string, default: 3 } }, steps: [checkout] } }
            jobs: { build: { parameters: { v: { type: env_var_name, default: $X } }, steps: [c] } }
            workflows: { w: { jobs: [build] } }
            ",
            expect![[r#"
                1 error wrong-default: parameter `env` of the pipeline has the default `stage`, but takes one of `dev` and `prod`
                    change the default, or the type of the parameter
                1 error wrong-default: parameter `run` of the pipeline has the default `no`, but takes a boolean, and this text is quoted
                    change the default, or the type of the parameter
                2 error wrong-default: parameter `n` of command `c` has the default `many`, but takes an integer
                    change the default, or the type of the parameter
                2 warning wrong-default: parameter `t` of command `c` has the default `3`, but takes a text: quote it
                    change the default, or the type of the parameter
                3 error wrong-default: parameter `v` of job `build` has the default `$X`, but takes the name of a variable: letters, digits and `_`
                    change the default, or the type of the parameter
            "#]],
        );
    }

    #[test]
    fn config_of_version_2_has_no_arguments() {
        check(
            "version: 2\njobs: { build: { steps: [checkout] } }\nworkflows: { w: { jobs: [{ build: { a: b } }] } }",
            expect![[""]],
        );
    }
}
