//! Checking a bundle against its manifest in one pass: the file is hashed, inflated and read as a tar, and every entry
//! is compared with its line of the manifest. Nothing is written, so a bad bundle can do no harm.

use crate::error::{Explain, Kind, Result, verification};
use crate::release::Progress;
use crate::release::digest::{self, Through};
use crate::release::manifest::{Content, FileEntry, Manifest};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Checks the bundle at `path`; the error names the first bad file in it.
pub fn bundle(path: &Path, manifest: &Manifest, progress: Progress) -> Result<()> {
    let name = path.display();
    let bad = |why: String| verification(why).hint("fetch or build the release again; do not deploy it");
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return bad(format!("{name}: the bundle is missing")).err(),
        Err(e) => {
            return Err(e).explain(Kind::Failed, || format!("cannot read {name}"), || "check its permissions".into());
        }
    };
    let size = file.metadata()?.len();
    if size != manifest.bundle.bytes {
        return bad(format!("{name}: has {size} bytes, the manifest says {}", manifest.bundle.bytes)).err();
    }
    let told = Told { inner: file, done: 0, total: size, progress };
    let raw = Through::new(BufReader::with_capacity(1 << 18, told));
    let mut tar = tar::Archive::new(Through::new(MultiGzDecoder::new(raw)));
    let mut expected = manifest.files.iter();
    for entry in tar.entries().map_err(|e| bad(format!("{name}: {e}")))? {
        let want = expected.next();
        let at = want.map_or("after the last file", |file| file.path.as_str());
        let mut entry = entry.map_err(|e| bad(format!("{name}: damaged at `{at}`: {e}")))?;
        let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(want) = want else {
            return bad(format!("{name}: `{found}` is in the bundle, but not in the manifest")).err();
        };
        if let Some(why) = difference(&mut entry, &found, want) {
            return bad(format!("{name}: {why}")).err();
        }
    }
    if let Some(missing) = expected.next() {
        return bad(format!("{name}: `{}` is missing", missing.path)).err();
    }
    whole(tar.into_inner(), manifest).map_err(|why| bad(format!("{name}: {why}")).into())
}

/// What is wrong with an entry, if anything.
fn difference<R: Read>(entry: &mut tar::Entry<R>, found: &str, want: &FileEntry) -> Option<String> {
    let path = &want.path;
    if found != path {
        return Some(format!("`{path}` is missing, `{found}` is in its place"));
    }
    if entry.header().mode().ok() != Some(want.mode) {
        return Some(format!("`{path}` has another mode than {:o}", want.mode));
    }
    match &want.content {
        Content::Link(to) => {
            let link = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
            let same = entry.header().entry_type().is_symlink() && link.as_ref() == Some(to);
            (!same).then(|| format!("`{path}` is not the link to `{to}`"))
        }
        Content::Sha256(sha256) => {
            if !entry.header().entry_type().is_file() {
                return Some(format!("`{path}` is not a regular file"));
            }
            if entry.size() != want.bytes {
                return Some(format!("`{path}` has {} bytes, the manifest says {}", entry.size(), want.bytes));
            }
            match digest::of_reader(entry) {
                Err(e) => Some(format!("`{path}` is damaged: {e}")),
                Ok((found, bytes)) if found != *sha256 || bytes != want.bytes => {
                    Some(format!("`{path}` has another content than the manifest says"))
                }
                Ok(_) => None,
            }
        }
    }
}

/// Reads to the end, which must be the padding of a tar and no more, and compares the digests of both layers.
fn whole<R: Read>(mut tar: Through<MultiGzDecoder<Through<R>>>, manifest: &Manifest) -> Result<(), String> {
    // GNU tar pads to 10 KiB records; whatever is longer was put there.
    let mut rest = Vec::new();
    (&mut tar).take(1 << 14).read_to_end(&mut rest).map_err(|e| format!("damaged at its end: {e}"))?;
    if rest.len() == 1 << 14 || rest.iter().any(|&byte| byte != 0) {
        return Err("has something behind its last file".into());
    }
    if tar.get_ref().get_ref().passed() != manifest.bundle.bytes {
        return Err("has something behind its last file".into());
    }
    let (tar_sha256, raw) = tar.into_parts();
    let (sha256, _) = raw.into_inner().into_parts();
    if sha256 != manifest.bundle.sha256 || tar_sha256 != manifest.bundle.tar_sha256 {
        return Err("does not have the digest that the manifest says".into());
    }
    Ok(())
}

struct Told<'a, R> {
    inner: R,
    done: u64,
    total: u64,
    progress: Progress<'a>,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        (self.progress)(self.done, self.total);
        Ok(n)
    }
}
