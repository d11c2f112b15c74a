//! All that is printed: answers on stdout, everything else on stderr.

mod bench;
mod board;
mod doctor;
pub mod json;
mod live;
#[cfg(feature = "new")]
mod made;
mod setup;
pub mod style;
pub mod term;
pub mod text;
