//! Real sshds of this machine, each with a port, a host key and its own directory, and all that goes wrong between
//! them and us.

mod delta;
mod doctor;
mod faults;
pub mod hosts;
mod kill;
mod listen;
mod logins;
mod machine;
mod story;
mod sudo;
pub mod systemd;
mod units;

use crate::host::contract;
use crate::parts::ctx;
use crate::project::Project;
use gangplank_bundle::delta::Changes;
use gangplank_deploy::host::Delivery;
use gangplank_deploy::tool::Tool;
use hosts::Fleet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

fn over_ssh(fleet: &Fleet) {
    let dir = crate::record::tempdir();
    let changes: &Changes = Box::leak(Box::default());
    let ctx = ctx(dir.path()).with_vars([("PATH".to_owned(), fleet.path())]);
    contract(
        &ctx,
        dir.path(),
        &*Tool::bare(&ctx, &crate::parts::PROJECT).target(&fleet.target(0, "with space/it's")).unwrap(),
        &|release| Delivery::Push(release, changes),
    );
}

#[test]
fn target_over_ssh_keeps_the_contract() {
    let Some(fleet) = Fleet::start(1) else { return };
    over_ssh(&fleet);
}

/// csh parses quotes, newlines and `!` differently, and many profiles print a greeting.
#[test]
fn target_with_csh_and_printing_profile_keeps_the_contract() {
    let Some(csh) = ["/bin/csh", "/usr/bin/csh", "/bin/tcsh"].into_iter().find(|path| Path::new(path).exists()) else {
        crate::record::skip("a host with csh: not installed");
        return;
    };
    let greeting = "echo 'Welcome! You have mail.'; echo 'Last login: never' >&2";
    let more = format!("ForceCommand {greeting}; exec {csh} -f -c \"$SSH_ORIGINAL_COMMAND\"\n");
    let Some(fleet) = Fleet::with(1, |_| more.clone()) else { return };
    over_ssh(&fleet);
}

/// A project whose dev env runs on all hosts of a fleet.
fn project(fleet: &Fleet, hosts: usize, more: &str) -> Project {
    let mut p = Project::new();
    let targets: String = (0..hosts).map(|host| format!("target {}\n", fleet.target(host, "app"))).collect();
    p.change("target file:srv/dev\n", &format!("{targets}healthy test ! -e www/broken\npatience 5000|50|1\n{more}"));
    p.var("PATH", &fleet.path());
    p
}

fn live(fleet: &Fleet, host: usize) -> String {
    fs::read_to_string(fleet.srv(host).join("app/current/www/index.html")).unwrap_or_default().trim().to_owned()
}

fn all_live(fleet: &Fleet, hosts: usize) -> String {
    (0..hosts).map(|host| live(fleet, host)).collect::<Vec<_>>().join(" ")
}

#[test]
fn fleet_with_canary_deploys_reverts_and_rolls_back() {
    let Some(fleet) = Fleet::start(4) else { return };
    let p = project(&fleet, 4, "strategy canary 1\n");
    let one = p.release("1");
    p.run("deploy dev").ok().stdout_is(&format!("dev: {one} is live\n"));
    assert_eq!(all_live(&fleet, 4), "1 1 1 1");
    p.run("deploy dev").ok().stdout_has("already runs");
    p.release("2");
    p.run("deploy dev").ok();
    assert_eq!(all_live(&fleet, 4), "2 2 2 2");
    // It is sick wherever it runs; only the canary ever runs it.
    p.write("www/broken", "");
    let three = p.release("3");
    let ran = p.run("deploy dev").fails(1, "is live again on ssh://fleet0", "deploy again");
    assert!(ran.stderr.contains("3 other hosts were not switched"), "{}", ran.stderr);
    assert_eq!(all_live(&fleet, 4), "2 2 2 2");
    for host in 1..4 {
        let history = fs::read_to_string(fleet.srv(host).join("app/history.jsonl")).unwrap();
        let switched = history.lines().filter(|line| line.contains(&three) && line.contains("switched")).count();
        assert_eq!(switched, 0, "host {host} was left alone");
    }
    p.run("rollback dev").ok();
    assert_eq!(all_live(&fleet, 4), "1 1 1 1");
    p.run("status dev").ok().stdout_has("ssh://fleet3");
    p.run("verify @dev").ok();
    // A host that is down hides no other.
    let port = fleet.reach_by(3, 1);
    p.run("status dev").code(4).stdout_has("unreachable").stdout_has("live").stderr_has("Connection refused");
    p.run("releases").ok().stdout_has("dev");
    fleet.reach_by(3, port);
    p.run("promote dev prod --yes").ok();
    assert_eq!(p.live("srv/prod"), "1");
    p.run("prune dev").ok();
    p.run("history dev").ok().stdout_has(&one);
}

#[test]
fn ssh_connection_that_fails_names_the_cause_and_the_remedy() {
    let Some(fleet) = Fleet::start(1) else { return };
    let mut p = project(&fleet, 1, "");
    p.release("1");
    let known = fs::read_to_string(fleet.file("known_hosts")).unwrap();
    fs::write(fleet.file("known_hosts"), "").unwrap();
    p.run("deploy dev").fails(3, "its host key is unknown", "`ssh-keyscan fleet0`");
    let other = fs::read_to_string(fleet.file("client.pub")).unwrap();
    let other: Vec<_> = other.split(' ').take(2).collect();
    fs::write(fleet.file("known_hosts"), format!("fleet0 {}\n", other.join(" "))).unwrap();
    p.run("deploy dev").fails(3, "its host key differs from known_hosts", "this may be an attack");
    // What the repository knows counts as well.
    fs::write(fleet.file("known_hosts"), "").unwrap();
    p.write(".circleci/known_hosts", &known);
    p.run("status dev").ok();
    fs::remove_file(p.path(".circleci/known_hosts")).unwrap();
    fs::write(fleet.file("known_hosts"), &known).unwrap();

    let keys = fs::read_to_string(fleet.file("client.pub")).unwrap();
    fs::write(fleet.file("client.pub"), "").unwrap();
    p.run("status dev").fails(3, "authentication failed", "`add_ssh_keys`");
    fs::write(fleet.file("client.pub"), keys).unwrap();
    p.run("deploy dev").ok();

    let url = fleet.target(0, "app");
    let mut other = |from: &str, to: &str| p.change(from, to);
    other(&url, "ssh://nowhere.invalid/srv/app");
    p.run("status dev").fails(4, "unknown host", "DNS");
    let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    p.change("nowhere.invalid/", &format!("127.0.0.1:{closed}/"));
    p.run("status dev").fails(4, "Connection refused", &format!("`ssh -p {closed} 127.0.0.1 true`"));
    // It takes the connection and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    p.change(&closed.to_string(), &silent.local_addr().unwrap().port().to_string());
    p.run("status dev").fails(4, "ssh://127.0.0.1", "check that it can be reached:");
    p.var("PATH", "/nonexistent");
    p.run("status dev").fails(2, "cannot run `ssh`", "install ssh");
}

#[test]
fn jobs_that_deploy_to_hosts_have_their_keys() {
    for handoff in ["workspace", "artifacts"] {
        let mut p = Project::new();
        p.change("store file:store\n", "store circleci:workspace\nstore circleci:artifacts\n");
        p.add(&format!("handoff {handoff}\n"));
        p.run("ci generate").ok();
        assert!(!p.read(".circleci/config.yml").contains("add_ssh_keys"), "{handoff}: without hosts there are none");
        p.change("target file:srv/dev\n", "target ssh://deploy@web1/srv/app\n");
        p.run("ci generate").ok();
        let config = p.read(".circleci/config.yml");
        assert!(config.contains("      - checkout\n      - add_ssh_keys\n"), "{handoff}: {config}");
        p.run("ci lint").ok();
    }
}

#[test]
fn ssh_url_without_valid_host_or_directory_is_refused() {
    for (url, error) in [
        ("ssh://web1", "it has no directory"),
        ("ssh://web1/", "must be absolute"),
        ("ssh://-oProxyCommand=id/srv/app", "its host is invalid"),
        ("ssh://ana:secret@web1/srv/app", "a password is not supported"),
        ("ssh://web1:port/srv/app", "its port is not a number"),
        ("ssh://web1/srv/../etc", "without `.` and `..`"),
        ("ssh://web1/srv/./app", "without `.` and `..`"),
    ] {
        let mut p = Project::new();
        p.change("target file:srv/dev\n", &format!("target {url}\n"));
        p.run("status dev").fails(2, error, "ssh://deploy@web1.example.com/srv/app");
    }
}

#[test]
fn tilde_in_a_path_is_refused() {
    for url in ["ssh://web1/~/app", "ssh://web1/~deploy/app", "file:~/app"] {
        let mut p = Project::new();
        p.change("target file:srv/dev\n", &format!("target {url}\n"));
        p.run("status dev").fails(2, "`~` is not expanded", "write the full path");
    }
    let mut p = Project::new();
    p.change("store file:store\n", "store file:~/releases\n");
    p.release("1");
    p.run("put").fails(2, "`~` is not expanded", "write the full path");
}

#[test]
fn deploy_keeps_secrets_out_of_command_lines_and_output() {
    let Some(fleet) = Fleet::start(1) else { return };
    let seen = fleet.file("seen");
    // Whatever ssh is told, and whatever stands in the process list of the host while the service starts.
    let spy = "ps -eo args= >> srv/seen 2> /dev/null || cat /proc/[0-9]*/cmdline >> srv/seen";
    let mut p = project(&fleet, 1, "var API_TOKEN=${DEPLOY_TOKEN}\n");
    p.change(
        "healthy test",
        &format!("command {}|true|true|true\nhealthy test", spy.replace("srv/seen", &seen.display().to_string())),
    );
    // One that no other test types: theirs are in the process list too.
    p.var("DEPLOY_TOKEN", "tok-0fa11b0dye15e");
    p.release("1");
    let ran = p.run("deploy dev -v").ok();
    let seen = fs::read(seen).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("ssh"), "{seen}");
    for text in [&*seen, &ran.stderr, &ran.stdout] {
        assert!(!text.contains("tok-0fa11b0dye15e"), "{text}");
    }
}

#[test]
fn deploy_over_ssh_leaves_no_socket_and_no_process() {
    let Some(fleet) = Fleet::start(2) else { return };
    let mut p = project(&fleet, 2, "strategy all\n");
    let tmp = p.path("srv/t");
    fs::create_dir_all(&tmp).unwrap();
    p.var("TMPDIR", &tmp.display().to_string());
    p.release("1");
    p.run("deploy dev").ok();
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "the sockets are gone");
    let control = tmp.display().to_string();
    let left = std::process::Command::new("pgrep").args(["-f", &control]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "and the connections with them");
}

/// A host may be far away.
#[test]
fn commands_over_ssh_make_few_requests_to_a_host() {
    let Some(fleet) = Fleet::start(2) else { return };
    let mut p = Project::new();
    p.change("target file:srv/dev\n", &format!("target {}\n", fleet.target(0, "app")));
    p.change("target file:srv/prod\n", &format!("target {}\ntarget {}\n", fleet.target(0, "p"), fleet.target(1, "p")));
    p.var("PATH", &fleet.path());
    let asked = |line: &str, host: &str| {
        let said = p.run(&format!("{line} -v")).ok().stderr;
        let commands: Vec<_> = said.lines().filter_map(|line| line.split_once(&format!("$ ssh {host} # "))).collect();
        // The connection itself, which has no name, and what is asked on it.
        (commands.len(), commands.iter().map(|(_, what)| *what).collect::<Vec<_>>().join("; "))
    };
    p.release("1");
    asked("deploy dev", "fleet0");
    asked("deploy prod --yes", "fleet1");
    p.release("2");
    for (line, host, most) in [
        ("status dev", "fleet0", 1),
        ("deploy dev", "fleet0", 4),
        ("deploy dev", "fleet0", 2),
        ("rollback dev", "fleet0", 3),
        ("deploy prod --yes", "fleet1", 5),
        ("rollback prod --yes", "fleet1", 5),
    ] {
        let (times, what) = asked(line, host);
        assert_eq!(times, most, "{line}: {what}");
    }
}
