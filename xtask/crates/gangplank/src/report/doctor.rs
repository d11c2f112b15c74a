//! The text of a diagnosis: passed checks in short, problems with their fix below.

use crate::doctor::Diagnosis;
use crate::doctor::check::{Check, State};
use crate::report::style::{Style, count, visible, wrapped};
use std::fmt::Write;

/// Line widths: minimum, without a terminal, and maximum.
const WIDTHS: (usize, usize, usize) = (40, 80, 120);
/// The indentation of details.
const INDENT: usize = 10;

/// The text of a diagnosis.
pub fn diagnosis(found: &Diagnosis, style: Style) -> String {
    let mut out = String::new();
    let heading = |check: &Check| (check.group.clone(), check.subject.clone());
    for part in found.checks.chunk_by(|a, b| heading(a) == heading(b)) {
        let (group, subject) = heading(&part[0]);
        let title = subject.map_or(group.clone(), |subject| format!("{group}: {subject}"));
        let _ = writeln!(out, "{}", style.strong(&visible(&title)));
        let well: Vec<_> = part.iter().filter(|check| check.state == State::Ok).map(in_short).collect();
        for check in part.iter().filter(|check| check.state != State::Ok) {
            out.push_str(&in_full(check, style));
        }
        if !well.is_empty() {
            out.push_str(&row(style, &style.good(&format!("{:<7}", State::Ok.as_str())), &well.join(", ")));
        }
    }
    out + &verdict(found, style)
}

fn in_short(check: &Check) -> String {
    match &check.detail {
        Some(detail) => format!("{} ({detail})", check.what),
        None => check.what.clone(),
    }
}

fn in_full(check: &Check, style: Style) -> String {
    let word = format!("{:<7}", check.state.as_str());
    let word = match check.state {
        State::Broken => style.bad(&word),
        State::Warning => style.warn(&word),
        State::Ok | State::Skipped => style.dim(&word),
    };
    let detail = check.detail.as_deref().unwrap_or_default();
    let mut text = row(style, &word, &format!("{}: {detail}", check.what));
    if let Some(hint) = &check.hint {
        text.push_str(&row(style, &" ".repeat(7), &format!("hint: {hint}")));
    }
    text
}

fn row(style: Style, word: &str, text: &str) -> String {
    let (least, usual, most) = WIDTHS;
    let width = style.width.unwrap_or(usual).clamp(least, most) - INDENT;
    let between = format!("\n{}", " ".repeat(INDENT));
    format!("  {word} {}\n", wrapped(&visible(text), width).join(&between))
}

fn verdict(found: &Diagnosis, style: Style) -> String {
    let what = match (&found.env, found.ci) {
        (_, true) => "a pipeline".to_owned(),
        (Some(env), _) => format!("a deploy to {env}"),
        (None, _) => "a deploy".to_owned(),
    };
    let how = if found.works { style.good("would work") } else { style.bad("would not work") };
    let mut reason = Vec::new();
    if found.broken > 0 {
        reason.push(format!("{} broken", found.broken));
    }
    if found.warnings > 0 {
        reason.push(count(found.warnings, "warning"));
    }
    let colon = if reason.is_empty() { "" } else { ": " };
    format!("{what} {how}{colon}{}\n", reason.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn check(what: &str, state: State, detail: &str, hint: Option<&str>) -> Check {
        Check {
            group: "dev".into(),
            subject: Some("ssh://web1/srv/app".into()),
            what: what.into(),
            state,
            detail: Some(detail.to_owned()).filter(|detail| !detail.is_empty()),
            hint: hint.map(str::to_owned),
        }
    }

    #[test]
    fn diagnosis_shortens_ok_checks_and_keeps_hints_in_one_line() {
        let checks = vec![
            check("ssh", State::Ok, "as deploy", None),
            check(
                "directory",
                State::Broken,
                "deploy may not write /srv/app/releases, which is longer than a line of eighty columns holds",
                Some(
                    "as root of that host: `chown -R deploy /srv/app/with/a/long/name && ls -ld /srv/app/with/a/long/name`",
                ),
            ),
            check("live", State::Skipped, "it was\u{7} not asked", None),
            check("tools", State::Ok, "", None),
        ];
        let found = Diagnosis { works: false, env: Some("dev".into()), ci: false, broken: 1, warnings: 2, checks };
        let text = diagnosis(&found, Style::PLAIN);
        expect![[r#"
            dev: ssh://web1/srv/app
              broken  directory: deploy may not write /srv/app/releases, which is longer
                      than a line of eighty columns holds
                      hint: as root of that host:
                      `chown -R deploy /srv/app/with/a/long/name && ls -ld /srv/app/with/a/long/name`
              skipped live: it was\u{7} not asked
              ok      ssh (as deploy), tools
            a deploy to dev would not work: 1 broken, 2 warnings
        "#]]
        .assert_eq(&text);
        assert!(
            diagnosis(&found, Style { color: true, ..Style::PLAIN }).contains("\x1b[1;31mbroken \x1b[0m directory")
        );
        let well = Diagnosis { works: true, env: None, ci: true, broken: 0, warnings: 0, checks: vec![] };
        assert_eq!(diagnosis(&well, Style::PLAIN), "a pipeline would work\n");
    }
}
