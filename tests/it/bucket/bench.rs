//! `bench s3` on a real server.

use crate::bucket::tls::make_certificate;
use crate::cli::bench::{bench, left};
use crate::record::skip;
use std::fs;

#[test]
#[ignore = "group bucket"]
fn bench_s3_reports_each_transfer_and_leaves_nothing() {
    let Some((mut p, own)) = bench() else { return };
    if !gangplank_bucket::ceph::Ceph::is_installed(&crate::parts::ctx(own.path())) {
        return skip("bench s3: Ceph is not installed (radosgw, ceph-mon, ceph-osd)");
    }
    // It keeps no object, so it has one to give.
    p.write_program("lazy/aws", "#!/bin/sh\necho \"$AWS_ENDPOINT_URL $AWS_REGION $*\" >> \"$TMPDIR.said\"\nfor last; do :; done\ncase $last in s3:*) ;; *) mkdir -p \"${last%/*}\"; echo it > \"$last\" ;; esac\n");
    p.var("PATH", &format!("{}:{}", p.path("lazy").display(), std::env::var("PATH").unwrap()));
    // A network with an authority of its own sets it everywhere. The local server has no certificate.
    make_certificate(&p.path(""));
    p.var("AWS_CA_BUNDLE", &p.path("ca.pem").display().to_string());
    let ran = p.run("bench s3 --rounds 1 --workload w --workload w.v2 --against aws --json").ok();
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let what: Vec<_> =
        rows.iter().map(|row| (row["what"].as_str().unwrap(), row["against"].as_str().unwrap())).collect();
    assert_eq!(what, [("up", "aws"), ("down", "aws"), ("up", "aws"), ("down", "aws")]);
    assert!(rows[1]["ours"]["bytes"].as_u64() > rows[1]["theirs"]["bytes"].as_u64(), "ours fetched a release");
    let said_path = format!("{}.said", own.path().display());
    let said = fs::read_to_string(&said_path).unwrap();
    fs::remove_file(said_path).unwrap();
    let places: std::collections::BTreeSet<_> = said.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!((said.lines().count(), places.len()), (6, 6), "each copy has a place of its own: {said}");
    assert!(
        said.lines().all(|line| line.starts_with("http://127.0.0.1:") && line.contains(" us-east-1 s3 cp ")),
        "{said}"
    );
    assert_eq!(left(&own), [""; 0]);
    assert_eq!(fs::read_dir(own.path()).unwrap().count(), 0, "its files are gone");
    p.run("bench s3 --against scp").fails(2, "scp does not take part in bench s3", "aws, s5cmd");
}
