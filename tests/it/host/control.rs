//! `start`, `stop` and `restart` of a service.

use crate::project::Project;
use std::fs;

/// The events of a target's history, with their verbs.
fn events(p: &Project) -> Vec<String> {
    let history = p.read("srv/dev/history.jsonl");
    let records = history.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records.map(|it| format!("{} {}", it["verb"].as_str().unwrap(), it["event"].as_str().unwrap())).collect()
}

fn pid(p: &Project) -> String {
    p.read("srv/dev/service/process").split(' ').next().unwrap().to_owned()
}

#[test]
fn restart_starts_another_process_of_the_same_release() {
    let p = Project::with_service();
    let id = p.release("1");
    p.run("deploy dev").ok();
    let before = pid(&p);
    p.run("restart dev --reason 'it leaks'").ok().stdout_is(&format!("file:srv/dev: the service of {id} restarted\n"));
    assert_ne!(pid(&p), before);
    assert!(p.get("dev").is_ok());
    assert_eq!(events(&p).last().unwrap(), "restart restarted");
    p.run("history dev").ok().stdout_has("restarted (restart)").stdout_has("it leaks");
    p.run("deploy dev").ok().stdout_has("already runs");
}

#[test]
fn stop_and_start_are_idempotent_and_recorded() {
    let p = Project::with_service();
    let id = p.release("1");
    p.run("deploy dev").ok();
    p.run("start dev").ok().stdout_is(&format!("file:srv/dev: the service of {id} runs already: nothing to do\n"));
    p.run("--dry-run stop dev").ok().stdout_has("would be stopped");
    assert!(p.get("dev").is_ok());
    p.run("stop dev").ok().stdout_is(&format!("file:srv/dev: the service of {id} stopped\n"));
    p.run("stop dev").ok().stdout_has("does not run: nothing to do");
    assert!(p.get("dev").is_err());
    p.run("status dev").ok().stdout_has("stopped");
    p.run("start dev").ok().stdout_is(&format!("file:srv/dev: the service of {id} started\n"));
    assert!(p.get("dev").is_ok());
    assert_eq!(
        events(&p).iter().filter(|it| it.starts_with("st")).collect::<Vec<_>>(),
        ["stop stopped", "start started"]
    );
    // A rollback knows its way back as before.
    let two = p.release("2");
    p.run("deploy dev").ok();
    p.run("restart dev").ok();
    p.run("rollback dev").ok().stdout_has(&id);
    assert_ne!(p.current("srv/dev"), Some(two));
}

#[test]
fn stop_needs_no_secret_and_restart_uses_those_of_the_deploy() {
    let mut p = Project::with_service();
    p.change("var PORT=", "var TOKEN=${TOKEN}\nvar PORT=");
    p.var("TOKEN", "t0ken-of-the-deploy");
    p.release("1");
    p.run("deploy dev").ok();
    p.var("TOKEN", "");
    let vars = [("TOKEN".to_owned(), String::new())];
    let without = |line: &str| {
        let mut command = p.command(line);
        command.env_remove("TOKEN").envs(vars.iter().filter(|(_, value)| !value.is_empty()).cloned());
        crate::project::Ran::of(line, &mut command)
    };
    without("stop dev").ok();
    without("start dev").ok();
    without("restart dev").ok();
    assert!(p.read("srv/dev/service/spec").contains("t0ken-of-the-deploy"));
    assert!(p.get("dev").is_ok());
}

#[test]
fn stop_of_env_with_a_host_without_release_stops_the_others() {
    let mut p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    p.change("target file:srv/dev\n", "target file:srv/dev\ntarget file:srv/dev2\n");
    p.run("restart dev").fails(5, "nothing is live on file:srv/dev2", "cargo xtask deploy dev");
    p.run("stop dev").ok().stdout_has("file:srv/dev").stdout_lacks("dev2");
    assert!(p.get("dev").is_err(), "it is stopped");
    p.run("stop dev --host file:srv/dev2").fails(5, "nothing is live on file:srv/dev2", "cargo xtask deploy dev");
}

#[test]
fn control_of_missing_release_host_or_service_is_refused() {
    let mut p = Project::with_service();
    p.run("restart dev").fails(5, "nothing is live on file:srv/dev", "cargo xtask deploy dev");
    p.release("1");
    p.run("deploy dev").ok();
    p.run("restart dev --host web9").fails(2, "dev has no host web9", "it has file:srv/dev");
    p.run("restart nowhere").code(2);
    // Killed between the switch and the health check: it is not known whether this release works.
    let history = p.read("srv/dev/history.jsonl");
    let live = history.lines().find(|line| line.contains(r#""event":"live""#)).unwrap();
    p.write("srv/dev/history.jsonl", &history.replace(&format!("{live}\n"), ""));
    p.run("restart dev").fails(8, "no deploy has found", "finishes it");
    p.write("srv/dev/history.jsonl", &history);
    p.change("pidfile bin/app\n", "");
    p.run("stop dev").fails(2, "dev has no service", "docs/service.md");
}

#[test]
fn restart_of_an_app_that_is_sick_by_now_fails_and_shows_its_log() {
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    let file = p.path("srv/dev/current/behavior");
    fs::write(file, "exit 3\n").unwrap();
    let ran = p.run("restart dev").fails(1, "stopped by itself", "cargo xtask rollback dev");
    assert!(ran.stderr.contains("exit code 3"), "{}", ran.stderr);
    assert_eq!(events(&p).last().unwrap(), "restart restarted");
}

#[test]
fn control_of_an_env_with_approval_asks() {
    let p = Project::with_service();
    p.release("1");
    p.run("deploy prod --yes").ok();
    p.run("stop prod").fails(2, "prod", "--yes");
    p.run("stop prod --yes").ok();
    p.run("start prod --yes").ok();
}

#[test]
fn control_while_another_command_has_the_lock_is_refused() {
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    p.write("srv/dev/.lock", r#"{"token":"t-1","by":"ben","host":"elsewhere","boot":"b","ns":"n","pid":1,"start":1,"doing":"deploy","at":"2026-08-01T00:00:00Z"}"#);
    p.run("stop dev").code(6);
    assert!(p.get("dev").is_ok());
}

#[test]
fn unit_with_a_socket_is_stopped_started_and_restarted() {
    let Some(fleet) = crate::fleet::hosts::Fleet::with_systemd(1) else { return };
    let (p, port) = crate::fleet::systemd::project(&fleet, 1, "sockets");
    p.release("1");
    p.run("deploy dev").ok();
    let pid = || fleet.ask(0, "systemctl --user show -p MainPID --value shop.service");
    let answers = || crate::project::get(&crate::fleet::hosts::address(0), port).is_ok();
    p.run("stop dev").ok().stdout_has("stopped");
    assert!(!answers(), "its socket would start it again");
    p.run("stop dev").ok().stdout_has("nothing to do");
    p.run("start dev").ok().stdout_has("started");
    assert!(answers());
    let before = pid();
    p.run("restart dev").ok().stdout_has("restarted");
    assert!(answers());
    assert_ne!(pid(), before);
    assert_eq!(fleet.ask(0, "systemctl --user is-enabled shop.service shop.socket"), "enabled\nenabled");
    p.run("deploy dev").ok().stdout_has("already runs");
}

#[test]
fn restart_of_many_hosts_stops_at_the_first_that_fails() {
    let mut p = Project::new();
    // The command fails on a host that has the file `sick`.
    p.change(
        "target file:srv/dev\n",
        "target file:srv/dev\ntarget file:srv/dev2\ntarget file:srv/dev3\ncommand echo x >> count; test ! -e sick|true|true|\nhealthy true\n",
    );
    p.release("1");
    p.run("deploy dev").ok();
    for host in ["dev", "dev2", "dev3"] {
        fs::remove_file(p.path(&format!("srv/{host}/count"))).unwrap();
    }
    p.write("srv/dev2/sick", "");
    p.run("restart dev").fails(1, "file:srv/dev2: the service command failed", "cargo xtask rollback dev");
    assert!(p.path("srv/dev/count").exists() && !p.path("srv/dev3/count").exists());
    p.run("restart dev --host file:srv/dev3").ok().stdout_has("file:srv/dev3: the service of ").stdout_has("restarted");
    assert_eq!(p.read("srv/dev/count"), "x\n");
}

#[test]
fn restart_whose_notes_are_damaged_leaves_the_process_alone() {
    let p = Project::with_service();
    p.release("1");
    p.run("deploy dev").ok();
    let before = pid(&p);
    let spec = p.read("srv/dev/service/spec");
    p.write("srv/dev/service/spec", "");
    p.run("restart dev").fails(1, "service/spec is damaged", "cargo xtask deploy dev");
    fs::remove_file(p.path("srv/dev/service/spec")).unwrap();
    p.run("restart dev").fails(1, "service/spec is damaged", "cargo xtask deploy dev");
    p.write("srv/dev/service/spec", &spec);
    fs::rename(p.path("srv/dev/service/log"), p.path("srv/dev/service/old")).unwrap();
    fs::create_dir(p.path("srv/dev/service/log")).unwrap();
    p.run("restart dev").fails(1, "service/log is a directory", "service/log away");
    assert_eq!(pid(&p), before);
    assert!(p.get("dev").is_ok());
}

#[test]
fn restart_of_commands_needs_their_variables() {
    let mut p = Project::new();
    p.change(
        "target file:srv/dev\n",
        "target file:srv/dev\nvar TOKEN=${TOKEN}\ncommand echo $TOKEN > started|true|true|\nhealthy true\n",
    );
    p.var("TOKEN", "secret-of-the-deploy");
    p.release("1");
    p.run("deploy dev").ok();
    let mut without = p.command("restart dev");
    without.env_remove("TOKEN");
    crate::project::Ran::of("restart dev", &mut without).fails(2, "TOKEN", "TOKEN");
    p.run("restart dev").ok();
    assert_eq!(p.read("srv/dev/started"), "secret-of-the-deploy\n");
    assert!(p.read("srv/dev/service/env").contains("secret-of-the-deploy"));
}

#[test]
fn stop_knows_the_socket_that_is_installed_and_not_that_of_the_project() {
    let Some(fleet) = crate::fleet::hosts::Fleet::with_systemd(1) else { return };
    let (mut p, port) = crate::fleet::systemd::project(&fleet, 1, "sockets");
    p.release("1");
    p.run("deploy dev").ok();
    p.change("|sockets|", "|restart|");
    p.run("stop dev").ok();
    assert!(crate::project::get(&crate::fleet::hosts::address(0), port).is_err(), "its socket would start it again");
    p.run("start dev").ok();
    p.run("deploy dev").ok();
    p.change("|restart|", "|sockets|");
    p.run("stop dev").ok();
    p.run("start dev").ok();
}
