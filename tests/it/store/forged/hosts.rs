//! What a host makes of an archive that is not the one that was checked: it compares all that it has unpacked with lists
//! that no archive can bring, before it installs. And what `verify` and a rollback make of a release that was changed later.

use super::tar::{END, Header, entry};
use super::{Forgery, ID, link};
use crate::project::Project;
use gangplank_model::release::digest;
use gangplank_model::release::manifest::{Manifest, checksum_line};
use gangplank_model::script::install::{Expected, install as install_script};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// The script that installs the honest release, and the engine's own files that are sent before its archive.
fn installation(root: &Path) -> (String, Vec<u8>) {
    let store = crate::record::tempdir();
    let dir = Forgery::new().write(store.path());
    let json = fs::read(dir.join("manifest.json")).unwrap();
    let manifest = Manifest::parse(&json, "the manifest").unwrap();
    let (entries, bundle) = (manifest.entries(), format!("{}\n", manifest.bundle.sha256));
    let sums = manifest.checksums() + &checksum_line(&digest::of(entries.as_bytes()), ".gangplank/entries");
    let expected = Expected {
        bundle: manifest.bundle.sha256.clone(),
        bytes: manifest.bundle.bytes,
        entries: digest::of(entries.as_bytes()),
        sums: digest::of(sums.as_bytes()),
    };
    let files = [("manifest.json", json.as_slice()), ("bundle", bundle.as_bytes()), ("record", b"{}\n")];
    let lists = [("entries", entries.as_bytes()), ("SHA256SUMS", sums.as_bytes())];
    let own =
        files.into_iter().chain(lists).flat_map(|(name, text)| entry(b'0', &format!(".gangplank/{name}"), 0o644, text));
    (install_script(root.to_str().unwrap(), &manifest.id, &expected, None), own.collect())
}

/// Runs the script with this archive. Gives exit code and complaint.
fn install(root: &Path, entries: &[Vec<u8>]) -> (i32, String) {
    let (script, own) = installation(root);
    let mut sh = Command::new("sh").arg("-c").arg(script).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end before it has read everything.
    let _ = sh.stdin.take().unwrap().write_all(&[own, entries.concat(), END.to_vec()].concat());
    let output = sh.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn host_refuses_an_archive_of_anything_else() {
    let honest = Forgery::new().entries;
    let dir = crate::record::tempdir();
    let root = dir.path().join("srv");
    assert_eq!(install(&root, &honest), (0, String::new()));
    fs::remove_dir_all(&root).unwrap();
    let with = |at: usize, other: Vec<u8>| {
        let mut entries = honest.clone();
        entries[at] = other;
        entries
    };
    let more = |other: Vec<u8>| [honest.clone(), vec![other]].concat();
    let outside = dir.path().join("outside");
    let cases = [
        ("differs from the manifest", with(1, entry(b'0', "top/file", 0o644, b"other\n")), "top/file: FAILED"),
        ("a file less", with(1, vec![]), "top/file: FAILED open or read"),
        ("another mode", with(1, entry(b'0', "top/file", 0o755, b"hello\n")), "file 755\t./top/file"),
        ("set-uid", with(0, entry(b'0', "bin/app", 0o4755, b"#!/bin/sh\n")), "set-id file\t./bin/app"),
        ("another link", with(2, link("top/link", "/etc/passwd")), "link\t./top/link\t/etc/passwd"),
        ("a file for a link", with(2, entry(b'0', "top/link", 0o644, b"hello\n")), "missing\tlink\t./top/link\tfile"),
        ("a link for a file", with(1, link("top/file", "../bin/app")), "top/file: FAILED"),
        ("a file more", more(entry(b'0', "top/more", 0o644, b"x")), "extra\tfile 644\t./top/more"),
        ("a directory more", more(entry(b'5', "top/dir/", 0o755, b"")), "extra\tdir\t./top/dir"),
        ("a pipe more", more(entry(b'6', "top/pipe", 0o644, b"")), "extra\tspecial file\t./top/pipe"),
        ("a hard link more", more(Header::new(b'1', "top/hard", 0o644, 0).link("bin/app").done()), "./top/hard"),
        ("other digests", more(entry(b'0', ".gangplank/SHA256SUMS", 0o644, b"")), "brought other lists"),
        ("other entries", more(entry(b'0', ".gangplank/entries", 0o644, b"")), "brought other lists"),
        ("a path that leaves", more(entry(b'0', "../../../outside", 0o644, b"x")), ""),
        ("an absolute path", more(entry(b'0', outside.to_str().unwrap(), 0o644, b"x")), ""),
    ];
    for (name, entries, reason) in cases {
        let (code, said) = install(&root, &entries);
        assert!(code != 0 && said.contains(reason), "{name}: {code}: {said}");
        let left: Vec<_> = super::all_files(&root).into_iter().filter(|path| path.contains(ID)).collect();
        assert!(left.is_empty() && !outside.exists(), "{name}: {left:?}");
    }
}

/// Changes that only a list of all entries shows; `sha256sum -c` follows links and knows no modes.
#[test]
fn verify_and_rollback_compare_links_and_modes() {
    let p = Project::new();
    p.write("www/top/file", "hello\n");
    symlink("file", p.path("www/top/link")).unwrap();
    let one = p.release("1");
    p.run("deploy dev").ok();
    p.run("verify @dev").ok();
    let www = |p: &Project, id: &str| p.path(&format!("srv/dev/releases/{id}/www"));
    let changes: [(&str, Change, &str); 6] = [
        ("another link", |www| relink(www, "/etc/passwd"), "www/top/link: is a link to something else"),
        ("a link to the same", |www| relink(www, "./file"), "www/top/link: is a link to something else"),
        ("set-uid", |www| chmod(www, 0o4644), "www/top/file: is a set-id file, not a file 644"),
        ("not readable", |www| chmod(www, 0o600), "www/top/file: is a file of another mode, not a file 644"),
        ("executable", |www| chmod(www, 0o755), "www/top/file: is a file 755, not a file 644"),
        ("a link that is gone", |www| fs::remove_file(www.join("top/link")).unwrap(), "www/top/link: is missing"),
    ];
    let mut n = 1;
    for (name, change, reason) in changes {
        change(&www(&p, &one));
        let ran = p.run("verify @dev").code(7);
        assert!(ran.stderr.contains(reason), "{name}: {}", ran.stderr);
        // What was changed is not gone back to.
        n += 1;
        p.release(&n.to_string());
        p.run("deploy dev").ok();
        let ran = p.run("rollback dev").code(7);
        assert!(ran.stderr.contains(reason), "{name}: {}", ran.stderr);
        fs::remove_dir_all(p.path(&format!("srv/dev/releases/{one}"))).unwrap();
        p.run(&format!("deploy dev {one} --allow-older")).ok();
    }
    // A file that the app wrote is reported, and does not block a rollback.
    p.release("last");
    p.run("deploy dev").ok();
    fs::write(www(&p, &one).join("app.pid"), "1").unwrap();
    p.run("rollback dev").ok().stderr_has("www/app.pid: is not part of the release").stderr_has("`shared`");
    p.run("verify @dev").code(7).stderr_has("www/app.pid: is not part of the release");
}

/// A change to the files of a release.
type Change = fn(&Path);

/// A link of the release itself is compared, wherever it leads; only those that a deploy makes into `shared` are not.
#[test]
fn links_of_a_release_into_its_own_shared_directory_are_compared() {
    let mut p = Project::new();
    p.change("target file:srv/dev\n", "target file:srv/dev\nshared www/uploads/\n");
    p.write("www/shared/up/file", "hello\n");
    symlink("shared/up", p.path("www/up")).unwrap();
    let one = p.release("1");
    p.run("deploy dev").ok();
    p.run("verify @dev").ok();
    p.release("2");
    p.run("deploy dev").ok();
    p.run("rollback dev").ok();
    let www = p.path(&format!("srv/dev/releases/{one}/www"));
    assert!(www.join("uploads").is_symlink());
    for to in ["../../../../shared/www/up", "../../../../../shared/www/up", "shared/other"] {
        fs::remove_file(www.join("up")).unwrap();
        symlink(to, www.join("up")).unwrap();
        p.run("verify @dev").code(7).stderr_has("www/up: is a link to something else");
    }
}

#[test]
fn release_of_another_app_is_refused() {
    let p = Project::new();
    let mut forgery = Forgery::new();
    forgery.manifest["app"] = "other".into();
    forgery.manifest["bundle"]["file"] = format!("other-{ID}.tar.gz").into();
    forgery.write(&p.path("store"));
    p.run("deploy dev latest").fails(5, "there is no release yet", "cargo xtask build");
    p.run(&format!("deploy dev {ID}")).fails(7, "is a release of `other`, not of this project's `shop`", "releases");
    assert_eq!(p.current("srv/dev"), None);
}

/// Names that a list of lines could take for something else.
#[test]
fn odd_names_on_a_host_hide_nothing() {
    let mut p = Project::new();
    p.change("include www\n", "include www\ninclude -\n");
    p.write("-", "a lone dash\n");
    p.release("1");
    p.run("deploy dev").ok();
    p.run("verify @dev").ok();
    fs::write(p.path("srv/dev/current/-"), "evil\n").unwrap();
    p.run("verify @dev").code(7).stderr_has("-: FAILED");
    fs::write(p.path("srv/dev/current/-"), "a lone dash\n").unwrap();
    p.run("verify @dev").ok();
    // By lines, a directory that already exists, and a file that is.
    fs::create_dir_all(p.path("srv/dev/current/www\n./www")).unwrap();
    fs::write(p.path("srv/dev/current/www\n./www/index.html"), "evil\n").unwrap();
    p.run("verify @dev").code(7).stderr_has("is not part of the release");
}

/// What cannot be compared is not verified.
#[test]
fn host_whose_programs_fail_verifies_and_installs_nothing() {
    for program in ["sort", "uniq", "sed", "sha256sum"] {
        let mut p = Project::new();
        p.release("1");
        p.run("deploy dev").ok();
        p.release("2");
        p.write_program(&format!("target/own/{program}"), "#!/bin/sh\nexit 1\n");
        let path = std::env::var("PATH").unwrap();
        p.var("PATH", &format!("{}:{path}", p.path("target/own").display()));
        for line in ["verify @dev", "deploy dev"] {
            let ran = p.run(line);
            assert!(ran.code != 0, "{program}: `{line}`: {}", ran.stdout);
        }
        assert_eq!(p.live("srv/dev"), "1", "{program}");
    }
}

fn relink(www: &Path, to: &str) {
    fs::remove_file(www.join("top/link")).unwrap();
    symlink(to, www.join("top/link")).unwrap();
}

fn chmod(www: &Path, mode: u32) {
    fs::set_permissions(www.join("top/file"), PermissionsExt::from_mode(mode)).unwrap();
}
