//! What an existing workspace is made of, as cargo and the directory tell it.

use crate::cx::Cx;
use crate::error::{Explain, Kind, Result, usage};
use crate::new::cargo;
use crate::new::main_rs::{App, Runs};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Folders that programs read while they run, by the names that people give them.
const FOLDERS: &[&str] = &["static", "public", "assets", "templates", "www", "migrations"];

/// Crates that make a program a server.
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

/// What `cargo metadata` says, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    /// Its root.
    pub workspace_root: PathBuf,
    /// Its members.
    pub packages: Vec<Package>,
}

/// A member.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its manifest.
    pub manifest_path: PathBuf,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

impl Package {
    fn binaries(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "bin")).map(|target| &*target.name)
    }

    fn is_server(&self) -> bool {
        let at_run_time = self.dependencies.iter().filter(|it| it.kind.is_none());
        at_run_time.into_iter().any(|it| SERVERS.contains(&it.name.as_str()))
    }
}

/// Asks cargo, without the network.
pub fn workspace(cx: &Cx, dir: &Path) -> Result<Workspace> {
    let answer = cargo(&cx.at(dir), &["metadata", "--no-deps", "--format-version", "1", "--offline"])?;
    if !answer.ok() {
        let said = answer.stderr.trim();
        return usage(format!("cargo cannot read {}: {said}", dir.display()))
            .hint("name the root of a Cargo workspace, or the directory of a crate: `cargo metadata --no-deps` has to work there")
            .err();
    }
    let workspace: Workspace = serde_json::from_str(&answer.stdout).explain(
        Kind::Failed,
        || "cargo metadata says something else than expected".into(),
        || "is cargo 1.90 or newer? `cargo --version`".into(),
    )?;
    if workspace.workspace_root != dir {
        return usage(format!("{} is a member of the workspace {}", dir.display(), workspace.workspace_root.display()))
            .hint(format!("`cargo xtask new --into {}`", workspace.workspace_root.display()))
            .err();
    }
    Ok(workspace)
}

impl Workspace {
    /// What is built and shipped: every package with a binary, and the folders that lie beside its manifest or the root's.
    pub fn app(&self, name: Option<&str>) -> App {
        let shipped: Vec<_> = self.packages.iter().filter(|package| package.binaries().next().is_some()).collect();
        let dirs = shipped.iter().filter_map(|package| package.manifest_path.parent());
        let mut folders: Vec<PathBuf> = dirs
            .chain([self.workspace_root.as_path()])
            .flat_map(|dir| FOLDERS.iter().map(move |folder| dir.join(folder)))
            .filter(|folder| folder.is_dir())
            .collect();
        folders.sort();
        folders.dedup();
        let (mut include, mut left_out, mut taken) = (Vec::<String>::new(), Vec::new(), Vec::new());
        for folder in folders {
            let Some(path) = folder.strip_prefix(&self.workspace_root).ok().and_then(Path::to_str) else { continue };
            let name = folder.file_name().map(ToOwned::to_owned);
            if crate::include::below(&folder).is_ok_and(|files| files.is_empty()) {
                left_out.push((path.to_owned(), "it is empty"));
            } else if taken.contains(&name) {
                // A bundle has no packages in it, so both would be one folder.
                left_out.push((path.to_owned(), "another package has a folder of that name"));
            } else {
                taken.push(name);
                include.push(path.to_owned());
            }
        }
        let server = shipped.iter().find(|package| package.is_server()).and_then(|package| package.binaries().next());
        let root = self.workspace_root.file_name().map(|name| name.to_string_lossy().into_owned());
        let only = if let [package] = shipped.as_slice() { Some(package.name.clone()) } else { None };
        App {
            name: name.map(str::to_owned).or(only).or(root).unwrap_or_default(),
            packages: shipped.iter().map(|package| package.name.clone()).collect(),
            include,
            left_out,
            runs: server.map_or(Runs::No, |binary| Runs::Server(binary.to_owned())),
        }
    }
}
