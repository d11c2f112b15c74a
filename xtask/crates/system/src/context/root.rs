//! Finds the root of a project and its xtask.

use std::fs;
use std::path::Path;

/// The manifest of the xtask below a project's root.
const XTASK_MANIFEST: &str = "xtask/Cargo.toml";

/// The digests of a project's copy of the engine, below its root. A project whose engine lies elsewhere has none, nor has
/// Gangplank's own repository.
pub const ENGINE_SUMS: &str = "xtask/crates/SHA256SUMS";

/// The features of the engine that a copy may lack, with the directory of the crate of each.
pub const PARTS: [(&str, &str); 8] = [
    ("artifacts", "artifacts"),
    ("html", "html"),
    ("launch", "launch"),
    ("lint", "lint"),
    ("local-ci", "local-ci"),
    ("loopback", "loopback"),
    ("s3", "bucket"),
    ("sign", "sign"),
];

/// Whether the copy of the engine in a project lacks the crate of a feature.
pub fn is_left_out(root: &Path, feature: &str) -> bool {
    let Some((_, dir)) = PARTS.iter().find(|(name, _)| *name == feature) else { return false };
    root.join("xtask/crates/gangplank/Cargo.toml").is_file() && !root.join("xtask/crates").join(dir).is_dir()
}

/// How to get a part of the engine that was left out.
pub fn left_out_hint(feature: &str) -> String {
    format!("in a checkout of Gangplank: `cargo xtask new --upgrade DIR --with {feature}`, where DIR is this project")
}

/// Whether a line of a manifest makes it that of a workspace.
fn is_workspace(line: &str) -> bool {
    let word = line.trim_start_matches('[').trim_start();
    word.strip_prefix("workspace").is_some_and(|rest| rest.trim_start().starts_with(['.', ']', '=']))
        && !line.ends_with("workspace = true")
}

/// Whether a manifest is that of a workspace.
fn has_workspace(manifest: &str) -> bool {
    manifest.lines().any(|line| is_workspace(line.trim_start()))
}

/// Whether a directory is the root of a project: of a workspace, or of a crate with a standalone xtask. Such an xtask
/// is also a workspace, but not the root.
fn is_root(manifest: &str, xtask: Option<&str>, name: Option<&str>) -> bool {
    let is_xtask = |manifest: &str| manifest.lines().any(|line| line.starts_with("gangplank"));
    xtask.is_some_and(is_xtask) || (has_workspace(manifest) && !(name == Some("xtask") && is_xtask(manifest)))
}

/// The cargo arguments that run the project's xtask with features: it is a workspace member, or has a workspace of its
/// own.
pub fn run_xtask(root: &Path, features: Option<&str>) -> Vec<String> {
    let manifest = root.join(XTASK_MANIFEST);
    let mut words = vec!["run".to_owned(), "--quiet".to_owned()];
    if stands_alone(root) {
        words.extend(["--manifest-path".to_owned(), manifest.display().to_string()]);
    } else {
        words.extend(["--package".to_owned(), "xtask".to_owned()]);
    }
    words.extend(features.iter().flat_map(|features| ["--features".to_owned(), (*features).to_owned()]));
    words.push("--".to_owned());
    words
}

/// Whether the project's xtask is a workspace of its own, as `new --into` creates it.
pub fn stands_alone(root: &Path) -> bool {
    fs::read_to_string(root.join(XTASK_MANIFEST)).is_ok_and(|manifest| has_workspace(&manifest))
}

/// The nearest root at or above a directory.
pub fn above(here: &Path) -> Option<&Path> {
    here.ancestors().find(|dir| {
        let Ok(manifest) = fs::read_to_string(dir.join("Cargo.toml")) else { return false };
        let xtask = fs::read_to_string(dir.join(XTASK_MANIFEST)).ok();
        is_root(&manifest, xtask.as_deref(), dir.file_name().and_then(|name| name.to_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_a_workspace_or_a_crate_with_an_xtask() {
        let (package, workspace) = ("[package]\n", "[workspace]\n");
        let xtask = "[workspace]\n[dependencies]\ngangplank = { path = \"engine\" }\n";
        for (manifest, below, name, root) in [
            (package, None, "web", false),
            (workspace, None, "web", true),
            (package, Some(xtask), "web", true),
            (package, Some(package), "web", false),
            (xtask, None, "xtask", false),
            (workspace, None, "xtask", true),
        ] {
            assert_eq!(is_root(manifest, below, Some(name)), root, "{manifest} {below:?} {name}");
        }
    }
}
