//! `ci generate`: the config as a file, and whether the file still is what the project says.

use crate::ci::{pipeline, render};
use crate::cx::Cx;
use crate::error::{Explain, Failure, Kind, Result};
use crate::project::Project;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;

/// Path of the config below the workspace root.
pub const CONFIG: &str = ".circleci/config.yml";

/// What `ci generate` answers.
#[derive(Debug, Serialize)]
pub struct Generated {
    /// The file.
    pub path: PathBuf,
    /// Whether it had to be written.
    pub changed: bool,
}

/// Writes the config, or with `check` fails with a diff when it is not as it should be.
pub fn generate(cx: &Cx, project: &Project, check: bool) -> Result<Generated> {
    let path = cx.root.join(CONFIG);
    let want = render::config(&pipeline::workspace(project));
    let have = fs::read_to_string(&path).unwrap_or_default();
    if have == want {
        return Ok(Generated { path, changed: false });
    }
    if check {
        let diff = similar::TextDiff::from_lines(&have, &want);
        let diff = diff.unified_diff().header(CONFIG, "what xtask/src/main.rs says").to_string();
        return Failure::new(Kind::Failed, format!("{CONFIG} is not what xtask/src/main.rs says:\n{diff}"))
            .hint("run `cargo xtask ci generate` and commit the file")
            .err();
    }
    let hint = || "check its permissions".to_owned();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).explain(Kind::Failed, || format!("cannot make {}", dir.display()), hint)?;
    }
    fs::write(&path, want).explain(Kind::Failed, || format!("cannot write {}", path.display()), hint)?;
    Ok(Generated { path, changed: true })
}
