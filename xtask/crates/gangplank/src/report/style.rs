//! Formats values for a screen: colours, sizes, times and columns. Colour never carries information of its own.

use gangplank_model::release::id::ReleaseId;
pub use gangplank_model::text::{bytes, count, duration, visible};
use jiff::{SpanRound, Timestamp, Unit};
use std::ops::Range;
use std::time::Duration;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The format of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Use ANSI colours.
    pub color: bool,
    /// Columns of the terminal; `None` in a pipe, where lines are not wrapped.
    pub width: Option<usize>,
}

/// The indentation of wrapped lines.
const INDENT: &str = "    ";

impl Style {
    /// For a pipe or a file.
    pub const PLAIN: Self = Self { color: false, width: None };

    /// The format of a stream: a flag takes precedence, then `NO_COLOR` (<https://no-color.org>), then whether it is a
    /// terminal.
    pub fn decide(flag: Option<bool>, no_color: bool, dumb: bool, width: Option<usize>) -> Self {
        Self { color: flag.unwrap_or(!no_color && !dumb && width.is_some()), width }
    }

    /// Whether a person reads it now. A log is searched, perhaps years later: there ids and times are whole.
    pub fn is_terminal(self) -> bool {
        self.width.is_some()
    }

    /// An id of a release: short on a terminal.
    pub fn id(self, id: &ReleaseId) -> &str {
        if self.is_terminal() { id.short() } else { id.as_str() }
    }

    /// A text with the ids of releases in it.
    pub fn ids(self, text: &str) -> String {
        if self.is_terminal() { short_ids(text) } else { text.to_owned() }
    }

    /// When something happened: relative on a terminal.
    pub fn time(self, at: Timestamp, now: Timestamp) -> String {
        if self.is_terminal() { ago(at, now) } else { when(at, now) }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Style of success.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Style of failure.
    pub fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Style of a warning.
    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Style of secondary text.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Style of headings and names.
    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }
}

/// The interval of frames of what is drawn again and again.
pub const FRAME: Duration = Duration::from_millis(100);

/// The sign of what runs, which turns with each frame.
pub fn wheel(ms: u64) -> &'static str {
    const SIGNS: [&str; 4] = ["-", "\\", "|", "/"];
    SIGNS[(u128::from(ms) / FRAME.as_millis()) as usize % SIGNS.len()]
}

/// `2026-08-22 10:15Z, 3 h ago`
fn when(at: Timestamp, now: Timestamp) -> String {
    format!("{}, {}", at.strftime("%Y-%m-%d %H:%MZ"), ago(at, now))
}

/// `just now`, `5 min ago`, `3 h ago`, `12 d ago`
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let Ok(span) =
        at.until(now).and_then(|span| span.round(SpanRound::new().largest(Unit::Hour).smallest(Unit::Minute)))
    else {
        return "just now".into();
    };
    let hours = i64::from(span.get_hours());
    match (hours, span.get_minutes()) {
        (..0, _) | (0, ..1) => "just now".into(),
        (0, minutes) => format!("{minutes} min ago"),
        (1..48, _) => format!("{hours} h ago"),
        _ => format!("{} d ago", hours / 24),
    }
}

/// A table with columns as wide as their widest cell, separated by two spaces. The first row is the heading. Columns
/// that do not fit are wrapped into further lines of the row.
pub fn table(style: Style, rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width_of(cell)).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let parts = folded(&widths, style.width.unwrap_or(usize::MAX));
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        for part in &parts {
            let indent = if part.start == 0 { "" } else { INDENT };
            let cells = part.clone().filter_map(|n| Some(padded(row.get(n)?, widths[n])));
            let line = cells.collect::<Vec<_>>().join("  ");
            let lines = match style.width {
                Some(width) => wrapped(line.trim_end(), width.saturating_sub(indent.len())),
                None => vec![line.trim_end().to_owned()],
            };
            for line in lines.iter().filter(|line| indent.is_empty() || !line.is_empty()) {
                let line = format!("{indent}{line}");
                out.push_str(&if index == 0 { style.dim(&line) } else { line });
                out.push('\n');
            }
        }
    }
    out
}

/// A cell filled up with blanks.
fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(width_of(text))))
}

/// The columns of each line.
fn folded(widths: &[usize], width: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut used = 0;
    for (n, column) in widths.iter().enumerate() {
        match parts.last_mut() {
            Some(part) if used + 2 + column <= width => {
                (part.end, used) = (n + 1, used + 2 + column);
            }
            before => {
                used = if before.is_some() { INDENT.len() } else { 0 } + column;
                parts.push(n..n + 1);
            }
        }
    }
    parts
}

/// Wraps a text between words. Text in backticks, which is to be copied, is never split.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    if width_of(text) <= width {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for piece in pieces(text) {
        let last = lines.last_mut().expect("there is one from the start");
        if last.is_empty() {
            last.push_str(&piece);
        } else if width_of(last) + 1 + width_of(&piece) <= width {
            last.push(' ');
            last.push_str(&piece);
        } else {
            lines.push(piece);
        }
    }
    lines
}

/// The words of a text; those in backticks are one.
fn pieces(text: &str) -> Vec<String> {
    let (mut pieces, mut inside) = (Vec::<String>::new(), false);
    for word in text.split(' ') {
        match pieces.last_mut().filter(|_| inside) {
            Some(piece) => {
                piece.push(' ');
                piece.push_str(word);
            }
            None => pieces.push(word.to_owned()),
        }
        inside ^= word.matches('`').count() % 2 == 1;
    }
    pieces
}

/// The columns of a text on a terminal: a CJK character and most emoji take two.
pub fn width_of(text: &str) -> usize {
    text.width()
}

/// A text cut to a width, with an ellipsis.
pub fn clipped(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let (mut cut, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        cut.push(c);
    }
    cut + "…"
}

/// A text with short ids of releases. Paths, and text in backticks, which is to be copied, stay as they are.
fn short_ids(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let (mut out, mut rest, mut in_command) = (String::new(), text, false);
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(c.len_utf8()));
        // The end of a sentence is no part of an id.
        let (name, dots) = word.split_at(word.trim_end_matches('.').len());
        match name.parse::<ReleaseId>() {
            Ok(id) if !in_command => out.extend([id.short(), dots]),
            _ => out.push_str(word),
        }
        in_command ^= c == '`';
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn ages_are_relative_up_to_days() {
        let now: Timestamp = "2026-08-22T10:15:00Z".parse().unwrap();
        for (at, want) in
            [("10:15:00", "just now"), ("10:20:00", "just now"), ("10:10:00", "5 min ago"), ("07:00:00", "3 h ago")]
        {
            assert_eq!(ago(format!("2026-08-22T{at}Z").parse().unwrap(), now), want, "{at}");
        }
        assert_eq!(ago("2026-08-10T10:15:00Z".parse().unwrap(), now), "12 d ago");
    }

    #[test]
    fn ids_are_short_but_not_in_paths_and_commands() {
        let id = "20260822T101500-1a2b3c4";
        for (text, want) in [
            (format!("{id} is live"), "1a2b3c4 is live".to_owned()),
            (format!("dev: back to {id}."), "dev: back to 1a2b3c4.".into()),
            (format!("({id}), {id}-dirty-01234567"), "(1a2b3c4), 1a2b3c4-dirty-01234567".into()),
            (
                format!("see /srv/releases/{id}/log and app-{id}.tar.gz"),
                format!("see /srv/releases/{id}/log and app-{id}.tar.gz"),
            ),
            (format!("run `deploy prod {id}`, not {id}"), format!("run `deploy prod {id}`, not 1a2b3c4")),
            ("é 20260822T101500 - ü".into(), "é 20260822T101500 - ü".into()),
            (String::new(), String::new()),
        ] {
            assert_eq!(short_ids(&text), want);
        }
    }

    #[test]
    fn colour_is_decided_by_flag_then_no_color_then_terminal() {
        for (flag, no_color, dumb, width, want) in [
            (None, false, false, Some(80), true),
            (None, false, false, None, false),
            (None, true, false, Some(80), false),
            (None, false, true, Some(80), false),
            (Some(true), true, true, None, true),
            (Some(false), false, false, Some(80), false),
        ] {
            assert_eq!(Style::decide(flag, no_color, dumb, width).color, want);
        }
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!((width_of("日本"), width_of("a🚀"), width_of("é")), (4, 3, 1));
        assert_eq!(clipped("日本語", 5), "日本…");
        assert_eq!(clipped("日本語", 6), "日本語");
        let rows = [vec!["日本".to_owned(), "x".into()], vec!["abcd".to_owned(), "y".into()]];
        assert_eq!(table(Style::PLAIN, &rows), "日本  x\nabcd  y\n");
    }

    #[test]
    fn command_in_backticks_is_not_split() {
        let text = "name one: `cargo xtask rollback prod RELEASE`; `cargo xtask releases` lists them";
        let want = ["name one: `cargo xtask rollback prod RELEASE`;", "`cargo xtask releases` lists them"];
        assert_eq!(wrapped(text, 50), want);
        assert_eq!(wrapped("a b", 1), ["a", "b"]);
    }

    #[test]
    fn table_wider_than_the_terminal_is_folded() {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["ENV", "TARGET", "STATE", "WHY"]),
            row(["dev", "ssh://web1/srv/shop", "live", ""]),
            row(["prod", "ssh://web2/srv/shop", "live", "the one before was broken"]),
        ];
        let folded = |width| table(Style { width, ..Style::PLAIN }, &rows);
        let wide = expect![[r#"
            ENV   TARGET               STATE  WHY
            dev   ssh://web1/srv/shop  live
            prod  ssh://web2/srv/shop  live   the one before was broken
        "#]];
        wide.assert_eq(&folded(None));
        wide.assert_eq(&folded(Some(59)));
        expect![[r#"
            ENV   TARGET               STATE
                WHY
            dev   ssh://web1/srv/shop  live
            prod  ssh://web2/srv/shop  live
                the one before was broken
        "#]]
        .assert_eq(&folded(Some(58)));
        expect![[r#"
            ENV
                TARGET
                STATE
                WHY
            dev
                ssh://web1/srv/shop
                live
            prod
                ssh://web2/srv/shop
                live
                the one before was
                broken
        "#]]
        .assert_eq(&folded(Some(22)));
    }
}
