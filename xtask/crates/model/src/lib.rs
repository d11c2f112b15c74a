//! Values and decisions of Gangplank. Nothing here touches a file, a process, the clock, the environment or the network.

pub mod ci;
pub mod entries;
pub mod error;
pub mod event;
pub mod frame;
pub mod history;
pub mod hook;
pub mod owner;
pub mod plan;
pub mod project;
pub mod release;
pub mod script;
pub mod sequence;
pub mod service;
pub mod shell;
pub mod slug;
pub mod state;
pub mod store_url;
