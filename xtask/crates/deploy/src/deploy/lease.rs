//! Renews locks during an operation, so that other machines see that their owner is alive.

use crate::deploy::waves::{AT_ONCE, par_map, with_ticker};
use crate::host::Target;
use std::time::Duration;

/// Renewal interval, a fraction of [`gangplank_model::owner::Owner::lease`].
pub const OFTEN: Duration = Duration::from_secs(20);

/// Runs `work` and renews the lock of each locked target at the interval `often`.
///
/// A failed renewal has no consequence here: each script verifies on the host that its lock has the same owner before
/// it does anything.
pub fn renewed<T>(targets: &[Box<dyn Target + '_>], often: Duration, work: impl FnOnce() -> T) -> T {
    let renew = || drop(par_map(targets, AT_ONCE, |target| target.renew()));
    with_ticker(often, renew, work)
}
