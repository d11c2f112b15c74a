//! A CircleCI that is not well: what passes is waited for, what does not is said, and nothing is taken from a wrong place.

use crate::account::{Account, SLUG, project};
use crate::project::{Project, Ran};
use gangplank_loopback::{Listener, Reply, Request};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn faulty(hook: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> (Project, Account) {
    let p = project();
    let count = AtomicUsize::new(0);
    let account = Account::open(&p, SLUG, Box::new(move |request| hook(request, count.fetch_add(1, Ordering::SeqCst))));
    account.build(&p, "main");
    (p, account)
}

fn fetch(p: &Project, account: &Account, seconds: &str) -> Ran {
    let mut vars = account.laptop();
    vars.push(("GANGPLANK_API_DEADLINE".into(), seconds.into()));
    p.run_with("fetch HEAD --into target/it", &vars)
}

#[test]
fn fetch_through_temporary_failures_waits_and_succeeds() {
    let (p, account) = faulty(|_, n| match n {
        0 => Some(Reply::message(429, "Too many").header("Retry-After", "1")),
        1 | 2 => Some(Reply::message(503, "later")),
        3 => Some(Reply::text(502, "text/html", "<html>bad gateway</html>")),
        _ => None,
    });
    let started = std::time::Instant::now();
    fetch(&p, &account, "60").ok();
    assert!(started.elapsed().as_millis() >= 1000, "Retry-After was honoured");
}

#[test]
fn fetch_whose_failures_outlast_the_deadline_fails() {
    let (p, account) = faulty(|_, _| Some(Reply::message(429, "Too many").header("Retry-After", "3600")));
    let started = std::time::Instant::now();
    fetch(&p, &account, "60").fails(4, "answered 429 (Too many), and asks to wait 3600 s", "GANGPLANK_API_DEADLINE");
    assert!(started.elapsed().as_secs() < 30, "it did not wait for what cannot come in time");
    let (p, account) = faulty(|_, _| Some(Reply::message(500, "oops")));
    fetch(&p, &account, "1").fails(4, "answered 500 (oops) (tried", "status.circleci.com");
}

#[test]
fn fetch_with_invalid_answer_of_api_fails_with_hint() {
    let (p, account) = faulty(|_, _| Some(Reply::text(200, "text/html", "<!doctype html>\nSign in")));
    fetch(&p, &account, "5").fails(4, "HTML, not JSON: <!doctype html>", "CIRCLE_HOST");
    let (p, account) = faulty(|_, _| Some(Reply::text(200, "application/json", "{\"items\": 3}")));
    fetch(&p, &account, "5").fails(4, "invalid JSON", "CIRCLE_HOST");
    let (p, account) =
        faulty(|_, _| Some(Reply::json(200, serde_json::json!({ "items": [], "next_page_token": "again" }))));
    fetch(&p, &account, "5").fails(4, "answer has too many pages", "status.circleci.com");
    let (p, account) = faulty(|_, _| Some(Reply::json(200, serde_json::json!({ "items": [] })).cut(4)));
    fetch(&p, &account, "1").fails(4, "broke off", "run the same command again");
}

#[test]
fn fetch_with_insecure_or_endless_redirect_is_refused() {
    for (location, error) in [
        ("http://evil.example/x", "redirects to http://evil.example, which is not https"),
        ("ftp://127.0.0.1/x", "which is not https"),
        ("/output/again", "redirects in a loop"),
        ("", "redirects in a loop"),
    ] {
        let (p, account) =
            faulty(move |request, _| request.path.starts_with("/output/").then(|| Reply::redirect(location)));
        fetch(&p, &account, "5").fails(4, error, "the answer was ignored");
    }
}

#[test]
fn fetch_after_cut_download_asks_for_the_rest() {
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let bundle = Arc::new(Mutex::new(None));
    let (seen, broken, file) = (ranges.clone(), AtomicUsize::new(0), bundle.clone());
    let p = project();
    p.write("www/big.bin", &noise(300_000));
    p.commit("big");
    let account = Account::open(
        &p,
        SLUG,
        Box::new(move |request| {
            if request.host != Listener::Storage || !request.path.ends_with(".tar.gz") {
                return None;
            }
            seen.lock().unwrap().push(request.headers.get("range").cloned());
            let file: PathBuf = file.lock().unwrap().clone()?;
            (broken.fetch_add(1, Ordering::SeqCst) < 2).then(|| Reply::file(file).cut(50_000))
        }),
    );
    let built = account.build(&p, "main");
    let stored = account.stored(built.job, &format!("releases/{0}/shop-{0}.tar.gz", built.id));
    assert!(fs::metadata(&stored).unwrap().len() > 150_000);
    *bundle.lock().unwrap() = Some(stored);
    fetch(&p, &account, "30").ok();
    let ranges = ranges.lock().unwrap();
    assert_eq!(ranges[0], None);
    assert!(
        ranges.iter().skip(1).all(|range| range.as_deref().is_some_and(|it| it.starts_with("bytes="))),
        "{ranges:?}"
    );
}

#[test]
fn deploy_of_release_in_local_store_asks_no_api() {
    let mut p = project();
    p.change("handoff artifacts\n", "store file:store\nhandoff artifacts\n");
    let account = Account::new(&p);
    let built = account.build(&p, "main");
    let job = account.with_token(built.job, "main", &built.sha);
    p.run_with("put --store file:store", &job).ok();
    let before = account.server.log().len();
    // Of the stores artifacts come before the directory, and nothing was built here.
    p.run_with("deploy prod --yes", &account.laptop()).ok().stderr_has("from file:store");
    assert_eq!(account.server.log().len(), before);
}

/// Text that does not compress.
pub fn noise(chars: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..chars)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + u8::try_from(state % 90).unwrap())
        })
        .collect()
}
