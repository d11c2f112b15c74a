//! End-to-end tests, one binary. `project` is the builder that they are written with, `account` its
//! project on a CircleCI.

mod account;
mod project;
mod record;
mod sample;

mod apps;
mod artifacts;
#[cfg(feature = "s3")]
mod azure;
mod bad_input;
mod bench;
#[cfg(feature = "s3")]
mod bucket;
mod bundle;
mod checkout;
mod ci;
mod cli;
mod clients;
mod conformance;
mod control;
mod doctor;
mod edges;
mod executor;
mod extending;
mod faults;
mod fleet;
mod forged;
mod full;
mod growth;
mod hazards;
mod histories;
mod hooks;
mod json;
mod kill;
mod lease;
mod live;
mod logins;
mod loopback;
mod markers;
mod new;
mod parts;
mod pointer;
mod power;
mod promotion;
mod retry;
mod service;
mod setup;
mod shell;
mod store;
mod story;
mod take_over;
mod target;
mod test_command;
mod tidy;
mod trigger;
mod variables;
mod vm;
