//! The command blocks of the README and the guides, executed in fresh clones: `cargo xtask test --docs`.

mod blocks;

use crate::fleet::hosts::Fleet;
use crate::new::handoffs::{Compiled, Ended};
use crate::project::{as_somebody, free_port, root};
use blocks::{Block, Mark, blocks};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The README and the guides, with their paths.
fn guides(root: &Path) -> Vec<(String, String)> {
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|it| it.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let docs = docs.map(|path| format!("docs/{}", path.file_name().unwrap().to_str().unwrap()));
    let mut all: Vec<_> = docs.chain(["README.md".to_owned(), "CONTRIBUTING.md".to_owned()]).collect();
    all.sort();
    all.into_iter().map(|path| (path.clone(), fs::read_to_string(root.join(path)).unwrap())).collect()
}

/// The guides whose commands `documented_commands_run` executes.
const EXECUTED: &[&str] = &[
    "README.md",
    "docs/doctor.md",
    "docs/fleet.md",
    "docs/handoff.md",
    "docs/hosts.md",
    "docs/new.md",
    "docs/report.md",
    "docs/s3.md",
    "docs/shell.md",
    "docs/troubleshooting.md",
];

/// Words of the guides that stand for a value, and one that is valid.
const PLACEHOLDERS: &[(&str, &str)] = &[("s3://BUCKET/PREFIX", "s3://shop-releases/app")];

#[test]
fn command_block_is_executed_or_says_why_not() {
    let mut offences = Vec::new();
    for (path, text) in guides(&root()) {
        let all = blocks(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let runs = |block: &&Block| block.is_commands() && block.not_run().is_none();
        let is_executed = EXECUTED.contains(&path.as_str());
        if is_executed != all.iter().any(|block| runs(&block)) {
            let first = all.iter().find(runs).map_or(1, |block| block.line);
            offences
                .push(format!("{path}:{first}: mark it `not run: REASON`, or correct EXECUTED in tests/it/docs.rs"));
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// A fresh clone, a home of its own, and hosts.
struct Scene {
    dir: tempfile::TempDir,
    compiled: Compiled,
    fleet: Option<Fleet>,
    ports: [String; 2],
}

impl Scene {
    fn new(needs_hosts: bool) -> Self {
        let dir = crate::record::tempdir();
        let fleet = needs_hosts.then(|| Fleet::start(1)).flatten();
        if let Some(fleet) = &fleet {
            // The names that the guides use.
            let config = fs::read_to_string(fleet.file("ssh_config")).unwrap();
            let config = config.replace("Host fleet0", "Host fleet0 web1.example.com");
            fs::write(fleet.file("ssh_config"), config.replace("Host fleet* ", "Host fleet* *.example.com ")).unwrap();
        }
        for sub in ["home/.config/fish/conf.d", "work"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let scene =
            Self { dir, compiled: Compiled::new(), fleet, ports: [free_port(), free_port()].map(|it| it.to_string()) };
        let clone = format!("git clone --quiet '{}' . && git checkout --quiet -B main", root().display());
        let (code, printed) = scene.run(&clone, None);
        assert_eq!(code, 0, "{printed}");
        scene
    }

    fn clone_dir(&self) -> PathBuf {
        self.dir.path().join("work/app")
    }

    /// Runs a script in the clone, on a terminal if something is to be answered. Returns its exit code and output.
    fn run(&self, script: &str, answers: Option<&[String]>) -> (i32, String) {
        let (at, file) = (self.clone_dir(), self.dir.path().join("block.sh"));
        fs::create_dir_all(&at).unwrap();
        let script = PLACEHOLDERS.iter().fold(script.to_owned(), |script, (from, to)| script.replace(from, to));
        fs::write(&file, format!("set -eu\nexec 2>&1\n{script}")).unwrap();
        let mut command = Command::new("timeout");
        let bash = format!("bash '{}'", file.display());
        match answers {
            Some(_) => command.args(["900", "script", "-qec", &bash, "/dev/null"]),
            None => command.args(["900", "bash"]).arg(&file),
        };
        command.current_dir(at).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, default) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(default);
            command.env(name, std::env::var_os(name).map_or_else(home, PathBuf::from));
        }
        command.envs(std::env::var_os("RUSTUP_TOOLCHAIN").map(|it| ("RUSTUP_TOOLCHAIN", it)));
        let path = self.fleet.as_ref().map_or_else(|| std::env::var("PATH").unwrap(), Fleet::path);
        command.env("PATH", path).env("HOME", self.dir.path().join("home")).env("USER", "ana");
        command
            .env("CARGO_TARGET_DIR", &self.compiled.dir)
            .env("NO_COLOR", "1")
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh");
        command.env("DEV_PORT", &self.ports[0]).env("PROD_PORT", &self.ports[1]);
        command.env("GANGPLANK_BUCKETS", self.dir.path().join("buckets"));
        command.envs(self.fleet.as_ref().map(|fleet| ("SRV", fleet.srv(0))));
        as_somebody(&mut command);
        typed(command, answers.unwrap_or_default())
    }
}

/// Runs a command and types the next answer whenever a question waits for one. Each answer has its question.
fn typed(mut command: Command, answers: &[String]) -> (i32, String) {
    let mut child = command.spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take(), child.stdout.take().unwrap());
    if answers.is_empty() {
        stdin = None;
    }
    let (mut answers, mut printed, mut piece) = (answers.iter(), Vec::new(), [0; 4096]);
    loop {
        let n = stdout.read(&mut piece).unwrap();
        if n == 0 {
            break;
        }
        printed.extend_from_slice(&piece[..n]);
        let waits = [b"] ".as_slice(), b"]: ", b"? "].iter().any(|end| printed.ends_with(end));
        if waits
            && let Some(stdin) = &mut stdin
            && let Some(answer) = answers.next()
        {
            stdin.write_all(format!("{answer}\n").as_bytes()).unwrap();
        }
    }
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert_eq!(answers.next(), None, "nothing asked for this answer:\n{printed}");
    (child.wait().unwrap().code().unwrap_or(-1), printed)
}

/// A line as it stays on a terminal: without escape sequences, and what was drawn last over itself.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        text.push_str(before);
        rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.split('\r').rfind(|drawn| !drawn.trim().is_empty()).unwrap_or_default().to_owned()
}

/// Whether a word differs from run to run: a number, a commit, a URL with a port, a file named by an id. Not `web1`.
fn is_number(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_hex = word.len() >= 7 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    is_hex || word.starts_with(|c: char| c.is_ascii_digit()) || digits > 3
}

/// A line without what differs from run to run: numbers, ids, durations, sizes, and spaces.
fn normalized(line: &str) -> String {
    let units = ["ms", "s", "min", "h", "d", "B", "KiB", "MiB", "GiB"];
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let is_number = is_number(word);
        let word = if is_number { "#" } else { word };
        let follows = words.last() == Some(&"#");
        if !(follows && (is_number || units.contains(&word))) {
            words.push(word);
        }
    }
    words.join(" ")
}

/// The first shown line that was not printed, in order. `...` stands for any lines.
fn missing<'a>(shown: &'a [String], printed: &str) -> Option<&'a String> {
    let mut rest = printed.lines().map(|line| normalized(&plain(line)));
    shown.iter().filter(|line| line.trim() != "...").find(|line| {
        let wanted = normalized(line);
        !rest.any(|line| line == wanted)
    })
}

/// Executes the blocks of a guide, in order, in one fresh clone.
fn execute(guide: &str) {
    let text = fs::read_to_string(root().join(guide)).unwrap();
    let all = blocks(&text).unwrap();
    let scene = Scene::new(text.contains("$SRV"));
    // Projects that the guides make, by the names that they get.
    let _ended = ["app", "shop", "first"].map(|name| Ended(scene.dir.path().join("work").join(name)));
    if text.contains("$SRV") && scene.fleet.is_none() {
        return;
    }
    let mut printed = String::new();
    for block in all {
        let at = format!("{guide}:{}", block.line);
        if block.marks.contains(&Mark::Shows) {
            let missing = missing(&block.lines, &printed);
            assert_eq!(missing, None, "{at}: this line was not printed, but:\n{printed}");
        } else if block.is_commands() {
            if let Some(reason) = block.not_run() {
                println!("{at}: not run: {reason}");
                continue;
            }
            let (code, output) = scene.run(&block.script(), block.answers());
            println!("{at}: ran\n{output}");
            assert_eq!(code, 0, "{at}: these commands failed:\n{}\n{output}", block.script());
            printed = output;
        }
    }
}

macro_rules! executed {
    ($($name:ident: $guide:literal)*) => {
        $(
            #[test]
            #[ignore = "group docs"]
            fn $name() {
                execute($guide);
            }
        )*

        #[test]
        fn each_executed_guide_has_a_test() {
            assert_eq!([$($guide),*], EXECUTED);
        }
    };
}

executed! {
    commands_of_the_readme_do_what_it_shows: "README.md"
    commands_of_doctor_do_what_it_shows: "docs/doctor.md"
    commands_of_fleet_do_what_it_shows: "docs/fleet.md"
    commands_of_handoff_do_what_it_shows: "docs/handoff.md"
    commands_of_hosts_do_what_it_shows: "docs/hosts.md"
    commands_of_new_do_what_it_shows: "docs/new.md"
    commands_of_report_do_what_it_shows: "docs/report.md"
    commands_of_s3_do_what_it_shows: "docs/s3.md"
    commands_of_shell_do_what_it_shows: "docs/shell.md"
    commands_of_troubleshooting_do_what_it_shows: "docs/troubleshooting.md"
}

#[test]
fn shown_lines_are_compared_without_numbers() {
    let printed =
        "note: x\nJOB    STATUS  TIME\ncheck  success  4 min 22 s\ndev (file:a): 20261122T141736-02c609d is live\n";
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        missing(&shown("JOB STATUS TIME\ncheck success 37.3 s\n...\ndev (file:a): 20260101T1-1 is live"), printed),
        None
    );
    let drawn = "\r\x1b[K\x1b[?7l  -  check  0 s\x1b[?7h\r\r\x1b[K\x1b[?7l\x1b[?7h  ok  check  2 min 51 s\r\n";
    assert_eq!(missing(&shown("  ok  check  760 ms"), drawn), None);
    assert_eq!(missing(&shown("check failed 37.3 s"), printed).unwrap(), "check failed 37.3 s");
    assert_eq!(missing(&shown("web1 installed 1 s"), "web2 installed 1 s").unwrap(), "web1 installed 1 s");
    assert_eq!(missing(&shown("abcdef0 at http://127.0.0.1:4000/"), "1234567 at http://127.0.0.1:4711/"), None);
    assert_eq!(missing(&shown("check success 1 s\nJOB STATUS TIME"), printed).unwrap(), "JOB STATUS TIME");
}
