//! The page, from top to bottom.

use crate::history::history;
use crate::overview::{Change, EnvOverview, Overview, Pending, ReleaseSize};
use crate::plot;
use gangplank_deploy::deploy::report::{Diff, FileChange, HostStatus, UNREACHABLE};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::CiJob;
use gangplank_model::text::{bytes, count, visible};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;

/// No script, no request, no frame: what the page shows comes from hosts and stores.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The number of files that are listed of a difference.
const FILES_MAX: usize = 300;

/// The subjects of commits by release.
pub(crate) type Subjects = BTreeMap<ReleaseId, String>;

/// The report as HTML.
pub fn page(all: &Overview) -> String {
    let title = format!("{}: releases", all.app);
    let body = html! {
        header {
            h1 { (title) }
            p.dim { "Read " (time(all.at)) @if let Some(ci) = &all.ci { " by " (job(ci)) } "." }
        }
        main {
            (live(all))
            @for pending in &all.changes { (pending_section(pending)) }
            (timeline(all))
            (commits(all))
            (sizes(all))
            (durations(all))
            @for env in &all.envs { (history(env, &all.subjects)) }
        }
        footer { p { "Made by " code { "cargo xtask report" } "." } }
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// A table or a picture that may be wider than the screen. It can be scrolled with the keyboard.
pub(crate) fn scroll(label: &str, inside: &Markup) -> Markup {
    html! { div.scroll tabindex="0" role="region" aria-label=(label) { (inside) } }
}

/// A moment, in UTC.
pub(crate) fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at.to_string()) { (at.strftime("%Y-%m-%d %H:%MZ").to_string()) } }
}

/// A release: its short id, with the whole one as a title.
pub(crate) fn id(release: &ReleaseId) -> Markup {
    html! { span.id title=(release.as_str()) { (release.short()) } }
}

/// A job of CircleCI, as a link if its URL is one of the web.
pub(crate) fn job(ci: &CiJob) -> Markup {
    let name = format!("job {}", ci.job);
    let url = ci.url.as_deref().filter(|url| url.starts_with("https://") || url.starts_with("http://"));
    match url {
        Some(url) => html! { a href=(url) rel="noreferrer" { (name) } },
        None => html! { (name) },
    }
}

/// Text of a user or a host, with its control characters written out.
pub(crate) fn foreign(text: &str) -> Markup {
    html! { (visible(text)) }
}

fn live(all: &Overview) -> Markup {
    let rows = html! {
        table {
            thead { tr {
                @for title in ["Env", "Host", "State", "Release", "Commit", "Since", "By", "Rollback to"] {
                    th scope="col" { (title) }
                }
            } }
            tbody { @for host in all.envs.iter().flat_map(|env| &env.hosts) { (live_row(host, &all.subjects)) } }
        }
    };
    html! {
        h2 { "What is live" }
        (scroll("What is live", &rows))
        @for problem in all.envs.iter().flat_map(|env| &env.problems) { p.problem { (foreign(problem)) } }
    }
}

fn live_row(host: &HostStatus, subjects: &Subjects) -> Markup {
    let class = match host.state {
        "live" => "good",
        "empty" => "dim",
        UNREACHABLE => "bad",
        _ => "back",
    };
    let subject = host.release.as_ref().and_then(|release| subjects.get(release));
    html! {
        tr {
            td { (host.env) }
            td { (foreign(&host.target)) }
            td class=(class) {
                (host.state)
                @if let Some(service) = host.service { " · " (service) }
                @if let Some(owner) = &host.locked_by { " · locked by " (foreign(owner)) }
            }
            td { @if let Some(release) = &host.release { (id(release)) } }
            td.text { (foreign(subject.map(String::as_str).unwrap_or_default())) }
            td { @if let Some(since) = host.since { (time(since)) } }
            td { (foreign(host.by.as_deref().unwrap_or_default())) }
            td { @if let Some(previous) = &host.previous { (id(previous)) } }
        }
    }
}

fn pending_section(pending: &Pending) -> Markup {
    html! {
        h2 { "What a deploy would change in " (pending.env) }
        @match &pending.diff {
            Ok(diff) => (difference(diff)),
            Err(reason) => {
                p.problem {
                    "Not known here: " (foreign(reason)) "."
                }
            },
        }
    }
}

fn difference(diff: &Diff) -> Markup {
    let files = |what: &str, files: &[FileChange]| {
        html! {
            @for file in files.iter().take(FILES_MAX) {
                tr {
                    td { (what) }
                    td.text { code { (foreign(&file.path)) } }
                    td.number { (bytes(file.from)) }
                    td.number { (bytes(file.to)) }
                }
            }
            @if files.len() > FILES_MAX { tr { td { (what) } td { "and " (files.len() - FILES_MAX) " more" } td {} td {} } }
        }
    };
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "Change" } th scope="col" { "File" }
                th.number scope="col" { "Live" } th.number scope="col" { "New" }
            } }
            tbody {
                (files("added", &diff.added)) (files("removed", &diff.removed)) (files("changed", &diff.changed))
            }
        }
    };
    let changed = diff.added.len() + diff.removed.len() + diff.changed.len();
    html! {
        p {
            (id(&diff.live)) " is live, " (id(&diff.candidate)) " would be: "
            (count(changed, "file")) ", " (bytes(diff.bytes.0)) " → " (bytes(diff.bytes.1)) "."
        }
        (commit_list("New commits", diff.commits.as_deref()))
        @if diff.lost_commits.as_ref().is_some_and(|lost| !lost.is_empty()) {
            (commit_list("Commits that are live and not in it", diff.lost_commits.as_deref()))
        }
        @if changed > 0 {
            details open[changed <= 20] {
                summary { "Files" }
                (scroll(&format!("Files that would change in {}", diff.env), &table))
            }
        }
    }
}

fn commit_list(title: &str, commits: Option<&[String]>) -> Markup {
    html! {
        @match commits {
            None => p.dim { (title) ": not known, the checkout lacks one of both commits." },
            Some([]) => p.dim { (title) ": none." },
            Some(commits) => {
                p { (title) ":" }
                ul.commits { @for commit in commits { li { (foreign(commit)) } } }
            },
        }
    }
}

fn timeline(all: &Overview) -> Markup {
    html! {
        h2 { "Timeline" }
        @match plot::timeline(&all.envs) {
            Some(picture) => {
                (scroll("Timeline", &picture))
                p.dim {
                    span.good { "●" } " live  " span.bad { "✕" } " failed  " span.back { "◀" }
                    " rolled back or restored  " span.other { "■" } " start, stop, restart"
                }
            },
            None => p.dim {
                @if all.envs.iter().any(|env| !env.problems.is_empty()) { "Not known: see what is live." }
                @else { "Nothing was deployed yet." }
            },
        }
    }
}

fn commits(all: &Overview) -> Markup {
    html! {
        @if all.envs.iter().any(|env| !env.changes.is_empty()) { h2 { "Commits between releases" } }
        @for env in all.envs.iter().filter(|env| !env.changes.is_empty()) {
            h3 { (env.name) }
            @for (n, change) in env.changes.iter().rev().enumerate() { (commits_of(change, n == 0, &all.subjects)) }
        }
    }
}

fn commits_of(change: &Change, is_newest: bool, subjects: &Subjects) -> Markup {
    let of_change = change.commits.as_deref();
    let lost = change.lost.as_deref().unwrap_or_default();
    let told = match (of_change, lost.len()) {
        (None, _) => "commits not known here".to_owned(),
        (Some([]), n) if n > 0 => format!("{} back", count(n, "commit")),
        (Some(commits), 0) => count(commits.len(), "commit"),
        (Some(commits), n) => format!("{} new, {n} no longer", count(commits.len(), "commit")),
    };
    let subject = subjects.get(&change.to).map(String::as_str).unwrap_or_default();
    html! {
        details open[is_newest] {
            summary {
                (time(change.at)) " " (id(&change.from)) " → " (id(&change.to)) " "
                span.dim { (told) } " " (foreign(subject))
            }
            ul.commits {
                @for commit in of_change.unwrap_or_default() { li { (foreign(commit)) } }
                @for commit in lost { li { "no longer: " (foreign(commit)) } }
            }
        }
    }
}

fn sizes(all: &Overview) -> Markup {
    let rows = html! {
        table {
            thead { tr {
                th scope="col" { "Release" } th scope="col" { "Committed" } th scope="col" { "Branch" }
                th scope="col" { "Built by" } th.number scope="col" { "Bundle" } th.number scope="col" { "Files" }
            } }
            tbody { @for release in all.releases.iter().rev() { (size_row(release)) } }
        }
    };
    html! {
        h2 { "Size of releases" }
        @if let Some(picture) = plot::sizes(&all.releases) { (scroll("Plot of the size of releases", &picture)) }
        @if all.releases.is_empty() {
            p.dim { "No release is at hand." }
        } @else {
            details { summary { (count(all.releases.len(), "release")) } (scroll("Size of releases", &rows)) }
        }
    }
}

fn size_row(release: &ReleaseSize) -> Markup {
    html! {
        tr {
            td { (id(&release.id)) }
            td { (time(release.commit.time)) }
            td { (foreign(release.commit.branch.as_deref().unwrap_or_default())) }
            td { @if let Some(ci) = &release.ci { (job(ci)) } }
            td.number { (bytes(release.bytes)) }
            td.number { @if !release.files.is_empty() { (release.files.len()) } }
        }
    }
}

fn durations(all: &Overview) -> Markup {
    let pictures: Vec<_> =
        all.envs.iter().filter_map(|env: &EnvOverview| Some((&env.name, plot::durations(env)?))).collect();
    html! {
        @if !pictures.is_empty() { h2 { "Duration of deploys" } }
        @for (env, picture) in pictures { h3 { (env) } (scroll(&format!("Duration of deploys to {env}"), &picture)) }
    }
}
