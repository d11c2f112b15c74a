//! Records for `cargo xtask test`, a line each in a file: tests that were skipped, and the directories of each test.

use gangplank_suite::record::RECORD;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

/// Reports that a test could not run.
pub fn skip(what: &str) {
    eprintln!("SKIPPED: {what}");
    write(&format!("skipped\t{what}\n"));
}

/// A directory of the test that asks. A process that is left behind is known by it.
pub fn tempdir() -> TempDir {
    tempdir_in(&std::env::temp_dir())
}

/// The same below another directory.
pub fn tempdir_in(dir: &Path) -> TempDir {
    let dir = tempfile::tempdir_in(dir).unwrap();
    // libtest names the thread of a test after the test.
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    write(&format!("directory\t{}\t{test}\n", dir.path().display()));
    dir
}

/// Appends in one write, because other tests do the same.
fn write(line: &str) {
    if let Some(path) = std::env::var_os(RECORD) {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
