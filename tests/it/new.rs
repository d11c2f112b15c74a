//! `new`: projects made from this repository, projects that get an xtask, and engines that are replaced.

mod adopt;
pub mod handoffs;
mod parts;

use crate::project::{Ran, as_somebody, program, root};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The real xtask, of this repository, with a git identity and without a terminal.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program("gangplank-new"));
    command.args(args).current_dir(root()).env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    as_somebody(&mut command);
    command.env("USER", "ana");
    command
}

pub fn ran(mut command: Command) -> Ran {
    Ran::of(&format!("{command:?}"), &mut command)
}

/// Makes a project in `dir`.
pub fn make(dir: &Path, more: &[&str]) -> Ran {
    ran(command(&[&["new", dir.to_str().unwrap()], more].concat()))
}

/// Names of what lies in a directory.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn git(dir: &Path, line: &str) -> String {
    let mut git = Command::new("git");
    git.args(line.split(' ')).current_dir(dir);
    as_somebody(&mut git);
    let output = git.output().unwrap();
    assert!(output.status.success(), "git {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn new_makes_a_whole_project_with_one_commit() {
    let dir = crate::record::tempdir();
    let shop = dir.path().join("shop");
    let made = make(&shop, &[]).ok().stdout_has("shop made").stdout_has("cargo xtask ci run");
    assert_eq!(names(dir.path()), ["shop"], "nothing lies beside it");
    assert_eq!(git(&shop, "status --porcelain"), "");
    assert_eq!(git(&shop, "rev-list --count HEAD"), "1");
    assert!(made.stdout.contains(&git(&shop, "rev-parse --short=7 HEAD")), "{}", made.stdout);
    // What it says it has made is what git knows, the engine as one.
    let with_blank = dir.path().join("a shop");
    let said = make(&with_blank, &["--name", "shop", "--json"]).ok();
    let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let files: Vec<_> = said["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    let known = git(&with_blank, "ls-files");
    let mut known: Vec<_> = known.lines().filter(|path| !path.starts_with("xtask/crates/")).collect();
    known.push("xtask/crates/");
    known.sort_unstable();
    assert_eq!(files, known);
    assert_eq!(said["next"][0], format!("cd '{}'", with_blank.display()));
    assert!(made.stdout.contains(&format!("{} files and the engine", files.len() - 1)), "{}", made.stdout);
    fs::remove_dir_all(with_blank).unwrap();
    for (path, piece) in [
        ("Cargo.toml", r#"members = ["app", "xtask", "xtask/crates/*"]"#),
        ("Cargo.lock", "name = \"shop\""),
        ("app/Cargo.toml", "name = \"shop\""),
        ("xtask/src/main.rs", r#"app: App { name: "shop", packages: &["shop"]"#),
        ("xtask/crates/CHANGELOG.md", "# Changelog"),
        ("xtask/crates/gangplank/docs/hosts.md", "# Hosts over ssh"),
        (".circleci/config.yml", "shop-prod"),
        ("README.md", "# shop"),
    ] {
        let text = fs::read_to_string(shop.join(path)).unwrap();
        assert!(text.contains(piece), "{path} has no {piece}");
    }
    assert!(!fs::read_to_string(shop.join("xtask/Cargo.toml")).unwrap().contains("dev-dependencies"));
    let sums = Command::new("sha256sum")
        .args(["--check", "--quiet", "SHA256SUMS"])
        .current_dir(shop.join("xtask/crates"))
        .status()
        .unwrap();
    assert!(sums.success(), "coreutils agree with the digests");
}

#[test]
fn new_writes_its_flags_into_main_rs() {
    let dir = crate::record::tempdir();
    let at = |name: &str| dir.path().join(name);
    let main = |name: &str| fs::read_to_string(at(name).join("xtask/src/main.rs")).unwrap();

    make(
        &at("a"),
        &[
            "--name",
            "web-shop",
            "--handoff",
            "artifacts",
            "--target",
            "ssh://deploy@web1/srv/a",
            "--target",
            "ssh://deploy@web2/srv/a",
        ],
    )
    .ok();
    let a = main("a");
    for piece in [
        r#"name: "web-shop", packages: &["web-shop"]"#,
        r#""circleci:artifacts""#,
        r#"targets: &["ssh://deploy@web1/srv/a", "ssh://deploy@web2/srv/a"]"#,
        r#"vars: &[("HOST", "0.0.0.0"), ("PORT", "${PROD_PORT:-8082}")]"#,
        "http://{host}:${PROD_PORT:-8082}/version",
        "http://127.0.0.1:${DEV_PORT:-8081}/version",
        "handoff: Handoff::Artifacts",
        r#"context: Some("web-shop-circleci")"#,
    ] {
        assert!(a.contains(piece), "no {piece} in\n{a}");
    }

    make(&at("b"), &["--handoff", "s3", "--bucket", "s3://acme/b", "--target", "dev=ssh://d@dev/srv/b"]).ok();
    let b = main("b");
    assert!(b.contains(r#"&["circleci:workspace", "s3://acme/b", "file:target/store"]"#), "{b}");
    assert!(b.contains(r#"targets: &["ssh://d@dev/srv/b"]"#), "{b}");
    assert!(fs::read_to_string(at("b").join("xtask/Cargo.toml")).unwrap().contains(r#"default = ["s3"]"#));

    let url = format!("git={},tag=v1", "https://example.com/gangplank.git");
    // Its Cargo.lock would need that repository.
    make(&at("c"), &["--engine", &url]).fails(1, "cannot create Cargo.lock", "crates.io");
    assert_eq!(names(dir.path()), ["a", "b"]);

    make(&at("d"), &["--dry-run"]).ok().stdout_has("would be made");
    assert_eq!(names(dir.path()), ["a", "b"]);
}

#[test]
fn new_with_invalid_path_or_flag_is_refused_and_leaves_nothing() {
    let dir = crate::record::tempdir();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/notes"), "mine").unwrap();
    fs::write(at("file"), "mine").unwrap();
    std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
    for (path, more, what, hint) in [
        ("full", &[][..], "exists and is not empty", "--into DIR"),
        ("file", &[], "exists and is not a directory", "--into DIR"),
        ("link", &[], "exists and is not a directory", "--into DIR"),
        ("no/such/shop", &[], "no directory", "mkdir -p"),
        ("1shop", &[], "cannot be the name of a crate", "--name"),
        ("shöp", &[], "cannot be the name of a crate", "--name"),
        ("shop", &["--name", "my shop"], "cannot be the name of a crate", "--name"),
        ("shop", &["--name", "-"], "cannot be the name of a crate", "--name"),
        ("fn", &[], "is reserved by Rust", "--name my-fn"),
        ("shop", &["--name", "gangplank"], "is reserved by Rust", "--name my-gangplank"),
        ("shop", &["--target", "ftp://web1/"], "is not a target URL", "ssh://USER@HOST/DIR"),
        ("shop", &["--target", "stage=ssh://u@h/srv"], "no env `stage`", "xtask/src/main.rs"),
        ("shop", &["--bucket", "s3://a/b"], "--bucket needs the handoff s3", "--handoff s3"),
        ("shop", &["--handoff", "s3", "--bucket", "acme"], "not the URL of a bucket", "s3://BUCKET/PREFIX"),
        ("shop", &["--engine", "cargo"], "no engine `cargo`", "vendor, version=X.Y.Z, git=URL,tag=TAG or path=DIR"),
        ("shop", &["--engine", "git=https://x"], "no engine", "git=URL,tag=TAG"),
        ("shop", &["--engine", "git=https://hunter2@x/y,tag=v1"], "contains a password or token", "credential helper"),
        ("shop", &["--name", "tokio"], "is reserved by Rust", "--name my-tokio"),
        ("shop", &["--name", "examples"], "is reserved by Rust", "--name my-examples"),
        ("shop", &["--target", "ssh://u@h/a", "--target", "ssh://u@h/a"], "twice", "once"),
        ("shop", &["--engine", "path=/nowhere"], "contains no engine", "path=../gangplank"),
    ] {
        let refused = make(&at(path), more).fails(2, what, hint);
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    }
    assert_eq!(names(dir.path()), ["file", "full", "link"]);
    assert_eq!(names(&at("full")), ["notes"]);
    // Root may write everywhere but here.
    make(Path::new("/proc/shop"), &[]).fails(1, "cannot write to /proc", "ls -ld /proc");

    let anonymous = |name: &str| {
        let mut command = command(&["new", at(name).to_str().unwrap()]);
        command.env_remove("GIT_COMMITTER_NAME").env_remove("GIT_COMMITTER_EMAIL").env("EMAIL", "");
        command
    };
    let mut unknown = anonymous("shop");
    unknown
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "user.useConfigOnly")
        .env("GIT_CONFIG_VALUE_0", "true");
    ran(unknown).fails(2, "git has no user name", "git config --global user.name");

    let mut without = command(&["new", at("shop").to_str().unwrap()]);
    without.env("PATH", dir.path());
    let said = ran(without);
    assert!(said.code != 0 && said.stderr.contains("git") && said.stderr.contains("hint:"), "{said:?}");
    assert_eq!(names(dir.path()), ["file", "full", "link"]);
}

#[test]
fn new_inside_git_hook_leaves_the_other_repository_alone() {
    let dir = crate::record::tempdir();
    let (other, shop) = (dir.path().join("other"), dir.path().join("shop"));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("theirs"), "").unwrap();
    git(&other, "init --quiet");
    git(&other, "add --all");
    git(&other, "commit --quiet --message theirs");
    let rules = dir.path().join("rules");
    fs::write(&rules, "release/\nCargo.lock\ndocs/\n").unwrap();
    let mut inside = command(&["new", shop.to_str().unwrap()]);
    inside.env("GIT_DIR", other.join(".git")).env("GIT_WORK_TREE", &other).env("GIT_CONFIG_COUNT", "2");
    inside.env("GIT_CONFIG_KEY_0", "core.excludesFile").env("GIT_CONFIG_VALUE_0", &rules);
    inside.env("GIT_CONFIG_KEY_1", "commit.gpgsign").env("GIT_CONFIG_VALUE_1", "true");
    ran(inside).ok();
    assert_eq!(git(&other, "rev-list --count HEAD"), "1");
    assert_eq!(git(&other, "ls-files"), "theirs");
    assert_eq!(git(&shop, "rev-list --count HEAD"), "1");
    assert!(git(&shop, "ls-files").contains("xtask/crates/model/src/release.rs"));
}

#[test]
fn new_keeps_values_that_look_like_template_text() {
    let dir = crate::record::tempdir();
    let shop = dir.path().join("shop");
    make(&shop, &["--target", "ssh://web1/srv/bin/app", "--target", "ssh://web1/app-dev"]).ok();
    let main = fs::read_to_string(shop.join("xtask/src/main.rs")).unwrap();
    assert!(main.contains(r#"&["ssh://web1/srv/bin/app", "ssh://web1/app-dev"]"#), "{main}");
    assert!(main.contains(r#"run: &["bin/shop"]"#), "{main}");
}

#[test]
fn new_in_empty_directory_works_and_in_a_full_one_is_refused() {
    let dir = crate::record::tempdir();
    let shop = dir.path().join("shop");
    fs::create_dir(&shop).unwrap();
    let mut here = command(&["new", "."]);
    // From inside a directory that is no workspace there is no `cargo xtask`, so this one is named from outside.
    here.current_dir(root());
    ran(here).fails(2, "exists and is not empty", "--into");
    make(&shop, &[]).ok().stdout_has("shop made");
}

/// A project on whose `cargo` one can wait.
fn with_slow_cargo(dir: &TempDir) -> (Command, std::path::PathBuf) {
    let (cargo, began) = (dir.path().join("cargo"), dir.path().join("began"));
    fs::write(&cargo, format!("#!/bin/sh\ntouch {}\nsleep 3\nexec cargo \"$@\"\n", began.display())).unwrap();
    fs::set_permissions(&cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let made = dir.path().join("made");
    fs::create_dir(&made).unwrap();
    let mut command = command(&["new", made.join("shop").to_str().unwrap()]);
    command.env("CARGO", &cargo).stdout(Stdio::null()).stderr(Stdio::null());
    (command, began)
}

#[test]
fn new_interrupted_leaves_nothing_and_after_a_kill_the_next_clears_it() {
    for (signal, left) in [("-INT", 0), ("-KILL", 1)] {
        let dir = crate::record::tempdir();
        let (mut command, began) = with_slow_cargo(&dir);
        let mut child = command.spawn().unwrap();
        while !began.exists() {
            std::thread::sleep(Duration::from_millis(20));
            assert!(child.try_wait().unwrap().is_none(), "it ended before cargo was asked");
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        assert!(!child.wait().unwrap().success());
        let made = dir.path().join("made");
        let there = names(&made);
        assert_eq!(there.len(), left, "{there:?}");
        assert!(there.iter().all(|name| name.starts_with(".gangplank-")), "{there:?}");
        make(&made.join("shop"), &[]).ok();
        assert_eq!(names(&made), ["shop"]);
    }
}

#[test]
fn upgrade_of_edited_engine_is_refused_without_force() {
    let dir = crate::record::tempdir();
    let shop = dir.path().join("shop");
    make(&shop, &[]).ok();
    let upgrade = |more: &[&str]| ran(command(&[&["new", "--upgrade", shop.to_str().unwrap()], more].concat()));
    upgrade(&[]).ok().stdout_has("already has this engine").stdout_has("nothing to do");

    let engine = shop.join("xtask/crates");
    let lib = fs::read_to_string(engine.join("gangplank/src/lib.rs")).unwrap();
    fs::write(engine.join("gangplank/src/lib.rs"), format!("{lib}// mine\n")).unwrap();
    fs::write(engine.join("gangplank/src/mine.rs"), "").unwrap();
    let refused = upgrade(&[]).fails(1, "was edited by hand", "--upgrade --force");
    for piece in ["xtask/crates/gangplank/src/lib.rs", "xtask/crates/gangplank/src/mine.rs", "+// mine"] {
        assert!(refused.stderr.contains(piece), "no {piece} in {}", refused.stderr);
    }
    git(&shop, "add --all");
    git(&shop, "commit --quiet --message mine");
    upgrade(&[]).fails(1, "was edited by hand", "--upgrade --force");
    upgrade(&["--force", "--dry-run"]).ok().stdout_has("would be replaced");
    assert!(engine.join("gangplank/src/mine.rs").exists());

    // A run that was killed between two renames.
    fs::rename(&engine, shop.join("xtask/.crates-before")).unwrap();
    upgrade(&[]).fails(1, "was edited by hand", "--force");
    assert!(engine.join("gangplank/src/mine.rs").exists());

    let nothing = dir.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    ran(command(&["new", "--upgrade", nothing.to_str().unwrap()])).fails(2, "has no vendored engine", "--into");
}

/// Digests of an engine as it is now.
fn seal(engine: &Path) {
    let line = "find . -type f ! -name SHA256SUMS | sed 's|^[.]/||' | LC_ALL=C sort | xargs sha256sum > SHA256SUMS";
    assert!(Command::new("sh").args(["-c", line]).current_dir(engine).status().unwrap().success());
}

#[test]
fn upgrade_of_older_engine_replaces_it_or_restores_it() {
    let dir = crate::record::tempdir();
    let shop = dir.path().join("shop");
    make(&shop, &[]).ok();
    let engine = shop.join("xtask/crates");
    let upgrade = |more: &[&str]| ran(command(&[&["new", "--upgrade", shop.to_str().unwrap()], more].concat()));

    // An older engine, as it would be: other files, other digests, an older changelog.
    let changelog = fs::read_to_string(engine.join("CHANGELOG.md")).unwrap();
    fs::write(engine.join("CHANGELOG.md"), changelog.lines().take(12).collect::<Vec<_>>().join("\n")).unwrap();
    fs::write(engine.join("gangplank/src/gone.rs"), "//! It was there once.\n").unwrap();
    seal(&engine);
    git(&shop, "add --all");
    git(&shop, "commit --quiet --message older");
    let main = fs::read_to_string(shop.join("xtask/src/main.rs")).unwrap();
    // Cargo's work is not what is tried here: this one says that it does not compile, then that it does.
    let cargo = dir.path().join("cargo");
    let says = |code: u8| {
        fs::write(
            &cargo,
            format!("#!/bin/sh\necho \"$*\" >> {0}.said\necho broken >&2\nexit {code}\n", cargo.display()),
        )
        .unwrap();
        fs::set_permissions(&cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut upgrade = command(&["new", "--upgrade", shop.to_str().unwrap()]);
        upgrade.env("CARGO", &cargo);
        ran(upgrade)
    };
    says(1).fails(1, "the old one was restored:\nbroken", "--upgrade --force");
    assert_eq!(git(&shop, "status --porcelain"), "");
    says(0).ok().stdout_has("engine 0.1.0 replaced by 0.1.0").stdout_has("`new PATH` makes a project");
    assert!(!engine.join("gangplank/src/gone.rs").exists() && !shop.join("xtask/.crates-before").exists());
    assert_eq!(fs::read_to_string(shop.join("xtask/src/main.rs")).unwrap(), main);
    assert!(fs::read_to_string(dir.path().join("cargo.said")).unwrap().contains("ci generate"));
    upgrade(&[]).ok().stdout_has("nothing to do");

    let manifest = fs::read_to_string(engine.join("gangplank/Cargo.toml")).unwrap();
    fs::write(engine.join("gangplank/Cargo.toml"), manifest.replacen("0.1.0", "9.0.0", 1)).unwrap();
    seal(&engine);
    upgrade(&[]).fails(2, "its engine is 9.0.0", "--force");
    ran(command(&["new", "--upgrade", "."])).fails(2, "is the repository of the engine itself", "git pull");
}
