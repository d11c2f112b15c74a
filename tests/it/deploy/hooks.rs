//! What a project does of its own around a switch, and what its releases share.

use crate::project::Project;
use std::fs;

/// Two hosts, and hooks that write down that they ran, and where.
fn project() -> Project {
    let mut p = Project::new();
    p.change("include www\n", "include www\ninclude hooks\n");
    p.change(
        "target file:srv/dev\n",
        "target file:srv/dev\ntarget file:srv/dev2\nvar TOKEN=${TOKEN:-none}\nstrategy all\nmax-unavailable 1\n\
         healthy test ! -e www/broken\npatience 300|50|1\n",
    );
    for hook in ["before-first", "before-each", "after-each", "after-first"] {
        p.change("strategy all\n", &format!("strategy all\nhook {hook}\n"));
        let text = format!(
            "live=$(readlink ../../current) || true\necho \"{hook} $1 $TOKEN now ${{live##*/}}\" >> ../../ran\necho said {hook}\n"
        );
        p.write(&format!("hooks/{hook}"), &text);
    }
    p
}

fn ran(p: &Project, host: &str) -> String {
    let path = p.path(&format!("{host}/ran"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text
}

#[test]
fn local_hook_runs_on_this_machine_with_secrets_masked() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nhook local\n");
    p.var("TOKEN", "hush-5e1f9a7c3d");
    let said = p.path("said");
    p.write("hooks/local", &format!("pwd > {0}; echo \"$* $TOKEN\" | tee -a {0}; echo oops >&2\n", said.display()));
    let id = p.release("1");
    let deployed = p.run("deploy dev").ok().stderr_has(&format!("dev file:srv/dev {id} ")).stderr_has("oops");
    assert!(!(deployed.stderr + &deployed.stdout).contains("hush"));
    let root = fs::canonicalize(p.path("")).unwrap();
    let want = format!("{}\ndev file:srv/dev {id} hush-5e1f9a7c3d\n", root.display());
    assert_eq!(fs::read_to_string(&said).unwrap(), want);

    p.write("hooks/local", "exit 3\n");
    p.release("2");
    p.run("deploy dev").fails(1, "exit code 3: no output; so the hook local failed; nothing was switched", "by hand");
    assert_eq!(p.live("srv/dev"), "1");
}

#[test]
fn hooks_run_where_and_when_they_should() {
    let mut p = project();
    p.var("TOKEN", "hush-5e1f9a7c3d");
    let one = p.release("1");
    p.run("plan dev").ok().stdout_has("run the hook before-first").stdout_has("run the hook after-first");
    let deployed = p.run("deploy dev").ok().stderr_has("said before-each");
    let each = |one: &str| format!("before-each dev hush-5e1f9a7c3d now \nafter-each dev hush-5e1f9a7c3d now {one}\n");
    let first =
        format!("before-first dev hush-5e1f9a7c3d now \n{}after-first dev hush-5e1f9a7c3d now {one}\n", each(&one));
    assert_eq!((ran(&p, "srv/dev"), ran(&p, "srv/dev2")), (first, each(&one)));
    assert!(!deployed.stderr.contains("hush"), "{}", deployed.stderr);
    p.run("deploy dev").ok().stdout_has("already runs");
    assert_eq!(ran(&p, "srv/dev"), "", "nothing was switched");

    // Each in its own way keeps a release from going live, or does not.
    let broken = [
        ("before-first", 1, "so the hook before-first failed; nothing was switched", "1"),
        ("before-each", 1, "so the hook before-each failed", "1"),
        ("after-each", 1, "so the hook after-each failed", "1"),
    ];
    for (hook, code, error, live) in broken {
        let before = p.read(&format!("hooks/{hook}"));
        p.write(&format!("hooks/{hook}"), "printf 'no \\033[31mdatabase\\007\\n' >&2; exit 3\n");
        p.release("2");
        p.run("deploy dev")
            .fails(code, error, "deploy again")
            .stderr_has("exit code 3")
            .stderr_has("no \\u{1b}[31mdatabase");
        assert_eq!((p.live("srv/dev"), p.live("srv/dev2")), (live.into(), live.into()), "{hook}");
        p.write(&format!("hooks/{hook}"), &before);
    }
    p.write("hooks/after-first", "exit 3\n");
    p.release("3");
    p.run("deploy dev").ok().stderr_has("so the hook after-first failed; the release is live");
    p.change("include hooks\n", "include hooks\ninclude panic\n");
    p.write("panic", "now\n");
    p.release("4");
    p.run("deploy dev").ok().stderr_has("the hook after-first panicked; the release is live");
    assert_eq!((p.live("srv/dev"), p.live("srv/dev2")), ("4".into(), "4".into()));

    // Killed between the switch and the record that it is live: what comes after is still to be done.
    let history = p.read("srv/dev/history.jsonl");
    let cut: Vec<_> = history.lines().filter(|line| !line.contains("removed")).collect();
    p.write("srv/dev/history.jsonl", &(cut[..cut.len() - 1].join("\n") + "\n"));
    ran(&p, "srv/dev");
    p.run("deploy dev").ok();
    let after = ran(&p, "srv/dev");
    assert!(after.contains("after-each") && !after.contains("before"), "{after}");
    assert!(!p.path("srv/dev/.lock").exists() && !p.path("srv/dev2/.lock").exists());
}

#[test]
fn shared_files_survive_deploy_rollback_and_prune() {
    let mut p = project();
    for hook in ["before-each", "after-each", "after-first"] {
        p.change(&format!("hook {hook}\n"), "");
    }
    // A migration reads what is shared.
    p.write("hooks/before-first", "cat config.toml\n");
    p.change("strategy all\n", "strategy all\nshared data/up loads/\nshared config.toml\n");
    p.release("1");
    p.run("deploy dev").fails(1, "cannot link shared files: shared/config.toml is missing", "create it on the host");
    assert!(p.current("srv/dev").is_none(), "nothing is live");
    for host in ["srv/dev", "srv/dev2"] {
        p.write(&format!("{host}/shared/config.toml"), "colour = \"red\"\n");
    }
    p.run("deploy dev").ok();
    p.write("srv/dev/current/data/up loads/photo", "kept");
    p.release("2");
    p.run("deploy dev").ok();
    assert_eq!(p.read("srv/dev/current/data/up loads/photo"), "kept");
    assert_eq!(p.read("srv/dev2/current/config.toml"), "colour = \"red\"\n");
    p.run("verify @dev").ok();
    p.run("rollback dev").ok();
    p.run("prune dev --keep 2").ok();
    assert_eq!(p.read("srv/dev/shared/data/up loads/photo"), "kept");

    // A release that brings it itself would be hidden behind the link.
    p.write("config.toml", "");
    p.change("include www\n", "include www\ninclude config.toml\n");
    p.release("3");
    p.run("deploy dev").fails(2, "holds config.toml, and dev shares config.toml", "remove it from `include`");
    p.change("include config.toml\n", "");
    p.change("shared config.toml", "shared data");
    p.run("status dev").fails(2, "shares `data/up loads` in `data`", "the outer one");
    p.change("shared data\n", "shared ../etc\n");
    p.run("status dev").fails(2, "shares `../etc`", "inside the release");
}

/// What one host lacks is found out before another is switched.
#[test]
fn deploy_with_shared_file_missing_on_one_host_switches_none() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\ntarget file:srv/two\nshared config.toml\n");
    p.write("srv/dev/shared/config.toml", "");
    p.release("1");
    p.run("deploy dev")
        .fails(1, "shared/config.toml is missing", "create it on the host")
        .stderr_has("nothing was switched");
    assert!(!p.read("srv/dev/history.jsonl").contains("switched"));
}

#[test]
fn rollback_to_release_that_holds_a_now_shared_file_restores_it() {
    let mut p = Project::new();
    p.change("include www\n", "include www\ninclude config.toml\n");
    p.write("config.toml", "own\n");
    p.release("1");
    p.run("deploy dev").ok();
    p.change("include config.toml\n", "");
    p.change("env prod", "shared config.toml\nenv prod");
    p.write("srv/dev/shared/config.toml", "shared\n");
    p.release("2");
    p.run("deploy dev").ok();
    assert_eq!(p.read("srv/dev/current/config.toml"), "shared\n");
    p.run("rollback dev").ok();
    assert_eq!(p.read("srv/dev/current/config.toml"), "own\n");
}

#[test]
fn ctrl_c_between_waves_leaves_unreached_hosts_alone() {
    let p = project();
    let one = p.release("1");
    p.run("deploy dev").ok();
    // The first host is healthy when the signal comes; the second one has not begun.
    p.write(
        "hooks/after-each",
        "until [ -s ../../pid ]; do sleep 0.02; done\nkill -INT \"$(cat ../../pid)\"\nsleep 0.3\n",
    );
    p.release("2");
    let child = p.start("deploy dev --json");
    p.write("srv/dev/pid", &child.id().to_string());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stopped by a signal") && said.contains("1 other host was not switched"), "{said}");
    let reverted: Vec<_> = said.lines().filter(|line| line.contains(r#""event":"reverted""#)).collect();
    assert!(matches!(reverted.as_slice(), [line] if line.contains("file:srv/dev\"")), "{said}");
    for host in ["srv/dev", "srv/dev2"] {
        assert_eq!(p.current(host).as_deref(), Some(one.as_str()), "{host}");
    }
    let history = p.read("srv/dev2/history.jsonl");
    assert!(!history.contains("failed") && !history.contains("restored"), "{history}");
}
