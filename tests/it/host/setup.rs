//! `setup`: what root has to do on a host, as the guide shows it. What it does there is in `fleet::sudo`.

use crate::project::{Project, root};
use std::fs;
use std::process::{Command, Stdio};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPfv4+lbYmTnS1w2mNyZkQhL9xqYdD0cW5a8Jv3uTt7s deploys of app";

/// A project whose dev env is on two hosts.
fn project(more: &str) -> Project {
    let mut p = Project::new();
    p.change(
        "target file:srv/dev\n",
        &format!("target ssh://deploy@web1.example.com/srv/app\ntarget ssh://deploy@web2.example.com/srv/app\n{more}"),
    );
    p.write("deploy_key.pub", &format!("{KEY}\n"));
    p
}

/// The blocks of shell in a guide.
fn blocks(guide: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(guide)).unwrap();
    text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn guide_shows_what_setup_prints() {
    let of_user = project("systemd shop|restart|bin/app\n").run("setup dev --key deploy_key.pub").ok().stdout;
    let by_sudo = project("systemd shop|sockets|bin/app\nmanager sudo\n").run("setup dev").ok().stdout;
    let blocks = blocks("docs/hosts.md");
    assert!(blocks.contains(&of_user), "docs/hosts.md does not have this block:\n{of_user}");
    let (_, sudoers) = by_sudo.split_once("\n# What deploys").unwrap();
    let sudoers = format!("# What deploys{}", sudoers.strip_suffix(")\n").unwrap());
    assert!(blocks.contains(&sudoers), "docs/hosts.md does not have this block:\n{sudoers}");
}

/// Whether `sh` can read a text as a script.
fn is_shell(script: &str) -> bool {
    let mut sh = Command::new("sh").arg("-n").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut sh.stdin.take().unwrap(), script.as_bytes()).unwrap();
    sh.wait().unwrap().success()
}

#[test]
fn output_is_a_script_that_sh_reads() {
    for more in [
        "pidfile bin/app\n",
        "systemd shop|sockets|bin/app\n",
        "systemd shop|sockets|bin/app\nmanager sudo\nunit-line User=it's\n",
    ] {
        let p = project(more);
        for line in ["setup dev --key deploy_key.pub", "setup dev --remove --data --key deploy_key.pub"] {
            let script = p.run(line).ok().stdout;
            assert!(is_shell(&script), "{script}");
            // Nothing of a text that was cut is run.
            let cut = script.strip_suffix(")\n").unwrap();
            assert!(!is_shell(cut), "{cut}");
        }
    }
}

#[test]
fn hosts_that_need_the_same_are_named_once() {
    let mut p = project("pidfile bin/app\n");
    let said = p.run("setup dev").ok().stdout;
    assert!(said.starts_with("# As root on web1.example.com, web2.example.com, once"), "{said}");
    let said = p.run("setup dev --host web2.example.com").ok().stdout;
    assert!(said.starts_with("# As root on web2.example.com, once"), "{said}");
    assert!(!said.contains("linger") && !said.contains("sudoers"), "a pidfile service needs neither: {said}");
    p.run("setup dev --host web3").fails(2, "dev has no host web3", "ssh://deploy@web1.example.com/srv/app");
    p.change("ssh://deploy@web2.example.com/srv/app", "ssh://root@web2.example.com/srv/app");
    let said = p.run("setup dev").ok().stdout;
    let (_, as_root) = said.split_once("\n# As root on web2.example.com").unwrap();
    assert!(!as_root.contains("useradd") && as_root.contains("mkdir -p /srv/app"), "{as_root}");
}

#[test]
fn directory_of_this_machine_needs_nothing() {
    let p = Project::new();
    p.run("setup dev").ok().stdout_is("# dev: file:srv/dev is not a host over ssh: there is nothing to set up\n");
    p.run("setup dev --apply").ok().stdout_has("nothing to set up");
}

#[test]
fn key_that_is_private_or_none_is_refused() {
    let p = project("pidfile bin/app\n");
    for (file, text, error) in [
        ("private", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "--key is a private key"),
        ("none", "hello\n", "--key is not an ssh public key"),
        ("empty", "", "--key is not an ssh public key"),
        ("option", "command=\"id\" ssh-ed25519 AAAA\n", "--key is not an ssh public key"),
        ("cut", "ssh-ed25519 AAAA'$(id)'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", "--key is not an ssh public key"),
    ] {
        p.write(file, text);
        p.run(&format!("setup dev --key {file}")).fails(2, error, "--key deploy_key.pub");
    }
    p.run("setup dev --key missing.pub").fails(2, "cannot read the key missing.pub", "ssh-keygen -t ed25519");
}

#[test]
fn manager_of_the_system_without_root_is_refused() {
    let mut p = project("systemd shop|restart|bin/app\nmanager system\nunit-line User=shop\n");
    p.run("setup dev").fails(2, "Manager::System, which needs the login root", "use Manager::Sudo");
    p.change("unit-line User=shop\n", "");
    p.run("setup dev").fails(2, "unit `shop` would run as root", "\"User=root\" if intended");
}

#[test]
fn options_that_need_another_are_refused_without_it() {
    let p = project("pidfile bin/app\n");
    p.run("setup dev --data").code(2).stderr_has("--remove");
    p.run("setup dev --login admin").code(2).stderr_has("--apply");
    p.run("setup dev --remove --data --apply").fails(2, "no terminal to ask on", "--yes");
    p.run("setup nowhere").fails(2, "nowhere", "dev");
}
