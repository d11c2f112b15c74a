//! The variables of this process, including those that are not UTF-8.

use gangplank_model::error::{CliError, usage};
use std::collections::BTreeMap;

/// Variables that the engine reads, beside CircleCI's own.
pub mod var {
    /// The base of relative `file:` URLs, if it is not the workspace root. Set for local jobs that run in their own
    /// checkout.
    pub const HOME: &str = "GANGPLANK_HOME";
    /// Directory of the CircleCI workspace, when it is not `/tmp/workspace`.
    pub const WORKSPACE: &str = "GANGPLANK_WORKSPACE";
    /// The directory that replaces all buckets, for local runs.
    pub const BUCKETS: &str = "GANGPLANK_BUCKETS";
    /// The Cargo features that this process was compiled with on request.
    pub const FEATURES: &str = "GANGPLANK_XTASK_FEATURES";
    /// The key that signs releases, or the path of its file. Only `sign` reads it, and no code of others may.
    pub const SIGNING_KEY: &str = "GANGPLANK_SIGNING_KEY";
    /// Cargo's own `term.quiet`: set by `--quiet`.
    pub const CARGO_QUIET: &str = "CARGO_TERM_QUIET";
    /// The time limit in seconds of a request to CircleCI's API or a bucket with all its attempts; 120 by default.
    pub const API_DEADLINE: &str = "GANGPLANK_API_DEADLINE";
}

/// Prefixes of the variables that the engine reads.
const READ_PREFIXES: &[&str] = &["AWS_", "AZURE_", "CIRCLE_", "GANGPLANK_", "GCE_METADATA_", "GOOGLE_", "S3_"];
/// Other variables that the engine reads, in capitals; those of proxies may be lower-case.
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

/// Variables set by `cargo run` that would make another cargo rebuild everything, and the features of this process,
/// which are not those of an xtask that a job, a check or a test starts.
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
            var::FEATURES,
        ]
        .contains(&name)
}

/// The variables of a process.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Variables that are UTF-8.
    pub vars: BTreeMap<String, String>,
    /// Other variables, with replacement characters.
    pub not_utf8: BTreeMap<String, String>,
}

impl Environment {
    /// The environment of this process. Variables whose name is not UTF-8 are omitted.
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

/// The error for a variable that is not UTF-8, which would otherwise count as unset.
pub(crate) fn not_utf8(name: &str) -> CliError {
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
    fn is_cargos_own_accepts_only_variables_set_by_cargo() {
        for (name, own) in [
            ("CARGO_PKG_NAME", true),
            ("CARGO", true),
            ("GANGPLANK_XTASK_FEATURES", true),
            ("CARGO_HOME", false),
            ("CARGO_TARGET_DIR", false),
            ("RUSTFLAGS", false),
        ] {
            assert_eq!(is_cargos_own(name), own, "{name}");
        }
    }
}
