//! What the `main.rs` of a project needs: `use gangplank::prelude::*;`.

pub use gangplank_deploy::extend::{Command, Extensions, OpenStore, OpenTarget, Step};
pub use gangplank_model::error::Result;
pub use gangplank_model::hook::{Hook, HookHost, HookPhase};
pub use gangplank_model::notify::{Notice, NoticeKind, Notify, Recipient};
pub use gangplank_model::project::{
    App, Check, Ci, Compression, Env, Handoff, Health, Manager, Project, Service, SocketActivation, Strategy, Transfer,
};
pub use gangplank_model::site::Site;
pub use gangplank_system::context::Context;
pub use std::process::ExitCode;
pub use std::time::Duration;
