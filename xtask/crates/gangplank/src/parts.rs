//! What this program was compiled with.

use gangplank_deploy::extend::Extensions;
use gangplank_deploy::tool::{Buckets, OpenArtifacts, Signatures, Tool};
use gangplank_model::project::Project;
use gangplank_system::context::Context;

#[cfg(feature = "gangplank-bucket")]
const BUCKETS: Option<&Buckets> = Some(&gangplank_bucket::BUCKETS);
#[cfg(not(feature = "gangplank-bucket"))]
const BUCKETS: Option<&Buckets> = None;

#[cfg(feature = "gangplank-artifacts")]
const ARTIFACTS: Option<OpenArtifacts> = Some(gangplank_artifacts::open);
#[cfg(not(feature = "gangplank-artifacts"))]
const ARTIFACTS: Option<OpenArtifacts> = None;

/// Signatures, if they are compiled in.
#[cfg(feature = "gangplank-sign")]
pub const SIGNATURES: Option<&Signatures> = Some(&gangplank_sign::SIGNATURES);
/// Signatures, if they are compiled in.
#[cfg(not(feature = "gangplank-sign"))]
pub const SIGNATURES: Option<&Signatures> = None;

/// What a command works with.
pub fn tool<'a>(ctx: &'a Context, project: &'a Project, extensions: &'static Extensions) -> Tool<'a> {
    Tool { ctx, project, extensions, buckets: BUCKETS, artifacts: ARTIFACTS, signatures: SIGNATURES }
}
