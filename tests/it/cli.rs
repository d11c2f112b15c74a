//! The command line as people meet it: help, colours, quietness, a closed pipe.

pub mod bad_input;
pub mod bench;
pub mod doctor;
pub mod documented;
pub mod extending;
pub mod json;
pub mod report;
pub mod retry;
pub mod shell;
pub mod test_command;

use crate::project::{Project, root};
use expect_test::expect_file;
use std::fmt::Write;
use std::process::{Command, Stdio};

const COMMANDS: &[&str] = &[
    "",
    "build",
    "verify",
    "keygen",
    "sign",
    "put",
    "publish",
    "fetch",
    "plan",
    "deploy",
    "promote",
    "rollback",
    "status",
    "logs",
    "exec",
    "start",
    "stop",
    "restart",
    "history",
    "releases",
    "report",
    "notify",
    "diff",
    "prune",
    "lock",
    "unlock",
    "ci",
    "ci generate",
    "ci lint",
    "ci run",
    "ci trigger",
    "ci trigger deploy",
    "ci trigger rollback",
    "ci approve",
    "doctor",
    "setup",
    "test",
    "completions",
    "man",
];

#[test]
fn help_of_each_command_matches_the_golden_file() {
    let p = Project::new();
    let mut all = String::new();
    for command in COMMANDS {
        let ran = p.run(&format!("{command} --help")).ok();
        assert!(ran.stderr.is_empty(), "{}", ran.stderr);
        let lines = ran.stdout.lines().count();
        assert!(lines <= 55, "`{command} --help` has {lines} lines; the limit is 55");
        let _ = write!(all, "$ {}\n\n{}\n\n", format!("cargo xtask {command}").trim(), ran.stdout.trim_end());
    }
    expect_file![root().join("tests/it/golden/help.txt")].assert_eq(&all);
}

#[test]
fn help_covers_every_command() {
    let p = Project::new();
    for (parent, depth) in [("", 0), ("ci", 1), ("ci trigger", 2)] {
        let help = p.run(&format!("{parent} --help")).ok().stdout;
        let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
        for line in listed.lines() {
            let name = line.split_whitespace().next().unwrap();
            // Programs of their own, which only this repository has.
            if ["new", "bench"].contains(&name) {
                continue;
            }
            let whole = format!("{parent} {name}");
            assert!(COMMANDS.contains(&whole.trim()), "`{whole}` (depth {depth}) is missing in COMMANDS");
        }
    }
}

#[test]
fn usage_errors_are_exit_code_two() {
    let p = Project::new();
    for line in [
        "",
        "nonsense",
        "deploy",
        "deploy dev --lock-wait soon",
        "build extra",
        "status --quiet --verbose",
        "prune dev --keep 0",
    ] {
        let ran = p.run(line).code(2);
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
        assert!(ran.stderr.contains("Usage:") || ran.stderr.contains("error:"), "{}", ran.stderr);
    }
    p.run("deploi").code(2).stderr_has("deploy");
}

#[test]
fn colour_is_written_only_where_it_is_asked_for() {
    let mut p = Project::new();
    p.release("1");
    let colours = |p: &Project, line: &str| {
        let ran = p.run(line);
        (ran.stdout.contains('\x1b'), ran.stderr.contains('\x1b'))
    };
    assert_eq!(colours(&p, "status"), (false, false), "a pipe");
    assert!(colours(&p, "status --color always").0);
    assert_eq!(colours(&p, "deploy nowhere --color always"), (false, true));
    p.var("NO_COLOR", "1");
    assert_eq!(colours(&p, "status --color auto"), (false, false));
    assert_eq!(colours(&p, "deploy"), (false, false), "a usage error");
}

#[test]
fn deploy_quiet_writes_no_events_and_verbose_shows_scripts() {
    let p = Project::new();
    p.release("1");
    assert_eq!(p.run("deploy dev --quiet").ok().stderr, "");
    p.run("rollback dev").code(5);
    p.run("deploy prod --yes -v").ok().stderr_has("$ sh -c '# install ");
}

#[test]
fn status_into_closed_pipe_succeeds() {
    let p = Project::new();
    p.release("1");
    let mut child = p.command("status").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn plan_and_dry_run_agree_and_change_nothing() {
    let p = Project::new();
    p.release("1");
    let planned = p.run("plan dev").ok().stdout;
    assert_eq!(p.run("deploy dev --dry-run").ok().stdout, planned);
    assert!(!p.path("srv").exists());
    p.run("deploy dev").ok();
    p.release("2");
    p.run("deploy dev").ok();
    for line in ["rollback dev -n", "prune dev --keep 1 -n", "promote dev prod -n"] {
        let before = p.read("srv/dev/history.jsonl");
        p.run(line).ok();
        assert_eq!(p.read("srv/dev/history.jsonl"), before, "{line}");
    }
    assert!(!p.path("srv/prod").exists());
    let done = p.run("rollback dev --json").ok();
    let done: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        done["targets"][0]["steps"][0]["step"], "activate",
        "the steps that were planned are those that were done"
    );
}

#[test]
fn xtask_of_this_repository_runs_from_any_directory() {
    let run = |dir: &str, args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_xtask")).args(args).current_dir(root().join(dir)).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, from_root) = run("", &["ci", "generate", "--check", "--json"]);
    assert_eq!(code, Some(0), "the committed config is what main.rs says");
    assert_eq!(run("app/src", &["ci", "generate", "--check", "--json"]), (Some(0), from_root));
}

#[test]
fn verify_of_live_release_finds_a_change_on_the_host() {
    let p = Project::new();
    p.release("1");
    p.run("deploy dev").ok();
    p.run("verify @dev").ok().stdout_has("verified");
    p.write("srv/dev/current/www/index.html", "edited by hand");
    p.run("verify @dev").fails(7, "was changed on the host: www/index.html: FAILED", "sends it again");
}

#[test]
fn dry_run_of_a_command_without_plan_is_refused() {
    let p = Project::new();
    for line in ["build -n", "put -n", "fetch -n", "unlock dev --force -n", "ci run --yes -n", "test -n"] {
        p.run(line).fails(2, "this command has no --dry-run", "plan");
    }
    // A program of its own reads the options that follow its name; those before it are the xtask's.
    for line in ["bench overhead -n", "-n bench overhead"] {
        p.run(line).fails(2, "this command has no --dry-run", "plan");
    }
    // `new` has one, here as in Gangplank's own repository.
    p.run("-n new ../shop").fails(2, "only in Gangplank's own repository", "cargo xtask new --help");
    assert!(!p.path("target/releases").exists());
}

#[test]
fn reason_with_secrets_and_control_characters_is_masked() {
    let mut p = Project::new();
    p.var("CIRCLE_TOKEN", "CCIPAT_secret123456");
    p.release("1");
    p.run("deploy dev --reason 'with CCIPAT_secret123456 \u{1b}[2J\u{7}'").ok();
    assert!(!p.read("srv/dev/history.jsonl").contains("secret123456"));
    let ran = p.run("history dev").ok().stdout_has("with ****");
    assert!(!ran.stdout.contains(['\u{1b}', '\u{7}']), "{:?}", ran.stdout);
    for line in
        ["deploy CCIPAT_secret123456", "deploy dev CCIPAT_secret123456", "deploy dev CCIPAT_secret123456 --json"]
    {
        let ran = p.run(line).code(2);
        assert!(!ran.stderr.contains("secret123456"), "{}", ran.stderr);
    }
    let refused = p.run("deploy dev nope! --json").code(2).stderr;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&refused).unwrap()["exit_code"], 2);
}
