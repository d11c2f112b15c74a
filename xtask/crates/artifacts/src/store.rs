//! CircleCI's artifacts as a store: `store_artifacts` uploads, the REST API finds and downloads.
//!
//! A put writes the release to the directory that the config's `store_artifacts` step uploads, which is that of the
//! workspace too. A get finds the build job by commit, never by "the latest job", and requires a manifest of this job,
//! commit and branch.

mod find;
mod pointer;

use crate::store::find::Found;
use gangplank_bundle::release::Release;
use gangplank_deploy::store::dir::DirStore;
use gangplank_deploy::store::{DESTINATION, Published, Put, Store, branch, fetch_verified, workspace};
use gangplank_model::error::{CliError, Kind, Result, WithHint, not_found, usage};
use gangplank_model::project::Project;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::layout::SUMS;
use gangplank_model::release::manifest::Manifest;
use gangplank_model::release::{digest, manifest};
use gangplank_system::circleci;
use gangplank_system::circleci::CircleCi;
use gangplank_system::circleci::model::Artifact;
use gangplank_system::context::Context;
use gangplank_system::http::session::deadline;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The name of the build job, the only one whose artifacts count.
pub(crate) const BUILD_JOB: &str = "build";
/// Number of pipelines that `list` reads.
const LISTED: usize = 20;
/// How long the list of a job's artifacts may lag behind its upload step.
const LAG: Duration = Duration::from_secs(60);

/// How a release is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finder {
    /// By commit: pipelines, workflows, jobs, artifacts of API v2.
    Commit,
    /// The latest artifacts of a branch in API v1.1, where API v2 is unavailable.
    Latest,
}

/// The artifacts of a project's build jobs.
pub struct ArtifactStore<'ctx> {
    ctx: &'ctx Context,
    project: &'ctx Project,
    url: String,
    finder: Finder,
    staged: DirStore<'ctx>,
    api: OnceCell<CircleCi<'ctx>>,
    found: RefCell<BTreeMap<ReleaseId, Found>>,
}

impl<'ctx> ArtifactStore<'ctx> {
    /// The store; sends no request yet.
    pub fn new(ctx: &'ctx Context, project: &'ctx Project, url: &str, finder: Finder) -> Self {
        let staged = DirStore::new(ctx, url, workspace(ctx).join(DESTINATION));
        Self { ctx, project, url: url.to_owned(), finder, staged, api: OnceCell::new(), found: RefCell::default() }
    }

    fn api(&self) -> Result<&CircleCi<'ctx>> {
        if let Some(api) = self.api.get() {
            return Ok(api);
        }
        let api = CircleCi::open(self.ctx, self.project.ci.slug)?;
        Ok(self.api.get_or_init(|| api))
    }

    /// The branch whose builds count: the pipeline's in a job; the project's elsewhere and for tags.
    fn branch(&self) -> &str {
        branch(self.ctx, &self.project.ci)
    }

    fn keep(&self, found: Found) -> Manifest {
        let manifest = found.manifest.clone();
        self.found.borrow_mut().insert(manifest.id.clone(), found);
        manifest
    }

    fn find(&self, id: &ReleaseId) -> Result<Found> {
        if let Some(found) = self.found.borrow().get(id) {
            return Ok(found.clone());
        }
        let found = match self.finder {
            Finder::Commit => find::of_commit(self, id.short_sha(), Some(id))?,
            Finder::Latest => find::latest_v1(self)?,
        };
        if found.manifest.id == *id {
            return Ok(found);
        }
        not_found(format!("the latest artifacts of {} are {}, not {id}", self.branch(), found.manifest.id))
            .hint("add circleci:artifacts to `stores`, which finds a release by its commit")
            .err()
    }

    fn download(&self, found: &Found, into: &Path) -> Result<Release> {
        let (manifest, id, api) = (&found.manifest, &found.manifest.id, self.api()?);
        fetch_verified(self.ctx, id, into, &format!("job {} of CircleCI", found.job), &|aside| {
            let what = || format!("cannot write {}", aside.display());
            let hint = || "check free space and permissions: `df -h .`".to_owned();
            fs::write(aside.join(manifest::FILE), &found.json).with_hint(Kind::Failed, what, hint)?;
            let sums = api.small_file(&found.sums, &format!("{SUMS} of {id}"))?;
            fs::write(aside.join(SUMS), sums).with_hint(Kind::Failed, what, hint)?;
            let bundle = &manifest.bundle;
            let exactly = (bundle.bytes, bundle.sha256.as_str());
            api.file(&found.bundle, &bundle.file, exactly, &aside.join(&bundle.file))
        })
    }

    /// The three artifacts of a release, once all are listed.
    fn uploaded(&self, job: u64, id: &ReleaseId, bundle: &str) -> Result<[Artifact; 3]> {
        let started = Instant::now();
        loop {
            let listed = self.api()?.artifacts(job)?;
            let found = [manifest::FILE, SUMS, bundle].map(|name| find::file(&listed, id, name));
            if let [Some(manifest), Some(sums), Some(bundle)] = found {
                return Ok([manifest.clone(), sums.clone(), bundle.clone()]);
            }
            if self.ctx.interrupted() || started.elapsed() > LAG.min(deadline(self.ctx)?) {
                let missing: Vec<_> = [manifest::FILE, SUMS, bundle]
                    .into_iter()
                    .filter(|name| find::file(&listed, id, name).is_none())
                    .collect();
                return CliError::new(
                    Kind::Verification,
                    format!("job {job} of CircleCI did not store {} of {id}", missing.join(", ")),
                )
                .hint(format!(
                    "add `store_artifacts` to the job, with path {}/{DESTINATION} and destination {DESTINATION} before \
                     this step: `cargo xtask ci generate` writes it",
                    workspace(self.ctx).display()
                ))
                .err();
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

/// The job that built a release, which has its artifacts.
fn job_of(manifest: &Manifest) -> Result<u64> {
    match &manifest.ci {
        Some(ci) => Ok(ci.job),
        None => usage(format!("{} was not built by a job of CircleCI", manifest.id))
            .hint("build it in the pipeline's job `build`, which `cargo xtask ci generate` writes")
            .err(),
    }
}

impl Store for ArtifactStore<'_> {
    fn url(&self) -> &str {
        &self.url
    }

    fn put(&self, release: &Release) -> Result<Put> {
        if !self.ctx.in_ci() {
            return usage(format!("{}: only a job of CircleCI can store artifacts", self.url))
                .hint("use `cargo xtask put --store file:DIR` on this machine")
                .err();
        }
        self.staged.put(release)
    }

    fn get(&self, id: &ReleaseId, into: &Path) -> Result<Release> {
        let found = self.find(id)?;
        self.download(&found, into)
    }

    /// The releases of the newest pipelines of the branch.
    fn list(&self) -> Result<Vec<Manifest>> {
        if self.finder == Finder::Latest {
            return Ok(self.latest()?.into_iter().collect());
        }
        let mut all = Vec::new();
        for pipeline in self.api()?.pipelines(self.branch()).take(LISTED) {
            if let Some(found) = find::of_pipeline_or_warn(self, &pipeline?)? {
                all.push(self.keep(found));
            }
        }
        all.sort_by(|a, b| b.id.cmp(&a.id));
        all.dedup_by(|a, b| a.id == b.id);
        Ok(all)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn is_uploaded_by_a_step(&self) -> bool {
        true
    }

    fn unusable(&self) -> Option<String> {
        (!circleci::has_token(self.ctx)).then(|| format!("{} skipped: CIRCLE_TOKEN is not set", self.url))
    }

    fn of_commit(&self, sha: &str) -> Result<Vec<Manifest>> {
        let found = match self.finder {
            Finder::Commit => find::of_commit(self, sha, None)?,
            Finder::Latest => find::latest_v1(self)?,
        };
        let manifest = self.keep(found);
        Ok(if manifest.commit.sha.starts_with(sha) { vec![manifest] } else { vec![] })
    }

    fn latest(&self) -> Result<Option<Manifest>> {
        let found = match self.finder {
            Finder::Commit => pointer::latest(self)?,
            Finder::Latest => Some(find::latest_v1(self)?),
        };
        Ok(found.map(|found| self.keep(found)))
    }

    fn of_build(&self, job: u64) -> Result<Option<Manifest>> {
        find::of_build(self, job).map(|found| Some(self.keep(found)))
    }

    fn confirm(&self, release: &Release) -> Result<bool> {
        let (manifest, job) = (release.manifest(), job_of(release.manifest())?);
        let stored = self.uploaded(job, release.id(), &manifest.bundle.file)?;
        for (artifact, path) in
            stored.iter().zip([release.dir().join(manifest::FILE), release.dir().join(SUMS), release.bundle()])
        {
            let what = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let here = fs::File::open(&path).and_then(|mut file| digest::of_reader(&mut file));
            let (sha256, bytes) =
                here.with_hint(Kind::Failed, || format!("cannot read {}", path.display()), || "check the disk".into())?;
            self.api()?.check_file(artifact, &format!("{what} of job {job}"), (bytes, &sha256))?;
        }
        Ok(true)
    }

    fn publish(&self, manifest: &Manifest) -> Result<Option<Published>> {
        match self.finder {
            Finder::Commit => pointer::publish(self, manifest).map(Some),
            Finder::Latest => Ok(None),
        }
    }
}
