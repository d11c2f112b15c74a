//! A bundle as a sequence of members. Each header has the member's length, so that members are decompressed in parallel,
//! and a digest of its content, so that the next bundle can reuse it. A member starts with
//!
//! ```text
//! START(16)  LENGTH(4)  CRC(4)  DIGEST(16)
//! ```
//!
//! which other tools ignore: the length of the whole member, a CRC-32 of the compressed data, both little-endian, and 16
//! bytes of a SHA-256 of the block. [`gzip`] and [`zstd`] define the rest.

mod gzip;
mod zstd;

use crate::files;
use flate2::read::MultiGzDecoder;
use gangplank_model::error::{Result, usage};
use gangplank_model::project::Compression;
use gangplank_model::release::digest::Hasher;
use libdeflater::Crc;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// The maximum bytes of tar in a member.
const LARGEST: usize = 4 << 20;
/// The length of the start, which identifies the kind of member.
const START: usize = 16;
/// Length, CRC-32, digest.
const FIELD: usize = 4 + 4 + 16;
const HEADER: usize = START + FIELD;
/// The maximum growth of an incompressible block.
const MORE: usize = 1 << 15;

/// Fails if bundles of this compression are not supported.
pub fn supports(compression: Compression) -> Result<()> {
    if compression == Compression::Gzip || cfg!(feature = "zstd") {
        return Ok(());
    }
    usage("this xtask was compiled without zstd, and the bundle is a .tar.zst")
        .hint("add \"zstd\" to `default` below [features] in xtask/Cargo.toml: default = [\"zstd\"]")
        .err()
}

/// A compressor of members.
pub enum Compress {
    /// Of a `tar.gz`.
    Gzip(Box<gzip::Deflate>),
    /// Of a `tar.zst`.
    #[cfg(feature = "zstd")]
    Zstd(Box<zstd::Pack>),
}

impl Compress {
    /// A compressor for one thread. Fails if the compression is not compiled in.
    pub fn new(compression: Compression) -> Result<Self> {
        supports(compression)?;
        #[cfg(feature = "zstd")]
        if compression == Compression::Zstd {
            return Ok(Self::Zstd(Box::default()));
        }
        Ok(Self::Gzip(Box::default()))
    }

    /// Bytes of tar per member. Less costs size, more costs parallelism; zstd is fast and has a larger window.
    pub fn block(&self) -> usize {
        match self {
            Self::Gzip(_) => 1 << 20,
            #[cfg(feature = "zstd")]
            Self::Zstd(_) => LARGEST,
        }
    }

    /// A block as a member; reuses the member of an older bundle, which has the same bytes.
    pub(crate) fn member_or(&mut self, older: Option<&EarlierBundle>, block: &[u8]) -> Vec<u8> {
        match self {
            Self::Gzip(gzip) => {
                let digest = Digest::of(gzip::ENCODER, block);
                let is_whole = |member: &Vec<u8>| member.starts_with(&gzip::START) && gzip::is_of(member, block);
                let known = older.and_then(|older| older.member(&digest)).filter(is_whole);
                known.unwrap_or_else(|| gzip.member(block, &digest))
            }
            #[cfg(feature = "zstd")]
            Self::Zstd(zstd) => {
                let digest = Digest::of(zstd::ENCODER, block);
                let is_ours = |member: &Vec<u8>| member.starts_with(&zstd::START);
                let known = older.and_then(|older| older.member(&digest)).filter(is_ours);
                known.unwrap_or_else(|| zstd.member(block, &digest))
            }
        }
    }
}

/// Writes the start of a completed member. The CRC covers the bytes between the header and `end`.
fn begin(member: &mut [u8], start: &[u8; START], end: usize, digest: &Digest) {
    let length = u32::try_from(member.len()).expect("a block is some megabytes");
    let crc = crc(&member[HEADER..end]);
    member[..START].copy_from_slice(start);
    member[START..HEADER].copy_from_slice(&[&length.to_le_bytes()[..], &crc.to_le_bytes(), &digest.0].concat());
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Identifies a block and its encoder.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
pub struct Digest([u8; 16]);

impl Digest {
    /// `encoder` is a version number of the compression settings, increased with each change, so that no member of
    /// other settings is reused: the bytes of a bundle never depend on earlier builds.
    fn of(encoder: u8, block: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(&[encoder]);
        hasher.update(block);
        Self(hasher.bytes())
    }
}

/// The members of an earlier bundle.
pub struct EarlierBundle {
    file: File,
    /// Offset and length of each.
    members: BTreeMap<Digest, (u64, usize)>,
}

impl EarlierBundle {
    /// Reads the headers of a bundle; `None` if it is unreadable, or made by another program.
    pub fn open(bundle: &Path) -> Option<Self> {
        let file = files::open(bundle).ok()?;
        let (mut members, mut at, end) = (BTreeMap::new(), 0, file.metadata().ok()?.len());
        while at < end {
            let mut header = [0; HEADER];
            file.read_exact_at(&mut header, at).ok()?;
            let (_, length) = length(&header)?;
            members.insert(Digest(*header.last_chunk()?), (at, length));
            at += length as u64;
        }
        Some(Self { file, members })
    }

    /// Number of blocks in both.
    #[cfg(test)]
    pub(crate) fn in_common(&self, other: &Self) -> usize {
        self.members.keys().filter(|digest| other.members.contains_key(digest)).count()
    }

    /// The member of a block; `None` if it is damaged.
    fn member(&self, digest: &Digest) -> Option<Vec<u8>> {
        let &(at, length) = self.members.get(digest)?;
        let mut member = vec![0; length];
        self.file.read_exact_at(&mut member, at).ok()?;
        compressed(&member)?;
        Some(member)
    }
}

/// The compressed bytes of a member; `None` if its checksum does not match.
fn compressed(member: &[u8]) -> Option<&[u8]> {
    let body = member.get(HEADER..)?;
    let body = if member.starts_with(&gzip::START) { body.split_last_chunk::<{ gzip::TRAILER }>()?.0 } else { body };
    let said = u32::from_le_bytes(*member.get(START + 4..)?.first_chunk()?);
    (crc(body) == said).then_some(body)
}

/// A decompressor of members.
#[derive(Default)]
struct Expand {
    gzip: gzip::Inflate,
    #[cfg(feature = "zstd")]
    zstd: zstd::Unpack,
}

impl Expand {
    /// Decompresses into `room` of [`LARGEST`] bytes; returns the length. `None` if the member is damaged or too large.
    ///
    /// It must be exactly one member: a host would also read another one hidden after its end, which is not verified
    /// here.
    fn member(&mut self, member: &[u8], room: &mut [u8]) -> Option<usize> {
        let body = compressed(member)?;
        if member.starts_with(&gzip::START) {
            return self.gzip.member(member, body, room);
        }
        #[cfg(feature = "zstd")]
        return self.zstd.member(body, room);
        #[cfg(not(feature = "zstd"))]
        None
    }
}

/// The kind and length of a member with this header; `None` for any other header.
fn length(header: &[u8; HEADER]) -> Option<(Compression, usize)> {
    let is = |(_, start): &(Compression, &[u8; START])| header.starts_with(*start);
    let known = [(Compression::Gzip, &gzip::START), (Compression::Zstd, &zstd::START)];
    let (compression, _) = known.into_iter().find(is)?;
    let length = u32::from_le_bytes(*header[START..].first_chunk()?) as usize;
    (HEADER + 1..=HEADER + LARGEST + MORE).contains(&length).then_some((compression, length))
}

/// The kind of a file that starts with one of our members; `None` for files of other programs.
pub(crate) fn are_ours(beginning: &[u8]) -> Option<Compression> {
    length(beginning.first_chunk()?).map(|(compression, _)| compression)
}

/// Reads the next member, from its first byte on. All must be of one kind, as hosts expect.
fn next(from: &mut dyn Read, all: Compression) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        match from.read(&mut header[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = length(&header).filter(|(compression, _)| *compression == all).ok_or_else(damaged)?.1;
    let mut member = vec![0; length];
    member[..HEADER].copy_from_slice(&header);
    from.read_exact(&mut member[HEADER..])?;
    Ok(Some(member))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a member is damaged")
}

/// Number of blocks processed in parallel.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A buffer and its used length. Buffers are reused, because allocating megabytes is slow.
type Inflated = Option<(Vec<u8>, usize)>;

/// Reads and inflates `from` in threads of its own, and passes the result to `work` as a reader. Returns `from` if it
/// was read to its end. Memory is bounded by the number of threads.
///
/// ```text
/// file + SHA-256 ─▶ members ─▶ N × inflate ─▶ in order ─▶ work
/// ```
fn inflated<From: Read + Send, T>(
    all: Compression,
    from: From,
    work: impl FnOnce(&mut dyn Read) -> T,
) -> (T, io::Result<From>) {
    let threads = threads();
    // Each member carries the channel for its result, which keeps the blocks in order.
    let (to_workers, members) = sync_channel::<(Vec<u8>, SyncSender<Inflated>)>(threads);
    let (to_work, blocks) = sync_channel::<Receiver<Inflated>>(threads * 2);
    let (to_spare, spare) = channel();
    let (members, spare) = (Arc::new(Mutex::new(members)), &Mutex::new(spare));
    thread::scope(|scope| {
        for _ in 0..threads {
            let members = Arc::clone(&members);
            scope.spawn(move || {
                let mut expand = Expand::default();
                loop {
                    let next = members.lock().expect("no worker panics").recv();
                    let Ok((member, to)) = next else { return };
                    let used = spare.lock().expect("no worker panics").try_recv();
                    let mut room = used.unwrap_or_else(|_| vec![0; LARGEST]);
                    // `work` may have ended early.
                    let _ = to.send(expand.member(&member, &mut room).map(|bytes| (room, bytes)));
                }
            });
        }
        // Without workers, reading ends too.
        drop(members);
        let reading = scope.spawn(move || {
            let mut from = from;
            while let Some(member) = next(&mut from, all)? {
                let (to, block) = sync_channel(1);
                if to_work.send(block).is_err() || to_workers.send((member, to)).is_err() {
                    break;
                }
            }
            Ok(from)
        });
        let mut blocks = Blocks { queue: blocks, block: vec![0; LARGEST], at: 0, end: 0, to_spare };
        let done = work(&mut blocks);
        drop(blocks);
        (done, reading.join().expect("reading does not panic"))
    })
}

/// Passes the inflated bytes of a bundle to `work`: in parallel if it `are_ours`, otherwise as a single gzip stream.
/// Returns `from` like [`inflated`].
pub fn read<From: Read + Send, T>(
    ours: Option<Compression>,
    from: From,
    work: impl FnOnce(&mut dyn Read) -> T,
) -> (T, io::Result<From>) {
    if let Some(all) = ours {
        return inflated(all, from, work);
    }
    let mut tar = MultiGzDecoder::new(from);
    (work(&mut tar), Ok(tar.into_inner()))
}

/// The blocks in order.
struct Blocks {
    queue: Receiver<Receiver<Inflated>>,
    block: Vec<u8>,
    at: usize,
    end: usize,
    to_spare: Sender<Vec<u8>>,
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.end {
            let Ok(next) = self.queue.recv() else { return Ok(0) };
            let (block, end) = next.recv().ok().flatten().ok_or_else(damaged)?;
            // For a worker to reuse, if any is left.
            let _ = self.to_spare.send(std::mem::replace(&mut self.block, block));
            (self.at, self.end) = (0, end);
        }
        let n = buffer.len().min(self.end - self.at);
        buffer[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The supported compressions.
#[cfg(test)]
pub const ALL: &[Compression] = &[
    Compression::Gzip,
    #[cfg(feature = "zstd")]
    Compression::Zstd,
];

#[cfg(test)]
mod tests {
    use super::*;

    impl Compress {
        fn member(&mut self, block: &[u8]) -> Vec<u8> {
            self.member_or(None, block)
        }
    }

    const BLOCK: usize = 1 << 20;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * i / 7 % 251) as u8).collect()
    }

    fn row(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut compress = Compress::new(compression).unwrap();
        let members = bytes.chunks(compress.block()).map(|block| compress.member(block));
        members.collect::<Vec<_>>().concat()
    }

    fn all(row: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let (read, rest) = inflated(are_ours(row).unwrap_or_default(), row, |blocks| blocks.read_to_end(&mut all));
        read?;
        rest.map(|rest| assert!(rest.is_empty()))?;
        Ok(all)
    }

    #[test]
    fn members_in_a_row_decompress_to_the_bytes_in_order() {
        for (&compression, n) in ALL.iter().flat_map(|it| [1, BLOCK - 1, BLOCK, 5 * BLOCK + 17].map(|n| (it, n))) {
            let bytes = bytes(n);
            let row = row(compression, &bytes);
            assert!(all(&row).unwrap() == bytes, "{n}");
            assert_eq!(are_ours(&row), Some(compression));
            let mut theirs = Vec::new();
            match compression {
                Compression::Gzip => drop(MultiGzDecoder::new(row.as_slice()).read_to_end(&mut theirs).unwrap()),
                // As one frame after another, in one piece.
                #[cfg(feature = "zstd")]
                Compression::Zstd => {
                    theirs.resize(n, 0);
                    assert_eq!(zstd::Unpack::default().all(&row, &mut theirs), Some(n));
                }
                #[cfg(not(feature = "zstd"))]
                Compression::Zstd => {}
            }
            assert!(theirs == bytes, "{n}");
        }
        // Incompressible data stays within its limit.
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        let noise: Vec<u8> = (0..BLOCK + 5).map(|_| random()).collect();
        for &compression in ALL {
            assert!(all(&row(compression, &noise)).unwrap() == noise);
        }
    }

    #[test]
    fn member_of_compressed_block_is_stored_and_others_deflated() {
        let mut seed = 7u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        let noise: Vec<u8> = (0..BLOCK).map(|_| random()).collect();
        let (mut deflate, mut compress) = (gzip::Deflate::default(), Compress::new(Compression::Gzip).unwrap());
        assert!(deflate.is_compressed(&noise));
        let member = compress.member(&noise);
        assert!(member.len() < BLOCK + BLOCK / 1000 && all(&member).unwrap() == noise);
        let (text, half) = (bytes(BLOCK), [&noise[..BLOCK / 2], &bytes(BLOCK / 2)].concat());
        for block in [&text, &half, &noise[..100], &[]] {
            assert!(!deflate.is_compressed(block));
            assert!(all(&compress.member(block)).unwrap() == block);
        }
    }

    #[test]
    fn encoder_number_stands_for_the_known_digest() {
        let text: Vec<u8> = (0..40_000u32).flat_map(|n| format!("{} ", n * n % 9973).into_bytes()).collect();
        let made = |compression| {
            let member = Compress::new(compression).unwrap().member(&text);
            gangplank_model::release::digest::of(&member[HEADER..])[..16].to_owned()
        };
        let reason = "another library, or level: ENCODER is the next number that neither has had; say this digest";
        assert_eq!((gzip::ENCODER, made(Compression::Gzip).as_str()), (1, "50308b328d603764"), "{reason}");
        #[cfg(feature = "zstd")]
        assert_eq!((zstd::ENCODER, made(Compression::Zstd).as_str()), (2, "7965f18da2a3c1f3"), "{reason}");
    }

    #[test]
    fn any_damage_is_noticed() {
        for &compression in ALL {
            let row = row(compression, &bytes(3 * BLOCK));
            let next = |at: usize| at + length(row[at..].first_chunk().unwrap()).unwrap().1;
            let begins: Vec<_> =
                std::iter::successors(Some(0), |&at| Some(next(at)).filter(|at| *at < row.len())).collect();
            // All but the digests, which are read only to find a block.
            let read = |at: &usize| !begins.iter().any(|begin| (begin + START + 8..begin + HEADER).contains(at));
            let some = (0..row.len()).step_by(row.len() / 97).chain(0..HEADER).chain(row.len() - 8..row.len());
            for at in some.filter(read) {
                let mut bad = row.clone();
                bad[at] ^= 0x10;
                assert!(all(&bad).is_err(), "{compression:?}: byte {at}");
            }
            for cut in [1, HEADER - 1, HEADER, row.len() / 2, row.len() - 1] {
                assert!(all(&row[..cut]).is_err(), "{compression:?}: cut at {cut}");
            }
        }
    }

    #[test]
    fn member_with_hidden_second_member_is_refused() {
        let mut deflate = Compress::new(Compression::Gzip).unwrap();
        // Two gzip members disguised as one, with matching length and checksum.
        let mut dressed = |shown: &[u8], hidden: &[u8], end: &[u8]| {
            let (shown, hidden) = (deflate.member(shown), deflate.member(hidden));
            let mut spliced = [&shown, &hidden, end].concat();
            let length = u32::try_from(spliced.len()).unwrap();
            let crc = crc(&spliced[HEADER..spliced.len() - gzip::TRAILER]);
            spliced[START..][..4].copy_from_slice(&length.to_le_bytes());
            spliced[START + 4..][..4].copy_from_slice(&crc.to_le_bytes());
            let mut theirs = Vec::new();
            let read = MultiGzDecoder::new(spliced.as_slice()).read_to_end(&mut theirs);
            (all(&spliced), read.map(|_| theirs))
        };
        // It ends as itself, or as what is shown; of one size or not.
        let trailer =
            |block: &[u8]| [crc(block).to_le_bytes(), u32::try_from(block.len()).unwrap().to_le_bytes()].concat();
        for (shown, hidden) in [(&b"shown"[..], &b"a hidden one"[..]), (b"shown", b"hides"), (b"same", b"same")] {
            let (ours, theirs) = dressed(shown, hidden, &[]);
            assert_eq!(theirs.unwrap(), [shown, hidden].concat());
            assert!(ours.is_err(), "{shown:?}");
            assert!(dressed(shown, hidden, &trailer(shown)).0.is_err(), "{shown:?}");
        }
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn member_of_two_frames_is_refused() {
        let mut pack = Compress::new(Compression::Zstd).unwrap();
        let [one, two] = [&b"shown"[..], b"hidden"].map(|block| pack.member(block)[HEADER..].to_vec());
        let mut room = vec![0; LARGEST];
        assert_eq!(zstd::Unpack::default().member(&one, &mut room), Some(5));
        assert_eq!(zstd::Unpack::default().member(&[one, two].concat(), &mut room), None);
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn members_of_two_kinds_are_no_row() {
        let [gzip, zstd] = [Compression::Gzip, Compression::Zstd].map(|it| row(it, b"text"));
        assert!(all(&[&gzip[..], &zstd].concat()).is_err());
        assert!(all(&[&zstd[..], &gzip].concat()).is_err());
    }

    #[test]
    fn inflated_reader_that_stops_early_ends_the_work() {
        let row = row(Compression::Gzip, &bytes(40 * BLOCK));
        let (first, _) = inflated(Compression::Gzip, row.as_slice(), |blocks| {
            let mut first = [0; 3];
            blocks.read_exact(&mut first).map(|()| first)
        });
        assert_eq!(first.unwrap(), bytes(3).as_slice());
    }
}
