//! All output: results on stdout, everything else on stderr.

#[cfg(feature = "lint")]
mod checks;
mod doctor;
pub mod json;
#[cfg(feature = "local-ci")]
mod local_ci;
mod progress_draw;
mod progress_table;
mod setup;
pub mod style;
pub mod term;
pub mod text;
