//! The target of a deploy: the `Target` trait and its implementations.

pub mod directory;
pub(crate) mod ssh;
pub(crate) mod through;
mod transport;
pub(crate) mod zstd;

use crate::host::ssh::Address;
use gangplank_bundle::delta::Changes;
use gangplank_bundle::release::Release;
use gangplank_model::error::Result;
use gangplank_model::event::Stream;
use gangplank_model::history::Record;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::Manifest;
use gangplank_model::service::run::Script;
use gangplank_model::state::{Lockable, State};
use gangplank_system::context::{Context, Output};
use gangplank_system::http::Url;

/// A release to be installed on a host.
pub enum Delivery<'a> {
    /// Sent from this machine.
    Push(&'a Release, &'a Changes<'a>),
    /// Downloaded by the host from this URL, which is a secret. The host unpacks only a bundle with the digest verified
    /// here.
    Pull(&'a Release, Url),
}

impl Delivery<'_> {
    /// The release to be installed.
    pub fn release(&self) -> &Release {
        match self {
            Self::Push(release, _) | Self::Pull(release, _) => release,
        }
    }
}

/// One operation on a target.
#[derive(Clone, Copy)]
pub enum Operation<'a> {
    /// Runs a script of a service or a health check.
    Run(&'a Script),
    /// Verifies an installed release. Fails with `script::EXIT_VERIFICATION` if an entry is missing or changed;
    /// prints extra entries.
    VerifyFiles(&'a ReleaseId),
    /// Activates an installed release atomically; `None` removes `current`. The record is written first, and the
    /// operation fails if that fails.
    Activate(Option<&'a ReleaseId>, Option<&'a Record>),
    /// Appends to the history.
    Record(&'a Record),
    /// Removes releases, except the live one, and debris of interrupted runs, then appends the record to the history.
    Remove(&'a [ReleaseId], &'a Record),
    /// Keeps the health check, as JSON, with which the live release was healthy.
    KeepCheck(&'a str),
    /// Prints what was kept.
    KeptCheck,
    /// Releases the lock held through this value.
    Unlock,
}

/// A place that holds releases and activates one of them.
///
/// Every method either completes or changes nothing that `state` shows, and may be repeated. The contract suite in
/// `tests/it/host.rs` verifies this for each implementation.
pub trait Target: Lockable + Sync {
    /// The directory, as named on its host.
    fn root(&self) -> &str;
    /// The name or address of the host, as seen from here.
    fn host(&self) -> &str;
    /// Whether `name` is its URL or its host.
    fn is_called(&self, name: &str) -> bool {
        [self.url(), self.host()].contains(&name)
    }
    /// Opens the connection early. The next operation reports a failure.
    fn reach(&self) {}
    /// Fails if a deploy could not write here, for targets that are no host: those have a script that looks around.
    fn examine(&self) -> Result<()> {
        Ok(())
    }
    /// The state that a plan needs, in one round trip.
    fn state(&self) -> Result<State>;
    /// Installs and verifies a release without activating it; appends the record to the history.
    fn install(&self, delivery: &Delivery, record: &Record) -> Result<()>;
    /// Executes operations in order, in one round trip, up to the first failure. Returns the output of each started
    /// operation.
    fn act(&self, acts: &[Operation]) -> Result<Vec<Output>>;
    /// The error of a failed operation.
    fn complaint(&self, act: &Operation, answer: &Output) -> anyhow::Error;
    /// What to do about an installed release whose files were changed, before it is deployed again.
    fn repair_hint(&self, release: &ReleaseId) -> String {
        format!("find out who edited it; then on that host `mv releases/{release} releases/{release}.edited`")
    }
    /// The manifest of an installed release.
    fn manifest(&self, release: &ReleaseId) -> Result<Manifest>;
    /// Verifies the files of an installed release; returns the differences.
    fn verify(&self, release: &ReleaseId) -> Result<Vec<String>>;
    /// Runs a script without the lock and streams its lines. Returns its exit code, or `None` if `stop` ended it, which
    /// also kills it on the host.
    fn attend(
        &self,
        script: &Script,
        heard: &mut dyn FnMut(Stream, String),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<i32>>;

    /// Executes one operation and returns its output.
    fn one(&self, act: Operation) -> Result<Output> {
        Ok(self.act(&[act])?.pop().unwrap_or(Output::NONE))
    }
    /// Executes one operation that must succeed.
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

/// The address and login of an ssh target; `None` for other targets.
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

/// Opens an ssh target with another login.
pub(crate) fn open_as<'ctx>(ctx: &'ctx Context, url: &str, login: &str) -> Result<Box<dyn Target + 'ctx>> {
    let address = Address { user: Some(login.to_owned()), ..Address::parse(url)? };
    Ok(Box::new(directory::HostTarget::remote(ctx, url, address)))
}
