//! `logs` and `exec` on real hosts: what is heard, in whose name, and that nothing of it stays behind.

use crate::fleet::faults::Proxy;
use crate::fleet::hosts::Fleet;
use crate::fleet::project;
use crate::project::{Project, eventually};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

/// A command that runs, and what it printed so far.
struct Streamed {
    child: Child,
    lines: Arc<Mutex<String>>,
}

impl Streamed {
    fn start(p: &Project, line: &str) -> Self {
        let mut child = p.start(line);
        let lines = Arc::new(Mutex::new(String::new()));
        let (out, all) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                *all.lock().unwrap() += &(line + "\n");
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn stdout_has(&self, text: &str) {
        eventually(&format!("`{text}`"), || self.lines.lock().unwrap().contains(text));
    }

    fn ends(self, signal: &str) -> (i32, String) {
        if !signal.is_empty() {
            assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
        }
        let output = self.child.wait_with_output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
    }
}

/// Processes whose command line has a text in it, other than those of the test itself.
fn running(text: &str) -> String {
    let mut found = String::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) && entry.file_name().to_string_lossy() != std::process::id().to_string() {
            found += &(line + "\n");
        }
    }
    found
}

/// How many connections the hosts have.
fn sessions(fleet: &Fleet, hosts: usize) -> usize {
    let children = |host| {
        let pid = fs::read_to_string(fleet.file(&format!("h{host}/pid"))).unwrap();
        let pid = pid.trim();
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().split_whitespace().count()
    };
    (0..hosts).map(children).sum()
}

/// A project with a log of its own on each host.
fn with_logs(fleet: &Fleet, hosts: usize) -> Project {
    let p = project(fleet, hosts, "pidfile bin/app\n");
    for host in 0..hosts {
        fs::create_dir_all(fleet.srv(host).join("app/service")).unwrap();
        fs::write(log(fleet, host), format!("one of {host}\n\ntwo\tof {host} \x1b[2J\n")).unwrap();
    }
    p
}

fn log(fleet: &Fleet, host: usize) -> std::path::PathBuf {
    fleet.srv(host).join("app/service/log")
}

fn write(fleet: &Fleet, host: usize, text: &str) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().append(true).create(true).open(log(fleet, host)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn logs_show_the_last_lines_of_each_host_with_its_name() {
    let Some(fleet) = Fleet::start(2) else { return };
    let mut p = with_logs(&fleet, 2);
    let ran = p.run("logs dev").ok();
    for host in 0..2 {
        let want = format!("fleet{host} | one of {host}\nfleet{host} | \nfleet{host} | two\tof {host} \\u{{1b}}[2J\n");
        assert_eq!(ran.stdout.lines().filter(|line| line.contains(&format!("fleet{host}"))).count(), 3);
        let own: String = ran.stdout.split_inclusive('\n').filter(|it| it.starts_with(&want[..6])).collect();
        assert_eq!(own, want);
    }
    p.run("logs dev --lines 1 --host fleet1").ok().stdout_is("two\tof 1 \\u{1b}[2J\n");
    p.run(&format!("logs dev --lines 1 --host {}", fleet.target(0, "app"))).ok().stdout_has("two\tof 0");
    p.run("logs dev --host fleet7").fails(2, "dev has no host fleet7", "it has fleet0, fleet1");
    let ran = p.run("logs dev --lines 1 --host fleet0 --json").ok();
    ran.stdout_is("{\"host\":\"fleet0\",\"stream\":\"stdout\",\"line\":\"two\\tof 0 \\u001b[2J\"}\n");
    // A host that is down hides no other, and a secret is none that a log may show.
    write(&fleet, 0, "token is 5ec3e7a0b1c2d3e4f5\n");
    p.var("API_TOKEN", "5ec3e7a0b1c2d3e4f5");
    let port = fleet.reach_by(1, 1);
    p.run("logs dev --lines 1").code(4).stdout_is("fleet0 | token is ****\n").stderr_has("Connection refused");
    fleet.reach_by(1, port);
    p.run("logs prod").fails(2, "no log command configured for prod", "docs/service.md");
}

#[test]
fn logs_with_follow_end_at_a_signal_and_leave_no_process() {
    let Some(fleet) = Fleet::start(2) else { return };
    let p = with_logs(&fleet, 2);
    // A number that no other test has in the list of processes.
    let lines = 1_000_000 + std::process::id();
    let tail = format!("tail -n {lines} -F service/log");
    for signal in ["-INT", "-KILL"] {
        let heard = Streamed::start(&p, &format!("logs dev --follow --lines {lines}"));
        heard.stdout_has("fleet0 | two");
        heard.stdout_has("fleet1 | ");
        write(&fleet, 0, &format!("three {signal}\n"));
        heard.stdout_has(&format!("fleet0 | three {signal}\n"));
        // As the pidfile service does at a start.
        fs::rename(log(&fleet, 1), log(&fleet, 1).with_extension("1")).unwrap();
        write(&fleet, 1, &format!("four {signal}\n"));
        heard.stdout_has(&format!("fleet1 | four {signal}\n"));
        assert_eq!(running(&tail).lines().count(), 2);
        let (code, stderr) = heard.ends(signal);
        assert_eq!(code, if signal == "-INT" { 0 } else { -1 }, "{stderr}");
        eventually("nothing is left there", || running(&tail).is_empty() && sessions(&fleet, 2) == 0);
    }
    // `| head -1` has seen enough.
    let mut child = p.start("logs dev -f");
    drop(child.stdout.take());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn logs_with_follow_go_on_when_one_host_is_lost() {
    let Some(fleet) = Fleet::start(2) else { return };
    let p = with_logs(&fleet, 2);
    let proxy = Proxy::before(&fleet, 1);
    let heard = Streamed::start(&p, "logs dev -f");
    heard.stdout_has("fleet1 | two");
    proxy.cut();
    std::thread::sleep(std::time::Duration::from_millis(500));
    write(&fleet, 0, "still here\n");
    heard.stdout_has("fleet0 | still here\n");
    let (code, stderr) = heard.ends("-INT");
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("warning: ssh://fleet1"), "{stderr}");
    eventually("nothing is left there", || sessions(&fleet, 2) == 0);
}

#[test]
fn logs_with_follow_need_a_log_command_that_can_follow() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nvar API_TOKEN=${NOT_SET_HERE}\ncommand true|true|true|echo $LINES $FOLLOW; echo why >&2\n");
    fs::create_dir_all(p.path("srv/dev")).unwrap();
    p.run("logs dev --lines 7").ok().stdout_is("7 0\nwhy\n");
    p.change("echo $LINES $FOLLOW; echo why >&2", "echo $LINES");
    p.run("logs dev -f").fails(2, "the `log` command of dev cannot follow", "FOLLOW");
    p.change("echo $LINES\n", "echo $LINES $FOLLOW; exit 3\n");
    p.run("logs dev -f").code(1).stdout_is("100 1\n").stderr_has("its log ended, with exit code 3");
    p.change("echo $LINES $FOLLOW; exit 3\n", "\n");
    p.run("logs dev").fails(2, "no log command configured for dev", "`log` command");
}

#[test]
fn exec_runs_in_the_live_release_of_each_host() {
    let Some(fleet) = Fleet::start(3) else { return };
    let mut p = project(&fleet, 3, "strategy all\nvar API_TOKEN=${DEPLOY_TOKEN}\nvar GREETING=it's $HOME\n");
    p.var("DEPLOY_TOKEN", "tok-5ec3e7a0b1c2d3e4f5");
    p.run("exec dev --host fleet0 -- ls").code(1).stdout_is("").stderr_has("nothing is live in");
    p.release("1");
    p.run("deploy dev").ok();
    p.run("exec dev -- cat www/index.html")
        .ok()
        .stdout_has("fleet0 | 1\n")
        .stdout_has("fleet1 | 1\n")
        .stdout_has("fleet2 | 1\n");
    let words = "exec dev --host fleet0 -- printf %s\\n it\"s $HOME `id` * ; FOO=1 ''";
    p.run(words).ok().stdout_is("it\"s\n$HOME\n`id`\n*\n;\nFOO=1\n\n");
    p.run("exec dev --host fleet0 -- FOO=1").code(1).stderr_has("FOO=1");
    // The variables are there, and on no command line; what is secret is not shown.
    let spy = "exec dev --host fleet0 -- sh -c 'echo $GREETING; echo $API_TOKEN; cat /proc/[0-9]*/cmdline | grep -c tok-5ec3e7a0b1c2d3e4f[5]'";
    p.run(spy).code(1).stdout_is("it's $HOME\n****\n0\n");
    let ran = p.run("exec dev -- sh -c 'case $PWD in */h1/*) exit 3;; */h2/*) echo no >&2; exit 4;; esac'");
    let ran = ran.fails(1, "the command failed on fleet1 (exit code 3), fleet2 (exit code 4)", "--host NAME");
    assert!(ran.stderr.contains("fleet2 | no\n"), "{}", ran.stderr);
    let ran = p.run("exec dev --json --host fleet2 -- sh -c 'echo a; echo b >&2; exit 4'").code(1);
    for line in [
        r#"{"host":"fleet2","stream":"stdout","line":"a"}"#,
        r#"{"host":"fleet2","stream":"stderr","line":"b"}"#,
        r#"{"host":"fleet2","exit_code":4}"#,
    ] {
        assert!(ran.stdout.lines().any(|it| it == line), "{}", ran.stdout);
    }
    let history = fs::read_to_string(fleet.srv(0).join("app/history.jsonl")).unwrap();
    let lock = r#"{"token":"t","by":"bob@far","machine":"far","pid":1,"started":null,"since":"2026-08-01T00:00:00Z","doing":"x","ci":null}"#;
    fs::write(fleet.srv(0).join("app/.lock"), lock).unwrap();
    p.run("exec dev -- true").ok().stdout_is("");
    assert_eq!(fs::read_to_string(fleet.srv(0).join("app/history.jsonl")).unwrap(), history, "nothing is recorded");
    fs::remove_file(fleet.srv(0).join("app/.lock")).unwrap();
    let port = fleet.reach_by(1, 1);
    p.run("exec dev -- sh -c 'echo ran; exit 3'")
        .code(4)
        .stdout_has("fleet0 | ran")
        .stderr_has("fleet0 (exit code 3)")
        .stderr_has("refused");
    fleet.reach_by(1, port);
    p.change("env dev\n", "env dev\napproval\n");
    p.run("exec dev -- true").fails(2, "dev needs approval", "--yes");
    p.run("exec dev --yes -- true").ok();
}

#[test]
fn ctrl_c_ends_the_command_on_every_host() {
    let Some(fleet) = Fleet::start(2) else { return };
    let p = project(&fleet, 2, "strategy all\n");
    p.release("1");
    p.run("deploy dev").ok();
    let sleep = format!("sleep {}", 1_000_000 + std::process::id());
    for (signal, deaf) in [("-INT", ""), ("-TERM", "trap : TERM; "), ("-KILL", "trap : TERM; ")] {
        let line = format!("exec dev -- sh -c '{deaf}echo up; while :; do {sleep}; done'");
        let heard = Streamed::start(&p, &line);
        heard.stdout_has("fleet0 | up\n");
        heard.stdout_has("fleet1 | up\n");
        let (code, stderr) = heard.ends(signal);
        if signal != "-KILL" {
            assert_eq!(code, 1, "{stderr}");
            assert!(stderr.contains("stopped, with the command on the hosts"), "{stderr}");
            assert_eq!(running(&sleep), "", "{signal}: it is gone when we are");
        }
        eventually("it is gone", || running(&sleep).is_empty());
    }
    // A background process survives, and blocks nothing.
    let ran = p.run("exec dev --host fleet0 -- sh -c 'sleep 3600 & echo $!'").ok();
    let ended = std::process::Command::new("kill").arg(ran.stdout.trim()).status().unwrap();
    assert!(ended.success(), "it ran on, and we did not wait for it");
}
