//! Services of a real systemd, over a real sshd.

use super::hosts::{Fleet, address};
use crate::project::{Project, free_port, get};
use std::fs;

/// A project whose dev env is the sample app under systemd on all hosts, at one port.
fn project(fleet: &Fleet, hosts: usize, handover: &str) -> (Project, u16) {
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

fn says(host: usize, port: u16) -> String {
    get(&address(host), port).unwrap()
}

#[test]
fn a_unit_of_a_user() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (p, port) = project(&fleet, 1, "restart");
    p.release("1");
    p.run("deploy dev").ok();
    assert_eq!(says(0, port), "1");
}
