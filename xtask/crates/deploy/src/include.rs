//! Finds the files of a bundle, binaries and `include`, and checks them before anything is packed.

mod committed;

pub use crate::include::committed::check;
use gangplank_bundle::pack::Source;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use gangplank_model::release::manifest::{check_path, resolve_link};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// In a glob, `*` matches names with a leading dot, and no `/`.
const GLOBS: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// The maximum length of a chain of links.
const LINK_HOPS: usize = 40;

/// Finds the files of a bundle, sorted by path. Paths below one of `package_dirs` lose that prefix.
pub fn sources(root: &Path, package_dirs: &[PathBuf], include: &[&str], binaries: &[PathBuf]) -> Result<Vec<Source>> {
    let mut found = BTreeMap::new();
    for binary in binaries {
        let name = binary.file_name().unwrap_or_default().to_string_lossy();
        let meta = metadata(binary)?;
        let source =
            Source { path: format!("bin/{name}"), from: binary.clone(), bytes: meta.len(), mode: 0o755, link: None };
        add(&mut found, source)?;
    }
    for pattern in include {
        for file in matches(root, pattern)? {
            add(&mut found, source(root, package_dirs, &file)?)?;
        }
    }
    if found.is_empty() {
        return usage("the bundle would be empty: no package and nothing included")
            .hint("set `packages` or `include`, see xtask/src/main.rs")
            .err();
    }
    check_links(&found)?;
    Ok(found.into_values().collect())
}

fn add(found: &mut BTreeMap<String, Source>, source: Source) -> Result<()> {
    match found.get(&source.path) {
        Some(other) if other.from != source.from => usage(format!(
            "{} and {} are both `{}` in the bundle",
            other.from.display(),
            source.from.display(),
            source.path
        ))
        .hint("rename one of them, or remove it from `include`")
        .err(),
        _ => {
            found.insert(source.path.clone(), source);
            Ok(())
        }
    }
}

/// The files of a pattern: a file, everything below a directory, or the matches of a glob.
fn matches(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let inside = !pattern.is_empty() && !pattern.starts_with('/') && !pattern.split('/').any(|part| part == "..");
    if !inside {
        return usage(format!("include `{pattern}` leaves the workspace"))
            .hint("name files below the workspace root, relative to it")
            .err();
    }
    let path = root.join(pattern);
    let is_glob = pattern.contains(['*', '?', '[']) && fs::symlink_metadata(&path).is_err();
    let files = if is_glob { glob_files(root, pattern)? } else { files_below(root, &path, pattern)? };
    if files.is_empty() {
        return usage(format!("include `{pattern}` matches no file in {}", root.display()))
            .hint("check the spelling; `git status --ignored` lists generated files")
            .err();
    }
    Ok(files)
}

fn files_below(root: &Path, path: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(Vec::new());
    }
    // A parent directory may be a link to somewhere else.
    let dir = path.parent().unwrap_or(path).canonicalize();
    let inside = dir.and_then(|dir| Ok(dir.starts_with(root.canonicalize()?)));
    if !inside.with_hint(
        Kind::Failed,
        || format!("cannot read {}", path.display()),
        || "check its permissions".into(),
    )? {
        return usage(format!("include `{pattern}` leaves the workspace through a link"))
            .hint("name files below the workspace root, relative to it")
            .err();
    }
    walk(path, pattern)
}

fn glob_files(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let compiled = match glob::Pattern::new(pattern) {
        Ok(compiled) => compiled,
        Err(e) => {
            return usage(format!("include `{pattern}` is not a glob: {e}"))
                .hint("use `*`, `?`, `[a-z]` and `**`")
                .err();
        }
    };
    let fixed: PathBuf = pattern.split('/').take_while(|part| !part.contains(['*', '?', '['])).collect();
    let files = files_below(root, &root.join(fixed), pattern)?;
    let relative = |file: &PathBuf| file.strip_prefix(root).is_ok_and(|path| compiled.matches_path_with(path, GLOBS));
    Ok(files.into_iter().filter(relative).collect())
}

/// Whether a glob matches a path.
fn glob_matches(pattern: &str, path: &str) -> bool {
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_path_with(Path::new(path), GLOBS))
}

/// Paths of all files below a directory, relative to it.
pub fn below(dir: &Path) -> Result<Vec<String>> {
    let relative = |file: PathBuf| Some(file.strip_prefix(dir).ok()?.to_string_lossy().into_owned());
    Ok(walk(dir, &dir.to_string_lossy())?.into_iter().filter_map(relative).collect())
}

fn walk(path: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let all = WalkDir::new(path).follow_links(false).follow_root_links(false).sort_by_file_name();
    // A submodule has a `.git` of its own.
    for entry in all.into_iter().filter_entry(|entry| entry.file_name() != ".git") {
        let entry = entry.with_hint(
            Kind::Failed,
            || format!("cannot read all of include `{pattern}`"),
            || "check the permissions".into(),
        )?;
        if !entry.file_type().is_dir() {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).with_hint(
        Kind::Failed,
        || format!("cannot read {}", path.display()),
        || "check its permissions".into(),
    )
}

fn source(root: &Path, package_dirs: &[PathBuf], file: &Path) -> Result<Source> {
    let relative = package_dirs
        .iter()
        .find_map(|dir| file.strip_prefix(dir).ok())
        .or_else(|| file.strip_prefix(root).ok())
        .unwrap_or(file);
    let Some(path) = relative.to_str() else {
        return usage(format!("{} has a name that is not UTF-8", file.display()))
            .hint("rename the file: a manifest is JSON")
            .err();
    };
    if let Err(reason) = check_path(path) {
        return usage(format!("{}: {reason}", file.display().to_string().escape_debug()))
            .hint("rename the file, or remove it from `include`")
            .err();
    }
    let meta = metadata(file)?;
    let kind = meta.file_type();
    if kind.is_symlink() {
        let to = fs::read_link(file).with_hint(
            Kind::Failed,
            || format!("cannot read {}", file.display()),
            || "check its permissions".into(),
        )?;
        let Some(to) = to.to_str() else {
            return usage(format!("link {} has a target that is not UTF-8", file.display()))
                .hint("rename the target")
                .err();
        };
        return Ok(Source { path: path.into(), from: file.into(), bytes: 0, mode: 0o755, link: Some(to.into()) });
    }
    if !kind.is_file() {
        return usage(format!("{} is neither a file, a directory nor a link", file.display()))
            .hint("remove it from `include`")
            .err();
    }
    let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
    Ok(Source { path: path.into(), from: file.into(), bytes: meta.len(), mode, link: None })
}

/// Fails for links that do not end at a file or directory of the bundle: they would dangle on the host.
fn check_links(found: &BTreeMap<String, Source>) -> Result<()> {
    let dirs: BTreeSet<&str> =
        found.keys().flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..at])).collect();
    for (path, source) in found.iter().filter(|(_, source)| source.link.is_some()) {
        let mut at = path.clone();
        let mut hops = 0;
        while let Some(to) = found.get(&at).and_then(|source| source.link.as_deref()) {
            let target = resolve_link(&at, to);
            hops += 1;
            let reason = match &target {
                _ if hops > LINK_HOPS => "is part of a loop",
                None => "leaves the bundle",
                Some(target) if target.is_empty() || found.contains_key(target) || dirs.contains(target.as_str()) => {
                    at.clone_from(target);
                    continue;
                }
                Some(_) => "points to a file that is not in the bundle",
            };
            return usage(format!(
                "link {} -> {} {reason}",
                source.from.display(),
                source.link.as_deref().unwrap_or_default()
            ))
            .hint("include its target, or remove the link from `include`")
            .err();
        }
    }
    Ok(())
}
