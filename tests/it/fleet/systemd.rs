//! Services of a real systemd, over a real sshd.

use super::hosts::{Fleet, address};
use crate::project::{Project, free_port, get};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A project whose dev env is the sample app under systemd on all hosts, at one port.
pub fn project(fleet: &Fleet, hosts: usize, handover: &str) -> (Project, u16) {
    let port = free_port();
    let targets: String = (0..hosts).map(|host| format!("target {}\n", fleet.target_by_address(host, "app"))).collect();
    let mut p = Project::bare(&format!(
        "include bin/app\ninclude www\nstore file:store\nenv dev\n{targets}var STATIC_DIR=www\nvar GREETING=it's \"$HOME\"\n\
         systemd shop|{handover}|bin/app\nhttp http://{{host}}:{port}/health|200|ok\npatience 8000|50|2\n"
    ));
    p.var("PATH", &fleet.path());
    fs::create_dir_all(p.path("bin")).unwrap();
    fs::copy(crate::project::sample_app(), p.path("bin/app")).unwrap();
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    for host in 0..hosts {
        let units = fleet.home(host).join(".config/systemd/user");
        let drop_in = |unit: &str, text: String| {
            fs::create_dir_all(units.join(format!("{unit}.d"))).unwrap();
            fs::write(units.join(format!("{unit}.d/address.conf")), text).unwrap();
        };
        let at = address(host);
        drop_in("shop.service", format!("[Service]\nEnvironment=HOST={at} PORT={port}\n"));
        drop_in("shop.socket", format!("[Socket]\nListenStream=\nListenStream={at}:{port}\n"));
    }
    (p, port)
}

pub fn says(host: usize, port: u16) -> String {
    get(&address(host), port).unwrap()
}

#[test]
fn deploy_with_user_unit_serves_the_release_and_its_log() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (p, port) = project(&fleet, 1, "restart");
    p.release("1");
    p.run("deploy dev").ok();
    assert_eq!(says(0, port), "1");
    p.run("logs dev").ok().stdout_has(&format!("listening on http://{}:{port}", address(0)));
}

#[test]
fn logs_while_the_journal_is_behind_shows_the_last_line() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (p, _) = project(&fleet, 1, "restart");
    p.release("1");
    // A journal that is stopped keeps what the app prints in a socket.
    let journal = fs::read_to_string(fleet.file("h0/journal.pid")).unwrap();
    let signal = |name: &str| assert!(Command::new("kill").args([name, journal.trim()]).status().unwrap().success());
    signal("-STOP");
    p.run("deploy dev").ok();
    let logs = p.start("logs dev");
    // `journalctl --sync` waits for the journal, and without it `logs` has ended.
    let asks = |line: &[u8]| line.starts_with(b"journalctl\0--sync");
    let commands =
        || fs::read_dir("/proc").unwrap().flatten().filter_map(|it| fs::read(it.path().join("cmdline")).ok());
    let started = std::time::Instant::now();
    while !commands().any(|line| asks(&line)) && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal("-CONT");
    let ended = logs.wait_with_output().unwrap();
    let logs = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success() && logs.contains("listening on"), "{logs}");
}

/// Root alone may tell the journal to write what it has.
#[test]
fn logs_of_a_login_that_may_not_sync_the_journal_are_shown() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (p, _) = project(&fleet, 1, "restart");
    let bin = fleet.home(0).join("bin");
    fs::create_dir_all(&bin).unwrap();
    let denied = "#!/bin/sh\n[ \"$1\" != --sync ] || exit 1\nexec /usr/bin/journalctl \"$@\"\n";
    fs::write(bin.join("journalctl"), denied).unwrap();
    fs::set_permissions(bin.join("journalctl"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(fleet.home(0).join(".bashrc"), format!("PATH={}:$PATH\n", bin.display())).unwrap();
    assert_eq!(fleet.ask(0, "journalctl --sync; echo $?"), "1");
    p.release("1");
    p.run("deploy dev").ok();
    // Without a sync the journal may be a phase behind.
    crate::project::eventually("the log is shown", || p.run("logs dev").stdout.contains("listening on"));
}

#[test]
fn deploy_whose_unit_crashes_is_reverted_and_shows_its_log() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (mut p, port) = project(&fleet, 1, "restart");
    p.release("1");
    p.run("deploy dev").ok();
    p.run("deploy dev").ok().stdout_has("already runs");
    // Other variables are a reason to start it again, and reach it by a file that only its user reads.
    p.change("it's \"$HOME\"", "other");
    p.run("deploy dev").ok().stderr_has("ok      restarted ");
    let env = fleet.srv(0).join("app/service/env");
    assert_eq!(fs::metadata(&env).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&env).unwrap(), "STATIC_DIR=\"www\"\nGREETING=\"other\"\n");
    let unit = fleet.home(0).join(".config/systemd/user/shop.service");
    let good = fs::read_to_string(&unit).unwrap();
    assert!(!good.contains("other"), "{good}");

    // It ends at once, wherever it is started from.
    p.change("var GREETING=other\n", "var PORT=no\n");
    p.release("2");
    // systemd may notice at once, or when it has started it again three times.
    let ran = p.run("deploy dev").fails(1, "is live again", "deploy again");
    assert!(ran.stderr.contains("PORT"), "the journal's last words: {}", ran.stderr);
    assert_eq!(says(0, port), "1");
    p.change("var PORT=no\n", "var GREETING=other\n");
    p.run("status dev").ok().stdout_has("running");
    // systemd restarts it after a crash.
    let pid = fleet.ask(0, "systemctl --user show -p MainPID --value shop");
    fleet.ask(0, &format!("kill -KILL {pid}"));
    crate::project::eventually("it is started again", || get(&address(0), port).is_ok_and(|said| said == "1"));

    // A change by hand is reverted; files of other programs are not touched.
    fs::write(&unit, good.replace("RestartSec=1", "RestartSec=9")).unwrap();
    p.run("deploy dev").ok();
    p.change("restart|bin/app", "restart|bin/app more");
    p.run("deploy dev").code(1);
    p.change("restart|bin/app more", "restart|bin/app");
    assert_eq!(says(0, port), "2");
    assert_eq!(fs::read_to_string(&unit).unwrap(), good);
    p.run("rollback dev").ok();
    assert_eq!(says(0, port), "1");
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    p.change("GREETING=other", "GREETING=third");
    p.run("deploy dev").fails(1, "shop.service is not ours", "give the env another `unit`");
    assert_eq!(fs::read_to_string(&unit).unwrap(), "[Service]\nExecStart=/bin/true\n");
}

#[test]
fn first_deploy_that_fails_leaves_no_unit_enabled() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (mut p, _) = project(&fleet, 1, "sockets");
    p.change("var GREETING", "var PORT=no\nvar GREETING");
    p.change("|200|ok", "|200|never");
    p.change("patience 8000", "patience 1000");
    p.release("1");
    p.run("deploy dev").fails(1, "nothing is live", "deploy again");
    assert_eq!(fleet.ask(0, "systemctl --user is-enabled shop.service shop.socket 2>/dev/null"), "");
    assert_eq!(fleet.ask(0, "systemctl --user is-active shop.service shop.socket"), "inactive\ninactive");
}

#[test]
fn deploy_while_another_kind_of_service_runs_is_refused() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (mut p, port) = project(&fleet, 1, "restart");
    let kept = format!("var HOST={}\nvar PORT={port}\npidfile bin/app", address(0));
    p.change("systemd shop|restart|bin/app", &kept);
    p.release("1");
    p.run("deploy dev").ok();
    p.change(&kept, "systemd shop|restart|bin/app");
    p.run("deploy dev").fails(1, "a process of the built-in pidfile service runs here", "`kill ");
    assert_eq!(says(0, port), "1");
    let process = fs::read_to_string(fleet.srv(0).join("app/service/process")).unwrap();
    fleet.ask(0, &format!("kill {}", process.split(' ').next().unwrap()));
    p.run("deploy dev").ok();
    assert_eq!(says(0, port), "1");
    p.change("systemd shop|restart|bin/app", &kept);
    p.run("deploy dev").fails(1, "the unit shop of the user's systemd runs here", "`systemctl disable --now shop`");
    assert_eq!(says(0, port), "1");
}

#[test]
fn deploy_by_login_without_systemd_names_the_remedy() {
    let Some(fleet) = Fleet::start(1) else { return };
    let mut p = Project::new();
    let target = fleet.target(0, "app");
    p.change("target file:srv/dev\n", &format!("target {target}\nsystemd shop|restart|bin/app\n"));
    p.var("PATH", &fleet.path());
    p.release("1");
    p.run("deploy dev").fails(1, "systemd does not answer this login", "`loginctl enable-linger ");
}

/// Changes on the host, by hand or by a bad setting, are detected and reverted, or reported.
#[test]
fn deploy_over_changed_unit_restores_it() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (mut p, port) = project(&fleet, 1, "restart");
    p.release("1");
    p.run("deploy dev").ok();
    let unit = fleet.home(0).join(".config/systemd/user/shop.service");
    let good = fs::read_to_string(&unit).unwrap();
    let edit = format!("echo MemoryMax=1G >> {}", unit.display());
    for harm in [edit.as_str(), "systemctl --user disable -q shop", &format!("rm {}", unit.display())] {
        fleet.ask(0, harm);
        p.run("status dev").ok().stdout_has("unit changed");
        p.run("deploy dev").ok().stderr_has("ok      restarted ");
        assert_eq!(fs::read_to_string(&unit).unwrap(), good, "{harm}");
        assert_eq!(fleet.ask(0, "systemctl --user is-enabled shop"), "enabled");
        p.run("deploy dev").ok().stdout_has("already runs");
    }
    // It cannot listen there: what systemd thinks of it is no reason to leave the old one down.
    p.change("restart|bin/app", "sockets|bin/app");
    let drop_in = fleet.home(0).join(".config/systemd/user/shop.socket.d/address.conf");
    let address = fs::read_to_string(&drop_in).unwrap();
    fs::write(&drop_in, "[Socket]\nListenStream=\nListenStream=notaport\n").unwrap();
    p.release("2");
    p.run("deploy dev").fails(1, "is live again", "deploy again");
    assert_eq!(says(0, port), "1");
    fs::write(&drop_in, address).unwrap();
    p.run("deploy dev").ok();
    assert_eq!(says(0, port), "2");
    // Files that were edited are not started again.
    fs::write(fleet.srv(0).join("app/current/www/index.html"), "evil\n").unwrap();
    p.change("GREETING=it", "GREETING=was");
    p.run("deploy dev").fails(7, "was changed since it was installed", "mv releases/");
    let live = fleet.ask(0, &format!("basename $(readlink {}/app/current)", fleet.srv(0).display()));
    let releases = fleet.srv(0).join("app/releases");
    fs::rename(releases.join(&live), releases.join("edited")).unwrap();
    p.run("deploy dev").ok();
    assert_eq!(says(0, port), "2");
}

/// It crashes a second after each start; there is no health check.
#[test]
fn deploy_whose_unit_crashes_later_is_reverted() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (mut p, port) = project(&fleet, 1, "restart");
    p.change(&format!("http http://{{host}}:{port}/health|200|ok\n"), "");
    p.change("patience 8000", "patience 20000");
    p.release("1");
    p.run("deploy dev").ok();
    p.write_program("bin/app", "#!/bin/sh\nsleep 1\nexit 3\n");
    p.release("2");
    p.run("deploy dev").fails(1, "it has crashed 1 time(s)", "deploy again");
    assert_eq!(says(0, port), "1");
}

/// Two units of one app would compete for one port; a unit of the system is never replaced.
#[test]
fn deploy_over_unit_of_another_name_or_owner_is_refused() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (mut p, port) = project(&fleet, 1, "restart");
    p.release("1");
    p.run("deploy dev").ok();
    p.change("systemd shop|", "systemd other|");
    p.release("2");
    p.run("deploy dev").fails(1, "the unit shop of the user's systemd runs here, not other", "disable --now shop");
    assert_eq!(says(0, port), "1");
    p.change("systemd other|", "systemd shop|");
    p.run("deploy dev").ok();
    let vendor = fleet.home(0).join(".local/share/systemd/user/cron.service");
    fs::create_dir_all(vendor.parent().unwrap()).unwrap();
    fs::write(&vendor, "[Service]\nExecStart=/bin/sleep 600\n").unwrap();
    fleet.ask(0, "systemctl --user daemon-reload; systemctl --user start cron");
    p.change(&fleet.target_by_address(0, "app"), &fleet.target_by_address(0, "other"));
    p.change("systemd shop|", "systemd cron|");
    p.run("deploy dev").fails(1, "cron.service is not ours", "another `unit`");
    assert_eq!(fleet.ask(0, "systemctl --user is-active cron shop"), "active\nactive");
    p.change("systemd cron|restart", "systemd cron|sockets");
    p.change("http http://", "tcp ");
    p.run("status dev").fails(2, "would be answered by systemd", "`Check::Http`");
}

/// Connects once for each request, as fast as it can, until it is told to stop; gives how many were answered, and what
/// went wrong with the others.
pub struct Hammer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Hammer {
    pub fn on(hosts: usize, port: u16, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |host: usize| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let (mut good, mut bad) = (0, Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    match get(&address(host), port) {
                        Ok(said) if !said.is_empty() => good += 1,
                        other => bad.push(format!("host {host}: {other:?}")),
                    }
                    std::thread::sleep(pause);
                }
                (good, bad)
            })
        };
        Self { threads: (0..hosts).map(one).collect(), stop }
    }

    pub fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let done = self.threads.into_iter().map(|thread| thread.join().unwrap());
        done.fold((0, Vec::new()), |(good, bad), (more, worse)| (good + more, [bad, worse].concat()))
    }
}

#[test]
fn no_request_fails_while_systemd_holds_the_socket() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (p, port) = project(&fleet, 1, "sockets");
    p.release("1");
    p.run("deploy dev").ok();
    let hammer = Hammer::on(1, port, Duration::from_millis(2));
    p.release("2");
    p.run("deploy dev").ok();
    assert_eq!(says(0, port), "2");
    p.run("rollback dev").ok();
    assert_eq!(says(0, port), "1");
    let (good, bad) = hammer.stop();
    assert!(good > 20 && bad.is_empty(), "{good} answered, {} not: {:?}", bad.len(), bad.first());
}
