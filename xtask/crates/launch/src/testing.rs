//! A checkout of a project with an xtask, for unit tests.

use crate::inputs::output;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

pub fn checkout() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let package = |name: &str| format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n");
    for (path, text) in [
        ("xtask/src/main.rs", "fn main() {}".to_owned()),
        ("xtask/Cargo.toml", package("xtask") + "[dependencies]\nengine = { path = \"crates/engine\" }\n"),
        ("xtask/crates/engine/src/lib.rs", "//! The engine.".into()),
        ("xtask/crates/engine/Cargo.toml", package("engine")),
        ("Cargo.toml", "[workspace]\nmembers = [\"app\", \"xtask\"]\nresolver = \"3\"\n".into()),
        (".gitignore", "/target\n".into()),
        ("app/src/main.rs", "fn main() {}".into()),
        ("app/Cargo.toml", package("app")),
    ] {
        write(dir.path(), path, &text);
    }
    output(dir.path(), OsStr::new("cargo"), &["generate-lockfile", "--offline"]).unwrap();
    git(dir.path(), &["init", "--quiet"]);
    commit(dir.path());
    dir
}

pub fn write(root: &Path, path: &str, text: &str) {
    fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    fs::write(root.join(path), text).unwrap();
}

pub fn git(root: &Path, words: &[&str]) {
    let names = ["-c", "user.name=ana", "-c", "user.email=ana@example.com"];
    output(root, OsStr::new("git"), &[&names, words].concat()).unwrap();
}

pub fn commit(root: &Path) {
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--message", "1"]);
}
