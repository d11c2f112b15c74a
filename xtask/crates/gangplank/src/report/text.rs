//! Results as text. Pure: depends only on values and the time of day.

use crate::commands::{CommandOutput, LockState};
use gangplank_deploy::build::Built;
use gangplank_deploy::ci::trigger::Started;
use gangplank_deploy::deploy::apply::Outcome;
use gangplank_deploy::deploy::control::{Controlled, ControlledHost};
use gangplank_deploy::deploy::report::{Diff, FileChange, HostHistory, HostStatus, Listed};
use gangplank_deploy::handoff::{Pruned, PutDone};
use gangplank_model::history::{HistoryEvent, Verb};
use gangplank_model::release::id::ReleaseId;

use crate::report::progress_table::short_names;
use crate::report::style::{Style, bytes, clipped, count, table, visible, wrapped};
use gangplank_deploy::store::{Published, RetentionDecision};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The text of a result.
pub fn answer(answer: &CommandOutput, style: Style, now: Timestamp) -> String {
    match answer {
        CommandOutput::Built(built) => self::built(built, style),
        CommandOutput::Verified(it) => format!(
            "{} verified: {} of {}, bundle sha256 {}{}\n",
            it.release,
            count(it.files, "file"),
            bytes(it.bytes),
            it.sha256,
            it.unpacked.as_ref().map_or(String::new(), |dir| format!(", unpacked into {}", dir.display()))
        ),
        CommandOutput::Fetched(it) => format!("{}\n", it.dir.display()),
        #[cfg(feature = "gangplank-sign")]
        CommandOutput::Keygen(it) => format!("{}\n", it.key),
        #[cfg(feature = "gangplank-sign")]
        CommandOutput::Signed(it) => {
            let done = if it.already_there { "was signed already" } else { "signed" };
            format!("{} {done} by {}\n", it.release, it.key)
        }
        CommandOutput::Put(done) => done.iter().map(put).collect(),
        CommandOutput::Pruned(done) => pruned(done, style),
        CommandOutput::Published(done) => done.iter().map(published).collect(),
        CommandOutput::Triggered(it) => triggered(it, style),
        CommandOutput::Approved(it) => {
            format!("pipeline {}: {} of {} is {}\n", it.pipeline, it.job, it.workflow, style.good("approved"))
        }
        CommandOutput::Outcome(outcome) => self::outcome(outcome, style),
        CommandOutput::Status(hosts) => status(hosts, style, now),
        CommandOutput::Streamed => String::new(),
        CommandOutput::History(hosts) => histories(hosts, style, now),
        CommandOutput::Releases(listed) => releases(listed, style, now),
        CommandOutput::Notified(done) => done.iter().map(|it| format!("{} {}\n", it.kind, it.status)).collect(),
        CommandOutput::Diff(diff) => self::diff(diff, style),
        CommandOutput::Controlled(done) => controlled(done, style),
        CommandOutput::Lock(locks) => locks.iter().map(lock).collect(),
        CommandOutput::Generated(files) => {
            let state = |changed| if changed { "written" } else { "is up to date" };
            files.iter().map(|it| format!("{} {}\n", it.path.display(), state(it.changed))).collect()
        }
        #[cfg(feature = "gangplank-lint")]
        CommandOutput::Findings(findings) => crate::report::findings::findings(findings, style),
        #[cfg(feature = "gangplank-local-ci")]
        CommandOutput::CiRun(run) => crate::report::local_ci::run(run, style),
        CommandOutput::Setup(hosts) => crate::report::setup::setup(hosts),
        CommandOutput::Diagnosis(found) => crate::report::doctor::diagnosis(found, style),
        CommandOutput::Script(it) => it.script.to_owned(),
        CommandOutput::Own(own) => own.text.clone(),
        #[cfg(feature = "gangplank-html")]
        CommandOutput::Page(page) => format!("{}\n", page.path.display()),
        #[cfg(feature = "man")]
        CommandOutput::Man(pages) => pages.iter().map(|page| format!("{}\n", page.path.display())).collect(),
        CommandOutput::Tested(it) => crate::report::checks::tested(it),
    }
}

/// The text of a build.
pub fn built(built: &Built, _: Style) -> String {
    let how = if built.up_to_date { "up to date" } else { "built" };
    format!(
        "{} {how}: {}, {}, {}\n",
        built.release,
        count(built.files, "file"),
        bytes(built.bytes),
        built.dir.display()
    )
}

/// A line of a host's output, with its name if there are several. Keeps tabs.
pub fn host_output(host: &str, column: usize, line: &str, style: Style) -> String {
    let line = line.split('\t').map(visible).collect::<Vec<_>>().join("\t");
    match column {
        0 => format!("{line}\n"),
        _ => format!("{} {line}\n", style.dim(&format!("{host:<column$} |"))),
    }
}

fn published(done: &Published) -> String {
    let (store, reason) = (&done.store, done.reason.as_deref().filter(|reason| !reason.is_empty()));
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let Some(pointer) = &done.pointer else { return format!("{store}: nothing was published{reason}\n") };
    let how = if done.moved { "names" } else { "names already" };
    let job = done.job.map(|job| format!("job {job}, ")).unwrap_or_default();
    format!("{store}: {pointer} {how} {job}{}{reason}\n", id_or_dash(done.release.as_ref(), Style::PLAIN))
}

fn pruned(done: &Pruned, style: Style) -> String {
    let (mut out, mut gone) = (String::new(), 0);
    for RetentionDecision { what, reason } in &done.kept {
        let _ = match reason {
            Some(reason) => writeln!(out, "keep    {what}  {reason}"),
            None => {
                gone += 1;
                writeln!(out, "{} {what}", style.bad("remove "))
            }
        };
    }
    let end = match (gone, done.removed) {
        (0, _) => "nothing to remove".to_owned(),
        (n, true) => format!("{n} removed"),
        (n, false) => format!("{n} to remove; add --yes to remove them"),
    };
    let _ = writeln!(out, "{}: {end}", done.store);
    out
}

fn triggered(it: &Started, style: Style) -> String {
    match &it.end {
        None => format!("pipeline {} {}\n", it.pipeline, style.good("started")),
        Some(end) => format!("pipeline {}: {}\n", it.pipeline, end.status.replace('_', " ")),
    }
}

fn put(done: &PutDone) -> String {
    let how = match (done.verified, done.by_step, done.already_there) {
        (true, ..) => "has every byte",
        (_, true, _) => "is ready for store_artifacts",
        (_, _, true) => "already has it",
        _ => "stored",
    };
    format!("{}: {} {how}\n", done.store, done.release)
}

/// The id, or a dash.
fn id_or_dash(id: Option<&ReleaseId>, style: Style) -> String {
    id.map_or_else(|| "-".to_owned(), |id| style.id(id).to_owned())
}

pub fn outcome(outcome: &Outcome, style: Style) -> String {
    let release = id_or_dash(outcome.release.as_ref(), style);
    let env = &outcome.env;
    if outcome.nothing_to_do() {
        return match outcome.verb {
            Verb::Prune => format!("{env}: nothing to prune\n"),
            _ if outcome.dry_run => format!("{env}: nothing to do\n"),
            _ => format!("{env} already runs {release}: nothing to do\n"),
        };
    }
    if !outcome.dry_run {
        return match outcome.verb {
            Verb::Prune => format!("{env}: {}\n", style.good("pruned")),
            Verb::Rollback => format!("{env}: {} to {release}\n", style.good("rolled back")),
            _ => format!("{env}: {release} is {}\n", style.good("live")),
        };
    }
    let mut out = String::new();
    for host in &outcome.targets {
        let _ = writeln!(out, "{}", style.strong(&host.target));
        for (n, step) in host.steps.iter().enumerate() {
            let _ = writeln!(out, "  {}. {}", n + 1, style.ids(&step.to_string()));
        }
        if host.steps.is_empty() {
            out.push_str("  nothing to do\n");
        } else if outcome.verb != Verb::Prune {
            let back = match (&host.fallback, &host.replaces) {
                (Some(release), _) => style.id(release).to_owned(),
                (None, Some(link)) => format!("`current` -> {link}, which another tool made"),
                (None, None) => "nothing: there is no healthy release yet".into(),
            };
            let _ = writeln!(out, "  on failure: revert to {back}");
        }
    }
    if outcome.verb != Verb::Prune {
        let health = outcome.health.as_deref().unwrap_or("none: a service that has started is healthy");
        let _ = writeln!(out, "health check: {health}");
    }
    out
}

fn controlled(done: &Controlled, style: Style) -> String {
    let how = match (done.verb, done.dry_run) {
        (Verb::Stop, false) => "stopped",
        (Verb::Stop, true) => "would be stopped",
        (Verb::Start, false) => "started",
        (Verb::Start, true) => "would be started",
        (_, false) => "restarted",
        (_, true) => "would be restarted",
    };
    let is = if done.verb == Verb::Stop { "does not run" } else { "runs already" };
    let line = |host: &ControlledHost| {
        let end = if host.changed { style.good(how) } else { format!("{is}: nothing to do") };
        format!("{}: the service of {} {end}\n", host.target, style.id(&host.release))
    };
    done.targets.iter().map(line).collect()
}

/// What the hosts of an env show together: that they differ, or that the last change failed.
fn of_envs(hosts: &[HostStatus], style: Style) -> Vec<String> {
    let mut notes = Vec::new();
    for of_env in hosts.chunk_by(|a, b| a.env == b.env) {
        let env = &of_env[0].env;
        let mut live: Vec<_> = of_env.iter().filter_map(|host| host.release.as_ref()).collect();
        live.sort();
        live.dedup();
        if live.len() > 1 {
            notes.push(format!(
                "{env}: its hosts run different releases; `cargo xtask deploy {env} RELEASE` ends that\n"
            ));
        }
        if let Some(id) = of_env.iter().find_map(|host| host.failed.as_ref()) {
            let id = style.id(id);
            notes.push(format!("{env}: the last change, to {id}, FAILED; see `cargo xtask history {env}`\n"));
        }
    }
    notes
}

fn status(hosts: &[HostStatus], style: Style, now: Timestamp) -> String {
    let heading =
        ["ENV", "TARGET", "STATE", "RELEASE", "SINCE", "BY", "PREVIOUS", "SERVICE"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    let mut notes = String::new();
    let urls: Vec<_> = hosts.iter().map(|host| host.target.clone()).collect();
    let names = if style.is_terminal() { short_names(&urls) } else { urls };
    for (host, name) in hosts.iter().zip(names) {
        rows.push(vec![
            host.env.clone(),
            name.clone(),
            host.state.to_owned(),
            id_or_dash(host.release.as_ref(), style),
            host.since.map_or("-".into(), |at| style.time(at, now)),
            host.by.clone().unwrap_or_else(|| "-".into()),
            id_or_dash(host.previous.as_ref(), style),
            host.service.unwrap_or("-").to_owned(),
        ]);
        if let Some(who) = &host.locked_by {
            let _ = writeln!(notes, "{name} is locked by {}", visible(who));
        }
        let env = &host.env;
        let _ = match (host.state, host.service) {
            _ if host.locked_by.is_some() => Ok(()),
            ("switch not finished", _) => writeln!(
                notes,
                "{name}: the last deploy or rollback did not end, so files of several releases are served; run it again, or deploy any release: every file is written again"
            ),
            ("unconfirmed", _) => writeln!(
                notes,
                "{name}: the last deploy did not finish; deploy again, or run `cargo xtask rollback {env}`"
            ),
            ("live", Some("stopped")) => writeln!(
                notes,
                "{name}: its service is stopped; see `cargo xtask logs {env}`, or run `cargo xtask start {env}`"
            ),
            ("live", Some("ends at logout")) => writeln!(
                notes,
                "{name}: systemd stops its service when the login ends; run `loginctl enable-linger LOGIN` as root of that host (`cargo xtask doctor {env}` prints the login)"
            ),
            ("live", Some("unknown")) => {
                writeln!(notes, "{name}: systemd does not answer; see `cargo xtask doctor {env}`")
            }
            _ => Ok(()),
        };
    }
    notes.extend(of_envs(hosts, style));
    let subjects = hosts.iter().filter_map(|host| Some((host.release.as_ref()?, host.subject.as_deref()?)));
    let width = style.width.unwrap_or(usize::MAX);
    let notes: String = notes.lines().map(|note| wrapped(note, width).join("\n") + "\n").collect();
    table(style, &rows) + &notes + &legend(subjects.collect(), style)
}

/// A line for each release: what its commit is about.
fn legend(subjects: BTreeMap<&ReleaseId, &str>, style: Style) -> String {
    let room = style.width.unwrap_or(usize::MAX);
    let line = |(id, subject): (&ReleaseId, &str)| {
        format!("{}\n", style.dim(&clipped(&format!("{}  {}", style.id(id), visible(subject)), room)))
    };
    subjects.into_iter().rev().map(line).collect()
}

fn histories(hosts: &[HostHistory], style: Style, now: Timestamp) -> String {
    let tables: Vec<_> = hosts.iter().map(|host| history(host, style, now)).collect();
    let subjects = hosts.iter().flat_map(|host| &host.subjects).map(|(id, subject)| (id, subject.as_str()));
    tables.join("\n") + &legend(subjects.collect(), style)
}

fn history(host: &HostHistory, style: Style, now: Timestamp) -> String {
    let mut rows = vec![["WHEN", "WHAT", "RELEASE", "FROM", "BY", "REASON"].map(str::to_owned).to_vec()];
    for record in &host.records {
        let event = match record.event {
            HistoryEvent::Installed => "installed",
            HistoryEvent::Switched => "switched",
            HistoryEvent::Live => "live",
            HistoryEvent::Failed => "FAILED",
            HistoryEvent::Restored => "restored",
            HistoryEvent::Removed => "removed",
            HistoryEvent::Started => "started",
            HistoryEvent::Stopped => "stopped",
            HistoryEvent::Restarted => "restarted",
        };
        let job = record.ci.as_ref().map(|ci| format!(", job {}", ci.job)).unwrap_or_default();
        let reason = record.reason.as_deref().unwrap_or_default().replace('\n', " ");
        // The table already names the target.
        let reason = reason.strip_prefix(&format!("{}: ", host.target)).unwrap_or(&reason).to_owned();
        rows.push(vec![
            style.time(record.at, now),
            format!("{} ({})", event, record.verb.as_str()),
            id_or_dash(record.release.as_ref(), style),
            id_or_dash(record.from.as_ref(), style),
            format!("{}{job}", record.by),
            style.ids(&reason),
        ]);
    }
    let torn =
        if host.unreadable > 0 { format!("{} torn line(s) were skipped\n", host.unreadable) } else { String::new() };
    format!("{}\n{}{torn}", style.strong(&host.target), table(style, &rows))
}

fn releases(listed: &[Listed], style: Style, now: Timestamp) -> String {
    if listed.is_empty() {
        return "no releases yet; build one with `cargo xtask build`\n".into();
    }
    let mut rows = vec![["RELEASE", "BRANCH", "COMMITTED", "SIZE", "LIVE IN", "KEPT BY"].map(str::to_owned).to_vec()];
    for it in listed {
        rows.push(vec![
            style.id(&it.release).to_owned(),
            it.branch.clone().unwrap_or_else(|| "-".into()),
            style.time(it.time, now),
            bytes(it.bytes),
            if it.live_in.is_empty() { "-".into() } else { it.live_in.join(", ") },
            it.stores.join(", "),
        ]);
    }
    let subjects = listed.iter().filter_map(|it| Some((&it.release, it.subject.as_deref()?)));
    table(style, &rows) + &legend(subjects.collect(), style)
}

fn diff(diff: &Diff, style: Style) -> String {
    if diff.live == diff.candidate {
        return format!("{} runs {} already\n", diff.env, style.id(&diff.live));
    }
    let mut out = format!("{}: {} -> {}\n", diff.env, style.id(&diff.live), style.strong(style.id(&diff.candidate)));
    let mut files = |sign: &str, changes: &[FileChange]| {
        for change in changes {
            let _ = writeln!(out, "  {sign} {}  {} -> {}", change.path, bytes(change.from), bytes(change.to));
        }
    };
    files("+", &diff.added);
    files("-", &diff.removed);
    files("~", &diff.changed);
    let (added, removed, changed) = (diff.added.len(), diff.removed.len(), diff.changed.len());
    let _ = writeln!(
        out,
        "{added} added, {removed} removed, {changed} changed; {} -> {}",
        bytes(diff.bytes.0),
        bytes(diff.bytes.1)
    );
    for (title, commits) in [("commits added", &diff.commits), ("commits removed", &diff.lost_commits)] {
        match commits {
            Some(commits) if !commits.is_empty() => {
                let _ = writeln!(out, "{title}:");
                for commit in commits {
                    let _ = writeln!(out, "  {}", visible(commit));
                }
            }
            _ => {}
        }
    }
    if diff.commits.is_none() {
        out.push_str("commits: unknown, because this checkout lacks one of the two\n");
    }
    out
}

fn lock(state: &LockState) -> String {
    match (&state.held_by, state.unlocked) {
        (None, _) => format!("{}: not locked\n", state.target),
        (Some(who), false) => format!("{}: locked by {}\n", state.target, visible(who)),
        (Some(who), true) => format!("{}: removed the lock of {who}\n", state.target),
    }
}

#[cfg(test)]
mod tests;
