//! Programs that tests need: apt-get, `PyPI` and npm bring what is missing, where they may.

use crate::groups::Group;
use gangplank_system::context::{Context, Input};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs for the default tests, named like their Debian packages. The first ones run the shell recipes that this
/// project replaces.
const PROGRAMS: &[&str] = &["busybox", "csh", "curl", "fish", "groff", "openssl", "wget", "zsh"];
/// Programs outside most users' PATH: path and package.
const HIDDEN: &[(&str, &str)] = &[
    ("/lib/systemd/systemd", "systemd"),
    ("/usr/sbin/nginx", "nginx-light"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/share/bash-completion/bash_completion", "bash-completion"),
];
/// Programs in a Debian package of another name: program and package.
const PACKAGES: &[(&str, &str)] =
    &[("chromedriver", "chromium-driver"), ("mke2fs", "e2fsprogs"), ("qemu-system-x86_64", "qemu-system-x86")];

/// `PyPI` packages: a validator with CircleCI's own schema, a third-party client of its API, a verifier of webhooks.
const PYTHON: &[&str] = &["check-jsonschema==0.39.0", "circleci==1.2.2", "standardwebhooks==1.1.0"];

/// The validator with CircleCI's schema, from `PyPI`, in a virtual environment under `target/`. Debian packages
/// Python's `venv` separately; root may have it installed.
pub fn validator(ctx: &Context) -> Option<PathBuf> {
    let tools = ctx.root.join("target/tools");
    let program = tools.join("bin/check-jsonschema");
    // An installation from an earlier version of this list is replaced.
    let list = tools.join("installed");
    if program.exists() && fs::read_to_string(&list).is_ok_and(|text| text == PYTHON.join("\n")) {
        return Some(program);
    }
    ctx.note(format!("installing {} into target/tools", PYTHON.join(", ")));
    let venv = || succeeds(ctx, Path::new("python3"), &["-m", "venv", "--clear", "target/tools"]);
    let apt = || apt_install(ctx, &["python3", "python3-venv"]);
    let pip = [&["install", "--quiet", "--disable-pip-version-check"], PYTHON].concat();
    let installed = (venv() || (apt() && venv())) && succeeds(ctx, &tools.join("bin/pip"), &pip);
    (installed && fs::write(list, PYTHON.join("\n")).is_ok()).then_some(program)
}

/// Installs programs for the default tests, which are otherwise skipped, and fail in CI.
pub fn install_for_default(ctx: &Context) {
    let missing = HIDDEN.iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package);
    install(ctx, &missing_programs(ctx, PROGRAMS).chain(missing).collect::<Vec<_>>());
}

/// Installs programs for a group of tests.
pub fn install_for_group(ctx: &Context, group: &Group) {
    install(ctx, &missing_programs(ctx, group.programs).map(package).collect::<Vec<_>>());
    if let Some((package, version)) = group.npm {
        install_from_npm(ctx, package, version);
    }
}

/// Installs an npm package into `target/tools/PACKAGE`. Without npm its tests are skipped.
fn install_from_npm(ctx: &Context, package: &str, version: &str) {
    let dir = format!("target/tools/{package}");
    if ctx.program_on_path("npm").is_none() || ctx.root.join(&dir).join("node_modules").join(package).exists() {
        return;
    }
    ctx.note(format!("installing {package} into {dir}"));
    let what = format!("{package}@{version}");
    succeeds(ctx, Path::new("npm"), &["install", "--no-audit", "--no-fund", "--prefix", &dir, &what]);
}

/// The Debian package of a program.
fn package(program: &'static str) -> &'static str {
    PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, package)| package)
}

fn missing_programs<'a>(ctx: &'a Context, programs: &'a [&'static str]) -> impl Iterator<Item = &'static str> + 'a {
    programs.iter().copied().filter(|program| ctx.program_on_path(program).is_none())
}

fn install(ctx: &Context, missing: &[&str]) {
    if !missing.is_empty() {
        ctx.note(format!("installing {}", missing.join(", ")));
        apt_install(ctx, missing);
    }
}

/// Needs root on Debian or a derivative; fails harmlessly elsewhere.
fn apt_install(ctx: &Context, packages: &[&str]) -> bool {
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    succeeds(ctx, Path::new("apt-get"), &["update"]) && succeeds(ctx, Path::new("apt-get"), &install)
}

fn succeeds(ctx: &Context, program: &Path, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).current_dir(&ctx.root);
    ctx.answer(command, Input::Empty).is_ok_and(|answer| answer.ok())
}
