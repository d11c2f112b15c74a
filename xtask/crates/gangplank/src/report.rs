//! All output: results on stdout, everything else on stderr.

mod checks;
mod doctor;
#[cfg(feature = "gangplank-lint")]
mod findings;
pub(crate) mod json;
#[cfg(feature = "gangplank-local-ci")]
mod local_ci;
mod progress_draw;
mod progress_table;
mod setup;
mod spinner;
mod steps;
pub(crate) mod style;
pub(crate) mod term;
pub(crate) mod text;
