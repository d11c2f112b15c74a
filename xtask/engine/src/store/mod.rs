//! Where releases are handed from the job that builds to the jobs that deploy: whole releases, never loose files.

pub mod dir;

use crate::cx::{Cx, var};
use crate::error::{Kind, Result, hint_of, kind_of, not_found, usage};
use crate::project::local_dir;
use crate::release::Release;
use crate::release::id::ReleaseId;
use crate::release::manifest::Manifest;
use std::path::{Path, PathBuf};

/// The directory that our configs persist and attach as CircleCI's workspace. Absolute, because relative ones mean
/// different places in `root` and in `at`.
pub const WORKSPACE: &str = "/tmp/workspace";

/// What an empty workspace means.
pub const EMPTY_WORKSPACE: &str = "an empty workspace means that no job that this one `requires` persisted it, or that it is older than 15 days: rerun the build job";

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The store has it now.
    Stored,
    /// The store had the same bytes already.
    AlreadyThere,
}

/// A place that keeps releases.
///
/// A put is immutable and atomic: the same bytes again are a success, other bytes under the same id an error that names
/// what differs, and a reader sees a release whole or not at all. The contract suite in `tests/it/store.rs` says so
/// for each implementation.
pub trait Store {
    /// Its URL, as the project names it.
    fn url(&self) -> &str;
    /// Keeps a release.
    fn put(&self, release: &Release) -> Result<Put>;
    /// Copies a release to `into/<id>` and checks every byte of the copy.
    fn get(&self, id: &ReleaseId, into: &Path) -> Result<Release>;
    /// Manifests of everything it keeps, the newest first.
    fn list(&self) -> Result<Vec<Manifest>>;
}

/// Opens a store by its URL.
pub fn open<'cx>(cx: &'cx Cx, url: &str) -> Result<Box<dyn Store + 'cx>> {
    match url.split_once(':') {
        Some(("file", dir)) if !dir.is_empty() => Ok(Box::new(dir::DirStore::new(cx, url, local_dir(&cx.home, dir)))),
        Some(("circleci", "workspace")) => Ok(Box::new(dir::DirStore::new(cx, url, workspace(cx).join("releases")))),
        Some(("circleci", "artifacts") | ("s3" | "gs" | "az", _)) => {
            usage(format!("store {url}: this engine does not have it yet"))
                .hint("use file:DIR or circleci:workspace in `stores`, see xtask/src/main.rs")
                .err()
        }
        _ => usage(format!("`{url}` is not the URL of a store")).hint("use file:DIR or circleci:workspace").err(),
    }
}

/// The directory of the CircleCI workspace.
pub fn workspace(cx: &Cx) -> PathBuf {
    cx.var(var::WORKSPACE).unwrap_or(WORKSPACE).into()
}

/// Whether a store is only there inside a CircleCI job.
pub fn only_in_ci(url: &str) -> bool {
    url == "circleci:workspace"
}

/// Asks the stores in order and says which one served. Fails with what each of them said.
pub fn fetch(cx: &Cx, stores: &[Box<dyn Store + '_>], id: &ReleaseId, into: &Path) -> Result<Release> {
    let mut said = Vec::new();
    let mut worst: Option<anyhow::Error> = None;
    for store in stores {
        match store.get(id, into) {
            Ok(release) => {
                for why in said {
                    cx.note(why);
                }
                cx.note(format!("fetched {id} from {}", store.url()));
                return Ok(release);
            }
            Err(error) => {
                said.push(format!("{} could not serve {id}: {error:#}", store.url()));
                // Absence is the least that can be wrong; damage is what a person has to hear of.
                if worst.as_ref().is_none_or(|worst| kind_of(worst) == Kind::NotFound) {
                    worst = Some(error);
                }
            }
        }
    }
    let Some(worst) = worst else {
        return usage("the project names no store").hint("set `stores`, see xtask/src/main.rs").err();
    };
    let hint = hint_of(&worst).unwrap_or("`cargo xtask releases` lists what there is").to_owned();
    crate::error::Failure::new(kind_of(&worst), said.join("; ")).hint(hint).err()
}

/// Everything that the stores keep, each id once, the newest first.
pub fn list(stores: &[Box<dyn Store + '_>]) -> Result<Vec<(Manifest, Vec<String>)>> {
    let mut all: Vec<(Manifest, Vec<String>)> = Vec::new();
    for store in stores {
        for manifest in store.list()? {
            match all.iter_mut().find(|(known, _)| known.id == manifest.id) {
                Some((_, urls)) => urls.push(store.url().to_owned()),
                None => all.push((manifest, vec![store.url().to_owned()])),
            }
        }
    }
    all.sort_by(|(a, _), (b, _)| b.id.cmp(&a.id));
    Ok(all)
}

/// The release of a commit, or an error that says what there is instead.
pub fn by_sha(all: &[(Manifest, Vec<String>)], sha: &str) -> Result<ReleaseId> {
    let found: Vec<_> =
        all.iter().filter(|(manifest, _)| manifest.commit.sha.starts_with(sha)).map(|(m, _)| &m.id).collect();
    // A clean build of a commit beats the dirty ones that were tried on the way to it.
    let clean: Vec<_> = found.iter().filter(|id| !id.is_dirty()).collect();
    match (clean.as_slice(), found.as_slice()) {
        ([id], _) => Ok((**id).clone()),
        ([], [id, ..]) => Ok((*id).clone()),
        ([], []) => not_found(format!("no release of commit {sha}"))
            .hint("`cargo xtask build` makes one of the commit that is checked out; `cargo xtask releases` lists them")
            .err(),
        _ => {
            let ids: Vec<_> = clean.iter().map(|id| id.as_str()).collect();
            usage(format!("`{sha}` means several releases: {}", ids.join(", ")))
                .hint("give more digits, or a whole id")
                .err()
        }
    }
}
