//! Compares the Rust version of an existing project with those of the xtask and the jobs' image.

use gangplank_model::error::{Result, usage};

/// The oldest supported nightly: 1.90, the oldest Rust that compiles the engine, became the beta then.
const OLDEST_NIGHTLY: &str = "2025-08-01";

/// The Rust requirements of a project.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Name of its `rust-toolchain.toml`, and the pinned channel.
    pub pin: Option<(&'static str, String)>,
    /// Whether that file installs targets.
    pub installs_targets: bool,
    /// The highest `rust-version` of its packages.
    pub rust_version: Option<String>,
    /// `[build] target` of its cargo configuration.
    pub target: Option<String>,
}

/// The consequences.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rust {
    /// Another image for the jobs that compile.
    pub image: Option<String>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// Selects the image of the jobs; fails if it cannot compile the engine.
pub fn judge(wanted: &Wanted, default_image: &str) -> Result<Rust> {
    let (repository, has) = default_image.split_once(':').unwrap_or((default_image, ""));
    let mut rust = Rust::default();
    let mut version = wanted.rust_version.clone().filter(|version| numbers(version) > numbers(has));
    let mut reason = "`rust-version` of a package asks for it";
    if let Some((file, channel)) = &wanted.pin {
        let (is_old, is_version) = match numbers(channel) {
            Some(pinned) => (Some(pinned) < numbers(env!("CARGO_PKG_RUST_VERSION")), true),
            None => (channel.strip_prefix("nightly-").is_some_and(|day| day < OLDEST_NIGHTLY), false),
        };
        if is_old {
            return usage(format!(
                "{file} pins Rust {channel}, and the xtask needs {} or newer",
                env!("CARGO_PKG_RUST_VERSION")
            ))
            .hint(format!(
                "raise it: the app can keep its `rust-version`, and be checked with `cargo +{channel} check`"
            ))
            .err();
        }
        if is_version {
            (version, reason) = (Some(channel.clone()), "rust-toolchain pins it");
        } else {
            version = None;
            rust.notes.push(format!("{file} asks for {channel}: rustup fetches it in each job that compiles"));
        }
    }
    let image = version.and_then(|version| numbers(&version)).map(|(a, b, c)| format!("{repository}:{a}.{b}.{c}"));
    rust.image = image.filter(|image| image != default_image);
    rust.notes.extend(rust.image.iter().map(|image| format!("the jobs compile with the image {image}: {reason}")));
    if let Some(target) = wanted.target.as_ref().filter(|_| !wanted.installs_targets) {
        rust.notes.push(format!(
            "`[build] target` is {target}, for the xtask too: name it in `targets` of rust-toolchain.toml, and rustup installs it in each job"
        ));
    }
    Ok(rust)
}

/// The numbers of a version; missing ones are 0.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let numbers = (parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
    parts.next().is_none().then_some(numbers)
}

/// Fails if a program for `target` does not run on `host`: the xtask is compiled for it too.
pub fn check_runs(target: Option<&str>, host: &str) -> Result<()> {
    let Some(target) = target else { return Ok(()) };
    let machine = |triple: &str| triple.split('-').next().unwrap_or_default().to_owned();
    let system = |triple: &str| ["linux", "darwin", "windows"].into_iter().find(|it| triple.contains(it));
    if machine(target) == machine(host) && system(target).is_some() && system(target) == system(host) {
        return Ok(());
    }
    usage(format!(
        "`[build] target` of .cargo/config.toml is {target}, which does not run on {host}, and the xtask has to"
    ))
    .hint("remove that line and build with `cargo build --target`, or set CARGO_BUILD_TARGET where the app is built")
    .err()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "cimg/rust:1.94.0";

    #[test]
    fn image_follows_the_pin_and_the_rust_version() {
        for (pin, rust_version, image, notes) in [
            (None, None, None, 0),
            (None, Some("1.56"), None, 0),
            (None, Some("1.94"), None, 0),
            (None, Some("1.95"), Some("cimg/rust:1.95.0"), 1),
            (Some("1.92"), Some("1.56"), Some("cimg/rust:1.92.0"), 1),
            (Some("1.94.0"), None, None, 0),
            (Some("stable"), None, None, 1),
            (Some("stable"), Some("1.95"), None, 1),
            (Some("nightly-2025-10-01"), None, None, 1),
        ] {
            let wanted = Wanted {
                pin: pin.map(|channel| ("rust-toolchain.toml", channel.to_owned())),
                rust_version: rust_version.map(str::to_owned),
                ..Wanted::default()
            };
            let rust = judge(&wanted, IMAGE).unwrap();
            assert_eq!((rust.image.as_deref(), rust.notes.len()), (image, notes), "{wanted:?}: {rust:?}");
        }
    }

    #[test]
    fn pin_that_cannot_compile_the_engine_is_refused() {
        for channel in ["1.70.0", "1.89", "nightly-2023-05-05"] {
            let wanted = Wanted { pin: Some(("rust-toolchain", channel.into())), ..Wanted::default() };
            let error = judge(&wanted, IMAGE).unwrap_err().to_string();
            assert!(error.contains(&format!("rust-toolchain pins Rust {channel}")), "{error}");
        }
    }

    #[test]
    fn target_of_another_machine_is_refused() {
        let host = "x86_64-unknown-linux-gnu";
        for (target, runs) in [
            (None, true),
            (Some("x86_64-unknown-linux-musl"), true),
            (Some("aarch64-unknown-linux-gnu"), false),
            (Some("wasm32-unknown-unknown"), false),
            (Some("x86_64-pc-windows-gnu"), false),
        ] {
            assert_eq!(check_runs(target, host).is_ok(), runs, "{target:?}");
        }
    }
}
