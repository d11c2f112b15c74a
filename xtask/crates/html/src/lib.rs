//! `cargo xtask report`: what is live and how it came to be, as one page of HTML.
//!
//! - [`overview()`] reads everything that the page shows: hosts, stores and git, as one value.
//! - [`page()`] turns that value into HTML, without I/O; `plot` draws its three pictures as SVG.
//! - [`write()`] replaces the page in a directory.
//!
//! The page makes no requests and contains no script, so that it opens from a file, and from the Artifacts tab of a
//! CircleCI job, which forbids both. Its template is the macro of the crate `maud`: it is checked when this crate
//! compiles, and escapes every value. The pictures are SVG by hand, because the libraries for plots draw lines and bars
//! with fixed colours and sizes: these follow the reader's dark mode, and every mark has a shape of its own and a title.

mod history;
mod overview;
mod page;
mod plot;

pub use crate::overview::{Change, EnvOverview, Overview, Pending, ReleaseSize, overview};
pub use crate::page::page;

use gangplank_model::error::{Kind, Result, WithHint};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a page as `index.html` of a directory. A reader finds the old page or the new one.
pub fn write(dir: &Path, page: &str) -> Result<PathBuf> {
    let (path, aside) = (dir.join("index.html"), dir.join(format!(".index.{}.html", std::process::id())));
    let written =
        fs::create_dir_all(dir).and_then(|()| fs::write(&aside, page)).and_then(|()| fs::rename(&aside, &path));
    let what = || format!("cannot write {}", path.display());
    written
        .inspect_err(|_| drop(fs::remove_file(&aside)))
        .with_hint(Kind::Failed, what, || "name a directory that you may write to with --html DIR".into())?;
    Ok(path)
}
