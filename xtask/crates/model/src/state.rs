//! The state of a target, as the host reports it in one round trip.

use crate::error::Result;
use crate::history::History;
use crate::owner::Owner;
use crate::release::id::ReleaseId;
use std::collections::BTreeMap;

/// The state of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// What is at its path.
    pub root: Root,
    /// Where `current` points.
    pub current: Current,
    /// Whether a switch has begun and not ended: what is served may be of several releases. Only of a site, because a
    /// host switches a link.
    pub unfinished: bool,
    /// Name of the app that the live release belongs to.
    pub app: Option<String>,
    /// Installed releases, each with the digest of its bundle.
    pub installed: BTreeMap<ReleaseId, String>,
    /// Number of unfinished directories left by interrupted runs.
    pub debris: usize,
    /// The lock.
    pub lock: Lock,
    /// The managed service.
    pub service: ServiceState,
    /// The old link target of a `current` that an unfinished deploy took over from another tool.
    pub taken_over: Option<String>,
    /// Digest of the variables with which a command service was last healthy.
    pub vars: Option<String>,
    /// The history.
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
    /// A file, or a dangling link.
    NotADirectory,
}

/// Where `current` points.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Current {
    /// There is no such link.
    #[default]
    None,
    /// At a release.
    Release(ReleaseId),
    /// At something that is not a release of this tool.
    Foreign(String),
    /// A file or directory in place of the link.
    NotALink,
}

/// The state of the lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Lock {
    /// No owner.
    #[default]
    Free,
    /// Held by an owner.
    Held(Box<Owner>),
    /// The lock file has unknown content.
    Unreadable(String),
}

/// What only one deploy at a time may hold: a target, or an env in a store.
pub trait Lockable {
    /// The URL, for messages.
    fn url(&self) -> &str;
    /// The current lock.
    fn holder(&self) -> Result<Lock>;
    /// Takes the lock; returns `Free` on success, else the current lock.
    fn lock(&self, owner: &Owner) -> Result<Lock>;
    /// Takes the lock, held by `seen`, from `dead`: the same owner, or one that died during its own takeover.
    fn take_over(&self, owner: &Owner, seen: &Owner, dead: &Owner) -> Result<Lock>;
    /// Removes the lock with this token; without a token, any lock.
    fn unlock(&self, token: Option<&str>) -> Result<()>;
    /// Renews the lease of our lock. A failure is ignored, because the next renewal follows soon. A no-op where leases
    /// are not used.
    fn renew(&self) {}
}

/// The state of a pidfile service or a systemd unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ServiceState {
    /// Never started.
    #[default]
    None,
    /// Stopped.
    Stopped,
    /// Running, but its unit was changed after the install or is not enabled at boot.
    Drifted,
    /// Running without a record of how it was started, because a deploy was killed or a crash lost the record.
    Unrecorded,
    /// Running, but systemd stops it when the last session of its login ends.
    OfSession,
    /// Starting, stopping, or waiting for a restart after a crash.
    Starting,
    /// The service manager does not answer.
    Unknown,
    /// Running.
    Running {
        /// Digest of the spec it was started with.
        spec: String,
        /// The release it was started from; not the live one if a deploy was killed in between.
        release: ReleaseId,
    },
}

impl State {
    /// Parses the output of [`crate::script::state`]; skips unknown lines.
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

    /// The live release, if installed and healthy when last checked.
    pub fn confirmed_live(&self) -> Option<&ReleaseId> {
        self.live().filter(|id| !self.unfinished && self.history.confirmed(id) && self.installed.contains_key(*id))
    }
}

/// The release that a link in the directory `root` points at, in any spelling: `releases/ID`, `./releases/ID/` or an
/// absolute path.
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
    /// The same lock with the seconds since its last renewal.
    #[must_use]
    pub fn seconds_since_renewal(self, seconds: &str) -> Self {
        match self {
            Self::Held(owner) => {
                Self::Held(Box::new(Owner { seconds_since_renewal: seconds.trim().parse().ok(), ..*owner }))
            }
            other => other,
        }
    }

    /// Parses the content of a lock file.
    pub fn parse(text: &str) -> Self {
        match serde_json::from_str::<Owner>(text) {
            // The token becomes part of commands, so only one of our alphabet is accepted.
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
    fn parse_of_report_gives_the_state() {
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
