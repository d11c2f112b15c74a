//! What an existing project asks of Rust and cargo: features, directories, toolchains, targets.

use super::super::git;
use super::{adopt, commit, small};
use std::fs;

#[test]
fn adopt_crate_whose_binary_wants_features_builds_with_them() {
    let (_dir, at) = small();
    let bin = |name: &str, features: &str| {
        format!("[[bin]]\nname = \"{name}\"\npath = \"src/main.rs\"\nrequired-features = [{features}]\n")
    };
    let package = fs::read_to_string(at.join("Cargo.toml")).unwrap();
    let with = |bins: &str, default: &str| {
        let features = format!("[features]\ndefault = [{default}]\nfull = [\"cli\"]\ncli = []\nfuzz = []\n");
        fs::write(at.join("Cargo.toml"), format!("{package}{bins}{features}")).unwrap();
    };
    for (bins, default, wanted, note) in [
        (bin("web", "\"cli\""), "", Some(r#"features: &["web/cli"]"#), "no binary is built without features"),
        (bin("web", "\"cli\""), "\"full\"", None, "no server found"),
        (bin("web", "") + &bin("web-fuzz", "\"fuzz\""), "", None, "bin/web-fuzz is not built"),
    ] {
        with(&bins, default);
        commit(&at);
        adopt(&at, &["--dry-run"]).ok().stdout_has(note);
        adopt(&at, &[]).ok().stdout_has(note);
        let main = fs::read_to_string(at.join("xtask/src/main.rs")).unwrap();
        assert!(wanted.map_or(!main.contains("features:"), |wanted| main.contains(wanted)), "{bins}: {main}");
        git(&at, "clean --quiet --force -d");
        git(&at, "update-ref -d HEAD");
    }
}

#[test]
fn adopt_crate_with_a_target_dir_of_its_own_ignores_both_directories() {
    let (_dir, at) = small();
    fs::create_dir(at.join(".cargo")).unwrap();
    fs::write(at.join(".cargo/config.toml"), "[build]\ntarget-dir = \"out/cargo\"\n").unwrap();
    fs::write(at.join(".gitignore"), "/out/cargo").unwrap();
    commit(&at);
    adopt(&at, &[]).ok();
    assert_eq!(fs::read_to_string(at.join(".gitignore")).unwrap(), "/out/cargo\n/target\n");
    git(&at, "add --all");
    for dir in ["target/releases", "out/cargo/release"] {
        fs::create_dir_all(at.join(dir)).unwrap();
        fs::write(at.join(dir).join("made"), "").unwrap();
    }
    assert!(!git(&at, "status --porcelain").contains("??"), "a build leaves the tree clean");
}

#[test]
fn adopt_crate_that_pins_its_toolchain_is_provided_for_or_refused() {
    let (_dir, at) = small();
    commit(&at);
    let pin = |text: &str| fs::write(at.join("rust-toolchain.toml"), format!("[toolchain]\n{text}\n")).unwrap();
    pin("channel = \"1.70.0\"");
    for more in [&["--dry-run"][..], &[]] {
        adopt(&at, more).fails(2, "rust-toolchain.toml pins Rust 1.70.0, and the xtask needs 1.90", "raise it");
    }
    fs::write(at.join("rust-toolchain"), "nightly-2023-05-05\n").unwrap();
    adopt(&at, &[]).fails(2, "rust-toolchain pins Rust nightly-2023-05-05", "raise it");
    fs::remove_file(at.join("rust-toolchain")).unwrap();
    assert!(!at.join("xtask").exists());
    pin("channel = \"1.93\"");
    adopt(&at, &[]).ok().stdout_has("the jobs compile with the image cimg/rust:1.93.0");
    let main = fs::read_to_string(at.join("xtask/src/main.rs")).unwrap();
    assert!(main.contains(r#"rust_image: "cimg/rust:1.93.0""#), "{main}");
    let config = fs::read_to_string(at.join(".circleci/config.yml")).unwrap();
    assert!(config.contains("image: cimg/rust:1.93.0") && !config.contains("cimg/rust:1.94"), "{config}");
}

#[test]
fn adopt_crate_that_builds_for_a_target_is_told_or_refused() {
    for (target, runs) in [("x86_64-unknown-linux-musl", cfg!(target_arch = "x86_64")), ("wasm32-wasip1", false)] {
        let (_dir, at) = small();
        fs::create_dir(at.join(".cargo")).unwrap();
        fs::write(at.join(".cargo/config.toml"), format!("[build]\ntarget = \"{target}\"\n")).unwrap();
        commit(&at);
        let adopted = adopt(&at, &["--dry-run"]);
        if runs {
            adopted.ok().stdout_has("rustup installs it in each job");
        } else {
            adopted.fails(2, "does not run on", "cargo build --target");
        }
    }
}
