//! Order and parallelism: waves of hosts, work on many hosts at once, and a ticker during long work.

use gangplank_model::project::Strategy;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many hosts are worked on at once. Each costs a process, and initially a connection.
pub const AT_ONCE: usize = 16;

/// The waves in which `hosts` hosts are switched, as indexes into the env's targets, none larger than `limit`. Each
/// wave must be healthy before the next starts.
pub fn waves(strategy: Strategy, limit: Option<usize>, hosts: usize) -> Vec<Range<usize>> {
    let size = limit.unwrap_or(usize::MAX).max(1);
    let split = |wave: Range<usize>| {
        let (end, starts) = (wave.end, wave.step_by(size));
        starts.map(move |start| start..start.saturating_add(size).min(end))
    };
    unlimited(strategy, hosts).into_iter().flat_map(split).collect()
}

fn unlimited(strategy: Strategy, hosts: usize) -> Vec<Range<usize>> {
    let batches = |size: usize| {
        let size = size.max(1);
        (0..hosts).step_by(size).map(|start| start..(start + size).min(hosts)).collect()
    };
    match strategy {
        Strategy::All => batches(hosts),
        Strategy::Canary(first) => {
            let first = first.max(1).min(hosts);
            [0..first, first..hosts].into_iter().filter(|wave| !wave.is_empty()).collect()
        }
        Strategy::Batches(size) => batches(size),
        // Rounded up: a small share of few hosts is at least one.
        Strategy::Percent(share) => batches((hosts * usize::from(share.min(100))).div_ceil(100)),
    }
}

/// Runs `work` on every item, `at_once` at a time; returns the results in item order.
pub fn par_map<T: Sync, R: Send>(items: &[T], at_once: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() <= 1 || at_once <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let answers: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    *answers[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(work(item));
                }
            });
        }
    });
    answers.into_iter().filter_map(|answer| answer.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// Runs `work`, and `tick` at the interval `often` until it returns or panics.
pub(crate) fn with_ticker<T>(often: Duration, tick: impl Fn() + Send, work: impl FnOnce() -> T) -> T {
    let (working, over) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while over.recv_timeout(often) == Err(RecvTimeoutError::Timeout) {
                tick();
            }
        });
        let done = work();
        drop(working);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_no_larger_than_the_limit() {
        assert_eq!(waves(Strategy::Canary(1), Some(2), 6), [0..1, 1..3, 3..5, 5..6]);
        assert_eq!(waves(Strategy::All, Some(9), 3).len(), 1);
        assert_eq!(waves(Strategy::All, Some(0), 2), [0..1, 1..2]);
    }

    #[test]
    fn waves_follow_the_strategy_and_hold_each_host_once() {
        let shown = |strategy, hosts| -> String {
            waves(strategy, None, hosts).iter().map(|wave| wave.len().to_string()).collect::<Vec<_>>().join(" ")
        };
        for (strategy, hosts, want) in [
            (Strategy::All, 5, "5"),
            (Strategy::All, 0, ""),
            (Strategy::Canary(1), 5, "1 4"),
            (Strategy::Canary(2), 5, "2 3"),
            (Strategy::Canary(9), 5, "5"),
            (Strategy::Canary(0), 5, "1 4"),
            (Strategy::Canary(1), 1, "1"),
            (Strategy::Canary(1), 0, ""),
            (Strategy::Batches(1), 3, "1 1 1"),
            (Strategy::Batches(2), 5, "2 2 1"),
            (Strategy::Batches(0), 2, "1 1"),
            (Strategy::Percent(25), 10, "3 3 3 1"),
            (Strategy::Percent(1), 3, "1 1 1"),
            (Strategy::Percent(0), 2, "1 1"),
            (Strategy::Percent(255), 4, "4"),
        ] {
            assert_eq!(shown(strategy, hosts), want, "{strategy:?} of {hosts}");
            let all: Vec<_> = waves(strategy, None, hosts).into_iter().flatten().collect();
            assert_eq!(all, (0..hosts).collect::<Vec<_>>(), "each host once, in order");
        }
    }

    #[test]
    fn answers_come_in_order_and_no_more_than_that_at_once() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let items: Vec<_> = (0..50).collect();
        let doubled = par_map(&items, 4, |n| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(1));
            now.fetch_sub(1, Ordering::SeqCst);
            n * 2
        });
        assert_eq!(doubled, items.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert!((2..=4).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    }
}
