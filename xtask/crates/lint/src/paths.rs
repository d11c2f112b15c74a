//! Checks the directories of single steps: CircleCI does not expand variables, and reads an unquoted `~` as null.

use std::collections::BTreeSet;

use crate::finding::Report;
use crate::model::{Invocation, Model, Persist, Step, Text, Workflow};
use crate::text;
use crate::yaml::Node;

pub(super) fn persisted_paths(model: &Model, report: &mut Report) {
    for (list, step) in model.steps() {
        let Some(Persist { root, paths, .. }) = step.persist() else { continue };
        let root = root.map_or(String::new(), |root| root.text);
        for path in paths {
            persisted_path(&list.owner, &root, &path, report);
        }
    }
}

fn persisted_path(owner: &str, root: &str, path: &Text, report: &mut Report) {
    let Text { line, text: written } = path;
    let path = text::tidy(written);
    if path.starts_with(['/', '~']) || path.split('/').any(|part| part == "..") {
        report.warning(
            "persist-outside-root",
            *line,
            format!("{owner} persists `{written}`, but paths are relative to the root `{root}`"),
            format!("write the path from `{root}` on, or choose a root that holds it"),
        );
    }
    if path.contains("**") {
        report.warning(
            "persist-glob",
            *line,
            format!("{owner} persists `{written}`, but `**` does not cross directories here"),
            "name the directory, which takes all that is in it, or write one `*` for each level",
        );
    }
}

/// The keys of a step with a path, which CircleCI reads without a shell.
const PATH_KEYS: &[(&str, &[&str])] = &[
    ("persist_to_workspace", &["root", "paths", "path"]),
    ("attach_workspace", &["at"]),
    ("store_artifacts", &["path"]),
    ("store_test_results", &["path"]),
    ("run", &["working_directory"]),
];

pub(super) fn variables_in_paths(model: &Model, report: &mut Report) {
    for definition in &model.definitions {
        if let Some(directory) = definition.body.get("working_directory")
            && let Some(text) = directory.text()
        {
            variable_in_path(&definition.title(), "working_directory", directory.line, text, report);
        }
    }
    for (list, step) in model.steps() {
        let keys = PATH_KEYS.iter().find(|(name, _)| *name == step.name).map_or(&[][..], |it| it.1);
        for key in keys {
            for Text { line, text } in step.texts(key) {
                let key = if step.name == "run" { (*key).to_owned() } else { format!("{}.{key}", step.name) };
                variable_in_path(&list.owner, &key, line, &text, report);
            }
        }
    }
}

fn variable_in_path(owner: &str, key: &str, line: usize, path: &str, report: &mut Report) {
    let Some(variable) = text::variable(path) else { return };
    report.warning(
        "variable-in-path",
        line,
        format!("{owner} has `{variable}` in `{key}`, which is not expanded there"),
        "write the directory out, or use a pipeline value: `<< pipeline.… >>`",
    );
}

pub(super) fn null_working_directories(model: &Model, report: &mut Report) {
    let defined = model.definitions.iter().map(|it| (it.title(), it.body));
    let steps = model.steps().filter_map(|(list, step)| Some((list.owner.clone(), step.body?)));
    for (owner, body) in defined.chain(steps) {
        let Some((key, value)) = body.entry("working_directory") else { continue };
        if value.is_null() {
            report.error(
                "null-working-directory",
                key.line,
                format!("{owner} has a `working_directory` that YAML reads as null, not as a directory"),
                "write `working_directory: ~/project`, quote it (`\"~\"`), or leave it out",
            );
        }
    }
}

/// `checkout` rejects a directory with files, unless it has a repository.
pub(super) fn checkout_after_attach(model: &Model, report: &mut Report) {
    let mut reported = BTreeSet::new();
    let placed = model.workflows.iter().flat_map(|it| (0..it.invocations.len()).map(move |at| (it, at)));
    for (workflow, at) in placed.filter(|(workflow, at)| brings_only_files(workflow, *at)) {
        let invocation = &workflow.invocations[at];
        let Some((line, checkout, attached)) = refused_checkout(invocation).filter(|it| reported.insert(it.0)) else {
            continue;
        };
        report.error(
            "checkout-after-attach",
            line,
            format!(
                "job `{}` checks out into `{checkout}` after a workspace was attached at `{attached}`: \
                 the directory is no longer empty, and checkout refuses it",
                invocation.name
            ),
            "put `checkout` first, and attach elsewhere: `attach_workspace: { at: /tmp/workspace }`",
        );
    }
}

/// Whether the workspace of a job certainly has files, and certainly no repository.
fn brings_only_files(workflow: &Workflow, at: usize) -> bool {
    let before = workflow.ancestors(at);
    let jobs = || before.iter().map(|&it| &workflow.invocations[it]);
    let steps = || jobs().flat_map(|job| &job.steps).filter_map(|step| Some((step.persist()?, step.conditional)));
    let is_plain = |path: &Text| {
        let path = text::tidy(&path.text);
        !path.is_empty()
            && !path.contains(['*', '?', '[', '$'])
            && !text::is_open(&path)
            && path.rsplit('/').next() != Some(".git")
    };
    !jobs().any(|job| job.opaque)
        && steps().any(|(_, conditional)| !conditional)
        && steps().all(|(persist, _)| persist.paths.iter().all(is_plain))
}

/// The line and directory of a checkout over an attached workspace, and the attached directory.
fn refused_checkout(invocation: &Invocation) -> Option<(usize, String, String)> {
    let mut attached: Vec<(Text, String)> = Vec::new();
    let mut repositories: Vec<String> = Vec::new();
    for step in &invocation.steps {
        let base = invocation.working_directory.as_deref();
        if let Some(at) = step.attach().filter(|_| !step.conditional) {
            let place = text::directory(&at.text, base);
            attached.extend(place.map(|place| (at, place)));
        }
        let Some(checkout) = checkout(step, invocation) else { continue };
        let over = attached.iter().find(|(_, place)| text::is_within(place, &checkout));
        if let Some((at, _)) = over.filter(|_| !step.conditional && !repositories.contains(&checkout)) {
            return Some((step.line, checkout, at.text.clone()));
        }
        repositories.push(checkout);
    }
    None
}

/// The directory of a checkout.
fn checkout(step: &Step, invocation: &Invocation) -> Option<String> {
    if step.name != "checkout" {
        return None;
    }
    let base = invocation.working_directory.as_deref();
    match step.text("path") {
        Some(path) => text::directory(&path.text, base),
        None => base.map(str::to_owned),
    }
}

pub(super) fn checkout_elsewhere(model: &Model, report: &mut Report) {
    for (_, invocation) in model.invocations() {
        let Some(directory) = &invocation.working_directory else { continue };
        // A directory above or below the checkout reaches the files.
        let is_elsewhere = |place: &String| !text::is_within(place, directory) && !text::is_within(directory, place);
        let moved = invocation
            .steps
            .iter()
            .position(|step| checkout(step, invocation).is_some_and(|place| is_elsewhere(&place)));
        let Some(moved) = moved else { continue };
        let (before, after) = invocation.steps.split_at(moved);
        // With a second checkout in the working directory, the first one has another purpose.
        let also_here = before
            .iter()
            .chain(after)
            .any(|step| checkout(step, invocation).is_some_and(|place| !is_elsewhere(&place)));
        let place = checkout(&after[0], invocation).unwrap_or_default();
        let runs_here = after.iter().find(|step| is_run_here(step));
        let goes_there = after.iter().skip(1).any(|step| names_directory(step, &place));
        if let (false, false, Some(run)) = (also_here, goes_there, runs_here) {
            report.warning(
                "checkout-elsewhere",
                after[0].line,
                format!(
                    "job `{}` checks out into `{place}`, but its commands run in `{directory}` (line {})",
                    invocation.name, run.line
                ),
                format!("leave `path` out, or set `working_directory: {place}` for the job"),
            );
        }
    }
}

/// Whether a step mentions the checkout's directory.
fn names_directory(step: &Step, place: &str) -> bool {
    let last = place.rsplit('/').next().unwrap_or(place);
    let mut texts = step.body.into_iter().flat_map(Node::texts);
    texts.any(|text| text.contains(last))
}

/// A `run` in the default directory, without a `cd`.
fn is_run_here(step: &Step) -> bool {
    step.name == "run"
        && step.text("working_directory").is_none()
        && step.command().is_some_and(|command| !command.text.trim_start().starts_with("cd "))
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::expect;

    use crate::tests::check;

    #[test]
    fn paths_of_a_persist() {
        check(
            "
            jobs:
              build:
                steps:
                  - persist_to_workspace: { root: /tmp/w, paths: [., bin, ./] }
                  - persist_to_workspace: { root: out, paths: out/ }
                  - persist_to_workspace: { root: /tmp/w, path: /tmp/w/bin }
                  - persist_to_workspace: { root: /tmp/w, paths: [../x, ~/y, 'a/**/*.gz'] }
                  - persist_to_workspace: { root: /tmp/w, paths: ['*', 'a/*.gz', ./out/x, << pipeline.id >>] }
            ",
            expect![[r#"
                6 warning persist-outside-root: job `build` persists `/tmp/w/bin`, but paths are relative to the root `/tmp/w`
                    write the path from `/tmp/w` on, or choose a root that holds it
                7 warning persist-glob: job `build` persists `a/**/*.gz`, but `**` does not cross directories here
                    name the directory, which takes all that is in it, or write one `*` for each level
                7 warning persist-outside-root: job `build` persists `../x`, but paths are relative to the root `/tmp/w`
                    write the path from `/tmp/w` on, or choose a root that holds it
                7 warning persist-outside-root: job `build` persists `~/y`, but paths are relative to the root `/tmp/w`
                    write the path from `/tmp/w` on, or choose a root that holds it
            "#]],
        );
    }

    #[test]
    fn variables() {
        check(
            "
            executors: { e: { working_directory: $HOME/x } }
            jobs:
              build:
                working_directory: ~/project
                steps:
                  - run: { command: 'echo $HOME', working_directory: '${CI}/x' }
                  - persist_to_workspace: { root: $TMP, paths: [$CIRCLE_SHA1, 'cost$'] }
                  - store_artifacts: { path: /tmp/$(date) }
                  - store_test_results: { path: $OUT }
                  - attach_workspace: { at: /tmp/<< pipeline.number >> }
                  - attach_workspace: { at: /tmp/$CIRCLE_BUILD_NUM }
            ",
            expect![[r#"
                1 warning variable-in-path: executor `e` has `$HOME` in `working_directory`, which is not expanded there
                    write the directory out, or use a pipeline value: `<< pipeline.… >>`
                6 warning variable-in-path: job `build` has `${CI}` in `working_directory`, which is not expanded there
                    write the directory out, or use a pipeline value: `<< pipeline.… >>`
                7 warning variable-in-path: job `build` has `$CIRCLE_SHA1` in `persist_to_workspace.paths`, which is not expanded there
                    write the directory out, or use a pipeline value: `<< pipeline.… >>`
                7 warning variable-in-path: job `build` has `$TMP` in `persist_to_workspace.root`, which is not expanded there
                    write the directory out, or use a pipeline value: `<< pipeline.… >>`
                8 warning variable-in-path: job `build` has `$(date)` in `store_artifacts.path`, which is not expanded there
                    write the directory out, or use a pipeline value: `<< pipeline.… >>`
                9 warning variable-in-path: job `build` has `$OUT` in `store_test_results.path`, which is not expanded there
                    write the directory out, or use a pipeline value: `<< pipeline.… >>`
                10 warning attach-without-persist: job `build` attaches an empty workspace: no job before it persists anything, and a workspace does not cross workflows
                    persist in a job that this one requires, or fetch the files from a store
                11 warning variable-in-path: job `build` has `$CIRCLE_BUILD_NUM` in `attach_workspace.at`, which is not expanded there
                    write the directory out, or use a pipeline value: `<< pipeline.… >>`
            "#]],
        );
    }

    #[test]
    fn working_directories_that_are_null() {
        check(
            "
            executors: { a: { working_directory: ~ }, b: { working_directory: '~' } }
            jobs:
              build:
                working_directory:
                steps: [{ run: { command: make, working_directory: null } }, { run: { command: make } }]
            ",
            expect![[r#"
                1 error null-working-directory: executor `a` has a `working_directory` that YAML reads as null, not as a directory
                    write `working_directory: ~/project`, quote it (`"~"`), or leave it out
                4 error null-working-directory: job `build` has a `working_directory` that YAML reads as null, not as a directory
                    write `working_directory: ~/project`, quote it (`"~"`), or leave it out
                5 error null-working-directory: job `build` has a `working_directory` that YAML reads as null, not as a directory
                    write `working_directory: ~/project`, quote it (`"~"`), or leave it out
            "#]],
        );
    }

    #[test]
    fn checkout_and_attach() {
        check(
            "
            commands: { attach: { parameters: { at: { type: string } }, steps: [{ attach_workspace: { at: << parameters.at >> } }] } }
            jobs:
              build: { steps: [checkout, { persist_to_workspace: { root: ., paths: [bin] } }] }
              same: { steps: [{ attach_workspace: { at: . } }, checkout] }
              parent: { steps: [{ attach: { at: ~/project/target } }, checkout] }
              first: { steps: [checkout, { attach_workspace: { at: . } }] }
              apart: { working_directory: ~/app, steps: [{ attach: { at: ~/project } }, checkout] }
              unknown: { steps: [{ attach_workspace: { at: << pipeline.id >> } }, checkout] }
            workflows:
              w:
                jobs:
                  - build
                  - same: { requires: [build] }
                  - parent: { requires: [build] }
                  - first: { requires: [build] }
                  - apart: { requires: [build] }
                  - unknown: { requires: [build] }
            ",
            expect![[r#"
                4 error checkout-after-attach: job `same` checks out into `~/project` after a workspace was attached at `.`: the directory is no longer empty, and checkout refuses it
                    put `checkout` first, and attach elsewhere: `attach_workspace: { at: /tmp/workspace }`
                5 error checkout-after-attach: job `parent` checks out into `~/project` after a workspace was attached at `~/project/target`: the directory is no longer empty, and checkout refuses it
                    put `checkout` first, and attach elsewhere: `attach_workspace: { at: /tmp/workspace }`
            "#]],
        );
    }

    #[test]
    fn checkout_and_commands() {
        check(
            "
            jobs:
              a: { steps: [{ checkout: { path: ~/app } }, { run: make }] }
              b: { steps: [{ checkout: { path: ~/app } }, { run: { command: make, working_directory: ~/app } }] }
              c: { working_directory: ~/app, steps: [{ checkout: { path: . } }, { run: make }] }
              d: { steps: [{ checkout: { path: docs } }, checkout, { run: make }] }
              e: { steps: [{ checkout: { path: ~/app } }, { run: cd ~/app && make }] }
              f: { executor: orb/x, steps: [{ checkout: { path: ~/app } }, { run: make }] }
            workflows: { w: { jobs: [a, b, c, d, e, f] } }
            orbs: { orb: a/b@1 }
            ",
            expect![[r#"
                2 warning checkout-elsewhere: job `a` checks out into `~/app`, but its commands run in `~/project` (line 2)
                    leave `path` out, or set `working_directory: ~/app` for the job
            "#]],
        );
    }
}
