//! Forged releases in a bucket: no host is asked to fetch one.

use super::server::{ceph, fresh_url, with};
use super::{leaked, project, settings_of};
use crate::store::forged::{self, Forgery, ID, SHA};
use gangplank_bucket::object::Bucket;
use std::fs;
use std::path::Path;

/// Puts the files of a release where a bucket keeps them, if they are files that a bucket can keep.
fn upload(bucket: &Bucket, dir: &Path, forgery: &Forgery) -> Option<()> {
    let place = format!("releases/{SHA}/{ID}");
    let manifest = fs::read(dir.join("manifest.json")).ok()?;
    let bundle = forgery.manifest["bundle"].clone();
    let name = bundle["file"].as_str()?;
    let written: serde_json::Value = serde_json::from_slice(&manifest).ok()?;
    let sum = written["bundle"]["sha256"].as_str()?;
    bucket.create(&format!("{place}/{}/{name}", &sum[..16]), fs::read(dir.join(name)).ok()?).ok()?;
    bucket.create(&format!("{place}/manifest.json"), manifest).ok()?;
    Some(())
}

#[test]
#[ignore = "group bucket"]
fn host_that_fetches_is_sent_no_forged_release() {
    let Some(ceph) = ceph() else { return };
    let store = crate::record::tempdir();
    let ctx = leaked(with(store.path(), &ceph.vars()));
    let mut tried = 0;
    for (name, forgery) in forged::all() {
        // A device or a pipe is nothing that a bucket keeps.
        if forgery.touch.is_some() {
            continue;
        }
        let url = fresh_url();
        let bucket = Bucket::open(ctx, &url, &settings_of(ctx, &url)).unwrap();
        let dir = forgery.write(store.path());
        if upload(&bucket, &dir, &forgery).is_none() {
            continue;
        }
        tried += 1;
        let mut p = project(&url, &ceph.url());
        p.change("env dev\n", "env dev\npull\n");
        for release in [ID, "latest"] {
            let ran = p.run(&format!("deploy dev {release}"));
            assert!([5, 7].contains(&ran.code), "{name}: {}: {}", ran.code, ran.stderr);
        }
        assert!(!p.path("srv/dev/releases").exists(), "{name}: the host has got something");
    }
    assert!(tried > 80, "{tried}");
    // And one that is not forged is fetched.
    let url = fresh_url();
    let bucket = Bucket::open(ctx, &url, &settings_of(ctx, &url)).unwrap();
    let forgery = Forgery::new();
    upload(&bucket, &forgery.write(store.path()), &forgery).unwrap();
    let mut p = project(&url, &ceph.url());
    p.change("env dev\n", "env dev\npull\n");
    p.run(&format!("deploy dev {ID}")).ok().stderr_has("the hosts fetch");
}
