//! Building releases.

pub mod bundle;
pub mod checkout;
pub mod repair;
