//! What went wrong, in the words of the person who has to mend it.
//!
//! Inside the engine errors are `anyhow`. A [`CliError`] somewhere in the chain adds the two things that change
//! behaviour: the exit code that scripts rely on and the `hint:` line with the next command to type.

use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

/// What kind of failure it was. The discriminant is the documented exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing was changed, or everything was reverted.
    Failed = 1,
    /// The command line, the project or the checkout does not make sense.
    Usage = 2,
    /// A credential is missing, wrong or expired.
    Auth = 3,
    /// A remote service answered with an error.
    Remote = 4,
    /// The release, environment or file asked for does not exist.
    NotFound = 5,
    /// Somebody else is deploying.
    Locked = 6,
    /// Bytes are not what the manifest says.
    Verification = 7,
    /// The release is older than what is live, or something else is live than was expected.
    Stale = 8,
    /// A deploy failed and could not be reverted: a person has to look.
    RevertFailed = 9,
}

impl Kind {
    /// The kind that an exit code of our own stands for; any other code is [`Kind::Failed`].
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

/// An error with an exit code and, nearly always, a hint.
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

    /// Adds what to do next, as a command to type where there is one.
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

/// [`Kind::Usage`], the most frequent one.
pub fn usage(message: impl Into<String>) -> CliError {
    CliError::new(Kind::Usage, message)
}

/// [`Kind::NotFound`].
pub fn not_found(message: impl Into<String>) -> CliError {
    CliError::new(Kind::NotFound, message)
}

/// [`Kind::Failed`].
pub fn failed(message: impl Into<String>) -> CliError {
    CliError::new(Kind::Failed, message)
}

/// [`Kind::Verification`].
pub fn verification(message: impl Into<String>) -> CliError {
    CliError::new(Kind::Verification, message)
}

/// The kind of an error: that of the outermost [`CliError`] in its chain, [`Kind::Failed`] without one.
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

/// Gives an error from a library or the system its exit code and hint.
pub trait WithHint<T> {
    /// Keeps the whole chain as the message, so that nothing of the cause is lost.
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

/// A hint of whoever did not know in which env it would be followed says `ENV`; here somebody knows.
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

/// What a script said, and the hint that it gave in a last line of its own.
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
    fn a_hint_names_the_env_where_it_is_known() {
        let hint = "`cargo xtask rollback ENV`, or `plan ENV 1a2b`; $ENVIRONMENT stays";
        assert_eq!(in_env(hint, Some("prod")), "`cargo xtask rollback prod`, or `plan prod 1a2b`; $ENVIRONMENT stays");
        assert_eq!(in_env(hint, None), hint);
    }

    #[test]
    fn a_plain_error_is_exit_code_one_without_hint() {
        let error = anyhow::anyhow!("boom");
        assert_eq!((kind_of(&error) as u8, hint_of(&error)), (1, None));
    }
}
