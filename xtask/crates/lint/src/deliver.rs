//! Checks deploys to production: order, secrets, one deploy at a time.

use std::collections::BTreeMap;

use crate::finding::{Report, Severity};
use crate::model::{Invocation, Model, Role, Step, Text, Workflow};
use crate::scripts;
use crate::text;
use crate::yaml::Node;

/// The maximum length of a key.
const SERIAL_GROUP_MAX: usize = 512;

/// A deploy job by its name, without sources to build, that starts together with the build.
pub(super) fn deploy_without_requires(model: &Model, report: &mut Report) {
    for (workflow, at, invocation) in placed(model) {
        let has_sources = invocation.opaque || invocation.steps.iter().any(|step| step.name == "checkout");
        let starts_at_once = invocation.requires.is_empty() && !invocation.is_persisting();
        if !invocation.is_deploying() || has_sources || !starts_at_once {
            continue;
        }
        // A job for tags cannot wait for one that no tag starts, nor for one that waits for it.
        let is_apart = |it: &Invocation| invocation.is_for_tags() && !it.may_run_on_tags();
        let may_wait_for = |&it: &usize| it != at && !workflow.ancestors(it).contains(&at);
        let mut others = (0..workflow.invocations.len()).filter(may_wait_for).map(|it| &workflow.invocations[it]);
        let Some(building) = others.find(|it| it.is_building() && !is_apart(it)) else { continue };
        report.warning(
            "deploy-without-requires",
            invocation.line,
            format!(
                "job `{}` of workflow `{}` requires nothing, so it starts together with `{}`",
                invocation.name, workflow.name, building.name
            ),
            format!("add `requires: [{}]`", building.name),
        );
    }
}

/// Jobs with their position in the workflow.
fn placed<'a>(model: &'a Model) -> impl Iterator<Item = (&'a Workflow<'a>, usize, &'a Invocation<'a>)> {
    model.workflows.iter().flat_map(|it| it.invocations.iter().enumerate().map(move |(at, job)| (it, at, job)))
}

fn holds_secrets(invocation: &Invocation) -> bool {
    matches!(invocation.role, Role::Build | Role::Orb) && !invocation.contexts().is_empty()
}

/// A deploy in a workflow of its own runs in parallel with the build, and can only ship files of an earlier build.
pub(super) fn deploy_races_build(model: &Model, report: &mut Report) {
    let elsewhere = |workflow: &Workflow| {
        let together = |it: &Workflow| it.name != workflow.name && it.starts_with(workflow);
        let others = model.invocations().filter(|(it, _)| together(it));
        let mut building = others.filter(|(_, it)| it.is_building());
        building.next().map(|(it, job)| (it.name.to_owned(), job.name.clone()))
    };
    for workflow in &model.workflows {
        let jobs = &workflow.invocations;
        let is_building_here = jobs.iter().any(Invocation::is_building);
        let Some((other, building)) = elsewhere(workflow).filter(|_| !is_building_here) else { continue };
        for invocation in jobs.iter().filter(|it| is_racing(it)) {
            report.warning(
                "deploy-races-build",
                invocation.line,
                format!(
                    "job `{}` of workflow `{}` starts together with `{building}` of workflow `{other}`, \
                     so it ships what an earlier pipeline built",
                    invocation.name, workflow.name
                ),
                format!(
                    "move it into workflow `{other}` with `requires: [{building}]`, or run its workflow on \
                     request only: `when: pipeline.parameters.<name>`"
                ),
            );
        }
    }
}

/// Ships at once, and has no sources to build.
fn is_racing(invocation: &Invocation) -> bool {
    let has_sources = invocation.steps.iter().any(|step| step.name == "checkout");
    let takes = |verb: &String| ["deploy", "promote", "fetch"].contains(&verb.as_str());
    let takes_a_build = invocation.steps.iter().filter_map(Step::command).any(|command| {
        scripts::xtask_verbs(&command.text).iter().any(takes)
            || scripts::api_calls(&command.text).any(|call| call.reads_artifacts())
    });
    invocation.is_deploying()
        && invocation.parents.is_empty()
        && !invocation.opaque
        && (!has_sources || takes_a_build)
        && !invocation.is_asked_for()
}

/// Contexts of deploy jobs, by their names: why other jobs need a context is unknown.
pub(super) fn unguarded_contexts(model: &Model, report: &mut Report) {
    let open: Vec<&Invocation> =
        unguarded(model).map(|(_, job)| job).filter(|job| job.is_deploying() && holds_secrets(job)).collect();
    let Some(first) = open.first() else { return };
    let line = first.body.and_then(|body| body.entry("context"));
    let names: Vec<&str> = open.iter().map(|job| job.name.as_str()).collect();
    let has = if names.len() > 1 { "have" } else { "has" };
    report.warning(
        "unguarded-context",
        line.map_or(first.line, |(key, _)| key.line),
        format!(
            "job {} {has} the secrets of {} on every branch: anyone who can push a branch can read them",
            text::first_and_count(&names),
            text::listed(&first.contexts())
        ),
        "add `filters: pipeline.git.branch == \"main\"` to the job, or restrict the context to a branch",
    );
}

/// Jobs that run for every branch.
fn unguarded<'a>(model: &'a Model) -> impl Iterator<Item = (&'a Workflow<'a>, &'a Invocation<'a>)> {
    model.workflows.iter().flat_map(|workflow| {
        let guarded = workflow.guarded();
        let open = workflow.invocations.iter().zip(guarded).filter(|(_, guarded)| !guarded);
        open.map(move |(invocation, _)| (workflow, invocation))
    })
}

/// A common recipe stores the number of the latest build in a project variable.
pub(super) fn pointer_from_any_branch(model: &Model, report: &mut Report) {
    for (workflow, invocation) in unguarded(model) {
        let writes = |text: &str| {
            scripts::api_calls(text).any(|call| call.writes_variable())
                || scripts::xtask_verbs(text).iter().any(|verb| verb == "publish")
        };
        let commands = invocation.steps.iter().filter_map(|step| Some((step.line, step.command()?)));
        for (line, _) in commands.filter(|(_, command)| writes(&command.text)) {
            report.warning(
                "pointer-from-any-branch",
                line,
                format!(
                    "job `{}` of workflow `{}` sets a project variable on every branch: \
                     the next deploy ships whichever branch was built last",
                    invocation.name, workflow.name
                ),
                "add `filters: pipeline.git.branch == \"main\"`, or find the build by its commit instead",
            );
        }
    }
}

pub(super) fn map_filters(model: &Model, report: &mut Report) {
    let filters = model.invocations().filter_map(|(_, it)| Some((it, it.body?.entry("filters")?)));
    let is_map = |filters: &Node| filters.get("branches").is_some() || filters.get("tags").is_some();
    let maps: Vec<_> = filters.filter(|(_, (_, filters))| is_map(filters)).collect();
    let Some((_, (key, _))) = maps.first() else { return };
    let names: Vec<&str> = maps.iter().map(|(job, _)| job.name.as_str()).collect();
    let (has, a_map) = if names.len() > 1 { ("have", "maps") } else { ("has", "a map") };
    report.warning(
        "map-filters",
        key.line,
        format!("job {} {has} filters as {a_map}, deprecated since July 2026", text::first_and_count(&names)),
        "write an expression: `filters: pipeline.git.branch == \"main\"`, or for tags \
         `pipeline.git.tag starts-with \"v\"`",
    );
}

/// A tag starts only jobs with a filter for tags, and a job does not run if all jobs it requires are filtered out.
pub(super) fn unreachable_on_tags(model: &Model, report: &mut Report) {
    for (workflow, invocation) in model.invocations() {
        let parents: Vec<&Invocation> = invocation.parents.iter().map(|&it| &workflow.invocations[it]).collect();
        let filters = invocation.body.and_then(|body| body.get("filters"));
        let Some((key, _)) = filters.and_then(|filters| filters.entry("tags")) else { continue };
        let unknown = |it: &Text| !workflow.invocations.iter().any(|job| job.answers_to(&it.text));
        let reachable = parents.is_empty() || parents.iter().any(|it| it.may_run_on_tags());
        if !invocation.may_run_on_tags() || reachable || invocation.requires.iter().any(unknown) {
            continue;
        }
        let names: Vec<&str> = parents.iter().map(|it| it.name.as_str()).collect();
        let never = invocation.ignores_branches();
        let result = if never { "it never starts" } else { "a tag does not start it either" };
        report.add(
            if never { Severity::Error } else { Severity::Warning },
            "unreachable-on-tags",
            key.line,
            format!(
                "job `{}` of workflow `{}` is meant for tags, but it requires {}, which no tag starts: {result}",
                invocation.name,
                workflow.name,
                text::listed(&names)
            ),
            "give every job that it requires, directly or not, the same filter for tags".to_owned(),
        );
    }
}

pub(super) fn bad_serial_groups(model: &Model, report: &mut Report) {
    for (_, invocation) in model.invocations() {
        let keys = [invocation.serial_group(), invocation.serial_group_of_group()];
        for (line, key) in keys.into_iter().flatten() {
            let Some(fault) = fault_of_key(key) else { continue };
            report.error(
                "bad-serial-group",
                line,
                format!("job `{}` has {fault}", invocation.name),
                "use letters, digits and `._/-`: `serial-group: << pipeline.project.slug >>/prod`",
            );
        }
    }
}

fn fault_of_key(key: &str) -> Option<String> {
    let literal = text::without_expressions(key);
    let legal = |c: &char| c.is_ascii_alphanumeric() || "._/-".contains(*c);
    if let Some(bad) = literal.chars().find(|c| !legal(c)) {
        return Some(format!("serial group `{key}`, in which `{bad}` is not allowed"));
    }
    (literal.len() > SERIAL_GROUP_MAX).then(|| format!("a serial group of more than {SERIAL_GROUP_MAX} characters"))
}

pub(super) fn serial_group_twice(model: &Model, report: &mut Report) {
    for workflow in &model.workflows {
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for invocation in &workflow.invocations {
            let Some((line, key)) = invocation.serial_group() else { continue };
            let spaceless: String = key.split_whitespace().collect();
            let own = invocation.name.as_str();
            // The jobs of a matrix share the key, unless it contains a value of the matrix.
            let shared = invocation.matrix && !key.contains("matrix.");
            let first = taken.insert(spaceless, own).or(shared.then_some(own));
            let Some(first) = first else { continue };
            let who = if first == own { "the jobs of its matrix".to_owned() } else { format!("`{first}`") };
            report.warning(
                "serial-group-twice",
                line,
                format!(
                    "job `{own}` of workflow `{}` shares serial group `{key}` with {who}: \
                     a pipeline that meets its own key can skip or cancel its own jobs",
                    workflow.name
                ),
                "give each job its own key, or lock them together as one entry of `job-groups:`",
            );
        }
    }
}

pub(super) fn deploy_without_serial_group(model: &Model, report: &mut Report) {
    let unlocked = model.invocations().filter(|(_, it)| {
        let locked = it.serial_group().or(it.serial_group_of_group()).is_some();
        it.is_deploying() && !it.is_for_tags() && text::says_install(&it.name) && !locked && !only_stores(it)
    });
    let jobs: Vec<&Invocation> = unlocked.map(|(_, it)| it).collect();
    let Some(first) = jobs.first() else { return };
    let names: Vec<&str> = jobs.iter().map(|it| it.name.as_str()).collect();
    let has = if names.len() > 1 { "have" } else { "has" };
    report.warning(
        "deploy-without-serial-group",
        first.line,
        format!(
            "job {} {has} no serial group: two pipelines can deploy at once, and in the wrong order",
            text::first_and_count(&names)
        ),
        "add `serial-group: << pipeline.project.slug >>/<environment>`",
    );
}

/// Whether its only commands are ours for storing releases, which may run concurrently.
fn only_stores(invocation: &Invocation) -> bool {
    let mut verbs =
        invocation.steps.iter().filter_map(Step::command).map(|it| scripts::xtask_verbs(&it.text)).peekable();
    let stores = |verb: &String| ["put", "publish", "verify"].contains(&verb.as_str());
    verbs.peek().is_some() && verbs.all(|verbs| !verbs.is_empty() && verbs.iter().all(stores))
}

/// A variable that names the latest build is used even in the workflow of that build.
pub(super) fn pointer_to_own_build(model: &Model, report: &mut Report) {
    for (workflow, at, invocation) in placed(model) {
        let before = workflow.ancestors(at);
        let Some(building) = before.iter().map(|&it| &workflow.invocations[it]).find(|it| it.is_building()) else {
            continue;
        };
        for step in &invocation.steps {
            let Some(command) = step.command() else { continue };
            let Some(variable) = scripts::api_calls(&command.text).find_map(|call| call.numbered_by()) else {
                continue;
            };
            report.warning(
                "pointer-to-own-build",
                step.line,
                format!(
                    "job `{}` of workflow `{}` ships what `${variable}` names, and not what `{}` built just now: \
                     another pipeline may have set it since",
                    invocation.name, workflow.name, building.name
                ),
                format!("persist the files in `{}` and attach its workspace here", building.name),
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::{Expect, expect};

    use crate::tests;

    const JOBS: &str = "
        parameters: { env: { type: string, default: '' } }
        jobs:
          build: { steps: [{ store_artifacts: { path: out } }] }
          test: { parameters: { env: { type: string, default: '' } }, steps: [checkout] }
          ship: { steps: [{ run: make ship }] }
          deploy: { steps: [{ run: make deploy }] }
          deploy-docs: { steps: [checkout, { run: make docs }] }
        workflows:
          w:
            jobs: ";

    fn check(jobs: &str, expected: Expect) {
        tests::check_used(&format!("{JOBS}{jobs}"), expected);
    }

    #[test]
    fn deploys_require_something() {
        check(
            "[build, { deploy: { serial-group: a } }]",
            expect![[r#"
                10 warning deploy-without-requires: job `deploy` of workflow `w` requires nothing, so it starts together with `build`
                    add `requires: [build]`
            "#]],
        );
        check("[build, { deploy: { serial-group: a, requires: [build] } }]", expect![""]);
        check("[test, { deploy: { serial-group: a } }]", expect![""]);
        check("[build, { ship: { context: prod, filters: pipeline.git.branch == 'main' } }]", expect![""]);
        check("[build, { test: { context: pull, filters: pipeline.git.branch == 'main' } }]", expect![""]);
        check("[build, { build: { name: build-release } }]", expect![""]);
    }

    #[test]
    fn deploys_that_race_a_build_elsewhere() {
        let both = |deploy: &str| format!("[build]\n          v: {deploy}");
        check(
            &both("{ jobs: [{ deploy: { serial-group: a } }] }"),
            expect![[r#"
                11 warning deploy-races-build: job `deploy` of workflow `v` starts together with `build` of workflow `w`, so it ships what an earlier pipeline built
                    move it into workflow `w` with `requires: [build]`, or run its workflow on request only: `when: pipeline.parameters.<name>`
            "#]],
        );
        check(&both("{ when: pipeline.parameters.env, jobs: [{ deploy: { serial-group: a } }] }"), expect![[""]]);
        let unless = "unless: pipeline.parameters.env";
        let same = format!(
            "[build]\n            {unless}\n          v: {{ {unless}, jobs: [{{ deploy: {{ serial-group: a }} }}] }}"
        );
        check(
            &same,
            expect![[r#"
                12 warning deploy-races-build: job `deploy` of workflow `v` starts together with `build` of workflow `w`, so it ships what an earlier pipeline built
                    move it into workflow `w` with `requires: [build]`, or run its workflow on request only: `when: pipeline.parameters.<name>`
            "#]],
        );
        check(
            &both("{ jobs: [{ deploy: { serial-group: a, filters: pipeline.parameters.env != '' } }] }"),
            expect![[""]],
        );
        check(&both("{ jobs: [{ deploy-docs: { serial-group: a } }] }"), expect![[""]]);
    }

    #[test]
    fn jobs_for_tags() {
        let tags = "filters: { branches: { ignore: /.*/ }, tags: { only: /v.*/ } }";
        let deploy = format!("deploy: {{ serial-group: a, {tags}");
        check(
            &format!("[build, {{ {deploy} }} }}]"),
            expect![[r#"
                10 warning map-filters: job `deploy` has filters as a map, deprecated since July 2026
                    write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
            "#]],
        );
        check(
            &format!("[{{ build: {{ {tags} }} }}, {{ {deploy} }} }}]"),
            expect![[r#"
                10 warning deploy-without-requires: job `deploy` of workflow `w` requires nothing, so it starts together with `build`
                    add `requires: [build]`
                10 warning map-filters: job `build` and 1 more have filters as maps, deprecated since July 2026
                    write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
            "#]],
        );
        check(
            &format!("[build, {{ {deploy}, requires: [build] }} }}]"),
            expect![[r#"
                10 warning map-filters: job `deploy` has filters as a map, deprecated since July 2026
                    write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
                10 error unreachable-on-tags: job `deploy` of workflow `w` is meant for tags, but it requires `build`, which no tag starts: it never starts
                    give every job that it requires, directly or not, the same filter for tags
            "#]],
        );
        check(
            &format!("[{{ build: {{ {tags} }} }}, {{ {deploy}, requires: [build] }} }}]"),
            expect![[r#"
                10 warning map-filters: job `build` and 1 more have filters as maps, deprecated since July 2026
                    write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
            "#]],
        );
        check("[build, { deploy: { serial-group: a, filters: pipeline.git.tag starts-with 'v' } }]", expect![[""]]);
    }

    #[test]
    fn contexts_need_a_filter() {
        check(
            "[{ deploy: { serial-group: a, context: prod } }]",
            expect![[r#"
                10 warning unguarded-context: job `deploy` has the secrets of `prod` on every branch: anyone who can push a branch can read them
                    add `filters: pipeline.git.branch == "main"` to the job, or restrict the context to a branch
            "#]],
        );
        check(
            "[{ deploy: { serial-group: a, context: [prod, aws], filters: { tags: { only: /v.*/ } } } }]",
            expect![[r#"
                10 warning map-filters: job `deploy` has filters as a map, deprecated since July 2026
                    write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
                10 warning unguarded-context: job `deploy` has the secrets of `prod` and `aws` on every branch: anyone who can push a branch can read them
                    add `filters: pipeline.git.branch == "main"` to the job, or restrict the context to a branch
            "#]],
        );
        check(
            "[{ deploy: { serial-group: a, context: prod, filters: { branches: { only: /.*/ } } } }]",
            expect![[r#"
                10 warning map-filters: job `deploy` has filters as a map, deprecated since July 2026
                    write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
                10 warning unguarded-context: job `deploy` has the secrets of `prod` on every branch: anyone who can push a branch can read them
                    add `filters: pipeline.git.branch == "main"` to the job, or restrict the context to a branch
            "#]],
        );
        check(
            "[{ deploy: { serial-group: a, context: prod, filters: { branches: { ignore: /.*/ }, tags: { only: /v.*/ } } } }]",
            expect![[r#"
                10 warning map-filters: job `deploy` has filters as a map, deprecated since July 2026
                    write an expression: `filters: pipeline.git.branch == "main"`, or for tags `pipeline.git.tag starts-with "v"`
            "#]],
        );
        check("[{ deploy: { serial-group: a, context: prod, filters: pipeline.git.branch == 'main' } }]", expect![""]);
    }

    #[test]
    fn filter_on_the_only_required_job_guards_a_context() {
        check(
            "[{ test: { filters: pipeline.git.branch == 'main' } }, { deploy: { serial-group: a, context: prod, requires: [test] } }]",
            expect![""],
        );
        check(
            "[build, { test: { filters: pipeline.git.branch == 'main' } }, { deploy: { serial-group: a, context: prod, requires: [build, test] } }]",
            expect![[r#"
                10 warning unguarded-context: job `deploy` has the secrets of `prod` on every branch: anyone who can push a branch can read them
                    add `filters: pipeline.git.branch == "main"` to the job, or restrict the context to a branch
            "#]],
        );
        check("[{ hold: { type: approval, context: prod } }]", expect![""]);
        check(
            "[{ deploy: { serial-group: a, context: prod } }]\n            when: << pipeline.parameters.env >>",
            expect![""],
        );
    }

    #[test]
    fn pointers_are_written_on_one_branch() {
        let jobs = |filters: &str| {
            let call = "curl --fail-with-body -d @- https://circleci.com/api/v2/project/gh/a/b/envvar";
            format!("[{{ ship: {{ {filters} post-steps: [{{ run: {call} }}] }} }}]")
        };
        check(
            &jobs(""),
            expect![[r#"
                10 warning pointer-from-any-branch: job `ship` of workflow `w` sets a project variable on every branch: the next deploy ships whichever branch was built last
                    add `filters: pipeline.git.branch == "main"`, or find the build by its commit instead
            "#]],
        );
        check(&jobs("filters: pipeline.git.branch == 'main',"), expect![""]);
    }

    /// Several workflows with a build number: `MAIN` runs for a push, by the defaults of its parameters.
    fn check_workflows(workflows: &str, expected: Expect) {
        let config = "
        parameters: { env: { type: string, default: '' }, release: { type: string, default: HEAD } }
        jobs:
          build: { steps: [checkout, { run: cargo xtask build }, { persist_to_workspace: { root: /w, paths: [a] } }] }
          publish: { steps: [{ run: cargo xtask verify --store }, { run: /w/bin/xtask publish }] }
          deploy: { steps: [checkout, { run: 'cargo xtask deploy prod -- \"$RELEASE\"' }] }
          ask: { steps: [{ run: 'curl --fail https://circleci.com/api/v2/project/gh/a/b/${LATEST}/artifacts' }] }
        workflows:
          MAIN";
        tests::check_used(&format!("{config}{workflows}"), expected);
    }

    #[test]
    fn condition_that_holds_by_default_guards_no_branch() {
        let skipped = "when: pipeline.parameters.env == '' and pipeline.parameters.release == \"HEAD\"";
        check_workflows(
            &format!(": {{ {skipped}, jobs: [publish, {{ deploy: {{ serial-group: a, context: prod }} }}] }}"),
            expect![[r#"
                4 warning pointer-from-any-branch: job `publish` of workflow `MAIN` sets a project variable on every branch: the next deploy ships whichever branch was built last
                    add `filters: pipeline.git.branch == "main"`, or find the build by its commit instead
                8 warning unguarded-context: job `deploy` has the secrets of `prod` on every branch: anyone who can push a branch can read them
                    add `filters: pipeline.git.branch == "main"` to the job, or restrict the context to a branch
            "#]],
        );
        let on_main = format!("{skipped} and pipeline.git.branch == 'main'");
        check_workflows(
            &format!(": {{ {on_main}, jobs: [publish, {{ deploy: {{ serial-group: a, context: prod }} }}] }}"),
            expect![[""]],
        );
        let asked = "when: pipeline.parameters.env == 'prod'";
        check_workflows(
            &format!(": {{ {asked}, jobs: [publish, {{ deploy: {{ serial-group: a, context: prod }} }}] }}"),
            expect![[""]],
        );
    }

    #[test]
    fn deploy_that_a_push_starts_beside_the_build_is_a_warning() {
        let both = |main: &str, other: &str| {
            let deploy = "jobs: [{ deploy: { serial-group: a, filters: pipeline.git.branch == 'main' } }]";
            format!(": {{ {main} jobs: [build] }}\n          other: {{ {other} {deploy} }}")
        };
        check_workflows(
            &both("", "when: pipeline.git.branch == 'main',"),
            expect![[r#"
                9 warning deploy-races-build: job `deploy` of workflow `other` starts together with `build` of workflow `MAIN`, so it ships what an earlier pipeline built
                    move it into workflow `MAIN` with `requires: [build]`, or run its workflow on request only: `when: pipeline.parameters.<name>`
            "#]],
        );
        check_workflows(
            &both("when: pipeline.parameters.env == '',", ""),
            expect![[r#"
                9 warning deploy-races-build: job `deploy` of workflow `other` starts together with `build` of workflow `MAIN`, so it ships what an earlier pipeline built
                    move it into workflow `MAIN` with `requires: [build]`, or run its workflow on request only: `when: pipeline.parameters.<name>`
            "#]],
        );
        check_workflows(&both("", "when: pipeline.parameters.env == 'prod',"), expect![[""]]);
        check_workflows(
            &both("", "when: pipeline.parameters.env == 'a' or pipeline.parameters.env == 'b',"),
            expect![[""]],
        );
        check_workflows(&both("", "triggers: [{ schedule: { cron: '0 0 * * *' } }],"), expect![[""]]);
    }

    #[test]
    fn pointer_read_after_the_build_of_its_workflow_is_a_warning() {
        check_workflows(
            ": { jobs: [build, { ask: { requires: [build] } }] }",
            expect![[r#"
            6 warning pointer-to-own-build: job `ask` of workflow `MAIN` ships what `$LATEST` names, and not what `build` built just now: another pipeline may have set it since
                persist the files in `build` and attach its workspace here
        "#]],
        );
        check_workflows(": { jobs: [ask] }", expect![[""]]);
    }

    #[test]
    fn serial_groups() {
        check(
            "[{ deploy: { serial-group: 'prod eu' } }]",
            expect![[r#"
                10 error bad-serial-group: job `deploy` has serial group `prod eu`, in which ` ` is not allowed
                    use letters, digits and `._/-`: `serial-group: << pipeline.project.slug >>/prod`
            "#]],
        );
        check("[{ deploy: { serial-group: << pipeline.project.slug >>/prod_1.a-b } }]", expect![""]);
        check(
            "[{ deploy: { serial-group: << pipeline.project.slug } }]",
            expect![[r#"
                10 error bad-serial-group: job `deploy` has serial group `<< pipeline.project.slug`, in which `<` is not allowed
                    use letters, digits and `._/-`: `serial-group: << pipeline.project.slug >>/prod`
                10 error wrong-template: job `deploy` of workflow `w` has a `<<` without its `>>`
                    close it with `>>`, or write `\<<` for the shell
            "#]],
        );
        check(&format!("[{{ deploy: {{ serial-group: {} }} }}]", "x".repeat(512)), expect![""]);
        check(
            &format!("[{{ deploy: {{ serial-group: {} }} }}]", "x".repeat(513)),
            expect![[r#"
                10 error bad-serial-group: job `deploy` has a serial group of more than 512 characters
                    use letters, digits and `._/-`: `serial-group: << pipeline.project.slug >>/prod`
            "#]],
        );
        check(
            "[deploy]",
            expect![[r#"
                10 warning deploy-without-serial-group: job `deploy` has no serial group: two pipelines can deploy at once, and in the wrong order
                    add `serial-group: << pipeline.project.slug >>/<environment>`
            "#]],
        );
    }

    #[test]
    fn serial_group_of_two_jobs_of_a_workflow_is_a_warning() {
        let two = |one: &str, other: &str| {
            format!("[{{ test: {{ serial-group: {one} }} }}, {{ ship: {{ serial-group: {other} }} }}]")
        };
        check(
            &two("a/<<pipeline.id>>", "a/<< pipeline.id >>"),
            expect![[r#"
                10 warning serial-group-twice: job `ship` of workflow `w` shares serial group `a/<< pipeline.id >>` with `test`: a pipeline that meets its own key can skip or cancel its own jobs
                    give each job its own key, or lock them together as one entry of `job-groups:`
            "#]],
        );
        check(&two("a/dev", "a/prod"), expect![""]);
        let matrix = "matrix: { parameters: { env: [dev, prod] } }";
        check(
            &format!("[{{ test: {{ serial-group: a, {matrix} }} }}]"),
            expect![[r#"
                10 warning serial-group-twice: job `test` of workflow `w` shares serial group `a` with the jobs of its matrix: a pipeline that meets its own key can skip or cancel its own jobs
                    give each job its own key, or lock them together as one entry of `job-groups:`
            "#]],
        );
        check(&format!("[{{ test: {{ serial-group: a/<< matrix.env >>, {matrix} }} }}]"), expect![""]);
    }
}
