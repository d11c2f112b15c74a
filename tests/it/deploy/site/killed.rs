//! Switches of a site that do not end: killed halfway, or failed.

use crate::deploy::site::{build, forget, project, served};
use crate::project::{Project, free_port};
use std::fs;
use std::time::Duration;

/// A project with so many assets that a switch takes a while.
fn big(files: usize) -> Project {
    let p = project();
    write_assets(&p, files, "first");
    p
}

fn write_assets(p: &Project, files: usize, text: &str) {
    for n in 0..files {
        p.write(&format!("www/page{n:03}.html"), &format!("{n} {text}"));
    }
}

/// Starts a deploy and kills it when this many files are served, or when it ends.
fn kill_at(p: &Project, files: usize, is_new: &dyn Fn(&str) -> bool) {
    let mut child = p.start("deploy dev");
    let site = p.path("site");
    let count = || {
        let texts =
            fs::read_dir(&site).into_iter().flatten().flatten().filter_map(|it| fs::read_to_string(it.path()).ok());
        texts.filter(|text| is_new(text)).count()
    };
    while child.try_wait().unwrap().is_none() && count() < files {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn killed_switch_is_completed_or_undone_by_whatever_comes_next() {
    for next in ["rerun", "rollback", "back", "other"] {
        let p = big(60);
        let v1 = build(&p, "one", "1f9ac01e");
        p.run("deploy dev").ok();
        forget(&p, "1f9ac01e");
        write_assets(&p, 60, "second");
        let v2 = build(&p, "two", "2f9ac01e");
        kill_at(&p, 10, &|text| text.contains("second"));
        p.run("status dev").ok().stdout_has("switch not finished");
        let (command, want, text) = match next {
            "rerun" => ("deploy dev".to_owned(), v2, "second"),
            "rollback" => ("rollback dev".to_owned(), v1, "first"),
            "back" => (format!("deploy dev {v1}"), v1, "first"),
            _ => {
                write_assets(&p, 60, "third");
                ("deploy dev".to_owned(), build(&p, "three", "2f9ac01e"), "third")
            }
        };
        p.run(&format!("{command} --lock-wait 20")).ok().stdout_has(&want);
        p.run("verify @dev").ok();
        let now = served(&p.path("site"));
        assert!(now.iter().filter(|(name, _)| name.starts_with("page0")).all(|(_, it)| it.ends_with(text)), "{next}");
        p.run("status dev").ok().stdout_has("live").stdout_lacks("not finished");
    }
}

#[test]
fn killed_first_switch_and_killed_removal_are_completed_by_a_rerun() {
    let mut p = big(60);
    build(&p, "one", "1f9ac01e");
    kill_at(&p, 10, &|_| true);
    p.run("deploy dev --lock-wait 20").ok();
    p.run("verify @dev").ok();
    p.run("deploy dev").ok().stdout_has("nothing to do");
    // A first release that is not healthy is removed: killed while that goes on.
    p = big(60);
    let check = format!("site-root www\nhttp http://127.0.0.1:{}/|200|\npatience 1|1|1\n", free_port());
    p.change("site-root www\n", &check);
    build(&p, "one", "1f9ac01e");
    let mut child = p.start("deploy dev");
    let (site, mut seen) = (p.path("site"), false);
    while child.try_wait().unwrap().is_none() {
        let there = site.join("style.1f9ac01e.css").exists();
        let pages = site.join("page059.html").exists();
        seen |= pages;
        if seen && there && !pages {
            break;
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
    p.change(&check, "site-root www\n");
    p.run("deploy dev --lock-wait 20").ok();
    p.run("verify @dev").ok();
}

#[test]
fn switch_that_fails_halfway_is_undone() {
    let p = big(60);
    let v1 = build(&p, "one", "1f9ac01e");
    p.run("deploy dev").ok();
    write_assets(&p, 60, "second");
    p.write("www/zz.html", "new");
    build(&p, "two", "1f9ac01e");
    // In the way of the last page, and not ours.
    p.write("site/zz.html/theirs", "theirs");
    p.run("deploy dev").fails(1, &format!("{v1} is live again"), "move away what is in the way");
    assert!(
        served(&p.path("site"))
            .iter()
            .filter(|(name, _)| name.starts_with("page0"))
            .all(|(_, it)| it.ends_with("first"))
    );
    p.run("verify @dev").ok();
    p.run("status dev").ok().stdout_lacks("not finished");
}
