//! Finds mistakes in `.circleci/config.yml` that CircleCI's JSON schema does not.
//!
//! The schema describes keys, but not references: a workflow may run an undefined job, a job may attach a workspace
//! that no job persists, production may deploy before the build has ended, and the file is still valid. CircleCI
//! reports such mistakes minutes later, or never. They are found here without network or account.
//!
//! Text in, findings out. `read` converts the YAML to a `Model`, in which commands are expanded and `requires` are
//! links; every check is a function over that model in the file of its topic, and has a line in the table of `checks`
//! and cases in `tests`. Facts known only to CircleCI (an orb's steps, a pipeline value) are assumed to be correct.
//! Errors that the schema reports are not repeated.

mod arguments;
mod checks;
mod conditions;
mod cron;
mod declared;
mod deliver;
mod expression;
mod finding;
mod images;
mod machines;
mod matrix;
mod model;
mod names;
mod paths;
mod read;
mod requires;
mod scripts;
mod template;
mod templates;
mod text;
mod workspace;
pub mod yaml;

#[cfg(test)]
mod production_tests;
#[cfg(test)]
mod seed_tests;
#[cfg(test)]
mod tests;

pub use crate::checks::{lint, lint_file};
pub use crate::finding::{Finding, Severity};
