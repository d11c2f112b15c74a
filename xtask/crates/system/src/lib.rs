//! The outside, one module per external system.
//!
//! - [`context`]: the environment, the clock, signals, events, secrets; every command receives a [`context::Context`].
//! - [`process`]: other programs, with limits on time and output.
//! - [`git`], [`http`], [`circleci`]: questions to git, the HTTP client with its rules for tokens and retries, CircleCI's
//!   API.
//! - [`webhook`]: signed documents for those who are notified.
//! - [`machine`]: this host, process and person; whether the owner of a lock still runs.

pub mod circleci;
pub mod context;
pub mod git;
pub mod http;
pub mod machine;
pub mod process;
pub mod shell;
pub mod webhook;
