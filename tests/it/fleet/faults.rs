//! Networks that break and deployers that are killed: whatever was done stays whole, and the same command goes on.

use crate::fleet::hosts::Fleet;
use crate::fleet::{all_live, live, project};
use crate::project::Project;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Stands before a host, and cuts connections.
pub struct Proxy {
    /// How many bytes it passes on to the host, of all connections together; `usize::MAX` for ever.
    pub left: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// From now on the host is reached by it.
    pub fn before(fleet: &Fleet, host: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let to = fleet.reach_by(host, listener.local_addr().unwrap().port());
        let proxy = Self { left: Arc::new(AtomicUsize::new(usize::MAX)), open: Arc::default() };
        let (all_left, open) = (Arc::clone(&proxy.left), Arc::clone(&proxy.open));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut from_server, &mut to_client)));
                let left = Arc::clone(&all_left);
                std::thread::spawn(move || pump(client, server, &left));
            }
        });
        proxy
    }

    /// Cuts what is open now; who comes later is served.
    pub fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut client: TcpStream, mut server: TcpStream, left: &AtomicUsize) {
    let mut piece = [0; 1 << 14];
    while let Ok(n @ 1..) = client.read(&mut piece) {
        let may = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(n) };
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, may).is_err() || server.write_all(&piece[..n]).is_err()
        {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

#[test]
fn deploy_cut_off_during_install_switches_nothing() {
    let Some(fleet) = Fleet::start(2) else { return };
    let p = project(&fleet, 2, "strategy all\n");
    p.release("1");
    p.run("deploy dev").ok();
    let proxy = Proxy::before(&fleet, 1);
    proxy.left.store(500_000, Ordering::SeqCst);
    p.write("www/noise", &crate::ci::faults::noise(2 << 20));
    p.release("2");
    p.run("deploy dev").fails(4, "the connection broke during: install", "run the same command again");
    assert_eq!(all_live(&fleet, 2), "1 1", "nothing was switched anywhere");
    proxy.left.store(usize::MAX, Ordering::SeqCst);
    p.run("deploy dev").ok();
    assert_eq!(all_live(&fleet, 2), "2 2");
    let releases = fs::read_dir(fleet.srv(1).join("app/releases")).unwrap().flatten();
    assert!(releases.into_iter().all(|it| !it.file_name().to_string_lossy().starts_with('.')), "no debris");
}

#[test]
fn deploy_whose_install_fails_on_one_host_switches_none() {
    let Some(fleet) = Fleet::start(3) else { return };
    let p = project(&fleet, 3, "strategy all\n");
    p.release("1");
    p.run("deploy dev").ok();
    // A file where the directory should be.
    fs::rename(fleet.srv(2).join("app/releases"), fleet.srv(2).join("app/kept")).unwrap();
    fs::write(fleet.srv(2).join("app/releases"), "").unwrap();
    p.release("2");
    let ran = p.run("deploy dev");
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("nothing was switched"), "{}", ran.stderr);
    assert_eq!(format!("{} {}", live(&fleet, 0), live(&fleet, 1)), "1 1");
    fs::remove_file(fleet.srv(2).join("app/releases")).unwrap();
    fs::rename(fleet.srv(2).join("app/kept"), fleet.srv(2).join("app/releases")).unwrap();
    p.run("deploy dev").ok();
    assert_eq!(all_live(&fleet, 3), "2 2 2");
}

#[test]
fn ctrl_c_while_a_command_checks_puts_the_old_release_back() {
    let Some(fleet) = Fleet::start(1) else { return };
    let mut p = project(&fleet, 1, "");
    p.release("1");
    p.run("deploy dev").ok();
    p.change("healthy test ! -e www/broken", "healthy grep -q 1 www/index.html || sleep 30");
    p.change("patience 5000|50|1", "patience 40000|50|1");
    p.release("2");
    let child = p.start("deploy dev");
    crate::project::eventually("the switch", || live(&fleet, 0) == "2");
    std::thread::sleep(std::time::Duration::from_millis(500));
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is live again on ssh://fleet0"), "{stderr}");
    assert_eq!(live(&fleet, 0), "1");
    assert!(!fleet.srv(0).join("app/.lock").exists(), "{stderr}");
}

#[test]
fn deploy_whose_command_exits_255_is_no_connection_failure() {
    let Some(fleet) = Fleet::start(1) else { return };
    let mut p = project(&fleet, 1, "command echo sick; exit 255|true|true|true\n");
    p.release("1");
    p.run("deploy dev").fails(1, "the service command failed with exit code 255: sick", "deploy again");
    // Whatever eats what the host should read: nothing is done, and nothing is said to be done.
    let eats = format!("#!/bin/sh\nexec {} \"$@\" < /dev/null\n", fleet.file("bin/ssh").display());
    p.write_program("srv/bin/ssh", &eats);
    p.var("PATH", &format!("{}:{}", p.path("srv/bin").display(), fleet.path()));
    let ran = p.run("deploy dev");
    assert_eq!(ran.code, 4, "{}", ran.stderr);
}

#[test]
fn health_check_past_its_deadline_is_ended_on_the_host() {
    let Some(fleet) = Fleet::start(1) else { return };
    let mut p = project(&fleet, 1, "");
    p.change("healthy test ! -e www/broken", "healthy sleep 4711");
    p.change("patience 5000|50|1", "patience 1000|50|1");
    p.release("1");
    p.run("deploy dev").fails(1, "was not healthy within 1s", "deploy again");
    crate::project::eventually("the check is gone", || {
        let left = std::process::Command::new("pgrep").args(["-f", "^sleep 4711"]).output().unwrap();
        left.stdout.is_empty()
    });
}

/// The connection breaks while the host waits for the old process to stop: it goes on by itself and starts the new one,
/// and only then is the old one reverted.
#[test]
fn deploy_cut_off_during_restart_is_reverted() {
    let Some(fleet) = Fleet::start(1) else { return };
    let mut p = Project::with_service();
    p.change("target file:srv/dev\n", &format!("target {}\n", fleet.target(0, "app")));
    p.var("PATH", &fleet.path());
    p.write("behavior", "deaf\n");
    let one = p.release("1");
    p.run("deploy dev").ok();
    let proxy = Proxy::before(&fleet, 0);
    p.release("2");
    let child = p.start("deploy dev");
    let spec = fleet.srv(0).join("app/service/spec.new");
    crate::project::eventually("the restart", || spec.exists());
    proxy.cut();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("is live again on ssh://fleet0"), "{stderr}");
    assert_eq!(live(&fleet, 0), "1");
    let process = fs::read_to_string(fleet.srv(0).join("app/service/process")).unwrap();
    assert!(process.contains(&one), "what is live is what runs: {process}");
    p.run("status dev").ok().stdout_has("running");
}

/// A host whose shells are killed, as by one that has no memory left: what was being done is reported, and no word of how
/// scripts are sent.
#[test]
fn host_whose_shell_is_killed_is_reported_without_words_of_the_protocol() {
    let path = std::env::var("PATH").unwrap();
    let Some(fleet) = Fleet::with_vars(1, &format!("PATH=@dir@/own:{path}")) else { return };
    let p = super::project(&fleet, 1, "");
    p.release("1");
    let all_above = "up=$PPID; all=
while [ \"$(cat /proc/$up/comm)\" != sshd ]; do all=\"$up $all\"; up=$(sed -n 's/^PPid:[^0-9]*//p' /proc/$up/status); done
echo 'Out of memory' >&2; kill -KILL $all";
    for said in ["", "echo 'Out of memory' >&2; "] {
        let all_above = all_above.replace("echo 'Out of memory' >&2; ", said);
        super::doctor::program(&fleet, "uniq", &all_above);
        let ran = p.run("deploy dev").code(4);
        assert!(ran.stderr.contains("the connection broke during: install"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("gangplank-") && !ran.stderr.contains("gangplank:"), "{}", ran.stderr);
        assert!(said.is_empty() || ran.stderr.contains("Out of memory"), "{}", ran.stderr);
    }
}
