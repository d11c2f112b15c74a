//! Combines several scripts into one, to save round trips.

use crate::frame::{Marker, one_line};
use std::fmt::Write;

/// One script of several `(script, stdin)` parts that stops after the first failure, and its stdin.
pub fn sequence(marker: &Marker, parts: &[(String, String)]) -> (String, String) {
    let part = marker.part();
    let mut text = format!(
        "part() {{ printf '\\n%s %s\\n' '{part}' \"$1\"; printf '\\n%s %s\\n' '{part}' \"$1\" >&2; [ \"$1\" = 0 ] || exit 0; }}\n"
    );
    for (part, _) in parts {
        let _ = write!(text, "IFS= read -r input || exit 255\nprintf %b \"$input\" | (\n{part}\n)\npart $?\n");
    }
    (text, parts.iter().map(|(_, input)| one_line(input)).collect())
}

/// The result of a part: exit code, stdout, stderr.
pub type Part = (Option<i32>, String, String);

/// The results of the finished parts, and the output so far of the unfinished one.
pub fn parts(marker: &Marker, stdout: &str, stderr: &str) -> (Vec<Part>, String, String) {
    let mark = format!("\n{} ", marker.part());
    let mut complaints = stderr.split(&mark);
    let mut complained = complaints.next().unwrap_or_default();
    let mut said = stdout.split(&mark);
    let mut before = said.next().unwrap_or_default();
    let mut answers = Vec::new();
    for after in said {
        let (code, next) = after.split_once('\n').unwrap_or((after, ""));
        answers.push((code.parse().ok(), before.to_owned(), complained.to_owned()));
        before = next;
        complained = complaints.next().and_then(|text| text.split_once('\n')).map_or("", |(_, text)| text);
    }
    (answers, before.to_owned(), complained.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_stops_at_the_part_that_fails() {
        let part = |text: &str, input: &str| (text.to_owned(), input.to_owned());
        let marker = Marker::random();
        let (text, input) = sequence(
            &marker,
            &[part("cat; echo e1 >&2", "a\\n\\\nb c'\n"), part("echo before; exit 7", ""), part("echo never", "")],
        );
        let mut sh = std::process::Command::new("sh");
        sh.args(["-c", &text]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = sh.stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (said, ..) = parts(&marker, &text(out.stdout), &text(out.stderr));
        assert_eq!(
            said,
            [
                (Some(0), "a\\n\\\nb c'\n".to_owned(), "e1\n".to_owned()),
                (Some(7), "before\n".to_owned(), String::new())
            ]
        );
    }
}
