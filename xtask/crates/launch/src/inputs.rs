//! What an xtask is compiled from, as one digest.
//!
//! The digest covers git's objects below `xtask/`, the lock file, the workspace's manifest, cargo's settings, the
//! toolchain file, the compiler's own description, and the variables that change what cargo compiles. Dependencies are
//! covered by the lock file. A dependency by path that lies elsewhere is not, so such a program is not stored:
//! [`foreign_source`].

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the digest covers below the project's root. All of it must be committed.
pub const COVERED: &[&str] = &["xtask", ".cargo", "rust-toolchain", "rust-toolchain.toml", "Cargo.toml", "Cargo.lock"];
/// Those that do not apply to an xtask that is a workspace of its own.
const OF_WORKSPACE: &[&str] = &["Cargo.toml", "Cargo.lock"];
/// Variables that change what cargo compiles, by name or by the start of it.
const NAMES: &[&str] = &["RUSTC", "RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "GANGPLANK_XTASK_FEATURES"];
const STARTS: &[&str] = &["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"];
/// Variables of that form that only say where files go.
const PLACES: &[&str] = &["CARGO_TARGET_DIR", "CARGO_TARGET_TMPDIR", "CARGO_BUILD_TARGET_DIR", "CARGO_BUILD_BUILD_DIR"];

/// The digest of a checkout: 64 hexadecimal digits. Fails if something that it covers is not committed, or lies behind
/// a symbolic link or in a submodule, where git has no digest of what is compiled.
pub fn of(root: &Path) -> Result<String> {
    let stands_alone = root.join("xtask/Cargo.lock").is_file();
    let covered: Vec<_> =
        COVERED.iter().filter(|path| !(stands_alone && OF_WORKSPACE.contains(path))).copied().collect();
    let git = |words: &[&str]| output(root, OsStr::new("git"), &[words, &["--"], &covered].concat());
    let changed = git(&["status", "--porcelain", "--untracked-files=all"])?;
    if let Some(first) = changed.lines().next() {
        bail!("there are uncommitted changes: {}", first.trim());
    }
    let objects = git(&["ls-tree", "-r", "-z", "HEAD"])?;
    are_files(&objects)?;
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiler = output(root, &compiler, &["-vV"])?;
    Ok(digest(&objects, &compiler, &settings(env::vars())))
}

fn digest(objects: &str, compiler: &str, settings: &BTreeMap<String, String>) -> String {
    // Each part ends where its length says, so that no text of one can be read as another.
    let settings = format!("{settings:?}");
    let mut hash = Sha256::new();
    for part in ["gangplank xtask 1", objects, compiler, &settings] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Fails for an entry of `git ls-tree -r -z` that is not a file.
fn are_files(objects: &str) -> Result<()> {
    ensure!(objects.contains('\t'), "git has no files of the xtask");
    for entry in objects.split('\0').filter(|entry| !entry.is_empty()) {
        let path = entry.split_once('\t').map_or(entry, |(_, path)| path);
        ensure!(entry.starts_with("100"), "{path} is a symbolic link or a submodule");
    }
    Ok(())
}

fn settings(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let matters = |name: &str| {
        NAMES.contains(&name) || (STARTS.iter().any(|start| name.starts_with(start)) && !PLACES.contains(&name))
    };
    variables.filter(|(name, value)| matters(name) && !value.is_empty()).collect()
}

/// A source file of a program that the digest does not cover, from what cargo writes beside the program: `NAME.d`, a
/// rule of make.
pub fn foreign_source(root: &Path, target: &Path, rule: &str) -> Option<PathBuf> {
    let covered = |path: &PathBuf| {
        let Ok(below) = root.join(path).strip_prefix(root).map(Path::to_owned) else { return false };
        let climbs = below.components().any(|it| it.as_os_str() == "..");
        !climbs && COVERED.iter().any(|covered| below.starts_with(covered))
    };
    let made = |path: &PathBuf| path.starts_with(target);
    sources(rule).into_iter().find(|path| !covered(path) && !made(path))
}

/// The files after the colon of a rule. A space in a path is escaped.
fn sources(rule: &str) -> Vec<PathBuf> {
    let rule = rule.lines().next().unwrap_or_default();
    let Some((_, files)) = rule.split_once(": ") else { return Vec::new() };
    let (mut found, mut path, mut escaped) = (Vec::new(), String::new(), false);
    for c in files.chars().chain([' ']) {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            ' ' if !escaped => found.extend(Some(std::mem::take(&mut path)).filter(|path| !path.is_empty())),
            c => path.push(c),
        }
        escaped = false;
    }
    found.into_iter().map(PathBuf::from).collect()
}

/// The output of a program that succeeds.
fn output(root: &Path, program: &OsStr, args: &[&str]) -> Result<String> {
    let shown = || format!("`{} {}`", program.display(), args.first().unwrap_or(&""));
    let output = Command::new(program).args(args).current_dir(root).output().with_context(shown)?;
    ensure!(output.status.success(), "{} failed: {}", shown(), String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).with_context(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn digest_differs_for_each_input() {
        let flags = map(&[("RUSTFLAGS", "-C debuginfo=0")]);
        let all = [
            digest("a", "b", &map(&[])),
            digest("b", "b", &map(&[])),
            digest("a", "c", &map(&[])),
            digest("ab", "", &map(&[])),
            digest("a", "b", &flags),
        ];
        for (n, one) in all.iter().enumerate() {
            assert_eq!(one.len(), 64);
            assert!(!all[n + 1..].contains(one), "{n}");
        }
    }

    #[test]
    fn settings_are_those_that_change_what_is_compiled() {
        let all = [
            ("CARGO_BUILD_RUSTFLAGS", "-g"),
            ("CARGO_BUILD_TARGET_DIR", "/x"),
            ("CARGO_PKG_NAME", "xtask"),
            ("CARGO_PROFILE_DEV_DEBUG", "0"),
            ("CARGO_TARGET_DIR", "/tmp"),
            ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "mold"),
            ("CIRCLE_TOKEN", "secret"),
            ("RUSTFLAGS", ""),
        ];
        let found = settings(all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        let want = ["CARGO_BUILD_RUSTFLAGS", "CARGO_PROFILE_DEV_DEBUG", "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER"];
        assert_eq!(names, want);
    }

    #[test]
    fn source_outside_of_the_covered_files_is_found() {
        let (root, target) = (Path::new("/home/me/shop"), Path::new("/home/me/shop/target"));
        for (rule, want) in [
            ("/t/xtask: /home/me/shop/xtask/src/main.rs /home/me/shop/target/debug/build/x/out/a.rs\n", None),
            ("/t/xtask: xtask/src/main.rs .cargo/config.toml\n", None),
            (
                "/t/xtask: /home/me/shop/xtask/src/main.rs /home/me/shop/app/src/lib.rs\n",
                Some("/home/me/shop/app/src/lib.rs"),
            ),
            ("/t/xtask: /home/me/shop/xtask/../app/src/lib.rs\n", Some("/home/me/shop/xtask/../app/src/lib.rs")),
            ("/t/xtask: /home/me/shop/xtasks/a.rs\n", Some("/home/me/shop/xtasks/a.rs")),
            ("/t/xtask: /home/me/a\\ b/lib.rs /home/me/shop/xtask/a.rs\n", Some("/home/me/a b/lib.rs")),
        ] {
            assert_eq!(foreign_source(root, target, rule), want.map(PathBuf::from), "{rule}");
        }
    }

    /// A checkout of a project with an xtask.
    fn checkout() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("xtask/src/main.rs", "fn main() {}"),
            ("xtask/crates/engine/src/lib.rs", "//! The engine."),
            ("Cargo.lock", "version = 4"),
            ("Cargo.toml", "[workspace]"),
            ("app/src/main.rs", "fn main() {}"),
        ] {
            write(dir.path(), path, text);
        }
        git(dir.path(), &["init", "--quiet"]);
        commit(dir.path());
        dir
    }

    fn write(root: &Path, path: &str, text: &str) {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    }

    fn git(root: &Path, words: &[&str]) {
        let names = ["-c", "user.name=ana", "-c", "user.email=ana@example.com"];
        output(root, OsStr::new("git"), &[&names, words].concat()).unwrap();
    }

    fn commit(root: &Path) {
        git(root, &["add", "--all"]);
        git(root, &["commit", "--quiet", "--message", "1"]);
    }

    #[test]
    fn digest_of_checkout_changes_with_what_is_compiled_and_with_nothing_else() {
        let dir = checkout();
        let root = dir.path();
        let first = of(root).unwrap();
        write(root, "app/src/main.rs", "fn main() { println!() }");
        assert_eq!(of(root).unwrap(), first, "the app is another program");
        let mut seen = vec![first];
        for (path, text) in [
            ("xtask/src/main.rs", "fn main() { println!() }"),
            ("xtask/crates/engine/src/lib.rs", "//! Another engine."),
            ("Cargo.lock", "version = 4\n[[package]]"),
            ("Cargo.toml", "[workspace]\n[profile.dev]"),
            (".cargo/config.toml", "[alias]"),
            ("rust-toolchain.toml", "[toolchain]\nchannel = \"stable\""),
        ] {
            write(root, path, text);
            assert!(of(root).unwrap_err().to_string().contains("uncommitted"), "{path}");
            commit(root);
            let next = of(root).unwrap();
            assert!(!seen.contains(&next), "{path}");
            seen.push(next);
        }
        write(root, "xtask/Cargo.lock", "version = 4");
        commit(root);
        let alone = of(root).unwrap();
        write(root, "Cargo.lock", "the lock file of the app");
        assert_eq!(of(root).unwrap(), alone, "an xtask that is a workspace of its own has its own lock file");
    }

    #[test]
    fn checkout_with_a_link_below_the_xtask_or_without_a_commit_has_no_digest() {
        let dir = checkout();
        std::os::unix::fs::symlink("../../app/src", dir.path().join("xtask/src/app")).unwrap();
        commit(dir.path());
        assert!(of(dir.path()).unwrap_err().to_string().contains("xtask/src/app is a symbolic link"));
        let empty = tempfile::tempdir().unwrap();
        assert!(of(empty.path()).is_err());
        git(empty.path(), &["init", "--quiet"]);
        assert!(of(empty.path()).is_err());
    }
}
