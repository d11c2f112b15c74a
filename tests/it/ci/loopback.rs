//! The CircleCI on loopback, spoken to as a client does that knows nothing of it: bytes over TCP.

use gangplank_loopback::{
    Credential, Definition, JobStatus, Listener, Logged, Loopback, MockState, Reply, Variable, WorkflowStatus,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub const TOKEN: &str = "CCIPAT_loopback_0123456789abcdef";
const PIPELINES: &str = "/api/v2/project/gh/acme/shop/pipeline";
const ENVVARS: &str = "/api/v2/project/gh/acme/shop/envvar";

/// An answer, as bytes.
pub struct HttpReply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl HttpReply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

/// Sends bytes and reads until the server closes.
pub fn raw(url: &str, bytes: &[u8]) -> Option<HttpReply> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1)?.parse().unwrap();
    Some(HttpReply { status, head, body: answer[end + 4..].to_vec() })
}

/// `line` is method and path; `headers` are whole lines.
pub fn ask(url: &str, line: &str, headers: &[&str], body: Option<&Value>) -> HttpReply {
    let host = format!("Host: {}", url.strip_prefix("http://").unwrap());
    let mut lines = vec![format!("{line} HTTP/1.1"), host];
    lines.extend(headers.iter().map(|&header| header.to_owned()));
    let body = body.map(Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        lines.push("Content-Type: application/json".into());
        lines.push(format!("Content-Length: {}", body.len()));
    }
    raw(url, format!("{}\r\n\r\n{body}", lines.join("\r\n")).as_bytes()).unwrap()
}

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}")
}

/// As our client asks.
pub fn get(it: &Loopback, path: &str) -> HttpReply {
    ask(&it.url(), &format!("GET {path}"), &[&bearer()], None)
}

pub fn post(it: &Loopback, path: &str, body: Option<&Value>) -> HttpReply {
    ask(&it.url(), &format!("POST {path}"), &[&bearer()], body)
}

/// A project that one token opens, at noon.
pub fn state(slug: &str) -> MockState {
    let mut state = MockState::new(slug);
    state.tokens.push(TOKEN.into());
    state.time = Some(noon());
    state.parameters_declared = vec!["deploy".into()];
    let (id, created_at) = (state.uuid(), noon());
    let file_path = ".circleci/config.yml".into();
    state.definitions.push(Definition {
        id,
        name: "ship".into(),
        provider: "github_app".into(),
        file_path,
        created_at,
    });
    state
}

fn noon() -> Timestamp {
    "2026-08-01T12:00:00Z".parse().unwrap()
}

/// A build that stored `app.tar.gz`, and a deploy after it that stored nothing.
fn shipped(state: &mut MockState, file: PathBuf) -> (String, u64, u64) {
    let pipeline = state.push("main", "c0ffee", noon());
    let workflow = state.add_workflow(&pipeline, "ship");
    let build = state.add_job(&workflow, "build", &[]);
    let deploy = state.add_job(&workflow, "deploy", &["build"]);
    let number = state.start_job(&build);
    state.store_artifact(number, "out/app 1+2.tar.gz", 0, file);
    state.end_job(&build, JobStatus::Success);
    let later = state.start_job(&deploy);
    state.end_job(&deploy, JobStatus::Failed);
    state.set_workflow_status(&workflow, WorkflowStatus::Failed);
    (workflow, number, later)
}

fn start(state: MockState) -> Loopback {
    Loopback::start(state).unwrap()
}

#[test]
fn list_in_pages_stays_the_same_while_pipelines_are_added() {
    let mut it = state("gh/acme/shop");
    it.page_size = 2;
    for n in 1..=5 {
        it.push(if n == 4 { "side" } else { "main" }, &format!("sha{n}"), noon());
    }
    let it = start(it);
    let numbers = |page: &Value| -> Vec<u64> {
        page["items"].as_array().unwrap().iter().map(|item| item["number"].as_u64().unwrap()).collect()
    };
    let first = get(&it, PIPELINES).json();
    assert_eq!(numbers(&first), [5, 4]);
    // A push between two pages moves the list, and not what is read of it.
    it.state().push("main", "sha6", noon());
    let token = first["next_page_token"].as_str().unwrap();
    let second = get(&it, &format!("{PIPELINES}?page-token={token}")).json();
    assert_eq!(numbers(&second), [3, 2]);
    let token = second["next_page_token"].as_str().unwrap();
    let last = get(&it, &format!("{PIPELINES}?page-token={token}")).json();
    assert_eq!((numbers(&last), &last["next_page_token"]), (vec![1], &Value::Null));
    assert_eq!(numbers(&get(&it, &format!("{PIPELINES}?branch=side")).json()), [4]);
    assert_eq!(get(&it, &format!("{PIPELINES}?branch=none")).json()["items"], json!([]));
    // A token is of one list only.
    for query in [format!("branch=main&page-token={token}"), "page-token=x".into()] {
        assert_eq!(get(&it, &format!("{PIPELINES}?{query}")).status, 400, "{query}");
    }
    for (name, value) in [("A", "1"), ("B", "22"), ("C", "333")] {
        it.state().envvars.insert(name.into(), Variable { value: value.into(), created_at: noon() });
    }
    let first = get(&it, ENVVARS).json();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert!(first["next_page_token"].is_string());
}

#[test]
fn project_variable_is_masked_replaced_and_deleted() {
    let it = start(state("gh/acme/shop"));
    assert_eq!(get(&it, &format!("{ENVVARS}/LATEST")).status, 404);
    for (value, masked) in [("1234567", "xxxx4567"), ("12", "xxxx12")] {
        let made = post(&it, ENVVARS, Some(&json!({ "name": "LATEST", "value": value })));
        assert_eq!((made.status, made.json()["value"].as_str()), (201, Some(masked)));
        let one = get(&it, &format!("{ENVVARS}/LATEST")).json();
        assert_eq!(one, json!({ "name": "LATEST", "value": masked, "created-at": "2026-08-01T12:00:00Z" }));
        assert_eq!(get(&it, ENVVARS).json()["items"], json!([one]));
        assert_eq!(it.state().envvars_for_job()["LATEST"], value);
    }
    let delete = || ask(&it.url(), &format!("DELETE {ENVVARS}/LATEST"), &[&bearer()], None).status;
    assert_eq!((delete(), delete()), (200, 404));
    for body in
        [json!({ "name": "A" }), json!({ "name": "A", "value": 1 }), json!({ "name": "1", "value": "" }), json!([])]
    {
        assert_eq!(post(&it, ENVVARS, Some(&body)).status, 400, "{body}");
    }
    let plain = format!("POST {ENVVARS} HTTP/1.1\r\nHost: x\r\n{}\r\nContent-Length: 2\r\n\r\n{{}}", bearer());
    assert_eq!(raw(&it.url(), plain.as_bytes()).unwrap().status, 400);
}

#[test]
fn request_with_wrong_token_or_slug_is_refused() {
    let mut its = state("gh/acme/shop");
    its.tokens.push("CCIPRJ_known".into());
    let it = start(its);
    let me = |headers: &[&str]| ask(&it.url(), "GET /api/v2/me", headers, None);
    // printf '%s:' "$TOKEN" | base64
    let basic = "Authorization: Basic Q0NJUEFUX2xvb3BiYWNrXzAxMjM0NTY3ODlhYmNkZWY6";
    let kinds = [
        (bearer(), Credential::Bearer),
        (format!("circle-token: {TOKEN}"), Credential::CircleToken),
        (basic.into(), Credential::Basic),
    ];
    for (header, kind) in kinds {
        assert_eq!(me(&[&header]).status, 200, "{header}");
        let last = it.log().pop().unwrap();
        assert_eq!((last.credential, last.credential_is_right, last.token_seen), (Some(kind), true, true));
        assert_eq!((last.route, last.host), (Some("/me"), Listener::Api));
    }
    for headers in [&[][..], &["Authorization: Bearer"], &["Authorization: Bearer wrong"], &["Authorization: Basic !"]]
    {
        assert_eq!(me(headers).status, 401, "{headers:?}");
        let last = it.log().pop().unwrap();
        assert!(!last.credential_is_right && !last.token_seen);
    }
    let by_query = ask(&it.url(), &format!("GET /api/v2/me?circle-token={TOKEN}"), &[], None);
    assert!(by_query.status == 401 && by_query.message().contains("query parameter"));
    assert_eq!(it.log().pop().unwrap().credential, Some(Credential::Query));
    let logged = format!("{:?}", it.log());
    assert!(logged.contains("[token]") && !logged.contains(TOKEN), "{logged}");

    let project = |slug: &str, token: &str| {
        let header = format!("Authorization: Bearer {token}");
        ask(&it.url(), &format!("GET /api/v2/project/{slug}"), &[&header], None)
    };
    for slug in ["gh/acme/shop", "github/acme/shop", "gh%2Facme%2Fshop"] {
        assert_eq!(project(slug, TOKEN).json()["slug"], "gh/acme/shop", "{slug}");
    }
    for (slug, token) in [("gh/acme/shop", "CCIPRJ_known"), ("gh/acme/shap", TOKEN), ("bb/acme/shop", TOKEN)] {
        let answer = project(slug, token);
        assert_eq!((answer.status, answer.message().as_str()), (404, "Project not found"), "{slug}");
    }
    assert_eq!(get(&it, "/api/v2/nothing").message(), "Not found.");
}

#[test]
fn artifact_is_served_by_storage_that_refuses_a_token() {
    let dir = crate::record::tempdir();
    let file = dir.path().join("file");
    std::fs::write(&file, "0123456789").unwrap();
    let mut its = state("gh/acme/shop");
    let (_, number, later) = shipped(&mut its, file);
    let it = start(its);
    let list = |number: u64| get(&it, &format!("/api/v2/project/gh/acme/shop/{number}/artifacts"));
    let item = list(number).json()["items"][0].clone();
    assert_eq!((&item["path"], &item["node_index"]), (&json!("out/app 1+2.tar.gz"), &json!(0)));
    assert_eq!(list(later).json(), json!({ "items": [], "next_page_token": null }));
    assert_eq!((list(99).status, list(99).message().as_str()), (404, "Job not found."));

    let url = item["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&it.url()) && url.ends_with("/artifacts/0/out/app+1%2B2.tar.gz"), "{url}");
    let path = url.strip_prefix(&it.url()).unwrap();
    assert_eq!(ask(&it.url(), &format!("GET {path}"), &[], None).status, 401);
    let redirect = get(&it, path);
    let location = redirect.header("location").unwrap().to_owned();
    assert_eq!(redirect.status, 302);
    let signed = location.strip_prefix(&it.storage_url()).unwrap();
    let fetch = |path: &str, headers: &[&str]| ask(&it.storage_url(), &format!("GET {path}"), headers, None);
    assert_eq!(fetch(signed, &[&bearer()]).status, 400);
    assert_eq!(fetch("/bucket/guess/app", &[]).status, 403);
    let whole = fetch(signed, &[]);
    assert_eq!((whole.status, whole.body.as_slice()), (200, &b"0123456789"[..]));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let ranges =
        [("7-", 206, "789", "bytes 7-9/10"), ("2-3", 206, "23", "bytes 2-3/10"), ("10-", 416, "", "bytes */10")];
    for (range, status, body, content_range) in ranges {
        let part = fetch(signed, &[&format!("Range: bytes={range}")]);
        assert_eq!((part.status, String::from_utf8(part.body.clone()).unwrap()), (status, body.into()), "{range}");
        assert_eq!(part.header("content-range"), Some(content_range), "{range}");
    }
    let seen: Vec<_> = it.log().into_iter().filter(|it| it.host == Listener::Storage && it.token_seen).collect();
    assert!(seen.len() == 1 && seen[0].status == 400, "{seen:?}");
    assert!(it.storage_url().ends_with(&seen[0].authority));

    it.state().expire_artifacts(number);
    assert_eq!(list(number).json()["items"], json!([]));
    assert_eq!(get(&it, path).status, 404);
    let old = PathBuf::from("/nowhere");
    it.state().store_artifact(number, "old", 0, old);
    it.state().time = Some("2026-08-31T12:00:00Z".parse().unwrap());
    assert_eq!(list(number).json()["items"], json!([]), "thirty days");
}

#[test]
fn rerun_from_failed_lists_kept_jobs_with_their_numbers() {
    let mut its = state("gh/acme/shop");
    let (workflow, number, _) = shipped(&mut its, "/nowhere".into());
    let rerun = its.rerun_from_failed(&workflow);
    let pipeline = its.pipelines[0].id.clone();
    let it = start(its);
    let found = get(&it, &format!("/api/v2/pipeline/{pipeline}/workflow")).json();
    let ids: Vec<_> = found["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&rerun, &workflow]);
    let jobs = get(&it, &format!("/api/v2/workflow/{rerun}/job")).json()["items"].clone();
    assert_eq!((&jobs[0]["name"], &jobs[0]["job_number"]), (&json!("build"), &json!(number)));
    assert_eq!((&jobs[1]["name"], jobs[1].get("job_number")), (&json!("deploy"), None));
    assert_eq!(jobs[1]["dependencies"], json!([jobs[0]["id"]]));
    let details = get(&it, &format!("/api/v2/project/gh/acme/shop/job/{number}")).json();
    assert_eq!(details["latest_workflow"]["id"], json!(rerun));
}

#[test]
fn pipeline_of_github_app_has_no_vcs() {
    let slug = "circleci/43G3lM5RtfFE7v5sa4nWAU/44n9wujWcTnVZ2b5S8Fnat";
    let mut its = state(slug);
    its.push("main", "c0ffee", noon());
    let definition = its.definitions[0].id.clone();
    let it = start(its);
    let pipeline = get(&it, &format!("/api/v2/project/{slug}/pipeline/1")).json();
    assert_eq!(pipeline.get("vcs"), None);
    assert_eq!(pipeline["trigger_parameters"]["git"], json!({ "branch": "main", "checkout_sha": "c0ffee" }));
    assert_eq!(post(&it, &format!("/api/v2/project/{slug}/pipeline"), Some(&json!({}))).status, 400);
    assert_eq!(get(&it, "/api/v1.1/project/github/acme/shop/latest/artifacts").status, 404);

    let run = format!("/api/v2/project/{slug}/pipeline/run");
    let body =
        json!({ "definition_id": definition, "checkout": { "branch": "main" }, "parameters": { "deploy": "prod" } });
    let made = post(&it, &run, Some(&body));
    assert_eq!((made.status, &made.json()["number"]), (201, &json!(2)));
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(it.state().triggered(&id).unwrap()["deploy"], "prod");
    assert_eq!(it.state().pipeline(&id).unwrap().revision, "c0ffee");
    let with = |name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        post(&it, &run, Some(&body))
    };
    let undeclared = with("parameters", json!({ "what": 1 }));
    assert_eq!((undeclared.status, undeclared.message().as_str()), (400, "Unexpected argument(s): what"));
    let unknown = it.state().uuid();
    assert_eq!(with("definition_id", json!(unknown)).status, 404);
    assert_eq!(with("ref", json!("main")).status, 400);
    assert_eq!(with("checkout", json!({ "branch": "gone" })).status, 400);
    assert_eq!(post(&it, &run.replace("circleci/43", "circleci%2F43"), Some(&body)).status, 404);
    it.state().skip_ci = true;
    let skipped = post(&it, &run, Some(&body));
    assert!(skipped.status == 200 && skipped.message().contains("CI skip"));
    assert_eq!(it.state().pipelines.len(), 2);
}

#[test]
fn approval_is_accepted_once() {
    let mut its = state("gh/acme/shop");
    let pipeline = its.push("main", "c0ffee", noon());
    let workflow = its.add_workflow(&pipeline, "ship");
    let hold = its.add_approval(&workflow, "hold", &[]);
    let it = start(its);
    let approve = |id: &str| post(&it, &format!("/api/v2/workflow/{workflow}/approve/{id}"), None).status;
    assert_eq!(approve(&hold), 400, "not waiting yet");
    it.state().hold(&hold);
    assert_eq!(get(&it, &format!("/api/v2/workflow/{workflow}")).json()["status"], "on_hold");
    assert_eq!((approve("x"), approve(&hold), approve(&hold)), (404, 202, 400));
    assert!(it.state().approved(&hold));
    let job = get(&it, &format!("/api/v2/workflow/{workflow}/job")).json()["items"][0].clone();
    assert_eq!((&job["status"], &job["approved_by"]), (&json!("success"), &json!(it.state().user_id)));
}

#[test]
fn latest_artifacts_are_those_of_the_latest_job_alone() {
    let mut its = state("gh/acme/shop");
    let (_, number, _) = shipped(&mut its, "/nowhere".into());
    let it = start(its);
    let base = "/api/v1.1/project/github/acme/shop";
    let table = [
        ("latest/artifacts?branch=main", 0),
        ("latest/artifacts", 0),
        ("latest/artifacts?branch=main&filter=failed", 0),
        ("latest/artifacts?branch=main&filter=successful", 1),
        ("latest/artifacts?branch=side&filter=successful", 0),
        (&format!("{number}/artifacts"), 1),
    ];
    for (path, wanted) in table {
        let list = get(&it, &format!("{base}/{path}")).json();
        assert_eq!(list.as_array().unwrap().len(), wanted, "{path}");
    }
    let item = get(&it, &format!("{base}/{number}/artifacts")).json()[0].clone();
    assert_eq!(item["pretty_path"], item["path"]);
    for path in ["/api/v1.1/project/gh/acme/shop/latest/artifacts", &format!("{base}/99/artifacts"), "/api/v1.1/x"] {
        assert_eq!(get(&it, path).status, 404, "{path}");
    }
}

#[test]
fn hook_of_loopback_injects_faults() {
    let it = Loopback::start_with(
        state("gh/acme/shop"),
        Box::new(|request| match request.path.as_str() {
            "/api/v2/me" => Some(Reply::message(429, "slow down").header("Retry-After", "7")),
            "/cut" => Some(Reply::text(200, "text/html", "<html>").cut(3)),
            "/panic" => panic!("a hook that is wrong"),
            _ => None,
        }),
    )
    .unwrap();
    let slow = get(&it, "/api/v2/me");
    assert_eq!((slow.status, slow.header("retry-after")), (429, Some("7")));
    let cut = get(&it, "/cut");
    assert_eq!((cut.header("content-length"), cut.body.as_slice()), (Some("6"), &b"<ht"[..]));
    assert!(raw(&it.url(), b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").is_none());
    assert_eq!(get(&it, "/api/v2/project/gh/acme/shop").status, 200);
    let routes: Vec<_> = it.log().iter().map(|Logged { route, status, .. }| (*route, *status)).collect();
    assert_eq!(routes, [(Some("/me"), 429), (None, 200), (Some("/project/{project-slug}"), 200)]);
}

#[test]
fn malformed_request_is_refused_and_the_next_one_served() {
    let it = start(state("gh/acme/shop"));
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(80 << 10));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    let table = [
        ("\r\n\r\n\0", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/9\r\n\r\n", 400),
        ("GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /?a=%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (&long, 431),
        (&many, 431),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("GET /output/job//artifacts// HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        ("BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ];
    for (request, status) in table {
        let shown = &request[..request.len().min(60)];
        let answer = raw(&it.url(), request.as_bytes()).unwrap_or_else(|| panic!("{shown}"));
        assert_eq!(answer.status, status, "{shown}");
    }
    assert!(raw(&it.url(), b"").is_none());
    assert_eq!(get(&it, "/api/v2/me").status, 200);
}

#[test]
fn loopback_that_is_dropped_closes_its_ports() {
    let it = start(state("gh/acme/shop"));
    let urls = [it.url(), it.storage_url()];
    let address = |url: &str| url.strip_prefix("http://").unwrap().to_owned();
    // One that says nothing, and one that stops in the middle.
    let _idle = TcpStream::connect(address(&urls[0])).unwrap();
    let mut half = TcpStream::connect(address(&urls[1])).unwrap();
    half.write_all(b"GET / HT").unwrap();
    let started = Instant::now();
    drop(it);
    assert!(started.elapsed() < Duration::from_secs(5));
    for url in urls {
        assert!(TcpStream::connect(address(&url)).is_err(), "{url} still listens");
    }
}
