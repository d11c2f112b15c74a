//! Creates a project in a temporary directory and renames it.

use gangplank_bundle::release::scratch;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use gangplank_system::machine;
use std::fs;
use std::path::{Path, PathBuf};

/// Names of temporary directories begin with a dot and this.
const PURPOSE: &str = "gangplank";

/// A directory removed on drop, unless it was renamed.
pub struct Staging {
    dir: PathBuf,
}

impl Staging {
    /// A directory beside `path`, on the same disk. Removes debris of killed runs.
    pub fn beside(path: &Path) -> Result<Self> {
        let parent = path.parent().unwrap_or(path);
        machine::sweep_of(parent, PURPOSE);
        let aside = Self { dir: scratch(parent, PURPOSE) };
        fs::create_dir_all(&aside.dir).with_hint(
            Kind::Failed,
            || format!("cannot write to {}", parent.display()),
            || format!("choose another directory, or check its owner: `ls -ld {}`", parent.display()),
        )?;
        Ok(aside)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Renames it to `path`, which must be empty or missing.
    pub fn move_to(self, path: &Path) -> Result<()> {
        fs::rename(&self.dir, path).with_hint(
            Kind::Failed,
            || format!("cannot move the finished project to {}", path.display()),
            || "run the same command again: the directory is no longer empty".into(),
        )
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The absolute `path`, otherwise as typed.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let whole = std::path::absolute(path).with_hint(
        Kind::Usage,
        || format!("`{}` is not a path", path.display()),
        || "name a directory: `cargo xtask new ../shop`".into(),
    )?;
    // `.` and `..` have no file name and are not entries of a directory.
    let parent = whole.parent().and_then(|parent| fs::canonicalize(parent).ok());
    let joined = parent.zip(whole.file_name()).map(|(parent, name)| parent.join(name));
    Ok(fs::canonicalize(&whole).ok().or(joined).unwrap_or(whole))
}

/// Fails for a path in use.
pub fn check_free(path: &Path) -> Result<()> {
    let taken = |what: &str| {
        usage(format!("{} {what}", path.display()))
            .hint("name another directory, or add an xtask to an existing project: `cargo xtask new --into DIR`")
            .err()
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        return usage(format!("no directory {}", parent.display()))
            .hint(format!("`mkdir -p {}`", parent.display()))
            .err();
    }
    match fs::read_dir(path).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => taken("exists and is not empty"),
        Err(_) if path.symlink_metadata().is_ok() => taken("exists and is not a directory"),
        Err(_) => Ok(()),
    }
}

/// The git repository that contains a directory.
pub fn repository_of(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.join(".git").exists())
}

/// Replaces a file atomically. The target of a link is replaced, not the link.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let parent = path.parent().unwrap_or(&path);
    let aside = scratch(parent, PURPOSE);
    let hint = || format!("check its owner: `ls -ld {}`", parent.display());
    let write = || {
        fs::create_dir_all(parent)?;
        fs::write(&aside, bytes)?;
        if let Ok(meta) = fs::metadata(&path) {
            fs::set_permissions(&aside, meta.permissions())?;
        }
        fs::rename(&aside, &path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside))).with_hint(
        Kind::Failed,
        || format!("cannot write {}", path.display()),
        hint,
    )
}
