//! What a project needs for stores, targets, commands and build steps of its own: `use gangplank::extend::*;`.

pub use gangplank_bundle::release::Release;
pub use gangplank_deploy::deploy::report;
pub use gangplank_deploy::host::{Target, directory::HostTarget};
pub use gangplank_deploy::store::{Put, Store, dir::DirStore};
pub use gangplank_deploy::tool::Tool;
pub use gangplank_model::error::{CliError, Kind, failed, not_found, usage, verification};
pub use gangplank_model::release::{id::ReleaseId, manifest::Manifest};
pub use gangplank_system::context::{Input, exit};
pub use gangplank_system::shell::{Shell, cmd};
