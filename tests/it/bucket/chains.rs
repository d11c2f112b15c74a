//! `stores: [workspace, s3, artifacts]`: the first usable store serves, and the reason of each skipped one is printed.

use crate::account::{Account, Built};
use crate::project::Project;
use std::fs;
use std::path::{Path, PathBuf};

/// A project with all three stores, and a build in each of them.
fn built(buckets: &Path) -> (Project, Account, Built) {
    let mut p = Project::new();
    p.change("store file:store\n", "store circleci:workspace\nstore s3://builds/shop\nstore circleci:artifacts\n");
    p.var("GANGPLANK_BUCKETS", &buckets.display().to_string());
    let account = Account::new(&p);
    let built = account.build(&p, "main");
    (p, account, built)
}

fn bundle(buckets: &Path, built: &Built) -> PathBuf {
    let release = buckets.join("builds/shop/releases").join(&built.sha).join(&built.id);
    let digest = fs::read_dir(&release).unwrap().flatten().find(|it| it.path().is_dir()).unwrap();
    fs::read_dir(digest.path()).unwrap().flatten().next().unwrap().path()
}

#[test]
fn deploy_in_same_workflow_fetches_from_workspace() {
    let dir = crate::record::tempdir();
    let (p, account, built) = built(dir.path());
    let ran = p.run_with("deploy dev", &account.with_token(built.job, "main", &built.sha)).ok();
    ran.stderr_has(&format!("fetched {} from circleci:workspace", built.id));
}

#[test]
fn deploy_without_usable_workspace_fetches_from_bucket() {
    let dir = crate::record::tempdir();
    let (p, account, built) = built(dir.path());
    let job = account.other_workflow(90, "main", &built.sha);
    let ran = p.run_with("deploy prod", &job).ok();
    ran.stderr_has("circleci:workspace could not serve")
        .stderr_has(&format!("fetched {} from s3://builds/shop", built.id));
    assert_eq!(p.live("srv/prod"), "1");
}

#[test]
fn deploy_with_damaged_or_empty_bucket_fetches_from_artifacts() {
    let dir = crate::record::tempdir();
    let (p, account, built) = built(dir.path());
    let job = account.other_workflow(90, "main", &built.sha);
    let bundle = bundle(dir.path(), &built);
    let bytes = fs::read(&bundle).unwrap();
    fs::write(&bundle, vec![0; bytes.len()]).unwrap();
    let from_artifacts = format!("fetched {} from circleci:artifacts", built.id);
    p.run_with("deploy dev", &job).ok().stderr_has("its digest is").stderr_has(&from_artifacts);
    fs::remove_dir_all(dir.path().join("builds/shop/releases")).unwrap();
    p.run_with(&format!("deploy prod {}", built.id), &job)
        .ok()
        .stderr_has(&format!("{} is not in s3://builds/shop", built.id))
        .stderr_has(&from_artifacts);
    assert_eq!(p.live("srv/prod"), "1");
}

#[test]
fn deploy_where_no_store_can_serve_names_each_store() {
    let dir = crate::record::tempdir();
    let (p, account, built) = built(dir.path());
    account.server.state().expire_artifacts(built.job);
    fs::remove_file(bundle(dir.path(), &built)).unwrap();
    let job = account.other_workflow(90, "main", &built.sha);
    let ran = p.run_with(&format!("deploy prod {}", built.id), &job);
    assert_ne!(ran.code, 0);
    for url in ["circleci:workspace", "s3://builds/shop", "circleci:artifacts"] {
        assert!(ran.stderr.contains(&format!("{url} could not serve")), "{url}: {}", ran.stderr);
    }
    assert!(ran.stderr.contains("\nhint: ") && !p.path("srv/prod").exists(), "{}", ran.stderr);
}
