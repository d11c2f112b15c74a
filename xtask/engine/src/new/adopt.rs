//! `new --into`: an xtask for a workspace or a crate that has none, beside everything that is there.

use crate::ci::{generate, render, yaml};
use crate::cx::Cx;
use crate::error::{Explain, Kind, Result, usage};
use crate::git;
use crate::new::found::{self, Workspace};
use crate::new::main_rs::{Plan, Runs};
use crate::new::place::{self, Aside};
use crate::new::scripts::{self, Mapped};
use crate::new::{
    Engine, Made, Wish, bucket_of, cargo, check_name, engine_of, manifest, plan, read_if_there, settle, stop_if_asked,
    tree, write_configs,
};
use std::fs;
use std::path::Path;

/// The config that was there before ours.
const KEPT_CONFIG: &str = ".circleci/config.before-gangplank.yml";
const CONFIG: &str = ".circleci/config.yml";

/// A file that is replaced as a whole; `before` is what it held.
struct Edit {
    path: &'static str,
    before: Option<String>,
    after: String,
}

/// Gives the workspace or crate in `dir` an xtask.
pub fn adopt(cx: &Cx, dir: &Path, wish: &Wish) -> Result<Made> {
    let dir = place::absolute(dir)?;
    let Some(root) = read_if_there(&dir.join("Cargo.toml"))? else {
        return usage(format!("there is no Cargo.toml in {}", dir.display()))
            .hint(format!("a project from nothing: `cargo xtask new {}`", dir.display()))
            .err();
    };
    finish_interrupted(&dir)?;
    let workspace = found::workspace(cx, &dir)?;
    check_is_without(&dir, &workspace)?;
    let app = workspace.app(wish.name.as_deref());
    check_name(&app.name)?;
    let there = cx.at(&dir);
    let branch = git::branch(&there).ok().flatten().unwrap_or_else(|| "main".into());
    let formatted = cargo(&there, &["fmt", "--all", "--check"]).is_ok_and(|answer| answer.ok());
    let plan = Plan { app, branch, is_strict: false, is_formatted: formatted, ..plan(cx, "app", wish)? };
    let plan = Plan { bucket: wish.bucket.clone().unwrap_or_else(|| bucket_of(&plan.app.name)), ..plan };
    let vendored = wish.engine == Engine::Vendor;
    let files = tree::xtask(&plan, &engine_of(&wish.engine)?, false)?;
    let edits = edits(&dir, &root, vendored)?;
    let kept = dir.join(CONFIG).is_file() && !generated(&dir)?;
    let mut names = files.names();
    names.extend(edits.iter().map(|edit| edit.path.to_owned()));
    names.extend(generate::CONFIGS.map(str::to_owned));
    let made = Made {
        what: "adopt",
        name: plan.app.name.clone(),
        pattern: Some(plan.pattern.as_str()),
        files: names,
        scripts: scripts_in(&dir)?,
        notes: notes(&dir, &plan, kept)?,
        next: vec![
            format!("cd {}", dir.display()),
            "cargo xtask build       # look at xtask/src/main.rs first: it says what is built and where it goes".into(),
            "cargo xtask deploy dev".into(),
            "git add --all && git commit --message 'Deliver with cargo xtask'".into(),
            "cargo xtask ci run      # the whole pipeline on this machine".into(),
        ],
        ..Made::of(&dir, wish)
    };
    if wish.dry_run {
        return Ok(made);
    }
    write(cx, &dir, &files, &edits, kept, &plan)?;
    Ok(made)
}

/// Everything or nothing: what was written before something failed is taken back.
fn write(cx: &Cx, dir: &Path, files: &tree::Tree, edits: &[Edit], kept: bool, plan: &Plan) -> Result<()> {
    let lock = read_if_there(&dir.join("Cargo.lock"))?;
    let configs = generate::CONFIGS.map(|name| (name, read_if_there(&dir.join(name))));
    let aside = Aside::beside(&dir.join("xtask"))?;
    files.write(aside.path())?;
    let work = || -> Result<()> {
        let moved = fs::rename(aside.path().join("xtask"), dir.join("xtask"));
        moved.explain(
            Kind::Failed,
            || "cannot move xtask into place".into(),
            || "is it there already? `ls xtask`".into(),
        )?;
        for edit in edits {
            stop_if_asked(cx)?;
            place::write(&dir.join(edit.path), &edit.after)?;
        }
        settle(cx, dir)?;
        stop_if_asked(cx)?;
        if kept {
            let copied = fs::copy(dir.join(CONFIG), dir.join(KEPT_CONFIG));
            copied.explain(
                Kind::Failed,
                || format!("cannot write {KEPT_CONFIG}"),
                || "check its permissions".into(),
            )?;
        }
        write_configs(cx, dir, plan)?;
        stop_if_asked(cx)
    };
    work().inspect_err(|_| {
        let restore = |path: &str, before: Option<&str>| {
            let path = dir.join(path);
            let _ = before.map_or_else(|| fs::remove_file(&path), |text| fs::write(&path, text));
        };
        for edit in edits.iter().rev() {
            restore(edit.path, edit.before.as_deref());
        }
        restore("Cargo.lock", lock.as_deref());
        for (name, before) in &configs {
            if let Ok(before) = before {
                restore(name, before.as_deref());
            }
        }
        if kept {
            restore(KEPT_CONFIG, None);
        }
        let _ = fs::remove_dir_all(dir.join("xtask"));
        for empty in [".circleci", ".cargo"] {
            let _ = fs::remove_dir(dir.join(empty));
        }
    })
}

/// A run that was killed has left an xtask of ours that no manifest names yet.
fn finish_interrupted(dir: &Path) -> Result<()> {
    let ours = fs::read_to_string(dir.join("xtask/src/main.rs")).is_ok_and(|main| main.contains("gangplank::main("));
    let named = fs::read_to_string(dir.join("Cargo.toml")).is_ok_and(|manifest| manifest.contains("\"xtask\""));
    if ours && !named {
        let hint = || "remove it: `rm -r xtask`".into();
        return fs::remove_dir_all(dir.join("xtask")).explain(
            Kind::Failed,
            || "cannot remove the xtask of a killed run".into(),
            hint,
        );
    }
    Ok(())
}

fn check_is_without(dir: &Path, workspace: &Workspace) -> Result<()> {
    let own = workspace.packages.iter().find(|package| package.name == "xtask");
    let at = own
        .map(|package| package.manifest_path.clone())
        .or_else(|| Some(dir.join("xtask")).filter(|path| path.symlink_metadata().is_ok()));
    match at {
        Some(at) if dir.join("xtask/engine").is_dir() => usage(format!("{} has an xtask of ours already", at.display()))
            .hint(format!("a newer engine: `cargo xtask new --upgrade {}`", dir.display()))
            .err(),
        Some(at) => usage(format!("{} is an xtask already", at.display()))
            .hint("rename its package and directory, then run the same command again; what it does can become commands of the new one")
            .err(),
        None => Ok(()),
    }
}

fn edits(dir: &Path, root: &str, vendored: bool) -> Result<Vec<Edit>> {
    let alias = read_if_there(&dir.join(".cargo/config.toml"))?;
    if alias.is_none() && dir.join(".cargo/config").exists() {
        return usage(format!("{} has the old name of its config", dir.join(".cargo").display()))
            .hint("`git mv .cargo/config .cargo/config.toml`")
            .err();
    }
    let ignored = read_if_there(&dir.join(".gitignore"))?;
    let mut edits = Vec::new();
    if let Some(after) = manifest::with_alias(alias.as_deref().unwrap_or_default())? {
        edits.push(Edit { path: ".cargo/config.toml", before: alias, after });
    }
    let ignores = |text: &str| {
        text.lines().any(|line| ["/target", "target", "target/", "/target/", "**/target"].contains(&line.trim()))
    };
    if !ignored.as_deref().is_some_and(ignores) {
        // Releases lie there, and a tree that git calls dirty goes to no env with an approval.
        let before = ignored.clone().unwrap_or_default();
        let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        edits.push(Edit { path: ".gitignore", before: ignored, after: format!("{before}{end}/target\n") });
    }
    // The manifest is last: from then on the xtask is part of the workspace.
    edits.push(Edit {
        path: "Cargo.toml",
        before: Some(root.to_owned()),
        after: manifest::workspace_of_adopted(root, vendored)?,
    });
    Ok(edits)
}

/// Whether the config that is there was made by us.
fn generated(dir: &Path) -> Result<bool> {
    Ok(read_if_there(&dir.join(CONFIG))?.is_some_and(|text| text.starts_with(render::PIPELINE)))
}

fn scripts_in(dir: &Path) -> Result<Vec<Mapped>> {
    let mut mapped = Vec::new();
    for folder in scripts::DIRS {
        for name in scripts::NAMES {
            let path = Path::new(folder).join(name);
            if let Some(text) = read_if_there(&dir.join(&path))? {
                mapped.extend(scripts::map(&path.to_string_lossy(), &text));
            }
        }
    }
    Ok(mapped)
}

fn notes(dir: &Path, plan: &Plan, kept: bool) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    match &plan.app.runs {
        _ if plan.app.packages.is_empty() => {
            notes.push("no package has a binary: name in `include` what is shipped".into());
        }
        Runs::Server(binary) => notes.push(format!(
            "bin/{binary} looks like a server: it is started with PORT set, and healthy once it takes connections there"
        )),
        _ => notes.push("nothing looks like a server: releases are put in place, and nothing is started".into()),
    }
    if !plan.is_formatted {
        notes.push("`cargo fmt --check` fails here, so it is left out of `cargo xtask test`: `format: false`".into());
    }
    if !dir.join(".git").exists() && place::repository_of(dir).is_none() {
        notes.push(
            "there is no git repository: a release is named after its commit, so `git init` and commit first".into(),
        );
    }
    if kept {
        notes.push(format!("the config that was there is kept as {KEPT_CONFIG}; CircleCI does not read that name"));
        notes.extend(outline(&read_if_there(&dir.join(CONFIG))?.unwrap_or_default()).map(|what| {
            format!("it has {what}: what of it is still wanted can run from that file, as a pipeline of its own (Project Settings, Pipelines)")
        }));
    }
    Ok(notes)
}

/// The jobs and orbs of a config.
fn outline(text: &str) -> Option<String> {
    let documents = yaml::parse(text).ok()?;
    let config = documents.first()?;
    let names = |key: &str| {
        let entries = config.get(key).map(yaml::Node::entries).unwrap_or_default();
        let names: Vec<_> = entries.iter().filter_map(|(name, _)| name.text()).collect();
        (!names.is_empty()).then(|| format!("{key} {}", names.join(", ")))
    };
    let parts: Vec<_> = ["orbs", "jobs", "commands"].into_iter().filter_map(names).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
