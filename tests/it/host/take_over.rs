//! Roots whose `current` was made by hand, or by another tool.

use crate::project::Project;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A directory as Capistrano leaves it: two releases named by their time, linked by the whole path.
fn capistrano(root: &Path) -> String {
    for release in ["20240101000000", "20240102000000"] {
        let www = root.join("releases").join(release).join("www");
        fs::create_dir_all(&www).unwrap();
        fs::write(www.join("index.html"), "old\n").unwrap();
    }
    fs::create_dir_all(root.join("shared/log")).unwrap();
    let current = root.join("releases/20240102000000").display().to_string();
    symlink(&current, root.join("current")).unwrap();
    current
}

#[test]
fn deploy_takes_a_root_of_capistrano_over_without_a_gap() {
    let p = Project::new();
    let current = capistrano(&p.path("srv/dev"));
    let one = p.release("1");
    p.run("deploy dev").fails(1, "which is no release of this tool", "--take-over");
    assert_eq!(fs::read_link(p.path("srv/dev/current")).unwrap().to_str(), Some(current.as_str()));
    let (done, read) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let text = fs::read_to_string(p.path("srv/dev/current/www/index.html")).unwrap();
                assert!(text == "old\n" || text == "1\n", "{text}");
                read.fetch_add(1, Ordering::SeqCst);
            }
        });
        p.run("deploy dev --take-over").ok();
        done.store(true, Ordering::SeqCst);
    });
    assert!(read.load(Ordering::SeqCst) > 0);
    assert_eq!(p.current("srv/dev"), Some(one));
    p.run("history dev --all").ok().stdout_has(&format!("`current` pointed to {current}"));
    p.release("2");
    p.run("deploy dev").ok();
    p.run("rollback dev").ok();
    assert!(p.path("srv/dev/releases/20240102000000/www").exists(), "what was there stays");
    assert!(fs::symlink_metadata(p.path("srv/dev/current.before-gangplank")).is_err());
}

#[test]
fn failed_take_over_restores_the_link() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nhealthy false\npatience 0|1|1\n");
    let current = capistrano(&p.path("srv/dev"));
    p.release("1");
    // What an older, interrupted deploy had kept is not what is live now.
    symlink("releases/20240101000000", p.path("srv/dev/current.before-gangplank")).unwrap();
    p.run("plan dev --take-over").ok().stdout_has(&format!("on failure: revert to `current` -> {current}"));
    for _ in 0..2 {
        let ran = p.run("deploy dev --take-over").code(1);
        ran.stderr_has(&format!("points to {current} again"));
        assert_eq!(fs::read_link(p.path("srv/dev/current")).unwrap().to_str(), Some(current.as_str()));
    }
}

#[test]
fn links_made_by_hand_are_understood() {
    let p = Project::new();
    let one = p.release("1");
    p.run("deploy dev").ok();
    let two = p.release("2");
    p.run("deploy dev").ok();
    let root = fs::canonicalize(p.path("srv/dev")).unwrap();
    for link in [format!("releases/{one}/"), format!("./releases/{one}"), format!("{}/releases/{one}", root.display())]
    {
        fs::remove_file(root.join("current")).unwrap();
        symlink(&link, root.join("current")).unwrap();
        p.run("status dev").ok().stdout_has(&one);
        p.run("prune dev --keep 1").ok();
        assert!(root.join("releases").join(&one).exists(), "{link}");
        p.run(&format!("deploy dev {two}")).ok();
        assert_eq!(p.current("srv/dev").as_ref(), Some(&two), "{link}");
        p.run(&format!("rollback dev {one}")).ok();
    }
}
