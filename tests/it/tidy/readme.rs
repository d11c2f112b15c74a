//! The README of each crate, which crates.io shows, is its page in the documentation.

use super::{manifests, read};
use crate::project::root;
use expect_test::expect_file;

#[test]
fn readme_of_each_crate_is_its_page() {
    for manifest in manifests() {
        let dir = manifest.trim_end_matches("Cargo.toml");
        let text = read(&manifest);
        let name = text.lines().find_map(|line| line.strip_prefix("name = ")).expect("a package has a name");
        let page = page(&read(&format!("{dir}src/lib.rs")));
        expect_file![root().join(format!("{dir}README.md"))].assert_eq(&format!(
            "# {}\n\n{page}\nPart of Gangplank, which takes a Rust app from a commit to production on CircleCI. \
             Licensed under MIT or Apache-2.0.\n",
            name.trim_matches('"')
        ));
    }
}

/// The documentation of a crate without what only rustdoc reads: links to items, hidden lines of examples.
fn page(lib: &str) -> String {
    let mut lines = Vec::new();
    let mut in_code = false;
    for line in lib.lines().map_while(|line| line.strip_prefix("//!")) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        if line == "```" {
            in_code = !in_code;
            lines.push(if in_code { "```rust" } else { "```" }.to_owned());
        } else if !in_code && line.starts_with('#') {
            lines.push(format!("#{line}"));
        } else if !in_code {
            lines.push(without_links(line));
        } else if line != "#" && !line.starts_with("# ") {
            lines.push(line.to_owned());
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// ``[`name`](path)`` and ``[`name`]`` as `` `name` ``.
fn without_links(line: &str) -> String {
    let mut text = line.replace("[`", "`");
    while let Some(at) = text.find("`](") {
        let end = at + text[at..].find(')').expect("a link ends");
        text.replace_range(at + 1..=end, "");
    }
    text.replace("`]", "`")
}
