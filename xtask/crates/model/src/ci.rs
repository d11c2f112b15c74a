//! The pipeline of a project as a value, and how it is written as YAML.

pub mod pipeline;
pub mod render;
pub mod workflows;
