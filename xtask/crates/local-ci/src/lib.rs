//! `ci run`: the pipeline on this machine, with a CircleCI on loopback behind it.

pub mod loopback;
pub mod run;
mod workspace;
