//! Notifications, as their recipients get them.

use crate::project::{Project, free_port, root};
use crate::record::skip;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request as it came.
#[derive(Debug, Clone)]
struct Received {
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    /// Whether the env was locked at that time.
    was_locked: bool,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server that keeps what it gets, and answers with the statuses of a list, then with 204.
struct Receiver {
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    fn start(statuses: &[u16], lock: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (mut statuses, kept) = (VecDeque::from(statuses.to_vec()), Arc::clone(&received));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    match line.trim_end() {
                        "" => break,
                        text => lines.push(text.to_owned()),
                    }
                }
                let headers: Vec<_> = lines[1..]
                    .iter()
                    .filter_map(|line| line.split_once(": "))
                    .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                    .collect();
                let length = headers.iter().find(|(name, _)| name == "content-length").unwrap().1.parse().unwrap();
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                kept.lock().unwrap().push(Received {
                    path: lines[0].split(' ').nth(1).unwrap().to_owned(),
                    headers,
                    body: String::from_utf8(body).unwrap(),
                    was_locked: lock.exists(),
                });
                let status = statuses.pop_front().unwrap_or(204);
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
        });
        Self { port, received }
    }

    fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn types(&self) -> Vec<String> {
        self.all().iter().map(|it| it.json()["type"].as_str().unwrap_or("slack").to_owned()).collect()
    }
}

/// A project with a service whose env dev has a webhook, and a channel in Slack.
fn project(statuses: &[u16]) -> (Project, Receiver) {
    let mut p = Project::with_service();
    let receiver = Receiver::start(statuses, p.path("srv/dev/.lock"));
    p.change(
        "pidfile bin/app\n",
        "pidfile bin/app\nwebhook http://127.0.0.1:${HOOK_PORT}/hook|${HOOK_SECRET}\nslack ${SLACK_WEBHOOK_URL:-}\n",
    );
    p.var("HOOK_PORT", &receiver.port.to_string());
    p.var("HOOK_SECRET", SECRET);
    (p, receiver)
}

#[test]
fn recipients_get_deploys_reverts_and_rollbacks() {
    let (mut p, receiver) = project(&[]);
    p.var("SLACK_WEBHOOK_URL", &format!("http://127.0.0.1:{}/services/T0/B0/hunter2hunter2", receiver.port));
    let v1 = p.release("1");
    p.run("deploy dev --reason 'first & <!channel>'").ok().stderr_lacks("notification").stderr_lacks("hunter2");
    p.write("behavior", "exit 3\n");
    p.release("2");
    p.run("deploy dev").code(1);
    p.write("behavior", "");
    let v3 = p.release("3");
    p.run("deploy dev").ok();
    p.run("deploy dev").ok().stdout_has("nothing to do");
    p.run("rollback dev").ok();
    p.run("prune dev --keep 2").ok();
    assert_eq!(
        receiver.types(),
        ["deployed", "slack", "reverted", "slack", "deployed", "slack", "rolled-back", "slack"]
    );
    let all = receiver.all();
    assert!(all.iter().all(|it| !it.was_locked), "they are sent when the lock is free again");
    assert!(all.iter().all(|it| it.header("content-type") == "application/json"));
    let first = all[0].json();
    assert_eq!((&first["data"]["release"], &first["data"]["env"]), (&json!(v1), &json!("dev")));
    assert_eq!(first["data"]["subject"], "1");
    assert_eq!(first["data"]["reason"], "first & <!channel>");
    let slack = &all[1];
    assert_eq!(slack.path, "/services/T0/B0/hunter2hunter2");
    assert!(slack.json()["text"].as_str().unwrap().contains("first &amp; &lt;!channel&gt;"), "{}", slack.body);
    assert_eq!(slack.header("webhook-signature"), "", "only the webhook has the key");
    let reverted = all[2].json();
    assert!(reverted["data"]["reason"].as_str().unwrap().contains("exit code 3"), "{reverted}");
    assert_eq!(reverted["data"]["needs_repair"], false);
    let back = all[6].json();
    assert_eq!((&back["data"]["release"], &back["data"]["from"]), (&json!(v1), &json!(v3)));
}

#[test]
fn signature_is_accepted_by_the_library_of_standard_webhooks() {
    let python = root().join("target/tools/bin/python");
    let has = |module: &str| Command::new(&python).args(["-c", &format!("import {module}")]).output();
    if !has("standardwebhooks").is_ok_and(|answer| answer.status.success()) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "`cargo xtask test` installs standardwebhooks");
        return skip("signatures of webhooks: standardwebhooks is not installed (PyPI brings it)");
    }
    let (p, receiver) = project(&[]);
    p.release("1");
    p.run("deploy dev").ok();
    let got = receiver.all().remove(0);
    let verify = "import json,sys; from standardwebhooks import Webhook\n\
                  given = json.load(sys.stdin); Webhook(given['secret']).verify(given['body'], given['headers'])";
    let check = |body: &str, secret: &str| {
        let headers: serde_json::Map<String, Value> =
            got.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let given = json!({ "secret": secret, "body": body, "headers": headers }).to_string();
        let mut child =
            Command::new(&python).args(["-c", verify]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let answer = check(&got.body, SECRET);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let other = got.body.replace("\"dev\"", "\"prod\"");
    assert!(!check(&other, SECRET).status.success(), "another body");
    assert!(!check(&got.body, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").status.success(), "another key");
}

#[test]
fn deploy_whose_recipient_fails_is_a_success_with_a_warning() {
    // Overloaded once, then twice, then refusing, then sending elsewhere.
    let (p, receiver) = project(&[500, 204, 429, 503, 404, 302]);
    for (text, requests, warning) in
        [("1", 2, None), ("2", 4, Some("status 503")), ("3", 5, Some("status 404")), ("4", 6, Some("status 302"))]
    {
        p.release(text);
        let ran = p.run("deploy dev").ok().stderr_lacks("whsec_");
        match warning {
            Some(warning) => drop(ran.stderr_has("a notification of dev was not sent").stderr_has(warning)),
            None => drop(ran.stderr_lacks("notification")),
        }
        assert_eq!(receiver.all().len(), requests, "{text}");
        assert_eq!(p.get("dev").unwrap(), text);
    }
    let all = receiver.all();
    assert_eq!(all[0].header("webhook-id"), all[1].header("webhook-id"), "a receiver can drop the second");
    assert!(all.iter().all(|it| it.path == "/hook"), "a redirect is not followed");
}

#[test]
fn deploy_without_what_a_notification_needs_is_a_success_with_a_warning() {
    let (mut p, receiver) = project(&[]);
    for (name, value, warning) in [
        ("HOOK_SECRET", "hunter2hunter2", "the key of a webhook is not `whsec_`"),
        ("HOOK_PORT", &free_port().to_string(), "Connection refused"),
        ("HOOK_PORT", "x", "neither https nor on this machine"),
        ("SLACK_WEBHOOK_URL", "http://example.com/x", "neither https nor on this machine"),
    ] {
        let old = match name {
            "HOOK_PORT" => receiver.port.to_string(),
            "HOOK_SECRET" => SECRET.into(),
            _ => String::new(),
        };
        p.var(name, value);
        p.release(&format!("{name}={value}"));
        p.run("deploy dev").ok().stderr_has(warning).stderr_lacks("hunter2");
        let doctor = p.run("doctor dev");
        if warning.contains("refused") {
            // Nothing is sent.
            doctor.stdout_has("notify").stdout_lacks("warning notify");
        } else {
            doctor.stdout_has("warning notify").stdout_lacks("hunter2");
        }
        p.var(name, &old);
    }
    p.change("${HOOK_SECRET}", "${NOT_SET}");
    p.release("5");
    p.run("deploy dev").ok().stderr_has("a notification of dev was not sent to webhook").stderr_has("NOT_SET");
}

#[test]
fn recipients_get_failures_and_no_refusals_and_plans() {
    let (p, receiver) = project(&[]);
    p.release("1");
    p.run("deploy dev").ok();
    p.run("deploy dev --dry-run").ok();
    p.run("rollback dev").code(5);
    p.release("2");
    fs::remove_dir_all(p.path("target/releases")).unwrap();
    fs::create_dir_all(p.path("target/releases")).unwrap();
    p.run("deploy dev --dry-run").code(5);
    let owner = r#"{"by":"ben@elsewhere","at":"2026-08-01T00:00:00Z","verb":"deploy","token":"x","host":"elsewhere","boot":"b","namespace":"n","pid":1,"start":1}"#;
    p.release("3");
    p.write("srv/dev/.lock", owner);
    p.run("deploy dev").code(6);
    p.run("unlock dev --force").ok();
    // Its directory becomes a file: nothing can be installed.
    fs::rename(p.path("srv/dev/releases"), p.path("srv/dev/kept")).unwrap();
    p.write("srv/dev/releases", "");
    p.run("deploy dev").code(1);
    assert_eq!(receiver.types(), ["deployed", "failed", "failed"]);
    assert_eq!(receiver.all()[1].json()["data"]["verb"], "rollback");
}

#[test]
fn secrets_are_masked_in_the_markup_of_slack_too() {
    let (mut p, receiver) = project(&[]);
    p.change("webhook http://127.0.0.1:${HOOK_PORT}/hook|${HOOK_SECRET}\n", "");
    p.var("SLACK_WEBHOOK_URL", &format!("http://127.0.0.1:{}/x", receiver.port));
    p.var("API_TOKEN", "tok<en>&\"12345");
    p.release("1");
    p.run("deploy dev --reason 'it is tok<en>&\"12345'").ok();
    let body = &receiver.all()[0].body;
    assert!(body.contains("it is ****") && !body.contains("12345"), "{body}");
    p.run("report dev").ok();
    assert!(!p.read("target/report/index.html").contains("12345"));
}

#[test]
fn notify_asks_for_an_approval_or_sends_a_test() {
    let (mut p, receiver) = project(&[]);
    let v1 = p.release("1");
    p.run("notify dev").ok().stdout_is("webhook sent\nslack skipped\n");
    p.run("notify dev --test").fails(2, "not sent: ${SLACK_WEBHOOK_URL:-} is empty", "set the variable");
    assert_eq!(receiver.types(), ["approval-wanted", "test"]);
    let wanted = receiver.all()[0].json();
    assert_eq!(wanted["data"]["release"], v1);
    assert!(wanted["data"]["text"].as_str().unwrap().contains("dev waits for an approval of"), "{wanted}");
    Project::new().run("notify prod").fails(2, "`notify` of prod is empty", "Notify::slack");
    p.run("notify stage").fails(2, "no env `stage`", "dev, prod");
    p.var("HOOK_PORT", &free_port().to_string());
    p.run("notify dev").ok().stderr_has("was not sent");
    p.run("notify dev --test").fails(4, "Connection refused", "check its URL");
}

#[test]
fn notification_contains_no_secret() {
    let (mut p, receiver) = project(&[]);
    p.var("API_TOKEN", "hunter2hunter2");
    p.release("1");
    p.run("deploy dev --reason 'the token is hunter2hunter2'").ok();
    let body = &receiver.all()[0].body;
    assert!(body.contains("the token is ****") && !body.contains("hunter2"), "{body}");
}

#[test]
fn secrets_of_recipients_in_main_rs_are_refused() {
    for (setting, what) in [
        ("slack https://hooks.slack.com/services/T0/B0/x\n", "the URL of a Slack webhook in main.rs"),
        ("webhook https://example.com/x|whsec_x\n", "the key of a webhook in main.rs"),
    ] {
        let mut p = Project::new();
        p.change("env prod\n", &format!("{setting}env prod\n"));
        p.run("status").fails(2, what, "context of CircleCI");
    }
}

#[test]
fn job_before_an_approval_asks_for_it() {
    let mut p = Project::new();
    p.change("store file:store\n", "store circleci:workspace\n");
    p.add("slack ${SLACK_WEBHOOK_URL}\n");
    p.run("ci generate").ok();
    let config = p.read(".circleci/config.yml");
    let dev = config.split("  deploy-dev:").nth(1).unwrap().split("  deploy-prod:").next().unwrap();
    assert!(dev.contains("xtask notify prod\n"), "{dev}");
    assert_eq!(config.matches("notify").count(), 1);
    // The first env has no deploy before it.
    p.change("env dev\ntarget file:srv/dev\n", "");
    p.run("ci generate").ok();
    let config = p.read(".circleci/config.yml");
    let build = config.split("  build:").nth(1).unwrap().split("  deploy-prod:").next().unwrap();
    assert!(build.contains("xtask notify prod\n"), "{config}");
}
