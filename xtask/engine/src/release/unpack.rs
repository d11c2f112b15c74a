//! Where a bundle is unpacked to while it is checked: a new directory, with the modes and times that `tar -x` would give.

use crate::error::{Explain, Kind, Result};
use crate::release::manifest::FileEntry;
use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A directory that is filled.
pub struct Unpacking {
    dir: PathBuf,
    made: BTreeSet<PathBuf>,
    /// Made last, so that nothing is written through one.
    links: Vec<(PathBuf, String)>,
}

/// A file that is being written.
pub struct Written {
    path: PathBuf,
    file: File,
    mode: u32,
    mtime: SystemTime,
}

impl Unpacking {
    /// Makes the directory, which must not be there. Paths come from a manifest, whose reader refuses those that lead out
    /// of it.
    pub fn new(dir: &Path) -> Result<Self> {
        at(dir, fs::create_dir(dir))?;
        Ok(Self { dir: dir.to_owned(), made: BTreeSet::new(), links: Vec::new() })
    }

    /// Begins a file; `mtime` in seconds since 1970.
    pub fn file(&mut self, file: &FileEntry, mtime: u64) -> Result<Written> {
        let path = self.place(&file.path)?;
        // Until it is whole nobody else may look, whatever its mode will be.
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let opened = at(&path, opened)?;
        // A header may say any number.
        let mtime = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(mtime)).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Written { file: opened, path, mode: file.mode, mtime })
    }

    /// Remembers a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        let path = self.place(path)?;
        self.links.push((path, to.to_owned()));
        Ok(())
    }

    /// Makes the links.
    pub fn done(self) -> Result<()> {
        for (path, to) in &self.links {
            at(path, symlink(to, path))?;
        }
        Ok(())
    }

    fn place(&mut self, path: &str) -> Result<PathBuf> {
        let path = self.dir.join(path);
        let parent = path.parent().unwrap_or(&self.dir);
        if !self.made.contains(parent) {
            at(parent, fs::create_dir_all(parent))?;
            self.made.insert(parent.to_owned());
        }
        Ok(path)
    }
}

impl Written {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        at(&self.path, self.file.write_all(bytes))
    }

    /// Gives it its mode and time.
    pub fn done(self) -> Result<()> {
        let set = || {
            self.file.set_permissions(Permissions::from_mode(self.mode))?;
            self.file.set_times(FileTimes::new().set_modified(self.mtime))
        };
        at(&self.path, set())
    }
}

fn at<T>(path: &Path, done: std::io::Result<T>) -> Result<T> {
    done.explain(
        Kind::Failed,
        || format!("cannot write {}", path.display()),
        || "check free space and permissions: `df -h .`".into(),
    )
}
