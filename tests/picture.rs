//! Makes the picture in the README: `cargo run --package xtask --example picture`.
//!
//! Creates a project, compiles it, and uses it in a real terminal (tmux); the picture is that screen.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the project of the picture lies, as the picture shows it.
const DIR: &str = "/tmp/picture";
/// What it compiles is kept for the next picture.
const COMPILED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/picture");
/// The terminal.
const COLUMNS: &str = "88";
const ROWS: &str = "120";
const PROMPT: &str = "$ ";

/// What is typed, and what is answered where it asks.
const TYPED: &[(&str, Option<&str>)] = &[
    ("cargo xtask build 2>&1 | tail -1", None),
    ("cargo xtask deploy dev", None),
    ("cargo xtask promote dev prod", Some("y")),
    ("echo 'fn main() { std::process::exit(3) }' > app/src/main.rs && git commit -qam broken", None),
    ("cargo xtask build 2>&1 | tail -1", None),
    ("cargo xtask deploy dev", None),
    ("cargo xtask status", None),
    ("cargo xtask history dev --limit 3", None),
];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let _ = fs::remove_dir_all(DIR);
    fs::create_dir_all(DIR).expect("a directory");
    let shop = format!("{DIR}/shop");
    run(root, "cargo", &["xtask", "new", &shop, "--yes"]);
    // The picture does not show the compiler at work.
    run(Path::new(&shop), "cargo", &["xtask", "build", "--quiet"]);
    fs::remove_dir_all(format!("{shop}/target/releases")).expect("a release was built");

    let terminal = Terminal::open(&shop);
    for (line, answer) in TYPED {
        terminal.type_in(line);
        if let Some(answer) = answer {
            terminal.wait_for(|screen| screen.trim_end().ends_with("[y/N]"));
            terminal.type_in(answer);
        }
        terminal.wait_for(|screen| screen.lines().rfind(|line| !line.is_empty()) == Some(PROMPT.trim_end()));
    }
    let screen = tmux(&["capture-pane", "-e", "-p", "-t", "picture"]);
    let screen = screen.trim_end().trim_end_matches(PROMPT.trim_end()).trim_end();
    drop(terminal);
    let svg = anstyle_svg::Term::new().render_svg(screen);
    fs::write(root.join("docs/run.svg"), svg).expect("docs/run.svg");
    for env in ["dev", "prod"] {
        let kept = fs::read_to_string(format!("{shop}/target/deploy/{env}/service/process")).unwrap_or_default();
        if let Some(group) = kept.split(' ').nth(2) {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
        }
    }
    let _ = fs::remove_dir_all(DIR);
}

struct Terminal;

impl Terminal {
    fn open(dir: &str) -> Self {
        let shell = format!("env PS1='{PROMPT}' TERM=tmux-256color USER=ana CARGO_TARGET_DIR='{COMPILED}' sh");
        tmux(&["-f", "/dev/null", "new-session", "-d", "-s", "picture", "-x", COLUMNS, "-y", ROWS, "-c", dir, &shell]);
        let terminal = Self;
        terminal.wait_for(|screen| screen.trim_end() == PROMPT.trim_end());
        terminal
    }

    fn type_in(&self, line: &str) {
        tmux(&["send-keys", "-t", "picture", "-l", line]);
        tmux(&["send-keys", "-t", "picture", "Enter"]);
        // The shell has to have taken the line before its next prompt means anything.
        self.wait_for(|screen| screen.contains(&line[..line.len().min(60)]));
        sleep(Duration::from_millis(300));
    }

    #[expect(clippy::unused_self, reason = "only an open terminal has a screen")]
    fn wait_for(&self, done: impl Fn(&str) -> bool) {
        let started = Instant::now();
        loop {
            let screen = tmux(&["capture-pane", "-p", "-t", "picture"]);
            if done(&screen) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "it waits for something:\n{screen}");
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", "picture", "kill-server"]).status();
    }
}

fn tmux(args: &[&str]) -> String {
    let output = Command::new("tmux").args(["-L", "picture"]).args(args).output().expect("tmux is installed");
    assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(dir: &Path, program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    let status = command.args(args).current_dir(dir).env("CARGO_TARGET_DIR", COMPILED).status().expect("it starts");
    assert!(status.success(), "{program} {args:?}");
}
