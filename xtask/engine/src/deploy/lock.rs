//! Taking the locks of an env, and what to do when somebody has one.
//!
//! A lock is never broken for its age: a dead owner is one whose process is known to be gone. Everybody else is waited
//! for or named.

use crate::cx::Cx;
use crate::deploy::state::Lock;
use crate::error::{Failure, Kind, Result, failed};
use crate::machine::{Life, Owner};
use crate::target::Target;
use std::time::{Duration, Instant};

/// How often a lock that somebody has is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the last command of a killed deploy may take, whatever `--lock-wait` says.
const LAST_COMMAND: Duration = Duration::from_secs(120);
/// A job that says nothing for ten minutes is killed by CircleCI.
const REMIND: Duration = Duration::from_secs(60);

/// The locks of some targets; given back when dropped.
pub struct Locks<'a> {
    cx: &'a Cx,
    held: Vec<&'a dyn Target>,
    token: String,
    dead: Vec<Owner>,
}

impl<'a> Locks<'a> {
    /// Takes the lock of every target, in order, or of none.
    pub fn take(cx: &'a Cx, targets: &'a [Box<dyn Target + 'a>], owner: &Owner, wait: Duration) -> Result<Self> {
        let mut locks = Self { cx, held: Vec::new(), token: owner.token.clone(), dead: Vec::new() };
        let started = Instant::now();
        for target in targets {
            locks.take_one(&**target, owner, started, wait)?;
            locks.held.push(&**target);
        }
        Ok(locks)
    }

    fn take_one(&mut self, target: &dyn Target, owner: &Owner, started: Instant, wait: Duration) -> Result<()> {
        let mut told: Option<Instant> = None;
        loop {
            let mut lock = target.lock(owner)?;
            if let Lock::Held(seen) = lock.clone() {
                // Whoever died while taking over is succeeded in its turn.
                while let Lock::Held(dead) = lock.clone()
                    && dead.life() == Life::Dead
                {
                    let whose = describe(&dead);
                    self.cx.warn(format!(
                        "{}: taking over the lock of {whose}: its process {} is gone",
                        target.url(),
                        dead.pid
                    ));
                    lock = target.take_over(owner, &seen, &dead)?;
                    self.dead.push(*dead);
                }
            }
            if lock == Lock::Free {
                return Ok(());
            }
            let ending = matches!(&lock, Lock::Held(owner) if owner.life() == Life::Ending);
            let wait = if ending { wait.max(LAST_COMMAND) } else { wait };
            if self.cx.interrupted() {
                return failed(format!("stopped while waiting for the lock of {}", target.url()))
                    .hint("nothing was changed")
                    .err();
            }
            if started.elapsed() >= wait {
                return Err(locked(target.url(), &lock).into());
            }
            if told.is_none_or(|told| told.elapsed() > REMIND) {
                let why = if ending { "whose last command still runs" } else { "who is at work" };
                self.cx.note(format!("{}: waiting up to {} s for {}, {why}", target.url(), wait.as_secs(), who(&lock)));
                told = Some(Instant::now());
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// When the run began whose locks were taken over, if it was doing the same.
    pub fn interrupted(&self, doing: &str) -> Option<jiff::Timestamp> {
        self.dead.iter().filter(|owner| owner.doing == doing).map(|owner| owner.since).min()
    }
}

impl Drop for Locks<'_> {
    fn drop(&mut self) {
        for target in self.held.drain(..).rev() {
            if let Err(error) = target.unlock(Some(&self.token)) {
                self.cx.warn(format!("the lock stays: {error:#}; `cargo xtask lock release ENV --force` removes it"));
            }
        }
    }
}

fn locked(url: &str, lock: &Lock) -> Failure {
    Failure::new(Kind::Locked, format!("{url} is locked by {}", who(lock))).hint(
        "wait for it with --lock-wait SECONDS; if that run is gone for good: `cargo xtask lock release ENV --force`",
    )
}

/// Who has a lock and whether that run still lives; `None` when it is free.
pub fn holder(lock: &Lock) -> Option<String> {
    let dead = matches!(lock, Lock::Held(owner) if owner.life() == Life::Dead);
    let gone = if dead { "; its process is gone, the next deploy takes over" } else { "" };
    (*lock != Lock::Free).then(|| who(lock) + gone)
}

/// Whoever has a lock, in words.
pub fn who(lock: &Lock) -> String {
    match lock {
        Lock::Free => "nobody".into(),
        Lock::Held(owner) => describe(owner),
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
