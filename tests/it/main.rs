//! End-to-end tests, one binary. `project` is the builder that they are written with.

mod project;

mod bad_input;
mod bundle;
mod ci;
mod cli;
mod edges;
mod histories;
mod kill;
mod markers;
mod parts;
mod service;
mod store;
mod story;
mod target;
mod tidy;
