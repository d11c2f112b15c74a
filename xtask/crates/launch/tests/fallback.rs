//! The launcher where it finds no stored program: it becomes `cargo xtask`, with the same words and the same exit code.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the launcher in a directory with a cargo that prints what it is told.
fn launch(dir: &Path, set: &dyn Fn(&mut Command)) -> Output {
    let cargo = dir.join("cargo");
    // A child process writes it, so that no other test holds it open when it runs.
    let script =
        format!("printf '#!/bin/sh\\npwd\\necho \"$*\"\\nenv | grep -c CARGO_PKG_\\nexit 42\\n' > {}", cargo.display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    fs::set_permissions(&cargo, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gangplank-launch"));
    command.args(["rollback", "prod", "--reason", "a b", "--", "previous"]).current_dir(dir).stdin(Stdio::null());
    command.env("CARGO", &cargo).env_remove("CIRCLE_TOKEN").env("CARGO_TARGET_DIR", dir.join("target"));
    set(&mut command);
    command.output().unwrap()
}

fn is_fallback(dir: &Path, output: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let here = dir.canonicalize().unwrap();
    let want = format!("{}\nxtask rollback prod --reason a b -- previous\n0\n", here.display());
    assert_eq!((stdout.as_ref(), output.status.code()), (want.as_str(), Some(42)), "{stderr}");
    assert!(stderr.starts_with("note: compiling the xtask: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn launch_without_a_stored_program_compiles() {
    let dir = tempfile::tempdir().unwrap();
    is_fallback(dir.path(), &launch(dir.path(), &|_| {}));
}

#[test]
fn launch_without_a_tool_it_needs_compiles() {
    let dir = tempfile::tempdir().unwrap();
    // Only what the script needs.
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for tool in ["sh", "env", "grep", "pwd"] {
        let path = ["/bin", "/usr/bin"].iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.exists());
        std::os::unix::fs::symlink(path.unwrap(), bin.join(tool)).unwrap();
    }
    is_fallback(
        dir.path(),
        &launch(dir.path(), &|command| {
            command.env("PATH", &bin);
        }),
    );
}

#[test]
fn launch_with_a_variable_that_is_not_utf_8_compiles_and_does_not_print_it() {
    let dir = tempfile::tempdir().unwrap();
    let secret = || OsString::from_vec(b"SECRET\xff".to_vec());
    for name in ["CIRCLE_TOKEN", "RUSTFLAGS", "CIRCLE_BRANCH", "OTHER"] {
        let output = launch(dir.path(), &|command| {
            command.env(name, secret());
        });
        is_fallback(dir.path(), &output);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("SECRET"), "{name}");
    }
}

#[test]
fn launch_without_cargo_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = launch(dir.path(), &|command| {
        command.env("CARGO", dir.path().join("none"));
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(127));
    assert!(stderr.contains("error: cannot run cargo: ") && stderr.contains("hint: "), "{stderr}");
}
