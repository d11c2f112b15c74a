//! URLs of stores, as far as they can be judged without opening one.

/// The directory that generated configs persist and attach as CircleCI's workspace. Absolute, because a relative path
/// means different directories in `root` and `at`.
pub const WORKSPACE: &str = "/tmp/workspace";

/// The URL of CircleCI's workspace as a store.
pub const WORKSPACE_URL: &str = "circleci:workspace";

/// The URL prefixes of buckets.
pub const BUCKETS: [&str; 3] = ["s3://", "gs://", "az://"];

/// Whether a URL is that of a bucket.
pub fn is_bucket(url: &str) -> bool {
    BUCKETS.iter().any(|scheme| url.starts_with(scheme))
}

/// The prefix of the URL of a target that is a static site: `site+s3://BUCKET/PREFIX`.
pub const SITE: &str = "site+";

/// Whether a URL is that of a static site.
pub fn is_site(url: &str) -> bool {
    url.starts_with(SITE)
}

/// Whether a store exists only inside a CircleCI job.
pub fn only_in_ci(url: &str) -> bool {
    url == WORKSPACE_URL
}
