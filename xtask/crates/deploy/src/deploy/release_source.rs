//! A release about to be deployed. All its bytes were verified here, even if the hosts fetch it themselves.

use crate::deploy::resolve::Catalog;
use crate::host::Delivery;
use crate::store::Store;
use gangplank_bundle::delta::{Changes, Zstd};
use gangplank_bundle::release::Release;
use gangplank_model::error::Result;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::manifest::Manifest;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A release to deploy. Drop removes what was downloaded for it.
pub struct ReleaseSource<'a>(Place<'a>);

struct Place<'a> {
    release: Release,
    /// The directory to remove on drop.
    aside: Option<(PathBuf, &'a Catalog<'a>)>,
    /// The store that the hosts fetch it from.
    origin: Option<&'a dyn Store>,
}

impl<'a> ReleaseSource<'a> {
    /// A release in `dir`, a directory of its own. The hosts fetch it from `origin`, if any.
    pub fn new(release: Release, dir: PathBuf, catalog: &'a Catalog, origin: Option<&'a dyn Store>) -> Self {
        Self(Place { release, aside: Some((dir, catalog)), origin })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        self.0.release.manifest()
    }

    /// The id.
    pub fn id(&self) -> &ReleaseId {
        &self.manifest().id
    }

    /// The URL of the store that the hosts fetch it from.
    pub fn origin(&self) -> Option<&str> {
        self.0.origin.map(Store::url)
    }

    /// The archives for hosts, made with the zstd program of this machine, if any; `hosts` counts the hosts per release
    /// that they have, and up to `targets` targets are on one host.
    pub fn changes<'z>(
        &self,
        hosts: &BTreeMap<ReleaseId, usize>,
        zstd: Option<&'z dyn Zstd>,
        targets: usize,
    ) -> Changes<'z> {
        let Some((dir, catalog)) = self.0.aside.as_ref().filter(|_| self.0.origin.is_none()) else {
            return Changes::new(BTreeMap::new(), zstd, targets);
        };
        let older =
            |(id, hosts): (&ReleaseId, &usize)| Some((id.clone(), catalog.older(id, self.manifest(), *hosts, dir)?));
        let others = hosts.iter().filter(|(id, _)| zstd.is_some() && *id != self.id());
        Changes::new(others.filter_map(older).collect(), zstd, targets)
    }

    /// What is sent to one host. Computed per host, because the URL in it expires.
    pub fn delivery<'d>(&'d self, changes: &'d Changes<'d>) -> Result<Delivery<'d>> {
        match self.0.origin {
            None => Ok(Delivery::Push(&self.0.release, changes)),
            Some(store) => Ok(Delivery::Pull(&self.0.release, store.link(self.manifest())?)),
        }
    }
}

impl From<Release> for ReleaseSource<'_> {
    fn from(release: Release) -> Self {
        Self(Place { release, aside: None, origin: None })
    }
}

impl Drop for ReleaseSource<'_> {
    fn drop(&mut self) {
        if let Some((dir, _)) = &self.0.aside {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
