//! Shell completion: candidates for a command line, and the scripts for shells.
//!
//! It has to be fast, so it reads only local files: no network, no git, no other program. Unreadable files are skipped
//! silently.

use crate::cli;
use crate::cli::{CommandLine, Shell};
use crate::parts::tool;
use clap_complete::engine::{self, ArgValueCandidates, CompletionCandidate};
use gangplank_deploy::extend::Extensions;
use gangplank_deploy::tool::Tool;
use gangplank_model::ci::workflows;
use gangplank_model::event::NoSink;
use gangplank_model::project::{Env, Project, local_dir};
use gangplank_model::release::id::ReleaseId;
use gangplank_model::release::layout::RELEASES;
use gangplank_system::context::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The number of releases offered, newest first.
const RELEASES_SHOWN: usize = 30;

/// The result of `completions`.
#[derive(Debug, Serialize)]
pub struct Script {
    /// The shell.
    pub shell: &'static str,
    /// The text.
    pub script: &'static str,
}

/// The script for a shell.
pub fn script(shell: Shell) -> Script {
    let (shell, script) = match shell {
        Shell::Bash => ("bash", include_str!("complete/cargo-xtask.bash")),
        Shell::Fish => ("fish", include_str!("complete/cargo-xtask.fish")),
        Shell::Zsh => ("zsh", include_str!("complete/cargo-xtask.zsh")),
    };
    Script { shell, script }
}

/// The candidates for the last of `words`, one per line with a description after a tab.
pub fn candidates(
    project: &'static Project,
    extensions: &'static Extensions,
    vars: BTreeMap<String, String>,
    words: &[OsString],
) -> String {
    let Ok(root) = Context::find_root() else { return String::new() };
    let ctx = Context::new(root, vars, Arc::new(NoSink));
    let known = Arc::new(Known { ctx, project, extensions, words: words.to_vec() });
    let mut command = with_values(cli::definition(extensions), &known);
    let empty = [OsString::new()];
    let words = if words.is_empty() { &empty } else { words };
    let args = [&["cargo xtask".into()], words].concat();
    let Ok(found) = engine::complete(&mut command, args, words.len(), Some(&known.ctx.root)) else {
        return String::new();
    };
    let is_option = |candidate: &CompletionCandidate| candidate.get_value().to_string_lossy().starts_with('-');
    // Options are offered after a `-`, and if no value can follow.
    let values = words.last().is_some_and(|word| word.is_empty()) && !found.iter().all(is_option);
    let mut text = String::new();
    for candidate in found.iter().filter(|it| !(it.is_hide_set() || values && is_option(it))) {
        let meaning = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let meaning = meaning.lines().next().unwrap_or_default();
        let _ = writeln!(text, "{}\t{meaning}", candidate.get_value().to_string_lossy());
    }
    text
}

/// The facts known for a completion.
struct Known {
    ctx: Context,
    project: &'static Project,
    extensions: &'static Extensions,
    words: Vec<OsString>,
}

/// A value and its description.
type Value = (String, String);

/// Assigns a source of values to each argument of a command and its subcommands.
fn with_values(command: CommandLine, known: &Arc<Known>) -> CommandLine {
    let name = command.get_name().to_owned();
    let command = command.mut_args(|arg| {
        let values: fn(&Known) -> Vec<Value> = match (name.as_str(), arg.get_id().as_str()) {
            (_, "env" | "from" | "to") => Known::envs,
            ("rollback", "release") => Known::way_back,
            (_, "release") => Known::selectors,
            (_, "expect_current") => Known::releases,
            (_, "host" | "skip_host") => Known::hosts,
            (_, "store") => Known::stores,
            ("run", "job") => Known::jobs,
            _ => return arg,
        };
        let known = Arc::clone(known);
        arg.add(ArgValueCandidates::new(move || {
            let candidate = |(value, meaning): Value| CompletionCandidate::new(value).help(Some(meaning.into()));
            values(&known).into_iter().map(candidate).collect()
        }))
    });
    command.mut_subcommands(|inner| with_values(inner, known))
}

impl Known {
    fn tool(&self) -> Tool<'_> {
        tool(&self.ctx, self.project, self.extensions)
    }

    /// The envs on the command line; all envs if there is none.
    fn envs_meant(&self) -> Vec<&'static Env> {
        let typed = |env: &&Env| self.words.iter().any(|word| word == env.name);
        let typed: Vec<_> = self.project.envs.iter().filter(typed).collect();
        if typed.is_empty() { self.project.envs.iter().collect() } else { typed }
    }

    fn envs(&self) -> Vec<Value> {
        let meaning = |env: &Env| match env.targets {
            [one] => (*one).to_owned(),
            several => format!("{} hosts", several.len()),
        };
        self.project.envs.iter().map(|env| (env.name.to_owned(), meaning(env))).collect()
    }

    /// The names of hosts; URLs for local targets.
    fn hosts(&self) -> Vec<Value> {
        let mut hosts = Vec::new();
        for env in self.envs_meant() {
            let open = |url: &&'static str| Some((*url, self.tool().target(url).ok()?.host().to_owned()));
            let targets: Vec<_> = env.targets.iter().filter_map(open).collect();
            for (url, host) in &targets {
                let alone = targets.iter().filter(|(_, other)| other == host).count() == 1;
                let called = if alone && !url.starts_with("file:") { host } else { *url };
                hosts.push((called.to_owned(), if called == *url { env.name } else { url }.to_owned()));
            }
        }
        hosts
    }

    fn stores(&self) -> Vec<Value> {
        self.project.stores.iter().map(|url| ((*url).to_owned(), String::new())).collect()
    }

    fn jobs(&self) -> Vec<Value> {
        let Ok(pipeline) = workflows::pipeline(self.project, self.project.ci.handoff) else { return Vec::new() };
        let mut jobs: Vec<Value> = Vec::new();
        for (workflow, job) in pipeline.workflows.iter().flat_map(|it| it.jobs.iter().map(move |job| (it, job))) {
            if !jobs.iter().any(|(name, _)| *name == job.name) {
                jobs.push((job.name.clone(), format!("of the workflow {}", workflow.name)));
            }
        }
        jobs
    }

    /// Ids of the local releases.
    fn releases(&self) -> Vec<Value> {
        let mut dirs = vec![(RELEASES.to_owned(), self.ctx.root.join(RELEASES))];
        dirs.extend(self.project.stores.iter().filter_map(|url| {
            let dir = url.strip_prefix("file:")?;
            Some(((*url).to_owned(), local_dir(&self.ctx.home, dir)))
        }));
        newest(dirs.iter().flat_map(|(place, dir)| ids(dir).into_iter().map(move |id| (id, format!("in {place}")))))
    }

    fn selectors(&self) -> Vec<Value> {
        let word = |word: &str, meaning: &str| (word.to_owned(), meaning.to_owned());
        let mut all = vec![word("latest", "the newest release"), word("HEAD", "that of this commit")];
        all.extend(
            self.project.envs.iter().map(|env| (format!("@{}", env.name), format!("what runs in {}", env.name))),
        );
        all.extend(self.releases());
        all
    }

    /// The releases for a rollback, as far as known locally.
    fn way_back(&self) -> Vec<Value> {
        let mut all = vec![("previous".to_owned(), "what was live before".to_owned())];
        let installed = self.envs_meant().into_iter().flat_map(|env| {
            let dirs = env.targets.iter().filter_map(|url| url.strip_prefix("file:"));
            let ids = dirs.flat_map(|dir| ids(&local_dir(&self.ctx.home, dir).join("releases")));
            ids.map(|id| (id, format!("installed in {}", env.name))).collect::<Vec<_>>()
        });
        all.extend(newest(
            installed.chain(self.releases().into_iter().filter_map(|(id, place)| Some((id.parse().ok()?, place)))),
        ));
        all
    }
}

/// The releases in a directory, by name only.
fn ids(dir: &Path) -> Vec<ReleaseId> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Each id once, newest first.
fn newest(found: impl Iterator<Item = (ReleaseId, String)>) -> Vec<Value> {
    let mut each: BTreeMap<ReleaseId, String> = BTreeMap::new();
    for (id, place) in found {
        each.entry(id).or_insert(place);
    }
    each.into_iter().rev().take(RELEASES_SHOWN).map(|(id, place)| (id.to_string(), place)).collect()
}
