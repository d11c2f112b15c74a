//! The bucket of a local run: that of the environment, a Ceph on this machine, or a directory.

use crate::ceph::Ceph;
use crate::object::Bucket;
use crate::object::settings::of_machine;
use gangplank_model::error::Result;
use gangplank_model::project::Project;
use gangplank_system::context::{Context, var};
use std::path::Path;

/// A bucket, until dropped.
#[derive(Default)]
pub struct LocalBucket {
    /// Variables with its address.
    pub vars: Vec<(String, String)>,
    _server: Option<Ceph>,
}

/// Starts what serves the project's buckets.
pub fn open(ctx: &Context, project: &Project, dir: &Path) -> Result<LocalBucket> {
    let Some(url) = project.stores.iter().find(|url| url.starts_with("s3://")) else {
        return Ok(LocalBucket::default());
    };
    let given =
        ["S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", var::BUCKETS];
    if let Some(name) = given.into_iter().find(|name| ctx.var(name).is_some()) {
        ctx.note(format!("using the bucket of {name} for {url}"));
        return Ok(LocalBucket::default());
    }
    if !Ceph::is_installed(ctx) {
        let dir = dir.join("buckets");
        ctx.note(format!(
            "using the directory {} for {url}; with S3_ENDPOINT, or with Ceph installed, it is a server",
            dir.display()
        ));
        return Ok(LocalBucket { vars: vec![(var::BUCKETS.into(), dir.display().to_string())], _server: None });
    }
    let dir = dir.join("ceph");
    ctx.note(format!("starting Ceph for {url}, with its objects in {}", dir.display()));
    let ceph = Ceph::start(&dir)?;
    let vars = ceph.vars().to_vec();
    let own = ctx.with_vars(vars.clone());
    Bucket::open(&own, url, &of_machine(&own, url)?)?.make()?;
    Ok(LocalBucket { vars, _server: Some(ceph) })
}
