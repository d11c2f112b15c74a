//! The outside, one module per external system.

pub mod circleci;
pub mod context;
pub mod git;
pub mod http;
pub mod machine;
pub mod process;
