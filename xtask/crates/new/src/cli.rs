//! The command line of `new`.

use crate::create::{complete, create};
use crate::options::{NewOptions, NewReport};
use crate::parts::{Part, part};
use crate::{adopt, report, upgrade};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use gangplank::program::{Answer, Commands, Global, Style, ask_text};
use gangplank_model::error::{Result, hint_of, usage};
use gangplank_model::project::Handoff;
use gangplank_system::context::Context;
use std::path::PathBuf;

/// What can be typed.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a project: an app, its pipeline, a first commit
    New(New),
}

/// The arguments of `new`.
#[derive(Debug, Clone, Args)]
pub struct New {
    /// The directory, which must be empty or missing
    #[arg(required_unless_present_any = ["into", "upgrade"])]
    pub path: Option<PathBuf>,
    /// Add a pipeline to the workspace or crate in DIR, without changing existing files
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    pub into: Option<PathBuf>,
    /// Replace the engine of the project in DIR by this one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["path", "into", "name", "handoff", "target", "bucket", "engine"])]
    pub upgrade: Option<PathBuf>,
    /// Replace an engine even if it was edited by hand
    #[arg(long, requires = "upgrade")]
    pub force: bool,
    /// The name of the app [default: that of the directory or package]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How jobs pass releases on
    #[arg(long, value_name = "HANDOFF", value_parser = handoff())]
    pub handoff: Option<Handoff>,
    /// A host or directory of prod, or ENV=URL; may be repeated
    #[arg(long, value_name = "URL")]
    pub target: Vec<String>,
    /// The bucket of the handoff `s3`, e.g. `s3://shop-releases/shop`
    #[arg(long, value_name = "URL")]
    pub bucket: Option<String>,
    /// The source of the engine: vendor (a copy), git=URL,tag=TAG or path=DIR
    #[arg(long, value_name = "FROM", default_value = "vendor")]
    pub engine: String,
    /// More parts of the engine to copy: `artifacts`, `launch`, `lint` (`ci lint`), `loopback`, `s3` (buckets), `sign`
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub with: Vec<String>,
    /// Parts not to copy: `html` (`report`), `local-ci` (`ci run`)
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub without: Vec<String>,
}

fn handoff() -> impl TypedValueParser<Value = Handoff> {
    let error = |error: anyhow::Error| match hint_of(&error) {
        Some(hint) => format!("{error}: {hint}"),
        None => error.to_string(),
    };
    PossibleValuesParser::new(Handoff::ALL.map(Handoff::as_str)).try_map(move |text| text.parse().map_err(error))
}

impl Commands for Command {
    fn can_plan(&self) -> bool {
        true
    }

    fn stops_when_asked(&self) -> bool {
        true
    }

    fn run(&self, ctx: &Context, global: &Global) -> Result<Box<dyn Answer>> {
        let Self::New(new) = self;
        Ok(Box::new(make(ctx, global, new)?))
    }
}

fn parts(names: &[String]) -> Result<Vec<Part>> {
    names.iter().map(|name| part(name)).collect()
}

fn make(ctx: &Context, global: &Global, new: &New) -> Result<NewReport> {
    let mut options = NewOptions {
        name: new.name.clone(),
        handoff: new.handoff,
        targets: new.target.clone(),
        bucket: new.bucket.clone(),
        engine: new.engine.parse()?,
        with: parts(&new.with)?,
        without: parts(&new.without)?,
        dry_run: global.dry_run,
    };
    match (&new.upgrade, &new.into, &new.path) {
        (Some(dir), ..) => upgrade(ctx, dir, new.force, &options),
        (_, Some(dir), _) => adopt(ctx, dir, &options),
        (.., Some(path)) => {
            if !global.yes && !global.dry_run {
                complete(ctx, &mut options, path, &|question, default| ask_text(ctx, question, default))?;
            }
            create(ctx, path, &options)
        }
        _ => usage("which project?").hint("`cargo xtask new ../shop`").err(),
    }
}

impl Answer for NewReport {
    fn text(&self, style: Style) -> String {
        report::made(self, style)
    }
}
