//! The history of a target and what follows from it.
//!
//! `history.jsonl` is append-only. Rollback and prune fold it; directory times and counts are not used, because a
//! copied directory or a failed release would falsify them.

use crate::release::id::ReleaseId;
use crate::release::manifest::CiJob;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The event of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryEvent {
    /// A release was installed; nothing was switched.
    Installed,
    /// `current` is about to point at the release; its health is unknown.
    Switched,
    /// The release is live and healthy.
    Live,
    /// The release was tried and failed.
    Failed,
    /// The release is live again because its successor failed.
    Restored,
    /// Old releases were removed.
    Removed,
    /// The service was started by hand.
    Started,
    /// The service was stopped by hand.
    Stopped,
    /// The service was restarted by hand.
    Restarted,
}

impl HistoryEvent {
    /// Whether it changed nothing for users of the app, so that only `history --all` prints it.
    pub fn is_detail(self) -> bool {
        matches!(self, Self::Installed | Self::Switched | Self::Removed)
    }
}

/// The command that caused a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// `deploy`
    Deploy,
    /// `promote`
    Promote,
    /// `rollback`
    Rollback,
    /// `prune`
    Prune,
    /// `start`
    Start,
    /// `stop`
    Stop,
    /// `restart`
    Restart,
}

impl Verb {
    /// The command as typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Prune => "prune",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

/// A line of `history.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The time, RFC 3339 in UTC.
    pub at: jiff::Timestamp,
    /// The event.
    pub event: HistoryEvent,
    /// The command.
    pub verb: Verb,
    /// The release; absent when several were removed.
    pub release: Option<ReleaseId>,
    /// The release that was live before.
    pub from: Option<ReleaseId>,
    /// Full SHA of the release's commit, if known.
    pub commit: Option<String>,
    /// The user.
    pub by: String,
    /// The CircleCI job.
    pub ci: Option<CiJob>,
    /// The reason given with `--reason`, or the reason of a failure.
    pub reason: Option<String>,
    /// How long the steps took, in a record `live` of a host.
    #[serde(default)]
    pub took: Option<Took>,
}

/// How long the steps on a host took, in milliseconds; absent if a step was not needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// Sending and verifying the files.
    pub install_ms: Option<u64>,
    /// Switching `current` and restarting the service.
    pub switch_ms: Option<u64>,
    /// Waiting for the health check.
    pub check_ms: Option<u64>,
}

impl Record {
    /// The record as a line, with its newline.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a record has no maps with odd keys");
        line.push('\n');
        line
    }
}

/// The records of a target, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// All valid records.
    pub records: Vec<Record>,
    /// The number of invalid lines; a crash tears at most the last one.
    pub unreadable: usize,
}

impl History {
    /// Parses `history.jsonl`; invalid lines are counted and skipped.
    pub fn parse(text: &str) -> Self {
        let mut history = Self::default();
        // A crash of the host may leave NULs in place of a line.
        for line in text.lines().map(|line| line.trim_matches(['\0', ' '])).filter(|line| !line.is_empty()) {
            match serde_json::from_str(line) {
                Ok(record) => history.records.push(record),
                Err(_) => history.unreadable += 1,
            }
        }
        history
    }

    /// The releases that were live and healthy, each above the one it replaced; the last is the live one. A rollback
    /// pops it, so two rollbacks go back two releases.
    pub fn live_stack(&self) -> Vec<&ReleaseId> {
        let mut stack: Vec<&ReleaseId> = Vec::new();
        for record in &self.records {
            let Some(release) = &record.release else { continue };
            let back = match record.event {
                HistoryEvent::Live => record.verb == Verb::Rollback,
                HistoryEvent::Restored => true,
                _ => continue,
            };
            match stack.iter().rposition(|id| *id == release) {
                Some(at) if back => stack.truncate(at + 1),
                Some(at) if at + 1 == stack.len() => {}
                _ => stack.push(release),
            }
        }
        stack
    }

    /// The releases that prune must keep: the newest `keep` good ones, which include the live one and the rollback
    /// target, and the last one begun.
    pub fn needed(&self, keep: usize) -> BTreeSet<ReleaseId> {
        let stack = self.live_stack();
        let begun = self.records.iter().rev().find(|record| record.event == HistoryEvent::Switched);
        let begun = begun.and_then(|record| record.release.clone());
        stack.into_iter().rev().take(keep.max(2)).cloned().chain(begun).collect()
    }

    /// Whether the last switch to `id` succeeded. False after a deploy that was killed between switch and health check.
    pub fn confirmed(&self, id: &ReleaseId) -> bool {
        self.last_switch()
            .is_some_and(|record| record.event != HistoryEvent::Switched && record.release.as_ref() == Some(id))
    }

    /// The last record that changes what is live.
    fn last_switch(&self) -> Option<&Record> {
        let switches = |record: &&Record| {
            matches!(record.event, HistoryEvent::Switched | HistoryEvent::Live | HistoryEvent::Restored)
        };
        self.records.iter().rev().filter(|record| record.release.is_some()).find(switches)
    }

    /// The release that a rollback activated at or after `since`, if no later record exists.
    pub(crate) fn rolled_back_since(&self, since: jiff::Timestamp) -> Option<&ReleaseId> {
        let last = self.last_switch().filter(|record| record.at >= since);
        last.filter(|record| (record.event, record.verb) == (HistoryEvent::Live, Verb::Rollback))?.release.as_ref()
    }

    /// Whether a switch was ever begun. If not, another tool activated what is live.
    pub(crate) fn knows_a_switch(&self) -> bool {
        self.records.iter().any(|record| record.event == HistoryEvent::Switched)
    }

    /// The release that `rollback` activates when `current` is live.
    pub fn previous(&self, current: Option<&ReleaseId>) -> Option<&ReleaseId> {
        if let Some(last) = self.last_switch()
            && (last.event, last.verb) == (HistoryEvent::Switched, Verb::Rollback)
        {
            // A rollback was killed, before or after its switch: rolling back finishes it.
            return last.release.as_ref();
        }
        let mut stack = self.live_stack();
        // An unconfirmed live release rolls back to the last good one. If both are the same, it is started and checked
        // again.
        if current.is_some_and(|id| self.confirmed(id)) && stack.last().copied() == current {
            stack.pop();
        }
        stack.last().copied()
    }

    /// Releases whose last result was good, most recent first.
    pub fn good(&self) -> Vec<&ReleaseId> {
        self.by_verdict(|event| matches!(event, HistoryEvent::Live | HistoryEvent::Restored))
    }

    /// Releases whose last result was bad, most recent first.
    pub fn bad(&self) -> Vec<&ReleaseId> {
        self.by_verdict(|event| event == HistoryEvent::Failed)
    }

    fn by_verdict(&self, wanted: impl Fn(HistoryEvent) -> bool) -> Vec<&ReleaseId> {
        let mut seen = BTreeSet::new();
        let verdicts = self
            .records
            .iter()
            .rev()
            .filter(|r| matches!(r.event, HistoryEvent::Live | HistoryEvent::Restored | HistoryEvent::Failed));
        verdicts
            .filter_map(|record| Some((record.release.as_ref()?, record.event)))
            .filter(|(id, _)| seen.insert(*id))
            .filter(|(_, event)| wanted(*event))
            .map(|(id, _)| id)
            .collect()
    }

    /// Whether any record has the release.
    pub fn knows(&self, id: &ReleaseId) -> bool {
        self.records.iter().any(|record| record.release.as_ref() == Some(id))
    }

    /// The record since which a release is live: a restart, or a revert after a failed deploy of another one, is no new
    /// beginning.
    pub fn live_since(&self, id: &ReleaseId) -> Option<&Record> {
        let mut since: Option<&Record> = None;
        let goes_live = |event| matches!(event, HistoryEvent::Live | HistoryEvent::Restored);
        for record in self.records.iter().filter(|record| record.release.is_some() && goes_live(record.event)) {
            if since.is_none_or(|since| since.release != record.release) {
                since = Some(record);
            }
        }
        since.filter(|since| since.release.as_ref() == Some(id))
    }

    /// The last change of what is live, if it failed.
    pub fn failed_last(&self) -> Option<&Record> {
        let ends = |record: &&Record| matches!(record.event, HistoryEvent::Live | HistoryEvent::Failed);
        self.records.iter().rev().find(ends).filter(|record| record.event == HistoryEvent::Failed)
    }

    /// Full SHA of a release's commit, from any record that has it.
    pub fn commit(&self, id: &ReleaseId) -> Option<&str> {
        self.records.iter().rev().filter(|r| r.release.as_ref() == Some(id)).find_map(|r| r.commit.as_deref())
    }
}

#[cfg(any(test, feature = "testing"))]
pub mod testing {
    //! Histories written as text: `"live 1; switched 2; failed 2; restored 1; rollback 1"`.

    use super::{History, HistoryEvent, Record, Verb};
    use crate::release::id::ReleaseId;

    /// The id named by one digit: `3` is three days later than `0`.
    pub fn id(n: &str) -> ReleaseId {
        format!("2026080{n}T000000-000000{n}").parse().expect("a digit")
    }

    /// `rolling N` and `rollback N` are the switch and the end of a rollback.
    pub fn history(words: &str) -> History {
        let records = words.split(';').map(str::trim).filter(|w| !w.is_empty()).map(|word| {
            let (what, n) = word.split_once(' ').expect("WHAT ID");
            let (event, verb) = match what {
                "installed" => (HistoryEvent::Installed, Verb::Deploy),
                "switched" => (HistoryEvent::Switched, Verb::Deploy),
                "live" => (HistoryEvent::Live, Verb::Deploy),
                "failed" => (HistoryEvent::Failed, Verb::Deploy),
                "restored" => (HistoryEvent::Restored, Verb::Deploy),
                "rollback" => (HistoryEvent::Live, Verb::Rollback),
                "rolling" => (HistoryEvent::Switched, Verb::Rollback),
                other => panic!("no such record: {other}"),
            };
            let at = jiff::Timestamp::UNIX_EPOCH;
            Record {
                at,
                event,
                verb,
                release: Some(id(n)),
                from: None,
                commit: None,
                by: "test".into(),
                ci: None,
                reason: None,
                took: None,
            }
        });
        History { records: records.collect(), unreadable: 0 }
    }

    /// The digits of ids.
    pub fn digits<'a>(ids: impl IntoIterator<Item = &'a ReleaseId>) -> String {
        ids.into_iter().map(|id| &id.as_str()[7..8]).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{digits, history, id};
    use super::*;
    use expect_test::{Expect, expect};

    fn check(words: &str, current: &str, want: &Expect) {
        let history = history(words);
        let current = (!current.is_empty()).then(|| id(current));
        let found = format!(
            "stack [{}] previous {} good [{}] bad [{}] confirmed {}",
            digits(history.live_stack()),
            history.previous(current.as_ref()).map_or("none".into(), |id| digits([id])),
            digits(history.good()),
            digits(history.bad()),
            current.is_some_and(|id| history.confirmed(&id)),
        );
        want.assert_eq(&found);
    }

    #[test]
    fn needed_releases_are_the_last_good_the_rollback_and_the_pending() {
        for (words, keep, want) in [
            ("", 2, ""),
            ("live 1; live 2; live 3; live 4", 2, "3 4"),
            ("live 1; live 2; live 3", 0, "2 3"),
            ("live 1; live 2; live 3; rollback 2", 2, "1 2"),
            ("live 1; live 2; switched 9", 2, "1 2 9"),
            ("live 1; live 2; switched 9; failed 9", 2, "1 2 9"),
        ] {
            assert_eq!(digits(&history(words).needed(keep)), want, "{words}");
        }
    }

    #[test]
    fn folding() {
        check("", "", &expect!["stack [] previous none good [] bad [] confirmed false"]);
        check("switched 1; live 1", "1", &expect!["stack [1] previous none good [1] bad [] confirmed true"]);
        check("live 1; switched 2; live 2", "2", &expect!["stack [1 2] previous 1 good [2 1] bad [] confirmed true"]);
    }

    #[test]
    fn two_rollbacks_go_back_two() {
        check(
            "live 1; live 2; live 3; rollback 2",
            "2",
            &expect!["stack [1 2] previous 1 good [2 3 1] bad [] confirmed true"],
        );
        check(
            "live 1; live 2; live 3; rollback 2; rollback 1",
            "1",
            &expect!["stack [1] previous none good [1 2 3] bad [] confirmed true"],
        );
    }

    #[test]
    fn previous_after_a_failed_release_skips_it() {
        check(
            "live 1; switched 2; failed 2; restored 1; switched 3; live 3",
            "3",
            &expect!["stack [1 3] previous 1 good [3 1] bad [2] confirmed true"],
        );
    }

    #[test]
    fn release_is_live_since_it_replaced_another_one() {
        for (words, live, since, failed) in [
            ("live 1", "1", Some(0), None),
            ("live 1; switched 2; failed 2; restored 1", "1", Some(0), Some("2")),
            ("live 1; switched 1; live 1", "1", Some(0), None),
            ("live 1; live 2; rollback 1; switched 3; failed 3; restored 1", "1", Some(2), Some("3")),
            ("live 1; failed 2; restored 1; switched 2; live 2", "2", Some(4), None),
            ("live 1; switched 2", "2", None, None),
            ("installed 1", "1", None, None),
        ] {
            let history = history(words);
            let found = history.live_since(&id(live)).map(|since| history.records.iter().position(|it| it == since));
            assert_eq!(found.flatten(), since, "{words}");
            assert_eq!(history.failed_last().and_then(|it| it.release.clone()), failed.map(id), "{words}");
        }
    }

    #[test]
    fn switch_without_health_is_unconfirmed() {
        check("live 1; live 2; switched 3", "3", &expect!["stack [1 2] previous 2 good [2 1] bad [] confirmed false"]);
        check("live 1; switched 1", "1", &expect!["stack [1] previous 1 good [1] bad [] confirmed false"]);
    }

    #[test]
    fn rollback_that_was_killed_is_unconfirmed_and_keeps_its_stack() {
        check("live 1; live 2; rolling 1", "1", &expect!["stack [1 2] previous 1 good [2 1] bad [] confirmed false"]);
        check("live 1; live 2; rolling 1", "2", &expect!["stack [1 2] previous 1 good [2 1] bad [] confirmed false"]);
        let done = history("live 1; live 2; rolling 1; rollback 1");
        assert_eq!(done.rolled_back_since(jiff::Timestamp::UNIX_EPOCH), Some(&id("1")));
        assert_eq!(history("live 1; live 2").rolled_back_since(jiff::Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn previous_after_deploy_of_older_release_is_the_newer() {
        check("live 1; live 2; live 1", "1", &expect!["stack [1 2 1] previous 2 good [1 2] bad [] confirmed true"]);
    }

    #[test]
    fn torn_lines_are_passed_over() {
        let mut text: String = history("live 1; live 2").records.iter().map(Record::to_line).collect();
        text.truncate(text.len() - 20);
        text.push_str("\n\nnot json\n");
        text.push_str(&history("live 3").records[0].to_line());
        let history = History::parse(&text);
        assert_eq!((digits(history.live_stack()).as_str(), history.unreadable), ("1 3", 2));
    }
}
