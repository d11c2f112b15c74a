//! The jobs of a matrix: every combination of its values except the excluded ones, and their names in the workflow.

use crate::declared;
use crate::finding::{Report, Severity};
use crate::model::{Kind, Model, Role};
use crate::text;
use crate::text::{Parameters, did_you_mean};
use crate::yaml::Node;

/// More combinations than this count as unknown; CircleCI allows 128 jobs in a matrix.
const ROWS_MAX: usize = 512;

/// The values of each job of a matrix; `None` if they are known only to CircleCI.
pub(super) fn rows(matrix: &Node) -> Option<Vec<Parameters>> {
    let mut rows = vec![Parameters::new()];
    for (name, values) in matrix.get("parameters")?.entries() {
        let name = name.text()?;
        let values: Option<Vec<&str>> = values.items().iter().map(Node::text).collect();
        let values = values.filter(|values| !values.is_empty())?;
        rows = rows.iter().flat_map(|row| values.iter().map(move |value| with(row, name, value))).collect();
        if rows.len() > ROWS_MAX {
            return None;
        }
    }
    let excluded = matrix.get("exclude").map_or(&[][..], Node::items);
    rows.retain(|row| !excluded.iter().any(|exclude| is_excluded(row, exclude)));
    Some(rows)
}

fn with(row: &Parameters, name: &str, value: &str) -> Parameters {
    let mut row = row.clone();
    row.insert(name.to_owned(), value.to_owned());
    row
}

fn is_excluded(row: &Parameters, exclude: &Node) -> bool {
    let entries = exclude.entries();
    let is_same = |(name, value): &(Node, Node)| {
        name.text().and_then(|name| row.get(name)).is_some_and(|it| value.text() == Some(it))
    };
    !entries.is_empty() && entries.iter().all(is_same)
}

/// A text of a job with a matrix, expanded for each combination. Unknown values stay.
pub(super) fn written_out(text: &str, matrix: Option<&Node>) -> Vec<String> {
    let rows = matrix.and_then(rows).filter(|_| text::is_open(text));
    let Some(rows) = rows else { return vec![text.to_owned()] };
    let mut texts: Vec<String> = rows.iter().map(|row| fill(text, row)).collect();
    texts.sort();
    texts.dedup();
    texts
}

fn fill(text: &str, row: &Parameters) -> String {
    text::fill_by(text, |inside| inside.strip_prefix("matrix.").and_then(|name| row.get(name)).map(String::as_str))
}

/// The names of the jobs. Without `name:` the values follow the job's name, in an unspecified order.
pub(super) fn names(name: Option<&str>, job: &str, matrix: Option<&Node>) -> Vec<String> {
    match (name, matrix) {
        (Some(name), _) => written_out(name, matrix),
        (None, None) => vec![job.to_owned()],
        (None, Some(_)) => vec![job.to_owned(), format!("{job}-<<>>")],
    }
}

/// Parameters that the job lacks, and exclusions that match nothing.
pub(super) fn wrong_matrices(model: &Model, report: &mut Report) {
    for (workflow, invocation) in model.invocations() {
        let Some(matrix) = invocation.body.and_then(|body| body.get("matrix")) else { continue };
        let owner = format!("job `{}` of workflow `{}`", invocation.name, workflow.name);
        let varied = matrix.get("parameters").map_or(&[][..], Node::entries);
        let job = model.definition(Kind::Job, invocation.job).filter(|_| invocation.role == Role::Build);
        if let Some(job) = job {
            let declared = declared::parameters(job.body);
            for (name, values) in varied {
                undeclared(&owner, name, values, &declared, report);
            }
        }
        for exclude in matrix.get("exclude").map_or(&[][..], Node::items) {
            for (name, value) in exclude.entries() {
                excluded(&owner, name, value, varied, report);
            }
        }
    }
}

fn undeclared(owner: &str, name: &Node, values: &Node, declared: &[declared::Declared], report: &mut Report) {
    let text = name.text().unwrap_or_default();
    let Some(parameter) = declared.iter().find(|it| it.name == text) else {
        let near = did_you_mean(text, declared.iter().map(|it| it.name));
        return report.error(
            "unknown-argument",
            name.line,
            format!("the matrix of {owner} varies `{text}`, which is not a parameter of the job"),
            format!("declare it under `parameters:` of the job, or remove it from the matrix{near}"),
        );
    };
    for value in values.items() {
        if let Some(wanted) = parameter.mismatch(value) {
            report.add(
                parameter.mismatch_severity(),
                "wrong-argument",
                value.line,
                format!(
                    "the matrix of {owner} gives `{}` to `{text}`, which takes {wanted}",
                    value.text().unwrap_or("a list")
                ),
                "change the value, or the type of the parameter".to_owned(),
            );
        }
    }
}

fn excluded(owner: &str, name: &Node, value: &Node, varied: &[(Node, Node)], report: &mut Report) {
    let text = name.text().unwrap_or_default();
    let values = varied.iter().find(|(it, _)| it.text() == Some(text)).map(|(_, values)| values);
    let (severity, what) = match (values, value.text()) {
        (None, _) => (Severity::Error, format!("`{text}`, which the matrix does not vary")),
        (Some(values), Some(value)) if !text::is_open(value) && !values.items().is_empty() => {
            let known: Option<Vec<&str>> = values.items().iter().map(Node::text).collect();
            let may_be = |it: &&str| *it == value || text::is_open(it);
            if known.is_none_or(|known| known.iter().any(may_be)) {
                return;
            }
            (Severity::Warning, format!("`{text}: {value}`, which is not one of its values"))
        }
        _ => return,
    };
    report.add(
        severity,
        "wrong-exclude",
        name.line,
        format!("the matrix of {owner} excludes {what}"),
        "exclude a combination of parameters and values of the matrix, or remove the entry".to_owned(),
    );
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::tests::check;
    use crate::yaml;

    #[test]
    fn matrix_of_what_is_not_there_is_an_error() {
        check(
            "
            orbs: { o: a/b@1 }
            jobs: { build: { parameters: { os: { type: enum, enum: [a, b] }, n: { type: integer, default: 1 } }, steps: [checkout] } }
            workflows:
              w:
                jobs:
                  - build: { matrix: { parameters: { os: [a, c], arch: [x], n: ['2', 3] } } }
                  - build: { name: b, matrix: { parameters: { os: [a, b] }, exclude: [{ os: c }, { so: a }, { os: b }] } }
                  - o/test: { matrix: { parameters: { any: [a] }, exclude: [{ any: b }] } }
            ",
            expect![[r#"
                6 error unknown-argument: the matrix of job `build` of workflow `w` varies `arch`, which is not a parameter of the job
                    declare it under `parameters:` of the job, or remove it from the matrix
                6 error wrong-argument: the matrix of job `build` of workflow `w` gives `2` to `n`, which takes an integer, and this text is quoted
                    change the value, or the type of the parameter
                6 error wrong-argument: the matrix of job `build` of workflow `w` gives `c` to `os`, which takes one of `a` and `b`
                    change the value, or the type of the parameter
                7 warning wrong-exclude: the matrix of job `b` of workflow `w` excludes `os: c`, which is not one of its values
                    exclude a combination of parameters and values of the matrix, or remove the entry
                7 error wrong-exclude: the matrix of job `b` of workflow `w` excludes `so`, which the matrix does not vary
                    exclude a combination of parameters and values of the matrix, or remove the entry
                8 warning wrong-exclude: the matrix of job `o/test` of workflow `w` excludes `any: b`, which is not one of its values
                    exclude a combination of parameters and values of the matrix, or remove the entry
            "#]],
        );
    }

    #[test]
    fn names_of_a_matrix_are_its_combinations() {
        let table = [
            ("{ parameters: { os: [a, b] } }", "<< matrix.os >>-x", "a-x b-x"),
            ("{ parameters: { os: [a, b], v: [1, 2] } }", "<<matrix.v>>/<< matrix.os >>", "1/a 1/b 2/a 2/b"),
            ("{ parameters: { os: [a, b] }, exclude: [{ os: b }] }", "<< matrix.os >>", "a"),
            ("{ parameters: { os: [a, b], v: [1] }, exclude: [{ os: b }] }", "<< matrix.os >>", "a"),
            ("{ parameters: { os: [a] }, exclude: [{ no: a }, {}] }", "<< matrix.os >>", "a"),
            ("{ parameters: { os: << pipeline.parameters.all >> } }", "<< matrix.os >>", "<< matrix.os >>"),
            ("{ parameters: { os: [a] } }", "plain", "plain"),
            ("{ alias: x }", "<< matrix.os >>", "<< matrix.os >>"),
        ];
        for (matrix, name, expected) in table {
            let documents = yaml::parse(matrix).unwrap();
            assert_eq!(names(Some(name), "job", documents.first()).join(" "), expected, "{matrix}");
        }
        assert_eq!(names(None, "job", None), ["job"]);
    }

    #[test]
    fn matrix_without_bound_is_left_open() {
        let values = vec!["1"; 40].join(", ");
        let matrix = format!("{{ parameters: {{ a: [{values}], b: [{values}] }} }}");
        assert!(rows(&yaml::parse(&matrix).unwrap()[0]).is_none());
    }
}
