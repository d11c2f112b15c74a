//! Renders a table of hosts for a screen size.

use crate::report::progress_table::{Back, Mark, ProgressTable, Row};
use crate::report::style::{Style, clipped as cut, count, duration, visible, wheel};
use gangplank_model::event::Stage;

/// A styled piece of a line.
type Cell = (fn(Style, &str) -> String, String);

fn plain(_: Style, text: &str) -> String {
    text.to_owned()
}

impl ProgressTable {
    /// The table fitted to a screen. If there are too few rows, it shows active and failed hosts, and the number of
    /// others.
    pub fn lines(&self, now: u64, (columns, rows): (usize, usize), style: Style) -> Vec<String> {
        let footer = fit(vec![(plain, self.footer(now))], columns, style);
        if rows < 3 {
            return vec![footer];
        }
        // One line is the footer, and the cursor is below.
        let room = rows - 2;
        let (shown, others) =
            if self.rows.len() <= room { (self.rows.iter().collect(), Vec::new()) } else { self.parted(room - 1) };
        let mut lines = self.drawn(&shown, now, columns, style);
        if !others.is_empty() {
            let text = format!("{:8}… and {}: {}", "", count(others.len(), "other"), self.counts(&others));
            lines.push(fit(vec![(Style::dim, text)], columns, style));
        }
        lines.push(footer);
        lines
    }

    /// The shown and the hidden hosts, both in env order.
    fn parted(&self, room: usize) -> (Vec<&Row>, Vec<&Row>) {
        let mut ranked: Vec<_> = self.rows.iter().enumerate().collect();
        ranked.sort_by_key(|(_, row)| match self.mark(row) {
            Mark::Failed => 0,
            Mark::Working => 1,
            Mark::Back | Mark::Waiting | Mark::Ok => 2,
        });
        let worth = |row: &Row| matches!(self.mark(row), Mark::Failed | Mark::Working);
        let shown: Vec<_> = ranked.iter().filter(|(_, row)| worth(row)).take(room).map(|(at, _)| *at).collect();
        let (shown, others): (Vec<_>, Vec<_>) = self.rows.iter().enumerate().partition(|(at, _)| shown.contains(at));
        let rows = |of: Vec<(usize, _)>| of.into_iter().map(|(_, row)| row).collect();
        (rows(shown), rows(others))
    }

    fn drawn(&self, shown: &[&Row], now: u64, columns: usize, style: Style) -> Vec<String> {
        // Of all rows, so that columns do not move when the shown hosts change.
        let widest = self.rows.iter().map(|row| visible(&row.name).chars().count()).max().unwrap_or(0);
        let name_width = widest.min(columns * 2 / 5).max(1);
        let words: Vec<_> = shown.iter().map(|row| visible(&self.word(row))).collect();
        let word_width = words.iter().map(|word| word.chars().count()).max().unwrap_or(0).clamp(9, 30);
        let mut lines = Vec::new();
        for (row, word) in shown.iter().zip(words) {
            let mark = self.mark(row);
            let (paint, sign): (fn(Style, &str) -> String, _) = match mark {
                Mark::Working => (plain, wheel(now)),
                Mark::Ok => (Style::good, "ok"),
                Mark::Failed => (Style::bad, "failed"),
                Mark::Back => (Style::warn, "back"),
                Mark::Waiting => (Style::dim, ""),
            };
            let tone = if mark == Mark::Waiting { Style::dim } else { plain };
            let (name, word) = (cut(&visible(&row.name), name_width), cut(&word, word_width));
            let reason = row.failed.as_deref().map(visible).unwrap_or_default();
            let cells: Vec<Cell> = vec![
                (paint, format!("{sign:<8}")),
                (tone, format!("{name:<name_width$}  {word:<word_width$}")),
                (Style::dim, format!("  {:>10}", time(row, now))),
                (Style::dim, format!("  {reason}")),
            ];
            lines.push(fit(cells, columns, style));
        }
        lines
    }

    /// `2 failed, 1 at work, 3 healthy`
    fn counts(&self, rows: &[&Row]) -> String {
        let mut counts: Vec<(String, usize)> = vec![("failed".into(), 0), ("at work".into(), 0)];
        for row in rows {
            let label = match self.mark(row) {
                Mark::Failed => "failed".into(),
                Mark::Working => "at work".into(),
                Mark::Ok | Mark::Back | Mark::Waiting => self.word(row),
            };
            match counts.iter_mut().find(|(known, _)| *known == label) {
                Some((_, n)) => *n += 1,
                None => counts.push((label, 1)),
            }
        }
        let counts = counts.iter().filter(|(_, n)| *n > 0);
        counts.map(|(label, n)| format!("{n} {label}")).collect::<Vec<_>>().join(", ")
    }

    fn footer(&self, now: u64) -> String {
        let stage = match self.stage {
            Stage::Install => "before the switch".to_owned(),
            Stage::Switch => format!("wave {} of {}", self.wave, self.waves),
            Stage::Finalize => "all are healthy".to_owned(),
            Stage::Reverted => "reverting".to_owned(),
            Stage::Done | Stage::Failed => count(self.rows.len(), "host"),
        };
        let time = if self.ended() { duration(now) } else { seconds(now) };
        format!("{stage}: {} ({time})", self.counts(&self.rows.iter().collect::<Vec<_>>()))
    }
}

/// The time of the current step, or the total.
fn time(row: &Row, now: u64) -> String {
    match (row.back, &row.doing) {
        (Back::Since(since), _) => seconds(now.saturating_sub(since)),
        (_, Some((_, since))) => seconds(now.saturating_sub(*since)),
        _ if row.spent == 0 && row.done.is_none() && row.failed.is_none() => String::new(),
        _ => duration(row.spent),
    }
}

/// Whole seconds, then minutes: tenths would flicker.
fn seconds(ms: u64) -> String {
    if ms < 60_000 { format!("{} s", ms / 1000) } else { duration(ms) }
}

/// The cells side by side, without trailing blanks, cut at the screen's edge.
fn fit(cells: Vec<Cell>, columns: usize, style: Style) -> String {
    let text: String = cells.iter().map(|(_, text)| text.as_str()).collect();
    let text = cut(text.trim_end(), columns);
    let (mut line, mut left) = (String::new(), text.as_str());
    for (paint, cell) in cells {
        let end = left.char_indices().nth(cell.chars().count()).map_or(left.len(), |(at, _)| at);
        let (piece, rest) = left.split_at(end);
        left = rest;
        // Blanks need no colour.
        let (words, blanks) = piece.split_at(piece.trim_end().len());
        line.push_str(&if words.is_empty() { String::new() } else { paint(style, words) });
        line.push_str(blanks);
    }
    line
}
