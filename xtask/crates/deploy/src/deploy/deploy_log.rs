//! What is live, told to the stores that keep it: a prune there has to know what hosts run and go back to, and a host
//! that burned down does not take its history along.
//!
//! What is about to go live is told before it does. A store that cannot be told is passed over aloud: it must not keep
//! anybody from a deploy. One that is just removing the release does.

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
    /// Those that did not answer: each is waited for once in a command.
    lost: RefCell<BTreeSet<String>>,
}

impl<'a> DeployLog<'a> {
    /// Those of `stores` that keep one.
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

    /// Leaves a store out from now on, if it is one that does not answer.
    pub fn lose(&self, url: &str, error: &anyhow::Error) {
        if matches!(kind_of(error), Kind::Remote | Kind::Auth)
            && let Some(store) = self.stores.iter().find(|store| url.starts_with(store.url()))
        {
            self.lost.borrow_mut().insert(store.url().to_owned());
        }
    }

    /// What each store knows of an env. One that does not answer is passed over aloud.
    pub fn histories(&self, ctx: &Context, env: &str) -> Vec<(String, History)> {
        let mut all = Vec::new();
        for store in self.stores() {
            match store.history(env) {
                Ok(history) => {
                    let history = history.inspect(|history| {
                        if history.unreadable > 0 {
                            let (n, url) = (history.unreadable, store.url());
                            ctx.warn(format!(
                                "{url}: passed over {n} line(s) of what was live in {env}: they are no records"
                            ));
                        }
                    });
                    all.extend(history.map(|history| (store.url().to_owned(), history)));
                }
                Err(error) => {
                    ctx.warn(format!("{} is left out: {error:#}", store.url()));
                    self.lose(store.url(), &error);
                }
            }
        }
        all
    }

    /// The release of a record is about to go live. Without changes on any host it is only made sure that it is known to
    /// be. A record without a release, that of a prune, is of no interest.
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

    /// How it ended.
    pub fn ended(&self, ctx: &Context, env: &str, record: &Record, error: Option<&anyhow::Error>) {
        let event = if error.is_none() { HistoryEvent::Live } else { HistoryEvent::Failed };
        let reason = error.map(|error| ctx.scrub(&format!("{error:#}"))).or_else(|| record.reason.clone());
        let line = Record { event, at: ctx.now(), reason, ..record.clone() };
        for store in self.stores().filter(|_| record.release.is_some()) {
            match store.append(env, &line) {
                // It is live by now, whoever wants to remove it; and its beginning was told.
                Err(error) if kind_of(&error) != Kind::Locked => {
                    unnotified(ctx, store.url(), env, &format!("{error:#}"))
                }
                _ => {}
            }
        }
    }
}

fn unnotified(ctx: &Context, url: &str, env: &str, reason: &str) {
    ctx.warn(format!("{url} was not told what is live in {env}, so a prune there does not know: {reason}"));
}
