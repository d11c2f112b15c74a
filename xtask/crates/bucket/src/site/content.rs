//! What a site serves of a release: paths, headers and contents.

use crate::object::many::Headers;
use crate::site::layout::{FILE_BYTES_MAX, file_key, is_own};
use gangplank_model::error::{Result, usage};
use gangplank_model::release::manifest::{Content, FileEntry, Manifest, resolve_link};
use gangplank_model::site::{CHECKED, IMMUTABLE, Served, Site, below, has_digest};
use std::collections::BTreeMap;

/// The number of links that lead to a file.
const LINKS_MAX: usize = 8;

/// A content to be stored: the file of the release that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Path in the release.
    pub from: String,
    /// Size in bytes.
    pub bytes: u64,
    /// The headers.
    pub headers: Headers,
}

/// The served paths of a release with the key of each content, and every content by its key.
pub fn contents(site: &Site, manifest: &Manifest) -> Result<(Served, BTreeMap<String, Stored>)> {
    let files: BTreeMap<&str, &FileEntry> = manifest.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let (mut served, mut stored) = (Served::new(), BTreeMap::new());
    for (path, file) in &files {
        let Some(name) = below(site.root, path) else { continue };
        if is_own(name) {
            return usage(format!("`{path}` would be in the site's own directory"))
                .hint("rename it, or remove it from `include`")
                .err();
        }
        let Some((file, digest)) = behind(&files, file) else {
            return usage(format!("the link `{path}` does not lead to a file, so it cannot be served"))
                .hint("replace it by the file, or remove it from `include`")
                .err();
        };
        if file.bytes > FILE_BYTES_MAX {
            return usage(format!("`{path}` has {} bytes: a site's file has at most {FILE_BYTES_MAX}", file.bytes))
                .hint("serve it from elsewhere, and remove it from `include`")
                .err();
        }
        let headers = headers(site, name)?;
        let key = file_key(digest, &headers.content_type, &headers.cache_control);
        served.insert(name.to_owned(), key.clone());
        stored.insert(key, Stored { from: file.path.clone(), bytes: file.bytes, headers });
    }
    if served.is_empty() {
        return usage(format!("release {} has no file below `{}`, the root of the site", manifest.id, site.root))
            .hint("correct `root` of `site` in xtask/src/main.rs, or `include` of the app")
            .err();
    }
    Ok((served, stored))
}

/// The file that an entry is or leads to, and its digest.
fn behind<'a>(files: &BTreeMap<&str, &'a FileEntry>, file: &'a FileEntry) -> Option<(&'a FileEntry, &'a str)> {
    let mut file = file;
    for _ in 0..LINKS_MAX {
        match &file.content {
            Content::Sha256(digest) => return Some((file, digest)),
            Content::Link(to) => file = files.get(resolve_link(&file.path, to)?.as_str())?,
        }
    }
    None
}

/// The headers of a served path.
pub fn headers(site: &Site, path: &str) -> Result<Headers> {
    let mut cache_control = if has_digest(path) { IMMUTABLE } else { CHECKED };
    for (pattern, value) in site.cache {
        let options = glob::MatchOptions { require_literal_separator: false, ..glob::MatchOptions::new() };
        let Ok(parsed) = glob::Pattern::new(pattern) else {
            return usage(format!("`{pattern}` in `cache` of `site` is not a pattern"))
                .hint("write e.g. \"*.pdf\" or \"downloads/*\" in xtask/src/main.rs")
                .err();
        };
        if parsed.matches_with(path, options) {
            cache_control = value;
            break;
        }
    }
    let mime = mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream");
    // A browser guesses the encoding of text without it.
    let is_text = mime.starts_with("text/") || matches!(mime, "application/javascript" | "application/json");
    let content_type = if is_text { format!("{mime}; charset=utf-8") } else { mime.to_owned() };
    Ok(Headers { content_type, cache_control: cache_control.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_follow_the_name_and_the_patterns() {
        const SITE: Site = Site { cache: &[("*.pdf", "max-age=60"), ("blog/*", "max-age=5")], ..Site::DEFAULT };
        for (path, content_type, cache_control) in [
            ("index.html", "text/html; charset=utf-8", "no-cache"),
            ("a/app.3f9ac01e.js", "text/javascript; charset=utf-8", IMMUTABLE),
            ("logo.svg", "image/svg+xml", "no-cache"),
            ("docs/a.pdf", "application/pdf", "max-age=60"),
            ("blog/2026/index.html", "text/html; charset=utf-8", "max-age=5"),
            ("CNAME", "application/octet-stream", "no-cache"),
        ] {
            let headers = headers(&SITE, path).unwrap();
            assert_eq!((headers.content_type.as_str(), headers.cache_control.as_str()), (content_type, cache_control));
        }
        assert!(headers(&Site { cache: &[("a**b", "x")], ..Site::DEFAULT }, "x").is_err());
    }
}
