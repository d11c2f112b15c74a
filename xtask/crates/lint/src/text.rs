//! Helpers for texts: `<< >>` expressions, words of a name, directories, and the nearest name to a misspelt one.

use std::collections::BTreeMap;

/// The known parameters of a job or command.
pub(super) type Parameters = BTreeMap<String, String>;

/// The default working directory of a job.
pub(super) const DEFAULT_DIRECTORY: &str = "~/project";

/// Bounds the growth of texts by nested parameters.
const FILLED_MAX: usize = 4096;

/// Whether a text contains an unexpanded expression.
pub(super) fn is_open(text: &str) -> bool {
    text.contains("<<")
}

/// The contents of all `<< … >>`. `\<<` is an escaped `<<` of the shell.
pub(super) fn expressions(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(|piece| match piece {
        Piece::Expression { inside, .. } => Some(inside),
        Piece::Plain(_) => None,
    })
}

/// The text without its `<< … >>`.
pub(super) fn without_expressions(text: &str) -> String {
    pieces(text)
        .filter_map(|piece| match piece {
            Piece::Plain(plain) => Some(plain),
            Piece::Expression { .. } => None,
        })
        .collect()
}

/// Expands known parameters; others stay.
pub(super) fn fill(text: &str, parameters: &Parameters) -> String {
    fill_by(text, |inside| inside.strip_prefix("parameters.").and_then(|name| parameters.get(name)).map(String::as_str))
}

/// Expands `<< … >>` with any source of values.
pub(super) fn fill_by<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut filled = String::new();
    for piece in pieces(text) {
        let part = match piece {
            Piece::Plain(plain) => plain,
            Piece::Expression { whole, inside } => value(inside).unwrap_or(whole),
        };
        filled.push_str(part);
        if filled.len() > FILLED_MAX {
            return text.to_owned();
        }
    }
    filled
}

enum Piece<'a> {
    Plain(&'a str),
    Expression { whole: &'a str, inside: &'a str },
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, left) = first_piece(rest);
        rest = left;
        Some(piece)
    })
}

fn first_piece(text: &str) -> (Piece<'_>, &str) {
    let escaped = |start: usize| text[..start].ends_with('\\');
    let Some(start) = text.match_indices("<<").map(|(at, _)| at).find(|&at| !escaped(at)) else {
        return (Piece::Plain(text), "");
    };
    if start > 0 {
        return (Piece::Plain(&text[..start]), &text[start..]);
    }
    match text.find(">>") {
        None => (Piece::Plain(text), ""),
        Some(end) => {
            let (whole, left) = text.split_at(end + 2);
            (Piece::Expression { whole, inside: text[2..end].trim() }, left)
        }
    }
}

/// Longer texts are not compared.
const COMPARED_MAX: usize = 512;

/// Whether two texts may be equal after CircleCI's expansion.
pub(super) fn may_equal(one: &str, other: &str) -> bool {
    if !is_open(one) && !is_open(other) {
        return one == other;
    }
    let (one, other) = (letters(one), letters(other));
    if one.len().max(other.len()) > COMPARED_MAX {
        return true;
    }
    // `row[n]`: whether the prefix of `one` read so far may equal the first n characters of `other`.
    let mut row: Vec<bool> = (0..=other.len()).map(|n| other[..n].iter().all(Option::is_none)).collect();
    for letter in &one {
        let mut next = vec![letter.is_none() && row[0]];
        for (n, against) in other.iter().enumerate() {
            next.push(match (letter, against) {
                (Some(a), Some(b)) => row[n] && a == b,
                (None, Some(_)) => row[n + 1] || next[n],
                (_, None) => row[n + 1] || next[n] || row[n],
            });
        }
        row = next;
    }
    row.last() == Some(&true)
}

/// The characters of a text, with `None` for each expression.
fn letters(text: &str) -> Vec<Option<char>> {
    let mut letters = Vec::new();
    for piece in pieces(text) {
        match piece {
            Piece::Plain(plain) => letters.extend(plain.chars().map(Some)),
            Piece::Expression { .. } => letters.push(None),
        }
    }
    letters
}

/// Whether a path certainly names one file: it ends like a file, and has no pattern or expression.
pub(super) fn is_one_file(path: &str) -> bool {
    const ENDS: &[&str] = &[
        "7z", "aab", "apk", "bz2", "css", "csv", "deb", "dmg", "env", "exe", "gz", "html", "ipa", "jar", "js", "json",
        "lock", "log", "md", "msi", "pdf", "pkg", "rpm", "sh", "sha256", "sql", "sqlite", "tar", "tgz", "txt", "war",
        "whl", "xml", "xz", "yaml", "yml", "zip", "zst",
    ];
    let last = path.rsplit('/').next().unwrap_or(path);
    let end = last.rsplit_once('.').filter(|(name, _)| !name.is_empty()).map(|(_, end)| end);
    !is_open(path) && !path.contains(['*', '?', '[', '{', '$']) && end.is_some_and(|end| ENDS.contains(&end))
}

/// The name after every `pipeline.parameters.`.
pub(super) fn pipeline_parameters(text: &str) -> impl Iterator<Item = &str> {
    text.split("pipeline.parameters.").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// The first shell variable in a text: `$NAME`, `${NAME}` or `$(command)`.
pub(super) fn variable(text: &str) -> Option<String> {
    let plain = without_expressions(text);
    let (start, _) = plain
        .match_indices('$')
        .find(|(at, _)| plain[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || "_{(".contains(c)))?;
    let rest = &plain[start..];
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let closed = |bracket| rest.find(bracket).map(|at| at + 1);
    let end = match rest.as_bytes().get(1) {
        Some(b'{') => closed('}'),
        Some(b'(') => closed(')'),
        _ => rest[1..].find(|c| !is_name(c)).map(|at| at + 1),
    };
    Some(rest[..end.unwrap_or(rest.len())].to_owned())
}

fn words(name: &str) -> impl Iterator<Item = String> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase)
}

/// Whether a name or command is about a deploy: `deploy-dev`, `./release.sh`, `publish crate`.
pub(super) fn says_deploy(name: &str) -> bool {
    let verbs = ["deploy", "release", "publish", "rollback"];
    words(name).any(|word| verbs.iter().any(|verb| word.starts_with(verb)))
}

/// Whether a name changes a running version. Packages may be published concurrently, versions must be deployed in
/// order.
pub(super) fn says_install(name: &str) -> bool {
    words(name).any(|word| word.starts_with("deploy") || word.starts_with("rollback"))
}

/// Whether a name is about a build. Only its first word counts: `build-release` builds, `release-build` releases.
pub(super) fn says_build(name: &str) -> bool {
    starts_with_one_of(name, &["build", "compile", "bundle", "package", "assemble"])
}

/// Whether a name is about a check, by its first word: `test-deploy-scripts` does not deploy.
pub(super) fn says_check(name: &str) -> bool {
    starts_with_one_of(name, &["test", "check", "lint", "verify", "validate", "plan", "dry"])
}

fn starts_with_one_of(name: &str, verbs: &[&str]) -> bool {
    words(name).next().is_some_and(|word| verbs.iter().any(|verb| word.starts_with(verb)))
}

/// A directory in normal form; `None` if it is known only to CircleCI.
///
/// Relative paths start at `base`. The home directories of the usual images are all written `~`, so that
/// `/home/circleci/project` equals `~/project`.
pub(super) fn directory(path: &str, base: Option<&str>) -> Option<String> {
    if is_open(path) || path.contains('$') {
        return None;
    }
    let whole = if path.starts_with(['/', '~']) { path.to_owned() } else { format!("{}/{path}", base?) };
    let home = ["/home/circleci", "/root"]
        .iter()
        .find_map(|home| whole.strip_prefix(home).filter(|rest| rest.is_empty() || rest.starts_with('/')));
    let whole = home.map_or(whole.clone(), |rest| format!("~{rest}"));
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let from_home = parts.first().is_some_and(|first| first.starts_with('~'));
    Some(if from_home { parts.join("/") } else { format!("/{}", parts.join("/")) })
}

/// Whether `inner` is `outer` or inside it. Both are results of [`directory`].
pub(super) fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A relative path without `./`, double slashes and a trailing slash.
pub(super) fn tidy(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
    let start = if path.starts_with('/') { "/" } else { "" };
    format!("{start}{}", parts.join("/"))
}

/// The end of a hint: ``; did you mean `x`?``; empty if no candidate is near.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let near = candidates
        .filter(|candidate| *candidate != name && candidate.len().max(name.len()) <= 64)
        .map(|candidate| (if is_shuffled(name, candidate) { 1 } else { distance(name, candidate) }, candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min();
    near.map_or(String::new(), |(_, candidate)| format!("; did you mean `{candidate}`?"))
}

/// The most common typo: transposed letters.
fn is_shuffled(a: &str, b: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    sorted(a) == sorted(b)
}

/// The Levenshtein distance, one row of the table at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

/// `a`, `b` and `c`, each in backquotes.
pub(super) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// The first name and the number of others: `` `a` and 2 more ``.
pub(super) fn first_and_count<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("`{}`", one.as_ref()),
        [first, more @ ..] => format!("`{}` and {} more", first.as_ref(), more.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_written_out_where_known() {
        let known = Parameters::from([("dir".to_owned(), "/tmp".to_owned())]);
        let table = [
            ("<< parameters.dir >>/x", "/tmp/x"),
            ("<<parameters.dir>><< parameters.no >>", "/tmp<< parameters.no >>"),
            ("cat \\<<EOF << parameters.dir >>", "cat \\<<EOF /tmp"),
            ("<< parameters.dir", "<< parameters.dir"),
            ("<<>>é<<", "<<>>é<<"),
        ];
        for (text, filled) in table {
            assert_eq!(fill(text, &known), filled);
        }
        assert_eq!(without_expressions("a/<< pipeline.id >>/b"), "a//b");
    }

    #[test]
    fn open_texts_may_be_equal() {
        let table = [
            ("a", "a", true),
            ("a", "b", false),
            ("<< x >>-build", "linux-build", true),
            ("<< x >>-build", "linux", false),
            ("build-<< x >>", "build-", true),
            ("a<< x >>c<< y >>", "abbcd", true),
            ("a<< x >>", "<< y >>b", true),
            ("a<< x >>", "b<< y >>", false),
            ("<< x >>", "", true),
        ];
        for (one, other, equal) in table {
            assert_eq!(may_equal(one, other), equal, "{one} {other}");
            assert_eq!(may_equal(other, one), equal, "{other} {one}");
        }
    }

    #[test]
    fn is_one_file_accepts_names_with_an_extension() {
        for path in ["app.tar.gz", "out/report.json", "a.b/c.zip"] {
            assert!(is_one_file(path), "{path}");
        }
        for path in ["dist", "dist/", "*.json", ".env", "v1.2", "a.json/b", "<< x >>.json", "a.json/", "$X.zip"] {
            assert!(!is_one_file(path), "{path}");
        }
    }

    #[test]
    fn directories_compare_by_place() {
        let table = [
            ("/tmp/./workspace/", Some("/tmp/workspace")),
            ("workspace", Some("~/project/workspace")),
            ("../x", Some("~/x")),
            ("~", Some("~")),
            ("/home/circleci/project", Some("~/project")),
            ("/root", Some("~")),
            ("/rooted", Some("/rooted")),
            ("/../..", Some("/")),
            ("<< x >>", None),
            ("$HOME/x", None),
        ];
        for (path, place) in table {
            assert_eq!(directory(path, Some("~/project")).as_deref(), place, "{path}");
        }
        assert_eq!(directory("x", None), None);
        assert!(is_within("/tmp/a", "/tmp") && is_within("/tmp", "/tmp") && is_within("/tmp", "/"));
        assert!(!is_within("/tmpa", "/tmp") && !is_within("/tmp", "/tmp/a"));
    }

    #[test]
    fn names_say_what_a_job_does() {
        for name in ["deploy-dev", "aws/deploy", "deployment", "Release", "./publish.sh"] {
            assert!(says_deploy(name), "{name}");
        }
        for name in ["undeploy", "build", "prerelease"] {
            assert!(!says_deploy(name), "{name}");
        }
        assert!(says_build("build-release") && !says_build("release-build"));
    }

    #[test]
    fn variables_are_found_and_pipeline_values_are_not() {
        assert_eq!(variable("/tmp/$CIRCLE_SHA1/x"), Some("$CIRCLE_SHA1".to_owned()));
        assert_eq!(variable("/tmp/$CIRCLE_SHA1-<< parameters.x >>.zip"), Some("$CIRCLE_SHA1".to_owned()));
        assert_eq!(variable("${HOME}/x"), Some("${HOME}".to_owned()));
        assert_eq!(variable("/tmp/<< pipeline.id >>"), None);
        assert_eq!(variable("a$"), None);
        assert_eq!(variable("a$.txt"), None);
    }

    #[test]
    fn near_names_are_suggested() {
        let jobs = || ["build", "deploy-dev", "deploy-prod"].into_iter();
        assert_eq!(did_you_mean("biuld", jobs()), "; did you mean `build`?");
        assert_eq!(did_you_mean("deploy-dve", jobs()), "; did you mean `deploy-dev`?");
        assert_eq!(did_you_mean("evn", ["env"].into_iter()), "; did you mean `env`?");
        assert_eq!(did_you_mean("hold", jobs()), "");
    }
}
