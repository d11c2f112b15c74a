//! What docs/extending.md shows: each diff is applied to a copy of this workspace, compiled and put to work.

use crate::project::{Project, free_port, root, test_app};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Lines that a diff may have: more are a program, and not an extension.
const LINES_MAX: usize = 60;

/// The diff under a heading of the guide.
fn diff(heading: &str) -> String {
    let guide = fs::read_to_string(root().join("docs/extending.md")).unwrap();
    let section = guide.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no `{heading}`"));
    let section = section.split("\n## ").next().unwrap();
    let diff = section.split("```diff\n").nth(1).unwrap().split("```").next().unwrap();
    let lines = diff.lines().count();
    assert!(lines < LINES_MAX, "{heading}: {lines} lines");
    diff.to_owned()
}

/// A file that is written only when it is not the same already, so that cargo sees what changed.
fn write(path: &Path, text: &[u8]) {
    if fs::read(path).ok().as_deref() != Some(text) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// The xtask with a diff, compiled. `place` takes the place of the path that the guide has for something of its own.
fn extended(heading: &str, place: (&str, &str)) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("extending");
    let _ = fs::remove_dir_all(copy.join("xtask/src"));
    // What is not committed yet counts, too.
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]);
    let listed = list.args(["app", "xtask", "Cargo.*", ".gitignore"]).current_dir(root()).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    for file in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        // A bin of its own name does not take the place of ours, so that both share what is compiled of dependencies.
        let text = fs::read(root().join(file)).unwrap();
        if file != "xtask/Cargo.toml" {
            write(&copy.join(file), &text);
            continue;
        }
        let manifest = String::from_utf8(text).unwrap();
        let (before, bins) = manifest.split_once("[[bin]]\n").expect("a [[bin]]");
        let lints = bins.split("[lints]").nth(1).expect("[lints]");
        let before = before.replace("default-run = \"xtask\"\n", "");
        let bin = "[[bin]]\nname = \"xtask-extended\"\npath = \"src/main.rs\"\n";
        write(&copy.join(file), format!("{before}{bin}\n[lints]{lints}").as_bytes());
    }
    fs::write(copy.join("diff"), diff(heading)).unwrap();
    // Without a repository around it, `git apply` takes paths as they are.
    let mut git = Command::new("git");
    git.args(["apply", "diff"]).current_dir(&copy).env("GIT_CEILING_DIRECTORIES", copy.parent().unwrap());
    let applied = git.output().unwrap();
    assert!(applied.status.success(), "{heading}: {}", String::from_utf8_lossy(&applied.stderr));
    let main = fs::read_to_string(copy.join("xtask/src/main.rs")).unwrap();
    assert!(main.contains("main_with"), "it was not applied");
    fs::write(copy.join("xtask/src/main.rs"), main.replace(place.0, place.1)).unwrap();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--offline", "--package", "xtask", "--bin", "xtask-extended", "--target-dir"]);
    let built = build.arg(target).current_dir(&copy).env("RUSTFLAGS", "").output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success() && !said.contains("warning"), "{heading}: {said}");
    // The next one is built over it.
    let program = target.join(format!("tmp/xtask-extended-{}", heading.replace(' ', "-")));
    let aside = program.with_extension(std::process::id().to_string());
    fs::copy(target.join("debug/xtask-extended"), &aside).unwrap();
    fs::rename(&aside, &program).unwrap();
    program
}

/// What an extended xtask answers in a project.
fn run(p: &Project, program: &Path, line: &str) -> (i32, String, String) {
    let inner = p.command("");
    let mut command = Command::new(program);
    command.args(line.split(' ')).current_dir(p.path("")).env_clear().stdin(Stdio::null());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn store_of_the_guide_puts_and_fetches() {
    let mut p = Project::new();
    p.add("app app\n");
    let id = p.release("1");
    let share = p.path("store/share");
    let program = extended("A store", ("/mnt/nas/releases", share.to_str().unwrap()));
    let url = format!("share:{}", share.display());
    let run = |line: &str| run(&p, &program, line);
    let (code, _, said) = run(&format!("put --store {url}"));
    assert!(code == 1 && said.contains("is not mounted here") && said.contains("hint: mount it"), "{said}");
    assert!(run("put").2.contains("is not mounted here"));
    p.write("store/share/.share", "");
    let (_, said, err) = run("put");
    assert_eq!(said, format!("{url}: {id} stored\n"), "{err}");
    let (code, _, said) = run("put --store tape:1");
    assert!(code == 2 && said.contains("is not a store URL"), "{said}");
    fs::remove_dir_all(p.path("target/releases")).unwrap();
    let (code, _, said) = run("fetch");
    assert!(code == 0 && said.contains(&format!("fetched {id} from {url}")), "{said}");
    assert!(run("releases").1.contains(&id));
}

#[test]
fn target_of_the_guide_deploys_and_rolls_back() {
    let port = free_port();
    let mut p = Project::bare("include bin/app\napp app\nenv dev\ntarget file:srv/other\n");
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    fs::create_dir(p.path("bin")).unwrap();
    fs::copy(test_app(), p.path("bin/app")).unwrap();
    // What `docker exec -i NAME WORDS` does, without a container.
    p.write_program(
        "programs/docker",
        "#!/bin/sh\n[ \"$1 $2 $3\" = 'exec -i web1' ] || { echo no such container >&2; exit 1; }\nshift 3\nexec env -i PATH=\"$PATH\" \"$@\"\n",
    );
    p.var("PATH", &format!("{}:{}", p.path("programs").display(), std::env::var("PATH").unwrap()));
    p.var("DEV_PORT", &port.to_string());
    let root = p.path("srv/dev");
    let program = extended("A target", ("docker:web1/srv/app", &format!("docker:web1{}", root.display())));
    let run = |line: &str| run(&p, &program, line);
    let v1 = p.release("1");
    let (code, said, err) = run("deploy dev");
    assert_eq!((code, said.as_str()), (0, &*format!("dev: {v1} is live\n")), "{err}");
    assert_eq!(p.current("srv/dev"), Some(v1.clone()));
    let v2 = p.release("2");
    assert_eq!(run("deploy dev").0, 0);
    assert_eq!(p.current("srv/dev"), Some(v2.clone()));
    assert_eq!(run("rollback dev").1, format!("dev: rolled back to {v1}\n"));
    let (code, said, _) = run("exec dev -- sh -c pwd;\texit\t3");
    assert!(code == 1 && said.contains("srv/dev"), "{code} {said}");
    assert!(run("status dev").1.contains("running"));
    assert!(run("lock dev --json").1.contains("\"held_by\": null"));
    p.write_program("programs/docker", "#!/bin/sh\necho no such container >&2\nexit 1\n");
    let (code, _, said) = run("history dev");
    assert!(
        code == 4 && said.contains("exit code 1: no such container") && said.contains("check that it can be reached"),
        "{said}"
    );
}

#[test]
fn command_of_the_guide_answers_as_text_and_json() {
    let mut p = Project::new();
    p.add("app app\n");
    p.change("target file:srv/dev", "target file:target/deploy/dev");
    let id = p.release("1");
    p.run("deploy dev").ok();
    p.commit("2");
    let program = extended("A command", ("", ""));
    let run = |line: &str| run(&p, &program, line);
    assert!(run("--help").1.contains("  whereis      Say on which hosts a commit is live\n"));
    assert!(run("whereis --help").1.contains("cargo xtask whereis [OPTIONS] [WORDS]..."));
    let answer = format!("dev: file:target/deploy/dev runs {id}\n");
    assert_eq!(run("whereis HEAD~1").1, answer);
    assert_eq!(run("whereis HEAD").1, "HEAD is not live anywhere\n");
    let json: serde_json::Value = serde_json::from_str(&run("whereis HEAD~1 --json").1).unwrap();
    assert_eq!(json, serde_json::json!({ "text": answer }));
    let (code, _, said) = run("whereis");
    assert!(code == 2 && said.contains("hint: cargo xtask whereis HEAD"), "{said}");
    assert_eq!(run("whereis HEAD -n").0, 2, "it cannot only say what it would do");
    assert!(run("complete -- where").1.starts_with("whereis\tSay on which"));
}

#[test]
fn build_step_of_the_guide_runs_and_its_failure_fails_the_build() {
    let mut p = Project::bare("");
    p.write("Cargo.toml", "[workspace]\nmembers = [\"app\"]\nresolver = \"3\"\n");
    p.write("app/Cargo.toml", "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    p.write("app/src/main.rs", "fn main() {}\n");
    p.write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n");
    p.write("app/static/index.html", "<link rel=stylesheet href=site.css>\n");
    p.write("web/site.css", "b {}\n");
    p.write_program(
        "programs/npm",
        "#!/bin/sh\n[ \"$*\" = '--prefix web run build' ] && cp web/site.css app/static/\n",
    );
    p.write(".gitignore", "/target\n/settings\n/programs\n/app/static/site.css\n");
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    p.commit("1");
    p.var("PATH", &format!("{}:{}", p.path("programs").display(), std::env::var("PATH").unwrap()));
    let program = extended("A step of a build", ("", ""));
    let run = |line: &str| run(&p, &program, line);
    let (code, said, err) = run("build");
    assert!(
        code == 0 && said.contains("3 files") && !said.contains("dirty") && err.contains("step site"),
        "{said}{err}"
    );
    fs::remove_file(p.path("web/site.css")).unwrap();
    let (code, _, err) = run("build");
    assert!(code == 1 && err.contains("error: `npm --prefix web run build` failed with exit code 1"), "{err}");
}
