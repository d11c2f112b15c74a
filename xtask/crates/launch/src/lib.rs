//! Runs a project's xtask in a CircleCI job without compiling it.
//!
//! A deploy or rollback on request runs in a workflow of its own, so it cannot get the compiled program from a
//! workspace. It must not wait minutes for a compiler either. So the job `check` of each pipeline stores its program as
//! an artifact, named by what it was compiled from, and jobs on request run this crate instead of `cargo xtask`: `cargo
//! run --manifest-path xtask/crates/launch/Cargo.toml -- rollback prod`.
//!
//! - `inputs`: what an xtask is compiled from, as one digest: git's objects, the compiler, cargo's settings.
//! - `circleci`: finds the artifact of these inputs among the newest pipelines of the branch.
//! - `curl`: one HTTPS request by the program curl, which every CircleCI image has.
//! - `program`: downloads, verifies, unpacks and runs it.
//!
//! Whatever fails on the way, the launcher prints the reason and runs `cargo xtask` instead.
//!
//! The program is as trusted as a release: both come from a successful job of a pipeline of the deployed branch.
//! CircleCI's cache is no place for it, because a job of any branch can write a key that the deployed branch restores.

pub mod circleci;
pub mod curl;
pub mod inputs;
pub mod program;
pub mod sources;
#[cfg(test)]
mod testing;
