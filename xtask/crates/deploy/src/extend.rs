//! Extensions of the engine in a project's `xtask/`: stores, targets, commands, and build steps.
//!
//! ```
//! use gangplank_deploy::extend::{Command, Extensions};
//! use gangplank_deploy::tool::Tool;
//! use gangplank_model::error::Result;
//!
//! const EXTENSIONS: Extensions = Extensions {
//!     commands: &[Command { name: "hello", about: "Greet everyone named", run: hello }],
//!     ..Extensions::NONE
//! };
//!
//! fn hello(tool: &Tool, words: &[String]) -> Result<String> {
//!     Ok(format!("{} greets {}\n", tool.project.app.name, words.join(" and ")))
//! }
//! ```
//!
//! `main.rs` then calls `gangplank::main_with(&PROJECT, &EXTENSIONS)`. Actions around a switch are
//! [`Hook`](gangplank_model::hook::Hook)s. docs/extending.md has an example of each.

use crate::host::Target;
use crate::store::Store;
use crate::tool::Tool;
use gangplank_model::error::{Result, usage};
use gangplank_system::context::Context;

/// The extensions of a project.
#[derive(Debug, Clone, Copy)]
pub struct Extensions {
    /// Kinds of stores: URL scheme and constructor.
    pub stores: &'static [(&'static str, OpenStore)],
    /// Kinds of targets: URL scheme and constructor. The constructor sends no request.
    pub targets: &'static [(&'static str, OpenTarget)],
    /// Commands, listed in `--help`.
    pub commands: &'static [Command],
    /// The steps at the start of every build, in order, on laptops and in CircleCI.
    pub steps: &'static [Step],
}

impl Extensions {
    /// No extensions.
    pub const NONE: Self = Self { stores: &[], targets: &[], commands: &[], steps: &[] };

    /// The command of that name.
    pub fn command(&self, name: &str) -> Option<&'static Command> {
        self.commands.iter().find(|own| own.name == name)
    }

    /// Fails for names that are invalid, duplicate, or among `ours`.
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

/// Opens a store by its URL.
pub type OpenStore = for<'ctx> fn(&'ctx Context, &str) -> Result<Box<dyn Store + 'ctx>>;

/// Opens a target by its URL. [`HostTarget`](crate::host::directory::HostTarget) supports anything that runs a shell.
pub type OpenTarget = for<'ctx> fn(&'ctx Context, &str) -> Result<Box<dyn Target + 'ctx>>;

/// The project's constructor for the scheme of a URL, if any.
pub fn own<Open: Copy>(kinds: &[(&str, Open)], url: Option<(&str, &str)>) -> Option<Open> {
    let (scheme, _) = url?;
    kinds.iter().find(|(own, _)| *own == scheme).map(|(_, open)| *open)
}

/// A command of the project.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// The name: `cargo xtask NAME`.
    pub name: &'static str,
    /// The line in `--help`.
    pub about: &'static str,
    /// Receives the words after the name, returns the text to print. The tool opens the project's stores and targets. An
    /// error is printed with the exit code and the hint of its [`CliError`](gangplank_model::error::CliError).
    pub run: fn(&Tool, &[String]) -> Result<String>,
}

/// A step of every build.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The name, printed when it runs.
    pub name: &'static str,
    /// Runs before anything is compiled or packed. Its output should be in `.gitignore`: an untracked file makes the
    /// tree, and so the release, dirty.
    pub run: fn(&Context) -> Result<()>,
}

fn names(what: &str, own: &[&str], ours: &[&str]) -> Result<()> {
    for (n, name) in own.iter().enumerate() {
        let word = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let reason = if !word {
            "is invalid: use lower-case letters, digits and `-`"
        } else if ours.contains(name) {
            "is a name of the engine: use another name"
        } else if own[..n].contains(name) {
            "is defined twice: use different names"
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
            Command { name, about: "", run: |_, _| Ok(String::new()) }
        }
        const CASES: &[(&[Command], &str)] = &[
            (&[called("hello"), called("hello-2")], ""),
            (&[called("deploy")], "the command `deploy` of this project is a name of the engine"),
            (&[called("help")], "the command `help` of this project is a name of the engine"),
            (&[called("a b")], "the command `a b` of this project is invalid"),
            (&[called("-n")], "the command `-n` of this project is invalid"),
            (&[called("hi"), called("hi")], "the command `hi` of this project is defined twice"),
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
