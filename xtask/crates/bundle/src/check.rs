//! Verifies a bundle against its manifest in one pass: hashes and inflates the file, and compares every byte of the tar
//! with the one derived from the manifest (see [`format`]). Unpacking is part of the same pass, into a temporary
//! directory.

use crate::format;
use crate::format::Reader;
use crate::release::Progress;
use crate::unpack::Unpacking;
use crate::{files, members};
use gangplank_model::error::{Kind, Result, WithHint, verification};
use gangplank_model::release::digest::{Hasher, Through};
use gangplank_model::release::manifest::{Content, FileEntry, Manifest};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The size of a read, hash and write.
const PIECE: usize = 1 << 16;

/// A hashing reader of the file on disk.
type Raw<'a> = Through<BufReader<ReadProgress<'a, File>>>;

/// Verifies the bundle at `path`, and unpacks it to `into` if given. The error names the first bad file.
pub fn bundle(path: &Path, manifest: &Manifest, mut into: Option<&mut Unpacking>, progress: Progress) -> Result<()> {
    members::supports(manifest.compression())?;
    let name = path.display();
    let bad = |reason: String| verification(reason).hint("fetch or build the release again; do not deploy it");
    let file = match files::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return bad(format!("{name}: the bundle is missing")).err(),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => return bad(format!("{name}: {e}")).err(),
        Err(e) => {
            return Err(e).with_hint(Kind::Failed, || format!("cannot read {name}"), || "check its permissions".into());
        }
    };
    let size = file.metadata()?.len();
    if size != manifest.bundle.bytes {
        return bad(format!("{name}: has {size} bytes, the manifest says {}", manifest.bundle.bytes)).err();
    }
    let told = ReadProgress { inner: file, done: 0, total: size, progress };
    let mut file = BufReader::with_capacity(1 << 18, told);
    let unread = || format!("cannot read {name}");
    let look = || "check the disk: `dmesg | tail`".to_owned();
    let ours = members::are_ours(file.fill_buf().with_hint(Kind::Failed, unread, look)?);
    // Bundles of other programs are gzip.
    if ours.unwrap_or_default() != manifest.compression() {
        return bad(format!("{name}: is damaged at its start, or not of the type of its name")).err();
    }
    let raw = Through::new(file);
    let entries = |tar: &mut dyn Read| entries(tar, manifest, into.as_deref_mut());
    let (found, raw) = members::read(ours, raw, entries);
    // A failing disk is the cause, and missing data its effect. For damage, the entry knows the position.
    let raw = match raw {
        Err(e) if !matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            return Err(e).with_hint(Kind::Failed, unread, look);
        }
        raw => raw,
    };
    match found {
        Ok(()) => {}
        Err(Wrong::Bundle(reason)) => return bad(format!("{name}: {reason}")).err(),
        Err(Wrong::Place(error)) => return Err(error),
    }
    let raw = raw.map_err(|e| bad(format!("{name}: damaged at its end: {e}")))?;
    whole(raw, manifest).map_err(|reason| bad(format!("{name}: {reason}")).into())
}

/// The cause of a failure.
pub enum Wrong {
    /// The bundle does not match its manifest.
    Bundle(String),
    /// The destination has no room or no permission.
    Place(anyhow::Error),
}

impl From<String> for Wrong {
    fn from(reason: String) -> Self {
        Self::Bundle(reason)
    }
}

/// Reads the tar to its end and compares every byte with the manifest.
fn entries(tar: &mut dyn Read, manifest: &Manifest, mut into: Option<&mut Unpacking>) -> Result<(), Wrong> {
    let mut tar = Reader::new(tar, &manifest.commit);
    let mtime = format::mtime(&manifest.commit);
    for file in &manifest.files {
        tar.begin(file).map_err(|e| e.to_string())?;
        match &file.content {
            Content::Link(to) => {
                into.as_deref_mut().map_or(Ok(()), |into| into.link(&file.path, to)).map_err(Wrong::Place)?;
            }
            Content::Sha256(sha256) => {
                into.as_deref_mut().map_or(Ok(()), |into| into.file(file, mtime)).map_err(Wrong::Place)?;
                if content(tar.content(), file, into.as_deref_mut())? != *sha256 {
                    return Err(format!("`{}` differs from the manifest", file.path).into());
                }
                into.as_deref_mut().map_or(Ok(()), Unpacking::file_ends).map_err(Wrong::Place)?;
            }
        }
        tar.finish(file).map_err(|e| e.to_string())?;
    }
    tar.end().map_err(|e| e.to_string().into())
}

/// Reads the content of an entry, forwards it, and returns its digest.
fn content(tar: &mut dyn Read, want: &FileEntry, mut into: Option<&mut Unpacking>) -> Result<String, Wrong> {
    let mut hasher = Hasher::default();
    let mut left = want.bytes;
    let mut piece = Vec::new();
    while left > 0 {
        let bytes = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        // Without a destination the buffer was kept.
        if piece.len() != bytes {
            piece = vec![0; bytes];
        }
        tar.read_exact(&mut piece).map_err(|e| format!("`{}` is damaged: {e}", want.path))?;
        left -= bytes as u64;
        hasher.update(&piece);
        if let Some(into) = &mut into {
            into.bytes(std::mem::take(&mut piece)).map_err(Wrong::Place)?;
        }
    }
    Ok(hasher.hex())
}

/// Checks that nothing is left to read, and compares the digest.
fn whole(mut raw: Raw, manifest: &Manifest) -> Result<(), String> {
    let left = raw.read(&mut [0]).map_err(|e| format!("damaged at its end: {e}"))?;
    if left > 0 || raw.passed() != manifest.bundle.bytes {
        return Err("has data after its last file".into());
    }
    if raw.hex() != manifest.bundle.sha256 {
        return Err("does not have the digest in the manifest".into());
    }
    Ok(())
}

struct ReadProgress<'a, R> {
    inner: R,
    done: u64,
    total: u64,
    progress: Progress<'a>,
}

impl<R: Read> Read for ReadProgress<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        (self.progress)(self.done, self.total);
        Ok(n)
    }
}
