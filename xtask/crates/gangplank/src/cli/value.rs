//! Parsers of the values of arguments.

use gangplank_model::release::id::{Expected, Selector};

/// Parses a release.
pub fn selector(text: &str) -> Result<Selector, String> {
    text.parse().map_err(with_hint)
}

/// Parses a release, or that there is none.
pub fn expected(text: &str) -> Result<Expected, String> {
    text.parse().map_err(with_hint)
}

/// clap prints an error without its hint, so the hint becomes part of the text.
#[allow(clippy::needless_pass_by_value, reason = "as `map_err` has it")]
pub fn with_hint(error: anyhow::Error) -> String {
    format!("{error}\nhint: {}", gangplank_model::error::hint_of(&error).unwrap_or("see --help"))
}
