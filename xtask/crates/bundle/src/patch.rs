//! A binary diff: a file as pieces of an older file and new bytes.
//!
//! Both files are split by their content (`FastCDC`), so that an insertion or removal affects only nearby chunks.
//! Correctness does not depend on the matches: the host verifies the digest of the assembled file.

use fastcdc::v2020::StreamCDC;
use gangplank_model::release::digest::Hasher;
use std::collections::HashMap;
use std::io::{self, Read, Write};

/// Chunk size in bytes: minimum, average, maximum.
const CHUNK: (usize, usize, usize) = (2 << 10, 8 << 10, 64 << 10);
/// The minimum length of a copied range, which takes two processes on the host: bytes, and fraction of the larger file,
/// so that a file has at most about five hundred pieces.
const WORTH_A_COPY: (u64, u64) = (64 << 10, 256);

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the older file, from an offset on.
    Old { at: u64, bytes: u64 },
    /// The next bytes of the new data.
    New { bytes: u64 },
}

/// The position of each chunk of an older file, by digest.
#[derive(Debug, Default)]
pub struct Chunks {
    at: HashMap<Digest, u64>,
    bytes: u64,
}

impl Chunks {
    /// Reads a file to its end.
    pub fn of(file: impl Read) -> io::Result<Self> {
        let mut all = Self::default();
        for chunk in chunks(file) {
            let chunk = chunk?;
            all.at.insert(digest_of(&chunk.data), chunk.offset);
            all.bytes = chunk.offset + chunk.length as u64;
        }
        Ok(all)
    }
}

type Digest = [u8; 32];

fn digest_of(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.bytes()
}

type Chunk = fastcdc::v2020::ChunkData;

fn chunks(file: impl Read) -> impl Iterator<Item = io::Result<Chunk>> {
    let (least, usual, most) = CHUNK;
    StreamCDC::new(file, least, usual, most).map(|next| next.map_err(io::Error::other))
}

/// Splits a file of known length into pieces, and writes new bytes to `new`.
pub fn pieces(older: &Chunks, file: impl Read, bytes: u64, new: &mut dyn Write) -> io::Result<Vec<Piece>> {
    let (least, part) = WORTH_A_COPY;
    let least = least.max(older.bytes.max(bytes) / part);
    let mut pieces = Pieces { done: Vec::new(), least, at: 0, row: Vec::new(), new };
    for chunk in chunks(file) {
        let chunk = chunk?;
        match older.at.get(&digest_of(&chunk.data)) {
            Some(&at) => pieces.old(at, &chunk.data)?,
            None => {
                pieces.give_up_row()?;
                pieces.fresh(&chunk.data)?;
            }
        }
    }
    pieces.give_up_row()?;
    Ok(pieces.done)
}

struct Pieces<'a> {
    done: Vec<Piece>,
    /// The minimum length of a copied range.
    least: u64,
    /// Start in the older file and length of a range that is still too short.
    at: u64,
    row: Vec<u8>,
    new: &'a mut dyn Write,
}

impl Pieces<'_> {
    fn old(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        let bytes = data.len() as u64;
        if let (Some(Piece::Old { at: from, bytes: have }), true) = (self.done.last_mut(), self.row.is_empty())
            && *from + *have == at
        {
            *have += bytes;
            return Ok(());
        }
        if self.at + self.row.len() as u64 != at {
            self.give_up_row()?;
        }
        if self.row.is_empty() {
            self.at = at;
        }
        self.row.extend_from_slice(data);
        if self.row.len() as u64 >= self.least {
            self.done.push(Piece::Old { at: self.at, bytes: self.row.len() as u64 });
            self.row.clear();
        }
        Ok(())
    }

    fn give_up_row(&mut self) -> io::Result<()> {
        let row = std::mem::take(&mut self.row);
        if row.is_empty() { Ok(()) } else { self.fresh(&row) }
    }

    fn fresh(&mut self, data: &[u8]) -> io::Result<()> {
        self.new.write_all(data)?;
        match self.done.last_mut() {
            Some(Piece::New { bytes }) => *bytes += data.len() as u64,
            _ => self.done.push(Piece::New { bytes: data.len() as u64 }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    /// The file assembled from its pieces, and the number of bytes sent.
    fn there_and_back(old: &[u8], new: &[u8]) -> (usize, Vec<Piece>) {
        let mut literals = Vec::new();
        let pieces = pieces(&Chunks::of(old).unwrap(), new, new.len() as u64, &mut literals).unwrap();
        let (mut made, mut rest) = (Vec::new(), literals.as_slice());
        for piece in &pieces {
            match *piece {
                Piece::Old { at, bytes } => made.extend_from_slice(&old[at as usize..][..bytes as usize]),
                Piece::New { bytes } => {
                    let (next, after) = rest.split_at(bytes as usize);
                    made.extend_from_slice(next);
                    rest = after;
                }
            }
        }
        assert!(made == new && rest.is_empty());
        (literals.len(), pieces)
    }

    #[test]
    fn patch_of_changed_file_sends_little_more_than_the_change() {
        let old = noise(2 << 20, 1);
        let (put_in, instead) = (noise(1000, 2), noise(64 << 10, 3));
        let at = 1 << 20;
        let cases: [(&str, Vec<u8>, usize); 7] = [
            ("the same", old.clone(), 0),
            ("nothing", vec![], 0),
            ("overwritten", [&old[..at], &instead, &old[at + instead.len()..]].concat(), 256 << 10),
            ("put in", [&old[..at], &put_in, &old[at..]].concat(), 160 << 10),
            ("taken out", [&old[..at], &old[at + 1000..]].concat(), 160 << 10),
            ("turned round", [&old[at..], &old[..at]].concat(), 320 << 10),
            ("other", noise(1 << 20, 4), 1 << 20),
        ];
        for (what, new, most) in cases {
            let (sent, pieces) = there_and_back(&old, &new);
            assert!(sent <= most, "{what}: {sent} bytes of {}", new.len());
            assert!(pieces.len() < 8, "{what}: {pieces:?}");
        }
    }

    #[test]
    fn rows_too_short_to_copy_are_sent() {
        // About every second chunk differs.
        let old = noise(1 << 20, 5);
        let mut new = old.clone();
        for at in (0..new.len()).step_by(40 << 10) {
            new[at] ^= 1;
        }
        let (_, pieces) = there_and_back(&old, &new);
        let short = |piece: &&Piece| matches!(piece, Piece::Old { bytes, .. } if *bytes < WORTH_A_COPY.0);
        assert_eq!(pieces.iter().filter(short).count(), 0, "{pieces:?}");
        // Repetitions are found anywhere.
        let zeros = vec![0; 1 << 20];
        assert_eq!(there_and_back(&old, &zeros).0, zeros.len());
        assert!(there_and_back(&zeros, &zeros).0 < zeros.len());
        let many = vec![0; 128 << 20];
        assert!(there_and_back(&zeros, &many).1.len() <= 512);
    }
}
