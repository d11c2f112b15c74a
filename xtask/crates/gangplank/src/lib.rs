//! From a commit to production on CircleCI, without shell scripts.
//!
//! A project has an app, and an `xtask` whose `main.rs` states the pipeline as constants and calls [`main`]. This crate is
//! the command line behind it.
//!
//! # What a project states
//!
//! A [`prelude::Project`]: what is built, which stores keep releases, and the envs where they are deployed. All of it is
//! constants, so the compiler checks it and there is no file format to learn.
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
//! A project adds hooks around a switch as functions ([`prelude::Hook`]), and stores, targets, commands and build steps
//! with [`extend`] and [`main_with`].
//!
//! # Crates below
//!
//! | crate | what |
//! | --- | --- |
//! | `gangplank-model` | values and decisions: projects, releases, histories, plans, host scripts, pipelines |
//! | `gangplank-bundle` | release bundles: packed, checked, compared, unpacked |
//! | `gangplank-system` | processes, git, HTTP, CircleCI's API, this machine |
//! | `gangplank-deploy` | stores, hosts and the commands that build, store and deploy |
//! | `gangplank-artifacts` | the store `circleci:artifacts`: feature `artifacts`, on by default |
//! | `gangplank-bucket` | stores in buckets and static sites: feature `s3` |
//! | `gangplank-sign` | `keygen`, `sign`, and envs that require a signature: feature `sign`, compiled when used |
//! | `gangplank-lint`, `gangplank-html`, `gangplank-launch` | `ci lint`, `report`, jobs on request without a compiler: features `lint`, `html`, `launch`, compiled when used |
//! | `gangplank-local-ci`, `gangplank-loopback` | `ci run`, with CircleCI's API where the handoff needs it: features `local-ci`, `loopback`, compiled when used |
//!
//! Below this crate only the output of programs, such as cargo, is printed: a command emits events
//! ([`prelude::Context`]) and returns one answer, which is rendered here as text or JSON. ARCHITECTURE.md in the
//! repository has the map and the rules.

mod approval;
mod cli;
mod commands;
mod complete;
mod doctor;
pub mod extend;
#[cfg(feature = "man")]
mod man;
mod parts;
pub mod prelude;
pub mod program;
mod report;
mod run;
mod test;

pub use crate::run::{main, main_with};
