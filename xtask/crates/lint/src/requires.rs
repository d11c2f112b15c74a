//! Finds cycles in the `requires` of a workflow.

use crate::model::Workflow;

/// The names along each cycle, the first one repeated at the end, with its line.
///
/// Jobs without an open requirement are removed repeatedly; every remaining job has a cycle behind it, so following the
/// parents must return to a visited job.
pub(super) fn cycles(workflow: &Workflow) -> Vec<(usize, Vec<String>)> {
    let jobs = &workflow.invocations;
    let mut open: Vec<bool> = vec![true; jobs.len()];
    let mut cycles = Vec::new();
    loop {
        take_away_free(workflow, &mut open);
        let Some(start) = open.iter().position(|&it| it) else { return cycles };
        let circle = circle_from(workflow, &open, start);
        let first = circle.iter().copied().min_by_key(|&at| jobs[at].line).unwrap_or(start);
        let turn = circle.iter().position(|&at| at == first).unwrap_or(0);
        let order = circle[turn..].iter().chain(&circle[..=turn]);
        cycles.push((jobs[first].line, order.map(|&at| jobs[at].name.clone()).collect()));
        for at in circle {
            open[at] = false;
        }
    }
}

fn take_away_free(workflow: &Workflow, open: &mut [bool]) {
    loop {
        let is_free = |at: &usize| open[*at] && !workflow.invocations[*at].parents.iter().any(|&parent| open[parent]);
        let free: Vec<usize> = (0..open.len()).filter(is_free).collect();
        if free.is_empty() {
            return;
        }
        for at in free {
            open[at] = false;
        }
    }
}

fn circle_from(workflow: &Workflow, open: &[bool], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    loop {
        let last = path[path.len() - 1];
        let parent = workflow.invocations[last].parents.iter().copied().find(|&it| open[it]);
        let Some(parent) = parent else { return path };
        if let Some(at) = path.iter().position(|&it| it == parent) {
            return path.split_off(at);
        }
        path.push(parent);
    }
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::expect;

    use crate::tests::check;

    #[test]
    fn circles_are_named_from_their_first_line() {
        check(
            "
            jobs: { a: { steps: [checkout] }, b: { steps: [checkout] }, c: { steps: [checkout] } }
            workflows:
              w:
                jobs:
                  - a: { requires: [c] }
                  - b: { requires: [a] }
                  - c: { requires: [b, c] }
            ",
            expect![[r#"
                5 error requires-cycle: jobs of workflow `w` wait for each other: a requires c requires b requires a
                    remove one `requires` of the circle: none of these jobs can start
            "#]],
        );
        check(
            "
            jobs: { a: { steps: [checkout] }, b: { steps: [checkout] }, c: { steps: [checkout] } }
            workflows:
              w:
                jobs:
                  - a
                  - b: { requires: [a, c] }
                  - c: { requires: [a] }
            ",
            expect![[""]],
        );
    }
}
