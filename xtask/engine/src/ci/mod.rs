//! CircleCI: one [`pipeline::Pipeline`] value, written as YAML or carried out on this machine, and a linter for what
//! CircleCI's schema lets through.

pub mod generate;
pub mod lint;
pub mod loopback;
pub mod pipeline;
pub mod render;
pub mod run;
mod workspace;
mod yaml;
