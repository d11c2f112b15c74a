//! Names of files and directories that a release consists of.

/// Directory of releases below the workspace root.
pub const RELEASES: &str = "target/releases";

/// The directory inside an installed release that belongs to the engine.
pub const META: &str = ".gangplank";

/// Digests of the other two files, in the format of `sha256sum`.
pub const SUMS: &str = "SHA256SUMS";

/// The maximum bytes of [`SUMS`], which has two lines.
pub const SUMS_BYTES_MAX: u64 = 4 << 10;

/// The list of patched files in the [`META`] of an archive: a line `MODE PATH` each.
pub const PATCHES: &str = "patches";

/// The patch of file N of that list is `patch.N`.
pub const PATCH: &str = "patch";
