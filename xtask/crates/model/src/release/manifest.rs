//! The manifest: the only interface between jobs, stores and hosts.

use crate::error::{Result, verification};
use crate::release::digest::is_digest;
use crate::release::id::ReleaseId;
use crate::release::links::Tree;
use crate::release::signature;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// The version of the format that this engine writes and reads.
pub const SCHEMA: u32 = 1;
/// Its file name in a release directory.
pub const FILE: &str = "manifest.json";
/// The maximum size in bytes, enough for 150,000 files.
pub const BYTES_MAX: u64 = 32 << 20;
/// The maximum number of files.
const FILES_MAX: usize = 150_000;
/// The maximum number of parts of a path.
const DEPTH_MAX: usize = 64;
/// The maximum bytes of a path part, as in Linux and macOS.
const NAME_MAX: usize = 255;
/// The maximum bytes of a path or link target: a host adds its own directories.
const PATH_MAX: usize = 1024;
/// The maximum bytes of all files together: a petabyte, so that sums never overflow.
const FILES_BYTES_MAX: u64 = 1 << 50;
/// The maximum bytes of a text such as a branch.
const TEXT_MAX: usize = 255;
/// The maximum bytes of a URL.
const URL_MAX: usize = 2048;

/// The contents and the origin of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`SCHEMA`].
    pub schema: u32,
    /// Name of the app.
    pub app: String,
    /// Id of the release.
    pub id: ReleaseId,
    /// The commit it was built from.
    pub commit: Commit,
    /// The CircleCI job that built it.
    pub ci: Option<CiJob>,
    /// The toolchain; absent if nothing was compiled.
    pub toolchain: Option<Toolchain>,
    /// The archive.
    pub bundle: Bundle,
    /// Every file of the archive, sorted by path.
    #[serde(deserialize_with = "limited")]
    pub files: Vec<FileEntry>,
    /// Signatures of [`Manifest::signed_bytes`], each the text of an SSH signature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
}

/// Reads the list of files up to its limit, which bounds the memory.
fn limited<'de, D: Deserializer<'de>>(list: D) -> std::result::Result<Vec<FileEntry>, D::Error> {
    struct Files;
    impl<'de> Visitor<'de> for Files {
        type Value = Vec<FileEntry>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a list of files")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Self::Value, A::Error> {
            let mut files = Vec::new();
            while let Some(file) = list.next_element()? {
                if files.len() == FILES_MAX {
                    return Err(A::Error::custom(format!("more than {FILES_MAX} files")));
                }
                files.push(file);
            }
            Ok(files)
        }
    }
    list.deserialize_seq(Files)
}

/// The head of a manifest, without its files, for lists of releases.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Head {
    schema: u32,
    /// The app that it is a release of.
    pub app: String,
    /// Id of the release.
    pub id: ReleaseId,
    /// The commit it was built from.
    pub commit: Commit,
    /// The archive.
    pub bundle: Bundle,
}

impl Head {
    /// Bytes to read from the start of a manifest for its head.
    pub const ENOUGH: usize = 4 << 10;

    /// Parses the start of a manifest written by [`Manifest::to_json`]; `None` if the whole file is needed.
    pub fn of_beginning(text: &[u8]) -> Option<Self> {
        // JSON strings have no line breaks, so this can only be the list.
        let files = b",\n  \"files\": [";
        let at = text.windows(files.len()).position(|window| window == files)?;
        let head: Self = serde_json::from_slice(&[&text[..at], b"}"].concat()).ok()?;
        (head.schema == SCHEMA && head.commit.check().is_ok()).then_some(head)
    }
}

impl From<Manifest> for Head {
    fn from(Manifest { schema, app, id, commit, bundle, .. }: Manifest) -> Self {
        Self { schema, app, id, commit, bundle }
    }
}

/// The toolchain of the binaries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// `rustc --version`.
    pub rustc: String,
    /// Target triple, e.g. `x86_64-unknown-linux-gnu`.
    pub target: String,
    /// Cargo profile, e.g. `release`.
    pub profile: String,
}

/// Facts of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Full SHA.
    pub sha: String,
    /// Commit time, RFC 3339 in UTC.
    pub time: jiff::Timestamp,
    /// Branch, unless the checkout is detached.
    pub branch: Option<String>,
    /// Tag that points at the commit.
    pub tag: Option<String>,
    /// Whether the tree had uncommitted changes.
    pub dirty: bool,
}

impl Commit {
    /// Fails for invalid git names.
    fn check(&self) -> Result<(), String> {
        if self.sha.len() > 64 || !self.sha.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("commit `{}` is not a SHA", short(&self.sha)));
        }
        for (what, text) in [("branch", &self.branch), ("tag", &self.tag)] {
            check_text(what, text.as_deref().unwrap_or_default(), TEXT_MAX)?;
        }
        Ok(())
    }
}

/// A job of CircleCI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CiJob {
    /// `CIRCLE_BUILD_NUM`.
    pub job: u64,
    /// `CIRCLE_BUILD_URL`.
    pub url: Option<String>,
    /// `CIRCLE_WORKFLOW_ID`.
    pub workflow: Option<String>,
    /// `PIPELINE_NUMBER`, which our configs set from `<< pipeline.number >>`.
    pub pipeline: Option<u64>,
}

/// Only the schema of a manifest.
#[derive(Deserialize)]
struct OnlySchema {
    schema: Option<u64>,
}

/// The archive of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// File name.
    pub file: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// SHA-256 of the tar inside, independent of the compressor, according to the builder. Not verified: `sha256` and
    /// the digests of the files are sufficient.
    pub tar_sha256: String,
}

/// The compression of a bundle. A store or host may have releases of both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Compression {
    /// A `.tar.gz`, which every host can read.
    #[default]
    Gzip,
    /// A `.tar.zst`: packed in two thirds of the time, and slightly smaller. Needs the engine's feature `zstd`, and the
    /// program `zstd` on each host.
    Zstd,
}

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AnyEntry")]
pub struct FileEntry {
    /// Path in the bundle: relative, `/` between parts, no `.` and `..`.
    pub path: String,
    /// Size in bytes; 0 for a link.
    pub bytes: u64,
    /// `0o644` or `0o755`, as a decimal number in JSON.
    pub mode: u32,
    /// The content.
    #[serde(flatten)]
    pub content: Content,
}

/// An entry with any content. Parsed without `flatten`, which would keep unknown fields in memory.
#[derive(Deserialize)]
struct AnyEntry {
    path: String,
    bytes: u64,
    mode: u32,
    sha256: Option<String>,
    link: Option<String>,
}

impl TryFrom<AnyEntry> for FileEntry {
    type Error = String;

    fn try_from(it: AnyEntry) -> std::result::Result<Self, String> {
        let content = match (it.sha256, it.link) {
            (Some(digest), None) => Content::Sha256(digest),
            (None, Some(to)) => Content::Link(to),
            _ => return Err(format!("`{}` has neither a digest nor a link, or both", short(&it.path))),
        };
        Ok(Self { path: it.path, bytes: it.bytes, mode: it.mode, content })
    }
}

/// The content of an entry: `"sha256": "..."` or `"link": "..."`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Digest of a regular file, hex.
    Sha256(String),
    /// Target of a symbolic link.
    Link(String),
}

impl Manifest {
    /// The file name of a bundle.
    pub fn bundle_name(app: &str, id: &ReleaseId, compression: Compression) -> String {
        let ending = match compression {
            Compression::Gzip => "gz",
            Compression::Zstd => "zst",
        };
        format!("{app}-{id}.tar.{ending}")
    }

    /// The compression according to the file name.
    pub fn compression(&self) -> Compression {
        let is = |compression: &Compression| Self::bundle_name(&self.app, &self.id, *compression) == self.bundle.file;
        Some(Compression::Zstd).filter(is).unwrap_or_default()
    }

    /// Parses a manifest; `origin` names the file or URL in errors.
    pub fn parse(text: &[u8], origin: &str) -> Result<Self> {
        let broken = |reason: String| {
            verification(format!("{origin}: {reason}"))
                .hint("build or fetch it again: the release is damaged or not ours")
        };
        if text.len() as u64 > BYTES_MAX {
            return broken(format!("a manifest of more than {BYTES_MAX} bytes")).err();
        }
        let reason = match serde_json::from_slice::<Self>(text) {
            Ok(manifest) if manifest.schema == SCHEMA => {
                manifest.check().map_err(broken)?;
                return Ok(manifest);
            }
            Ok(_) => String::new(),
            Err(e) => e.to_string(),
        };
        // Another schema may have other fields, so it is checked first.
        let only: OnlySchema = serde_json::from_slice(text).map_err(|e| broken(format!("not a manifest: {e}")))?;
        match only.schema {
            Some(schema) if schema == u64::from(SCHEMA) => broken(format!("not a manifest: {reason}")).err(),
            Some(schema) => {
                verification(format!("{origin}: manifest schema {schema}, this engine reads schema {SCHEMA}"))
                    .hint("use the engine that made the release, or build it again with this one")
                    .err()
            }
            None => broken("not a manifest: it has no `schema`".into()).err(),
        }
    }

    /// The manifest as pretty JSON with a trailing newline; equal values give equal bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest has no maps with odd keys");
        text.push(b'\n');
        text
    }

    /// What a signature signs: the JSON without signatures. Parsing keeps nothing else, so nothing that is used is unsigned.
    pub fn signed_bytes(&self) -> Vec<u8> {
        Self { signatures: vec![], ..self.clone() }.to_json()
    }

    /// A description of the first file that differs in another manifest of the same id.
    pub fn difference(&self, theirs: &Self) -> String {
        let short = |content: &Content| match content {
            Content::Sha256(digest) => digest[..12].to_owned(),
            Content::Link(to) => format!("link to {to}"),
        };
        for file in &self.files {
            match theirs.files.iter().find(|other| other.path == file.path) {
                None => return format!("`{}` is missing there", file.path),
                Some(other) if other == file => {}
                Some(other) => {
                    let (there, here) = (short(&other.content), short(&file.content));
                    return format!("`{}` differs ({there} there, {here} here)", file.path);
                }
            }
        }
        match theirs.files.iter().find(|other| !self.files.iter().any(|file| file.path == other.path)) {
            Some(other) => format!("`{}` exists only there", other.path),
            None => "the files are the same, but they were packed differently".into(),
        }
    }

    /// Fails for anything that could harm a host or a reader: a manifest may come from a place that others can write
    /// to.
    fn check(&self) -> Result<(), String> {
        self.check_texts()?;
        signature::check(&self.signatures)?;
        if self.bundle.file != Self::bundle_name(&self.app, &self.id, self.compression()) {
            return Err(format!("bundle is named `{}`", self.bundle.file.escape_debug()));
        }
        if !self.commit.sha.starts_with(self.id.short_sha()) || self.commit.dirty != self.id.is_dirty() {
            return Err(format!("release {} is not of commit `{}`", self.id, self.commit.sha));
        }
        let of_commit = ReleaseId::new(self.commit.time, &self.commit.sha, None);
        if !of_commit.is_ok_and(|id| id.time() == self.id.time()) {
            return Err(format!("release {} does not have the time of its commit", self.id));
        }
        if self.files.is_empty() {
            return Err("it has no files".into());
        }
        for digest in [&self.bundle.sha256, &self.bundle.tar_sha256] {
            check_digest(digest)?;
        }
        for pair in self.files.windows(2) {
            if pair[0].path >= pair[1].path {
                return Err(format!("files out of order or duplicate at `{}`", pair[1].path.escape_debug()));
            }
        }
        if self.bundle.bytes > FILES_BYTES_MAX {
            return Err(format!("its bundle has {} bytes", self.bundle.bytes));
        }
        let mut total = 0_u64;
        for file in &self.files {
            check_path(&file.path)?;
            total = total.saturating_add(file.bytes);
            if !matches!(file.mode, 0o644 | 0o755) {
                return Err(format!("`{}` has mode {:o}", file.path, file.mode));
            }
            match &file.content {
                Content::Sha256(digest) => check_digest(digest)?,
                Content::Link(_) if file.bytes > 0 => return Err(format!("link `{}` has a size", file.path)),
                Content::Link(to) => check_target(&file.path, to)?,
            }
        }
        if total > FILES_BYTES_MAX {
            return Err(format!("files of more than {FILES_BYTES_MAX} bytes together"));
        }
        Tree::new(&self.files)?.check_links()
    }

    /// Checks texts that are printed or become part of file names.
    fn check_texts(&self) -> Result<(), String> {
        if self.app.is_empty() || !self.app.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(format!("app `{}` cannot be part of a file name", short(&self.app)));
        }
        self.commit.check()?;
        let (ci, toolchain) = (self.ci.as_ref(), self.toolchain.as_ref());
        let names = [("app", Some(&self.app)), ("workflow", ci.and_then(|ci| ci.workflow.as_ref()))];
        let compiler = toolchain
            .map(|it| [("rustc", Some(&it.rustc)), ("target", Some(&it.target)), ("profile", Some(&it.profile))]);
        for (what, text) in names.into_iter().chain(compiler.into_iter().flatten()) {
            check_text(what, text.map_or("", |text| text), TEXT_MAX)?;
        }
        check_text("URL of the job", ci.and_then(|ci| ci.url.as_deref()).unwrap_or_default(), URL_MAX)
    }

    /// All entries of an unpacked release, one per line, in the format of [`crate::script`]: `dir`, `file 644`,
    /// `file 755` or `link`, a tab, the path after `./`, and for a link a tab and its target. No control characters
    /// occur.
    pub fn entries(&self) -> String {
        let mut dirs = BTreeSet::new();
        let mut out = String::new();
        for file in &self.files {
            dirs.extend(file.path.match_indices('/').map(|(at, _)| &file.path[..at]));
            let path = &file.path;
            let _ = match &file.content {
                Content::Sha256(_) => writeln!(out, "file {:o}\t./{path}", file.mode),
                Content::Link(to) => writeln!(out, "link\t./{path}\t{to}"),
            };
        }
        for dir in dirs {
            let _ = writeln!(out, "dir\t./{dir}");
        }
        out
    }

    /// The files in the format of `sha256sum`, for `sha256sum -c` in an unpacked release. Without links, which
    /// coreutils would follow.
    pub fn checksums(&self) -> String {
        let mut out = String::new();
        for file in &self.files {
            if let Content::Sha256(digest) = &file.content {
                out.push_str(&checksum_line(digest, &file.path));
            }
        }
        out
    }
}

/// A line of `sha256sum`, which escapes backslashes in names and then starts the line with one.
pub fn checksum_line(digest: &str, path: &str) -> String {
    // `sha256sum` reads a lone dash as stdin.
    let path = if path == "-" { "./-" } else { path };
    if path.contains('\\') {
        format!("\\{digest}  {}\n", path.replace('\\', "\\\\"))
    } else {
        format!("{digest}  {path}\n")
    }
}

fn check_digest(digest: &str) -> Result<(), String> {
    let hex = is_digest(digest);
    if hex { Ok(()) } else { Err(format!("`{}` is not a SHA-256", short(digest))) }
}

/// Fails for a path that could leave the release directory, would break a text file, or is too long for a file system.
pub fn check_path(path: &str) -> Result<(), String> {
    let reason = if path.is_empty() {
        "is empty"
    } else if path.starts_with('/') {
        "is absolute"
    } else if path.len() > PATH_MAX || path.split('/').any(|part| part.len() > NAME_MAX) {
        return Err(format!("path `{}` is longer than {PATH_MAX} bytes, or a part of it than {NAME_MAX}", short(path)));
    } else if path.split('/').count() > DEPTH_MAX {
        return Err(format!("path `{}` has more than {DEPTH_MAX} parts", short(path)));
    } else if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        "has an empty part, `.` or `..`"
    } else if path.split('/').next() == Some(crate::release::layout::META) {
        "is reserved for the engine"
    } else if path.chars().any(is_invisible) {
        "has a control character"
    } else {
        return Ok(());
    };
    Err(format!("path `{}` {reason}", path.escape_debug()))
}

/// Like [`check_path`], for the target of a link.
fn check_target(path: &str, to: &str) -> Result<(), String> {
    if to.len() > PATH_MAX {
        return Err(format!("link `{path}` has a target of more than {PATH_MAX} bytes"));
    }
    resolve_link(path, to).map(drop).ok_or(format!("link `{path}` leaves the bundle"))
}

fn check_text(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.len() > most || text.chars().any(is_invisible) {
        return Err(format!("{what} `{}` is longer than {most} bytes, or has a control character", short(text)));
    }
    Ok(())
}

/// Whether a character is invisible, or changes the order of others: a control, or one of Unicode's `Bidi_Control` (UAX
/// #9).
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text shortened for a message.
fn short(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

/// The target of a relative link, lexically; `None` if it leaves the bundle.
pub fn resolve_link(path: &str, to: &str) -> Option<String> {
    if to.is_empty() || to.starts_with('/') || to.chars().any(is_invisible) {
        return None;
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_may_not_be_in_a_bundle() {
        for path in ["bin/app", "static/a b'\"c.txt", "a\\b", "ü/é", ".hidden", "a..b/c"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        for path in
            ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/.", "a\nb", ".gangplank/manifest.json", "a\u{7f}"]
        {
            assert!(check_path(path).is_err(), "{path}");
        }
    }

    /// Signatures of releases that are stored sign these bytes. A new field must be left out while it is empty.
    #[test]
    fn signed_bytes_stay_the_same_in_every_version() {
        let text = include_str!("manifest/signed.json");
        let manifest = Manifest::parse(text.as_bytes(), "stored").unwrap();
        assert_eq!(String::from_utf8(manifest.to_json()).unwrap(), text);
        let before = text.split_once(",\n  \"signatures\"").unwrap().0.to_owned() + "\n}\n";
        assert_eq!(String::from_utf8(manifest.signed_bytes()).unwrap(), before);
    }

    #[test]
    fn head_is_read_from_the_beginning_of_a_manifest() {
        let odd = "20260822T101500-1a2b3c4";
        let json = serde_json::json!({
            "schema": SCHEMA, "app": "shop", "id": odd, "ci": null, "toolchain": null,
            "commit": { "sha": "1a2b3c4", "time": "2026-08-22T10:15:00Z", "branch": ",  \"files\": [", "tag": null, "dirty": false },
            "bundle": { "file": "x", "bytes": 7, "sha256": "", "tar_sha256": "" },
            "files": [{ "path": "a", "bytes": 1, "mode": 420, "link": "b" }],
        });
        let manifest: Manifest = serde_json::from_value(json).unwrap();
        let text = manifest.to_json();
        let head = Head::from(manifest);
        assert_eq!((head.id.as_str(), head.bundle.bytes), (odd, 7));
        let begins = text.windows(8).position(|window| window == b"\"path\": ").unwrap();
        for end in [begins, text.len()] {
            assert_eq!(Head::of_beginning(&text[..end]).as_ref(), Some(&head), "{end} bytes");
        }
        let other = String::from_utf8(text.clone()).unwrap().replace("\"schema\": 1", "\"schema\": 2");
        for other in [other.as_bytes(), &text[..begins - 40], b"", b"{}"] {
            assert_eq!(Head::of_beginning(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn links_stay_inside() {
        for (path, to, want) in [
            ("a/b", "c", Some("a/c")),
            ("a/b", "../c/./d", Some("c/d")),
            ("b", "..", None),
            ("a/b", "../../x", None),
            ("b", "/etc/passwd", None),
            ("b", "", None),
            ("a/b", "..", Some("")),
        ] {
            assert_eq!(resolve_link(path, to).as_deref(), want, "{path} -> {to}");
        }
    }

    #[test]
    fn checksum_lines_are_those_of_coreutils() {
        assert_eq!(checksum_line("ab", "a b"), "ab  a b\n");
        assert_eq!(checksum_line("ab", "a\\b"), "\\ab  a\\\\b\n");
    }
}
