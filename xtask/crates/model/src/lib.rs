//! Values and decisions of Gangplank: no file, process, clock, environment or network.
//!
//! - [`project`], [`hook`], [`notify`], [`site`]: what a project states.
//! - [`release`]: ids, manifests and digests. [`store_url`]: stores by their URL.
//! - [`history`], [`state`], [`owner`]: what a host reports, parsed.
//! - [`plan`]: every decision of deploy, promote, rollback and prune. [`plan::refuse`]: every refusal
//!   that depends on the snapshot; those of the command line are in the deploy crate.
//! - [`script`], [`shell`], [`frame`], [`sequence`], [`entries`], [`service`]: host scripts as text, and their output.
//! - [`ci`]: the pipeline as a value, and its YAML. [`slug`]: a project on CircleCI.
//! - [`error`], [`event`]: exit codes with hints, and what happens while a command runs. [`text`]: values for people.
//!
//! Decisions are tested with tables beside the code; rendered text by golden files in `tests/it`.

pub mod ci;
pub mod entries;
pub mod error;
pub mod event;
pub mod frame;
pub mod history;
pub mod hook;
pub mod notify;
pub mod owner;
pub mod plan;
pub mod project;
pub mod release;
pub mod script;
pub mod sequence;
pub mod service;
pub mod shell;
pub mod site;
pub mod slug;
pub mod state;
pub mod store_url;
pub mod text;
pub mod transfer;
