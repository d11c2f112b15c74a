//! The commands of docs/hosts.md, run as they stand there.

use super::image::APPLETS;
use super::machine::Machine;
use crate::project::{Project, root};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The words of the guide before each block that is run.
pub const BLOCKS: [&str; 7] = [LOGIN, KEY, HOST_KEY, KNOWN_HOSTS, SUDOERS, JOURNAL, LINGER];
const LOGIN: &str = "On the server, as root.";
const KEY: &str = "a key for the pipeline alone";
const HOST_KEY: &str = "is given). On the server:";
const KNOWN_HOSTS: &str = "Here, compare the fingerprint";
const SUDOERS: &str = "one line, for `unit: \"shop\"` in `/srv/app`";
const JOURNAL: &str = "shows `deploy` the units of the system when";
const LINGER: &str = "so that it runs without a login and at boot";

/// The first block of lines after these words of the guide.
pub fn lines(words: &str) -> String {
    let guide = fs::read_to_string(root().join("docs/hosts.md")).unwrap();
    let (_, rest) = guide.split_once(words).unwrap_or_else(|| panic!("docs/hosts.md has no `{words}`"));
    let indented = rest.lines().skip_while(|line| !line.starts_with("    "));
    let block: Vec<_> = indented.map_while(|line| line.strip_prefix("    ")).collect();
    assert!(!block.is_empty(), "docs/hosts.md has no commands after `{words}`");
    block.join("\n")
}

fn here(dir: &Path, command: &str) -> String {
    let said = Command::new("sh").args(["-ec", command]).current_dir(dir).output().unwrap();
    assert!(said.status.success(), "`{command}`: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// "From a fresh server to a deploy": the login, its key, and the key of the host.
pub fn fresh_server(vm: &Machine, project: &Project) {
    vm.sh(&lines(LOGIN));
    here(&vm.file("."), &lines(KEY));
    let key = fs::read_to_string(vm.file("deploy_key.pub")).unwrap();
    vm.write("/home/deploy/.ssh/authorized_keys", &format!("restrict {key}"));
    let there = vm.sh(&lines(HOST_KEY));
    project.write(".circleci/known_hosts", "");
    // The machine has a port in the place of a name.
    let port = format!("-p {} 127.0.0.1", vm.ssh_port());
    let scan = lines(KNOWN_HOSTS).replace("web1.example.com", &port);
    let scanned = here(&project.path("."), &scan);
    let fingerprint = |text: &str| text.split_whitespace().find(|word| word.starts_with("SHA256:")).map(str::to_owned);
    assert!(fingerprint(&there).is_some() && fingerprint(&there) == fingerprint(&scanned), "{there} {scanned}");
}

/// What the three managers of a unit need, each with its directory.
pub fn managers(vm: &Machine) {
    vm.write("/etc/sudoers.d/deploy", &format!("{}\n", lines(SUDOERS)));
    vm.sh("chmod 440 /etc/sudoers.d/deploy && visudo -cqf /etc/sudoers.d/deploy");
    vm.sh(&lines(JOURNAL));
    vm.sh(&lines(LINGER));
    vm.sh("install -d -o deploy -g deploy /srv/own && install -d /srv/system");
    vm.sh("cat /home/deploy/.ssh/authorized_keys >> /root/.ssh/authorized_keys");
}

/// A login whose shell and programs are `BusyBox` alone.
pub fn busybox(vm: &Machine) {
    vm.sh(&format!("adduser --disabled-password --gecos '' --shell {APPLETS}/ash box"));
    vm.sh("install -d -o box -g box /srv/box && install -d -o box -g box -m 700 /home/box/.ssh");
    let key = fs::read_to_string(vm.file("deploy_key.pub")).unwrap();
    vm.write("/home/box/.ssh/authorized_keys", &format!("restrict,environment=\"PATH={APPLETS}\" {key}"));
}
