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
fn a_connection_that_is_cut_in_the_middle_of_an_install() {
    let Some(fleet) = Fleet::start(2) else { return };
    let p = project(&fleet, 2, "strategy all\n");
    p.release("1");
    p.run("deploy dev").ok();
    let proxy = Proxy::before(&fleet, 1);
    proxy.left.store(500_000, Ordering::SeqCst);
    p.write("www/noise", &crate::faults::noise(2 << 20));
    p.release("2");
    p.run("deploy dev").fails(4, "the connection broke while it was told to install", "run the same command again");
    assert_eq!(all_live(&fleet, 2), "1 1", "nothing was switched anywhere");
    proxy.left.store(usize::MAX, Ordering::SeqCst);
    p.run("deploy dev").ok();
    assert_eq!(all_live(&fleet, 2), "2 2");
    let releases = fs::read_dir(fleet.srv(1).join("app/releases")).unwrap().flatten();
    assert!(releases.into_iter().all(|it| !it.file_name().to_string_lossy().starts_with('.')), "no debris");
}

/// Before ssh: it counts what is said to hosts, and once the command of a number was done there it kills who said it. The
/// connection itself says nothing.
const COUNTING: &str = r#"#!/bin/sh
case " $* " in *" ControlMaster=yes "*) exec "$REAL" "$@";; esac
n=1; while ! mkdir "$COUNT/$n" 2> /dev/null; do n=$((n + 1)); done
if [ "$n" = "$(cat "$COUNT/lose")" ]; then "$REAL" "$@" > /dev/null 2>&1; exit 255; fi
"$REAL" "$@"; code=$?
if [ "$n" = "$(cat "$COUNT/kill")" ]; then kill -9 "$PPID"; fi
exit "$code"
"#;

/// From now on the deployer is killed after the command of this number, or does not hear its answer; 0 for never.
fn count(p: &Project, kill: usize, lose: usize) {
    let _ = fs::remove_dir_all(p.path("srv/count"));
    p.write("srv/count/kill", &kill.to_string());
    p.write("srv/count/lose", &lose.to_string());
}

/// A project on all hosts of a fleet, whose commands are counted.
fn counted(fleet: &Fleet, hosts: usize, more: &str) -> Project {
    let mut p = project(fleet, hosts, more);
    p.change("patience 5000", "patience 30000");
    p.write_program("srv/bin/ssh", COUNTING);
    p.var("PATH", &format!("{}:{}", p.path("srv/bin").display(), std::env::var("PATH").unwrap()));
    p.var("COUNT", &p.path("srv/count").display().to_string());
    p.var("REAL", &fleet.file("bin/ssh").display().to_string());
    count(&p, 0, 0);
    p
}

/// The host does what it is told, and nobody hears so: whatever is said of it then is true, and the same again converges.
#[test]
fn an_answer_that_is_lost() {
    let Some(fleet) = Fleet::start(2) else { return };
    for (dir, hosts) in [("one", 1), ("two", 2)] {
        let mut p = counted(&fleet, hosts, "command true|true|true|true\nstrategy all\nkeep 2\n");
        for host in 0..hosts {
            p.change(&fleet.target(host, "app"), &fleet.target(host, dir));
        }
        let lives = || -> Vec<_> {
            let live = |host| fs::read_to_string(fleet.srv(host).join(dir).join("current/www/index.html")).unwrap();
            (0..hosts).map(|host| live(host).trim().to_owned()).collect()
        };
        for release in ["a", "b", "c"] {
            p.release(release);
            p.run("deploy dev").ok();
        }
        let mut before = "c".to_owned();
        for number in 1.. {
            let now = format!("{dir}-{number}");
            p.release(&now);
            count(&p, 0, number);
            let ran = p.run("deploy dev --lock-wait 20");
            let said = fs::read_dir(p.path("srv/count")).unwrap().flatten().filter(|it| it.path().is_dir()).count();
            count(&p, 0, 0);
            let lives = lives();
            let want = match ran.code {
                0 => &now,
                1 | 4 => &before,
                code => panic!("{now}: code {code}: {}", ran.stderr),
            };
            assert!(lives.iter().all(|live| live == want), "{now}: {lives:?} after code {}: {}", ran.code, ran.stderr);
            p.run("deploy dev --lock-wait 20").ok();
            before.clone_from(&now);
            if number > said {
                assert!(number > hosts * 4, "{number}");
                break;
            }
        }
        p.run("rollback dev").ok();
    }
}

#[test]
fn a_deployer_that_is_killed_at_every_command_to_three_hosts() {
    const HOSTS: usize = 3;
    let Some(fleet) = Fleet::start(HOSTS) else { return };
    let p = counted(&fleet, HOSTS, "strategy canary 1\n");
    p.release("0");
    p.run("deploy dev").ok();
    let (mut kills, mut before) = (0, "0".to_owned());
    for number in 1.. {
        let now = format!("after-{number}");
        p.release(&now);
        count(&p, number, 0);
        let killed = p.run("deploy dev");
        let said = fs::read_dir(p.path("srv/count")).unwrap().flatten().filter(|it| it.path().is_dir()).count();
        for host in 0..HOSTS {
            assert!([&before, &now].contains(&&live(&fleet, host)), "{now}: host {host} runs {}", live(&fleet, host));
        }
        count(&p, 0, 0);
        p.run("deploy dev --lock-wait 20").ok();
        assert_eq!(all_live(&fleet, HOSTS), vec![now.clone(); HOSTS].join(" "));
        for host in 0..HOSTS {
            let root = fleet.srv(host).join("app");
            assert!(!root.join(".lock").exists(), "{now}: the lock of host {host} was given back");
            let debris = fs::read_dir(root.join("releases")).unwrap().flatten();
            assert!(debris.into_iter().all(|it| !it.file_name().to_string_lossy().starts_with('.')), "{now}: debris");
        }
        before.clone_from(&now);
        if killed.code == 0 {
            assert!(number > said, "{now}: it was not killed");
            break;
        }
        kills += 1;
    }
    p.run("rollback dev").ok();
    p.run("verify @dev").ok();
    assert!(kills >= 15, "a deploy to three hosts says more than {kills} things");
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
fn exit_codes_and_words_of_a_host_are_its_own() {
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
fn a_check_that_takes_too_long_is_ended_on_the_host() {
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
/// and only then is the old one put back.
#[test]
fn a_connection_that_is_cut_in_the_middle_of_a_restart() {
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
    p.run("status dev").ok().has("running");
}
