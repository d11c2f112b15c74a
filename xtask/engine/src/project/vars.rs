//! Variables of an env whose values come from where a deploy runs.

use crate::error::{Result, usage};

/// Fills `${NAME}` and `${NAME:-default}` in `text` from `lookup`.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let Some(end) = inner.find('}') else {
            return usage(format!("`{text}` has `${{` without `}}`")).hint("write ${NAME} or ${NAME:-default}").err();
        };
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (&inner[..end], None),
        };
        match lookup(name).filter(|value| !value.is_empty()).or(default) {
            Some(value) => out.push_str(&value),
            None => {
                return usage(format!("`{text}` needs the environment variable {name}, which is not set"))
                    .hint(format!(
                        "export {name}=..., put it in the env's CircleCI context, or write ${{{name}:-default}}"
                    ))
                    .err();
            }
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let lookup = |name: &str| match name {
            "PORT" => Some("81".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
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
        assert!(expand("${NO}", &lookup).unwrap_err().to_string().contains("needs the environment variable NO"));
        assert!(expand("${PORT", &lookup).unwrap_err().to_string().contains("without"));
    }
}
