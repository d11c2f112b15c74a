//! Renewing locks while something is done under them, so that those who cannot see us know that we live.

use crate::deploy::waves::{AT_ONCE, par_map, with_ticker};
use crate::host::Target;
use std::time::Duration;

/// How often a lock is renewed; [`crate::owner::Owner::lease`] is many times as long.
pub const OFTEN: Duration = Duration::from_secs(20);

/// Does `work`, and with_ticker says to each target that is locked by then that we are at work.
///
/// Nothing is concluded here from a renewal that fails. A lock that was lost is noticed by the next script that is said
/// under it: it looks itself, on the host, before it does anything.
pub fn renewed<T>(targets: &[Box<dyn Target + '_>], often: Duration, work: impl FnOnce() -> T) -> T {
    let renew = || drop(par_map(targets, AT_ONCE, |target| target.renew()));
    with_ticker(often, renew, work)
}
