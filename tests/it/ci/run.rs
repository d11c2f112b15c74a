//! `ci run`: the pipeline on this machine.

use crate::ci::with_xtask;
use crate::project::Project;

#[test]
fn run_whose_port_another_clone_has_fails_before_it_compiles() {
    let (other, mut p) = (Project::with_service(), with_xtask());
    other.release("1");
    other.run("deploy dev").ok();
    let port = p.port("dev");
    p.move_port(port, other.port("dev"));
    let pid = other.read("srv/dev/service/process").split(' ').next().unwrap().to_owned();
    let ran = p.run("ci run --yes").fails(1, &format!("process {pid} (app) in"), &format!("kill {pid}"));
    ran.stderr_lacks("job ").stderr_lacks("checking");
    // What the env itself runs is no obstacle, and another job does not need the port.
    p.run("ci run build --yes").ok();
}

#[test]
fn ci_run_deploys_each_env_and_a_second_run_changes_nothing() {
    let mut p = with_xtask();
    let id = p.commit("1");
    // As in an xtask that compiled itself with it.
    p.var("GANGPLANK_XTASK_FEATURES", "gangplank/local-ci");
    let ran = p.run("ci run --yes").ok();
    for job in ["check", "build", "deploy-dev", "approve-prod", "deploy-prod"] {
        assert!(ran.stdout.contains(job), "{}", ran.stdout);
    }
    assert_eq!((p.get("dev").unwrap().as_str(), p.get("prod").unwrap().as_str()), ("1", "1"));
    let history = p.read("srv/prod/history.jsonl");
    assert!(
        history.contains("\"job\":") && history.contains("file://"),
        "the CircleCI job is in the history: {history}"
    );

    let again = p.run("ci run --yes -v").ok().stdout_has("nothing changed");
    assert!(again.stderr.contains(&format!("dev already runs {id}: nothing to do")), "{}", again.stderr);
    assert_eq!(p.read("srv/prod/history.jsonl"), history);

    let id = p.commit("2");
    p.run("ci run --no-approve").ok().stdout_has("on hold").stdout_has("not run");
    assert_eq!((p.get("dev").unwrap().as_str(), p.get("prod").unwrap().as_str()), ("2", "1"));
    p.run("ci run").ok().stderr_has("there is no terminal to ask on");
    p.run("ci run --yes --branch feature/x").ok().stderr_has("deploy-dev runs only on main");
    assert_eq!(p.get("prod").unwrap(), "1");
    p.run("ci run deploy-prod --yes").ok().stdout_has(&id);
    assert_eq!(p.get("prod").unwrap(), "2");
    p.run("ci run deploy-stage").fails(2, "no job `deploy-stage`", "check, build, deploy-dev");
}

#[test]
fn ci_run_with_artifacts_deploys_and_rolls_back_by_request() {
    let mut p = with_xtask();
    p.change(
        "store circleci:workspace\n",
        "store circleci:workspace\nstore circleci:artifacts\nhandoff artifacts\nci-context shop-ci\n",
    );
    // As in an xtask that compiled itself with it.
    p.var("GANGPLANK_XTASK_FEATURES", "gangplank/loopback");
    p.run("ci generate").ok();
    let one = p.commit("1");
    let live = || (p.get("dev").unwrap(), p.get("prod").unwrap());
    let is = |dev: &str, prod: &str| assert_eq!(live(), (dev.to_owned(), prod.to_owned()));
    let ran = p.run("ci run --yes -v").ok().stdout_has("publish").stdout_has("approve-prod").stdout_has("deploy-prod");
    assert!(ran.stderr.contains(&format!("fetched {one} from circleci:workspace")), "dev: {}", ran.stderr);
    assert!(ran.stderr.contains(&format!("fetched {one} from circleci:artifacts")), "prod: {}", ran.stderr);
    assert!(!ran.stderr.contains("CCIPAT_local_"), "the token of the run is shown");
    is("1", "1");

    // Prod on request, days later: by the pointer that `publish` moved, by commit, and back.
    let two = p.commit("2");
    p.run("ci run --no-approve").ok().stdout_has("on hold");
    is("2", "1");
    p.run("ci run --set deploy-env=prod --set release=latest --yes -v")
        .ok()
        .stderr_has(&format!("fetched {two} from circleci:artifacts"));
    is("2", "2");
    p.run("ci run --set rollback-env=prod --set release=previous --yes").ok();
    is("2", "1");
    let sha = p.git(&["rev-parse", "HEAD"]);
    p.run(&format!("ci run --set deploy-env=prod --set release={sha} --set 'reason=; exit 1 $(x) `y`'")).ok();
    is("2", "2");
    assert!(p.read("srv/prod/history.jsonl").contains("; exit 1 $(x) `y`"), "a reason is text, whatever is in it");
    p.run("ci run --set deploy-env=prod --set 'release=; reboot'").code(2).stderr_has("does not name a release");
    p.run("ci run --set deploy-env=stage").fails(
        2,
        "no workflow of the pipeline runs with these parameters",
        "dev, prod",
    );
    p.run("ci run --set x=1").fails(2, "no parameter `x`", "deploy-env");
    p.run("ci run --set x").code(2).stderr_has("NAME=VALUE");
}

#[test]
fn ci_run_by_bucket_beside_artifacts_serves_the_api() {
    if !cfg!(feature = "s3") {
        return;
    }
    let mut p = with_xtask();
    p.change(
        "store circleci:workspace\n",
        "store circleci:workspace\nstore s3://builds/shop\nstore circleci:artifacts\nhandoff s3\nci-context shop-ci\n",
    );
    p.run("ci generate").ok();
    p.commit("1");
    p.var("GANGPLANK_BUCKETS", p.path("buckets").to_str().unwrap());
    p.run("ci run --yes").ok().stdout_has("publish");
    assert_eq!(p.get("dev").unwrap(), "1");
}

#[test]
fn ci_run_keeps_the_artifacts_of_one_handoff_while_another_runs() {
    let mut p = with_xtask();
    p.change("store circleci:workspace\n", "store circleci:workspace\nstore circleci:artifacts\nci-context shop-ci\n");
    p.run("ci generate").ok();
    let v1 = p.commit("1");
    p.run("ci run build --handoff artifacts --yes").ok();
    p.commit("2");
    for _ in 0..3 {
        p.run("ci run build --yes").ok();
    }
    p.run(&format!("ci run --handoff artifacts --set deploy-env=prod --set release={v1} --yes")).ok();
    assert_eq!(p.get("prod").unwrap(), "1");
}

#[test]
fn ci_run_uses_a_clean_checkout_and_stops_after_a_failed_job() {
    let p = with_xtask();
    p.write("behavior", "exit 9\n");
    p.commit("broken");
    // Not committed, so no job may see it.
    p.write("behavior", "");
    let ran = p.run("ci run --yes").fails(1, "job `deploy-dev` failed", "see its output above");
    assert!(ran.stderr.contains("uncommitted changes are not part of this run"), "{}", ran.stderr);
    let job =
        |status: &str, job: &str| ran.stderr.lines().any(|line| line.starts_with(&format!("  {status:<7} {job} ")));
    assert!(job("ok", "build") && job("failed", "deploy-dev") && job("not run", "deploy-prod"), "{}", ran.stderr);
    // The output of the step that failed, and no other; all of it is in files.
    assert!(ran.stderr.contains("  | fatal: told to exit with 9"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("up to date"), "{}", ran.stderr);
    assert!(p.read("target/ci/logs/deploy-dev.log").contains("fatal: told to exit with 9"));
    assert!(p.read("target/ci/logs/build.log").starts_with("== Build\n"));
    let job = p.path("target/ci/jobs/deploy-dev");
    assert!(p.path("target/ci/jobs/build/project/target/releases").exists() && job.join("workspace/releases").exists());
    assert!(!job.join("project/target/releases").exists(), "what was not persisted is gone");
    // As on CircleCI, the report is written after a failure too.
    let page = p.read("target/ci/jobs/deploy-dev/project/target/report/index.html");
    assert!(
        page.contains("the process ended with exit code 9") && page.contains("deploy would change in prod"),
        "{page}"
    );
}
