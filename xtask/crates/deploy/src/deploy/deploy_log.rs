//! Records in the stores what is live, so that their prune knows which releases hosts need, and a lost host does not
//! lose its history.
//!
//! A record is written before the release goes live. An unreachable store is skipped with a warning and blocks no
//! deploy; a store that is removing the release at the moment does.

use crate::store::Store;
use gangplank_model::error::{Kind, Result, kind_of};
use gangplank_model::history::{History, HistoryEvent, Record};
use gangplank_model::state::Lockable;
use gangplank_system::context::Context;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The stores of a catalog that keep a history.
#[derive(Default)]
pub struct DeployLog<'a> {
    stores: Vec<&'a dyn Store>,
    /// The stores that did not answer: a command waits for each only once.
    lost: RefCell<BTreeSet<String>>,
}

impl<'a> DeployLog<'a> {
    /// The stores of `stores` that keep a history.
    pub fn new(stores: impl Iterator<Item = &'a dyn Store>) -> Self {
        Self { stores: stores.filter(|store| store.keeps_history()).collect(), lost: RefCell::default() }
    }

    /// The locks of an env.
    pub fn locks(&self, env: &str) -> Vec<Box<dyn Lockable + 'a>> {
        self.stores().filter_map(|store| store.lock_of(env)).collect()
    }

    fn stores(&self) -> impl Iterator<Item = &'a dyn Store> {
        let answers = |store: &&'a dyn Store| !self.lost.borrow().contains(store.url());
        self.stores.iter().copied().filter(answers)
    }

    /// Skips an unreachable store from now on.
    pub fn lose(&self, url: &str, error: &anyhow::Error) {
        if matches!(kind_of(error), Kind::Remote | Kind::Auth)
            && let Some(store) = self.stores.iter().find(|store| url.starts_with(store.url()))
        {
            self.lost.borrow_mut().insert(store.url().to_owned());
        }
    }

    /// The history of an env in each store. An unreachable store is skipped with a warning.
    pub fn histories(&self, ctx: &Context, env: &str) -> Vec<(String, History)> {
        let mut all = Vec::new();
        for store in self.stores() {
            match store.history(env) {
                Ok(history) => {
                    let history = history.inspect(|history| {
                        if history.unreadable > 0 {
                            let (n, url) = (history.unreadable, store.url());
                            ctx.warn(format!("{url}: skipped {n} invalid line(s) in the history of {env}"));
                        }
                    });
                    all.extend(history.map(|history| (store.url().to_owned(), history)));
                }
                Err(error) => {
                    ctx.warn(format!("{} skipped: {error:#}", store.url()));
                    self.lose(store.url(), &error);
                }
            }
        }
        all
    }

    /// Records that a release is about to go live. Without changes on any host it only ensures that a record exists.
    /// Ignores a record without a release, which is that of a prune.
    pub fn begins(&self, ctx: &Context, env: &str, record: &Record, changes: bool) -> Result<()> {
        let Some(id) = &record.release else { return Ok(()) };
        let event = if changes { HistoryEvent::Switched } else { HistoryEvent::Live };
        let line = Record { event, ..record.clone() };
        for url in &*self.lost.borrow() {
            unnotified(ctx, url, env, "it did not answer");
        }
        for store in self.stores() {
            let told = match store.history(env) {
                Ok(Some(history)) if !changes && history.live_stack().last() == Some(&id) => continue,
                Ok(_) => store.append(env, &line),
                Err(error) => Err(error),
            };
            match told {
                Err(error) if matches!(kind_of(&error), Kind::Locked | Kind::Usage) => return Err(error),
                Err(error) => {
                    unnotified(ctx, store.url(), env, &format!("{error:#}"));
                    self.lose(store.url(), &error);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Records the result.
    pub fn ended(&self, ctx: &Context, env: &str, record: &Record, error: Option<&anyhow::Error>) {
        let event = if error.is_none() { HistoryEvent::Live } else { HistoryEvent::Failed };
        let reason = error.map(|error| ctx.scrub(&format!("{error:#}"))).or_else(|| record.reason.clone());
        let line = Record { event, at: ctx.now(), reason, ..record.clone() };
        for store in self.stores().filter(|_| record.release.is_some()) {
            match store.append(env, &line) {
                // The release is live by now and its start is recorded, so a concurrent prune is only a warning.
                Err(error) if kind_of(&error) != Kind::Locked => {
                    unnotified(ctx, store.url(), env, &format!("{error:#}"));
                }
                _ => {}
            }
        }
    }
}

fn unnotified(ctx: &Context, url: &str, env: &str, reason: &str) {
    ctx.warn(format!("{url} has no record of what is live in {env}, which its prune needs: {reason}"));
}
