//! All that is printed: answers on stdout, everything else on stderr.

mod bench;
pub mod json;
pub mod style;
pub mod term;
pub mod text;
