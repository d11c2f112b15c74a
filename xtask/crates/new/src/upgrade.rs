//! `new --upgrade`: replaces a vendored engine by the one that runs this command.

use crate::git;
use crate::manifest;
use crate::options::{ENGINE_DIR, NewOptions, NewReport};
use crate::parts;
use crate::place;
use crate::place::Staging;
use crate::steps::{cargo, read_if_there};
use crate::tree;
use gangplank_model::error::{CliError, Kind, Result, WithHint, usage};
use gangplank_system::context::{Context, PARTS, run_xtask};
use std::fs;
use std::path::Path;

/// The old engine during the replacement.
const OLD: &str = "xtask/.crates-before";

/// Replaces the engine of the project in `dir`, and regenerates its configs. An engine edited by hand stays unless
/// `force`.
pub fn upgrade(ctx: &Context, dir: &Path, force: bool, options: &NewOptions) -> Result<NewReport> {
    let dir = place::absolute(dir)?;
    if !dir.is_dir() {
        return usage(format!("no directory {}", dir.display())).hint("name the root of a project").err();
    }
    let engine = dir.join(ENGINE_DIR);
    if dir.join("tests/it/main.rs").is_file() {
        return usage(format!("{} is the repository of the engine itself", dir.display()))
            .hint("update it with `git pull`")
            .err();
    }
    let unfinished = bring_back(&dir, &engine, options.dry_run)?;
    let is_vendored = engine.join(tree::SUMS).is_file() || (force && tree::is_engine(&engine));
    if !is_vendored {
        return no_engine(&dir);
    }
    let edited = if force { vec![] } else { tree::edited(&engine)? };
    if !edited.is_empty() {
        return refuse(ctx, &dir, &edited);
    }
    let before = tree::version_of(&engine);
    let has_buckets = has_buckets(&dir, options)?;
    let parts = parts::parts(&parts::of_copy(&engine), &options.with, &options.without, None)?;
    let vendored = tree::vendored(&parts)?;
    let same = read_if_there(&engine.join(tree::SUMS))?.map(String::into_bytes).as_ref() == vendored.0.get(tree::SUMS);
    let mut news = news(&read_if_there(&engine.join("CHANGELOG.md"))?.unwrap_or_default(), &vendored.changelog());
    let root = read_if_there(&dir.join("Cargo.toml"))?.unwrap_or_default();
    if options.with.contains(&"s3") && !has_buckets {
        news.push("to use buckets, write in xtask/Cargo.toml: [features] default = [\"s3\"]".into());
    }
    news.extend(profiles(&root, &parts::left_out(&parts)));
    let made = NewReport {
        what: "upgrade",
        name: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        from_version: before,
        files: if same && !force { vec![] } else { vec![format!("{ENGINE_DIR}/")] },
        notes: news,
        next: vec![
            format!("cd {}", dir.display()),
            "git diff --stat".into(),
            "cargo xtask test".into(),
            format!("git add --all && git commit --message 'Engine {}'", env!("CARGO_PKG_VERSION")),
        ],
        ..NewReport::of(&dir, options)
    };
    if options.dry_run || (made.files.is_empty() && !unfinished) {
        return Ok(made);
    }
    if !force && is_newer(made.from_version.as_deref(), made.version) {
        let from = made.from_version.unwrap_or_default();
        return usage(format!("its engine is {from}, newer than this one, {}", made.version))
            .hint("run this from a newer checkout, or install the older one with --force")
            .err();
    }
    if !made.files.is_empty() {
        replace(&dir, &engine, &vendored)?;
    }
    regenerate(ctx, &dir, force).inspect_err(|_| {
        // With `force` the new one stays, so that main.rs can be adapted to it.
        if !force && dir.join(OLD).is_dir() && fs::remove_dir_all(&engine).is_ok() {
            let _ = fs::rename(dir.join(OLD), &engine);
        }
    })?;
    let _ = fs::remove_dir_all(dir.join(OLD));
    Ok(made)
}

/// Whether the project's xtask has buckets by default; fails if they are to be removed.
fn has_buckets(dir: &Path, options: &NewOptions) -> Result<bool> {
    let of_xtask = read_if_there(&dir.join("xtask/Cargo.toml"))?.unwrap_or_default();
    let has_buckets = manifest::has_default(&of_xtask, "s3");
    if has_buckets && options.without.contains(&"s3") {
        return usage("the project uses `s3`: its xtask has it as a default feature")
            .hint("remove \"s3\" from `default` in xtask/Cargo.toml and the bucket from xtask/src/main.rs first")
            .err();
    }
    Ok(has_buckets)
}

fn no_engine<T>(dir: &Path) -> Result<T> {
    let manifest = read_if_there(&dir.join("xtask/Cargo.toml"))?.unwrap_or_default();
    let failure = usage(format!("{} has no vendored engine in {ENGINE_DIR}", dir.display()));
    if tree::is_engine(&dir.join(ENGINE_DIR)) {
        return usage(format!("{ENGINE_DIR} in {} has no {}, so it may have been edited", dir.display(), tree::SUMS))
            .hint(format!("replace it anyway: `cargo xtask new --upgrade {} --force`", dir.display()))
            .err();
    }
    let elsewhere =
        manifest.lines().find(|line| line.starts_with("gangplank") && !line.contains("\"crates/gangplank\""));
    match elsewhere {
        Some(line) => {
            failure.hint(format!("change the tag in xtask/Cargo.toml, `{line}`, then `cargo xtask ci generate`"))
        }
        None => failure.hint(format!("add an xtask to the project first: `cargo xtask new --into {}`", dir.display())),
    }
    .err()
}

/// Restores an old engine left by a run that was killed between two renames. A run killed later has not written the
/// configs, which is reported.
fn bring_back(dir: &Path, engine: &Path, dry_run: bool) -> Result<bool> {
    let old = dir.join(OLD);
    if old.is_dir() && !engine.exists() && !dry_run {
        let hint = || format!("`mv {OLD} {ENGINE_DIR}`");
        fs::rename(&old, engine).with_hint(
            Kind::Failed,
            || "cannot restore the engine after a killed run".into(),
            hint,
        )?;
    }
    Ok(old.is_dir())
}

/// Whether `there` is a newer version than `ours`.
fn is_newer(there: Option<&str>, ours: &str) -> bool {
    let numbers = |version: &str| version.split('.').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    there.and_then(numbers).zip(numbers(ours)).is_some_and(|(there, ours)| there > ours)
}

fn replace(dir: &Path, engine: &Path, vendored: &tree::Tree) -> Result<()> {
    let aside = Staging::beside(engine)?;
    vendored.write(aside.path())?;
    let old = dir.join(OLD);
    let _ = fs::remove_dir_all(&old);
    let hint = || format!("check its owner: `ls -ld {}`", dir.join("xtask").display());
    fs::rename(engine, &old).with_hint(Kind::Failed, || format!("cannot move {}", engine.display()), hint)?;
    aside.move_to(engine).inspect_err(|_| drop(fs::rename(&old, engine)))
}

fn refuse<T>(ctx: &Context, dir: &Path, edited: &[String]) -> Result<T> {
    let diff = git::diff_since(&ctx.at(dir), &format!("{ENGINE_DIR}/{}", tree::SUMS), ENGINE_DIR);
    let list = edited.iter().map(|path| format!("  {ENGINE_DIR}/{path}\n")).collect::<String>();
    let shown = diff.unwrap_or_default();
    CliError::new(Kind::Failed, format!("the engine was edited by hand:\n{list}{shown}").trim_end())
        .hint("move the changes into xtask/src (docs/extending.md), or discard them with --upgrade --force")
        .err()
}

/// Regenerates the configs with the new engine and the same main.rs.
fn regenerate(ctx: &Context, dir: &Path, force: bool) -> Result<()> {
    ctx.note("compiling the new engine, to write the configs with it");
    let run = run_xtask(dir, None);
    let words: Vec<_> = run.iter().map(String::as_str).chain(["ci", "generate"]).collect();
    let answer = cargo(&ctx.at(dir), &words)?;
    if answer.ok() {
        return Ok(());
    }
    let said = answer.stderr.trim();
    if force {
        return CliError::new(
            Kind::Failed,
            format!("the engine was replaced, but its configs were not written:\n{said}"),
        )
        .hint("fix the error, e.g. in xtask/src/main.rs, then run `cargo xtask ci generate`")
        .err();
    }
    CliError::new(
        Kind::Failed,
        format!("the new engine does not work with this project; the old one was restored:\n{said}"),
    )
    .hint("use --upgrade --force to install it anyway and adapt xtask/src/main.rs")
    .err()
}

/// What to change in the root manifest of a project made by `new`, which has a profile for each crate: cargo warns of one
/// whose crate is not there, and a crate without one compiles slowly.
fn profiles(root: &str, left_out: &[&str]) -> Vec<String> {
    if !root.contains("\ngangplank = ") {
        return vec![];
    }
    let names = |is_out: bool| {
        let dirs = PARTS.iter().map(|(_, dir)| *dir).filter(move |dir| left_out.contains(dir) == is_out);
        let has = |name: &String| root.contains(&format!("\n{name} = "));
        dirs.map(|dir| format!("gangplank-{dir}")).filter(|name| has(name) == is_out).collect::<Vec<_>>().join(", ")
    };
    [(true, "remove from"), (false, "add, as for gangplank, to")]
        .into_iter()
        .map(|(is_out, verb)| (verb, names(is_out)))
        .filter(|(_, names)| !names.is_empty())
        .map(|(verb, names)| format!("{verb} [profile.dev.package] in Cargo.toml: {names}"))
        .collect()
}

/// Lines of the new changelog that the old one has not, without the frame.
fn news(old: &str, new: &str) -> Vec<String> {
    let known: std::collections::BTreeSet<&str> = old.lines().collect();
    new.lines().filter(|line| !line.trim().is_empty() && !known.contains(line)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn profiles_to_remove_and_to_add_are_named() {
        let root = "[profile.dev.package]\ngangplank = { debug = false }\ngangplank-lint = { debug = false }\n";
        let of = "[profile.dev.package] in Cargo.toml: gangplank-";
        let all = ["artifacts", "bucket", "html", "launch", "lint", "local-ci", "loopback", "sign"];
        assert_eq!(super::profiles(root, &all), [format!("remove from {of}lint")]);
        assert!(
            super::profiles(root, &["artifacts", "bucket", "html", "launch", "local-ci", "loopback", "sign"])
                .is_empty()
        );
        assert_eq!(
            super::profiles(root, &all[3..5]),
            [
                format!("remove from {of}lint"),
                format!(
                    "add, as for gangplank, to {of}artifacts, gangplank-html, gangplank-local-ci, gangplank-loopback, gangplank-bucket, gangplank-sign"
                ),
            ]
        );
        assert!(super::profiles("[workspace]\n", &["lint"]).is_empty(), "an xtask of its own has a profile for all");
    }

    #[test]
    fn news_are_what_was_not_there() {
        let old = "# Changelog\n\n## 0.1.0\n\n- a\n";
        let new = "# Changelog\n\n## 0.2.0\n\n- b\n\n## 0.1.0\n\n- a\n";
        assert_eq!(super::news(old, new), ["## 0.2.0", "- b"]);
        assert!(super::news(new, new).is_empty());
    }
}
