//! Findings in configurations that use common shell recipes.

use crate::tests::check;
use expect_test::expect;

/// A single workflow, with its indentation corrected.
const SEED_SINGLE: &str = r"
    version: 2.1
    executors:
      my-executor:
        docker:
          - image: my-image/build-agent:latest
        working_directory: ~
    jobs:
      build:
        executor: my-executor
        steps:
          - checkout:
              path: ~/my-project
          - run:
              name: build
              command: ./build.sh
          - persist_to_workspace:
              root: workspace
              paths:
                - build_artifacts
      deploy:
        executor: my-executor
        steps:
          - attach_workspace:
              at: ~/workspace
          - run:
              name: deploy
              command: ./deploy.sh
    workflows:
      build-deploy:
        jobs:
          - build
          - deploy:
              requires:
                - build
              filters:
                branches:
                  only: main
";

#[test]
fn lint_of_published_single_workflow_finds_its_faults() {
    check(
        SEED_SINGLE,
        expect![[r#"
            5 warning mutable-image: image `my-image/build-agent:latest` of executor `my-executor` has the tag `latest`, which moves
                pin a version tag or a digest (`@sha256:…`): the same commit then builds the same again
            6 error null-working-directory: executor `my-executor` has a `working_directory` that YAML reads as null, not as a directory
                write `working_directory: ~/project`, quote it (`"~"`), or leave it out
            11 warning checkout-elsewhere: job `build` checks out into `~/my-project`, but its commands run in `~/project` (line 13)
                leave `path` out, or set `working_directory: ~/my-project` for the job
            24 warning workspace-directory-mismatch: job `deploy` attaches at `~/workspace`, but the files were persisted from `~/project/workspace`: the root is stripped, so every path changes between the jobs
                use one absolute directory on both sides: `root: /tmp/workspace` and `at: /tmp/workspace`
            32 warning deploy-without-serial-group: job `deploy` has no serial group: two pipelines can deploy at once, and in the wrong order
                add `serial-group: << pipeline.project.slug >>/<environment>`
            35 warning map-filters: job `deploy` has filters as a map, deprecated since July 2026
                write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
        "#]],
    );
}

/// Two workflows that pass on a build number; `tests/it/hazards` runs its commands.
pub(super) const SEED_MULTI: &str = include_str!("article.yml");

#[test]
fn lint_of_published_two_workflows_finds_their_faults() {
    check(
        SEED_MULTI,
        expect![[r#"
            5 warning mutable-image: image `my-image/build-agent:latest` of executor `my-executor` has the tag `latest`, which moves
                pin a version tag or a digest (`@sha256:…`): the same commit then builds the same again
            6 error null-working-directory: executor `my-executor` has a `working_directory` that YAML reads as null, not as a directory
                write `working_directory: ~/project`, quote it (`"~"`), or leave it out
            10 warning api-answer-by-grep: command `get_latest_artifacts` picks URLs out of the API's answer with `grep`: those of an error message too, and none of the second page
                read the JSON: `jq -r '.items[].url'`, then the page that `next_page_token` names
            10 warning api-call-without-fail: command `get_latest_artifacts` calls CircleCI's API with a `curl` that exits 0 on 401, 404 and 500
                add `--fail-with-body --retry 3`, so that the step fails when the call does
            10 warning pointer-to-own-build: job `deploy-dev` of workflow `build-deploy-dev` ships what `$LATEST_BUILD_NUM` names, and not what `build` built just now: another pipeline may have set it since
                persist the files in `build` and attach its workspace here
            10 warning token-on-command-line: command `get_latest_artifacts` and 1 more pass `$API_TOKEN` to `curl` as an argument, which `ps` shows
                write `Authorization: Bearer …` to a file that only you can read, and pass `--header @file`
            10 warning token-on-command-line: command `get_latest_artifacts` passes `$API_TOKEN` to `wget` as an argument, which `ps` shows
                wget sends its headers to every host that it is redirected to; use `curl --header @file` with `Authorization: Bearer`
            22 warning checkout-elsewhere: job `build` checks out into `~/my-project`, but its commands run in `~/project` (line 24)
                leave `path` out, or set `working_directory: ~/my-project` for the job
            29 warning api-call-without-fail: job `build` calls CircleCI's API with a `curl` that exits 0 on 401, 404 and 500
                add `--fail-with-body --retry 3`, so that the step fails when the call does
            29 warning pointer-from-any-branch: job `build` of workflow `build-deploy-dev` sets a project variable on every branch: the next deploy ships whichever branch was built last
                add `filters: pipeline.git.branch == "main"`, or find the build by its commit instead
            52 warning deploy-without-serial-group: job `deploy-dev` and 1 more have no serial group: two pipelines can deploy at once, and in the wrong order
                add `serial-group: << pipeline.project.slug >>/<environment>`
            55 warning map-filters: job `deploy-dev` and 1 more have filters as maps, deprecated since July 2026
                write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
            60 warning deploy-races-build: job `deploy-prod` of workflow `deploy-prod` starts together with `build` of workflow `build-deploy-dev`, so it ships what an earlier pipeline built
                move it into workflow `build-deploy-dev` with `requires: [build]`, or run its workflow on request only: `when: pipeline.parameters.<name>`
        "#]],
    );
}

/// Two common recipes, each as the command of a job.
const SEED_RECIPES: &str = r#"
    version: 2.1
    jobs:
      build:
        docker: [{ image: "cimg/base:2024.12" }]
        steps:
          - run: |
              curl -X POST -H "Content-Type: application/json" -d "{\"name\": \"LATEST_BUILD_NUM\", \"value\": \"$CIRCLE_BUILD_NUM\"}" \
              https://circleci.com/api/v2/project/:vcs-type/:username/:project/envvar -H "Circle-Token: $ARTIFACT_TOKEN"
          - run: |
              curl -L -X GET "https://circleci.com/api/v2/project/:vcs-type/:username/:project/$LATEST_BUILD_NUM/artifacts" \
              -H "Accept: application/json" \
              -u "$API_TOKEN:" \
              | grep -o 'https://[^"]*' \
              | wget --verbose --header "Circle-Token: $API_TOKEN" --input-file -
"#;

#[test]
fn lint_of_published_recipes_finds_their_faults() {
    check(
        SEED_RECIPES,
        expect![[r#"
            6 warning api-call-without-fail: job `build` calls CircleCI's API with a `curl` that exits 0 on 401, 404 and 500
                add `--fail-with-body --retry 3`, so that the step fails when the call does
            6 warning pointer-from-any-branch: job `build` of workflow `build` sets a project variable on every branch: the next deploy ships whichever branch was built last
                add `filters: pipeline.git.branch == "main"`, or find the build by its commit instead
            6 warning token-on-command-line: job `build` passes `$ARTIFACT_TOKEN` to `curl` as an argument, which `ps` shows
                write `Authorization: Bearer …` to a file that only you can read, and pass `--header @file`
            9 warning api-answer-by-grep: job `build` picks URLs out of the API's answer with `grep`: those of an error message too, and none of the second page
                read the JSON: `jq -r '.items[].url'`, then the page that `next_page_token` names
            9 warning api-call-without-fail: job `build` calls CircleCI's API with a `curl` that exits 0 on 401, 404 and 500
                add `--fail-with-body --retry 3`, so that the step fails when the call does
            9 warning token-on-command-line: job `build` passes `$API_TOKEN` to `curl` as an argument, which `ps` shows
                write `Authorization: Bearer …` to a file that only you can read, and pass `--header @file`
            9 warning token-on-command-line: job `build` passes `$API_TOKEN` to `wget` as an argument, which `ps` shows
                wget sends its headers to every host that it is redirected to; use `curl --header @file` with `Authorization: Bearer`
        "#]],
    );
}
