//! `new`: a project made from this repository's own files, an existing one that gets an xtask, and an engine replaced by
//! a newer one.
//!
//! What is written is made first, as values (`tree`, `main_rs`, `manifest`); then it is written aside and moved into
//! place, so that a command that fails or is killed leaves what was there.

mod adopt;
mod changes;
mod detect;
mod ignored;
mod main_rs;
mod manifest;
mod place;
mod scripts;
mod toolchain;
mod tree;
mod upgrade;

pub use adopt::adopt;
pub use scripts::ScriptMapping;
pub use upgrade::upgrade;

use crate::ci::generate;
use crate::context::{Context, Input, Output};
use crate::error::{Result, failed, hint_of, usage};
use crate::git;
use crate::host::script::quote;
use crate::project::{self, Ci, Handoff, Project};
use crate::store_url::is_bucket;
use crate::tool::Tool;
use main_rs::{App, Plan, TargetAnswers};
use place::Staging;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the engine of a project lies, unless it comes from elsewhere.
const ENGINE_DIR: &str = "xtask/engine";

/// What somebody wants to have made.
#[derive(Debug, Clone, Default)]
pub struct NewOptions {
    /// Name of the app; that of the directory when left out.
    pub name: Option<String>,
    /// How releases are handed over; one workflow with a workspace when left out.
    pub handoff: Option<Handoff>,
    /// `ENV=URL`, or a URL of prod.
    pub targets: Vec<String>,
    /// URL of the bucket, for the handoff `s3`.
    pub bucket: Option<String>,
    /// Where the engine comes from.
    pub engine: Engine,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Where the engine of a project comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Engine {
    /// A copy in `xtask/engine`: the project stands without us.
    #[default]
    Vendor,
    /// A tag of a git repository.
    Git {
        /// Its URL.
        url: String,
        /// The tag.
        tag: String,
    },
    /// A checkout of this repository.
    Path(PathBuf),
}

/// What was made, or would be.
#[derive(Debug, Serialize)]
pub struct NewReport {
    /// `new`, `adopt` or `upgrade`.
    pub what: &'static str,
    /// The workspace.
    pub path: PathBuf,
    /// Name of the app.
    pub name: String,
    /// How releases are handed over; absent for an upgrade.
    pub handoff: Option<&'static str>,
    /// The first commit of a new project.
    pub commit: Option<String>,
    /// Version of the engine before an upgrade.
    pub from_version: Option<String>,
    /// Version of the engine.
    pub version: &'static str,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Files that were written, relative to `path`; those of a vendored engine count as one, `xtask/engine/`.
    pub files: Vec<String>,
    /// What lines of scripts that were there become.
    pub scripts: Vec<ScriptMapping>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What can be typed next.
    pub next: Vec<String>,
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
            // It would stand in a manifest, and in what cargo says of it.
            Some(("git", rest))
                if rest.split_once("://").is_some_and(|(scheme, rest)| {
                    scheme.starts_with("http") && rest.split('/').next().is_some_and(|host| host.contains('@'))
                }) =>
            {
                return usage("the URL of the engine has a password or token in it")
                    .hint("leave it out: git asks its credential helper; or use git=ssh://git@HOST/PATH,tag=TAG")
                    .err();
            }
            Some(("git", rest)) => git(rest),
            Some(("path", dir)) if !dir.is_empty() => Some(Self::Path(dir.into())),
            _ => None,
        };
        match engine {
            Some(engine) => Ok(engine),
            None => usage(format!("no engine `{text}`")).hint("use vendor, git=URL,tag=TAG or path=DIR").err(),
        }
    }
}

/// Asks a question, with the answer that stands when nobody gives another.
type Ask<'a> = &'a dyn Fn(&str, &str) -> Result<String>;

/// Asks for what a wish leaves open, each until the answer will do.
pub fn complete(ctx: &Context, wish: &mut NewOptions, path: &Path, ask: Ask) -> Result<()> {
    // What cannot work is said before anybody is asked.
    let path = place::absolute(path)?;
    place::check_free(&path)?;
    git::can_commit(ctx)?;
    let again = |question: &str, default: &str, check: &dyn Fn(&str) -> Result<()>| loop {
        let answer = ask(question, default)?;
        match check(&answer) {
            Ok(()) => return Ok::<_, anyhow::Error>(answer),
            // With the default nothing else would come of asking again.
            Err(error) if answer == default => return Err(error),
            Err(error) => ctx.warn(format!("{error}; {}", hint_of(&error).unwrap_or_default())),
        }
    };
    let name = match wish.name.take() {
        Some(name) => name,
        None => again("Name of the app", &name_of(&path), &check_name)?,
    };
    check_name(&name)?;
    if wish.handoff.is_none() {
        let question = "Releases go from build to deploy by: workspace (one workflow), artifacts (several, through \
                        CircleCI's API), s3 (a bucket)";
        let known = |text: &str| text.parse::<Handoff>().map(drop);
        wish.handoff = Some(again(question, Handoff::Workspace.as_str(), &known)?.parse()?);
    }
    wish.name = Some(name.clone());
    if wish.handoff == Some(Handoff::S3) && wish.bucket.is_none() {
        wish.bucket = Some(again("Bucket", &bucket_of(&name), &check_bucket)?);
    }
    if wish.targets.is_empty() {
        let local = TargetAnswers::local("prod").urls().join(" ");
        let urls = |answer: &str| answer.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let check = |answer: &str| urls(answer).iter().try_for_each(|url| check_target(ctx, url));
        let prod = again("Hosts of prod, as ssh://USER@HOST/DIR", &local, &check)?;
        wish.targets = urls(&prod).into_iter().filter(|url| *url != local).collect();
    }
    Ok(())
}

fn check_target(ctx: &Context, url: &str) -> Result<()> {
    let project = Project { app: project::App::DEFAULT, stores: &[], envs: &[], ci: Ci::DEFAULT };
    Tool::new(ctx, &project).target(url).map(drop)
}

fn check_bucket(bucket: &str) -> Result<()> {
    if is_bucket(bucket) && !bucket.contains(['"', '\\', '@']) {
        return Ok(());
    }
    usage("that is not the URL of a bucket").hint("write s3://BUCKET/PREFIX").err()
}

fn bucket_of(name: &str) -> String {
    format!("s3://{name}-releases/{name}")
}

/// Makes a project at `path`, which must not exist or be empty.
pub fn create(ctx: &Context, path: &Path, wish: &NewOptions) -> Result<NewReport> {
    let path = place::absolute(path)?;
    let name = wish.name.clone().unwrap_or_else(|| name_of(&path));
    check_name(&name)?;
    place::check_free(&path)?;
    git::can_commit(ctx)?;
    let plan = Plan { app: App::sample(&name), ..plan(ctx, &name, wish)? };
    let made = NewReport {
        what: "new",
        name: name.clone(),
        handoff: Some(plan.handoff.as_str()),
        files: vec![],
        notes: notes(&path, wish),
        next: vec![
            format!("cd {}", quote(&path.display().to_string())),
            "cargo xtask ci run      # the whole pipeline on this machine".into(),
            "cargo xtask test        # everything that has to hold before a commit is worth building".into(),
            "cargo xtask doctor      # what is still missing for CircleCI and the hosts".into(),
        ],
        ..NewReport::of(&path, wish)
    };
    plan.project().validate()?;
    let tree = tree::project(&plan, &engine_of(&wish.engine)?)?;
    let mut files = tree.names();
    files.extend(generate::CONFIGS.map(str::to_owned));
    files.sort();
    if wish.dry_run {
        return Ok(NewReport { files, ..made });
    }
    let aside = Staging::beside(&path)?;
    tree.write(aside.path())?;
    stop_if_asked(ctx)?;
    finalize(ctx, aside.path())?;
    write_configs(ctx, aside.path(), &plan)?;
    stop_if_asked(ctx)?;
    let commit = git::first_commit(ctx, aside.path(), "A project made by `cargo xtask new`")?;
    stop_if_asked(ctx)?;
    aside.move_to(&path)?;
    Ok(NewReport { files, commit: Some(commit), ..made })
}

impl NewReport {
    fn of(path: &Path, wish: &NewOptions) -> Self {
        Self {
            what: "",
            path: path.to_owned(),
            name: String::new(),
            handoff: None,
            commit: None,
            from_version: None,
            version: env!("CARGO_PKG_VERSION"),
            dry_run: wish.dry_run,
            files: vec![],
            scripts: vec![],
            notes: vec![],
            next: vec![],
        }
    }
}

/// What follows from a wish, for an app that is still unknown.
fn plan(ctx: &Context, name: &str, wish: &NewOptions) -> Result<Plan> {
    let handoff = wish.handoff.unwrap_or(Handoff::Workspace);
    let mut envs = [TargetAnswers::local("dev"), TargetAnswers::local("prod")];
    for target in &wish.targets {
        let (env, url) = match target.split_once('=') {
            Some((env, url)) if !env.contains([':', '/']) => (env, url),
            _ => ("prod", target.as_str()),
        };
        let Some(place) = envs.iter_mut().find(|place| place.name == env) else {
            return usage(format!("no env `{env}`: a new project has dev and prod"))
                .hint("more can be added in xtask/src/main.rs afterwards")
                .err();
        };
        check_target(ctx, url)?;
        place.add(url);
    }
    let bucket = wish.bucket.clone().unwrap_or_else(|| bucket_of(name));
    if wish.bucket.is_some() && handoff != Handoff::S3 {
        return usage("--bucket is for projects that hand over by a bucket").hint("add --handoff s3").err();
    }
    check_bucket(&bucket)?;
    Ok(Plan {
        app: App::sample(name),
        handoff,
        bucket,
        envs,
        branch: "main".into(),
        image: None,
        is_strict: true,
        is_formatted: true,
    })
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A name has to do as a package, a binary, a part of file names and of CircleCI contexts.
pub fn check_name(name: &str) -> Result<()> {
    let well_formed = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && name.len() <= 64;
    let reserved = [
        "gangplank",
        "xtask",
        "xtask-fixture",
        "test",
        "core",
        "std",
        "alloc",
        "proc_macro",
        "build",
        "deps",
        "examples",
        "incremental",
    ];
    let keywords = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
        "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
        "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "Self", "static", "struct",
        "super", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while",
        "yield",
    ];
    if !well_formed {
        return usage(format!("`{name}` cannot be the name of a crate"))
            .hint("begin with a letter, go on with letters, digits, `-` and `_`: --name my-shop")
            .err();
    }
    if reserved.contains(&name) || keywords.contains(&name) || tree::locked(name) {
        return usage(format!("`{name}` means something to Rust, to cargo or to this workspace already"))
            .hint(format!("give it another one: --name my-{name}"))
            .err();
    }
    Ok(())
}

fn notes(path: &Path, wish: &NewOptions) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(outer) = path.parent().and_then(place::repository_of) {
        notes.push(format!(
            "it lies inside the git repository {}: it stands alone, so it can be moved anywhere",
            outer.display()
        ));
    }
    if let Engine::Path(dir) = &wish.engine {
        notes.push(format!("its engine is {}: it builds on this machine only", dir.display()));
    }
    notes
}

/// The engine with a path that a manifest can name, which must be one.
fn engine_of(engine: &Engine) -> Result<Engine> {
    let Engine::Path(dir) = engine else { return Ok(engine.clone()) };
    let dir = place::absolute(dir)?;
    match [dir.join(ENGINE_DIR), dir.clone()].into_iter().find(|dir| tree::is_engine(dir)) {
        Some(dir) => Ok(Engine::Path(dir)),
        None => usage(format!("{} holds no engine", dir.display()))
            .hint("name a checkout of Gangplank: --engine path=../gangplank")
            .err(),
    }
}

/// Has cargo write a lock file: offline where cargo knows enough.
fn lock(there: &Context, words: &[&str]) -> Result<()> {
    let mut answer = cargo(there, &[words, &["--offline"]].concat())?;
    if !answer.ok() {
        there.note("asking crates.io for the versions of crates");
        answer = cargo(there, words)?;
    }
    if answer.ok() {
        return Ok(());
    }
    failed(format!("cargo cannot make Cargo.lock: {}", answer.stderr.trim()))
        .hint("where cargo speaks of the network, let it reach crates.io once; then run the same command again")
        .err()
}

/// Cargo.lock for the members of the xtask's workspace, and main.rs as rustfmt has it.
fn finalize(ctx: &Context, dir: &Path) -> Result<()> {
    let there = ctx.at(dir);
    lock(&there, &["update", "--workspace", "--quiet"])?;
    let fmt = cargo(&there, &["fmt", "--package", "xtask"]);
    if !fmt.is_ok_and(|answer| answer.ok()) {
        ctx.warn("xtask/src/main.rs is not formatted: `rustup component add rustfmt`, then `cargo fmt`");
    }
    if !cargo(&there, &["tree", "--workspace", "--depth", "0", "--offline", "--locked"])?.ok() {
        ctx.warn("some crates are not on this machine yet: the first command there has to reach crates.io");
    }
    Ok(())
}

/// The configs, from the very values that main.rs states.
fn write_configs(ctx: &Context, dir: &Path, plan: &Plan) -> Result<()> {
    let project: Project = plan.project();
    generate::generate(&ctx.at(dir), &project, plan.handoff, false).map(drop)
}

/// What cargo answers in the root of `ctx`.
fn cargo(ctx: &Context, args: &[&str]) -> Result<Output> {
    ctx.answer_within(ctx.cargo(args), Input::Empty, None, true)
}

/// Between two steps is where Ctrl-C is heard. What was begun is taken back by whoever began it.
fn stop_if_asked(ctx: &Context) -> Result<()> {
    if !ctx.interrupted() {
        return Ok(());
    }
    failed("stopped by a signal; nothing was made").hint("run the same command again").err()
}

/// Text of a file, or nothing where there is none.
fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => failed(format!("cannot read {}: {error}", path.display()))
            .hint("is it text, and may you read it? `ls -l` shows")
            .err(),
    }
}
