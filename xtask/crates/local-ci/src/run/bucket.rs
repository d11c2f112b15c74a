//! The bucket of a run, if buckets are compiled in.

#[cfg(feature = "gangplank-bucket")]
pub use gangplank_bucket::local_run::open;

/// Without buckets none is needed.
#[cfg(not(feature = "gangplank-bucket"))]
#[allow(clippy::unnecessary_wraps, reason = "as the other one")]
pub fn open(
    _: &gangplank_system::context::Context,
    _: &gangplank_model::project::Project,
    _: &std::path::Path,
) -> gangplank_model::error::Result<NoBucket> {
    Ok(NoBucket::default())
}

/// No bucket, and so no variables.
#[cfg(not(feature = "gangplank-bucket"))]
#[derive(Default)]
pub struct NoBucket {
    pub vars: Vec<(String, String)>,
}
