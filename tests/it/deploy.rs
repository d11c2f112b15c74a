//! Deploys, from the first to a rollback, and all that goes wrong in between.

pub mod growth;
pub mod health;
pub mod histories;
pub mod hooks;
pub mod hosts;
pub mod kill;
pub mod live;
pub mod lock;
pub mod notify;
pub mod promotion;
pub mod revert;
#[cfg(feature = "s3")]
pub mod site;
pub mod story;
pub mod variables;
