//! A bundle as a row of gzip members that each say how long they are, so that they can be inflated side by side, and of
//! what they are made, so that the next bundle can take them over.
//!
//! RFC 1952 (section 2.2) makes a row of members one gzip file, and lets each header carry fields of its own (section
//! 2.3.1.1, `FEXTRA`), which other tools pass over. Ours is called `GP`. It holds the length of the whole member, a
//! CRC-32 of what is deflated, both in four bytes, the least significant first, and 16 bytes of a SHA-256 of the block:
//!
//! ```text
//! 1f 8b 08 04  00 00 00 00  00 ff  1c 00  'G' 'P' 18 00  LENGTH(4)  CRC(4)  DIGEST(16)  deflate...  CRC-32(4)  SIZE(4)
//! ```

use crate::release::digest::Hasher;
use flate2::read::MultiGzDecoder;
use libdeflater::{CompressionLvl, Compressor, Crc, Decompressor};
use memchr::memmem;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Bytes of tar in a member. Smaller costs size, larger costs parallelism.
pub const BLOCK: usize = 1 << 20;
/// As small as `gzip -6`, at a quarter of its time.
const LEVEL: i32 = 6;
/// The fastest, to find out whether it is worth the time.
const TRY: i32 = 1;
/// As it is.
const STORED: i32 = 0;
/// So many samples of so many bytes tell what a block is like.
const SAMPLES: (usize, usize) = (4, 8 << 10);
/// Counts how blocks have been deflated so far. It goes into their digests, so that nothing is taken over that would be
/// deflated in another way today: the bytes of a bundle never depend on what was built before.
const ENCODER: u8 = 1;
/// Before the length: magic, deflate, FEXTRA, no time, no flags, unknown system, the length of the field, its name and
/// the length of its data.
const START: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 4 + FIELD, 0, b'G', b'P', FIELD, 0];
/// Length, CRC-32, digest.
const FIELD: u8 = 4 + 4 + 16;
const HEADER: usize = START.len() + FIELD as usize;
const TRAILER: usize = 8;

/// Makes members.
pub struct Deflate {
    usual: Compressor,
    fast: Compressor,
    stored: Compressor,
}

impl Default for Deflate {
    fn default() -> Self {
        let level = |level| Compressor::new(CompressionLvl::new(level).expect("0 to 12 are levels"));
        Self { usual: level(LEVEL), fast: level(TRY), stored: level(STORED) }
    }
}

/// Deflates into the middle of what will be a member.
fn deflate(compressor: &mut Compressor, block: &[u8]) -> (Vec<u8>, usize) {
    let mut member = vec![0; HEADER + compressor.deflate_compress_bound(block.len()) + TRAILER];
    let deflated = compressor.deflate_compress(block, &mut member[HEADER..]).expect("the bound is large enough");
    (member, deflated)
}

impl Deflate {
    /// Whether a block is compressed already, as pictures, fonts and archives are, by samples from all over it: to find
    /// nothing to save takes longer than to save something.
    fn is_compressed(&mut self, block: &[u8]) -> bool {
        let (samples, bytes) = SAMPLES;
        if block.len() < samples * bytes {
            return false;
        }
        let some =
            block.chunks(block.len() / samples).take(samples).map(|part| &part[..bytes]).collect::<Vec<_>>().concat();
        let (_, deflated) = deflate(&mut self.fast, &some);
        deflated >= some.len() / 100 * 99
    }

    /// A block as a member: that of an older bundle where it has one, which is the same as one made anew.
    pub fn member_or(&mut self, older: Option<&Older>, block: &[u8]) -> Vec<u8> {
        let (digest, trailer) = (Digest::of(block), trailer(block));
        let known = older.and_then(|older| older.member(&digest, trailer));
        known.unwrap_or_else(|| self.make(block, &digest, trailer))
    }

    /// A block as a member.
    pub fn member(&mut self, block: &[u8]) -> Vec<u8> {
        self.member_or(None, block)
    }

    fn make(&mut self, block: &[u8], digest: &Digest, trailer: [u8; TRAILER]) -> Vec<u8> {
        let compressor = if self.is_compressed(block) { &mut self.stored } else { &mut self.usual };
        let (mut member, deflated) = deflate(compressor, block);
        let end = HEADER + deflated;
        member.truncate(end + TRAILER);
        let length = u32::try_from(member.len()).expect("a block is a megabyte");
        member[..START.len()].copy_from_slice(&START);
        let fields = [&length.to_le_bytes()[..], &crc(&member[HEADER..end]).to_le_bytes(), &digest.0].concat();
        member[START.len()..HEADER].copy_from_slice(&fields);
        member[end..].copy_from_slice(&trailer);
        member
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// What a member ends with: a CRC-32 of the block, and its size.
fn trailer(block: &[u8]) -> [u8; TRAILER] {
    let size = u32::try_from(block.len()).expect("a block is a megabyte");
    let mut trailer = [0; TRAILER];
    trailer[..4].copy_from_slice(&crc(block).to_le_bytes());
    trailer[4..].copy_from_slice(&size.to_le_bytes());
    trailer
}

/// By which a block is known again.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct Digest([u8; 16]);

impl Digest {
    fn of(block: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(&[ENCODER]);
        hasher.update(block);
        Self(hasher.bytes())
    }
}

/// The members of a bundle that was made before.
pub struct Older {
    file: File,
    /// Where each begins, and its length.
    members: BTreeMap<Digest, (u64, usize)>,
}

impl Older {
    /// Reads the headers of a bundle; `None` when it cannot be read, or others have made it.
    pub fn open(bundle: &Path) -> Option<Self> {
        let file = File::open(bundle).ok()?;
        let (mut members, mut at, end) = (BTreeMap::new(), 0, file.metadata().ok()?.len());
        while at < end {
            let mut header = [0; HEADER];
            file.read_exact_at(&mut header, at).ok()?;
            let length = length(&header)?;
            members.insert(Digest(*header.last_chunk()?), (at, length));
            at += length as u64;
        }
        Some(Self { file, members })
    }

    /// How many blocks are in both.
    #[cfg(test)]
    pub fn in_common(&self, other: &Self) -> usize {
        self.members.keys().filter(|digest| other.members.contains_key(digest)).count()
    }

    /// The member of a block, which ends with this trailer. What the disk has changed since is as good as absent.
    fn member(&self, digest: &Digest, trailer: [u8; TRAILER]) -> Option<Vec<u8>> {
        let &(at, length) = self.members.get(digest)?;
        let mut member = vec![0; length];
        self.file.read_exact_at(&mut member, at).ok()?;
        let is_whole = crc(&member[HEADER..length - TRAILER]) == said_crc(&member)? && member.ends_with(&trailer);
        is_whole.then_some(member)
    }
}

/// Takes a member apart; `None` when it is damaged, or larger than any of ours.
///
/// All of it has to be one member. Another one hidden behind the end of what is deflated would be read by gzip on a host,
/// and by nobody here. libdeflate finds the trailer where what is deflated ends, but does not say where that was; as there
/// is only one such trailer in the whole member, it is the last.
///
/// It inflates into `room`, which is a [`BLOCK`], and gives the number of bytes.
fn inflate(inflater: &mut Decompressor, member: &[u8], room: &mut [u8]) -> Option<usize> {
    let (deflated, trailer) = member.get(HEADER..)?.split_last_chunk::<TRAILER>()?;
    if crc(deflated) != said_crc(member)? {
        return None;
    }
    let size = usize::try_from(u32::from_le_bytes(*trailer.last_chunk()?)).ok()?;
    let inflated = inflater.gzip_decompress(member, room.get_mut(..size)?).ok()?;
    let is_last = memmem::find(&member[HEADER..], trailer) == Some(deflated.len());
    (inflated == size && is_last).then_some(size)
}

/// The checksum of what is deflated, as the header says it.
fn said_crc(member: &[u8]) -> Option<u32> {
    member.get(START.len() + 4..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// The length that the header of one of our members says; `None` for any other.
fn length(header: &[u8; HEADER]) -> Option<usize> {
    let length = u32::from_le_bytes(*header[START.len()..].first_chunk()?) as usize;
    let most = HEADER + TRAILER + BLOCK + BLOCK / 64;
    (header.starts_with(&START) && (HEADER + TRAILER..=most).contains(&length)).then_some(length)
}

/// Whether what begins like this is a row of our members.
pub fn are_ours(beginning: &[u8]) -> bool {
    beginning.first_chunk().is_some_and(|header| length(header).is_some())
}

/// Reads a row of members to its end, each from its first byte on.
fn next(from: &mut dyn Read) -> io::Result<Option<Vec<u8>>> {
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
    let Some(length) = length(&header) else { return Err(damaged()) };
    let mut member = vec![0; length];
    member[..HEADER].copy_from_slice(&header);
    from.read_exact(&mut member[HEADER..])?;
    Ok(Some(member))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a gzip member is damaged")
}

/// How many blocks are worked on at once.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A block and how many bytes of it are in use. To get a megabyte of memory takes long, so it goes round.
type Inflated = Option<(Vec<u8>, usize)>;

/// Reads and inflates `from` on threads of its own, and gives `work` what it inflates to, as a reader. The other end of
/// `from` comes back with the answer, when it was read to its end. Memory is bounded by the number of threads.
///
/// ```text
/// file + SHA-256 ─▶ members ─▶ N × inflate ─▶ in order ─▶ work
/// ```
fn inflated<From: Read + Send, T>(from: From, work: impl FnOnce(&mut dyn Read) -> T) -> (T, io::Result<From>) {
    let threads = threads();
    // Each member goes with the place where its block is waited for, so that the blocks come in order by themselves.
    let (to_workers, members) = sync_channel::<(Vec<u8>, SyncSender<Inflated>)>(threads);
    let (to_work, blocks) = sync_channel::<Receiver<Inflated>>(threads * 2);
    let (to_spare, spare) = channel();
    let (members, spare) = (Mutex::new(members), Mutex::new(spare));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut inflater = Decompressor::new();
                loop {
                    let next = members.lock().expect("no worker panics").recv();
                    let Ok((member, to)) = next else { return };
                    // Nobody waits for it any more when `work` has ended early.
                    let used = spare.lock().expect("no worker panics").try_recv();
                    let mut room = used.unwrap_or_else(|_| vec![0; BLOCK]);
                    let _ = to.send(inflate(&mut inflater, &member, &mut room).map(|bytes| (room, bytes)));
                }
            });
        }
        let reading = scope.spawn(move || {
            let mut from = from;
            while let Some(member) = next(&mut from)? {
                let (to, block) = sync_channel(1);
                if to_work.send(block).is_err() || to_workers.send((member, to)).is_err() {
                    break;
                }
            }
            Ok(from)
        });
        let mut blocks = Blocks { queue: blocks, block: vec![0; BLOCK], at: 0, end: 0, to_spare };
        let done = work(&mut blocks);
        drop(blocks);
        (done, reading.join().expect("reading does not panic"))
    })
}

/// Gives `work` what a bundle inflates to: side by side where it `are_ours`, and else, whoever made it, as gzip in one
/// piece. The other end of `from` comes back as from [`inflated`].
pub fn read<From: Read + Send, T>(
    ours: bool,
    from: From,
    work: impl FnOnce(&mut dyn Read) -> T,
) -> (T, io::Result<From>) {
    if ours {
        return inflated(from, work);
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
            // Nobody wants it any more once all members are on their way.
            let _ = self.to_spare.send(std::mem::replace(&mut self.block, block));
            (self.at, self.end) = (0, end);
        }
        let n = buffer.len().min(self.end - self.at);
        buffer[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * i / 7 % 251) as u8).collect()
    }

    fn row(bytes: &[u8]) -> Vec<u8> {
        let mut deflate = Deflate::default();
        bytes.chunks(BLOCK).flat_map(|block| deflate.member(block)).collect()
    }

    fn all(row: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let (read, rest) = inflated(row, |blocks| blocks.read_to_end(&mut all));
        read?;
        rest.map(|rest| assert!(rest.is_empty()))?;
        Ok(all)
    }

    #[test]
    fn a_row_is_gzip_to_everybody_and_comes_back_in_order() {
        for n in [1, BLOCK - 1, BLOCK, 5 * BLOCK + 17] {
            let bytes = bytes(n);
            let row = row(&bytes);
            assert!(all(&row).unwrap() == bytes, "{n}");
            assert!(are_ours(&row));
            let mut theirs = Vec::new();
            MultiGzDecoder::new(row.as_slice()).read_to_end(&mut theirs).unwrap();
            assert!(theirs == bytes, "{n}");
        }
        // What does not compress is no longer than it may be.
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        let noise: Vec<u8> = (0..BLOCK + 5).map(|_| random()).collect();
        assert!(all(&row(&noise)).unwrap() == noise);
    }

    #[test]
    fn what_is_compressed_already_is_stored_and_nothing_else() {
        let mut seed = 7u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        let noise: Vec<u8> = (0..BLOCK).map(|_| random()).collect();
        let mut deflate = Deflate::default();
        assert!(deflate.is_compressed(&noise));
        let member = deflate.member(&noise);
        assert!(member.len() < BLOCK + BLOCK / 1000 && all(&member).unwrap() == noise);
        let (text, half) = (bytes(BLOCK), [&noise[..BLOCK / 2], &bytes(BLOCK / 2)].concat());
        for block in [&text, &half, &noise[..100], &[]] {
            assert!(!deflate.is_compressed(block));
            assert!(all(&deflate.member(block)).unwrap() == block);
        }
    }

    #[test]
    fn whoever_deflates_in_another_way_says_so() {
        let text: Vec<u8> = (0..40_000u32).flat_map(|n| format!("{} ", n * n % 9973).into_bytes()).collect();
        let member = Deflate::default().member(&text);
        let digest = crate::release::digest::of(&member[HEADER..]);
        let want = "50308b328d603764";
        assert_eq!(
            (ENCODER, &digest[..16]),
            (1, want),
            "another libdeflate, or level: count ENCODER up, and say this digest"
        );
    }

    #[test]
    fn any_damage_is_noticed() {
        let row = row(&bytes(3 * BLOCK));
        // All but the digest, which only whoever looks for the block reads.
        let header = 0..HEADER - size_of::<Digest>();
        for at in (HEADER..row.len()).step_by(row.len() / 97).chain(header).chain(row.len() - TRAILER..row.len()) {
            let mut bad = row.clone();
            bad[at] ^= 0x10;
            assert!(all(&bad).is_err(), "byte {at}");
        }
        for cut in [1, HEADER - 1, HEADER, row.len() / 2, row.len() - 1] {
            assert!(all(&row[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_member_hides_no_other() {
        let mut deflate = Deflate::default();
        let (shown, hidden) = (deflate.member(b"shown"), deflate.member(b"hidden"));
        // What gzip reads as two, dressed up as one that ends as the first does.
        let mut spliced = [&shown[..], &hidden, &shown[shown.len() - TRAILER..]].concat();
        let length = u32::try_from(spliced.len()).unwrap();
        spliced[START.len()..][..4].copy_from_slice(&length.to_le_bytes());
        assert!(all(&spliced).is_err());
    }

    #[test]
    fn whoever_has_seen_enough_ends_it() {
        let row = row(&bytes(40 * BLOCK));
        let (first, _) = inflated(row.as_slice(), |blocks| {
            let mut first = [0; 3];
            blocks.read_exact(&mut first).map(|()| first)
        });
        assert_eq!(first.unwrap(), bytes(3).as_slice());
    }
}
