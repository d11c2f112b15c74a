//! The release report in Chromium: no error, no request, nothing that axe-core finds, and a long history at once.

mod driver;

use crate::browser::driver::{Browser, Look};
use crate::parts::ctx;
use crate::project::{Project, root};
use gangplank_html::{Change, EnvOverview, Overview, Pending, page, write};
use gangplank_model::history::{HistoryEvent, Record, Verb};
use gangplank_model::release::id::ReleaseId;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What axe-core finds on the open page: each rule with the elements that break it.
const AXE: &str = "return axe.run().then(found => found.violations.map(it => it.id + ': ' + it.nodes.map(node => node.html).join(' | ')))";

/// axe-core, which the group installs from npm.
fn axe() -> Option<String> {
    fs::read_to_string(root().join("target/tools/axe-core/node_modules/axe-core/axe.min.js")).ok()
}

/// Checks a page in each look, and keeps a picture of each beside it.
fn check(browser: &Browser, axe: &str, page: &Path) {
    for look in [Look::LIGHT, Look::DARK, Look::PHONE] {
        browser.open(page, look);
        browser.run(&format!("document.querySelectorAll('details').forEach(it => it.open = true); {axe}"));
        let found = browser.run(AXE);
        assert_eq!(found, serde_json::json!([]), "{}", look.name);
        // The page itself is not wider than the screen: tables and pictures are scrolled.
        let overflow =
            browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(overflow, 0, "{}", look.name);
        let requests = browser.run("return performance.getEntriesByType('resource').map(it => it.name)");
        assert_eq!(requests, serde_json::json!([]), "{}", look.name);
        fs::write(page.with_file_name(format!("{}.png", look.name)), browser.picture()).unwrap();
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
#[ignore = "group browser"]
fn report_of_a_project_is_accessible_and_makes_no_request() {
    let Some((browser, axe)) = Browser::start().zip(axe()) else { return };
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev --reason '<img src=x onerror=alert(1)> \u{202e}gnp'").ok();
    p.run("put").ok();
    p.run("promote dev prod --yes").ok();
    p.write("behavior", "exit 3\n");
    p.release("2");
    p.run("deploy dev").code(1);
    p.write("behavior", "");
    for text in ["3", "4"] {
        p.write(&format!("www/{text}.css"), &"a{}".repeat(4000));
        p.release(text);
        p.run("deploy dev").ok();
    }
    p.run("rollback dev").ok();
    p.run("restart dev").ok();
    p.run("report --diff prod").ok();
    check(&browser, &axe, &p.path("target/report/index.html"));
    // The first page that everybody sees, and one of hosts that do not answer.
    let mut empty = Project::new();
    empty.add("env far\ntarget ssh://127.0.0.1:1/srv/app\n");
    empty.run("report --diff far").ok();
    check(&browser, &axe, &empty.path("target/report/index.html"));
}

#[test]
#[ignore = "group browser"]
fn report_of_ten_thousand_records_opens_within_a_second() {
    let Some(browser) = Browser::start() else { return };
    let id =
        |n: i64| -> ReleaseId { format!("20260801T{:06}-{n:07x}", n % 240_000 / 10_000 * 10_000).parse().unwrap() };
    let record = |n: i64| Record {
        at: jiff::Timestamp::from_second(1_700_000_000 + n * 3600).unwrap(),
        event: if n % 7 == 0 { HistoryEvent::Failed } else { HistoryEvent::Live },
        verb: if n % 11 == 0 { Verb::Rollback } else { Verb::Deploy },
        release: Some(id(n)),
        from: Some(id(n - 1)),
        commit: None,
        by: "ana@laptop".into(),
        ci: None,
        reason: Some("the price of a long history".into()),
        took: None,
    };
    let change = |n: i64| Change {
        at: record(n).at,
        from: id(n - 1),
        to: id(n),
        commits: Some(vec!["1a2b3c4 A change".into()]),
        lost: None,
    };
    let env = EnvOverview {
        name: "prod".into(),
        hosts: vec![],
        source: "ssh://web1/srv/app".into(),
        records: (1..=10_000).map(record).collect(),
        unreadable: 3,
        changes: (1..=20).map(change).collect(),
        problems: vec![],
    };
    let all = Overview {
        app: "shop".into(),
        at: record(10_000).at,
        ci: None,
        envs: vec![env],
        releases: vec![],
        subjects: BTreeMap::new(),
        changes: vec![Pending { env: "prod".into(), diff: Err("no key".into()) }],
    };
    let p = Project::new();
    let written = write(&p.path("out"), &ctx(&p.path("")).scrub(&page(&all))).unwrap();
    // The fastest of three, because other tests may run beside it.
    let ms = (0..3).map(|_| browser.open(&written, Look::LIGHT)).fold(f64::MAX, f64::min);
    let rows = browser.run("return document.querySelectorAll('tbody tr').length");
    assert!(rows.as_u64().unwrap() >= 10_000, "{rows}");
    assert!(ms < 1000.0, "the page took {ms} ms");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
