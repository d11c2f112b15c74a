//! CircleCI: one [`pipeline::Pipeline`] value, rendered as YAML or executed on this machine, and a linter for mistakes
//! that CircleCI's schema accepts.

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
