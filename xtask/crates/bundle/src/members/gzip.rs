//! Members of a `tar.gz`. In RFC 1952 a sequence of members is one gzip file (section 2.2), and a header may have extra
//! fields (section 2.3.1.1, `FEXTRA`). Ours is called `GP`:
//!
//! ```text
//! 1f 8b 08 04  00 00 00 00  00 ff  1c 00  'G' 'P' 18 00  LENGTH(4)  CRC(4)  DIGEST(16)  deflate...  CRC-32(4)  SIZE(4)
//! ```

use crate::members::{Digest, FIELD, HEADER, begin, crc};
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use memchr::memmem;

/// See [`Digest::of`].
pub(crate) const ENCODER: u8 = 1;
/// The bytes before the length: magic, deflate, FEXTRA, no time, no flags, unknown system, the length of the field, its
/// name and the length of its data.
pub const START: [u8; super::START] =
    [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 4 + FIELD as u8, 0, b'G', b'P', FIELD as u8, 0];
/// The length of a member's end.
pub(crate) const TRAILER: usize = 8;

/// As small as `gzip -6`, in a quarter of its time.
const LEVEL: i32 = 6;
/// The fastest level, to test compressibility.
const TRY: i32 = 1;
/// Stored without compression.
const STORED: i32 = 0;
/// Number and bytes of the samples of a block.
const SAMPLES: (usize, usize) = (4, 8 << 10);

/// A compressor of members.
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

/// Deflates into the middle of a future member.
fn deflate(compressor: &mut Compressor, block: &[u8]) -> (Vec<u8>, usize) {
    let mut member = vec![0; HEADER + compressor.deflate_compress_bound(block.len()) + TRAILER];
    let deflated = compressor.deflate_compress(block, &mut member[HEADER..]).expect("the bound is large enough");
    (member, deflated)
}

impl Deflate {
    /// Whether a block is already compressed, like pictures, fonts and archives, judged by samples: compressing it
    /// would take the most time and save nothing.
    pub(crate) fn is_compressed(&mut self, block: &[u8]) -> bool {
        let (samples, bytes) = SAMPLES;
        if block.len() < samples * bytes {
            return false;
        }
        let parts = block.chunks(block.len() / samples).take(samples);
        let some = parts.map(|part| &part[..bytes]).collect::<Vec<_>>().concat();
        let (_, deflated) = deflate(&mut self.fast, &some);
        deflated >= some.len() / 100 * 99
    }

    /// A block as a member.
    pub fn member(&mut self, block: &[u8], digest: &Digest) -> Vec<u8> {
        let compressor = if self.is_compressed(block) { &mut self.stored } else { &mut self.usual };
        let (mut member, deflated) = deflate(compressor, block);
        let end = HEADER + deflated;
        member.truncate(end + TRAILER);
        member[end..].copy_from_slice(&trailer(block));
        begin(&mut member, &START, end, digest);
        member
    }
}

/// CRC-32 and size of the block.
fn trailer(block: &[u8]) -> [u8; TRAILER] {
    let size = u32::try_from(block.len()).expect("a block is some megabytes");
    let mut trailer = [0; TRAILER];
    trailer[..4].copy_from_slice(&crc(block).to_le_bytes());
    trailer[4..].copy_from_slice(&size.to_le_bytes());
    trailer
}

/// Whether a member ends with the trailer of this block, which the header's checksum does not cover.
pub(crate) fn is_of(member: &[u8], block: &[u8]) -> bool {
    member.ends_with(&trailer(block))
}

/// A decompressor of members.
pub struct Inflate(Decompressor);

impl Default for Inflate {
    fn default() -> Self {
        Self(Decompressor::new())
    }
}

impl Inflate {
    /// See [`super::Expand`]. libdeflate does not return where the deflate stream ended, but it verifies the trailer.
    /// As these eight bytes occur only at the member's end, the stream ended there.
    pub fn member(&mut self, member: &[u8], deflated: &[u8], room: &mut [u8]) -> Option<usize> {
        let trailer = member.last_chunk::<TRAILER>()?;
        let size = usize::try_from(u32::from_le_bytes(*trailer.last_chunk()?)).ok()?;
        let inflated = self.0.gzip_decompress(member, room.get_mut(..size)?).ok()?;
        let is_of_all = inflated == size && is_of(member, &room[..size]);
        let is_last = memmem::find(&member[HEADER..], trailer) == Some(deflated.len());
        (is_of_all && is_last).then_some(size)
    }
}
