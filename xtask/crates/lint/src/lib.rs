//! Finds in `.circleci/config.yml` what CircleCI's JSON schema does not.
//!
//! The schema knows the shape of every key and nothing of what the names refer to: a workflow may
//! run a job that nobody wrote, a job may attach a workspace that nothing filled, production may
//! deploy before the build has ended, and the file is still valid. Those faults come to light on
//! CircleCI, minutes later, or never, so they are looked for here, without network or account.
//!
//! Text goes in, findings come out. `read` turns the YAML into a `Model`, in which commands
//! are written out and `requires` are links; every check is one function over that model. A thing
//! that is only known on CircleCI (an orb's steps, a pipeline value) is given the benefit of the
//! doubt. What the schema reports already is not repeated.

mod arguments;
mod conditions;
mod cron;
mod declared;
mod deliver;
mod expression;
mod images;
mod machines;
mod matrix;
mod model;
mod names;
mod paths;
mod read;
mod requires;
mod scripts;
mod template;
mod templates;
mod text;
mod workspace;
pub mod yaml;

#[cfg(test)]
mod production_tests;
#[cfg(test)]
mod seed_tests;
#[cfg(test)]
mod tests;

use anyhow::Result;
use serde::Serialize;
use std::path::Path;

use crate::model::Model;
use gangplank_model::error::{Kind, WithHint};

/// One fault: where it stands, what it is, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name for this kind of fault, in kebab case.
    pub code: &'static str,
    /// The line of the configuration, from 1.
    pub line: usize,
    /// What is wrong, with the job or step it is wrong in.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// CircleCI refuses it, or a job cannot work.
    Error,
    /// Everything else.
    Warning,
}

/// Every check, in the order of the modules. A check sees the whole model and adds to the report.
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
    let hint = || "`cargo xtask ci generate` writes .circleci/config.yml".to_owned();
    let text = std::fs::read_to_string(path).with_hint(Kind::NotFound, what, hint)?;
    lint(&text).with_hint(Kind::Failed, || path.display().to_string(), || "mend the YAML first".into())
}

/// Checks the text of a configuration. Findings are sorted by line.
///
/// The only error is text that is not YAML; its message has the line and the column.
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

/// Collects findings. A step that is reached twice, by an alias or by two workflows, counts once.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn error(&mut self, code: &'static str, line: usize, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Error, code, line, message.into(), hint.into());
    }

    fn warning(&mut self, code: &'static str, line: usize, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, code, line, message.into(), hint.into());
    }

    fn add(&mut self, severity: Severity, code: &'static str, line: usize, message: String, hint: String) {
        self.findings.push(Finding { severity, code, line, message, hint });
    }

    fn sorted(mut self) -> Vec<Finding> {
        self.findings.sort_by(|a, b| (a.line, a.code, &a.message).cmp(&(b.line, b.code, &b.message)));
        self.findings.dedup();
        self.findings
    }
}
