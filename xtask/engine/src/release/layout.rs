//! Names of files and directories that a release consists of.

/// Directory of sealed releases below the workspace root.
pub const RELEASES: &str = "target/releases";

/// The directory inside an installed release that belongs to the engine.
pub const META: &str = ".gangplank";

/// Digests of the other two files, in the form of `sha256sum`.
pub const SUMS: &str = "SHA256SUMS";

/// The most bytes of [`SUMS`], which has two lines.
pub const SUMS_BYTES_MAX: u64 = 4 << 10;

/// How files are put together, in [`META`] of what is sent.
pub const PATCHES: &str = "patches";

/// What is new in them.
pub const NEW: &str = "new";
