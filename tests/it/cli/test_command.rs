//! `cargo xtask test` in projects of different shapes.

use crate::project::Project;

#[test]
fn test_of_a_project_with_a_bench_for_nightly_passes() {
    let p = Project::bare("include www\nstore circleci:workspace\n");
    p.write("Cargo.toml", "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n");
    p.write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"shop\"\nversion = \"0.1.0\"\n");
    p.write("src/lib.rs", "//! Nothing.\n");
    p.write("benches/b.rs", "//! A bench.\n#![feature(test)]\nextern crate test;\n");
    // Programs of Gangplank's own repository have these names; these directories are the project's.
    for name in ["suite", "new", "bench"] {
        p.write(&format!("xtask/crates/{name}/notes.txt"), "nothing\n");
    }
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    p.run("ci generate").ok();
    p.run("test").ok();
    p.run("new ../shop").fails(2, "only in Gangplank's own repository", "cargo xtask new --help");

    // Lints are looked for in everything else.
    for path in ["src/lib.rs", "src/bin/a.rs", "tests/t.rs", "examples/e.rs"] {
        let main = if path.starts_with("src/lib") { "" } else { "fn main() {}\n" };
        p.write(path, &format!("//! A lint.\n{main}/// Returns.\npub fn lint() -> i32 {{\n    return 1;\n}}\n"));
        p.run("test").fails(1, "`cargo clippy` failed", "--bins --tests --examples");
        p.write(path, &format!("//! Nothing.\n{main}"));
    }
    p.run("test").ok();
}

#[test]
fn crates_of_gangplank_are_checked_unless_they_are_a_copy() {
    let p = Project::bare("include www\nstore circleci:workspace\n");
    let package = |name: &str| format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    p.write("Cargo.toml", &(package("shop") + "\n[workspace]\nmembers = [\"xtask/crates/*\"]\n"));
    p.write("src/lib.rs", "//! Nothing.\n");
    let locked = |name| format!("\n[[package]]\nname = \"{name}\"\nversion = \"0.1.0\"\n");
    let lock: String = ["gangplank", "gangplank-html", "gangplank-lint", "shop"].map(locked).concat();
    p.write("Cargo.lock", &format!("version = 4\n{lock}"));
    for (dir, name) in [("gangplank", "gangplank"), ("html", "gangplank-html"), ("lint", "gangplank-lint")] {
        p.write(&format!("xtask/crates/{dir}/Cargo.toml"), &package(name));
        p.write(&format!("xtask/crates/{dir}/src/lib.rs"), "//! Nothing.\n");
    }
    p.git(&["init", "--quiet", "--initial-branch", "main"]);
    p.run("ci generate").ok();
    p.run("test").ok();

    for dir in ["gangplank", "lint"] {
        let path = format!("xtask/crates/{dir}/src/lib.rs");
        p.write(&path, "//! A lint.\n/// Returns.\npub fn lint() -> i32 {\n    return 1;\n}\n");
        p.run("test").fails(1, "`cargo clippy` failed", "--bins --tests --examples");
        p.write(&path, "//! A link to [`Nothing`].\n");
        p.run("test").fails(1, "`cargo doc` failed", "shows them again");
        // As `new` writes it: the crates are a copy, and were tested where they come from.
        p.write("xtask/crates/SHA256SUMS", &format!("{:064}  {dir}/Cargo.toml\n", 0));
        p.run("test").ok();
        std::fs::remove_file(p.path("xtask/crates/SHA256SUMS")).unwrap();
        p.write(&path, "//! Nothing.\n");
    }
}
