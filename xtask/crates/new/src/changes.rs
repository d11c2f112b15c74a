//! What a run changes in a directory that is somebody else's, kept so that all of it can be taken back.

use crate::place;
use gangplank_model::error::{CliError, Kind, Result, WithHint};
use std::fs;
use std::path::{Path, PathBuf};

/// Changes below a directory, in their order.
pub struct Changes<'a> {
    dir: &'a Path,
    done: Vec<Done>,
}

enum Done {
    /// A file that held this before; none where it is new.
    File(PathBuf, Option<Vec<u8>>),
    /// A directory that was not there.
    Dir(PathBuf),
    /// A directory that was moved in, with all that is in it.
    Tree(PathBuf),
}

impl<'a> Changes<'a> {
    /// Nothing so far.
    pub fn in_dir(dir: &'a Path) -> Self {
        Self { dir, done: vec![] }
    }

    /// Keeps a file as it is now, because somebody is about to write it.
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

    /// Writes a file as a whole.
    pub fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.keep(path)?;
        place::write(&self.dir.join(path), bytes)
    }

    /// Moves a directory in.
    pub fn move_in(&mut self, from: &Path, path: &str) -> Result<()> {
        let to = self.dir.join(path);
        let hint = || format!("is it there already? `ls -ld {}`", to.display());
        fs::rename(from, &to).with_hint(Kind::Failed, || format!("cannot move {path} into place"), hint)?;
        self.done.push(Done::Tree(to));
        Ok(())
    }

    /// Takes everything back because of `cause`, and gives the error to fail with: what could not be taken back is in it.
    pub fn undo(self, cause: anyhow::Error) -> anyhow::Error {
        let mut left = Vec::new();
        // Trees first: they take the most room, and a full disk may be the cause.
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
                // Somebody may have put something there meanwhile.
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
        CliError::new(
            Kind::RevertFailed,
            format!("{cause:#}; and not all of it could be taken back: {}", left.join("; ")),
        )
        .hint("`git status` shows what is there, `git checkout -- PATH` brings back what git has")
        .into()
    }
}
