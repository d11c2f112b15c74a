//! The text of a created project: files, notes, next commands.

use crate::options::NewReport;
use gangplank::program::{Style, count, table};
use std::fmt::Write;

/// Files listed by name; of more, only the number is printed.
const NAMED: usize = 12;

pub fn made(made: &NewReport, style: Style) -> String {
    let mut out = headline(made);
    if made.what == "adopt" && made.files.len() <= NAMED {
        for file in &made.files {
            let _ = writeln!(out, "  {file}");
        }
    }
    if !made.scripts.is_empty() {
        out.push('\n');
        let heading = ["LINE", "SCRIPT", "BECOMES"].map(str::to_owned).to_vec();
        let rows = made.scripts.iter().map(|it| {
            let becomes = it.becomes.unwrap_or("a step of your own: docs/extending.md");
            vec![format!("{}:{}", it.file, it.line), shortened(&it.text), becomes.to_owned()]
        });
        out.push_str(&table(style, &[heading].into_iter().chain(rows).collect::<Vec<_>>()));
    }
    if !made.notes.is_empty() {
        out.push('\n');
        for note in &made.notes {
            let _ = writeln!(out, "{}", if made.what == "upgrade" { note.clone() } else { format!("note: {note}") });
        }
    }
    if !made.next.is_empty() && !made.dry_run && !made.files.is_empty() {
        out.push_str("\nnext:\n");
        for line in &made.next {
            let _ = writeln!(out, "  {}", style.strong(line));
        }
    }
    out
}

fn headline(made: &NewReport) -> String {
    let path = made.path.display();
    let would = |done: &str, would: &str| if made.dry_run { would.to_owned() } else { done.to_owned() };
    // The files of the engine are not listed one by one.
    let engine = made.files.iter().filter(|file| *file == "xtask/crates/").count();
    let files = count(made.files.len() - engine, "file") + if engine > 0 { " and the engine" } else { "" };
    match (made.what, &made.from_version) {
        ("new", _) => {
            let commit =
                made.commit.as_deref().map(|sha| format!(", commit {}", &sha[..7.min(sha.len())])).unwrap_or_default();
            format!("{path}: {} {}, {files}{commit}\n", made.name, would("made", "would be made"))
        }
        ("adopt", _) => format!("{path}: {} {} an xtask, {files}\n", made.name, would("has", "would get")),
        (_, _) if made.files.is_empty() => format!("{path} already has this engine, {}: nothing to do\n", made.version),
        (_, from) => {
            let from = from.as_deref().unwrap_or("unknown");
            format!("{path}: engine {from} {} {}\n", would("replaced by", "would be replaced by"), made.version)
        }
    }
}

/// A line of a script, shortened to a column.
fn shortened(line: &str) -> String {
    const ROOM: usize = 40;
    if line.chars().count() <= ROOM {
        return line.to_owned();
    }
    line.chars().take(ROOM - 1).collect::<String>() + "…"
}
