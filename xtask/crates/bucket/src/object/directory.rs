//! Files of a directory that a web server serves. Each is written beside, synced and renamed: a link of the stored content
//! would change with it.

use crate::object::Bucket;
use gangplank_bundle::release::{scratch, sync_dir};
use gangplank_model::error::{Kind, Result, WithHint};
use gangplank_model::release::digest::of_reader;
use std::fs;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

impl Bucket<'_> {
    /// Copies a stored content to a path.
    pub(super) fn copy_file(&self, dir: &Path, from: &str, path: &str) -> Result<()> {
        let to = dir.join(path);
        let what = || format!("{}: cannot write {}", self.server.url, to.display());
        let hint = || "check free space and permissions: `df -h .`; move away what is in the way".to_owned();
        // A revert to what is served needs no room.
        if self.digest_of_file(dir, path)? == self.digest_of_file(dir, from)? {
            return Ok(());
        }
        let copied = || {
            let parent = to.parent().unwrap_or(dir);
            make_dirs(dir, parent)?;
            let aside = scratch(&self.own(dir), "copy");
            let done = fs::copy(dir.join(from), &aside)
                // A web server has another login, whatever our umask is.
                .and_then(|_| fs::set_permissions(&aside, Permissions::from_mode(0o644)))
                .and_then(|()| File::open(&aside)?.sync_all())
                .and_then(|()| match fs::rename(&aside, &to) {
                    // An empty directory is what is left of an earlier release.
                    Err(error) if to.is_dir() => {
                        fs::remove_dir(&to).map_err(|_| error).and_then(|()| fs::rename(&aside, &to))
                    }
                    renamed => renamed,
                })
                .and_then(|()| sync_dir(parent));
            done.inspect_err(|_| drop(fs::remove_file(&aside)))
        };
        copied().with_hint(Kind::Failed, what, hint)
    }

    /// The directory of the site's own objects, where a web server finds no half-written file.
    fn own(&self, dir: &Path) -> PathBuf {
        self.lock.as_deref().and_then(Path::parent).unwrap_or(dir).to_owned()
    }

    /// Removes the file of a path, and directories that it leaves empty.
    pub(super) fn remove_file(&self, dir: &Path, path: &str) -> Result<()> {
        let file = dir.join(path);
        match fs::remove_file(&file) {
            Ok(()) => {}
            // It is gone, or there is a directory by now, which is not ours to remove.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(_) if file.is_dir() => {}
            Err(error) => {
                let what = || format!("{}: cannot remove {}", self.server.url, file.display());
                return Err(error).with_hint(Kind::Failed, what, || "check its permissions".into());
            }
        }
        let mut parent = file.parent();
        while let Some(empty) = parent.filter(|parent| *parent != dir && fs::remove_dir(parent).is_ok()) {
            parent = empty.parent();
        }
        Ok(())
    }

    /// The SHA-256 of the file of a path; `None` if there is none.
    pub(super) fn digest_of_file(&self, dir: &Path, path: &str) -> Result<Option<String>> {
        let file = dir.join(path);
        let what = || format!("{}: cannot read {}", self.server.url, file.display());
        if !file.is_file() {
            return Ok(None);
        }
        let read = File::open(&file).and_then(|mut file| of_reader(&mut file));
        read.map(|(digest, _)| Some(digest)).with_hint(Kind::Failed, what, || "check its permissions".into())
    }
}

/// Makes the directories from `root` to `dir`. A file in their place is one of an earlier release: the path is needed now.
fn make_dirs(root: &Path, dir: &Path) -> io::Result<()> {
    let below = dir.strip_prefix(root).unwrap_or(dir);
    let mut at = root.to_owned();
    for part in below {
        at.push(part);
        if at.is_symlink() {
            return Err(io::Error::other(format!("{} is a link, which may lead out of the site", at.display())));
        }
        if at.is_file() {
            fs::remove_file(&at)?;
        }
        if !at.is_dir() {
            fs::create_dir(&at)?;
            fs::set_permissions(&at, Permissions::from_mode(0o755))?;
            sync_dir(at.parent().unwrap_or(root))?;
        }
    }
    Ok(())
}
