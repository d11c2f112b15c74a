//! CircleCI: one [`pipeline::Pipeline`] value, written as YAML or carried out on this machine, and a linter for what
//! CircleCI's schema lets through.

pub mod approve;
pub mod follow;
pub mod generate;
pub mod lint;
pub mod loopback;
pub mod pipeline;
pub mod render;
pub mod run;
pub mod trigger;
pub mod workflows;
mod workspace;
pub(crate) mod yaml;
