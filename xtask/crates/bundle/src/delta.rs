//! Archives for hosts, written from verified entries of a bundle. A host never unpacks bytes of a store.
//!
//! A host with another release receives only the changed files, and of large ones only the changed parts, if the other
//! release is available here. The host copies unchanged files, and compares everything with the list of entries and the
//! digests before the install.

use crate::format;
use crate::format::{Reader, Writer};
use crate::patch;
use crate::patch::{Chunks, Piece};
use crate::release::{Release, scratch};
use crate::{files, members, pack};
use gangplank_model::error::{Kind, Result, WithHint, verification};
use gangplank_model::project::Compression;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::layout::META;
use gangplank_model::release::layout::{NEW, PATCHES};
use gangplank_model::release::manifest::{Content, FileEntry, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A smaller file is sent as a whole.
const WORTH_IT: u64 = 64 << 10;

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
    saved >= WORTH_IT && saved * 8 >= all
}

/// The paths of changed files that are worth a diff.
fn changed<'a>(ours: &'a Manifest, theirs: &Manifest) -> BTreeSet<&'a str> {
    let find = |path: &str| theirs.files.binary_search_by(|it| it.path.as_str().cmp(path)).map(|at| &theirs.files[at]);
    let large = |file: &FileEntry| file.bytes >= WORTH_IT && matches!(file.content, Content::Sha256(_));
    let differs = |file: &FileEntry, it: &FileEntry| large(file) && large(it) && file.content != it.content;
    // A shell reads the names from lines.
    let plain = |file: &FileEntry| file.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let files = ours.files.iter().filter(|file| plain(file));
    files.filter(|file| find(&file.path).is_ok_and(|it| differs(file, it))).map(|file| file.path.as_str()).collect()
}

/// Whether any changed file is worth a diff.
pub fn differ_inside(ours: &Manifest, theirs: &Manifest) -> bool {
    !changed(ours, theirs).is_empty()
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
    /// The paths of unchanged files.
    pub same: Vec<String>,
    /// The number of files assembled on the host, from pieces of their old version and new bytes.
    pub patched: usize,
    /// Everything else, gzipped.
    pub archive: Archive,
}

/// The deltas between releases, each packed once for all hosts.
#[derive(Debug, Default)]
pub struct Changes {
    /// Local bundles of releases on hosts. They need no verification, because hosts verify the result.
    older: BTreeMap<ReleaseId, PathBuf>,
    /// By the digests of both bundles; `None` if the whole release is better.
    known: Mutex<BTreeMap<[String; 2], Option<Arc<Delta>>>>,
    whole: Mutex<Vec<Whole>>,
}

/// An archive of a whole release.
#[derive(Debug)]
struct Whole {
    /// Digest of its bundle.
    bundle: String,
    compression: Option<Compression>,
    archive: Arc<Archive>,
}

impl Changes {
    /// Deltas with access to these bundles. From any other release, changed files are sent as a whole.
    pub fn new(older: BTreeMap<ReleaseId, PathBuf>) -> Self {
        Self { older, ..Self::default() }
    }

    /// The delta for a host that has `theirs`; `None` if it would save too little.
    pub fn from(&self, theirs: &Manifest, release: &Release) -> Result<Option<Arc<Delta>>> {
        // A second caller waits for the same result.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let both = [theirs.bundle.sha256.clone(), release.manifest().bundle.sha256.clone()];
        if let Some(delta) = known.get(&both) {
            return Ok(delta.clone());
        }
        let delta = self.make(theirs, release)?.map(Arc::new);
        known.insert(both, delta.clone());
        Ok(delta)
    }

    /// The archive of a whole release.
    pub fn whole(&self, release: &Release, compression: Option<Compression>) -> Result<Arc<Archive>> {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = &release.manifest().bundle.sha256;
        if let Some(made) = whole.iter().find(|it| it.bundle == *sum && it.compression == compression) {
            return Ok(Arc::clone(&made.archive));
        }
        let (archive, manifest) = (Archive::beside(release), release.manifest());
        pack::for_host(&archive.file, compression, &mut |out| {
            let mut out = Writer::new(out, format::mtime(&manifest.commit));
            each_entry(&release.bundle(), manifest, &mut |file, content| out.entry(file, content))
        })
        .map_err(|error| unreadable(release, error))?;
        let archive = Arc::new(archive);
        whole.push(Whole { bundle: sum.clone(), compression, archive: Arc::clone(&archive) });
        Ok(archive)
    }

    fn make(&self, theirs: &Manifest, release: &Release) -> Result<Option<Delta>> {
        let ours = release.manifest();
        let same = same(ours, theirs);
        // A damaged or missing bundle is ignored.
        let chunks = |older: &PathBuf| chunks_of(older, theirs, &changed(ours, theirs)).ok();
        let older = self.older.get(&theirs.id).and_then(chunks).unwrap_or_default();
        if older.is_empty() && !is_worth_it(ours, &same) {
            return Ok(None);
        }
        let archive = Archive::beside(release);
        let mut delta = Delta { same: same.iter().map(|&path| path.to_owned()).collect(), patched: 0, archive };
        let patched = cut(release, &same, &older, &delta.archive.file)?;
        let same = &same | &patched;
        let sent = delta.archive.file.metadata().map_or(u64::MAX, |it| it.len());
        let is_less = patched.is_empty() || sent.saturating_mul(8) <= ours.bundle.bytes.saturating_mul(7);
        delta.patched = patched.len();
        Ok((is_less && is_worth_it(ours, &same)).then_some(delta))
    }
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

type EarlierBundle = BTreeMap<String, Chunks>;

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

/// The chunks of some files of a bundle.
fn chunks_of(bundle: &Path, manifest: &Manifest, paths: &BTreeSet<&str>) -> io::Result<EarlierBundle> {
    let mut found = EarlierBundle::new();
    if !paths.is_empty() {
        each_entry(bundle, manifest, &mut |file, content| {
            if paths.contains(file.path.as_str()) {
                found.insert(file.path.clone(), Chunks::of(content)?);
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Writes a release without the files `without` to `to`, a `tar.gz`. Files with an older version are replaced by a file
/// with their new bytes and a list of how to assemble them. Returns their paths.
fn cut<'a>(
    release: &'a Release,
    without: &BTreeSet<&str>,
    older: &'a EarlierBundle,
    to: &Path,
) -> Result<BTreeSet<&'a str>> {
    let manifest = release.manifest();
    let aside = to.with_extension("new");
    let what = || format!("cannot write {}", aside.display());
    let mut new = File::create_new(&aside).with_hint(Kind::Failed, what, || "check free space: `df -h .`".into())?;
    // Unnamed from here on, so that no cleanup is needed.
    let _ = fs::remove_file(&aside);
    let mut patches = Patches::default();
    pack::for_host(to, Some(Compression::Gzip), &mut |out| {
        let mut out = Writer::new(out, format::mtime(&manifest.commit));
        each_entry(&release.bundle(), manifest, &mut |file, content| {
            if without.contains(file.path.as_str()) {
                return Ok(());
            }
            let Some((path, chunks)) = older.get_key_value(&file.path) else { return out.entry(file, content) };
            let mut to = BufWriter::new(&mut new);
            let pieces = patch::pieces(chunks, content, file.bytes, &mut to)?;
            to.flush()?;
            patches.add(path, file.mode, &pieces);
            Ok(())
        })?;
        patches.end(&mut new, &mut out)
    })
    .map_err(|error| unreadable(release, error))?;
    Ok(patches.paths)
}

/// The list of how to assemble files, in lines for the host's shell; see `script::install_changes`.
#[derive(Default)]
struct Patches<'a> {
    paths: BTreeSet<&'a str>,
    lines: String,
    /// Number of new bytes so far.
    new: u64,
}

impl<'a> Patches<'a> {
    fn add(&mut self, path: &'a str, mode: u32, pieces: &[Piece]) {
        let _ = writeln!(self.lines, "file {mode:o} {path}");
        for piece in pieces {
            let _ = match *piece {
                Piece::Old { at, bytes } => writeln!(self.lines, "old {at} {bytes}"),
                Piece::New { bytes } => {
                    self.new += bytes;
                    writeln!(self.lines, "new {} {bytes}", self.new - bytes)
                }
            };
        }
        self.lines.push_str("end\n");
        self.paths.insert(path);
    }

    /// Adds both files to the archive. The file of new bytes carries the mtime for the assembled files.
    fn end<W: Write>(&self, new: &mut File, out: &mut Writer<W>) -> io::Result<()> {
        if self.paths.is_empty() {
            return Ok(());
        }
        new.rewind()?;
        let lines = &mut self.lines.as_bytes();
        let files: [(&str, u64, &mut dyn Read); 2] =
            [(PATCHES, lines.len() as u64, lines), (NEW, self.new, &mut BufReader::new(new))];
        for (name, bytes, data) in files {
            let content = Content::Sha256(String::new());
            out.entry(&FileEntry { path: format!("{META}/{name}"), bytes, mode: 0o644, content }, data)?;
        }
        Ok(())
    }
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
