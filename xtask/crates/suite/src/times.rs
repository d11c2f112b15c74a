//! Measures each test from the output of a test harness on stable Rust.
//!
//! libtest prints a line when a test ends, but none when it starts. It starts tests in name order, as many as it has
//! threads, and the next when one ends, so the end times determine the start times.

use std::time::Duration;

/// A slow test.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Slow {
    /// Its name.
    pub test: String,
    /// Wall time.
    pub ms: u64,
}

/// A line of libtest's output.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// A test binary starts with this many tests.
    Running(usize),
    /// A test ended, or was ignored.
    Ended(&'a str),
    /// Anything else.
    Other,
}

fn parse(line: &str) -> Line<'_> {
    if let Some(count) = line.strip_prefix("running ").and_then(|rest| rest.split(' ').next()?.parse().ok()) {
        return Line::Running(count);
    }
    // `test story::rollback ... ok`, `test a - should panic ... ok`; names of doctests contain spaces.
    let named = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
    match named.map(|(name, _)| name.strip_suffix(" - should panic").unwrap_or(name)) {
        Some(name) if !name.contains(' ') => Line::Ended(name),
        _ => Line::Other,
    }
}

/// Collects the lines of test binaries that run one after the other.
#[derive(Debug)]
pub struct Times {
    threads: usize,
    started: Duration,
    expected: usize,
    ended: Vec<(String, Duration)>,
    done: Vec<Slow>,
}

impl Times {
    /// For a harness with `threads` parallel tests.
    pub fn new(threads: usize) -> Self {
        Self { threads, started: Duration::ZERO, expected: 0, ended: Vec::new(), done: Vec::new() }
    }

    /// Processes a line printed at time `at`.
    pub fn line(&mut self, line: &str, at: Duration) {
        match parse(line) {
            Line::Running(count) => {
                self.close();
                (self.started, self.expected) = (at, count);
            }
            Line::Ended(name) => self.ended.push((name.to_owned(), at.saturating_sub(self.started))),
            Line::Other => {}
        }
    }

    /// The slowest tests that took at least `least`, slowest first.
    pub fn slowest(mut self, most: usize, least: Duration) -> Vec<Slow> {
        self.close();
        self.done.retain(|slow| u128::from(slow.ms) >= least.as_millis());
        self.done.sort_by(|a, b| b.ms.cmp(&a.ms).then_with(|| a.test.cmp(&b.test)));
        self.done.truncate(most);
        self.done
    }

    /// Ends a binary. A crashed binary, or one with garbled lines, has no times.
    fn close(&mut self) {
        let ended = std::mem::take(&mut self.ended);
        if ended.len() == self.expected {
            self.done.extend(durations(&ended, self.threads));
        }
        self.expected = 0;
    }
}

/// The duration of each test, from the end times in order.
fn durations(ended: &[(String, Duration)], threads: usize) -> Vec<Slow> {
    let mut order: Vec<_> = ended.iter().collect();
    order.sort_by(|a, b| a.0.cmp(&b.0));
    let started = |n: usize| n.checked_sub(threads).map_or(Duration::ZERO, |n| ended[n].1);
    let took = |(n, (test, end)): (usize, &(String, Duration))| Slow {
        test: test.clone(),
        ms: u64::try_from(end.saturating_sub(started(n)).as_millis()).unwrap_or(u64::MAX),
    };
    order.into_iter().enumerate().map(took).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `lines` are `SECONDS LINE`.
    fn check(threads: usize, lines: &str, slowest: &str) {
        let mut times = Times::new(threads);
        for line in lines.lines() {
            let (at, line) = line.trim().split_once(' ').unwrap();
            times.line(line, Duration::from_secs(at.parse().unwrap()));
        }
        let found = times.slowest(3, Duration::from_secs(1));
        let found: Vec<_> = found.iter().map(|slow| format!("{} {}", slow.test, slow.ms / 1000)).collect();
        assert_eq!(found.join(", "), slowest, "{lines}");
    }

    #[test]
    fn times_follow_from_the_ends_of_tests() {
        check(1, "5 running 2 tests\n6 test a ... ok\n9 test b ... FAILED", "b 3, a 1");
        // a and b start at once; c starts when b ends, d when a ends.
        let four = "0 running 4 tests\n2 test b ... ok\n3 test a ... ok\n7 test d ... ok\n8 test c ... ok";
        check(2, four, "c 6, d 4, a 3");
        check(8, "0 running 1 test\n4 test a - should panic ... ok", "a 4");
        check(1, "0 running 2 tests\n0 test a ... ignored, group kill\n4 test b ... ok", "b 4");
    }

    #[test]
    fn several_binaries_are_timed_each_from_its_start() {
        let two = "0 running 1 test\n3 test a ... ok\n4 test result: ok. 1 passed\n9 running 1 test\n11 test b ... ok";
        check(2, two, "a 3, b 2");
    }

    #[test]
    fn times_of_incomplete_output_are_left_out() {
        check(1, "0 running 3 tests\n9 test a ... ok", "");
        check(1, "", "");
        check(1, "0 running 1 test\n9 test src/lib.rs - (line 3) ... ok", "");
        check(1, "0 running 0 tests\n1 test result: ok.", "");
    }
}
