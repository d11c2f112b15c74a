//! What a target is like now, as it reported it in one round trip.

use crate::deploy::history::History;
use crate::error::Result;
use crate::owner::Owner;
use crate::release::id::ReleaseId;
use std::collections::BTreeMap;

/// A target as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// What is at its path.
    pub root: Root,
    /// Where `current` points.
    pub current: Current,
    /// Name of the app whose release is live.
    pub app: Option<String>,
    /// Installed releases, each with the digest of the bundle that it came from.
    pub installed: BTreeMap<ReleaseId, String>,
    /// How many half done directories interrupted runs have left.
    pub debris: usize,
    /// Who has the lock.
    pub lock: Lock,
    /// The kept process.
    pub service: ServiceState,
    /// What `current` pointed to before an unfinished deploy took the root over from another tool.
    pub taken_over: Option<String>,
    /// Digest of the variables with which a service of commands was healthy last.
    pub vars: Option<String>,
    /// What happened.
    pub history: History,
}

/// What is at the path of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Root {
    /// Nothing yet.
    #[default]
    Absent,
    /// A directory.
    Directory,
    /// A file, or a link to nowhere.
    NotADirectory,
}

/// Where `current` points.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Current {
    /// There is no such link.
    #[default]
    None,
    /// To a release.
    Release(ReleaseId),
    /// To something that is no release of ours.
    Foreign(String),
    /// It is a file or a directory that somebody made by hand.
    NotALink,
}

/// The state of the lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Lock {
    /// Nobody has it.
    #[default]
    Free,
    /// Somebody has it.
    Held(Box<Owner>),
    /// The file is there, but says nothing that we understand.
    Unreadable(String),
}

/// What only one deploy at a time may hold: a target, or an env as a store knows it.
pub trait Lockable {
    /// What it is, for people.
    fn url(&self) -> &str;
    /// Who has the lock now.
    fn holder(&self) -> Result<Lock>;
    /// Takes the lock, or says who has it.
    fn lock(&self, owner: &Owner) -> Result<Lock>;
    /// Takes the lock, which `seen` has, from `dead`: the same owner, or one who died while it took over itself.
    fn take_over(&self, owner: &Owner, seen: &Owner, dead: &Owner) -> Result<Lock>;
    /// Removes the lock if it is that of this token; without one, whatever is there.
    fn unlock(&self, token: Option<&str>) -> Result<()>;
    /// Says that we, who have the lock, are at work. It may fail seconds_since_renewal: the next time it may not. Where nobody is judged
    /// by that, nothing is said.
    fn renew(&self) {}
}

/// The process of the pidfile service, or the unit of systemd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ServiceState {
    /// There never was one.
    #[default]
    None,
    /// It does not run.
    Stopped,
    /// It runs, and its unit is no longer the one that was installed, or would not be started at boot.
    Drifted,
    /// It runs, and the host has no record of how it was started: a deploy ended in between, or a crash lost it.
    Unrecorded,
    /// It runs, and systemd stops it when the last session of its login ends.
    OfSession,
    /// systemd starts it, or waits before it starts it again after a crash, or stops it.
    Starting,
    /// Its manager does not answer.
    Unknown,
    /// It runs.
    Running {
        /// Digest of the spec that it was started with.
        spec: String,
        /// The release that it was started from, which is not the live one when a deploy was killed in between.
        release: ReleaseId,
    },
}

impl State {
    /// Reads what [`crate::host::script::state`] prints. Lines that mean nothing are passed over.
    pub fn parse(text: &str) -> Self {
        let mut state = Self::default();
        let (mut rest, mut root, mut resolved) = (text, "", "");
        while let Some((line, after)) = rest.split_once('\n') {
            rest = after;
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "root" => (state.root, root) = (Root::Directory, value),
                "resolved" => resolved = value,
                "not-a-directory" => state.root = Root::NotADirectory,
                "current" => {
                    let id = pointed_at(value, root).or_else(|| pointed_at(resolved, root));
                    state.current = id.map_or_else(|| Current::Foreign(value.to_owned()), Current::Release);
                }
                "current-blocked" => state.current = Current::NotALink,
                "release" => {
                    if let Some((id, sum)) = value.split_once(' ').and_then(|(id, sum)| Some((id.parse().ok()?, sum))) {
                        state.installed.insert(id, sum.to_owned());
                    }
                }
                "debris" => state.debris += 1,
                "app" => state.app = Some(value.to_owned()),
                "lock" => state.lock = Lock::parse(value),
                "seconds_since_renewal" => state.lock = std::mem::take(&mut state.lock).seconds_since_renewal(value),
                "service" => state.service = ServiceState::parse(value),
                "taken-over" => state.taken_over = Some(value.to_owned()),
                "vars" => state.vars = Some(value.to_owned()),
                "history" => {
                    state.history = History::parse(rest);
                    break;
                }
                _ => {}
            }
        }
        state
    }

    /// The release that `current` points at.
    pub fn live(&self) -> Option<&ReleaseId> {
        match &self.current {
            Current::Release(id) => Some(id),
            _ => None,
        }
    }

    /// The release that is live, healthy when last seen, and installed.
    pub fn confirmed_live(&self) -> Option<&ReleaseId> {
        self.live().filter(|id| self.history.confirmed(id) && self.installed.contains_key(*id))
    }
}

/// The release that a link in the directory `root` points at, however it was written by hand: `releases/ID`,
/// `./releases/ID/`, or with the whole path.
fn pointed_at(link: &str, root: &str) -> Option<ReleaseId> {
    let below = link.strip_prefix(root).and_then(|rest| rest.strip_prefix('/'));
    let inside = below.filter(|_| !root.is_empty()).map_or(link, |rest| rest.trim_start_matches('/'));
    let mut parts = inside.split('/').filter(|part| !matches!(*part, "" | "."));
    let (releases, id) = (parts.next()?, parts.next()?);
    (releases == "releases" && parts.next().is_none() && (inside != link || !link.starts_with('/')))
        .then(|| id.parse().ok())?
}

impl ServiceState {
    fn parse(text: &str) -> Self {
        let running = text.strip_prefix("running ").and_then(|rest| rest.split_once(' '));
        match running.and_then(|(spec, release)| Some((spec, release.parse().ok()?))) {
            Some((spec, release)) => Self::Running { spec: spec.to_owned(), release },
            None => match text {
                "drifted" => Self::Drifted,
                "unrecorded" => Self::Unrecorded,
                "of-session" => Self::OfSession,
                "starting" => Self::Starting,
                "unknown" => Self::Unknown,
                _ => Self::Stopped,
            },
        }
    }
}

impl Lock {
    /// The same, not renewed for so many seconds, if any.
    #[must_use]
    pub fn seconds_since_renewal(self, seconds: &str) -> Self {
        match self {
            Self::Held(owner) => {
                Self::Held(Box::new(Owner { seconds_since_renewal: seconds.trim().parse().ok(), ..*owner }))
            }
            other => other,
        }
    }

    /// Reads the content of a lock file.
    pub fn parse(text: &str) -> Self {
        match serde_json::from_str::<Owner>(text) {
            // The token goes into commands; one that we did not make is nobody's.
            Ok(owner) if owner.token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
                Self::Held(Box::new(owner))
            }
            _ => Self::Unreadable(text.trim().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let state = State::parse(
            "root\ncurrent releases/20260801T000000-0000001\napp shop\nrelease 20260801T000000-0000001 abc\nrelease junk abc\n\
             debris\nlock nonsense\nservice running d1 20260801T000000-0000001\nhistory\ntorn\n",
        );
        assert_eq!(state.root, Root::Directory);
        assert_eq!(state.live().unwrap().as_str(), "20260801T000000-0000001");
        assert_eq!(state.app.as_deref(), Some("shop"));
        assert_eq!((state.installed.len(), state.debris, state.history.unreadable), (1, 1, 1));
        assert_eq!(state.lock, Lock::Unreadable("nonsense".into()));
        let release = "20260801T000000-0000001".parse().unwrap();
        assert_eq!(state.service, ServiceState::Running { spec: "d1".into(), release });
        assert_eq!(state.confirmed_live(), None);
    }

    #[test]
    fn links_made_by_hand_are_understood() {
        let id = "20260801T000000-0000001";
        for link in [
            "releases/ID",
            "releases/ID/",
            "./releases/ID",
            ".//releases//ID/.",
            "/srv/app/releases/ID",
            "/srv/app/./releases/ID/",
        ] {
            let state = State::parse(&format!("root /srv/app\ncurrent {}\n", link.replace("ID", id)));
            assert_eq!(state.live().map(ReleaseId::as_str), Some(id), "{link}");
        }
        for link in [
            "/releases/ID",
            "../releases/ID",
            "releases/ID/www",
            "/srv/apple/releases/ID",
            "/srv/appreleases/ID",
            "/srv/app",
            "releases",
            "releases/20240101000000",
        ] {
            let link = link.replace("ID", id);
            let state = State::parse(&format!("root /srv/app\ncurrent {link}\n"));
            assert_eq!(state.current, Current::Foreign(link));
        }
    }

    #[test]
    fn odd_targets() {
        assert_eq!(State::parse("absent\n"), State::default());
        assert_eq!(State::parse("not-a-directory\n").root, Root::NotADirectory);
        assert_eq!(State::parse("root\ncurrent-blocked\n").current, Current::NotALink);
        assert_eq!(State::parse("root\ncurrent /var/www\n").current, Current::Foreign("/var/www".into()));
        assert_eq!(State::parse(""), State::default());
    }
}
