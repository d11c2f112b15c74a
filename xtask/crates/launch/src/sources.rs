//! Whether the digest of [`crate::inputs`] covers everything that a program was compiled from.
//!
//! Three answers of cargo say what that was: `cargo metadata` has every package with its source, `PROGRAM.d` the files
//! of the packages by path, and `deps/CRATE-*.d` the variables that their code has read. What they do not say is what a
//! build script has read; cargo's own rules for rebuilds trust it too.

use crate::inputs::{Inputs, output};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Fails with the reason if a program in cargo's target directory was compiled from something else too.
pub fn check(root: &Path, cargo: &OsStr, home: &Path, program: &Path, inputs: &Inputs) -> Result<()> {
    let metadata =
        output(root, cargo, &["metadata", "--locked", "--format-version=1", "--manifest-path=xtask/Cargo.toml"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let by_path = packages(root, home, &metadata, inputs)?;
    let dir = program.parent().context("a program without a directory")?;
    let target = dir.parent().context("a program in no target directory")?;
    let rule = program.with_extension("d");
    let rule = fs::read_to_string(&rule).with_context(|| format!("cargo wrote no {}", rule.display()))?;
    files(root, target, &rule, inputs)?;
    for entry in fs::read_dir(dir.join("deps")).context("cargo wrote no deps")? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(OsStr::to_str).and_then(|stem| Some(stem.rsplit_once('-')?.0));
        if path.extension() == Some(OsStr::new("d")) && stem.is_some_and(|stem| by_path.contains(stem)) {
            variables(&fs::read_to_string(&path)?)?;
        }
    }
    Ok(())
}

/// Checks the packages that the xtask is compiled from: those by path are committed, the others lie where cargo has
/// unpacked what Cargo.lock names. Returns the crate names of those by path.
fn packages(root: &Path, home: &Path, metadata: &Value, inputs: &Inputs) -> Result<BTreeSet<String>> {
    let is_committed = |path: &Path| {
        path.strip_prefix(root).ok().and_then(Path::to_str).is_some_and(|path| inputs.files.contains(path))
    };
    let text = |value: &Value| value.as_str().map(str::to_owned).context("cargo metadata has another form");
    let workspace = PathBuf::from(text(&metadata["workspace_root"])?);
    for name in ["Cargo.lock", "Cargo.toml"] {
        ensure!(is_committed(&workspace.join(name)), "git does not have {}", workspace.join(name).display());
    }
    let all = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let manifest = root.join("xtask/Cargo.toml");
    let xtask = all.iter().find(|package| package["manifest_path"].as_str().map(Path::new) == Some(&manifest));
    let mut left = vec![xtask.context("cargo metadata has no xtask")?["id"].clone()];
    let (mut seen, mut by_path) = (BTreeSet::new(), BTreeSet::new());
    while let Some(id) = left.pop() {
        if !seen.insert(id.to_string()) {
            continue;
        }
        let package = all.iter().find(|package| package["id"] == id).context("cargo metadata lacks a package")?;
        let (name, path) = (text(&package["name"])?, PathBuf::from(text(&package["manifest_path"])?));
        if package["source"].is_null() {
            ensure!(is_committed(&path), "the package {name} lies at {}, not below xtask/", path.display());
            by_path.insert(name.replace('-', "_"));
        } else {
            let unpacked = ["registry/src", "git/checkouts"].iter().any(|dir| path.starts_with(home.join(dir)));
            ensure!(unpacked, "the package {name} lies at {}, not where cargo unpacks it", path.display());
        }
        let nodes = metadata["resolve"]["nodes"].as_array().context("cargo metadata has no graph")?;
        let node = nodes.iter().find(|node| node["id"] == id).context("cargo metadata lacks a node")?;
        left.extend(node["dependencies"].as_array().into_iter().flatten().cloned());
    }
    Ok(by_path)
}

/// Checks the files of a rule of make: each is committed, or was made by cargo in its target directory.
fn files(root: &Path, target: &Path, rule: &str, inputs: &Inputs) -> Result<()> {
    let files = sources(rule);
    ensure!(!files.is_empty(), "cargo wrote no list of sources");
    for file in files {
        let path = root.join(&file);
        let below = path.strip_prefix(root).ok().and_then(Path::to_str);
        let climbs = path.components().any(|part| part == Component::ParentDir);
        let known = below.is_some_and(|below| inputs.files.contains(below)) || path.starts_with(target);
        ensure!(
            known && !climbs,
            "the xtask is compiled from {} too, which is not committed below xtask/",
            file.display()
        );
    }
    Ok(())
}

/// The files after the colon of the first rule. A space in a path is escaped.
fn sources(rule: &str) -> Vec<PathBuf> {
    let rule = rule.lines().next().unwrap_or_default();
    let Some((_, files)) = rule.split_once(": ") else { return Vec::new() };
    let (mut found, mut path, mut escaped) = (Vec::new(), String::new(), false);
    for c in files.chars().chain([' ']) {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            ' ' if !escaped => found.extend(Some(std::mem::take(&mut path)).filter(|path| !path.is_empty())),
            c => path.push(c),
        }
        escaped = false;
    }
    found.into_iter().map(PathBuf::from).collect()
}

/// Checks the variables that the code of a crate has read: `# env-dep:NAME=VALUE`. Cargo's own are those of the
/// manifest.
fn variables(rules: &str) -> Result<()> {
    for read in rules.lines().filter_map(|line| line.strip_prefix("# env-dep:")) {
        let name = read.split('=').next().unwrap_or_default();
        if !name.starts_with("CARGO_") && name != "OUT_DIR" {
            bail!("the xtask is compiled with the variable {name}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Variables;
    use crate::testing::{checkout, commit, write};

    fn inputs(files: &[&str]) -> Inputs {
        Inputs { digest: String::new(), files: files.iter().map(|&file| file.to_owned()).collect() }
    }

    #[test]
    fn source_that_is_not_committed_is_refused() {
        let (root, target) = (Path::new("/home/me/shop"), Path::new("/home/me/shop/target"));
        let inputs = inputs(&["xtask/src/main.rs", "xtask/a b.rs", ".cargo/config.toml"]);
        for (rule, refused) in [
            ("/t/xtask: /home/me/shop/xtask/src/main.rs /home/me/shop/target/debug/build/x/out/a.rs\n", None),
            ("/t/xtask: xtask/src/main.rs .cargo/config.toml /home/me/shop/xtask/a\\ b.rs\n", None),
            ("/t/xtask: /home/me/shop/app/src/lib.rs\n", Some("/home/me/shop/app/src/lib.rs")),
            ("/t/xtask: /home/me/shop/xtask/../app/lib.rs\n", Some("/home/me/shop/xtask/../app/lib.rs")),
            ("/t/xtask: /home/me/shop/target/../../a.rs\n", Some("/home/me/shop/target/../../a.rs")),
            ("/t/xtask: /home/me/shop/xtask/ignored.rs\n", Some("/home/me/shop/xtask/ignored.rs")),
            ("/t/xtask: /home/me/a\\ b/lib.rs\n", Some("/home/me/a b/lib.rs")),
            ("", Some("no list of sources")),
            ("/t/xtask:\n", Some("no list of sources")),
        ] {
            let error = files(root, target, rule, &inputs).err().map(|e| e.to_string());
            assert_eq!(error.is_some(), refused.is_some(), "{rule}: {error:?}");
            assert!(error.unwrap_or_default().contains(refused.unwrap_or_default()), "{rule}");
        }
    }

    #[test]
    fn variable_that_the_code_reads_is_refused() {
        assert!(variables("a: b\n# env-dep:CARGO_PKG_VERSION=1\n# env-dep:OUT_DIR=/x\n").is_ok());
        let error = variables("a: b\n# env-dep:CIRCLE_SHA1=abc\n").unwrap_err().to_string();
        assert_eq!(error, "the xtask is compiled with the variable CIRCLE_SHA1");
    }

    /// Compiles the xtask of a checkout and checks it.
    fn checked(root: &Path) -> Result<()> {
        let cargo = OsStr::new("cargo");
        output(root, cargo, &["build", "--quiet", "--offline", "--package", "xtask", "--target-dir", "target"])?;
        let inputs = Inputs::of(root, &Variables::new())?;
        check(root, cargo, Path::new("/nowhere"), &root.join("target/debug/xtask"), &inputs)
    }

    #[test]
    fn packages_by_path_are_committed_below_the_xtask() {
        let dir = checkout();
        // Where the temporary directory is a link, cargo writes where it leads.
        let root = &dir.path().canonicalize().unwrap();
        checked(root).unwrap();
        let refused = |why: &str| {
            let error = checked(root).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        };
        let manifest = fs::read_to_string(root.join("xtask/Cargo.toml")).unwrap();
        write(root, "shared/src/lib.rs", "");
        write(root, "shared/Cargo.toml", "[package]\nname = \"shared\"\nedition = \"2024\"\n");
        write(root, "xtask/Cargo.toml", &format!("{manifest}shared = {{ path = \"../shared\" }}\n"));
        output(root, OsStr::new("cargo"), &["generate-lockfile", "--offline"]).unwrap();
        commit(root);
        refused("the package shared lies at");
        write(root, "xtask/Cargo.toml", &manifest);
        write(root, "xtask/src/main.rs", "fn main() { println!(\"{:?}\", option_env!(\"CIRCLE_SHA1\")) }");
        output(root, OsStr::new("cargo"), &["generate-lockfile", "--offline"]).unwrap();
        commit(root);
        refused("the xtask is compiled with the variable CIRCLE_SHA1");
        write(root, "xtask/src/main.rs", "mod generated;\nfn main() {}");
        write(root, ".gitignore", "/target\n/xtask/src/generated.rs\n");
        write(root, "xtask/src/generated.rs", "");
        commit(root);
        fs::remove_dir_all(root.join("target")).unwrap();
        refused("xtask/src/generated.rs too");
        write(root, ".gitignore", "/target\n/Cargo.lock\n");
        commit(root);
        output(root, OsStr::new("git"), &["rm", "--quiet", "--cached", "Cargo.lock"]).unwrap();
        commit(root);
        refused("git does not have");
    }

    #[test]
    fn package_that_cargo_did_not_unpack_is_refused() {
        let package = |name: &str, source: Value, path: &str| serde_json::json!({ "id": name, "name": name, "source": source, "manifest_path": path });
        let node = |id: &str, needs: &[&str]| serde_json::json!({ "id": id, "dependencies": needs });
        let registry = Value::from("registry+https://github.com/rust-lang/crates.io-index");
        let check = |path: &str| {
            let metadata = serde_json::json!({
                "workspace_root": "/r",
                "packages": [
                    package("xtask", Value::Null, "/r/xtask/Cargo.toml"),
                    package("memchr", registry.clone(), path),
                    package("app", Value::Null, "/r/app/Cargo.toml"),
                ],
                "resolve": { "nodes": [node("xtask", &["memchr"]), node("memchr", &[]), node("app", &["xtask"])] },
            });
            let inputs = inputs(&["xtask/Cargo.toml", "Cargo.toml", "Cargo.lock"]);
            packages(Path::new("/r"), Path::new("/c"), &metadata, &inputs)
        };
        let by_path = check("/c/registry/src/index.crates.io-1/memchr-2.8.3/Cargo.toml").unwrap();
        assert_eq!(by_path.into_iter().collect::<Vec<_>>(), ["xtask"], "the app is no part of it");
        let error = check("/r/vendor/memchr/Cargo.toml").unwrap_err().to_string();
        assert!(error.contains("not where cargo unpacks it"), "{error}");
        assert!(packages(Path::new("/r"), Path::new("/c"), &Value::Null, &inputs(&[])).is_err());
    }
}
