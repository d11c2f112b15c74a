//! The files of a project as values, derived from this repository.

use crate::main_rs;
use crate::main_rs::Plan;
use crate::manifest;
use crate::options::{ENGINE_DIR, Engine};
use crate::parts;
use crate::parts::Part;
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

/// `.gitignore` of a standalone xtask. Libraries often ignore every `Cargo.lock`.
const OWN_IGNORES: &str = "/target\n!/Cargo.lock\n";

/// `.gitignore` of a vendored engine, which overrides lines like `target` or `release/` of the directories above.
const ENGINES_IGNORES: &str = "# Every file here belongs to the commit, whatever a .gitignore above says.\n!*\n";

/// The start of the part of xtask/Cargo.toml for the engine's own tests.
const ENGINES_TESTS: &str = "\n# From here on: the engine's own tests";

/// Files by relative path.
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

    /// Adds another tree below `dir`.
    pub fn graft(&mut self, dir: &str, other: Self) {
        self.0.extend(other.0.into_iter().map(|(path, bytes)| (format!("{dir}/{path}"), bytes)));
    }

    /// The paths; a vendored engine counts as one.
    pub fn names(&self) -> Vec<String> {
        let inside = |path: &str| path.starts_with(ENGINE_DIR) && path[ENGINE_DIR.len()..].starts_with('/');
        let engine = self.0.keys().any(|path| inside(path)).then(|| format!("{ENGINE_DIR}/"));
        engine.into_iter().chain(self.0.keys().filter(|path| !inside(path)).cloned()).collect()
    }

    /// Writes all files below `dir`.
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

/// A template file.
pub fn template(path: &str) -> Result<&'static str> {
    let found = embedded::TEMPLATE.iter().find(|(name, _)| *name == path);
    match found.and_then(|(_, bytes)| std::str::from_utf8(bytes).ok()) {
        Some(text) => Ok(text),
        None => failed(format!("this xtask was compiled without {path}, of which projects are made"))
            .hint("make projects from a checkout of Gangplank: its crates are in xtask/crates")
            .err(),
    }
}

/// Whether the lock file of new projects has a crate of that name.
pub fn locked(name: &str) -> bool {
    name != "app" && template("Cargo.lock").is_ok_and(|lock| lock.contains(&format!("\nname = \"{name}\"\n")))
}

/// The files of a new project.
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
    tree.text("Cargo.toml", manifest::workspace_of_new(template("Cargo.toml")?, plan.is_vendored, &plan.left_out())?);
    // Cargo keeps only what it needs, at the tested versions.
    let member = |name: &str| format!("\n[[package]]\nname = \"{name}\"\n");
    tree.text("Cargo.lock", template("Cargo.lock")?.replacen(&member("app"), &member(name), 1));
    tree.text("README.md", readme(plan, engine));
    Ok(tree)
}

/// The files added to an existing project: the xtask, and a vendored engine.
pub fn xtask(plan: &Plan, engine: &Engine, is_new: bool) -> Result<Tree> {
    let mut tree = Tree::default();
    let manifest = template("xtask/Cargo.toml")?;
    let manifest = manifest.split_once(ENGINES_TESTS).map_or(manifest, |(before, _)| before);
    tree.text("xtask/Cargo.toml", manifest::xtask(manifest, engine, plan.parts.contains("s3"), is_new)?);
    tree.text("xtask/src/main.rs", main_rs::fill(template("xtask/src/main.rs")?, plan)?);
    if !is_new {
        // Cargo keeps only what it needs, at the tested versions.
        tree.text("xtask/Cargo.lock", template("Cargo.lock")?);
        tree.text("xtask/.gitignore", OWN_IGNORES);
    }
    if *engine == Engine::Vendor {
        tree.graft(ENGINE_DIR, vendored(&plan.parts)?);
    }
    Ok(tree)
}

/// The engine as a self-contained package, with these parts.
pub fn vendored(parts: &BTreeSet<Part>) -> Result<Tree> {
    let mut tree = Tree::default();
    let left_out = parts::left_out(parts);
    let is_left_out = |path: &str| path.split_once('/').is_some_and(|(dir, _)| left_out.contains(&dir));
    for (path, bytes) in embedded::CRATES.iter().filter(|(path, _)| !is_left_out(path)) {
        // Cargo takes each directory here for a crate.
        let path = if path.starts_with("docs/") { format!("gangplank/{path}") } else { (*path).to_owned() };
        tree.0.insert(path, bytes.to_vec());
    }
    let manifests: Vec<_> = tree.0.keys().filter(|path| path.ends_with("/Cargo.toml")).cloned().collect();
    for path in manifests {
        let text = String::from_utf8_lossy(&tree.0[&path]).into_owned();
        tree.text(&path, manifest::vendored(&path, &text, &left_out)?);
    }
    // Digests apply to these bytes, whatever git's line-end settings.
    tree.text(".gitattributes", "* -text\n");
    tree.text(".gitignore", ENGINES_IGNORES);
    let sums: String = tree.0.iter().map(|(path, bytes)| checksum_line(&digest::of(bytes), path)).collect();
    tree.text(SUMS, sums);
    Ok(tree)
}

/// The version of an engine, from its manifest.
pub fn version_of(dir: &Path) -> Option<String> {
    manifest::version(&fs::read_to_string(dir.join("gangplank/Cargo.toml")).ok()?)
}

/// Whether `dir` contains an engine.
pub fn is_engine(dir: &Path) -> bool {
    dir.join("gangplank/src/lib.rs").is_file() && version_of(dir).is_some()
}

/// Files of a vendored engine that were changed, removed or added.
pub fn edited(dir: &Path) -> Result<Vec<String>> {
    let sums = fs::read_to_string(dir.join(SUMS)).with_hint(
        Kind::Usage,
        || format!("cannot read {}", dir.join(SUMS).display()),
        || "replace the engine with --force".into(),
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

/// The readme of a new project.
fn readme(plan: &Plan, engine: &Engine) -> String {
    let (name, guides) =
        (&plan.app.name, if *engine == Engine::Vendor { "xtask/crates/gangplank/docs" } else { "docs of Gangplank" });
    let hand_over = match plan.handoff {
        gangplank_model::project::Handoff::Workspace => "by the workspace of one workflow".to_owned(),
        gangplank_model::project::Handoff::Artifacts => "by CircleCI's artifacts".to_owned(),
        gangplank_model::project::Handoff::S3 => format!("by the bucket {}", plan.bucket),
    };
    let mut text = include_str!("readme.md").to_owned();
    if !plan.has("local-ci") {
        text =
            text.lines().filter(|line| !line.contains("cargo xtask ci run")).map(|line| format!("{line}\n")).collect();
    }
    text.replace("{name}", name).replace("{guides}", guides).replace("{hand_over}", &hand_over)
}
