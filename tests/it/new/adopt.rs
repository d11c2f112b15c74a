//! `new --into`: crates of other people, and workspaces with something in the way.

mod kept;
mod parts;
mod rust;

use super::handoffs::{Compiled, Ended, ports};
use super::{command, git, names, ran};
use crate::project::{Ran, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Crates of different shapes, as they are on crates.io: a binary, two of which a workspace is made, and a library with a
/// binary and a build script.
const CRATES: &[(&str, &str)] = &[("huniq", "2.7.0"), ("diffr", "0.1.5"), ("runiq", "2.1.0"), ("pastel", "0.12.0")];

/// Where cargo has unpacked the sources of a crate; it fetches them from the registry when they are not there yet.
fn source(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crates-{}", std::process::id()));
    if !dir.join("Cargo.lock").exists() {
        let wanted: String = CRATES.iter().map(|(name, version)| format!("{name} = \"={version}\"\n")).collect();
        fs::create_dir_all(dir.join("src")).unwrap();
        fs::write(dir.join("src/lib.rs"), "").unwrap();
        let package =
            "[package]\nname = \"crates\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n";
        fs::write(dir.join("Cargo.toml"), format!("{package}{wanted}")).unwrap();
    }
    let output = Command::new("cargo")
        .args(["metadata", "--quiet", "--format-version", "1"])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // Crates without a library are fetched, and then left out of the answer; pastel, which has one, lies beside them.
    let packages = metadata["packages"].as_array().unwrap();
    let pastel =
        packages.iter().find(|package| package["name"] == "pastel").unwrap()["manifest_path"].as_str().unwrap();
    let (_, version) = CRATES.iter().find(|(known, _)| *known == name).unwrap();
    Path::new(pastel).ancestors().nth(2).unwrap().join(format!("{name}-{version}"))
}

/// Puts a crate into `to`, with its manifest as its author wrote it.
fn unpack(name: &str, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-r").arg(source(name)).arg(to).status().unwrap().success());
    fs::rename(to.join("Cargo.toml.orig"), to.join("Cargo.toml")).unwrap();
    for registrys_own in [".cargo-ok", ".cargo_vcs_info.json"] {
        let _ = fs::remove_file(to.join(registrys_own));
    }
}

fn commit(dir: &Path) {
    git(dir, "init --quiet --initial-branch main");
    git(dir, "add --all");
    git(dir, "commit --quiet --message theirs");
}

fn adopt(dir: &Path, more: &[&str]) -> Ran {
    ran(command(&[&["new", "--into", dir.to_str().unwrap()], more].concat()))
}

/// Adopts it, and takes a clone from a commit to dev without a change by hand.
fn deliver(compiled: &Compiled, at: &Path, binaries: &[&str]) {
    commit(at);
    let before = git(at, "ls-files");
    let adopted = adopt(at, &["--engine", &format!("path={}", root().display())]).ok().stdout_has("an xtask");
    for path in git(at, "diff --name-only").lines() {
        assert_eq!(path, ".gitignore", "{path} was touched: {}", adopted.stdout);
    }
    assert_eq!(git(at, "ls-files"), before, "nothing is staged");
    git(at, "add --all");
    git(at, "commit --quiet --message adopted");
    // What git has is enough.
    let clone = at.with_extension("clone");
    git(at, &format!("clone --quiet . {}", clone.display()));
    let dir = &*clone;
    let _ended = Ended(clone.clone());
    // The first with this workspace's profile, to reuse compiled crates; the others faster to compile, because they are
    // not run.
    let quick = [("DEV_DEBUG", "line-tables-only"), ("RELEASE_LTO", "off"), ("RELEASE_OPT_LEVEL", "0")];
    let mut vars = ports().to_vec();
    let names_of = quick.map(|(key, value)| (format!("CARGO_PROFILE_{key}"), value.to_owned()));
    vars.extend(names_of.iter().map(|(key, value)| (key.as_str(), value.clone())));
    compiled.xtask(dir, "ci generate --check", &vars).ok();
    compiled.xtask(dir, "build", &vars).ok();
    compiled.xtask(dir, "deploy dev", &vars).ok().stdout_has("is live");
    assert_eq!(names(&dir.join("target/deploy/dev/current/bin")), binaries);
    assert_eq!(git(dir, "status --porcelain"), "", "a build leaves the tree clean");
}

#[test]
#[ignore = "group adopt"]
fn adopt_single_binary_delivers_it() {
    let (compiled, dir) = (Compiled::new(), crate::record::tempdir());
    let at = dir.path().join("huniq");
    unpack("huniq", &at);
    deliver(&compiled, &at, &["huniq"]);
}

#[test]
#[ignore = "group adopt"]
fn adopt_workspace_with_several_binaries_delivers_them() {
    let (compiled, dir) = (Compiled::new(), crate::record::tempdir());
    let at = dir.path().join("filters");
    for name in ["diffr", "runiq"] {
        unpack(name, &at.join("crates").join(name));
        let _ = fs::remove_file(at.join("crates").join(name).join("Cargo.lock"));
    }
    fs::write(at.join("Cargo.toml"), "# Our filters.\n[workspace]\nresolver = \"2\"\nmembers = [\"crates/*\"] # all\n")
        .unwrap();
    deliver(&compiled, &at, &["diffr", "runiq"]);
}

#[test]
#[ignore = "group adopt"]
fn adopt_library_with_binary_and_build_script_delivers_it() {
    let (compiled, dir) = (Compiled::new(), crate::record::tempdir());
    let at = dir.path().join("pastel");
    unpack("pastel", &at);
    deliver(&compiled, &at, &["pastel"]);
}

/// A small crate with a commit.
fn small() -> (TempDir, PathBuf) {
    let dir = crate::record::tempdir();
    let at = dir.path().join("web");
    fs::create_dir_all(at.join("src")).unwrap();
    fs::write(at.join("src/main.rs"), "fn main() {}\n").unwrap();
    fs::write(at.join("Cargo.toml"), "[package]\nname = \"web\"\nversion = \"0.1.0\"\nedition = \"2021\"\n").unwrap();
    (dir, at)
}

#[test]
fn scripts_and_a_config_are_read_and_kept() {
    let (_dir, at) = small();
    fs::create_dir_all(at.join("static")).unwrap();
    fs::write(at.join("static/a.css"), "").unwrap();
    fs::write(at.join("deploy.sh"), "#!/bin/sh\nset -e\nscp web.tgz web1:\nnpm run build\n").unwrap();
    let theirs = "version: 2.1\norbs:\n  codecov: codecov/codecov@3\njobs:\n  lint:\n    docker: [{image: cimg/base:2024.01}]\n    steps: [checkout]\n";
    fs::create_dir_all(at.join(".circleci")).unwrap();
    fs::write(at.join(".circleci/config.yml"), theirs).unwrap();
    commit(&at);
    let adopted = adopt(&at, &["--target", "ssh://deploy@web1/srv/web"]).ok();
    let adopted = adopted
        .stdout_has("deploy.sh:3")
        .stdout_has("targets")
        .stdout_has("deploy.sh:4")
        .stdout_has("a step of your own");
    let adopted = adopted.stdout_has("orbs codecov; jobs lint").stdout_has("config.before-gangplank.yml");
    assert!(!adopted.stdout.contains("deploy.sh:2"), "{}", adopted.stdout);
    assert_eq!(fs::read_to_string(at.join(".circleci/config.before-gangplank.yml")).unwrap(), theirs);
    let main = fs::read_to_string(at.join("xtask/src/main.rs")).unwrap();
    assert!(main.contains(r#"include: &["static"]"#) && main.contains("ssh://deploy@web1/srv/web"), "{main}");
    // Again: it has an xtask now.
    adopt(&at, &[]).fails(2, "already has an xtask of Gangplank", "--upgrade");
}

#[test]
fn comments_order_and_line_ends_stay() {
    let (_dir, at) = small();
    let manifest = "# ours\r\n[package]\r\nname = \"web\" # the name\r\nversion = \"0.1.0\"\r\nedition = \"2021\"\r\n\r\n[workspace]\r\nmembers = [\"x*\"]\r\nexclude = [\r\n    \"old\", # kept\r\n]\r\n";
    fs::write(at.join("Cargo.toml"), manifest).unwrap();
    fs::create_dir_all(at.join("xlib/src")).unwrap();
    fs::write(at.join("xlib/src/lib.rs"), "").unwrap();
    fs::write(at.join("xlib/Cargo.toml"), "[package]\nname = \"xlib\"\nversion = \"0.1.0\"\n").unwrap();
    fs::create_dir(at.join(".cargo")).unwrap();
    fs::write(at.join(".cargo/config.toml"), "# mine\n[alias]\nb = \"build\"\n").unwrap();
    commit(&at);
    adopt(&at, &[]).ok();
    let now = fs::read_to_string(at.join("Cargo.toml")).unwrap();
    assert!(!now.replace("\r\n", "").contains('\n'), "every line ends as before: {now:?}");
    for line in manifest.lines() {
        assert!(now.contains(line), "`{line}` is gone: {now}");
    }
    assert_eq!(
        fs::read_to_string(at.join(".cargo/config.toml")).unwrap(),
        "# mine\n[alias]\nb = \"build\"\nxtask = \"run --quiet --manifest-path xtask/Cargo.toml --\"\n"
    );
}

#[test]
fn adopt_with_conflicting_file_is_refused_and_changes_nothing() {
    type Case = (&'static str, &'static dyn Fn(&Path), &'static str, &'static str);
    let cases: &[Case] = &[
        (
            "alias",
            &|at| {
                fs::create_dir(at.join(".cargo")).unwrap();
                fs::write(at.join(".cargo/config.toml"), "[alias]\nxtask = \"run -p tools --\"\n").unwrap();
            },
            "already has an alias `xtask`",
            "rename it",
        ),
        (
            "xtask",
            &|at| {
                fs::create_dir_all(at.join("xtask/src")).unwrap();
                fs::write(at.join("xtask/src/main.rs"), "fn main() {}\n").unwrap();
            },
            "is already an xtask",
            "rename",
        ),
        (
            "old config",
            &|at| {
                fs::create_dir(at.join(".cargo")).unwrap();
                fs::write(at.join(".cargo/config"), "").unwrap();
            },
            "old name of its config",
            "git mv",
        ),
        ("no manifest", &|at| fs::remove_file(at.join("Cargo.toml")).unwrap(), "no Cargo.toml", "cargo xtask new"),
        (
            "broken",
            &|at| fs::write(at.join("Cargo.toml"), "[package\n").unwrap(),
            "cargo cannot read",
            "cargo metadata",
        ),
        (
            "a member",
            &|at| {
                fs::write(at.parent().unwrap().join("Cargo.toml"), "[workspace]\nmembers = [\"web\"]\n").unwrap();
            },
            "is a member of the workspace",
            "--into",
        ),
    ];
    for (what, prepare, message, hint) in cases {
        let (_dir, at) = small();
        prepare(&at);
        commit(&at);
        adopt(&at, &[]).fails(2, message, hint);
        assert_eq!(git(&at, "status --porcelain"), "", "{what}");
    }
}

#[test]
fn adopt_with_dry_run_or_failure_changes_nothing() {
    let (_dir, at) = small();
    commit(&at);
    adopt(&at, &["--dry-run"]).ok().stdout_has("would get an xtask").stdout_has("xtask/Cargo.lock");
    assert_eq!(git(&at, "status --porcelain"), "");
    // Cargo cannot find that tag, after everything else was written.
    adopt(&at, &["--engine", "git=file:///nowhere,tag=v1"]).fails(1, "cannot create Cargo.lock", "crates.io");
    assert_eq!(git(&at, "status --porcelain"), "");
    assert!(!at.join(".cargo").exists() && !at.join("xtask").exists());

    // A cargo that fails once the lock was to be written: everything is taken back, what was there before stays.
    fs::create_dir(at.join(".cargo")).unwrap();
    fs::write(at.join(".cargo/config.toml"), "[term]\nquiet = true\n").unwrap();
    let failing = with_cargo(&at, "case $1 in update) exit 1;; esac");
    ran(failing).fails(1, "cannot create Cargo.lock", "crates.io");
    assert_eq!(git(&at, "status --porcelain"), "?? .cargo/");
    assert_eq!(fs::read_to_string(at.join(".cargo/config.toml")).unwrap(), "[term]\nquiet = true\n");
}

/// `new --into` with a cargo that does something of its own first.
fn with_cargo(at: &Path, first: &str) -> Command {
    let cargo = at.parent().unwrap().join("cargo");
    fs::write(&cargo, format!("#!/bin/sh\n{first}\nexec cargo \"$@\"\n")).unwrap();
    fs::set_permissions(&cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = command(&["new", "--into", at.to_str().unwrap()]);
    command.env("CARGO", &cargo);
    command
}

#[test]
fn adopt_killed_halfway_is_completed_by_a_rerun() {
    let (_dir, at) = small();
    commit(&at);
    let began = at.parent().unwrap().join("began");
    let script = format!("case $1 in update) echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60;; esac", began.display());
    let mut slow = with_cargo(&at, &script);
    let mut child = slow.spawn().unwrap();
    crate::project::eventually("cargo is asked for the lock", || began.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(at.join("xtask/.unfinished").exists(), "it was killed halfway");
    let cargo = fs::read_to_string(&began).unwrap();
    assert!(Command::new("kill").arg(cargo.trim()).status().unwrap().success());
    adopt(&at, &[]).ok().stdout_has("an xtask");
    assert!(!at.join("xtask/.unfinished").exists());
    assert!(names(&at).iter().all(|name| !name.starts_with(".gangplank")), "{:?}", names(&at));
    assert_eq!(git(&at, "diff --name-only"), "", "what was there is as it was");
}

#[test]
fn adopt_keeps_existing_xtask_configs_and_links() {
    // An xtask of theirs that says what ours does, in a workspace that names it in its own way.
    let (_dir, at) = small();
    fs::write(at.join("Cargo.toml"), "[workspace]\nmembers = ['xtask']\n").unwrap();
    fs::create_dir_all(at.join("xtask/src")).unwrap();
    fs::write(at.join("xtask/Cargo.toml"), "[package]\nname = \"xtask\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")
        .unwrap();
    fs::write(at.join("xtask/src/main.rs"), "fn main() { /* gangplank::main( */ }\n").unwrap();
    for more in [&["--dry-run"][..], &[]] {
        adopt(&at, more).fails(2, "is already an xtask", "rename");
        assert!(at.join("xtask/src/main.rs").exists());
    }

    // Configs of theirs under the names of ours, and a linked file.
    let (_dir, at) = small();
    fs::create_dir_all(at.join(".circleci")).unwrap();
    fs::create_dir_all(at.join(".cargo")).unwrap();
    for name in ["config", "rollback", "deploy"] {
        fs::write(at.join(format!(".circleci/{name}.yml")), format!("# {name} of theirs\n")).unwrap();
    }
    let shared = at.parent().unwrap().join("shared.toml");
    fs::write(&shared, "[term]\nquiet = false\n").unwrap();
    std::os::unix::fs::symlink(&shared, at.join(".cargo/config.toml")).unwrap();
    commit(&at);
    adopt(&at, &[]).ok().stdout_has("deploy.before-gangplank.yml");
    for name in ["config", "rollback", "deploy"] {
        let kept = fs::read_to_string(at.join(format!(".circleci/{name}.before-gangplank.yml"))).unwrap();
        assert_eq!(kept, format!("# {name} of theirs\n"));
    }
    assert!(at.join(".cargo/config.toml").is_symlink());
    assert!(fs::read_to_string(&shared).unwrap().contains("xtask = "));

    // What was kept once is not overwritten.
    let (_dir, at) = small();
    fs::create_dir_all(at.join(".circleci")).unwrap();
    fs::write(at.join(".circleci/config.yml"), "# theirs\n").unwrap();
    fs::write(at.join(".circleci/config.before-gangplank.yml"), "# older\n").unwrap();
    commit(&at);
    adopt(&at, &[]).fails(2, "cannot be kept as", "mv ");
    assert_eq!(git(&at, "status --porcelain"), "");
}

#[test]
fn adopt_names_ignored_lock_and_empty_folder_and_hides_secrets() {
    let (_dir, at) = small();
    fs::write(at.join(".gitignore"), "/target\nCargo.lock\n").unwrap();
    for (folder, file) in [("static", true), ("public", false)] {
        fs::create_dir_all(at.join(folder)).unwrap();
        if file {
            fs::write(at.join(folder).join("a"), "").unwrap();
        }
    }
    // Latin-1, and a secret.
    fs::write(
        at.join("build.sh"),
        b"#!/bin/sh\n# caf\xe9\ncurl -H \"Circle-Token: hunter2\" https://circleci.com/api\n",
    )
    .unwrap();
    commit(&at);
    let adopted = adopt(&at, &[])
        .ok()
        .stdout_has("git ignores")
        .stdout_has("git add --force")
        .stdout_has("public is not in `include`: it is empty");
    assert!(!adopted.stdout.contains("hunter2") && adopted.stdout.contains("build.sh:3"), "{}", adopted.stdout);
    assert!(fs::read_to_string(at.join("xtask/src/main.rs")).unwrap().contains(r#"include: &["static"]"#));
}

#[test]
fn adopt_without_repository_suggests_git_init_first() {
    let (_dir, at) = small();
    let typed = |at: &Path| {
        let said = adopt(at, &["--json", "--dry-run"]).ok().stdout;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let words = |line: &serde_json::Value| line.as_str().unwrap().split("  ").next().unwrap().to_owned();
        said["next"].as_array().unwrap().iter().skip(1).map(words).collect::<Vec<_>>()
    };
    let add = "git add --all && git commit --message 'Deliver with cargo xtask'";
    let (build, deploy, run) = ("cargo xtask build", "cargo xtask deploy dev", "cargo xtask ci run");
    assert_eq!(typed(&at), [&*format!("git init && {add}"), build, deploy, run]);
    commit(&at);
    assert_eq!(typed(&at), [build, deploy, add, run]);
}
