//! Patches of large files, made by the zstd program from the old and the new file.

use crate::delta::{OwnFiles, PATCH_BYTES_MIN, Zstd, each_entry};
use crate::members::threads;
use crate::release::{Release, scratch};
use gangplank_model::release::manifest::Manifest;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

/// From this size on, patches are made one at a time: zstd takes three times the size in memory.
const LARGE: u64 = 32 << 20;

/// Patches in a directory of their own, which is removed on drop.
#[derive(Debug, Default)]
pub struct Patches {
    dir: PathBuf,
    /// Sorted by path.
    done: Vec<Patch>,
    /// Number of files that were tried.
    tried: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Patch {
    /// The path of the file in the release.
    path: String,
    mode: u32,
    file: PathBuf,
}

/// A file to be patched: its old and its new content are `NUMBER.old` and `NUMBER.new`.
struct PatchInput {
    path: String,
    mode: u32,
    number: usize,
}

impl Patches {
    /// No patches yet. Their directory is beside that of the release.
    pub fn beside(release: &Release) -> Self {
        Self { dir: scratch(release.dir().parent().unwrap_or(release.dir()), "patches"), done: vec![], tried: 0 }
    }

    /// Whether a file is patched.
    pub fn has(&self, path: &str) -> bool {
        self.done.binary_search_by(|it| it.path.as_str().cmp(path)).is_ok()
    }

    /// The list for the host: a line `MODE PATH` for each of [`Self::files`].
    pub fn list(&self) -> String {
        self.done.iter().fold(String::new(), |mut list, it| {
            let _ = writeln!(list, "{:o} {}", it.mode, it.path);
            list
        })
    }

    /// The patches.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.done.iter().map(|it| it.file.as_path())
    }

    /// Adds patches of the files `paths` of a release. A patch only saves bytes, so what cannot be read or patched is left
    /// out: a damaged bundle of the older release, for example.
    pub fn of_release(
        &mut self,
        zstd: &dyn Zstd,
        (older, theirs): (&Path, &Manifest),
        release: &Release,
        paths: &BTreeSet<&str>,
    ) {
        let ours = release.manifest();
        let files = ours.files.iter().filter(|file| paths.contains(file.path.as_str()));
        let wanted: Vec<_> = (self.tried..)
            .zip(files)
            .map(|(number, file)| PatchInput { path: file.path.clone(), mode: file.mode, number })
            .collect();
        let read = || {
            thread::scope(|scope| {
                let old = scope.spawn(|| self.extract(older, theirs, &wanted, "old"));
                self.extract(&release.bundle(), ours, &wanted, "new")?;
                old.join().expect("reading does not panic")
            })
        };
        if !wanted.is_empty() && read().is_ok() {
            self.make(zstd, wanted);
        }
    }

    /// Adds patches of the engine's own files. The host has those of `theirs`.
    pub fn of_own(&mut self, zstd: &dyn Zstd, own: &OwnFiles, theirs: &OwnFiles, max: u64) {
        let sizes = PATCH_BYTES_MIN..=max;
        let mut wanted = Vec::new();
        for (path, new) in own.iter().filter(|(_, bytes)| sizes.contains(&(bytes.len() as u64))) {
            let older = theirs.iter().find(|(it, bytes)| it == path && sizes.contains(&(bytes.len() as u64)));
            let Some((_, old)) = older else { continue };
            let number = self.tried + wanted.len();
            if self.write(number, "old", old).and_then(|()| self.write(number, "new", new)).is_ok() {
                wanted.push(PatchInput { path: path.clone(), mode: 0o644, number });
            }
        }
        self.make(zstd, wanted);
    }

    fn at(&self, number: usize, end: &str) -> PathBuf {
        self.dir.join(format!("{number}.{end}"))
    }

    fn write(&self, number: usize, end: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::write(self.at(number, end), bytes)
    }

    fn extract(&self, bundle: &Path, manifest: &Manifest, wanted: &[PatchInput], end: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        each_entry(bundle, manifest, &mut |file, content| {
            let Ok(at) = wanted.binary_search_by(|it| it.path.cmp(&file.path)) else { return Ok(()) };
            io::copy(content, &mut File::create_new(self.at(wanted[at].number, end))?).map(drop)
        })
    }

    /// Makes the patches that are wanted, on all cores if the files are small, and removes the contents.
    fn make(&mut self, zstd: &dyn Zstd, wanted: Vec<PatchInput>) {
        self.tried += wanted.len();
        let size = |it: &PatchInput| fs::metadata(self.at(it.number, "new")).map_or(0, |it| it.len());
        let workers = if wanted.iter().any(|it| size(it) >= LARGE) { 1 } else { threads() };
        let (left, done) = (Mutex::new(wanted), Mutex::new(vec![]));
        let work = || {
            loop {
                let Some(next) = left.lock().expect("no worker panics").pop() else { return };
                let [old, new, file] = ["old", "new", "patch"].map(|end| self.at(next.number, end));
                if zstd.patch(&old, &new, &file).is_ok() {
                    done.lock().expect("no worker panics").push(Patch { path: next.path, mode: next.mode, file });
                }
                let _ = [old, new].map(fs::remove_file);
            }
        };
        thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
        self.done.extend(done.into_inner().expect("no worker panics"));
        self.done.sort();
    }
}

impl Drop for Patches {
    fn drop(&mut self) {
        if !self.dir.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
