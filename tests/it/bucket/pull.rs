//! Hosts download releases themselves: the job never has the bundle, and the URL is never printed.

use crate::bucket::server::{Fate, Proxy, ceph, fresh_url, with};
use crate::bucket::{leaked, open, project};
use crate::fleet::hosts::Fleet;
use crate::host::contract;
use crate::project::Project;
use gangplank_bucket::ceph::Ceph;
use gangplank_deploy::host::Delivery;
use gangplank_deploy::tool::Tool;
use std::fs;
use std::os::unix::fs::symlink;

#[test]
#[ignore = "group bucket"]
fn host_that_fetches_keeps_the_contract() {
    let Some(ceph) = ceph() else { return };
    let dir = crate::record::tempdir();
    let ctx = leaked(with(dir.path(), &ceph.vars()));
    let store = open(ctx, &fresh_url());
    contract(
        ctx,
        dir.path(),
        &*Tool::bare(ctx, &crate::parts::PROJECT).target("file:srv/with space/it's").unwrap(),
        &|release| {
            store.put(release).unwrap();
            Delivery::Pull(release, store.link(release.manifest()).unwrap())
        },
    );
}

#[test]
#[ignore = "group bucket"]
fn host_over_ssh_that_fetches_keeps_the_contract() {
    let (Some(ceph), Some(fleet)) = (ceph(), Fleet::start(1)) else { return };
    let dir = crate::record::tempdir();
    let vars = [&ceph.vars()[..], &[("PATH".to_owned(), fleet.path())]].concat();
    let ctx = leaked(with(dir.path(), &vars));
    let store = open(ctx, &fresh_url());
    contract(
        ctx,
        dir.path(),
        &*Tool::bare(ctx, &crate::parts::PROJECT).target(&fleet.target(0, "with space/it's")).unwrap(),
        &|release| {
            store.put(release).unwrap();
            Delivery::Pull(release, store.link(release.manifest()).unwrap())
        },
    );
}

/// A project with one release in its bucket, and hosts that fetch it.
fn stored(endpoint: &str, noise: usize) -> (Project, String) {
    let mut p = project(&fresh_url(), endpoint);
    p.change("env prod\n", "pull\nenv prod\n");
    p.write("www/noise", &crate::ci::faults::noise(noise));
    let id = p.release("1");
    p.run("put").ok();
    p.run("publish").ok();
    fs::remove_dir_all(p.path("target/releases")).unwrap();
    (p, id)
}

/// Whether a host fetches a bundle, by a URL that was signed for it. Where the deploy runs, requests are signed in a header.
fn is_bundle(line: &str) -> bool {
    line.starts_with("GET") && line.contains(".tar.gz") && line.contains("X-Amz-Signature=")
}

#[test]
#[ignore = "group bucket"]
fn deploy_with_pull_sends_bundle_to_host_and_hides_the_url() {
    let Some(ceph) = ceph() else { return };
    let proxy = Proxy::new(&ceph.url(), Box::new(|_, _| Fate::Forward));
    let (mut p, id) = stored(&proxy.url(), 1 << 20);
    // What anybody on the host can see of a program while it runs.
    let seen = p.path("srv/seen");
    p.write_program(
        "spy/curl",
        &format!(
            "#!/bin/sh\n{{ printf '%s\\n' \"$@\"; env; cat /proc/$PPID/cmdline; }} >> {}\nPATH=${{PATH#*:}} exec curl \"$@\"\n",
            seen.display()
        ),
    );
    p.write("srv/seen", "");
    p.var("PATH", &format!("{}:{}", p.path("spy").display(), std::env::var("PATH").unwrap()));
    let before = proxy.log().len();
    let ran = p.run("deploy dev latest -v").ok().stderr_has(&format!("the hosts fetch {id} themselves from s3://"));
    assert_eq!(p.live("srv/dev"), "1");
    let log = proxy.log().split_off(before);
    let bundles: Vec<_> = log.iter().filter(|line| line.starts_with("GET") && line.contains(".tar.gz")).collect();
    let [checked, fetched] = bundles.as_slice() else { panic!("{log:#?}") };
    assert!(!is_bundle(checked) && is_bundle(fetched), "the job has checked it before the host fetched it: {log:#?}");
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("-K"), "{seen}");
    for text in [&seen, &ran.stderr, &ran.stdout] {
        assert!(!text.contains("X-Amz"), "{text}");
    }
    // Again, and there is nothing for the host to fetch.
    p.run("deploy dev latest").ok();
    assert_eq!(proxy.log().iter().filter(|line| is_bundle(line)).count(), 1);
    p.run("verify @dev").ok();
}

#[test]
#[ignore = "group bucket"]
fn deploy_with_pull_after_cut_download_fetches_again() {
    let Some(ceph) = ceph() else { return };
    let (noise, cut) = (8 << 20, 3 << 20);
    let proxy = Proxy::new(
        &ceph.url(),
        Box::new({
            let cuts = std::sync::atomic::AtomicUsize::new(0);
            move |_, line| {
                let first = is_bundle(line) && cuts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
                if first { Fate::CutAnswer(cut) } else { Fate::Forward }
            }
        }),
    );
    let (p, _) = stored(&proxy.url(), noise);
    p.run("deploy dev latest").ok();
    assert_eq!(p.live("srv/dev"), "1");
    assert_eq!(proxy.log().iter().filter(|line| is_bundle(line)).count(), 2);
}

/// What is fetched is limited to the size of the bundle, and what is unpacked of it is not.
#[test]
#[ignore = "group bucket"]
fn file_much_larger_than_its_bundle_is_unpacked() {
    let Some(ceph) = ceph() else { return };
    let mut p = project(&fresh_url(), &ceph.url());
    p.change("env dev\n", "env dev\npull\n");
    p.write("www/zeros", &"0".repeat(20 << 20));
    p.release("1");
    p.run("put").ok();
    p.run("publish").ok();
    fs::remove_dir_all(p.path("target/releases")).unwrap();
    p.run("deploy dev latest").ok().stderr_has("the hosts fetch");
    assert_eq!(fs::metadata(p.path("srv/dev/current/www/zeros")).unwrap().len(), 20 << 20);
}

/// Nothing is live, nothing is installed, and nothing lies about.
fn untouched(p: &Project) {
    assert!(!p.path("srv/dev/current").exists());
    let left: Vec<_> = fs::read_dir(p.path("srv/dev/releases")).unwrap().flatten().map(|it| it.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A server that answers every request for a bundle with this status.
fn answering(ceph: &Ceph, status: &'static str) -> Proxy {
    let answer = format!("HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 3\r\n\r\nno\n");
    Proxy::new(
        &ceph.url(),
        Box::new(move |_, line| if is_bundle(line) { Fate::Answer(answer.clone()) } else { Fate::Forward }),
    )
}

#[test]
#[ignore = "group bucket"]
fn deploy_with_pull_that_server_refuses_switches_nothing() {
    let Some(ceph) = ceph() else { return };
    for (status, error, hint, asked) in [
        ("403 Forbidden", "the server refused it with 403", "valid for 15 minutes", 1),
        ("307 Temporary Redirect", "the server answered 307, a redirect", "check that the host can reach", 1),
        ("503 Slow Down", "503", "check that the host can reach", 5),
        ("429 Too Many Requests", "429", "check that the host can reach", 5),
    ] {
        let server = answering(ceph, status);
        let (p, _) = stored(&server.url(), 1);
        let ran = p.run("deploy dev latest").fails(1, error, hint);
        assert!(ran.stderr.contains("nothing was switched") && !ran.stderr.contains("X-Amz"), "{}", ran.stderr);
        let times = server.log().iter().filter(|line| is_bundle(line)).count();
        assert_eq!(times, asked, "{status}: what is refused for good is not asked for again");
        untouched(&p);
    }
}

#[test]
#[ignore = "group bucket"]
fn install_of_bundle_with_another_digest_is_refused() {
    let dir = crate::record::tempdir();
    let Some(ceph) = ceph() else { return };
    let ctx = leaked(with(dir.path(), &ceph.vars()));
    let (url, one) = (fresh_url(), crate::parts::release(dir.path(), 1, &[("a", "1")]));
    let other = crate::parts::release(dir.path(), 2, &[("a", "2")]);
    let store = open(ctx, &url);
    store.put(&other).unwrap();
    let target = Tool::bare(ctx, &crate::parts::PROJECT).target("file:srv").unwrap();
    let wrong = Delivery::Pull(&one, store.link(other.manifest()).unwrap());
    let error = target.install(&wrong, &crate::parts::record()).unwrap_err();
    assert_eq!(gangplank_model::error::kind_of(&error), gangplank_model::error::Kind::Verification);
    assert!(error.to_string().contains("another digest"), "{error}");
    let state = target.state().unwrap();
    assert_eq!((state.installed.len(), state.debris), (0, 0));
}

/// A directory with every program of this machine but those of these names.
fn programs_without(p: &Project, names: &[&str]) -> String {
    let bin = p.path("target/bin");
    fs::create_dir_all(&bin).unwrap();
    for entry in ["/usr/bin", "/bin"].iter().flat_map(fs::read_dir).flatten().flatten() {
        let name = entry.file_name();
        if !names.iter().any(|it| name == **it) {
            let _ = symlink(entry.path(), bin.join(name));
        }
    }
    bin.display().to_string()
}

#[test]
#[ignore = "group bucket"]
fn deploy_with_pull_needs_curl_or_wget_on_the_host() {
    let Some(ceph) = ceph() else { return };
    let (mut p, _) = stored(&ceph.url(), 1);
    p.var("PATH", &programs_without(&p, &["curl", "wget"]));
    p.run("deploy dev latest").fails(1, "there is neither curl nor GNU wget", "Transfer::Push");
    untouched(&p);
    if std::path::Path::new("/usr/bin/wget").exists() {
        let refuses = answering(ceph, "403 Forbidden");
        let (mut q, _) = stored(&refuses.url(), 1);
        q.var("PATH", &programs_without(&q, &["curl"]));
        q.run("deploy dev latest").fails(1, "the server refused it with 403", "valid for 15 minutes");
        p.var("PATH", &programs_without(&p, &["curl"]));
        p.run("deploy dev latest").ok();
        assert_eq!(p.live("srv/dev"), "1");
    }
}

#[cfg(feature = "zstd")]
#[test]
#[ignore = "group bucket"]
fn deploy_with_pull_of_zstd_bundle_needs_zstd_on_the_host() {
    let Some(ceph) = ceph() else { return };
    let mut p = project(&fresh_url(), &ceph.url());
    p.change("env dev\n", "zstd\nenv dev\npull\n");
    p.release("1");
    p.run("put").ok();
    p.run("publish").ok();
    fs::remove_dir_all(p.path("target/releases")).unwrap();
    let path = std::env::var("PATH").unwrap();
    p.var("PATH", &programs_without(&p, &["zstd"]));
    let doctor = p.run("doctor dev");
    assert!(doctor.stdout.contains("missing, or not on PATH: zstd"), "{}", doctor.stdout);
    p.run("deploy dev latest").fails(1, "no zstd here", "apt-get install zstd");
    untouched(&p);
    p.var("PATH", &path);
    p.run("deploy dev latest").ok().stderr_has("the hosts fetch");
    assert_eq!(p.live("srv/dev"), "1");
    p.run("verify @dev").ok();
}

#[test]
fn deploy_with_pull_without_signing_store_sends_the_bundle() {
    let mut p = Project::new();
    p.change("env prod\n", "pull\nenv prod\n");
    p.release("1");
    p.run("deploy dev").ok().stderr_has("no store can sign a URL");
    assert_eq!(p.live("srv/dev"), "1");
}
