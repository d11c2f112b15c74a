//! The rules of this repository that no compiler holds: sizes, doors, layers, hints, what is written about it.
//!
//! Each test names every offence at once. The tables say what is true today, to the row: what is no longer needed has
//! to go, so they only grow where somebody wanted them to.

mod scan;

use crate::project::root;
use crate::record::skip;
use gangplank::test::groups::GROUPS;
use scan::{Source, chain, close, functions, is_call, line_of, sources};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const ENGINE: &str = "xtask/engine/src/";

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Packages that a cold build of the engine compiles. Each one costs a second of everybody's first `cargo xtask`.
const PACKAGES_MAX: usize = 130;

/// Who may name what: a crate, a part of the standard library, a macro, or a call. NoSink where the list is empty.
const DOORS: &[(&str, &[&str])] = &[
    ("clap", &["cli.rs", "cli/bench.rs", "cli/ci.rs", "cli/control.rs", "cli/new.rs", "cli/setup.rs", "cli/test.rs"]),
    ("clap_complete", &["complete.rs"]),
    ("clap_mangen", &["man.rs"]),
    ("fastcdc", &["release/patch.rs"]),
    ("flate2", &["release/members.rs"]),
    ("futures_util", &["store/object.rs", "store/object/transfer.rs"]),
    ("glob", &["ci/workspace.rs", "include.rs", "new/manifest.rs"]),
    ("httparse", &["ci/loopback/http.rs"]),
    ("indicatif", &["report/term.rs"]),
    ("libdeflater", &["release/members.rs", "release/members/gzip.rs"]),
    ("memchr", &["build/remap.rs", "release/members/gzip.rs"]),
    ("zstd_safe", &["release/members/zstd.rs"]),
    ("object_store", &["store/object.rs", "store/object/transfer.rs", "store/object/diagnose.rs"]),
    ("reqwest", &["http.rs"]),
    ("rustix", &["machine.rs", "process.rs", "process/tree.rs", "release/files.rs"]),
    ("rustls", &["http.rs"]),
    ("saphyr_parser", &["ci/yaml.rs"]),
    ("sha2", &["release/digest.rs"]),
    ("signal_hook", &["context.rs"]),
    ("tar", &["release/format.rs"]),
    ("tokio", &["store/object.rs"]),
    ("toml_edit", &["new/manifest.rs"]),
    ("walkdir", &["ci/workspace.rs", "include.rs"]),
    ("xshell", &["git.rs", "git/checkout.rs"]),
    ("std::env", &["context.rs", "context/environment.rs", "lib.rs"]),
    ("std::io::stdin", &["approval.rs"]),
    ("std::io::stdout", &["lib.rs"]),
    (
        "std::io::stderr",
        &["approval.rs", "context.rs", "lib.rs", "report/json.rs", "report/progress_draw.rs", "report/term.rs"],
    ),
    ("std::process::exit", &["context.rs"]),
    // These panic when the reader has gone: `cargo xtask releases | head -1`.
    ("print!", &[]),
    ("println!", &[]),
    ("eprint!", &[]),
    ("eprintln!", &[]),
    ("dbg!", &[]),
    // Other programs are run by `Context`, which keeps their stderr and says how long they took. Without arguments these
    // are the methods of a command; `http.rs` asks a response for its status.
    (".spawn()", &["process.rs"]),
    (".status()", &["http.rs"]),
    (".output()", &[]),
    (".read()", &[]),
    (".run()", &[]),
    // The caller adds the hint: it knows whose YAML it is.
    ("anyhow::anyhow!", &["ci/yaml.rs"]),
    ("anyhow::bail!", &["ci/yaml.rs"]),
    ("anyhow::ensure!", &["ci/yaml.rs"]),
];

/// Dependencies that are language rather than tool.
const EVERYWHERE: &[&str] = &["anyhow", "jiff", "serde", "serde_json"];

/// From the ground up, as `lib.rs` has them.
const LAYERS: &[&str] = &["Values", "Doors", "Adapters", "Verbs", "Face"];

/// Parts of a module that lie lower than the module, and why they live there all the same.
const LOWER: &[(&str, &str, &str)] = &[
    ("deploy::history", "Values", "the log of a target as data; the verbs of deploy are its readers"),
    ("deploy::plan", "Values", "every decision of a deploy, pure, next to what applies it"),
    ("deploy::state", "Values", "what a target answers, parsed; the plan starts from it"),
    ("host::frame", "Values", "the markers around the output of a script, again as text"),
    ("host::sequence", "Values", "several of them as one, again as text"),
    ("host::script", "Values", "POSIX commands as text; nothing runs them here"),
];

/// Uses across the layers that are meant: who, whom, why.
const CROSSINGS: &[(&str, &str, &str)] = &[
    ("deploy::state", "machine", "a lock holds an `Owner`, which is data and knows how to find out about itself"),
    ("extend", "ctx", "what a project adds are functions, and that is what they are given"),
    ("extend", "store", "such a function opens a store"),
    ("extend", "host", "or a target"),
    ("health", "host", "a check may be a command on the target"),
];

/// Failures that get their hint from the function that catches them: file, piece of the message, why.
const HINTED_ABOVE: &[(&str, &str, &str)] = &[
    ("deploy/apply.rs", "the engine panicked", "`revert` says what is live now, and what to do"),
    ("deploy/apply.rs", "stopped by a signal", "`revert` says what is live now, and what to do"),
    ("deploy/apply/revert.rs", "was reverted, but", "`revert` says that a person has to look"),
];

/// Fails with all offences.
fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{} to mend. {rule}\n\n{}\n", offences.len(), offences.join("\n"));
}

fn all_sources() -> Vec<Source> {
    ["app", "tests", "xtask"].into_iter().flat_map(|dir| sources(&root(), dir)).collect()
}

fn engine() -> Vec<Source> {
    sources(&root(), ENGINE.trim_end_matches('/'))
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
fn every_file_says_what_it_is_for() {
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
                offences.push(format!("{}:{}: name a group of checks::groups and of the path", source.path, n + 1));
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
fn each_door_is_in_one_place() {
    let mut offences = Vec::new();
    let mut used = BTreeSet::new();
    for source in engine() {
        let file = &source.path[ENGINE.len()..];
        let names = source.names();
        for (door, allowed) in DOORS {
            let lines: Vec<_> = if door.starts_with('.') {
                source.shipped.match_indices(door).map(|(at, _)| line_of(&source.shipped, at)).collect()
            } else {
                names.iter().filter(|it| is_within(&it.path, door)).map(|it| it.line).collect()
            };
            if allowed.contains(&file) && !lines.is_empty() {
                used.insert((*door, file.to_owned()));
            } else {
                offences.extend(lines.iter().map(|line| match *allowed {
                    [] => format!("{}:{line}: nobody uses `{door}` here: emit an event, or ask `Context`", source.path),
                    _ => format!("{}:{line}: `{door}` is for {} alone: go through it", source.path, allowed.join(", ")),
                }));
            }
        }
    }
    for (door, files) in DOORS {
        for file in files.iter().filter(|file| !used.contains(&(*door, (**file).to_owned()))) {
            offences.push(format!("tests/it/tidy.rs: {file} no longer names `{door}`: take it out of DOORS"));
        }
    }
    let manifest = "xtask/engine/Cargo.toml";
    for (name, line) in dependencies(manifest) {
        let name = name.replace('-', "_");
        if !EVERYWHERE.contains(&name.as_str()) && !DOORS.iter().any(|(door, _)| *door == name) {
            offences.push(format!("{manifest}:{line}: say in DOORS of tests/it/tidy.rs which file may name `{name}`"));
        }
    }
    assert_none("What is named in one file is replaced, and faked, in one file.", &offences);
}

/// Whether a path is `outer` or something in it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The modules of `lib.rs` and the layer that the comment above each of them names.
fn modules(offences: &mut Vec<String>) -> Vec<(String, usize)> {
    let (mut found, mut layer) = (Vec::new(), None);
    for (n, line) in read(&format!("{ENGINE}lib.rs")).lines().enumerate() {
        let at = format!("{ENGINE}lib.rs:{}", n + 1);
        if let Some(module) = line.trim_start_matches("pub ").strip_prefix("mod ") {
            match layer {
                Some(layer) => found.push((module.trim_end_matches(';').to_owned(), layer)),
                None => offences.push(format!("{at}: put `{line}` under the comment of its layer")),
            }
        } else if let Some(comment) = line.strip_prefix("// ") {
            let name = comment.split([':', ' ']).next().unwrap_or_default();
            let next = LAYERS.iter().position(|known| *known == name);
            if next.is_some() && next < layer {
                offences.push(format!("{at}: {name} come before {}", LAYERS[layer.unwrap_or_default()]));
            }
            layer = next.or(layer);
        }
    }
    found
}

/// A path in the engine without its `crate::`; `None` for what is not the engine's.
fn in_engine(module: &str, path: &str) -> Option<String> {
    let (first, rest) = path.split_once("::")?;
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let from = match first {
        "crate" => "",
        "super" if rest.starts_with("super::") => return in_engine(parent, rest),
        "super" => parent,
        "self" => module,
        _ => return None,
    };
    Some(if from.is_empty() { rest.to_owned() } else { format!("{from}::{rest}") })
}

#[test]
fn layers_look_down() {
    let mut offences = Vec::new();
    let modules = modules(&mut offences);
    // The layer of the longest known prefix of a path.
    let layer_of = |path: &str| {
        let lower = LOWER.iter().find(|(module, ..)| is_within(path, module));
        let lower = lower.and_then(|(_, layer, _)| LAYERS.iter().position(|known| known == layer));
        lower.or_else(|| modules.iter().find(|(module, _)| is_within(path, module)).map(|(_, layer)| *layer))
    };
    let mut crossed = BTreeSet::new();
    for source in engine() {
        let file = source.path[ENGINE.len()..].trim_end_matches(".rs").trim_end_matches("/mod");
        let module = file.replace('/', "::");
        // `lib.rs` is the roof. A module that it does not have does not compile.
        let Some(from) = layer_of(&module) else { continue };
        for name in source.names().iter().filter(|it| !it.short) {
            let Some(path) = in_engine(&module, &name.path) else { continue };
            let Some(to) = layer_of(&path) else { continue };
            let (own, other) = (module.split("::").next(), path.split("::").next());
            let aside = LAYERS[from] == "Adapters" && to == from && own != other;
            if to <= from && !aside {
                continue;
            }
            let meant = CROSSINGS.iter().position(|(who, whom, _)| is_within(&module, who) && is_within(&path, whom));
            if let Some(row) = meant {
                crossed.insert(row);
                continue;
            }
            let what = if aside { "adapters do not know each other" } else { "layers look down only" };
            offences.push(format!(
                "{}:{}: `{module}` ({}) uses `{path}` ({}): {what}; hand the value in, or move it down",
                source.path, name.line, LAYERS[from], LAYERS[to]
            ));
        }
    }
    for (row, (who, whom, _)) in CROSSINGS.iter().enumerate().filter(|(row, _)| !crossed.contains(row)) {
        offences.push(format!("tests/it/tidy.rs: {who} no longer uses {whom}: take row {} out of CROSSINGS", row + 1));
    }
    for (module, ..) in LOWER {
        if !root().join(format!("{ENGINE}{}.rs", module.replace("::", "/"))).exists() {
            offences.push(format!("tests/it/tidy.rs: {module} is no longer there: take it out of LOWER"));
        }
    }
    assert_none(
        "A layer knows only what is below it; the layers are the comments in xtask/engine/src/lib.rs.",
        &offences,
    );
}

#[test]
fn the_engine_stays_within_its_budget_of_crates() {
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
    let packages: BTreeSet<_> = tree.lines().filter(|line| !line.is_empty()).map(package).collect();
    assert!(
        packages.len() <= PACKAGES_MAX,
        "the engine needs {} packages, its budget is {PACKAGES_MAX}: ARCHITECTURE.md says what each dependency is for \
         and what it costs; leave one out, or leave out its features:\n{}",
        packages.len(),
        packages.into_iter().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn every_failure_has_a_hint() {
    let mut offences = Vec::new();
    let mut excused = BTreeSet::new();
    for source in engine().iter().filter(|source| !source.path.ends_with("/error.rs")) {
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
    assert_none("An error that says what to do next ends the search; see xtask/engine/src/error.rs.", &offences);
}

/// Whether a failure gets a name here, and its hint where the name is used.
fn hinted_later(code: &str, start: usize) -> bool {
    let statement = code[..start].rsplit([';', '{', '}']).next().unwrap_or_default().trim();
    let name = statement.strip_prefix("let ").and_then(|it| it.strip_suffix('=')).map(str::trim);
    name.is_some_and(|name| code[start..].contains(&format!("{name}.hint(")))
}

#[test]
fn the_changelog_has_the_version() {
    let manifest = read("Cargo.toml");
    let package = manifest.split("[workspace.package]").nth(1).expect("Cargo.toml has a [workspace.package]");
    let version = package.lines().find_map(|line| line.strip_prefix("version = ")).expect("it has a version");
    let version = version.trim_matches('"');
    let has = |line: &str| line.starts_with("## ") && is_mentioned(line, version);
    assert!(read("CHANGELOG.md").lines().any(has), "CHANGELOG.md: add a section `## {version}` and say what is new");
}

#[test]
fn every_dependency_is_accounted_for() {
    let text = read("ARCHITECTURE.md");
    let mut offences = Vec::new();
    for manifest in ["app/Cargo.toml", "xtask/engine/Cargo.toml"] {
        for (name, line) in dependencies(manifest).into_iter().filter(|(name, _)| !is_mentioned(&text, name)) {
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
