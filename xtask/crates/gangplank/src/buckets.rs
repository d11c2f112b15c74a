//! Whether this program can open buckets.

use gangplank_deploy::tool::Buckets;

/// How buckets open, if they are compiled in.
#[cfg(feature = "gangplank-bucket")]
pub const BUCKETS: Option<&Buckets> = Some(&gangplank_bucket::BUCKETS);
/// How buckets open, if they are compiled in.
#[cfg(not(feature = "gangplank-bucket"))]
pub const BUCKETS: Option<&Buckets> = None;
