//! Checkouts whose files are not those of the commit, although `git status` is silent.

use crate::project::Project;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

#[test]
fn change_that_git_is_told_not_to_see_makes_a_dirty_release() {
    let mut p = Project::new();
    p.change("env prod\n", "env prod\napproval\n");
    p.commit("1");
    for flag in ["--assume-unchanged", "--skip-worktree"] {
        p.git(&["update-index", flag, "www/index.html"]);
        p.run("build").ok();
        assert!(!p.run("build --json").ok().stdout.contains("dirty"), "{flag}: not changed");
        p.write("www/index.html", "secretly\n");
        assert_eq!(p.git(&["status", "--porcelain"]), "");
        p.run("build").ok().stdout_has("-dirty").stderr_has("www/index.html was changed, and git does not check it");
        p.run("deploy prod --yes").code(2).stderr_has("needs approval");
        p.git(&["update-index", &flag.replace("--", "--no-"), "www/index.html"]);
        p.git(&["checkout", "--", "www/index.html"]);
    }
    // A sparse checkout has fewer files, and that is no change, but for those that are included.
    p.write("other/file", "");
    p.write("www/other", "");
    p.commit("2");
    p.git(&["update-index", "--skip-worktree", "other/file"]);
    fs::remove_file(p.path("other/file")).unwrap();
    assert!(!p.run("build --json").ok().stdout.contains("dirty"));
    p.git(&["update-index", "--skip-worktree", "www/other"]);
    fs::remove_file(p.path("www/other")).unwrap();
    p.run("build").fails(2, "www/other is included, but this sparse checkout omits it", "git sparse-checkout add");
    // A file that was removed behind git's back is a change.
    p.git(&["update-index", "--no-skip-worktree", "www/other"]);
    p.git(&["update-index", "--assume-unchanged", "www/other"]);
    p.run("build").ok().stdout_has("-dirty");
}

#[test]
fn change_in_a_submodule_that_git_is_told_to_ignore_makes_a_dirty_release() {
    let (theme, p) = (Project::new(), Project::new());
    theme.commit("theme");
    add_submodule(&p, &theme);
    p.git(&["config", "-f", ".gitmodules", "submodule.www/theme.ignore", "all"]);
    p.commit("1");
    assert!(!p.run("build --json").ok().stdout.contains("dirty"));
    p.write("www/theme/www/index.html", "changed\n");
    assert_eq!(p.git(&["status", "--porcelain"]), "");
    p.run("build").ok().stdout_has("-dirty");
    // Hidden inside the submodule.
    p.git(&["-C", "www/theme", "update-index", "--assume-unchanged", "www/index.html"]);
    p.run("build").ok().stdout_has("-dirty").stderr_has("www/theme/www/index.html was changed");
}

#[test]
fn ignored_file_of_a_submodule_and_one_beside_it_are_both_found() {
    let (theme, p) = (Project::new(), Project::new());
    theme.write(".gitignore", "*.js\n/target\n/store\n/srv\n/settings\n");
    theme.commit("theme");
    add_submodule(&p, &theme);
    p.write(".gitignore", "/target\n/store\n/srv\n/settings\n*.env\n");
    p.commit("1");
    p.run("build").ok();
    p.write("www/theme/gen.js", "x");
    p.write("www/secret.env", "x");
    p.run("build").fails(2, "(and 1 more) is included, but git ignores it", "`generated`");
}

#[test]
fn build_in_a_job_whose_checkout_was_changed_is_refused() {
    let mut p = Project::new();
    let one = p.commit("1");
    p.var("CIRCLECI", "true");
    p.var("CIRCLE_SHA1", &p.git(&["rev-parse", "HEAD"]));
    p.write("www/index.html", "changed\n");
    p.write("www/ä b.html", "new\n");
    p.run("build").fails(2, "www/index.html and 1 more changed since this job checked out the commit", "`git status`");
    p.git(&["checkout", "--", "."]);
    fs::remove_file(p.path("www/ä b.html")).unwrap();
    p.run("build").ok().stdout_has(&one);
}

fn add_submodule(p: &Project, theme: &Project) {
    let url = theme.path(".").display().to_string();
    p.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &url, "www/theme"]);
}

#[test]
fn submodule_that_is_not_checked_out_is_refused() {
    let (theme, mut p) = (Project::new(), Project::new());
    theme.commit("theme");
    add_submodule(&p, &theme);
    p.commit("1");
    p.git(&["submodule", "--quiet", "deinit", "--force", "www/theme"]);
    p.run("build").fails(
        2,
        "www/theme is included, but is a submodule that is not checked out",
        "git submodule update --init --recursive www/theme",
    );
    p.change("include www\n", "include www\ngenerated www/theme\n");
    p.run("build").ok();
}

#[test]
fn file_that_git_ignores_is_refused_or_listed() {
    let mut p = Project::new();
    p.write(".gitignore", "/target\n/store\n/srv\n/settings\n*.tmp\n/www/dist\n");
    p.commit("1");
    p.run("build").ok();
    p.write("www/dist/app.js", "x\n");
    p.write("www/note.tmp", "x\n");
    p.run("build").fails(2, "www/dist/app.js (and 1 more) is included, but git ignores it", "`generated`");
    p.change("include www\n", "include www\ngenerated www/dist\ngenerated www/*.tmp\n");
    assert!(!p.run("build --json").ok().stdout.contains("dirty"));
}

#[test]
fn pointer_of_git_lfs_is_refused() {
    let mut p = Project::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    p.write("www/big.bin", pointer);
    p.commit("1");
    p.run("build").fails(2, "www/big.bin is a Git LFS pointer", "git lfs pull");
    p.change("include www\n", "include www\ngenerated www/big.bin\n");
    p.run("build").ok();
}

/// What the parts of an app do that git knows nothing of.
#[test]
fn workspace_below_the_root_of_the_repository_is_looked_at_alike() {
    let p = Project::new();
    let outer = crate::record::tempdir();
    let status = Command::new("cp").arg("-a").arg(p.path(".")).arg(outer.path().join("inner")).status().unwrap();
    assert!(status.success());
    fs::remove_dir_all(outer.path().join("inner/.git")).unwrap();
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        crate::project::as_somebody(&mut command);
        let done = command.args(args).current_dir(outer.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "1"]);
    let run = |line: &str| {
        let mut command = p.command(line);
        command.current_dir(outer.path().join("inner"));
        crate::project::Ran::of(line, &mut command)
    };
    run("build").ok();
    git(&["update-index", "--assume-unchanged", "inner/www/index.html"]);
    fs::write(outer.path().join("inner/www/index.html"), "changed\n").unwrap();
    run("build").ok().stdout_has("-dirty");
}

#[test]
fn deploy_of_uncommitted_builds_takes_the_last_and_a_clean_checkout_a_clean_one() {
    let p = Project::new();
    for n in 1..6 {
        p.write("www/index.html", &format!("edit {n}"));
        p.run("build").ok();
        p.run("deploy dev").ok();
        assert_eq!(p.live("srv/dev"), format!("edit {n}"));
    }
    p.write("www/index.html", "edit 2");
    p.run("build").ok().stdout_has("up to date");
    p.run("deploy dev").ok();
    assert_eq!(p.live("srv/dev"), "edit 2");
    p.git(&["checkout", "--quiet", "--", "."]);
    p.run("deploy dev").fails(5, "was not built yet", "cargo xtask build");
}

#[test]
fn include_through_a_link_out_of_the_project_is_refused() {
    let mut p = Project::new();
    let outside = crate::record::tempdir();
    fs::write(outside.path().join("key.pem"), "secret").unwrap();
    symlink(outside.path(), p.path("pub")).unwrap();
    p.change("include www\n", "include www\ninclude pub/key.pem\n");
    p.commit("1");
    p.run("build").fails(2, "leaves the workspace through a link", "below the workspace root");
    p.change("include pub/key.pem\n", "include pub\n");
    p.run("build").fails(2, "leaves the bundle", "remove the link");
}
