//! Releases in CircleCI's artifacts: found by commit, verified, and refused if they do not match.

mod refused;

use crate::account::{Account, SLUG, TOKEN, project, vars};
use gangplank_loopback::{JobStatus, Listener, Request};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn prod_gets_the_commit_that_was_asked_for() {
    let p = project();
    let account = Account::new(&p);
    let one = account.build(&p, "main");
    p.commit("2");
    let two = account.build(&p, "main");
    // Days later, from another workflow: HEAD is the second commit, the first one is named.
    let job = account.other_workflow(90, "main", &two.sha);
    p.run_with(&format!("deploy prod {}", one.sha), &job).ok();
    assert_eq!(p.live("srv/prod"), "1");
    p.run_with("deploy prod HEAD", &job).ok();
    assert_eq!(p.live("srv/prod"), "2");
    // From a laptop, by the number of the job.
    let ran = p.run_with(&format!("fetch build:{} --into target/it", one.job), &account.laptop()).ok();
    assert!(ran.stdout.trim().ends_with(&one.id), "{}", ran.stdout);
    p.run_with("releases", &account.laptop())
        .ok()
        .stdout_has(&one.id)
        .stdout_has(&two.id)
        .stdout_has("circleci:artifacts");
    p.run_with(&format!("diff prod {}", &one.sha[..7]), &account.laptop()).ok().stdout_has("~ www/index.html");
}

#[test]
fn pages_reruns_and_app_pipelines_are_looked_through() {
    let p = project();
    for (slug, app) in
        [(SLUG, false), ("bb/acme/shop", false), ("circleci/43G3lM5RtfFE7v5sa4nWAU/44n9wujWcTnVZ2b5S8Fnat", true)]
    {
        let account = Account::open(&p, slug, Box::new(|_| None));
        let built = account.build(&p, "main");
        let mut state = account.server.state();
        assert_eq!(state.app_style, app);
        state.page_size = 2;
        let now = state.now();
        for n in 0..7 {
            state.push("main", &format!("{n:040}"), now);
            state.push("side", &built.sha, now);
        }
        // A rerun of the same pipeline that failed later: the build is listed with its old number.
        state.rerun_from_failed(&built.workflow);
        // Many other artifacts, so that ours are on several pages.
        let file = account.stored(built.job, &format!("releases/{}/SHA256SUMS", built.id));
        for n in 0..5 {
            state.store_artifact(built.job, &format!("logs/{n}"), 0, file.clone());
        }
        drop(state);
        p.run_with(&format!("fetch {} --into target/it", built.sha), &account.laptop()).ok();
        p.commit(slug);
    }
}

#[test]
fn fetch_of_artifacts_with_hostile_paths_writes_only_the_release() {
    let p = project();
    let account = Account::new(&p);
    let built = account.build(&p, "main");
    let evil = p.path("target/evil");
    fs::write(&evil, "evil").unwrap();
    for path in [
        "releases/../../evil",
        "../evil",
        "/etc/evil",
        &format!("releases/{}/../evil", built.id),
        "releases/x/manifest.json",
    ] {
        account.server.state().store_artifact(built.job, path, 0, evil.clone());
    }
    // The same names from another node of a parallel job, and names as Java encodes them.
    for name in ["manifest.json", "SHA256SUMS"] {
        account.server.state().store_artifact(built.job, &format!("releases/{}/{name}", built.id), 1, evil.clone());
    }
    p.run_with("fetch HEAD --into target/it", &account.laptop()).ok();
    let dir = p.path("target/it").join(&built.id);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    assert!(!p.path("target/it/evil").exists() && !p.path("evil").exists());
}

#[test]
fn names_that_the_server_encoded_are_found() {
    let p = project();
    let account = Account::new(&p);
    let built = account.build(&p, "main");
    for artifact in account.server.state().artifacts.get_mut(&built.job).unwrap() {
        artifact.path = artifact.path.replace('/', "%2F");
    }
    p.run_with("fetch HEAD --into target/it", &account.laptop()).ok();
}

#[test]
fn fetch_with_unusable_token_is_refused() {
    let p = project();
    let account = Account::new(&p);
    account.build(&p, "main");
    let with = |token: &str| {
        let mut vars = account.laptop();
        vars.push(("CIRCLE_TOKEN".into(), token.into()));
        p.run_with("fetch build:12", &vars)
    };
    let requests = account.server.log().len();
    with("CCIPRJ_0123456789").fails(
        3,
        "project token (CCIPRJ_...), which API v2 does not accept",
        "personal API token",
    );
    with("two words").fails(3, "invalid characters", "personal API token");
    assert_eq!(account.server.log().len(), requests, "nothing was asked");
    with("CCIPAT_expired_0123456789").fails(3, "answered 401", "new personal API token");
    with("").fails(5, "circleci:artifacts skipped: CIRCLE_TOKEN is not set", "cargo xtask releases");
    let others = vars(&[("CIRCLE_TOKEN", ""), ("API_TOKEN", TOKEN)]);
    let all: Vec<_> = account.laptop().into_iter().chain(others).collect();
    p.run_with("fetch build:12 --into target/it", &all)
        .ok()
        .stderr_has("using the token in API_TOKEN; its usual name is CIRCLE_TOKEN");
}

#[test]
fn fetch_with_wrong_project_or_host_is_refused() {
    let p = project();
    let account = Account::new(&p);
    account.build(&p, "main");
    let with = |slug: &str| {
        let mut vars = account.laptop();
        vars.push(("CIRCLE_PROJECT_SLUG".into(), slug.into()));
        p.run_with("fetch build:12 --into target/it", &vars)
    };
    with("gh/acme/other").fails(5, "Project not found", "check three causes");
    with("circleci/a/b").fails(5, "Project not found", "check three causes");
    with("acme/shop").fails(2, "`acme/shop` is not a project slug", "CIRCLE_PROJECT_SLUG");
    with("").fails(2, "unknown CircleCI project", "CIRCLE_PROJECT_SLUG");
    p.git(&["remote", "add", "origin", "git@github.com:acme/shop.git"]);
    with("").ok();
    let mut vars = account.laptop();
    vars.push(("CIRCLE_HOST".into(), "http://circleci.example".into()));
    p.run_with("fetch build:12", &vars).fails(2, "neither https nor this machine", "https://");
    vars.push(("CIRCLE_HOST".into(), "https://joe:opensesame9@circleci.example".into()));
    let ran = p.run_with("fetch build:12", &vars).fails(2, "contains a user or a password", "set CIRCLE_TOKEN");
    assert!(!ran.stderr.contains("opensesame9"), "{}", ran.stderr);
}

#[test]
fn put_outside_a_job_or_on_a_second_node_is_refused() {
    let mut p = project();
    p.release("1");
    p.run("put").fails(2, "no store of this project works outside CircleCI", "--store file:DIR");
    p.run("put --store circleci:artifacts").fails(2, "only a job of CircleCI can store artifacts", "file:DIR");
    p.var("CIRCLECI", "true");
    let workspace = p.path("workspace").display().to_string();
    p.var("GANGPLANK_WORKSPACE", &workspace);
    p.var("CIRCLE_NODE_INDEX", "1");
    p.run("put").fails(2, "this is node 1 of a parallel job", "parallelism");
    assert!(!Path::new(&workspace).exists(), "nothing was written to the workspace");
}

#[test]
fn verify_store_after_upload_finds_each_damage() {
    let p = project();
    let account = Account::new(&p);
    let built = account.build(&p, "main");
    let job = account.with_token(13, "main", &built.sha);
    p.run_with("verify --store", &job).ok().stdout_is(&format!("circleci:artifacts: {} has every byte\n", built.id));
    let bundle = account.stored(built.job, &format!("releases/{0}/shop-{0}.tar.gz", built.id));
    let bytes = fs::read(&bundle).unwrap();
    fs::write(&bundle, &bytes[..bytes.len() - 1]).unwrap();
    let mut impatient = job.clone();
    impatient.push(("GANGPLANK_API_DEADLINE".into(), "1".into()));
    p.run_with("verify --store", &impatient).fails(4, "it ended after", "run the same command again");
    fs::write(&bundle, [&bytes[..bytes.len() - 1], &[bytes[bytes.len() - 1] ^ 1]].concat()).unwrap();
    p.run_with("verify --store", &impatient).fails(7, "its SHA-256 is", "damaged");
    account.server.state().artifacts.get_mut(&built.job).unwrap().retain(|it| !it.path.ends_with("SUMS"));
    p.run_with("verify --store", &impatient).fails(7, "did not store SHA256SUMS", "store_artifacts");
}

#[test]
fn fetch_from_latest_artifacts_without_release_is_refused() {
    let mut p = project();
    p.change("store circleci:artifacts\n", "store circleci:latest-artifacts\n");
    let account = Account::new(&p);
    let built = account.build(&p, "main");
    p.run_with("fetch latest --into target/it", &account.laptop()).ok();
    p.run_with(&format!("fetch {} --into target/it", built.id), &account.laptop()).ok();
    let job = account.other_workflow(90, "main", &built.sha);
    p.run_with("deploy dev", &job).ok();
    // The deploy job that runs after it stores nothing, and is the latest job now.
    let (workflow, _, id) = account.start(&built.pipeline, "deploy-dev");
    account.end(&workflow, &id, JobStatus::Success);
    p.run_with("fetch latest", &account.laptop()).fails(
        5,
        "the latest successful job on main stored no release of this app",
        "circleci:artifacts",
    );
    p.run_with(&format!("fetch {}", built.id), &account.laptop()).fails(
        5,
        "stored no release of this app",
        "by its commit",
    );
}

#[test]
fn token_is_sent_to_circleci_alone_and_never_printed() {
    let p = project();
    let account = Account::new(&p);
    let built = account.build(&p, "main");
    let mut said = String::new();
    let mut run = |line: &str, vars: &[(String, String)]| {
        let ran = p.run_with(line, vars);
        said += &ran.stdout;
        said += &ran.stderr;
        ran
    };
    let job = account.with_token(13, "main", &built.sha);
    let other = account.other_workflow(14, "main", &built.sha);
    run("verify --store --json", &job).ok();
    run("publish -v", &job).ok();
    run("deploy dev -v", &other).ok();
    run("deploy prod latest --json", &other).ok();
    run("ci trigger deploy prod --yes", &account.laptop()).ok();
    run("releases", &account.laptop()).ok();
    run("fetch build:4711", &account.laptop()).code(5);
    // A reason that holds the token, as people paste things.
    run(&format!("rollback dev --reason {TOKEN}"), &other).code(5);
    let log = account.server.log();
    assert!(log.iter().any(|it| it.host == Listener::Storage), "storage was asked");
    assert!(log.iter().filter(|it| it.host == Listener::Api).all(|it| it.token_seen && it.credential_is_right));
    assert!(log.iter().filter(|it| it.host == Listener::Storage).all(|it| !it.token_seen && it.credential.is_none()));
    assert!(!said.contains(TOKEN), "{said}");
    for file in ["srv/dev/history.jsonl", "srv/prod/history.jsonl"] {
        assert!(!p.read(file).contains(TOKEN));
    }
}

#[test]
fn deploy_with_token_hides_it_from_process_lists() {
    let (waiting, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (told, free) = (waiting.clone(), go.clone());
    let p = project();
    let hook = move |request: &Request| {
        if request.path.ends_with("/pipeline") {
            told.store(true, Ordering::SeqCst);
            crate::project::eventually("the test looked", || free.load(Ordering::SeqCst));
        }
        None
    };
    let account = Account::open(&p, SLUG, Box::new(hook));
    account.build(&p, "main");
    let mut command = p.command("deploy dev HEAD");
    let mut child = command.envs(account.laptop()).stderr(std::process::Stdio::null()).spawn().unwrap();
    crate::project::eventually("it asks", || waiting.load(Ordering::SeqCst));
    let mut seen = 0;
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Ok(line) = fs::read(process.path().join("cmdline")) {
            seen += usize::from(!line.is_empty());
            assert!(!String::from_utf8_lossy(&line).contains(TOKEN));
        }
    }
    assert!(seen > 1 || !PathBuf::from("/proc").exists());
    go.store(true, Ordering::SeqCst);
    assert!(child.wait().unwrap().success());
}
