//! Lists the files of which `cargo xtask new` makes projects, to compile them in. They are this repository's own, so there is
//! no second copy that could differ.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// What a new project starts from, as the repository has it.
const TEMPLATE: &[&str] = &[
    ".cargo/config.toml",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "app",
    "clippy.toml",
    "rustfmt.toml",
    "tests/pipeline.rs",
    "xtask/Cargo.toml",
    "xtask/src",
];

/// The crates that a project gets a copy of, in `xtask/crates`.
const CRATES: &[&str] = &[
    "artifacts",
    "bucket",
    "bundle",
    "deploy",
    "gangplank",
    "html",
    "launch",
    "lint",
    "local-ci",
    "loopback",
    "model",
    "sign",
    "system",
];

/// What a project gets of each of them.
const PARTS: &[&str] = &["Cargo.toml", "README.md", "src"];

/// What lies beside the copies, and in the root of the repository.
const BESIDE: &[&str] = &["ARCHITECTURE.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "docs", "rustfmt.toml"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../../..");
    let crates = root.join("xtask/crates");
    let parts: Vec<_> = CRATES.iter().flat_map(|name| PARTS.iter().map(move |part| format!("{name}/{part}"))).collect();
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    let mut text = String::new();
    list(&mut text, "TEMPLATE", &[(&root, TEMPLATE)]);
    list(&mut text, "CRATES", &[(&crates, &parts), (&root, BESIDE)]);
    let out = Path::new(&variable("OUT_DIR")).join("embedded.rs");
    if let Err(error) = fs::write(&out, text) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// A constant of paths and contents, sorted by path.
fn list(text: &mut String, name: &str, from: &[(&PathBuf, &[&str])]) {
    let mut files = Vec::new();
    for (dir, names) in from {
        for name in *names {
            println!("cargo::rerun-if-changed={}", dir.join(name).display());
            walk(dir, name, &mut files);
        }
    }
    files.sort();
    let _ = writeln!(text, "pub const {name}: &[(&str, &[u8])] = &[");
    for (path, from) in files {
        let _ = writeln!(text, "    ({path:?}, include_bytes!({:?})),", from.display().to_string());
    }
    text.push_str("];\n");
}

fn walk(dir: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) {
    let path = dir.join(name);
    if path.is_file() {
        files.push((name.to_owned(), path));
        return;
    }
    for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
        let entry = entry.file_name().to_string_lossy().into_owned();
        // What editors leave.
        if !["~", ".orig", ".swp"].iter().any(|end| entry.ends_with(end)) {
            walk(dir, &format!("{name}/{entry}"), files);
        }
    }
}
