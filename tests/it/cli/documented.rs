//! Every command line in the guides, and in the hints of the code, is one that the command line understands.

use crate::project::{Project, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const COMMAND: &str = "cargo xtask ";

/// Words that stand for a value, and one that is valid.
const PLACEHOLDERS: &[(&str, &str)] = &[
    ("N", "1"),
    ("SECONDS", "1"),
    ("RELEASE", "latest"),
    ("VERSION", "latest"),
    ("X.Y.Z", "1.2.3"),
    ("NAME=VALUE", "deploy-env=prod"),
    ("PIPELINE", "1"),
    ("NUMBER", "1"),
];

/// Programs of this repository's own, which `--help` would compile, and commands of an example project.
const OTHERS: &[&str] = &["new", "bench", "test", "whereis", "size", "NAME"];

fn files(dir: &Path, ends: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files(&entry, ends, found);
        } else if ends.iter().any(|end| entry.to_str().unwrap().ends_with(end)) {
            found.push(entry);
        }
    }
}

/// The command lines of a text: lines of blocks, and what is in backticks.
fn lines(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let block = line.trim_start().trim_start_matches("$ ");
        if let Some(words) =
            block.strip_prefix(COMMAND).filter(|_| line.starts_with("    ") || line.starts_with(COMMAND))
        {
            // A comment, or the next command of a pipe.
            let words = words.split("  #").next().unwrap_or(words);
            let ends = [" # ", " | ", " && ", " > "];
            let words = ends.iter().fold(words, |words, end| words.split(end).next().unwrap_or(words));
            found.insert(words.trim().to_owned());
        }
        for inline in line.split('`').skip(1).step_by(2) {
            if let Some(words) = inline.strip_prefix(COMMAND) {
                found.insert(words.split(" | ").next().unwrap_or(words).trim().to_owned());
            }
        }
    }
    found
}

/// The words of a line as a shell reads them.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => (quote, begun) = (Some(c), true),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (c, _) => {
                word.push(c);
                begun = true;
            }
        }
    }
    words.extend(begun.then_some(word));
    quote.is_none().then_some(words)
}

#[test]
fn documented_command_lines_are_understood() {
    let (mut guides, mut code) = (Vec::new(), Vec::new());
    files(&root().join("docs"), &[".md"], &mut guides);
    guides.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    files(&root().join("xtask/crates"), &[".rs"], &mut code);
    let mut known: BTreeMap<Vec<String>, PathBuf> = BTreeMap::new();
    for path in guides.iter().chain(code.iter().filter(|path| !path.to_str().unwrap().contains("tests.rs"))) {
        // Old names are in the changelog to be found.
        let text = fs::read_to_string(path).unwrap();
        let text =
            if path.ends_with("CHANGELOG.md") { text.split("\n### Changed: names").next().unwrap() } else { &text };
        for line in lines(text).into_iter().filter(|line| !line.contains(['{', '\\', '…']) && !line.contains("...")) {
            let Some(words) = words(&line) else { continue };
            known.entry(words).or_insert_with(|| path.clone());
        }
    }
    assert!(known.len() > 100, "{}", known.len());
    let p = Project::new();
    let mut bad = Vec::new();
    for (words, path) in known {
        let command = words.first().map(String::as_str).unwrap_or_default();
        if OTHERS.contains(&command) || command.starts_with(['-', '[', '<']) || command.is_empty() {
            continue;
        }
        let valid = |word: &String| {
            let placeholder = PLACEHOLDERS.iter().find(|(name, _)| name == word);
            let optional = word.trim_start_matches('[').trim_end_matches(']');
            gangplank_model::shell::quote(placeholder.map_or(optional, |(_, value)| value))
        };
        let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
        let line = words[..end].iter().map(valid).collect::<Vec<_>>().join(" ");
        let ran = p.run(&format!("{line} --help"));
        if ran.code != 0 {
            let reason = ran.stderr.lines().next().unwrap_or_default().to_owned();
            bad.push(format!("{}: cargo xtask {}: {reason}", path.display(), words.join(" ")));
        }
    }
    assert!(bad.is_empty(), "{} to fix\n{}", bad.len(), bad.join("\n"));
}
