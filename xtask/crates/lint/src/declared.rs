//! Parameters as declared by a job, command, executor or pipeline, and the values that fit their types.

use crate::finding::Severity;
use crate::text;
use crate::yaml::{Node, Value};

/// One entry of `parameters:`.
pub(super) struct Declared<'a> {
    pub name: &'a str,
    pub default: Option<&'a Node>,
    kind: &'a str,
    choices: Option<Vec<&'a str>>,
}

/// The `parameters:` of a definition, or of the config itself.
pub(super) fn parameters(body: &Node) -> Vec<Declared<'_>> {
    let entries = body.get("parameters").map_or(&[][..], Node::entries);
    let declared = entries.iter().filter_map(|(name, body)| {
        let choices = body.get("enum").map(|it| it.items().iter().filter_map(Node::text).collect());
        let kind = body.get("type").and_then(Node::text).unwrap_or_default();
        Some(Declared { name: name.text()?, default: body.get("default"), kind, choices })
    });
    declared.collect()
}

impl Declared<'_> {
    /// CircleCI rejects a number as the argument for a string; for defaults and matrices this is undocumented.
    pub(crate) fn mismatch_severity(&self) -> Severity {
        if self.kind == "string" { Severity::Warning } else { Severity::Error }
    }

    pub(crate) fn is_required(&self) -> bool {
        self.default.is_none()
    }

    /// The expected value, if this one does not fit; `None` if it fits or is known only to CircleCI.
    pub fn mismatch(&self, value: &Node) -> Option<String> {
        let Value::Scalar { text, plain } = &value.value else {
            let is_list = !value.items().is_empty();
            let scalar = ["string", "boolean", "integer", "enum", "env_var_name"].contains(&self.kind);
            return scalar.then(|| format!("a {} and not a {}", self.kind, if is_list { "list" } else { "map" }));
        };
        if text::is_open(text) || value.is_null() {
            return None;
        }
        let is_number = *plain && is_integer(text);
        let is_bool = *plain && ["true", "false"].contains(&text.to_ascii_lowercase().as_str());
        let fits = match self.kind {
            "string" => !is_number && !is_bool,
            "integer" => is_number,
            "boolean" => *plain && is_boolean(text),
            "env_var_name" => is_variable(text),
            "enum" => match &self.choices {
                Some(choices) if !choices.is_empty() => {
                    if choices.contains(&text.as_str()) {
                        return None;
                    }
                    return Some(format!("one of {}", text::listed(choices)));
                }
                _ => true,
            },
            _ => true,
        };
        let quote = if *plain { "" } else { ", and this text is quoted" };
        (!fits).then(|| match self.kind {
            "string" => "a text: quote it".to_owned(),
            "env_var_name" => "the name of a variable: letters, digits and `_`".to_owned(),
            "integer" => format!("an integer{quote}"),
            kind => format!("a {kind}{quote}"),
        })
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

/// Booleans of YAML 1.1, which CircleCI uses.
fn is_boolean(text: &str) -> bool {
    ["true", "false", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str())
}

fn is_variable(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn value_fits_its_type_or_not() {
        let table = [
            ("string", "text", true),
            ("string", "'8'", true),
            ("string", "8", false),
            ("string", "true", false),
            ("string", "1.10", true),
            ("string", "''", true),
            ("string", "[a]", false),
            ("string", "{ a: b }", false),
            ("string", "<< pipeline.number >>", true),
            ("string", "~", true),
            ("integer", "8", true),
            ("integer", "-8", true),
            ("integer", "'8'", false),
            ("integer", "1.5", false),
            ("boolean", "yes", true),
            ("boolean", "False", true),
            ("boolean", "'true'", false),
            ("boolean", "maybe", false),
            ("env_var_name", "API_TOKEN", true),
            ("env_var_name", "$API_TOKEN", false),
            ("executor", "linux", true),
            ("executor", "{ name: linux }", true),
            ("steps", "[]", true),
            ("enum", "a", true),
            ("enum", "c", false),
            ("", "c", true),
        ];
        for (kind, value, fits) in table {
            let text = format!("parameters: {{ x: {{ type: '{kind}', enum: [a, b], default: {value} }} }}");
            let documents = yaml::parse(&text).unwrap();
            let declared = parameters(&documents[0]);
            let mismatch = declared[0].mismatch(declared[0].default.unwrap());
            assert_eq!(mismatch.is_none(), fits, "{kind} {value}: {mismatch:?}");
        }
    }
}
