//! Checks conditions: `when` and `unless` of workflows and steps, filters, and schedules.

use crate::finding::Report;
use crate::model::Model;
use crate::yaml::{Node, Value};
use crate::{cron, expression, text};

const OPERATORS: &[&str] = &["and", "equal", "matches", "not", "or"];

pub(super) fn wrong_conditions(model: &Model, report: &mut Report) {
    let workflows = model.root.get("workflows").map_or(&[][..], Node::entries);
    for (name, body) in workflows {
        let owner = format!("workflow `{}`", name.text().unwrap_or_default());
        for key in ["when", "unless"] {
            let Some(condition) = body.get(key).filter(|it| !it.is_null()) else { continue };
            match condition.text() {
                Some(expression) => expression_of(&owner, key, condition.line, expression, report),
                None => logic(&owner, condition, report),
            }
        }
    }
    for (_, invocation) in model.invocations() {
        let Some(filters) = invocation.body.and_then(|body| body.get("filters")) else { continue };
        if let Some(expression) = filters.text().filter(|_| !filters.is_null()) {
            let owner = format!("job `{}`", invocation.name);
            expression_of(&owner, "filters", filters.line, expression, report);
        }
    }
    for definition in &model.definitions {
        conditional_steps(&definition.title(), definition.body, report);
    }
}

/// A bare expression. One in `<< >>` is a template.
fn expression_of(owner: &str, key: &str, line: usize, text: &str, report: &mut Report) {
    if text::is_open(text) {
        return;
    }
    if let Err(fault) = expression::names(text) {
        report.error(
            "wrong-expression",
            line,
            format!("{owner} has `{key}: {}`, which is not an expression: {fault}", text.trim()),
            "write values between operators: `pipeline.git.branch == \"main\" and not pipeline.parameters.x`",
        );
    }
}

/// `condition:` of the steps `when` and `unless`, at any depth.
fn conditional_steps(owner: &str, node: &Node, report: &mut Report) {
    for item in node.items() {
        conditional_steps(owner, item, report);
    }
    for (key, value) in node.entries() {
        if matches!(key.text(), Some("when" | "unless"))
            && let Some(condition) = value.get("condition")
        {
            logic(owner, condition, report);
        }
        conditional_steps(owner, value, report);
    }
}

/// A logic statement: a value, or one operator over statements.
fn logic(owner: &str, node: &Node, report: &mut Report) {
    match &node.value {
        Value::Scalar { text, plain: true } if is_bare_value(text) => report.warning(
            "bare-value",
            node.line,
            format!("{owner} has `{text}` in a condition, which is text there, not a value"),
            format!("write it between `<<` and `>>`: `<< {text} >>`"),
        ),
        Value::Scalar { .. } | Value::Seq(_) => {}
        Value::Map(entries) => {
            for (key, value) in entries {
                operator(owner, key, value, report);
            }
        }
    }
}

fn is_bare_value(text: &str) -> bool {
    ["pipeline.", "parameters."].iter().any(|prefix| text.starts_with(prefix))
}

fn operator(owner: &str, key: &Node, value: &Node, report: &mut Report) {
    let name = key.text().unwrap_or_default();
    let wrong = |what: &str| format!("{owner} has a condition with {what}");
    let fault = match name {
        "and" | "or" | "equal" if value.text().is_some_and(text::is_open) => None,
        "and" | "or" | "equal" if value.items().is_empty() => Some(format!("`{name}` that is not a list of values")),
        "matches" if value.get("pattern").is_none() || value.get("value").is_none() => {
            Some("`matches` without both `pattern` and `value`".to_owned())
        }
        _ if OPERATORS.contains(&name) => None,
        _ => Some(format!("`{name}`, which is not an operator")),
    };
    if let Some(fault) = fault {
        let near = text::did_you_mean(name, OPERATORS.iter().copied());
        let hint =
            format!("write `and: […]`, `or: […]`, `not: …`, `equal: […]` or `matches: {{ pattern, value }}`{near}");
        return report.error("wrong-condition", key.line, wrong(&fault), hint);
    }
    if name == "not" {
        logic(owner, value, report);
    }
    if name != "matches" {
        value.items().iter().for_each(|item| logic(owner, item, report));
    }
}

pub(super) fn wrong_schedules(model: &Model, report: &mut Report) {
    let workflows = model.root.get("workflows").map_or(&[][..], Node::entries);
    for (name, body) in workflows {
        let triggers = body.get("triggers").map_or(&[][..], Node::items);
        for cron in triggers.iter().filter_map(|it| it.get("schedule")?.get("cron")) {
            let Some(line) = cron.text().filter(|line| !text::is_open(line)) else { continue };
            if let Some(fault) = cron::fault(line) {
                report.error(
                    "wrong-schedule",
                    cron.line,
                    format!("workflow `{}` has the schedule `{line}`: {fault}", name.text().unwrap_or_default()),
                    "write minute, hour, day of the month, month and day of the week: `cron: \"0 4 * * 1-5\"`",
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
    fn condition_that_is_no_expression_is_an_error() {
        check(
            "
            parameters: { fast: { type: boolean, default: false } }
            jobs: { build: { steps: [checkout, { when: { condition: { eqal: [a, b] }, steps: [checkout] } }] } }
            workflows:
              a: { when: 'pipeline.git.branch = \"main\"', jobs: [build] }
              b: { unless: pipeline.parameters.fast and, jobs: [build] }
              c: { when: << pipeline.parameters.fast >>, jobs: [build] }
              d: { when: { and: [<< pipeline.parameters.fast >>, { not: { equal: [main, pipeline.git.branch] } }] }, jobs: [build] }
              e: { when: { xor: [a, b] }, jobs: [build] }
              f: { when: { matches: { pattern: '^v', valu: x } }, jobs: [build] }
              g: { when: { or: [] }, jobs: [build] }
              h: { when: true, jobs: [{ build: { filters: pipeline.git.branch == main && pipeline.git.tag } }] }
              i: { jobs: [{ build: { filters: pipeline.git.tag starts-with \"v\" } }] }
            ",
            expect![[r#"
                2 error wrong-condition: job `build` has a condition with `eqal`, which is not an operator
                    write `and: […]`, `or: […]`, `not: …`, `equal: […]` or `matches: { pattern, value }`; did you mean `equal`?
                4 error wrong-expression: workflow `a` has `when: pipeline.git.branch = "main"`, which is not an expression: `=` is not an operator: write `==`
                    write values between operators: `pipeline.git.branch == "main" and not pipeline.parameters.x`
                5 error wrong-expression: workflow `b` has `unless: pipeline.parameters.fast and`, which is not an expression: a value is missing at the end
                    write values between operators: `pipeline.git.branch == "main" and not pipeline.parameters.x`
                7 warning bare-value: workflow `d` has `pipeline.git.branch` in a condition, which is text there, not a value
                    write it between `<<` and `>>`: `<< pipeline.git.branch >>`
                8 error wrong-condition: workflow `e` has a condition with `xor`, which is not an operator
                    write `and: […]`, `or: […]`, `not: …`, `equal: […]` or `matches: { pattern, value }`; did you mean `or`?
                9 error wrong-condition: workflow `f` has a condition with `matches` without both `pattern` and `value`
                    write `and: […]`, `or: […]`, `not: …`, `equal: […]` or `matches: { pattern, value }`
                10 error wrong-condition: workflow `g` has a condition with `or` that is not a list of values
                    write `and: […]`, `or: […]`, `not: …`, `equal: […]` or `matches: { pattern, value }`
                11 error wrong-expression: job `build` has `filters: pipeline.git.branch == main && pipeline.git.tag`, which is not an expression: `&&` is not an operator: write `and`
                    write values between operators: `pipeline.git.branch == "main" and not pipeline.parameters.x`
            "#]],
        );
    }

    #[test]
    fn schedule_that_never_comes_is_an_error() {
        check(
            "
            jobs: { build: { steps: [checkout] } }
            workflows:
              day: { triggers: [{ schedule: { cron: '0 25 * * *', filters: { branches: { only: main } } } }], jobs: [build] }
              week: { triggers: [{ schedule: { cron: '0 4 * * 1', filters: { branches: { only: main } } } }], jobs: [build] }
            ",
            expect![[r#"
                3 error wrong-schedule: workflow `day` has the schedule `0 25 * * *`: `25` is not a hour: the range is 0 to 23
                    write minute, hour, day of the month, month and day of the week: `cron: "0 4 * * 1-5"`
            "#]],
        );
    }
}
