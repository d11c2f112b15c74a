//! Wrong input, each with its message, its hint and its exit code, and nothing lost or half done after it.

use crate::project::{Project, Ran};
use crate::record::skip;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

fn mode(p: &Project, path: &str, mode: u32) {
    fs::set_permissions(p.path(path), PermissionsExt::from_mode(mode)).unwrap();
}

/// Root may read and write everything, so permissions are tested as another user.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

#[test]
fn build_without_repository_commit_or_valid_index_is_refused() {
    let p = Project::bare("include www\nenv dev\ntarget file:srv/dev\n");
    p.run("build").fails(2, "is not a git checkout", "git init");
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    p.run("build").fails(2, "has no commit yet", "git commit");
    p.commit("1");
    p.run("build").ok();
    fs::write(p.path(".git/index"), "no index").unwrap();
    p.run("build").fails(1, "index file smaller than expected", "so that `git status` works");
}

#[test]
fn status_outside_any_project_is_refused() {
    let elsewhere = crate::record::tempdir();
    let p = Project::new();
    let output = p.command("status").current_dir(elsewhere.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("no Cargo workspace at or above") && said.contains("hint: change to the project"), "{said}");
}

#[test]
fn build_and_deploy_from_detached_head_or_shallow_clone_work() {
    let mut p = Project::new();
    p.change("store file:store\n", "store file:store\nstore circleci:workspace\n");
    let v1 = p.commit("1");
    let v2 = p.commit("2");
    p.git(&["checkout", "--quiet", "--detach", "HEAD^"]);
    p.run("build").ok().stdout_has(&v1);
    p.run("deploy dev").ok();
    p.run("ci run").fails(2, "HEAD is detached", "--branch main");
    p.git(&["checkout", "--quiet", "main"]);
    let clone = p.path("target/shallow");
    let url = format!("file://{}", p.path("").display());
    p.git(&["clone", "--quiet", "--depth", "1", &url, clone.to_str().unwrap()]);
    let built = p.command("build").current_dir(&clone).output().unwrap();
    assert!(built.status.success() && String::from_utf8_lossy(&built.stdout).contains(&v2));
    // The clone does not hold the older commit; its time still says that going back there is going backwards.
    let mut deploy = p.command("deploy dev");
    assert!(deploy.current_dir(&clone).env("GANGPLANK_HOME", p.path("")).status().unwrap().success());
    p.run(&format!("deploy dev {v1}")).fails(8, "is older than", "rollback dev");
}

#[test]
fn deploy_of_dirty_release_is_refused_where_approval_is_needed() {
    let p = Project::new();
    p.commit("1");
    p.write("www/index.html", "changed\n");
    let ran = p.run("build").ok().stdout_has("-dirty-");
    let id = ran.stdout.split(' ').next().unwrap().to_owned();
    p.run("build").ok().stdout_has("up to date");
    p.run("deploy dev").ok().stdout_has(&id);
    p.run("deploy prod --yes").fails(2, "built from uncommitted changes", "commit, build, and deploy again");
    p.run("promote dev prod --yes").fails(2, "built from uncommitted changes", "commit");
    assert_eq!(p.current("srv/prod"), None);
    // Known before anything is fetched: a bundle that cannot be read makes no difference.
    let dir = format!("target/releases/{id}");
    let bundle = fs::read_dir(p.path(&dir)).unwrap().map(|entry| entry.unwrap().path());
    let bundle = bundle.into_iter().find(|path| path.to_string_lossy().ends_with(".tar.gz")).unwrap();
    fs::write(&bundle, "no bundle").unwrap();
    p.run("deploy prod --yes").fails(2, "built from uncommitted changes", "commit, build, and deploy again");
    p.run("promote dev prod --yes").fails(2, "built from uncommitted changes", "commit");
    p.write("www/index.html", "changed again\n");
    let other = p.run("build").ok().stdout;
    assert!(!other.contains(&id), "other files, other name: {other}");
}

#[test]
fn build_with_invalid_package_or_include_is_refused() {
    let mut p = Project::new();
    p.change("include www\n", "include nothing/*.css\n");
    p.run("build").fails(2, "include `nothing/*.css` matches no file", "check the spelling");
    p.change("include nothing/*.css\n", "include ../secrets\n");
    p.run("build").fails(2, "include `../secrets` leaves the workspace", "below the workspace root");
    p.change("include ../secrets\n", "include /etc/passwd\n");
    p.run("build").fails(2, "leaves the workspace", "below the workspace root");
    p.change("include /etc/passwd\n", "include www/[\n");
    p.run("build").fails(2, "is not a glob", "use `*`");
    p.change("include www/[\n", "package missing\n");
    p.write("one/Cargo.toml", "[package]\nname = \"one\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    p.write("one/src/lib.rs", "");
    p.write("Cargo.toml", "[workspace]\nmembers = [\"one\"]\nresolver = \"3\"\n");
    p.write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"one\"\nversion = \"0.1.0\"\n");
    p.run("build")
        .fails(1, "cargo could not build missing", "cargo build --release")
        .stderr_has("did not match any packages");
    p.change("package missing\n", "package one\n");
    p.run("build").fails(2, "package `one` has no binary", "src/main.rs");
}

#[test]
fn build_keeps_odd_file_names_and_refuses_newlines_and_not_utf8() {
    let p = Project::new();
    for name in ["with space", "quote'\"s", "back\\slash", "ünïcode", "-dash", "$(x)`y`;*?"] {
        p.write(&format!("www/{name}"), name);
    }
    p.release("names");
    p.run("verify latest").ok().stdout_has("7 files");
    p.run("deploy dev").ok();
    assert_eq!(p.read("srv/dev/current/www/quote'\"s"), "quote'\"s");
    assert_eq!(p.read("srv/dev/current/www/back\\slash"), "back\\slash");
    p.write("www/new\nline", "");
    p.commit("newline");
    p.run("build").fails(2, "control character", "rename the file");
    fs::remove_file(p.path("www/new\nline")).unwrap();
    fs::write(p.path("www").join(OsStr::from_bytes(b"\xff\xfe")), "").unwrap();
    p.run("build").fails(2, "not UTF-8", "rename the file");
}

#[test]
fn build_with_link_that_leads_out_of_the_bundle_is_refused() {
    let p = Project::new();
    for (link, to, reason) in [
        ("www/gone", "missing", "points to a file that is not in the bundle"),
        ("www/out", "../../outside", "leaves the bundle"),
        ("www/abs", "/etc/passwd", "leaves the bundle"),
        ("www/loop", "loop", "is part of a loop"),
    ] {
        symlink(to, p.path(link)).unwrap();
        p.run("build").fails(2, reason, "remove the link");
        fs::remove_file(p.path(link)).unwrap();
    }
    symlink("index.html", p.path("www/good")).unwrap();
    symlink("../www", p.path("www/dir")).unwrap();
    p.release("links");
    p.run("deploy dev").ok();
    assert_eq!(fs::read_link(p.path("srv/dev/current/www/good")).unwrap(), OsStr::new("index.html"));
}

#[test]
fn build_with_unreadable_file_fails_and_names_it() {
    let p = Project::new();
    let _socket = std::os::unix::net::UnixListener::bind(p.path("www/socket")).unwrap();
    p.run("build").fails(2, "neither a file, a directory nor a link", "remove it");
    fs::remove_file(p.path("www/socket")).unwrap();
    mode(&p, "www/index.html", 0o000);
    let ran = if is_root() { as_unprivileged(&p, "build") } else { Some(p.run("build")) };
    match ran {
        Some(ran) => drop(ran.fails(1, "index.html: Permission denied", "make it readable")),
        None => skip("an unreadable file: root can read every file, and setpriv is missing"),
    }
}

/// Runs a command as uid 65534, which then owns the project.
fn as_unprivileged(p: &Project, line: &str) -> Option<Ran> {
    let root = p.path("");
    let chown = Command::new("chown").args(["-R", "65534:65534"]).arg(&root).status().ok()?;
    let inner = p.command(line);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("HOME", "/").current_dir(&root);
    let output = command.output().ok().filter(|_| chown.success())?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().filter(|code| ![126, 127].contains(code))?;
    Some(Ran { line: line.into(), code, stdout: text(output.stdout), stderr: text(output.stderr) })
}

/// Runs `test` with a file system of 256 KiB mounted at `at`.
fn with_tiny_disk(p: &Project, at: &str, test: impl FnOnce()) {
    fs::create_dir_all(p.path(at)).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(p.path(at)).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skip("a full disk: cannot mount a small tmpfs here");
    }
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
    let unmounted = Command::new("umount").arg("--lazy").arg(p.path(at)).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    done.unwrap();
}

fn noise(p: &Project, path: &str, bytes: u32) {
    let mut x: u32 = 1;
    let noise: Vec<u8> = (0..bytes)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x.to_le_bytes()[3]
        })
        .collect();
    fs::write(p.path(path), noise).unwrap();
}

#[test]
fn build_on_full_disk_fails_and_leaves_nothing() {
    let p = Project::new();
    noise(&p, "www/noise", 600_000);
    p.commit("noise");
    with_tiny_disk(&p, "target", || {
        p.run("build").fails(1, "No space left on device", "df -h");
        let left: Vec<_> =
            fs::read_dir(p.path("target/releases")).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn deploy_put_and_unpack_on_full_disk_fail_and_change_nothing() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nhealthy true\npatience 0|1|1\n");
    p.release("1");
    with_tiny_disk(&p, "srv", || {
        let v1 = p.run("deploy dev").ok().stdout;
        noise(&p, "www/noise", 600_000);
        p.release("noise");
        p.run("deploy dev").fails(1, "nothing was switched", "make room");
        assert!(v1.contains(&p.current("srv/dev").unwrap()), "the old release is still live");
        fs::remove_file(p.path("www/noise")).unwrap();
        p.release("small again");
        p.run("deploy dev").ok();
        assert_eq!(p.live("srv/dev"), "small again");
    });
    with_tiny_disk(&p, "store", || {
        noise(&p, "www/noise", 600_000);
        p.release("noise for the store");
        p.run("put").fails(1, "No space left on device", "free space");
        assert_eq!(fs::read_dir(p.path("store")).unwrap().count(), 0);
    });
    with_tiny_disk(&p, "out", || {
        p.run("verify HEAD --unpack out/here").fails(1, "No space left on device", "free space");
        assert_eq!(fs::read_dir(p.path("out")).unwrap().count(), 0);
    });
}

#[test]
fn put_to_unwritable_store_fails() {
    let p = Project::new();
    p.release("1");
    p.write("store", "a file in its place");
    p.run("put").fails(1, "file:store: cannot write", "permissions");
    let mounted = fs::remove_file(p.path("store")).and_then(|()| fs::create_dir(p.path("store")));
    mounted.unwrap();
    let read_only = Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "tmpfs"]).arg(p.path("store")).output();
    if !read_only.is_ok_and(|output| output.status.success()) {
        return skip("a read-only store: cannot mount here");
    }
    let ran = p.run("put");
    assert!(Command::new("umount").arg(p.path("store")).status().unwrap().success());
    ran.fails(1, "Read-only file system", "permissions");
}

#[test]
fn verify_and_deploy_of_damaged_release_are_refused() {
    let p = Project::new();
    let id = p.release("1");
    let dir = format!("target/releases/{id}");
    let bundle = format!("{dir}/shop-{id}.tar.gz");
    let original = |file: &str| fs::read(p.path(file)).unwrap();
    let (gz, manifest, sums) =
        (original(&bundle), original(&format!("{dir}/manifest.json")), original(&format!("{dir}/SHA256SUMS")));
    let check = |what: &str, hint: &str| {
        p.run(&format!("verify {dir}")).fails(7, what, hint);
        p.run(&format!("deploy dev {id}")).code(7);
        assert_eq!(p.current("srv/dev"), None);
        fs::write(p.path(&bundle), &gz).unwrap();
        fs::write(p.path(&format!("{dir}/manifest.json")), &manifest).unwrap();
        fs::write(p.path(&format!("{dir}/SHA256SUMS")), &sums).unwrap();
        p.run(&format!("verify {dir}")).ok();
    };
    for at in [20, gz.len() / 2, gz.len() - 3] {
        let mut bad = gz.clone();
        bad[at] ^= 0x10;
        fs::write(p.path(&bundle), bad).unwrap();
        check(&format!("shop-{id}.tar.gz"), "do not deploy");
    }
    fs::write(p.path(&bundle), &gz[..gz.len() - 1]).unwrap();
    check("bytes, the manifest says", "do not deploy");
    fs::remove_file(p.path(&bundle)).unwrap();
    check("missing", "do not deploy");
    let text = String::from_utf8(manifest.clone()).unwrap();
    p.write(&format!("{dir}/manifest.json"), &text.replace("\"schema\": 1", "\"schema\": 2"));
    check("manifest schema 2", "build it again");
    p.write(&format!("{dir}/manifest.json"), &text[..text.len() / 2]);
    check("not a manifest", "build or fetch it again");
    p.write(&format!("{dir}/manifest.json"), &text.replace("\"branch\": \"main\"", "\"branch\": \"evil\""));
    check("manifest.json: was changed after it was sealed", "do not deploy");
    p.write(&format!("{dir}/SHA256SUMS"), "");
    check("manifest.json", "do not deploy");
    p.write(&format!("{dir}/extra"), "");
    p.run(&format!("verify {dir}")).fails(7, "extra: is not part of the release", "do not deploy");
    fs::remove_file(p.path(&format!("{dir}/extra"))).unwrap();
    fs::remove_file(p.path(&format!("{dir}/manifest.json"))).unwrap();
    p.run(&format!("verify {dir}")).fails(5, "manifest.json is missing", "cargo xtask build");
}

#[test]
fn host_that_was_added_gets_what_the_others_run() {
    let mut p = Project::new();
    let one = p.release("1");
    p.run("deploy dev").ok();
    p.change("target file:srv/dev\n", "target file:srv/dev\ntarget file:srv/dev2\n");
    p.release("2");
    let hint = format!("`cargo xtask deploy dev {one}` deploys what its other hosts run");
    p.run("deploy dev @dev").fails(5, "file:srv/dev2 runs no healthy release", &hint);
    p.run(&format!("deploy dev {one}")).ok();
    assert_eq!(p.live("srv/dev2"), "1");
    p.run("verify @dev").ok();
}

#[test]
fn deploy_promote_and_rollback_of_missing_release_are_refused() {
    let p = Project::new();
    p.run("deploy dev").fails(5, "was not built yet", "cargo xtask build");
    p.run("deploy dev latest").fails(5, "no release yet", "cargo xtask build");
    p.release("1");
    p.run("deploy dev 20200101T000000-0000000").fails(5, "20200101T000000-0000000", "cargo xtask releases");
    p.run("deploy dev abcd").fails(5, "no release of commit abcd", "cargo xtask");
    p.run("deploy dev build:7").fails(5, "no store has a release of job 7", "cargo xtask releases");
    p.run("deploy dev @prod").fails(5, "runs no healthy release", "cargo xtask status prod");
    p.run("deploy stage").fails(2, "no env `stage`", "dev, prod");
    p.run("promote dev prod --yes").fails(5, "runs no healthy release", "cargo xtask deploy dev");
    p.run("rollback dev").fails(5, "nothing was ever deployed", "rollback dev RELEASE");
    p.run("deploy dev nope!")
        .code(2)
        .stderr_has("does not name a release")
        .stderr_has("hint: use an id, 4 to 40 digits");
}

#[test]
fn deploy_to_target_made_by_hand_is_refused() {
    let p = Project::new();
    p.release("1");
    p.write("srv/dev", "a file");
    p.run("deploy dev").fails(1, "is not a directory", "another target");
    assert_eq!(p.read("srv/dev"), "a file");
    fs::remove_file(p.path("srv/dev")).unwrap();
    p.write("srv/dev/current/index.html", "by hand");
    p.run("deploy dev").fails(1, "`current` is not a symbolic link", "mv current current.by-hand");
    p.run("plan dev").fails(1, "`current` is not a symbolic link", "mv current current.by-hand");
    assert_eq!(p.read("srv/dev/current/index.html"), "by hand");
    p.run("status dev").ok().stdout_has("`current` is not a link");
    fs::remove_dir_all(p.path("srv/dev/current")).unwrap();
    symlink("/var/www", p.path("srv/dev/current")).unwrap();
    p.run("deploy dev").fails(1, "points to `/var/www`", "--take-over");
    fs::remove_file(p.path("srv/dev/current")).unwrap();
    p.run("deploy dev").ok();
}

#[test]
fn deploy_after_torn_history_line_ignores_it_and_goes_on() {
    let p = Project::new();
    let v1 = p.release("1");
    p.run("deploy dev").ok();
    let v2 = p.release("2");
    p.run("deploy dev").ok();
    let path = p.path("srv/dev/history.jsonl");
    let history = fs::read_to_string(&path).unwrap();
    // The record that v2 is live is torn, as by a crash.
    fs::write(&path, &history[..history.len() - 30]).unwrap();
    p.run("status dev").ok().stdout_has("unconfirmed").stdout_has("did not finish");
    p.run("deploy dev").ok().stderr_has("torn line").stdout_has(&format!("{v2} is live"));
    p.run("rollback dev").ok().stdout_has(&v1);
    p.run("history dev").ok().stdout_has("torn line");
}

#[test]
fn put_and_deploy_of_other_bytes_under_one_id_are_refused() {
    let mut p = Project::new();
    p.change("include www\n", "include www\ngenerated www/generated\n");
    p.write(".gitignore", "/target\n/store\n/srv\n/settings\n/www/generated\n");
    p.write("www/generated", "once");
    p.release("1");
    p.run("put").ok();
    p.run("put").ok().stdout_has("already has it");
    p.run("deploy dev").ok();
    p.write("www/generated", "twice");
    p.run("build").ok().stderr_has("built before with other bytes, or is damaged");
    p.run("put").fails(7, "`www/generated` differs", "reproducible");
    p.run("deploy dev").fails(7, "with other bytes", "deploy a new commit");
    assert_eq!(p.read("srv/dev/current/www/generated"), "once");
}

#[test]
fn target_or_store_of_unknown_kind_is_refused() {
    let mut p = Project::new();
    p.release("1");
    p.change("target file:srv/dev\n", "target ftp://host/dir\n");
    p.run("deploy dev").fails(2, "`ftp://host/dir` is not a target URL", "file:DIR");
    p.change("store file:store\n", "store s3://bucket/x\n");
    if cfg!(feature = "s3") {
        p.run("put").fails(3, "s3://bucket/x: no credentials", "docs/s3.md");
    } else {
        p.run("put").fails(2, "s3://bucket/x: this xtask was compiled without buckets", "default = [\"s3\"]");
    }
    p.change("target ftp://host/dir\n", "target file:srv/a\ntarget file:srv/a\n");
    p.run("status").fails(2, "has target file:srv/a twice", "xtask/src/main.rs");
    p.change("target file:srv/a\ntarget file:srv/a\n", "target file:srv/prod/\n");
    p.run("status").fails(2, "envs `dev` and `prod` have the same target", "a directory of its own");
}
