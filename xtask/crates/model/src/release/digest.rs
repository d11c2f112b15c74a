//! SHA-256, as hex, and as hashing readers and writers.

use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

/// An incremental digest.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The first bytes of the digest.
    pub fn bytes<const N: usize>(self) -> [u8; N] {
        *self.0.finalize().first_chunk().expect("a digest has 32 bytes")
    }

    /// The digest in hex.
    pub fn hex(self) -> String {
        let digit = |bits: u8| char::from(b"0123456789abcdef"[usize::from(bits)]);
        self.0.finalize().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }
}

/// The digest of some bytes, hex.
pub fn of(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.hex()
}

/// Whether a text is a digest: 64 small hex digits.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The digest of the rest of a reader, hex, and its length in bytes.
pub fn of_reader(reader: &mut dyn Read) -> io::Result<(String, u64)> {
    let mut through = Through::new(io::sink());
    let bytes = io::copy(reader, &mut through)?;
    Ok((through.hex(), bytes))
}

/// A reader or writer that hashes and counts what passes.
pub struct Through<T> {
    inner: T,
    hasher: Hasher,
    bytes: u64,
}

impl<T> Through<T> {
    /// Wraps a reader or a writer.
    pub fn new(inner: T) -> Self {
        Self { inner, hasher: Hasher::default(), bytes: 0 }
    }

    /// Number of bytes passed.
    pub fn passed(&self) -> u64 {
        self.bytes
    }

    /// The digest of the bytes passed.
    pub fn hex(self) -> String {
        self.hasher.hex()
    }

    /// The inner value.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    fn seen(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<R: Read> Read for Through<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.seen(&buffer[..n]);
        Ok(n)
    }
}

impl<W: Write> Write for Through<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.seen(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A UUID that looks random, and is the same for the same text.
pub fn uuid(text: &str) -> String {
    let hex = of(text.as_bytes());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
mod tests {
    #[test]
    fn digest_of_nothing_is_the_known_one() {
        // FIPS 180-4 test vector.
        assert_eq!(super::of(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(super::of_reader(&mut &b"abc"[..]).unwrap().0, super::of(b"abc"));
    }
}
