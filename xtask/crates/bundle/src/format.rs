//! The tar of a bundle, byte by byte.
//!
//! The manifest and the contents of the files determine the tar. It has an entry for each file of the manifest, in
//! order: a header, the content, and zeros up to the next 512 bytes. Two blocks of zeros end it. Headers are GNU's
//! (magic `ustar` and two spaces): owner and group 0, no names, the time of the commit. A path or link target of more
//! than 100 bytes precedes its entry, as the content of an entry `././@LongLink` of type `L` or `K`.
//!
//! The packer writes these bytes and the reader compares them. It interprets no header, so a bundle cannot contain
//! anything that another tar parser, on a host, would read differently. The format of GNU's headers:
//! <https://www.gnu.org/software/tar/manual/html_node/Standard.html>.

use gangplank_model::release::manifest::{Commit, Content, FileEntry};
use std::io::{self, Read, Write};

/// The alignment of headers and contents.
const BLOCK: usize = 512;
/// The end of an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The mtime of every entry: the commit time, in seconds since 1970.
pub fn mtime(commit: &Commit) -> u64 {
    u64::try_from(commit.time.as_second()).unwrap_or(0)
}

/// The bytes before the content of an entry.
pub fn header(file: &FileEntry, mtime: u64) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(file.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_size(file.bytes);
    let mut tar = tar::Builder::new(Vec::new());
    match &file.content {
        Content::Link(to) => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, &file.path, to)?;
        }
        Content::Sha256(_) => {
            header.set_entry_type(tar::EntryType::Regular);
            tar.append_data(&mut header, &file.path, io::empty())?;
        }
    }
    let mut bytes = tar.into_inner()?;
    bytes.truncate(bytes.len() - END.len());
    Ok(bytes)
}

/// The header of a small engine file.
pub fn small(path: &str, bytes: u64) -> io::Result<Vec<u8>> {
    header(&FileEntry { path: path.into(), bytes, mode: 0o644, content: Content::Sha256(String::new()) }, 0)
}

/// The zeros after a content of this length.
pub fn padding(bytes: u64) -> &'static [u8] {
    let over = usize::try_from(bytes % BLOCK as u64).unwrap_or(0);
    &END[..if over == 0 { 0 } else { BLOCK - over }]
}

/// Reads an archive entry by entry and compares everything but the contents.
pub struct Reader<R> {
    tar: R,
    mtime: u64,
}

impl<R: Read> Reader<R> {
    /// A reader for a release of this commit.
    pub fn new(tar: R, commit: &Commit) -> Self {
        Self { tar, mtime: mtime(commit) }
    }

    /// Reads up to the content of an entry. The error describes the difference.
    pub fn begin(&mut self, file: &FileEntry) -> io::Result<()> {
        let expected = header(file, self.mtime)?;
        let mut found = vec![0; expected.len()];
        let path = &file.path;
        self.tar.read_exact(&mut found).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => wrong(&format!("`{path}` is missing: the archive ends early")),
            _ => io::Error::new(error.kind(), format!("damaged at `{path}`: {error}")),
        })?;
        if found == expected { Ok(()) } else { Err(wrong(&differing(&found, &expected, file))) }
    }

    /// The reader, at the content of the current entry.
    pub fn content(&mut self) -> &mut R {
        &mut self.tar
    }

    /// Reads the bytes after the content of an entry.
    pub fn finish(&mut self, file: &FileEntry) -> io::Result<()> {
        let expected = padding(file.bytes);
        let mut found = [0; BLOCK];
        let found = &mut found[..expected.len()];
        self.tar
            .read_exact(found)
            .map_err(|e| io::Error::new(e.kind(), format!("`{}` is truncated: {e}", file.path)))?;
        if found == expected {
            return Ok(());
        }
        Err(wrong(&format!("`{}` has data between its end and the next file", file.path)))
    }

    /// Reads the end of the archive, which must be the end of the data.
    pub fn end(mut self) -> io::Result<()> {
        let mut found = Vec::with_capacity(END.len() + 1);
        let rest = (&mut self.tar).take(END.len() as u64 + 1);
        let damaged = |e: io::Error| io::Error::new(e.kind(), format!("damaged at its end: {e}"));
        { rest }.read_to_end(&mut found).map_err(damaged)?;
        if found == END {
            return Ok(());
        }
        let name = name(&found);
        Err(wrong(&match found.len().cmp(&END.len()) {
            std::cmp::Ordering::Less => "the archive has no end mark".to_owned(),
            _ if name.is_empty() => "has data after its last file".to_owned(),
            _ => format!("`{name}` is in the bundle, but not in the manifest"),
        }))
    }
}

/// Writes an archive without its end.
pub struct Writer<W> {
    /// The output.
    pub to: W,
    mtime: u64,
}

impl<W: Write> Writer<W> {
    /// A writer for a release with this commit time.
    pub fn new(to: W, mtime: u64) -> Self {
        Self { to, mtime }
    }

    /// Writes the bytes before the content of an entry.
    pub fn begin(&mut self, file: &FileEntry) -> io::Result<()> {
        self.to.write_all(&header(file, self.mtime)?)
    }

    /// Writes the bytes after it.
    pub fn finish(&mut self, file: &FileEntry) -> io::Result<()> {
        self.to.write_all(padding(file.bytes))
    }

    /// Writes an entry with the next `file.bytes` bytes of `content`.
    pub fn entry(&mut self, file: &FileEntry, content: &mut dyn Read) -> io::Result<()> {
        self.begin(file)?;
        if io::copy(&mut content.take(file.bytes), &mut self.to)? != file.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.finish(file)
    }
}

fn wrong(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The name in an invalid header, only for messages.
fn name(header: &[u8]) -> String {
    let name = header.iter().take(100).copied().take_while(|&byte| byte != 0).collect::<Vec<_>>();
    String::from_utf8_lossy(&name).escape_debug().to_string()
}

/// A description of how a header differs.
fn differing(found: &[u8], expected: &[u8], file: &FileEntry) -> String {
    let path = &file.path;
    let (there, here) = (name(found), name(expected));
    if there.is_empty() {
        return format!("`{path}` is missing: the archive ends early");
    }
    if there != here {
        return format!("`{path}` is missing, `{there}` is in its place");
    }
    // The fields of a header and their offsets: POSIX.1-1988, and GNU tar's manual for the rest.
    let fields = [("mode", 100), ("owner", 108), ("group", 116), ("size", 124), ("time", 136), ("checksum", 148)];
    let fields = fields.into_iter().chain([("type", 156), ("target", 157), ("magic", 257), ("names", 265)]);
    let differs = |field: &(&str, usize), end: usize| found[field.1..end] != expected[field.1..end];
    let all: Vec<_> = fields.chain([("extension", BLOCK)]).collect();
    let names = all.windows(2).filter(|pair| differs(&pair[0], pair[1].1)).map(|pair| pair[0].0);
    let mut names: Vec<_> = names.collect();
    if names.len() > 1 {
        // It depends on the others.
        names.retain(|name| *name != "checksum");
    }
    let names = if names.is_empty() { "extension".to_owned() } else { names.join(", ") };
    format!("the header of `{path}` differs from the manifest: {names}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64) -> FileEntry {
        FileEntry { path: path.into(), bytes, mode: 0o644, content: Content::Sha256(String::new()) }
    }

    fn link(path: &str, to: &str) -> FileEntry {
        FileEntry { path: path.into(), bytes: 0, mode: 0o755, content: Content::Link(to.into()) }
    }

    fn commit() -> Commit {
        let time = "2026-08-22T10:15:00Z".parse().unwrap();
        Commit { sha: "1a2b3c4".into(), time, branch: None, tag: None, dirty: false }
    }

    fn archive(files: &[(FileEntry, &str)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), mtime(&commit()));
        for (file, content) in files {
            writer.entry(file, &mut content.as_bytes()).unwrap();
        }
        [writer.to, END.to_vec()].concat()
    }

    fn read(tar: &[u8], files: &[(FileEntry, &str)]) -> Result<(), String> {
        let mut reader = Reader::new(tar, &commit());
        let mut all = || {
            for (file, content) in files {
                reader.begin(file)?;
                let mut found = vec![0; content.len()];
                reader.content().read_exact(&mut found)?;
                reader.finish(file)?;
            }
            Ok::<_, io::Error>(())
        };
        all().and_then(|()| reader.end()).map_err(|e| e.to_string())
    }

    #[test]
    fn read_of_written_archive_works_and_of_any_changed_byte_fails() {
        let long = format!("{}/x", "long".repeat(60));
        let files = [
            (file("a", 5), "hello"),
            (file("empty", 0), ""),
            (link("l", "a"), ""),
            (file(&long, 512), &"x".repeat(512)),
            (link("z", &"../a/".repeat(30)), ""),
        ];
        let tar = archive(&files);
        assert_eq!(read(&tar, &files), Ok(()));
        let contents = [BLOCK..BLOCK + 5, tar.len() - END.len() - 4 * BLOCK..tar.len() - END.len() - 3 * BLOCK];
        assert_eq!(&tar[contents[1].clone()], "x".repeat(512).as_bytes());
        for at in (0..tar.len()).filter(|at| !contents.iter().any(|content| content.contains(at))) {
            let mut other = tar.clone();
            other[at] ^= 1;
            assert!(read(&other, &files).is_err(), "byte {at}");
        }
        for cut in [0, 1, BLOCK, BLOCK + 3, tar.len() - END.len(), tar.len() - 1] {
            assert!(read(&tar[..cut], &files).is_err(), "cut at {cut}");
        }
        assert!(read(&[&tar[..], &[0]].concat(), &files).is_err(), "something behind the end");
    }

    #[test]
    fn messages_name_what_differs() {
        let one = [(file("a", 5), "hello")];
        let tar = |it: (FileEntry, &str)| archive(&[it]);
        for (tar, reason) in [
            (tar((file("b", 5), "hello")), "`a` is missing, `b` is in its place"),
            (tar((FileEntry { mode: 0o755, ..file("a", 5) }, "hello")), "manifest: mode"),
            (tar((file("a", 4), "hell")), "manifest: size"),
            (tar((FileEntry { bytes: 0, ..link("a", "x") }, "")), "manifest: mode, size, type, target"),
            (END.to_vec(), "`a` is missing: the archive ends early"),
            (archive(&[(file("a", 5), "hello"), (file("b", 0), "")]), "`b` is in the bundle, but not in the manifest"),
        ] {
            let error = read(&tar, &one).unwrap_err();
            assert!(error.contains(reason), "{error}, not {reason}");
        }
    }
}
