//! The bucket of a run: that of the environment, or a local one.

use gangplank_model::error::Result;
use gangplank_model::project::Project;
use gangplank_system::context::Context;
use std::path::Path;
#[cfg(feature = "gangplank-bucket")]
use {
    crate::run::ceph::Ceph, gangplank_bucket::object::Bucket, gangplank_bucket::object::settings::of_machine,
    gangplank_system::context::var,
};

/// A local bucket, until dropped.
#[derive(Default)]
pub struct Local {
    /// Variables with its address.
    pub vars: Vec<(String, String)>,
    #[cfg(feature = "gangplank-bucket")]
    _server: Option<Ceph>,
}

/// Without the feature no bucket is needed.
#[cfg(not(feature = "gangplank-bucket"))]
#[allow(clippy::unnecessary_wraps, reason = "as the other one")]
pub fn local(_: &Context, _: &Project, _: &Path) -> Result<Local> {
    Ok(Local::default())
}

/// Starts the servers for the project's buckets.
#[cfg(feature = "gangplank-bucket")]
pub fn local(ctx: &Context, project: &Project, dir: &Path) -> Result<Local> {
    let Some(url) = project.stores.iter().find(|url| url.starts_with("s3://")) else { return Ok(Local::default()) };
    let given =
        ["S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", var::BUCKETS];
    if let Some(name) = given.into_iter().find(|name| ctx.var(name).is_some()) {
        ctx.note(format!("using the bucket of {name} for {url}"));
        return Ok(Local::default());
    }
    if !Ceph::is_installed(ctx) {
        let dir = dir.join("buckets");
        ctx.note(format!(
            "using the directory {} for {url}; with S3_ENDPOINT, or with Ceph installed, it is a server",
            dir.display()
        ));
        return Ok(Local { vars: vec![(var::BUCKETS.into(), dir.display().to_string())], _server: None });
    }
    let dir = dir.join("ceph");
    ctx.note(format!("starting Ceph for {url}, with its objects in {}", dir.display()));
    let ceph = Ceph::start(&dir)?;
    let vars = ceph.vars().to_vec();
    let own = ctx.with_vars(vars.clone());
    Bucket::open(&own, url, &of_machine(&own, url)?)?.make()?;
    Ok(Local { vars, _server: Some(ceph) })
}
