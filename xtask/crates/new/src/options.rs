//! What is made, and what was made.

use crate::parts::Part;
use crate::scripts::ScriptMapping;
use gangplank_model::error::{Result, usage};
use gangplank_model::project::Handoff;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The directory of a vendored engine.
pub const ENGINE_DIR: &str = "xtask/crates";

/// The options of `new`.
#[derive(Debug, Clone, Default)]
pub struct NewOptions {
    /// Name of the app; by default that of the directory.
    pub name: Option<String>,
    /// How jobs pass releases on; by default the workspace.
    pub handoff: Option<Handoff>,
    /// `ENV=URL`, or a URL of prod.
    pub targets: Vec<String>,
    /// URL of the bucket for the handoff `s3`.
    pub bucket: Option<String>,
    /// The source of the engine.
    pub engine: Engine,
    /// Parts that a copy of the engine gets beside the usual ones.
    pub with: Vec<Part>,
    /// Usual parts that it does not get.
    pub without: Vec<Part>,
    /// Change nothing.
    pub dry_run: bool,
}

/// The source of a project's engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Engine {
    /// A copy in `xtask/crates`, so that the project is self-contained.
    #[default]
    Vendor,
    /// A tag of a git repository.
    Git {
        /// Its URL.
        url: String,
        /// The tag.
        tag: String,
    },
    /// A version on crates.io.
    Version(String),
    /// A checkout of this repository.
    Path(PathBuf),
}

impl FromStr for Engine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let git = |rest: &str| {
            let (url, tag) = rest.rsplit_once(",tag=")?;
            Some(Self::Git { url: url.to_owned(), tag: tag.to_owned() }).filter(|_| !url.is_empty() && !tag.is_empty())
        };
        let engine = match text.split_once('=') {
            None if text == "vendor" => Some(Self::Vendor),
            // It would be written to a manifest, and printed by cargo.
            Some(("git", rest))
                if rest.split_once("://").is_some_and(|(scheme, rest)| {
                    scheme.starts_with("http") && rest.split('/').next().is_some_and(|host| host.contains('@'))
                }) =>
            {
                return usage("the URL of the engine contains a password or token")
                    .hint("remove it and use git's credential helper, or use git=ssh://git@HOST/PATH,tag=TAG")
                    .err();
            }
            Some(("git", rest)) => git(rest),
            Some(("version", version)) if is_version(version) => Some(Self::Version(version.to_owned())),
            Some(("path", dir)) if !dir.is_empty() => Some(Self::Path(dir.into())),
            _ => None,
        };
        match engine {
            Some(engine) => Ok(engine),
            None => usage(format!("no engine `{text}`"))
                .hint("use vendor, version=X.Y.Z, git=URL,tag=TAG or path=DIR")
                .err(),
        }
    }
}

/// The result of `new`.
#[derive(Debug, Serialize)]
pub struct NewReport {
    /// `new`, `adopt` or `upgrade`.
    pub what: &'static str,
    /// The workspace.
    pub path: PathBuf,
    /// Name of the app.
    pub name: String,
    /// How jobs pass releases on; absent for an upgrade.
    pub handoff: Option<&'static str>,
    /// The first commit of a new project.
    pub commit: Option<String>,
    /// Version of the engine before an upgrade.
    pub from_version: Option<String>,
    /// Version of the engine.
    pub version: &'static str,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Written files, relative to `path`; a vendored engine counts as one, `xtask/crates/`.
    pub files: Vec<String>,
    /// The mapping of existing scripts' lines.
    pub scripts: Vec<ScriptMapping>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// The next commands.
    pub next: Vec<String>,
}

impl NewReport {
    pub(crate) fn of(path: &Path, options: &NewOptions) -> Self {
        Self {
            what: "",
            path: path.to_owned(),
            name: String::new(),
            handoff: None,
            commit: None,
            from_version: None,
            version: env!("CARGO_PKG_VERSION"),
            dry_run: options.dry_run,
            files: vec![],
            scripts: vec![],
            notes: vec![],
            next: vec![],
        }
    }
}

/// Whether cargo takes a text as a version: `1`, `0.1` or `0.1.0`.
fn is_version(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    parts.len() <= 3
        && parts.iter().all(|part| !part.is_empty() && part.len() < 10 && part.bytes().all(|b| b.is_ascii_digit()))
}
