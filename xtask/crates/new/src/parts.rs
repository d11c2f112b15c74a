//! The parts of the engine that a project can do without.

use gangplank_model::error::{Result, usage};
use gangplank_model::project::Handoff;
use gangplank_system::context::PARTS;
use std::collections::BTreeSet;
use std::path::Path;

/// A feature of the engine whose crate a copy may lack.
pub type Part = &'static str;

/// What `new` copies: `ci run` and `report`. The linter of handwritten configs is a seventh of the engine, and buckets
/// are of use only to those who have one.
pub const USUAL: [Part; 2] = ["html", "local-ci"];

/// The part of that name.
pub fn part(name: &str) -> Result<Part> {
    match PARTS.iter().find(|(part, _)| *part == name) {
        Some((part, _)) => Ok(part),
        None => {
            let names: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
            usage(format!("the engine has no part `{name}`")).hint(format!("use {}", names.join(", "))).err()
        }
    }
}

/// The parts of a copy: those of `before`, changed as wanted, and what a handoff needs.
pub fn parts(before: &[Part], with: &[Part], without: &[Part], handoff: Option<Handoff>) -> Result<BTreeSet<Part>> {
    if let Some(part) = with.iter().find(|part| without.contains(part)) {
        return usage(format!("`{part}` is both in --with and in --without")).hint("use one of them").err();
    }
    let mut all: BTreeSet<_> = before.iter().chain(with).filter(|part| !without.contains(part)).copied().collect();
    if without.contains(&"local-ci") && !with.contains(&"loopback") {
        // It serves local runs only.
        all.remove("loopback");
    }
    let needs = [
        (handoff == Some(Handoff::S3), "s3", "the handoff s3"),
        (handoff == Some(Handoff::Artifacts), "artifacts", "the handoff artifacts"),
        (handoff == Some(Handoff::Artifacts), "launch", "the handoff artifacts"),
        (handoff == Some(Handoff::Artifacts) && all.contains("local-ci"), "loopback", "`ci run` with artifacts"),
        (all.contains("loopback"), "local-ci", "`loopback`"),
    ];
    for (_, part, reason) in needs.into_iter().filter(|(is_needed, ..)| *is_needed) {
        if without.contains(&part) {
            return usage(format!("{reason} needs the part `{part}`")).hint(format!("omit --without {part}")).err();
        }
        all.insert(part);
    }
    Ok(all)
}

/// The parts of a project's copy in a directory. Older copies had some of them in other crates.
pub fn of_copy(engine: &Path) -> Vec<Part> {
    let has_parts = engine.join("deploy").is_dir() && !engine.join("deploy/src/store/object").is_dir();
    let has = |part: &str, dir: &str| {
        engine.join(dir).is_dir()
            || (!has_parts && (part == "s3" || USUAL.contains(&part)))
            || (part == "artifacts" && (!has_parts || engine.join("deploy/src/store/artifacts.rs").is_file()))
            || (part == "loopback" && (!has_parts || engine.join("local-ci/src/loopback").is_dir()))
    };
    PARTS.iter().filter(|(part, dir)| has(part, dir)).map(|(part, _)| *part).collect()
}

/// The directories of the crates that a copy with these parts lacks.
pub fn left_out(parts: &BTreeSet<Part>) -> Vec<&'static str> {
    PARTS.iter().filter(|(part, _)| !parts.contains(part)).map(|(_, dir)| *dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::hint_of;

    #[test]
    fn parts_are_the_usual_ones_as_changed_and_what_is_needed() {
        for (before, with, without, handoff, want) in [
            (&USUAL[..], &[][..], &[][..], Handoff::Workspace, "html local-ci"),
            (&USUAL, &["lint"], &["html"], Handoff::Workspace, "lint local-ci"),
            (&USUAL, &[], &["html", "local-ci"], Handoff::Workspace, ""),
            (&USUAL, &[], &[], Handoff::S3, "html local-ci s3"),
            (&USUAL, &[], &[], Handoff::Artifacts, "artifacts html launch local-ci loopback"),
            (&USUAL, &[], &["local-ci"], Handoff::Artifacts, "artifacts html launch"),
            (&USUAL, &[], &["local-ci", "loopback"], Handoff::Artifacts, "artifacts html launch"),
            (&[], &["loopback"], &[], Handoff::Workspace, "local-ci loopback"),
            (&["local-ci", "loopback"], &[], &["local-ci"], Handoff::Workspace, ""),
            (&["lint"], &[], &[], Handoff::Workspace, "lint"),
        ] {
            let parts = parts(before, with, without, Some(handoff)).unwrap();
            assert_eq!(parts.into_iter().collect::<Vec<_>>().join(" "), want, "{before:?} {with:?} {without:?}");
        }
    }

    #[test]
    fn parts_of_a_copy_are_its_crates_and_in_older_copies_also_what_had_no_crate() {
        for (dirs, want) in [
            (&["deploy"][..], ""),
            (&["deploy", "lint", "bucket"], "lint s3"),
            (&["deploy", "local-ci"], "local-ci"),
            (&["deploy", "local-ci/src/loopback"], "local-ci loopback"),
            (&["deploy/src/store/object", "local-ci", "lint"], "artifacts html lint local-ci loopback s3"),
            (&["gangplank"], "artifacts html local-ci loopback s3"),
        ] {
            let copy = tempfile::tempdir().unwrap();
            for dir in dirs {
                std::fs::create_dir_all(copy.path().join(dir)).unwrap();
            }
            assert_eq!(of_copy(copy.path()).join(" "), want, "{dirs:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (with, without, handoff, want) in [
            (&[][..], &["s3"][..], Handoff::S3, "the handoff s3 needs the part `s3`"),
            (&["lint"], &["lint"], Handoff::Workspace, "`lint` is both in --with and in --without"),
            (&["loopback"], &["local-ci"], Handoff::Workspace, "`loopback` needs the part `local-ci`"),
            (&[], &["loopback"], Handoff::Artifacts, "`ci run` with artifacts needs the part `loopback`"),
        ] {
            let error = parts(&USUAL, with, without, Some(handoff)).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
        let error = part("linter").unwrap_err();
        assert_eq!(hint_of(&error), Some("use artifacts, html, launch, lint, local-ci, loopback, s3, sign"));
    }
}
