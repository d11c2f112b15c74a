//! A disk that records each write and each flush of its cache, to see what a power cut at any phase leaves of it.
//!
//! It is a real ext4 on a loop device, whose file is in a FUSE file system of this test. What was written before the last
//! flush is on the disk after a cut; of later writes a disk keeps any part. It cannot see a disk that ignores flushes, writes
//! torn inside one request, or file systems other than ext4.

use crate::record::skip;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

/// What a block device is asked to do.
enum Event {
    Write(usize, Vec<u8>),
    Flush,
}

/// All that a disk was asked to do, in order.
#[derive(Default)]
struct Log {
    now: Vec<u8>,
    events: Vec<Event>,
}

/// The file system with the one file `disk`.
struct Recorder(Arc<Mutex<Log>>);

const DISK: INodeNo = INodeNo(2);

impl Recorder {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let size = self.0.lock().unwrap().now.len() as u64;
        let (kind, perm) = if ino == DISK { (FileType::RegularFile, 0o600) } else { (FileType::Directory, 0o700) };
        FileAttr {
            ino,
            size: if ino == DISK { size } else { 0 },
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

const FOREVER: Duration = Duration::from_secs(3600);

impl Filesystem for Recorder {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "disk" {
            reply.entry(&FOREVER, &self.attributes(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let log = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap().min(log.now.len());
        let to = (from + size as usize).min(log.now.len());
        reply.data(&log.now[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let at = usize::try_from(offset).unwrap();
        let mut log = self.0.lock().unwrap();
        log.now[at..at + data.len()].copy_from_slice(data);
        log.events.push(Event::Write(at, data.to_vec()));
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.lock().unwrap().events.push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// An ext4 that is mounted at a directory, and unmounted when dropped.
pub struct Mounted {
    at: PathBuf,
    host: Option<String>,
}

impl Mounted {
    /// With `host`, the process id of a host with mounts of its own, it is mounted there.
    fn mount(image: &Path, at: &Path, host: Option<&str>) -> Option<Self> {
        if host.is_none() {
            fs::create_dir_all(at).unwrap();
        }
        let device = Command::new("losetup").args(["--find", "--show"]).arg(image).output().ok()?;
        let device = String::from_utf8(device.stdout).unwrap();
        let device = Path::new(device.trim());
        // A commit a second makes more moments at which the file system is what it is without our syncs.
        let mounted = device.is_absolute() && ran(host, "mount", &["-t", "ext4", "-o", "commit=1"], &[device, at]);
        // It stays until nothing uses it.
        ran(None, "losetup", &["--detach"], &[device]);
        mounted.then(|| Self { at: at.to_owned(), host: host.map(str::to_owned) })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let host = self.host.as_deref();
        // A process that was killed a phase ago may still be there.
        for _ in 0..100 {
            if ran(host, "umount", &[], &[&self.at]) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        ran(host, "umount", &["-l"], &[&self.at]);
    }
}

fn ran(host: Option<&str>, program: &str, options: &[&str], paths: &[&Path]) -> bool {
    let mut command = Command::new(host.map_or(program, |_| "nsenter"));
    if let Some(process) = host {
        command.args(["--mount", "--target", process, program]);
    }
    command.args(options).args(paths).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A mounted disk that records.
pub struct Disk {
    mounted: Option<Mounted>,
    session: Option<BackgroundSession>,
    log: Arc<Mutex<Log>>,
    initial: Vec<u8>,
    fuse: PathBuf,
}

impl Drop for Disk {
    /// Also when a test fails nothing stays mounted.
    fn drop(&mut self) {
        drop(self.mounted.take());
        // The kernel detaches the loop device some time after the file system is gone.
        for _ in 0..100 {
            let used = Command::new("losetup").arg("--associated").arg(self.fuse.join("disk")).output();
            if used.is_ok_and(|used| used.stdout.is_empty()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let ended = self.session.take().map(BackgroundSession::umount_and_join);
        if ended.is_none_or(|ended| ended.is_err()) {
            ran(None, "umount", &["-l"], &[&self.fuse]);
        }
    }
}

impl Disk {
    /// Mounts an empty disk of so many MiB at `at`; its files are in `dir`.
    pub fn mount(dir: &Path, at: &Path, host: Option<&str>, mib: u64) -> Option<Self> {
        fs::create_dir_all(dir.join("fuse")).unwrap();
        let image = dir.join("image");
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let made =
            ran(None, "mke2fs", &["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"], &[&image]);
        let initial = fs::read(&image).unwrap();
        let log = Arc::new(Mutex::new(Log { now: initial.clone(), events: vec![] }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("gangplank-test".into())];
        let fuse = dir.join("fuse");
        let session = made.then(|| fuser::spawn_mount(Recorder(log.clone()), &fuse, &config)).and_then(Result::ok);
        let mut disk = Self { mounted: None, session, log, initial, fuse };
        if disk.session.is_some() {
            disk.mounted = Mounted::mount(&disk.fuse.join("disk"), at, host);
        }
        if disk.mounted.is_none() {
            skip("power cuts: only root of a machine with mke2fs, FUSE and loop devices has such disks");
            return None;
        }
        Some(disk)
    }

    /// How many writes and flushes there were until now.
    pub fn now(&self) -> usize {
        self.log.lock().unwrap().events.len()
    }

    /// Unmounts the disk and gives what it recorded.
    pub fn end(self) -> Recording {
        // An orderly end is not what is asked for.
        let end = self.now();
        let (log, initial) = (self.log.clone(), self.initial.clone());
        drop(self);
        let mut log = log.lock().unwrap();
        log.events.truncate(end);
        Recording { initial, events: std::mem::take(&mut log.events) }
    }
}

/// What was written to a disk.
pub struct Recording {
    initial: Vec<u8>,
    events: Vec<Event>,
}

/// A phase, and what of the writes since the last flush is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// So many events came before.
    pub at: usize,
    /// `None` keeps none of the writes since the last flush, a seed draws which.
    pub seed: Option<u64>,
}

impl Recording {
    /// All cuts that differ: at each flush, without the writes after it, and, where there are writes after it, with some of them.
    pub fn cuts(&self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let mut writes = 0;
        for (at, event) in self.events.iter().enumerate() {
            match event {
                Event::Write(..) => writes += 1,
                Event::Flush if writes > 0 => {
                    cuts.push(Cut { at, seed: None });
                    if writes > 1 {
                        cuts.push(Cut { at, seed: Some(at as u64) });
                    }
                    writes = 0;
                }
                Event::Flush => {}
            }
        }
        cuts.push(Cut { at: self.events.len(), seed: None });
        cuts
    }

    /// Mounts at `at` what a cut leaves; `image` is a file for it.
    pub fn mount(&self, cut: Cut, image: &Path, at: &Path, host: Option<&str>) -> Mounted {
        let mut bytes = self.initial.clone();
        let before = &self.events[..cut.at];
        let flushed = before.iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        let mut random = cut.seed.unwrap_or_default();
        for (n, event) in before.iter().enumerate() {
            let Event::Write(offset, data) = event else { continue };
            // xorshift64* is enough to draw from.
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let drawn = (random ^ (random >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 63 == 1;
            if n < flushed || (cut.seed.is_some() && drawn) {
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
        fs::write(image, bytes).unwrap();
        let mounted = Mounted::mount(image, at, host).unwrap_or_else(|| panic!("{cut:?}: ext4 cannot be mounted"));
        // A process that still has a file open keeps the disk before this one alive: it must not write here.
        fs::remove_file(image).unwrap();
        mounted
    }
}
