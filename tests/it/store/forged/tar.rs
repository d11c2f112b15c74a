//! Tar archives and gzip files made by hand, byte by byte, so that any field of them can lie.

use std::io::Write;
use std::process::{Command, Stdio};

/// A header of 512 bytes. `edit` changes it before the checksum is made.
#[derive(Clone)]
pub struct Header(pub Vec<u8>);

impl Header {
    /// As GNU tar has it, with owner 0 and the time of the commit.
    pub fn new(kind: u8, name: &str, mode: u32, size: u64) -> Self {
        let mut header = Self(vec![0; 512]);
        header.name(name).number(100, 8, mode.into()).number(108, 8, 0).number(116, 8, 0).number(124, 12, size);
        header.number(136, 12, super::TIME.parse::<jiff::Timestamp>().unwrap().as_second().try_into().unwrap());
        header.set(156, &[kind]).set(257, b"ustar  \0");
        header
    }

    pub fn set(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn name(&mut self, name: &str) -> &mut Self {
        self.0[..100].fill(0);
        self.set(0, &name.as_bytes()[..name.len().min(100)])
    }

    /// An octal number that ends with NUL.
    pub fn number(&mut self, at: usize, width: usize, number: u64) -> &mut Self {
        self.set(at, format!("{number:0width$o}\0", width = width - 1).as_bytes())
    }

    pub fn link(&mut self, to: &str) -> &mut Self {
        self.set(157, &to.as_bytes()[..to.len().min(100)])
    }

    /// With its checksum.
    pub fn done(&self) -> Vec<u8> {
        let mut header = self.0.clone();
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
        header
    }
}

/// A content with its padding.
pub fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len().next_multiple_of(512), 0);
    bytes
}

/// An entry of any kind.
pub fn entry(kind: u8, name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    [Header::new(kind, name, mode, content.len() as u64).done(), padded(content)].concat()
}

/// An extended header of POSIX with one record a pair.
pub fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        text.push_str(&length.to_string());
        text.push_str(&rest);
    }
    entry(kind, "pax", 0o644, text.as_bytes())
}

/// What GNU tar puts before an entry with a long name (`L`) or a long target (`K`).
pub fn long(kind: u8, text: &str) -> Vec<u8> {
    entry(kind, "././@LongLink", 0o644, format!("{text}\0").as_bytes())
}

/// What gzip makes of some bytes, without a name and a time.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip").args(["-nc"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, bytes) = (gzip.stdin.take().unwrap(), bytes.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = gzip.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

/// A member as the engine writes it: RFC 1952 with an extra field of the length, a CRC-32 of what is deflated, and a
/// digest of the block.
pub fn member(block: &[u8]) -> Vec<u8> {
    let plain = gzip(block);
    let (deflated, trailer) = plain[10..].split_at(plain.len() - 18);
    let length = u32::try_from(40 + deflated.len() + 8).unwrap();
    let start = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 28, 0, b'G', b'P', 24, 0];
    [&start[..], &length.to_le_bytes(), &crc(deflated).to_le_bytes(), &[7; 16], deflated, trailer].concat()
}

/// CRC-32 of RFC 1952.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// A tar as a row of members.
pub fn row(tar: &[u8]) -> Vec<u8> {
    tar.chunks(1 << 20).flat_map(member).collect()
}

/// What ends an archive.
pub const END: [u8; 1024] = [0; 1024];
