//! `cargo xtask test --retry` of this repository, in one whose test fails now and then.

use crate::project::Project;

/// A project with one crate, whose test fails once and then passes, and another one that is `also`.
fn project(also: &str) -> Project {
    let mut p = Project::bare("include www\nstore circleci:workspace\n");
    p.write(
        "Cargo.toml",
        "[package]\nname = \"once\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\nmembers = [\"xtask\"]\n",
    );
    p.write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"once\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"xtask\"\nversion = \"0.1.0\"\n");
    // Its checks always pass.
    p.write("xtask/Cargo.toml", "[package]\nname = \"xtask\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    p.write("xtask/src/main.rs", "fn main() {}\n");
    p.write("src/lib.rs", "//! Nothing.\n");
    p.write(
        "tests/t.rs",
        &format!(
            "#[test]\nfn once() {{\n    assert!(std::fs::create_dir(\"seen\").is_err());\n}}\n\n\
             #[test]\nfn another() {{\n    {also};\n}}\n"
        ),
    );
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    // Nothing is installed for it.
    p.var("GANGPLANK_CHECK_JSONSCHEMA", "none");
    p
}

#[test]
fn retry_of_test_that_failed_once_reports_it_as_flaky() {
    let p = project("assert!(std::path::Path::new(\"src\").exists())");
    p.run("test --retry").ok().stderr_has("flaky: once failed, then passed alone");
    let answer = p.run("test --retry --json").ok().stdout;
    assert!(answer.contains("\"flaky\": []"), "{answer}");
}

#[test]
fn retry_of_test_that_fails_again_fails_the_run() {
    let p = project("assert!(std::path::Path::new(\"never\").exists())");
    p.run("test --retry").fails(1, "`cargo test` failed", "run a single test");
}
