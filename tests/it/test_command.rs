//! `cargo xtask test` in projects of different shapes.

use crate::project::Project;

#[test]
fn test_of_a_project_with_a_bench_for_nightly_passes() {
    let p = Project::bare("include www\nstore circleci:workspace\n");
    p.write("Cargo.toml", "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n");
    p.write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"shop\"\nversion = \"0.1.0\"\n");
    p.write("src/lib.rs", "//! Nothing.\n");
    p.write("benches/b.rs", "//! A bench.\n#![feature(test)]\nextern crate test;\n");
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    p.run("ci generate").ok();
    p.run("test").ok();

    // Lints are looked for in everything else.
    for path in ["src/lib.rs", "src/bin/a.rs", "tests/t.rs", "examples/e.rs"] {
        let main = if path.starts_with("src/lib") { "" } else { "fn main() {}\n" };
        p.write(path, &format!("//! A lint.\n{main}/// Returns.\npub fn lint() -> i32 {{\n    return 1;\n}}\n"));
        p.run("test").fails(1, "`cargo clippy` failed", "--bins --tests --examples");
        p.write(path, &format!("//! Nothing.\n{main}"));
    }
    p.run("test").ok();
}
