//! Forged manifests, with archives that agree, and files of a store that are none.

use super::{Forgery, Named, refuse_all};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

fn with(path: &str, to: Option<&str>) -> Forgery {
    let mut forgery = Forgery::new();
    forgery.add(path, to);
    forgery
}

fn links(links: &[(&str, &str)]) -> Forgery {
    let mut forgery = Forgery::new();
    for (path, to) in links {
        forgery.add(path, Some(to));
    }
    forgery
}

fn field(pointer: &str, value: Value) -> Forgery {
    let mut forgery = Forgery::new();
    *forgery.manifest.pointer_mut(pointer).unwrap() = value;
    forgery
}

fn touched(touch: fn(&Path)) -> Forgery {
    Forgery { touch: Some(touch), ..Forgery::new() }
}

/// The bundle of a release.
fn bundle(dir: &Path) -> PathBuf {
    fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|it| it.path())
        .find(|path| path.extension() == Some("gz".as_ref()))
        .unwrap()
}

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn grow(path: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// See `paths_and_links_that_leave_are_refused`.
fn paths_and_links_that_leave() -> Vec<Named> {
    let deep = (0..50).map(|n| format!("z/l{n}")).collect::<Vec<_>>();
    let chain: Vec<_> = deep.windows(2).map(|pair| (pair[0].as_str(), pair[1].strip_prefix("z/").unwrap())).collect();
    vec![
        ("an absolute path", with("/etc/evil", None)),
        ("a path that leaves", with("../evil", None)),
        ("a path that leaves later", with("x/../../evil", None)),
        ("a path with a dot", with("x/./y", None)),
        ("a path of the engine's", with(".gangplank/SHA256SUMS", None)),
        ("a name of 256 bytes", with(&format!("x{}", "y".repeat(255)), None)),
        ("a path of 2,000 bytes", with(&format!("x{}", "/yyyyyyyyy".repeat(200)), None)),
        ("a path of a hundred parts", with(&format!("x{}", "/y".repeat(100)), None)),
        ("a newline in a path", with("x\ny", None)),
        ("a path that is shown backwards", with("x\u{202e}gnp.exe", None)),
        ("an absolute link", with("z", Some("/etc/passwd"))),
        ("a link that leaves", with("z", Some("../evil"))),
        ("a chain of links that leaves", links(&[("a/b/c/r", "../../.."), ("t", "a/b/c/r/../../etc/hostname")])),
        ("a chain of links that leaves by parts", links(&[("a/b/c/r", "../../.."), ("t", "a/b/c/r/../etc")])),
        ("a link to itself", with("z", Some("z"))),
        ("links in a circle", links(&[("y", "z"), ("z", "y")])),
        ("a chain of fifty links", links(&chain)),
        ("a link to nothing", with("z", Some("nothing"))),
        ("a link through a file", with("z", Some("top/file/x"))),
        ("a long link that leaves", with("z", Some(&"../".repeat(300)))),
        ("a file through a link", links(&[("x", "top"), ("x/y", "file")])),
        ("a file below a file", with("top/file/x", None)),
    ]
}

#[test]
fn paths_and_links_that_leave_are_refused() {
    refuse_all(&paths_and_links_that_leave());
}

/// See `fields_of_manifests_are_refused`.
fn fields_of_manifests() -> Vec<Named> {
    let first = |name: &str, value: Value| {
        let mut it = Forgery::new();
        it.manifest["files"][0][name] = value;
        it
    };
    let unsorted = {
        let mut it = Forgery::new();
        it.manifest["files"].as_array_mut().unwrap().swap(0, 1);
        it.entries.swap(0, 1);
        it
    };
    let twice = {
        let mut it = Forgery::new();
        let one = it.manifest["files"][0].clone();
        it.manifest["files"].as_array_mut().unwrap().insert(0, one);
        it.entries.insert(0, it.entries[0].clone());
        it
    };
    vec![
        ("sizes that overflow when added", first("bytes", json!(u64::MAX))),
        ("a size of an exabyte", first("bytes", json!(1_u64 << 60))),
        ("a negative size", first("bytes", json!(-1))),
        ("a size of a link", field("/files/2/bytes", json!(u64::MAX))),
        ("set-uid", first("mode", json!(0o4755))),
        ("a digest that is none", first("sha256", json!("x"))),
        ("two contents", first("link", json!("../x"))),
        ("a later time than that of its commit", field("/commit/time", json!("2025-08-01T12:00:00Z"))),
        ("no files", {
            let mut it = Forgery::new();
            it.manifest["files"] = json!([]);
            it.entries.clear();
            it
        }),
        ("a digest with a line break", first("sha256", json!("x\nhint: run this"))),
        ("a digest of ten megabytes", first("sha256", json!("x".repeat(10 << 20)))),
        ("not sorted", unsorted),
        ("a file twice", twice),
        ("an app with a slash", field("/app", json!("../x"))),
        ("an app without a name", field("/app", json!(""))),
        ("a bundle elsewhere", field("/bundle/file", json!("../../../etc/passwd"))),
        ("another commit", field("/commit/sha", json!("ffffffffffffffffffffffffffffffffffffffff"))),
        ("a commit with control characters", field("/commit/sha", json!("1a2b3c4\u{1b}[2J"))),
        ("a branch of a million characters", field("/commit/branch", json!("x".repeat(1_000_000)))),
        ("a branch that is shown backwards", field("/commit/branch", json!("\u{202e}niam"))),
        ("a tag with control characters", field("/commit/tag", json!("v1\u{7}"))),
        ("another schema", field("/schema", json!(2))),
        ("a bundle larger than it is", field("/bundle/bytes", json!(1_u64 << 40))),
        ("another digest of the bundle", field("/bundle/sha256", json!("0".repeat(64)))),
    ]
}

#[test]
fn fields_of_manifests_are_refused() {
    refuse_all(&fields_of_manifests());
}

/// See `special_missing_or_too_large_files_are_refused`.
fn special_missing_or_too_large_files() -> Vec<Named> {
    vec![
        ("a pipe for a bundle", touched(|dir| pipe(&bundle(dir)))),
        ("a pipe for a manifest", touched(|dir| pipe(&dir.join("manifest.json")))),
        ("a pipe for digests", touched(|dir| pipe(&dir.join("SHA256SUMS")))),
        (
            "a link to a device for a bundle",
            touched(|dir| {
                let bundle = bundle(dir);
                fs::remove_file(&bundle).unwrap();
                symlink("/dev/zero", bundle).unwrap();
            }),
        ),
        (
            "a link to a device for a manifest",
            touched(|dir| {
                fs::remove_file(dir.join("manifest.json")).unwrap();
                symlink("/dev/zero", dir.join("manifest.json")).unwrap();
            }),
        ),
        (
            "a directory for a bundle",
            touched(|dir| {
                let bundle = bundle(dir);
                fs::remove_file(&bundle).unwrap();
                fs::create_dir(bundle).unwrap();
            }),
        ),
        ("a manifest of 500 megabytes", touched(|dir| grow(&dir.join("manifest.json"), 500 << 20))),
        (
            "a manifest of 30 megabytes of nothing",
            touched(|dir| {
                let nothing = format!("{{\"schema\":1,\"x\":[0{}]}}", ",0".repeat(15 << 20));
                fs::write(dir.join("manifest.json"), nothing).unwrap();
            }),
        ),
        (
            "a manifest of 400,000 files",
            touched(|dir| {
                let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
                let file = "{\"path\":\"a\",\"bytes\":0,\"mode\":420,\"link\":\"b\"},";
                let more = text.replacen("\"files\": [", &format!("\"files\": [{}", file.repeat(400_000)), 1);
                fs::write(dir.join("manifest.json"), more).unwrap();
            }),
        ),
        ("digests of 500 megabytes", touched(|dir| grow(&dir.join("SHA256SUMS"), 500 << 20))),
        ("a bundle of a terabyte", touched(|dir| grow(&bundle(dir), 1 << 40))),
        ("no bundle", touched(|dir| fs::remove_file(bundle(dir)).unwrap())),
        ("no digests", touched(|dir| fs::remove_file(dir.join("SHA256SUMS")).unwrap())),
    ]
}

#[test]
fn special_missing_or_too_large_files_are_refused() {
    refuse_all(&special_missing_or_too_large_files());
}

/// All of this file.
#[cfg(feature = "s3")]
pub fn all() -> Vec<Named> {
    [paths_and_links_that_leave(), fields_of_manifests(), special_missing_or_too_large_files()]
        .into_iter()
        .flatten()
        .collect()
}
