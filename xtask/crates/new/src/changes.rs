//! Records the changes to an existing directory, so that all of them can be undone.

use crate::place;
use gangplank_model::error::{CliError, Kind, Result, WithHint};
use std::fs;
use std::path::{Path, PathBuf};

/// Changes below a directory, in order.
pub struct Changes<'a> {
    dir: &'a Path,
    done: Vec<Done>,
}

enum Done {
    /// A file with its previous content; `None` if it is new.
    File(PathBuf, Option<Vec<u8>>),
    /// A new directory.
    Dir(PathBuf),
    /// A directory that was moved in.
    Tree(PathBuf),
}

impl<'a> Changes<'a> {
    /// No changes yet.
    pub fn in_dir(dir: &'a Path) -> Self {
        Self { dir, done: vec![] }
    }

    /// Records the content of a file before it is written.
    pub fn keep(&mut self, path: &str) -> Result<()> {
        let path = self.dir.join(path);
        let missing: Vec<_> = path.ancestors().skip(1).take_while(|dir| !dir.exists()).map(Path::to_owned).collect();
        self.done.extend(missing.into_iter().rev().map(Done::Dir));
        let before = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            read => Some(read.with_hint(
                Kind::Failed,
                || format!("cannot read {}", path.display()),
                || "check its permissions".into(),
            )?),
        };
        self.done.push(Done::File(path, before));
        Ok(())
    }

    /// Writes a file.
    pub fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.keep(path)?;
        place::write(&self.dir.join(path), bytes)
    }

    /// Moves a directory in.
    pub fn move_in(&mut self, from: &Path, path: &str) -> Result<()> {
        let to = self.dir.join(path);
        let hint = || format!("check whether it exists: `ls -ld {}`", to.display());
        fs::rename(from, &to).with_hint(Kind::Failed, || format!("cannot move {path} into place"), hint)?;
        self.done.push(Done::Tree(to));
        Ok(())
    }

    /// Undoes everything because of `cause`. Returns the error, with anything that could not be undone.
    pub fn undo(self, cause: anyhow::Error) -> anyhow::Error {
        let mut left = Vec::new();
        // Trees first: they free the most space, and a full disk may be the cause.
        for done in &self.done {
            if let Done::Tree(path) = done
                && let Err(error) = fs::remove_dir_all(path)
            {
                left.push(format!("{}: {error}", path.display()));
            }
        }
        for done in self.done.into_iter().rev() {
            match done {
                Done::Tree(_) => {}
                // It may have new content by now, and then it stays.
                Done::Dir(path) => drop(fs::remove_dir(path)),
                Done::File(path, None) => drop(fs::remove_file(path)),
                Done::File(path, Some(bytes)) if fs::read(&path).is_ok_and(|now| now == bytes) => {}
                Done::File(path, Some(bytes)) => {
                    if let Err(error) = place::write(&path, &bytes) {
                        left.push(format!("{error:#}"));
                    }
                }
            }
        }
        if left.is_empty() {
            return cause;
        }
        CliError::new(Kind::RevertFailed, format!("{cause:#}; and not all of it could be undone: {}", left.join("; ")))
            .hint("check `git status`, and restore files with `git checkout -- PATH`")
            .into()
    }
}
