//! Texts of results on a terminal and in a log.

use super::*;
use expect_test::expect;
use gangplank_model::history::Record;
use gangplank_model::release::manifest::CiJob;

const OLD: &str = "20260820T091500-5d6e7f8";
const NEW: &str = "20260822T101500-1a2b3c4";
const TERMINAL: Style = Style { color: false, width: Some(80) };

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    time("2026-08-22T12:00:00Z")
}

/// A host of prod that serves the new release.
fn host(n: usize) -> HostStatus {
    HostStatus {
        env: "prod".into(),
        target: format!("ssh://deploy@web{n}.example.com:22/srv/shop"),
        state: "live",
        release: Some(NEW.parse().unwrap()),
        subject: Some("Prices are in euros,\u{1b}[31m and the cart remembers what was in it for a whole week".into()),
        since: Some(time("2026-08-22T10:20:00Z")),
        by: Some("ana@laptop".into()),
        failed: None,
        previous: Some(OLD.parse().unwrap()),
        service: Some("running"),
        locked_by: None,
        installed: 2,
    }
}

#[test]
fn status_fits_a_terminal_of_eighty_columns() {
    let mut hosts: Vec<_> = (1..=2).map(host).collect();
    hosts.push(HostStatus {
        release: Some(OLD.parse().unwrap()),
        subject: None,
        since: Some(time("2026-08-01T08:00:00Z")),
        previous: None,
        failed: Some(NEW.parse().unwrap()),
        state: "unconfirmed",
        ..host(3)
    });
    let text = status(&hosts, TERMINAL, now());
    expect![[r#"
        ENV   TARGET  STATE        RELEASE  SINCE     BY          PREVIOUS  SERVICE
        prod  web1    live         1a2b3c4  1 h ago   ana@laptop  5d6e7f8   running
        prod  web2    live         1a2b3c4  1 h ago   ana@laptop  5d6e7f8   running
        prod  web3    unconfirmed  5d6e7f8  21 d ago  ana@laptop  -         running
        web3: the last deploy did not finish; deploy again, or run
        `cargo xtask rollback prod`
        prod: its hosts run different releases; `cargo xtask deploy prod RELEASE` ends
        that
        prod: the last change, to 1a2b3c4, FAILED; see `cargo xtask history prod`
        1a2b3c4  Prices are in euros,\u{1b}[31m and the cart remembers what was in it f…
    "#]]
    .assert_eq(&text);
    assert!(text.lines().take(5).all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn status_in_a_log_has_whole_ids_times_and_targets() {
    let text = status(&[host(1)], Style::PLAIN, now());
    expect![[r#"
        ENV   TARGET                                     STATE  RELEASE                  SINCE                       BY          PREVIOUS                 SERVICE
        prod  ssh://deploy@web1.example.com:22/srv/shop  live   20260822T101500-1a2b3c4  2026-08-22 10:20Z, 1 h ago  ana@laptop  20260820T091500-5d6e7f8  running
        20260822T101500-1a2b3c4  Prices are in euros,\u{1b}[31m and the cart remembers what was in it for a whole week
    "#]].assert_eq(&text);
}

#[test]
fn history_on_a_terminal_has_short_ids_and_the_subjects_below() {
    let record = |at: &str, event, release: &str, from: Option<&str>| Record {
        at: time(at),
        event,
        verb: Verb::Deploy,
        release: Some(release.parse().unwrap()),
        from: from.map(|id| id.parse().unwrap()),
        commit: None,
        by: "ana".into(),
        ci: Some(CiJob { job: 4711, url: None, workflow: None, pipeline: None }),
        reason: None,
        took: None,
    };
    let mut failed = record("2026-08-22T11:00:00Z", HistoryEvent::Failed, NEW, Some(OLD));
    failed.reason = Some(format!("{NEW} was not healthy within 30s"));
    let host = HostHistory {
        target: "ssh://web1/srv/shop".into(),
        records: vec![record("2026-08-20T09:20:00Z", HistoryEvent::Live, OLD, None), failed],
        unreadable: 1,
        subjects: [(NEW.parse().unwrap(), "Prices are in euros".to_owned())].into(),
    };
    expect![[r#"
        ssh://web1/srv/shop
        WHEN     WHAT             RELEASE  FROM     BY
            REASON
        2 d ago  live (deploy)    5d6e7f8  -        ana, job 4711
        1 h ago  FAILED (deploy)  1a2b3c4  5d6e7f8  ana, job 4711
            1a2b3c4 was not healthy within 30s
        1 torn line(s) were skipped
        1a2b3c4  Prices are in euros
    "#]]
    .assert_eq(&histories(&[host], TERMINAL, now()));
}

#[test]
fn outcome_on_a_terminal_is_one_line_with_a_short_id() {
    let outcome = |verb, changed| Outcome {
        env: "prod".into(),
        verb,
        changed,
        dry_run: false,
        release: Some(NEW.parse().unwrap()),
        failed_in: vec![],
        health: None,
        targets: vec![],
    };
    let text = self::outcome(&outcome(Verb::Deploy, false), TERMINAL);
    assert_eq!(text, "prod already runs 1a2b3c4: nothing to do\n");
    let text = self::outcome(&outcome(Verb::Deploy, false), Style::PLAIN);
    assert_eq!(text, format!("prod already runs {NEW}: nothing to do\n"));
}
