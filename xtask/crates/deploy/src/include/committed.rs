//! Verifies that included files belong to the commit, because a clean release is named after it.

use gangplank_bundle::pack::Source;
use gangplank_model::error::{Result, usage};
use gangplank_model::project::App;
use gangplank_system::context::Context;
use gangplank_system::git::checkout::Checkout;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// The start of a Git LFS pointer file: its specification, version 1.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// The maximum size of a pointer, by the same specification.
const POINTER_BYTES_MAX: u64 = 1024;

/// Fails for Git LFS pointers, submodules that are not checked out, and ignored files, except those that the project
/// lists as generated. The binaries come from the build.
pub fn check(ctx: &Context, app: &App, sources: &[Source], binaries: &[PathBuf]) -> Result<()> {
    let is_generated = |path: &str| app.generated.iter().any(|pattern| covers(pattern, path));
    // A parent directory may be a link, which git does not follow.
    let root = ctx.root.canonicalize().unwrap_or_else(|_| ctx.root.clone());
    let relative = |source: &Source| {
        let dir = source.from.parent()?.canonicalize().ok()?;
        Some(dir.join(source.from.file_name()?).strip_prefix(&root).ok()?.to_str()?.to_owned())
    };
    let included = sources.iter().filter(|source| !binaries.contains(&source.from));
    let files = included.filter_map(|source| Some((relative(source)?, source)));
    let files: Vec<_> = files.filter(|(path, _)| !is_generated(path)).collect();
    if let Some((path, _)) = files.iter().find(|(_, source)| is_pointer(source)) {
        return usage(format!("{path} is a Git LFS pointer, not the file"))
            .hint("fetch it with `git lfs pull`, in a job too; to ship the pointer, list it in `generated` of `App`, xtask/src/main.rs")
            .err();
    }
    let checkout = Checkout::open(ctx)?;
    let left_out = checkout.hidden()?.left_out;
    let covered = |path: &&String| app.include.iter().any(|pattern| covers(pattern, path)) && !is_generated(path);
    if let Some(path) = left_out.iter().find(covered) {
        return usage(format!("{path} is included, but this sparse checkout omits it"))
            .hint("add it with `git sparse-checkout add DIRECTORY`, or remove it from `include`")
            .err();
    }
    let missing = checkout.missing_submodules();
    if let Some(path) = missing.iter().find(|path| meets(app.include, path) && !is_generated(path)) {
        return usage(format!("{path} is included, but is a submodule that is not checked out"))
            .hint(format!("fetch it with `git submodule update --init --recursive {path}`, in a job too; to omit it, list it in `generated` of `App`, xtask/src/main.rs"))
            .err();
    }
    let names: Vec<String> = files.into_iter().map(|(path, _)| path).collect();
    let changed = checkout.other_line_ends(&names)?;
    if let Some(first) = changed.first() {
        ctx.warn(format!(
            "{} included files have other line ends than the commit, e.g. {first}, because of core.autocrlf, so another checkout builds other bytes",
            changed.len()
        ));
    }
    let ignored = checkout.ignored(&names)?;
    let Some(first) = ignored.first() else { return Ok(()) };
    let more = if ignored.len() > 1 { format!(" (and {} more)", ignored.len() - 1) } else { String::new() };
    usage(format!("{first}{more} is included, but git ignores it"))
        .hint("list it in `generated` of `App`, xtask/src/main.rs, if a build step makes it; otherwise remove it from `include` or .gitignore")
        .err()
}

/// Whether a pattern is a path, a directory above it, or a glob of it.
fn covers(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_end_matches('/');
    let below = path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below || super::glob_matches(pattern, path)
}

/// Whether a directory may contain included files.
fn meets(include: &[&str], dir: &str) -> bool {
    include.iter().any(|pattern| {
        let (mut parts, mut names) = (pattern.trim_end_matches('/').split('/'), dir.split('/'));
        loop {
            match (parts.next(), names.next()) {
                (Some("**"), _) | (Some(_), None) => return true,
                (Some(part), Some(name)) if super::glob_matches(part, name) => {}
                (Some(_), Some(_)) => return false,
                // A directory is included with its contents, and a glob matches only files.
                (None, _) => return !pattern.contains(['*', '?', '[']),
            }
        }
    })
}

fn is_pointer(source: &Source) -> bool {
    if source.link.is_some() || source.bytes >= POINTER_BYTES_MAX {
        return false;
    }
    let mut start = Vec::new();
    let read = File::open(&source.from).and_then(|file| file.take(POINTER.len() as u64).read_to_end(&mut start));
    read.is_ok() && start == POINTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_paths() {
        for (pattern, path, want) in [
            ("web/dist", "web/dist/app.js", true),
            ("web/dist/", "web/dist/app.js", true),
            ("web/dist", "web/dist", true),
            ("web/dist", "web/distant/app.js", false),
            ("web/*.js", "web/app.js", true),
            ("web/*.js", "web/a/app.js", false),
            ("web/**/*.js", "web/a/app.js", true),
        ] {
            assert_eq!(covers(pattern, path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn includes_meet_directories() {
        for (pattern, dir, want) in [
            ("www", "www/theme", true),
            ("www/theme/css", "www/theme", true),
            ("www/**/*.css", "www/theme", true),
            ("app", "www/theme", false),
            ("www/them", "www/theme", false),
            ("*.toml", "vendor/x", false),
            ("*", "vendor/x", false),
            ("**/*.css", "vendor/x", true),
            ("*/x/*.css", "vendor/x", true),
            ("vendor", "vendor/x", true),
        ] {
            assert_eq!(meets(&[pattern], dir), want, "{pattern} {dir}");
        }
    }
}
