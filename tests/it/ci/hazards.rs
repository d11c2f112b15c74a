//! Hazards of shell recipes that pass a build number from workflow to workflow: each test triggers one with the recipe,
//! and then does the same with this project. This module tests which build is deployed; `requests` tests the API
//! requests.

mod recipe;
mod requests;

use crate::account::{Account, Built};
use crate::ci::executor::yaml;
use crate::project::Project;
use gangplank_loopback::JobStatus;
use jiff::SignedDuration;
use recipe::{ARTICLE, Recipe, state};
use serde_json::{Value, json};

/// A mistake that the linter finds in the recipe's config, and not in the generated one.
fn only_the_article_has(p: &Project, fault: &str) {
    p.write("article.yml", ARTICLE);
    p.run("ci lint --json article.yml").code(1).stdout_has(&format!("\"code\": \"{fault}\""));
    let findings = p.run("ci lint --json").ok().stdout;
    assert!(!findings.contains(fault), "{findings}");
}

/// The generated config for this handoff.
fn ours(p: &mut Project) -> Value {
    p.change("store circleci:artifacts\n", "store circleci:workspace\nstore circleci:artifacts\nci-context shop-ci\n");
    p.run("ci generate").ok();
    yaml(&p.read(".circleci/config.yml"))
}

/// A job of a workflow, as the config has it there.
fn node<'a>(config: &'a Value, workflow: &str, job: &str) -> &'a Value {
    let jobs = config["workflows"][workflow]["jobs"].as_array().unwrap();
    jobs.iter().find_map(|it| it.get(job)).unwrap_or_else(|| panic!("no {job} with settings in {workflow}"))
}

fn job_id(account: &Account, built: &Built) -> String {
    account.server.state().job_numbered(built.job).unwrap().id.clone()
}

/// Two builds of which the first is published.
fn two_builds(p: &Project, account: &Account) -> [Built; 2] {
    let one = account.build(p, "main");
    Recipe::publish(account, one.job).run().ok();
    [one, next(p, account, "2")]
}

/// The build of another commit.
fn next(p: &Project, account: &Account, text: &str) -> Built {
    p.commit(text);
    account.build(p, "main")
}

#[test]
fn deploy_prod_while_the_build_runs_is_refused() {
    let Some((mut p, account)) = state() else { return };
    let [one, two] = two_builds(&p, &account);
    // The second build is in its last step, before it is published. The recipe's prod job waits for nothing.
    let build = job_id(&account, &two);
    account.server.state().start_job(&build);
    assert_eq!(node(&yaml(ARTICLE), "deploy-prod", "deploy-prod")["requires"], Value::Null);
    assert_eq!(Recipe::fetch(&account).run().release(), one.id, "the push of 2 ships 1");

    let job = account.other_workflow(90, "main", &two.sha);
    p.run_with("deploy prod HEAD", &job).fails(5, "is still running", "wait for its end");
    p.run_with("fetch HEAD", &job).fails(5, "is still running", "wait for its end");
    assert_eq!(p.current("srv/prod"), None);
    account.end(&two.workflow, &build, JobStatus::Success);
    p.run_with("deploy prod HEAD", &job).ok();
    assert_eq!(p.live("srv/prod"), "2");
    let config = ours(&mut p);
    assert_eq!(node(&config, "deploy-prod-on-approval", "deploy-prod")["requires"], json!(["approve-prod"]));
    assert_eq!(config["parameters"]["release"]["default"], "HEAD", "the workflow's own commit");
    only_the_article_has(&p, "deploy-races-build");
}

#[test]
fn publish_on_feature_branch_keeps_the_pointer() {
    let Some((mut p, account)) = state() else { return };
    let main = account.build(&p, "main");
    Recipe::publish(&account, main.job).run().ok();
    p.git(&["checkout", "--quiet", "-b", "feature/x"]);
    p.commit("half done");
    let side = account.build(&p, "feature/x");
    // No filter restricts the recipe's build to a branch.
    assert!(yaml(ARTICLE)["workflows"]["build-deploy-dev"]["jobs"].as_array().unwrap().contains(&json!("build")));
    Recipe::publish(&account, side.job).run().ok();
    assert_eq!(Recipe::fetch(&account).run().release(), side.id, "prod gets the branch");

    // The recipe's pointer is still there, and is not believed.
    let job = account.other_workflow(90, "main", &main.sha);
    p.run_with("deploy prod latest", &job).fails(7, "built feature/x, not main", "name a job that built main");
    account.publish(&p, &main, "main").ok();
    account
        .publish(&p, &side, "feature/x")
        .ok()
        .stdout_has("nothing was published: only builds of `main` have a pointer");
    assert_eq!(account.pointer().unwrap(), main.job.to_string());
    p.run_with("deploy prod latest", &account.other_workflow(91, "main", &main.sha)).ok();
    assert_eq!(p.current("srv/prod").unwrap(), main.id);
    assert_eq!(node(&ours(&mut p), "build-deploy-dev", "publish")["filters"], "pipeline.git.branch == \"main\"");
    only_the_article_has(&p, "pointer-from-any-branch");
}

#[test]
fn publish_of_older_build_keeps_the_pointer() {
    let Some((p, account)) = state() else { return };
    account.server.state().next_job_number = 56_789;
    let one = account.build(&p, "main");
    let two = next(&p, &account, "2");
    Recipe::publish(&account, two.job).run().ok();
    // The older build was slow, or is run again. What the answer shows of the value would not tell it from another.
    let late = Recipe::publish(&account, one.job).run().ok();
    assert!(late.ran.stdout.contains("\"xxxx6789\""), "{}", late.ran.stdout);
    assert_eq!(Recipe::fetch(&account).run().release(), one.id, "back to the first commit");

    account.publish(&p, &two, "main").ok();
    account.publish(&p, &one, "main").ok().stdout_has("has already built a newer commit");
    assert_eq!(account.pointer().unwrap(), two.job.to_string());
    p.run_with("deploy prod latest", &account.other_workflow(90, "main", &two.sha)).ok();
    assert_eq!(p.live("srv/prod"), "2");
    // And where the old commit is what the job deploys, prod does not go back by accident.
    let late = account.other_workflow(91, "main", &one.sha);
    p.run_with(&format!("deploy prod {}", one.sha), &late).fails(8, "older", "--allow-older");
    assert_eq!(p.live("srv/prod"), "2");
}

#[test]
fn deploy_dev_gets_the_build_of_its_own_pipeline() {
    let Some((mut p, account)) = state() else { return };
    let [one, two] = two_builds(&p, &account);
    // The second push is built before the first one's `deploy-dev` gets a machine, and with it the variable.
    Recipe::publish(&account, two.job).run().ok();
    assert_eq!(Recipe::fetch(&account).run().release(), two.id, "the pipeline of 1 ships 2");

    let config = ours(&mut p);
    // The workspace of the pipeline is attached, and the job has no token to ask anybody else.
    p.git(&["checkout", "--quiet", &one.sha]);
    p.run_with("deploy dev", &account.job(90, "main", &one.sha)).ok().stderr_has("from circleci:workspace");
    assert_eq!(p.current("srv/dev").unwrap(), one.id);
    assert_eq!(node(&config, "build-deploy-dev", "deploy-dev")["requires"], json!(["publish"]));
    assert_eq!(config["jobs"]["deploy-dev"]["steps"][1], json!({ "attach_workspace": { "at": "/tmp/workspace" } }));
    only_the_article_has(&p, "pointer-to-own-build");
}

/// CircleCI's masking is imitated here: variables of four characters and more are stars in a log.
#[test]
fn deploy_log_with_masked_variables_names_the_release() {
    let Some((p, account)) = state() else { return };
    account.server.state().next_job_number = 56_789;
    let built = account.build(&p, "main");
    // The recipe's artifacts have no commit in their names.
    p.write("target/app.tar.gz", "the app");
    let (workflow, number, id) = account.start(&built.pipeline, "build");
    account.server.state().store_artifact(number, "build_artifacts/app.tar.gz", 0, p.path("target/app.tar.gz"));
    account.end(&workflow, &id, JobStatus::Success);
    Recipe::publish(&account, number).run().ok();
    let masked = |text: String| {
        let variables = account.server.state().envvars_for_job();
        variables.values().filter(|it| it.len() >= 4).fold(text, |text, value| text.replace(value, "****"))
    };
    let done = Recipe::fetch(&account).run().ok();
    let log = masked(format!("$ {}\n{}{}", done.ran.line, done.ran.stdout, done.ran.stderr));
    assert!(done.files.contains_key("app.tar.gz") && log.contains("app.tar.gz"), "{log}");
    for word in [&number.to_string(), &built.sha, &built.sha[..7], "main"] {
        assert!(!log.contains(word), "{word} in {log}");
    }

    account.publish(&p, &built, "main").ok();
    let ran = p.run_with("deploy prod latest", &account.other_workflow(90, "main", &built.sha)).ok();
    let log = masked(ran.stdout + &ran.stderr);
    assert!(log.contains(&format!("prod: {} is live", built.id)), "{log}");
}

#[test]
fn deploy_and_publish_of_failed_or_empty_build_are_refused() {
    let Some((mut p, account)) = state() else { return };
    let good = account.build(&p, "main");
    // It stores, publishes, and then fails.
    let bad = next(&p, &account, "2");
    Recipe::publish(&account, bad.job).run().ok();
    account.end(&bad.workflow, &job_id(&account, &bad), JobStatus::Failed);
    assert_eq!(Recipe::fetch(&account).run().release(), bad.id);
    let job = account.other_workflow(90, "main", &bad.sha);
    p.run_with("deploy prod HEAD", &job).fails(5, "ended with `failed`", "rerun the workflow");
    p.run_with("deploy prod latest", &job).fails(5, "ended with `failed`", "rerun the workflow");
    account.publish(&p, &good, "main").ok();
    p.run_with("deploy prod latest", &account.other_workflow(91, "main", &good.sha)).ok();
    assert_eq!(p.current("srv/prod").unwrap(), good.id);

    // It built elsewhere than where `store_artifacts` looks, which is no error to CircleCI.
    let empty = next(&p, &account, "3");
    account.server.state().artifacts.remove(&empty.job);
    Recipe::publish(&account, empty.job).run().ok();
    assert_eq!(account.pointer().unwrap(), empty.job.to_string(), "to nothing");
    let mut job = account.with_token(empty.job, "main", &empty.sha);
    job.push(("GANGPLANK_API_DEADLINE".into(), "1".into()));
    p.run_with("verify --store", &job).fails(7, "did not store", "store_artifacts");
    p.run_with("publish", &job).fails(5, "has no release in its artifacts", "store_artifacts");
    let steps = ours(&mut p)["jobs"]["build"]["steps"].clone();
    let stored = json!({ "store_artifacts": { "path": "/tmp/workspace/releases", "destination": "releases" } });
    assert!(steps.as_array().unwrap().contains(&stored), "an absolute path: {steps}");
    only_the_article_has(&p, "checkout-elsewhere");
}

#[test]
fn deploy_of_expired_artifacts_names_their_last_day() {
    let Some((p, account)) = state() else { return };
    account.days_ago(40);
    let built = account.build(&p, "main");
    Recipe::publish(&account, built.job).run().ok();
    account.server.state().time = None;
    let done = Recipe::fetch(&account).run();
    assert!(done.ran.code == 1 && done.files.is_empty(), "{}", done.ran.stderr);
    assert!(!done.ran.stderr.contains("expired") && !done.ran.stderr.contains("error"), "{}", done.ran.stderr);

    let state = account.server.state();
    let stopped = state.job_numbered(built.job).unwrap().stopped_at.unwrap();
    drop(state);
    let day = (stopped + SignedDuration::from_hours(30 * 24)).strftime("%Y-%m-%d").to_string();
    let job = account.other_workflow(90, "main", &built.sha);
    for release in ["HEAD", "latest", &format!("build:{}", built.job)] {
        let gone = format!("have expired: CircleCI kept them until {day} at most");
        p.run_with(&format!("deploy prod {release}"), &job).fails(5, &gone, "rerun its workflow from the start");
    }
}

#[test]
fn rollback_without_artifacts_restores_the_release_before() {
    let Some((p, account)) = state() else { return };
    let [one, two] = two_builds(&p, &account);
    Recipe::publish(&account, two.job).run().ok();
    // The recipe's only rollback is to rerun the old pipeline's `deploy-prod`, which reads the same variable.
    assert_eq!(Recipe::fetch(&account).var("CIRCLE_SHA1", &one.sha).run().release(), two.id);
    assert_eq!(account.server.state().envvars.len(), 1, "the number of the first build is nowhere");

    for built in [&one, &two] {
        let job = account.other_workflow(90, "main", &built.sha);
        p.run_with(&format!("deploy prod {}", built.sha), &job).ok();
    }
    // Not even the artifacts are needed.
    account.server.state().artifacts.clear();
    p.run_with("rollback prod", &account.other_workflow(91, "main", &two.sha)).ok();
    assert_eq!(p.live("srv/prod"), "1");
    p.run("history prod").ok().stdout_has(&one.id).stdout_has(&two.id);
}
