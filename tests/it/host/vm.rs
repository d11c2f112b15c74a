//! A real machine: a Debian with systemd as its first process, sudo, real logins, a clock and a power switch of its own.
//! One boot after the other costs most of the time, so one machine goes through all cases in order.

mod cases;
mod guide;
mod image;
mod machine;
mod power;

use crate::project::{Project, get};
use machine::Machine;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The envs of the project, each with a service of its own on the same machine.
const ENVS: [&str; 4] = ["sudo", "user", "system", "box"];

/// The machine and the project that is deployed to it.
struct Fixture {
    vm: Machine,
    p: Project,
    failed: Vec<String>,
}

impl Fixture {
    /// Goes on after a case that failed, because the next boot is far away; the end of the test names all of them.
    fn case(&mut self, name: &str, run: impl FnOnce(&mut Self)) {
        // `GANGPLANK_VM_CASES=fresh,story of sudo` runs those alone.
        let wanted = std::env::var("GANGPLANK_VM_CASES").unwrap_or_default();
        if !wanted.is_empty() && !wanted.split(',').any(|piece| name.contains(piece)) {
            return;
        }
        let started = Instant::now();
        eprintln!("case `{name}`");
        if catch_unwind(AssertUnwindSafe(|| run(self))).is_err() {
            eprintln!("case `{name}` failed");
            self.failed.push(name.to_owned());
        }
        eprintln!("case `{name}`: {:.1} s", started.elapsed().as_secs_f32());
    }

    /// What the service of an env answers.
    fn answer_of(&self, env: &str) -> String {
        let service = ENVS.iter().position(|it| *it == env).unwrap();
        get("127.0.0.1", self.vm.port(service)).unwrap_or_else(|error| format!("nothing: {error}"))
    }
}

/// The sample app in four envs: two logins, three managers and the pidfile service.
fn project(vm: &Machine) -> Project {
    let service = |n: usize, login: &str, dir: &str, service: &str| {
        let port = vm.port(n);
        format!(
            "env {}\ntarget {}\nvar STATIC_DIR=www\nvar HOST=0.0.0.0\nvar PORT={port}\n{service}\n\
             http http://{{host}}:{port}/health|200|ok\npatience 30000|200|2\n",
            ENVS[n],
            vm.target(login, dir)
        )
    };
    let envs = [
        service(0, "deploy", "/srv/app", "systemd shop|restart|bin/app\nmanager sudo"),
        service(1, "deploy", "/srv/own", "systemd own|restart|bin/app"),
        service(2, "root", "/srv/system", "systemd web|restart|bin/app\nmanager system\nunit-line User=deploy"),
        service(3, "box", "/srv/box", "pidfile bin/app"),
    ];
    let mut p = Project::bare(&format!("include bin/app\ninclude www\nstore file:store\n{}", envs.concat()));
    p.var("PATH", &vm.path());
    fs::create_dir_all(p.path("bin")).unwrap();
    fs::copy(crate::project::sample_app(), p.path("bin/app")).unwrap();
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    p
}

/// Waits until `done`; a machine without KVM that has others beside it is slow.
#[track_caller]
fn soon(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(180), "not within three minutes: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn commands_of_the_guide_are_found() {
    for words in guide::BLOCKS {
        guide::lines(words);
    }
}

#[test]
#[ignore = "group vm"]
fn deploys_to_a_real_machine_survive_reboots_and_power_cuts() {
    let Some(vm) = Machine::start(ENVS.len()) else { return };
    let p = project(&vm);
    let mut fixture = Fixture { vm, p, failed: Vec::new() };
    let w = &mut fixture;
    w.case("from a fresh server by docs/hosts.md", |w| {
        guide::fresh_server(&w.vm, &w.p);
        guide::set_up(&w.vm, &w.p);
        guide::busybox(&w.vm);
    });
    for login in ["deploy", "box"] {
        w.case(&format!("contract of a target as {login}"), |w| cases::contract(w, login));
    }
    for env in ENVS {
        w.case(&format!("story of {env}"), |w| cases::story(w, env));
    }
    w.case("host with BusyBox alone is sent only changes", cases::busybox_changes);
    for env in ["sudo", "user"] {
        w.case(&format!("log of {env} with a clock that jumps"), |w| cases::clock(w, env));
    }
    w.case("full disk", cases::full_disk);
    w.case("orderly reboot", power::reboot);
    w.case("power cut right after a deploy", power::cut_after_deploy);
    w.case("power cut during a deploy", power::cut_during_deploy);
    w.case("setup is taken back", |w| guide::take_back(&w.vm, &w.p));
    assert!(fixture.failed.is_empty(), "failed: {}", fixture.failed.join(", "));
}
