//! Units that fail, run under another state than the host has on record, or would not outlive the login: what a deploy,
//! `status`, `logs` and `doctor` report.

use super::doctor::program;
use super::hosts::Fleet;
use super::systemd::{project, says};
use crate::cli::doctor::{broken, checks, run, warned};
use crate::project::Project;
use std::fs;
use std::path::PathBuf;

/// A host with a first release under a unit of its user.
fn deployed() -> Option<(Fleet, Project, u16)> {
    let fleet = Fleet::with_systemd(1)?;
    let (p, port) = project(&fleet, 1, "restart");
    p.release("1");
    p.run("deploy dev").ok();
    Some((fleet, p, port))
}

fn service(fleet: &Fleet, file: &str) -> PathBuf {
    fleet.srv(0).join("app/service").join(file)
}

/// As for each login but root, which may not ask the journal for that.
fn no_sync(fleet: &Fleet) {
    program(fleet, "journalctl", "case $* in --sync) exit 1;; esac; exec /usr/bin/journalctl \"$@\"");
}

#[test]
fn logs_of_a_login_that_may_not_sync_the_journal_are_shown() {
    let Some((fleet, p, _)) = deployed() else { return };
    no_sync(&fleet);
    p.run("logs dev").ok().stdout_has("listening on");
    // journald knows the unit of a process only while it runs.
    p.write_program("bin/app", "#!/bin/sh\necho last words\nsleep 0.3\nexit 7\n");
    p.release("2");
    p.run("deploy dev").fails(1, "with exit status 7", "deploy again");
    p.run("logs dev").ok().stdout_has("last words");
}

#[test]
fn log_after_a_failure_has_the_lines_of_this_start_alone() {
    let Some((fleet, p, _)) = deployed() else { return };
    // A clock that was reverted an hour: by time, what failed before belongs to every later start.
    program(&fleet, "date", "case $1 in +%s) echo $(($(/bin/date +%s) - 3600));; *) exec /bin/date \"$@\";; esac");
    for (release, words) in [("2", "first failure"), ("3", "second failure")] {
        p.write_program("bin/app", &format!("#!/bin/sh\necho {words}\nexit 7\n"));
        p.release(release);
        let ran = p.run("deploy dev").fails(1, "exit status 7", "deploy again").stderr_has(words);
        ran.stderr_has("status=7").stderr_lacks(if release == "3" { "first failure" } else { "listening on" });
    }
}

#[test]
fn service_that_exits_at_start_is_reported_with_how_it_ended() {
    let Some((_fleet, p, port)) = deployed() else { return };
    for (end, told) in
        [("exit 7", "the last time with exit status 7"), ("kill -ABRT $$", "the last time with signal 6")]
    {
        p.write_program("bin/app", &format!("#!/bin/sh\n{end}\n"));
        p.release(end);
        p.run("deploy dev").fails(1, told, "deploy again");
        assert_eq!(says(0, port), "1");
    }
}

/// What fails before the program begins fails the same way each time, so nothing waits for it.
#[test]
fn unit_that_systemd_cannot_start_fails_at_once_and_names_the_reason() {
    let Some((_fleet, mut p, port)) = deployed() else { return };
    p.change("patience 8000", "patience 60000");
    let unit = "systemd shop|restart|bin/app\n";
    for (line, told) in [
        ("User=no-such-user", "the user that it is to run as does not exist (exit status 217/USER)"),
        ("WorkingDirectory=/no/such/directory", "its directory cannot be entered (exit status 200/CHDIR)"),
        ("EnvironmentFile=/no/such/file", "systemd cannot start it (result resources)"),
    ] {
        let lines = format!("unit-line {line}\n");
        p.change(unit, &format!("{unit}{lines}"));
        let ran = p.run("deploy dev").code(1).stderr_has(told).stderr_has("is live again");
        assert!(!ran.stderr.contains("not healthy within"), "{}", ran.stderr);
        p.change(&lines, "");
        assert_eq!(says(0, port), "1");
    }
    p.write_program("bin/app", "#!/no/such/interpreter\n");
    p.release("2");
    p.run("deploy dev").code(1).stderr_has("its program cannot be executed").stderr_has("exit status 203/EXEC");
    assert_eq!(says(0, port), "1");
}

/// A power cut leaves files empty, a deploy that was killed leaves them out.
#[test]
fn unit_that_is_active_is_running_whatever_is_on_record() {
    let Some((fleet, p, port)) = deployed() else { return };
    let cases: [&[(&str, Option<&str>)]; 4] = [
        &[("systemd", None)],
        &[("systemd", Some(""))],
        &[("systemd", Some("")), ("name", Some(""))],
        &[("systemd", None), ("name", None)],
    ];
    for files in cases {
        for (file, text) in files {
            match text {
                Some(text) => fs::write(service(&fleet, file), text).unwrap(),
                None => fs::remove_file(service(&fleet, file)).unwrap(),
            }
        }
        p.run("status dev").ok().stdout_has("running");
        warned(&p, "doctor dev", "has no record of how it was started", "`cargo xtask deploy dev`");
        p.run("deploy dev").ok().stderr_has("ok      restarted ");
        p.run("deploy dev").ok().stdout_has("already runs");
        assert_eq!(says(0, port), "1");
    }
    fleet.ask(0, "systemctl --user stop shop");
    fs::remove_file(service(&fleet, "systemd")).unwrap();
    p.run("status dev").ok().stdout_has("stopped");
}

#[test]
fn state_of_a_unit_whose_manager_does_not_answer_is_unknown() {
    let Some((fleet, p, _)) = deployed() else { return };
    program(&fleet, "systemctl", "echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    p.run("status dev").ok().stdout_has("unknown").stdout_has("systemd does not answer");
    broken(&p, "doctor dev", "systemd does not answer this login", "loginctl enable-linger");
}

#[test]
fn unit_that_crashes_again_and_again_is_starting_and_not_stopped() {
    let Some((fleet, p, _)) = deployed() else { return };
    let drop_in = fleet.home(0).join(".config/systemd/user/shop.service.d/crash.conf");
    fs::write(drop_in, "[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=600\n").unwrap();
    fleet.ask(0, "systemctl --user daemon-reload; systemctl --user restart shop; sleep 0.2");
    p.run("status dev").ok().stdout_has("starting");
    warned(&p, "doctor dev", "restarting after a crash", "cargo xtask logs dev");
}

/// Without linger systemd ends the service with the last session of the login, which is that of the deploy.
#[test]
fn login_without_linger_is_refused_before_the_switch() {
    let Some((fleet, p, port)) = deployed() else { return };
    let unit = fleet.home(0).join(".config/systemd/user/shop.service");
    let (good, live) = (
        fs::read_to_string(&unit).unwrap(),
        fleet.ask(0, &format!("basename $(readlink {}/app/current)", fleet.srv(0).display())),
    );
    p.release("2");
    fleet.ask(0, "rm /var/lib/systemd/linger/root");
    for said in ["echo no", "echo 'Failed to get user: User ID 0 is not logged in or lingering' >&2; exit 1"] {
        program(&fleet, "loginctl", said);
        p.run("deploy dev")
            .fails(1, "nothing was switched", "`loginctl enable-linger root`")
            .stderr_has("last session");
        assert_eq!((says(0, port), fs::read_to_string(&unit).unwrap()), ("1".into(), good.clone()));
        // Its own session is what keeps it up now.
        p.run("status dev").ok().stdout_has("ends at logout");
        broken(&p, "doctor dev", "when the last session of that login ends", "`loginctl enable-linger root`");
    }
    // A deploy of what is live does not call that well either.
    p.run(&format!("deploy dev {live}")).fails(1, "when the last session of that login ends", "enable-linger root");
    let pid = || fleet.ask(0, "systemctl --user show -p MainPID --value shop.service");
    let before = pid();
    p.run("restart dev").fails(1, "when the last session of that login ends", "enable-linger root");
    assert_eq!(pid(), before, "nothing was touched");
    program(&fleet, "loginctl", "echo yes");
    p.run("deploy dev").ok().stderr_lacks("linger");
    assert_eq!(says(0, port), "2");
}

#[test]
fn linger_that_loginctl_does_not_report_is_a_warning() {
    let Some(fleet) = Fleet::with_systemd(1) else { return };
    let (p, port) = project(&fleet, 1, "restart");
    p.release("1");
    fleet.ask(0, "rm /var/lib/systemd/linger/root");
    program(&fleet, "loginctl", "echo 'Could not connect: Connection refused' >&2; exit 1");
    p.run("deploy dev").ok().stderr_has("loginctl does not answer").stderr_has("`loginctl enable-linger root`");
    assert_eq!(says(0, port), "1");
    warned(&p, "doctor dev", "loginctl does not answer", "loginctl enable-linger");
    let ran = run(&p, "doctor dev", &[]).code(0);
    assert!(checks(&ran, "broken").is_empty(), "{}", ran.stdout);
}
