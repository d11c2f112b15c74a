//! A release that is about to be deployed: here with every byte, or known by its manifest and left to the hosts to fetch.

use crate::deploy::resolve::Catalog;
use crate::error::Result;
use crate::release::Release;
use crate::release::delta::Changes;
use crate::release::id::ReleaseId;
use crate::release::manifest::Manifest;
use crate::store::Store;
use crate::target::Delivery;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A release to be deployed. What was fetched for it goes with it.
pub struct Fetched<'a>(Place<'a>);

enum Place<'a> {
    Here { release: Release, aside: Option<(PathBuf, &'a Catalog<'a>)> },
    There { manifest: Manifest, store: &'a dyn Store },
}

impl<'a> Fetched<'a> {
    /// One that lies in `dir`, which nobody else uses.
    pub fn here(release: Release, dir: PathBuf, catalog: &'a Catalog) -> Self {
        Self(Place::Here { release, aside: Some((dir, catalog)) })
    }

    /// One that stays where it is.
    pub fn there(manifest: Manifest, store: &'a dyn Store) -> Self {
        Self(Place::There { manifest, store })
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        match &self.0 {
            Place::Here { release, .. } => release.manifest(),
            Place::There { manifest, .. } => manifest,
        }
    }

    /// Its id.
    pub fn id(&self) -> &ReleaseId {
        &self.manifest().id
    }

    /// Where the hosts fetch it from, if they do.
    pub fn origin(&self) -> Option<&str> {
        match &self.0 {
            Place::Here { .. } => None,
            Place::There { store, .. } => Some(store.url()),
        }
    }

    /// How it differs from what the hosts have: so many of them a release.
    pub fn changes(&self, hosts: &BTreeMap<ReleaseId, usize>) -> Changes {
        let Place::Here { aside: Some((dir, catalog)), .. } = &self.0 else { return Changes::default() };
        let older =
            |(id, hosts): (&ReleaseId, &usize)| Some((id.clone(), catalog.older(id, self.manifest(), *hosts, dir)?));
        Changes::new(hosts.iter().filter(|(id, _)| *id != self.id()).filter_map(older).collect())
    }

    /// What a host is given. Asked for each host anew, because the URL in it expires.
    pub fn delivery<'d>(&'d self, changes: &'d Changes) -> Result<Delivery<'d>> {
        match &self.0 {
            Place::Here { release, .. } => Ok(Delivery::Push(release, changes)),
            Place::There { manifest, store } => Ok(Delivery::Pull(manifest, store.link(manifest)?)),
        }
    }
}

impl From<Release> for Fetched<'_> {
    fn from(release: Release) -> Self {
        Self(Place::Here { release, aside: None })
    }
}

impl Drop for Fetched<'_> {
    fn drop(&mut self) {
        if let Place::Here { aside: Some((dir, _)), .. } = &self.0 {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
