//! Disk, clock, and what a host receives.

use crate::doctor::check::Check;
use gangplank_model::script::examine::{Examined, Payload};

/// The maximum clock difference in seconds: more would make histories confusing.
const SKEW_MAX: i64 = 30;
/// The assumed size of a release in an env without one, in KiB.
const UNKNOWN_SIZE: u64 = 16 << 10;
/// The warning threshold for free space, in KiB.
const SCARCE: u64 = 512 << 10;

/// What is sent for a change of a file, where it is more than a patch.
pub fn changes(change: Payload) -> Option<Check> {
    match change {
        Payload::Patch => None,
        Payload::File => {
            Some(Check::ok("changes", "changed files are sent whole; as patches with zstd on that host".to_owned()))
        }
        Payload::Release => Some(Check::warning(
            "changes",
            "its xargs has no -0: releases are sent whole",
            "on that host, e.g. `apt-get install findutils`",
        )),
    }
}

/// Whether a release fits, packed and unpacked.
pub fn room(it: &Examined, env: &str) -> Option<Check> {
    let free = it.free?;
    let want = it.live.map_or(UNKNOWN_SIZE, |live| live * 2);
    let hint = format!("make room: check `df -h`, or remove old releases with `cargo xtask prune {env}`");
    Some(if free < want {
        let reason = format!("{} free, but installing a release takes {}", size(free), size(want));
        Check::broken("disk", reason, hint)
    } else if it.inodes == Some(0) {
        Check::broken("disk", "no inodes left", hint.replace("df -h", "df -i"))
    } else if free < SCARCE {
        Check::warning("disk", format!("{} free", size(free)), hint)
    } else {
        Check::ok("disk", format!("{} free", size(free)))
    })
}

/// A size for people.
pub fn size(kib: u64) -> String {
    match kib {
        0..10_240 => format!("{:.1} MiB", kib as f64 / 1024.0),
        10_240..10_485_760 => format!("{} MiB", kib >> 10),
        _ => format!("{} GiB", kib >> 20),
    }
}

/// How far a clock is off, in seconds.
pub fn clock(skew: i64) -> Check {
    if skew.abs() <= SKEW_MAX {
        return Check::fine("clock");
    }
    let (by, how) = (skew.abs(), if skew > 0 { "ahead of" } else { "behind" });
    Check::warning(
        "clock",
        format!("{by} s {how} ours: histories may show a wrong order"),
        "correct the wrong one: `timedatectl set-ntp true`",
    )
}
