//! The steps of a deploy as lines: a heading, then what each host has done. Events in, text out.

use crate::report::progress_table::{short_names, verb};
use crate::report::style::{Style, clipped, duration, visible};
use gangplank_model::event::{Event, Stage};
use gangplank_model::history::Verb;
use gangplank_model::release::id::ReleaseId;
use std::collections::BTreeMap;

/// The width of a list of hosts; a longer one ends with the number of the others.
const NAMES_MAX: usize = 40;
/// The width of what was done.
const DONE: usize = 20;

/// Makes the lines. Hosts that did the same in a stage share a line.
pub struct StepLines {
    style: Style,
    /// Short names by URL.
    names: BTreeMap<String, String>,
    /// Number of hosts that take part in this stage.
    hosts: usize,
    groups: Vec<Group>,
}

/// Hosts that did the same.
struct Group {
    done: String,
    hosts: Vec<String>,
    /// The longest of them.
    ms: u64,
}

impl StepLines {
    /// No deploy yet.
    pub fn new(style: Style) -> Self {
        Self { style, names: BTreeMap::new(), hosts: 0, groups: Vec::new() }
    }

    /// The lines of an event, perhaps none yet; `None` for an event of another kind.
    pub fn take(&mut self, event: &Event) -> Option<Vec<String>> {
        Some(match event {
            Event::Started { verb, env, release, replaced, subject } => {
                let short = |id: &ReleaseId| self.style.id(id).to_owned();
                let release = release.as_ref().map(short);
                let replaced: Vec<_> = replaced.iter().map(short).collect();
                let mut lines = vec![self.style.strong(&heading(*verb, env, release.as_deref(), &replaced))];
                let room = self.style.width.unwrap_or(usize::MAX).saturating_sub(2);
                lines.extend(subject.as_ref().map(|it| self.style.dim(&format!("  {}", clipped(&visible(it), room)))));
                lines
            }
            Event::Stage { stage, targets, .. } => {
                let mut lines = self.flush();
                if *stage == Stage::Install {
                    self.names = targets.iter().cloned().zip(short_names(targets)).collect();
                }
                self.hosts = targets.len();
                if *stage == Stage::Reverted {
                    lines.push(format!("  {}", self.style.warn("reverting")));
                }
                lines
            }
            Event::StepEnded { target, step, ms, ok: true } => self.ended(target, step, *ms),
            Event::StepEnded { target, step, ms, ok: false } => {
                let mut lines = self.flush();
                let hosts = [self.name(target)];
                lines.push(self.line(Style::bad, "failed", &hosts, &self.style.ids(step), *ms));
                lines
            }
            _ => return None,
        })
    }

    /// The lines of what is not printed yet, before a line of something else.
    pub fn flush(&mut self) -> Vec<String> {
        let groups = std::mem::take(&mut self.groups);
        groups.iter().map(|it| self.line(Style::good, "ok", &it.hosts, &it.done, it.ms)).collect()
    }

    fn ended(&mut self, target: &str, step: &str, ms: u64) -> Vec<String> {
        let (done, host) = (done(step), self.name(target));
        match self.groups.iter_mut().find(|group| group.done == done) {
            Some(group) => {
                group.hosts.push(host);
                group.ms = group.ms.max(ms);
            }
            None => self.groups.push(Group { done, hosts: vec![host], ms }),
        }
        // The last host of a stage prints the line, and a host alone prints each of its own.
        let whole = self.groups.iter().all(|group| group.hosts.len() >= self.hosts);
        if whole { self.flush() } else { vec![] }
    }

    fn name(&self, target: &str) -> String {
        self.names.get(target).cloned().unwrap_or_else(|| short_names(&[target.to_owned()]).concat())
    }

    fn line(&self, paint: fn(Style, &str) -> String, mark: &str, hosts: &[String], done: &str, ms: u64) -> String {
        let names = if self.names.len() == 1 { String::new() } else { format!("{}  ", joined(hosts)) };
        let pad = " ".repeat(6_usize.saturating_sub(mark.len()));
        let time = self.style.dim(&format!("{:>9}", duration(ms)));
        format!("  {}{pad}  {}{:<DONE$}  {time}", paint(self.style, mark), visible(&names), visible(done))
    }
}

/// `deploy 1a2b3c4 to prod, which runs 5d6e7f8`
fn heading(verb: Verb, env: &str, release: Option<&str>, replaced: &[String]) -> String {
    let now = match replaced {
        [] => String::new(),
        some => format!(", which runs {}", some.join(" and ")),
    };
    match (verb, release) {
        (Verb::Rollback, Some(release)) if replaced.is_empty() => format!("roll back {env} to {release}"),
        (Verb::Rollback, Some(release)) => format!("roll back {env} from {} to {release}", replaced.join(" and ")),
        (Verb::Deploy | Verb::Promote, Some(release)) => format!("{} {release} to {env}{now}", verb.as_str()),
        _ => format!("{} {env}", verb.as_str()),
    }
}

/// What a step has done, in one or two words.
fn done(step: &str) -> String {
    match verb(step) {
        (_, Some(done)) if step.contains(", restart the service") => format!("{done}, restarted"),
        (_, Some(done)) => done.to_owned(),
        (running, None) => running,
    }
}

/// `web1 web2 web3 and 7 others`
fn joined(hosts: &[String]) -> String {
    let mut names = String::new();
    for (n, host) in hosts.iter().enumerate() {
        if n > 0 && names.chars().count() + host.chars().count() > NAMES_MAX {
            return format!("{names} and {} others", hosts.len() - n);
        }
        let gap = if n == 0 { "" } else { " " };
        names = format!("{names}{gap}{host}");
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const OLD: &str = "20260822T091500-5d6e7f8";
    const NEW: &str = "20260822T101500-1a2b3c4";

    fn stage(stage: Stage, hosts: usize) -> Event {
        let targets = (1..=hosts).map(|n| format!("ssh://deploy@web{n}.example.com/srv/shop")).collect();
        Event::Stage { stage, wave: 1, waves: 1, targets }
    }

    fn step(host: usize, step: &str, ms: u64, ok: bool) -> Event {
        Event::StepEnded { target: format!("ssh://deploy@web{host}.example.com/srv/shop"), step: step.into(), ms, ok }
    }

    fn started(verb: Verb, replaced: &[&str]) -> Event {
        let replaced = replaced.iter().map(|id| id.parse().unwrap()).collect();
        let subject = Some("Prices are in euros, and the cart remembers them for a week".to_owned());
        Event::Started { verb, env: "prod".into(), release: Some(NEW.parse().unwrap()), replaced, subject }
    }

    fn check(width: Option<usize>, events: &[Event], want: &Expect) {
        let mut lines = StepLines::new(Style { width, ..Style::PLAIN });
        let mut text: Vec<_> = events.iter().flat_map(|event| lines.take(event).unwrap()).collect();
        text.extend(lines.flush());
        want.assert_eq(&(text.join("\n") + "\n"));
    }

    #[test]
    fn deploy_to_one_host_is_a_heading_and_a_line_a_step() {
        let activate = format!("activate {NEW} (was {OLD}), restart the service with {NEW}");
        let events = [
            started(Verb::Deploy, &[OLD]),
            stage(Stage::Install, 1),
            step(1, &format!("install {NEW}"), 1200, true),
            stage(Stage::Switch, 1),
            step(1, &activate, 86, true),
            step(1, &format!("check the health of {NEW}"), 285, true),
            step(1, "run the hook notify", 3, true),
            stage(Stage::Finalize, 1),
            step(1, &format!("record that {NEW} is live"), 17, true),
            stage(Stage::Done, 1),
        ];
        check(
            Some(40),
            &events,
            &expect![[r"
            deploy 1a2b3c4 to prod, which runs 5d6e7f8
              Prices are in euros, and the cart rem…
              ok      installed                 1.2 s
              ok      switched, restarted       86 ms
              ok      healthy                  285 ms
              ok      hook notify                3 ms
              ok      live                      17 ms
        "]],
        );
    }

    #[test]
    fn hosts_that_did_the_same_share_a_line() {
        let mut events = vec![started(Verb::Rollback, &[]), stage(Stage::Install, 3)];
        events.extend([2, 1, 3].map(|host| step(host, &format!("install {NEW}"), 1000 + host as u64, true)));
        events.push(stage(Stage::Switch, 3));
        for host in 1..=3 {
            events.push(step(host, &format!("activate {NEW} (first release)"), 40, true));
            events.push(step(host, &format!("check the health of {NEW}"), 5000, host != 3));
        }
        events.extend([stage(Stage::Reverted, 3), step(1, &format!("activate {OLD} (was {NEW})"), 30, true)]);
        check(
            Some(100),
            &events,
            &expect![[r"
            roll back prod to 1a2b3c4
              Prices are in euros, and the cart remembers them for a week
              ok      web2 web1 web3  installed                 1.0 s
              ok      web1 web2 web3  switched                  40 ms
              ok      web1 web2  healthy                   5.0 s
              failed  web3  check the health of 1a2b3c4      5.0 s
              reverting
              ok      web1  switched                  30 ms
        "]],
        );
    }

    #[test]
    fn long_list_of_hosts_ends_with_their_number() {
        let hosts: Vec<_> = (1..=30).map(|n| format!("web{n}")).collect();
        assert_eq!(joined(&hosts), "web1 web2 web3 web4 web5 web6 web7 web8 and 22 others");
        assert_eq!(joined(&hosts[..1]), "web1");
    }
}
