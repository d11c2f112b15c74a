//! Man pages, one per command, generated from the clap definition.

use crate::cli;
use crate::cli::CommandLine;
use clap_mangen::Man;
use gangplank_deploy::extend::Extensions;
use gangplank_model::error::{Kind, Result, WithHint};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the pages into a directory, and returns them.
pub fn write(extensions: &'static Extensions, dir: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("cannot write to {}", dir.display());
    let hint = || "name a directory that you may write to".to_owned();
    fs::create_dir_all(dir).with_hint(Kind::Failed, what, hint)?;
    // With a dash, the name that `man cargo-xtask-deploy` and `man cargo xtask deploy` look up.
    let mut command = cli::definition(extensions).name("cargo-xtask").bin_name("cargo xtask");
    command.build();
    let mut written = Vec::new();
    pages(&command, &mut |command| {
        let source = format!("Gangplank {}", env!("CARGO_PKG_VERSION"));
        let page = Man::new(command.clone()).source(source).manual("cargo xtask").generate_to(dir);
        written.push(page.with_hint(Kind::Failed, what, hint)?);
        Ok(())
    })?;
    Ok(written)
}

/// A command, then its visible subcommands.
fn pages(command: &CommandLine, write: &mut dyn FnMut(&CommandLine) -> Result<()>) -> Result<()> {
    write(command)?;
    command.get_subcommands().filter(|inner| !inner.is_hide_set()).try_for_each(|inner| pages(inner, write))
}
