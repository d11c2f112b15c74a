//! The decisions of `plan` as tables of text.

use super::*;
use crate::error::{hint_of, kind_of};
use crate::history::testing::{history, id};
use crate::state::Root;
use expect_test::{Expect, expect};

/// `current 2; installed 1 2 3; running new 2; debris` and a history.
fn state(words: &str, log: &str) -> State {
    let mut state = State { root: Root::Directory, history: history(log), ..State::default() };
    for word in words.split(';').map(str::trim).filter(|w| !w.is_empty()) {
        match word.split_once(' ').unwrap_or((word, "")) {
            ("current", n) => state.current = Current::Release(id(n)),
            ("installed", ids) => state.installed = ids.split(' ').map(|n| (id(n), format!("sum{n}"))).collect(),
            ("running", what) => {
                let (spec, release) = what.split_once(' ').expect("running SPEC ID");
                state.service = ServiceState::Running { spec: spec.into(), release: id(release) };
            }
            ("vars", digest) => state.vars = Some(digest.into()),
            ("stopped", _) => state.service = ServiceState::Stopped,
            ("debris", _) => state.debris = 1,
            other => panic!("{other:?}"),
        }
    }
    state
}

fn goal(verb: Verb, release: &str, state: &State) -> Goal {
    let release = id(release);
    let ages = state.live().map(|live| (live.clone(), age(&release, live, Ancestry::Unknown))).into_iter().collect();
    let bundle = Some(format!("sum{}", &release.as_str()[7..8]));
    Goal {
        verb,
        release,
        bundle,
        service: None,
        vars: None,
        has_service: false,
        allow_older: false,
        take_over: false,
        files: vec![],
        ages,
    }
}

fn text(planned: Result<HostPlan>) -> String {
    let digits = |text: String| (0..10).fold(text, |text, n| text.replace(id(&n.to_string()).as_str(), &n.to_string()));
    digits(match planned {
        Err(error) => format!("exit {}: {error}\nhint: {}\n", kind_of(&error) as u8, hint_of(&error).unwrap_or("none")),
        Ok(host) => {
            let steps: String = host.steps.iter().map(|step| format!("{step}\n")).collect();
            format!("{steps}else back to {}\n", host.fallback.map_or("nothing".into(), |id| id.to_string()))
        }
    })
}

fn check(words: &str, log: &str, verb: Verb, release: &str, want: &Expect) {
    let state = state(words, log);
    want.assert_eq(&text(plan_host("file:t", &goal(verb, release, &state), &state, 3)));
}

#[test]
fn first_deploy() {
    check(
        "",
        "",
        Verb::Deploy,
        "1",
        &expect![[r"
        install 1
        activate 1 (first release)
        check the health of 1
        record that 1 is live
        else back to nothing
    "]],
    );
}

#[test]
fn deploy_of_newer_release_installs_activates_and_checks() {
    check(
        "current 1; installed 1",
        "live 1",
        Verb::Deploy,
        "2",
        &expect![[r"
        install 2
        activate 2 (was 1)
        check the health of 2
        record that 2 is live
        else back to 1
    "]],
    );
}

#[test]
fn deploy_of_live_release_has_no_steps() {
    check(
        "current 2; installed 1 2",
        "live 1; live 2",
        Verb::Deploy,
        "2",
        &expect![[r"
        else back to 2
    "]],
    );
}

#[test]
fn deploy_and_promote_of_older_release_are_refused() {
    check(
        "current 2; installed 1 2",
        "live 1; live 2",
        Verb::Deploy,
        "1",
        &expect![[r"
            exit 8: 1 is older than 2, which is live on file:t
            hint: roll back with `cargo xtask rollback ENV 1`, or deploy with --allow-older
        "]],
    );
    check(
        "current 2; installed 1 2",
        "live 1; live 2",
        Verb::Promote,
        "1",
        &expect![[r"
            exit 8: 1 is older than 2, which is live on file:t
            hint: roll back with `cargo xtask rollback ENV 1`, or deploy with --allow-older
        "]],
    );
    check(
        "current 2; installed 1 2",
        "live 1; live 2",
        Verb::Rollback,
        "1",
        &expect![[r"
        activate 1 (was 2)
        check the health of 1
        record that 1 is live
        else back to 2
    "]],
    );
}

#[test]
fn deploy_after_a_killed_one_finishes_it() {
    check(
        "current 2; installed 1 2",
        "live 1; switched 2",
        Verb::Deploy,
        "2",
        &expect![[r"
        check the health of 2
        record that 2 is live
        else back to 1
    "]],
    );
    check(
        "current 1; installed 1 2; debris",
        "live 1; installed 2",
        Verb::Deploy,
        "2",
        &expect![[r"
        activate 2 (was 1)
        check the health of 2
        record that 2 is live
        remove what interrupted runs left
        else back to 1
    "]],
    );
}

#[test]
fn deploy_of_another_after_a_killed_one_falls_back_to_last_good() {
    check(
        "current 2; installed 1 2",
        "live 1; switched 2",
        Verb::Deploy,
        "3",
        &expect![[r"
            install 3
            activate 3 (was 2)
            check the health of 3
            record that 3 is live
            remove 2
            else back to 1
        "]],
    );
}

#[test]
fn other_bytes_under_the_same_id_are_refused() {
    let mut odd = state("current 1; installed 1 2", "live 1");
    odd.installed.insert(id("2"), "0123456789abcdef".into());
    expect![[r"
        exit 7: file:t already has a 2 with other bytes: bundle 0123456789ab, this one is sum2
        hint: one commit was built twice with different results: make the build reproducible, or deploy a new commit
    "]]
    .assert_eq(&text(plan_host("file:t", &goal(Verb::Deploy, "2", &odd), &odd, 3)));
}

#[test]
fn deploy_of_live_release_restarts_a_changed_or_stopped_service() {
    let with_service = |words: &str, want: &Expect| {
        let state = state(words, "live 1; live 2");
        let goal = Goal { service: Some("new".into()), has_service: true, ..goal(Verb::Deploy, "2", &state) };
        want.assert_eq(&text(plan_host("file:t", &goal, &state, 3)));
    };
    with_service(
        "current 2; installed 1 2; running new 2",
        &expect![[r"
        else back to 2
    "]],
    );
    for words in [
        "current 2; installed 1 2; running old 2",
        "current 2; installed 1 2; running new 1",
        "current 2; installed 1 2; stopped",
        "current 2; installed 1 2",
    ] {
        with_service(
            words,
            &expect![[r"
            restart the service with 2
            check the health of 2
            record that 2 is live
            else back to 2
        "]],
        );
    }
}

#[test]
fn service_of_commands_is_restarted_for_other_variables_or_after_a_killed_deploy() {
    let of = |words: &str, log: &str, want: &Expect| {
        let state = state(&format!("current 2; installed 1 2; {words}"), log);
        let goal = Goal { has_service: true, vars: Some("d2".into()), ..goal(Verb::Deploy, "2", &state) };
        want.assert_eq(&text(plan_host("file:t", &goal, &state, 3)));
    };
    for words in ["", "vars d2"] {
        of(
            words,
            "live 1; live 2",
            &expect![[r"
            else back to 2
        "]],
        );
    }
    of(
        "vars d1",
        "live 1; live 2",
        &expect![[r"
        restart the service with 2
        check the health of 2
        record that 2 is live
        else back to 2
    "]],
    );
    of(
        "",
        "live 1; switched 2",
        &expect![[r"
        restart the service with 2
        check the health of 2
        record that 2 is live
        else back to 1
    "]],
    );
}

#[test]
fn hand_made_targets_are_refused() {
    for (current, root) in [
        (Current::NotALink, Root::Directory),
        (Current::Foreign("/x".into()), Root::Directory),
        (Current::None, Root::NotADirectory),
    ] {
        let state = State { root, current, ..State::default() };
        let error = plan_host("file:t", &goal(Verb::Deploy, "1", &state), &state, 3).unwrap_err();
        assert_eq!(kind_of(&error), Kind::Failed);
        assert!(hint_of(&error).is_some(), "{error}");
    }
}

#[test]
fn pruning_counts_only_what_was_good() {
    let pruned = |words: &str, log: &str, keep: usize, want: &Expect| {
        want.assert_eq(&text(prune_host("file:t", &state(words, log), keep)));
    };
    // Four failures in a row do not push out the last good release.
    pruned(
        "current 1; installed 1 2 3 4 5",
        "live 1; failed 2; failed 3; failed 4; failed 5",
        2,
        &expect![[r"
        remove 2, 3
        else back to nothing
    "]],
    );
    // The live one and its rollback stay even with a `keep` of one.
    pruned(
        "current 3; installed 1 2 3",
        "live 1; live 2; live 3",
        1,
        &expect![[r"
        remove 1
        else back to nothing
    "]],
    );
    // Installed, never tried: an interrupted deploy left it. Without any record: not ours.
    pruned(
        "current 2; installed 1 2 3 4",
        "live 1; live 2; installed 3",
        3,
        &expect![[r"
        remove 3
        else back to nothing
    "]],
    );
    pruned(
        "current 2; installed 1 2",
        "live 1; live 2",
        2,
        &expect![[r"
        else back to nothing
    "]],
    );
}

#[test]
fn deploy_prunes_as_if_it_had_succeeded() {
    check(
        "current 3; installed 1 2 3",
        "live 1; live 2; live 3",
        Verb::Deploy,
        "4",
        &expect![[r"
        install 4
        activate 4 (was 3)
        check the health of 4
        record that 4 is live
        remove 1
        else back to 3
    "]],
    );
}

#[test]
fn rollback_without_release_goes_to_the_last_healthy_before() {
    let to = |words: &str, log: &str, want: &Expect| {
        let found = rollback_to("file:t", &state(words, log), None).map(|id| HostPlan {
            target: String::new(),
            steps: vec![],
            fallback: Some(id),
            replaces: None,
        });
        want.assert_eq(&text(found));
    };
    to(
        "current 2; installed 1 2",
        "live 1; live 2",
        &expect![[r"
        else back to 1
    "]],
    );
    to(
        "current 1; installed 1 2",
        "live 1; live 2; rollback 1",
        &expect![[r"
            exit 5: file:t has nothing to roll back to: nothing was live and healthy before 1
            hint: name a release to go back to: `cargo xtask rollback ENV RELEASE`; `cargo xtask releases` lists them
        "]],
    );
    to(
        "current 3; installed 2 3",
        "live 1; live 2; switched 3",
        &expect![[r"
        else back to 2
    "]],
    );
    to(
        "",
        "",
        &expect![[r"
        exit 5: file:t has nothing to roll back to: nothing was ever deployed there
        hint: name a release to go back to: `cargo xtask rollback ENV RELEASE`; `cargo xtask releases` lists them
    "]],
    );
}

#[test]
fn rollback_that_was_killed_after_its_end_is_not_repeated() {
    let done = state("current 2; installed 1 2 3", "live 1; live 2; live 3; rollback 2");
    assert_eq!(rollback_to("file:t", &done, Some(jiff::Timestamp::UNIX_EPOCH)).unwrap(), id("2"));
    assert_eq!(rollback_to("file:t", &done, None).unwrap(), id("1"));
}

#[test]
fn ages() {
    for (candidate, live, ancestry, want) in [
        ("1", "1", Ancestry::Unknown, Age::Same),
        ("1", "2", Ancestry::Unknown, Age::Older),
        ("2", "1", Ancestry::Unknown, Age::Newer),
        // The commit graph takes precedence over commit times.
        ("2", "1", Ancestry::CandidateFirst, Age::Older),
        ("1", "2", Ancestry::LiveFirst, Age::Newer),
    ] {
        assert_eq!(age(&id(candidate), &id(live), ancestry), want, "{candidate} {live} {ancestry:?}");
    }
}

#[test]
fn targets_that_disagree_want_a_name() {
    let error = refuse::disagreeing("prod", &[("file:a".into(), id("1")), ("file:b".into(), id("2"))]).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Usage);
    assert_eq!(
        refuse::disagreeing("prod", &[("file:a".into(), id("1")), ("file:b".into(), id("1"))]).unwrap(),
        id("1")
    );
}
