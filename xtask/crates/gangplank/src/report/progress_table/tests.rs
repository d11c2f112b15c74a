//! Events and the resulting lines.

use crate::report::progress_table::*;
use crate::report::style::Style;
use expect_test::{Expect, expect};

const STEPS: [(&str, &str); 6] = [
    ("install", "install 20260801T000100-abcdef0"),
    ("switch", "activate 20260801T000100-abcdef0 (first release), restart the service with 20260801T000100-abcdef0"),
    ("check", "check the health of 20260801T000100-abcdef0"),
    ("record", "record that 20260801T000100-abcdef0 is live"),
    ("prune", "remove 20260701T000100-abcdef0"),
    ("migrate", "run the hook migrate"),
];

fn stage_of(word: &str) -> Option<Stage> {
    Some(match word {
        "wave" => Stage::Switch,
        "settle" => Stage::Finalize,
        "revert" => Stage::Reverted,
        "done" => Stage::Done,
        "failed" => Stage::Failed,
        _ => return None,
    })
}

/// A table of `hosts` hosts in three waves after events: `1 check` starts a step, `1 check ok` and `1 check failed` end
/// it, `1 back ok` is a revert, `wave 2` and `revert 1,2` are stages. Half a second passes between two events.
fn board(hosts: usize, events: &str) -> (ProgressTable, u64) {
    let url = |n: &str| format!("ssh://deploy@web{n}.example.com/srv/app");
    let urls: Vec<_> = (1..=hosts).map(|n| url(&n.to_string())).collect();
    let (mut board, mut now) = (ProgressTable::new(&urls, 3), 0);
    for event in events.split("; ").filter(|event| !event.is_empty()) {
        now += 500;
        let words: Vec<_> = event.split(' ').collect();
        let step = |name: &str| STEPS.iter().find(|(short, _)| *short == name).unwrap().1.to_owned();
        let event = match *words {
            [word, on] if stage_of(word).is_some() => Event::Stage {
                stage: stage_of(word).unwrap(),
                wave: on.parse().unwrap_or(0),
                waves: 3,
                targets: on.split(',').map(url).collect(),
            },
            [on, "back", how] => Event::Reverted { target: url(on), ok: how == "ok" },
            [on, name] => Event::StepStarted { target: url(on), step: step(name) },
            [on, name, how] => Event::StepEnded { target: url(on), step: step(name), ms: 1250, ok: how == "ok" },
            _ => panic!("{event}"),
        };
        assert!(board.take(&event, now), "{event:?}");
    }
    (board, now)
}

fn check(hosts: usize, events: &str, size: (usize, usize), want: &Expect) {
    let (board, now) = board(hosts, events);
    let style = Style::PLAIN;
    let lines = board.lines(now, size, style);
    for line in &lines {
        assert!(line.chars().count() <= size.0 && line.trim_end() == line, "{line:?}");
    }
    assert!(lines.len() < size.1.max(2), "the cursor stands below");
    want.assert_eq(&(lines.join("\n") + "\n"));
}

const ALL_WELL: &str = "1 install; 2 install; 1 install ok; 2 install ok; wave 1; 1 switch; 1 switch ok; 1 check; \
                        1 check ok; wave 2; 2 switch; 2 switch ok; 2 check; 2 check ok; settle x; 1 record; 2 record; \
                        1 record ok; 2 record ok; 1 prune; 1 prune ok; done x";

/// The first `n` events.
fn first(n: usize, events: &str) -> String {
    events.split("; ").take(n).collect::<Vec<_>>().join("; ")
}

#[test]
fn table_of_successful_deploy_ends_with_all_live() {
    check(
        3,
        "",
        (80, 24),
        &expect![[r#"
                web1  waiting
                web2  waiting
                web3  waiting
        before the switch: 3 waiting (0 s)
    "#]],
    );
    check(
        3,
        &first(3, ALL_WELL),
        (80, 24),
        &expect![[r#"
                web1  installed       1.2 s
        /       web2  install           0 s
                web3  waiting
        before the switch: 1 at work, 1 installed, 1 waiting (1 s)
    "#]],
    );
    check(
        2,
        &first(12, ALL_WELL),
        (80, 24),
        &expect![[r#"
                web1  healthy         3.8 s
                web2  switched        2.5 s
        wave 2 of 3: 1 healthy, 1 switched (6 s)
    "#]],
    );
    check(
        2,
        &first(19, ALL_WELL),
        (80, 24),
        &expect![[r#"
        ok      web1  live            5.0 s
        ok      web2  live            5.0 s
        all are healthy: 2 live (9 s)
    "#]],
    );
    check(
        2,
        ALL_WELL,
        (80, 24),
        &expect![[r#"
        ok      web1  live            6.2 s
        ok      web2  live            5.0 s
        2 hosts: 2 live (11.0 s)
    "#]],
    );
}

const ONE_SICK: &str = "1 install; 1 install ok; 2 install; 2 install ok; 3 install; 3 install ok; wave 1; 1 switch; \
                        2 switch; 1 switch ok; 2 switch ok; 1 check; 2 check; 1 check ok; 2 check failed; \
                        revert 1,2; 1 switch; 2 switch; 1 switch ok; 1 back ok; 2 back ok; failed x";

#[test]
fn table_of_sick_host_ends_with_failed_and_reverted() {
    check(
        3,
        &first(17, ONE_SICK),
        (80, 24),
        &expect![[r#"
        \       web1  reverted          0 s
        \       web2  reverted          0 s  check the health of 20260801T000100-abcdef0
                web3  installed       1.2 s
        reverting: 2 at work, 1 installed (8 s)
    "#]],
    );
    check(
        3,
        ONE_SICK,
        (80, 24),
        &expect![[r#"
        back    web1  reverted        5.8 s
        failed  web2  reverted        6.2 s  check the health of 20260801T000100-abcdef0
                web3  installed       1.2 s
        3 hosts: 1 failed, 1 reverted, 1 installed (11.0 s)
    "#]],
    );
    check(
        3,
        ONE_SICK,
        (200, 50),
        &expect![[r#"
        back    web1  reverted        5.8 s
        failed  web2  reverted        6.2 s  check the health of 20260801T000100-abcdef0
                web3  installed       1.2 s
        3 hosts: 1 failed, 1 reverted, 1 installed (11.0 s)
    "#]],
    );
    check(
        3,
        ONE_SICK,
        (34, 24),
        &expect![[r#"
        back    web1  reverted        5.8…
        failed  web2  reverted        6.2…
                web3  installed       1.2…
        3 hosts: 1 failed, 1 reverted, 1 …
    "#]],
    );
}

#[test]
fn hosts_that_are_not_put_back_or_need_not_be() {
    check(
        3,
        &ONE_SICK.replace("2 back ok", "2 back failed"),
        (80, 24),
        &expect![[r#"
        back    web1  reverted           5.8 s
        failed  web2  NOT reverted       6.2 s  check the health of 20260801T000100-abc…
                web3  installed          1.2 s
        3 hosts: 1 failed, 1 reverted, 1 installed (11.0 s)
    "#]],
    );
    // A step without an end has failed.
    check(
        2,
        "1 install; revert 1; failed x",
        (80, 24),
        &expect![[r#"
        failed  web1  NOT reverted
                web2  untouched
        2 hosts: 1 failed, 1 untouched (1.5 s)
    "#]],
    );
    check(
        2,
        "1 install; 1 install failed; 2 install; 2 install ok; failed x",
        (80, 24),
        &expect![[r#"
        failed  web1  install         1.2 s  install 20260801T000100-abcdef0
                web2  installed       1.2 s
        2 hosts: 1 failed, 1 installed (2.5 s)
    "#]],
    );
}

#[test]
fn hooks() {
    check(
        2,
        "1 install ok; wave 1; 1 migrate",
        (80, 24),
        &expect![[r#"
        /       web1  hook migrate         0 s
                web2  waiting
        wave 1 of 3: 1 at work, 1 waiting (1 s)
    "#]],
    );
    check(
        2,
        "1 record ok; 2 record ok; 1 migrate; 1 migrate failed; done x",
        (80, 24),
        &expect![[r#"
        failed  web1  live            2.5 s  run the hook migrate
        ok      web2  live            1.2 s
        2 hosts: 1 failed, 1 live (2.5 s)
    "#]],
    );
}

const TWELVE: &str = "2 install; 5 install; 9 install; 9 install failed; 1 install; 1 install ok; 7 install";

#[test]
fn more_hosts_than_the_screen_has_rows() {
    check(
        12,
        TWELVE,
        (80, 24),
        &expect![[r#"
                web1   installed       1.2 s
        /       web2   install           3 s
                web3   waiting
                web4   waiting
        /       web5   install           2 s
                web6   waiting
        /       web7   install           0 s
                web8   waiting
        failed  web9   install         1.2 s  install 20260801T000100-abcdef0
                web10  waiting
                web11  waiting
                web12  waiting
        before the switch: 1 failed, 3 at work, 1 installed, 7 waiting (3 s)
    "#]],
    );
    check(
        12,
        TWELVE,
        (80, 8),
        &expect![[r#"
        /       web2   install           3 s
        /       web5   install           2 s
        /       web7   install           0 s
        failed  web9   install         1.2 s  install 20260801T000100-abcdef0
                … and 8 others: 1 installed, 7 waiting
        before the switch: 1 failed, 3 at work, 1 installed, 7 waiting (3 s)
    "#]],
    );
    check(
        12,
        TWELVE,
        (80, 5),
        &expect![[r#"
        /       web2   install           3 s
        failed  web9   install         1.2 s  install 20260801T000100-abcdef0
                … and 10 others: 2 at work, 1 installed, 7 waiting
        before the switch: 1 failed, 3 at work, 1 installed, 7 waiting (3 s)
    "#]],
    );
}

#[test]
fn table_on_one_line_is_the_summary_and_at_the_end_is_whole() {
    check(
        12,
        TWELVE,
        (80, 1),
        &expect![[r#"
            before the switch: 1 failed, 3 at work, 1 installed, 7 waiting (3 s)
        "#]],
    );
    check(
        12,
        &format!("{TWELVE}; failed x"),
        (80, usize::MAX),
        &expect![[r#"
                web1   installed       1.2 s
                web2   untouched
                web3   untouched
                web4   untouched
                web5   untouched
                web6   untouched
                web7   untouched
                web8   untouched
        failed  web9   install         1.2 s  install 20260801T000100-abcdef0
                web10  untouched
                web11  untouched
                web12  untouched
        12 hosts: 1 failed, 1 installed, 10 untouched (4.0 s)
    "#]],
    );
}

#[test]
fn colour_only_paints() {
    let (board, now) = board(3, ONE_SICK);
    for columns in [12, 40, 80] {
        let plain = board.lines(now, (columns, 24), Style::PLAIN);
        let painted = board.lines(now, (columns, 24), Style { color: true, ..Style::PLAIN });
        assert_ne!(plain, painted);
        let mut bare = painted.join("\n");
        for code in ["\x1b[0m", "\x1b[1;31m", "\x1b[2m", "\x1b[32m", "\x1b[33m"] {
            bare = bare.replace(code, "");
        }
        assert_eq!(bare, plain.join("\n"), "{columns}");
    }
}

#[test]
fn events_of_others_are_left_alone() {
    let (mut board, now) = board(2, "");
    let elsewhere = Event::StepStarted { target: "file:srv/dev".into(), step: "install x".into() };
    for event in [elsewhere, Event::Note { text: "so".into() }] {
        assert!(!board.take(&event, now), "{event:?}");
    }
}
