//! Deploys by a real sudo with the line that `setup` prints: it lets them run what they run, and nothing else.

use super::hosts::Fleet;
use super::machine::add_login;
use crate::cli::doctor::broken;
use crate::project::Project;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// A host, and a project whose dev env is a unit of its system's manager, by sudo.
fn start(handover: &str) -> Option<(Fleet, Project)> {
    let fleet = Fleet::with_sudo()?;
    add_login(&fleet.file("h0"));
    let mut p = super::project(&fleet, 1, &format!("systemd shop|{handover}|bin/app\nmanager sudo\n"));
    let (from, to) = (fleet.target(0, "app"), fleet.target(0, "app").replace("ssh://", "ssh://deploy@"));
    p.change(&from, &to);
    Some((fleet, p))
}

/// The line for sudoers that `setup` prints.
fn line(p: &Project) -> String {
    let said = p.run("setup dev").ok().stdout;
    let (_, line) = said.split_once("<<END\n").unwrap();
    let mut line = line.split_once("\nEND\n").unwrap().0.replace(r"\\", r"\");
    for program in ["systemctl", "install", "mv"] {
        line = line.replace(&format!("${program} "), &format!("/usr/bin/{program} "));
    }
    line
}

/// Installs a line for sudoers as root does.
fn grant(fleet: &Fleet, line: &str) {
    let file = fleet.file("h0/etc/sudoers.d/gangplank-shop");
    let _ = fs::remove_file(&file);
    fs::write(&file, format!("{line}\n")).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o440)).unwrap();
    let checked = Command::new("visudo").arg("-cqf").arg(&file).output().unwrap();
    assert!(checked.status.success(), "{line}: {}", String::from_utf8_lossy(&checked.stderr));
}

fn unit(fleet: &Fleet, name: &str) -> String {
    fs::read_to_string(fleet.file("h0/etc/systemd/system").join(name)).unwrap_or_default()
}

/// What root told the manager.
fn calls(fleet: &Fleet) -> String {
    fs::read_to_string(fleet.file("h0/calls")).unwrap()
}

/// First release, next one, one that is taken back, way back, and what an operator does.
fn whole_story(fleet: &Fleet, p: &mut Project) {
    for text in ["1", "2"] {
        p.release(text);
        p.run("deploy dev").ok();
    }
    p.write("www/broken", "");
    p.release("3");
    p.run("deploy dev").fails(1, "is live again", "deploy again");
    fs::remove_file(p.path("www/broken")).unwrap();
    p.run("rollback dev").ok();
    assert_eq!(super::live(fleet, 0), "1");
    for line in ["stop dev", "start dev", "restart dev"] {
        p.run(line).ok();
    }
}

#[test]
fn line_of_setup_lets_each_deploy_revert_and_rollback_run() {
    for handover in ["restart", "sockets"] {
        let Some((fleet, mut p)) = start(handover) else { return };
        grant(&fleet, &line(&p));
        // A first release that fails is stopped for good.
        p.write("www/broken", "");
        p.release("0");
        p.run("deploy dev").fails(1, "nothing is live", "deploy again");
        fs::remove_file(p.path("www/broken")).unwrap();
        assert!(calls(&fleet).contains("disable -q --now shop.service"), "{}", calls(&fleet));
        whole_story(&fleet, &mut p);
        let told = calls(&fleet);
        assert!(told.contains("restart shop.service") && told.contains("daemon-reload"), "{told}");
        assert_eq!(told.contains("shop.socket"), handover == "sockets", "{told}");
        assert_eq!(unit(&fleet, "shop.socket").is_empty(), handover == "restart");
    }
}

#[test]
fn line_of_setup_lets_sockets_be_given_up() {
    let Some((fleet, mut p)) = start("sockets") else { return };
    grant(&fleet, &line(&p));
    p.release("1");
    p.run("deploy dev").ok();
    p.change("shop|sockets", "shop|restart");
    p.release("2");
    p.run("deploy dev").ok();
    assert!(calls(&fleet).contains("disable -q --now shop.socket"), "{}", calls(&fleet));
    // The way back needs them too, so a line without them is refused while the socket is installed.
    grant(&fleet, &line(&p));
    p.release("3");
    p.run("deploy dev").fails(1, "`sudo systemctl disable -q --now shop.socket`", "`cargo xtask setup dev`");
}

/// What was installed before would be what systemd starts after the next crash.
#[test]
fn command_that_sudo_refuses_leaves_the_units_as_they_were() {
    let Some((fleet, mut p)) = start("restart") else { return };
    let short = line(&p);
    grant(&fleet, &short);
    p.release("1");
    p.run("deploy dev").ok();
    let (before, told) = (unit(&fleet, "shop.service"), calls(&fleet));
    assert!(before.contains("User=deploy\n"), "{before}");
    p.change("shop|restart", "shop|sockets");
    p.release("2");
    let ran = p.run("deploy dev").fails(
        1,
        "nothing was switched",
        "the line for sudoers that `cargo xtask setup dev` prints",
    );
    for command in ["start shop.socket", "enable -q shop.socket", "stop shop.service shop.socket"] {
        assert!(ran.stderr.contains(&format!("`sudo systemctl {command}`")), "{command}: {}", ran.stderr);
    }
    assert_eq!(
        (unit(&fleet, "shop.service"), unit(&fleet, "shop.socket"), calls(&fleet)),
        (before, String::new(), told)
    );
    broken(&p, "doctor dev", "sudo does not let deploy run these", "`cargo xtask setup dev`");
    grant(&fleet, &line(&p));
    p.run("deploy dev").ok();
    assert!(unit(&fleet, "shop.service").contains("Requires=shop.socket"));
    // Each command of the list is asked for: a line that lacks any of them is refused.
    let whole = line(&p);
    let (start, commands) = whole.split_once("NOPASSWD: ").unwrap();
    let commands: Vec<_> = commands.split(", ").collect();
    p.release("3");
    for lacks in 0..commands.len() {
        let rest: Vec<_> = commands.iter().enumerate().filter(|(n, _)| *n != lacks).map(|(_, it)| *it).collect();
        grant(&fleet, &format!("{start}NOPASSWD: {}", rest.join(", ")));
        let missing = commands[lacks].replace("/usr/bin/", "");
        p.run("deploy dev").fails(1, &format!("`sudo {missing}`"), "`cargo xtask setup dev`");
    }
    let sudo =
        Command::new(fleet.file("bin/ssh")).args(["-l", "deploy", "fleet0", "sudo -n -l systemctl stop cron"]).output();
    assert!(!sudo.unwrap().status.success(), "and nothing else is granted");
}

/// sudo lists each of these commands for a login that may run everything with its password.
#[test]
fn login_that_may_do_all_with_its_password_needs_the_line_too() {
    let Some((fleet, mut p)) = start("restart") else { return };
    let short = line(&p);
    let all = "deploy ALL=(ALL:ALL) ALL";
    grant(&fleet, all);
    p.release("1");
    p.run("deploy dev").fails(1, "`sudo systemctl daemon-reload`", "`cargo xtask setup dev`");
    grant(&fleet, &format!("{all}\n{short}"));
    p.run("deploy dev").ok();
    p.change("shop|restart", "shop|sockets");
    p.release("2");
    let ran = p.run("deploy dev").fails(1, "nothing was switched", "`cargo xtask setup dev`");
    assert!(ran.stderr.contains("`sudo systemctl start shop.socket`"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("`sudo systemctl stop shop.service`"), "that one is granted: {}", ran.stderr);
    grant(&fleet, "deploy ALL=(ALL:ALL) NOPASSWD: ALL");
    p.run("deploy dev").ok();
}

#[test]
fn login_root_with_sudo_has_to_say_that_the_app_is_root() {
    let Some((fleet, mut p)) = start("restart") else { return };
    p.change("ssh://deploy@", "ssh://");
    p.release("1");
    p.run("deploy dev").fails(1, "would run as root", "\"User=root\"");
    p.change("manager sudo\n", "manager sudo\nunit-line User=root\n");
    p.run("deploy dev").ok();
    assert!(unit(&fleet, "shop.service").contains("User=root\n"));
}

#[test]
fn user_of_the_app_that_the_host_does_not_have_is_refused_before_the_switch() {
    let Some((fleet, mut p)) = start("restart") else { return };
    grant(&fleet, &line(&p));
    p.change("manager sudo\n", "manager sudo\nunit-line User=shop-app\n");
    p.release("1");
    let hint = "`useradd --system --shell /usr/sbin/nologin shop-app`";
    p.run("deploy dev").fails(1, "the host has no user shop-app", hint);
    broken(&p, "doctor dev", "the host has no user shop-app", hint);
    assert_eq!((unit(&fleet, "shop.service"), calls(&fleet)), (String::new(), String::new()));
    // One that systemd makes itself need not be there.
    p.change("unit-line User=shop-app\n", "unit-line User=shop-app\nunit-line DynamicUser=yes\n");
    p.run("deploy dev").ok();
}

/// A directory whose name means something to sudoers or to a shell.
#[test]
fn line_of_setup_holds_for_a_directory_with_special_characters() {
    let Some((fleet, mut p)) = start("restart") else { return };
    p.change(&format!("{}/app", fleet.srv(0).display()), &format!("{}/a,b:c=d*[e] f", fleet.srv(0).display()));
    grant(&fleet, &line(&p));
    p.release("1");
    p.run("deploy dev").ok();
    assert!(unit(&fleet, "shop.service").contains("a,b:c=d*[e] f/current"), "{}", unit(&fleet, "shop.service"));
    p.change("a,b:c=d*[e] f", "a#b");
    p.run("setup dev").fails(2, "which sudoers does not allow", "use a directory");
}

/// All of it, on a host that has nothing: the login, its key, the directory, the group, and the line for sudoers.
#[test]
fn setup_as_root_makes_a_fresh_host_ready_and_takes_it_back() {
    let Some(fleet) = Fleet::with_sudo() else { return };
    let mut p = super::project(&fleet, 1, "systemd shop|sockets|bin/app\nmanager sudo\nunit-line User=shop-app\n");
    p.change("ssh://fleet0", "ssh://deploy@fleet0");
    p.write("deploy_key", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    p.write("deploy_key.pub", &fs::read_to_string(fleet.file("client.pub")).unwrap());
    p.release("1");
    p.run("deploy dev").code(3);
    let etc = |file: &str| fs::read_to_string(fleet.file("h0/etc").join(file)).unwrap_or_default();
    p.run("setup dev --key deploy_key.pub --apply --dry-run").ok().stdout_has("useradd");
    assert!(!etc("passwd").contains("deploy:"));
    for _ in 0..2 {
        p.run("setup dev --key deploy_key.pub --apply").ok().stdout_has("commands were run");
    }
    assert!(etc("passwd").contains("\ndeploy:") && etc("passwd").contains("\nshop-app:"), "{}", etc("passwd"));
    let keys = fleet.file("h0/homes/deploy/.ssh/authorized_keys");
    assert_eq!(fs::read_to_string(&keys).unwrap().matches("restrict ssh-ed25519 ").count(), 1);
    assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o600);
    let sudoers = fleet.file("h0/etc/sudoers.d/gangplank-shop");
    assert_eq!(fs::metadata(&sudoers).unwrap().permissions().mode() & 0o777, 0o440);
    let journal = etc("group").lines().find(|line| line.starts_with("systemd-journal:")).map(str::to_owned);
    assert!(journal.is_some_and(|line| line.ends_with("deploy")), "{}", etc("group"));
    whole_story(&fleet, &mut p);
    // It goes again, and what it never made stays.
    p.run("setup dev --key deploy_key.pub --remove --apply").ok().stderr_has("kept, because it is not empty");
    assert!(!sudoers.exists() && unit(&fleet, "shop.service").is_empty() && fleet.srv(0).join("app/releases").is_dir());
    assert!(!fs::read_to_string(&keys).unwrap().contains("ssh-ed25519"));
    p.run("setup dev --remove --data --apply").fails(2, "no terminal", "--yes");
    p.run("setup dev --remove --data --apply --yes").ok();
    assert!(!fleet.srv(0).join("app").exists());
    // A second time, and where the login is gone too.
    let passwd = etc("passwd").replace("\ndeploy:", "\ngone:");
    fs::write(fleet.file("h0/etc/passwd"), passwd).unwrap();
    p.run("setup dev --key deploy_key.pub --remove --data --apply --yes").ok();
    fs::write(fleet.file("h0/etc/passwd"), etc("passwd").replace("\ngone:", "\ndeploy:")).unwrap();
    // A login that is not root changes nothing.
    p.run("setup dev --apply --login deploy").fails(1, "deploy is not root there", "sudo sh`");
    assert!(!sudoers.exists());
}

/// Runs a text as root of the host does who sends it to `sh`: its exit code, and what it printed.
fn piped(fleet: &Fleet, script: &str) -> (Option<i32>, String) {
    let mut ssh = Command::new(fleet.file("bin/ssh"));
    ssh.args(["fleet0", "sh"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut ssh = ssh.spawn().unwrap();
    ssh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let ran = ssh.wait_with_output().unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn setup_ends_at_a_directory_that_is_not_of_the_login_and_changes_no_owner() {
    let Some((fleet, mut p)) = start("restart") else { return };
    let (srv, sudoers) = (fleet.srv(0), fleet.file("h0/etc/sudoers.d/gangplank-shop"));
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    // One of another app, and one that the login has made a link to.
    let (taken, precious, link) = (srv.join("taken"), fleet.file("h0/precious"), srv.join("app"));
    fs::create_dir(&taken).unwrap();
    fs::create_dir(&precious).unwrap();
    std::os::unix::fs::symlink(&precious, &link).unwrap();
    let script = p.run("setup dev").ok().stdout;
    let (code, said) = piped(&fleet, &script);
    assert!(code == Some(1) && said.contains("app exists, and deploy cannot write to it"), "{code:?} {said}");
    assert!(!sudoers.exists(), "later steps do not run");
    // The shell that it was pasted into goes on.
    let (code, said) = piped(&fleet, &format!("{script}\necho code $?\n"));
    assert!(code == Some(0) && said.contains("code 1\n"), "{code:?} {said}");
    // Each host that fails is named.
    let one = fleet.target(0, "app").replace("ssh://", "ssh://deploy@");
    p.change(&format!("target {one}\n"), &format!("target {one}\ntarget {}\n", one.replace("/app", "/taken")));
    p.run("setup dev --apply")
        .fails(1, "app exists, and deploy", "chown -h deploy: ")
        .stderr_has("taken exists, and deploy");
    assert_eq!((owner(&taken), owner(&precious), owner(&link)), (0, 0, 0));
    // What does not exist is made, and so is what the login cannot make itself.
    fs::remove_file(&link).unwrap();
    fs::remove_dir(&taken).unwrap();
    fs::create_dir(srv.join("of_root")).unwrap();
    p.change(&one.replace("/app", "/taken"), &one.replace("/app", "/of_root/new/app"));
    for host in [one.clone(), one.replace("/app", "/of_root/new/app")] {
        p.run(&format!("setup dev --apply --host {host}")).ok();
    }
    assert_eq!((owner(&link), owner(&srv.join("of_root/new")), owner(&srv.join("of_root/new/app"))), (65533, 0, 65533));
    assert!(sudoers.exists());
}

/// A host whose programs are elsewhere: sudo compares whole paths.
#[test]
fn line_of_setup_has_the_paths_of_the_host() {
    let Some((fleet, p)) = start("restart") else { return };
    let (code, said) = piped(&fleet, &p.run("setup dev").ok().stdout);
    assert_eq!(code, Some(0), "{said}");
    let installed = fs::read_to_string(fleet.file("h0/etc/sudoers.d/gangplank-shop")).unwrap();
    assert_eq!(installed.trim_end(), line(&p));
    p.release("1");
    p.run("deploy dev").ok();
}
