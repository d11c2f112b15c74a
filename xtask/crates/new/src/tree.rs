//! The files of a project as values: what this repository is made of, as a project of its own needs it.

use crate::main_rs;
use crate::main_rs::Plan;
use crate::{ENGINE_DIR, Engine, manifest};
use gangplank_model::error::{Kind, Result, WithHint, failed};
use gangplank_model::release::digest;
use gangplank_model::release::manifest::checksum_line;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// Digests of a vendored engine, which `sha256sum -c` checks.
pub const SUMS: &str = "SHA256SUMS";

/// `.gitignore` of an xtask with a workspace of its own. Libraries often have git ignore each `Cargo.lock`.
const OWN_IGNORES: &str = "/target\n!/Cargo.lock\n";

/// `.gitignore` of a vendored engine. A line of the directories above, `target` or `release/`, would otherwise keep its
/// directories of that name out of the commit.
const ENGINES_IGNORES: &str = "# Every file here belongs to the commit, whatever a .gitignore above says.\n!*\n";

/// In xtask/Cargo.toml, everything from here on is of the engine's own tests.
const ENGINES_TESTS: &str = "\n# From here on: the engine's own tests";

/// Files by their path below some directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, Vec<u8>>);

impl Tree {
    /// The changelog of an engine.
    pub fn changelog(&self) -> String {
        String::from_utf8_lossy(self.0.get("CHANGELOG.md").map(Vec::as_slice).unwrap_or_default()).into_owned()
    }

    fn text(&mut self, path: &str, text: impl Into<String>) {
        self.0.insert(path.to_owned(), text.into().into_bytes());
    }

    /// Puts another one below `dir`.
    pub fn graft(&mut self, dir: &str, other: Self) {
        self.0.extend(other.0.into_iter().map(|(path, bytes)| (format!("{dir}/{path}"), bytes)));
    }

    /// The paths, those of a vendored engine as one.
    pub fn names(&self) -> Vec<String> {
        let inside = |path: &str| path.starts_with(ENGINE_DIR) && path[ENGINE_DIR.len()..].starts_with('/');
        let engine = self.0.keys().any(|path| inside(path)).then(|| format!("{ENGINE_DIR}/"));
        engine.into_iter().chain(self.0.keys().filter(|path| !inside(path)).cloned()).collect()
    }

    /// Writes all of it below `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        for (path, bytes) in &self.0 {
            let to = dir.join(path);
            let write = || {
                fs::create_dir_all(to.parent().unwrap_or(dir))?;
                fs::write(&to, bytes)
            };
            let hint = || "check free space and permissions: `df -h .`".into();
            write().with_hint(Kind::Failed, || format!("cannot write {}", to.display()), hint)?;
        }
        Ok(())
    }
}

/// A file of which projects are made.
pub fn template(path: &str) -> Result<&'static str> {
    let found = embedded::TEMPLATE.iter().find(|(name, _)| *name == path);
    match found.and_then(|(_, bytes)| std::str::from_utf8(bytes).ok()) {
        Some(text) => Ok(text),
        None => failed(format!("this xtask was compiled without {path}, of which projects are made"))
            .hint("make projects from a checkout of Gangplank: its crates are in xtask/crates")
            .err(),
    }
}

/// Whether a crate of that name is among those of a project already.
pub fn locked(name: &str) -> bool {
    name != "app" && template("Cargo.lock").is_ok_and(|lock| lock.contains(&format!("\nname = \"{name}\"\n")))
}

/// A new project.
pub fn project(plan: &Plan, engine: &Engine) -> Result<Tree> {
    let name = &plan.app.name;
    let mut tree = xtask(plan, engine, true)?;
    for path in [".cargo/config.toml", ".gitignore", "clippy.toml", "rustfmt.toml", "tests/pipeline.rs"] {
        tree.text(path, template(path)?);
    }
    for (path, bytes) in embedded::TEMPLATE.iter().filter(|(path, _)| path.starts_with("app/")) {
        tree.0.insert((*path).to_owned(), bytes.to_vec());
    }
    tree.text("app/Cargo.toml", manifest::app(template("app/Cargo.toml")?, name)?);
    tree.text("Cargo.toml", manifest::workspace_of_new(template("Cargo.toml")?, *engine == Engine::Vendor)?);
    // Cargo takes from it what it needs, at the versions that the engine was tested with.
    let member = |name: &str| format!("\n[[package]]\nname = \"{name}\"\n");
    tree.text("Cargo.lock", template("Cargo.lock")?.replacen(&member("app"), &member(name), 1));
    tree.text("README.md", readme(plan, engine));
    Ok(tree)
}

/// What an existing project gets: the xtask, and the engine where it is vendored.
pub fn xtask(plan: &Plan, engine: &Engine, is_new: bool) -> Result<Tree> {
    let mut tree = Tree::default();
    let manifest = template("xtask/Cargo.toml")?;
    let manifest = manifest.split_once(ENGINES_TESTS).map_or(manifest, |(before, _)| before);
    tree.text("xtask/Cargo.toml", manifest::xtask(manifest, engine, plan.handoff, is_new)?);
    tree.text("xtask/src/main.rs", main_rs::fill(template("xtask/src/main.rs")?, plan)?);
    if !is_new {
        // Cargo takes from it what it needs, at the versions that the engine was tested with.
        tree.text("xtask/Cargo.lock", template("Cargo.lock")?);
        tree.text("xtask/.gitignore", OWN_IGNORES);
    }
    if *engine == Engine::Vendor {
        tree.graft(ENGINE_DIR, vendored()?);
    }
    Ok(tree)
}

/// The crates, as packages that need nothing of the workspace around them, with the guides and the licences.
pub fn vendored() -> Result<Tree> {
    let mut tree = Tree::default();
    for (path, bytes) in embedded::CRATES {
        // Cargo takes each directory here for a crate.
        let path = if path.starts_with("docs/") { format!("gangplank/{path}") } else { (*path).to_owned() };
        tree.0.insert(path, bytes.to_vec());
    }
    let manifests: Vec<_> = tree.0.keys().filter(|path| path.ends_with("/Cargo.toml")).cloned().collect();
    for path in manifests {
        let text = String::from_utf8_lossy(&tree.0[&path]).into_owned();
        tree.text(&path, manifest::vendored(&path, &text)?);
    }
    // Digests are of these bytes, whatever git is told of line ends.
    tree.text(".gitattributes", "* -text\n");
    tree.text(".gitignore", ENGINES_IGNORES);
    let sums: String = tree.0.iter().map(|(path, bytes)| checksum_line(&digest::of(bytes), path)).collect();
    tree.text(SUMS, sums);
    Ok(tree)
}

/// The version of an engine, out of its manifest.
pub fn version_of(dir: &Path) -> Option<String> {
    manifest::version(&fs::read_to_string(dir.join("gangplank/Cargo.toml")).ok()?)
}

/// Whether an engine lies in `dir`.
pub fn is_engine(dir: &Path) -> bool {
    dir.join("gangplank/src/lib.rs").is_file() && version_of(dir).is_some()
}

/// Paths of a vendored engine that are not as they were when it was put there: changed, gone or new.
pub fn edited(dir: &Path) -> Result<Vec<String>> {
    let sums = fs::read_to_string(dir.join(SUMS)).with_hint(
        Kind::Usage,
        || format!("cannot read {}", dir.join(SUMS).display()),
        || "--force replaces the engine whatever it is".into(),
    )?;
    let mut edited = Vec::new();
    let mut known = BTreeSet::new();
    for (sum, path) in sums.lines().filter_map(|line| line.split_once("  ")) {
        known.insert(path);
        if fs::read(dir.join(path)).ok().map(|bytes| digest::of(&bytes)).as_deref() != Some(sum) {
            edited.push(path.to_owned());
        }
    }
    let there = gangplank_deploy::include::below(dir)?;
    edited.extend(there.into_iter().filter(|path| path != SUMS && !known.contains(path.as_str())));
    edited.sort();
    Ok(edited)
}

/// A page for those who find the project.
fn readme(plan: &Plan, engine: &Engine) -> String {
    let (name, guides) =
        (&plan.app.name, if *engine == Engine::Vendor { "xtask/crates/gangplank/docs" } else { "docs of Gangplank" });
    let hand_over = match plan.handoff {
        gangplank_model::project::Handoff::Workspace => "by the workspace of one workflow".to_owned(),
        gangplank_model::project::Handoff::Artifacts => "by CircleCI's artifacts".to_owned(),
        gangplank_model::project::Handoff::S3 => format!("by the bucket {}", plan.bucket),
    };
    include_str!("readme.md").replace("{name}", name).replace("{guides}", guides).replace("{hand_over}", &hand_over)
}
