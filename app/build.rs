//! Tells the binary which commit it was built from, and when.
//!
//! The time is the time of the commit, not of the build: the same commit then gives the same bytes, on any machine
//! and on any day. For the same reason nothing here passes on a folder name (`CARGO_MANIFEST_DIR`, `OUT_DIR`).
//!
//! The pipeline says what it builds through `GANGPLANK_COMMIT` and `SOURCE_DATE_EPOCH`; a build by hand asks git; a
//! build from an archive without git is `unknown`.

use std::env;
use std::path::Path;
use std::process::Command;

/// 9999-12-31T23:59:59Z: RFC 3339 has four digits for the year.
const LAST_SECOND: i64 = 253_402_300_799;
/// Long enough to stay unambiguous in a large repository, short enough to read.
const SHORT: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    watch_git();

    let commit = commit();
    let built = rfc3339(time_of(&commit));
    println!("cargo::rustc-env=APP_COMMIT={commit}");
    println!("cargo::rustc-env=APP_COMMIT_SHORT={}", shorten(&commit));
    println!("cargo::rustc-env=APP_BUILT={built}");
}

/// The commit as the pipeline gives it, else as git knows it, else `unknown`.
fn commit() -> String {
    if let Some(commit) = variable("GANGPLANK_COMMIT") {
        if is_commit(&commit) {
            return commit;
        }
        // The value ends up in JSON and in the first line of the log: only what is known to be harmless may pass.
        println!("cargo::error=GANGPLANK_COMMIT is {commit:?}, not a full commit id (it may end in -dirty)");
    }
    git(&["rev-parse", "HEAD"]).filter(|commit| is_commit(commit)).unwrap_or_else(|| "unknown".to_owned())
}

/// The second that counts as the build time of `commit`.
fn time_of(commit: &str) -> i64 {
    if let Some(given) = variable("SOURCE_DATE_EPOCH") {
        match given.parse() {
            Ok(seconds @ 0..=LAST_SECOND) => return seconds,
            _ => println!("cargo::error=SOURCE_DATE_EPOCH is {given:?}, not a number of seconds since 1970"),
        }
    }
    // Asks for the commit itself and not for HEAD: the two differ when only the commit was given.
    let id = commit.strip_suffix("-dirty").unwrap_or(commit);
    // A person who has signatures shown would get more than the number.
    git(&["show", "-s", "--no-show-signature", "--format=%ct", id])
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

/// A variable that is set and not empty. Cargo runs this script again when it changes.
fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Runs this script again when HEAD moves: by a commit, a checkout or a reset.
///
/// The paths come from git, because in a worktree or a submodule they are not below `.git`. A path that does not
/// exist must stay unnamed: cargo takes it for changed and would build again each time.
fn watch_git() {
    for name in ["HEAD", "refs/heads", "packed-refs", "reftable"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What git prints, or nothing when there is no git, no repository or no such commit.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Whether `text` is a full SHA-1 or SHA-256 object id, with or without `-dirty`.
fn is_commit(text: &str) -> bool {
    let id = text.strip_suffix("-dirty").unwrap_or(text);
    matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The first digits of a commit; `-dirty` stays visible, because it is what a reader must not miss.
fn shorten(commit: &str) -> String {
    match commit.strip_suffix("-dirty") {
        Some(id) => format!("{id:.SHORT$}-dirty"),
        None => format!("{commit:.SHORT$}"),
    }
}

/// Unix seconds as `2026-03-21T08:00:00Z`.
fn rfc3339(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date that lies `days` after 1970-01-01.
///
/// This is `civil_from_days`, the inverse of `days_from_civil`, from Howard Hinnant's "chrono-Compatible Low-Level
/// Date Algorithms" (<https://howardhinnant.github.io/date_algorithms.html>). Years begin in March there, so that the
/// leap day is the last day of a year.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

// No test harness runs a build script, so the days that such code gets wrong are checked when it is compiled.
const _: () = assert!(matches!(civil_from_days(0), (1970, 1, 1)));
const _: () = assert!(matches!(civil_from_days(59), (1970, 3, 1)));
const _: () = assert!(matches!(civil_from_days(11_016), (2000, 2, 29)));
const _: () = assert!(matches!(civil_from_days(20_453), (2025, 12, 31)));
const _: () = assert!(matches!(civil_from_days(47_540), (2100, 2, 28)));
const _: () = assert!(matches!(civil_from_days(47_541), (2100, 3, 1)));
