//! Completions in the real shells, on a terminal, key by key; and man pages in the real formatter.

use crate::project::{Project, eventually};
use crate::record::skip;
use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

/// A project whose xtask is compiled, with one release.
fn project() -> (Project, String) {
    let mut p = Project::new();
    p.change("store file:store\n", "store circleci:workspace\nstore file:store\n");
    p.add("env far\ntarget ssh://deploy@web1.example.com/srv/app\ntarget ssh://deploy@web2.example.com:2222/srv/app\n");
    p.write("xtask/Cargo.toml", "[dependencies]\ngangplank = { path = \"engine\" }\n");
    p.write("sub/dir/file", "");
    fs::create_dir_all(p.path("target/debug")).unwrap();
    symlink(env!("CARGO_BIN_EXE_xtask-fixture"), p.path("target/debug/xtask")).unwrap();
    let id = p.release("1");
    (p, id)
}

/// What may stand in place of the last word, without the meanings.
fn candidates(p: &Project, line: &str) -> Vec<String> {
    let ran = p.run(&format!("complete -- {line}")).ok();
    assert_eq!(ran.stderr, "", "{line}");
    ran.stdout.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn complete_lists_the_words_that_may_follow() {
    let (p, first) = project();
    p.run("put").ok();
    p.run("deploy dev").ok();
    let second = p.release("2");
    for (line, want) in [
        ("dep", vec!["deploy"]),
        ("deploy ''", vec!["dev", "prod", "far"]),
        ("promote dev ''", vec!["dev", "prod", "far"]),
        ("deploy dev ''", vec!["latest", "HEAD", "@dev", "@prod", "@far", &second, &first]),
        ("rollback dev ''", vec!["previous", &second, &first]),
        ("deploy dev --expect-current ''", vec![&second, &first]),
        (
            "deploy dev --expect-current=2",
            vec![&*format!("--expect-current={second}"), &format!("--expect-current={first}")],
        ),
        ("deploy far --skip-host ''", vec!["web1.example.com", "web2.example.com"]),
        ("exec dev --host ''", vec!["file:srv/dev"]),
        ("put --store ''", vec!["circleci:workspace", "file:store"]),
        ("deploy dev --lock", vec!["--lock-wait"]),
        ("deploy dev --reason ''", vec![]),
        ("ci run deploy-", vec!["deploy-dev", "deploy-prod", "deploy-far"]),
        ("ci trigger deploy p", vec!["prod"]),
        ("ci generate --handoff ''", vec!["workspace", "artifacts", "s3"]),
        ("completions ''", vec!["bash", "fish", "zsh"]),
        ("bench-", vec![]),
    ] {
        assert_eq!(candidates(&p, line), want, "`{line}`");
    }
    p.run("complete -- dep").ok().stdout_is("deploy\tDeploy a release to an env\n");
    p.run("complete").ok();
}

#[test]
fn complete_without_readable_files_omits_them_silently() {
    let (mut p, _) = project();
    fs::remove_dir_all(p.path("target/releases")).unwrap();
    p.write("target/releases", "a file");
    p.change("target ssh://deploy@web1", "target nonsense://deploy@web1");
    assert_eq!(candidates(&p, "rollback dev ''"), ["previous"]);
    assert_eq!(candidates(&p, "deploy far --skip-host ''"), ["web2.example.com"]);
    fs::remove_file(p.path("Cargo.toml")).unwrap();
    assert_eq!(candidates(&p, "dep"), [""; 0]);
}

/// An interactive shell in a terminal.
struct Session<'a> {
    p: &'a Project,
    shell: &'a str,
}

impl Session<'_> {
    /// Types lines, each when the shell has shown its prompt, and gives what `cargo` was called with.
    fn types(&self, lines: &[&str]) -> Vec<String> {
        let (p, shell) = (self.p, self.shell);
        let (called, prompts) = (p.path("called"), p.path("prompts"));
        fs::write(&called, "").unwrap();
        fs::write(&prompts, "").unwrap();
        let words = p.command("");
        let mut script = Command::new("script");
        script.args(["-qec", &format!("stty cols 100 rows 40; exec {shell}"), "/dev/null"]).env_clear();
        script.envs(words.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let path = format!("{}:{}", p.path("programs").display(), std::env::var("PATH").unwrap());
        let home = p.path("home");
        script.env("PATH", path).env("TERM", "xterm").env("SHELL", "/bin/sh").env("HOME", &home).env("ZDOTDIR", &home);
        script.env("CALLED", &called).env("PROMPTS", &prompts).env("XDG_DATA_HOME", home.join("data"));
        script.env("XDG_CONFIG_HOME", home.join("config")).current_dir(p.path(""));
        let screen = fs::File::create(p.path("screen")).unwrap();
        script.stdin(Stdio::piped()).stdout(screen.try_clone().unwrap()).stderr(screen);
        let mut child = script.spawn().unwrap();
        let mut keys = child.stdin.take().unwrap();
        for (n, line) in lines.iter().chain(&["exit"]).enumerate() {
            let shown = || fs::metadata(&prompts).unwrap().len() as usize > n;
            eventually(&format!("prompt {} of {shell}: {}", n + 1, p.read("screen")), shown);
            std::thread::sleep(std::time::Duration::from_millis(100));
            keys.write_all(format!("{line}\r").as_bytes()).unwrap();
        }
        let child = RefCell::new(child);
        eventually(&format!("end of {shell}"), || child.borrow_mut().try_wait().unwrap().is_some());
        p.read("called").lines().map(str::to_owned).collect()
    }
}

/// The same lines in every shell. `rc` is what its rc file says before ours.
fn a_session(shell: &str, rc_file: &str, rc: &str, lines: &str) -> Option<()> {
    let program = shell.split(' ').next().unwrap();
    for tool in [program, "script"] {
        if !Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
            skip(&format!("completions of {program}: there is no `{tool}`"));
            return None;
        }
    }
    let (p, id) = project();
    p.write_program(
        "programs/cargo",
        "#!/bin/sh\ncase $1 in --list) echo '    build  Compile';; *) echo \"$*\" >> \"$CALLED\";; esac\n",
    );
    let ours = p.run(&format!("completions {program}")).ok().stdout;
    p.write("home/ours", &ours);
    p.write(&format!("home/{rc_file}"), &format!("{rc}\n. ~/ours\n{lines}\n"));
    // Another xtask, with unknown commands.
    p.write("other/xtask/Cargo.toml", "[package]\nname = \"xtask\"\n");
    p.write_program("other/target/debug/xtask", "#!/bin/sh\necho ran >> \"$CALLED\"\n");
    // An xtask that is a workspace of its own, and compiled there.
    p.write("alone/Cargo.toml", "[package]\nname = \"shop\"\n");
    p.write("alone/xtask/Cargo.toml", "[workspace]\n[dependencies]\ngangplank = { path = \"engine\" }\n");
    fs::create_dir_all(p.path("alone/xtask/target/debug")).unwrap();
    symlink(env!("CARGO_BIN_EXE_xtask-fixture"), p.path("alone/xtask/target/debug/xtask")).unwrap();
    let called = Session { p: &p, shell }.types(&[
        "cargo xtask dep\tp\t",
        "cargo xtask deploy dev 2026\t",
        "cargo xtask deploy prod @d\t",
        "cargo xtask status --col\tne\t",
        "cargo xtask status --color=ne\t",
        "cargo xtask put --store file:st\t",
        "cargo xtask deploy dev --reason 'it is late' --skip-host=file:s\t",
        "cargo +stable xtask rol\tdev prev\t",
        "cargo bui\t",
        "cd sub/dir",
        "cargo xtask logs p\t",
        "cd ../../other",
        "cargo xtask dep\t",
        "cd ../alone",
        "cargo xtask rol\t",
        "cd /",
        "cargo xtask dep\t",
    ]);
    let screen = p.read("screen");
    let want = [
        "xtask deploy prod",
        &format!("xtask deploy dev {id}"),
        "xtask deploy prod @dev",
        "xtask status --color never",
        "xtask status --color=never",
        "xtask put --store file:store",
        "xtask deploy dev --reason it is late --skip-host=file:srv/dev",
        "+stable xtask rollback dev previous",
        "build",
        "xtask logs prod",
        "xtask dep",
        "xtask rollback",
        "xtask dep",
    ];
    assert_eq!(called, want, "{screen}");
    assert!(!screen.to_lowercase().contains("error"), "{screen}");
    Some(())
}

const BASH: &str = "bash --noprofile --rcfile home/rc -i";

#[test]
fn bash_keeps_an_earlier_completion_of_cargo() {
    let before = "_of_cargo() { COMPREPLY=(build); }; complete -F _of_cargo cargo";
    a_session(BASH, "rc", before, "PS1='$ ' PROMPT_COMMAND='printf . >> $PROMPTS'");
}

#[test]
fn bash_loads_the_completion_of_cargo_on_demand() {
    let loader = "/usr/share/bash-completion/bash_completion";
    if !Path::new(loader).exists() {
        return skip(&format!("bash-completion: there is no {loader}"));
    }
    let more = "mkdir -p ~/data/bash-completion/completions\n\
        echo '_of_cargo() { COMPREPLY=(build); }; complete -F _of_cargo cargo' > ~/data/bash-completion/completions/cargo\n\
        PS1='$ ' PROMPT_COMMAND='printf . >> $PROMPTS'";
    a_session(BASH, "rc", &format!(". {loader}"), more);
}

#[test]
fn zsh_keeps_an_earlier_completion_of_cargo() {
    let before = "mkdir -p ~/functions; echo '#compdef cargo\ncompadd build' > ~/functions/_cargo\n\
        fpath=(~/functions $fpath); autoload -Uz compinit && compinit -u";
    a_session("zsh -d -i", ".zshrc", before, "PS1='$ '; precmd() { printf . >> $PROMPTS }");
}

#[test]
fn fish_keeps_its_own_completion_of_cargo() {
    let prompt = "set fish_greeting; function fish_prompt; printf . >> $PROMPTS; echo '$ '; end";
    a_session("fish -i", "config/fish/config.fish", "", prompt);
}

#[test]
fn man_page_of_each_command_renders() {
    // Of `--all-features`, the one that this package has too.
    if !cfg!(feature = "s3") {
        return skip("man pages: compiled without the features of the engine");
    }
    let p = Project::new();
    let pages = p.run("man pages").ok().stdout;
    assert!(pages.lines().count() > 25, "{pages}");
    let groff = Command::new("groff").arg("--version").stdout(Stdio::null()).status().is_ok_and(|it| it.success());
    if !groff {
        skip("how man pages look: there is no `groff`");
    }
    for page in pages.lines() {
        let text = fs::read_to_string(page).unwrap();
        for piece in [".TH cargo-xtask", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n"] {
            assert!(text.contains(piece), "{page}: no {piece}\n{text}");
        }
        if groff {
            let output = Command::new("groff").args(["-man", "-Tascii", "-ww", "-P-c", page]).output().unwrap();
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{page}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(String::from_utf8_lossy(&output.stdout).contains("cargo xtask"), "{page}");
        }
    }
    let deploy = fs::read_to_string(p.path("pages/cargo-xtask-deploy.1")).unwrap();
    assert!(deploy.contains("Deploy a release to an env") && deploy.contains("cargo xtask deploy"), "{deploy}");
    assert!(
        p.path("pages/cargo-xtask-ci-trigger-deploy.1").exists() && !p.path("pages/cargo-xtask-complete.1").exists()
    );
}
