//! All output: results on stdout, everything else on stderr.

mod doctor;
pub mod json;
mod progress_draw;
mod progress_table;
mod setup;
pub mod style;
pub mod term;
pub mod text;
