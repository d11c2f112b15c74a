//! Buckets that are not well, or not ours: each is refused with what to do about it, and nothing is half done.

use crate::bucket::server::{BUCKET, Fate, Proxy, ceph, fresh_url};
use crate::bucket::{project, project_in};
use crate::project::Project;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn xml(status: &str, code: &str, more: &str) -> String {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>No.</Message>{more}</Error>");
    format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn ok(etag: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nETag: \"{etag}\"\r\nContent-Length: 0\r\n\r\n")
}

#[test]
#[ignore = "group bucket"]
fn put_with_wrong_or_missing_credentials_names_the_variable() {
    let Some(ceph) = ceph() else { return };
    let mut p = project(&fresh_url(), &ceph.url());
    p.release("1");
    p.var("AWS_SECRET_ACCESS_KEY", "wrongsecret");
    p.run("put").fails(3, "the secret key does not belong to this access key", "AWS_SECRET_ACCESS_KEY");
    p.var("AWS_ACCESS_KEY_ID", "nobodyskey");
    p.run("put").fails(3, "the server does not know this access key", "AWS_ACCESS_KEY_ID");
    p.var("AWS_SECRET_ACCESS_KEY", "");
    p.run("put").fails(3, "AWS_SECRET_ACCESS_KEY is not set, but its other half is", "both");
    p.var("AWS_ACCESS_KEY_ID", "");
    p.var("HOME", "/nonexistent");
    p.run("put").fails(3, "no credentials: set AWS_ACCESS_KEY_ID", "docs/s3.md");
    // Without credentials a store is skipped with a warning.
    p.run("deploy dev").ok();
    p.run("releases").ok().stderr_has("skipped: missing AWS_ACCESS_KEY_ID");
    p.var("AWS_ROLE_ARN", "arn:aws:iam::1:role/deploy");
    p.run("put").fails(3, "CIRCLE_OIDC_TOKEN_V2", "docs/s3.md");
}

#[test]
#[ignore = "group bucket"]
fn put_to_missing_or_invalid_bucket_names_the_reason() {
    let Some(ceph) = ceph() else { return };
    let mut p = project("s3://nobodys-bucket/shop", &ceph.url());
    p.release("1");
    p.run("put").fails(2, "there is no such bucket", "aws s3 mb s3://nobodys-bucket");
    p.var("S3_ENDPOINT", "http://s3.lan:9000");
    p.run("put").fails(2, "http://s3.lan:9000 is another machine", "AWS_ALLOW_HTTP=true");
    p.var("S3_ENDPOINT", "http://127.0.0.1:1");
    p.var("GANGPLANK_API_DEADLINE", "1");
    p.run("put").fails(4, "Connection refused", "run the same command again");
    for (url, error) in [("s3://x", "3 to 63"), ("s3://bucket//x", "prefix"), ("s3:bucket", "names no bucket")] {
        let mut p = Project::new();
        p.release("1");
        p.change("store file:store\n", &format!("store {url}\n"));
        p.run("put").fails(2, error, "s3://BUCKET/PREFIX");
    }
}

/// What the server answers to every request whose line has this in it, and what comes of it.
type Case = (&'static str, fn() -> String, i32, &'static str, &'static str);

const ANSWERS: &[Case] = &[
    ("PUT", || xml("403 Forbidden", "AccessDenied", ""), 3, "access denied", "s3:PutObject"),
    ("GET", || xml("403 Forbidden", "AccessDenied", ""), 3, "access denied", "s3:GetObject"),
    ("GET", || xml("400 Bad Request", "ExpiredToken", ""), 3, "the session has expired", "rerun the job"),
    ("GET", || xml("403 Forbidden", "RequestTimeTooSkewed", ""), 3, "the clock of this machine", "date"),
    (
        "GET",
        || xml("400 Bad Request", "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"),
        2,
        "the bucket is in another region",
        "AWS_REGION=eu-west-1",
    ),
    (
        "GET",
        || "HTTP/1.1 301 Moved Permanently\r\nContent-Length: 0\r\n\r\n".into(),
        2,
        "the bucket is in another region",
        "AWS_REGION",
    ),
    ("PUT", || xml("503 Slow Down", "SlowDown", ""), 4, "SlowDown", "run the same command again"),
    // A server that takes everything and minds no condition.
    ("PUT", || ok("e"), 4, "the server ignores `If-None-Match: *`", "circleci:artifacts"),
];

#[test]
#[ignore = "group bucket"]
fn put_with_unexpected_answer_of_server_fails_with_hint() {
    let Some(ceph) = ceph() else { return };
    for &(on, answer, code, error, hint) in ANSWERS {
        let proxy = Proxy::new(
            &ceph.url(),
            Box::new(move |_, line| if line.starts_with(on) { Fate::Answer(answer()) } else { Fate::Forward }),
        );
        let mut p = project(&fresh_url(), &proxy.url());
        p.var("GANGPLANK_API_DEADLINE", "2");
        p.release("1");
        p.run("put").fails(code, error, hint);
        p.var("S3_ENDPOINT", &ceph.url());
        p.run("put").ok();
    }
}

#[test]
#[ignore = "group bucket"]
fn put_with_error_in_answer_of_200_fails_and_aborts_the_upload() {
    let Some(ceph) = ceph() else { return };
    let proxy = Proxy::new(
        &ceph.url(),
        Box::new(|_, line| {
            if line.starts_with("POST") && line.contains("uploadId") {
                return Fate::Answer(xml("200 OK", "InternalError", ""));
            }
            Fate::Forward
        }),
    );
    let mut p = project(&fresh_url(), &proxy.url());
    p.var("GANGPLANK_API_DEADLINE", "2");
    p.write("www/noise", &crate::ci::faults::noise(12 << 20));
    p.release("1");
    let ran = p.run("put").code(4);
    assert!(ran.stderr.contains("InternalError"), "{}", ran.stderr);
    assert!(proxy.log().iter().any(|line| line.starts_with("DELETE") && line.contains("uploadId")), "it is aborted");
}

#[test]
#[ignore = "group bucket"]
fn put_and_fetch_over_cut_connections_succeed() {
    let Some(ceph) = ceph() else { return };
    let url = fresh_url();
    // Each third request is cut, in its body or in its answer.
    let proxy = Proxy::new(
        &ceph.url(),
        Box::new(|number, _| match number % 6 {
            2 => Fate::CutRequest(100_000),
            5 => Fate::CutAnswer(100_000),
            _ => Fate::Forward,
        }),
    );
    let p = project(&url, &proxy.url());
    p.write("www/noise", &crate::ci::faults::noise(20 << 20));
    let id = p.release("1");
    p.run("put").ok();
    p.run("verify --store").ok();
    fs::remove_dir_all(p.path("target/releases")).unwrap();
    p.run(&format!("fetch {id} --into target/got")).ok();
}

#[test]
#[ignore = "group bucket"]
fn put_to_silent_server_fails_at_the_deadline() {
    let Some(ceph) = ceph() else { return };
    let proxy = Proxy::new(&ceph.url(), Box::new(|_, _| Fate::Silence));
    let mut p = project(&fresh_url(), &proxy.url());
    p.var("GANGPLANK_API_DEADLINE", "1");
    p.release("1");
    p.run("put").code(4).stderr_has("hint: ");
}

#[test]
fn fetch_and_deploy_of_foreign_or_damaged_objects_are_refused() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    let one = p.release("1");
    p.run("put").ok();
    p.run("publish").ok();
    let sha = p.git(&["rev-parse", "HEAD"]);
    let place = dir.path().join("builds/shop/releases").join(&sha).join(&one);
    let manifest = fs::read_to_string(place.join("manifest.json")).unwrap();
    fs::remove_dir_all(p.path("target/releases")).unwrap();

    fs::write(place.join("manifest.json"), "a foreign object").unwrap();
    p.run(&format!("fetch {one}")).code(7).stderr_has("not a manifest");
    p.run("releases").ok().stderr_has("skipped an invalid release");
    // That of another release.
    fs::write(place.join("manifest.json"), manifest.replace(&sha, &format!("{}{}", &sha[..7], "0".repeat(33))))
        .unwrap();
    p.run(&format!("fetch {one}")).code(7).stderr_has("it is the manifest of");
    fs::write(place.join("manifest.json"), &manifest).unwrap();

    let bundle = fs::read_dir(&place).unwrap().flatten().find(|it| it.path().is_dir()).unwrap().path();
    let bundle = fs::read_dir(bundle).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&bundle).unwrap();
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&bundle, damaged).unwrap();
    p.run(&format!("fetch {one}")).fails(7, "its digest is", "repair it");
    fs::write(&bundle, bytes).unwrap();

    fs::remove_dir_all(&place).unwrap();
    p.run("deploy dev latest").fails(
        5,
        &format!("latest/shop/main.json names {one}, which is gone"),
        "cargo xtask releases",
    );
    fs::write(dir.path().join("builds/shop/latest/shop/main.json"), "text").unwrap();
    p.run("deploy dev latest").fails(7, "it is not a pointer", "cargo xtask publish");
}

#[test]
#[ignore = "group bucket"]
fn put_to_server_that_dies_fails_and_succeeds_after_its_restart() {
    use gangplank_bucket::ceph::Ceph;
    if ceph().is_none() {
        return;
    }
    let dir = crate::record::tempdir();
    let server = Ceph::start(dir.path()).unwrap();
    crate::bucket::server::make_bucket(&server);
    let (died, kill) = (Arc::new(AtomicBool::new(false)), dir.path().join("run"));
    let dies = died.clone();
    let proxy = Proxy::new(
        &server.url(),
        Box::new(move |_, line| {
            if line.contains("partNumber=2") && !dies.swap(true, Ordering::SeqCst) {
                for daemon in ["client.rgw", "osd.0", "mon.a"] {
                    let pid = fs::read_to_string(kill.join(format!("{daemon}.pid"))).unwrap();
                    assert!(std::process::Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
                }
            }
            if dies.load(Ordering::SeqCst) { Fate::CutRequest(0) } else { Fate::Forward }
        }),
    );
    let mut p = project(&format!("s3://{BUCKET}/dying"), &proxy.url());
    p.var("GANGPLANK_API_DEADLINE", "3");
    p.write("www/noise", &crate::ci::faults::noise(20 << 20));
    let id = p.release("1");
    p.run("put").fails(4, "cannot write s3://gangplank-tests/dying/", "run the same command again");
    assert!(died.load(Ordering::SeqCst));
    drop(server);
    let server = Ceph::start(dir.path()).unwrap();
    p.var("S3_ENDPOINT", &server.url());
    p.run("releases").ok();
    p.run("put").ok().stdout_has(&format!("{id} stored"));
    p.run("verify --store").ok();
}

#[test]
#[ignore = "group bucket"]
fn put_to_silent_server_stops_at_a_signal() {
    let Some(ceph) = ceph() else { return };
    let proxy = Proxy::new(&ceph.url(), Box::new(|_, _| Fate::Silence));
    let p = project(&fresh_url(), &proxy.url());
    p.release("1");
    let child = p.start("put");
    // It is waited for, and a person who will not wait is heard.
    std::thread::sleep(std::time::Duration::from_millis(6500));
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let asked = std::time::Instant::now();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("has not answered for 5 s; still waiting"), "{stderr}");
    assert!(stderr.contains("stopped by a signal") && stderr.contains("hint: "), "{stderr}");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(asked.elapsed() < std::time::Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[test]
#[ignore = "group bucket"]
fn put_trims_blanks_around_variables_and_refuses_newlines_inside() {
    let Some(ceph) = ceph() else { return };
    let mut p = project(&fresh_url(), &format!(" {}\n", ceph.url()));
    p.var("AWS_ACCESS_KEY_ID", "localkey\n");
    p.var("AWS_REGION", " us-east-1");
    p.release("1");
    p.run("put").ok();
    p.var("AWS_SECRET_ACCESS_KEY", "local\nsecret");
    p.run("put").fails(2, "AWS_SECRET_ACCESS_KEY contains an invalid character", "on one line");
}

#[test]
fn verify_of_damaged_store_repairs_it_from_the_local_release() {
    let dir = crate::record::tempdir();
    let p = project_in(dir.path());
    let id = p.release("1");
    p.run("put").ok();
    let mut files = Vec::new();
    let mut dirs = vec![dir.path().join("builds/shop/releases")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.path().is_dir() { dirs.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    assert_eq!(files.len(), 2);
    for file in files {
        let good = fs::read(&file).unwrap();
        fs::write(&file, vec![b'x'; good.len()]).unwrap();
        p.run("verify --store").ok().stderr_has("was damaged and has been repaired");
        assert_eq!(fs::read(&file).unwrap(), good);
    }
    p.run(&format!("verify {id} --store")).ok().stdout_has("every byte");
}
