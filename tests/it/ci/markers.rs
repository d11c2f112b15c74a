//! What CircleCI's Deploys page is told, by a `circleci` on PATH that writes down what it is asked; and the guard that its
//! buttons rely on, `--expect-current`.

use crate::project::Project;

/// A project in a job of CircleCI whose agent does as `script` says, after it has written down its arguments.
fn in_a_job(script: &str) -> Project {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nhealthy ! grep -q broken www/index.html\npatience 0|1|1\n");
    p.write_program("target/agent/circleci", &format!("#!/bin/sh\nprintf '%s\\n' \"$*\" >> \"$TOLD\"\n{script}\n"));
    p.var("TOLD", p.path("target/told").to_str().unwrap());
    let path = std::env::var("PATH").unwrap();
    p.var("PATH", &format!("{}:{path}", p.path("target/agent").display()));
    p.var("CIRCLECI", "true");
    p
}

/// What the agent was asked since the last time.
fn told(p: &Project) -> Vec<String> {
    let path = p.path("target/told");
    let told = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    told.lines().map(str::to_owned).collect()
}

/// Commits, builds and stores.
fn stored(p: &Project, text: &str) -> (String, String) {
    let id = p.release(text);
    p.run("put").ok();
    (id, p.git(&["rev-parse", "HEAD"]))
}

fn plan(sha: &str, more: &str) -> String {
    format!("run release plan deploy-dev --target-version={sha} --environment-name=dev --component-name=shop{more}")
}

const RUNNING: &str = "run release update deploy-dev --status=RUNNING";
const SUCCESS: &str = "run release update deploy-dev --status=SUCCESS";

#[test]
fn markers_of_deploy_failure_and_rollback_are_sent() {
    let mut p = in_a_job("");
    p.var("DEPLOY_TOKEN", "sesame-sesame");
    let (_, sha) = stored(&p, "1");
    p.run("deploy dev --dry-run").ok();
    p.run("plan dev").ok();
    assert!(told(&p).is_empty(), "nothing was done");
    p.run("deploy dev").ok();
    assert_eq!(told(&p), [plan(&sha, "").as_str(), RUNNING, SUCCESS]);
    p.run("deploy dev").ok();
    assert!(told(&p).is_empty(), "nothing was to be done");

    let (_, broken) = stored(&p, "broken");
    p.change(
        "healthy ! grep -q broken www/index.html\n",
        "healthy echo sesame-sesame >&2; ! grep -q broken www/index.html\n",
    );
    p.run("deploy dev").code(1);
    let lines = told(&p);
    assert_eq!(lines[..2], [plan(&broken, "").as_str(), RUNNING]);
    let reason = lines[2].strip_prefix("run release update deploy-dev --status=FAILED --failure-reason=").unwrap();
    assert!(reason.starts_with("file:srv/dev: ") && reason.chars().count() <= 200 && lines.len() == 3, "{lines:?}");
    assert!(!lines[2].contains("sesame"), "{lines:?}");

    stored(&p, "3");
    p.run("deploy dev").ok();
    told(&p);
    p.run("rollback dev").ok();
    assert_eq!(told(&p), [plan(&sha, " --rollback").as_str(), RUNNING, SUCCESS]);
    p.run("prune dev --keep 1").ok();
    assert!(told(&p).is_empty(), "a prune is no deploy");
}

#[test]
fn markers_are_sent_in_circleci_alone_and_failures_only_warn() {
    let mut p = in_a_job("echo 'release agent is not there' >&2; exit 3");
    stored(&p, "1");
    let ran = p
        .run("deploy dev")
        .ok()
        .stderr_has("`circleci run release plan deploy-dev` failed with exit code 3: release agent is");
    assert_eq!((told(&p).len(), ran.stderr.matches("release agent").count()), (1, 1), "{}", ran.stderr);
    stored(&p, "2");
    p.write_program("target/agent/circleci", "#!/bin/sh\nprintf '%s\\n' \"$*\" >> \"$TOLD\"\n");
    p.var("GANGPLANK_HOME", p.path("").to_str().unwrap());
    p.run("deploy dev").ok();
    assert!(told(&p).is_empty(), "a job of `ci run` on a laptop");
    p.var("GANGPLANK_HOME", "");
    p.var("CIRCLECI", "");
    p.run("rollback dev").ok();
    assert!(told(&p).is_empty(), "a laptop");
    p.var("CIRCLECI", "true");
    p.var("PATH", &std::env::var("PATH").unwrap());
    let ran = p.run("deploy dev").ok();
    assert!(!ran.stderr.contains("circleci"), "no agent, no word: {}", ran.stderr);
}

#[test]
fn deploy_that_is_stopped_sends_a_canceled_marker() {
    let mut p = in_a_job("");
    stored(&p, "1");
    p.run("deploy dev").ok();
    told(&p);
    stored(&p, "2");
    p.change("healthy ! grep", "healthy touch ../../checking; ! grep");
    p.change("patience 0|1|1\n", "patience 60000|50|1000\n");
    let child = p.start("deploy dev");
    crate::project::eventually("it checks", || p.path("srv/dev/checking").exists());
    let stop = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(stop.success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(told(&p).last().map(String::as_str), Some("run release update deploy-dev --status=CANCELED"));
    assert_eq!(p.live("srv/dev"), "1");
}

#[test]
fn deploy_and_rollback_with_unexpected_live_release_are_refused() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\ntarget file:srv/two\n");
    let v1 = p.release("1");
    let sha1 = p.git(&["rev-parse", "HEAD"]);
    p.run(&format!("deploy dev --expect-current {sha1}")).fails(
        8,
        "nothing is live on file:srv/dev",
        "cargo xtask status dev",
    );
    p.run("deploy dev --expect-current ''").ok();
    let v2 = p.release("2");
    let sha2 = p.git(&["rev-parse", "HEAD"]);
    let history = p.read("srv/dev/history.jsonl");
    let stale = format!("{v1} is live on file:srv/dev, not {sha2}");
    for line in ["deploy dev", "deploy dev --dry-run", "rollback dev previous"] {
        p.run(&format!("{line} --expect-current {sha2}")).fails(8, &stale, "cargo xtask status dev");
    }
    assert_eq!(p.read("srv/dev/history.jsonl"), history);
    p.run(&format!("deploy dev HEAD --expect-current {}", &sha1[..9])).ok().stdout_has(&v2);
    p.run(&format!("rollback dev --expect-current {v1}")).fails(8, &format!("{v2} is live"), "cargo xtask status dev");
    p.run(&format!("rollback dev previous --expect-current {v2} --reason '<nil>'")).ok().stdout_has(&v1);
    assert!(!p.read("srv/dev/history.jsonl").contains("nil"), "CircleCI's word for no reason is no reason");
    // One target of two was changed by another run.
    p.run("deploy dev --expect-current '<nil>'").ok();
    std::fs::remove_file(p.path("srv/two/current")).unwrap();
    p.run(&format!("rollback dev {v1} --expect-current {v2}")).fails(
        8,
        "nothing is live on file:srv/two",
        "status dev",
    );
    p.run("deploy dev").ok();
    p.run(&format!("promote dev prod --yes --expect-current {v1}")).fails(
        8,
        "nothing is live on file:srv/prod",
        "status prod",
    );
    p.run("deploy dev --expect-current latest").code(2).stderr_has("is not a release");
    p.run("prune dev --expect-current abcd").code(2);
}

#[test]
fn deploy_of_previous_and_rollback_to_head_are_refused() {
    let p = Project::new();
    p.run("deploy dev HEAD").fails(5, "was not built yet", "cargo xtask build");
    let v1 = p.release("1");
    p.run("deploy dev HEAD").ok().stdout_is(&format!("dev: {v1} is live\n"));
    for line in ["deploy dev previous", "diff dev previous", "put previous", "fetch previous", "verify previous"] {
        let env = if line.contains("dev") { "dev" } else { "ENV" };
        let hint = format!("cargo xtask rollback {env}`");
        p.run(line).fails(2, "`previous` is only valid for a rollback", &hint);
    }
    p.run("rollback dev previous").fails(5, "nothing to roll back to", "rollback dev RELEASE");
    p.release("2");
    p.run("deploy dev -- HEAD").ok();
    p.run("rollback dev HEAD").fails(2, "HEAD is not a release to roll back to", "rollback dev previous");
    p.run("rollback dev --yes --reason '- it was slow' -- previous")
        .ok()
        .stdout_is(&format!("dev: rolled back to {v1}\n"));
    p.run("history dev").ok().stdout_has("- it was slow");
    // What a pipeline passes on is a release, whatever it looks like.
    p.run("deploy dev -- --allow-older").code(2).stderr_has("`--allow-older` does not name a release");
}

#[test]
fn deploy_that_was_killed_is_finished_despite_expect_current() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nhealthy touch ../../checking\npatience 5000|1|1\n");
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    std::fs::remove_file(p.path("srv/dev/checking")).unwrap();
    let v2 = p.release("2");
    p.change("patience 5000|1|1\n", "patience 60000|50|1000\n");
    let line = format!("deploy dev --expect-current {v1}");
    let mut child = p.start(&line);
    crate::project::eventually("it checks", || p.path("srv/dev/checking").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    p.change("patience 60000|50|1000\n", "patience 5000|1|1\n");
    assert_eq!(p.current("srv/dev"), Some(v2.clone()), "switched, and not known to be healthy");
    p.run(&format!("{line} --dry-run")).fails(8, &format!("{v2} is live"), "cargo xtask status dev");
    p.run(&line).ok().stdout_is(&format!("dev: {v2} is live\n"));
    p.run(&line).fails(8, &format!("{v2} is live"), "cargo xtask status dev");
}
