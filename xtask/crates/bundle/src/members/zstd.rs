//! Members of a `tar.zst`. In RFC 8878 a sequence of frames is one file (section 3.1), and there are skippable frames
//! (section 3.1.2), one of which precedes each of ours:
//!
//! ```text
//! 50 2a 4d 18  20 00 00 00  'G' 'P' 00 00 00 00 00 00  LENGTH(4)  CRC(4)  DIGEST(16)  frame...
//! ```
//!
//! Without the feature `zstd` such a bundle is detected but not read.

use crate::members::FIELD;
#[cfg(feature = "zstd")]
use crate::members::{Digest, HEADER, begin};
#[cfg(feature = "zstd")]
use zstd_safe::{CCtx, CParameter, DCtx, compress_bound, find_frame_compressed_size};

/// The bytes before the length: magic, the length of the skippable frame, its name.
pub const START: [u8; super::START] = [0x50, 0x2a, 0x4d, 0x18, 8 + FIELD as u8, 0, 0, 0, b'G', b'P', 0, 0, 0, 0, 0, 0];
/// See [`Digest::of`].
#[cfg(feature = "zstd")]
pub(crate) const ENCODER: u8 = 2;
/// The default of the zstd program.
#[cfg(feature = "zstd")]
const LEVEL: i32 = 3;

/// A compressor of members.
#[cfg(feature = "zstd")]
pub struct Pack(CCtx<'static>);

#[cfg(feature = "zstd")]
impl Default for Pack {
    fn default() -> Self {
        let mut context = CCtx::create();
        let level = CParameter::CompressionLevel(LEVEL);
        // Enables the checksum of zstd, so that it detects damage.
        for parameter in [level, CParameter::ChecksumFlag(true)] {
            context.set_parameter(parameter).expect("it is one of zstd's");
        }
        Self(context)
    }
}

#[cfg(feature = "zstd")]
impl Pack {
    /// A block as a member.
    pub fn member(&mut self, block: &[u8], digest: &Digest) -> Vec<u8> {
        let mut member = vec![0; HEADER + compress_bound(block.len())];
        let frame = self.0.compress2(&mut member[HEADER..], block).expect("the bound is large enough");
        let end = HEADER + frame;
        member.truncate(end);
        begin(&mut member, &START, end, digest);
        member
    }
}

/// The maximum window as a power of two: that of level 3 for four mebibytes.
#[cfg(feature = "zstd")]
const WINDOW_LOG_MAX: u8 = 22;
/// The magic number of a frame.
#[cfg(feature = "zstd")]
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A decompressor of members.
#[cfg(feature = "zstd")]
pub struct Unpack(DCtx<'static>);

#[cfg(feature = "zstd")]
impl Default for Unpack {
    fn default() -> Self {
        Self(DCtx::create())
    }
}

#[cfg(feature = "zstd")]
impl Unpack {
    /// See [`super::Expand`]. Rejects a frame that needs more memory than ours, because a host would allocate
    /// gigabytes.
    pub fn member(&mut self, frame: &[u8], room: &mut [u8]) -> Option<usize> {
        // RFC 8878, section 3.1.1.1: a single segment has a window of its content's size, otherwise the next byte has
        // its logarithm.
        let [descriptor, window] = *frame.strip_prefix(&MAGIC)?.first_chunk()?;
        (descriptor & 1 << 5 != 0 || 10 + (window >> 3) <= WINDOW_LOG_MAX).then_some(())?;
        // Exactly one frame: a second one would have a window of its own.
        (find_frame_compressed_size(frame) == Ok(frame.len())).then_some(())?;
        self.all(frame, room)
    }

    /// Decompresses frame after frame, like the zstd program.
    pub fn all(&mut self, file: &[u8], room: &mut [u8]) -> Option<usize> {
        self.0.decompress(room, file).ok()
    }
}
