//! URLs of stores, as far as they can be judged without opening one.

/// The directory that our configs persist and attach as CircleCI's workspace. Absolute, because relative ones mean
/// different places in `root` and in `at`.
pub const WORKSPACE: &str = "/tmp/workspace";

/// URL of CircleCI's workspace as a store.
pub const WORKSPACE_URL: &str = "circleci:workspace";

/// How URLs of buckets begin.
pub const BUCKETS: [&str; 3] = ["s3://", "gs://", "az://"];

/// Whether a URL is that of a bucket.
pub fn is_bucket(url: &str) -> bool {
    BUCKETS.iter().any(|scheme| url.starts_with(scheme))
}

/// Whether a store is only there inside a CircleCI job.
pub fn only_in_ci(url: &str) -> bool {
    url == WORKSPACE_URL
}
