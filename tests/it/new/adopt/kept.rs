//! What an adoption leaves as it is, and what git leaves out of its commit.

use super::super::git;
use super::{adopt, commit, small};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A lock file of versions that the engine could not use.
const OLD_LOCK: &str = "version = 3\n\n[[package]]\nname = \"anyhow\"\nversion = \"1.0.40\"\n\
    source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
    checksum = \"28b2cd92db5cbd74e8e5028f7e27dd7aa3090e89e4f2a197cc7c8dfb69c7063b\"\n\n\
    [[package]]\nname = \"web\"\nversion = \"0.1.0\"\ndependencies = [\n \"anyhow\",\n]\n";

#[test]
fn adopt_app_with_older_locked_versions_keeps_its_lock_and_manifest() {
    for members in ["", "\n[workspace]\nmembers = [\"crates/*\"]\n"] {
        let (_dir, at) = small();
        let manifest = fs::read_to_string(at.join("Cargo.toml")).unwrap();
        fs::write(at.join("Cargo.toml"), format!("{manifest}\n[dependencies]\nanyhow = \"1\"\n{members}")).unwrap();
        fs::write(at.join("Cargo.lock"), OLD_LOCK).unwrap();
        fs::create_dir_all(at.join("crates/one/src")).unwrap();
        fs::write(at.join("crates/one/src/lib.rs"), "").unwrap();
        fs::write(at.join("crates/one/Cargo.toml"), "[package]\nname = \"one\"\nversion = \"0.1.0\"\n").unwrap();
        commit(&at);
        let keeps = "Cargo.lock keeps all its versions";
        adopt(&at, &["--dry-run"]).ok().stdout_has(keeps).stdout_has("xtask/Cargo.lock");
        adopt(&at, &[]).ok().stdout_has(keeps);
        assert_eq!(git(&at, "diff --name-only"), "", "what was committed is as it was");
        let own = fs::read_to_string(at.join("xtask/Cargo.lock")).unwrap();
        assert!(own.contains("name = \"gangplank\"") && !own.contains("name = \"app\""), "{own}");
    }
}

#[test]
fn adopt_workspace_whose_members_are_all_directories_excludes_ours() {
    let (_dir, at) = small();
    fs::create_dir(at.join("app")).unwrap();
    for name in ["Cargo.toml", "src"] {
        fs::rename(at.join(name), at.join("app").join(name)).unwrap();
    }
    fs::write(at.join("Cargo.toml"), "[workspace]\nmembers = [\"*\"]\nexclude = [\".git\"]\n").unwrap();
    commit(&at);
    adopt(&at, &[]).ok();
    fs::create_dir(at.join("target")).unwrap();
    let metadata =
        Command::new("cargo").args(["metadata", "--no-deps", "--offline"]).current_dir(&at).output().unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
}

/// Files below a directory, as git and as the disk have them.
fn committed_and_there(at: &Path, below: &str) -> (Vec<String>, Vec<String>) {
    let lines = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let find = Command::new("find").args([below, "-type", "f"]).current_dir(at).output().unwrap();
    (lines(&git(at, &format!("ls-files {below}"))), lines(&String::from_utf8(find.stdout).unwrap()))
}

#[test]
fn adopt_crate_whose_gitignore_names_a_directory_of_the_engine_commits_all_of_it() {
    for line in ["target", "target/", "**/target", "release/", "build", "bin/", "*.lock", "docs"] {
        let (_dir, at) = small();
        commit(&at);
        fs::write(at.join(".gitignore"), format!("{line}\n")).unwrap();
        let said = adopt(&at, &["--json"]).ok().stdout;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let next: Vec<_> = said["next"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        let add = next.iter().find(|line| line.starts_with("git add")).unwrap();
        let sh = Command::new("sh").args(["-c", add.split(" && git commit").next().unwrap()]).current_dir(&at).status();
        assert!(sh.unwrap().success(), "{add}");
        for below in ["xtask", ".cargo", ".circleci", "Cargo.lock"] {
            let (committed, there) = committed_and_there(&at, below);
            assert_eq!(committed, there, "{line}: {below}");
        }
        assert!(at.join("Cargo.lock").exists(), "the jobs build with --locked");
    }
}

#[test]
fn adopt_library_whose_lock_is_ignored_names_the_line() {
    let (_dir, at) = small();
    fs::write(at.join(".gitignore"), "/target\n# a library\nCargo.lock\n").unwrap();
    commit(&at);
    for more in [&["--dry-run"][..], &[]] {
        adopt(&at, more).ok().stdout_has("git ignores Cargo.lock, and the jobs build with --locked: .gitignore:3");
    }
}

#[test]
fn adopt_where_the_xtask_itself_is_ignored_is_refused() {
    for (line, what, hint) in [
        ("xtask", "git ignores xtask/", "!/xtask/"),
        ("/xtask/crates/", "git ignores xtask/crates/gangplank/Cargo.toml: .gitignore:1", "git check-ignore"),
        (".cargo", "every job needs its alias", "~/.cargo/config.toml"),
    ] {
        let (_dir, at) = small();
        fs::create_dir(at.join(".cargo")).unwrap();
        fs::write(at.join(".cargo/config.toml"), "").unwrap();
        fs::write(at.join(".gitignore"), format!("{line}\n")).unwrap();
        commit(&at);
        for more in [&["--dry-run"][..], &[]] {
            adopt(&at, more).fails(2, what, hint);
        }
        assert_eq!(git(&at, "status --porcelain"), "", "{line}");
    }
}
