//! The table of checks, and the functions that run them on a text or a file.

use crate::finding::{Finding, Report};
use crate::model::Model;
use crate::{
    arguments, conditions, deliver, images, machines, matrix, names, paths, read, scripts, templates, workspace, yaml,
};
use anyhow::Result;
use gangplank_model::error::{Kind, WithHint};
use std::path::Path;

/// Every check, in module order. A check reads the model and adds to the report.
const CHECKS: &[fn(&Model, &mut Report)] = &[
    names::undefined_jobs,
    names::undefined_requires,
    names::requires_cycles,
    names::unknown_steps,
    names::command_cycles,
    names::undefined_executors,
    names::undeclared_parameters,
    templates::wrong_templates,
    arguments::wrong_arguments,
    arguments::wrong_defaults,
    conditions::wrong_conditions,
    conditions::wrong_schedules,
    matrix::wrong_matrices,
    names::unused_jobs,
    names::duplicate_keys,
    machines::unknown_resource_classes,
    images::retired_images,
    images::mutable_images,
    paths::persisted_paths,
    paths::variables_in_paths,
    paths::null_working_directories,
    paths::checkout_after_attach,
    paths::checkout_elsewhere,
    workspace::attach_without_persist,
    workspace::directory_mismatch,
    workspace::concurrent_persists,
    workspace::parallel_persists,
    workspace::approval_outlives_workspace,
    deliver::deploy_without_requires,
    deliver::deploy_races_build,
    deliver::unguarded_contexts,
    deliver::pointer_from_any_branch,
    deliver::pointer_to_own_build,
    deliver::map_filters,
    deliver::unreachable_on_tags,
    deliver::bad_serial_groups,
    deliver::serial_group_twice,
    deliver::deploy_without_serial_group,
    scripts::api_calls_without_fail,
    scripts::api_answers_by_grep,
    scripts::parameters_in_commands,
    scripts::tokens_on_command_line,
    scripts::deploy_reruns,
    scripts::split_release_markers,
];

/// Lints a file; errors name it.
pub fn lint_file(path: &Path) -> Result<Vec<Finding>> {
    let what = || format!("cannot read {}", path.display());
    let hint = || "name a file that exists; `cargo xtask ci generate` writes .circleci/config.yml".to_owned();
    let text = std::fs::read_to_string(path).with_hint(Kind::NotFound, what, hint)?;
    lint(&text).with_hint(Kind::Failed, || path.display().to_string(), || "fix the YAML first".into())
}

/// Checks the text of a configuration. Findings are sorted by line.
///
/// The only error is invalid YAML; its message has line and column.
pub fn lint(yaml: &str) -> Result<Vec<Finding>> {
    let documents = yaml::parse(yaml)?;
    let mut report = Report::default();
    match documents.as_slice() {
        [] => report.error(
            "empty-config",
            1,
            "the file is empty",
            "write at least `version: 2.1`, `jobs:` and `workflows:`",
        ),
        [first, rest @ ..] => {
            if let Some(second) = rest.first() {
                report.warning(
                    "extra-document",
                    second.line,
                    "a second YAML document starts here; only the first one was checked",
                    "keep one document in the file: remove the `---` between them",
                );
            }
            check(first, &mut report);
        }
    }
    Ok(report.sorted())
}

fn check(root: &yaml::Node, report: &mut Report) {
    if root.entries().is_empty() {
        return report.error(
            "not-a-map",
            root.line,
            "the top level is not a map of keys",
            "start with `version: 2.1`, then `jobs:` and `workflows:`",
        );
    }
    let model = read::model(root);
    if model.workflows.is_empty() {
        report.error(
            "no-workflow",
            root.line,
            "nothing runs: there is no workflow, and no job named `build` that would run without one",
            "add `workflows: { main: { jobs: [...] } }`",
        );
    }
    for check in CHECKS {
        check(&model, report);
    }
}
