//! What an xtask is compiled from, as one digest.
//!
//! The digest covers git's objects below `xtask/`, the lock files, the workspace's manifest, cargo's settings, the
//! toolchain file, the compiler's own description, and the variables that change what cargo compiles. Whether that is
//! all that a program was compiled from is checked where it is packed: [`crate::sources`].

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

/// What the digest covers below the project's root. All of it must be committed.
const COVERED: &[&str] = &["xtask", ".cargo", "rust-toolchain", "rust-toolchain.toml", "Cargo.toml", "Cargo.lock"];
/// The features with which an xtask compiled itself again, separated by commas.
const FEATURES: &str = "GANGPLANK_XTASK_FEATURES";
/// The start of those that only add commands: the program without them is the same for every other command.
const OF_ENGINE: &str = "gangplank/";
/// Variables that change what cargo and the compilers of C make, by name or by its start.
const NAMES: &[&str] = &[
    "AR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CC",
    "CFLAGS",
    "CXX",
    "CXXFLAGS",
    FEATURES,
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];
const STARTS: &[&str] =
    &["AR_", "CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CC_", "CFLAGS_", "CXXFLAGS_", "CXX_"];
/// Variables of that form that do not.
const OTHERS: &[&str] =
    &["CARGO_BUILD_BUILD_DIR", "CARGO_BUILD_JOBS", "CARGO_BUILD_TARGET_DIR", "CARGO_TARGET_DIR", "CARGO_TARGET_TMPDIR"];

/// The environment of a process.
pub type Variables = BTreeMap<OsString, OsString>;

/// The inputs of a checkout.
pub struct Inputs {
    /// 64 hexadecimal digits.
    pub digest: String,
    /// The committed files that it covers, relative to the root.
    pub files: BTreeSet<String>,
}

impl Inputs {
    /// Those of the checkout at `root`. Fails if something that the digest covers is not committed, or lies behind a
    /// symbolic link or in a submodule, where git has no digest of what is compiled.
    pub fn of(root: &Path, variables: &Variables) -> Result<Self> {
        let git = |words: &[&str]| output(root, OsStr::new("git"), &[words, &["--"], COVERED].concat());
        let changed = git(&["status", "--porcelain", "--untracked-files=all"])?;
        if let Some(first) = changed.lines().next() {
            bail!("there are uncommitted changes: {}", first.trim());
        }
        let objects = git(&["ls-tree", "-r", "-z", "HEAD"])?;
        let files = files(&objects)?;
        let rustc = variables.get(OsStr::new("RUSTC")).map_or(OsStr::new("rustc"), OsString::as_os_str);
        let compiler = output(root, rustc, &["-vV"])?;
        Ok(Self { digest: digest(&objects, &compiler, &settings(variables)?), files })
    }
}

fn digest(objects: &str, compiler: &str, settings: &BTreeMap<&str, String>) -> String {
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

/// The paths of `git ls-tree -r -z`. Fails for an entry that is not a file.
fn files(objects: &str) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for entry in objects.split('\0').filter(|entry| !entry.is_empty()) {
        let path = entry.split_once('\t').map_or(entry, |(_, path)| path);
        ensure!(entry.starts_with("100"), "{path} is a symbolic link or a submodule");
        files.insert(path.to_owned());
    }
    ensure!(files.iter().any(|path| path.starts_with("xtask/")), "git has no files of the xtask");
    Ok(files)
}

/// Those variables that matter.
fn settings(variables: &Variables) -> Result<BTreeMap<&str, String>> {
    let mut settings = BTreeMap::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| matters(name)) else { continue };
        let value = value.to_str().with_context(|| format!("the variable {name} is not UTF-8"))?;
        let value = if name == FEATURES { own_features(value) } else { value.to_owned() };
        if !value.is_empty() {
            settings.insert(name, value);
        }
    }
    Ok(settings)
}

/// The features of the project itself.
fn own_features(all: &str) -> String {
    all.split(',').filter(|feature| !feature.starts_with(OF_ENGINE)).collect::<Vec<_>>().join(",")
}

fn matters(name: &str) -> bool {
    let is_runner = name.starts_with("CARGO_TARGET_") && name.ends_with("_RUNNER");
    let starts = STARTS.iter().any(|start| name.starts_with(start));
    NAMES.contains(&name) || (starts && !is_runner && !OTHERS.contains(&name))
}

/// The output of a program that succeeds.
pub(crate) fn output(root: &Path, program: &OsStr, args: &[&str]) -> Result<String> {
    let shown = || format!("`{} {}`", program.display(), args.first().unwrap_or(&""));
    let output = Command::new(program).args(args).current_dir(root).output().with_context(shown)?;
    ensure!(output.status.success(), "{} failed: {}", shown(), String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).with_context(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{checkout, commit, git, write};
    use std::fs;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn of(root: &Path) -> Result<String> {
        Ok(Inputs::of(root, &variables(&[]))?.digest)
    }

    #[test]
    fn parts_of_the_digest_do_not_run_into_each_other() {
        let none = BTreeMap::new();
        assert_ne!(digest("ab", "c", &none), digest("a", "bc", &none));
        assert_eq!(digest("a", "b", &none).len(), 64);
    }

    #[test]
    fn settings_are_those_that_change_what_is_compiled() {
        let all = variables(&[
            ("CARGO_BUILD_JOBS", "2"),
            ("CARGO_BUILD_RUSTFLAGS", "-g"),
            ("CARGO_BUILD_TARGET_DIR", "/x"),
            ("CARGO_PKG_NAME", "xtask"),
            ("CARGO_PROFILE_DEV_DEBUG", "0"),
            ("CARGO_TARGET_DIR", "/tmp"),
            ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "mold"),
            ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "qemu"),
            ("CFLAGS_x86_64", "-O0"),
            ("CIRCLE_TOKEN", "secret"),
            ("RUSTC_WORKSPACE_WRAPPER", "clippy"),
            ("RUSTFLAGS", ""),
        ]);
        let found = settings(&all).unwrap();
        let names: Vec<_> = found.keys().copied().collect();
        let linker = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER";
        let built = ["CARGO_BUILD_RUSTFLAGS", "CARGO_PROFILE_DEV_DEBUG", linker];
        assert_eq!(names, [&built[..], &["CFLAGS_x86_64", "RUSTC_WORKSPACE_WRAPPER"]].concat());
    }

    #[test]
    fn features_of_the_engine_only_add_commands() {
        for (value, want) in [
            ("gangplank/html", None),
            ("gangplank/local-ci,gangplank/html", None),
            ("s3", Some("s3")),
            ("gangplank/html,s3", Some("s3")),
        ] {
            let all = variables(&[(FEATURES, value)]);
            assert_eq!(settings(&all).unwrap().get(FEATURES).map(String::as_str), want, "{value}");
        }
    }

    #[test]
    fn variable_that_is_not_utf_8_is_an_error_only_if_it_matters() {
        use std::os::unix::ffi::OsStringExt;
        let bytes = || OsString::from_vec(b"SECRET\xff".to_vec());
        let mut all = Variables::from([("TOKEN".into(), bytes()), (bytes(), "x".into())]);
        assert!(settings(&all).unwrap().is_empty());
        all.insert("RUSTFLAGS".into(), bytes());
        assert_eq!(settings(&all).unwrap_err().to_string(), "the variable RUSTFLAGS is not UTF-8");
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
            ("xtask/Cargo.lock", "version = 4"),
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
    }

    #[test]
    fn digest_of_checkout_changes_with_the_compiler_and_its_settings() {
        let dir = checkout();
        let rustc = dir.path().join("target/rustc");
        write(dir.path(), "target/rustc", "#!/bin/sh\necho rustc 1.94.0\n");
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&rustc, permissions).unwrap();
        let with = |more: &[(&str, &str)]| {
            let all = [&[("RUSTC", rustc.to_str().unwrap()), ("HOME", "/root")], more].concat();
            // Another test's child process may still hold the script for writing.
            loop {
                match Inputs::of(dir.path(), &variables(&all)) {
                    Err(error) if format!("{error:#}").contains("Text file busy") => {}
                    inputs => return inputs.unwrap().digest,
                }
            }
        };
        let first = with(&[]);
        assert_eq!(with(&[("CIRCLE_BUILD_NUM", "7")]), first);
        assert_ne!(with(&[("RUSTFLAGS", "-g")]), first);
        fs::write(&rustc, "#!/bin/sh\necho rustc 1.95.0\n").unwrap();
        assert_ne!(with(&[]), first);
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
