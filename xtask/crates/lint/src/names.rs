//! Checks references: jobs, `requires`, steps, executors, orbs, pipeline parameters.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::Report;
use crate::model::{Kind, Model, Role, Step, Workflow};
use crate::read;
use crate::read::BUILT_IN_STEPS;
use crate::requires;
use crate::text;
use crate::text::did_you_mean;
use crate::yaml::{Node, Value};

pub(super) fn undefined_jobs(model: &Model, report: &mut Report) {
    for (workflow, invocation) in model.invocations() {
        let Workflow { name, .. } = workflow;
        let job = invocation.job;
        match invocation.role {
            Role::Undefined => {
                let near = did_you_mean(job, model.names(Kind::Job));
                report.error(
                    "undefined-job",
                    invocation.line,
                    format!("workflow `{name}` runs job `{job}`, which is not defined"),
                    format!("define `{job}` under `jobs:`, or make it `type: approval`{near}"),
                );
            }
            Role::Orb => undeclared_orb(model, report, job, invocation.line, &format!("workflow `{name}`")),
            Role::Build | Role::Approval | Role::Idle => {}
        }
    }
}

/// `orb/thing` without a declared orb of that name.
fn undeclared_orb(model: &Model, report: &mut Report, name: &str, line: usize, owner: &str) {
    let Some((orb, thing)) = name.split_once('/') else { return };
    if text::is_open(orb) || model.orbs.contains(orb) || model.functions.contains(orb) {
        return;
    }
    let near = did_you_mean(orb, model.orbs.iter().copied());
    report.error(
        "undeclared-orb",
        line,
        format!("{owner} uses `{thing}` of the orb `{orb}`, which is not declared"),
        format!("declare it: `orbs: {{ {orb}: <namespace>/{orb}@<version> }}`{near}"),
    );
}

pub(super) fn undefined_requires(model: &Model, report: &mut Report) {
    for (workflow, invocation) in model.invocations() {
        let names: Vec<&str> = workflow.invocations.iter().map(|it| it.name.as_str()).collect();
        for required in &invocation.requires {
            let answered = workflow.invocations.iter().any(|it| it.answers_to(&required.text));
            let counted = is_counted(workflow, &required.text);
            if answered || counted || text::is_open(&required.text) || required.text.is_empty() {
                continue;
            }
            let near = did_you_mean(&required.text, names.iter().copied());
            report.error(
                "undefined-requires",
                required.line,
                format!(
                    "job `{}` requires `{}`, which workflow `{}` does not run",
                    invocation.name, required.text, workflow.name
                ),
                format!("require a job by the name that it has in this workflow{near}"),
            );
        }
    }
}

/// A job that occurs twice without `name:` is called `job-1` and `job-2`.
fn is_counted(workflow: &Workflow, required: &str) -> bool {
    let Some((job, number)) = required.rsplit_once('-') else { return false };
    let times = workflow.invocations.iter().filter(|it| it.name == job).count();
    times > 1 && number.parse().is_ok_and(|number: usize| (1..=times).contains(&number))
}

pub(super) fn requires_cycles(model: &Model, report: &mut Report) {
    for workflow in &model.workflows {
        for (line, circle) in requires::cycles(workflow) {
            report.error(
                "requires-cycle",
                line,
                format!("jobs of workflow `{}` wait for each other: {}", workflow.name, circle.join(" requires ")),
                "remove one `requires` of the circle: none of these jobs can start",
            );
        }
    }
}

pub(super) fn unknown_steps(model: &Model, report: &mut Report) {
    for (list, step) in model.steps() {
        let Step { line, name, .. } = step;
        if name.contains('/') {
            undeclared_orb(model, report, name, *line, &list.owner);
        } else if !is_known_step(model, name) {
            let commands = model.names(Kind::Command).chain(BUILT_IN_STEPS.iter().copied());
            let near = did_you_mean(name, commands);
            report.error(
                "unknown-step",
                *line,
                format!("{} has a step `{name}`, which is neither built in nor a command", list.owner),
                format!("write `run: {name}` for a shell command, or define it under `commands:`{near}"),
            );
        }
    }
}

fn is_known_step(model: &Model, name: &str) -> bool {
    name.is_empty()
        || text::is_open(name)
        || BUILT_IN_STEPS.contains(&name)
        || model.functions.contains(name)
        || model.names(Kind::Command).any(|command| command == name)
}

pub(super) fn command_cycles(model: &Model, report: &mut Report) {
    let called_by = |name: &str| -> Vec<&str> {
        let own = model.steps().filter(|(list, _)| list.kind == Kind::Command && list.name == name);
        own.map(|(_, step)| step.name.as_str()).collect()
    };
    for command in model.definitions.iter().filter(|it| it.kind == Kind::Command) {
        let mut reached = BTreeSet::new();
        let mut open = called_by(command.name);
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(called_by(next));
            }
        }
        if reached.contains(command.name) {
            report.error(
                "command-cycle",
                command.line,
                format!("command `{}` ends up calling itself", command.name),
                "a command is written out before the job starts, so it cannot recurse: remove the call",
            );
        }
    }
}

pub(super) fn undefined_executors(model: &Model, report: &mut Report) {
    for definition in model.definitions.iter().filter(|it| it.kind == Kind::Job) {
        let Some(executor) = read::executor(definition.body) else { continue };
        let Some(name) = executor.text().filter(|_| !executor.is_null()) else { continue };
        if name.contains('/') {
            undeclared_orb(model, report, name, executor.line, &definition.title());
        } else if !text::is_open(name) && model.definition(Kind::Executor, name).is_none() {
            let near = did_you_mean(name, model.names(Kind::Executor));
            report.error(
                "undefined-executor",
                executor.line,
                format!("{} runs on executor `{name}`, which is not defined", definition.title()),
                format!("define `{name}` under `executors:`{near}"),
            );
        }
    }
}

pub(super) fn undeclared_parameters(model: &Model, report: &mut Report) {
    let mut used = Vec::new();
    parameters_in(model.root, false, &mut used);
    for (line, name) in used {
        if model.parameters.contains(name) {
            continue;
        }
        let near = did_you_mean(name, model.parameters.iter().copied());
        report.error(
            "undeclared-parameter",
            line,
            format!("`pipeline.parameters.{name}` is used, but the pipeline has no parameter `{name}`"),
            format!("declare it: `parameters: {{ {name}: {{ type: string, default: \"\" }} }}`{near}"),
        );
    }
}

/// The pipeline parameters used in a tree: in `<< >>` anywhere, and bare in a text that is an expression. A mention in
/// a shell script does not count.
fn parameters_in<'a>(node: &'a Node, expression: bool, used: &mut Vec<(usize, &'a str)>) {
    match &node.value {
        Value::Scalar { text, .. } => {
            let whole = expression.then_some(text.as_str());
            let parts = whole.into_iter().chain(text::expressions(text).filter(|_| !expression));
            used.extend(parts.flat_map(text::pipeline_parameters).map(|name| (node.line, name)));
        }
        Value::Seq(items) => {
            for item in items {
                parameters_in(item, expression, used);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                let opens = ["when", "unless", "condition", "filters"];
                let opens = key.text().is_some_and(|key| opens.contains(&key));
                // The steps under a `when` are steps again.
                let closes = key.text() == Some("steps");
                parameters_in(key, false, used);
                parameters_in(value, (expression || opens) && !closes, used);
            }
        }
    }
}

pub(super) fn unused_jobs(model: &Model, report: &mut Report) {
    let used: BTreeSet<&str> = model.invocations().map(|(_, it)| it.job).collect();
    if used.is_empty() {
        return;
    }
    for definition in model.definitions.iter().filter(|it| it.kind == Kind::Job) {
        if !used.contains(definition.name) {
            report.warning(
                "unused-job",
                definition.line,
                format!("job `{}` is in no workflow, so it never runs", definition.name),
                "add it to a workflow, or remove it",
            );
        }
    }
}

pub(super) fn duplicate_keys(model: &Model, report: &mut Report) {
    duplicates_in(model.root, report);
}

fn duplicates_in(node: &Node, report: &mut Report) {
    let mut seen = BTreeMap::new();
    for (key, value) in node.entries() {
        let Some(name) = key.text() else { continue };
        if let Some(first) = seen.insert(name, key.line) {
            report.warning(
                "duplicate-key",
                key.line,
                format!("`{name}` is written twice in one map, first on line {first}"),
                "merge the two, or remove one: only one of them takes effect",
            );
        }
        duplicates_in(value, report);
    }
    for item in node.items() {
        duplicates_in(item, report);
    }
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::expect;

    use crate::tests::check;

    #[test]
    fn jobs_of_workflows() {
        check(
            "
            orbs: { aws: circleci/aws-cli@5.1 }
            jobs: { build: { steps: [checkout] }, test: { type: no-op } }
            workflows:
              w:
                jobs:
                  - build
                  - biuld
                  - test
                  - hold: { type: approval }
                  - aws/setup
                  - asw/setup
                  - << pipeline.parameters.job >>
            parameters: { job: { type: string, default: build } }
            ",
            expect![[r#"
                7 error undefined-job: workflow `w` runs job `biuld`, which is not defined
                    define `biuld` under `jobs:`, or make it `type: approval`; did you mean `build`?
                11 error undeclared-orb: workflow `w` uses `setup` of the orb `asw`, which is not declared
                    declare it: `orbs: { asw: <namespace>/asw@<version> }`; did you mean `aws`?
            "#]],
        );
    }

    #[test]
    fn job_groups_stand_for_their_jobs() {
        check(
            "
            jobs: { build: { steps: [checkout] }, deploy: { steps: [checkout] }, smoke: { steps: [checkout] } }
            job-groups:
              ship:
                jobs:
                  - deploy: { serial-group: prod }
                  - smoke: { requires: [deploy] }
                  - smoke: { name: slow, requires: [deply] }
            workflows:
              w:
                jobs:
                  - build
                  - ship: { requires: [build] }
                  - build: { name: again, requires: [ship] }
            ",
            expect![[r#"
                7 error undefined-requires: job `ship/slow` requires `ship/deply`, which workflow `w` does not run
                    require a job by the name that it has in this workflow; did you mean `ship/deploy`?
            "#]],
        );
    }

    #[test]
    fn requires_in_all_its_forms() {
        check(
            "
            jobs: { build: { steps: [checkout] }, test: { steps: [checkout] } }
            workflows:
              w:
                jobs:
                  - build
                  - build: { name: build-arm }
                  - test: { name: a, requires: [build, build-arm] }
                  - test: { name: b, requires: [{ build: failed }, { build-arm: [failed, canceled] }] }
                  - test: { name: c, requires: build }
                  - test: { name: d, requires: [biuld] }
                  - test: { name: e, requires: [{ bild: failed }] }
                  - test: { name: f, requires: [test] }
                  - hold: { type: approval, requires: [a] }
                  - test: { name: g, requires: [hold] }
            ",
            expect![[r#"
                10 error undefined-requires: job `d` requires `biuld`, which workflow `w` does not run
                    require a job by the name that it has in this workflow; did you mean `build`?
                11 error undefined-requires: job `e` requires `bild`, which workflow `w` does not run
                    require a job by the name that it has in this workflow; did you mean `build`?
                12 error undefined-requires: job `f` requires `test`, which workflow `w` does not run
                    require a job by the name that it has in this workflow
            "#]],
        );
    }

    #[test]
    fn requires_of_a_matrix_and_of_a_job_run_twice() {
        check(
            "
            jobs: { build: { parameters: { os: { type: string } }, steps: [checkout] }, test: { steps: [checkout] }, pack: { steps: [checkout] } }
            workflows:
              w:
                jobs:
                  - build: { matrix: { parameters: { os: [linux, macos] } } }
                  - build: { name: twin-<< matrix.os >>, matrix: { alias: twins, parameters: { os: [linux] } } }
                  - test
                  - test
                  - pack: { requires: [build, build-linux, twins, twin-linux, test-2] }
                  - pack: { name: last, requires: [test-3] }
            ",
            expect![[r#"
                10 error undefined-requires: job `last` requires `test-3`, which workflow `w` does not run
                    require a job by the name that it has in this workflow
            "#]],
        );
    }

    #[test]
    fn steps() {
        check(
            "
            orbs: { aws: circleci/aws-cli@5.1 }
            functions: { go: github.com/circleci-functions/setup-go@v0.5.1 }
            commands:
              greet:
                parameters: { after: { type: steps, default: [] } }
                steps: [{ run: echo }, { steps: << parameters.after >> }, << parameters.after >>, gret]
            jobs:
              build:
                steps:
                  - checkout
                  - greet: { after: [] }
                  - go
                  - go/test
                  - aws/setup: { region: eu }
                  - asw/setup
                  - cargo test
                  - when: { condition: true, steps: [greet, greed] }
                  - with_tool_cache: { tool: bazel, steps: [nothing] }
            workflows: { w: { jobs: [{ build: { pre-steps: [chekout], post-steps: [greet] } }] } }
            ",
            expect![[r#"
                6 error unknown-step: command `greet` has a step `gret`, which is neither built in nor a command
                    write `run: gret` for a shell command, or define it under `commands:`; did you mean `greet`?
                15 error undeclared-orb: job `build` uses `setup` of the orb `asw`, which is not declared
                    declare it: `orbs: { asw: <namespace>/asw@<version> }`; did you mean `aws`?
                16 error unknown-step: job `build` has a step `cargo test`, which is neither built in nor a command
                    write `run: cargo test` for a shell command, or define it under `commands:`
                17 error unknown-step: job `build` has a step `greed`, which is neither built in nor a command
                    write `run: greed` for a shell command, or define it under `commands:`; did you mean `greet`?
                18 error unknown-step: job `build` has a step `nothing`, which is neither built in nor a command
                    write `run: nothing` for a shell command, or define it under `commands:`
                19 error unknown-step: job `build` of workflow `w` has a step `chekout`, which is neither built in nor a command
                    write `run: chekout` for a shell command, or define it under `commands:`; did you mean `checkout`?
            "#]],
        );
    }

    #[test]
    fn commands_do_not_recurse() {
        check(
            "
            commands:
              a: { steps: [b] }
              b: { steps: [{ when: { condition: true, steps: [{ a: {} }] } }] }
              c: { steps: [a] }
            jobs: { build: { steps: [c] } }
            ",
            expect![[r#"
                2 error command-cycle: command `a` ends up calling itself
                    a command is written out before the job starts, so it cannot recurse: remove the call
                3 error command-cycle: command `b` ends up calling itself
                    a command is written out before the job starts, so it cannot recurse: remove the call
            "#]],
        );
    }

    #[test]
    fn executors() {
        check(
            "
            executors: { linux: { docker: [{ image: a:1 }] } }
            jobs:
              a: { executor: linux, steps: [checkout] }
              b: { executor: { name: linus, tag: x }, steps: [checkout] }
              c: { executor: win/default, steps: [checkout] }
              d: { parameters: { os: { type: executor, default: linux } }, executor: << parameters.os >>, steps: [checkout] }
            workflows: { w: { jobs: [a, b, c, d] } }
            ",
            expect![[r#"
                4 error undefined-executor: job `b` runs on executor `linus`, which is not defined
                    define `linus` under `executors:`; did you mean `linux`?
                5 error undeclared-orb: job `c` uses `default` of the orb `win`, which is not declared
                    declare it: `orbs: { win: <namespace>/win@<version> }`
            "#]],
        );
    }

    #[test]
    fn pipeline_parameters() {
        check(
            r#"
            parameters: { env: { type: string, default: dev }, fast: { type: boolean, default: false } }
            jobs:
              build:
                steps:
                  - run: echo << pipeline.parameters.env >> <<pipeline.parameters.evn>>
                  - run: echo pipeline.parameters.mentioned \<< pipeline.parameters.escaped >>
                  - when: { condition: { equal: [x, << pipeline.parameters.cond >>] }, steps: [checkout] }
            workflows:
              w:
                when: pipeline.parameters.env == "prod" and not pipeline.parameters.fats
                jobs:
                  - build: { filters: pipeline.parameters.fast or pipeline.parameters.slow }
            "#,
            expect![[r#"
                5 warning parameter-in-command: a command has `<< pipeline.parameters.env >>` in the script: its value is run as part of the shell text
                    give it to the job by `environment: { VALUE: << pipeline.parameters.env >> }`, and write `"$VALUE"`
                5 warning parameter-in-command: a command has `<< pipeline.parameters.evn >>` in the script: its value is run as part of the shell text
                    give it to the job by `environment: { VALUE: << pipeline.parameters.evn >> }`, and write `"$VALUE"`
                5 error undeclared-parameter: `pipeline.parameters.evn` is used, but the pipeline has no parameter `evn`
                    declare it: `parameters: { evn: { type: string, default: "" } }`; did you mean `env`?
                7 error undeclared-parameter: `pipeline.parameters.cond` is used, but the pipeline has no parameter `cond`
                    declare it: `parameters: { cond: { type: string, default: "" } }`
                10 error undeclared-parameter: `pipeline.parameters.fats` is used, but the pipeline has no parameter `fats`
                    declare it: `parameters: { fats: { type: string, default: "" } }`; did you mean `fast`?
                12 error undeclared-parameter: `pipeline.parameters.slow` is used, but the pipeline has no parameter `slow`
                    declare it: `parameters: { slow: { type: string, default: "" } }`
            "#]],
        );
    }

    #[test]
    fn unused_jobs() {
        check(
            "
            jobs: { build: { steps: [checkout] }, old: { steps: [checkout] } }
            workflows: { w: { jobs: [{ build: { name: other } }] } }
            ",
            expect![[r#"
                1 warning unused-job: job `old` is in no workflow, so it never runs
                    add it to a workflow, or remove it
            "#]],
        );
    }

    #[test]
    fn keys_written_twice() {
        check(
            "
            x: &x { steps: [checkout] }
            jobs:
              build:
                <<: *x
                resource_class: small
                resource_class: large
              build: { <<: *x, steps: [checkout] }
            ",
            expect![[r#"
                6 warning duplicate-key: `resource_class` is written twice in one map, first on line 5
                    merge the two, or remove one: only one of them takes effect
                7 warning duplicate-key: `build` is written twice in one map, first on line 3
                    merge the two, or remove one: only one of them takes effect
            "#]],
        );
    }
}
