//! rustc flags that keep local paths out of a binary, where panics in dependencies name them: another home directory
//! must produce the same bytes.
//!
//! Cargo reads flags from the first of these places and ignores the others: `CARGO_ENCODED_RUSTFLAGS`, `RUSTFLAGS`,
//! `target.*` of its configuration, `build.rustflags`. So our flags are added to the place already in use.
//! <https://doc.rust-lang.org/cargo/reference/config.html#buildrustflags>

use gangplank_system::context::Context;
use memchr::memmem;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ENCODED: &str = "CARGO_ENCODED_RUSTFLAGS";
const PLAIN: &str = "RUSTFLAGS";
/// Separates flags in [`ENCODED`].
const UNIT: &str = "\u{1f}";

/// Where the flags go.
#[derive(Debug, PartialEq, Eq)]
enum FlagsLocation {
    /// The value of `CARGO_ENCODED_RUSTFLAGS`.
    Variable(String),
    /// A `KEY=VALUE` for `--config`.
    Config(String),
}

/// Adds the flags to a command of cargo.
pub fn apply(ctx: &Context, command: &mut Command) {
    let Some(home) = cargo_home(ctx.vars()) else { return };
    match place(ctx.vars(), &configs(&ctx.root, &home), &home, &ctx.root.display().to_string()) {
        FlagsLocation::Variable(flags) => drop(command.env(ENCODED, flags)),
        FlagsLocation::Config(setting) => drop(command.args(["--config", &setting])),
    }
}

/// Warns of binaries that contain cargo's home nevertheless: a crate may embed its own path, and flags may be set in
/// two places.
pub(crate) fn warn_of_paths(ctx: &Context, binaries: &[PathBuf]) {
    let Some(home) = cargo_home(ctx.vars()) else { return };
    let found = |path: &&PathBuf| fs::read(path).is_ok_and(|bytes| memmem::find(&bytes, home.as_bytes()).is_some());
    for binary in binaries.iter().filter(found) {
        let name = binary.file_name().unwrap_or_default().to_string_lossy();
        ctx.warn(format!(
            "bin/{name} contains the path {home}, so another machine builds other bytes: `rustflags` in two tables of \
             .cargo/config.toml, or a crate that keeps its own path"
        ));
    }
}

fn cargo_home(vars: &BTreeMap<String, String>) -> Option<String> {
    let set = |name: &str| vars.get(name).filter(|value| !value.is_empty());
    set("CARGO_HOME").cloned().or_else(|| set("HOME").map(|home| format!("{home}/.cargo")))
}

/// The contents of all cargo configurations that apply in `root`.
fn configs(root: &Path, home: &str) -> Vec<String> {
    let dirs = root.ancestors().map(|dir| dir.join(".cargo")).chain([PathBuf::from(home)]);
    dirs.flat_map(|dir| ["config.toml", "config"].map(|name| fs::read_to_string(dir.join(name)).ok()))
        .flatten()
        .collect()
}

fn place(vars: &BTreeMap<String, String>, configs: &[String], home: &str, root: &str) -> FlagsLocation {
    // First, so that the user's own remapping takes precedence.
    let flags = [(home, "/cargo"), (root, "/workspace")].map(|(from, to)| format!("--remap-path-prefix={from}={to}"));
    let ours = flags.join(UNIT);
    if let Some(theirs) = vars.get(ENCODED) {
        let end = if theirs.is_empty() { "" } else { UNIT };
        return FlagsLocation::Variable(format!("{ours}{end}{theirs}"));
    }
    if let Some(theirs) = vars.get(PLAIN) {
        let words = theirs.split_whitespace().map(|word| format!("{UNIT}{word}"));
        return FlagsLocation::Variable(ours + &words.collect::<String>());
    }
    let per_target = |name: &String| name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS");
    let of_target = vars.keys().any(per_target) || configs.iter().any(|text| has_flags(text, "target"));
    let of_build = vars.contains_key("CARGO_BUILD_RUSTFLAGS") || configs.iter().any(|text| has_flags(text, "build"));
    // With both, `build` flags apply to targets without a table, and our flags must not disable them.
    let key = if of_target && !of_build { "target.'cfg(all())'.rustflags" } else { "build.rustflags" };
    // A JSON string is a valid TOML string.
    let flags = flags.map(|flag| serde_json::Value::from(flag).to_string());
    FlagsLocation::Config(format!("{key}=[{}]", flags.join(", ")))
}

/// Whether a cargo configuration has `rustflags` in a table, or in a subtable.
fn has_flags(config: &str, table: &str) -> bool {
    let mut path = String::new();
    config.lines().map(str::trim).any(|line| {
        if let Some(header) = line.strip_prefix('[') {
            path = format!("{}.", header.rsplit_once(']').map_or(header, |(name, _)| name).trim());
            return false;
        }
        let Some((key, _)) = line.split_once("rustflags").filter(|_| !line.starts_with('#')) else { return false };
        let key = format!("{path}{key}");
        key.strip_prefix(table).is_some_and(|rest| rest.trim_start().starts_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMAP: &str = "--remap-path-prefix=/home/ana/.cargo=/cargo\u{1f}--remap-path-prefix=/w \"x\"=/workspace";
    const LIST: &str = r#"["--remap-path-prefix=/home/ana/.cargo=/cargo", "--remap-path-prefix=/w \"x\"=/workspace"]"#;

    fn placed(vars: &[(&str, &str)], config: &str) -> FlagsLocation {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        place(&vars, &[config.to_owned()], "/home/ana/.cargo", "/w \"x\"")
    }

    #[test]
    fn flags_go_where_cargo_takes_them_from() {
        let variable = |theirs: &str| FlagsLocation::Variable(format!("{REMAP}{theirs}"));
        let (build, target) = ("build.rustflags", "target.'cfg(all())'.rustflags");
        let config = |key: &str| FlagsLocation::Config(format!("{key}={LIST}"));
        for (vars, text, want) in [
            (&[][..], "", config(build)),
            (&[("RUSTFLAGS", "-Ca=1  -C b")], "", variable("\u{1f}-Ca=1\u{1f}-C\u{1f}b")),
            (&[("RUSTFLAGS", "")], "[build]\nrustflags = \"-Ca\"\n", variable("")),
            (&[("CARGO_ENCODED_RUSTFLAGS", "-C\u{1f}a b"), ("RUSTFLAGS", "-Cc")], "", variable("\u{1f}-C\u{1f}a b")),
            (&[("CARGO_ENCODED_RUSTFLAGS", "")], "", variable("")),
            (&[("CARGO_BUILD_RUSTFLAGS", "-Ca")], "", config(build)),
            (&[("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Ca")], "", config(target)),
            (&[], "[build]\nrustflags = [\"-Ca\"]\n", config(build)),
            (&[], "[target.x86_64-unknown-linux-gnu]\nlinker = \"clang\"\nrustflags = [\"-Ca\"]\n", config(target)),
            (&[], "[target.'cfg(target_os = \"linux\")']\nrustflags = \"-Ca\"\n", config(target)),
            (&[], "[target]\nx86_64-unknown-linux-gnu.rustflags = \"-Ca\"\n", config(target)),
            (&[], "target.'cfg(unix)'.rustflags = \"-Ca\"\n", config(target)),
            (&[], "[target.a]\nlinker = \"b\"\n# rustflags = []\n", config(build)),
            (&[], "[target.a]\nrustflags = []\n[build]\nrustflags = []\n", config(build)),
        ] {
            assert_eq!(placed(vars, text), want, "{vars:?} {text}");
        }
    }

    #[test]
    fn home_of_cargo_is_a_variable_or_below_the_home() {
        let home = |vars: &[(&str, &str)]| {
            cargo_home(&vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(home(&[("HOME", "/h")]).as_deref(), Some("/h/.cargo"));
        assert_eq!(home(&[("CARGO_HOME", "/c"), ("HOME", "/h")]).as_deref(), Some("/c"));
        assert_eq!(home(&[("CARGO_HOME", "")]), None);
    }
}
