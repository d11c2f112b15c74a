//! A mock of CircleCI on loopback: the routes of API v2 and v1.1 that our client uses, for local runs and tests.
//!
//! - [`cloud::open`] serves the state of local runs to their jobs, and [`serve::serve`] to other clients: `ci loopback`.
//! - [`Loopback`] is the server, [`MockState`] the account behind it. A [`Hook`] adds faults.
//!
//! It serves a [`MockState`], which the caller fills with pushes, jobs and artifacts. There are two listeners, for the two
//! hosts of CircleCI: the API, which also serves artifact URLs, and storage, which these redirect to and which must never
//! receive a token.
//!
//! Statuses and bodies are those of CircleCI's `OpenAPI` specification, and `tests/it/ci/conformance.rs` checks them against it.
//! Texts that it does not specify are ours. Not imitated: rate limits (a [`Hook`] can add them), EDN, artifacts of public
//! projects, which need no token, and routes that our client does not use.

mod about;
mod api;
mod auth;
mod call;
pub mod cloud;
mod http;
mod log;
mod message;
mod mock_state;
mod output;
mod percent;
pub mod serve;
mod server;
mod trigger;
mod v1;
mod v2;

pub use crate::auth::Credential;
pub use crate::log::Logged;
pub use crate::message::{Body, Listener, Reply, Request};
pub use crate::mock_state::{
    Artifact, Definition, Job, JobStatus, MockState, Pipeline, Settings, Variable, Workflow, WorkflowStatus,
};
pub use crate::server::{Hook, Loopback};
