//! The pidfile service and the command kind, with real processes on real ports.

use crate::project::{Project, eventually, free_port};
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

fn process(p: &Project, env: &str) -> String {
    p.read(&format!("srv/{env}/service/process")).split(' ').next().unwrap().to_owned()
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn deploy_after_the_service_was_killed_starts_it_again() {
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    let first = process(&p, "dev");
    assert!(Command::new("kill").args(["-KILL", &first]).status().unwrap().success());
    eventually("it is dead", || !alive(&first));
    p.run("status dev").ok().stdout_has("stopped");
    p.run("deploy dev").ok().stdout_has("is live");
    assert_eq!(p.get("dev").unwrap(), "1");
    assert_ne!(process(&p, "dev"), first);
}

#[test]
fn deploy_with_other_variables_restarts_and_reverts_bad_ones() {
    let mut p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    let (old, new) = (p.port("dev"), free_port());
    p.move_port(old, new);
    p.run("deploy dev").ok().stdout_has("is live");
    assert_eq!(p.get("dev").unwrap(), "1");
    // A port that is taken: the process that is kept must come back with the variables that worked.
    let taken = free_port();
    let _holder = TcpListener::bind(("127.0.0.1", taken)).unwrap();
    p.change(&format!("PORT={new}"), &format!("PORT={taken}"));
    p.run("deploy dev").fails(1, "exit code 98", "ss -ltnp").stderr_has("cannot listen on");
    p.change(&format!("PORT={taken}"), &format!("PORT={new}"));
    assert_eq!(p.get("dev").unwrap(), "1");
}

#[test]
fn deploy_with_port_in_use_fails_and_leaves_nothing_live() {
    let p = Project::with_service();
    p.release("1");
    let _holder = TcpListener::bind(("127.0.0.1", p.port("dev"))).unwrap();
    p.run("deploy dev")
        .fails(1, "stopped by itself: the process ended with exit code 98", "ss -ltnp")
        .stderr_has("Address already in use");
    assert_eq!(p.current("srv/dev"), None, "a first deploy that fails leaves nothing live");
}

#[test]
fn deploy_of_unhealthy_release_is_reverted() {
    let mut p = Project::with_service();
    p.change("env prod", "patience 600|50|2\nenv prod");
    p.release("1");
    p.run("deploy dev").ok();
    for (behavior, reason) in
        [("hang\n", "Connection refused"), ("status 500\n", "answered 500, not 200"), ("exit 1\n", "exit code 1")]
    {
        p.write("behavior", behavior);
        p.release(behavior.trim());
        p.run("deploy dev").fails(1, reason, "deploy again").stderr_has("the last lines of its log");
        assert_eq!(p.get("dev").unwrap(), "1", "after {behavior}");
        p.run("status dev").ok().stdout_has("live").stdout_has("running");
    }
}

#[test]
fn deploy_ends_the_old_process_before_the_new_one_listens() {
    // The new process would fail to listen, and the deploy with it, if the old one still did.
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    for n in 2..6 {
        let before = process(&p, "dev");
        p.release(&n.to_string());
        p.run("deploy dev").ok();
        assert!(!alive(&before), "{before} outlived its release");
        assert_eq!(p.get("dev").unwrap(), n.to_string());
    }
}

#[test]
fn deploy_over_process_that_ignores_sigterm_kills_it() {
    let mut p = Project::with_service();
    // A shell that ignores SIGTERM and waits for the app, which gets no signal of its own.
    p.write_program("bin/stubborn", "#!/bin/sh\ntrap '' TERM\nbin/app &\nwait\nwait\nwait\n");
    p.change("include bin/app\n", "include bin/app\ninclude bin/stubborn\n");
    p.change("pidfile bin/app", "pidfile bin/stubborn");
    p.release("1");
    p.run("deploy dev").ok();
    p.release("2");
    p.run("deploy dev").ok();
    assert_eq!(p.get("dev").unwrap(), "2");
}

#[test]
fn service_gets_its_variables_and_none_of_the_deploy() {
    let mut p = Project::with_service();
    p.write_program("bin/show", "#!/bin/sh\nenv | sort > ../../env.txt\nexec bin/app\n");
    p.change("include bin/app\n", "include bin/app\ninclude bin/show\n");
    p.change("pidfile bin/app", "pidfile bin/show");
    p.change(
        "var PORT",
        "var GREETING=it's ${WHOM:-you} $HOME \"quoted\"\nvar DATABASE=${DATABASE_PASSWORD}\nvar PORT",
    );
    p.var("CIRCLE_TOKEN", "CCIPAT_open-sesame");
    p.release("1");
    p.run("deploy dev").fails(2, "DATABASE_PASSWORD", "CircleCI context");
    p.var("DATABASE_PASSWORD", "hunter2-hunter2");
    let ran = p.run("deploy dev -v").ok();
    let env = p.read("srv/dev/env.txt");
    assert!(env.contains("GREETING=it's you $HOME \"quoted\"\n"), "{env}");
    assert!(env.contains("DATABASE=hunter2-hunter2\n"), "{env}");
    assert!(!env.contains("sesame") && !env.contains("GANGPLANK_FIXTURE"), "{env}");
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(p.path("srv/dev/service/spec")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn commands_of_the_host_start_and_stop_the_service() {
    let mut p = Project::new();
    let service = "command echo $WORD $(readlink current) >> started|echo stopped >> started|test -s started|tail started\nvar WORD=go\n";
    p.change(
        "target file:srv/dev\n",
        &format!("target file:srv/dev\n{service}healthy ! grep -q bad www/index.html\npatience 0|1|1\n"),
    );
    let bad = p.release("bad first");
    p.run("deploy dev").code(1).stderr_has("no healthy release to go back to");
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    p.run("deploy dev").ok().stdout_has("nothing to do");
    let worse = p.release("bad again");
    p.run("deploy dev").code(1).stderr_has("is live again");
    let lines = [
        format!("go releases/{bad}"),
        "stopped".into(),
        format!("go releases/{v1}"),
        format!("go releases/{worse}"),
        format!("go releases/{v1}"),
    ];
    assert_eq!(p.read("srv/dev/started").lines().collect::<Vec<_>>(), lines);
}

/// What answers on the port of an env, whatever release it is of.
fn only_status(p: &mut Project) {
    p.change("/version|200|{commit}", "/|200|");
}

#[test]
fn deploy_of_a_daemon_fails_and_leaves_nothing_of_it() {
    let mut p = Project::with_service();
    only_status(&mut p);
    p.release("1");
    p.run("deploy dev").ok();
    p.write("behavior", "daemon\n");
    p.release("2");
    p.run("deploy dev").fails(1, "run the app in the foreground", "deploy again").stderr_has("is live again");
    assert_eq!(p.get("dev").unwrap().trim(), "1");
    let daemon = p.read("srv/dev/service/log");
    let daemon = daemon.lines().find_map(|line| line.strip_prefix("daemon ")).unwrap();
    assert!(!alive(daemon));
}

#[test]
fn deploy_of_a_daemon_without_variables_names_the_process_that_has_the_port() {
    let mut p = Project::with_service();
    only_status(&mut p);
    p.change("env prod", "patience 1500|50|2\nenv prod");
    p.write("behavior", "daemon clean\n");
    p.release("1");
    let ran = p.run("deploy dev").code(1);
    let daemon = p.read("srv/dev/service/log");
    let daemon = daemon.lines().find_map(|line| line.strip_prefix("daemon ")).unwrap().to_owned();
    // It takes a phase until it has the port.
    let named = format!("is held by process {daemon}");
    let again = if ran.stderr.contains(&named) { ran } else { p.run("deploy dev").code(1) };
    assert!(Command::new("kill").args(["-KILL", &daemon]).status().unwrap().success());
    again.stderr_has(&named);
}

#[test]
fn deploy_whose_port_an_older_process_has_fails_and_names_it() {
    let mut p = Project::with_service();
    only_status(&mut p);
    p.change("env prod", "patience 1500|50|2\nenv prod");
    p.release("1");
    p.run("deploy dev").ok();
    // The app was started by hand, and the new process needs some time until it finds its port in use.
    crate::project::end_kept(&p.path("srv/dev"));
    let port = p.port("dev");
    eventually("the port is free", || TcpListener::bind(("127.0.0.1", port)).is_ok());
    let mut by_hand =
        Command::new("bin/app").current_dir(p.path("srv/dev/current")).env("PORT", port.to_string()).spawn().unwrap();
    eventually("it answers", || p.get("dev").is_ok());
    p.write("behavior", "slow 3\n");
    p.release("2");
    let pid = by_hand.id();
    let current = p.path("srv/dev/current");
    let to = fs::read_link(&current).unwrap();
    let killed = std::thread::spawn(move || {
        // Once the new release went live and was reverted.
        eventually("it is switched", || fs::read_link(&current).unwrap() != to);
        eventually("it is reverted", || fs::read_link(&current).unwrap() == to);
        let _ = (by_hand.kill(), by_hand.wait());
    });
    let ran = p.run("deploy dev").fails(1, &format!("port {port} is held by process {pid}"), "deploy again");
    ran.stderr_has("is live again");
    killed.join().unwrap();
    p.write("behavior", "");
    p.release("3");
    p.run("deploy dev").ok();
}

/// Holds a port for a while, as the system does for a minute after an app without `SO_REUSEADDR` has ended.
fn hold(port: u16, time: Duration) -> std::thread::JoinHandle<()> {
    let started = Instant::now();
    std::thread::spawn(move || {
        // As soon as the old process has given it up.
        let holder = loop {
            match TcpListener::bind(("127.0.0.1", port)) {
                Ok(holder) => break holder,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        std::thread::sleep(time);
        drop(holder);
    })
}

#[test]
fn deploy_whose_port_is_in_use_for_a_while_starts_the_app_again() {
    let mut p = Project::with_service();
    p.change("env prod", "patience 9000|50|2\nenv prod");
    p.write("behavior", "nap\n");
    p.release("1");
    p.run("deploy dev").ok();
    p.release("2");
    let held = hold(p.port("dev"), Duration::from_secs(3));
    p.run("deploy dev").ok().stderr_has("restarting it: the process ended with exit code 98, its address is in use");
    held.join().unwrap();
    assert_eq!(p.get("dev").unwrap(), "2");
}

#[test]
fn revert_whose_port_is_in_use_for_a_while_brings_the_old_release_back() {
    let mut p = Project::with_service();
    p.change("env prod", "patience 1500|50|2\nenv prod");
    p.write("behavior", "nap\n");
    p.release("1");
    p.run("deploy dev").ok();
    p.release("2");
    let held = hold(p.port("dev"), Duration::from_secs(6));
    p.run("deploy dev").code(1).stderr_has("is live again");
    held.join().unwrap();
    assert_eq!(p.get("dev").unwrap(), "1");
}

#[test]
fn deploy_that_the_app_itself_starts_comes_to_its_end() {
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    p.release("2");
    // It inherits the variable by which children of the app are known.
    let environ = fs::read(format!("/proc/{}/environ", process(&p, "dev"))).unwrap();
    let mark =
        environ.split(|byte| *byte == 0).find_map(|it| std::str::from_utf8(it).ok()?.strip_prefix("GANGPLANK_TARGET="));
    let ran = p.run_with("deploy dev", &[("GANGPLANK_TARGET".into(), mark.unwrap().into())]);
    ran.ok();
    assert_eq!(p.get("dev").unwrap(), "2");
}

#[test]
fn deploy_in_a_copied_checkout_leaves_the_original_running() {
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    let first = process(&p, "dev");
    let mut copy = Project::with_service();
    let status = Command::new("cp").arg("-a").arg(p.path(".")).arg(copy.path(".")).status().unwrap();
    assert!(status.success());
    copy.run("status dev").ok().stdout_has("stopped");
    copy.write("www/index.html", "2\n");
    copy.release("2");
    copy.run("deploy dev").ok();
    assert!(alive(&first), "the original");
    assert_eq!((p.get("dev").unwrap().as_str(), copy.get("dev").unwrap().as_str()), ("1", "2"));
    // A directory that was moved is the same one.
    std::fs::rename(copy.path("srv/dev"), copy.path("srv/moved")).unwrap();
    copy.change("target file:srv/dev\n", "target file:srv/moved\n");
    copy.run("status dev").ok().stdout_has("running");
    crate::project::end_kept(&copy.path("srv/moved"));
}

#[test]
fn rollback_to_a_release_in_which_the_app_wrote_is_warned_of_and_one_that_it_changed_refused() {
    let p = Project::with_service();
    let one = p.release("1");
    p.run("deploy dev").ok();
    let at = format!("srv/dev/releases/{one}");
    for file in ["app.pid", "__pycache__/app.pyc", "data.sqlite"] {
        p.write(&format!("{at}/{file}"), "x");
    }
    p.release("2");
    p.run("deploy dev").ok();
    let ran =
        p.run("rollback dev").ok().stderr_has("and 2 more; `shared` in xtask/src/main.rs keeps what an app writes");
    ran.stderr_has("is not part of the release");
    assert_eq!(p.get("dev").unwrap(), "1");
    p.release("3");
    p.run("deploy dev").ok();
    p.write(&format!("{at}/www/index.html"), "changed");
    p.run(&format!("rollback dev {one}")).fails(7, "was changed since it was installed", "mv releases/");
}

#[test]
fn deploy_with_other_variables_restarts_a_service_of_commands() {
    let mut p = Project::new();
    let service = "command echo $WORD >> started|:|:|:\nvar WORD=one\n";
    p.change("target file:srv/dev\n", &format!("target file:srv/dev\n{service}"));
    p.release("1");
    p.run("deploy dev").ok();
    p.run("deploy dev").ok().stdout_has("nothing to do");
    p.change("WORD=one", "WORD=two");
    p.run("deploy dev").ok().stderr_has("ok      restarted ");
    p.run("deploy dev").ok().stdout_has("nothing to do");
    assert_eq!(p.read("srv/dev/started"), "one\ntwo\n");
}

#[test]
fn line_of_megabytes_in_a_log_is_shortened() {
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    let log = p.path("srv/dev/service/log");
    let mut text = fs::read_to_string(&log).unwrap();
    text.extend(["x".repeat(3_000_000).as_str(), "\nthe end\n"]);
    fs::write(&log, text).unwrap();
    let shown = p.run("logs dev").ok().stdout_has("... (truncated)\nthe end\n").stdout;
    assert!(shown.len() < 10_000, "{}", shown.len());
    // A command's output is what it is.
    let all = p.run("exec dev -- cat ../../service/log").ok().stdout;
    assert!(all.len() > 3_000_000, "{}", all.len());
    p.write("behavior", "exit 3\n");
    p.release("2");
    let ran = p.run("deploy dev").code(1);
    assert!(ran.stderr.len() < 10_000, "{}", ran.stderr.len());
}

#[test]
fn tcp_check_without_listener_fails_the_deploy() {
    let mut p = Project::with_service();
    let port = p.port("dev");
    p.change(
        &format!("http http://127.0.0.1:{port}/version|200|{{commit}}\n"),
        &format!("tcp 127.0.0.1:{port}\npatience 3000|20|3\n"),
    );
    p.release("1");
    p.run("deploy dev").ok();
    p.write("behavior", "hang\n");
    p.release("2");
    p.run("deploy dev").fails(1, "was not healthy within 3s", "deploy again");
    assert_eq!(p.get("dev").unwrap(), "1");
}

/// The shell of a switch may be killed, e.g. for lack of memory: the progress of the restart is then unknown.
#[test]
fn restart_that_is_killed_is_reverted() {
    let mut p = Project::new();
    p.change(
        "env prod",
        "var COLOUR=${COLOUR:-red}\ncommand echo $COLOUR $(cat current/www/index.html) >> started; if [ -e current/www/die ]; then kill -KILL $$; fi|true|true|true\nenv prod",
    );
    p.release("1");
    p.run("deploy dev").ok();
    p.run("status dev").ok().stdout_has("live");
    assert!(!p.run("status dev").stdout.contains("stopped"), "nothing of ours runs it");
    p.write("www/die", "");
    p.var("COLOUR", "blue");
    p.release("2");
    let ran = p.run("deploy dev").fails(1, "is live again", "deploy again");
    assert!(!ran.stderr.contains("gangplank:"), "{}", ran.stderr);
    assert_eq!(p.read("srv/dev/started"), "red 1\nblue 2\nred 1\n", "as it was when it was healthy");
    assert_eq!(p.read("srv/dev/service/env"), "COLOUR=\"red\"\n");
}
