//! A project whose copy of the engine lacks parts, compiled.

use crate::new::handoffs::Compiled;
use crate::new::parts::parts;
use crate::new::{command, make, ran};
use std::fs;
use std::process::Command;

#[test]
#[ignore = "group adopt"]
fn project_without_parts_works_and_its_commands_say_how_to_get_them() {
    let compiled = Compiled::new();
    let dir = crate::record::tempdir();
    let project = dir.path().join("shop");
    make(&project, &["--without", "html,local-ci"]).ok();
    for (line, part) in [("ci run --yes", "local-ci"), ("ci lint", "lint"), ("report", "html")] {
        let what = format!("this project was made without `{part}`");
        compiled.xtask(&project, line, &[]).fails(2, &what, &format!("new --upgrade DIR --with {part}`"));
    }
    let main = project.join("xtask/src/main.rs");
    let edit = |from: &str, to: &str| fs::write(&main, fs::read_to_string(&main).unwrap().replace(from, to)).unwrap();
    edit(r#""file:target/store""#, r#""s3://acme/shop""#);
    compiled.xtask(&project, "releases", &[]).fails(2, "this project was made without `s3`", "--with s3`");
    edit(r#""s3://acme/shop""#, r#""file:target/store""#);
    let tested = compiled.xtask(&project, "test --quick", &[]).ok();
    let remarks = ["warning: un", "linter"].iter().find(|remark| tested.stderr.contains(**remark));
    assert_eq!(remarks, None, "neither the compiler nor the linter: {}", tested.stderr);
    // The features of parts that were left out are empty.
    let tested = compiled.xtask(&project, "test --no-tests --all-features", &[]).ok();
    assert!(!tested.stderr.contains("warning: un"), "{}", tested.stderr);
    let mut metadata = Command::new("cargo");
    metadata.args(["metadata", "--offline", "--format-version", "1"]).current_dir(&project);
    let warnings = metadata.output().unwrap().stderr;
    assert_eq!(String::from_utf8_lossy(&warnings), "", "cargo has nothing to remark");

    ran(command(&["new", "--upgrade", &project.display().to_string(), "--with", "lint"])).ok();
    assert_eq!(parts(&project), "lint");
    compiled.xtask(&project, "ci lint", &[]).ok();
    ran(command(&["new", "--upgrade", &project.display().to_string()])).ok();
    assert_eq!(parts(&project), "lint", "an upgrade keeps the parts");
    ran(command(&["new", "--upgrade", &project.display().to_string(), "--with", "local-ci"])).ok();
    let hint = "new --upgrade DIR --with loopback`";
    compiled.xtask(&project, "ci loopback", &[]).fails(2, "this project was made without `loopback`", hint);
    // Its configs would call a command that is not there.
    edit("report: false", "report: true");
    compiled.xtask(&project, "ci generate", &[]).fails(2, "this project was made without `html`", "report: false");
}
