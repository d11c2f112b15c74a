//! `new`: creates a project from this repository's files, adds an xtask to an existing one, or upgrades an engine.
//!
//! All files are first computed as values (`tree`, `main_rs`, `manifest`), then written to a temporary directory and
//! renamed, so that a failed or killed command leaves the old state.

mod adopt;
mod changes;
pub mod cli;
mod create;
mod detect;
mod git;
mod ignored;
mod main_rs;
mod manifest;
pub mod options;
mod parts;
mod place;
mod report;
mod scripts;
mod steps;
mod toolchain;
mod tree;
mod upgrade;

pub use crate::adopt::adopt;
pub use crate::scripts::ScriptMapping;
pub use crate::upgrade::upgrade;
