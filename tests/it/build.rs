//! Builds: the same commit gives the same bytes, and nothing else gets in.

pub mod bundle;
pub mod checkout;
pub mod repair;
