//! Packs a bundle in one pass that reads, hashes, tars and compresses, with parallel compression.
//!
//! The tar stream is split into blocks, and each block becomes a member; the members form one gzip or zstd file, so `tar xf`
//! reads it. A block ends after a mebibyte, or four with zstd, and at the start and end of a file of that size, so that its
//! blocks do not depend on their neighbours and can be reused from an older bundle. The split depends only on the stream, so
//! the bytes are the same for any number of threads:
//!
//! ```text
//! files ─▶ tar + SHA-256 ─▶ blocks ─▶ N × compress ─▶ in order ─▶ SHA-256 + file
//! ```

use crate::format;
use crate::format::Writer;
use crate::members::{Compress, EarlierBundle, threads};
use crate::release::Progress;
use gangplank_model::error::{Kind, Result, WithHint, failed};
use gangplank_model::project::Compression;
use gangplank_model::release::digest::{Hasher, Through};
use gangplank_model::release::manifest::{Content, FileEntry};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// A file for a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Path in the bundle.
    pub path: String,
    /// Its path on disk.
    pub from: PathBuf,
    /// Size in bytes; 0 for a link.
    pub bytes: u64,
    /// `0o644` or `0o755`.
    pub mode: u32,
    /// Target, for a symbolic link.
    pub link: Option<String>,
}

/// A packed bundle without a manifest.
#[derive(Debug)]
pub struct Packed {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its digest, hex.
    pub sha256: String,
    /// The digest of the tar inside, hex.
    pub tar_sha256: String,
    /// Its files.
    pub files: Vec<FileEntry>,
}

/// Packs `sources`, sorted by path, into the file `out`, with every mtime set to `mtime` (Unix seconds). Reuses
/// compressed blocks of an `older` bundle, without an effect on the bytes.
pub fn pack(
    sources: &[Source],
    mtime: u64,
    out: &Path,
    compression: Compression,
    older: Option<&Path>,
    progress: Progress,
) -> Result<Packed> {
    let workers = (0..threads()).map(|_| Compress::new(compression)).collect::<Result<Vec<_>>>()?;
    pack_with(workers, sources, mtime, out, older, progress)
}

fn pack_with(
    workers: Vec<Compress>,
    sources: &[Source],
    mtime: u64,
    out: &Path,
    older: Option<&Path>,
    progress: Progress,
) -> Result<Packed> {
    let older = older.and_then(EarlierBundle::open);
    let write = |blocks: Blocks| tar_files(sources, mtime, blocks, progress);
    let ((tar_sha256, files), (sha256, bytes)) = compress(workers, out, older.as_ref(), write)?;
    Ok(Packed { path: out.to_owned(), bytes, sha256, tar_sha256, files })
}

/// Writes a tar for a host, compressed on all cores or uncompressed. `write` writes its entries.
pub(crate) fn for_host(
    out: &Path,
    compression: Option<Compression>,
    write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let cannot_write = |e| write_error(e, out);
    let Some(compression) = compression else {
        let file = BufWriter::with_capacity(1 << 18, File::create(out).map_err(cannot_write)?);
        let mut plain = Plain { file, failed: None };
        let written = write(&mut plain).and_then(|()| plain.write_all(&format::END)).and_then(|()| plain.flush());
        // An error of the output has its path; any other belongs to the input.
        return match (plain.failed.take(), written) {
            (Some(error), _) => Err(cannot_write(error)),
            (None, written) => Ok(written?),
        };
    };
    let workers = (0..threads()).map(|_| Compress::new(compression)).collect::<Result<Vec<_>>>()?;
    compress(workers, out, None, |mut blocks| {
        write(&mut blocks)?;
        blocks.end().map(drop)
    })?;
    Ok(())
}

/// A file that records its own error.
struct Plain {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Plain {
    fn keep<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            kind.into()
        })
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.file.write(bytes);
        self.keep(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.file.flush();
        self.keep(done)
    }
}

/// Compresses the tar written by `write`, in blocks, into the file `out`. Returns the result of `write`, and digest and
/// size of the file.
fn compress<T>(
    workers: Vec<Compress>,
    out: &Path,
    older: Option<&EarlierBundle>,
    write: impl FnOnce(Blocks) -> Result<T>,
) -> Result<(T, (String, u64))> {
    let threads = workers.len();
    let most = workers.first().map_or(1, Compress::block);
    let (to_workers, blocks) = sync_channel::<(u64, Vec<u8>)>(threads * 2);
    let (to_writer, members) = sync_channel::<(u64, Vec<u8>)>(threads * 2);
    let blocks = Arc::new(Mutex::new(blocks));
    thread::scope(|scope| {
        for worker in workers {
            let (blocks, to_writer) = (Arc::clone(&blocks), to_writer.clone());
            scope.spawn(move || compress_blocks(worker, &blocks, older, &to_writer));
        }
        drop((to_writer, blocks));
        let writer = scope.spawn(move || {
            write_members(&members, out).map_err(|e| write_error(e, out)).inspect_err(|_| drain(&members))
        });
        let written = write(Blocks::new(most, to_workers));
        // A full disk is the cause and the broken channel its effect, so the writer's error is returned.
        let file = writer.join().expect("the writer does not panic")?;
        Ok((written?, file))
    })
}

fn write_error(cause: io::Error, out: &Path) -> anyhow::Error {
    let explained: Result<()> = Err(cause).with_hint(
        Kind::Failed,
        || format!("cannot write {}", out.display()),
        || "check free space and permissions: `df -h .`".into(),
    );
    explained.expect_err("made from an error")
}

/// Receives pending members, so that workers blocked on a full channel can end.
fn drain(members: &Receiver<(u64, Vec<u8>)>) {
    while members.recv().is_ok() {}
}

fn compress_blocks(
    mut compress: Compress,
    blocks: &Mutex<Receiver<(u64, Vec<u8>)>>,
    older: Option<&EarlierBundle>,
    members: &SyncSender<(u64, Vec<u8>)>,
) {
    loop {
        let next = blocks.lock().expect("no worker panics").recv();
        let Ok((index, block)) = next else { return };
        if members.send((index, compress.member_or(older, &block))).is_err() {
            return;
        }
    }
}

fn write_members(members: &Receiver<(u64, Vec<u8>)>, out: &Path) -> io::Result<(String, u64)> {
    let mut file = Through::new(BufWriter::new(File::create(out)?));
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    while let Ok((index, member)) = members.recv() {
        waiting.insert(index, member);
        while let Some(member) = waiting.remove(&next) {
            file.write_all(&member)?;
            next += 1;
        }
    }
    file.flush()?;
    file.get_ref().get_ref().sync_all()?;
    let bytes = file.passed();
    Ok((file.hex(), bytes))
}

/// The output of the tar: hashes it and splits it into blocks.
struct Blocks {
    block: Vec<u8>,
    /// The maximum size of a block.
    most: usize,
    /// Whether the next write starts a new block.
    cut: bool,
    index: u64,
    hasher: Hasher,
    to_workers: SyncSender<(u64, Vec<u8>)>,
}

impl Blocks {
    fn new(most: usize, to_workers: SyncSender<(u64, Vec<u8>)>) -> Self {
        let block = Vec::with_capacity(most);
        Self { block, most, cut: false, index: 0, hasher: Hasher::default(), to_workers }
    }

    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(self.most));
        self.to_workers.send((self.index, block)).map_err(|_| io::Error::other("the compressor stopped"))?;
        self.index += 1;
        Ok(())
    }

    /// Ends the tar; returns its digest.
    fn end(mut self) -> Result<String> {
        self.write_all(&format::END)?;
        if !self.block.is_empty() {
            self.send()?;
        }
        Ok(self.hasher.hex())
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.cut) && !self.block.is_empty() {
            self.send()?;
        }
        let n = bytes.len().min(self.most - self.block.len());
        self.block.extend_from_slice(&bytes[..n]);
        self.hasher.update(&bytes[..n]);
        if self.block.len() == self.most {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tar_files(sources: &[Source], mtime: u64, blocks: Blocks, progress: Progress) -> Result<(String, Vec<FileEntry>)> {
    let most = blocks.most as u64;
    let mut tar = Writer::new(blocks, mtime);
    let total: u64 = sources.iter().map(|source| source.bytes).sum();
    let done = AtomicU64::new(0);
    let mut files = Vec::with_capacity(sources.len());
    for source in sources {
        let seen = |n: u64| progress(done.fetch_add(n, Ordering::Relaxed) + n, total);
        // Blocks of a large file are aligned with it.
        let large = source.bytes >= most;
        files.push(append(&mut tar, source, large, &seen)?);
        tar.to.cut = large;
    }
    Ok((tar.to.end()?, files))
}

fn append(tar: &mut Writer<Blocks>, source: &Source, cut: bool, seen: &dyn Fn(u64)) -> Result<FileEntry> {
    let content = source.link.as_ref().map_or_else(|| Content::Sha256(String::new()), |to| Content::Link(to.clone()));
    let mut entry = FileEntry { path: source.path.clone(), bytes: source.bytes, mode: source.mode, content };
    if source.link.is_some() {
        tar.begin(&entry)?;
        return Ok(entry);
    }
    let file = File::open(&source.from).with_hint(
        Kind::Failed,
        || format!("cannot read {}", source.from.display()),
        || "make it readable, or remove it from `include`".into(),
    )?;
    tar.begin(&entry)?;
    tar.to.cut = cut;
    let mut reader = Through::new(Counted { inner: file.take(source.bytes), seen });
    io::copy(&mut reader, &mut tar.to)?;
    if reader.passed() != source.bytes || resized(&source.from, source.bytes)? {
        return failed(format!("{} changed while it was packed", source.from.display()))
            .hint("stop what writes to it, then run the command again")
            .err();
    }
    tar.finish(&entry)?;
    entry.content = Content::Sha256(reader.hex());
    Ok(entry)
}

fn resized(path: &Path, bytes: u64) -> Result<bool> {
    Ok(path.metadata()?.len() != bytes)
}

/// A tar of small engine files.
pub fn small_files(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    for (path, bytes) in files {
        tar.extend_from_slice(&format::small(path, bytes.len() as u64)?);
        tar.extend_from_slice(bytes);
        tar.extend_from_slice(format::padding(bytes.len() as u64));
    }
    Ok(tar)
}

struct Counted<'a, R> {
    inner: R,
    seen: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        (self.seen)(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::ALL;

    const BLOCK: usize = 1 << 20;

    fn sources(dir: &Path) -> Vec<Source> {
        let big: Vec<u8> = (0..3_500_000u32).flat_map(|i| (i / 7).to_le_bytes()).take(3 * BLOCK + 12345).collect();
        let mut sources = Vec::new();
        for (path, bytes, mode) in
            [("bin/app", big.as_slice(), 0o755), ("static/a b.txt", b"hello", 0o644), ("static/empty", b"", 0o644)]
        {
            let from = dir.join(path.replace('/', "_"));
            std::fs::write(&from, bytes).unwrap();
            sources.push(Source { path: path.into(), from, bytes: bytes.len() as u64, mode, link: None });
        }
        let long = format!("static/{}/x", "long".repeat(60));
        sources.push(Source { path: long, from: dir.join("static_empty"), bytes: 0, mode: 0o644, link: None });
        sources.push(Source {
            path: "z".into(),
            from: dir.join("z"),
            bytes: 0,
            mode: 0o755,
            link: Some("bin/app".into()),
        });
        sources
    }

    #[test]
    fn pack_with_any_number_of_threads_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path());
        for &compression in ALL {
            let pack = |threads: usize, older: Option<&Path>| {
                let workers = (0..threads).map(|_| Compress::new(compression).unwrap()).collect();
                let out = dir.path().join(format!("{threads}.packed"));
                pack_with(workers, &sources, 42, &out, older, &|_, _| {}).unwrap()
            };
            let one = pack(1, None);
            for (threads, older) in [(2, None), (3, Some(one.path.as_path())), (8, None)] {
                let many = pack(threads, older);
                assert_eq!((&many.sha256, &many.tar_sha256, &many.files), (&one.sha256, &one.tar_sha256, &one.files));
                assert_eq!(std::fs::read(&many.path).unwrap().len() as u64, many.bytes);
            }
        }
    }

    #[test]
    fn pack_after_an_older_bundle_reuses_members_and_changes_no_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut sources = sources(dir.path());
        let at = |name: &str| dir.path().join(name);
        pack(&sources, 42, &at("1.gz"), Compression::Gzip, None, &|_, _| {}).unwrap();
        // Another commit, with a file before the large one, which changes only in the middle.
        std::fs::write(at("a"), "a").unwrap();
        sources.insert(0, Source { path: "a".into(), from: at("a"), bytes: 1, mode: 0o644, link: None });
        let mut big = std::fs::read(&sources[1].from).unwrap();
        big[BLOCK + 5] ^= 1;
        std::fs::write(&sources[1].from, &big).unwrap();
        let anew = pack(&sources, 43, &at("anew.gz"), Compression::Gzip, None, &|_, _| {}).unwrap();
        let pack_after =
            |older: &Path| pack(&sources, 43, &at("2.gz"), Compression::Gzip, Some(older), &|_, _| {}).unwrap().sha256;
        assert_eq!(pack_after(&at("1.gz")), anew.sha256);
        let (one, two) = (EarlierBundle::open(&at("1.gz")).unwrap(), EarlierBundle::open(&at("2.gz")).unwrap());
        assert_eq!(two.in_common(&one), 3, "of the large file's four blocks");
        // Damaged, truncated, or made by another program.
        let mut bytes = std::fs::read(at("1.gz")).unwrap();
        for (n, at) in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 99].into_iter().enumerate() {
            bytes[at] ^= 1;
            let bad = dir.path().join(format!("bad{n}.gz"));
            std::fs::write(&bad, if n == 2 { &bytes[..at] } else { &bytes }).unwrap();
            assert_eq!(pack_after(&bad), anew.sha256, "damaged at {at}");
        }
        assert_eq!(pack_after(&at("a")), anew.sha256);
        // Each bit of a reusable member is damaged in turn.
        let whole = std::fs::read(at("2.gz")).unwrap();
        let one_bad = |byte: usize| {
            let mut bytes = whole.clone();
            bytes[byte] ^= 1;
            std::fs::write(at("bad.gz"), &bytes).unwrap();
            pack_after(&at("bad.gz"))
        };
        let length = |at: usize| u32::from_le_bytes(*whole[at + 16..].first_chunk().unwrap()) as usize;
        let begins: Vec<_> =
            std::iter::successors(Some(0), |at| Some(at + length(*at)).filter(|at| *at < whole.len())).collect();
        assert_eq!(begins.len(), 6, "what comes before, four blocks, what comes after");
        let trailers = begins.iter().flat_map(|at| at + length(*at) - 8..at + length(*at));
        for byte in trailers.chain(begins[1]..begins[1] + 60).chain((0..whole.len()).step_by(whole.len() / 40)) {
            assert_eq!(one_bad(byte), anew.sha256, "byte {byte}");
        }
    }

    #[test]
    fn pack_of_file_that_grows_or_shrinks_fails() {
        let dir = tempfile::tempdir().unwrap();
        for (bytes, name) in [(4, "grown"), (6, "shrunk")] {
            let mut sources = sources(dir.path());
            sources[1].bytes = bytes;
            let error = pack(&sources, 42, &dir.path().join(name), Compression::Gzip, None, &|_, _| {}).unwrap_err();
            assert!(format!("{error:#}").contains("changed while it was packed"), "{name}: {error:#}");
        }
    }

    #[test]
    fn pack_into_missing_directory_fails_and_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            pack(&sources(dir.path()), 42, &dir.path().join("no/such/dir.gz"), Compression::Gzip, None, &|_, _| {})
                .unwrap_err();
        assert!(format!("{error:#}").contains("no/such/dir.gz"), "{error:#}");
    }
}
