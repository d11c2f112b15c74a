//! A release: a directory of `manifest.json`, `<app>-<id>.tar.gz` (or `.tar.zst`) and `SHA256SUMS`.
//!
//! [`Release`] has private fields and two constructors, [`Release::seal`] and [`Release::open`], and both hash every
//! byte. Whatever takes a `&Release` therefore cannot be handed unverified bytes.

mod check;
pub mod delta;
pub mod digest;
pub mod files;
mod format;
pub mod id;
pub mod layout;
mod links;
pub mod manifest;
mod members;
pub mod pack;
mod patch;
mod unpack;

use crate::error::{Kind, Result, WithHint, not_found, usage, verification};
use crate::release::id::ReleaseId;
use crate::release::layout::{SUMS, SUMS_BYTES_MAX};
use crate::release::manifest::{Manifest, checksum_line};
use crate::release::pack::Packed;
use crate::release::unpack::Unpacking;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What is unpacked lies under a [`scratch`] of this name until all of it was found good.
pub const UNPACKING: &str = "unpacking";

/// A release whose every byte matched its manifest.
#[derive(Debug, Clone)]
pub struct Release {
    dir: PathBuf,
    manifest: Manifest,
}

pub use members::supports;

/// Called with the bytes done so far and in all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

impl Release {
    /// Makes `into/<id>` out of a packed bundle that lies in `into`. Written aside, synced, renamed: after a crash the
    /// directory is there whole or not at all. A release that was there is replaced.
    pub fn seal(packed: &Packed, manifest: Manifest, into: &Path) -> Result<Self> {
        let aside = scratch(into, "sealing");
        let made = Self::seal_aside(packed, &manifest, &aside).and_then(|()| {
            let dir = into.join(manifest.id.as_str());
            replace_dir(&aside, &dir)?;
            Ok(dir)
        });
        match made {
            Ok(dir) => Ok(Self { dir, manifest }),
            Err(error) => {
                let _ = fs::remove_dir_all(&aside);
                Err(error)
            }
        }
    }

    fn seal_aside(packed: &Packed, manifest: &Manifest, aside: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(aside);
        let what = |path: &Path| format!("cannot write {}", path.display());
        let hint = || "check free space and permissions: `df -h .`".to_owned();
        fs::create_dir_all(aside).with_hint(Kind::Failed, || what(aside), hint)?;
        let bundle = aside.join(&manifest.bundle.file);
        fs::rename(&packed.path, &bundle).with_hint(Kind::Failed, || what(&bundle), hint)?;
        let json = manifest.to_json();
        // What no reader takes is not written.
        Manifest::parse(&json, "the release").map_err(|error| {
            usage(format!("{error:#}"))
                .hint("change what `include` in xtask/src/main.rs names, or the branch's name; then build again")
        })?;
        let sums = sums(manifest, &json);
        for (name, bytes) in [(manifest::FILE, json.as_slice()), (SUMS, sums.as_bytes())] {
            let path = aside.join(name);
            write_synced(&path, bytes).with_hint(Kind::Failed, || what(&path), hint)?;
        }
        sync_dir(aside).with_hint(Kind::Failed, || what(aside), hint)
    }

    /// Opens a release directory after checking every byte of it: the three files are there and no other, the bundle
    /// has its digest, and each file inside has its path, size, mode and digest. The error names the first bad file.
    pub fn open(dir: &Path, progress: Progress) -> Result<Self> {
        Self::check(dir, None, progress)
    }

    /// The same, and unpacks it into `into`, which must not be there, in the one pass that checks it. The directory is there
    /// when all of it was found good, or not at all.
    pub fn open_unpacked(dir: &Path, into: &Path, progress: Progress) -> Result<Self> {
        let what = || format!("cannot unpack into {}", into.display());
        let hint = || "name a directory that is not there, where there is room: `df -h .`".to_owned();
        if into.symlink_metadata().is_ok() {
            return usage(format!("{} is there already", into.display())).hint(hint()).err();
        }
        let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).with_hint(Kind::Failed, what, hint)?;
        let aside = scratch(parent, UNPACKING);
        let mut to = Unpacking::new(&aside)?;
        let done = Self::check(dir, Some(&mut to), progress).and_then(|release| {
            to.done()?;
            fs::rename(&aside, into).with_hint(Kind::Failed, what, hint)?;
            Ok(release)
        });
        done.inspect_err(|_| drop(fs::remove_dir_all(&aside)))
    }

    fn check(dir: &Path, into: Option<&mut Unpacking>, progress: Progress) -> Result<Self> {
        let manifest = Self::listed(dir)?;
        check::bundle(&dir.join(&manifest.bundle.file), &manifest, into, progress)?;
        Ok(Self { dir: dir.to_owned(), manifest })
    }

    /// Checks everything but the bundle: that the digests are those of the manifest, and that nothing else is there.
    pub fn listed(dir: &Path) -> Result<Manifest> {
        let manifest = Self::read_manifest(dir)?;
        let bad = |file: &str, reason: String| {
            verification(format!("{}: {reason}", dir.join(file).display()))
                .hint("fetch or build the release again; do not deploy it")
        };
        let json = files::read(&dir.join(manifest::FILE), manifest::BYTES_MAX)
            .map_err(|e| bad(manifest::FILE, e.to_string()))?;
        for entry in fs::read_dir(dir).map_err(|e| bad("", e.to_string()))? {
            let name = entry.map_err(|e| bad("", e.to_string()))?.file_name().to_string_lossy().into_owned();
            if ![manifest::FILE, SUMS, &manifest.bundle.file].contains(&name.as_str()) {
                return bad(&name.escape_debug().to_string(), "is not part of the release".into()).err();
            }
        }
        let listed = files::read(&dir.join(SUMS), SUMS_BYTES_MAX).map_err(|e| bad(SUMS, e.to_string()))?;
        let listed = String::from_utf8_lossy(&listed);
        if !listed.contains(&checksum_line(&digest::of(&json), manifest::FILE)) {
            return bad(manifest::FILE, format!("was changed after it was sealed, {SUMS} has another digest")).err();
        }
        if listed != sums(&manifest, &json) {
            return bad(SUMS, "does not list exactly the manifest and the bundle".into()).err();
        }
        Ok(manifest)
    }

    /// Reads the manifest of a release directory without checking the bundle: enough to list, not enough to deploy.
    pub fn read_manifest(dir: &Path) -> Result<Manifest> {
        let path = dir.join(manifest::FILE);
        let text = match files::read(&path, manifest::BYTES_MAX) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::FileTooLarge) => {
                return verification(format!("{}: {e}", path.display()))
                    .hint("the release is damaged or not ours: build or fetch it again")
                    .err();
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return not_found(format!("no release in {}: {} is missing", dir.display(), manifest::FILE))
                    .hint("run `cargo xtask releases` to see what there is, `cargo xtask build` to make one")
                    .err();
            }
            Err(e) => {
                return Err(e).with_hint(
                    Kind::Failed,
                    || format!("cannot read {}", path.display()),
                    || "check its permissions".into(),
                );
            }
        };
        let manifest = Manifest::parse(&text, &path.display().to_string())?;
        if dir
            .file_name()
            .is_some_and(|name| name.to_string_lossy().parse::<ReleaseId>().is_ok_and(|id| id != manifest.id))
        {
            return verification(format!("{}: holds the release {}", path.display(), manifest.id))
                .hint("a release directory must bear its id as its name")
                .err();
        }
        Ok(manifest)
    }

    /// Renames the directory of the release, replacing what was there.
    pub fn moved_to(self, dir: &Path) -> std::io::Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::rename(&self.dir, dir)?;
        Ok(Self { dir: dir.to_owned(), manifest: self.manifest })
    }

    /// Id of the release.
    pub fn id(&self) -> &ReleaseId {
        &self.manifest.id
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The directory that holds it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of the bundle.
    pub fn bundle(&self) -> PathBuf {
        self.dir.join(&self.manifest.bundle.file)
    }

    /// Whether the bundle is a row of members of this engine, in which nothing stands beside what was checked.
    pub fn is_ours(&self) -> bool {
        let mut beginning = Vec::new();
        let read = files::open(&self.bundle()).and_then(|file| file.take(1 << 10).read_to_end(&mut beginning));
        read.is_ok() && members::are_ours(&beginning).is_some()
    }

    /// The three files, the manifest last: whoever copies in this order has committed when the last one is there.
    pub fn files(&self) -> [PathBuf; 3] {
        [self.bundle(), self.dir.join(SUMS), self.dir.join(manifest::FILE)]
    }
}

/// The text of [`SUMS`] for a manifest and the bytes that it is written as.
pub fn sums(manifest: &Manifest, json: &[u8]) -> String {
    checksum_line(&manifest.bundle.sha256, &manifest.bundle.file) + &checksum_line(&digest::of(json), manifest::FILE)
}

/// A path in `dir` that nobody else uses, for what is written aside and then renamed.
pub fn scratch(dir: &Path, purpose: &str) -> PathBuf {
    static USED: AtomicU32 = AtomicU32::new(0);
    let n = USED.fetch_add(1, Ordering::Relaxed);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    dir.join(format!(".{purpose}-{}-{now:x}-{n}", std::process::id()))
}

/// Writes a file and waits until the disk has it.
pub fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the disk has the names in a directory.
pub fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Renames `aside` to `dir`, moving what was there out of the way first.
fn replace_dir(aside: &Path, dir: &Path) -> Result<()> {
    let old = aside.with_extension("old");
    let what = || format!("cannot move the release to {}", dir.display());
    let hint = || "check its permissions".to_owned();
    if dir.exists() {
        let _ = fs::remove_dir_all(&old);
        fs::rename(dir, &old).with_hint(Kind::Failed, what, hint)?;
    }
    fs::rename(aside, dir).with_hint(Kind::Failed, what, hint)?;
    let _ = fs::remove_dir_all(&old);
    if let Some(parent) = dir.parent() {
        sync_dir(parent).with_hint(Kind::Failed, what, hint)?;
    }
    Ok(())
}
