//! What a project adds to the engine from its own `xtask/`: stores, targets, commands, and steps of a build.
//!
//! ```
//! use gangplank::context::Context;
//! use gangplank::error::Result;
//! use gangplank::extend::{Command, Extensions};
//! use gangplank::project::Project;
//!
//! const EXTENSIONS: Extensions = Extensions {
//!     commands: &[Command { name: "hello", about: "Greet whoever is named", run: hello }],
//!     ..Extensions::NONE
//! };
//!
//! fn hello(_: &Context, project: &Project, words: &[String]) -> Result<String> {
//!     Ok(format!("{} greets {}\n", project.app.name, words.join(" and ")))
//! }
//! ```
//!
//! `main.rs` then ends in `gangplank::main_with(&PROJECT, &EXTENSIONS)`. What is done around a switch is a
//! [`Hook`](gangplank_model::hook::Hook). docs/extending.md has one of each.

use crate::host::Target;
use crate::store::Store;
use gangplank_model::error::{Result, usage};
use gangplank_model::project::Project;
use gangplank_system::context::Context;

/// What a project adds.
#[derive(Debug, Clone, Copy)]
pub struct Extensions {
    /// Kinds of stores: the scheme of their URLs, and what opens one.
    pub stores: &'static [(&'static str, OpenStore)],
    /// Kinds of targets: the scheme of their URLs, and what opens one. Opening asks nobody.
    pub targets: &'static [(&'static str, OpenTarget)],
    /// Commands, beside ours in `--help`.
    pub commands: &'static [Command],
    /// What every build begins with, in this order, on laptops and in CircleCI.
    pub steps: &'static [Step],
}

impl Extensions {
    /// Nothing of its own.
    pub const NONE: Self = Self { stores: &[], targets: &[], commands: &[], steps: &[] };

    /// The command of that name.
    pub fn command(&self, name: &str) -> Option<&'static Command> {
        self.commands.iter().find(|own| own.name == name)
    }

    /// Names that cannot be typed, are there twice or are `ours`.
    pub fn validate(&self, ours: &[String]) -> Result<()> {
        let commands: Vec<_> = self.commands.iter().map(|own| own.name).collect();
        let ours: Vec<_> = ours.iter().map(String::as_str).chain(["help"]).collect();
        names("command", &commands, &ours)?;
        let stores: Vec<_> = self.stores.iter().map(|(scheme, _)| *scheme).collect();
        names("kind of store", &stores, &["file", "circleci", "s3", "gs", "az"])?;
        let targets: Vec<_> = self.targets.iter().map(|(scheme, _)| *scheme).collect();
        names("kind of target", &targets, &["file", "ssh"])
    }
}

/// Opens a store by its URL, which has the scheme.
pub type OpenStore = for<'ctx> fn(&'ctx Context, &str) -> Result<Box<dyn Store + 'ctx>>;

/// Opens a target by its URL, which has the scheme. [`HostTarget`](crate::host::directory::HostTarget) is one for whatever
/// runs a shell.
pub type OpenTarget = for<'ctx> fn(&'ctx Context, &str) -> Result<Box<dyn Target + 'ctx>>;

/// What opens a URL with this scheme, where the project has something that does.
pub fn own<Open: Copy>(kinds: &[(&str, Open)], url: Option<(&str, &str)>) -> Option<Open> {
    let (scheme, _) = url?;
    kinds.iter().find(|(own, _)| *own == scheme).map(|(_, open)| *open)
}

/// A command of the project's own.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// As it is typed: `cargo xtask NAME`.
    pub name: &'static str,
    /// A line for `--help`.
    pub about: &'static str,
    /// Is given the words after the name, and gives what is printed. An error is shown as ours are, with the exit code and
    /// the hint of its [`CliError`](gangplank_model::error::CliError).
    pub run: fn(&Context, &Project, &[String]) -> Result<String>,
}

/// A step of every build.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// What it is called while it runs.
    pub name: &'static str,
    /// Runs before anything is compiled or collected. What it writes should be in `.gitignore`: a file that git sees makes
    /// the tree, and so the release, a dirty one.
    pub run: fn(&Context) -> Result<()>,
}

fn names(what: &str, own: &[&str], ours: &[&str]) -> Result<()> {
    for (n, name) in own.iter().enumerate() {
        let word = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let reason = if !word {
            "cannot be typed: use small letters, digits and `-`"
        } else if ours.contains(name) {
            "is one of the engine's: give it another name"
        } else if own[..n].contains(name) {
            "is there twice: give each its own name"
        } else {
            continue;
        };
        let (wrong, hint) = reason.split_once(": ").unwrap_or((reason, reason));
        return usage(format!("the {what} `{name}` of this project {wrong}"))
            .hint(format!("{hint}; see xtask/src/main.rs"))
            .err();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::hint_of;

    #[test]
    fn names_are_new_and_can_be_typed() {
        const fn called(name: &'static str) -> Command {
            Command { name, about: "", run: |_, _, _| Ok(String::new()) }
        }
        const CASES: &[(&[Command], &str)] = &[
            (&[called("hello"), called("hello-2")], ""),
            (&[called("deploy")], "the command `deploy` of this project is one of the engine's"),
            (&[called("help")], "the command `help` of this project is one of the engine's"),
            (&[called("a b")], "the command `a b` of this project cannot be typed"),
            (&[called("-n")], "the command `-n` of this project cannot be typed"),
            (&[called("hi"), called("hi")], "the command `hi` of this project is there twice"),
        ];
        for (commands, want) in CASES {
            let error = Extensions { commands, ..Extensions::NONE }.validate(&["deploy".into()]).err();
            assert_eq!(error.as_ref().map(ToString::to_string).unwrap_or_default(), *want);
            assert!(error.is_none_or(|error| hint_of(&error).unwrap().contains("see xtask/src/main.rs")));
        }
        let stores = Extensions { stores: &[("s3", |_, _| panic!("not opened"))], ..Extensions::NONE };
        assert!(stores.validate(&[]).unwrap_err().to_string().contains("the kind of store `s3`"));
        let targets = Extensions { targets: &[("ssh", |_, _| panic!("not opened"))], ..Extensions::NONE };
        assert!(targets.validate(&[]).unwrap_err().to_string().contains("the kind of target `ssh`"));
    }
}
