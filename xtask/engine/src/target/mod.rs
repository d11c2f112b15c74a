//! Where releases go live: one role, few methods, each a whole thing.

pub mod host;
pub mod script;
pub mod ssh;

use crate::cx::{Answer, Cx};
use crate::deploy::history::Record;
use crate::deploy::state::{Lockable, State};
use crate::error::{Result, usage};
use crate::event::Stream;
use crate::http::Url;
use crate::project::{self, Env};
use crate::release::Release;
use crate::release::id::ReleaseId;
use crate::release::manifest::Manifest;
use crate::service::Script;
use crate::target::ssh::Address;

/// A release on its way to a host.
pub enum Delivery<'a> {
    /// Its bytes are here, and are sent.
    Push(&'a Release),
    /// The host fetches the bundle by this URL, which is a secret, and checks all of it against the manifest.
    Pull(&'a Manifest, Url),
}

impl Delivery<'_> {
    /// What it must be when it has arrived.
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::Push(release) => release.manifest(),
            Self::Pull(manifest, _) => manifest,
        }
    }
}

/// A place that holds releases and makes one of them live.
///
/// Every method either did all of what it says or changed nothing that `state` shows, and may be repeated. The
/// contract suite in `tests/it/target.rs` says so for each implementation.
pub trait Target: Lockable + Sync {
    /// Its directory, as its host names it.
    fn root(&self) -> &str;
    /// The name or address of its host, as it is reached from here.
    fn host(&self) -> &str;
    /// Everything that a plan needs, in one round trip.
    fn state(&self) -> Result<State>;
    /// Puts a release on the target, verified there, without making it live. The record goes into the history.
    fn install(&self, delivery: &Delivery, record: &Record) -> Result<()>;
    /// Makes an installed release live in one atomic step; `None` makes nothing live. A record that cannot be written
    /// first keeps the step from being taken.
    fn activate(&self, release: Option<&ReleaseId>, record: Option<&Record>) -> Result<()>;
    /// Appends to the history.
    fn record(&self, record: &Record) -> Result<()>;
    /// Removes releases, never the live one, and what interrupted runs left.
    fn remove(&self, releases: &[ReleaseId], record: &Record) -> Result<()>;
    /// The manifest of an installed release.
    fn manifest(&self, release: &ReleaseId) -> Result<Manifest>;
    /// Checks the files of an installed release; gives those that differ.
    fn verify(&self, release: &ReleaseId) -> Result<Vec<String>>;
    /// Runs a script of a service or a health check.
    fn run(&self, script: &Script) -> Result<Answer>;
    /// Runs a script, under no lock, and hands over its lines as they come. Gives its exit code, or `None` when `stop`
    /// said that it is enough: then nothing of it runs there any more.
    fn attend(
        &self,
        script: &Script,
        heard: &mut dyn FnMut(Stream, String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<i32>>;
}

/// Opens every target of an env. Needs none of the variables that its service does.
pub fn open_all<'cx>(cx: &'cx Cx, env: &Env) -> Result<Vec<Box<dyn Target + 'cx>>> {
    env.targets.iter().map(|url| open(cx, url)).collect()
}

/// Opens a target by its URL.
pub fn open<'cx>(cx: &'cx Cx, url: &str) -> Result<Box<dyn Target + 'cx>> {
    match url.split_once(':') {
        Some(("file", dir)) if !dir.is_empty() => {
            Ok(Box::new(host::HostTarget::local(cx, url, &project::local_dir(&cx.home, dir))))
        }
        Some(("ssh", _)) => Ok(Box::new(host::HostTarget::remote(cx, url, Address::parse(url)?))),
        _ => usage(format!("`{url}` is not the URL of a target"))
            .hint("use ssh://USER@HOST/DIR, or file:DIR, e.g. file:target/deploy/dev")
            .err(),
    }
}
