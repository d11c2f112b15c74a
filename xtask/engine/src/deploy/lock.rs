//! Taking the locks of an env, and what to do when somebody has one.
//!
//! A dead owner is one whose process is known to be gone, whose job CircleCI says has ended, or of whom nobody here can
//! know that and who has let its lease run out. Everybody else is waited for or named.

use crate::context::Context;
use crate::deploy::liveness::LivenessChecker;
use crate::deploy::state::{Lock, Lockable};
use crate::deploy::waves::{AT_ONCE, par_map};
use crate::error::{CliError, Kind, Result, failed, kind_of};
use crate::host::Target;
use crate::machine;
use crate::owner::{Liveness, Owner};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a lock that somebody has is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the last command of a killed deploy may take, whatever `--lock-wait` says.
const LAST_COMMAND: Duration = Duration::from_secs(120);
/// A job that says nothing for ten minutes is killed by CircleCI.
const REMIND: Duration = Duration::from_secs(60);

/// The locks of an env; given back when dropped.
pub struct Locks<'a> {
    ctx: &'a Context,
    stores: Vec<&'a dyn Lockable>,
    targets: Vec<&'a (dyn Target + 'a)>,
    unanswered: Vec<(String, anyhow::Error)>,
    token: String,
    dead: Vec<Owner>,
}

/// Who takes locks, and how long that may take.
struct LockAcquirer<'a, 'ctx> {
    ctx: &'a Context,
    liveness: &'a LivenessChecker<'ctx>,
    owner: &'a Owner,
    started: Instant,
    wait: Duration,
    /// Which dead were said to be succeeded, and where.
    told: Mutex<BTreeSet<String>>,
}

impl<'a> Locks<'a> {
    /// Takes the lock of every target or of none: that of the first, then all others at once. Before that
    /// those of `stores`, whose locks keep others away early; one that does not answer is passed over aloud, because those
    /// of the targets hold all the same.
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
                // No such bucket, another region: that is no outage, and stays so until somebody mends it.
                Err(error) if ctx.interrupted() || matches!(kind_of(&error), Kind::Locked | Kind::Usage) => {
                    return Err(error);
                }
                Err(error) => {
                    ctx.warn(format!("deploying without the lock of {}: {error:#}", store.url()));
                    // It may have been written all the same, and only the answer was lost.
                    if kind_of(&error) != Kind::Auth {
                        locks.stores.push(&**store);
                    }
                    locks.unanswered.push((store.url().to_owned(), error));
                }
            }
        }
        // A connection takes many round trips, and those of all hosts can be made at once.
        if targets.len() > 1 {
            par_map(targets, AT_ONCE, |target| target.reach());
        }
        // Whoever has the first one is let through at the others.
        let (first, others) = targets.split_at(targets.len().min(1));
        for targets in [first, others] {
            let mut failed = None;
            for (target, taken) in targets.iter().zip(par_map(targets, AT_ONCE, |target| taker.take(&**target))) {
                match taken {
                    // Only a target knows how far a run had come that was killed.
                    Ok(dead) => locks.dead.extend(dead),
                    // The lock may have been taken, and only the answer was lost: then it is given back with the others.
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

    /// The stores that could not be locked, and why.
    pub fn unanswered(&self) -> &[(String, anyhow::Error)] {
        &self.unanswered
    }

    /// When the run began whose locks were taken over, if it was doing the same.
    pub fn interrupted(&self, doing: &str) -> Option<jiff::Timestamp> {
        self.dead.iter().filter(|owner| owner.doing == doing).map(|owner| owner.since).min()
    }
}

/// When the killed run began that a run would go on with which did the same now. A plan that somebody is asked to approve
/// of has to know, and takes no lock.
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
    /// Takes one lock, and gives the dead whom it was taken from.
    fn take(&self, place: &dyn Lockable) -> Result<Vec<Owner>> {
        let mut told: Option<Instant> = None;
        let mut held: Option<Lock> = None;
        loop {
            let mut lock = match (place.lock(self.owner), &held) {
                (Ok(lock), _) => lock,
                // Somebody was at work a moment ago; that the place does not answer now makes nobody free.
                (Err(_), Some(held)) => return Err(locked(place.url(), held).into()),
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
            // Whoever is dead by now died while it took over itself: the next round takes its lock.
            let ending = matches!(life, Liveness::Ending | Liveness::Dead);
            let wait = if ending { self.wait.max(LAST_COMMAND) } else { self.wait };
            if self.ctx.interrupted() {
                return failed(format!("stopped while waiting for the lock of {}", place.url()))
                    .hint("nothing was changed")
                    .err();
            }
            if self.started.elapsed() >= wait {
                return Err(locked(place.url(), &lock).into());
            }
            if told.is_none_or(|told| told.elapsed() > REMIND) {
                let reason = if ending { "whose last command still runs" } else { "who is at work" };
                self.ctx.note(format!(
                    "{}: waiting up to {} s for {}, {reason}",
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

    /// Tries to succeed `seen`, who is dead, or whoever died while taking over from it. Gives what the lock is then, and
    /// all of the dead.
    fn take_over(&self, place: &dyn Lockable, seen: &Owner) -> Result<(Lock, Vec<Owner>)> {
        let mut chain = vec![seen.clone()];
        loop {
            let dead = chain.last().unwrap_or(seen);
            // As long as its last command runs, this is tried again and again.
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
                self.ctx.warn(format!("the lock stays, and the next run takes it over: {error:#}"));
            }
        };
        par_map(&self.targets, AT_ONCE, |target| give_up(*target));
        // While a store keeps others away, they do not meet us on our way out.
        self.stores.iter().rev().for_each(|store| give_up(*store));
    }
}

fn locked(url: &str, lock: &Lock) -> CliError {
    let (heard, wait) = match lock {
        Lock::Held(owner) => match silence(owner) {
            Some((seconds_since_renewal, lease)) => (
                format!(", last heard of {seconds_since_renewal} s ago"),
                format!(
                    " (if nothing more is heard of it, {} are enough)",
                    lease.saturating_sub(seconds_since_renewal) + 1
                ),
            ),
            None => Default::default(),
        },
        _ => Default::default(),
    };
    CliError::new(Kind::Locked, format!("{url} is locked by {}{heard}", who(lock))).hint(format!(
        "wait for it with --lock-wait SECONDS{wait}; if that run is gone for good: `cargo xtask unlock ENV --force`"
    ))
}

/// Who has a lock, and whether that run is known to be over; `None` when it is free.
pub fn holder(liveness: &LivenessChecker, lock: &Lock) -> Option<String> {
    match lock {
        Lock::Free => None,
        Lock::Held(owner) if liveness.liveness(owner) == Liveness::Dead => {
            Some(format!("{}; {}, the next deploy takes over", who(lock), liveness.gone(owner)))
        }
        Lock::Held(owner) => match silence(owner) {
            Some((seconds_since_renewal, _)) => {
                Some(format!("{}, last heard of {seconds_since_renewal} s ago", who(lock)))
            }
            None => Some(who(lock)),
        },
        Lock::Unreadable(_) => Some(who(lock)),
    }
}

/// For how many seconds an owner whom nobody here can see was not heard of, and after how many it is taken for dead.
fn silence(owner: &Owner) -> Option<(u64, u64)> {
    if machine::liveness(owner) == Liveness::Unknown { owner.seconds_since_renewal.zip(owner.lease) } else { None }
}

/// Whoever has a lock, in words.
pub fn who(lock: &Lock) -> String {
    match lock {
        Lock::Free => "nobody".into(),
        Lock::Held(owner) => describe(owner),
        Lock::Unreadable(text) if text.trim_matches(['\0', '\n']).is_empty() => {
            "an empty lock that a crash left: the next command takes it over".into()
        }
        Lock::Unreadable(text) => {
            format!("somebody who left no name (`{}`)", text.chars().take(60).collect::<String>())
        }
    }
}

/// An owner in words.
pub fn describe(owner: &Owner) -> String {
    let job = owner.ci.as_ref().and_then(|ci| ci.url.as_deref()).map(|url| format!(", {url}")).unwrap_or_default();
    format!("{} since {} ({}{job})", owner.by, owner.since.strftime("%Y-%m-%d %H:%M:%SZ"), owner.doing)
}
