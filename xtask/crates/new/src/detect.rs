//! Detects what an existing workspace contains, from cargo and its directories.

use crate::main_rs::{App, Runs};
use crate::manifest;
use crate::toolchain::Wanted;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use gangplank_system::context::{Context, Input};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Common names of folders that programs read at run time.
const FOLDERS: &[&str] = &["static", "public", "assets", "templates", "www", "migrations"];

/// Crates that indicate a server.
const SERVERS: &[&str] = &[
    "actix-web",
    "axum",
    "gotham",
    "hyper",
    "ntex",
    "poem",
    "rocket",
    "rouille",
    "salvo",
    "tide",
    "tiny_http",
    "tonic",
    "trillium",
    "viz",
    "warp",
];

/// The used part of `cargo metadata`.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    /// Its root.
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    /// Its members.
    pub packages: Vec<Package>,
    /// Where cargo puts what it compiles.
    pub target_directory: PathBuf,
}

/// A member.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its manifest.
    pub manifest_path: PathBuf,
    rust_version: Option<String>,
    features: BTreeMap<String, Vec<String>>,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    #[serde(default, rename = "required-features")]
    required: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// The targets of a package.
struct Built<'a> {
    binaries: Vec<&'a Target>,
    features: BTreeSet<String>,
    without: Vec<&'a Target>,
}

impl Package {
    fn binaries(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "bin"))
    }

    /// The default features.
    fn default_features(&self) -> BTreeSet<&str> {
        let (mut on, mut next) = (BTreeSet::new(), vec!["default"]);
        while let Some(feature) = next.pop() {
            if on.insert(feature) {
                next.extend(self.features.get(feature).into_iter().flatten().map(String::as_str));
            }
        }
        on
    }

    /// The binaries that cargo builds by default, and those that need features. If none is built by default, all with
    /// their features.
    fn built(&self) -> Built<'_> {
        let on = self.default_features();
        let is_on = |target: &&Target| target.required.iter().all(|feature| on.contains(feature.as_str()));
        let (built, without): (Vec<&Target>, Vec<&Target>) = self.binaries().partition(is_on);
        if !built.is_empty() {
            return Built { binaries: built, features: BTreeSet::new(), without };
        }
        let features = without.iter().flat_map(|target| &target.required);
        let features = features.filter(|feature| !on.contains(feature.as_str())).cloned().collect();
        Built { binaries: without, features, without: vec![] }
    }

    fn is_server(&self) -> bool {
        let at_run_time = self.dependencies.iter().filter(|it| it.kind.is_none());
        at_run_time.into_iter().any(|it| SERVERS.contains(&it.name.as_str()))
    }
}

/// Runs `cargo metadata` offline.
pub fn workspace(ctx: &Context, dir: &Path) -> Result<Workspace> {
    let there = ctx.at(dir);
    let mut command = there.cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    // These variables of the shell are not settings of the project.
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"] {
        command.env_remove(name);
    }
    let answer = there.answer_within(command, Input::Empty, None, true)?;
    if !answer.ok() {
        let said = answer.stderr.trim();
        return usage(format!("cargo cannot read {}: {said}", dir.display()))
            .hint("name the root of a Cargo workspace, or the directory of a crate: `cargo metadata --no-deps` has to work there")
            .err();
    }
    let workspace: Workspace = serde_json::from_str(&answer.stdout).with_hint(
        Kind::Failed,
        || "cargo metadata has an unexpected format".into(),
        || "check that cargo is 1.90 or newer: `cargo --version`".into(),
    )?;
    if workspace.root != dir {
        return usage(format!("{} is a member of the workspace {}", dir.display(), workspace.root.display()))
            .hint(format!("`cargo xtask new --into {}`", workspace.root.display()))
            .err();
    }
    Ok(workspace)
}

impl Workspace {
    /// The app: every package with a binary, and known folders beside its manifest or the root's.
    pub fn app(&self, name: Option<&str>) -> App {
        let shipped: Vec<_> = self.packages.iter().filter(|package| package.binaries().next().is_some()).collect();
        let dirs = shipped.iter().filter_map(|package| package.manifest_path.parent());
        let mut folders: Vec<PathBuf> = dirs
            .chain([self.root.as_path()])
            .flat_map(|dir| FOLDERS.iter().map(move |folder| dir.join(folder)))
            .filter(|folder| folder.is_dir())
            .collect();
        folders.sort();
        folders.dedup();
        let (mut include, mut left_out, mut taken) = (Vec::<String>::new(), Vec::new(), Vec::new());
        for folder in folders {
            let Some(path) = folder.strip_prefix(&self.root).ok().and_then(Path::to_str) else { continue };
            let name = folder.file_name().map(ToOwned::to_owned);
            if gangplank_deploy::include::below(&folder).is_ok_and(|files| files.is_empty()) {
                left_out.push((path.to_owned(), "it is empty"));
            } else if taken.contains(&name) {
                // A bundle has no package directories, so both would collide.
                left_out.push((path.to_owned(), "another package has a folder of that name"));
            } else {
                taken.push(name);
                include.push(path.to_owned());
            }
        }
        let built: Vec<_> = shipped.iter().map(|package| (&package.name, package.built())).collect();
        let server = shipped.iter().find(|package| package.is_server()).map(|package| package.built().binaries);
        let server = server.and_then(|binaries| binaries.first().map(|binary| binary.name.clone()));
        let of = |name: &str, features: &BTreeSet<String>| {
            features.iter().map(|feature| format!("{name}/{feature}")).collect::<Vec<_>>()
        };
        let without = built.iter().flat_map(|(name, built)| built.without.iter().map(move |target| (*name, *target)));
        let without =
            without.map(|(name, target)| (target.name.clone(), of(name, &target.required.iter().cloned().collect())));
        let root = self.root.file_name().map(|name| name.to_string_lossy().into_owned());
        let only = if let [package] = shipped.as_slice() { Some(package.name.clone()) } else { None };
        App {
            name: name.map(str::to_owned).or(only).or(root).unwrap_or_default(),
            packages: shipped.iter().map(|package| package.name.clone()).collect(),
            include,
            left_out,
            features: built.iter().flat_map(|(name, built)| of(name, &built.features)).collect(),
            without: without.collect(),
            runs: server.map_or(Runs::No, Runs::Server),
        }
    }
    /// Cargo's target directory, if it is another directory of the project than `target`.
    pub fn own_target_dir(&self) -> Option<String> {
        let dir = self.target_directory.strip_prefix(&self.root).ok()?.to_str()?;
        (dir != "target" && !dir.is_empty()).then(|| dir.to_owned())
    }

    /// The Rust version that it needs.
    pub fn rust(&self) -> Result<Wanted> {
        let text = |name: &str| fs::read_to_string(self.root.join(name)).ok();
        let pins = ["rust-toolchain", "rust-toolchain.toml"].into_iter().find_map(|name| Some((name, text(name)?)));
        let config = text(".cargo/config.toml").map(|text| manifest::build_target(&text)).transpose()?.flatten();
        let (pin, installs_targets) = match pins {
            Some((name, text)) => {
                let (channel, installs) = manifest::toolchain(&text);
                (channel.map(|channel| (name, channel)), installs)
            }
            None => (None, false),
        };
        let numbers =
            |version: &str| version.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
        let versions = self.packages.iter().filter_map(|package| package.rust_version.clone());
        let rust_version = versions.max_by_key(|version| numbers(version));
        Ok(Wanted { pin, installs_targets, rust_version, target: config })
    }
}
