//! Logins whose shell and profile are hostile: each shell, with a profile that prints, reads, traps, sets what changes the
//! meaning of scripts, or defines functions and aliases over the commands that scripts use.

use super::hosts::Fleet;
use super::{live, project};
use crate::project::{Project, Ran};
use crate::record::skip;
use std::fs;
use std::path::Path;

/// A shell of a login.
struct Shell {
    name: &'static str,
    paths: &'static [&'static str],
    /// Its profile, below the home of the login.
    profile: &'static str,
    /// How it is started, so that it reads its profile for a command too.
    start: &'static str,
}

/// bash reads `.bashrc` for a command of sshd; the others get an option, or always read their profile.
const SHELLS: &[Shell] = &[
    Shell { name: "bash", paths: &["/bin/bash", "/usr/bin/bash"], profile: ".bashrc", start: "SHLVL=0 @shell@ -c" },
    Shell { name: "dash", paths: &["/bin/dash", "/usr/bin/dash"], profile: ".profile", start: "exec @shell@ -lc" },
    Shell {
        name: "fish",
        paths: &["/usr/bin/fish", "/bin/fish"],
        profile: ".config/fish/config.fish",
        start: "exec @shell@ -c",
    },
    Shell {
        name: "csh",
        paths: &["/bin/csh", "/usr/bin/csh", "/bin/tcsh"],
        profile: ".cshrc",
        start: "exec @shell@ -c",
    },
    Shell {
        name: "busybox",
        paths: &["/bin/busybox", "/usr/bin/busybox"],
        profile: ".profile",
        start: "exec @shell@ ash -lc",
    },
];

/// A profile: its name, and its text in sh, csh and fish. Without a text it is not for that shell.
struct Profile {
    name: &'static str,
    sh: &'static str,
    csh: &'static str,
    fish: &'static str,
}

const PROFILES: &[Profile] = &[
    Profile { name: "nothing", sh: "", csh: "", fish: "" },
    Profile {
        name: "prints",
        sh: "echo 'Welcome! You have mail.'; echo 'Last login: never' >&2",
        csh: "echo 'Welcome! You have mail.'",
        fish: "echo 'Welcome! You have mail.'; echo 'Last login: never' >&2",
    },
    Profile {
        name: "prints without a line break",
        sh: "printf 'Welcome: '; printf 'Last login: ' >&2",
        csh: "printf 'Welcome: '",
        fish: "printf 'Welcome: '; printf 'Last login: ' >&2",
    },
    Profile {
        name: "prints what scripts print",
        sh: "printf 'gangplank: ready\\ngangplank: part 0\\ngangplank: done 0\\n'; printf 'root\\nentries\\n'",
        csh: "printf 'gangplank: ready\\ngangplank: part 0\\ngangplank: done 0\\n'",
        fish: "printf 'gangplank: ready\\ngangplank: part 0\\ngangplank: done 0\\n'",
    },
    Profile {
        name: "prints at its end",
        sh: "trap 'echo bye; echo bye >&2' EXIT",
        // csh has nothing of the kind.
        csh: "",
        fish: "function bye --on-event fish_exit; echo bye; echo bye >&2; end",
    },
    Profile {
        name: "variables",
        sh: "export CDPATH=@trap@ IFS=x GREP_OPTIONS=-v TAR_OPTIONS=--exclude=index.html POSIXLY_CORRECT=1 LANG=de_DE.UTF-8 \
             LC_ALL=tr_TR.UTF-8 GZIP=-9 BASH_ENV=@trap@/env ENV=@trap@/env TIME_STYLE=full-iso QUOTING_STYLE=c COLUMNS=1",
        csh: "setenv CDPATH @trap@; setenv GREP_OPTIONS -v; setenv TAR_OPTIONS --exclude=index.html; setenv POSIXLY_CORRECT 1; \
              setenv BASH_ENV @trap@/env; setenv ENV @trap@/env; setenv LC_ALL tr_TR.UTF-8",
        fish: "set -gx CDPATH @trap@; set -gx GREP_OPTIONS -v; set -gx TAR_OPTIONS --exclude=index.html; set -gx POSIXLY_CORRECT 1; \
               set -gx BASH_ENV @trap@/env; set -gx ENV @trap@/env; set -gx LC_ALL tr_TR.UTF-8",
    },
    Profile {
        name: "options",
        sh: "set -o noclobber; set -f; umask 077; unset HOME_OF_NOBODY; export SHELLOPTS 2> /dev/null",
        csh: "set noclobber; set noglob; umask 077",
        fish: "umask 077",
    },
    Profile {
        name: "functions and aliases",
        sh: "cat() { echo evil; }; cd() { :; }; printf() { :; }; tar() { echo evil; }; grep() { return 1; }; mv() { rm -rf @trap@; }; \
             alias readlink='echo evil' sh='echo evil' rm='rm -i' ls='ls --color=always'; \
             [ -z \"$BASH_VERSION\" ] || eval 'exec() { echo evil; }; export -f cat cd printf tar grep mv'",
        csh: "alias cat 'echo evil'; alias tar 'echo evil'; alias sh 'echo evil'; alias rm 'rm -i'",
        fish: "function cat; echo evil; end; function tar; echo evil; end; function sh; echo evil; end; alias rm 'rm -i'",
    },
];

/// A host whose login has this shell and this profile; nothing where the shell is not installed.
fn host(shell: &Shell, profile: &str) -> Option<Fleet> {
    let path = shell.paths.iter().find(|path| Path::new(path).exists());
    let Some(path) = path else {
        skip(&format!("logins with {}: not installed", shell.name));
        return None;
    };
    // The command of a session takes the place of the login's shell, as the login's entry in /etc/passwd would.
    let start = shell.start.replace("@shell@", path);
    let fleet = Fleet::with(1, |_| format!("ForceCommand {start} \"$SSH_ORIGINAL_COMMAND\"\n"))?;
    let file = fleet.home(0).join(shell.profile);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    // A place that `cd releases` leads to by CDPATH, with another project's releases in it.
    let trap = fleet.file("trap");
    fs::create_dir_all(trap.join("releases/20260801T000100-aaaaaaa")).unwrap();
    fs::create_dir_all(trap.join("app")).unwrap();
    fs::write(trap.join("env"), "echo evil; exit 99\n").unwrap();
    fs::write(file, profile.replace("@trap@", &trap.display().to_string()) + "\n").unwrap();
    Some(fleet)
}

/// Everything that a deployer does on a host.
fn session(fleet: &Fleet, what: &str) {
    let mut p = project(fleet, 1, "command sh current/restart|true|true|cat service.log\nkeep 2\n");
    p.change("include www\n", "include www\ninclude restart\n");
    // It leaves a child that holds its output.
    let restart = "kill $(cat pid) 2> /dev/null; sleep 60 & echo $! > pid; echo restarted; echo to stderr >&2\n";
    p.write("restart", restart);
    p.write("www/large", &crate::ci::faults::noise(200_000));
    let ok = |ran: Ran| {
        assert_eq!(ran.code, 0, "{what}: `{}`\n{}\n{}", ran.line, ran.stdout, ran.stderr);
        ran
    };
    let run = |p: &Project, line: &str| ok(p.run(line));
    run(&p, "status dev");
    for text in ["1", "2", "3", "4"] {
        p.release(text);
        let ran = run(&p, "deploy dev");
        assert_eq!(live(fleet, 0), text, "{what}: {}", ran.stderr);
        if text == "3" {
            assert!(ran.stderr.contains("bytes sent of"), "{what}: {}", ran.stderr);
        }
    }
    run(&p, "rollback dev");
    assert_eq!(live(fleet, 0), "3", "{what}");
    run(&p, "verify @dev");
    let exec = run(&p, "exec dev -- sh -c 'printf \"a  b\\n\\n\"; echo error >&2; test -z \"$CDPATH\"'");
    assert_eq!(exec.stdout, "a  b\n\n", "{what}");
    assert!(exec.stderr.contains("error"), "{what}: {}", exec.stderr);
    assert_eq!(p.run("exec dev -- sh -c 'exit 7'").code, 1, "{what}");
    fs::write(fleet.srv(0).join("app/service.log"), "one\n\ntwo\n").unwrap();
    assert_eq!(run(&p, "logs dev").stdout, "one\n\ntwo\n", "{what}");
    run(&p, "prune dev");
    assert!(run(&p, "status dev").stdout.contains("live"), "{what}");
    run(&p, "history dev");
    let another = fleet.file("trap/releases/20260801T000100-aaaaaaa");
    assert!(another.exists() || !fleet.file("trap").exists(), "{what}: another project is left alone");
    let child = fs::read_to_string(fleet.srv(0).join("app/pid")).unwrap_or_default();
    let ended = std::process::Command::new("kill").arg(child.trim()).status().unwrap();
    assert!(ended.success(), "{what}: the child of the restart runs on");
}

/// The text of a profile for a shell.
fn text(profile: &Profile, shell: &Shell) -> &'static str {
    match shell.name {
        "csh" => profile.csh,
        "fish" => profile.fish,
        _ => profile.sh,
    }
}

fn all(shell: &Shell) {
    for profile in PROFILES {
        if let Some(fleet) = host(shell, text(profile, shell)) {
            session(&fleet, &format!("{} that {}", shell.name, profile.name));
        }
    }
}

/// One profile of each shell, and each profile of one shell at some commit.
#[test]
fn sampled_hostile_logins_change_nothing() {
    for shell in SHELLS {
        let count = u32::try_from(PROFILES.len()).unwrap();
        for n in crate::sample::draw(&format!("logins with {}", shell.name), count, 1) {
            let profile = &PROFILES[n as usize - 1];
            if let Some(fleet) = host(shell, text(profile, shell)) {
                session(&fleet, &format!("{} that {}", shell.name, profile.name));
            }
        }
    }
}

/// A host with `BusyBox` alone: Debian's is built without `tar -T`.
#[test]
fn deploy_to_busybox_host_sends_only_changes() {
    let Some(busybox) = SHELLS[4].paths.iter().find(|path| Path::new(path).exists()) else {
        return skip("a host with BusyBox alone: busybox is not installed");
    };
    let Some(fleet) = Fleet::with_vars(1, "PATH=@dir@/applets") else { return };
    fs::create_dir(fleet.file("applets")).unwrap();
    let installed = std::process::Command::new(busybox).args(["--install", "-s"]).arg(fleet.file("applets")).status();
    assert!(installed.unwrap().success());
    session(&fleet, "a host with BusyBox alone");
    let mut p = project(&fleet, 1, "");
    p.change(&fleet.target(0, "app"), &fleet.target(0, "other"));
    p.run("doctor dev").ok().stdout_lacks("releases are sent whole").stdout_has("changes (changed");
    let noise = crate::ci::faults::noise(1 << 20);
    p.write("www/noise", &noise);
    p.write("www/a name of 'two' lines", &noise[..300_000]);
    p.release("5");
    p.run("deploy dev").ok();
    p.write("www/noise", &format!("{noise}more"));
    p.release("6");
    p.run("deploy dev").ok().stderr_has("files are those of").stderr_lacks(", and most of");
    p.run("verify @dev").ok();
    // With zstd beside it, its tar still knows gzip alone; patches are files in that archive.
    if let Some(zstd) = ["/usr/bin/zstd", "/bin/zstd"].into_iter().find(|path| Path::new(path).exists()) {
        std::os::unix::fs::symlink(zstd, fleet.file("applets/zstd")).unwrap();
        p.run("doctor dev").ok().stdout_lacks("changes (changed");
        p.write("www/noise", &format!("{noise}much more"));
        p.release("7");
        p.run("deploy dev").ok().stderr_has(", and most of 1 more").stderr_lacks("sending the whole release");
        p.run("verify @dev").ok();
    }
    // A host whose xargs takes no list of names with zero bytes is sent all.
    let xargs = fleet.file("applets/xargs");
    fs::remove_file(&xargs).unwrap();
    p.run("doctor dev").ok().stdout_has("releases are sent whole").stdout_has("apt-get install findutils");
    p.write("www/noise", &format!("{noise}more and more"));
    p.release("8");
    p.run("deploy dev").ok().stderr_has("sending the whole release");
    p.run("verify @dev").ok();
}

/// What an app or a command prints is its own, also where it looks like the protocol of this or of an earlier version.
#[test]
fn output_that_looks_like_the_protocol_is_output() {
    let Some(fleet) = Fleet::start(1) else { return };
    let fake = "gangplank: ready\ngangplank: part 0\ngangplank: part 7\ngangplank: done 3\nroot\nentries\n\ngangplank-0 end 9\n";
    for target in [fleet.target(0, "app"), "file:srv/dev".to_owned()] {
        let mut p = Project::new();
        p.change("include www\n", "include www\ninclude fake\ninclude show\n");
        let commands = "command sh current/show|true|sh current/show|cat current/fake\nhealthy sh show\n";
        p.change("target file:srv/dev\n", &format!("target {target}\n{commands}"));
        p.write("show", "cat ${0%show}fake; cat ${0%show}fake >&2; true\n");
        p.var("PATH", &fleet.path());
        p.write("fake", fake);
        for release in ["1", "2"] {
            let id = p.release(release);
            p.run("deploy dev").ok().stdout_is(&format!("dev: {id} is live\n"));
        }
        p.run("rollback dev").ok();
        p.run("logs dev").ok().stdout_is(fake);
        p.run("exec dev -- cat fake").ok().stdout_is(fake);
        p.run("exec dev -- sh -c 'cat fake; exit 5'").code(1).stderr_has("exit code 5");
        p.run("status dev").ok().stdout_has("live");
    }
}

/// What a profile takes from stdin is never run, and nothing else is run in its place.
#[test]
fn profile_that_reads_stdin_is_reported_and_nothing_runs() {
    for shell in SHELLS {
        let reads = match shell.name {
            "csh" => "set line = \"$<\"",
            "fish" => "read line",
            _ => "read -r line; echo \"got $line\"",
        };
        let Some(fleet) = host(shell, reads) else { continue };
        let p = project(&fleet, 1, "");
        p.release("1");
        p.run("deploy dev").fails(4, "consumed the script before the shell", "put `case $- in *i*)");
        let left: Vec<_> = fs::read_dir(fleet.srv(0)).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn output_of_a_profile_is_shown_with_v_alone() {
    let Some(fleet) = host(&SHELLS[0], "echo 'Welcome! You have mail.'; trap 'echo bye' EXIT") else { return };
    let p = project(&fleet, 1, "");
    assert!(!p.run("status dev").ok().stderr.contains("Welcome"));
    p.run("status dev -v").ok().stderr_has("ignored its output `Welcome! You have mail.");
}

/// What a profile prints without end is not read without end.
#[test]
fn profile_that_prints_without_end_is_reported() {
    // The shell that stays open, or only the commands beside it.
    for profile in ["yes", "case $SSH_ORIGINAL_COMMAND in *'while IFS'*) ;; *) yes ;; esac"] {
        let Some(fleet) = host(&SHELLS[0], profile) else { return };
        let p = project(&fleet, 1, "");
        p.release("1");
        p.run("deploy dev").fails(4, "the login prints without end", "check the login's profile");
    }
}

/// Neither a command nor its end waits for what a profile leaves in the background.
#[test]
fn profile_that_leaves_a_process_delays_nothing() {
    let Some(fleet) = host(&SHELLS[0], "sleep 60 & echo $! >> \"$HOME/children\"") else { return };
    let p = project(&fleet, 1, "");
    p.release("1");
    p.run("deploy dev").ok();
    p.run("exec dev -- echo hi").ok().stdout_is("hi\n");
    // They run on, and no ssh of ours waits for them.
    let children = fs::read_to_string(fleet.home(0).join("children")).unwrap();
    let ended = std::process::Command::new("kill").args(children.split_whitespace()).status().unwrap();
    assert!(ended.success(), "all of them were still there: {children}");
}

/// Commands of a project run exactly as `sh -c` does: what is unset is empty, and what fails does not end them.
#[test]
fn commands_of_a_project_run_as_by_sh_here_and_over_ssh() {
    let Some(fleet) = Fleet::start(1) else { return };
    let odd = "false; test -z \"$UNSET_THING\" && test -z \"$LC_ALL\"";
    for target in [fleet.target(0, "app"), "file:srv/dev".to_owned()] {
        let mut p = Project::new();
        p.change(
            "target file:srv/dev\n",
            &format!("target {target}\nhealthy {odd}\npatience 5000|50|1\ncommand {odd}|{odd}|{odd}|{odd}; echo log\n"),
        );
        p.var("PATH", &fleet.path());
        for release in ["1", "2"] {
            p.release(release);
            p.run("deploy dev").ok();
        }
        p.run("status dev").ok().stdout_has("live");
        p.run("logs dev").ok().stdout_has("log");
        p.run("rollback dev").ok();
    }
}

#[test]
#[ignore = "group logins"]
fn bash_with_any_profile() {
    all(&SHELLS[0]);
}

#[test]
#[ignore = "group logins"]
fn dash_with_any_profile() {
    all(&SHELLS[1]);
}

#[test]
#[ignore = "group logins"]
fn fish_with_any_profile() {
    all(&SHELLS[2]);
}

#[test]
#[ignore = "group logins"]
fn csh_with_any_profile() {
    all(&SHELLS[3]);
}

#[test]
#[ignore = "group logins"]
fn busybox_with_any_profile() {
    all(&SHELLS[4]);
}
