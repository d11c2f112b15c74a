//! Expands variables of an env from the environment of a deploy.

use crate::error::{Result, usage};

/// A piece of a text with variables in it.
enum Piece<'a> {
    /// Literal text.
    Plain(&'a str),
    /// `${NAME}` or `${NAME:-default}`.
    Variable { name: &'a str, default: Option<&'a str> },
}

/// Expands `${NAME}` and `${NAME:-default}` in `text`. Fails for an unset variable without a default.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Result<Option<String>>) -> Result<String> {
    let mut out = String::new();
    for piece in pieces(text)? {
        let (name, default) = match piece {
            Piece::Plain(text) => {
                out.push_str(text);
                continue;
            }
            Piece::Variable { name, default } => (name, default),
        };
        match lookup(name)?.filter(|value| !value.is_empty()).or_else(|| default.map(str::to_owned)) {
            Some(value) => out.push_str(&value),
            None => {
                return usage(format!("`{text}` needs the environment variable {name}, which is not set"))
                    .hint(format!(
                        "export {name}=..., add it to the env's CircleCI context, or write ${{{name}:-default}}"
                    ))
                    .err();
            }
        }
    }
    Ok(out)
}

/// Fails for ambiguous variables, without a lookup.
pub fn validate(text: &str) -> Result<()> {
    pieces(text).map(drop)
}

/// A default ends at the first `}`, so a `{` in a default is refused.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find("${") {
        pieces.push(Piece::Plain(&rest[..start]));
        let inner = &rest[start + 2..];
        let Some(end) = inner.find('}') else {
            return usage(format!("`{text}` has `${{` without `}}`")).hint("write ${NAME} or ${NAME:-default}").err();
        };
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        if inner[..end].contains('{') {
            return usage(format!("`{text}` has `{{` in a default, which would end at the first `}}`"))
                .hint(format!(
                    "write a default without braces in xtask/src/main.rs, or export {name} and write ${{{name}}}"
                ))
                .err();
        }
        pieces.push(Piece::Variable { name, default });
        rest = &inner[end + 1..];
    }
    pieces.push(Piece::Plain(rest));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, hint_of, kind_of};

    #[test]
    fn variables_are_filled_in() {
        let lookup = |name: &str| match name {
            "PORT" => Ok(Some("81".to_owned())),
            "EMPTY" => Ok(Some(String::new())),
            "BROKEN" => usage("it is not UTF-8").hint("set it again").err(),
            _ => Ok(None),
        };
        for (text, want) in [
            ("plain", "plain"),
            ("${PORT}", "81"),
            ("a${PORT}b${NO:-x y}", "a81bx y"),
            ("${EMPTY:-d}", "d"),
            ("$PORT {PORT}", "$PORT {PORT}"),
            ("${NO:-}", ""),
        ] {
            assert_eq!(expand(text, &lookup).unwrap(), want, "{text}");
        }
        for text in [
            "${A:-http://${B:-x}/y}",
            "${PORT:-http://${B:-x}/y}",
            "http://${A:-{host}}/",
            "${PORT:-{host}:80}",
            "${A:-$${B}}",
        ] {
            let error = expand(text, &lookup).unwrap_err();
            assert_eq!(kind_of(&error), Kind::Usage, "{text}");
            assert!(error.to_string().contains("has `{` in a default"), "{error}");
            assert!(hint_of(&error).unwrap().contains("main.rs"), "{text}");
        }
        assert!(expand("${NO}", &lookup).unwrap_err().to_string().contains("needs the environment variable NO"));
        assert!(expand("${BROKEN:-d}", &lookup).unwrap_err().to_string().contains("not UTF-8"));
        assert!(expand("${PORT", &lookup).unwrap_err().to_string().contains("without"));
    }
}
