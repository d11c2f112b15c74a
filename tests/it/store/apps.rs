//! Two apps with one store: each sees its own releases, and nothing else.

use crate::project::Project;

/// Two apps with a directory of releases in common. The second one commits later.
fn two(store: &str) -> (Project, Project) {
    let mut shop = Project::new();
    shop.change("store file:store\n", &format!("store {store}\n"));
    let mut blog = Project::new();
    blog.change("store file:store\n", &format!("app blog\nstore {store}\n"));
    blog.commit("before");
    (shop, blog)
}

fn releases(p: &Project) -> Vec<String> {
    let listed: serde_json::Value = serde_json::from_str(&p.run("releases --json").ok().stdout).unwrap();
    listed.as_array().unwrap().iter().map(|it| it["release"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn releases_of_another_app_in_a_directory_are_never_found() {
    let dir = crate::record::tempdir();
    let (shop, blog) = two(&format!("file:{}", dir.path().display()));
    let one = shop.release("1");
    let other = blog.release("2");
    for p in [&shop, &blog] {
        p.run("put").ok();
        std::fs::remove_dir_all(p.path("target/releases")).unwrap();
    }
    assert!(other > one);
    assert_eq!((releases(&shop), releases(&blog)), (vec![one.clone()], vec![other.clone()]));
    let sha = other.rsplit('-').next().unwrap();
    shop.run("deploy dev latest").ok();
    assert_eq!(shop.current("srv/dev").unwrap(), one);
    for line in [format!("deploy dev {sha}"), format!("fetch {sha}"), format!("rollback dev {sha}")] {
        shop.run(&line).fails(5, &format!("no release of commit {sha}"), "releases");
    }
    shop.run(&format!("deploy dev {other}")).fails(
        7,
        "is a release of `blog`, not of this project's `shop`",
        "releases",
    );
    blog.run("deploy dev latest").ok();
    assert_eq!(blog.current("srv/dev").unwrap(), other);
}

#[test]
fn bucket_keeps_pointers_locks_and_histories_of_each_app_apart() {
    let dir = crate::record::tempdir();
    let (mut shop, mut blog) = two("s3://builds/all");
    for p in [&mut shop, &mut blog] {
        p.var("GANGPLANK_BUCKETS", &dir.path().display().to_string());
    }
    let one = shop.release("1");
    let other = blog.release("2");
    for p in [&blog, &shop] {
        p.run("put").ok();
        p.run("publish").ok().stdout_has("names 2026");
        std::fs::remove_dir_all(p.path("target/releases")).unwrap();
    }
    blog.run("deploy dev latest").ok();
    // The env of this app never ran anything; what the other one runs is newer.
    shop.run("deploy dev latest").ok();
    assert_eq!((shop.current("srv/dev").unwrap(), blog.current("srv/dev").unwrap()), (one.clone(), other.clone()));
    let history = shop.run("history dev --all").ok().stdout_has(&one).stdout;
    assert!(!history.contains(&other), "{history}");
    assert_eq!((releases(&shop), releases(&blog)), (vec![one], vec![other]));
}

#[test]
fn release_of_another_app_in_the_first_store_is_passed_by() {
    let mut p = Project::new();
    p.change("store file:store\n", "store file:shared\nstore file:own\n");
    let one = p.release("1");
    p.run("put --store file:own").ok();
    p.add("app blog\n");
    std::fs::remove_dir_all(p.path("target/releases")).unwrap();
    p.run("build").ok();
    p.run("put --store file:shared").ok();
    std::fs::remove_dir_all(p.path("target/releases")).unwrap();
    p.change("app blog\n", "app shop\n");
    p.run("deploy dev latest").ok();
    assert_eq!(p.current("srv/dev"), Some(one));
}

#[test]
fn verify_of_an_id_that_another_app_built_here_is_not_theirs() {
    let mut p = Project::new();
    let one = p.release("1");
    p.run("put").ok();
    p.add("app blog\n");
    p.run("build").ok();
    p.change("app blog\n", "app shop\n");
    p.run(&format!("verify {one} --json")).ok().stderr_has("fetched").stdout_has("target/fetched");
}

#[test]
fn apps_of_one_commit_cannot_share_a_directory() {
    let mut p = Project::new();
    p.release("1");
    p.run("put").ok();
    p.add("app blog\n");
    p.run("build").ok().stderr_has("of the app `shop`: `put`");
    p.run("put").fails(7, "of the app `shop`", "its own directory or prefix");
}
