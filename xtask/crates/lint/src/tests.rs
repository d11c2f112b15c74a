//! Tests of the whole linter: the configurations of `seed_tests`, a correct configuration, and invalid texts. Each
//! check has its own table in its module.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use crate::lint;
use crate::seed_tests::SEED_MULTI;

/// Lints a configuration, written indented as in the test, and compares all findings.
#[allow(clippy::needless_pass_by_value, reason = "an `expect!` is written at the call")]
pub(super) fn check(yaml: &str, expected: Expect) {
    expected.assert_eq(&findings(&dedent(yaml), &[]));
}

/// The same for a table whose jobs are not all used by every row.
#[allow(clippy::needless_pass_by_value, reason = "an `expect!` is written at the call")]
pub(super) fn check_used(yaml: &str, expected: Expect) {
    expected.assert_eq(&findings(&dedent(yaml), &["unused-job"]));
}

fn findings(yaml: &str, ignored: &[&str]) -> String {
    let mut text = String::new();
    match lint(yaml) {
        Ok(findings) => {
            for it in findings.iter().filter(|it| !ignored.contains(&it.code)) {
                let severity = format!("{:?}", it.severity).to_lowercase();
                writeln!(text, "{} {severity} {}: {}\n    {}", it.line, it.code, it.message, it.hint).unwrap();
            }
        }
        Err(error) => writeln!(text, "not YAML: {error}").unwrap(),
    }
    text
}

/// Takes the first line break and the common indent away, so that line 1 is the first line seen.
fn dedent(yaml: &str) -> String {
    let yaml = yaml.strip_prefix('\n').unwrap_or(yaml);
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let common = yaml.lines().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    yaml.lines().map(|line| line.get(common..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

const CLEAN: &str = r#"
    version: 2.1
    parameters:
      note: { type: string, default: "" }
    executors:
      rust:
        docker: [{ image: "cimg/rust:1.94.0" }]
        resource_class: large
        working_directory: ~/project
    commands:
      fetch:
        parameters:
          to: { type: string, default: /tmp/workspace }
        steps:
          - attach_workspace: { at: << parameters.to >> }
    jobs:
      check:
        executor: rust
        steps:
          - checkout
          - restore_cache: { keys: ['v1-{{ checksum "Cargo.lock" }}', v1-] }
          - run: cargo test
          - run: { command: 'echo "$NOTE"', environment: { NOTE: << pipeline.parameters.note >> } }
      build:
        executor: rust
        steps:
          - checkout
          - run: cargo xtask build
          - persist_to_workspace:
              root: /tmp/workspace
              paths: [releases, bin]
          - store_artifacts: { path: /tmp/workspace/releases }
      deploy:
        executor: rust
        parameters:
          env: { type: string }
        steps:
          - fetch
          - run: /tmp/workspace/bin/xtask deploy << parameters.env >>
    workflows:
      main:
        jobs:
          - check
          - build:
              requires: [check]
          - deploy:
              name: deploy-dev
              env: dev
              requires: [build]
              context: [dev]
              serial-group: << pipeline.project.slug >>/dev
              filters: pipeline.git.branch == "main"
          - hold:
              type: approval
              requires: [deploy-dev]
          - deploy:
              name: deploy-prod
              env: prod
              requires: [hold]
              context: [prod]
              serial-group: << pipeline.project.slug >>/prod
              filters: pipeline.git.branch == "main"
"#;

#[test]
fn lint_of_clean_configuration_reports_the_approval_alone() {
    check(
        CLEAN,
        expect![[r#"
        14 warning approval-outlives-workspace: job `deploy-prod` attaches what `build` persisted, after the approval `hold`: an approval waits up to 90 days, a workspace lives 15
            let the job fall back to a store that keeps releases (artifacts by commit, S3) when the workspace is gone
    "#]],
    );
    let without_hold = CLEAN.replace("type: approval", "type: no-op");
    check(&without_hold, expect![[""]]);
}

#[test]
fn lint_of_text_that_is_no_configuration_is_an_error() {
    check(
        "",
        expect![[r#"
        1 error empty-config: the file is empty
            write at least `version: 2.1`, `jobs:` and `workflows:`
    "#]],
    );
    check(
        "# a comment",
        expect![[r#"
        1 error empty-config: the file is empty
            write at least `version: 2.1`, `jobs:` and `workflows:`
    "#]],
    );
    check(
        "- a\n- b",
        expect![[r#"
        1 error not-a-map: the top level is not a map of keys
            start with `version: 2.1`, then `jobs:` and `workflows:`
    "#]],
    );
    check(
        "just text",
        expect![[r#"
        1 error not-a-map: the top level is not a map of keys
            start with `version: 2.1`, then `jobs:` and `workflows:`
    "#]],
    );
    check(
        "~",
        expect![[r#"
        1 error not-a-map: the top level is not a map of keys
            start with `version: 2.1`, then `jobs:` and `workflows:`
    "#]],
    );
    check(
        "jobs: [",
        expect![[r#"
        not YAML: line 2 column 1: while parsing a node, did not find expected node content
    "#]],
    );
    check(
        "a: 1\n b: 2",
        expect![[r#"
        not YAML: line 2 column 3: mapping values are not allowed in this context
    "#]],
    );
}

#[test]
fn lint_of_file_without_workflow_or_with_two_documents_reports_it() {
    check(
        "jobs: {}\nworkflows: {}",
        expect![[r#"
        1 error no-workflow: nothing runs: there is no workflow, and no job named `build` that would run without one
            add `workflows: { main: { jobs: [...] } }`
    "#]],
    );
    check("jobs: { build: { steps: [checkout] } }", expect![[""]]);
    check(
        "jobs: { test: { steps: [checkout] } }",
        expect![[r#"
        1 error no-workflow: nothing runs: there is no workflow, and no job named `build` that would run without one
            add `workflows: { main: { jobs: [...] } }`
    "#]],
    );
    check(
        "jobs: { build: { steps: [checkout] } }\n---\njobs: {}",
        expect![[r#"
        3 warning extra-document: a second YAML document starts here; only the first one was checked
            keep one document in the file: remove the `---` between them
    "#]],
    );
}

#[test]
fn wrong_shapes_read_as_absent() {
    let shapes = [
        "jobs: 1\nworkflows: 2",
        "jobs: [a]\nworkflows: [b]",
        "jobs: { a: , b: 3, c: [], d: { steps: 4 } }\nworkflows: { w: , x: 1, y: [], z: { jobs: { a: 1 } } }",
        "jobs: { a: { steps: [[[run]], {}, { run: }, { run: [] }, 5, ~] } }\nworkflows: { w: { jobs: [{}, ~, [a], 1] } }",
        "workflows: { w: { jobs: [{ a: { requires: { b: c }, context: { d: e }, matrix: f, filters: [g] } }] } }",
        "{ [a, b]: c, { d: e }: f, jobs: { [g]: h } }",
        "orbs: x\nparameters: [y]\nexecutors: z\ncommands: 3\njob-groups: [1]\nfunctions: ''",
    ];
    for shape in shapes {
        assert!(lint(shape).is_ok(), "{shape}");
    }
}

#[test]
fn lint_of_cut_or_changed_text_does_not_panic() {
    for config in [CLEAN, SEED_MULTI].map(dedent) {
        for (at, _) in config.char_indices() {
            let _ = lint(&config[..at]);
        }
    }
    let config = dedent(CLEAN);
    for (at, c) in config.char_indices() {
        for other in ["é", "\n", "<<"] {
            let _ = lint(&[&config[..at], other, &config[at + c.len_utf8()..]].concat());
        }
    }
}

/// Every kind of expression, condition and call in a few lines.
const RICH: &str = r#"
    version: 2.1
    parameters: { v: { type: enum, enum: [a, b], default: a } }
    executors: { e: { parameters: { t: { type: string } }, docker: [{ image: "a:<< parameters.t >>" }] } }
    commands: { c: { parameters: { n: { type: integer } }, steps: [{ run: 'cat \<<EOF << parameters.n >> $X' }] } }
    jobs:
      j:
        executor: { name: e, t: "1" }
        parameters: { o: { type: string } }
        steps: [{ c: { n: 1 } }, { when: { condition: { not: { equal: [a, << parameters.o >>] } }, steps: [checkout] } }]
    workflows:
      w:
        when: pipeline.git.branch == "main" and not (pipeline.number > 1)
        triggers: [{ schedule: { cron: "*/5 0 1-2 JAN mon,TUE" } }]
        jobs:
          - j: { name: << matrix.o >>-j, matrix: { parameters: { o: [x, y] }, exclude: [{ o: y }] } }
          - j: { name: k, o: "<<# pipeline.id >>x<</ pipeline.id >>", requires: [x-j], filters: pipeline.git.tag matches /^v/ }
"#;

#[test]
fn lint_of_cut_or_changed_expressions_does_not_panic() {
    assert_eq!(findings(&dedent(RICH), &[]), "");
    let config = dedent(RICH);
    for (at, c) in config.char_indices() {
        let _ = lint(&config[..at]);
        for other in ["é", "<<", ">>", "\\"] {
            let _ = lint(&[&config[..at], other, &config[at + c.len_utf8()..]].concat());
        }
    }
}

#[test]
fn commands_that_multiply_come_to_an_end() {
    let mut config = String::from("commands:\n");
    for n in 0..40 {
        let calls = vec![format!("c{}", n + 1); 10].join(", ");
        writeln!(config, "  c{n}: {{ steps: [{calls}] }}").unwrap();
    }
    config.push_str("  c40: { steps: [checkout] }\njobs: { build: { steps: [c0] } }\n");
    assert_eq!(findings(&config, &[]), "");
}
