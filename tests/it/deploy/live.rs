//! The table of hosts that a deploy draws on a terminal: the real command under `script`, and the screen that it leaves.

use crate::project::Project;
use crate::record::skip;
use std::fs;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Command, Stdio};

/// All lines that a terminal of this size has shown and not overwritten, those that scrolled out of it included.
fn screen(written: &str, (columns, rows): (u16, u16)) -> Vec<String> {
    const SCROLLBACK: usize = 1000;
    let size = |cells| NonZero::new(cells).expect("a terminal has a size");
    let mut terminal = vt100::Parser::new(size(rows), size(columns), SCROLLBACK);
    terminal.process(written.as_bytes());
    terminal.screen_mut().set_scrollback(SCROLLBACK);
    let gone = terminal.screen().scrollback();
    let mut lines = Vec::new();
    for back in (0..=gone).rev() {
        terminal.screen_mut().set_scrollback(back);
        let first = if back == 0 { usize::from(rows) } else { 1 };
        lines.extend(terminal.screen().rows(0, columns).take(first).map(|line| line.trim_end().to_owned()));
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// A command on a terminal of this size.
fn terminal(p: &Project, line: &str, (columns, rows): (u16, u16), vars: &[(&str, &str)]) -> Command {
    let command = p.command(line);
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let inner = format!("stty cols {columns} rows {rows}; exec {}", words.join(" "));
    // Kills a client that waits for a missing response.
    let mut script = Command::new("timeout");
    script
        .args(["120", "script", "-qec", &inner, "/dev/null"])
        .current_dir(command.get_current_dir().unwrap())
        .env_clear();
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("TERM", "xterm").env("SHELL", "/bin/sh").envs(vars.iter().copied()).stdin(Stdio::null());
    script
}

/// Runs a command on a terminal of this size; gives its exit code and all that was written.
fn on_terminal(p: &Project, line: &str, size: (u16, u16), vars: &[(&str, &str)]) -> (i32, String) {
    let output = terminal(p, line, size, vars).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// Runs a command that asks something, does `meanwhile`, and types `answer`.
fn asked(p: &Project, line: &str, meanwhile: impl FnOnce(), answer: &str) -> (i32, String) {
    let mut command = terminal(p, line, (200, 50), &[("NO_COLOR", "1")]);
    let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut written, mut stdout) = (String::new(), script.stdout.take().unwrap());
    let mut piece = [0; 1024];
    loop {
        let n = stdout.read(&mut piece).unwrap();
        written.push_str(&String::from_utf8_lossy(&piece[..n]));
        if n == 0 || written.ends_with("[y/N] ") {
            break;
        }
    }
    meanwhile();
    let mut stdin = script.stdin.take().unwrap();
    stdin.write_all(answer.as_bytes()).unwrap();
    stdout.read_to_string(&mut written).unwrap();
    (script.wait().unwrap().code().unwrap(), written)
}

/// An id as a terminal shows it.
fn short(id: &str) -> &str {
    &id[16..]
}

fn has_terminal() -> bool {
    let has = Command::new("script").arg("--version").stdout(Stdio::null()).status().is_ok_and(|it| it.success());
    if !has {
        skip("a terminal: there is no `script` of util-linux");
    }
    has
}

/// A project with six hosts of which the fourth is sick when it has a file `sick`; nothing without a terminal to run it on.
fn project() -> Option<Project> {
    if !has_terminal() {
        return None;
    }
    let mut p = Project::new();
    let targets: String = (1..=6).map(|host| format!("target file:srv/web{host}\n")).collect();
    let check = "command true|true|true|echo so it said\nhealthy sleep 0.3; test ! -e ../../sick\npatience 600|50|1\nstrategy batches 2\n";
    p.change("target file:srv/dev\n", &format!("{targets}{check}"));
    Some(p)
}

/// The lines without the times, which are different each time.
fn words(lines: &[String]) -> Vec<String> {
    let timeless = |line: &String| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_time = |at: usize| {
            let unit = |word: &&str| matches!(word.trim_end_matches(')'), "ms" | "s");
            unit(&words[at]) || words.get(at + 1).is_some_and(unit)
        };
        (0..words.len()).filter(|at| !is_time(*at)).map(|at| words[at]).collect::<Vec<_>>().join(" ")
    };
    lines.iter().map(timeless).collect()
}

#[test]
fn deploy_on_terminal_shows_one_row_for_each_host() {
    let Some(p) = project() else { return };
    let one = p.release("1");
    for (size, deploys) in [((80, 24), "deploy dev"), ((200, 50), "deploy dev"), ((80, 5), "deploy dev")] {
        for host in 1..=6 {
            let _ = fs::remove_dir_all(p.path(&format!("srv/web{host}")));
        }
        let (code, written) = on_terminal(&p, deploys, size, &[]);
        assert_eq!(code, 0, "{written}");
        let mut want: Vec<_> = (1..=6).map(|host| format!("ok web{host} live")).collect();
        want.push("6 hosts: 6 live".to_owned());
        want.push(format!("dev: {} is live", short(&one)));
        let heading = [format!("deploy {} to dev", short(&one)), "1".into()];
        want.splice(..0, heading);
        let lines = screen(&written, size);
        assert_eq!(lines[0], format!("fetched {} from file:target/releases", short(&one)));
        assert_eq!(words(&lines[1..]), want, "{size:?}: {lines:#?}");
        assert!(!written.contains("\x1b[?25l"), "the cursor is there all the time");
    }
}

#[test]
fn deploy_that_fails_on_terminal_shows_reverts_and_the_log() {
    let Some(p) = project() else { return };
    let one = p.release("1");
    p.run("deploy dev").ok();
    let two = p.release("2");
    p.write("srv/web4/sick", "");
    let (code, written) = on_terminal(&p, "deploy dev", (80, 24), &[("NO_COLOR", "1")]);
    let lines = screen(&written, (80, 24));
    assert_eq!(code, 9, "the old release is sick there as well: {lines:#?}");
    assert_eq!(lines[1], format!("deploy {} to dev, which runs {}", short(&two), short(&one)));
    assert_eq!(lines[2..5], ["  2", "file:srv/web4: the last lines of its log:", "  | so it said"], "{lines:#?}");
    let table = words(&lines[5..12]);
    assert_eq!(
        table,
        [
            "back web1 reverted".to_owned(),
            "back web2 reverted".into(),
            "back web3 reverted".into(),
            format!("failed web4 NOT reverted check the health of {}…", two.strip_suffix(&two[19..]).unwrap()),
            "web5 installed".into(),
            "web6 installed".into(),
            "6 hosts: 1 failed, 3 reverted, 2 installed".into(),
        ],
        "{lines:#?}"
    );
    assert!(lines[12].starts_with("error: "), "{lines:#?}");
    let wide = lines[12..].iter().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "lines are wrapped");
    assert!(!written.contains("\x1b[3") && !written.contains("\x1b[1;"), "NO_COLOR: {written:?}");
}

#[test]
fn deploy_on_dumb_terminal_in_ci_or_verbose_writes_lines() {
    let Some(p) = project() else { return };
    p.release("1");
    for (n, (line, vars)) in [
        ("deploy dev", [("TERM", "dumb")]),
        ("deploy dev", [("CI", "true")]),
        ("deploy dev --verbose", [("TERM", "xterm")]),
    ]
    .into_iter()
    .enumerate()
    {
        p.release(&format!("{n}"));
        let (code, written) = on_terminal(&p, line, (80, 24), &vars);
        assert_eq!(code, 0, "{written}");
        let hosts = if line.ends_with("verbose") { "file:srv/web1: install " } else { "web3" };
        assert!(written.contains(hosts) && written.contains("  installed "), "{vars:?}: {written}");
        assert!(!written.contains("\x1b[?7l"), "{vars:?}: {written}");
    }
    // Of one host as well.
    p.release("one");
    let (code, written) = on_terminal(&p, "promote dev prod --yes", (80, 24), &[("NO_COLOR", "1")]);
    assert_eq!(code, 0, "{written}");
    assert!(written.contains("ok      installed ") && !written.contains("1 host"), "{written}");
    let lines = screen(&written, (80, 24));
    assert!(!lines.iter().any(|line| line.contains("  -  ")), "no frame of a running step is left: {lines:#?}");
}

#[test]
fn approval_covers_the_plan_that_was_shown() {
    if !has_terminal() {
        return;
    }
    let p = Project::new();
    let one = p.release("1");
    let question = format!("prod: nothing -> {}; deploy? [y/N] ", short(&one));
    for answer in ["n\n", "\n", "\x03"] {
        let (code, written) = asked(&p, "deploy prod", || (), answer);
        assert!(
            code == 1
                && written.contains(&question)
                && (written.contains("nothing was changed") || written.contains("no answer; stopped")),
            "{written}"
        );
        assert!(!p.path("srv/prod").exists());
    }
    let (code, written) = asked(&p, "deploy prod", || (), "y\n");
    assert!(code == 0 && written.contains(&format!("prod: {} is live", short(&one))), "{written}");

    let two = p.release("2");
    let three = p.release("3");
    p.run(&format!("deploy dev {three}")).ok();
    let faster = || drop(p.run(&format!("deploy prod {two} --yes")).ok());
    let (code, written) = asked(&p, "promote dev prod", faster, "y\n");
    assert!(
        written.contains(&format!("prod: {} -> {}, brings 2 commits; promote? [y/N] ", short(&one), short(&three))),
        "{written}"
    );
    assert!(code == 8 && written.contains("prod has changed since the plan was approved"), "{code}: {written}");
    assert!(written.contains("cargo xtask status prod"), "{written}");
    assert!(p.run("status prod").ok().stdout.contains(&two));

    let (code, written) = asked(&p, "rollback prod", || (), "y\n");
    assert!(
        written.contains(&format!("prod: {} -> {}, takes away 1 commit; roll back? [y/N] ", short(&two), short(&one))),
        "{written}"
    );
    assert!(code == 0 && written.contains(&format!("rolled back to {}", short(&one))), "{written}");
    // What is so already needs no approval.
    let (code, written) = on_terminal(&p, &format!("deploy prod {one}"), (80, 24), &[]);
    assert!(code == 0 && written.contains("nothing to do") && !written.contains("[y/N]"), "{written}");
}
