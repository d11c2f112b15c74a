//! Projects whose copy of the engine lacks parts, or has more.

use super::{command, git, make, names, ran};
use std::fs;
use std::path::Path;

/// The crates in a project's copy that a project can do without.
pub fn parts(project: &Path) -> String {
    let optional = ["artifacts", "bucket", "html", "launch", "lint", "local-ci", "loopback", "sign"];
    let all = names(&project.join("xtask/crates"));
    all.iter().map(String::as_str).filter(|name| optional.contains(name)).collect::<Vec<_>>().join(" ")
}

#[test]
fn new_copies_the_parts_that_a_project_needs() {
    let dir = crate::record::tempdir();
    for (name, flags, want) in [
        ("usual", &[][..], "html local-ci"),
        ("none", &["--without", "html,local-ci"], ""),
        ("more", &["--with", "lint", "--with", "s3"], "bucket html lint local-ci"),
        ("bucket", &["--handoff", "s3"], "bucket html local-ci"),
        ("artifacts", &["--handoff", "artifacts"], "artifacts html launch local-ci loopback"),
    ] {
        let project = dir.path().join(name);
        make(&project, &[&["--name", "shop"][..], flags].concat()).ok();
        assert_eq!(parts(&project), want, "{name}");
        assert_eq!(git(&project, "status --porcelain"), "", "{name}");
        let manifests = format!(
            "{}{}",
            fs::read_to_string(project.join("xtask/crates/gangplank/Cargo.toml")).unwrap(),
            fs::read_to_string(project.join("xtask/crates/deploy/Cargo.toml")).unwrap()
        );
        for part in ["artifacts", "bucket", "html", "launch", "lint", "local-ci", "loopback", "sign"] {
            let has = want.split(' ').any(|it| it == part);
            assert_eq!(manifests.contains(&format!("\ngangplank-{part} = ")), has, "{name}: {part}");
        }
        let root = fs::read_to_string(project.join("Cargo.toml")).unwrap();
        for part in ["artifacts", "bucket", "html", "launch", "lint", "local-ci", "loopback", "sign"] {
            let has = want.split(' ').any(|it| it == part);
            assert_eq!(root.contains(&format!("\ngangplank-{part} = ")), has, "{name}: cargo warns of {part}");
        }
        if want.contains("bucket") {
            let upgrade = ["new", "--upgrade", &project.display().to_string(), "--without", "s3"];
            ran(command(&upgrade)).fails(2, "the project uses `s3`", "from `default` in xtask/Cargo.toml");
        }
        let default = fs::read_to_string(project.join("xtask/Cargo.toml")).unwrap().contains(r#"default = ["s3"]"#);
        assert_eq!(default, want.contains("bucket"), "{name}");
        let (main, config) = (project.join("xtask/src/main.rs"), project.join(".circleci/config.yml"));
        let has_report = fs::read_to_string(config).unwrap().contains("Write the release report");
        assert_eq!(has_report, want.contains("html"), "{name}");
        assert_eq!(fs::read_to_string(main).unwrap().contains("report: false"), !has_report, "{name}");
    }
}

#[test]
fn new_with_contradictory_parts_is_refused() {
    let dir = crate::record::tempdir();
    let engine = format!("path={}", crate::project::root().display());
    for (flags, what, hint) in [
        (
            &["--with", "linter"][..],
            "the engine has no part `linter`",
            "use artifacts, html, launch, lint, local-ci, loopback, s3, sign",
        ),
        (&["--handoff", "s3", "--without", "s3"], "the handoff s3 needs the part `s3`", "omit --without s3"),
        (&["--with", "lint", "--without", "lint"], "`lint` is both in --with and in --without", "use one of them"),
        (&["--target", "site+s3://acme-web/shop"], "this command makes no static site", "docs/sites.md"),
        (
            &["--with", "lint", "--engine", &engine],
            "--with and --without select the parts of a copy",
            "--engine vendor",
        ),
    ] {
        make(&dir.path().join("shop"), flags).fails(2, what, hint);
    }
    assert_eq!(names(dir.path()), [""; 0]);
}
