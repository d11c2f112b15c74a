//! Edits cargo's files, preserving comments, order and line ends.

use crate::options::Engine;
use gangplank_model::error::{Kind, Result, WithHint, usage};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value, value};

/// The alias `cargo xtask` for a standalone package.
const ALIAS: &str = "run --quiet --manifest-path xtask/Cargo.toml --";

/// Crates that dominate the time of a build or deploy, with the optimisation that they need in a dev profile. At level 2
/// libdeflate is as fast as at level 1 and takes a quarter longer to compile.
pub const HOT: &[(&str, i64)] = &[
    ("sha2", 3),
    ("flate2", 3),
    ("miniz_oxide", 3),
    ("libdeflate-sys", 1),
    ("libdeflater", 3),
    ("memchr", 3),
    ("zstd-safe", 3),
    ("zstd-sys", 3),
    ("rustls-pki-types", 3),
];

/// Parses TOML, edits it, and returns it with its original line ends.
fn edit(name: &str, text: &str, change: impl FnOnce(&mut DocumentMut) -> Result<()>) -> Result<String> {
    let windows = text.contains("\r\n");
    let mut document: DocumentMut = text.replace("\r\n", "\n").parse().with_hint(
        Kind::Usage,
        || format!("cannot read {name}"),
        || "fix it first: `cargo metadata --no-deps` prints the error".into(),
    )?;
    change(&mut document)?;
    let text = document.to_string();
    Ok(if windows { text.replace('\n', "\r\n") } else { text })
}

fn table<'a>(of: &'a mut dyn TableLike, name: &str) -> Result<&'a mut dyn TableLike> {
    let entry = of.entry(name).or_insert_with(|| {
        let mut table = Table::new();
        // Print only the nested tables, not `[profile]` itself.
        table.set_implicit(true);
        Item::Table(table)
    });
    match entry.as_table_like_mut() {
        Some(table) => Ok(table),
        None => usage(format!("`{name}` is not a table")).hint("fix Cargo.toml first").err(),
    }
}

/// Appends a text to an array in the array's style.
fn push(array: &mut Array, text: &str) {
    if array.iter().any(|it| it.as_str() == Some(text)) {
        return;
    }
    // Keep one item per line.
    let decor = array.iter().last().map(|last| last.decor().clone());
    let several = array.len() > 1 || array.trailing().as_str().is_some_and(|it| it.contains('\n'));
    let mut item = Value::from(text);
    match decor.filter(|_| several) {
        Some(decor) => {
            // Keep a trailing comment with the last item.
            let prefix = decor.prefix().and_then(|it| it.as_str()).unwrap_or(" ").to_owned();
            let prefix = prefix.rsplit_once('\n').map_or(prefix.clone(), |(_, indent)| format!("\n{indent}"));
            let after = array.trailing().as_str().unwrap_or_default().to_owned();
            let comment = after.trim_end();
            item.decor_mut().set_prefix(format!("{comment}{prefix}"));
            array.set_trailing(&after[comment.len()..]);
            array.push_formatted(item);
        }
        None => array.push(item),
    }
}

fn array<'a>(of: &'a mut dyn TableLike, name: &str) -> Result<&'a mut Array> {
    match of.entry(name).or_insert_with(|| value(Array::new())).as_array_mut() {
        Some(array) => Ok(array),
        None => usage(format!("`{name}` is not an array")).hint("fix Cargo.toml first").err(),
    }
}

/// The crates as members of a workspace.
const MEMBERS: &str = "xtask/crates/*";

/// The root manifest of a new project, from this repository's. Cargo warns of profiles of crates that are not there, such
/// as those in the directories `left_out`.
pub fn workspace_of_new(text: &str, vendored: bool, left_out: &[&str]) -> Result<String> {
    edit("Cargo.toml", text, |document| {
        let packages = table(table(table(document.as_table_mut(), "profile")?, "dev")?, "package")?;
        for dir in left_out {
            packages.remove(&format!("gangplank-{dir}"));
        }
        let workspace = table(document.as_table_mut(), "workspace")?;
        if !vendored {
            array(workspace, "members")?.retain(|member| member.as_str() != Some(MEMBERS));
        }
        // The owner chooses a license.
        table(workspace, "package")?.remove("license");
        Ok(())
    })
}

/// Directories that an adoption and the first build create in the root.
const OURS: &[&str] = &["xtask", ".cargo", ".circleci", "target"];

/// The root manifest of a project that gets an xtask; `None` if it needs no change. The xtask is a workspace of its
/// own, so `members` that match our directories need an exception.
pub fn without_xtask(text: &str) -> Result<Option<String>> {
    let edited = edit("Cargo.toml", text, |document| {
        if !document.contains_key("workspace") {
            return Ok(());
        }
        let workspace = table(document.as_table_mut(), "workspace")?;
        let members = workspace.get("members").and_then(Item::as_array).into_iter().flatten();
        let patterns: Vec<_> = members.filter_map(Value::as_str).filter_map(member_pattern).collect();
        for dir in OURS {
            let paths = [(*dir).to_owned(), format!("{dir}/crates")];
            if patterns.iter().any(|pattern| paths.iter().any(|path| pattern.matches(path))) {
                push(array(workspace, "exclude")?, dir);
            }
        }
        Ok(())
    })?;
    Ok((edited != text).then_some(edited))
}

fn member_pattern(member: &str) -> Option<glob::Pattern> {
    glob::Pattern::new(member.trim_start_matches("./").trim_end_matches('/')).ok()
}

/// Makes an xtask a workspace of its own, with its own lock file and the profiles that a member cannot set.
fn stand_alone(document: &mut DocumentMut, vendored: bool) -> Result<()> {
    let workspace = table(document.as_table_mut(), "workspace")?;
    let mut members = Array::new();
    if vendored {
        members.push("crates/*");
    }
    workspace.insert("members", value(members));
    workspace.insert("resolver", value("3"));
    let dev = table(table(document.as_table_mut(), "profile")?, "dev")?;
    // A panic prints its line without it.
    dev.insert("debug", value(false));
    let packages = table(dev, "package")?;
    let mut others = toml_edit::InlineTable::new();
    others.insert("debug", false.into());
    others.insert("codegen-units", 1.into());
    packages.insert("*", value(others));
    for (name, opt_level) in HOT {
        let mut level = toml_edit::InlineTable::new();
        level.insert("opt-level", (*opt_level).into());
        packages.insert(name, value(level));
    }
    // A vendored engine is a member, so `*` does not apply. Few units cost less CPU, as does a compile without data for
    // the next one, and few people change the engine.
    dev.insert("codegen-units", value(1));
    dev.insert("incremental", value(false));
    table(dev, "build-override")?.insert("codegen-units", value(1));
    Ok(())
}

/// The manifest of the sample app under another name.
pub fn app(text: &str, name: &str) -> Result<String> {
    edit("app/Cargo.toml", text, |document| {
        let package = table(document.as_table_mut(), "package")?;
        package.insert("name", value(name));
        package.insert("description", value("The service that this workspace ships."));
        package.remove("license");
        Ok(())
    })
}

/// The manifest of an xtask. Inherited values are inlined, because another workspace may lack them.
pub fn xtask(text: &str, engine: &Engine, has_buckets: bool, is_new: bool) -> Result<String> {
    edit("xtask/Cargo.toml", text, |document| {
        own(table(document.as_table_mut(), "package")?, &[("version", "0.1.0")]);
        table(document.as_table_mut(), "package")?.remove("license");
        let mut from = toml_edit::InlineTable::new();
        match engine {
            Engine::Vendor => drop(from.insert("path", "crates/gangplank".into())),
            Engine::Version(version) => drop(from.insert("version", version.into())),
            Engine::Path(dir) => drop(from.insert("path", dir.display().to_string().into())),
            Engine::Git { url, tag } => {
                from.insert("git", url.into());
                from.insert("tag", tag.into());
            }
        }
        table(document.as_table_mut(), "dependencies")?.insert("gangplank", value(from));
        if !is_new {
            // The lints belong to the workspace of a new project, and the test to its app.
            document.remove("lints");
            document.remove("test");
            stand_alone(document, *engine == Engine::Vendor)?;
        }
        if has_buckets {
            let mut default = Array::new();
            default.push("s3");
            table(document.as_table_mut(), "features")?.insert("default", value(default));
        }
        Ok(())
    })
}

/// The manifest of a vendored crate, without what only this repository uses, its lints and the dependencies of its tests,
/// and without the crates in the directories `left_out`.
pub fn vendored(path: &str, text: &str, left_out: &[&str]) -> Result<String> {
    edit(path, text, |document| {
        document.remove("lints");
        document.remove("dev-dependencies");
        for name in left_out.iter().map(|dir| format!("gangplank-{dir}")) {
            if table(document.as_table_mut(), "dependencies")?.remove(&name).is_some() {
                without_crate(document, &name)?;
            }
        }
        Ok(())
    })
}

/// Removes a crate from the features. They stay, even empty: the project's own manifest may name them. The code asks for
/// the crate by the feature that cargo makes of it, so rustc must know the name.
fn without_crate(document: &mut DocumentMut, name: &str) -> Result<()> {
    for (_, of) in table(document.as_table_mut(), "features")?.iter_mut() {
        if let Some(of) = of.as_array_mut() {
            of.retain(|item| item.as_str().is_none_or(|text| text.split(['/', '?']).next() != Some(name)));
        }
    }
    let lints = table(table(document.as_table_mut(), "lints")?, "rust")?;
    let unexpected = table(lints, "unexpected_cfgs")?;
    unexpected.insert("level", value("warn"));
    push(array(unexpected, "check-cfg")?, &format!("cfg(feature, values(\"{name}\"))"));
    Ok(())
}

/// Inlines inherited values.
fn own(package: &mut dyn TableLike, more: &[(&str, &str)]) {
    let known = [("edition", "2024"), ("rust-version", env!("CARGO_PKG_RUST_VERSION"))];
    for (key, text) in known.iter().chain(more) {
        if package.get(key).is_some_and(|item| !item.is_str()) {
            package.insert(key, value(*text));
        }
    }
    if package.get("publish").is_some_and(|item| !item.is_bool()) {
        package.insert("publish", value(false));
    }
}

/// Whether a manifest has a feature among its default ones.
pub fn has_default(text: &str, feature: &str) -> bool {
    let document: Option<DocumentMut> = text.parse().ok();
    let default = document.as_ref().and_then(|it| it.get("features")?.get("default")?.as_array());
    default.into_iter().flatten().any(|it| it.as_str() == Some(feature))
}

/// The version in a manifest.
pub fn version(text: &str) -> Option<String> {
    let document: DocumentMut = text.parse().ok()?;
    let version = document.get("package")?.get("version")?;
    // In this repository it is inherited from the workspace.
    Some(version.as_str().unwrap_or(env!("CARGO_PKG_VERSION")).to_owned())
}

/// The channel of a `rust-toolchain.toml` or one-line `rust-toolchain`, and whether it installs targets.
pub fn toolchain(text: &str) -> (Option<String>, bool) {
    let Some(toolchain) = text.parse::<DocumentMut>().ok().and_then(|it| it.get("toolchain").cloned()) else {
        let line = text.trim();
        let is_channel = !line.is_empty() && !line.contains(|it: char| it.is_whitespace() || "[]=/\"".contains(it));
        return (is_channel.then(|| line.to_owned()), false);
    };
    let channel = toolchain.get("channel").and_then(Item::as_str).map(str::to_owned);
    (channel, toolchain.get("targets").and_then(Item::as_array).is_some_and(|targets| !targets.is_empty()))
}

/// `[build] target` of a cargo configuration; the first of several.
pub fn build_target(text: &str) -> Result<Option<String>> {
    let mut found = None;
    edit(".cargo/config.toml", text, |document| {
        let target = document.get("build").and_then(|build| build.get("target"));
        let first = target.and_then(|target| target.as_str().or_else(|| target.get(0)?.as_str()));
        found = first.map(str::to_owned);
        Ok(())
    })?;
    Ok(found)
}

/// `.cargo/config.toml` with the alias; `None` if it has it.
pub fn with_alias(text: &str) -> Result<Option<String>> {
    let mut added = true;
    let edited = edit(".cargo/config.toml", text, |document| {
        if !document.contains_key("alias") {
            document.insert("alias", Item::Table(Table::new()));
        }
        let alias = table(document.as_table_mut(), "alias")?;
        match alias.get("xtask") {
            None => drop(alias.insert("xtask", value(ALIAS))),
            Some(item) if item.as_str() == Some(ALIAS) => added = false,
            Some(item) => {
                return usage(format!(".cargo/config.toml already has an alias `xtask`: {}", item.to_string().trim()))
                    .hint("rename it, then run the same command again")
                    .err();
            }
        }
        Ok(())
    })?;
    Ok(added.then_some(edited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclude_names_the_xtask_where_a_pattern_of_members_covers_it() {
        for (before, after) in [
            ("[package]\nname = \"a\"\n", None),
            ("[workspace]\n", None),
            ("[workspace]\nmembers = [\"a\", \"crates/*\"]\n", None),
            (
                "[workspace]\nmembers = [\"*\"] # all\n",
                Some("[\"*\"] # all\nexclude = [\"xtask\", \".cargo\", \".circleci\", \"target\"]\n"),
            ),
            ("[workspace]\nmembers = [\"./x*/\"]\n", Some("exclude = [\"xtask\"]\n")),
            (
                "[workspace]\nmembers = [\"x*\"]\nexclude = [\n  \"old\", # kept\n]\n",
                Some("exclude = [\n  \"old\", # kept\n  \"xtask\",\n]\n"),
            ),
            ("[workspace]\r\nmembers = [\"x*\"]\r\n", Some("members = [\"x*\"]\r\nexclude = [\"xtask\"]\r\n")),
            ("[workspace]\nmembers = [\"*/*\"]\n", Some("exclude = [\"xtask\", ")),
            ("[workspace]\nmembers = [\"x*\"]\nexclude = [\"xtask\"]\n", None),
        ] {
            let edited = without_xtask(before).unwrap();
            assert_eq!(edited.is_some(), after.is_some(), "{before}\nbecame\n{edited:?}");
            let edited = edited.unwrap_or_default();
            assert!(edited.contains(after.unwrap_or_default()), "{before}\nbecame\n{edited}");
        }
    }

    #[test]
    fn xtask_of_an_app_is_a_workspace_with_its_own_profiles() {
        let ours = crate::tree::template("xtask/Cargo.toml").unwrap();
        let made = |engine: &Engine, is_new| xtask(ours, engine, false, is_new).unwrap();
        let vendored = made(&Engine::Vendor, false);
        assert!(vendored.contains("[workspace]\nmembers = [\"crates/*\"]\nresolver = \"3\"\n"), "{vendored}");
        assert_eq!(vendored.matches("opt-level = ").count(), HOT.len(), "{vendored}");
        assert!(
            vendored.contains("[profile.dev]\ndebug = false\ncodegen-units = 1\nincremental = false\n"),
            "{vendored}"
        );
        assert!(vendored.contains("[profile.dev.build-override]\ncodegen-units = 1\n"), "{vendored}");
        assert!(vendored.contains("\"*\" = { debug = false, codegen-units = 1 }"), "{vendored}");
        assert!(made(&Engine::Path("/g".into()), false).contains("members = []"));
        assert!(!made(&Engine::Vendor, true).contains("[workspace]"));
        // This repository optimises the same crates.
        let ours = crate::tree::template("Cargo.toml").unwrap();
        for (name, opt_level) in HOT {
            assert!(ours.contains(&format!("\n{name} = {{ opt-level = {opt_level} }}")), "{name}");
        }
        assert_eq!(ours.matches("= { opt-level = ").count(), HOT.len());
    }

    #[test]
    fn toolchain_files_of_both_forms_are_read() {
        for (text, channel, installs) in [
            ("[toolchain]\nchannel = \"1.70.0\"\ncomponents = [\"clippy\"]\n", Some("1.70.0"), false),
            ("[toolchain]\nchannel = \"stable\"\ntargets = [\"wasm32-wasip1\"]\n", Some("stable"), true),
            ("[toolchain]\npath = \"/opt/rust\"\n", None, false),
            ("1.70.0\n", Some("1.70.0"), false),
            ("nightly-2023-05-05", Some("nightly-2023-05-05"), false),
            ("", None, false),
            ("what is this", None, false),
        ] {
            let (found, targets) = toolchain(text);
            assert_eq!((found.as_deref(), targets), (channel, installs), "{text}");
        }
    }

    #[test]
    fn target_of_a_configuration_is_read() {
        for (text, want) in [
            ("", None),
            ("[build]\ntarget-dir = \"out\"\n", None),
            ("[build]\ntarget = \"x86_64-unknown-linux-musl\"\n", Some("x86_64-unknown-linux-musl")),
            ("build.target = [\"a-b-c\", \"d-e-f\"]\n", Some("a-b-c")),
        ] {
            assert_eq!(build_target(text).unwrap().as_deref(), want, "{text}");
        }
        assert!(build_target("[build\n").is_err());
    }

    #[test]
    fn vendored_crate_inherits_nothing() {
        let ours = include_str!("../../gangplank/Cargo.toml");
        let text = vendored("gangplank/Cargo.toml", ours, &[]).unwrap();
        assert!(!text.contains("workspace") && !text.contains("tempfile"), "{text}");
        assert!(text.contains("\ns3 = [\"gangplank-bucket\", \"gangplank-local-ci?/s3\"]\n"), "{text}");
        let text = vendored("gangplank/Cargo.toml", ours, &["local-ci", "html", "new"]).unwrap();
        assert!(text.contains("\nlocal-ci = []\n") && text.contains("\ns3 = [\"gangplank-bucket\"]\n"), "{text}");
        let known =
            r#"check-cfg = ['cfg(feature, values("gangplank-local-ci"))', 'cfg(feature, values("gangplank-html"))']"#;
        assert!(text.contains(known), "{text}");
        assert_eq!(version(&text).as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }
}
