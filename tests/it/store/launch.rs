//! The program that `check` stores, and jobs on request that run it: against the API, by curl.

use crate::account::{Account, SLUG, TOKEN, project};
use crate::project::Project;
use gangplank_launch::inputs::{Inputs, Variables};
use gangplank_launch::{circleci, program};
use gangplank_loopback::{JobStatus, Listener, Reply, Request};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A project whose xtask is a script.
fn with_xtask() -> Project {
    let p = project();
    p.write("xtask/src/main.rs", "fn main() {}");
    p.write_program("target/debug/xtask", "#!/bin/sh\necho \"ran $*\"\n");
    p.commit("2");
    p
}

/// The job `check` of a new pipeline: it packs the program and stores it.
fn check(p: &Project, account: &Account, branch: &str, status: JobStatus) -> u64 {
    let dir = p.path("target/program");
    let _ = fs::remove_dir_all(&dir);
    // Its sources are checked where they are compiled: in the unit tests of the crate, and in `new::handoffs`.
    let inputs = Inputs::of(&p.path(""), &Variables::new()).unwrap();
    let packed = Command::new("gzip").arg("-nc").arg(p.path("target/debug/xtask")).output().unwrap().stdout;
    let sha256 = gangplank_model::release::digest::of(&packed);
    p.write_bytes(&format!("target/program/{}", circleci::name(&inputs.digest, &sha256)), &packed);
    let mut state = account.server.state();
    let (sha, now) = (p.git(&["rev-parse", "HEAD"]), state.now());
    let pipeline = state.push(branch, &sha, now);
    drop(state);
    let (workflow, number, job) = account.start(&pipeline, "check");
    account.store(number, &dir, "program");
    account.end(&workflow, &job, status);
    number
}

/// What the launcher does in a job of a branch: the program, and the job that stored it.
fn launch(p: &Project, account: &Account, branch: &str) -> Result<(u64, PathBuf), String> {
    let vars = account.with_token(90, branch, &p.git(&["rev-parse", "HEAD"]));
    let variable = |name: &str| Some(vars.iter().find(|(known, _)| known == name)?.1.clone());
    let launched = Inputs::of(&p.path(""), &Variables::new()).and_then(|inputs| {
        let api = circleci::Api::from_environment(&variable)?;
        let stored = circleci::find(&api.search(), api.slug(), branch, &inputs.digest)?;
        Ok((stored.job, program::install(&api, &stored, &p.path("target/launch"))?))
    });
    launched.map_err(|error| format!("{error:#}"))
}

#[test]
fn launch_runs_the_newest_program_of_the_same_source() {
    let p = with_xtask();
    let account = Account::new(&p);
    check(&p, &account, "main", JobStatus::Success);
    let newest = check(&p, &account, "main", JobStatus::Success);
    // A pipeline on request has no such job.
    account.build(&p, "main");
    let (job, program) = launch(&p, &account, "main").unwrap();
    assert_eq!(job, newest);
    let ran = Command::new("sh").arg(&program).args(["rollback", "prod"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "ran rollback prod\n");
    // A commit that changes only the app runs it too; one that changes the xtask does not.
    p.commit("3");
    launch(&p, &account, "main").unwrap();
    p.write("xtask/src/main.rs", "fn main() { println!() }");
    p.commit("4");
    let missing = launch(&p, &account, "main").unwrap_err();
    assert_eq!(missing, "no job `check` of main has stored one of this source");
}

#[test]
fn launch_takes_no_program_of_another_branch_or_of_a_failed_job() {
    let p = with_xtask();
    let account = Account::new(&p);
    check(&p, &account, "feature", JobStatus::Success);
    check(&p, &account, "main", JobStatus::Failed);
    assert!(launch(&p, &account, "main").unwrap_err().contains("no job `check` of main"));
    launch(&p, &account, "feature").unwrap();
}

#[test]
fn launch_sends_the_token_to_the_api_alone_and_on_no_command_line() {
    let (asked, leaked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counts, finds) = (asked.clone(), leaked.clone());
    let look = move |_: &Request| {
        counts.fetch_add(1, Ordering::SeqCst);
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            finds.fetch_or(String::from_utf8_lossy(&line).contains(TOKEN), Ordering::SeqCst);
        }
        None
    };
    let p = with_xtask();
    let account = Account::open(&p, SLUG, Box::new(look));
    check(&p, &account, "main", JobStatus::Success);
    launch(&p, &account, "main").unwrap();
    // Pipelines, workflows, jobs, artifacts, the artifact, and storage.
    assert_eq!((asked.load(Ordering::SeqCst), leaked.load(Ordering::SeqCst)), (6, false));
    let log = account.server.log();
    assert_eq!(log.iter().filter(|it| it.host == Listener::Storage).count(), 1);
    assert!(log.iter().all(|it| it.credential_is_right == (it.host == Listener::Api)));
    assert!(log.iter().all(|it| it.token_seen == (it.host == Listener::Api)));
}

#[test]
fn launch_of_what_is_damaged_or_does_not_start_or_answer_fails() {
    let p = with_xtask();
    let account = Account::new(&p);
    let job = check(&p, &account, "main", JobStatus::Success);
    let inputs = Inputs::of(&p.path(""), &Variables::new()).unwrap().digest;
    let dir = p.path("target/program").join(&inputs);
    let name = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().file_name();
    let stored = account.stored(job, "program").join(&inputs).join(&name);
    fs::write(&stored, "forged").unwrap();
    assert!(launch(&p, &account, "main").unwrap_err().contains("the stored program is damaged"));
    p.write_program("target/debug/xtask", "#!/bin/sh\nexit 127\n");
    check(&p, &account, "main", JobStatus::Success);
    assert!(launch(&p, &account, "main").unwrap_err().contains("does not start: exit status: 127"));
    let left: Vec<_> = fs::read_dir(p.path("target/launch")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    for status in [401, 404, 503] {
        let refuse = move |_: &Request| Some(Reply::json(status, serde_json::json!({ "message": "no" })));
        let account = Account::open(&p, SLUG, Box::new(refuse));
        let error = launch(&p, &account, "main").unwrap_err();
        assert!(error.contains(&format!("answered {status}")) && !error.contains(TOKEN), "{error}");
    }
    // More than a pipe holds: curl prints where a redirect leads.
    for location in ["http://example.com/", &format!("http://example.com/{}", "x".repeat(90_000))] {
        let redirect = Reply::redirect(location);
        let account = Account::open(&p, SLUG, Box::new(move |_| Some(redirect.clone())));
        let error = launch(&p, &account, "main").unwrap_err();
        assert!(error.contains("answered 302") || error.contains("curl failed"), "{error}");
    }
}
