//! Finds new files that git would ignore because of an existing rule.

use crate::git::Ignored;
use gangplank_model::error::{Result, usage};

/// Represents the engine's directory, which has a `.gitignore` of its own.
const ENGINE: &str = "xtask/crates/gangplank/Cargo.toml";

/// The consequences of ignored paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Forced {
    /// Files that need `git add --force`.
    pub files: Vec<String>,
    /// Notes about them.
    pub notes: Vec<String>,
}

/// The paths to ask git about.
pub fn asked(written: &[String]) -> Vec<String> {
    // The lock file of the xtask is covered by a `.gitignore` of its own.
    let own = |path: &&String| *path != "xtask/Cargo.lock" && *path != ".gitignore";
    let one = |path: &String| if path == "xtask/crates/" { ENGINE.to_owned() } else { path.clone() };
    let lock = written.iter().all(|path| path != "Cargo.lock").then(|| "Cargo.lock".to_owned());
    written.iter().filter(own).map(one).chain(lock).collect()
}

/// Decides which ignored files to force. An xtask cannot be forced, because its build output must stay ignored; nor an
/// existing cargo configuration, which may have secrets.
pub fn judge(ignored: &[Ignored], is_there: &dyn Fn(&str) -> bool) -> Result<Forced> {
    let mut forced = Forced::default();
    for Ignored { path, at, rule } in ignored {
        if path.starts_with("xtask/") {
            return usage(format!("git ignores {path}: {at} says `{rule}`"))
                .hint(format!(
                    "change that line, or add `!/xtask/` below it, until `git check-ignore {path}` prints nothing"
                ))
                .err();
        }
        if path.starts_with(".cargo/") && is_there(path) {
            return usage(format!("git ignores {path}, and every job needs its alias: {at} says `{rule}`"))
                .hint("move its private settings to ~/.cargo/config.toml, then remove that line")
                .err();
        }
        let reason = if path == "Cargo.lock" { ", and the jobs build with --locked" } else { "" };
        forced.notes.push(format!("git ignores {path}{reason}: {at} says `{rule}`, so it needs `git add --force`"));
        forced.files.push(path.clone());
    }
    Ok(forced)
}

/// A `.gitignore` with a line for each directory that lacks one; `None` if none is missing.
pub fn with_dirs(text: &str, dirs: &[String]) -> Option<String> {
    let ignores = |dir: &str| {
        text.lines().any(|line| {
            let line = line.trim();
            let line = line.strip_suffix('/').unwrap_or(line);
            line.strip_prefix("**/").or(line.strip_prefix('/')).unwrap_or(line) == dir
        })
    };
    let missing: Vec<_> = dirs.iter().filter(|dir| !ignores(dir)).collect();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let lines: String = missing.iter().map(|dir| format!("/{dir}\n")).collect();
    (!missing.is_empty()).then(|| format!("{text}{end}{lines}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_files_are_forced_or_refused() {
        for (path, is_there, is_forced, says) in [
            ("Cargo.lock", true, true, "build with --locked: .gitignore:2 says `rule`"),
            ("Cargo.lock", false, true, "git ignores Cargo.lock"),
            (".circleci/config.yml", true, true, "git ignores .circleci/config.yml: .gitignore:2"),
            (".cargo/config.toml", false, true, "`git add --force`"),
            (".cargo/config.toml", true, false, "every job needs its alias"),
            ("xtask/src/main.rs", false, false, "git ignores xtask/src/main.rs"),
            (ENGINE, false, false, "git ignores xtask/crates/gangplank/Cargo.toml"),
        ] {
            let ignored = Ignored { path: path.into(), at: ".gitignore:2".into(), rule: "rule".into() };
            match judge(&[ignored], &|_| is_there) {
                Ok(forced) => {
                    assert!(
                        is_forced && forced.files == [path] && forced.notes[0].contains(says),
                        "{path}: {forced:?}"
                    );
                }
                Err(error) => assert!(!is_forced && error.to_string().contains(says), "{path}: {error}"),
            }
        }
        assert_eq!(judge(&[], &|_| true).unwrap(), Forced::default());
    }

    #[test]
    fn directories_without_a_line_get_one() {
        let dirs = ["target", "out/cargo"].map(str::to_owned);
        for (before, after) in [
            ("", Some("/target\n/out/cargo\n")),
            ("*.log", Some("*.log\n/target\n/out/cargo\n")),
            ("target\n", Some("target\n/out/cargo\n")),
            ("**/target/\n out/cargo/ \n", None),
            ("/target/\r\n/out/cargo\r\n", None),
            ("targets\n/out/cargo\n", Some("targets\n/out/cargo\n/target\n")),
        ] {
            assert_eq!(with_dirs(before, &dirs).as_deref(), after, "{before:?}");
        }
    }

    #[test]
    fn asked_files_are_those_without_a_line_of_their_own() {
        let written = [".gitignore", "xtask/Cargo.lock", "xtask/Cargo.toml", "xtask/crates/"].map(str::to_owned);
        assert_eq!(asked(&written), ["xtask/Cargo.toml", ENGINE, "Cargo.lock"]);
    }
}
