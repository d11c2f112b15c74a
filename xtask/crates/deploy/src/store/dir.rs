//! A directory as a store: `DIR/<id>/` with the three files of a release. Also CircleCI's workspace, a directory that
//! CircleCI copies from job to job.

use crate::store::{EMPTY_WORKSPACE, Put, Store, another, fetch_verified, has_signatures};
use gangplank_bundle::files;
use gangplank_bundle::release::{Release, scratch, sync_dir};
use gangplank_model::error::{CliError, Kind, Result, WithHint, not_found, usage, verification};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest;
use gangplank_model::release::manifest::{Head, Manifest};
use gangplank_model::store_url::only_in_ci;
use gangplank_system::context::Context;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A directory of releases.
pub struct DirStore<'ctx> {
    ctx: &'ctx Context,
    url: String,
    dir: PathBuf,
}

impl<'ctx> DirStore<'ctx> {
    /// The store in `dir`, which may be missing.
    pub fn new(ctx: &'ctx Context, url: &str, dir: PathBuf) -> Self {
        Self { ctx, url: url.to_owned(), dir }
    }

    fn failed(&self, path: &Path) -> impl FnOnce() -> String {
        let text = format!("{}: cannot write {}", self.url, path.display());
        move || text
    }

    fn copy(&self, files: &[PathBuf], into: &Path, task: &str) -> io::Result<()> {
        let total = files.iter().map(|file| fs::metadata(file).map(|meta| meta.len())).sum::<io::Result<u64>>()?;
        let progress = self.ctx.progress(task);
        let mut done = 0;
        for from in files {
            let mut to = File::create(into.join(from.file_name().unwrap_or_default()))?;
            done += io::copy(&mut files::open(from)?, &mut to)?;
            to.sync_all()?;
            progress(done, total);
        }
        sync_dir(into)
    }

    /// The result of a put under an existing id.
    fn compare(&self, release: &Release) -> Result<Put> {
        let ours = release.manifest();
        let theirs = Release::read_manifest(&self.dir.join(release.id().as_str()))?;
        if ours.bundle == theirs.bundle {
            has_signatures(&self.url, ours, &theirs)?;
            return self.heal(release);
        }
        Err(another(&self.url, ours, &theirs).into())
    }
}

impl DirStore<'_> {
    /// A put of the same bytes succeeds, and replaces a copy damaged on disk.
    fn heal(&self, release: &Release) -> Result<Put> {
        let place = self.dir.join(release.id().as_str());
        if let Err(error) = Release::open(&place, &|_, _| {}) {
            self.ctx.warn(format!("replacing a damaged release: {error:#}"));
            let hint = || "check free space and permissions: `df -h` and `ls -ld` on the directory".to_owned();
            let aside = scratch(&self.dir, "damaged");
            fs::rename(&place, &aside).with_hint(Kind::Failed, self.failed(&place), hint)?;
            let put = self.put(release);
            let _ = fs::remove_dir_all(&aside);
            return put;
        }
        Ok(Put::AlreadyThere)
    }
}

impl Store for DirStore<'_> {
    fn url(&self) -> &str {
        &self.url
    }

    fn put(&self, release: &Release) -> Result<Put> {
        let hint = || "check free space and permissions: `df -h` and `ls -ld` on the directory".to_owned();
        let place = self.dir.join(release.id().as_str());
        if place.exists() {
            return self.compare(release);
        }
        fs::create_dir_all(&self.dir).with_hint(Kind::Failed, self.failed(&self.dir), hint)?;
        let aside = scratch(&self.dir, "incoming");
        let _ = fs::remove_dir_all(&aside);
        let written = fs::create_dir(&aside).and_then(|()| self.copy(&release.files(), &aside, "storing"));
        // The rename commits: it creates the whole release, or fails because another put was faster.
        let renamed = written.and_then(|()| fs::rename(&aside, &place)).and_then(|()| sync_dir(&self.dir));
        match renamed {
            Ok(()) => Ok(Put::Stored),
            Err(error) => {
                let _ = fs::remove_dir_all(&aside);
                if place.exists() {
                    self.compare(release)
                } else {
                    Err(error).with_hint(Kind::Failed, self.failed(&place), hint)
                }
            }
        }
    }

    fn get(&self, id: &ReleaseId, into: &Path) -> Result<Release> {
        let place = self.dir.join(id.as_str());
        if !place.join(manifest::FILE).exists() {
            return Err(self.absent(id).into());
        }
        let bundle = Release::read_manifest(&place)?.bundle;
        let files = [&bundle.file, gangplank_model::release::layout::SUMS, manifest::FILE].map(|name| place.join(name));
        if let Some(missing) = files.iter().find(|file| !file.exists()) {
            return verification(format!("{}: {} is missing", self.url, missing.display()))
                .hint("build it again, do not deploy it: the release is damaged")
                .err();
        }
        // Reject an oversized bundle without a copy: it may exceed this disk.
        let most = [bundle.bytes, gangplank_model::release::layout::SUMS_BYTES_MAX, manifest::BYTES_MAX];
        for (file, most) in files.iter().zip(most) {
            let reason = match files::open(file).and_then(|file| file.metadata()) {
                Ok(meta) if meta.len() <= most => continue,
                Ok(meta) => format!("has {} bytes, more than {most}", meta.len()),
                Err(error) => error.to_string(),
            };
            return verification(format!("{}: {reason}", file.display()))
                .hint("build it again, do not deploy it: the release is damaged or not ours")
                .err();
        }
        fetch_verified(self.ctx, id, into, &place.to_string_lossy(), &|aside| {
            let what = || format!("{}: cannot copy {id} to {}", self.url, into.display());
            let hint = || "check free space and permissions: `df -h .`".to_owned();
            self.copy(&files, aside, "fetching").with_hint(Kind::Failed, what, hint)
        })
    }

    fn examine(&self) -> Result<()> {
        let there = self.dir.ancestors().find(|dir| fs::symlink_metadata(dir).is_ok()).unwrap_or(&self.dir);
        if !there.is_dir() {
            return usage(format!("{}: {} is not a directory", self.url, there.display()))
                .hint("move it away, or name another directory in `stores` of xtask/src/main.rs")
                .err();
        }
        let aside = scratch(there, "examining");
        let tried = File::create_new(&aside).and_then(|_| fs::remove_file(&aside));
        tried.with_hint(Kind::Failed, self.failed(&self.dir), || {
            format!("check its owner and free space: `ls -ld {0}` and `df -h {0}`", there.display())
        })
    }

    fn list(&self) -> Result<Vec<Manifest>> {
        Ok(self.read(&self.ids()?).collect())
    }

    fn newest(&self, most: usize) -> Result<Vec<Head>> {
        let ids = self.ids()?;
        Ok(self.with_warnings(ids.iter().map(|id| self.head(id))).take(most).collect())
    }

    // Ids contain commit and time, so a lookup does not read all manifests.

    fn of_commit(&self, sha: &str) -> Result<Vec<Manifest>> {
        let mut ids = self.ids()?;
        ids.retain(|id| sha.starts_with(id.short_sha()) || id.short_sha().starts_with(sha));
        Ok(self.read(&ids).filter(|manifest| manifest.commit.sha.starts_with(sha)).collect())
    }

    fn latest(&self) -> Result<Option<Manifest>> {
        Ok(self.read(&self.ids()?).find(|manifest| !manifest.commit.dirty))
    }
}

impl DirStore<'_> {
    /// The ids in the store, newest first.
    fn ids(&self) -> Result<Vec<ReleaseId>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => {
                let what = || format!("{}: cannot read {}", self.url, self.dir.display());
                return Err(e).with_hint(Kind::Failed, what, || "check its permissions".into());
            }
        };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut ids: Vec<ReleaseId> = names.filter_map(|name| name.parse().ok()).collect();
        ids.sort_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// Reads their manifests lazily; unreadable ones are skipped with a warning.
    fn read<'a>(&'a self, ids: &'a [ReleaseId]) -> impl Iterator<Item = Manifest> + 'a {
        self.with_warnings(ids.iter().map(|id| Release::read_manifest(&self.dir.join(id.as_str()))))
    }

    fn with_warnings<'a, T: 'a>(&'a self, read: impl Iterator<Item = Result<T>> + 'a) -> impl Iterator<Item = T> + 'a {
        read.filter_map(|read| {
            read.map_err(|error| self.ctx.warn(format!("skipped an unreadable release: {error:#}"))).ok()
        })
    }

    /// The head of a manifest. Reads the whole file only if the start is not sufficient; the consumer of the release
    /// verifies the rest.
    fn head(&self, id: &ReleaseId) -> Result<Head> {
        let dir = self.dir.join(id.as_str());
        let mut beginning = Vec::with_capacity(Head::ENOUGH);
        let read = files::open(&dir.join(manifest::FILE))
            .and_then(|file| file.take(Head::ENOUGH as u64).read_to_end(&mut beginning));
        match read.ok().and_then(|_| Head::of_beginning(&beginning)) {
            Some(head) if head.id == *id => Ok(head),
            _ => Release::read_manifest(&dir).map(Head::from),
        }
    }

    fn absent(&self, id: &ReleaseId) -> CliError {
        let dir = self.dir.display();
        let failure = not_found(format!("{id} is not in {dir}"));
        if only_in_ci(&self.url) {
            return failure.hint(EMPTY_WORKSPACE);
        }
        failure.hint("list the releases with `cargo xtask releases`, or build this commit with `cargo xtask build`")
    }
}
