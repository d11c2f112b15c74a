//! End-to-end tests, one binary. `project` is the builder that they are written with.

mod project;

mod bad_input;
mod bundle;
mod ci;
mod cli;
mod conformance;
mod edges;
mod histories;
mod kill;
mod loopback;
mod parts;
mod service;
mod store;
mod story;
mod target;
mod tidy;
