//! What cannot be had from CircleCI's artifacts, one by one: each is explained, and nothing of it is left here.

use crate::account::{Account, project};
use crate::project::Project;
use gangplank_loopback::{JobStatus, WorkflowStatus};
use std::fs;

/// What is wrong with the account, the command, the exit code, a piece of the error, a piece of the hint.
type Case = (&'static str, fn(&Project, &Account), &'static str, i32, &'static str, &'static str);

const CASES: &[Case] = &[
    ("never built", |p, _| drop(p.commit("x")), "fetch HEAD", 5, "no pipeline of main built commit", "push it to main"),
    (
        "failed, with artifacts",
        |p, a| {
            let built = a.build(p, "main");
            let id = a.server.state().job_numbered(built.job).unwrap().id.clone();
            a.end(&built.workflow, &id, JobStatus::Failed);
        },
        "fetch HEAD",
        5,
        "ended with `failed` (job 12), so its artifacts are ignored",
        "rerun the workflow",
    ),
    (
        "still running",
        |p, a| {
            let built = a.build(p, "main");
            let id = a.server.state().job_numbered(built.job).unwrap().id.clone();
            a.server.state().start_job(&id);
        },
        "fetch HEAD",
        5,
        "is still running (pipeline 1)",
        "wait for its end",
    ),
    (
        "never begun",
        |p, a| {
            let sha = p.git(&["rev-parse", "HEAD"]);
            let mut state = a.server.state();
            let now = state.now();
            let pipeline = state.push("main", &sha, now);
            let workflow = state.add_workflow(&pipeline, "build-deploy-dev");
            let job = state.add_job(&workflow, "build", &[]);
            state.end_job(&job, JobStatus::NotRun);
            state.set_workflow_status(&workflow, WorkflowStatus::Failed);
        },
        "fetch HEAD",
        5,
        "never started: it is `not_run` in pipeline 1",
        "rerun the workflow",
    ),
    (
        "expired",
        |p, a| {
            a.days_ago(40);
            let built = a.build(p, "main");
            a.server.state().expire_artifacts(built.job);
        },
        "fetch HEAD",
        5,
        "have expired: CircleCI kept them until 20",
        "rerun its workflow from the start",
    ),
    (
        "built on another branch",
        |p, a| drop(a.build(p, "feature/x")),
        "fetch HEAD",
        5,
        "no pipeline of main built commit",
        "push it to main",
    ),
    (
        "a job of another branch",
        |p, a| drop(a.build(p, "feature/x")),
        "fetch build:12",
        7,
        "job 12 built feature/x, not main",
        "name a job that built main",
    ),
    (
        "a job that is no build",
        |p, a| {
            let built = a.build(p, "main");
            let (workflow, _, id) = a.start(&built.pipeline, "deploy-dev");
            a.end(&workflow, &id, JobStatus::Success);
        },
        "fetch build:13",
        7,
        "job 13 is `deploy-dev`, not `build`",
        "name the build job",
    ),
    ("no such job", |p, a| drop(a.build(p, "main")), "fetch build:4711", 5, "Job not found", "check the number"),
    (
        "a build that stored nothing",
        |p, a| {
            let built = a.build(p, "main");
            a.server.state().expire_artifacts(built.job);
        },
        "fetch HEAD",
        5,
        "but has no release in its artifacts",
        "store_artifacts",
    ),
    (
        "a bundle that was changed",
        |p, a| alter_bundle(p, a, |bytes| *bytes.last_mut().unwrap() ^= 1),
        "fetch HEAD",
        7,
        "its SHA-256 is",
        "do not deploy",
    ),
    (
        "a bundle with more bytes",
        |p, a| alter_bundle(p, a, |bytes| bytes.extend([0; 4096])),
        "fetch HEAD",
        7,
        "it has more than",
        "do not deploy",
    ),
    (
        "the manifest of another commit",
        |p, a| {
            alter_manifest(p, a, |text, sha| text.replace(sha, &format!("{}{}", &sha[..7], "0".repeat(33))));
        },
        "fetch HEAD",
        7,
        "but the pipeline built",
        "do not deploy",
    ),
    (
        "the manifest of no job",
        |p, a| {
            alter_manifest(p, a, |text, _| {
                let (before, rest) = text.split_once("\"ci\": {").unwrap();
                let (_, after) = rest.split_once('}').unwrap();
                format!("{before}\"ci\": null{after}")
            });
        },
        "fetch HEAD",
        7,
        "it was not built by a job of CircleCI",
        "do not deploy",
    ),
    (
        "the manifest of another job",
        |p, a| alter_manifest(p, a, |text, _| text.replace("\"job\": 12", "\"job\": 11")),
        "fetch HEAD",
        7,
        "it was built by job 11",
        "do not deploy",
    ),
];

/// A build whose stored bundle is changed.
fn alter_bundle(p: &Project, a: &Account, change: impl Fn(&mut Vec<u8>)) {
    let built = a.build(p, "main");
    let bundle = a.stored(built.job, &format!("releases/{0}/shop-{0}.tar.gz", built.id));
    let mut bytes = fs::read(&bundle).unwrap();
    change(&mut bytes);
    fs::write(bundle, bytes).unwrap();
}

/// A build whose stored manifest is changed, by its text and commit.
fn alter_manifest(p: &Project, a: &Account, change: impl Fn(&str, &str) -> String) {
    let built = a.build(p, "main");
    let manifest = a.stored(built.job, &format!("releases/{}/manifest.json", built.id));
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(manifest, change(&text, &built.sha)).unwrap();
}

#[test]
fn fetch_of_unavailable_release_names_the_reason() {
    for (what, spoil, line, code, error, hint) in CASES {
        let p = project();
        let account = Account::new(&p);
        spoil(&p, &account);
        eprintln!("{what}");
        p.run_with(line, &account.laptop()).fails(*code, error, hint);
        assert!(
            !p.path("target/fetched").exists() || fs::read_dir(p.path("target/fetched")).unwrap().count() == 0,
            "{what}"
        );
    }
}
