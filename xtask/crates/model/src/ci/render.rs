//! Renders a pipeline as `.circleci/config.yml`. Pure and deterministic.

use crate::ci::pipeline::{Arg, Job, Kind, LAUNCHER, PERSISTED, Parameter, Pipeline, Step, Work, Workflow, Xtask};
use crate::shell::quote;
use crate::store_url::WORKSPACE;
use std::fmt::Write;

/// The first line of every generated config.
pub const MADE: &str = "# Made by `cargo xtask ci generate`";

/// The header of the pipeline's file.
pub const PIPELINE: &str = "\
# Made by `cargo xtask ci generate` from xtask/src/main.rs. Change it there: `cargo xtask ci generate --check` and
# a test compare. Every job is checkout and one command that also runs on a laptop.
";

/// The header of the Rollback button's file.
pub const ROLLBACK: &str = "\
# Made by `cargo xtask ci generate`. The Rollback button of CircleCI's Deploys page runs it, once it is chosen in the
# project settings under Deploys.
";

/// The header of the Deploy and Promote buttons' file.
pub const DEPLOY: &str = "\
# Made by `cargo xtask ci generate`. The Deploy and Promote buttons of CircleCI's Deploys page run it, once it is chosen
# in the project settings under Deploys.
";

/// The YAML of a pipeline, after a header.
pub fn config(pipeline: &Pipeline, about: &str) -> String {
    let mut out = format!("{about}version: 2.1\n\n");
    if !pipeline.parameters.is_empty() {
        out.push_str("parameters:\n");
        for Parameter { name, default } in &pipeline.parameters {
            let _ = write!(out, "  {name}:\n    type: string\n    default: {}\n", quoted(default));
        }
        out.push('\n');
    }
    out.push_str("jobs:\n");
    for (name, work) in pipeline.definitions() {
        write_job(&mut out, name, work);
    }
    out.push_str("workflows:\n");
    for (n, workflow) in pipeline.workflows.iter().enumerate() {
        write_workflow(&mut out, workflow, n > 0);
    }
    out
}

fn write_job(out: &mut String, name: &str, work: &Work) {
    let _ = write!(
        out,
        "  {name}:\n    docker:\n      - image: {}\n    resource_class: {}\n    environment:\n      PIPELINE_NUMBER: \"<< pipeline.number >>\"\n      CIRCLE_PROJECT_SLUG: << pipeline.project.slug >>\n",
        work.image, work.resource_class
    );
    for (name, value) in &work.environment {
        // Quoted, because seven digits of a commit may look like a number.
        let _ = writeln!(out, "      {name}: {}", quoted(value));
    }
    out.push_str("    steps:\n");
    for step in &work.steps {
        write_step(out, step);
    }
    out.push('\n');
}

/// A text that YAML parses as a string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn write_step(out: &mut String, step: &Step) {
    let _ = match step {
        Step::Checkout => writeln!(out, "      - checkout"),
        Step::AddSshKeys => writeln!(out, "      - add_ssh_keys"),
        Step::Xtask { name, args, by, always } => {
            let args: Vec<_> = args.iter().map(argument).collect();
            let program = match by {
                Xtask::Cargo => "cargo xtask".to_owned(),
                Xtask::Persisted => format!("{WORKSPACE}/{PERSISTED}"),
                Xtask::Launched => format!("cargo run --quiet --manifest-path {LAUNCHER} --"),
            };
            let when = if *always { "          when: always\n" } else { "" };
            write!(out, "      - run:\n          name: {name}\n          command: {program} {}\n{when}", args.join(" "))
        }
        Step::Persist { root, paths } => {
            let _ = write!(out, "      - persist_to_workspace:\n          root: {root}\n          paths:\n");
            paths.iter().try_for_each(|path| writeln!(out, "            - {path}"))
        }
        Step::Attach { at } => write!(out, "      - attach_workspace:\n          at: {at}\n"),
        Step::StoreArtifacts { path, destination } => {
            write!(out, "      - store_artifacts:\n          path: {path}\n          destination: {destination}\n")
        }
    };
}

/// An argument for the shell. A variable is in double quotes, so that its value is a single word.
fn argument(arg: &Arg) -> String {
    match arg {
        Arg::Word(word) => quote(word),
        Arg::Var(name) => format!("\"${name}\""),
    }
}

fn write_workflow(out: &mut String, workflow: &Workflow, apart: bool) {
    if apart {
        out.push('\n');
    }
    let _ = writeln!(out, "  {}:", workflow.name);
    if let Some(when) = &workflow.when {
        let _ = writeln!(out, "    when: {}", when.expression());
    }
    out.push_str("    jobs:\n");
    for job in &workflow.jobs {
        write_node(out, job);
    }
}

fn write_node(out: &mut String, job: &Job) {
    let mut fields = String::new();
    if job.name != job.definition {
        let _ = writeln!(fields, "          name: {}", job.name);
    }
    if job.kind == Kind::Approval {
        fields.push_str("          type: approval\n");
    }
    if !job.requires.is_empty() {
        let _ = writeln!(fields, "          requires: [{}]", job.requires.join(", "));
    }
    if let Some(filter) = &job.filter {
        // As an expression: CircleCI deprecated the map form of filters in July 2026.
        let _ = writeln!(fields, "          filters: {}", filter.expression());
    }
    if !job.contexts.is_empty() {
        let _ = writeln!(fields, "          context: [{}]", job.contexts.join(", "));
    }
    if let Some(group) = &job.serial_group {
        let _ = writeln!(fields, "          serial-group: {group}");
    }
    let _ = if fields.is_empty() {
        writeln!(out, "      - {}", job.definition)
    } else {
        write!(out, "      - {}:\n{fields}", job.definition)
    };
}
