//! A stored program: packed by the job that compiled it; downloaded, verified, unpacked and run by another.

use crate::circleci::{self, Api, Stored};
use crate::inputs::{Inputs, Variables, hex};
use crate::sources;
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};
use std::{env, process, thread};

/// The maximum size of an unpacked program.
const PROGRAM_MAX: u64 = 1 << 30;

/// Where programs are unpacked: below cargo's target directory.
pub fn directory(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("launch")
}

/// Packs a program that was compiled from this checkout as `DIR/INPUTS/SHA256.gz`. Fails with the reason if its inputs
/// do not determine it.
pub fn pack<K: Into<OsString>, V: Into<OsString>>(
    root: &Path,
    program: &Path,
    dir: &Path,
    variables: impl IntoIterator<Item = (K, V)>,
) -> Result<PathBuf> {
    let variables: Variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let inputs = Inputs::of(root, &variables)?;
    let variable = |name: &str| variables.get(OsStr::new(name)).cloned();
    let cargo = variable("CARGO").unwrap_or_else(|| "cargo".into());
    let home = variable("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cargo"))).context("there is no HOME")?;
    sources::check(root, &cargo, &home, program, &inputs)?;
    let packed = dir.join(&inputs.digest).join("packed");
    let made = packed.parent().map_or(Ok(()), fs::create_dir_all);
    made.with_context(|| packed.display().to_string())?;
    // Without its name and time, so that the same program is the same file.
    let gzip = Command::new("gzip").arg("-nc").stdin(File::open(program)?).stdout(File::create(&packed)?).status();
    ensure!(gzip.context("cannot run gzip")?.success(), "gzip failed");
    let to = dir.join(circleci::name(&inputs.digest, &sha256(&packed)?));
    fs::rename(&packed, &to).with_context(|| to.display().to_string())?;
    Ok(to)
}

/// Downloads a program and verifies it. Fails also for one that does not start on this machine; then nothing is left.
pub fn install(api: &Api, stored: &Stored, dir: &Path) -> Result<PathBuf> {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_nanos();
    let own = dir.join(format!("{}-{since}", process::id()));
    fs::create_dir_all(dir).and_then(|()| fs::create_dir(&own)).with_context(|| own.display().to_string())?;
    let (packed, program, to) = (own.join("xtask.gz"), own.join("xtask"), dir.join("xtask"));
    let installed = api
        .download(stored, &packed)
        .and_then(|()| unpack(&packed, &stored.sha256, &program))
        .and_then(|()| starts(&program))
        .and_then(|()| fs::rename(&program, &to).with_context(|| to.display().to_string()));
    let removed = fs::remove_dir_all(&own).with_context(|| own.display().to_string());
    installed.and(removed).map(|()| to)
}

/// Starts it once: a program for another machine is found out before it has anything to do.
fn starts(program: &Path) -> Result<()> {
    let Output { status, .. } = loop {
        match Command::new(program).arg("--version").stdin(Stdio::null()).output() {
            // Another process of this one's, as in tests, may hold the file for a moment.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => thread::sleep(Duration::from_millis(5)),
            output => break output.context("the stored program does not start")?,
        }
    };
    ensure!(status.success(), "the stored program does not start: {status}");
    Ok(())
}

/// Verifies a packed program and unpacks it.
fn unpack(packed: &Path, sha256: &str, program: &Path) -> Result<()> {
    ensure!(self::sha256(packed)? == sha256, "the stored program is damaged: its SHA-256 is not that of its name");
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(File::open(packed)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run gzip")?;
    let output = gzip.stdout.take().context("no output of gzip")?;
    let size = File::create(program).and_then(|mut file| io::copy(&mut output.take(PROGRAM_MAX), &mut file));
    // It ends by itself: at a limit, because nothing reads its output any more.
    let ended = gzip.wait()?;
    ensure!(size? < PROGRAM_MAX && ended.success(), "the stored program cannot be unpacked");
    Ok(fs::set_permissions(program, PermissionsExt::from_mode(0o700))?)
}

fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Replaces this process by a program. Returns only if that fails.
pub fn run(program: &Path, args: &[OsString]) -> io::Error {
    without_ours(Command::new(program).args(args)).exec()
}

/// Replaces this process by `cargo xtask`. Returns only if that fails.
pub fn compile_and_run(args: &[OsString]) -> io::Error {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    without_ours(Command::new(cargo).arg("xtask").args(args)).exec()
}

/// Removes the variables that cargo set for this crate.
fn without_ours(command: &mut Command) -> &mut Command {
    let is_ours = |name: &OsStr| {
        let starts = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        name.to_str().is_some_and(|name| starts.iter().any(|start| name.starts_with(start)))
    };
    for (name, _) in env::vars_os().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(dir: &Path, bytes: &[u8]) -> (PathBuf, String) {
        let path = dir.join("packed.gz");
        fs::write(&path, bytes).unwrap();
        (path, hex(&Sha256::digest(bytes)))
    }

    #[test]
    fn program_is_unpacked_if_its_bytes_are_those_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("xtask");
        fs::write(&program, "#!/bin/sh\necho $1\n").unwrap();
        let gzip = Command::new("gzip").arg("-c").arg(&program).output().unwrap().stdout;
        let (path, sha256) = packed(dir.path(), &gzip);
        unpack(&path, &sha256, &program).unwrap();
        assert_eq!(Command::new("sh").arg(&program).arg("hello").output().unwrap().stdout, b"hello\n");
        let error = unpack(&path, &"0".repeat(64), &program).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
        let (path, sha256) = packed(dir.path(), &gzip[..gzip.len() - 9]);
        assert!(unpack(&path, &sha256, &program).unwrap_err().to_string().contains("unpacked"));
    }
}
