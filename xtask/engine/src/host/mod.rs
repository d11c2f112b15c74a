//! Where releases go live: one role, few methods, each a whole thing.

pub mod directory;
pub mod entries;
pub mod frame;
pub mod script;
pub mod sequence;
pub mod ssh;
pub mod through;
mod transport;

use crate::context::{Context, Output};
use crate::deploy::history::Record;
use crate::deploy::state::{Lockable, State};
use crate::error::Result;
use crate::event::Stream;
use crate::host::ssh::Address;
use crate::http::Url;
use crate::release::Release;
use crate::release::delta::Changes;
use crate::release::id::ReleaseId;
use crate::release::manifest::Manifest;
use crate::service::Script;

/// A release on its way to a host.
pub enum Delivery<'a> {
    /// Its bytes are here, and are sent.
    Push(&'a Release, &'a Changes),
    /// The host fetches the bundle by this URL, which is a secret. It unpacks it only when its digest is that of the bundle
    /// that was checked here.
    Pull(&'a Release, Url),
}

impl Delivery<'_> {
    /// What it must be when it has arrived.
    pub fn release(&self) -> &Release {
        match self {
            Self::Push(release, _) | Self::Pull(release, _) => release,
        }
    }
}

/// One thing to do on a target.
#[derive(Clone, Copy)]
pub enum Operation<'a> {
    /// Runs a script of a service or a health check.
    Run(&'a Script),
    /// Fails with code [`script::EXIT_VERIFICATION`] where an entry of a release is missing or is not what was installed.
    /// Answers with the entries that are extra.
    VerifyFiles(&'a ReleaseId),
    /// Makes an installed release live in one atomic step; `None` makes nothing live. A record that cannot be written
    /// first keeps the step from being taken.
    Activate(Option<&'a ReleaseId>, Option<&'a Record>),
    /// Appends to the history.
    Record(&'a Record),
    /// Removes releases, never the live one, and what interrupted runs left. The record goes into the history.
    Remove(&'a [ReleaseId], &'a Record),
    /// Gives up the lock that is held through this value.
    Unlock,
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
    /// Whether somebody means it by `name`: its URL, or its host.
    fn is_called(&self, name: &str) -> bool {
        [self.url(), self.host()].contains(&name)
    }
    /// Makes ready for being spoken to. That it cannot be reached is said by whatever is said to it next.
    fn reach(&self) {}
    /// Everything that a plan needs, in one round trip.
    fn state(&self) -> Result<State>;
    /// Puts a release on the target, verified there, without making it live. The record goes into the history.
    fn install(&self, delivery: &Delivery, record: &Record) -> Result<()>;
    /// Does several things in this order, in one round trip, up to the first that fails. Gives an answer for each that was
    /// begun.
    fn act(&self, acts: &[Operation]) -> Result<Vec<Output>>;
    /// What to say of an act that failed.
    fn complaint(&self, act: &Operation, answer: &Output) -> anyhow::Error;
    /// The manifest of an installed release.
    fn manifest(&self, release: &ReleaseId) -> Result<Manifest>;
    /// Checks the files of an installed release; gives those that differ.
    fn verify(&self, release: &ReleaseId) -> Result<Vec<String>>;
    /// Runs a script, under no lock, and hands over its lines as they come. Gives its exit code, or `None` when `stop`
    /// said that it is enough: then nothing of it runs there any more.
    fn attend(
        &self,
        script: &Script,
        heard: &mut dyn FnMut(Stream, String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<i32>>;

    /// Does one thing, and gives its answer.
    fn one(&self, act: Operation) -> Result<Output> {
        Ok(self.act(&[act])?.pop().unwrap_or(Output::NONE))
    }
    /// Does one thing that has to work.
    fn must(&self, act: Operation) -> Result<()> {
        let answer = self.one(act)?;
        if answer.ok() { Ok(()) } else { Err(self.complaint(&act, &answer)) }
    }
    /// See [`Operation::Activate`].
    fn activate(&self, release: Option<&ReleaseId>, record: Option<&Record>) -> Result<()> {
        self.must(Operation::Activate(release, record))
    }
    /// See [`Operation::Record`].
    fn record(&self, record: &Record) -> Result<()> {
        self.must(Operation::Record(record))
    }
    /// See [`Operation::Remove`].
    fn remove(&self, releases: &[ReleaseId], record: &Record) -> Result<()> {
        self.must(Operation::Remove(releases, record))
    }
    /// See [`Operation::Run`].
    fn run(&self, script: &Script) -> Result<Output> {
        self.one(Operation::Run(script))
    }
}

/// Where a target over ssh is, and as whom it is reached; nothing for other targets.
pub fn login(ctx: &Context, url: &str) -> Result<Option<(Address, String)>> {
    if !url.starts_with("ssh:") {
        return Ok(None);
    }
    let address = Address::parse(url)?;
    let login = match &address.user {
        Some(user) => user.clone(),
        None => ssh::configured_login(ctx, &address)?,
    };
    Ok(Some((address, login)))
}

/// Opens a target over ssh with another login.
pub fn open_as<'ctx>(ctx: &'ctx Context, url: &str, login: &str) -> Result<Box<dyn Target + 'ctx>> {
    let address = Address { user: Some(login.to_owned()), ..Address::parse(url)? };
    Ok(Box::new(directory::HostTarget::remote(ctx, url, address)))
}
