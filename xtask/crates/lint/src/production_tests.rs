//! Situations in production configs that must not be errors, and causes that must give a single finding.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use crate::tests::{check, check_used};

/// The findings of one rule.
fn codes(yaml: &str) -> Vec<String> {
    let findings = super::lint(yaml).expect("it is YAML");
    findings.iter().map(|it| format!("{:?} {}", it.severity, it.code).to_lowercase()).collect()
}

fn has(yaml: &str, code: &str) -> bool {
    codes(yaml).iter().any(|it| it.ends_with(&format!(" {code}")))
}

#[test]
fn require_job_named_by_its_matrix_is_found() {
    let jobs = "
jobs: { build: { parameters: { os: { type: string } }, steps: [checkout] }, pack: { steps: [checkout] } }
workflows:
  w:
    jobs:
      - build: { name: << matrix.os >>-build, matrix: { parameters: { os: [linux, macos] } } }
";
    assert!(!has(&format!("{jobs}      - pack: {{ requires: [linux-build, macos-build] }}\n"), "undefined-requires"));
    assert!(has(&format!("{jobs}      - pack: {{ requires: [windows-build] }}\n"), "undefined-requires"));
    assert!(has(&format!("{jobs}      - pack: {{ requires: [linux] }}\n"), "undefined-requires"));
}

#[test]
fn require_job_of_the_same_matrix_value_is_followed() {
    check_used(
        "
        jobs:
          build: { parameters: { os: { type: string } }, steps: [{ persist_to_workspace: { root: /w, paths: [a] } }] }
          use: { parameters: { os: { type: string } }, steps: [{ attach_workspace: { at: /w } }] }
        workflows:
          w:
            jobs:
              - build: { name: << matrix.os >>-build, matrix: { parameters: { os: [linux, macos] } } }
              - use:
                  name: << matrix.os >>-use
                  matrix: { parameters: { os: [linux, macos, bsd] }, exclude: [{ os: bsd }] }
                  requires: [<< matrix.os >>-build]
        ",
        expect![[""]],
    );
}

#[test]
fn name_that_only_circleci_knows_may_answer_to_any_requires() {
    let config = "
parameters: { env: { type: string, default: dev } }
jobs: { build: { steps: [checkout] } }
workflows:
  w:
    jobs:
      - build: { name: build-<< pipeline.parameters.env >> }
      - build: { name: test, requires: [build-dev] }
";
    assert!(!has(config, "undefined-requires"));
}

/// Many concurrent jobs that persist, and as many that attach the result.
fn fan(path: &str) -> String {
    let mut config = String::from("jobs:\n");
    for n in 0..20 {
        let _ =
            writeln!(config, "  b{n}: {{ steps: [{{ persist_to_workspace: {{ root: /w, paths: ['{path}'] }} }}] }}");
        let _ = writeln!(config, "  u{n}: {{ steps: [{{ attach_workspace: {{ at: /w }} }}] }}");
    }
    let all = (0..20).map(|n| format!("b{n}")).collect::<Vec<_>>().join(", ");
    config += "workflows:\n  w:\n    jobs:\n";
    for n in 0..20 {
        let _ = writeln!(config, "      - b{n}\n      - u{n}: {{ requires: [{all}] }}");
    }
    config
}

#[test]
fn persist_directory_from_many_jobs_is_no_finding() {
    for path in ["dist", "dist/", "coverage-*", "*.json", ".", "reports/<< pipeline.id >>.xml"] {
        assert_eq!(codes(&fan(path)), [""; 0], "{path}");
    }
}

#[test]
fn persist_one_file_from_many_jobs_is_one_warning_with_the_count() {
    assert_eq!(codes(&fan("out/app.tar.gz")), ["warning concurrent-persist"]);
    let findings = super::lint(&fan("out/app.tar.gz")).unwrap();
    assert!(findings[0].message.contains("20 jobs"), "{}", findings[0].message);
}

#[test]
fn persist_directory_from_parallel_nodes_is_no_finding() {
    let job = |path: &str| {
        format!(
            "jobs: {{ build: {{ parallelism: 4, steps: [{{ persist_to_workspace: {{ root: /w, paths: [{path}] }} }}] }} }}"
        )
    };
    assert_eq!(codes(&job("coverage")), [""; 0]);
    assert_eq!(codes(&job("coverage/all.json")), ["warning parallel-persist"]);
}

#[test]
fn context_alone_makes_no_deploy() {
    check_used(
        "
        jobs:
          build: { steps: [checkout, { store_artifacts: { path: out } }] }
          audit: { steps: [{ run: make audit }] }
        workflows: { w: { jobs: [build, { audit: { context: [docker-hub] } }] } }
        ",
        expect![[""]],
    );
}

#[test]
fn deploy_that_the_build_waits_for_is_not_asked_to_require_it() {
    let config = "
jobs: { deploy-db: { steps: [{ run: make }] }, build: { steps: [{ persist_to_workspace: { root: /w, paths: [a] } }] } }
workflows: { w: { jobs: [{ deploy-db: { serial-group: a } }, { build: { requires: [deploy-db] } }] } }
";
    assert!(!has(config, "deploy-without-requires"));
}

#[test]
fn deploy_that_checks_out_and_builds_itself_needs_no_requires() {
    let config = "
jobs: { deploy: { steps: [checkout, { run: make }] }, build: { steps: [{ persist_to_workspace: { root: /w, paths: [a] } }] } }
workflows: { w: { jobs: [{ deploy: { serial-group: a } }, build] } }
";
    assert!(!has(config, "deploy-without-requires"));
}

#[test]
fn second_checkout_after_attach_is_a_fetch() {
    let config = |steps: &str| {
        format!(
            "
jobs:
  build: {{ steps: [{{ persist_to_workspace: {{ root: ., paths: [bin] }} }}] }}
  use: {{ steps: [{steps}] }}
workflows: {{ w: {{ jobs: [build, {{ use: {{ requires: [build] }} }}] }} }}
"
        )
    };
    let attach = "{ attach_workspace: { at: . } }";
    assert!(!has(&config(&format!("checkout, {attach}, checkout")), "checkout-after-attach"));
    assert!(has(&config(&format!("{attach}, checkout")), "checkout-after-attach"));
    let whole = config(&format!("{attach}, checkout")).replace("paths: [bin]", "paths: [.]");
    assert!(!has(&whole, "checkout-after-attach"), "the workspace may hold the repository");
    let maybe = config(&format!("{{ when: {{ condition: x, steps: [{attach}] }} }}, checkout"));
    assert!(!has(&maybe, "checkout-after-attach"), "the attach may not run");
}

#[test]
fn filter_that_ignores_all_tags_is_not_meant_for_tags() {
    let config = |tags: &str| {
        format!(
            "
jobs: {{ a: {{ steps: [checkout] }}, b: {{ steps: [checkout] }} }}
workflows: {{ w: {{ jobs: [a, {{ b: {{ requires: [a], filters: {{ tags: {tags} }} }} }}] }} }}
"
        )
    };
    assert!(!has(&config("{ ignore: /.*/ }"), "unreachable-on-tags"));
    assert!(codes(&config("{ only: /v.*/ }")).contains(&"warning unreachable-on-tags".to_owned()));
    let only_tags = config("{ only: /v.*/ }, branches: { ignore: /.*/ }");
    assert!(codes(&only_tags).contains(&"error unreachable-on-tags".to_owned()), "it can never run");
}

#[test]
fn working_directory_below_the_checkout_is_no_finding() {
    let config = |directory: &str, run: &str| {
        format!(
            "jobs: {{ build: {{ working_directory: {directory}, steps: [{{ checkout: {{ path: ~/app }} }}, {{ run: '{run}' }}] }} }}"
        )
    };
    assert!(!has(&config("~/app/server", "make"), "checkout-elsewhere"));
    assert!(!has(&config("\"~\"", "make"), "checkout-elsewhere"), "a directory above reaches it");
    assert!(!has(&config("~/other", "make -C ~/app"), "checkout-elsewhere"));
    assert!(has(&config("~/other", "make"), "checkout-elsewhere"));
}

/// Three jobs with the same mistake, which is one finding.
fn once(yaml: &str, expected: Expect) {
    check(yaml, expected);
}

#[test]
fn filters_as_maps_are_one_warning_a_file() {
    once(
        "
        jobs: { a: { steps: [checkout] }, b: { steps: [checkout] }, c: { steps: [checkout] } }
        workflows:
          w:
            jobs:
              - a: { filters: &main { branches: { only: main } } }
              - b: { filters: *main }
              - c: { filters: *main }
        ",
        expect![[r#"
            5 warning map-filters: job `a` and 2 more have filters as maps, deprecated since July 2026
                write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
        "#]],
    );
}

#[test]
fn filters_by_paths_of_a_preprocessor_are_no_finding() {
    let config =
        "jobs: { a: { steps: [checkout] } }\nworkflows: { w: { jobs: [{ a: { filters: { paths: [src] } } }] } }";
    assert_eq!(codes(config), [""; 0]);
}

#[test]
fn moving_image_of_many_jobs_is_one_warning() {
    once(
        "
        jobs:
          a: { docker: [{ image: redis:latest }], steps: [checkout] }
          b: { docker: [{ image: redis:latest }], steps: [checkout] }
          c: { docker: [{ image: redis:latest }], steps: [checkout] }
        workflows: { w: { jobs: [a, b, c] } }
        ",
        expect![[r#"
            2 warning mutable-image: image `redis:latest` of job `a` and 2 more has the tag `latest`, which moves
                pin a version tag or a digest (`@sha256:…`): the same commit then builds the same again
        "#]],
    );
}

#[test]
fn attach_at_another_place_that_a_command_names_is_no_finding() {
    let config = |use_it: &str| {
        format!(
            "
jobs:
  build: {{ steps: [{{ persist_to_workspace: {{ root: ., paths: [dist] }} }}] }}
  use: {{ steps: [{use_it}] }}
workflows: {{ w: {{ jobs: [build, {{ use: {{ requires: [build] }} }}] }} }}
"
        )
    };
    let attach = "{ attach_workspace: { at: /tmp/ws } }";
    let code = "workspace-directory-mismatch";
    assert!(!has(&config(&format!("{attach}, {{ run: cp -r /tmp/ws/dist . }}")), code));
    assert!(!has(&config(&format!("checkout, {attach}, {{ run: ./deploy.sh }}")), code), "the script may name it");
    assert!(!has(&config("{ attach_workspace: { at: ./sub } }, { run: ls }"), code));
    assert!(has(&config(&format!("{attach}, {{ run: ls }}")), code));
}

#[test]
fn attach_that_finds_nothing_is_one_warning_where_no_workflow_fills_it() {
    let config = |second: &str| {
        format!(
            "
jobs: {{ build: {{ steps: [{{ persist_to_workspace: {{ root: /w, paths: [a] }} }}] }}, use: {{ steps: [{{ attach_workspace: {{ at: /w }} }}] }} }}
workflows:
  v: {{ jobs: [use] }}
  w: {{ jobs: [{second}] }}
"
        )
    };
    assert_eq!(codes(&config("use")).iter().filter(|it| *it == "warning attach-without-persist").count(), 1);
    assert!(!has(&config("build, { use: { requires: [build] } }"), "attach-without-persist"));
}

#[test]
fn context_on_every_branch_is_a_warning_of_deploys_alone() {
    let config = |job: &str| {
        format!(
            "jobs: {{ {job}: {{ steps: [checkout] }} }}\nworkflows: {{ w: {{ jobs: [{{ {job}: {{ context: [a, b] }} }}] }} }}"
        )
    };
    assert!(!has(&config("test"), "unguarded-context"));
    assert!(codes(&config("deploy")).contains(&"warning unguarded-context".to_owned()));
}

#[test]
fn persist_of_the_whole_root_is_no_finding() {
    for (root, path) in [(".", "."), ("~/project", "./"), ("workspace", "workspace")] {
        let config = format!(
            "jobs: {{ build: {{ steps: [{{ persist_to_workspace: {{ root: {root}, paths: [{path}] }} }}] }} }}"
        );
        assert_eq!(codes(&config), [""; 0], "{root} {path}");
    }
}
