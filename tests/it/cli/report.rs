//! `report`: the page, without a browser. `browser` opens it in one.

use crate::project::Project;
use std::fs;

#[test]
fn report_shows_what_is_live_the_history_and_what_a_deploy_would_change() {
    let p = Project::with_service();
    p.run("report dev").ok().stdout_is(&format!("{}\n", p.path("target/report/index.html").display()));
    assert!(p.read("target/report/index.html").contains("Nothing was deployed yet."));

    let v1 = p.release("1");
    p.run("deploy dev --reason 'a <script>alert(1)</script> & more'").ok();
    p.run("put").ok();
    p.run("promote dev prod --yes").ok();
    p.write("behavior", "exit 3\n");
    p.release("2");
    p.run("deploy dev").code(1);
    p.write("behavior", "");
    p.write("www/new.css", "a{}\n");
    let v3 = p.release("3");
    p.run("deploy dev").ok();
    p.run("rollback dev").ok();
    p.run("restart dev").ok();
    p.run("report --diff prod --html out").ok();
    let page = p.read("out/index.html");
    for piece in [
        "a &lt;script&gt;alert(1)&lt;/script&gt; &amp; more",
        "What a deploy would change in prod",
        "www/new.css",
        "the process ended with exit code 3",
        "rolled back",
        "restarted",
        "2 commits back",
        "Duration of deploys to dev",
        &format!("title=\"{v1}\""),
        &format!("title=\"{v3}\""),
    ] {
        assert!(page.contains(piece), "no `{piece}` in:\n{page}");
    }
    assert!(!page.contains("<script"), "{page}");
    assert_eq!(fs::read_dir(p.path("out")).unwrap().count(), 1, "nothing but the page");
    assert!(!p.path("out/index.html").metadata().unwrap().permissions().readonly());
}

#[test]
fn report_contains_no_secret_and_no_link_that_runs_code() {
    let mut p = Project::new();
    p.run("build").ok();
    p.run("deploy dev --reason 'with hunter2hunter2 in it'").ok();
    let history = p.path("srv/dev/history.jsonl");
    let evil = fs::read_to_string(&history).unwrap().replace(
        "\"ci\":null",
        "\"ci\":{\"job\":7,\"url\":\"javascript:alert(1)\",\"workflow\":null,\"pipeline\":null}",
    );
    assert!(evil.contains("javascript:"), "{evil}");
    fs::write(&history, evil).unwrap();
    p.var("API_TOKEN", "hunter2hunter2");
    p.run("report dev").ok();
    let page = p.read("target/report/index.html");
    assert!(!page.contains("hunter2") && page.contains("in it"), "{page}");
    assert!(!page.contains("javascript:") && page.contains("job 7"), "{page}");
}

#[test]
fn report_with_a_host_that_does_not_answer_is_written() {
    let mut p = Project::new();
    p.add("env far\ntarget ssh://127.0.0.1:1/srv/app\n");
    p.run("build").ok();
    p.run("deploy dev").ok();
    p.run("report").ok();
    let page = p.read("target/report/index.html");
    assert!(page.contains("unreachable") && page.contains("127.0.0.1"), "{page}");
    p.run("report far --diff far").ok();
    assert!(p.read("target/report/index.html").contains("Not known here: "));
}

#[test]
fn report_of_what_is_unknown_or_to_where_nothing_can_be_written_fails() {
    let p = Project::new();
    p.run("report stage").fails(2, "no env `stage`", "dev, prod");
    p.run("report dev --diff stage").fails(2, "no env `stage`", "dev, prod");
    p.write("out", "");
    p.run("report dev --html out").fails(1, "cannot write", "--html DIR");
    assert_eq!(p.read("out"), "");
}

#[test]
fn report_of_absurd_numbers_and_forged_manifests_is_written_and_trusts_no_host() {
    let p = Project::new();
    p.release("1");
    p.run("deploy dev").ok();
    p.run("put").ok();
    p.run("promote dev prod --yes").ok();
    let history = p.path("srv/dev/history.jsonl");
    let text = fs::read_to_string(&history).unwrap();
    let most = u64::MAX;
    let took = format!("\"took\":{{\"install_ms\":{most},\"switch_ms\":{most},\"check_ms\":{most}}}");
    let absurd: String = text.lines().map(|line| with_took(line, &took) + "\n").collect();
    fs::write(&history, absurd).unwrap();
    p.run("report dev").ok();
    // The stores decide what would change in prod, not a host that has the release.
    p.write("www/new.css", "a{}");
    let v2 = p.release("2");
    p.run("deploy dev").ok();
    p.run("put").ok();
    let manifest = p.path(&format!("srv/dev/releases/{v2}/.gangplank/manifest.json"));
    let forged = fs::read_to_string(&manifest).unwrap().replace("www/new.css", "www/old.css");
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, forged).unwrap();
    p.run("report dev --diff prod").ok();
    let page = p.read("target/report/index.html");
    let pending = page.split("What a deploy would change in prod").nth(1).unwrap().split("<h2>").next().unwrap();
    assert!(pending.contains("www/new.css") && !pending.contains("www/old.css"), "{pending}");
}

/// A record with other durations.
fn with_took(line: &str, took: &str) -> String {
    let (before, after) = line.split_once("\"took\":").unwrap();
    let rest = after.find(['}', 'l']).map_or(after, |at| after[at..].trim_start_matches(['}', 'l']));
    format!("{before}{took}{rest}")
}
