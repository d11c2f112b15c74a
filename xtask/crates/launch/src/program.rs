//! A stored program: packed by the job that compiled it; downloaded, verified, unpacked and run by another.

use crate::circleci::{Api, Stored};
use crate::inputs::{self, hex};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, process};

/// The maximum size of an unpacked program.
const PROGRAM_MAX: u64 = 1 << 30;

/// Where programs are unpacked: below cargo's target directory.
pub fn directory(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("launch")
}

/// Packs a program that was compiled from this checkout as `DIR/INPUTS/SHA256.gz`. Fails with the reason if the program
/// cannot be known by what is committed here.
pub fn pack(root: &Path, program: &Path, dir: &Path) -> Result<PathBuf> {
    let inputs = inputs::of(root)?;
    let rule = program.with_extension("d");
    let rule = fs::read_to_string(&rule).with_context(|| format!("cargo wrote no {}", rule.display()))?;
    let target = program.ancestors().nth(2).context("the program is in no target directory")?;
    if let Some(path) = inputs::foreign_source(root, target, &rule) {
        bail!("the xtask is compiled from {} too, which is not below xtask/", path.display());
    }
    let dir = dir.join(inputs);
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let packed = dir.join("packed");
    let gzip = Command::new("gzip").arg("-c").stdin(File::open(program)?).stdout(File::create(&packed)?).status();
    ensure!(gzip.context("cannot run gzip")?.success(), "gzip failed");
    let to = dir.join(format!("{}.gz", sha256(&packed)?));
    fs::rename(&packed, &to).with_context(|| to.display().to_string())?;
    Ok(to)
}

/// Downloads a program and verifies it. Fails also for one that does not start on this machine.
pub fn install(api: &Api, stored: &Stored, dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let (packed, program) = (dir.join(format!("{}.gz", process::id())), dir.join(process::id().to_string()));
    let installed = api.download(stored, &packed).and_then(|()| unpack(&packed, &stored.sha256, &program));
    let _ = fs::remove_file(&packed);
    installed?;
    let started = Command::new(&program).arg("--version").stdin(Stdio::null()).output().context("it does not start")?;
    ensure!(started.status.success(), "the stored program does not start: {}", started.status);
    // Beside nothing else, under a name that a process list shows well.
    let to = dir.join("xtask");
    fs::rename(&program, &to).with_context(|| to.display().to_string())?;
    Ok(to)
}

/// Verifies a packed program and unpacks it.
fn unpack(packed: &Path, sha256: &str, program: &Path) -> Result<()> {
    ensure!(self::sha256(packed)? == sha256, "the stored program is damaged: its SHA-256 is not that of its name");
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(File::open(packed)?)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run gzip")?;
    let output = gzip.stdout.take().context("no output of gzip")?;
    let size = io::copy(&mut output.take(PROGRAM_MAX), &mut File::create(program)?)?;
    // It ends by itself: at a limit, because nothing reads its output any more.
    ensure!(gzip.wait()?.success() && size < PROGRAM_MAX, "the stored program cannot be unpacked");
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
pub fn compile_and_run(root: &Path, args: &[OsString]) -> io::Error {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    without_ours(Command::new(cargo).arg("xtask").args(args).current_dir(root)).exec()
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
        assert_eq!(Command::new(&program).arg("hello").output().unwrap().stdout, b"hello\n");
        let error = unpack(&path, &"0".repeat(64), &program).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
        let (path, sha256) = packed(dir.path(), &gzip[..gzip.len() - 9]);
        assert!(unpack(&path, &sha256, &program).unwrap_err().to_string().contains("unpacked"));
    }
}
