//! `ci generate`: writes the configs, or checks whether they are up to date.

use gangplank_model::ci::pipeline::LAUNCHER;
use gangplank_model::ci::{render, workflows};
use gangplank_model::error::{CliError, Kind, Result, WithHint, usage};
use gangplank_model::project::{Handoff, Project};
use gangplank_system::context::{Context, is_left_out, left_out_hint};
use gangplank_system::git;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;

/// Paths of the configs below the workspace root: the pipeline, and the configs of the Deploys page's buttons.
pub const CONFIGS: [&str; 3] = [".circleci/config.yml", ".circleci/rollback.yml", ".circleci/deploy.yml"];

/// The result for a file.
#[derive(Debug, Serialize)]
pub struct Generated {
    /// The file.
    pub path: PathBuf,
    /// Whether it was out of date.
    pub changed: bool,
}

/// The texts of [`CONFIGS`].
fn texts(ctx: &Context, project: &Project, handoff: Handoff) -> Result<[String; 3]> {
    if project.ci.launch && !ctx.root.join(LAUNCHER).is_file() {
        // An engine that is not a copy has no launcher to get.
        let get =
            if is_left_out(&ctx.root, "launch") { format!(", or {}", left_out_hint("launch")) } else { String::new() };
        let hint = format!("remove `launch: true` from `ci` of xtask/src/main.rs{get}");
        return usage(format!("`launch` needs {LAUNCHER}, which this project lacks")).hint(hint).err();
    }
    if project.ci.report && is_left_out(&ctx.root, "html") {
        return usage("the jobs that deploy write a report, and this project was made without `html`")
            .hint(format!("write `report: false` in `ci` of xtask/src/main.rs, or {}", left_out_hint("html")))
            .err();
    }
    Ok([
        render::config(&workflows::pipeline(project, handoff)?, render::PIPELINE),
        render::config(&workflows::rollback_page(project), render::ROLLBACK),
        render::config(&workflows::deploy_page(project), render::DEPLOY),
    ])
}

/// Whether a file has this text. `core.autocrlf` may have changed its line ends; those of the commit are ours.
fn is_same(have: &str, want: &str) -> bool {
    have == want || have.replace("\r\n", "\n") == want
}

/// Paths of the configs that are out of date.
pub fn drift(ctx: &Context, project: &Project) -> Result<Vec<&'static str>> {
    let wanted = CONFIGS.into_iter().zip(texts(ctx, project, project.ci.handoff)?);
    let stale = |(name, want): (&'static str, String)| {
        let same = fs::read_to_string(ctx.root.join(name)).is_ok_and(|have| is_same(&have, &want));
        (!same).then_some(name)
    };
    Ok(wanted.filter_map(stale).collect())
}

/// Writes the configs for a handoff; with `check`, fails with a diff if one is out of date.
pub fn generate(ctx: &Context, project: &Project, handoff: Handoff, check: bool) -> Result<Vec<Generated>> {
    let texts = texts(ctx, project, handoff)?;
    if !check && handoff != project.ci.handoff {
        return another_pattern(project.ci.handoff, handoff);
    }
    let mut generated = Vec::new();
    let mut drifted = Vec::new();
    for (name, want) in CONFIGS.into_iter().zip(texts) {
        let path = ctx.root.join(name);
        let have = fs::read_to_string(&path).unwrap_or_default();
        let changed = !is_same(&have, &want);
        if changed && check {
            let diff = git::diff(ctx, &path, &want).unwrap_or_else(|| "(git cannot show the lines)".into());
            let header = format!("--- {name}\n+++ generated from xtask/src/main.rs\n");
            drifted.push(format!("{name} is out of date with xtask/src/main.rs:\n{header}{diff}"));
        } else if changed {
            write(&path, &want)?;
        }
        generated.push(Generated { path, changed });
    }
    if drifted.is_empty() {
        return Ok(generated);
    }
    CliError::new(Kind::Failed, drifted.join("\n"))
        .hint("run `cargo xtask ci generate` and commit the files in .circleci")
        .err()
}

/// The error for a config that the next `ci generate --check`, the first step of its own jobs, would reject.
fn another_pattern<T>(says: Handoff, wanted: Handoff) -> Result<T> {
    usage(format!("xtask/src/main.rs has the handoff `{}`, so nothing was written for `{}`", says.as_str(), wanted.as_str()))
        .hint(format!(
            "in `ci` of xtask/src/main.rs write `handoff: Handoff::{wanted:?},` instead of Handoff::{says:?}, then run `cargo xtask ci generate`, or first --check for a diff"
        ))
        .err()
}

fn write(path: &std::path::Path, text: &str) -> Result<()> {
    let hint = || "check its permissions".to_owned();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_hint(Kind::Failed, || format!("cannot make {}", dir.display()), hint)?;
    }
    fs::write(path, text).with_hint(Kind::Failed, || format!("cannot write {}", path.display()), hint)
}
