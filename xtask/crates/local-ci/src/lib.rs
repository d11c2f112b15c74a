//! `ci run`: the pipeline of a project on this machine.
//!
//! - [`run::run`] runs each job in a clean checkout of HEAD, with CircleCI's variables, without Docker.
//! - [`run::cloud::Cloud`] is CircleCI as jobs know it. [`run::numbers`] has no API, which the handoffs by workspace and
//!   bucket do not need; `gangplank-loopback` plays it.

pub mod run;
mod workspace;
