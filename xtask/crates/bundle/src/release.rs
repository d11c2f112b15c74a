//! A release: a directory of `manifest.json`, `<app>-<id>.tar.gz` (or `.tar.zst`) and `SHA256SUMS`.
//!
//! [`Release`] has private fields and two constructors, [`Release::seal`] and [`Release::open`], which both hash every
//! byte. So a `&Release` is always verified.

use crate::check;
use crate::files;
use crate::members;
use crate::pack::Packed;
use crate::unpack::Unpacking;
use gangplank_model::error::{Kind, Result, WithHint, not_found, usage, verification};
use gangplank_model::release::digest;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::layout::{SUMS, SUMS_BYTES_MAX};
use gangplank_model::release::manifest;
use gangplank_model::release::manifest::{Manifest, checksum_line};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The name of the [`scratch`] directory to unpack to before verification is complete.
pub const UNPACKING: &str = "unpacking";

/// A verified release.
#[derive(Debug, Clone)]
pub struct Release {
    dir: PathBuf,
    manifest: Manifest,
}

pub use crate::members::supports;

/// Called with the bytes done and the total.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

impl Release {
    /// Creates `into/<id>` from a packed bundle in `into`, atomically: written to a temporary directory, synced,
    /// renamed. Replaces an existing release.
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
        Self::write_manifest(manifest, aside)
    }

    /// Writes the manifest and the digests of a release, and syncs its directory.
    fn write_manifest(manifest: &Manifest, dir: &Path) -> Result<()> {
        let what = |path: &Path| format!("cannot write {}", path.display());
        let hint = || "check free space and permissions: `df -h .`".to_owned();
        let json = manifest.to_json();
        // Nothing is written that a reader would reject.
        Manifest::parse(&json, "the release").map_err(|error| {
            usage(format!("{error:#}"))
                .hint("change `include` in xtask/src/main.rs, or the branch's name, then build again")
        })?;
        let sums = sums(manifest, &json);
        for (name, bytes) in [(manifest::FILE, json.as_slice()), (SUMS, sums.as_bytes())] {
            let path = dir.join(name);
            write_synced(&path, bytes).with_hint(Kind::Failed, || what(&path), hint)?;
        }
        sync_dir(dir).with_hint(Kind::Failed, || what(dir), hint)
    }

    /// Replaces the release by one with these signatures, atomically.
    pub fn with_signatures(self, signatures: Vec<String>) -> Result<Self> {
        let manifest = Manifest { signatures, ..self.manifest.clone() };
        let aside = scratch(self.dir.parent().unwrap_or(Path::new(".")), "signing");
        let bundle = aside.join(&manifest.bundle.file);
        let made = fs::create_dir(&aside)
            .and_then(|()| {
                fs::hard_link(self.bundle(), &bundle).or_else(|_| fs::copy(self.bundle(), &bundle).map(drop))
            })
            .with_hint(
                Kind::Failed,
                || format!("cannot write {}", aside.display()),
                || "check free space and permissions: `df -h .`".into(),
            )
            .and_then(|()| Self::write_manifest(&manifest, &aside))
            .and_then(|()| replace_dir(&aside, &self.dir));
        match made {
            Ok(()) => Ok(Self { manifest, ..self }),
            Err(error) => {
                let _ = fs::remove_dir_all(&aside);
                Err(error)
            }
        }
    }

    /// Opens a release directory and verifies it: exactly three files, the digest of the bundle, and path, size, mode
    /// and digest of each file inside. The error names the first bad file.
    pub fn open(dir: &Path, progress: Progress) -> Result<Self> {
        Self::check(dir, None, progress)
    }

    /// Like [`Self::open`]; unpacks to `into`, which must not exist, in the same pass. `into` is created only after
    /// verification.
    pub fn open_unpacked(dir: &Path, into: &Path, progress: Progress) -> Result<Self> {
        let what = || format!("cannot unpack into {}", into.display());
        let hint = || "name a new directory, on a disk with free space: `df -h .`".to_owned();
        if into.symlink_metadata().is_ok() {
            return usage(format!("{} already exists", into.display())).hint(hint()).err();
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

    /// Verifies everything but the bundle: the digests in the manifest, and that no other file exists.
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

    /// Reads the manifest of a release directory without verifying the bundle: for lists, not for deploys.
    pub fn read_manifest(dir: &Path) -> Result<Manifest> {
        let path = dir.join(manifest::FILE);
        let text = match files::read(&path, manifest::BYTES_MAX) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::FileTooLarge) => {
                return verification(format!("{}: {e}", path.display()))
                    .hint("build or fetch it again: the release is damaged or not ours")
                    .err();
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return not_found(format!("no release in {}: {} is missing", dir.display(), manifest::FILE))
                    .hint("list the releases with `cargo xtask releases`, or build one with `cargo xtask build`")
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
            return verification(format!("{}: contains the release {}", path.display(), manifest.id))
                .hint("rename it: the directory of a release must have its id as its name")
                .err();
        }
        Ok(manifest)
    }

    /// Renames the directory of the release, replacing an existing one.
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

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of the bundle.
    pub fn bundle(&self) -> PathBuf {
        self.dir.join(&self.manifest.bundle.file)
    }

    /// Whether the bundle consists of members of this engine only, so that every byte is verified.
    pub fn is_ours(&self) -> bool {
        let mut beginning = Vec::new();
        let read = files::open(&self.bundle()).and_then(|file| file.take(1 << 10).read_to_end(&mut beginning));
        read.is_ok() && members::are_ours(&beginning).is_some()
    }

    /// The three files, the manifest last: copying in this order commits with the last one.
    pub fn files(&self) -> [PathBuf; 3] {
        [self.bundle(), self.dir.join(SUMS), self.dir.join(manifest::FILE)]
    }
}

/// The content of [`SUMS`] for a manifest and its JSON.
pub fn sums(manifest: &Manifest, json: &[u8]) -> String {
    checksum_line(&manifest.bundle.sha256, &manifest.bundle.file) + &checksum_line(&digest::of(json), manifest::FILE)
}

/// A unique path in `dir`, for a file or directory that is renamed later.
pub fn scratch(dir: &Path, purpose: &str) -> PathBuf {
    static USED: AtomicU32 = AtomicU32::new(0);
    let n = USED.fetch_add(1, Ordering::Relaxed);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    dir.join(format!(".{purpose}-{}-{now:x}-{n}", std::process::id()))
}

/// Writes and syncs a file.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Syncs a directory.
pub fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Renames `aside` to `dir`, after moving an existing one out of the way.
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
