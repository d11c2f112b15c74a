//! The bucket of a run: that of the environment where it names one, else one on this machine.

#[cfg(feature = "s3")]
use crate::run::ceph::Ceph;
use gangplank_deploy::store::object::Bucket;
use gangplank_deploy::store::object::settings::settings;
use gangplank_model::error::Result;
use gangplank_model::project::Project;
use gangplank_system::context::Context;
use gangplank_system::context::var;
use std::path::Path;

/// A bucket on this machine, as long as it is kept.
#[derive(Default)]
pub struct Local {
    /// What the jobs are told of it.
    pub vars: Vec<(String, String)>,
    #[cfg(feature = "s3")]
    _server: Option<Ceph>,
}

/// Without buckets nothing is needed.
#[cfg(not(feature = "s3"))]
#[expect(clippy::unnecessary_wraps, reason = "as the other one")]
pub fn local(_: &Context, _: &Project, _: &Path) -> Result<Local> {
    Ok(Local::default())
}

/// Starts what the project's buckets need.
#[cfg(feature = "s3")]
pub fn local(ctx: &Context, project: &Project, dir: &Path) -> Result<Local> {
    let Some(url) = project.stores.iter().find(|url| url.starts_with("s3://")) else { return Ok(Local::default()) };
    let given =
        ["S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", var::BUCKETS];
    if let Some(name) = given.into_iter().find(|name| ctx.var(name).is_some()) {
        ctx.note(format!("{url} is that of {name}"));
        return Ok(Local::default());
    }
    if !Ceph::is_installed(ctx) {
        let dir = dir.join("buckets");
        ctx.note(format!(
            "{url} is a directory, {}: with S3_ENDPOINT, or with Ceph installed, it is a server",
            dir.display()
        ));
        return Ok(Local { vars: vec![(var::BUCKETS.into(), dir.display().to_string())], _server: None });
    }
    let dir = dir.join("ceph");
    ctx.note(format!("{url} is in a Ceph that starts now, and keeps its objects in {}", dir.display()));
    let ceph = Ceph::start(&dir)?;
    let vars = ceph.vars().to_vec();
    let own = ctx.with_vars(vars.clone());
    Bucket::open(&own, url, &settings(url, own.vars(), &|_| None)?)?.make()?;
    Ok(Local { vars, _server: Some(ceph) })
}
