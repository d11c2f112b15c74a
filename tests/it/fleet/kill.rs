//! A deploy to real hosts that is killed, or does not receive an answer, at each of its commands.

use crate::fleet::hosts::Fleet;
use crate::fleet::{all_live, live, project};
use crate::project::Project;
use crate::sample::draw;
use std::fs;

/// In place of ssh: it counts the scripts that hosts run, in a command of their own or in the shell that stays open. At
/// one number it kills its caller once the script has ended there, at another it loses the answer.
const COUNTING_SSH: &str = r#"#!/bin/sh
count() { n=1; while ! mkdir "$COUNT/$n" 2> /dev/null; do n=$((n + 1)); done; }
is() { [ "$n" = "$(cat "$COUNT/$1")" ]; }
case " $* " in
  *" ControlMaster=yes "*)
    "$REAL" "$@" | while IFS= read -r line; do
      case $line in
        gangplank-*" end "*)
          count
          # Kills the process group, and so the connection.
          if is lose; then kill -9 0; fi
          if is kill; then kill -9 "$PPID"; fi ;;
      esac
      printf '%s\n' "$line"
      case $line in gangplank-*" end "*) if is idle; then kill -9 0; fi ;; esac
    done
    exit ;;
esac
count
if is lose; then "$REAL" "$@" > /dev/null 2>&1; exit 255; fi
"$REAL" "$@"; code=$?
if is kill; then kill -9 "$PPID"; fi
exit "$code"
"#;

/// What happens at a command of the next deploy.
#[derive(Clone, Copy)]
enum At {
    /// The deploy is killed after it.
    Kill(u32),
    /// Its answer is lost.
    Lose(u32),
    /// The connection ends after it, while nothing runs.
    Idle(u32),
}

/// A project on all hosts of a fleet, whose commands are counted.
fn counted(fleet: &Fleet, hosts: usize, more: &str) -> Project {
    let mut p = project(fleet, hosts, more);
    p.change("patience 5000", "patience 30000");
    p.write_program("srv/bin/ssh", COUNTING_SSH);
    p.var("PATH", &format!("{}:{}", p.path("srv/bin").display(), std::env::var("PATH").unwrap()));
    p.var("COUNT", &p.path("srv/count").display().to_string());
    p.var("REAL", &fleet.file("bin/ssh").display().to_string());
    expect_nothing(&p);
    p
}

/// From now on nothing happens to the commands, which are counted from 1 again.
fn expect_nothing(p: &Project) {
    set(p, "kill", 0);
}

fn set(p: &Project, what: &str, number: u32) {
    let _ = fs::remove_dir_all(p.path("srv/count"));
    for it in ["kill", "lose", "idle"] {
        p.write(&format!("srv/count/{it}"), &if it == what { number } else { 0 }.to_string());
    }
}

/// Runs a deploy to which this happens. Gives its exit code and how many commands it had.
fn deploy(p: &Project, at: At, line: &str) -> (i32, u32, String) {
    match at {
        At::Kill(number) => set(p, "kill", number),
        At::Lose(number) => set(p, "lose", number),
        At::Idle(number) => set(p, "idle", number),
    }
    let ran = p.run(line);
    let commands = fs::read_dir(p.path("srv/count")).unwrap().flatten().filter(|it| it.path().is_dir()).count();
    expect_nothing(p);
    (ran.code, u32::try_from(commands).unwrap(), ran.stderr)
}

/// Loses answers of one deploy after another to `hosts` hosts below `dir`: what the deploy reports is true, and the same
/// command again converges. With `numbers` of commands those alone, else every one.
fn answers_are_lost(fleet: &Fleet, dir: &str, hosts: usize, numbers: Option<Vec<u32>>) {
    let mut p = counted(fleet, hosts, "command true|true|true|true\nstrategy all\nkeep 2\n");
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
    let every = numbers.is_none();
    for number in numbers.unwrap_or_else(|| (1..100).collect()) {
        let now = format!("{dir}-{number}");
        p.release(&now);
        let (code, commands, stderr) = deploy(&p, At::Lose(number), "deploy dev --lock-wait 20");
        let lives = lives();
        let want = match code {
            0 => &now,
            1 | 4 => &before,
            code => panic!("{now}: code {code}: {stderr}"),
        };
        assert!(lives.iter().all(|live| live == want), "{now}: {lives:?} after code {code}: {stderr}");
        p.run("deploy dev --lock-wait 20").ok();
        before.clone_from(&now);
        if every && number > commands {
            assert!(number as usize > hosts * 4, "{number}");
            break;
        }
    }
    p.run("rollback dev").ok();
}

#[test]
fn deploy_whose_answer_is_lost_at_a_sampled_command_reports_what_is_true() {
    let Some(fleet) = Fleet::start(2) else { return };
    answers_are_lost(&fleet, "two", 2, Some(draw("answers lost", 8, 2)));
}

/// Ends the connection between two scripts: nothing was under way, so a new one goes on, also where a release has to be
/// reverted. With `numbers` of commands after those alone, else after every one.
fn connections_end(fleet: &Fleet, numbers: Option<Vec<u32>>) {
    let mut p = counted(fleet, 1, "command true|true|true|true\nhealthy sh -c '! grep -q sick www/index.html'\n");
    p.change("patience 30000", "patience 1000");
    p.release("0");
    p.run("deploy dev").ok();
    let mut before = "0".to_owned();
    let every = numbers.is_none();
    for number in numbers.unwrap_or_else(|| (1..100).collect()) {
        let now = format!("after-{number}");
        p.release(&format!("{now}-sick"));
        let (code, _, stderr) = deploy(&p, At::Idle(number), "deploy dev");
        assert_eq!((code, live(fleet, 0)), (1, before), "{stderr}");
        p.release(&now);
        let (code, commands, stderr) = deploy(&p, At::Idle(number), "deploy dev");
        assert_eq!((code, live(fleet, 0)), (0, now.clone()), "{stderr}");
        before = now;
        if every && number > commands {
            assert!(number > 4, "{number}");
            return;
        }
    }
}

#[test]
fn deploy_whose_connection_ends_after_a_sampled_script_goes_on() {
    let Some(fleet) = Fleet::start(1) else { return };
    connections_end(&fleet, Some(draw("connections end", 6, 2)));
}

#[test]
#[ignore = "group kill"]
fn deploy_whose_connection_ends_after_any_script_goes_on() {
    let Some(fleet) = Fleet::start(1) else { return };
    connections_end(&fleet, None);
}

#[test]
#[ignore = "group kill"]
fn deploy_whose_answer_is_lost_at_any_command_reports_what_is_true() {
    let Some(fleet) = Fleet::start(2) else { return };
    for (dir, hosts) in [("one", 1), ("two", 2)] {
        answers_are_lost(&fleet, dir, hosts, None);
    }
}

const HOSTS: usize = 3;

/// Kills one deploy after another to three hosts; each is run again and converges. With `numbers` of commands those
/// alone, else every one. Gives how many deploys were killed.
fn deploys_are_killed(fleet: &Fleet, numbers: Option<Vec<u32>>) -> u32 {
    let p = counted(fleet, HOSTS, "strategy canary 1\n");
    p.release("0");
    p.run("deploy dev").ok();
    let (mut kills, mut before) = (0, "0".to_owned());
    for number in numbers.unwrap_or_else(|| (1..100).collect()) {
        let now = format!("after-{number}");
        p.release(&now);
        let (code, commands, _) = deploy(&p, At::Kill(number), "deploy dev");
        for host in 0..HOSTS {
            assert!([&before, &now].contains(&&live(fleet, host)), "{now}: host {host} runs {}", live(fleet, host));
        }
        p.run("deploy dev --lock-wait 20").ok();
        assert_eq!(all_live(fleet, HOSTS), vec![now.clone(); HOSTS].join(" "));
        for host in 0..HOSTS {
            let root = fleet.srv(host).join("app");
            assert!(!root.join(".lock").exists(), "{now}: the lock of host {host} was given back");
            let debris = fs::read_dir(root.join("releases")).unwrap().flatten();
            assert!(debris.into_iter().all(|it| !it.file_name().to_string_lossy().starts_with('.')), "{now}: debris");
        }
        before.clone_from(&now);
        if code == 0 {
            assert!(number > commands, "{now}: it was not killed");
            break;
        }
        kills += 1;
    }
    p.run("rollback dev").ok();
    p.run("verify @dev").ok();
    kills
}

#[test]
fn deploy_killed_at_a_sampled_command_to_three_hosts_converges() {
    let Some(fleet) = Fleet::start(HOSTS) else { return };
    assert_eq!(deploys_are_killed(&fleet, Some(draw("killed with three hosts", 15, 2))), 2);
}

#[test]
#[ignore = "group kill"]
fn deploy_killed_at_every_command_to_three_hosts_converges() {
    let Some(fleet) = Fleet::start(HOSTS) else { return };
    let kills = deploys_are_killed(&fleet, None);
    assert!(kills >= 15, "a deploy to three hosts has more than {kills} commands");
}
