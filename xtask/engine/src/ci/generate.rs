//! `ci generate`: the configs as files, and whether the files still are what the project says.

use crate::ci::{patterns, render};
use crate::cx::{Cx, stands_alone};
use crate::error::{Explain, Failure, Kind, Result, usage};
use crate::git;
use crate::project::{Pattern, Project};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;

/// Paths of the configs below the workspace root: the pipeline, and what the buttons of CircleCI's Deploys page run.
pub const CONFIGS: [&str; 3] = [".circleci/config.yml", ".circleci/rollback.yml", ".circleci/deploy.yml"];

/// What `ci generate` did with a file.
#[derive(Debug, Serialize)]
pub struct Generated {
    /// The file.
    pub path: PathBuf,
    /// Whether it had to be written.
    pub changed: bool,
}

/// The texts of [`CONFIGS`].
fn texts(cx: &Cx, project: &Project, pattern: Pattern) -> Result<[String; 3]> {
    let locks: &[&str] = if stands_alone(&cx.root) { &["Cargo.lock", "xtask/Cargo.lock"] } else { &["Cargo.lock"] };
    Ok([
        render::config(&patterns::pipeline(project, pattern)?, render::PIPELINE, locks),
        render::config(&patterns::rollback_page(project), render::ROLLBACK, locks),
        render::config(&patterns::deploy_page(project), render::DEPLOY, locks),
    ])
}

/// Whether a file holds a text. With `core.autocrlf` git gives it other line ends, and the commit has ours.
fn is_same(have: &str, want: &str) -> bool {
    have == want || have.replace("\r\n", "\n") == want
}

/// Paths of the configs that are not what the project says.
pub fn drift(cx: &Cx, project: &Project) -> Result<Vec<&'static str>> {
    let wanted = CONFIGS.into_iter().zip(texts(cx, project, project.ci.pattern)?);
    let stale = |(name, want): (&'static str, String)| {
        let same = fs::read_to_string(cx.root.join(name)).is_ok_and(|have| is_same(&have, &want));
        (!same).then_some(name)
    };
    Ok(wanted.filter_map(stale).collect())
}

/// Writes the configs for a pattern, or with `check` fails with a diff when one is not as it should be.
pub fn generate(cx: &Cx, project: &Project, pattern: Pattern, check: bool) -> Result<Vec<Generated>> {
    let texts = texts(cx, project, pattern)?;
    if !check && pattern != project.ci.pattern {
        return another_pattern(project.ci.pattern, pattern);
    }
    let mut generated = Vec::new();
    let mut drifted = Vec::new();
    for (name, want) in CONFIGS.into_iter().zip(texts) {
        let path = cx.root.join(name);
        let have = fs::read_to_string(&path).unwrap_or_default();
        let changed = !is_same(&have, &want);
        if changed && check {
            let diff = git::diff(cx, &path, &want).unwrap_or_else(|| "(git cannot show in which lines)".into());
            let header = format!("--- {name}\n+++ what xtask/src/main.rs says\n");
            drifted.push(format!("{name} is not what xtask/src/main.rs says:\n{header}{diff}"));
        } else if changed {
            write(&path, &want)?;
        }
        generated.push(Generated { path, changed });
    }
    if drifted.is_empty() {
        return Ok(generated);
    }
    Failure::new(Kind::Failed, drifted.join("\n"))
        .hint("run `cargo xtask ci generate` and commit the files in .circleci")
        .err()
}

/// The refusal of a config that the next `ci generate --check`, which is the first step of its own jobs, would call stale.
fn another_pattern<T>(says: Pattern, wanted: Pattern) -> Result<T> {
    usage(format!("xtask/src/main.rs says pattern `{}`, so nothing was written for `{}`", says.as_str(), wanted.as_str()))
        .hint(format!(
            "in `ci` of xtask/src/main.rs write `pattern: Pattern::{wanted:?},` in place of Pattern::{says:?}, then run `cargo xtask ci generate`; with --check it shows what would change"
        ))
        .err()
}

fn write(path: &std::path::Path, text: &str) -> Result<()> {
    let hint = || "check its permissions".to_owned();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).explain(Kind::Failed, || format!("cannot make {}", dir.display()), hint)?;
    }
    fs::write(path, text).explain(Kind::Failed, || format!("cannot write {}", path.display()), hint)
}
