//! How a release is sent to a host: the cheapest way that both ends have.

use crate::project::Compression;

/// The largest file that is sent as a patch. zstd decompresses a window of this size without an option.
pub const PATCH_MAX: u64 = 1 << crate::script::install::WINDOW_LOG;
/// The smallest limit that is worth a patch.
const PATCH_MIN: u64 = 1 << 20;

/// What an end of a transfer can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Whether it compresses, or unpacks, a `.tar.zst`.
    pub zstd: bool,
    /// Whether its zstd has `--patch-from`.
    pub patch: bool,
    /// Memory that a host can spare, in KiB; `None` if it does not report it.
    pub memory: Option<u64>,
}

impl Abilities {
    /// Parses what a host reports with its state (see [`crate::script::state`]); skips other lines.
    pub fn parse(report: &str) -> Self {
        let mut abilities = Self::default();
        // The history comes last, and is free text.
        for line in report.lines().take_while(|line| *line != "history") {
            match line.split_once(' ') {
                Some(("can", "zstd")) => abilities.zstd = true,
                Some(("can", "patch")) => abilities.patch = true,
                Some(("memory", kib)) => abilities.memory = kib.parse().ok(),
                _ => {}
            }
        }
        abilities
    }
}

/// A way to send a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferMode {
    /// The compression of the stream.
    pub compression: Compression,
    /// The largest file that may be sent as a patch of the file that the host has, in bytes; `None` sends whole files.
    pub patch_max: Option<u64>,
}

impl TransferMode {
    /// The cheapest way that both ends have.
    ///
    /// zstd needs memory for the old file and for the new one. A host gets patches for which a half of what it can spare
    /// is enough, which leaves the rest to its app; `targets` on one host share that half. The limit is a power of two, so
    /// that hosts share patches.
    pub fn between(here: Abilities, host: Abilities, targets: usize) -> Self {
        let compression = if here.zstd && host.zstd { Compression::Zstd } else { Compression::Gzip };
        let spare = host.memory.unwrap_or(0).saturating_mul(1024) / 4 / (targets.max(1) as u64);
        let limit = spare.checked_ilog2().map_or(0, |log| 1 << log).min(PATCH_MAX);
        Self { compression, patch_max: (here.patch && host.patch && limit >= PATCH_MIN).then_some(limit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_what_stands_before_the_history() {
        let all = Abilities { zstd: true, patch: true, memory: Some(2048) };
        for (report, want) in [
            ("", Abilities::default()),
            ("can zstd\ncan patch\nmemory 2048\nroot /srv\n", all),
            ("can fly\ncan\nmemory lots\nmemory\n", Abilities::default()),
            ("root /srv\nhistory\ncan zstd\n", Abilities::default()),
        ] {
            assert_eq!(Abilities::parse(report), want, "{report}");
        }
    }

    #[test]
    fn between_picks_what_both_ends_have() {
        let end = |zstd, patch, memory| Abilities { zstd, patch, memory };
        let all = end(true, true, None);
        let (gzip, zstd) = (Compression::Gzip, Compression::Zstd);
        let three = TransferMode::between(all, end(true, true, Some(512 << 10)), 3);
        assert_eq!(three.patch_max, Some(32 << 20));
        for (here, host, compression, patch_max) in [
            (all, end(true, true, Some(8 << 20)), zstd, Some(128 << 20)),
            (all, end(true, true, Some(512 << 10)), zstd, Some(128 << 20)),
            (all, end(true, true, Some(500 << 10)), zstd, Some(64 << 20)),
            (all, end(true, true, Some(3 << 10)), zstd, None),
            (all, end(true, true, Some(0)), zstd, None),
            (all, end(true, true, Some(u64::MAX)), zstd, Some(128 << 20)),
            // A host that does not report it, such as macOS.
            (all, end(true, true, None), zstd, None),
            // BusyBox: its tar has no --zstd.
            (all, end(false, true, Some(8 << 20)), gzip, Some(128 << 20)),
            (all, end(false, false, Some(8 << 20)), gzip, None),
            (end(false, false, None), end(true, true, Some(8 << 20)), gzip, None),
            (end(true, false, None), end(true, true, Some(8 << 20)), zstd, None),
        ] {
            assert_eq!(
                TransferMode::between(here, host, 1),
                TransferMode { compression, patch_max },
                "{here:?} {host:?}"
            );
        }
    }
}
