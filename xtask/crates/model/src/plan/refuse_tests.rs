//! Every refusal, as a table: what is so, what is wanted, what is said.

use super::*;
use crate::error::{hint_of, kind_of};
use crate::history::Verb;
use crate::history::testing::{history, id};
use crate::plan::plan;
use std::collections::BTreeMap;

/// A case before it is changed: host `a` runs release 2, and release 3 is deployed.
struct Case {
    hosts: Vec<HostSnapshot>,
    stores: Vec<StoreSnapshot>,
    interrupted: bool,
    goal: Goal,
    app: Option<&'static str>,
    approval: bool,
    shared: &'static [&'static str],
    expect: Expected,
    approved: Option<Vec<HostPlan>>,
}

fn host(url: &str, live: &str) -> HostSnapshot {
    let mut state = State { root: Root::Directory, history: history(&format!("live {live}")), ..State::default() };
    state.current = Current::Release(id(live));
    state.installed.insert(id(live), format!("sum{live}"));
    HostSnapshot { url: url.into(), state }
}

fn case() -> Case {
    Case {
        hosts: vec![host("a", "2")],
        stores: vec![],
        interrupted: false,
        goal: Goal {
            verb: Verb::Deploy,
            release: id("3"),
            bundle: Some("sum3".into()),
            service: None,
            vars: None,
            has_service: false,
            allow_older: false,
            take_over: false,
            files: vec!["bin/app".into()],
            ages: BTreeMap::from([(id("2"), Age::Newer)]),
        },
        app: Some("shop"),
        approval: false,
        shared: &[],
        expect: Expected::default(),
        approved: None,
    }
}

fn answer(change: impl FnOnce(&mut Case)) -> String {
    let mut it = case();
    change(&mut it);
    let rules = Rules {
        env: "prod",
        approval: it.approval,
        shared: it.shared,
        keep: 3,
        hooks: &[],
        expect_current: &it.expect,
        approved: it.approved.as_deref(),
    };
    let snapshot = Snapshot { hosts: it.hosts, stores: it.stores, interrupted: it.interrupted };
    match other_app(it.app, &snapshot).and_then(|()| plan(&it.goal, &rules, &snapshot)) {
        Ok(plans) => format!("{} planned", plans.len()),
        Err(error) => {
            assert!(hint_of(&error).is_some(), "{error}");
            format!("{} {error}", kind_of(&error) as u8)
        }
    }
}

/// What changes a case, and what the answer begins with.
type Row = (fn(&mut Case), &'static str);

#[track_caller]
fn check(rows: &[Row]) {
    for (n, (change, want)) in rows.iter().enumerate() {
        let answer = answer(change);
        assert!(answer.starts_with(want), "row {n}: {answer}");
    }
}

#[test]
fn deploy_is_refused_by_project_command_line_and_age() {
    check(&[
        (|_| {}, "1 planned"),
        (|it| it.hosts[0].state.app = Some("blog".into()), "2 a runs a release of blog, not of shop"),
        (|it| (it.hosts[0].state.app, it.app) = (Some("blog".into()), None), "1 planned"),
        (|it| it.goal.release = "20260803T000000-0000003-dirty-1a2b3c4d".parse().unwrap(), "1 planned"),
        (
            |it| {
                it.approval = true;
                it.goal.release = "20260803T000000-0000003-dirty-1a2b3c4d".parse().unwrap();
            },
            "2 20260803T000000-0000003-dirty-1a2b3c4d was built from uncommitted changes",
        ),
        (|it| it.shared = &["bin"], "2 20260803T000000-0000003 holds bin/app, and prod shares bin"),
        (|it| it.shared = &["bin/ap"], "1 planned"),
        (|it| it.expect = "20260802T000000-0000002".parse().unwrap(), "1 planned"),
        (|it| it.expect = "20260801T000000-0000001".parse().unwrap(), "8 20260802T000000-0000002 is live on a, not "),
        (
            |it| {
                it.expect = "20260801T000000-0000001".parse().unwrap();
                it.hosts[0] = host("a", "3");
            },
            "8 20260803T000000-0000003 is live on a, not ",
        ),
        (
            |it| {
                it.expect = "20260801T000000-0000001".parse().unwrap();
                (it.hosts[0], it.interrupted) = (host("a", "3"), true);
            },
            "1 planned",
        ),
        (
            |it| _ = it.goal.ages.insert(id("2"), Age::Older),
            "8 20260803T000000-0000003 is older than 20260802T000000-0000002",
        ),
        (
            |it| {
                it.goal.ages.insert(id("2"), Age::Older);
                it.goal.allow_older = true;
            },
            "1 planned",
        ),
        (
            |it| {
                it.goal.ages.insert(id("2"), Age::Older);
                it.goal.verb = Verb::Rollback;
            },
            "1 planned",
        ),
    ]);
}

#[test]
fn deploy_is_refused_by_state_of_hosts_stores_and_approval() {
    check(&[
        (|it| it.stores.push(store(Age::Older)), "1 planned"),
        (
            |it| {
                (it.hosts[0].state, it.stores) = (State::default(), vec![store(Age::Older)]);
            },
            "8 20260803T000000-0000003 is older than 20260804T000000-0000004, which ran in prod according to s3://b",
        ),
        (
            |it| {
                (it.hosts[0].state, it.stores) = (State::default(), vec![store(Age::Newer)]);
            },
            "1 planned",
        ),
        (
            |it| _ = it.hosts[0].state.installed.insert(id("3"), "other".into()),
            "7 a already has a 20260803T000000-0000003 with",
        ),
        (|it| it.hosts[0].state.root = Root::NotADirectory, "1 a is not a directory"),
        (|it| it.hosts[0].state.current = Current::NotALink, "1 a: `current` is not a symbolic link"),
        (|it| it.hosts[0].state.current = Current::Foreign("/x".into()), "1 a: `current` points to `/x`"),
        (
            |it| {
                it.hosts[0].state.current = Current::Foreign("/x".into());
                it.goal.take_over = true;
            },
            "1 planned",
        ),
        (|it| it.approved = Some(vec![]), "8 prod has changed since the plan was approved"),
    ]);
}

fn store(age: Age) -> StoreSnapshot {
    StoreSnapshot { url: "s3://b".into(), live: id("4"), age }
}

#[test]
fn promote_of_other_bytes_is_refused() {
    let running = |digest: &str| vec![("a".to_owned(), "sum".to_owned()), ("b".to_owned(), digest.to_owned())];
    assert!(other_bytes_running("dev", &id("1"), "sum", &running("sum")).is_ok());
    let error = other_bytes_running("dev", &id("1"), "sum", &running("other")).unwrap_err();
    assert_eq!(error.to_string(), "b runs other bytes of 20260801T000000-0000001 than the stores hold");
}
