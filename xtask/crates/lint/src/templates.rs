//! Checks `<< … >>` in jobs, commands, executors and workflows: closed, with declared names.

use std::collections::BTreeSet;

use crate::declared;
use crate::finding::{Report, Severity};
use crate::model::{Kind, Model};
use crate::template;
use crate::template::Fault;
use crate::text::did_you_mean;
use crate::yaml::{Node, Value};

/// Keys with text for humans, or without expansion.
const UNTOUCHED: &[&str] = &["description", "display", "examples"];

pub(super) fn wrong_templates(model: &Model, report: &mut Report) {
    if !model.has_templates() {
        return;
    }
    let used = model.used();
    let mut seen = BTreeSet::new();
    for definition in &model.definitions {
        let declared: Vec<&str> = declared::parameters(definition.body).iter().map(|it| it.name).collect();
        // CircleCI expands only definitions that a workflow uses.
        let is_used = definition.kind == Kind::Executor || used.contains(&(definition.kind, definition.name));
        let severity = if is_used { Severity::Error } else { Severity::Warning };
        let scope = Scope { owner: definition.title(), prefix: "parameters.", declared, severity };
        for (key, value) in definition.body.entries() {
            if key.text() != Some("parameters") {
                check(value, key.text(), &scope, &mut seen, report);
            }
        }
    }
    for (workflow, invocation) in model.invocations() {
        let Some(body) = invocation.body else { continue };
        let matrix = body.get("matrix").and_then(|it| it.get("parameters"));
        let declared = matrix.map_or(&[][..], Node::entries).iter().filter_map(|(name, _)| name.text()).collect();
        let owner = format!("job `{}` of workflow `{}`", invocation.name, workflow.name);
        let scope = Scope { owner, prefix: "matrix.", declared, severity: Severity::Error };
        check(body, None, &scope, &mut seen, report);
    }
}

/// The names available in a text, and its owner.
struct Scope<'a> {
    owner: String,
    prefix: &'static str,
    declared: Vec<&'a str>,
    severity: Severity,
}

/// Reported faults by line and kind: an alias repeats a text in many places.
type Seen = BTreeSet<(usize, String)>;

fn check(node: &Node, key: Option<&str>, scope: &Scope, seen: &mut Seen, report: &mut Report) {
    if key.is_some_and(|key| UNTOUCHED.contains(&key)) {
        return;
    }
    match &node.value {
        Value::Scalar { text, .. } => check_text(node.line, text, scope, seen, report),
        Value::Seq(items) => items.iter().for_each(|item| check(item, None, scope, seen, report)),
        Value::Map(entries) => {
            for (key, value) in entries {
                if let Some(name) = key.text().filter(|name| *name != "<<") {
                    check_text(key.line, name, scope, seen, report);
                }
                check(value, key.text(), scope, seen, report);
            }
        }
    }
}

fn check_text(line: usize, text: &str, scope: &Scope, seen: &mut Seen, report: &mut Report) {
    if !text.contains("<<") {
        return;
    }
    let (names, problem) = template::read(text);
    for (at, name) in names {
        let line = line_at(line, text, at);
        let tag = text[..at].rfind("<<").unwrap_or(at);
        if is_unknown(name) && template::is_of_shell(text, tag) {
            heredoc(line, text, tag, scope, seen, report);
        } else if is_unknown(name) {
            unknown(line, name, scope, seen, report);
        } else if let Some(parameter) = name.strip_prefix(scope.prefix) {
            let parameter = parameter.split('.').next().unwrap_or(parameter);
            undeclared(line, parameter, scope, seen, report);
        }
    }
    let Some(problem) = problem else { return };
    let line = line_at(line, text, problem.at);
    if problem.fault != Fault::Section && template::is_of_shell(text, problem.at) {
        return heredoc(line, text, problem.at, scope, seen, report);
    }
    let (fault, hint) = match problem.fault {
        Fault::Unclosed => ("a `<<` without its `>>`".to_owned(), "close it with `>>`, or write `\\<<` for the shell"),
        Fault::Empty => ("nothing between `<<` and `>>`".to_owned(), "name a value, or write `\\<<` for the shell"),
        Fault::Section => (
            "a section `<<# … >>` that does not end with its `<</ … >>`".to_owned(),
            "end it with the same name: `<<# parameters.x >>…<</ parameters.x >>`",
        ),
        Fault::Expression(reason) => {
            (format!("an invalid expression between `<<` and `>>`: {reason}"), "fix it, or write `\\<<` for the shell")
        }
    };
    if seen.insert((line, fault.clone())) {
        report.add(scope.severity, "wrong-template", line, format!("{} has {fault}", scope.owner), hint.to_owned());
    }
}

/// Sources of values.
const SOURCES: &[&str] = &["parameters", "pipeline", "matrix"];

/// Whether the name cannot exist: a single word, or a misspelt source.
fn is_unknown(name: &str) -> bool {
    let is_literal = ["true", "false"].contains(&name) || name.starts_with(|c: char| c.is_ascii_digit());
    match name.split_once('.') {
        Some((source, _)) => !SOURCES.contains(&source) && !did_you_mean(source, SOURCES.iter().copied()).is_empty(),
        None => !is_literal,
    }
}

fn unknown(line: usize, name: &str, scope: &Scope, seen: &mut Seen, report: &mut Report) {
    if name.starts_with(['"', '\'']) || !seen.insert((line, name.to_owned())) {
        return;
    }
    let source = name.split('.').next().unwrap_or(name);
    let near = did_you_mean(source, SOURCES.iter().copied());
    report.add(
        scope.severity,
        "unknown-value",
        line,
        format!("{} has `<< {name} >>`, which is not a value", scope.owner),
        format!("name a parameter or a pipeline value, or write `\\<<` for the shell{near}"),
    );
}

fn heredoc(line: usize, text: &str, at: usize, scope: &Scope, seen: &mut Seen, report: &mut Report) {
    // `<< EOF` counts as one word.
    let after = text[at..].trim_start_matches('<').trim_start_matches(' ');
    let start = text.len() - after.len();
    let end: usize = after.chars().take_while(|c| !c.is_whitespace()).take(20).map(char::len_utf8).sum();
    let word = text[at..start + end].to_owned();
    if seen.insert((line, word.clone())) {
        report.add(
            scope.severity,
            "unescaped-heredoc",
            line,
            format!("{} has `{word}` in a command, which CircleCI reads as the start of a parameter", scope.owner),
            format!("write `\\{word}`: CircleCI takes the backslash away"),
        );
    }
}

fn undeclared(line: usize, name: &str, scope: &Scope, seen: &mut Seen, report: &mut Report) {
    if scope.declared.contains(&name) || !seen.insert((line, format!("{}{name}", scope.prefix))) {
        return;
    }
    let near = did_you_mean(name, scope.declared.iter().copied());
    let (kind, place) = match scope.prefix {
        "matrix." => ("matrix parameter", "`matrix: { parameters: … }`"),
        _ => ("parameter", "`parameters:`"),
    };
    report.add(
        scope.severity,
        "undeclared-parameter",
        line,
        format!("`<< {}{name} >>` is used, but {} has no {kind} `{name}`", scope.prefix, scope.owner),
        format!("declare it under {place} there{near}"),
    );
}

/// Block texts keep their lines; for others the first line suffices.
fn line_at(first: usize, text: &str, at: usize) -> usize {
    first + text[..at].matches('\n').count()
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::expect;

    use crate::tests::check;

    #[test]
    fn parameter_that_is_not_declared_is_an_error() {
        check(
            "
            executors: { linux: { parameters: { tag: { type: string, default: '1' } }, docker: [{ image: a:<< parameters.tga >> }] } }
            commands:
              greet: { parameters: { who: { type: string, default: x } }, steps: [{ run: echo << parameters.who >> << parameters.os >> }] }
              unused: { steps: [{ run: echo << parameters.os >> }] }
            jobs:
              build:
                description: uses << parameters.any >>
                parameters: { os: { type: string, default: a } }
                executor: linux
                steps:
                  - greet: { who: << parameters.os >> }
                  - run: echo << parameters.so >> <<# parameters.os >>x<</ parameters.os >> << pipeline.id >>
            workflows: { w: { jobs: [build] } }
            ",
            expect![[r#"
                1 error undeclared-parameter: `<< parameters.tga >>` is used, but executor `linux` has no parameter `tga`
                    declare it under `parameters:` there; did you mean `tag`?
                3 error undeclared-parameter: `<< parameters.os >>` is used, but command `greet` has no parameter `os`
                    declare it under `parameters:` there
                4 warning undeclared-parameter: `<< parameters.os >>` is used, but command `unused` has no parameter `os`
                    declare it under `parameters:` there
                12 error undeclared-parameter: `<< parameters.so >>` is used, but job `build` has no parameter `so`
                    declare it under `parameters:` there; did you mean `os`?
            "#]],
        );
    }

    #[test]
    fn template_that_is_not_closed_is_an_error() {
        check(
            "
            jobs:
              build:
                steps:
                  - run: |
                      echo start
                      cat <<EOF > file
                      text
                      EOF
                  - run: cat <<'END' >> file
                  - run: jq . <<< \"$json\"
                  - run: echo << pipeline.id
                  - run: echo << pipeline.git.branch = main >>
                  - run: echo << >> <<# a >>
                  - run: echo << version >> << parametrs.os >> << pipeline.id >> << true >>
                  - run: cat << EOF > file
                  - run: |
                      cat \\<<EOF >> $BASH_ENV
                      EOF
            workflows: { w: { jobs: [build] } }
            ",
            expect![[r#"
                6 error unescaped-heredoc: job `build` has `<<EOF` in a command, which CircleCI reads as the start of a parameter
                    write `\<<EOF`: CircleCI takes the backslash away
                9 error unescaped-heredoc: job `build` has `<<'END'` in a command, which CircleCI reads as the start of a parameter
                    write `\<<'END'`: CircleCI takes the backslash away
                10 error unescaped-heredoc: job `build` has `<<< "$json"` in a command, which CircleCI reads as the start of a parameter
                    write `\<<< "$json"`: CircleCI takes the backslash away
                11 error wrong-template: job `build` has a `<<` without its `>>`
                    close it with `>>`, or write `\<<` for the shell
                12 error wrong-template: job `build` has an invalid expression between `<<` and `>>`: `=` is not an operator: write `==`
                    fix it, or write `\<<` for the shell
                13 error wrong-template: job `build` has nothing between `<<` and `>>`
                    name a value, or write `\<<` for the shell
                14 error unknown-value: job `build` has `<< parametrs.os >>`, which is not a value
                    name a parameter or a pipeline value, or write `\<<` for the shell; did you mean `parameters`?
                14 error unknown-value: job `build` has `<< version >>`, which is not a value
                    name a parameter or a pipeline value, or write `\<<` for the shell
                15 error unescaped-heredoc: job `build` has `<< EOF` in a command, which CircleCI reads as the start of a parameter
                    write `\<< EOF`: CircleCI takes the backslash away
            "#]],
        );
        check("version: 2\njobs: { build: { steps: [{ run: cat <<EOF }] } }", expect![[""]]);
    }

    #[test]
    fn matrix_value_that_is_not_there_is_an_error() {
        check(
            "
            jobs: { build: { parameters: { os: { type: string } }, steps: [checkout] } }
            workflows:
              w:
                jobs:
                  - build: { name: << matrix.os >>-<< matrix.arch >>, matrix: { parameters: { os: [a] } } }
                  - build: { name: << matrix.os >>, os: a }
            ",
            expect![[r#"
                5 error undeclared-parameter: `<< matrix.arch >>` is used, but job `<< matrix.os >>-<< matrix.arch >>` of workflow `w` has no matrix parameter `arch`
                    declare it under `matrix: { parameters: … }` there
                6 error undeclared-parameter: `<< matrix.os >>` is used, but job `<< matrix.os >>` of workflow `w` has no matrix parameter `os`
                    declare it under `matrix: { parameters: … }` there
            "#]],
        );
    }

    #[test]
    fn text_behind_an_alias_is_reported_once() {
        check(
            "
            x: &x { steps: [{ run: cat <<EOF }] }
            jobs: { a: *x, b: *x }
            workflows: { w: { jobs: [a, b] } }
            ",
            expect![[r#"
                1 error unescaped-heredoc: job `a` has `<<EOF` in a command, which CircleCI reads as the start of a parameter
                    write `\<<EOF`: CircleCI takes the backslash away
            "#]],
        );
    }
}
