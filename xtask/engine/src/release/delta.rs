//! What of a release a host lacks that has another one: the files that differ, as an archive of their own, and of large
//! ones only what is new, where the other release is here to compare. What is the same there is taken over on the host,
//! and all of it is checked there against the manifest, as ever.

use crate::error::{Explain, Kind, Result};
use crate::release::id::ReleaseId;
use crate::release::manifest::{Content, FileEntry, Manifest};
use crate::release::patch::{self, Chunks, Piece};
use crate::release::{META, Release, members, scratch};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How files are put together, in [`META`] of what is sent.
pub const PATCHES: &str = "patches";
/// What is new in them.
pub const NEW: &str = "new";

/// Less than this is sent again rather than asked for.
const WORTH_IT: u64 = 64 << 10;

/// The paths whose files are the same in both, and may be taken over. Links are small, and names that `tar` would read
/// otherwise in a list are few: they are sent.
pub fn same<'a>(ours: &'a Manifest, theirs: &Manifest) -> BTreeSet<&'a str> {
    let known = |file: &FileEntry| {
        let at = theirs.files.binary_search_by(|it| it.path.cmp(&file.path));
        matches!(file.content, Content::Sha256(_)) && at.is_ok_and(|at| theirs.files[at] == *file)
    };
    let plain = |file: &&FileEntry| !file.path.contains('\\');
    ours.files.iter().filter(plain).filter(|file| known(file)).map(|file| file.path.as_str()).collect()
}

/// Whether taking these over saves enough: an eighth of the bytes.
pub fn is_worth_it(ours: &Manifest, same: &BTreeSet<&str>) -> bool {
    let all: u64 = ours.files.iter().map(|file| file.bytes).sum();
    let saved: u64 = ours.files.iter().filter(|it| same.contains(it.path.as_str())).map(|it| it.bytes).sum();
    saved >= WORTH_IT && saved * 8 >= all
}

/// The paths of files of both that have other bytes, and are worth a look at which.
fn changed<'a>(ours: &'a Manifest, theirs: &Manifest) -> BTreeSet<&'a str> {
    let find = |path: &str| theirs.files.binary_search_by(|it| it.path.as_str().cmp(path)).map(|at| &theirs.files[at]);
    let large = |file: &FileEntry| file.bytes >= WORTH_IT && matches!(file.content, Content::Sha256(_));
    let differs = |file: &FileEntry, it: &FileEntry| large(file) && large(it) && file.content != it.content;
    // A shell reads the names from lines.
    let plain = |file: &FileEntry| file.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let files = ours.files.iter().filter(|file| plain(file));
    files.filter(|file| find(&file.path).is_ok_and(|it| differs(file, it))).map(|file| file.path.as_str()).collect()
}

/// Whether there are files of which it is worth to know what is new in them.
pub fn differ_inside(ours: &Manifest, theirs: &Manifest) -> bool {
    !changed(ours, theirs).is_empty()
}

/// What has to be sent to a host that has a certain other release.
#[derive(Debug)]
pub struct Delta {
    /// The paths of what is the same there.
    pub same: Vec<String>,
    /// How many files are put together there, of pieces of those that they replace and what is new.
    pub patched: usize,
    /// All else, as an archive. It goes when the last [`Changes`] does.
    pub file: PathBuf,
}

/// The changes from release to release, each packed once, however many hosts get it.
#[derive(Debug, Default)]
pub struct Changes {
    /// Bundles of what hosts have, where they are here. They need not be checked: nothing is installed that is not
    /// what its own manifest says.
    older: BTreeMap<ReleaseId, PathBuf>,
    /// By the digests of both bundles; `None` where all is better sent.
    known: Mutex<BTreeMap<[String; 2], Option<Arc<Delta>>>>,
}

impl Changes {
    /// Changes that can look into these bundles. From any other release whole files are sent.
    pub fn new(older: BTreeMap<ReleaseId, PathBuf>) -> Self {
        Self { older, known: Mutex::default() }
    }

    /// What has to be sent to a host that has `theirs`; `None` where that would save too little.
    pub fn from(&self, theirs: &Manifest, release: &Release) -> Result<Option<Arc<Delta>>> {
        // Whoever comes second waits for the first: both want the same.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let both = [theirs.bundle.sha256.clone(), release.manifest().bundle.sha256.clone()];
        if let Some(delta) = known.get(&both) {
            return Ok(delta.clone());
        }
        let delta = self.make(theirs, release)?.map(Arc::new);
        known.insert(both, delta.clone());
        Ok(delta)
    }

    fn make(&self, theirs: &Manifest, release: &Release) -> Result<Option<Delta>> {
        let ours = release.manifest();
        let same = same(ours, theirs);
        // One that is damaged or gone is as good as none.
        let chunks = |older: &PathBuf| chunks_of(older, &changed(ours, theirs)).ok();
        let older = self.older.get(&theirs.id).and_then(chunks).unwrap_or_default();
        if older.is_empty() && !is_worth_it(ours, &same) {
            return Ok(None);
        }
        let file = scratch(release.dir().parent().unwrap_or(release.dir()), "delta");
        let mut delta = Delta { same: same.iter().map(|&path| path.to_owned()).collect(), patched: 0, file };
        let made = cut(&release.bundle(), &same, &older, &delta.file);
        let what = || format!("cannot take {} apart", release.bundle().display());
        let patched = made.explain(Kind::Failed, what, || "check free space: `df -h .`".into())?;
        let same = &same | &patched;
        let sent = delta.file.metadata().map_or(u64::MAX, |it| it.len());
        let is_less = patched.is_empty() || sent.saturating_mul(8) <= ours.bundle.bytes.saturating_mul(7);
        delta.patched = patched.len();
        Ok((is_less && is_worth_it(ours, &same)).then_some(delta))
    }
}

impl Drop for Delta {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

type Older = BTreeMap<String, Chunks>;

/// Reads the entries of a bundle, which no check is made of.
fn read<T>(bundle: &Path, work: impl FnOnce(&mut dyn Read) -> io::Result<T>) -> io::Result<T> {
    let mut file = BufReader::with_capacity(1 << 18, File::open(bundle)?);
    let ours = file.fill_buf().map_or(None, members::are_ours);
    members::read(ours, file, work).0
}

/// The chunks of some files of a bundle.
fn chunks_of(bundle: &Path, paths: &BTreeSet<&str>) -> io::Result<Older> {
    if paths.is_empty() {
        return Ok(Older::new());
    }
    read(bundle, |tar| {
        let mut found = Older::new();
        for entry in tar::Archive::new(tar).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_str().filter(|path| paths.contains(path)).map(str::to_owned);
            if let Some(path) = path {
                found.insert(path, Chunks::of(&mut entry)?);
            }
        }
        Ok(found)
    })
}

/// Writes what is left of a bundle without these files to `to`, again a `tar.gz`. Of those that there is an older one of
/// only what is new goes in, all of it in one file, and beside that how they are put together. Gives the paths of these.
fn cut<'a>(bundle: &Path, without: &BTreeSet<&str>, older: &'a Older, to: &Path) -> io::Result<BTreeSet<&'a str>> {
    let mut out = tar::Builder::new(GzEncoder::new(BufWriter::new(File::create(to)?), Compression::new(6)));
    let mut patches = Patches::default();
    let aside = to.with_extension("new");
    let mut new = File::create_new(&aside)?;
    // It has no name from here on, so that nothing has to see to its end.
    fs::remove_file(&aside)?;
    read(bundle, |tar| {
        for entry in tar::Archive::new(tar).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let name = path.to_str().unwrap_or_default();
            if without.contains(name) {
                continue;
            }
            let mut header = entry.header().clone();
            if let Some((name, chunks)) = older.get_key_value(name) {
                let bytes = header.size()?;
                let mut to = BufWriter::new(&mut new);
                let pieces = patch::pieces(chunks, &mut entry, bytes, &mut to)?;
                to.flush()?;
                patches.add(name, &header, &pieces)?;
                continue;
            }
            match entry.link_name()?.map(std::borrow::Cow::into_owned) {
                Some(link) => out.append_link(&mut header, &path, link)?,
                None => out.append_data(&mut header, &path, &mut entry)?,
            }
        }
        Ok(())
    })?;
    patches.end(&mut new, &mut out)?;
    out.into_inner()?.finish()?.flush()?;
    Ok(patches.paths)
}

/// How files are put together on a host, in lines that its shell reads; see `script::install_changes`.
#[derive(Default)]
struct Patches<'a> {
    paths: BTreeSet<&'a str>,
    lines: String,
    /// Bytes of what is new so far.
    new: u64,
    mtime: u64,
}

impl<'a> Patches<'a> {
    fn add(&mut self, path: &'a str, header: &tar::Header, pieces: &[Piece]) -> io::Result<()> {
        let _ = writeln!(self.lines, "file {:o} {path}", header.mode()?);
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
        self.mtime = header.mtime()?;
        self.paths.insert(path);
        Ok(())
    }

    /// Adds both files to the archive. That of what is new has the time that the files get.
    fn end(&self, new: &mut File, out: &mut tar::Builder<impl Write>) -> io::Result<()> {
        if self.paths.is_empty() {
            return Ok(());
        }
        new.rewind()?;
        let lines = &mut self.lines.as_bytes();
        let files: [(&str, u64, &mut dyn Read); 2] =
            [(PATCHES, lines.len() as u64, lines), (NEW, self.new, &mut BufReader::new(new))];
        for (name, bytes, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(self.mtime);
            header.set_size(bytes);
            out.append_data(&mut header, format!("{META}/{name}"), data)?;
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
    fn what_is_taken_over() {
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
