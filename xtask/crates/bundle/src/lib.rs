//! Release bundles: files to tar to compressed members, checked, compared and unpacked.
//!
//! [`release::Release`] is a directory with a bundle, a manifest and digests. Only `seal` and `open` make one, and both
//! hash every byte, so code with a `&Release` needs to check nothing. [`pack`] writes bundles on all cores, [`delta`]
//! makes the archive that a host lacks, [`files`] opens regular files and nothing else. A bundle is compared with what its
//! manifest makes, byte by byte, and never parsed.

mod check;
pub mod delta;
pub mod files;
mod format;
mod members;
pub mod pack;
pub mod release;
mod unpack;
