//! Static sites, in a directory. `bucket::site` has the same in a bucket that is a web server.

mod killed;

use crate::host::locks;
use crate::parts::{ctx, record, release};
use crate::project::{Project, free_port};
use gangplank_bucket::site::SiteTarget;
use gangplank_bundle::delta::Changes;
use gangplank_deploy::host::{Delivery, Operation, Target};
use gangplank_model::site::Site;
use gangplank_model::state::{Current, Lock, Lockable, Root};
use gangplank_system::context::{Context, Output};
use gangplank_system::machine;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A project whose env dev is a site in the directory `site`, of the files in `www`.
pub fn project() -> Project {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target site+file:site\nsite-root www\n");
    p.write(".gitignore", "/target\n/store\n/srv\n/site\n/settings\n");
    p
}

/// A release whose page names two files with digests in their names.
pub fn build(p: &Project, text: &str, digest: &str) -> String {
    p.write(&format!("www/app.{digest}.js"), &format!("// {text}\n"));
    p.write(&format!("www/style.{digest}.css"), &format!("/* {text} */\n"));
    p.write("www/robots.txt", "same\n");
    p.write("www/page.html", &format!("<script src=app.{digest}.js></script><link href=style.{digest}.css> {text}\n"));
    p.release(text)
}

/// Removes the files of a digest before the next release.
pub fn forget(p: &Project, digest: &str) {
    for name in [format!("www/app.{digest}.js"), format!("www/style.{digest}.css")] {
        fs::remove_file(p.path(&name)).unwrap();
    }
}

/// The files that clients can ask for.
fn served(site: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(site).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

fn names(site: &Path) -> Vec<String> {
    served(site).into_keys().collect()
}

#[test]
fn site_goes_live_and_back_without_an_upload() {
    let p = project();
    let site = p.path("site");
    let v1 = build(&p, "1", "1f9ac01e");
    p.run("plan dev").ok().stdout_has("install").stdout_has("first release");
    p.run("deploy dev").ok().stdout_is(&format!("dev: {v1} is live\n"));
    assert_eq!(names(&site), ["app.1f9ac01e.js", "index.html", "page.html", "robots.txt", "style.1f9ac01e.css"]);
    p.run("deploy dev").ok().stdout_has("nothing to do");
    p.run("verify @dev").ok();
    p.run("doctor dev").stdout_has("bucket (writable, with conditional writes)");
    // Nothing can be written where a directory is.
    fs::remove_file(site.join(".gangplank/probe")).unwrap();
    fs::create_dir(site.join(".gangplank/probe")).unwrap();
    p.run("doctor dev").code(1).stdout_has("broken  bucket");
    fs::remove_dir(site.join(".gangplank/probe")).unwrap();

    forget(&p, "1f9ac01e");
    let v2 = build(&p, "2", "2f9ac01e");
    p.run("diff dev").ok().stdout_has("+ www/app.2f9ac01e.js");
    p.run("deploy dev").ok();
    let now = served(&site);
    assert!(now["page.html"].ends_with("2\n") && now["index.html"] == "2\n");
    assert!(now.contains_key("app.1f9ac01e.js"), "an open page may still ask for it");
    p.run("status dev").ok().stdout_has(&v2).stdout_has(&v1);
    p.run("history dev").ok().stdout_has("live (deploy)");

    let stored = |site: &Path| fs::read_dir(site.join(".gangplank/files")).unwrap().count();
    let before = stored(&site);
    p.run("rollback dev").ok().stdout_is(&format!("dev: rolled back to {v1}\n"));
    assert!(served(&site)["page.html"].ends_with("1\n"));
    assert_eq!(stored(&site), before, "nothing was uploaded");
    p.run(&format!("deploy dev {v2}")).ok();
    p.run(&format!("deploy dev {v1}")).fails(8, "is older than", "rollback dev");
    assert!(served(&site)["page.html"].ends_with("2\n"));
}

#[test]
fn outdated_files_go_after_their_grace_and_contents_with_their_releases() {
    let mut p = project();
    p.change("site-root www\n", "site-root www\nsite-grace 0\nkeep 2\n");
    let site = p.path("site");
    for (n, digest) in ["1f9ac01e", "2f9ac01e", "3f9ac01e", "4f9ac01e"].into_iter().enumerate() {
        build(&p, &n.to_string(), digest);
        p.run("deploy dev").ok();
        assert_eq!(names(&site).iter().filter(|name| name.contains(".js")).count(), 1, "{digest}");
        forget(&p, digest);
    }
    let releases = fs::read_dir(site.join(".gangplank/releases")).unwrap().count();
    assert_eq!(releases, 2, "keep");
    let contents = fs::read_dir(site.join(".gangplank/files")).unwrap().count();
    assert_eq!(contents, 2 * 4 + 1, "robots.txt is the same in both");
    // What others have put there stays.
    fs::write(site.join("theirs.txt"), "theirs").unwrap();
    p.run("prune dev --keep 2").ok();
    build(&p, "5", "5f9ac01e");
    p.run("deploy dev").ok();
    assert!(site.join("theirs.txt").exists());
}

/// Serves the directory `site` of a project on loopback: one request after the other.
fn serve(p: &Project) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, site) = (listener.local_addr().unwrap().port(), p.path("site"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            let path = line.split([' ', '?']).nth(1).unwrap().trim_start_matches('/').to_owned();
            let body = fs::read(site.join(path)).unwrap_or_default();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&body);
        }
    });
    port
}

#[test]
fn site_that_is_not_healthy_is_reverted_and_checked_as_it_was_before() {
    let mut p = project();
    let port = serve(&p);
    let check =
        |body: &str| format!("site-root www\nhttp http://127.0.0.1:{port}/index.html|200|{body}\npatience 400|50|1\n");
    p.change("site-root www\n", &check("good"));
    let v1 = build(&p, "good 1", "1f9ac01e");
    p.run("deploy dev").ok();
    build(&p, "2", "2f9ac01e");
    p.run("deploy dev").fails(1, &format!("{v1} is live again"), "fix it and deploy again");
    // The old release passes its own check, whatever the new one asks for.
    p.change("|good\n", "|perfect\n");
    build(&p, "3", "3f9ac01e");
    p.run("deploy dev").fails(1, &format!("{v1} is live again"), "fix it and deploy again");
    let now = served(&p.path("site"));
    assert!(now["page.html"].ends_with("good 1\n") && now["index.html"] == "good 1\n", "{now:?}");
    p.run("status dev").ok().stdout_has(&v1);
    p.run("verify @dev").ok();
    build(&p, "perfect", "4f9ac01e");
    p.run("deploy dev").ok();
}

#[test]
fn first_site_that_is_not_healthy_is_removed() {
    let mut p = project();
    p.change(
        "site-root www\n",
        &format!("site-root www\nhttp http://127.0.0.1:{}/|200|\npatience 300|50|1\n", free_port()),
    );
    build(&p, "1", "1f9ac01e");
    p.run("deploy dev").code(1);
    assert_eq!(names(&p.path("site")), [""; 0]);
    p.run("status dev").ok().stdout_has("empty");
}

#[test]
fn drift_is_found_and_a_deploy_of_what_was_changed_repairs_it() {
    let p = project();
    let v1 = build(&p, "1", "1f9ac01e");
    p.run("deploy dev").ok();
    fs::write(p.path("site/page.html"), "defaced").unwrap();
    p.run("verify @dev").fails(7, "page.html: FAILED", "sends it again");
    // As the hint says.
    for entry in fs::read_dir(p.path("site/.gangplank/releases")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    p.run("deploy dev").ok();
    p.run("verify @dev").ok();
    fs::write(p.path("site/page.html"), "defaced").unwrap();
    build(&p, "2", "2f9ac01e");
    p.run("deploy dev").ok();
    p.run("verify @dev").ok();
    // A content that was changed is noticed before it is served.
    for entry in fs::read_dir(p.path("site/.gangplank/files")).unwrap() {
        let path = entry.unwrap().path();
        if fs::read_to_string(&path).unwrap().contains("// 1") {
            fs::write(path, "evil").unwrap();
        }
    }
    p.run(&format!("rollback dev {v1}")).fails(7, "app.1f9ac01e.js: FAILED", "releases");
    assert!(served(&p.path("site"))["page.html"].ends_with("2\n"));
}

#[test]
fn path_that_comes_back_is_not_removed_as_outdated() {
    let mut p = project();
    p.change("site-root www\n", "site-root www\nsite-grace 1\nkeep 5\n");
    build(&p, "one", "1f9ac01e");
    p.run("deploy dev").ok();
    forget(&p, "1f9ac01e");
    build(&p, "two", "2f9ac01e");
    p.run("deploy dev").ok();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    p.run("rollback dev").ok();
    p.run("prune dev --keep 2").ok();
    p.run("verify @dev").ok();
}

#[test]
fn directories_and_files_of_the_same_name_follow_each_other() {
    let p = project();
    p.write("www/docs", "a file");
    build(&p, "one", "1f9ac01e");
    p.run("deploy dev").ok();
    fs::remove_file(p.path("www/docs")).unwrap();
    p.write("www/docs/index.html", "a page");
    build(&p, "two", "1f9ac01e");
    p.run("deploy dev").ok();
    p.run("verify @dev").ok();
    p.run("rollback dev").code(0);
    p.run("verify @dev").ok();
    let odd: Vec<_> = names(&p.path("site")).into_iter().filter(|name| name.contains('#')).collect();
    assert_eq!(odd, [""; 0]);
}

#[test]
fn check_with_a_secret_is_not_kept_where_clients_can_read_it() {
    let mut p = project();
    let port = serve(&p);
    p.var("API_TOKEN", "hunter2hunter2");
    p.change(
        "site-root www\n",
        &format!(
            "site-root www\nhttp http://127.0.0.1:{port}/index.html?token=${{API_TOKEN}}|200|\npatience 400|50|1\n"
        ),
    );
    build(&p, "one", "1f9ac01e");
    p.run("deploy dev").ok();
    for entry in fs::read_dir(p.path("site/.gangplank")).unwrap().map(|it| it.unwrap().path()).filter(|it| it.is_file())
    {
        assert!(!fs::read_to_string(&entry).unwrap().contains("hunter2"), "{}", entry.display());
    }
}

#[test]
fn reader_during_deploys_and_rollbacks_gets_every_file_that_a_page_names() {
    let p = project();
    let site = p.path("site");
    build(&p, "1", "1f9ac01e");
    p.run("deploy dev").ok();
    let (done, pages) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let page = fs::read_to_string(site.join("page.html")).unwrap();
                    for name in page.split(['=', '>']).filter(|word| word.contains("9ac01e.")) {
                        assert!(site.join(name).exists(), "{page} names {name}");
                    }
                    pages.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..6 {
            let digest = format!("{round}a9ac01e");
            build(&p, &round.to_string(), &digest);
            p.run("deploy dev").ok();
            p.run("rollback dev").ok();
            forget(&p, &digest);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(pages.load(Ordering::Relaxed) > 100);
}

#[test]
fn target_in_a_directory_keeps_the_contract_of_a_site() {
    let dir = crate::record::tempdir();
    let ctx = ctx(dir.path());
    let url = format!("site+file:{}", dir.path().join("site").display());
    let target = SiteTarget::new(&ctx, &url, Site::DEFAULT).unwrap();
    contract(&ctx, dir.path(), &target);
}

/// What a site promises besides the stories above.
pub fn contract(ctx: &Context, dir: &Path, target: &SiteTarget) {
    let releases = [1, 2, 3].map(|n| release(dir, n, &[("a b/c'd.txt", &n.to_string()), ("x.html", "y")]));
    let [one, two, three] = &releases;
    let changes = Changes::new(BTreeMap::new(), None, 1);
    let deliver = |release| Delivery::Push(release, &changes);
    assert_eq!(target.state().unwrap().root, Root::Absent, "looking changes nothing");
    let me = machine::owner(ctx, "deploy");
    assert_eq!(target.lock(&me).unwrap(), Lock::Free);
    let held = Lock::Held(Box::new(me.clone()));
    assert_eq!(target.lock(&machine::owner(ctx, "another")).unwrap(), held);
    target.unlock(Some("not-mine")).unwrap();
    assert_eq!(target.state().unwrap().lock, held, "only the owner's token opens");

    target.install(&deliver(one), &record()).unwrap();
    target.install(&deliver(one), &record()).expect("again");
    let state = target.state().unwrap();
    assert_eq!((state.current.clone(), state.installed.len()), (Current::None, 1), "installed is not live");
    assert_eq!(state.installed[one.id()], one.manifest().bundle.sha256);
    assert_eq!(state.history.records.len(), 1, "the second install did nothing");
    assert_eq!(target.manifest(one.id()).unwrap(), *one.manifest());
    assert_eq!(target.verify(one.id()).unwrap(), Vec::<String>::new());
    target.activate(Some(two.id()), None).expect_err("not installed");
    target.activate(Some(one.id()), Some(&record())).unwrap();
    target.install(&deliver(two), &record()).unwrap();
    assert_eq!(target.state().unwrap().live(), Some(one.id()));
    for _ in 0..2 {
        target.activate(Some(two.id()), Some(&record())).unwrap();
        assert_eq!(target.state().unwrap().live(), Some(two.id()));
        assert_eq!(target.verify(two.id()).unwrap(), Vec::<String>::new());
    }
    target.install(&deliver(three), &record()).unwrap();
    target.remove(&[one.id().clone(), two.id().clone()], &record()).unwrap();
    let state = target.state().unwrap();
    assert_eq!(state.installed.keys().collect::<Vec<_>>(), [two.id(), three.id()], "the live one is never removed");
    target.remove(&[one.id().clone()], &record()).expect("it is gone already");
    assert_eq!(target.verify(two.id()).unwrap(), Vec::<String>::new(), "its contents were kept");
    let answers = target.act(&[Operation::VerifyFiles(three.id()), Operation::Activate(Some(one.id()), None)]).unwrap();
    assert_eq!(answers.iter().map(Output::ok).collect::<Vec<_>>(), [true, false]);
    assert!(target.complaint(&Operation::Unlock, &answers[1]).to_string().contains("is not installed"));

    target.activate(None, Some(&record())).unwrap();
    assert_eq!(target.state().unwrap().current, Current::None);
    // A run that has lost the lock changes nothing any more.
    target.unlock(None).unwrap();
    assert_eq!(target.lock(&me).unwrap(), Lock::Free);
    let thief = SiteTarget::new(ctx, target.url(), Site::DEFAULT).unwrap();
    thief.take_over(&machine::owner(ctx, "thief"), &me, &me).unwrap();
    let error = target.activate(Some(two.id()), None).unwrap_err();
    assert!(error.to_string().contains("lost the lock"), "{error:#}");
    assert_eq!(target.state().unwrap().current, Current::None);
    target.unlock(None).unwrap();
    locks(ctx, target, &|_| {});
}

#[test]
fn damaged_objects_of_a_site_are_refused_and_change_nothing() {
    let p = project();
    build(&p, "1", "1f9ac01e");
    p.run("deploy dev").ok();
    build(&p, "2", "2f9ac01e");
    p.run("deploy dev").ok();
    let before = served(&p.path("site"));
    let own = p.path("site/.gangplank");
    let release = fs::read_dir(own.join("served")).unwrap().map(|it| it.unwrap().path()).min().unwrap();
    let name = release.file_name().unwrap().to_str().unwrap().to_owned();
    let evil = fs::read_to_string(&release).unwrap().replace("\"page.html\":", "\".gangplank/current.json\":");
    for (path, text, code) in [
        ("current.json", "{\"release\":\"../../etc\",\"switching\":[],\"app\":null}", 7),
        ("current.json", "not json", 7),
        ("outdated.json", "{\".gangplank/lock.json\":\"2020-01-01T00:00:00Z\"}", 7),
        (&format!("served/{name}"), &evil, 7),
    ] {
        let kept = fs::read(own.join(path)).unwrap_or_default();
        fs::remove_file(own.join(path)).ok();
        fs::write(own.join(path), text).unwrap();
        p.run("rollback dev").code(code).stderr_has("is damaged");
        assert_eq!(served(&p.path("site")), before, "{path}");
        fs::write(own.join(path), kept).unwrap();
        p.run("unlock dev").code(0);
    }
}

#[test]
fn env_that_cannot_be_a_site_is_refused() {
    for (more, what) in [
        ("pidfile bin/app\n", "a service"),
        ("shared uploads/\n", "shared files"),
        ("healthy true\n", "a health check that is a command"),
        ("target file:srv/x\n", "other targets too"),
        ("pull\n", "`transfer: Transfer::Pull`"),
    ] {
        let mut p = project();
        p.change("site-root www\n", &format!("site-root www\n{more}"));
        p.run("status dev").code(2).stderr_has(what).stderr_has("hint:");
    }
    let mut p = project();
    build(&p, "1", "1f9ac01e");
    p.run("deploy dev").ok();
    p.run("logs dev").fails(2, "no log command configured for dev", "docs/service.md");
    p.run("exec dev -- ls").fails(2, "is a site: it has no processes", "another env");
    p.change("site-root www", "site-root nowhere");
    p.release("3");
    p.run("deploy dev").fails(2, "has no file below `nowhere`", "`root` of `site`");
}
