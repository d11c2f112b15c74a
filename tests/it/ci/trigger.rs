//! Deploys that are started, followed and approved on CircleCI from a laptop.

use crate::account::{Account, SLUG, project};
use crate::project::{Project, Ran, eventually};
use gangplank_loopback::{JobStatus, WorkflowStatus};
use serde_json::json;

fn trigger(p: &Project, account: &Account, line: &str) -> Ran {
    p.run_with(&format!("ci trigger {line}"), &account.laptop())
}

fn stated(account: &Account, number: usize) -> serde_json::Value {
    let state = account.server.state();
    json!(state.triggered(&state.pipelines[number - 1].id).unwrap())
}

#[test]
fn trigger_sends_the_parameters_of_the_command() {
    let p = project();
    for (slug, definitions) in [(SLUG, true), (SLUG, false), ("circleci/a1B2/c3D4", true)] {
        let account = Account::open(&p, slug, Box::new(|_| None));
        let built = account.build(&p, "main");
        if !definitions {
            account.server.state().definitions.clear();
        }
        trigger(&p, &account, "deploy dev").ok().stdout_is("pipeline 2 started\n");
        assert_eq!(stated(&account, 2), json!({ "deploy-env": "dev", "release": built.sha }));
        trigger(&p, &account, "deploy prod latest --yes --reason 'the new price'").ok();
        assert_eq!(
            stated(&account, 3),
            json!({ "deploy-env": "prod", "release": "latest", "reason": "the new price" })
        );
        trigger(&p, &account, "rollback prod --yes").ok();
        assert_eq!(stated(&account, 4), json!({ "rollback-env": "prod", "release": "previous" }));
        let used = account
            .server
            .log()
            .iter()
            .any(|it| it.route == Some("/project/{provider}/{organization}/{project}/pipeline/run"));
        assert_eq!(used, definitions, "the new endpoint where there is a definition");
    }
}

#[test]
fn trigger_that_is_refused_names_the_reason() {
    let mut p = project();
    let account = Account::new(&p);
    account.build(&p, "main");
    trigger(&p, &account, "deploy stage").fails(2, "no env `stage`", "dev, prod");
    trigger(&p, &account, "deploy prod").fails(2, "prod needs approval, and there is no terminal", "--yes");
    trigger(&p, &account, "deploy dev previous").fails(2, "`previous` is only valid for a rollback", "rollback dev");
    account.server.state().skip_ci = true;
    trigger(&p, &account, "deploy dev").fails(1, "CircleCI started nothing on main", "[skip ci]");
    account.server.state().skip_ci = false;
    account.server.state().parameters_declared.clear();
    trigger(&p, &account, "deploy dev").code(4).stderr_has("deploy-env");
    p.change("handoff artifacts\n", "");
    trigger(&p, &account, "deploy dev").fails(2, "its handoff is `workspace`", "Handoff::Artifacts");
}

/// Carries out the next triggered pipeline as CircleCI would: one workflow, one job.
pub fn carry_out(account: &Account, number: usize, end: JobStatus) {
    eventually("the pipeline is there", || account.server.state().pipelines.len() >= number);
    let id = account.server.state().pipelines[number - 1].id.clone();
    let (workflow, _, job) = account.start(&id, "deploy-prod");
    std::thread::sleep(std::time::Duration::from_millis(700));
    account.end(&workflow, &job, end);
}

#[test]
fn trigger_with_follow_ends_as_the_pipeline_ends() {
    let p = project();
    let account = Account::new(&p);
    account.build(&p, "main");
    std::thread::scope(|scope| {
        scope.spawn(|| carry_out(&account, 2, JobStatus::Success));
        let ran = trigger(&p, &account, "deploy prod --yes --follow").ok().stdout_is("pipeline 2: success\n");
        assert!(
            ran.stderr.contains("deploy-prod: running") && ran.stderr.contains("deploy-prod: success"),
            "{}",
            ran.stderr
        );
        scope.spawn(|| carry_out(&account, 3, JobStatus::Failed));
        trigger(&p, &account, "deploy prod --yes --follow").fails(
            1,
            "ended with `failed`, job `deploy-prod` failed",
            "its log: http",
        );
    });
}

#[test]
fn trigger_with_follow_of_empty_pipeline_fails() {
    let p = project();
    let account = Account::new(&p);
    account.build(&p, "main");
    let ran = trigger(&p, &account, "deploy dev --follow").code(1);
    assert!(ran.stderr.contains("no workflow of the config took the parameters of pipeline 2"), "{}", ran.stderr);
}

pub fn on_hold(account: &Account, number: usize) -> (String, String) {
    let mut state = account.server.state();
    let id = state.pipelines[number - 1].id.clone();
    let workflow = state.add_workflow(&id, "deploy-prod-on-approval");
    let job = state.add_approval(&workflow, "approve-prod", &[]);
    state.hold(&job);
    (workflow, job)
}

#[test]
fn approve_with_yes_approves_the_job_on_hold() {
    let p = project();
    let account = Account::new(&p);
    let approve = |line: &str| p.run_with(line, &account.laptop());
    let built = account.build(&p, "main");
    approve("ci approve prod --yes").fails(5, "no job `approve-prod` is on hold", "--pipeline NUMBER");
    let (_, first) = on_hold(&account, 1);
    p.commit("2");
    account.build(&p, "main");
    let (_, second) = on_hold(&account, 2);
    approve("ci approve prod").fails(2, "there is no terminal to ask on", "--yes");
    approve("ci approve prod --pipeline 1 --yes --json").ok().stdout_has(&built.sha);
    assert!(account.server.state().approved(&first) && !account.server.state().approved(&second));
    approve("ci approve prod --yes")
        .ok()
        .stdout_is("pipeline 2: approve-prod of deploy-prod-on-approval is approved\n");
    assert!(account.server.state().approved(&second));
    approve("ci approve stage --yes").fails(2, "no env `stage`", "dev, prod");
}

#[test]
fn trigger_with_follow_and_yes_approves_once() {
    let p = project();
    let account = Account::new(&p);
    account.build(&p, "main");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the pipeline is there", || account.server.state().pipelines.len() >= 2);
            let (workflow, job) = on_hold(&account, 2);
            eventually("it is approved", || account.server.state().approved(&job));
            // CircleCI is behind: for some looks more it shows the job as it was.
            account.server.state().hold(&job);
            let looks = || account.server.log().iter().filter(|it| it.path.ends_with("/job")).count();
            let until = looks() + 3;
            eventually("it is looked at again", || looks() >= until);
            account.server.state().set_workflow_status(&workflow, WorkflowStatus::Success);
        });
        trigger(&p, &account, "deploy prod --yes --follow").ok();
    });
    let asked = account.server.log().iter().filter(|it| it.path.contains("/approve/")).count();
    assert_eq!(asked, 1, "once is enough");
    let account = Account::new(&p);
    account.build(&p, "main");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the pipeline is there", || account.server.state().pipelines.len() >= 2);
            on_hold(&account, 2);
        });
        trigger(&p, &account, "deploy dev --follow")
            .ok()
            .stdout_is("pipeline 2: on hold\n")
            .stderr_has("approve it with `cargo xtask ci approve dev`");
    });
}
