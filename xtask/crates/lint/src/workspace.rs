//! Checks the workspace: persisted before it is attached, by one job at a time, and used before it expires. A job's
//! workspace has the files of all jobs that it `requires`.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::Report;
use crate::model::{Invocation, Model, Role, Step, Text, Workflow};
use crate::text;
use crate::yaml::Node;

/// A job with a filled workspace in one workflow is not reported in the others.
pub(super) fn attach_without_persist(model: &Model, report: &mut Report) {
    let mut empty: BTreeMap<&str, Option<(&Workflow, usize)>> = BTreeMap::new();
    for (workflow, at, invocation) in attachers(model) {
        if is_filled(workflow, at) {
            empty.insert(invocation.job, None);
        } else {
            empty.entry(invocation.job).or_insert(Some((workflow, at)));
        }
    }
    for (workflow, at) in empty.into_values().flatten() {
        let invocation = &workflow.invocations[at];
        let Some(Text { line, .. }) = invocation.attaches().next() else { continue };
        let (reason, hint) = why_empty(workflow, at);
        report.warning(
            "attach-without-persist",
            line,
            format!("job `{}` attaches an empty workspace: {reason}", invocation.name),
            hint,
        );
    }
}

/// Whether the workspace of a job may have files.
fn is_filled(workflow: &Workflow, at: usize) -> bool {
    let jobs = &workflow.invocations;
    let fills = |it: usize| jobs[it].is_persisting() || jobs[it].opaque;
    // A `requires` that leads nowhere is reported as such, and one that is open leads anywhere.
    let unknown = jobs[at].requires.iter().any(|it| !jobs.iter().any(|job| job.answers_to(&it.text)));
    let conditional = jobs[at].steps.iter().filter(|step| step.attach().is_some()).all(|step| step.conditional);
    unknown || conditional || workflow.ancestors(at).into_iter().any(fills)
}

fn why_empty(workflow: &Workflow, at: usize) -> (String, String) {
    let jobs = &workflow.invocations;
    // Those that it could require: not itself, and not what waits for it.
    let persisting: Vec<&str> = (0..jobs.len())
        .filter(|&it| it != at && jobs[it].is_persisting() && !workflow.ancestors(it).contains(&at))
        .map(|it| jobs[it].name.as_str())
        .collect();
    match persisting.as_slice() {
        [] => (
            "no job before it persists anything, and a workspace does not cross workflows".to_owned(),
            "persist in a job that this one requires, or fetch the files from a store".to_owned(),
        ),
        persisting => (
            format!("it does not require {}, not even through another job", text::listed(persisting)),
            format!("add `requires: [{}]`", persisting.join(", ")),
        ),
    }
}

/// Jobs with an `attach_workspace`, and their position in the workflow.
fn attachers<'a>(model: &'a Model) -> impl Iterator<Item = (&'a Workflow<'a>, usize, &'a Invocation<'a>)> {
    model.workflows.iter().flat_map(|workflow| {
        let all = workflow.invocations.iter().enumerate();
        let attaching = all.filter(|(_, it)| it.attaches().next().is_some());
        attaching.map(move |(at, invocation)| (workflow, at, invocation))
    })
}

/// Files attached where no step of the job uses them.
pub(super) fn directory_mismatch(model: &Model, report: &mut Report) {
    let mut reported = BTreeSet::new();
    for (workflow, at, invocation) in attachers(model) {
        let before = workflow.ancestors(at);
        let roots: Option<BTreeSet<String>> = before.iter().flat_map(|&it| roots(&workflow.invocations[it])).collect();
        let Some(roots) = roots.filter(|roots| !roots.is_empty()) else { continue };
        for Text { line, text: directory } in invocation.attaches() {
            let base = invocation.working_directory.as_deref();
            let Some(place) = text::directory(&directory, base) else { continue };
            if roots.contains(&place) || may_be_used(invocation, &directory, &place) || !reported.insert(line) {
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

/// The roots that a job persists from; `None` for each that is known only to CircleCI.
fn roots(invocation: &Invocation) -> Vec<Option<String>> {
    let base = invocation.working_directory.as_deref();
    let roots = invocation.persists().filter_map(|persist| persist.root);
    roots.map(|root| text::directory(&root.text, base)).collect()
}

/// Whether a job may use what is attached at `place`: by its working directory, by a path that it names, or in unknown
/// steps.
fn may_be_used(invocation: &Invocation, directory: &str, place: &str) -> bool {
    let Some(base) = &invocation.working_directory else { return true };
    let last = place.rsplit('/').next().unwrap_or(place);
    let names = |text: &str| text.contains(directory) || text.contains(last);
    let others = invocation.steps.iter().filter(|step| step.attach().is_none());
    let mut texts = others.filter_map(|step| step.body).flat_map(Node::texts);
    let has_sources = invocation.steps.iter().any(|step| step.name == "checkout");
    let is_near = text::is_within(place, base) || text::is_within(base, place);
    is_near || invocation.opaque || has_sources || texts.any(names)
}

/// A file that jobs persist concurrently for a job that attaches all of it. Directories are not reported, because their
/// contents may differ.
pub(super) fn concurrent_persists(model: &Model, report: &mut Report) {
    for workflow in &model.workflows {
        let jobs = &workflow.invocations;
        let files = files(jobs);
        let attachers: Vec<usize> = (0..jobs.len()).filter(|&it| jobs[it].attaches().next().is_some()).collect();
        if files.is_empty() || attachers.is_empty() {
            continue;
        }
        let before: Vec<BTreeSet<usize>> = (0..jobs.len()).map(|it| workflow.ancestors(it)).collect();
        for (path, persisting) in files {
            let clashes = |one: usize, other: usize| {
                let in_order = before[one].contains(&other) || before[other].contains(&one);
                one != other && !in_order && !is_either_or(&jobs[one], &jobs[other])
            };
            let attached = |both: [usize; 2]| {
                let attaching = |it: &&usize| both.iter().all(|one| before[**it].contains(one));
                attachers.iter().find(attaching).copied()
            };
            let clash = |one: usize| {
                let others = persisting.keys().filter(move |&&other| clashes(one, other));
                others.copied().find_map(|other| Some((one, other, attached([one, other])?)))
            };
            let found: Vec<(usize, usize, usize)> = persisting.keys().filter_map(|&one| clash(one)).collect();
            let Some(&(one, other, attacher)) = found.first() else { continue };
            let count = found.len();
            report.warning(
                "concurrent-persist",
                persisting[&other],
                format!(
                    "{count} jobs of workflow `{}`, among them `{}` and `{}`, persist `{path}` at the same time, and \
                     `{}` attaches it: two layers with the same file make the attach fail",
                    workflow.name, jobs[one].name, jobs[other].name, jobs[attacher].name
                ),
                "persist into a directory for each job, or make one require the other",
            );
        }
    }
}

/// Paths that are certainly files, with the jobs that persist them and their lines.
fn files(jobs: &[Invocation]) -> BTreeMap<String, BTreeMap<usize, usize>> {
    let mut files: BTreeMap<String, BTreeMap<usize, usize>> = BTreeMap::new();
    for (at, job) in jobs.iter().enumerate() {
        let certain = job.steps.iter().filter(|step| !step.conditional).filter_map(Step::persist);
        for Text { line, text } in certain.flat_map(|it| it.paths).filter(|path| text::is_one_file(&path.text)) {
            files.entry(text::tidy(&text)).or_default().insert(at, line);
        }
    }
    files
}

/// Jobs with different filters are assumed to run for different branches.
fn is_either_or(one: &Invocation, other: &Invocation) -> bool {
    let filters = |body: Option<&Node>| body?.get("filters").map(Node::texts).map(|it| it.join(" "));
    one.is_filtered() && other.is_filtered() && filters(one.body) != filters(other.body)
}

pub(super) fn parallel_persists(model: &Model, report: &mut Report) {
    let mut reported = BTreeSet::new();
    for (_, invocation) in model.invocations() {
        let (many, hint) = if invocation.parallel {
            ("runs on several nodes (`parallelism`)", "build on one node (`parallelism: 1`), and persist there")
        } else if invocation.matrix {
            (
                "runs once for each value of its `matrix`",
                "put the parameter into the path: `paths: [dist/<< parameters.target >>]`",
            )
        } else {
            continue;
        };
        let certain = invocation.steps.iter().filter(|step| !step.conditional).filter_map(Step::persist);
        let mut paths = certain.flat_map(|it| it.paths);
        let Some(path) = paths.find(|path| text::is_one_file(&path.text)) else { continue };
        if reported.insert(path.line) {
            report.warning(
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

/// A job that attaches files from before an approval.
struct Aged<'a> {
    line: usize,
    what: String,
    job: &'a str,
}

pub(super) fn approval_outlives_workspace(model: &Model, report: &mut Report) {
    let mut aged: BTreeMap<(&str, usize), Vec<Aged>> = BTreeMap::new();
    for (workflow, at, invocation) in attachers(model) {
        let jobs = &workflow.invocations;
        let before = workflow.ancestors(at);
        let holds = before.iter().filter(|&&it| jobs[it].role == Role::Approval);
        // Files persisted after the approval are as recent as the job.
        let older = holds.filter_map(|&hold| {
            let is_older = |&&it: &&usize| jobs[it].is_persisting() && !workflow.ancestors(it).contains(&hold);
            Some((hold, *before.iter().find(is_older)?))
        });
        let Some((hold, persisted)) = older.min() else { continue };
        let Some(Text { line, .. }) = invocation.attaches().next() else { continue };
        let what = format!("what `{}` persisted, after the approval `{}`", jobs[persisted].name, jobs[hold].name);
        aged.entry((workflow.name, hold)).or_default().push(Aged { line, what, job: &invocation.name });
    }
    for jobs in aged.into_values() {
        let names: Vec<&str> = jobs.iter().map(|it| it.job).collect();
        let Some(Aged { line, what, .. }) = jobs.first() else { continue };
        let attaches = if names.len() > 1 { "attach" } else { "attaches" };
        report.warning(
            "approval-outlives-workspace",
            *line,
            format!(
                "job {} {attaches} {what}: an approval waits up to 90 days, a workspace lives 15",
                text::first_and_count(&names)
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

    use crate::tests;

    /// Jobs that only persist or attach, for the tables.
    const JOBS: &str = "
        orbs: { orb: a/b@1 }
        jobs:
          build: { parameters: { os: { type: string, default: '' } }, steps: [{ persist_to_workspace: { root: /tmp/w, paths: [bin.zip] } }] }
          extra: { steps: [{ persist_to_workspace: { root: /tmp/w, paths: [./bin.zip, doc] } }] }
          other: { steps: [{ persist_to_workspace: { root: out, paths: [lib] } }] }
          many: { parallelism: 2, steps: [{ persist_to_workspace: { root: /tmp/w, paths: [all.txt] } }] }
          each: { parameters: { os: { type: string } }, steps: [{ persist_to_workspace: { root: /tmp/w, paths: [bin/<< parameters.os >>.zip] } }] }
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
                10 warning attach-without-persist: job `use` attaches an empty workspace: it does not require `build`, not even through another job
                    add `requires: [build]`
            "#]],
        );
        check(
            "[build, other, check, { use: { requires: [check] } }]",
            expect![[r#"
                10 warning attach-without-persist: job `use` attaches an empty workspace: it does not require `build` and `other`, not even through another job
                    add `requires: [build, other]`
            "#]],
        );
        check(
            "[check, { use: { requires: [check] } }]",
            expect![[r#"
                10 warning attach-without-persist: job `use` attaches an empty workspace: no job before it persists anything, and a workspace does not cross workflows
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
                4 warning concurrent-persist: 2 jobs of workflow `w`, among them `build` and `extra`, persist `bin.zip` at the same time, and `use` attaches it: two layers with the same file make the attach fail
                    persist into a directory for each job, or make one require the other
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
                4 warning concurrent-persist: 2 jobs of workflow `w`, among them `build` and `extra`, persist `bin.zip` at the same time, and `use` attaches it: two layers with the same file make the attach fail
                    persist into a directory for each job, or make one require the other
            "#]],
        );
    }

    #[test]
    fn many_copies_of_one_job_that_persist() {
        check(
            "[many]",
            expect![[r#"
                6 warning parallel-persist: job `many` runs on several nodes (`parallelism`) and each persists `all.txt`: the same file twice makes the attach fail
                    build on one node (`parallelism: 1`), and persist there
            "#]],
        );
        check(
            "[{ build: { matrix: { parameters: { os: [a, b] } } } }]",
            expect![[r#"
                3 warning parallel-persist: job `build` runs once for each value of its `matrix` and each persists `bin.zip`: the same file twice makes the attach fail
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
