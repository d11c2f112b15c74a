//! The variables of this process, and those among them that are not text.

use gangplank_model::error::{CliError, usage};
use std::collections::BTreeMap;

/// Variables that the engine reads, beside CircleCI's own.
pub mod var {
    /// Directory that relative `file:` URLs are relative to, when it is not the workspace root. Set for jobs that run
    /// in a checkout of their own on this machine.
    pub const HOME: &str = "GANGPLANK_HOME";
    /// Directory of the CircleCI workspace, when it is not `/tmp/workspace`.
    pub const WORKSPACE: &str = "GANGPLANK_WORKSPACE";
    /// Directory that takes the place of all buckets, for runs on this machine.
    pub const BUCKETS: &str = "GANGPLANK_BUCKETS";
    /// Cargo features with which the jobs of a run here compile their xtask.
    pub const FEATURES: &str = "GANGPLANK_XTASK_FEATURES";
    /// How many seconds a question to CircleCI's API or a bucket may take with all its attempts, when it is not 120.
    pub const API_DEADLINE: &str = "GANGPLANK_API_DEADLINE";
}

/// Prefixes of the variables that the engine reads.
const READ_PREFIXES: &[&str] = &["AWS_", "AZURE_", "CIRCLE_", "GANGPLANK_", "GCE_METADATA_", "GOOGLE_", "S3_"];
/// Other variables that it reads, in capitals; those of proxies may be in small letters.
const READ: &[&str] = &[
    "ALL_PROXY",
    "API_TOKEN",
    "ARTIFACT_TOKEN",
    "CIRCLECI",
    "CURRENT_VERSION",
    "ENVIRONMENT",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IDENTITY_ENDPOINT",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "PIPELINE_NUMBER",
    "REASON",
    "STORAGE_EMULATOR_HOST",
    "TMPDIR",
    "USER",
    "XDG_RUNTIME_DIR",
];

/// Variables that `cargo run` sets for us and that would make another cargo build everything again.
pub fn is_cargos_own(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_BIN_")
        || [
            "CARGO",
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "CARGO_CRATE_NAME",
            "CARGO_PRIMARY_PACKAGE",
            "RUST_RECURSION_COUNT",
        ]
        .contains(&name)
}

/// The variables of a process.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Variables that are UTF-8.
    pub vars: BTreeMap<String, String>,
    /// Variables that are not, with replacement characters.
    pub not_utf8: BTreeMap<String, String>,
}

impl Environment {
    /// The environment of this process, without names that are not UTF-8.
    pub fn from_process() -> Self {
        let mut found = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => found.vars.insert(name, value),
                Err(value) => found.not_utf8.insert(name, value.to_string_lossy().into_owned()),
            };
        }
        found
    }

    /// A variable that the engine reads and that is not UTF-8.
    pub fn unreadable(&self) -> Option<&str> {
        self.not_utf8.keys().map(String::as_str).find(|name| is_read(name))
    }
}

fn is_read(name: &str) -> bool {
    READ_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || READ.contains(&name.to_ascii_uppercase().as_str())
}

/// The error for a variable that is not UTF-8. Without it the variable would count as unset.
pub fn not_utf8(name: &str) -> CliError {
    usage(format!("the environment variable {name} is not UTF-8"))
        .hint(format!("set it again in UTF-8, or `unset {name}`; `env | grep ^{name}= | od -c` shows its bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_of_the_engine_that_is_not_utf8_is_found() {
        for (name, found) in [
            ("CIRCLE_TOKEN", true),
            ("AZURE_STORAGE_KEY", true),
            ("https_proxy", true),
            ("PATH", true),
            ("LS_COLORS", false),
            ("MY_PATH", false),
        ] {
            let not_utf8 = BTreeMap::from([(name.to_owned(), "\u{fffd}".to_owned())]);
            let env = Environment { vars: BTreeMap::new(), not_utf8 };
            assert_eq!(env.unreadable(), found.then_some(name), "{name}");
        }
    }

    #[test]
    fn only_cargos_own_variables_are_hidden_from_cargo() {
        for (name, own) in [
            ("CARGO_PKG_NAME", true),
            ("CARGO", true),
            ("CARGO_HOME", false),
            ("CARGO_TARGET_DIR", false),
            ("RUSTFLAGS", false),
        ] {
            assert_eq!(is_cargos_own(name), own, "{name}");
        }
    }
}
