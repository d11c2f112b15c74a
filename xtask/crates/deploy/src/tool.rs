//! What a command works with, and how it opens the stores and targets that a project names.

use crate::extend::{Extensions, own};
use crate::host::Target;
use crate::host::directory::HostTarget;
use crate::host::ssh::Address;
use crate::store::dir::DirStore;
use crate::store::{Store, workspace};
use gangplank_model::error::{Result, usage};
use gangplank_model::project::{Env, Project, local_dir, no_tilde};
use gangplank_model::release::manifest::Manifest;
use gangplank_model::site::Site;
use gangplank_system::context::{Context, is_left_out, left_out_hint};

/// The outside, what the project states, and what it adds.
#[derive(Clone, Copy)]
pub struct Tool<'a> {
    /// The outside.
    pub ctx: &'a Context,
    /// What the project states.
    pub project: &'a Project,
    /// What the project adds.
    pub extensions: &'static Extensions,
    /// Buckets, if they are compiled in.
    pub buckets: Option<&'static Buckets>,
    /// CircleCI's artifacts, if they are compiled in: `gangplank_artifacts::open`.
    pub artifacts: Option<OpenArtifacts>,
    /// Signatures, if they are compiled in.
    pub signatures: Option<&'static Signatures>,
}

/// Opens `circleci:artifacts` or `circleci:latest-artifacts`.
pub type OpenArtifacts = for<'a> fn(&'a Context, &'a Project, &str) -> Result<Box<dyn Store + 'a>>;

/// How signatures of releases are checked: `gangplank_sign::SIGNATURES`.
#[derive(Debug, Clone, Copy)]
pub struct Signatures {
    /// Fails unless a key of `require_signature` signed the release; returns who did.
    pub check: fn(&Context, &Env, &Manifest) -> Result<String>,
}

/// How stores and sites in buckets open: `gangplank_bucket::BUCKETS`. That crate is above this one, because it implements
/// the traits of this one, and brings 60 crates that most projects do not need.
#[derive(Debug, Clone, Copy)]
pub struct Buckets {
    /// Opens a store by its URL: `s3://`, `gs://` or `az://`.
    pub store: for<'a> fn(&'a Context, &'a Project, &str) -> Result<Box<dyn Store + 'a>>,
    /// Opens a static site by its URL: `site+s3://`, `site+gs://`, `site+az://` or `site+file:`.
    pub site: for<'a> fn(&'a Context, &str, Site) -> Result<Box<dyn Target + 'a>>,
}

impl<'a> Tool<'a> {
    /// A tool without buckets, artifacts and signatures, and without what the project adds.
    pub fn bare(ctx: &'a Context, project: &'a Project) -> Self {
        Self { ctx, project, extensions: &Extensions::NONE, buckets: None, artifacts: None, signatures: None }
    }

    /// Opens a store by its URL. Nothing is asked of it yet.
    pub fn store(&self, url: &str) -> Result<Box<dyn Store + 'a>> {
        let Self { ctx, project, .. } = *self;
        match url.split_once(':') {
            Some(("file", dir)) if dir.starts_with('~') => Err(no_tilde(&format!("store {url}")).into()),
            Some(("file", dir)) if !dir.is_empty() => Ok(Box::new(DirStore::new(ctx, url, local_dir(&ctx.home, dir)))),
            Some(("circleci", "workspace")) => Ok(Box::new(DirStore::new(ctx, url, workspace(ctx).join("releases")))),
            Some(("circleci", "artifacts" | "latest-artifacts")) => match self.artifacts {
                Some(open) => open(ctx, project, url),
                None => usage(format!("store {url}: this project was made without `artifacts`"))
                    .hint(left_out_hint("artifacts"))
                    .err(),
            },
            Some(("s3" | "gs" | "az", _)) => (self.buckets(&format!("store {url}"))?.store)(ctx, project, url),
            scheme => match own(self.extensions.stores, scheme) {
                Some(open) => open(ctx, url),
                None => usage(format!("`{url}` is not a store URL"))
                    .hint("use file:DIR, circleci:workspace, circleci:artifacts or s3://BUCKET/PREFIX")
                    .err(),
            },
        }
    }

    /// Fails if an env requires a signature that a release does not have; returns who signed it.
    pub fn check_signature(&self, env: &Env, manifest: &Manifest) -> Result<Option<String>> {
        if env.require_signature.is_empty() {
            return Ok(None);
        }
        match self.signatures {
            Some(signatures) => (signatures.check)(self.ctx, env, manifest).map(Some),
            None => usage(format!("{} requires a signature, and this xtask was compiled without", env.name))
                .hint("run it as `cargo xtask`, which compiles what it needs")
                .err(),
        }
    }

    fn buckets(&self, what: &str) -> Result<&'static Buckets> {
        if let Some(buckets) = self.buckets {
            return Ok(buckets);
        }
        let (reason, hint) = if is_left_out(&self.ctx.root, "s3") {
            ("this project was made without `s3`", left_out_hint("s3"))
        } else {
            let hint = "add \"s3\" to `default` below [features] in xtask/Cargo.toml: default = [\"s3\"]";
            ("this xtask was compiled without buckets", hint.to_owned())
        };
        usage(format!("{what}: {reason}")).hint(hint).err()
    }

    /// Opens a target by its URL. Nothing is asked of it yet.
    pub fn target(&self, url: &str) -> Result<Box<dyn Target + 'a>> {
        self.target_with(url, Site::DEFAULT)
    }

    /// Opens a target of an env. Nothing is asked of it yet.
    pub fn target_of(&self, env: &Env, url: &str) -> Result<Box<dyn Target + 'a>> {
        self.target_with(url, env.site)
    }

    fn target_with(&self, url: &str, site: Site) -> Result<Box<dyn Target + 'a>> {
        let ctx = self.ctx;
        match url.split_once(':') {
            Some(("file", dir)) if dir.starts_with('~') => Err(no_tilde(&format!("target {url}")).into()),
            Some(("file", dir)) if !dir.is_empty() => {
                Ok(Box::new(HostTarget::local(ctx, url, &local_dir(&ctx.home, dir))))
            }
            Some(("site+s3" | "site+gs" | "site+az" | "site+file", _)) => {
                (self.buckets(&format!("target {url}"))?.site)(ctx, url, site)
            }
            Some(("ssh", _)) => Ok(Box::new(HostTarget::remote(ctx, url, Address::parse(url)?))),
            scheme => match own(self.extensions.targets, scheme) {
                Some(open) => open(ctx, url),
                None => usage(format!("`{url}` is not a target URL"))
                    .hint("use ssh://USER@HOST/DIR, file:DIR, e.g. file:target/deploy/dev, or site+s3://BUCKET/PREFIX")
                    .err(),
            },
        }
    }

    /// Opens every target of an env. Needs none of the variables that its service does.
    pub fn targets(&self, env: &Env) -> Result<Vec<Box<dyn Target + 'a>>> {
        env.targets.iter().map(|url| self.target_of(env, url)).collect()
    }

    /// Opens the targets of an env that have this name or URL; all without one. Fails if there is none.
    pub(crate) fn targets_called(&self, env: &Env, wanted: Option<&str>) -> Result<Vec<Box<dyn Target + 'a>>> {
        let mut targets = self.targets(env)?;
        if let Some(wanted) = wanted {
            targets.retain(|target| target.is_called(wanted));
            if targets.is_empty() {
                let known = env.targets.join(", ");
                return usage(format!("{} has no host {wanted}", env.name)).hint(format!("it has {known}")).err();
            }
        }
        Ok(targets)
    }
}
