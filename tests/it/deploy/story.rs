//! The whole life of a service, from an empty machine to a rollback, as one reads it in the README.

use crate::project::Project;

#[test]
fn release_goes_from_commit_to_live_and_back() {
    let p = Project::with_service();
    let v1 = p.release("1");
    p.run("plan dev").ok().stdout_has("install").stdout_has("first release").stdout_has("revert to nothing");
    p.run("deploy dev").ok().stdout_is(&format!("dev: {v1} is live\n"));
    assert_eq!(p.get("dev").unwrap(), "1");
    p.run("deploy dev").ok().stdout_is(&format!("dev already runs {v1}: nothing to do\n"));

    let v2 = p.release("2");
    p.run("diff dev").ok().stdout_has("~ www/index.html").stdout_has("commits added:");
    p.run("deploy dev --reason 'the new price'").ok();
    assert_eq!(p.get("dev").unwrap(), "2");

    // Prod wants a yes, and gets the bits that dev has proven.
    p.run("promote dev prod").fails(2, "prod needs approval", "--yes");
    p.run("put").ok().stdout_has("stored");
    p.run("promote dev prod --yes").ok().stdout_is(&format!("prod: {v2} is live\n"));
    assert_eq!(p.get("prod").unwrap(), "2");

    // A release that never becomes healthy puts the old one back and says why.
    p.write("behavior", "exit 3\n");
    let v3 = p.release("3");
    let ran = p.run("deploy dev").fails(1, "the process ended with exit code 3", "deploy again");
    assert!(ran.stderr.contains("fatal: told to exit with 3"), "its log is shown: {}", ran.stderr);
    assert!(ran.stderr.contains(&format!("{v2} is live again")), "{}", ran.stderr);
    assert_eq!(p.get("dev").unwrap(), "2");

    // Fixed, deployed, and rolled back: two rollbacks go back two.
    p.write("behavior", "");
    let v4 = p.release("4");
    p.run("deploy dev").ok().stdout_is(&format!("dev: {v4} is live\n"));
    p.run("rollback dev").ok().stdout_is(&format!("dev: rolled back to {v2}\n"));
    assert_eq!(p.get("dev").unwrap(), "2");
    p.run("rollback dev").ok().stdout_is(&format!("dev: rolled back to {v1}\n"));
    assert_eq!(p.get("dev").unwrap(), "1");
    p.run("rollback dev").fails(5, "nothing to roll back to", "rollback dev RELEASE");
    assert_eq!(p.get("dev").unwrap(), "1");
    p.run(&format!("rollback dev {v4}")).ok();
    assert_eq!(p.get("dev").unwrap(), "4");

    // Going back by accident is refused, on purpose is not.
    p.run(&format!("deploy dev {v2}")).fails(8, "is older than", "rollback dev");
    p.run(&format!("deploy dev {v2} --allow-older")).ok();
    assert_eq!(p.get("dev").unwrap(), "2");

    p.run("status").ok().stdout_has("dev").stdout_has(&v2).stdout_has("running").stdout_has("ana@");
    p.run("history dev").ok().stdout_has("the new price").stdout_has("FAILED").stdout_has("rollback").stdout_has(&v3);
    p.run("releases").ok().stdout_has("dev, prod").stdout_has(&v1);
    p.run("prune dev --keep 2").ok();
    assert_eq!(p.get("dev").unwrap(), "2");
    p.run("prune dev --keep 2").ok().stdout_is("dev: nothing to prune\n");
}

#[test]
fn commands_with_json_write_json_alone() {
    let mut p = Project::new();
    p.change("store file:store\n", "store file:store\nstore circleci:workspace\n");
    let json = |line: &str| -> serde_json::Value {
        let ran = p.run(line).ok();
        for event in ran.stderr.lines() {
            serde_json::from_str::<serde_json::Value>(event).unwrap_or_else(|e| panic!("`{line}`: {event}: {e}"));
        }
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("`{line}`: {}: {e}", ran.stdout))
    };
    assert_eq!(json("build --json")["up_to_date"], false);
    assert_eq!(json("build --json")["up_to_date"], true);
    assert_eq!(json("verify latest --json")["files"], 1);
    assert_eq!(json("put --json")[0]["already_there"], false);
    assert_eq!(json("plan dev --json")["targets"][0]["steps"][0]["step"], "install");
    assert_eq!(json("deploy dev --json")["changed"], true);
    assert_eq!(json("deploy dev --json")["changed"], false);
    assert_eq!(json("promote dev prod --yes --json")["verb"], "promote");
    assert_eq!(json("status --json")[0]["state"], "live");
    assert_eq!(json("history dev --json")[0]["records"][0]["event"], "live");
    assert_eq!(json("releases --json")[0]["live_in"], serde_json::json!(["dev", "prod"]));
    assert_eq!(json("diff dev --json")["changed"], serde_json::json!([]));
    assert_eq!(json("prune dev --json")["changed"], false);
    assert_eq!(json("lock dev --json")[0]["held_by"], serde_json::Value::Null);
    assert_eq!(json("fetch --json")["files"], 1);
    assert_eq!(json("ci generate --json")[2]["changed"], true);
    assert!(json("ci lint --json").is_array());
    let error: serde_json::Value = serde_json::from_str(&p.run("deploy nowhere --json").code(2).stderr).unwrap();
    assert_eq!(error["exit_code"], 2);
    assert!(error["hint"].as_str().unwrap().contains("dev, prod"));
}

#[test]
fn targets_of_an_env_move_together() {
    let mut p = Project::new();
    let check = "healthy ! grep -q '2' www/index.html || test ! -e ../../fail-here\npatience 0|1|1\n";
    p.change("target file:srv/dev\n", &format!("target file:srv/a\ntarget file:srv/b\ntarget file:srv/c\n{check}"));
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    let v2 = p.release("2");
    p.write("srv/c/fail-here", "");
    // The last of three is not healthy: the two that were switched go back too.
    let ran = p.run("deploy dev").code(1);
    for host in ["srv/a", "srv/b", "srv/c"] {
        assert_eq!(p.current(host).as_deref(), Some(v1.as_str()), "{host}");
        assert!(ran.stderr.contains(&format!("{v1} is live again on file:{host}")), "{}", ran.stderr);
    }
    std::fs::remove_file(p.path("srv/c/fail-here")).unwrap();
    p.run("deploy dev").ok();
    for host in ["srv/a", "srv/b", "srv/c"] {
        assert_eq!(p.current(host).as_deref(), Some(v2.as_str()), "{host}");
    }
    p.run("rollback dev").ok().stdout_has(&v1);
}

#[test]
fn promoting_needs_the_secrets_of_the_env_that_it_goes_to_alone() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nvar DATABASE=${DEV_DATABASE}\n");
    let v1 = p.release("1");
    p.var("DEV_DATABASE", "postgres://dev");
    p.run("deploy dev").ok();
    p.var("DEV_DATABASE", "");
    p.run("deploy dev").fails(2, "needs the environment variable DEV_DATABASE", "context");
    p.run("promote dev prod --yes").ok().stdout_has(&v1);
    p.run("status").ok();
}

#[test]
fn deploy_to_new_target_of_env_installs_the_live_release() {
    let mut p = Project::new();
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    p.change("target file:srv/dev\n", "target file:srv/dev\ntarget file:srv/new\n");
    p.run("plan dev").ok().stdout_has("nothing to do").stdout_has("first release");
    p.run("deploy dev").ok();
    assert_eq!(p.current("srv/new").as_deref(), Some(v1.as_str()));
}
