//! Archives for hosts, written from verified entries of a bundle. A host never unpacks bytes of a store.
//!
//! A host with another release receives only the changed files, and patches of large ones if the other release is
//! available here. The host copies unchanged files, and compares everything with the list of entries and the digests
//! before the install.

mod patches;

use crate::delta::patches::Patches;
use crate::format;
use crate::format::{Reader, Writer};
use crate::release::{Release, scratch};
use crate::{files, members, pack};
use gangplank_model::error::{Result, verification};
use gangplank_model::project::Compression;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::layout::{META, PATCH, PATCHES};
use gangplank_model::release::manifest::{Content, FileEntry, Manifest};
use gangplank_model::script::install::SAME;
use gangplank_model::transfer::{Abilities, PATCH_MAX, TransferMode};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A smaller file is sent as a whole.
const PATCH_BYTES_MIN: u64 = 64 << 10;

/// The zstd program of this machine.
pub trait Zstd: fmt::Debug + Sync {
    /// Compresses `file` into the new file `to`.
    fn compress(&self, file: &Path, to: &Path) -> Result<()>;
    /// Writes a patch from `older` to `newer` into the new file `to`.
    fn patch(&self, older: &Path, newer: &Path, to: &Path) -> Result<()>;
}

/// Files of the engine in [`META`], by their path in the release.
pub type OwnFiles = Vec<(String, Vec<u8>)>;

/// The paths of equal files, to be copied on the host. Links, and names that `tar` would misread in a list, are always
/// sent.
pub fn same<'a>(ours: &'a Manifest, theirs: &Manifest) -> BTreeSet<&'a str> {
    let known = |file: &FileEntry| {
        let at = theirs.files.binary_search_by(|it| it.path.cmp(&file.path));
        matches!(file.content, Content::Sha256(_)) && at.is_ok_and(|at| theirs.files[at] == *file)
    };
    let plain = |file: &&FileEntry| !file.path.contains('\\');
    ours.files.iter().filter(plain).filter(|file| known(file)).map(|file| file.path.as_str()).collect()
}

/// Whether copying these files saves enough: an eighth of the bytes.
pub fn is_worth_it(ours: &Manifest, same: &BTreeSet<&str>) -> bool {
    let all: u64 = ours.files.iter().map(|file| file.bytes).sum();
    let saved: u64 = ours.files.iter().filter(|it| same.contains(it.path.as_str())).map(|it| it.bytes).sum();
    saved >= PATCH_BYTES_MIN && saved * 8 >= all
}

/// The paths of changed files of at most `max` bytes that are worth a patch.
fn changed<'a>(ours: &'a Manifest, theirs: &Manifest, max: u64) -> BTreeSet<&'a str> {
    let find = |path: &str| theirs.files.binary_search_by(|it| it.path.as_str().cmp(path)).map(|at| &theirs.files[at]);
    let large =
        |file: &FileEntry| (PATCH_BYTES_MIN..=max).contains(&file.bytes) && matches!(file.content, Content::Sha256(_));
    let differs = |file: &FileEntry, it: &FileEntry| large(file) && large(it) && file.content != it.content;
    // A shell reads the names from lines.
    let plain = |file: &FileEntry| file.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let files = ours.files.iter().filter(|file| plain(file));
    files.filter(|file| find(&file.path).is_ok_and(|it| differs(file, it))).map(|file| file.path.as_str()).collect()
}

/// The size of the largest file of either release, of at most `max` bytes: hosts with more memory get the same patches.
fn largest(releases: [(&Manifest, &OwnFiles); 2], max: u64) -> u64 {
    let sizes = releases.into_iter().flat_map(|(manifest, own)| {
        manifest.files.iter().map(|file| file.bytes).chain(own.iter().map(|(_, bytes)| bytes.len() as u64))
    });
    sizes.filter(|bytes| *bytes <= max).max().unwrap_or(0)
}

/// Whether any changed file is worth a patch.
pub fn differ_inside(ours: &Manifest, theirs: &Manifest) -> bool {
    !changed(ours, theirs, PATCH_MAX).is_empty()
}

/// An archive for hosts; removed on drop.
#[derive(Debug)]
pub struct Archive {
    /// Its path.
    pub file: PathBuf,
}

impl Archive {
    /// An archive for a release, in the same directory.
    fn beside(release: &Release) -> Self {
        Self { file: scratch(release.dir().parent().unwrap_or(release.dir()), "archive") }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// The delta to a host with a certain other release.
#[derive(Debug)]
pub struct Delta {
    /// The number of unchanged files.
    pub same: usize,
    /// The number of files that the host patches.
    pub patched: usize,
    /// Everything else.
    pub archive: Archive,
}

/// The archives for hosts, each made once for all hosts that need it.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// Local bundles of releases on hosts. They need no verification, because hosts verify the result.
    older: BTreeMap<ReleaseId, PathBuf>,
    zstd: Option<&'a dyn Zstd>,
    /// The most targets on one host, which share its memory.
    targets: usize,
    /// `None` if the whole release is better.
    deltas: Mutex<BTreeMap<Difference, Option<Arc<Delta>>>>,
    whole: Mutex<BTreeMap<Whole, Arc<Archive>>>,
}

/// What a delta depends on. Releases are identified by the digests of their bundles.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Difference {
    from: String,
    to: String,
    mode: TransferMode,
    own: OwnFiles,
}

/// What the archive of a whole release depends on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Whole {
    bundle: String,
    compression: Option<Compression>,
    own: OwnFiles,
}

impl<'a> Changes<'a> {
    /// Archives made with access to these bundles, and with this program, for up to `targets` targets on one host. From any
    /// other release, changed files are sent as a whole.
    pub fn new(older: BTreeMap<ReleaseId, PathBuf>, zstd: Option<&'a dyn Zstd>, targets: usize) -> Self {
        Self { older, zstd, targets, ..Self::default() }
    }

    /// How a release is sent to a host that can do this.
    pub fn mode(&self, host: Abilities) -> TransferMode {
        let patch = self.zstd.is_some();
        let here = Abilities { zstd: patch || members::supports(Compression::Zstd).is_ok(), patch, memory: None };
        TransferMode::between(here, host, self.targets)
    }

    /// The delta for a host that has `theirs`, with the files `own`; `None` if it would save too little. The host has the
    /// files `theirs_own`.
    pub fn from(
        &self,
        theirs: &Manifest,
        release: &Release,
        mode: TransferMode,
        own: &OwnFiles,
        theirs_own: &OwnFiles,
    ) -> Result<Option<Arc<Delta>>> {
        // A second caller waits for the same result.
        let mut known = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (theirs.bundle.sha256.clone(), release.manifest().bundle.sha256.clone());
        let both = [(theirs, theirs_own), (release.manifest(), own)];
        let mode = TransferMode { patch_max: mode.patch_max.map(|max| largest(both, max)), ..mode };
        let difference = Difference { from, to, mode, own: own.clone() };
        if let Some(delta) = known.get(&difference) {
            return Ok(delta.clone());
        }
        let delta = self.make(theirs, release, mode, own, theirs_own)?.map(Arc::new);
        known.insert(difference, delta.clone());
        Ok(delta)
    }

    /// The archive of a whole release, with the files `own`.
    pub fn whole(&self, release: &Release, compression: Option<Compression>, own: &OwnFiles) -> Result<Arc<Archive>> {
        let mut known = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = Whole { bundle: release.manifest().bundle.sha256.clone(), compression, own: own.clone() };
        if let Some(archive) = known.get(&whole) {
            return Ok(Arc::clone(archive));
        }
        let archive = Arc::new(self.archive(release, compression, own, &BTreeSet::new(), &Patches::default())?);
        known.insert(whole, Arc::clone(&archive));
        Ok(archive)
    }

    fn make(
        &self,
        theirs: &Manifest,
        release: &Release,
        mode: TransferMode,
        own: &OwnFiles,
        theirs_own: &OwnFiles,
    ) -> Result<Option<Delta>> {
        let ours = release.manifest();
        let same = same(ours, theirs);
        let mut patches = Patches::default();
        if let (Some(max), Some(zstd)) = (mode.patch_max, self.zstd) {
            patches = Patches::beside(release);
            if let Some(older) = self.older.get(&theirs.id) {
                patches.of_release(zstd, (older, theirs), release, &changed(ours, theirs, max));
            }
            patches.of_own(zstd, own, theirs_own, max);
        }
        let patched: BTreeSet<_> =
            ours.files.iter().map(|file| file.path.as_str()).filter(|it| patches.has(it)).collect();
        if patched.is_empty() && !is_worth_it(ours, &same) {
            return Ok(None);
        }
        let list: String = same.iter().map(|path| format!("./{path}\n")).collect();
        let own: OwnFiles = own.iter().cloned().chain([(format!("{META}/{SAME}"), list.into_bytes())]).collect();
        let archive = self.archive(release, Some(mode.compression), &own, &same, &patches)?;
        let sent = archive.file.metadata().map_or(u64::MAX, |it| it.len());
        let is_less = patched.is_empty() || sent.saturating_mul(8) <= ours.bundle.bytes.saturating_mul(7);
        let delta = Delta { same: same.len(), patched: patched.len(), archive };
        Ok((is_less && is_worth_it(ours, &(&same | &patched))).then_some(delta))
    }

    /// An archive with the files `own` and a release without the files `without`, in which patches replace files.
    fn archive(
        &self,
        release: &Release,
        compression: Option<Compression>,
        own: &OwnFiles,
        without: &BTreeSet<&str>,
        patches: &Patches,
    ) -> Result<Archive> {
        let manifest = release.manifest();
        let by_program = self.zstd.filter(|_| compression == Some(Compression::Zstd));
        let archive = Archive::beside(release);
        pack::for_host(&archive.file, compression.filter(|_| by_program.is_none()), &mut |out| {
            let mut out = Writer::new(out, format::mtime(&manifest.commit));
            let list = patches.list();
            let list = (!list.is_empty()).then(|| (format!("{META}/{PATCHES}"), list.into_bytes()));
            for (path, bytes) in own.iter().filter(|(path, _)| !patches.has(path)).chain(&list) {
                out.entry(&own_entry(path, bytes.len() as u64), &mut &bytes[..])?;
            }
            each_entry(&release.bundle(), manifest, &mut |file, content| {
                let is_sent = !without.contains(file.path.as_str()) && !patches.has(&file.path);
                if is_sent { out.entry(file, content) } else { Ok(()) }
            })?;
            for (number, patch) in (1..).zip(patches.files()) {
                let bytes = patch.metadata()?.len();
                out.entry(&own_entry(&format!("{META}/{PATCH}.{number}"), bytes), &mut File::open(patch)?)?;
            }
            Ok(())
        })
        .map_err(|error| unreadable(release, error))?;
        let Some(zstd) = by_program else { return Ok(archive) };
        let compressed = Archive::beside(release);
        zstd.compress(&archive.file, &compressed.file)?;
        Ok(compressed)
    }
}

fn own_entry(path: &str, bytes: u64) -> FileEntry {
    FileEntry { path: path.to_owned(), bytes, mode: 0o644, content: Content::Sha256(String::new()) }
}

/// The error of reading a bundle that was verified before.
fn unreadable(release: &Release, error: anyhow::Error) -> anyhow::Error {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    if !matches!(kind, Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)) {
        return error;
    }
    verification(format!("{}: {error:#}: it changed after verification", release.bundle().display()))
        .hint("stop what writes to it, then run the same command again")
        .into()
}

/// Calls `work` for each entry of a bundle, with a reader of its content.
fn each_entry(
    bundle: &Path,
    manifest: &Manifest,
    work: &mut dyn FnMut(&FileEntry, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 18, files::open(bundle)?);
    let ours = file.fill_buf().map_or(None, members::are_ours);
    let each = |tar: &mut dyn Read| {
        let mut tar = Reader::new(tar, &manifest.commit);
        for file in &manifest.files {
            tar.begin(file)?;
            let mut content = tar.content().take(file.bytes);
            work(file, &mut content)?;
            io::copy(&mut content, &mut io::sink())?;
            tar.finish(file)?;
        }
        tar.end()
    };
    members::read(ours, file, each).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(files: &[(&str, u64, u32, Content)]) -> Manifest {
        let entry = |(path, bytes, mode, content): &(&str, u64, u32, Content)| FileEntry {
            path: (*path).into(),
            bytes: *bytes,
            mode: *mode,
            content: content.clone(),
        };
        let json = serde_json::json!({
            "schema": 1, "app": "shop", "id": "20260822T101500-1a2b3c4", "files": [],
            "commit": { "sha": "1a2b3c4", "time": "2026-08-22T10:15:00Z", "dirty": false },
            "bundle": { "file": "x", "bytes": 0, "sha256": "", "tar_sha256": "" },
        });
        let manifest: Manifest = serde_json::from_value(json).unwrap();
        Manifest { files: files.iter().map(entry).collect(), ..manifest }
    }

    #[test]
    fn same_keeps_only_equal_regular_files() {
        let of = |digest: &str| Content::Sha256(digest.into());
        let ours = manifest(&[
            ("a", 100_000, 0o644, of("1")),
            ("b", 10, 0o755, of("2")),
            ("c\\d", 10, 0o644, of("3")),
            ("e", 0, 0o644, Content::Link("a".into())),
            ("f", 10, 0o644, of("new")),
            ("g", 10, 0o644, of("5")),
        ]);
        let theirs = manifest(&[
            ("a", 100_000, 0o644, of("1")),
            ("b", 10, 0o644, of("2")),
            ("c\\d", 10, 0o644, of("3")),
            ("e", 0, 0o644, Content::Link("a".into())),
            ("f", 10, 0o644, of("old")),
        ]);
        let same = same(&ours, &theirs);
        assert_eq!(same.iter().copied().collect::<Vec<_>>(), ["a"], "mode, name, link, content, absence");
        assert!(is_worth_it(&ours, &same));
        assert!(!is_worth_it(&ours, &BTreeSet::from(["b"])));
    }
}
