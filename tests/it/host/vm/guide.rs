//! The commands of docs/hosts.md, run as they stand there.

use super::image::APPLETS;
use super::machine::Machine;
use crate::project::{Project, root};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The words of the guide before each block that is run.
pub const BLOCKS: [&str; 3] = [KEY, HOST_KEY, KNOWN_HOSTS];
const KEY: &str = "A key for the pipeline alone";
const HOST_KEY: &str = "On the server, print its fingerprint";
const KNOWN_HOSTS: &str = "Here, compare the fingerprint";

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

/// "From a fresh server to a deploy": the key of deploys, and the key of the host.
pub fn fresh_server(vm: &Machine, project: &Project) {
    here(&vm.file("."), &lines(KEY));
    let there = vm.sh(&lines(HOST_KEY));
    project.write(".circleci/known_hosts", "");
    // The machine has a port in the place of a name.
    let port = format!("-p {} 127.0.0.1", vm.ssh_port());
    let scan = lines(KNOWN_HOSTS).replace("web1.example.com", &port);
    let scanned = here(&project.path("."), &scan);
    let fingerprint = |text: &str| text.split_whitespace().find(|word| word.starts_with("SHA256:")).map(str::to_owned);
    assert!(fingerprint(&there).is_some() && fingerprint(&there) == fingerprint(&scanned), "{there} {scanned}");
}

/// What `setup` prints, pasted by root of the machine, or run over a login that is root: the ways that the guide shows. A
/// second time it changes nothing.
pub fn set_up(vm: &Machine, project: &Project) {
    project.write("target/deploy_key.pub", &fs::read_to_string(vm.file("deploy_key.pub")).unwrap());
    let setup = |line: &str| project.run(&format!("setup {line} --key target/deploy_key.pub")).ok().stdout;
    let pasted = setup("sudo");
    vm.sh(&pasted);
    vm.sh(&pasted);
    // The administrator's own key; `setup` of the env whose login is root adds that of deploys.
    vm.sh(&setup("system"));
    setup("user --apply");
    setup("user --apply");
    let sudoers = vm.sh("cat /etc/sudoers.d/gangplank-shop; loginctl show-user deploy -p Linger; id -Gn deploy");
    for piece in ["deploy ALL=(root) NOPASSWD: ", "Linger=yes", "systemd-journal"] {
        assert!(sudoers.contains(piece), "{piece}: {sudoers}");
    }
    assert_eq!(vm.sh("grep -c . /home/deploy/.ssh/authorized_keys"), "1");
}

/// Takes it back: the service and its rights go, the releases stay.
pub fn take_back(vm: &Machine, project: &Project) {
    vm.sh(&project.run("setup sudo --remove").ok().stdout);
    let left = vm.sh("ls /etc/systemd/system/shop.* /etc/sudoers.d/gangplank-shop 2> /dev/null || true; systemctl is-active shop || true");
    assert_eq!(left, "inactive");
    vm.sh("ls /srv/app/releases/*/bin/app");
    project.release("without rights");
    project.run("deploy sudo").fails(1, "without a password", "cargo xtask setup sudo");
}

/// A login whose shell and programs are `BusyBox` alone.
pub fn busybox(vm: &Machine) {
    vm.sh(&format!("adduser --disabled-password --gecos '' --shell {APPLETS}/ash box"));
    vm.sh("install -d -o box -g box /srv/box && install -d -o box -g box -m 700 /home/box/.ssh");
    let key = fs::read_to_string(vm.file("deploy_key.pub")).unwrap();
    vm.write("/home/box/.ssh/authorized_keys", &format!("restrict,environment=\"PATH={APPLETS}\" {key}"));
}
