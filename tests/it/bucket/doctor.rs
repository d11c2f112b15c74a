//! Buckets that are not what a deploy needs, on a real server.

use crate::bucket::project;
use crate::bucket::server::{BUCKET, Fate, Proxy, ceph, fresh_url, with};
use crate::cli::doctor::{broken, checks, run, warned};
use gangplank_bucket::object::Bucket;
use gangplank_bucket::object::settings::settings;

/// Keys below a prefix.
fn keys(vars: &[(String, String)], url: &str) -> Vec<String> {
    let dir = crate::record::tempdir();
    let ctx = with(dir.path(), vars);
    let bucket = Bucket::open(&ctx, url, &settings(url, ctx.vars(), &|_| None).unwrap()).unwrap();
    bucket.list("").unwrap().into_iter().map(|object| object.key).collect()
}

#[test]
#[ignore = "group bucket"]
fn doctor_of_working_bucket_removes_its_probe_where_it_may() {
    let Some(ceph) = ceph() else { return };
    let url = fresh_url();
    let p = project(&url, &ceph.url());
    let ran = run(&p, "doctor dev", &[]).code(0);
    assert!(checks(&ran, "ok").iter().any(|it| it.contains("with conditional writes")), "{}", ran.stdout);
    assert!(checks(&ran, "ok").iter().any(|it| it.contains("locks/shop/dev.json (free)")), "{}", ran.stdout);
    assert_eq!(keys(&ceph.vars(), &url), [""; 0]);
    run(&p, "doctor --ci", &[]).code(0).stderr_has(&format!("asking {url}"));
    // Without the permission to remove, the doctor leaves what a put leaves, once.
    let denied = || {
        let body = "<Error><Code>AccessDenied</Code></Error>";
        let length = body.len();
        format!("HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let keeps = Proxy::new(
        &ceph.url(),
        Box::new(move |_, line| {
            let removes = line.starts_with("DELETE") || line.starts_with("POST") && line.contains("?delete");
            if removes { Fate::Answer(denied()) } else { Fate::Forward }
        }),
    );
    let p = project(&url, &keeps.url());
    for _ in 0..2 {
        run(&p, "doctor dev", &[]).code(0);
        assert_eq!(keys(&ceph.vars(), &url), ["probe"]);
    }
}

#[test]
#[ignore = "group bucket"]
fn doctor_of_missing_bucket_or_wrong_key_is_broken() {
    let Some(ceph) = ceph() else { return };
    let url = fresh_url();
    let mut p = project(&url, &ceph.url());
    p.change(&url, &url.replace(BUCKET, "no-such-bucket"));
    broken(&p, "doctor", "there is no such bucket", "`aws s3 mb s3://no-such-bucket`");
    p.change(&url.replace(BUCKET, "no-such-bucket"), &url);
    p.var("AWS_SECRET_ACCESS_KEY", "not-the-secret-of-this-key");
    let ran =
        broken(&p, "doctor", "the secret key does not belong to this access key", "set AWS_SECRET_ACCESS_KEY again");
    assert!(!ran.stdout.contains("not-the-secret"), "{}", ran.stdout);
    p.var("AWS_SECRET_ACCESS_KEY", "");
    broken(&p, "doctor", "AWS_SECRET_ACCESS_KEY is not set, but its other half is", "set both");
    p.var("AWS_ACCESS_KEY_ID", "");
    warned(&p, "doctor", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "export AWS_ACCESS_KEY_ID=");
    let ran = run(&p, "doctor --ci", &[]).code(0);
    assert!(checks(&ran, "skipped").iter().any(|it| it.starts_with(&url)), "{}", ran.stdout);
    assert_eq!(keys(&ceph.vars(), &url), [""; 0]);
}

#[test]
#[ignore = "group bucket"]
fn doctor_of_server_that_ignores_conditions_or_is_gone_is_broken() {
    let Some(ceph) = ceph() else { return };
    let url = fresh_url();
    let ok = || "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n".to_owned();
    let careless = Proxy::new(
        &ceph.url(),
        Box::new(move |_, line| if line.starts_with("PUT") { Fate::Answer(ok()) } else { Fate::Forward }),
    );
    let mut p = project(&url, &careless.url());
    p.var("GANGPLANK_API_DEADLINE", "2");
    broken(&p, "doctor", "the server ignores `If-None-Match: *`", "use a server that honours conditional writes");
    p.var("S3_ENDPOINT", &format!("http://127.0.0.1:{}", crate::project::free_port()));
    broken(&p, "doctor", "Connection refused", "check the server");
}

#[test]
#[ignore = "group bucket"]
fn doctor_of_env_locked_in_bucket_names_the_holder() {
    let Some(ceph) = ceph() else { return };
    let url = fresh_url();
    let p = project(&url, &ceph.url());
    let dir = crate::record::tempdir();
    let ctx = with(dir.path(), &ceph.vars());
    let bucket = Bucket::open(&ctx, &url, &settings(&url, ctx.vars(), &|_| None).unwrap()).unwrap();
    let owner = r#"{"token":"a-b-0","by":"ana@laptop","machine":"elsewhere","pid":1,"started":null,"since":"2026-08-01T00:00:00Z","doing":"deploy x to dev","ci":null}"#;
    assert!(bucket.create("locks/shop/dev.json", owner.into()).unwrap());
    broken(&p, "doctor dev", "locks/shop/dev.json: held by ana@laptop", "--lock-wait 600");
    run(&p, "doctor prod", &[]).code(0);
    assert_eq!(keys(&ceph.vars(), &url), ["locks/shop/dev.json"]);
}
