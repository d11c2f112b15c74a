//! Releases on their way from one env to the next.

use crate::project::Project;

#[test]
fn release_that_failed_in_dev_is_warned_of_in_prod() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nhealthy ! grep -q bad www/index.html\npatience 0|1|1\n");
    p.change("env prod\n", "env prod\napproval\n");
    let one = p.release("1");
    p.run("deploy dev").ok();
    p.run(&format!("deploy prod {one} --yes")).ok().stderr_lacks("failed in");
    let bad = p.release("bad");
    p.run("deploy dev").code(1);
    let warning = format!("{bad} failed in dev: `cargo xtask history dev`");
    let planned = p.run(&format!("plan prod {bad} --json")).ok().stderr_has(&warning).stdout;
    let planned: serde_json::Value = serde_json::from_str(&planned).unwrap();
    assert_eq!(planned["failed_in"], serde_json::json!(["dev"]));
    p.run(&format!("deploy prod {bad} --yes")).ok().stderr_has(&warning);
    p.write("srv/dev/history.jsonl", "");
    let two = p.release("2");
    p.run("deploy dev").ok();
    p.run(&format!("deploy prod {two} --yes")).ok().stderr_lacks("failed in");
}
