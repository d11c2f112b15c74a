//! Extracts failed tests from the output of a test harness.

/// The maximum number of failed tests to retry; more are not a coincidence.
const RETRIED_MAX: usize = 3;
/// The maximum number of lines kept of one message, and of messages.
const MESSAGE_LINES: usize = 16;
const MESSAGES: usize = 8;

/// Collects the lines of one or more test binaries.
#[derive(Debug, Default)]
pub struct Failures {
    binaries_started: usize,
    binaries_ended: usize,
    /// Number of failed tests according to the result lines.
    counted: usize,
    names: Vec<String>,
    /// The message of each panic: where, and what, line by line.
    messages: Vec<Vec<String>>,
    /// Whether the next line belongs to the last message.
    in_message: bool,
}

impl Failures {
    /// Takes one line.
    pub fn line(&mut self, line: &str) {
        self.message_line(line);
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.binaries_started += 1;
        } else if line.starts_with("test result: ok. ") {
            self.binaries_ended += 1;
        } else if let Some(result) = line.strip_prefix("test result: FAILED. ") {
            let failed = result.split("; ").find_map(|part| part.strip_suffix(" failed")?.parse::<usize>().ok());
            self.counted += failed.unwrap_or(0);
            self.binaries_ended += usize::from(failed.is_some());
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.names.push(name.strip_suffix(" - should panic").unwrap_or(name).to_owned());
        }
    }

    /// Keeps the message of a panic, without its backtrace.
    fn message_line(&mut self, line: &str) {
        if line.starts_with("thread '") && line.contains(" panicked at ") {
            self.in_message = self.messages.len() < MESSAGES;
            if self.in_message {
                self.messages.push(vec![]);
            }
        }
        self.in_message &= !(line == "stack backtrace:" || line.starts_with("note: ") || line == "failures:");
        if let (true, Some(message)) = (self.in_message, self.messages.last_mut()) {
            message.push(line.trim_end().to_owned());
            self.in_message = message.len() < MESSAGE_LINES;
        }
    }

    /// What each failed test printed as it failed, without backtraces: a log that is cut at its start or in its middle
    /// still ends with the reason.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        self.messages.iter().map(|lines| lines.join("\n").trim_end().to_owned())
    }

    /// The failed tests, if they are few and nothing else failed: no crashed binary, no doctest, which has no usable
    /// name, and no garbled name.
    pub fn alone(&self) -> Option<&[String]> {
        let whole = self.binaries_started == self.binaries_ended && self.counted == self.names.len();
        let named = self.names.iter().all(|name| !name.contains(' '));
        let few = (1..=RETRIED_MAX).contains(&self.names.len());
        (whole && named && few).then_some(&self.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &str, alone: Option<&[&str]>) {
        let mut failures = Failures::default();
        lines.split(" / ").for_each(|line| failures.line(line));
        let found = failures.alone().map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found.as_deref(), alone, "{lines}");
    }

    #[test]
    fn message_of_a_panic_is_kept_without_its_backtrace() {
        let mut failures = Failures::default();
        let output = "---- a::b stdout ----\n\nthread 'a::b' (7) panicked at tests/a.rs:1:2:\nassertion failed\n left: 1\n\
                      stack backtrace:\n   0: main\nnote: run with\n\nthread 'c' (8) panicked at b.rs:3:4:\nno\n\nfailures:\n    a::b";
        output.lines().for_each(|line| failures.line(line));
        let messages: Vec<_> = failures.messages().collect();
        let first = "thread 'a::b' (7) panicked at tests/a.rs:1:2:\nassertion failed\n left: 1";
        assert_eq!(messages, [first, "thread 'c' (8) panicked at b.rs:3:4:\nno"]);
        let long = format!("thread 'd' (9) panicked at c.rs:5:6:\n{}", "more\n".repeat(1000));
        (0..100).for_each(|_| long.lines().for_each(|line| failures.line(line)));
        let lines: usize = failures.messages().map(|message| message.lines().count()).sum();
        assert_eq!((failures.messages().count(), lines), (MESSAGES, 3 + 2 + 6 * MESSAGE_LINES));
    }

    #[test]
    fn few_failed_tests_with_names_are_tried_again() {
        let ok = "running 1 test / test a ... ok / test result: ok. 1 passed; 0 failed; 0 ignored";
        check(ok, None);
        let failed =
            "running 2 tests / test b::c ... FAILED / test d ... ok / test result: FAILED. 1 passed; 1 failed; 0";
        check(failed, Some(&["b::c"]));
        check(&format!("{failed} / {ok}"), Some(&["b::c"]));
        check(
            "running 1 test / test p - should panic ... FAILED / test result: FAILED. 0 passed; 1 failed",
            Some(&["p"]),
        );
    }

    #[test]
    fn anything_else_that_failed_stays_failed() {
        let failed =
            "running 2 tests / test b::c ... FAILED / test d ... ok / test result: FAILED. 1 passed; 1 failed; 0";
        check("error: could not compile", None);
        check(&format!("{failed} / running 7 tests / test x ... ok"), None);
        check("running 2 tests / test b::c ... FAILED / test result: FAILED. 0 passed; 2 failed", None);
        check("running 1 test / test src/lib.rs - (line 3) ... FAILED / test result: FAILED. 0 passed; 1 failed", None);
        let many = "running 4 tests / test a ... FAILED / test b ... FAILED / test c ... FAILED / test d ... FAILED / \
                    test result: FAILED. 0 passed; 4 failed";
        check(many, None);
    }
}
