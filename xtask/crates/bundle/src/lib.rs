//! Release bundles: files to tar to compressed members, checked, compared and unpacked.

mod check;
pub mod delta;
pub mod files;
mod format;
mod members;
pub mod pack;
mod patch;
pub mod release;
mod unpack;
