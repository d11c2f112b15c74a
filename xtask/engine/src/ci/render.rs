//! A pipeline as `.circleci/config.yml`. Pure: the same pipeline is the same text, with no logic in it.

use crate::ci::pipeline::{Job, Kind, PERSISTED, Pipeline, Step, Work, Xtask};
use crate::store::WORKSPACE;
use crate::target::script::quote;
use std::fmt::Write;

/// Caches hold cargo's downloads only: CircleCI advises against build directories, and a deploy job compiles nothing.
const CACHE_KEY: &str = r#"v1-cargo-{{ arch }}-{{ checksum "Cargo.lock" }}"#;
const CACHE_PREFIX: &str = "v1-cargo-{{ arch }}-";

/// The YAML of a pipeline.
pub fn config(pipeline: &Pipeline) -> String {
    let mut out = String::from(
        "# Made by `cargo xtask ci generate` from xtask/src/main.rs. Change it there: `cargo xtask ci generate --check` and\n\
         # a test compare. Every job is checkout, cache and one command that also runs on a laptop.\n\
         version: 2.1\n\njobs:\n",
    );
    for job in &pipeline.jobs {
        if let Kind::Work(work) = &job.kind {
            write_job(&mut out, &job.name, work);
        }
    }
    let _ = write!(out, "workflows:\n  {}:\n    jobs:\n", pipeline.workflow);
    for job in &pipeline.jobs {
        write_node(&mut out, job);
    }
    out
}

fn write_job(out: &mut String, name: &str, work: &Work) {
    let _ = write!(
        out,
        "  {name}:\n    docker:\n      - image: {}\n    resource_class: {}\n    environment:\n      PIPELINE_NUMBER: << pipeline.number >>\n    steps:\n",
        work.image, work.resource_class
    );
    for step in &work.steps {
        write_step(out, step);
    }
    out.push('\n');
}

fn write_step(out: &mut String, step: &Step) {
    let _ = match step {
        Step::Checkout => writeln!(out, "      - checkout"),
        Step::RestoreCargoCache => {
            write!(
                out,
                "      - restore_cache:\n          keys:\n            - {CACHE_KEY}\n            - {CACHE_PREFIX}\n"
            )
        }
        Step::SaveCargoCache => write!(
            out,
            "      - save_cache:\n          key: {CACHE_KEY}\n          paths:\n            - ~/.cargo/registry/index\n            - ~/.cargo/registry/cache\n            - ~/.cargo/git/db\n"
        ),
        Step::Xtask { name, args, by } => {
            let args: Vec<_> = args.iter().map(|arg| quote(arg)).collect();
            let program = match by {
                Xtask::Cargo => "cargo xtask".to_owned(),
                Xtask::Persisted => format!("{WORKSPACE}/{PERSISTED}"),
            };
            write!(out, "      - run:\n          name: {name}\n          command: {program} {}\n", args.join(" "))
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

fn write_node(out: &mut String, job: &Job) {
    let mut fields = String::new();
    if job.kind == Kind::Approval {
        fields.push_str("          type: approval\n");
    }
    if !job.requires.is_empty() {
        let _ = writeln!(fields, "          requires: [{}]", job.requires.join(", "));
    }
    if let Some(branch) = &job.branch {
        // An expression: CircleCI deprecated the map form of filters in July 2026.
        let _ = writeln!(fields, "          filters: pipeline.git.branch == \"{branch}\"");
    }
    if let Kind::Work(work) = &job.kind {
        if !work.contexts.is_empty() {
            let _ = writeln!(fields, "          context: [{}]", work.contexts.join(", "));
        }
        if let Some(group) = &work.serial_group {
            let _ = writeln!(fields, "          serial-group: {group}");
        }
    }
    let _ = if fields.is_empty() {
        writeln!(out, "      - {}", job.name)
    } else {
        write!(out, "      - {}:\n{fields}", job.name)
    };
}
