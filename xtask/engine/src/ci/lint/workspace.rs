//! What goes through the workspace: filled before it is attached, by one job at a time, and used
//! before it expires. The workspace of a job is what the jobs that it `requires` have persisted.

use std::collections::BTreeSet;

use super::Report;
use super::model::{Invocation, Model, Role, Text, Workflow};
use super::text;
use crate::ci::yaml::Node;

pub(super) fn attach_without_persist(model: &Model, report: &mut Report) {
    for (workflow, at, invocation) in attachers(model) {
        let jobs = &workflow.invocations;
        let before = workflow.ancestors(at);
        let filled = before.iter().any(|&it| jobs[it].is_persisting() || jobs[it].opaque);
        // A `requires` that leads nowhere is reported as such.
        let misspelt = invocation.parents.is_empty() && !invocation.requires.is_empty();
        if filled || misspelt {
            continue;
        }
        let Some(Text { line, .. }) = invocation.attaches().next() else { continue };
        // Those that it could require: not itself, and not what waits for it.
        let persisting: Vec<&str> = (0..jobs.len())
            .filter(|&it| it != at && jobs[it].is_persisting() && !workflow.ancestors(it).contains(&at))
            .map(|it| jobs[it].name.as_str())
            .collect();
        let (why, hint) = match persisting.as_slice() {
            [] => (
                "no job before it persists anything, and a workspace does not cross workflows".to_owned(),
                "persist in a job that this one requires, or fetch the files from a store".to_owned(),
            ),
            persisting => (
                format!("it does not require {}, not even through another job", text::listed(persisting)),
                format!("add `requires: [{}]`", persisting.join(", ")),
            ),
        };
        report.error(
            "attach-without-persist",
            line,
            format!("job `{}` attaches an empty workspace: {why}", invocation.name),
            hint,
        );
    }
}

/// Jobs with an `attach_workspace`, and their place in the workflow.
fn attachers<'a>(model: &'a Model) -> impl Iterator<Item = (&'a Workflow<'a>, usize, &'a Invocation<'a>)> {
    model.workflows.iter().flat_map(|workflow| {
        let all = workflow.invocations.iter().enumerate();
        let attaching = all.filter(|(_, it)| it.attaches().next().is_some());
        attaching.map(move |(at, invocation)| (workflow, at, invocation))
    })
}

pub(super) fn directory_mismatch(model: &Model, report: &mut Report) {
    for (workflow, at, invocation) in attachers(model) {
        let before = workflow.ancestors(at);
        let roots: Option<BTreeSet<String>> = before.iter().flat_map(|&it| roots(&workflow.invocations[it])).collect();
        let Some(roots) = roots.filter(|roots| !roots.is_empty()) else { continue };
        for Text { line, text: directory } in invocation.attaches() {
            let base = invocation.working_directory.as_deref();
            let Some(place) = text::directory(&directory, base) else { continue };
            if roots.contains(&place) {
                continue;
            }
            let roots: Vec<&String> = roots.iter().collect();
            report.warning(
                "workspace-directory-mismatch",
                line,
                format!(
                    "job `{}` attaches at `{place}`, but the files were persisted from {}: \
                     the root is stripped, so every path changes between the jobs",
                    invocation.name,
                    text::listed(&roots)
                ),
                "use one absolute directory on both sides: `root: /tmp/workspace` and `at: /tmp/workspace`",
            );
        }
    }
}

/// The roots that a job persists from; a `None` for each that is only known on CircleCI.
fn roots(invocation: &Invocation) -> Vec<Option<String>> {
    let base = invocation.working_directory.as_deref();
    let roots = invocation.persists().filter_map(|persist| persist.root);
    roots.map(|root| text::directory(&root.text, base)).collect()
}

pub(super) fn concurrent_persists(model: &Model, report: &mut Report) {
    for (workflow, at, invocation) in attachers(model) {
        let jobs = &workflow.invocations;
        let before = workflow.ancestors(at);
        let persisting: Vec<usize> = before.into_iter().filter(|&it| jobs[it].is_persisting()).collect();
        for (n, &one) in persisting.iter().enumerate() {
            let before_one = workflow.ancestors(one);
            for &other in &persisting[n + 1..] {
                let in_order = before_one.contains(&other) || workflow.ancestors(other).contains(&one);
                if !in_order && !is_either_or(&jobs[one], &jobs[other]) {
                    same_paths(&jobs[one], &jobs[other], &invocation.name, report);
                }
            }
        }
    }
}

/// Two jobs with different filters are taken to be meant for different branches.
fn is_either_or(one: &Invocation, other: &Invocation) -> bool {
    let filters = |body: Option<&Node>| body?.get("filters").map(Node::texts).map(|it| it.join(" "));
    one.is_filtered() && other.is_filtered() && filters(one.body) != filters(other.body)
}

fn same_paths(one: &Invocation, other: &Invocation, attacher: &str, report: &mut Report) {
    let paths = |it: &Invocation| -> Vec<Text> { it.persists().flat_map(|it| it.paths).collect() };
    let taken: BTreeSet<String> = paths(one).iter().map(|path| text::tidy(&path.text)).collect();
    for path in paths(other) {
        let same = text::tidy(&path.text);
        if !taken.contains(&same) || text::is_open(&same) {
            continue;
        }
        report.error(
            "concurrent-persist",
            path.line,
            format!(
                "jobs `{}` and `{}` both persist `{same}` at the same time, and `{attacher}` attaches \
                 both: two layers with the same file make the attach fail",
                one.name, other.name
            ),
            format!("persist into a directory for each job (`{same}/{}`), or make one require the other", other.name),
        );
    }
}

pub(super) fn parallel_persists(model: &Model, report: &mut Report) {
    for (_, invocation) in model.invocations() {
        let many = if invocation.parallel {
            "runs on several nodes (`parallelism`)"
        } else if invocation.matrix {
            "runs once for each value of its `matrix`"
        } else {
            continue;
        };
        for persist in invocation.persists() {
            // A matrix parameter in the path makes it a path of this job alone; nodes have none.
            let apart = |path: &Text| !invocation.parallel && text::is_open(&path.text);
            let Some(path) = persist.paths.iter().find(|path| !apart(path)) else { continue };
            let hint = if invocation.parallel {
                "build on one node (`parallelism: 1`), and persist there"
            } else {
                "put the parameter into the path: `paths: [dist/<< parameters.target >>]`"
            };
            report.error(
                "parallel-persist",
                path.line,
                format!(
                    "job `{}` {many} and each persists `{}`: the same file twice makes the attach fail",
                    invocation.name, path.text
                ),
                hint,
            );
        }
    }
}

pub(super) fn approval_outlives_workspace(model: &Model, report: &mut Report) {
    for (workflow, at, invocation) in attachers(model) {
        let jobs = &workflow.invocations;
        let before = workflow.ancestors(at);
        let holds = before.iter().filter(|&&it| jobs[it].role == Role::Approval);
        // What is persisted after the approval is as young as the job itself.
        let aged = holds.filter_map(|&hold| {
            let is_older = |&&it: &&usize| jobs[it].is_persisting() && !workflow.ancestors(it).contains(&hold);
            Some((hold, *before.iter().find(is_older)?))
        });
        let Some((hold, persisted)) = aged.min() else { continue };
        let Some(Text { line, .. }) = invocation.attaches().next() else { continue };
        report.warning(
            "approval-outlives-workspace",
            line,
            format!(
                "job `{}` attaches what `{}` persisted, after the approval `{}`: \
                 an approval waits up to 90 days, a workspace lives 15",
                invocation.name, jobs[persisted].name, jobs[hold].name
            ),
            "let the job fall back to a store that keeps releases (artifacts by commit, S3) when the \
             workspace is gone",
        );
    }
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::{Expect, expect};

    use crate::ci::lint::tests;

    /// Jobs that only persist or attach, for the workflows of the tables.
    const JOBS: &str = "
        orbs: { orb: a/b@1 }
        jobs:
          build: { steps: [{ persist_to_workspace: { root: /tmp/w, paths: [bin] } }] }
          extra: { steps: [{ persist_to_workspace: { root: /tmp/w, paths: [bin/, doc] } }] }
          other: { steps: [{ persist_to_workspace: { root: out, paths: [lib] } }] }
          many: { parallelism: 2, steps: [{ persist_to_workspace: { root: /tmp/w, paths: [all] } }] }
          each: { parameters: { os: { type: string } }, steps: [{ persist_to_workspace: { root: /tmp/w, paths: [bin/<< parameters.os >>] } }] }
          check: { steps: [checkout] }
          orbit: { steps: [orb/fetch] }
          use: { steps: [{ attach_workspace: { at: /tmp/w } }] }
          useless: { steps: [{ attach_workspace: { at: ~/w } }] }
        workflows:
          w:
            jobs: ";

    fn check(jobs: &str, expected: Expect) {
        tests::check_used(&format!("{JOBS}{jobs}"), expected);
    }

    #[test]
    fn attach_needs_a_persist_before_it() {
        check("[build, { use: { requires: [build] } }]", expect![""]);
        check("[build, { check: { requires: [build] } }, { use: { requires: [check] } }]", expect![""]);
        check(
            "[build, use]",
            expect![[r#"
                10 error attach-without-persist: job `use` attaches an empty workspace: it does not require `build`, not even through another job
                    add `requires: [build]`
            "#]],
        );
        check(
            "[build, other, check, { use: { requires: [check] } }]",
            expect![[r#"
                10 error attach-without-persist: job `use` attaches an empty workspace: it does not require `build` and `other`, not even through another job
                    add `requires: [build, other]`
            "#]],
        );
        check(
            "[check, { use: { requires: [check] } }]",
            expect![[r#"
                10 error attach-without-persist: job `use` attaches an empty workspace: no job before it persists anything, and a workspace does not cross workflows
                    persist in a job that this one requires, or fetch the files from a store
            "#]],
        );
        check("[orbit, { use: { requires: [orbit] } }]", expect![""]);
        check("[orb/build, { use: { requires: [orb/build] } }]", expect![""]);
    }

    #[test]
    fn directories_of_both_sides() {
        check(
            "[build, { useless: { requires: [build] } }]",
            expect![[r#"
                11 warning workspace-directory-mismatch: job `useless` attaches at `~/w`, but the files were persisted from `/tmp/w`: the root is stripped, so every path changes between the jobs
                    use one absolute directory on both sides: `root: /tmp/workspace` and `at: /tmp/workspace`
            "#]],
        );
        check("[build, { other: { requires: [build] } }, { use: { requires: [other] } }]", expect![""]);
    }

    #[test]
    fn two_jobs_that_persist_the_same() {
        check(
            "[build, extra, { use: { requires: [build, extra] } }]",
            expect![[r#"
                4 error concurrent-persist: jobs `build` and `extra` both persist `bin` at the same time, and `use` attaches both: two layers with the same file make the attach fail
                    persist into a directory for each job (`bin/extra`), or make one require the other
            "#]],
        );
        check("[build, { extra: { requires: [build] } }, { use: { requires: [extra] } }]", expect![""]);
        check("[build, other, { use: { requires: [build, other] } }]", expect![""]);
        check("[build, extra, { use: { requires: [build] } }]", expect![""]);
        let either_or = |one: &str, other: &str| {
            format!(
                "[{{ build: {{ filters: '{one}' }} }}, {{ extra: {{ filters: '{other}' }} }}, \
                 {{ use: {{ requires: [build, extra] }} }}]"
            )
        };
        let main = "pipeline.git.branch == \"main\"";
        check(&either_or(main, "pipeline.git.branch != \"main\""), expect![""]);
        check(
            &either_or(main, main),
            expect![[r#"
                4 error concurrent-persist: jobs `build` and `extra` both persist `bin` at the same time, and `use` attaches both: two layers with the same file make the attach fail
                    persist into a directory for each job (`bin/extra`), or make one require the other
            "#]],
        );
    }

    #[test]
    fn many_copies_of_one_job_that_persist() {
        check(
            "[many]",
            expect![[r#"
            6 error parallel-persist: job `many` runs on several nodes (`parallelism`) and each persists `all`: the same file twice makes the attach fail
                build on one node (`parallelism: 1`), and persist there
        "#]],
        );
        check(
            "[{ build: { matrix: { parameters: { os: [a, b] } } } }]",
            expect![[r#"
                3 error parallel-persist: job `build` runs once for each value of its `matrix` and each persists `bin`: the same file twice makes the attach fail
                    put the parameter into the path: `paths: [dist/<< parameters.target >>]`
            "#]],
        );
        check("[{ each: { matrix: { parameters: { os: [a, b] } } } }]", expect![""]);
    }

    #[test]
    fn approvals_outlive_workspaces() {
        check(
            "[build, { hold: { type: approval, requires: [build] } }, { use: { requires: [hold] } }]",
            expect![[r#"
                10 warning approval-outlives-workspace: job `use` attaches what `build` persisted, after the approval `hold`: an approval waits up to 90 days, a workspace lives 15
                    let the job fall back to a store that keeps releases (artifacts by commit, S3) when the workspace is gone
            "#]],
        );
        check(
            "[build, { hold: { type: approval } }, { use: { requires: [build, hold] } }]",
            expect![[r#"
                10 warning approval-outlives-workspace: job `use` attaches what `build` persisted, after the approval `hold`: an approval waits up to 90 days, a workspace lives 15
                    let the job fall back to a store that keeps releases (artifacts by commit, S3) when the workspace is gone
            "#]],
        );
        check(
            "[{ hold: { type: approval } }, { build: { requires: [hold] } }, { use: { requires: [build] } }]",
            expect![""],
        );
    }
}
