//! Checks CircleCI's expressions: `pipeline.git.branch == "main" and not (a or b starts-with "x")`.
//!
//! Only the syntax is checked, by the grammar of CircleCI's library `expr`: values between operators, `not` before a
//! value, matching brackets. Names are not resolved.

/// A token of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// A literal.
    Value(&'a str),
    Name(&'a str),
    Operator(&'a str),
    Not(&'a str),
    Open,
    Close,
}

const OPERATORS: &[&str] = &["==", "!=", ">=", "<=", ">", "<"];
const WORDS: &[&str] = &["and", "or", "starts-with", "matches"];

/// The names in an expression, or a syntax error.
pub(super) fn names(text: &str) -> Result<Vec<&str>, String> {
    let tokens = scan(text)?;
    let mut names = Vec::new();
    let mut open = 0_usize;
    // Whether the next token must be a value.
    let mut wanted = true;
    for token in tokens {
        match (wanted, token) {
            (true, Token::Name(name)) => {
                names.push(name);
                wanted = false;
            }
            (true, Token::Value(_)) => wanted = false,
            (true, Token::Not(_)) => {}
            (true, Token::Open) => open += 1,
            (false, Token::Operator(_)) => wanted = true,
            (false, Token::Close) => {
                open = open.checked_sub(1).ok_or_else(|| "a `)` closes nothing".to_owned())?;
            }
            (true, Token::Operator(text)) => return Err(format!("a value is missing before `{text}`")),
            (true, Token::Close) => return Err("a value is missing before `)`".to_owned()),
            (false, Token::Name(text) | Token::Value(text) | Token::Not(text)) => {
                return Err(format!("an operator is missing before `{text}`"));
            }
            (false, Token::Open) => return Err("an operator is missing before `(`".to_owned()),
        }
    }
    if wanted {
        return Err("a value is missing at the end".to_owned());
    }
    if open > 0 {
        return Err("a `(` is not closed".to_owned());
    }
    Ok(names)
}

fn scan(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '"' | '\'' => quoted(rest, first).map(|length| (Token::Value(&rest[..length]), length))?,
            '/' => quoted(rest, '/').map(|length| (Token::Value(&rest[..length]), length))?,
            c if c.is_ascii_digit() => {
                let length = length_of(rest, |c| c.is_ascii_alphanumeric() || "._-".contains(c));
                let number = &rest[..length];
                if !number.chars().all(|c| c.is_ascii_digit()) {
                    return Err(format!("`{number}` is neither a number nor a name: quote a text"));
                }
                (Token::Value(number), length)
            }
            c if c.is_ascii_alphabetic() => {
                let length = length_of(rest, |c| c.is_ascii_alphanumeric() || "._-".contains(c));
                (word(&rest[..length])?, length)
            }
            _ => match OPERATORS.iter().find(|it| rest.starts_with(**it)) {
                Some(operator) => (Token::Operator(operator), operator.len()),
                None if first == '!' => (Token::Not("!"), 1),
                None if first == '=' => return Err("`=` is not an operator: write `==`".to_owned()),
                None if rest.starts_with("&&") => return Err("`&&` is not an operator: write `and`".to_owned()),
                None if rest.starts_with("||") => return Err("`||` is not an operator: write `or`".to_owned()),
                None => return Err(format!("`{first}` is not allowed in an expression")),
            },
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn word(text: &str) -> Result<Token<'_>, String> {
    match text {
        "true" | "false" => Ok(Token::Value(text)),
        "not" => Ok(Token::Not(text)),
        _ if WORDS.contains(&text) => Ok(Token::Operator(text)),
        _ if text.contains("..") || text.ends_with('.') => Err(format!("`{text}` has an empty part between its dots")),
        _ => Ok(Token::Name(text)),
    }
}

fn length_of(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// The length of a quoted text, including its quotes.
fn quoted(text: &str, quote: char) -> Result<usize, String> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Ok(at + c.len_utf8()),
            _ => {}
        }
    }
    Err(format!("a `{quote}` is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_expression_yields_its_names() {
        let table = [
            ("true", ""),
            ("pipeline.git.branch == \"main\"", "pipeline.git.branch"),
            ("pipeline.git.branch == 'main'", "pipeline.git.branch"),
            ("a and not b or not (c != 12)", "a b c"),
            ("not not a", "a"),
            ("!a", "a"),
            ("pipeline.git.tag matches /^v\\/[0-9]+$/ and x", "pipeline.git.tag x"),
            ("a starts-with \"say \\\"x\\\"\"", "a"),
            ("a>=1 and b<2", "a b"),
            ("pipeline.parameters.a-b_c", "pipeline.parameters.a-b_c"),
            ("((((a))))", "a"),
        ];
        for (text, expected) in table {
            assert_eq!(names(text).map(|names| names.join(" ")).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn read_malformed_expression_says_what_is_wrong() {
        let table = [
            ("", "a value is missing at the end"),
            ("a ==", "a value is missing at the end"),
            ("a and and b", "a value is missing before `and`"),
            ("== a", "a value is missing before `==`"),
            ("a = \"main\"", "`=` is not an operator: write `==`"),
            ("a && b", "`&&` is not an operator: write `and`"),
            ("a || b", "`||` is not an operator: write `or`"),
            ("(a or b", "a `(` is not closed"),
            ("a)", "a `)` closes nothing"),
            ("()", "a value is missing before `)`"),
            ("a b", "an operator is missing before `b`"),
            ("a not b", "an operator is missing before `not`"),
            ("a (b)", "an operator is missing before `(`"),
            ("a == \"main", "a `\"` is not closed"),
            ("a == 1.2", "`1.2` is neither a number nor a name: quote a text"),
            ("a..b", "`a..b` has an empty part between its dots"),
            ("a & b", "`&` is not allowed in an expression"),
            ("é", "`é` is not allowed in an expression"),
        ];
        for (text, fault) in table {
            assert_eq!(names(text).unwrap_err(), fault, "{text}");
        }
    }
}
