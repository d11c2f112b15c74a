//! Ten machines from their first release on, under continuous requests.

use super::hosts::{Fleet, address};
use super::systemd::{Hammer, project};
use crate::project::free_port;
use crate::record::skip;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const HOSTS: usize = 10;
/// Between two requests to one host, so that the deploys get a word in.
const PAUSE: Duration = Duration::from_millis(25);

/// nginx with a server for each host, which knows nothing of releases: it serves what `site/current` is.
struct Nginx(Child);

impl Nginx {
    fn start(fleet: &Fleet, port: u16) -> Option<Self> {
        if !Path::new("/usr/sbin/nginx").exists() {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "install nginx");
            skip("static files behind nginx: not installed");
            return None;
        }
        let dir = fleet.file("nginx");
        fs::create_dir_all(&dir).unwrap();
        let at = dir.display();
        let mut config = format!(
            "daemon off;\nworker_processes 1;\npid {at}/pid;\nerror_log {at}/error.log;\nuser root;\nevents {{}}\nhttp {{\naccess_log off;\n"
        );
        for path in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(config, "{path}_temp_path {at}/{path};").unwrap();
        }
        for host in 0..HOSTS {
            let root = fleet.srv(host).join("site/current/www");
            writeln!(config, "server {{ listen {}:{port}; root {}; }}", address(host), root.display()).unwrap();
        }
        config.push_str("}\n");
        fs::write(dir.join("nginx.conf"), config).unwrap();
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.arg("-c").arg(dir.join("nginx.conf")).arg("-p").arg(&dir);
        Some(Self(nginx.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

#[test]
fn fleet_of_ten_hosts_serves_every_request_during_deploys() {
    let Some(fleet) = Fleet::with_systemd(HOSTS) else { return };
    let (mut p, port) = project(&fleet, HOSTS, "sockets");
    let static_port = free_port();
    let site: String = (0..HOSTS).map(|host| format!("target {}\n", fleet.target_by_address(host, "site"))).collect();
    p.change("include www\n", "include www\ninclude broken\n");
    p.add(&format!(
        "strategy canary 1\nenv prod\n{site}strategy percent 30\nhealthy test -s www/index.html\npatience 5000|50|1\n"
    ));
    let Some(_nginx) = Nginx::start(&fleet, static_port) else { return };
    let good = fs::read(p.path("bin/app")).unwrap();
    p.write("broken", "");
    p.release("1");
    p.run("deploy dev").ok();
    p.run("promote dev prod").ok();

    let (service, files) = (Hammer::on(HOSTS, port, PAUSE), Hammer::on(HOSTS, static_port, PAUSE));
    p.release("2");
    let second = p.run("deploy dev").ok();
    assert_eq!(
        second.stderr.matches("bytes sent of").count(),
        HOSTS,
        "the program is not sent again: {}",
        second.stderr
    );
    p.run("promote dev prod").ok();

    // It does not start: the canary has it for a phase.
    p.write_program("bin/app", "#!/bin/sh\necho cannot start >&2\nexit 1\n");
    let three = p.release("3");
    let ran =
        p.run("deploy dev").fails(1, "is live again on ssh://127.0.1.10", "deploy again").stderr_has("cannot start");
    assert!(ran.stderr.contains("9 other hosts were not switched"), "{}", ran.stderr);
    for host in 1..HOSTS {
        let history = fs::read_to_string(fleet.srv(host).join("app/history.jsonl")).unwrap();
        assert!(!history.lines().any(|line| line.contains(&three) && line.contains("switched")), "host {host}");
    }
    let broken = service.stop();

    fs::write(p.path("bin/app"), good).unwrap();
    let service = Hammer::on(HOSTS, port, PAUSE);
    p.release("4");
    p.run("deploy dev").ok();
    p.run("promote dev prod").ok();
    for live in ["2", "1"] {
        p.run("rollback dev").ok();
        p.run("rollback prod").ok();
        let all: Vec<_> = (0..HOSTS).map(|host| super::systemd::says(host, port)).collect();
        assert_eq!(all, vec![live; HOSTS]);
    }
    let (service, files) = (service.stop(), files.stop());
    p.run("prune dev --keep 2").ok();
    p.run("verify @dev").ok();
    p.run("status").ok().stdout_has("ssh://127.0.1.19");
    for (what, (good, bad)) in [("the service", service), ("files", files)] {
        assert!(good > 100 && bad.is_empty(), "{what}: {good} answered, {} not: {:?}", bad.len(), bad.first());
    }
    // During the failed deploy, a client of the canary waits for the revert or is refused; the other hosts serve.
    assert!(broken.1.iter().all(|bad| bad.starts_with("host 0:")), "{:?}", broken.1.first());
}
