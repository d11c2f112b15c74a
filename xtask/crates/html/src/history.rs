//! The history of an env as tables.

use crate::overview::EnvOverview;
use crate::page::{Subjects, foreign, id, job, scroll, time};
use gangplank_model::history::{HistoryEvent, Record, Verb};
use gangplank_model::text::count;
use maud::{Markup, html};

/// The number of records that are shown at once. The others are in closed parts, which a browser does not lay out: a
/// history of years opens at once.
const SHOWN: usize = 100;
/// The number of records of a closed part.
const PART: usize = 500;

/// The history of an env, newest first.
pub(crate) fn history(env: &EnvOverview, subjects: &Subjects) -> Markup {
    let newest: Vec<&Record> = env.records.iter().rev().collect();
    let (shown, older) = newest.split_at(newest.len().min(SHOWN));
    let label = format!("History of {}", env.name);
    html! {
        h2 { (label) }
        @if newest.is_empty() {
            p.dim { @if env.problems.is_empty() { "No record." } @else { "Not known: see what is live." } }
        } @else {
            p.dim { (count(newest.len(), "record")) " of " (foreign(&env.source)) "." }
            (scroll(&label, &table(shown, subjects)))
        }
        @if env.unreadable > 0 { p.problem { (count(env.unreadable, "invalid line")) " skipped." } }
        @for part in older.chunks(PART) {
            @let range = format!("{} to {}", day(part[part.len() - 1]), day(part[0]));
            details {
                summary { (range) ", " (count(part.len(), "record")) }
                (scroll(&format!("{label}, {range}"), &table(part, subjects)))
            }
        }
    }
}

fn day(record: &Record) -> String {
    record.at.strftime("%Y-%m-%d").to_string()
}

fn table(records: &[&Record], subjects: &Subjects) -> Markup {
    html! {
        table {
            thead { tr {
                @for title in ["When", "What", "Release", "From", "By", "Commit, reason"] { th scope="col" { (title) } }
            } }
            tbody { @for record in records { (row(record, subjects)) } }
        }
    }
}

fn row(record: &Record, subjects: &Subjects) -> Markup {
    let (word, class) = kind(record);
    let subject = record.release.as_ref().and_then(|release| subjects.get(release));
    html! {
        tr {
            td { (time(record.at)) }
            td class=(class) { (word) }
            td { @if let Some(release) = &record.release { (id(release)) } }
            td { @if let Some(from) = &record.from { (id(from)) } }
            td { (foreign(&record.by)) @if let Some(ci) = &record.ci { ", " (job(ci)) } }
            td.text {
                (foreign(subject.map(String::as_str).unwrap_or_default()))
                @if let Some(reason) = &record.reason { p.dim { (foreign(reason)) } }
            }
        }
    }
}

/// The label of a record, and the class of its colour and mark.
pub(crate) fn kind(record: &Record) -> (&'static str, &'static str) {
    match (record.event, record.verb) {
        (HistoryEvent::Failed, _) => ("failed", "bad"),
        (HistoryEvent::Restored, _) => ("restored", "back"),
        (HistoryEvent::Live, Verb::Rollback) => ("rolled back", "back"),
        (HistoryEvent::Live, Verb::Promote) => ("live, promoted", "good"),
        (HistoryEvent::Live, _) => ("live", "good"),
        (HistoryEvent::Started, _) => ("started", "other"),
        (HistoryEvent::Stopped, _) => ("stopped", "other"),
        (HistoryEvent::Restarted, _) => ("restarted", "other"),
        (HistoryEvent::Installed, _) => ("installed", "other"),
        (HistoryEvent::Switched, _) => ("switched", "other"),
        (HistoryEvent::Removed, _) => ("removed", "other"),
    }
}
