//! `new --into`: adds an xtask to a workspace or crate, without touching existing files.

use crate::changes::Changes;
use crate::detect;
use crate::detect::Workspace;
use crate::git;
use crate::ignored;
use crate::ignored::Forced;
use crate::main_rs::{Plan, Runs};
use crate::options::{NewOptions, NewReport};
use crate::place;
use crate::place::Staging;
use crate::scripts;
use crate::scripts::ScriptMapping;
use crate::steps::{cargo, check_name, engine_of, finalize, lock, plan, read_if_there, stop_if_asked, write_configs};
use crate::toolchain;
use crate::toolchain::Rust;
use crate::{manifest, tree};
use gangplank_deploy::ci::generate;
use gangplank_lint::yaml;
use gangplank_model::ci::render;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use gangplank_model::project::Ci;
use gangplank_model::shell::quote;
use gangplank_system::context::{Context, Input};
use std::fs;
use std::path::Path;

/// The mark of an unfinished xtask of ours, which may be removed.
const UNFINISHED: &str = "xtask/.unfinished";

/// The app's lock file, which stays as it is.
const LOCK: &str = "Cargo.lock";

/// A file to be replaced.
struct Edit {
    path: &'static str,
    after: String,
}

/// Adds an xtask to the workspace or crate in `dir`.
pub fn adopt(ctx: &Context, dir: &Path, options: &NewOptions) -> Result<NewReport> {
    let dir = place::absolute(dir)?;
    let Some(root) = read_if_there(&dir.join("Cargo.toml"))? else {
        return usage(format!("no Cargo.toml in {}", dir.display()))
            .hint(format!("create a new project: `cargo xtask new {}`", dir.display()))
            .err();
    };
    let workspace = detect::workspace(ctx, &dir)?;
    if !dir.join(UNFINISHED).is_file() {
        check_is_without(&dir, &workspace)?;
    }
    let app = workspace.app(options.name.as_deref());
    check_name(&app.name)?;
    let rust = rust(ctx, &workspace)?;
    let there = ctx.at(&dir);
    let branch = git::branch(&there).ok().flatten().unwrap_or_else(|| "main".into());
    let fmt = |words: &[&str]| cargo(&there, &[&["fmt"], words].concat()).is_ok_and(|answer| answer.ok());
    // Unknown without rustfmt, which `test` installs.
    let formatted = !fmt(&["--version"]) || fmt(&["--all", "--check"]);
    let of_options = plan(ctx, &app.name, options)?;
    let plan = Plan { app, branch, image: rust.image, is_strict: false, is_formatted: formatted, ..of_options };
    let files = tree::xtask(&plan, &engine_of(&options.engine)?, false)?;
    let work = Work { dir: &dir, edits: edits(&workspace, &root)?, kept: kept(&dir)?, plan: &plan, files: &files };
    plan.project().validate()?;
    let names = work.names();
    let forced = forced(&there, &names)?;
    let mut notes = work.notes();
    notes.extend(rust.notes.into_iter().chain(forced.notes));
    let made = NewReport {
        what: "adopt",
        name: plan.app.name.clone(),
        handoff: Some(plan.handoff.as_str()),
        files: names,
        scripts: scripts_in(&dir),
        notes,
        next: next(&dir, &forced.files, plan.has("local-ci")),
        ..NewReport::of(&dir, options)
    };
    if !options.dry_run {
        work.write(ctx)?;
    }
    Ok(made)
}

/// The Rust version that the project needs.
fn rust(ctx: &Context, workspace: &Workspace) -> Result<Rust> {
    let wanted = workspace.rust()?;
    let rustc = ctx.cargo(&["--version", "--verbose"]);
    let said = ctx.answer(rustc, Input::Empty)?.stdout;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    toolchain::check_runs(wanted.target.as_deref(), host)?;
    toolchain::judge(&wanted, Ci::DEFAULT.rust_image)
}

/// The files that git would ignore. Its rules apply only inside a repository.
fn forced(there: &Context, names: &[String]) -> Result<Forced> {
    if place::repository_of(&there.root).is_none() {
        return Ok(Forced::default());
    }
    ignored::judge(&git::ignored(there, &ignored::asked(names))?, &|path| there.root.join(path).exists())
}

/// The next commands, in order.
fn next(dir: &Path, forced: &[String], has_local_ci: bool) -> Vec<String> {
    let force = if forced.is_empty() { String::new() } else { format!("git add --force {} && ", forced.join(" ")) };
    let commit = format!("git add --all && {force}git commit --message 'Deliver with cargo xtask'");
    let mut next = vec![
        format!("cd {}", quote(&dir.display().to_string())),
        "cargo xtask build       # check xtask/src/main.rs first".into(),
        "cargo xtask deploy dev".into(),
    ];
    if has_local_ci {
        next.push("cargo xtask ci run      # the whole pipeline on this machine".into());
    }
    // A release needs a commit.
    match place::repository_of(dir) {
        Some(_) => next.insert(3, commit),
        None => next.insert(1, format!("git init && {commit}")),
    }
    next
}

/// The changes of an adoption, decided before any is made.
struct Work<'a> {
    dir: &'a Path,
    edits: Vec<Edit>,
    kept: Vec<ExistingConfig>,
    plan: &'a Plan,
    files: &'a tree::Tree,
}

impl Work<'_> {
    fn has_lock(&self) -> bool {
        self.dir.join(LOCK).exists()
    }

    /// The files to be written.
    fn names(&self) -> Vec<String> {
        let mut names = self.files.names();
        names.extend(self.edits.iter().map(|edit| edit.path.to_owned()));
        names.extend(generate::CONFIGS.map(str::to_owned));
        names.extend(self.kept.iter().map(|kept| kept.path.clone()));
        names.extend((!self.has_lock()).then(|| LOCK.to_owned()));
        names.sort();
        names.dedup();
        names
    }

    /// Writes everything or nothing: a failure undoes earlier writes. After a kill, the same command starts over.
    fn write(&self, ctx: &Context) -> Result<()> {
        let dir = self.dir;
        let aside = Staging::beside(&dir.join("xtask"))?;
        self.files.write(aside.path())?;
        let hint = || format!("check its owner: `ls -ld {}`", dir.display());
        let what = || format!("cannot write {UNFINISHED}");
        fs::write(aside.path().join(UNFINISHED), "").with_hint(Kind::Failed, what, hint)?;
        if dir.join(UNFINISHED).is_file() {
            fs::remove_dir_all(dir.join("xtask")).with_hint(
                Kind::Failed,
                || "cannot remove the unfinished xtask of a killed run".into(),
                || "`rm -r xtask`".into(),
            )?;
        }
        let mut changes = Changes::in_dir(dir);
        let worked = self.change(ctx, &mut changes, aside);
        worked.map_err(|cause| changes.undo(cause))
    }

    fn change(&self, ctx: &Context, changes: &mut Changes, aside: Staging) -> Result<()> {
        let dir = self.dir;
        for edit in &self.edits {
            stop_if_asked(ctx)?;
            changes.write(edit.path, edit.after.as_bytes())?;
        }
        changes.move_in(&aside.path().join("xtask"), "xtask")?;
        // A workspace with members `*` would include it.
        drop(aside);
        finalize(ctx, &dir.join("xtask"))?;
        if !self.has_lock() {
            changes.keep(LOCK)?;
            lock(&ctx.at(dir), &["generate-lockfile", "--quiet"])?;
        }
        stop_if_asked(ctx)?;
        for ExistingConfig { name, path, bytes } in &self.kept {
            changes.write(path, bytes)?;
            changes.keep(name)?;
        }
        generate::CONFIGS.iter().try_for_each(|name| changes.keep(name))?;
        write_configs(ctx, dir, self.plan)?;
        stop_if_asked(ctx)?;
        fs::remove_file(dir.join(UNFINISHED)).with_hint(
            Kind::Failed,
            || format!("cannot remove {UNFINISHED}"),
            || "check permissions".into(),
        )
    }

    /// The notes for the user.
    fn notes(&self) -> Vec<String> {
        let mut notes = notes(self.dir, self.plan, &self.kept);
        notes.push(if self.has_lock() {
            "Cargo.lock keeps all its versions: the xtask is a workspace of its own, with xtask/Cargo.lock".into()
        } else {
            "there is no Cargo.lock, and the jobs build with --locked: cargo makes one of the newest versions that fit"
                .into()
        });
        notes
    }
}

/// An existing config, and its new path.
struct ExistingConfig {
    name: &'static str,
    path: String,
    bytes: Vec<u8>,
}

/// Existing configs at the paths of ours.
fn kept(dir: &Path) -> Result<Vec<ExistingConfig>> {
    let mut kept = Vec::new();
    for name in generate::CONFIGS {
        let path = name.replace(".yml", ".before-gangplank.yml");
        let Ok(bytes) = fs::read(dir.join(name)) else { continue };
        if String::from_utf8_lossy(&bytes).starts_with(render::MADE) {
            continue;
        }
        if fs::read(dir.join(&path)).is_ok_and(|other| other != bytes) {
            return usage(format!("{name} cannot be kept as {path}, which exists"))
                .hint(format!("rename it: `mv {path} .circleci/before.yml`"))
                .err();
        }
        kept.push(ExistingConfig { name, path, bytes });
    }
    Ok(kept)
}

fn check_is_without(dir: &Path, workspace: &Workspace) -> Result<()> {
    let own = workspace.packages.iter().find(|package| package.name == "xtask");
    let at = own
        .map(|package| package.manifest_path.clone())
        .or_else(|| Some(dir.join("xtask")).filter(|path| path.symlink_metadata().is_ok()));
    match at {
        Some(at) if dir.join("xtask/crates").is_dir() => usage(format!("{} already has an xtask of Gangplank", at.display()))
            .hint(format!("upgrade its engine: `cargo xtask new --upgrade {}`", dir.display()))
            .err(),
        Some(at) => usage(format!("{} is already an xtask", at.display()))
            .hint("rename its package and directory, then run the same command again; what it does can become commands of the new one")
            .err(),
        None => Ok(()),
    }
}

fn edits(workspace: &Workspace, root: &str) -> Result<Vec<Edit>> {
    let dir = &workspace.root;
    let alias = read_if_there(&dir.join(".cargo/config.toml"))?;
    if alias.is_none() && dir.join(".cargo/config").exists() {
        return usage(format!("{} has the old name of its config", dir.join(".cargo").display()))
            .hint("`git mv .cargo/config .cargo/config.toml`")
            .err();
    }
    let ignored = read_if_there(&dir.join(".gitignore"))?;
    let mut edits = Vec::new();
    if let Some(after) = manifest::with_alias(alias.as_deref().unwrap_or_default())? {
        edits.push(Edit { path: ".cargo/config.toml", after });
    }
    edits.extend(manifest::without_xtask(root)?.map(|after| Edit { path: "Cargo.toml", after }));
    // Releases are in `target`, and a dirty tree cannot be deployed to an env with approval.
    let built = ["target".to_owned()].into_iter().chain(workspace.own_target_dir());
    let after = ignored::with_dirs(ignored.as_deref().unwrap_or_default(), &built.collect::<Vec<_>>());
    edits.extend(after.map(|after| Edit { path: ".gitignore", after }));
    Ok(edits)
}

fn scripts_in(dir: &Path) -> Vec<ScriptMapping> {
    let mut mapped = Vec::new();
    for folder in scripts::DIRS {
        for name in scripts::NAMES {
            let path = Path::new(folder).join(name);
            // Only for information, so invalid UTF-8 is tolerated.
            if let Ok(bytes) = fs::read(dir.join(&path)) {
                mapped.extend(scripts::map(&path.to_string_lossy(), &String::from_utf8_lossy(&bytes)));
            }
        }
    }
    mapped
}

fn notes(dir: &Path, plan: &Plan, kept: &[ExistingConfig]) -> Vec<String> {
    let mut notes = Vec::new();
    match &plan.app.runs {
        _ if plan.app.packages.is_empty() => {
            notes.push("no package has a binary: list the files to ship in `include`".into());
        }
        Runs::Server(binary) => notes.push(format!(
            "bin/{binary} looks like a server: it is started with PORT set, and healthy once it takes connections there"
        )),
        _ => notes.push("no server found: releases are installed, but nothing is started".into()),
    }
    if !plan.is_formatted {
        notes.push("`cargo fmt --check` fails here, so `cargo xtask test` skips it: `format: false`".into());
    }
    if !dir.join(".git").exists() && place::repository_of(dir).is_none() {
        notes.push(
            "there is no git repository: a release is named after its commit, so `git init` and commit first; `git status --ignored` shows what a .gitignore leaves out".into(),
        );
    }
    for ExistingConfig { name, path, bytes } in kept {
        notes.push(format!("{name} is kept as {path}, which CircleCI does not read"));
        notes.extend(outline(&String::from_utf8_lossy(bytes)).map(|what| {
            format!("it has {what}: what of it is still wanted can run from that file, as a pipeline of its own (Project Settings, Pipelines)")
        }));
    }
    let left = plan.app.left_out.iter();
    notes.extend(left.map(|(folder, reason)| format!("{folder} is not in `include`: {reason}")));
    if !plan.app.features.is_empty() {
        notes.push(format!(
            "no binary is built without features, so these are enabled: {}",
            plan.app.features.join(", ")
        ));
    }
    notes.extend(plan.app.without.iter().map(|(binary, features)| {
        format!("bin/{binary} is not built: `required-features`; add to `features` of `App`: {}", features.join(", "))
    }));
    notes
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
