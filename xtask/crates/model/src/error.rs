//! Errors with exit codes and hints.
//!
//! Inside the engine, errors are `anyhow`. A [`CliError`] in the chain adds the exit code that scripts rely on, and the
//! `hint:` line with the next command to run.

use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

/// The kind of a failure. The discriminant is the documented exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing was changed, or everything was reverted.
    Failed = 1,
    /// The command line, the project or the checkout is invalid.
    Usage = 2,
    /// A credential is missing, wrong or expired.
    Auth = 3,
    /// A remote service answered with an error.
    Remote = 4,
    /// The release, environment or file asked for does not exist.
    NotFound = 5,
    /// Another command holds the lock.
    Locked = 6,
    /// Bytes do not match the manifest.
    Verification = 7,
    /// The release is older than the live one, or an unexpected release is live.
    Stale = 8,
    /// A deploy failed and could not be reverted; manual repair is needed.
    RevertFailed = 9,
}

impl Kind {
    /// The kind of one of our exit codes; any other code is [`Kind::Failed`].
    pub fn from_code(code: Option<i32>) -> Self {
        let all = [
            Self::Usage,
            Self::Auth,
            Self::Remote,
            Self::NotFound,
            Self::Locked,
            Self::Verification,
            Self::Stale,
            Self::RevertFailed,
        ];
        all.into_iter().find(|kind| Some(*kind as i32) == code).unwrap_or(Self::Failed)
    }
}

/// An error with an exit code and usually a hint.
#[derive(Debug)]
pub struct CliError {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl CliError {
    /// A failure of `kind`; `message` says what failed, on what path, URL or host.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Adds the next step, as a command where possible.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Shorthand for `return failure.err()`.
    pub fn err<T>(self) -> Result<T> {
        Err(self.into())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

/// A [`Kind::Usage`] error.
pub fn usage(message: impl Into<String>) -> CliError {
    CliError::new(Kind::Usage, message)
}

/// A [`Kind::NotFound`] error.
pub fn not_found(message: impl Into<String>) -> CliError {
    CliError::new(Kind::NotFound, message)
}

/// A [`Kind::Failed`] error.
pub fn failed(message: impl Into<String>) -> CliError {
    CliError::new(Kind::Failed, message)
}

/// A [`Kind::Verification`] error.
pub fn verification(message: impl Into<String>) -> CliError {
    CliError::new(Kind::Verification, message)
}

/// The kind of the outermost [`CliError`] in the chain; [`Kind::Failed`] if there is none.
pub fn kind_of(error: &anyhow::Error) -> Kind {
    find(error).map_or(Kind::Failed, |failure| failure.kind)
}

/// The hint of the outermost [`CliError`] that has one.
pub fn hint_of(error: &anyhow::Error) -> Option<&str> {
    error.chain().filter_map(|cause| cause.downcast_ref::<CliError>()).find_map(|failure| failure.hint.as_deref())
}

fn find(error: &anyhow::Error) -> Option<&CliError> {
    error.downcast_ref::<CliError>().or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
}

/// Adds an exit code and a hint to an error of a library or the system.
pub trait WithHint<T> {
    /// The whole chain becomes part of the message, so that no cause is lost.
    fn with_hint(self, kind: Kind, what: impl FnOnce() -> String, hint: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> WithHint<T> for Result<T, E> {
    fn with_hint(self, kind: Kind, what: impl FnOnce() -> String, hint: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| {
            let cause: anyhow::Error = cause.into();
            CliError::new(kind, format!("{}: {cause:#}", what())).hint(hint()).into()
        })
    }
}

/// The text with guides (`docs/hosts.md`) named below `dir`, where this project has them.
pub fn with_guides(text: &str, dir: &str) -> String {
    format!(" {text}").replace(" docs/", &format!(" {dir}/")).split_off(1)
}

/// Replaces `ENV` in a hint by the env of the command.
pub fn in_env(hint: &str, env: Option<&str>) -> String {
    match env {
        Some(env) => {
            let known = |word: &str| word.trim_matches(['`', ',', ';', ':', '.']) == "ENV";
            let words =
                hint.split(' ').map(|word| if known(word) { word.replace("ENV", env) } else { word.to_owned() });
            words.collect::<Vec<_>>().join(" ")
        }
        None => hint.to_owned(),
    }
}

/// Splits the output of a script into its text and the hint in its last line.
pub fn split_hint(said: &str) -> (&str, Option<&str>) {
    match said.trim_end().rsplit_once("hint: ") {
        Some((said, hint)) if !hint.contains('\n') && (said.is_empty() || said.ends_with('\n')) => {
            (said.trim(), Some(hint))
        }
        _ => (said.trim(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn kind_and_hint_survive_context() {
        let error = usage("no env `stage`").hint("use dev or prod").err::<()>().context("cannot deploy").unwrap_err();
        assert_eq!(kind_of(&error), Kind::Usage);
        assert_eq!(hint_of(&error), Some("use dev or prod"));
        assert_eq!(format!("{error:#}"), "cannot deploy: no env `stage`");
    }

    #[test]
    fn hint_names_the_env_where_it_is_known() {
        let hint = "`cargo xtask rollback ENV`, or `plan ENV 1a2b`; $ENVIRONMENT stays";
        assert_eq!(in_env(hint, Some("prod")), "`cargo xtask rollback prod`, or `plan prod 1a2b`; $ENVIRONMENT stays");
        assert_eq!(in_env(hint, None), hint);
    }

    #[test]
    fn plain_error_is_exit_code_one_without_hint() {
        let error = anyhow::anyhow!("boom");
        assert_eq!((kind_of(&error) as u8, hint_of(&error)), (1, None));
    }
}
