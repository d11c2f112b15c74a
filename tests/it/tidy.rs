//! Rules of this repository that the compiler does not check: sizes, I/O modules, layers, hints, documentation.
//!
//! Each test lists all offences at once. The tables contain exactly the current exceptions: an unused row fails, so
//! they grow only on purpose.

mod cycles;
mod doors;
mod readme;
mod scan;

use crate::project::root;
use crate::record::skip;
use cycles::Imports;
use doors::DOORS;
use gangplank_suite::groups::GROUPS;
use scan::{Source, chain, close, functions, is_call, line_of, sources};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const CRATES: &str = "xtask/crates/";

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Packages that a cold build of the engine compiles. Each one costs a second of everybody's first `cargo xtask`.
const PACKAGES_MAX: usize = 130;

/// Dependencies that are language rather than tool.
const EVERYWHERE: &[&str] = &["anyhow", "jiff", "serde", "serde_json"];

/// Words that the vocabulary replaces: CONTRIBUTING.md has how to write.
const BANNED: &[&str] = &[
    "whoever",
    "somebody",
    "nobody",
    "aloud",
    "mend",
    "mends",
    "mended",
    "in the same breath",
    "the article",
    "hand-over",
    "held to",
    "passed over",
];

/// The most files of a crate that may import each other in a circle.
const CYCLE_MAX: usize = 3;

/// Failures that get their hint from the function that catches them: file, piece of the message, why.
const HINTED_ABOVE: &[(&str, &str, &str)] = &[
    ("deploy/src/deploy/apply.rs", "internal error (panic)", "`revert` says what is live now, and what to do"),
    ("deploy/src/deploy/apply/revert.rs", "was reverted, but", "`revert` says that a person has to look"),
];

/// Fails with all offences.
fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{} to fix. {rule}\n\n{}\n", offences.len(), offences.join("\n"));
}

fn all_sources() -> Vec<Source> {
    ["app", "tests", "xtask"].into_iter().flat_map(|dir| sources(&root(), dir)).collect()
}

fn crates() -> Vec<Source> {
    sources(&root(), CRATES.trim_end_matches('/'))
}

/// The paths of the files in git.
fn tracked() -> Vec<String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_terminator('\0').map(str::to_owned).collect()
}

/// The manifests of the crates, those that a project gets first.
fn manifests() -> Vec<String> {
    let mut dirs: Vec<_> = fs::read_dir(root().join(CRATES)).unwrap().map(|it| it.unwrap().file_name()).collect();
    dirs.sort();
    dirs.into_iter().map(|dir| format!("{CRATES}{}/Cargo.toml", dir.to_str().unwrap())).collect()
}

#[track_caller]
fn read(path: &str) -> String {
    match fs::read_to_string(root().join(path)) {
        Ok(text) => text,
        Err(e) => panic!("{path}: {e}"),
    }
}

/// Names and lines of what a manifest has in its tables of dependencies, without those for tests.
fn dependencies(manifest: &str) -> Vec<(String, usize)> {
    let (text, mut found, mut inside) = (read(manifest), Vec::new(), false);
    for (n, line) in text.lines().enumerate() {
        if let Some(table) = line.strip_prefix('[') {
            inside = table.ends_with("dependencies]") && !table.ends_with("dev-dependencies]");
        } else if let Some((name, _)) = line.split_once('=').filter(|(name, _)| inside && !name.starts_with([' ', '#']))
        {
            found.push((name.trim().split('.').next().unwrap().to_owned(), n + 1));
        }
    }
    found
}

#[test]
fn files_begin_with_a_doc_comment() {
    let mut offences = Vec::new();
    for source in all_sources() {
        let doc = source.text.lines().map_while(|line| line.strip_prefix("//!"));
        if doc.flat_map(str::split_whitespace).count() < 4 {
            offences.push(format!("{}:1: open it with a `//!` sentence", source.path));
        }
    }
    assert_none("A reader who opens a file learns first what it is for.", &offences);
}

#[test]
fn files_and_functions_stay_small() {
    let mut offences = Vec::new();
    for source in all_sources() {
        let path = &source.path;
        let lines = source.lines_of_code();
        if lines > FILE_LINES_MAX {
            offences.push(format!("{path}:1: {lines} lines of code, {FILE_LINES_MAX} are the most: split it by topic"));
        }
        for it in functions(&source.code).iter().filter(|it| it.lines > FUNCTION_LINES_MAX) {
            let (name, at, lines) = (&it.name, it.line, it.lines);
            offences.push(format!(
                "{path}:{at}: fn {name} has {lines} lines, {FUNCTION_LINES_MAX} are the most: move a part out"
            ));
        }
    }
    assert_none("Small files are found by their name, small functions are read at a glance.", &offences);
}

#[test]
fn ignored_test_is_in_the_group_that_its_path_names() {
    let mut offences = Vec::new();
    for source in all_sources() {
        for (n, line) in source.text.lines().enumerate().filter(|(_, line)| line.trim().starts_with("#[ignore")) {
            let group = line.trim().strip_prefix("#[ignore = \"group ").and_then(|rest| rest.strip_suffix("\"]"));
            let is_known = group.is_some_and(|group| GROUPS.iter().any(|it| it.name == group));
            let segments = source.path.trim_end_matches(".rs").split('/');
            if !is_known || !segments.into_iter().any(|segment| Some(segment) == group) {
                offences.push(format!("{}:{}: name a group of suite::groups and of the path", source.path, n + 1));
            }
        }
    }
    assert_none("A test that nothing runs protects nothing; `cargo xtask test --all` runs the groups.", &offences);
}

#[test]
fn guide_has_each_group_with_its_minutes() {
    let guide = read("docs/testing.md");
    for group in GROUPS {
        let row = guide.lines().find(|line| line.starts_with(&format!("| `{}` |", group.name)));
        let row = row.unwrap_or_else(|| panic!("docs/testing.md has no row for the group `{}`", group.name));
        let minutes = row.split('|').nth(3).map(str::trim);
        assert_eq!(minutes, Some(group.minutes.to_string().as_str()), "docs/testing.md: {row}");
    }
}

#[test]
fn dependency_is_named_in_its_crate() {
    let (mut offences, sources) = (Vec::new(), crates());
    for manifest in manifests() {
        let dir = manifest.trim_end_matches("Cargo.toml");
        let names: Vec<_> = sources.iter().filter(|it| it.path.starts_with(dir)).flat_map(Source::names).collect();
        for (name, line) in dependencies(&manifest) {
            let name = name.replace('-', "_");
            if !names.iter().any(|it| it.path.split("::").next() == Some(name.as_str())) {
                offences.push(format!("{manifest}:{line}: nothing names `{name}`: remove it"));
            }
        }
    }
    assert_none("What nothing uses is compiled all the same.", &offences);
}

#[test]
fn doors_are_named_only_in_their_files() {
    let mut offences = Vec::new();
    let mut used = BTreeSet::new();
    for source in crates() {
        let file = &source.path[CRATES.len()..].replace("/src/", "/");
        if file.ends_with("/build.rs") && file.split('/').count() == 2 && !source.path.contains("/src/") {
            continue;
        }
        let names = source.names();
        for (door, allowed) in DOORS {
            let lines: Vec<_> = if door.starts_with('.') {
                source.shipped.match_indices(door).map(|(at, _)| line_of(&source.shipped, at)).collect()
            } else {
                names.iter().filter(|it| is_within(&it.path, door)).map(|it| it.line).collect()
            };
            if allowed.contains(&file.as_str()) && !lines.is_empty() {
                used.insert((*door, file.to_owned()));
            } else {
                offences.extend(lines.iter().map(|line| match *allowed {
                    [] => {
                        format!("{}:{line}: `{door}` is not allowed here: emit an event, or ask `Context`", source.path)
                    }
                    _ => format!("{}:{line}: `{door}` is for {} alone: go through it", source.path, allowed.join(", ")),
                }));
            }
        }
    }
    for (door, files) in DOORS {
        for file in files.iter().filter(|file| !used.contains(&(*door, (**file).to_owned()))) {
            offences.push(format!("tests/it/tidy/doors.rs: {file} no longer names `{door}`: take it out of DOORS"));
        }
    }
    for manifest in manifests() {
        for (name, line) in dependencies(&manifest) {
            let name = name.replace('-', "_");
            let known = EVERYWHERE.contains(&name.as_str()) || name.starts_with("gangplank");
            if !known && !DOORS.iter().any(|(door, _)| *door == name) {
                offences.push(format!("{manifest}:{line}: add the files that may name `{name}` to DOORS"));
            }
        }
    }
    assert_none("What is named in one file is replaced, and faked, in one file.", &offences);
}

#[test]
fn no_more_than_three_files_import_each_other() {
    let mut offences = Vec::new();
    for manifest in manifests() {
        let dir = format!("{}src/", manifest.trim_end_matches("Cargo.toml"));
        let sources = sources(&root(), dir.trim_end_matches('/'));
        let module = |path: &str| {
            let path = path[dir.len()..].trim_end_matches(".rs");
            if path == "lib" || path == "main" { String::new() } else { path.replace('/', "::") }
        };
        let modules: BTreeSet<_> = sources.iter().map(|source| module(&source.path)).collect();
        let mut imports = Imports::default();
        for source in &sources {
            let from = module(&source.path);
            for name in source.names() {
                if let Some(to) = cycles::resolve(&modules, &from, &name.path).filter(|to| *to != from) {
                    imports.entry(from.clone()).or_default().insert(to);
                }
            }
        }
        for cycle in cycles::cycles(&imports).into_iter().filter(|cycle| cycle.len() > CYCLE_MAX) {
            offences.push(format!("{dir}: {} import each other", cycle.join(", ")));
        }
    }
    assert_none(
        "Files that import each other can only be read together: move what they share to a file below them.",
        &offences,
    );
}

#[test]
fn words_are_plain() {
    let mut offences = Vec::new();
    let mut texts: Vec<_> = all_sources().into_iter().map(|source| (source.path, source.text)).collect();
    for path in tracked() {
        if [".md", ".toml", ".ci/run"].iter().any(|end| path.ends_with(end)) {
            texts.push((path.clone(), fs::read_to_string(root().join(&path)).unwrap()));
        }
    }
    for (path, text) in texts.iter().filter(|(path, _)| path != "tests/it/tidy.rs") {
        for (n, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            let found = BANNED.iter().filter(|word| is_mentioned(&line, word));
            offences.extend(found.map(|word| format!("{path}:{}: say it without `{word}`", n + 1)));
        }
    }
    assert_none("The subject of a sentence is the thing that acts: CONTRIBUTING.md.", &offences);
}

#[test]
fn no_lint_is_expected_in_crates_that_projects_get() {
    let ours = ["bench", "new", "suite"].map(|name| format!("{CRATES}{name}/"));
    let copied = crates().into_iter().filter(|source| !ours.iter().any(|dir| source.path.starts_with(dir)));
    let offences: Vec<_> = copied.filter(|source| source.code.contains("expect(clippy")).map(|it| it.path).collect();
    assert_none("A project has other lints, where the expectation fails: use `allow`.", &offences);
}

#[test]
fn documents_are_short() {
    const MAX: u64 = 12 << 10;
    let mut offences = Vec::new();
    for dir in ["", "docs", "docs/decisions"] {
        for entry in fs::read_dir(root().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let length = path.metadata().unwrap().len();
            if path.extension().is_some_and(|it| it == "md") && length > MAX {
                offences.push(format!("{}: {length} bytes, {MAX} are the limit", path.display()));
            }
        }
    }
    assert_none("A document is as short as its answer.", &offences);
}

/// Whether a path is `outer` or something in it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn engine_stays_within_its_budget_of_crates() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args =
        "tree --package gangplank --edges normal,build --prefix none --no-dedupe --locked --offline --color never";
    let tree = match Command::new(cargo).args(args.split(' ')).current_dir(root()).output() {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        Ok(output) => return skip(&format!("crate budget: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(e) => return skip(&format!("crate budget: cargo: {e}")),
    };
    // Two versions of a crate are compiled twice, so they count twice.
    let package = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let packages: BTreeSet<_> =
        tree.lines().filter(|line| !line.is_empty() && !line.starts_with("gangplank")).map(package).collect();
    assert!(
        packages.len() <= PACKAGES_MAX,
        "the engine needs {} packages, its budget is {PACKAGES_MAX}: ARCHITECTURE.md says what each dependency is for \
         and what it costs; leave one out, or leave out its features:\n{}",
        packages.len(),
        packages.into_iter().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn failures_have_a_hint() {
    let mut offences = Vec::new();
    let mut excused = BTreeSet::new();
    for source in crates().iter().filter(|source| !source.path.ends_with("model/src/error.rs")) {
        let code = &source.shipped;
        for maker in ["usage(", "failed(", "not_found(", "verification(", "CliError::new("] {
            for (start, _) in code.match_indices(maker).filter(|(start, _)| is_call(code, *start)) {
                let open = start + maker.len() - 1;
                if chain(code, open).contains(&"hint") || hinted_later(code, start) {
                    continue;
                }
                let said = &source.text[open..close(code, open)];
                let known =
                    |(file, message, _): &(&str, &str, &str)| source.path.ends_with(file) && said.contains(message);
                if let Some(row) = HINTED_ABOVE.iter().position(known) {
                    excused.insert(row);
                    continue;
                }
                let (line, maker) = (line_of(code, start), maker.trim_end_matches('('));
                offences.push(format!("{}:{line}: give this `{maker}` a `.hint(\"...\")`", source.path));
            }
        }
    }
    for (_, (file, message, _)) in HINTED_ABOVE.iter().enumerate().filter(|(row, _)| !excused.contains(row)) {
        offences.push(format!("tests/it/tidy.rs: {file} no longer says `{message}`: take it out of HINTED_ABOVE"));
    }
    assert_none("An error that says what to do next ends the search; see xtask/crates/model/src/error.rs.", &offences);
}

/// Whether a failure gets a name here, and its hint where the name is used.
fn hinted_later(code: &str, start: usize) -> bool {
    let statement = code[..start].rsplit([';', '{', '}']).next().unwrap_or_default().trim();
    let name = statement.strip_prefix("let ").and_then(|it| it.strip_suffix('=')).map(str::trim);
    name.is_some_and(|name| code[start..].contains(&format!("{name}.hint(")))
}

#[test]
fn changelog_has_the_version() {
    let manifest = read("Cargo.toml");
    let package = manifest.split("[workspace.package]").nth(1).expect("Cargo.toml has a [workspace.package]");
    let version = package.lines().find_map(|line| line.strip_prefix("version = ")).expect("it has a version");
    let version = version.trim_matches('"');
    let has = |line: &str| line.starts_with("## ") && is_mentioned(line, version);
    assert!(read("CHANGELOG.md").lines().any(has), "CHANGELOG.md: add a section `## {version}` and say what is new");
}

#[test]
fn dependencies_are_explained_in_the_architecture() {
    let text = read("ARCHITECTURE.md");
    let mut offences = Vec::new();
    for manifest in manifests().into_iter().chain(["app/Cargo.toml".to_owned()]) {
        let ours = |name: &str| name.starts_with("gangplank");
        for (name, line) in
            dependencies(&manifest).into_iter().filter(|(name, _)| !ours(name) && !is_mentioned(&text, name))
        {
            offences.push(format!("{manifest}:{line}: say in ARCHITECTURE.md what `{name}` is for and why this one"));
        }
    }
    assert_none("A dependency is code that we answer for.", &offences);
}

/// Whether a text has a name as a word of its own: `tar` is no part of `target`.
fn is_mentioned(text: &str, name: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(name).any(|(at, _)| !text[..at].ends_with(joins) && !text[at + name.len()..].starts_with(joins))
}
