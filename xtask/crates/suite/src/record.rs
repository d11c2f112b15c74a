//! Records of tests for their run: skipped tests, and the directories of tests.

use std::fs;
use std::path::Path;

/// The variable that names the file. A line is `skipped TAB what and why` or `directory TAB path TAB test`.
pub const RECORD: &str = "GANGPLANK_TEST_RECORD";

/// The parsed records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Skipped tests with reasons, without duplicates.
    pub skipped: Vec<String>,
    /// Directories created by tests, and their tests.
    pub directories: Vec<(String, String)>,
}

impl Record {
    /// Parses the file; empty if it is missing.
    pub fn read(path: &Path) -> Self {
        Self::parse(&fs::read_to_string(path).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut record = Self::default();
        for line in text.lines() {
            match line.split('\t').collect::<Vec<_>>()[..] {
                ["skipped", what] if !record.skipped.iter().any(|it| it == what) => record.skipped.push(what.into()),
                ["directory", path, test] => record.directories.push((path.into(), test.into())),
                _ => {}
            }
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_not_understood_are_passed_by() {
        let text = "skipped\tssh: no sshd\nskipped\tssh: no sshd\ndirectory\t/tmp/a\tstory::one\n\nother\nskipped";
        let record = Record::parse(text);
        assert_eq!(record.skipped, ["ssh: no sshd"]);
        assert_eq!(record.directories, [("/tmp/a".to_owned(), "story::one".to_owned())]);
    }
}
