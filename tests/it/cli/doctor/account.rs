//! What the doctor says of the account at CircleCI, and what a job asks.

use super::{broken, broken_with, checks, run, warned};
use crate::account::{self, Account, SLUG, TOKEN};
use crate::ci::with_xtask;
use crate::project::Project;
use gangplank_loopback::{Body, Reply, Settings};
use std::time::{Duration, Instant};

fn account_of(p: &mut Project) -> Account {
    p.change("store circleci:workspace\n", "store circleci:workspace\nstore circleci:artifacts\nhandoff artifacts\n");
    p.run("ci generate").ok();
    p.commit("artifacts");
    Account::new(p)
}

#[test]
fn doctor_of_working_account_sends_only_get_requests() {
    let mut p = with_xtask();
    let account = account_of(&mut p);
    p.change("env dev\n", "ci-context shop-ci\nenv dev\ncontext shop-dev\nvar KEY=${KEY}\n");
    p.run("ci generate").ok();
    p.commit("contexts");
    let mut state = account.server.state();
    state.contexts =
        [("shop-ci".to_owned(), vec!["CIRCLE_TOKEN".to_owned()]), ("shop-dev".into(), vec!["KEY".into()])].into();
    state.components = vec!["shop".into()];
    for file in ["rollback", "deploy"] {
        let (id, created_at) = (state.uuid(), state.now());
        let (provider, file_path) = ("github_app".into(), format!(".circleci/{file}.yml"));
        state.definitions.push(gangplank_loopback::Definition {
            id,
            name: file.into(),
            provider,
            file_path,
            created_at,
        });
    }
    let now = state.now();
    state
        .envvars
        .insert("LATEST_BUILD_NUM".into(), gangplank_loopback::Variable { value: "12".into(), created_at: now });
    drop(state);
    let vars = [&account.laptop()[..], &account::vars(&[("KEY", "v")])].concat();
    let ran = run(&p, "doctor", &vars).code(0);
    assert_eq!(checks(&ran, "warning"), [""; 0], "{}", ran.stdout);
    let well = checks(&ran, "ok").join(" ");
    for piece in ["token (of ana)", "project (gh/acme/shop)", "settings", "context shop-dev", "LATEST_BUILD_NUM"] {
        assert!(well.contains(piece), "no {piece}: {}", ran.stdout);
    }
    for piece in ["pipeline definitions", "Deploys page (it knows shop)", "circleci:artifacts"] {
        assert!(well.contains(piece), "no {piece}: {}", ran.stdout);
    }
    assert!(account.server.log().iter().all(|it| it.method == "GET"), "it only asks");
    assert!(!ran.stdout.contains(TOKEN) && !ran.stderr.contains(TOKEN));

    // What is missing there, and what should be otherwise.
    let mut state = account.server.state();
    state.contexts = [("shop-dev".to_owned(), vec![])].into();
    state.envvars.clear();
    state.default_branch = "trunk".into();
    state.settings = Settings { autocancel_builds: true, build_fork_prs: true, forks_receive_secret_env_vars: true };
    drop(state);
    let ran =
        broken_with(&p, "doctor", &vars, "context shop-ci: it does not exist", "create it in Organization settings");
    let warnings = checks(&ran, "warning");
    for piece in ["anyone can read them", "cancels a running deploy", "it lacks KEY", "no such variable"] {
        assert!(warnings.iter().any(|it| it.contains(piece)), "no {piece}: {}", ran.stdout);
    }
}

#[test]
fn doctor_with_unusable_token_or_slug_is_broken() {
    let mut p = with_xtask();
    let account = account_of(&mut p);
    let with = |token: &str, slug: &str| {
        account::vars(&[("CIRCLE_HOST", &account.server.url()), ("CIRCLE_TOKEN", token), ("CIRCLE_PROJECT_SLUG", slug)])
    };
    let new = "https://app.circleci.com/settings/user/tokens";
    broken(&p, "doctor", "token: CIRCLE_TOKEN is not set, but the handoff uses the API", new);
    for (token, slug, says, hint) in [
        ("", SLUG, "CIRCLE_TOKEN is not set", new),
        ("CCIPRJ_0123456789abcdef", SLUG, "holds a project token", new),
        ("CCIPAT_two words", SLUG, "e.g. a space or a newline", new),
        ("CCIPAT_expired_0123456789abcdef", SLUG, "token: ", "expired (at the latest after a year)"),
        (
            TOKEN,
            "gh/acme/shpo",
            "the token is valid, but ana cannot see the project gh/acme/shpo",
            "export CIRCLE_PROJECT_SLUG=",
        ),
        (TOKEN, "shop", "`shop` is not a project slug", "set CIRCLE_PROJECT_SLUG"),
    ] {
        let ran = broken_with(&p, "doctor", &with(token, slug), says, hint);
        assert!(!ran.stdout.contains("0123456789abcdef") && !ran.stderr.contains("0123456789abcdef"), "{ran:?}");
        assert_eq!(checks(&ran, "broken").len(), 1, "{}", ran.stdout);
        let well = checks(&ran, "ok").iter().any(|it| it.contains("token ("));
        assert_eq!(well, token == TOKEN, "a token that is well is said to be: {}", ran.stdout);
    }
    // Other handoffs need no token.
    p.change("handoff artifacts\n", "");
    p.run("ci generate").ok();
    p.commit("workspace");
    warned(&p, "doctor", "only releases of other stores", new);
    p.change("store circleci:artifacts\n", "");
    let ran = run(&p, "doctor", &[]).code(0);
    assert!(checks(&ran, "warning").is_empty() && checks(&ran, "skipped").iter().any(|it| it.contains("not needed")));
    run(&p, "doctor", &with("CCIPRJ_0123456789abcdef", SLUG)).code(0).stdout_has("warning token: ");
}

#[test]
fn doctor_with_hanging_or_missing_api_is_broken() {
    let mut p = with_xtask();
    account_of(&mut p);
    let hangs: gangplank_loopback::Hook = Box::new(|_| {
        std::thread::sleep(Duration::from_secs(5));
        None
    });
    let slow = Account::open(&p, SLUG, hangs);
    p.var("GANGPLANK_API_DEADLINE", "1");
    let started = Instant::now();
    let ran = broken_with(&p, "doctor", &slow.laptop(), "API: ", "status.circleci.com");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(ran.stdout.contains("dev: file:srv/dev"), "and goes on: {}", ran.stdout);
    let mut elsewhere = slow.laptop();
    elsewhere[0].1 = format!("http://127.0.0.1:{}", crate::project::free_port());
    broken_with(&p, "doctor", &elsewhere, "API: ", "check the network and CIRCLE_HOST");
    let html: gangplank_loopback::Hook = Box::new(|_| {
        let body = Body::Text { content_type: "text/html".into(), text: "<html>Sign in</html>".into() };
        Some(Reply { status: 200, headers: vec![], body })
    });
    let page = Account::open(&p, SLUG, html);
    broken_with(&p, "doctor", &page.laptop(), "HTML", "check that CIRCLE_HOST is a CircleCI server");
}

#[test]
fn doctor_with_ci_asks_no_host_and_checks_the_config() {
    let mut p = with_xtask();
    p.change("target file:srv/dev", "target ssh://nowhere.invalid/srv/dev\nvar KEY=${KEY}");
    p.run("ci generate").ok();
    p.commit("far");
    let ran = run(&p, "doctor --ci", &[]).code(0);
    assert!(ran.stdout.ends_with("\na pipeline would work\n") && !ran.stdout.contains("nowhere"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "", "no request");
    let project_token = account::vars(&[("CIRCLE_TOKEN", "CCIPRJ_0123456789abcdef")]);
    broken_with(&p, "doctor --ci", &project_token, "holds a project token", "create a personal API token");
    p.change("target ssh://nowhere.invalid/srv/dev", "target ssh:nonsense");
    p.write(".circleci/config.yml", "version: 2.1\n");
    let ran =
        broken(&p, "doctor --ci", "target ssh:nonsense: it does not start with ssh://", "use ssh://USER@HOST/DIR");
    assert!(checks(&ran, "broken")[1].contains("cargo xtask ci generate"), "{}", ran.stdout);
    p.git(&["checkout", "--quiet", "."]);
    p.change("target ssh:nonsense", "target file:srv/dev");
    p.run("ci generate").ok();
    p.change("store circleci:workspace\n", "store circleci:workspace\nstore nonsense:x\n");
    let ran = broken(&p, "doctor --ci", "nonsense:x: ", "use file:DIR");
    assert_eq!(checks(&ran, "broken").len(), 1, "{}", ran.stdout);
    run(&p, "doctor dev --ci", &[]).code(2);
}
