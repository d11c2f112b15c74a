//! `ci run`: the pipeline of a project on this machine, with a mock of CircleCI on loopback.
//!
//! - [`run::run`] runs each job in a clean checkout of HEAD, with CircleCI's variables, without Docker.
//! - [`loopback`] is the mock: the routes of CircleCI's API that our client uses, over the state that a
//!   [`loopback::MockState`] holds. A [`loopback::Hook`] adds faults.
//! - `run::ceph` starts a Ceph for the buckets of a project, if it is installed.

pub mod loopback;
pub mod run;
mod workspace;
