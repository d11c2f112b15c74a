//! `new`: a project from nothing.

use crate::main_rs::{App, Plan, TargetAnswers};
use crate::options::{NewOptions, NewReport};
use crate::place::Staging;
use crate::steps::{
    bucket_of, check_bucket, check_name, check_target, engine_of, finalize, name_of, notes, plan, stop_if_asked,
    write_configs,
};
use crate::{git, place, tree};
use gangplank_deploy::ci::generate;
use gangplank_model::error::{Result, hint_of};
use gangplank_model::project::Handoff;
use gangplank_model::shell::quote;
use gangplank_system::context::Context;
use std::path::Path;

/// Asks a question, with its default.
pub type Ask<'a> = &'a dyn Fn(&str, &str) -> Result<String>;

/// Asks for missing options, each until the answer is valid.
pub fn complete(ctx: &Context, options: &mut NewOptions, path: &Path, ask: Ask) -> Result<()> {
    // Fails before any question if the path is unusable.
    let path = place::absolute(path)?;
    place::check_free(&path)?;
    git::can_commit(ctx)?;
    let again = |question: &str, default: &str, check: &dyn Fn(&str) -> Result<()>| loop {
        let answer = ask(question, default)?;
        match check(&answer) {
            Ok(()) => return Ok::<_, anyhow::Error>(answer),
            // Asking again would give the same answer.
            Err(error) if answer == default => return Err(error),
            Err(error) => ctx.warn(format!("{error}; {}", hint_of(&error).unwrap_or_default())),
        }
    };
    let name = match options.name.take() {
        Some(name) => name,
        None => again("Name of the app", &name_of(&path), &check_name)?,
    };
    check_name(&name)?;
    if options.handoff.is_none() {
        let question = "Releases go from build to deploy by: workspace (one workflow), artifacts (several, through \
                        CircleCI's API), s3 (a bucket)";
        let known = |text: &str| text.parse::<Handoff>().map(drop);
        options.handoff = Some(again(question, Handoff::Workspace.as_str(), &known)?.parse()?);
    }
    options.name = Some(name.clone());
    if options.handoff == Some(Handoff::S3) && options.bucket.is_none() {
        options.bucket = Some(again("Bucket", &bucket_of(&name), &check_bucket)?);
    }
    if options.targets.is_empty() {
        let local = TargetAnswers::local("prod").urls().join(" ");
        let urls = |answer: &str| answer.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let check = |answer: &str| urls(answer).iter().try_for_each(|url| check_target(ctx, url));
        let prod = again("Hosts of prod, as ssh://USER@HOST/DIR", &local, &check)?;
        options.targets = urls(&prod).into_iter().filter(|url| *url != local).collect();
    }
    Ok(())
}

/// The next commands, in order.
fn next(path: &Path, has_local_ci: bool) -> Vec<String> {
    let first = if has_local_ci {
        "cargo xtask ci run      # the whole pipeline on this machine"
    } else {
        "cargo xtask build       # then `cargo xtask deploy dev`"
    };
    vec![
        format!("cd {}", quote(&path.display().to_string())),
        first.into(),
        "cargo xtask test        # all checks before a commit".into(),
        "cargo xtask doctor      # missing setup of CircleCI and the hosts".into(),
    ]
}

/// Creates a project at `path`, which must be empty or missing.
pub fn create(ctx: &Context, path: &Path, options: &NewOptions) -> Result<NewReport> {
    let path = place::absolute(path)?;
    let name = options.name.clone().unwrap_or_else(|| name_of(&path));
    check_name(&name)?;
    place::check_free(&path)?;
    git::can_commit(ctx)?;
    let plan = Plan { app: App::sample(&name), ..plan(ctx, &name, options)? };
    let made = NewReport {
        what: "new",
        name: name.clone(),
        handoff: Some(plan.handoff.as_str()),
        files: vec![],
        notes: notes(&path, options),
        next: next(&path, plan.has("local-ci")),
        ..NewReport::of(&path, options)
    };
    plan.project().validate()?;
    let tree = tree::project(&plan, &engine_of(&options.engine)?)?;
    let mut files = tree.names();
    files.extend(generate::CONFIGS.map(str::to_owned));
    files.sort();
    if options.dry_run {
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
