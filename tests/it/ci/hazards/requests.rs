//! Hazards of API requests in shell recipes: tokens, versions, slugs, unread answers, file names.

use super::recipe::{Recipe, TOKEN, state, world_with};
use super::{only_the_article_has, ours, two_builds};
use crate::account::{Account, SLUG, vars};
use crate::project::{Project, Ran};
use gangplank_loopback::{Credential, JobStatus, Listener, Reply, Request};
use std::fs;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Ours on a laptop with another token.
fn laptop_with(p: &Project, account: &Account, line: &str, token: (&str, &str)) -> Ran {
    let all: Vec<_> = account.laptop().into_iter().chain(vars(&[("CIRCLE_TOKEN", ""), token])).collect();
    p.run_with(line, &all)
}

#[test]
fn publish_with_token_under_another_name_works_with_a_note() {
    let Some((p, account)) = state() else { return };
    let [one, two] = two_builds(&p, &account);
    // The first recipe reads this variable, the second one `API_TOKEN`, which is the one that is set.
    let done = Recipe::publish(&account, two.job).saying("$API_TOKEN", "$ARTIFACT_TOKEN").run().ok();
    assert!(done.ran.stdout.contains("You must log in first"), "{}", done.ran.stdout);
    assert_eq!(account.pointer().unwrap(), one.job.to_string());
    assert_eq!(Recipe::fetch(&account).run().release(), one.id);

    let mut job = account.job(90, "main", &two.sha);
    p.run_with("publish", &job).fails(3, "CIRCLE_TOKEN is not set", "create a personal API token");
    // Both names are accepted too, with a note.
    job.extend(vars(&[("ARTIFACT_TOKEN", TOKEN)]));
    p.run_with("publish", &job).ok().stderr_has("using the token in ARTIFACT_TOKEN; its usual name is CIRCLE_TOKEN");
    assert_eq!(account.pointer().unwrap(), two.job.to_string());
    laptop_with(&p, &account, "fetch latest", ("API_TOKEN", TOKEN)).ok().stderr_has("its usual name is CIRCLE_TOKEN");
}

#[test]
fn publish_whose_write_is_refused_fails() {
    let refuse = Arc::new(AtomicU16::new(0));
    let status = refuse.clone();
    let hook = move |request: &Request| {
        let status = status.load(Ordering::SeqCst);
        let is_write = request.method == "POST" && request.path.ends_with("/envvar");
        (is_write && status != 0).then(|| Reply::message(status, "Project not found"))
    };
    let Some((p, account)) = world_with(SLUG, Box::new(hook)) else { return };
    let [one, two] = two_builds(&p, &account);
    let mut job = account.with_token(90, "main", &two.sha);
    job.push(("GANGPLANK_API_DEADLINE".into(), "1".into()));
    for (status, code, hint) in [
        (401, 3, "new personal API token"),
        (404, 5, "check three causes"),
        (429, 4, "GANGPLANK_API_DEADLINE"),
        (500, 4, "status.circleci.com"),
    ] {
        refuse.store(status, Ordering::SeqCst);
        Recipe::publish(&account, two.job).run().ok();
        assert_eq!(account.pointer().unwrap(), one.job.to_string(), "{status}");
        assert_eq!(Recipe::fetch(&account).run().release(), one.id, "the build was green, and prod gets the old one");
        p.run_with("publish", &job).fails(code, &format!("answered {status}"), hint);
    }
    refuse.store(0, Ordering::SeqCst);
    p.run_with("publish", &job).ok();
    assert_eq!(account.pointer().unwrap(), two.job.to_string());
}

#[test]
fn fetch_with_project_token_is_refused() {
    let Some((p, account)) = state() else { return };
    let [one, _] = two_builds(&p, &account);
    // The text speaks of v1, where a project's own token does; the code asks v2, where it does not.
    let token = "CCIPRJ_hazard_0123456789";
    account.server.state().tokens.push(token.into());
    let done = Recipe::fetch(&account).var("API_TOKEN", token).run();
    assert_eq!((done.ran.code, done.files.len()), (1, 0), "{}", done.ran.stderr);
    let v1 = |recipe: Recipe| recipe.saying("/api/v2/project/gh/", "/api/v1.1/project/github/");
    assert_eq!(v1(Recipe::fetch(&account)).var("API_TOKEN", token).run().release(), one.id);
    // "The latest job" of v1.1 is the deploy job as soon as there is one.
    let (workflow, _, id) = account.start(&one.pipeline, "deploy-dev");
    account.end(&workflow, &id, JobStatus::Success);
    let done = v1(Recipe::fetch(&account)).var("LATEST_BUILD_NUM", "latest").run();
    assert_eq!((done.ran.code, done.files.len()), (1, 0), "{}", done.ran.stderr);

    let fetch = |name: &str, token: &str| laptop_with(&p, &account, "fetch latest --into target/it", (name, token));
    fetch("CIRCLE_TOKEN", token).fails(3, "project token (CCIPRJ_...), which API v2 does not accept", "personal API");
    let ran = fetch("CIRCLE_TOKEN", TOKEN).ok();
    let head = p.git(&["rev-parse", "--short=7", "HEAD"]);
    assert!(ran.stdout.trim().ends_with(&head), "the newest build of main: {}", ran.stdout);
    let log = account.server.log();
    let mut of_ours = log.iter().filter(|it| it.credential == Some(Credential::Bearer));
    assert!(of_ours.all(|it| it.path.starts_with("/api/v2/") || it.path.starts_with("/output/")));
}

#[test]
fn publish_for_github_app_needs_the_slug_of_its_project() {
    let Some((mut p, account)) = state() else { return };
    let built = account.build(&p, "main");
    Recipe::publish(&account, built.job).run().ok();
    // v2 takes the short name, v1.1 does not.
    let done = Recipe::fetch(&account).saying("/api/v2/", "/api/v1.1/").run();
    assert_eq!((done.ran.code, done.files.len()), (1, 0), "{}", done.ran.stderr);

    // A project of the GitHub App has no such names at all.
    let slug = "circleci/43G3lM5RtfFE7v5sa4nWAU/44n9wujWcTnVZ2b5S8Fnat";
    let app = Account::open(&p, slug, Box::new(|_| None));
    app.server.state().tokens.push(TOKEN.into());
    p.commit("2");
    let built = app.build(&p, "main");
    let done = Recipe::publish(&app, built.job).saying(slug, "github/acme/shop").run().ok();
    assert!(done.ran.stdout.contains("Project not found"), "{}", done.ran.stdout);
    assert_eq!(app.pointer(), None);
    let done = Recipe::fetch(&app).saying(slug, "github/acme/shop").var("LATEST_BUILD_NUM", "12").run();
    assert_eq!((done.ran.code, done.files.len()), (1, 0), "{}", done.ran.stderr);

    let mut job = app.with_token(90, "main", &built.sha);
    p.run_with("publish", &job).ok();
    assert_eq!(app.pointer().unwrap(), built.job.to_string());
    job.push(("CIRCLE_PROJECT_SLUG".into(), "github/acme/shop".into()));
    p.run_with("publish", &job).fails(5, "Project not found", "check three causes");
    // CircleCI sets the slug in a job.
    let slug = ours(&mut p)["jobs"]["publish"]["environment"]["CIRCLE_PROJECT_SLUG"].clone();
    assert_eq!(slug, "<< pipeline.project.slug >>");
}

#[test]
fn commands_with_token_hide_it_from_process_lists() {
    // Recipes of other tests run at the same time, with another token.
    let token = format!("CCIPAT_ps_{}_5d3c1b", std::process::id());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (looked, shown) = (seen.clone(), token.clone());
    // Inspects the client's process while it waits for the response.
    let hook = move |_: &Request| {
        // The second program of a pipe may start a moment later.
        std::thread::sleep(Duration::from_millis(200));
        looked.lock().unwrap().push(programs_that_show(&shown));
        None
    };
    let Some((mut p, account)) = world_with(SLUG, Box::new(hook)) else { return };
    if programs_that_show("").is_empty() {
        return crate::record::skip("the token in process lists: there is no /proc");
    }
    account.server.state().tokens.push(token.clone());
    let built = account.build(&p, "main");
    let looks = || std::mem::take(&mut *seen.lock().unwrap());
    Recipe::publish(&account, built.job).var("API_TOKEN", &token).run().ok();
    assert_eq!(looks(), [["curl"]]);
    Recipe::fetch(&account).var("API_TOKEN", &token).run().ok();
    // curl wipes `-u` soon after it began; wget stands beside it with the token all the time.
    assert!(looks().iter().all(|it| it.contains(&"wget".to_owned())));
    assert!(account.server.log().iter().any(|it| it.credential == Some(Credential::Basic)), "which is legacy");

    let mut job = account.with_token(90, "main", &built.sha);
    job.push(("CIRCLE_TOKEN".into(), token));
    let asked = account.server.log().len();
    p.run_with("verify --store", &job).ok();
    p.run_with("publish", &job).ok();
    p.run_with("deploy prod HEAD", &job).ok();
    let looks = looks();
    assert!(looks.len() > 5 && looks.iter().all(Vec::is_empty), "{looks:?}");
    let log = account.server.log().split_off(asked);
    assert!(log.iter().all(|it| it.credential == (it.host == Listener::Api).then_some(Credential::Bearer)));
    ours(&mut p);
    only_the_article_has(&p, "token-on-command-line");
}

/// Programs that have a text in their arguments, which is what `ps` shows to everybody on the machine.
fn programs_that_show(text: &str) -> Vec<String> {
    let lines = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = lines.filter_map(|it| String::from_utf8(fs::read(it.path().join("cmdline")).ok()?).ok());
    let showing = lines.filter(|line| !line.is_empty() && line.contains(text));
    showing.map(|line| line.split('\0').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn fetch_reads_all_pages_and_fails_on_a_failed_answer() {
    let fail = Arc::new(AtomicU16::new(0));
    let status = fail.clone();
    let hook = move |request: &Request| {
        if request.path == "/help/limits" {
            return Some(Reply::text(200, "text/html", "<html>limits</html>"));
        }
        let status = status.load(Ordering::SeqCst);
        let failing = status != 0 && request.path.ends_with("/artifacts");
        failing.then(|| Reply::message(status, format!("See http://{}/help/limits", request.authority)))
    };
    let Some((mut p, account)) = world_with(SLUG, Box::new(hook)) else { return };
    let built = account.build(&p, "main");
    Recipe::publish(&account, built.job).run().ok();
    let mut laptop = account.laptop();
    laptop.push(("GANGPLANK_API_DEADLINE".into(), "1".into()));
    for status in [429, 500] {
        fail.store(status, Ordering::SeqCst);
        let done = Recipe::fetch(&account).run().ok();
        assert!(done.files.keys().eq(["limits"]), "the help page is the build, and all is well: {}", done.ran.stderr);
        let ran = p.run_with("fetch HEAD", &laptop).code(4);
        assert!(ran.stderr.contains(&format!("answered {status}")), "{}", ran.stderr);
    }
    // Two on a page: the third artifact is on the second one.
    fail.store(0, Ordering::SeqCst);
    account.server.state().page_size = 2;
    let done = Recipe::fetch(&account).run().ok();
    assert_eq!(done.files.len(), 2, "of three, and all is well");
    let ran = p.run_with("fetch HEAD --into target/it", &laptop).ok();
    assert_eq!(fs::read_dir(ran.stdout.trim()).unwrap().count(), 3);
    ours(&mut p);
    only_the_article_has(&p, "api-answer-by-grep");
}

#[test]
fn fetch_sends_no_token_to_storage_and_keeps_file_names() {
    let Some((p, account)) = state() else { return };
    let built = account.build(&p, "main");
    let (workflow, number, id) = account.start(&built.pipeline, "build");
    for name in ["linux/app.tar.gz", "mac/app.tar.gz", "notes 1+2.txt"] {
        p.write(&format!("target/stored/{name}"), name);
    }
    account.store(number, &p.path("target/stored"), "build_artifacts");
    account.end(&workflow, &id, JobStatus::Success);
    Recipe::publish(&account, number).run().ok();
    let done = Recipe::fetch(&account).run().ok();
    let at_storage = |from: usize| {
        let log = account.server.log().split_off(from);
        log.into_iter().filter(|it| it.host == Listener::Storage).map(|it| it.token_seen).collect::<Vec<_>>()
    };
    assert_eq!(at_storage(0), [true; 3], "the token is sent to the redirect target");
    // The recipe has to guess which one is Linux's, and one more name was never stored.
    let names: Vec<_> = done.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["app.tar.gz", "app.tar.gz.1", "notes+1+2.txt"]);

    let asked = account.server.log().len();
    let before = p.git(&["status", "--porcelain", "--ignored"]);
    p.run_with(&format!("fetch {} --into target/it", built.sha), &account.laptop()).ok();
    assert_eq!(at_storage(asked), [false; 3]);
    assert_eq!(p.git(&["status", "--porcelain", "--ignored"]), before, "nothing beside what was asked for");
    let mut names: Vec<_> = fs::read_dir(p.path("target/it").join(&built.id)).unwrap().flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    let names: Vec<_> = names.iter().map(|it| it.file_name().into_string().unwrap()).collect();
    assert_eq!(names, ["SHA256SUMS".into(), "manifest.json".into(), format!("shop-{}.tar.gz", built.id)]);
}

#[test]
fn deploy_of_build_without_artifacts_is_refused() {
    let Some((p, account)) = state() else { return };
    let built = account.build(&p, "main");
    account.server.state().artifacts.clear();
    Recipe::publish(&account, built.job).run().ok();
    let done = Recipe::fetch(&account).run();
    assert_eq!((done.ran.code, done.ran.stdout.as_str(), done.files.len()), (1, "", 0));
    let reason = done.ran.stderr.lines().filter(|line| line.contains("artifact") || line.contains("error"));
    assert_eq!(reason.count(), 0, "{}", done.ran.stderr);
    // In a script of its own, or with CircleCI's `shell: /bin/sh`, the deploy goes on with nothing.
    let done = Recipe::fetch(&account).shell(&["/bin/sh", "-c"]).run().ok();
    assert_eq!(done.files.len(), 0);

    let job = account.other_workflow(90, "main", &built.sha);
    for line in ["fetch HEAD", "deploy prod HEAD", "deploy prod latest"] {
        p.run_with(line, &job).fails(5, "but has no release in its artifacts", "store_artifacts");
    }
    assert_eq!(p.current("srv/prod"), None);
}

/// Of `-L` and `-X GET` in the second recipe there is nothing to show: they are curl's defaults, or change nothing here.
#[test]
fn deploy_with_empty_pointer_works_and_publish_needs_a_job() {
    let Some((p, account)) = state() else { return };
    let [one, two] = two_builds(&p, &account);
    // The same line for a branch instead of a number: git allows a quote in its name, JSON does not.
    let recipe = Recipe::publish(&account, two.job).saying("$CIRCLE_BUILD_NUM", "$CIRCLE_BRANCH");
    let done = recipe.var("CIRCLE_BRANCH", "fix-\"quotes\"").run().ok();
    assert!(done.ran.stdout.contains("Unexpected request body"), "{}", done.ran.stdout);
    assert_eq!(account.pointer().unwrap(), one.job.to_string());
    // Tried out on a laptop, where there is no such number, it empties the pointer.
    Recipe::publish(&account, two.job).var("CIRCLE_BUILD_NUM", "").run().ok();
    assert_eq!(account.pointer().unwrap(), "");
    assert_eq!(Recipe::fetch(&account).run().ran.code, 1);

    let job = account.other_workflow(90, "main", &two.sha);
    p.run_with("deploy prod latest", &job).ok();
    p.run("build").ok();
    p.run_with("publish", &account.laptop()).fails(2, "not outside CircleCI", "rerun the job `publish`");
    fs::remove_dir_all(p.path("target/releases")).unwrap();
    account.publish(&p, &two, "main").ok();
    assert_eq!(account.pointer().unwrap(), two.job.to_string());
}
