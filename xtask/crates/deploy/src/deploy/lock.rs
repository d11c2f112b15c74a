//! Takes the locks of an env, and takes over those of dead owners.
//!
//! An owner is dead if its process is gone, if CircleCI says that its job has ended, or, when neither can be checked,
//! if its lease has expired. Any other lock is waited for, up to `--lock-wait`, or reported.

use crate::deploy::liveness::LivenessChecker;
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::host::Target;
use gangplank_model::error::{CliError, Kind, Result, failed, kind_of};
use gangplank_model::owner::{Liveness, Owner};
use gangplank_model::state::{Lock, Lockable};
use gangplank_system::context::Context;
use gangplank_system::machine;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a held lock is retried.
const AGAIN: Duration = Duration::from_millis(500);
/// How long to wait for the last command of a killed deploy, whatever `--lock-wait` says.
const LAST_COMMAND: Duration = Duration::from_secs(120);
/// CircleCI kills a job after ten minutes without output.
const REMIND: Duration = Duration::from_secs(60);

/// The locks of an env, released on drop.
pub struct Locks<'a> {
    ctx: &'a Context,
    stores: Vec<&'a dyn Lockable>,
    targets: Vec<&'a (dyn Target + 'a)>,
    unanswered: Vec<(String, anyhow::Error)>,
    token: String,
    dead: Vec<Owner>,
}

/// Takes locks for one owner within a time limit.
struct LockAcquirer<'a, 'ctx> {
    ctx: &'a Context,
    liveness: &'a LivenessChecker<'ctx>,
    owner: &'a Owner,
    started: Instant,
    wait: Duration,
    /// The takeovers already reported, as URL and token.
    told: Mutex<BTreeSet<String>>,
}

impl<'a> Locks<'a> {
    /// Takes the lock of every target or of none: the first target alone, then all others at once. The locks of
    /// `stores` come before, to stop other runs early; an unreachable store is skipped with a warning, because the
    /// locks of the targets suffice.
    pub fn take(
        liveness: &'a LivenessChecker,
        stores: &'a [Box<dyn Lockable + 'a>],
        targets: &'a [Box<dyn Target + 'a>],
        owner: &Owner,
        wait: Duration,
    ) -> Result<Self> {
        let ctx = liveness.ctx();
        let taker = LockAcquirer { ctx, liveness, owner, started: Instant::now(), wait, told: Mutex::default() };
        let mut locks = Self {
            ctx,
            stores: Vec::new(),
            targets: Vec::new(),
            unanswered: Vec::new(),
            token: owner.token.clone(),
            dead: Vec::new(),
        };
        for store in stores {
            match taker.take(&**store) {
                Ok(_) => locks.stores.push(&**store),
                // A missing bucket or a wrong region is not an outage and needs a fix.
                Err(error) if ctx.interrupted() || matches!(kind_of(&error), Kind::Locked | Kind::Usage) => {
                    return Err(error);
                }
                Err(error) => {
                    ctx.warn(format!("deploying without the lock of {}: {error:#}", store.url()));
                    // The lock may have been written although the answer was lost.
                    if kind_of(&error) != Kind::Auth {
                        locks.stores.push(&**store);
                    }
                    locks.unanswered.push((store.url().to_owned(), error));
                }
            }
        }
        // Connecting takes many round trips, so all hosts connect at once.
        if targets.len() > 1 {
            par_map(targets, AT_ONCE, |target| target.reach());
        }
        // The owner of the first lock meets no competitor at the others.
        let (first, others) = targets.split_at(targets.len().min(1));
        for targets in [first, others] {
            let mut failed = None;
            for (target, taken) in targets.iter().zip(par_map(targets, AT_ONCE, |target| taker.take(&**target))) {
                match taken {
                    // Only a target knows how far a killed run had come.
                    Ok(dead) => locks.dead.extend(dead),
                    // The lock may have been taken although the answer was lost, so it is released with the others.
                    Err(error) if kind_of(&error) == Kind::Remote => failed = failed.or(Some(error)),
                    Err(error) => {
                        failed = failed.or(Some(error));
                        continue;
                    }
                }
                locks.targets.push(&**target);
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(locks)
    }

    /// The stores that could not be locked, with the errors.
    pub fn unanswered(&self) -> &[(String, anyhow::Error)] {
        &self.unanswered
    }

    /// The start of the run whose locks were taken over, if it was `doing` the same.
    pub fn interrupted(&self, doing: &str) -> Option<jiff::Timestamp> {
        self.dead.iter().filter(|owner| owner.doing == doing).map(|owner| owner.since).min()
    }
}

/// The start of a killed run that was `doing` the same, found without taking a lock: for a plan to be approved.
pub fn killed(
    liveness: &LivenessChecker,
    stores: &[Box<dyn Lockable + '_>],
    targets: &[Box<dyn Target + '_>],
    doing: &str,
) -> Option<jiff::Timestamp> {
    let of_targets = targets.iter().map(|target| -> &dyn Lockable { &**target });
    let places = stores.iter().map(|store| -> &dyn Lockable { &**store }).chain(of_targets);
    let dead = |place: &dyn Lockable| match place.holder() {
        Ok(Lock::Held(owner)) if owner.doing == doing && liveness.liveness(&owner) == Liveness::Dead => {
            Some(owner.since)
        }
        _ => None,
    };
    places.filter_map(dead).min()
}

impl LockAcquirer<'_, '_> {
    /// Takes one lock; returns the dead owners it was taken over from.
    fn take(&self, place: &dyn Lockable) -> Result<Vec<Owner>> {
        let mut told: Option<Instant> = None;
        let mut held: Option<Lock> = None;
        loop {
            let mut lock = match (place.lock(self.owner), &held) {
                (Ok(lock), _) => lock,
                // The lock was held a moment ago. A place that stops answering does not free it.
                (Err(_), Some(held)) => return Err(locked(place.url(), held, Liveness::Unknown).into()),
                (Err(error), None) => return Err(error),
            };
            if let Lock::Held(seen) = lock.clone()
                && self.liveness.liveness(&seen) == Liveness::Dead
            {
                let (now, dead) = self.take_over(place, &seen)?;
                if now == Lock::Free {
                    return Ok(dead);
                }
                lock = now;
            }
            if lock == Lock::Free {
                return Ok(vec![]);
            }
            let life = match &lock {
                Lock::Held(owner) => self.liveness.liveness(owner),
                _ => Liveness::Unknown,
            };
            // An owner that is dead here died during its own takeover; the next iteration takes its lock.
            let ending = matches!(life, Liveness::Ending | Liveness::Dead);
            let wait = if ending { self.wait.max(LAST_COMMAND) } else { self.wait };
            if self.ctx.interrupted() {
                return failed(format!("stopped while waiting for the lock of {}", place.url()))
                    .hint("nothing was changed")
                    .err();
            }
            if self.started.elapsed() >= wait {
                return Err(locked(place.url(), &lock, life).into());
            }
            if told.is_none_or(|told| told.elapsed() > REMIND) {
                let reason = if ending { "its last command is still running" } else { "still running" };
                self.ctx.note(format!(
                    "{}: waiting up to {} s for the lock of {}, {reason}",
                    place.url(),
                    wait.as_secs(),
                    who(&lock)
                ));
                told = Some(Instant::now());
            }
            held = Some(lock);
            std::thread::sleep(AGAIN);
        }
    }

    /// Takes over from `seen`, which is dead, or from an owner that died while taking over from it. Returns the
    /// resulting lock and all dead owners.
    fn take_over(&self, place: &dyn Lockable, seen: &Owner) -> Result<(Lock, Vec<Owner>)> {
        let mut chain = vec![seen.clone()];
        loop {
            let dead = chain.last().unwrap_or(seen);
            // The takeover is retried while the dead owner's last command runs; warn once.
            if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(format!(
                "{} {}",
                place.url(),
                dead.token
            )) {
                let (who, reason) = (describe(dead), self.liveness.gone(dead));
                self.ctx.warn(format!("{}: taking over the lock of {who}: {reason}", place.url()));
            }
            match place.take_over(self.owner, seen, dead)? {
                Lock::Held(next)
                    if chain.iter().all(|dead| dead.token != next.token)
                        && self.liveness.liveness(&next) == Liveness::Dead =>
                {
                    chain.push(*next);
                }
                lock => return Ok((lock, chain)),
            }
        }
    }
}

impl Drop for Locks<'_> {
    fn drop(&mut self) {
        let give_up = |place: &dyn Lockable| {
            if let Err(error) = place.unlock(Some(&self.token)) {
                self.ctx.warn(format!("lock not released, the next run takes it over: {error:#}"));
            }
        };
        par_map(&self.targets, AT_ONCE, |target| give_up(*target));
        // Stores last: their locks keep other runs away from the targets until then.
        self.stores.iter().rev().for_each(|store| give_up(*store));
    }
}

fn locked(url: &str, lock: &Lock, life: Liveness) -> CliError {
    let (heard, wait) = match lock {
        Lock::Held(owner) => match silence(owner) {
            Some((seconds_since_renewal, lease)) => (
                format!(", last renewed {seconds_since_renewal} s ago"),
                format!(" (its lease expires in {} s)", lease.saturating_sub(seconds_since_renewal) + 1),
            ),
            None => Default::default(),
        },
        _ => Default::default(),
    };
    let error = CliError::new(Kind::Locked, format!("{url} is locked by {}{heard}", who(lock)));
    match lock {
        // To remove the lock of a process that runs here would be wrong.
        Lock::Held(owner) if life == Liveness::Alive && owner.ci.is_none() => error.hint(format!(
            "wait for it with --lock-wait SECONDS{wait}; it runs on this machine as process {}", owner.pid
        )),
        _ => error.hint(format!(
            "wait for it with --lock-wait SECONDS{wait}; if that run is gone, remove it with `cargo xtask unlock ENV --force`"
        )),
    }
}

/// A description of the owner and whether it is dead; `None` for a free lock.
pub fn holder(liveness: &LivenessChecker, lock: &Lock) -> Option<String> {
    match lock {
        Lock::Free => None,
        Lock::Held(owner) if liveness.liveness(owner) == Liveness::Dead => {
            Some(format!("{}; {}, the next deploy takes over", who(lock), liveness.gone(owner)))
        }
        Lock::Held(owner) => match silence(owner) {
            Some((seconds_since_renewal, _)) => {
                Some(format!("{}, last renewed {seconds_since_renewal} s ago", who(lock)))
            }
            None => Some(who(lock)),
        },
        Lock::Unreadable(_) => Some(who(lock)),
    }
}

/// Seconds since the last renewal and the lease, in seconds, of an owner that cannot be checked otherwise.
fn silence(owner: &Owner) -> Option<(u64, u64)> {
    if machine::liveness(owner) == Liveness::Unknown { owner.seconds_since_renewal.zip(owner.lease) } else { None }
}

/// A description of the owner.
pub fn who(lock: &Lock) -> String {
    match lock {
        Lock::Free => "no owner".into(),
        Lock::Held(owner) => describe(owner),
        Lock::Unreadable(text) if text.trim_matches(['\0', '\n']).is_empty() => {
            "an empty lock left by a crash, which the next command takes over".into()
        }
        Lock::Unreadable(text) => {
            format!("unknown owner (unreadable lock: `{}`)", text.chars().take(60).collect::<String>())
        }
    }
}

/// An owner in words.
pub fn describe(owner: &Owner) -> String {
    let job = owner.ci.as_ref().and_then(|ci| ci.url.as_deref()).map(|url| format!(", {url}")).unwrap_or_default();
    format!("{} since {} ({}{job})", owner.by, owner.since.strftime("%Y-%m-%d %H:%M:%SZ"), owner.doing)
}
