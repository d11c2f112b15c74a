//! What of a release a host lacks that has another one: the files that differ, as an archive of their own. What is the
//! same there is taken over on the host, and all of it is checked there against the manifest, as ever.

use crate::error::{Explain, Kind, Result};
use crate::release::manifest::{Content, FileEntry, Manifest};
use crate::release::{Release, scratch};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Less than this is sent again rather than asked for.
const WORTH_IT: u64 = 64 << 10;

/// The paths whose files are the same in both, and may be taken over. Links are small, and names that `tar` would read
/// otherwise in a list are few: they are sent.
pub fn same<'a>(ours: &'a Manifest, theirs: &Manifest) -> BTreeSet<&'a str> {
    let known = |file: &FileEntry| {
        let at = theirs.files.binary_search_by(|it| it.path.cmp(&file.path));
        matches!(file.content, Content::Sha256(_)) && at.is_ok_and(|at| theirs.files[at] == *file)
    };
    let plain = |file: &&FileEntry| !file.path.contains('\\');
    ours.files.iter().filter(plain).filter(|file| known(file)).map(|file| file.path.as_str()).collect()
}

/// Whether taking these over saves enough: an eighth of the bytes.
pub fn is_worth_it(ours: &Manifest, same: &BTreeSet<&str>) -> bool {
    let all: u64 = ours.files.iter().map(|file| file.bytes).sum();
    let saved: u64 = ours.files.iter().filter(|it| same.contains(it.path.as_str())).map(|it| it.bytes).sum();
    saved >= WORTH_IT && saved * 8 >= all
}

/// What has to be sent to a host that has a certain other release.
#[derive(Debug)]
pub struct Delta {
    /// The paths of what is the same there.
    pub same: Vec<String>,
    /// All else, as an archive. It goes when the last [`Changes`] does.
    pub file: PathBuf,
}

/// The changes from release to release, each packed once, however many hosts get it.
#[derive(Debug, Default)]
pub struct Changes {
    /// By the digests of both bundles; `None` where all is better sent.
    known: Mutex<BTreeMap<[String; 2], Option<Arc<Delta>>>>,
}

impl Changes {
    /// What has to be sent to a host that has `theirs`; `None` where that would save too little.
    pub fn from(&self, theirs: &Manifest, release: &Release) -> Result<Option<Arc<Delta>>> {
        // Whoever comes second waits for the first: both want the same.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = release.manifest();
        let both = [theirs.bundle.sha256.clone(), ours.bundle.sha256.clone()];
        if let Some(delta) = known.get(&both) {
            return Ok(delta.clone());
        }
        let same = same(ours, theirs);
        let delta = if is_worth_it(ours, &same) {
            let file = scratch(release.dir().parent().unwrap_or(release.dir()), "delta");
            cut(&release.bundle(), &same, &file).inspect_err(|_| drop(fs::remove_file(&file)))?;
            let same = same.into_iter().map(str::to_owned).collect();
            Some(Arc::new(Delta { same, file }))
        } else {
            None
        };
        known.insert(both, delta.clone());
        Ok(delta)
    }
}

impl Drop for Delta {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Writes what is left of a bundle without these files to `to`, again a `tar.gz`.
pub fn cut(bundle: &Path, without: &BTreeSet<&str>, to: &Path) -> Result<()> {
    let copied = || -> io::Result<()> {
        let mut tar = tar::Archive::new(MultiGzDecoder::new(BufReader::new(File::open(bundle)?)));
        let mut out = tar::Builder::new(GzEncoder::new(BufWriter::new(File::create(to)?), Compression::new(6)));
        for entry in tar.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            if path.to_str().is_some_and(|path| without.contains(path)) {
                continue;
            }
            let mut header = entry.header().clone();
            match entry.link_name()?.map(std::borrow::Cow::into_owned) {
                Some(link) => out.append_link(&mut header, &path, link)?,
                None => out.append_data(&mut header, &path, &mut entry)?,
            }
        }
        out.into_inner()?.finish()?.flush()
    };
    let what = || format!("cannot take {} apart", bundle.display());
    copied().explain(Kind::Failed, what, || "check free space: `df -h .`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(files: &[(&str, u64, u32, Content)]) -> Manifest {
        let entry = |(path, bytes, mode, content): &(&str, u64, u32, Content)| FileEntry {
            path: (*path).into(),
            bytes: *bytes,
            mode: *mode,
            content: content.clone(),
        };
        let json = serde_json::json!({
            "schema": 1, "app": "shop", "id": "20260822T101500-1a2b3c4", "files": [],
            "commit": { "sha": "1a2b3c4", "time": "2026-08-22T10:15:00Z", "dirty": false },
            "bundle": { "file": "x", "bytes": 0, "sha256": "", "tar_sha256": "" },
        });
        let manifest: Manifest = serde_json::from_value(json).unwrap();
        Manifest { files: files.iter().map(entry).collect(), ..manifest }
    }

    #[test]
    fn what_is_taken_over() {
        let of = |digest: &str| Content::Sha256(digest.into());
        let ours = manifest(&[
            ("a", 100_000, 0o644, of("1")),
            ("b", 10, 0o755, of("2")),
            ("c\\d", 10, 0o644, of("3")),
            ("e", 0, 0o644, Content::Link("a".into())),
            ("f", 10, 0o644, of("new")),
            ("g", 10, 0o644, of("5")),
        ]);
        let theirs = manifest(&[
            ("a", 100_000, 0o644, of("1")),
            ("b", 10, 0o644, of("2")),
            ("c\\d", 10, 0o644, of("3")),
            ("e", 0, 0o644, Content::Link("a".into())),
            ("f", 10, 0o644, of("old")),
        ]);
        let same = same(&ours, &theirs);
        assert_eq!(same.iter().copied().collect::<Vec<_>>(), ["a"], "mode, name, link, content, absence");
        assert!(is_worth_it(&ours, &same));
        assert!(!is_worth_it(&ours, &BTreeSet::from(["b"])));
    }
}
