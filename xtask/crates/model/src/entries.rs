//! Describes how the entries of an installed release differ from its manifest.

use std::collections::BTreeMap;

/// A differing entry: the expected kind and the kind found.
#[derive(Default)]
struct Difference<'a> {
    missing: Option<&'a str>,
    extra: Option<&'a str>,
}

/// One line per path, from the output of `compare` (see `script::verify`).
pub fn differences(lines: &str) -> Vec<String> {
    let mut odd: BTreeMap<&str, Difference> = BTreeMap::new();
    for line in lines.lines() {
        let mut fields = line.splitn(3, '\t');
        let (Some(which), Some(kind), Some(rest)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let path = if kind == "link" { rest.split('\t').next().unwrap_or(rest) } else { rest };
        let entry = odd.entry(path.strip_prefix("./").unwrap_or(path)).or_default();
        match which {
            "missing" => entry.missing = Some(kind),
            _ => entry.extra = Some(kind),
        }
    }
    let words = |(path, odd): (&str, Difference)| match (odd.missing, odd.extra) {
        (Some("link"), Some("link")) => format!("{path}: is a link to something else"),
        (Some(wanted), Some(found)) => format!("{path}: is a {found}, not a {wanted}"),
        (Some(_), None) => format!("{path}: is missing"),
        _ => format!("{path}: is not part of the release"),
    };
    // Missing and changed entries first, because they are the reason for the refusal.
    let (wrong, extra): (Vec<_>, Vec<_>) = odd.into_iter().partition(|(_, entry)| entry.missing.is_some());
    wrong.into_iter().chain(extra).map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_one_line_for_each_path() {
        let lines = "extra\tfile 644\t./app.pid\nextra\tfile of another mode\t./bin/app\nmissing\tfile 755\t./bin/app\n\
                     extra\tlink\t./l\t/etc/passwd\nmissing\tlink\t./l\ta\nmissing\tfile 644\t./gone\nnonsense\n\
                     extra\tlink\t./a b\tx\nmissing\tfile 644\t./a b\n";
        assert_eq!(
            differences(lines),
            [
                "a b: is a link, not a file 644",
                "bin/app: is a file of another mode, not a file 755",
                "gone: is missing",
                "l: is a link to something else",
                "app.pid: is not part of the release",
            ]
        );
    }
}
