//! The same commit is the same bytes, whatever the machine; and every tool can read them.

#[cfg(feature = "zstd")]
use crate::fleet::hosts::Fleet;
use crate::project::Project;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A workspace with a program, static files of all kinds, and one commit.
fn original() -> Project {
    let p = Project::bare("package shop\ninclude shop/static\ninclude docs/**/*.md\nenv dev\ntarget file:srv/dev\n");
    p.write("Cargo.toml", "[workspace]\nmembers = [\"shop\"]\nresolver = \"3\"\n");
    p.write("shop/Cargo.toml", "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    p.write("shop/src/main.rs", "fn main() {\n    let n: Option<u32> = std::env::args().count().try_into().ok();\n    println!(\"{}\", n.expect(\"counted\"));\n}\n");
    p.write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"shop\"\nversion = \"0.1.0\"\n");
    for n in 0..40 {
        p.write(&format!("shop/static/{}/{n}.txt", n % 7), &format!("{n} {}", "text ".repeat(n * 50)));
    }
    p.write("docs/deep/er/a.md", "# a");
    p.write("docs/b.md", "# b");
    p.write("docs/not.txt", "");
    symlink("0/0.txt", p.path("shop/static/link")).unwrap();
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    p.commit("1");
    p
}

fn build(p: &Project, dir: &Path, umask: &str, vars: &[(&str, &str)]) -> (Vec<u8>, serde_json::Value) {
    let inner = p.command("build");
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("umask {umask}; exec \"$0\" build"))
        .arg(inner.get_program())
        .current_dir(dir)
        .env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).envs(vars.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let release = fs::read_dir(dir.join("target/releases")).unwrap().next().unwrap().unwrap().path();
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(release.join("manifest.json")).unwrap()).unwrap();
    (fs::read(release.join(manifest["bundle"]["file"].as_str().unwrap())).unwrap(), manifest)
}

#[test]
fn two_clones_make_the_same_bytes() {
    let p = original();
    let clones = crate::record::tempdir();
    let clone = |name: &str| {
        let dir = clones.path().join(name);
        p.git(&["clone", "--quiet", ".", dir.to_str().unwrap()]);
        dir
    };
    let one = clone("one");
    let two = clone("an other/much longer path");
    // Another order of creation, other times and other permissions than git gave.
    let files = two.join("shop/static");
    let mut texts: Vec<_> = walk(&files).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    texts.reverse();
    fs::remove_dir_all(&files).unwrap();
    for (text, path) in &texts {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        let touched = Command::new("touch").args(["-d", "2001-02-03T04:05:06"]).arg(path).status().unwrap();
        assert!(touched.success());
    }
    symlink("0/0.txt", files.join("link")).unwrap();
    let (first, manifest) = build(&p, &one, "022", &[("TZ", "UTC"), ("LANG", "C")]);
    let (second, other) =
        build(&p, &two, "077", &[("TZ", "Asia/Tokyo"), ("LANG", "de_DE.UTF-8"), ("LC_ALL", "de_DE.UTF-8")]);
    assert_eq!(manifest["files"], other["files"]);
    assert!(first == second, "the bundles differ");
}

/// Places that cargo takes flags of rustc from, each of which makes it ignore the ones after it: variables, and a
/// configuration. Information for debuggers names the directory of the sources.
const FLAGS: &[(&[(&str, &str)], &str)] = &[
    (&[("RUSTFLAGS", "-Cdebuginfo=1 -Cstrip=none")], ""),
    (&[("CARGO_ENCODED_RUSTFLAGS", "-Copt-level=1\u{1f}-Cdebuginfo=1\u{1f}-Cstrip=none")], ""),
    (&[], "[target.'cfg(unix)']\nrustflags = [\"-Cdebuginfo=1\", \"-Cstrip=none\"]\n"),
    (&[], "[build]\nrustflags = [\"-Cdebuginfo=1\", \"-Cstrip=none\"]\n"),
];

fn configure(dir: &Path, config: &str) {
    fs::create_dir(dir.join(".cargo")).unwrap();
    fs::write(dir.join(".cargo/config.toml"), config).unwrap();
    fs::write(dir.join(".git/info/exclude"), ".cargo\ntarget\n").unwrap();
}

#[test]
fn build_with_flags_of_rustc_makes_the_same_bytes_in_any_directory() {
    let p = original();
    for (vars, config) in FLAGS {
        let clones = crate::record::tempdir();
        let bundles = ["one", "an other/much longer path"].map(|name| {
            let dir = clones.path().join(name);
            p.git(&["clone", "--quiet", ".", dir.to_str().unwrap()]);
            configure(&dir, config);
            build(&p, &dir, "022", vars).0
        });
        assert!(bundles[0] == bundles[1], "{vars:?} {config}: the bundles differ");
    }
}

#[test]
fn build_with_flags_of_rustc_keeps_the_home_directory_out_of_the_binary() {
    let dir = crate::record::tempdir();
    let home = dir.path().join("home");
    fs::create_dir_all(home.join("left/src")).unwrap();
    fs::write(home.join("left/Cargo.toml"), "[package]\nname = \"left\"\nversion = \"0.1.0\"\n").unwrap();
    // Where it panics, the binary names its source.
    fs::write(home.join("left/src/lib.rs"), "#[inline(never)]\npub fn pad(n: usize) -> usize {\n    [1, 2][n]\n}\n")
        .unwrap();
    let p = original();
    p.write("shop/src/main.rs", "fn main() {\n    println!(\"{}\", left::pad(std::env::args().count()));\n}\n");
    let package = "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\n";
    p.write("shop/Cargo.toml", &format!("{package}left.path = \"{}\"\n", home.join("left").display()));
    let package = |name: &str, more: &str| format!("\n[[package]]\nname = \"{name}\"\nversion = \"0.1.0\"\n{more}");
    let shop = package("shop", "dependencies = [\n \"left\",\n]\n");
    p.write("Cargo.lock", &format!("version = 4\n{}{shop}", package("left", "")));
    p.commit("2");
    for (n, (vars, config)) in FLAGS.iter().enumerate() {
        let clone = dir.path().join(n.to_string());
        p.git(&["clone", "--quiet", ".", clone.to_str().unwrap()]);
        configure(&clone, config);
        let vars = [*vars, &[("CARGO_HOME", home.to_str().unwrap())]].concat();
        build(&p, &clone, "022", &vars);
        let binary = fs::read(clone.join("target/release/shop")).unwrap();
        let path = home.to_str().unwrap().as_bytes();
        assert!(!binary.windows(path.len()).any(|part| part == path), "{vars:?} {config}: {} is in it", home.display());
    }
}

#[test]
fn build_of_a_binary_with_required_features_names_them_or_builds_with_them() {
    let mut p = original();
    let manifest = p.read("shop/Cargo.toml");
    let more = "[features]\ncli = []\n[[bin]]\nname = \"shop\"\nrequired-features = [\"cli\"]\n";
    p.write("shop/Cargo.toml", &format!("{manifest}{more}"));
    p.commit("2");
    p.run("build").fails(2, "package `shop` has no binary", "`required-features`");
    p.change("package shop\n", "package shop\nfeature shop/cli\n");
    p.run("build").ok();
}

#[test]
fn build_with_quiet_prints_nothing_of_cargo() {
    let p = original();
    p.run("build --quiet").ok().stderr_lacks("Compiling").stderr_lacks("Finished");
    fs::remove_dir_all(p.path("target")).unwrap();
    // As a shell may have it.
    p.run_with("build", &[("CARGO_TERM_QUIET".into(), "false".into())]).ok().stderr_has("Compiling");
}

#[test]
fn build_of_a_checkout_with_other_line_ends_warns() {
    let p = original();
    let warning = "3 included files have other line ends than the commit, e.g. docs/";
    for name in ["a", "b", "c"] {
        p.write(&format!("docs/{name}.md"), "# one\n\ntwo\n");
    }
    p.commit("2");
    p.run("build").ok().stderr_lacks(warning);
    p.git(&["config", "core.autocrlf", "true"]);
    fs::remove_dir_all(p.path("docs")).unwrap();
    p.git(&["checkout", "--", "docs"]);
    p.run("build").ok().stderr_has(warning);
    p.write(".gitattributes", "* -text\n");
    p.commit("3");
    fs::remove_dir_all(p.path("docs")).unwrap();
    p.git(&["checkout", "--", "docs"]);
    p.run("build").ok().stderr_lacks(warning);
}

#[test]
fn build_for_a_target_of_the_configuration_names_it_in_the_manifest() {
    let p = original();
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let said = String::from_utf8(rustc.stdout).unwrap();
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    configure(&p.path(""), &format!("[build]\ntarget = \"{host}\"\n"));
    let (_, manifest) = build(&p, &p.path(""), "022", &[]);
    assert_eq!(manifest["toolchain"]["target"], host);
    assert!(p.path("target").join(host).join("release/shop").exists());
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(walk(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}

#[test]
fn coreutils_and_tar_accept_it() {
    let p = original();
    let built = p.run("build --json").ok();
    let built: serde_json::Value = serde_json::from_str(&built.stdout).unwrap();
    let dir = built["dir"].as_str().unwrap();
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run("sha256sum", &["--check", "SHA256SUMS"]).lines().count(), 2);
    let bundle = fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap())
        .find(|n| n.ends_with("gz"))
        .unwrap();
    run("gzip", &["--test", &bundle]);
    let listed = run("tar", &["--list", "--verbose", "--gzip", "--file", &bundle]);
    let names: Vec<_> = listed.lines().map(|line| line.split_whitespace().nth(5).unwrap()).collect();
    assert_eq!(&names[..4], ["bin/shop", "docs/b.md", "docs/deep/er/a.md", "static/0/0.txt"], "{listed}");
    assert!(listed.contains("-rwxr-xr-x 0/0") && listed.contains("static/link -> 0/0.txt"), "{listed}");
    fs::create_dir(p.path("out")).unwrap();
    run("tar", &["xzf", &bundle, "-C", p.path("out").to_str().unwrap()]);
    let ran = Command::new(p.path("out/bin/shop")).output().unwrap();
    assert_eq!(ran.stdout, b"1\n");
}

#[test]
fn build_of_unchanged_commit_leaves_the_bundle_as_it_is() {
    let p = original();
    p.run("build").ok().stdout_has(" built: 44 files");
    let releases = p.path("target/releases");
    let release = fs::read_dir(&releases).unwrap().next().unwrap().unwrap().path();
    let bundle = walk(&release).into_iter().find(|path| path.to_string_lossy().ends_with(".tar.gz")).unwrap();
    let stamp = || fs::metadata(&bundle).unwrap().modified().unwrap();
    let before = stamp();
    p.run("build").ok().stdout_has("up to date");
    assert_eq!(stamp(), before);
}

/// Everything below a directory: path, mode, time of files, and content or target.
fn listed(dir: &Path) -> Vec<String> {
    let list = r"find . -mindepth 1 \( -type f -printf '%P %m %T@ ' -exec sha256sum '{}' ';' \) -o -type l -printf '%P -> %l\n' | sort";
    let output = Command::new("sh").args(["-c", list]).current_dir(dir).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn verify_with_unpack_writes_the_files_that_tar_writes() {
    let p = original();
    let (_, manifest) = build(&p, &p.path(""), "022", &[]);
    let id = manifest["id"].as_str().unwrap();
    let bundle = p.path(&format!("target/releases/{id}/{}", manifest["bundle"]["file"].as_str().unwrap()));
    fs::create_dir(p.path("target/tar")).unwrap();
    let tar = Command::new("tar").arg("-xzf").arg(&bundle).arg("-C").arg(p.path("target/tar")).status().unwrap();
    assert!(tar.success());
    let into = p.path("target/ours/here");
    let said = format!(", unpacked into {}\n", into.display());
    let ran = p.run(&format!("verify {id} --unpack target/ours/here")).ok();
    assert!(ran.stdout.ends_with(&said), "{}", ran.stdout);
    let (ours, theirs) = (listed(&into), listed(&p.path("target/tar")));
    assert!(ours.len() > 40, "{ours:?}");
    assert_eq!(ours, theirs);
    // By the directory as well; what is there is left alone, and so is a link to nowhere.
    p.run(&format!("verify target/releases/{id} --unpack target/ours/again")).ok();
    symlink("nowhere", p.path("target/ours/link")).unwrap();
    for there in ["here", "link"] {
        let line = format!("verify {id} --unpack target/ours/{there}");
        p.run(&line).fails(2, "already exists", "name a new directory");
    }
    assert_eq!(listed(&into), theirs);
    p.run("deploy dev").ok();
    p.run("verify @dev --unpack target/live").fails(2, "cannot be unpacked here", &format!("verify {id} --unpack"));
    p.run(&format!("verify {id} --unpack target/dry --dry-run")).fails(2, "no --dry-run", "plan, deploy");

    // A byte of the last member: all before it was written by then.
    let mut bytes = fs::read(&bundle).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    p.run(&format!("verify {id} --unpack target/ours/bad")).fails(7, "damaged", "do not deploy");
    let mut left: Vec<_> = fs::read_dir(p.path("target/ours")).unwrap().map(|it| it.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["again", "here", "link"]);
}

/// A project whose bundles are a `.tar.zst`.
#[cfg(feature = "zstd")]
fn of_zstd() -> Project {
    let mut p = Project::new();
    p.change("env dev\n", "zstd\nenv dev\n");
    p
}

/// The id of the one release that was built.
fn built(p: &Project) -> String {
    let names =
        fs::read_dir(p.path("target/releases")).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    names.into_iter().find(|name| !name.starts_with('.')).unwrap()
}

#[cfg(feature = "zstd")]
#[test]
fn bundle_of_zstd_is_built_verified_unpacked_and_deployed() {
    let mut p = of_zstd();
    if Command::new("zstd").arg("--version").output().is_err() {
        return crate::record::skip("bundles of zstd: there is none");
    }
    p.release("1");
    let id = built(&p);
    let bundle = p.path(&format!("target/releases/{id}/shop-{id}.tar.zst"));
    let listed_by_tar = Command::new("tar").args(["--zstd", "-tf"]).arg(&bundle).output().unwrap();
    assert!(String::from_utf8_lossy(&listed_by_tar.stdout).contains("www/index.html\n"), "{listed_by_tar:?}");
    p.run("verify HEAD --unpack target/out").ok();
    assert!(p.path("target/out/www/index.html").exists());
    p.run("put").ok();
    fs::remove_dir_all(p.path("target/releases")).unwrap();
    p.run("deploy dev").ok();
    assert_eq!(p.live("srv/dev"), "1");
    // The same tree in the other way is not up to date.
    p.run("build").ok();
    p.change("zstd\n", "");
    p.run("build").ok().stderr_has("rebuilding it");
    assert!(!bundle.exists() && bundle.with_extension("gz").exists());
    // The other kind follows it, and it goes back.
    p.release("2");
    p.run("deploy dev").ok();
    p.run("rollback dev").ok();
    assert_eq!(p.live("srv/dev"), "1");
}

/// A project whose bundles are of zstd, and whose dev env is a host with programs of its own first on PATH.
#[cfg(feature = "zstd")]
fn zstd_over_ssh(program: &str, text: &str) -> Option<(Fleet, Project)> {
    let path = std::env::var("PATH").unwrap();
    let fleet = Fleet::with_vars(1, &format!("PATH=@dir@/own:{path}"))?;
    let mut p = of_zstd();
    p.change("target file:srv/dev\n", &format!("target {}\n", fleet.target(0, "app")));
    p.var("PATH", &fleet.path());
    p.write_program("own", &text.replace("@path@", &path));
    fs::create_dir(fleet.file("own")).unwrap();
    fs::copy(p.path("own"), fleet.file("own").join(program)).unwrap();
    fs::remove_file(p.path("own")).unwrap();
    Some((fleet, p))
}

#[cfg(feature = "zstd")]
#[test]
fn host_whose_tar_does_not_know_zstd_is_sent_gzip() {
    let tar = "#!/bin/sh\nPATH=@path@\ncase $1 in --zstd) exit 2 ;; esac\nexec tar \"$@\"\n";
    let Some((fleet, p)) = zstd_over_ssh("tar", tar) else { return };
    p.release("1");
    p.run("deploy dev").ok().stderr_lacks("warning").stderr_lacks("sending it as gzip");
    assert!(fleet.srv(0).join("app/current/www/index.html").exists());
}

/// `tar` takes an archive that ends between two entries for whole, so that it has to hear how zstd ended.
#[cfg(feature = "zstd")]
#[test]
fn archive_is_sent_as_gzip_where_zstd_fails() {
    // Everything comes, and then it says that something was wrong.
    let Some((fleet, p)) = zstd_over_ssh("zstd", "#!/bin/sh\nPATH=@path@\nzstd \"$@\"\nexit 1\n") else { return };
    symlink("index.html", p.path("www/zz-link")).unwrap();
    p.release("1");
    p.run("deploy dev").ok().stderr_has("Child returned status 1").stderr_has("sending it as gzip");
    let www = fleet.srv(0).join("app/current/www");
    assert_eq!(fs::read(www.join("zz-link")).unwrap(), fs::read(www.join("index.html")).unwrap());
}

#[cfg(feature = "zstd")]
#[test]
fn verify_of_bundle_of_another_type_than_its_name_fails() {
    let p = of_zstd();
    p.release("1");
    let id = built(&p);
    let dir = p.path(&format!("target/releases/{id}"));
    let [zst, gz] = ["zst", "gz"].map(|end| format!("shop-{id}.tar.{end}"));
    fs::rename(dir.join(&zst), dir.join(&gz)).unwrap();
    // Formatted for a human reader.
    let manifest = p.read(&format!("target/releases/{id}/manifest.json"));
    fs::write(dir.join("manifest.json"), manifest.replace(&zst, &gz)).unwrap();
    let sums = Command::new("sha256sum").args([&gz, "manifest.json"]).current_dir(&dir).output().unwrap();
    fs::write(dir.join("SHA256SUMS"), sums.stdout).unwrap();
    p.run(&format!("verify target/releases/{id}")).fails(7, "not of the type of its name", "do not deploy");
}

#[test]
fn build_after_refused_verify_repairs_the_release() {
    let p = Project::new();
    p.write("www/sub/.git", "gitdir: ../../.git/modules/sub");
    p.write("www/sub/a", "a");
    p.release("1");
    let id = built(&p);
    let dir = p.path(&format!("target/releases/{id}"));
    let manifest = p.read(&format!("target/releases/{id}/manifest.json"));
    assert!(manifest.contains("www/sub/a") && !manifest.contains(".git"), "{manifest}");
    let sums = fs::read_to_string(dir.join("SHA256SUMS")).unwrap();
    fs::write(dir.join("SHA256SUMS"), sums.replace('0', "1")).unwrap();
    p.run(&format!("verify {id}")).fails(7, "SHA256SUMS", "build the release again");
    p.run("build").ok();
    p.run(&format!("verify {id}")).ok();
    fs::write(dir.join("more"), "").unwrap();
    p.run(&format!("verify {id}")).fails(7, "is not part of the release", "build the release again");
    p.run("build").ok();
    p.run(&format!("verify {id}")).ok();
    // A manifest that names another commit than its id.
    let sha = p.git(&["rev-parse", "HEAD"]);
    fs::write(dir.join("manifest.json"), manifest.replace(sha.trim(), &"f".repeat(40))).unwrap();
    p.run(&format!("verify {id}")).fails(7, "is not of commit `ffff", "build or fetch it again");
}
