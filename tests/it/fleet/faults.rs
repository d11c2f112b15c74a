//! Networks that break and deployers that are killed: whatever was done stays whole, and the same command goes on.

use crate::fleet::hosts::Fleet;
use crate::fleet::{all_live, live, project};
use crate::project::Project;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Stands before a host. The connections together may send it so many bytes, then all are cut; `usize::MAX` for ever.
fn proxy(to: u16, left: &Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (port, left) = (listener.local_addr().unwrap().port(), Arc::clone(left));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || drop(std::io::copy(&mut from_server, &mut to_client)));
            let left = Arc::clone(&left);
            std::thread::spawn(move || pump(client, server, &left));
        }
    });
    port
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
fn a_connection_that_is_cut_in_the_middle_of_an_install() {
    let Some(fleet) = Fleet::start(2) else { return };
    let p = project(&fleet, 2, "strategy all\n");
    p.release("1");
    p.run("deploy dev").ok();
    let left = Arc::new(AtomicUsize::new(500_000));
    let port = proxy(fleet.reach_by(1, 1), &left);
    fleet.reach_by(1, port);
    p.write("www/noise", &crate::faults::noise(2 << 20));
    p.release("2");
    p.run("deploy dev").fails(4, "the connection broke while it was told to install", "run the same command again");
    assert_eq!(all_live(&fleet, 2), "1 1", "nothing was switched anywhere");
    left.store(usize::MAX, Ordering::SeqCst);
    p.run("deploy dev").ok();
    assert_eq!(all_live(&fleet, 2), "2 2");
    let releases = fs::read_dir(fleet.srv(1).join("app/releases")).unwrap().flatten();
    assert!(releases.into_iter().all(|it| !it.file_name().to_string_lossy().starts_with('.')), "no debris");
}

/// In the place of ssh: the same words, run by a shell of this machine. It counts what it is told, and after the command
/// of a number it kills who told it.
const COUNTING: &str = r#"#!/bin/sh
for last; do :; done
n=1; while ! mkdir "$COUNT/$n" 2> /dev/null; do n=$((n + 1)); done
if [ "$n" = "$(cat "$COUNT/kill-before")" ]; then kill -9 "$PPID"; exit 255; fi
env -u COUNT sh -c "$last"; code=$?
if [ "$n" = "$(cat "$COUNT/kill-after")" ]; then kill -9 "$PPID"; fi
exit "$code"
"#;

struct Counted {
    p: Project,
}

impl Counted {
    const HOSTS: usize = 3;

    fn new() -> Self {
        let mut p = Project::new();
        let root = p.path("").display().to_string();
        let targets: String = (0..Self::HOSTS).map(|n| format!("target ssh://fake{n}{root}srv/h{n}\n")).collect();
        p.change(
            "target file:srv/dev\n",
            &format!("{targets}strategy canary 1\nhealthy test -d www\npatience 2000|10|1\n"),
        );
        p.write_program("srv/bin/ssh", COUNTING);
        p.var("PATH", &format!("{}:{}", p.path("srv/bin").display(), std::env::var("PATH").unwrap()));
        p.var("COUNT", &p.path("srv/count").display().to_string());
        Self { p }
    }

    /// From now on the deployer is killed before or after the command of this number; 0 for never.
    fn kill(&self, when: &str, number: usize) {
        let _ = fs::remove_dir_all(self.p.path("srv/count"));
        self.p.write("srv/count/kill-before", "0");
        self.p.write("srv/count/kill-after", "0");
        self.p.write(&format!("srv/count/kill-{when}"), &number.to_string());
    }

    fn said(&self) -> usize {
        fs::read_dir(self.p.path("srv/count")).unwrap().flatten().filter(|it| it.path().is_dir()).count()
    }

    fn live(&self, host: usize) -> String {
        self.p.live(&format!("srv/h{host}"))
    }
}

#[test]
fn a_deployer_that_is_killed_at_every_command_to_three_hosts() {
    let mut kills = 0;
    for when in ["before", "after"] {
        for number in 1.. {
            let world = Counted::new();
            world.kill(when, 0);
            world.p.release("1");
            world.p.run("deploy dev").ok();
            world.p.release("2");
            world.kill(when, number);
            let killed = world.p.run("deploy dev");
            let said = world.said();
            for host in 0..Counted::HOSTS {
                assert!(["1", "2"].contains(&world.live(host).as_str()), "{when} {number}: host {host}");
            }
            world.kill(when, 0);
            world.p.run("deploy dev --lock-wait 20").ok();
            for host in 0..Counted::HOSTS {
                assert_eq!(world.live(host), "2", "{when} {number}: host {host}");
                let left = world.p.path(&format!("srv/h{host}/.lock"));
                assert!(!left.exists(), "{when} {number}: the lock of host {host} was given back");
            }
            if killed.code == 0 {
                assert!(number > said, "{when} {number}: it was not killed");
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 40, "{kills}");
}

#[test]
fn a_host_that_cannot_take_the_release_keeps_all_from_being_switched() {
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
