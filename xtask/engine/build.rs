//! Lists the template files of `cargo xtask new`, which the feature `new` compiles in.
//!
//! In the engine's repository these are the repository's own files, so there is no second copy. A generated project may
//! have changed them, so its vendored engine has the originals in `template/` beside this script.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The template of a new project, in the repository.
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

/// Files beside a vendored engine, and in the root of the repository.
const BESIDE: &[&str] = &["ARCHITECTURE.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "docs", "rustfmt.toml"];

/// Files in the engine's directory everywhere.
const ENGINE: &[&str] = &["Cargo.toml", "build.rs", "src"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let engine = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let (vendored, root) = (engine.join("template").is_dir(), engine.join("../.."));
    let docs = if vendored { "xtask/engine/docs" } else { "docs" };
    println!("cargo::rustc-env=GANGPLANK_DOCS={docs}");
    if env::var_os("CARGO_FEATURE_NEW").is_none() {
        return;
    }
    let beside = if vendored { &engine } else { &root };
    let template = if vendored { engine.join("template") } else { root.clone() };
    let mut text = String::new();
    list(&mut text, "TEMPLATE", &[(&template, TEMPLATE)]);
    list(&mut text, "ENGINE", &[(&engine, ENGINE), (beside, BESIDE)]);
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
        // Backup files of editors.
        if !["~", ".orig", ".swp"].iter().any(|end| entry.ends_with(end)) {
            walk(dir, &format!("{name}/{entry}"), files);
        }
    }
}
