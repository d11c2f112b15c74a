//! Parses `<< … >>` in a text like CircleCI: tags, sections, and `\<<` for a `<<` of the shell.
//!
//! The grammar is that of CircleCI's own replacer: a tag contains an expression up to the next `>>`, and a second `<<`
//! before it leaves the tag unclosed.

use crate::expression;

/// The maximum length.
const EXPRESSION_MAX: usize = 2048;

/// Why a text cannot be expanded, with a byte offset.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub at: usize,
    pub fault: Fault,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `<<` without `>>`.
    Unclosed,
    /// Nothing between `<<` and `>>`.
    Empty,
    /// The content is not an expression.
    Expression(String),
    /// A `<<# … >>` without its `<</ … >>`, or vice versa.
    Section,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Text(&'a str),
    Open,
    /// `<<#` and `<<^`.
    OpenSection,
    /// `<</`.
    CloseSection,
    Close,
}

/// The names in a text with their offsets; parsing ends at the first problem.
pub(super) fn read(text: &str) -> (Vec<(usize, &str)>, Option<Problem>) {
    let mut names = Vec::new();
    let problem = read_tags(&scan(text), &mut names).err();
    (names, problem)
}

fn read_tags<'a>(tokens: &[(usize, Token<'a>)], names: &mut Vec<(usize, &'a str)>) -> Result<(), Problem> {
    let mut sections: Vec<(usize, &str)> = Vec::new();
    let mut rest = tokens.iter().copied();
    while let Some((at, token)) = rest.next() {
        let problem = |fault| Err(Problem { at, fault });
        if matches!(token, Token::Text(_) | Token::Close) {
            continue;
        }
        let (start, body) = match rest.next() {
            Some((start, Token::Text(body))) => (start, body),
            Some((_, Token::Close)) => return problem(Fault::Empty),
            _ => return problem(Fault::Unclosed),
        };
        if !matches!(rest.next(), Some((_, Token::Close))) {
            return problem(Fault::Unclosed);
        }
        match token {
            Token::OpenSection => {
                sections.push((at, body.trim()));
                names.push((start, body.trim()));
            }
            Token::CloseSection => {
                if sections.pop().is_none_or(|(_, name)| name != body.trim()) {
                    return problem(Fault::Section);
                }
            }
            _ => names.extend(expression_names(body).map_err(|fault| Problem { at, fault })?.map(|it| (start, it))),
        }
    }
    match sections.pop() {
        Some((at, _)) => Err(Problem { at, fault: Fault::Section }),
        None => Ok(()),
    }
}

fn expression_names(body: &str) -> Result<impl Iterator<Item = &str>, Fault> {
    let inside = body.trim();
    let names = if inside.is_empty() {
        return Err(Fault::Empty);
    } else if body.chars().count() > EXPRESSION_MAX {
        return Err(Fault::Expression(format!("it is longer than {EXPRESSION_MAX} characters")));
    } else if is_include(inside) {
        Vec::new()
    } else if is_plain_name(inside) {
        // Names with characters outside the grammar are accepted as a whole.
        vec![inside]
    } else {
        let names = expression::names(inside).map_err(Fault::Expression)?;
        // A lone literal stands for itself: it may end a heredoc, `<<'EOF' >> file`.
        if names.is_empty() { vec![inside] } else { names }
    };
    Ok(names.into_iter())
}

/// `circleci config pack` expands `include(scripts/a.sh)` before the config is sent.
fn is_include(inside: &str) -> bool {
    inside.strip_prefix("include").is_some_and(|rest| rest.trim_start().starts_with('('))
}

fn is_plain_name(inside: &str) -> bool {
    let first = inside.split('.').next().unwrap_or_default();
    let is_word = |c: char| c.is_alphanumeric() || "_-".contains(c);
    let is_number = inside.chars().all(|c| c.is_ascii_digit());
    !is_number && !first.is_empty() && first.chars().all(is_word) && !inside.contains(char::is_whitespace)
}

fn scan(text: &str) -> Vec<(usize, Token<'_>)> {
    let mut tokens = Vec::new();
    let (mut at, mut plain) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let (skipped, token, length) = if rest.starts_with("\\\\<<") {
            (1, Some(tag(&rest[2..])), 2)
        } else if rest.starts_with("\\<<") {
            // Literal text, which ends an open tag.
            push_text(text, plain, at, &mut tokens);
            tokens.push((at, Token::Text(&rest[..3])));
            (at, plain) = (at + 3, at + 3);
            continue;
        } else if rest.starts_with("<<") {
            (0, Some(tag(rest)), 0)
        } else if rest.starts_with(">>") {
            (0, Some((Token::Close, 2)), 0)
        } else {
            (0, None, 0)
        };
        let Some((token, width)) = token else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        push_text(text, plain, at + skipped, &mut tokens);
        tokens.push((at + length, token));
        at += length + width;
        plain = at;
    }
    push_text(text, plain, text.len(), &mut tokens);
    tokens
}

fn tag(rest: &str) -> (Token<'static>, usize) {
    match rest.as_bytes().get(2) {
        Some(b'#' | b'^') => (Token::OpenSection, 3),
        Some(b'/') => (Token::CloseSection, 3),
        _ => (Token::Open, 2),
    }
}

fn push_text<'a>(text: &'a str, from: usize, to: usize, tokens: &mut Vec<(usize, Token<'a>)>) {
    if from < to {
        tokens.push((from, Token::Text(&text[from..to])));
    }
}

/// Whether a tag is a `<<` of the shell: `<<EOF`, `<<-'EOF'`, `<<<`.
pub(super) fn is_of_shell(text: &str, at: usize) -> bool {
    let rest = text[at..].trim_start_matches("<<");
    if rest.starts_with('<') {
        return true;
    }
    let word = rest.trim_start_matches(['-', '~']).trim_start_matches(' ').trim_start_matches(['"', '\'', '\\']);
    let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
    let (word, after) = word.split_at(end);
    let is_start = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_dotted = after.starts_with('.');
    let ends = |line: &str| line.trim() == word;
    is_start && !is_dotted && (after.lines().skip(1).any(ends) || word.chars().all(|c| !c.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> String {
        read(text).0.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn read_well_formed_text_yields_its_names() {
        let table = [
            ("no tags at all", ""),
            ("echo << parameters.name >>", "parameters.name"),
            ("<<parameters.a>>-<<  matrix.b\t>>", "parameters.a matrix.b"),
            ("<< pipeline.git.branch == \"main\" and pipeline.number > 10 >>", "pipeline.git.branch pipeline.number"),
            ("<< pipeline.parameters.url:with:colons >>", "pipeline.parameters.url:with:colons"),
            ("cat \\<<EOF", ""),
            ("cat \\<< << parameters.a >>", "parameters.a"),
            ("a \\\\<< parameters.a >>", "parameters.a"),
            ("echo done >> log.txt", ""),
            ("<<# parameters.debug >>set -x<</ parameters.debug >>", "parameters.debug"),
            ("<<^ parameters.debug >>é<</ parameters.debug >>", "parameters.debug"),
            ("<< include(scripts/a.sh) >>", ""),
        ];
        for (text, expected) in table {
            assert_eq!(read(text).1, None, "{text}");
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn read_malformed_text_yields_the_first_problem() {
        let table = [
            ("cat <<EOF > file", 4, Fault::Unclosed),
            ("jq . <<< \"$x\"", 5, Fault::Unclosed),
            ("echo << parameters.name", 5, Fault::Unclosed),
            ("a <<EOF\n<< parameters.x >>", 2, Fault::Unclosed),
            ("a <<EOF \\<< b >>", 2, Fault::Unclosed),
            ("echo <<>>", 5, Fault::Empty),
            ("echo << >>", 5, Fault::Empty),
            ("a<<", 1, Fault::Unclosed),
            ("<<# parameters.debug >>set -x", 0, Fault::Section),
            ("<<# a >>x<</ b >>", 9, Fault::Section),
            ("<</ b >>", 0, Fault::Section),
        ];
        for (text, at, fault) in table {
            assert_eq!(read(text).1, Some(Problem { at, fault }), "{text}");
        }
        for text in ["<< a and and b >>", "<< (a or b >>", "<< a & b >>", "<< a == \"open >>"] {
            assert!(matches!(read(text).1, Some(Problem { fault: Fault::Expression(_), .. })), "{text}");
        }
    }

    #[test]
    fn tag_of_a_shell_is_told_from_a_parameter() {
        for text in ["<<EOF\nx\nEOF", "<<-EOF", "<< 'EOF' >> file", "<<<\"$x\"", "<< end\na\n  end\n", "<<~\"A_1\""] {
            assert!(is_of_shell(text, 0), "{text}");
        }
        for text in ["<< parameters.x", "<< version >>", "<<", "<< 1", "<<é"] {
            assert!(!is_of_shell(text, 0), "{text}");
        }
    }
}
