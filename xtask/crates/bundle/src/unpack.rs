//! Unpacks a bundle during its verification: to a new directory, with the modes and times of `tar -x`. A thread writes,
//! so that verification does not wait for the disk.

use gangplank_model::error::{Kind, Result, WithHint, failed};
use gangplank_model::release::manifest::FileEntry;
use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// The number of chunks queued for the disk.
const WAITING: usize = 32;

/// A directory being filled.
pub struct Unpacking {
    to_disk: Option<SyncSender<UnpackStep>>,
    disk: Option<JoinHandle<Result<()>>>,
}

/// A step for the writer thread. The manifest parser has rejected paths that leave the directory.
enum UnpackStep {
    File { path: String, mode: u32, mtime: SystemTime },
    Bytes(Vec<u8>),
    FileEnds,
    Link { path: String, to: String },
}

impl Unpacking {
    /// Creates the directory, which must not exist.
    pub fn new(dir: &Path) -> Result<Self> {
        at(dir, fs::create_dir(dir))?;
        let (to_disk, steps) = sync_channel(WAITING);
        let dir = dir.to_owned();
        let disk = thread::spawn(move || Disk { dir, made: BTreeSet::new() }.follow(&steps));
        Ok(Self { to_disk: Some(to_disk), disk: Some(disk) })
    }

    /// Starts a file; `mtime` in seconds since 1970.
    pub fn file(&mut self, file: &FileEntry, mtime: u64) -> Result<()> {
        // A header may have any number.
        let mtime = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(mtime)).unwrap_or(SystemTime::UNIX_EPOCH);
        self.send(UnpackStep::File { path: file.path.clone(), mode: file.mode, mtime })
    }

    /// Appends to the current file.
    pub fn bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.send(UnpackStep::Bytes(bytes))
    }

    /// Sets mode and time of the current file.
    pub(crate) fn file_ends(&mut self) -> Result<()> {
        self.send(UnpackStep::FileEnds)
    }

    /// Records a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.send(UnpackStep::Link { path: path.to_owned(), to: to.to_owned() })
    }

    /// Waits until everything is written.
    pub fn done(mut self) -> Result<()> {
        self.end()
    }

    fn send(&mut self, step: UnpackStep) -> Result<()> {
        let sent = self.to_disk.as_ref().is_some_and(|disk| disk.send(step).is_ok());
        // The thread receives until it fails.
        if sent { Ok(()) } else { self.end() }
    }

    fn end(&mut self) -> Result<()> {
        self.to_disk = None;
        let ended = self.disk.take().and_then(|disk| disk.join().ok());
        // The thread reports its error once.
        ended.unwrap_or_else(|| failed("the writer thread has ended").hint("run it again").err())
    }
}

/// The caller removes the directory after a failure, so the thread must have ended.
impl Drop for Unpacking {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The writer thread.
struct Disk {
    dir: PathBuf,
    made: BTreeSet<PathBuf>,
}

impl Disk {
    fn follow(mut self, steps: &Receiver<UnpackStep>) -> Result<()> {
        // Last, so that nothing is written through a link.
        let mut links = Vec::new();
        let mut open = None;
        while let Ok(step) = steps.recv() {
            match step {
                UnpackStep::File { path, mode, mtime } => open = Some(self.file(&path, mode, mtime)?),
                UnpackStep::Bytes(bytes) => open.as_mut().map_or(Ok(()), |open| open.write(&bytes))?,
                UnpackStep::FileEnds => open.take().map_or(Ok(()), Written::done)?,
                UnpackStep::Link { path, to } => links.push((self.place(&path)?, to)),
            }
        }
        for (path, to) in &links {
            at(path, symlink(to, path))?;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, mode: u32, mtime: SystemTime) -> Result<Written> {
        let path = self.place(path)?;
        // Private until it is complete, whatever its final mode.
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = at(&path, opened)?;
        Ok(Written { path, file, mode, mtime })
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

/// A file being written.
struct Written {
    path: PathBuf,
    file: File,
    mode: u32,
    mtime: SystemTime,
}

impl Written {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        at(&self.path, self.file.write_all(bytes))
    }

    fn done(self) -> Result<()> {
        let set = || {
            self.file.set_permissions(Permissions::from_mode(self.mode))?;
            self.file.set_times(FileTimes::new().set_modified(self.mtime))
        };
        at(&self.path, set())
    }
}

fn at<T>(path: &Path, done: std::io::Result<T>) -> Result<T> {
    done.with_hint(
        Kind::Failed,
        || format!("cannot write {}", path.display()),
        || "check free space and permissions: `df -h .`".into(),
    )
}
