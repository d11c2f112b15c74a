//! The commands that write CircleCI's config, and start, follow and approve pipelines.

pub mod approve;
pub mod follow;
pub mod generate;
pub mod trigger;
