//! Steps that `new`, `new --into` and `new --upgrade` share.

use crate::main_rs::{App, Plan, TargetAnswers};
use crate::options::{ENGINE_DIR, Engine, NewOptions};
use crate::{parts, place, tree};
use gangplank_deploy::ci::generate;
use gangplank_deploy::tool::Tool;
use gangplank_model::error::{Result, failed, usage};
use gangplank_model::project;
use gangplank_model::project::{Ci, Handoff, Project};
use gangplank_model::store_url::{is_bucket, is_site};
use gangplank_system::context::{Context, Input, Output, PARTS};
use std::fs;
use std::path::Path;

pub fn check_target(ctx: &Context, url: &str) -> Result<()> {
    if is_site(url) {
        return usage(format!("target {url}: this command makes no static site"))
            .hint("omit it, then follow docs/sites.md")
            .err();
    }
    let project = Project { app: project::App::DEFAULT, stores: &[], envs: &[], ci: Ci::DEFAULT };
    Tool::bare(ctx, &project).target(url).map(drop)
}

pub fn check_bucket(bucket: &str) -> Result<()> {
    if is_bucket(bucket) && !bucket.contains(['"', '\\', '@']) {
        return Ok(());
    }
    usage("--bucket is not the URL of a bucket").hint("write s3://BUCKET/PREFIX").err()
}

pub fn bucket_of(name: &str) -> String {
    format!("s3://{name}-releases/{name}")
}

/// The plan for the options, with an unknown app.
pub fn plan(ctx: &Context, name: &str, options: &NewOptions) -> Result<Plan> {
    let handoff = options.handoff.unwrap_or(Handoff::Workspace);
    let mut envs = [TargetAnswers::local("dev"), TargetAnswers::local("prod")];
    for target in &options.targets {
        let (env, url) = match target.split_once('=') {
            Some((env, url)) if !env.contains([':', '/']) => (env, url),
            _ => ("prod", target.as_str()),
        };
        let Some(place) = envs.iter_mut().find(|place| place.name == env) else {
            return usage(format!("no env `{env}`: a new project has dev and prod"))
                .hint("add more later in xtask/src/main.rs")
                .err();
        };
        check_target(ctx, url)?;
        place.add(url);
    }
    let bucket = options.bucket.clone().unwrap_or_else(|| bucket_of(name));
    if options.bucket.is_some() && handoff != Handoff::S3 {
        return usage("--bucket needs the handoff s3").hint("add --handoff s3").err();
    }
    check_bucket(&bucket)?;
    let is_vendored = options.engine == Engine::Vendor;
    let selects = !options.with.is_empty() || !options.without.is_empty();
    if selects && !is_vendored {
        return usage("--with and --without select the parts of a copy")
            .hint("omit them, or use --engine vendor")
            .err();
    }
    let parts = parts::parts(&parts::USUAL, &options.with, &options.without, Some(handoff))?;
    Ok(Plan {
        app: App::sample(name),
        handoff,
        bucket,
        envs,
        branch: "main".into(),
        image: None,
        is_vendored,
        parts,
        is_strict: true,
        is_formatted: true,
    })
}

pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Fails for a name that is not valid as a package, a binary, a file name and a CircleCI context.
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
            .hint("use a letter, then letters, digits, `-` and `_`: --name my-shop")
            .err();
    }
    if reserved.contains(&name) || keywords.contains(&name) || tree::locked(name) {
        return usage(format!("`{name}` is reserved by Rust, cargo or this workspace"))
            .hint(format!("use another name: --name my-{name}"))
            .err();
    }
    Ok(())
}

pub fn notes(path: &Path, options: &NewOptions) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(outer) = path.parent().and_then(place::repository_of) {
        notes.push(format!(
            "it is inside the git repository {}, but self-contained, so it can be moved",
            outer.display()
        ));
    }
    if let Engine::Path(dir) = &options.engine {
        notes.push(format!("its engine is {}, so it builds only on this machine", dir.display()));
    }
    notes
}

/// The engine with a path that is valid in a manifest; fails if there is no engine.
pub fn engine_of(engine: &Engine) -> Result<Engine> {
    let Engine::Path(dir) = engine else { return Ok(engine.clone()) };
    let dir = place::absolute(dir)?;
    match [dir.join(ENGINE_DIR), dir.clone()].into_iter().find(|dir| tree::is_engine(dir)) {
        Some(dir) => {
            let has = parts::of_copy(&dir);
            let lacks: Vec<_> = PARTS.iter().map(|(part, _)| *part).filter(|part| !has.contains(part)).collect();
            if !lacks.is_empty() {
                return usage(format!(
                    "{} is a project's copy of the engine, without {}",
                    dir.display(),
                    lacks.join(", ")
                ))
                .hint("name a checkout of Gangplank: --engine path=../gangplank")
                .err();
            }
            Ok(Engine::Path(dir.join("gangplank")))
        }
        None => usage(format!("{} contains no engine", dir.display()))
            .hint("name a checkout of Gangplank: --engine path=../gangplank")
            .err(),
    }
}

/// Creates a lock file with cargo, offline if possible.
pub fn lock(there: &Context, words: &[&str]) -> Result<()> {
    let mut answer = cargo(there, &[words, &["--offline"]].concat())?;
    if !answer.ok() {
        there.note("asking crates.io for the versions of crates");
        answer = cargo(there, words)?;
    }
    if answer.ok() {
        return Ok(());
    }
    failed(format!("cargo cannot create Cargo.lock: {}", answer.stderr.trim()))
        .hint("allow access to crates.io once if the network is the cause, then run the same command again")
        .err()
}

/// Creates Cargo.lock for the xtask's workspace, and formats main.rs.
pub fn finalize(ctx: &Context, dir: &Path) -> Result<()> {
    let there = ctx.at(dir);
    lock(&there, &["update", "--workspace", "--quiet"])?;
    let fmt = cargo(&there, &["fmt", "--package", "xtask"]);
    if !fmt.is_ok_and(|answer| answer.ok()) {
        ctx.warn("xtask/src/main.rs is not formatted: `rustup component add rustfmt`, then `cargo fmt`");
    }
    if !cargo(&there, &["tree", "--workspace", "--depth", "0", "--offline", "--locked"])?.ok() {
        ctx.warn("some crates are not on this machine yet, so the first command needs crates.io");
    }
    Ok(())
}

/// Writes the configs, from the same values as main.rs.
pub fn write_configs(ctx: &Context, dir: &Path, plan: &Plan) -> Result<()> {
    let project: Project = plan.project();
    generate::generate(&ctx.at(dir), &project, plan.handoff, false).map(drop)
}

/// Runs cargo in the root of `ctx`.
pub fn cargo(ctx: &Context, args: &[&str]) -> Result<Output> {
    ctx.answer_within(ctx.cargo(args), Input::Empty, None, true)
}

/// Fails after Ctrl-C, between two steps. The caller undoes its changes.
pub fn stop_if_asked(ctx: &Context) -> Result<()> {
    if !ctx.interrupted() {
        return Ok(());
    }
    failed("stopped by a signal; nothing was created").hint("run the same command again").err()
}

/// Text of a file; `None` if it is missing.
pub fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => failed(format!("cannot read {}: {error}", path.display()))
            .hint("check that it is text and readable: `ls -l`")
            .err(),
    }
}
