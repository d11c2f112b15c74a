//! From a commit to production on CircleCI, without shell scripts.
//!
//! A project has two rooms: its app, and an `xtask` whose `main.rs` states the pipeline as constants and calls [`main`].
//! This crate is the engine behind it. The tour below follows a release from a commit to a host, and says where to look
//! when you want to use, or change, what happens there.
//!
//! # What a project states
//!
//! A [`Project`]: what is built, where it is handed over, and the envs where it goes live. All of it is constants, so the
//! compiler checks it and there is no file format to learn.
//!
//! ```
//! use gangplank::prelude::*;
//!
//! const PROJECT: Project = Project {
//!     app: App { name: "shop", packages: &["shop"], include: &["shop/static"], ..App::DEFAULT },
//!     stores: &["circleci:workspace", "file:target/store"],
//!     envs: &[Env {
//!         name: "prod",
//!         targets: &["ssh://deploy@web1.example.com/srv/shop"],
//!         vars: &[("PORT", "8080")],
//!         service: Service::Pidfile { run: &["bin/shop"], stop_timeout: Duration::from_secs(15) },
//!         health: Health::new(Check::Http { url: "http://{host}:8080/version", status: 200, body: Some("{commit}") }),
//!         approval: true,
//!         ..Env::DEFAULT
//!     }],
//!     ci: Ci::DEFAULT,
//! };
//! # PROJECT.validate().unwrap();
//! // fn main() -> std::process::ExitCode { gangplank::main(&PROJECT) }
//! ```
//!
//! What it does of its own around a switch is a [`hook`]; stores, targets, commands and steps of a build of its own are
//! [`extend::Extensions`], and [`main_with`] takes them.
//!
//! # From a commit to a release
//!
//! [`build`](mod@build) compiles the app and packs it with what is included. The result is a [`release::Release`]: a
//! directory with a bundle, a [`Manifest`](release::manifest::Manifest) and digests. There are two ways to get one,
//! [`seal`](release::Release::seal) and [`open`](release::Release::open), and both hash every byte: whoever has a
//! `&Release` needs to check nothing. The same commit gives the same bytes on every machine, under the same
//! [`ReleaseId`](release::id::ReleaseId); people point at one by a [`Selector`](release::id::Selector).
//!
//! # From job to job
//!
//! A [`Store`](store::Store) keeps whole releases and never replaces one: a directory, CircleCI's workspace, its artifacts,
//! or a bucket. [`handoff`] has the verbs. A [`Catalog`](deploy::resolve::Catalog) is the stores of a project opened, and
//! finds what somebody meant.
//!
//! # Onto the hosts
//!
//! A [`Target`](host::Target) holds many releases and makes one of them live. There is one,
//! [`HostTarget`](host::directory::HostTarget), for this machine, for ssh and for what other programs reach: each says the same
//! POSIX scripts, which [`host::script`] writes as text.
//!
//! [`deploy`](mod@deploy) reads the [`State`](deploy::state::State) of the targets, [`plan`](deploy::plan)s the steps that
//! are missing, and [`apply`](deploy::apply) carries them out: install everywhere, switch, restart, ask for health, and go
//! back where that fails. All decisions are in `plan`, which touches nothing. What was live is what the
//! [`History`](deploy::history::History) of a target says; no clock and no count of directories decides anything.
//!
//! # On CircleCI, and without it
//!
//! [`ci::pipeline`] is the pipeline as one value. [`ci::render`] writes it as YAML, [`ci::run`] carries it out on this
//! machine, with a CircleCI of its own behind it ([`ci::loopback`]). [`ci::lint`] finds faults in configs, ours or not.
//!
//! # What everything is given, and gives
//!
//! - A [`Context`]: the environment, the programs, the clock, the way out for events. Nothing else looks outside, so a test
//!   decides what a command sees.
//! - [`error::Result`]: errors are `anyhow`, with a [`CliError`](error::CliError) in the chain that carries the exit code and
//!   the hint.
//! - [`event::Event`]s while it works, and one answer at the end. Nothing below this file prints.
//!
//! # To change it
//!
//! The modules are in layers, in the order in which `lib.rs` has them, and each knows only what comes before it there.
//! ARCHITECTURE.md in the repository has the map, the rules, the reasons, and where to add what; `tests/it/tidy.rs` holds
//! the rules.

mod approval;
mod cli;
mod commands;
mod complete;
mod doctor;
pub mod extend;
#[cfg(feature = "man")]
mod man;
pub mod prelude;
pub mod program;
mod report;
mod run;
mod test;

pub use crate::run::{main, main_with};
