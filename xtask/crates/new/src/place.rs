//! Where a project goes: written aside in the same directory, then moved by one rename.

use gangplank_bundle::release::scratch;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use gangplank_system::machine;
use std::fs;
use std::path::{Path, PathBuf};

/// Names of what is not in place yet begin with a dot and this.
const PURPOSE: &str = "gangplank";

/// A directory that goes when it is dropped, unless it was moved into place.
pub struct Staging {
    dir: PathBuf,
}

impl Staging {
    /// A directory beside `path`, on the same disk. Takes away what killed runs have left there.
    pub fn beside(path: &Path) -> Result<Self> {
        let parent = path.parent().unwrap_or(path);
        machine::sweep_of(parent, PURPOSE);
        let aside = Self { dir: scratch(parent, PURPOSE) };
        fs::create_dir_all(&aside.dir).with_hint(
            Kind::Failed,
            || format!("cannot write in {}", parent.display()),
            || format!("choose another place, or make this one yours: `ls -ld {}`", parent.display()),
        )?;
        Ok(aside)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Moves it to `path`, which does not exist or is empty.
    pub fn move_to(self, path: &Path) -> Result<()> {
        fs::rename(&self.dir, path).with_hint(
            Kind::Failed,
            || format!("cannot move the finished project to {}", path.display()),
            || "did somebody put files there meanwhile? run the same command again".into(),
        )
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `path` from the root, as typed otherwise.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let whole = std::path::absolute(path).with_hint(
        Kind::Usage,
        || format!("`{}` is no path", path.display()),
        || "name a directory: `cargo xtask new ../shop`".into(),
    )?;
    // `.` and `..` have no name of their own to call a project by, nor are they in what lies around it.
    let parent = whole.parent().and_then(|parent| fs::canonicalize(parent).ok());
    let joined = parent.zip(whole.file_name()).map(|(parent, name)| parent.join(name));
    Ok(fs::canonicalize(&whole).ok().or(joined).unwrap_or(whole))
}

/// Refuses a place where something is.
pub fn check_free(path: &Path) -> Result<()> {
    let taken = |what: &str| {
        usage(format!("{} {what}", path.display()))
            .hint("name another directory, or give an existing project an xtask: `cargo xtask new --into DIR`")
            .err()
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        return usage(format!("there is no directory {}", parent.display()))
            .hint(format!("`mkdir -p {}`", parent.display()))
            .err();
    }
    match fs::read_dir(path).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => taken("exists and is not empty"),
        Err(_) if path.symlink_metadata().is_ok() => taken("exists and is no directory"),
        Err(_) => Ok(()),
    }
}

/// The git repository that a directory lies in.
pub fn repository_of(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.join(".git").exists())
}

/// Replaces a file as a whole, or leaves it as it is. A link stays one: what it points to is replaced.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let parent = path.parent().unwrap_or(&path);
    let aside = scratch(parent, PURPOSE);
    let hint = || format!("`ls -ld {}` shows whose it is", parent.display());
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
