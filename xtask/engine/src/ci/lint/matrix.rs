//! The jobs that a matrix stands for: every combination of its values but the excluded ones, and the names that they
//! get in the workflow.

use super::text::{self, Parameters};
use crate::ci::yaml::Node;

/// More combinations than this are taken as unknown; CircleCI allows 128 jobs in a matrix.
const ROWS_MAX: usize = 512;

/// The values of each job of a matrix; nothing where they are known only on CircleCI.
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

/// A text of a job with a matrix, once for each combination. What is not known stays open.
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

/// What the jobs are called. Without `name:` the values follow the name of the job, in an order that is left open.
pub(super) fn names(name: Option<&str>, job: &str, matrix: Option<&Node>) -> Vec<String> {
    match (name, matrix) {
        (Some(name), _) => written_out(name, matrix),
        (None, None) => vec![job.to_owned()],
        (None, Some(_)) => vec![job.to_owned(), format!("{job}-<<>>")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ci::yaml;

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
