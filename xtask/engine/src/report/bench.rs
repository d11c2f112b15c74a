//! What a bench found, as a table that can be pasted into a document.

use crate::bench::fleet::{Report, Row};
use crate::report::style::{Style, bytes, count, table};
use std::fmt::Write;

/// The text of `bench fleet`.
pub fn fleet(report: &Report, style: Style) -> String {
    let heading =
        ["WORKLOAD", "DELAY", "RELEASE", "AGAINST", "RATIO", "OURS", "THEIRS", "CPU", "THEIRS", "BYTES", "THEIRS"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(report.rows.iter().map(row));
    let mut out = table(style, &aligned(rows));
    let _ = writeln!(
        out,
        "{}, {}, {} that they share; medians, RATIO that of the pairs: below 1 ours is faster",
        count(report.hosts, "host"),
        count(report.rounds, "round"),
        count(report.cpus, "core")
    );
    for it in &report.missing {
        let _ = writeln!(out, "{} is not installed: {}", it.peer, it.install);
    }
    out
}

fn row(row: &Row) -> Vec<String> {
    let (ours, theirs) = (&row.comparison.ours, &row.comparison.theirs);
    let seconds = |seconds: f64| format!("{seconds:.2} s");
    vec![
        row.workload.clone(),
        format!("{} ms", row.delay_ms),
        row.release.to_owned(),
        row.against.to_owned(),
        format!("{:.2}", row.comparison.ratio),
        seconds(ours.seconds),
        seconds(theirs.seconds),
        seconds(ours.cpu_seconds),
        seconds(theirs.cpu_seconds),
        bytes(ours.bytes),
        bytes(theirs.bytes),
    ]
}

/// Numbers end at the same column; the words before them begin there.
fn aligned(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    const WORDS: usize = 4;
    let columns = rows.first().map_or(0, Vec::len);
    for column in WORDS..columns {
        let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        for row in &mut rows {
            row[column] = format!("{:>width$}", row[column]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{Comparison, Figures};
    use crate::bench::fleet::Missing;
    use expect_test::expect;

    #[test]
    fn a_table() {
        let figures = |seconds: f64, bytes| Figures { seconds, cpu_seconds: seconds / 4.0, bytes };
        let row = |release, against, ratio, ours, theirs| Row {
            workload: "W1".into(),
            delay_ms: 50,
            release,
            against,
            comparison: Comparison { ratio, ours, theirs },
        };
        let report = Report {
            bench: "fleet",
            hosts: 10,
            rounds: 3,
            cpus: 2,
            rows: vec![
                row("first", "scp", 0.254, figures(4.0, 1 << 20), figures(16.04, 3 << 20)),
                row("change", "rsync", 1.1, figures(0.5, 900), figures(0.45, 12_345)),
            ],
            missing: vec![Missing { peer: "slipway", install: "cargo install slipway" }],
        };
        expect![[r#"
            WORKLOAD  DELAY  RELEASE  AGAINST  RATIO    OURS   THEIRS     CPU  THEIRS    BYTES    THEIRS
            W1        50 ms  first    scp       0.25  4.00 s  16.04 s  1.00 s  4.01 s  1.0 MiB   3.0 MiB
            W1        50 ms  change   rsync     1.10  0.50 s   0.45 s  0.12 s  0.11 s    900 B  12.1 KiB
            10 hosts, 3 rounds, 2 cores that they share; medians, RATIO that of the pairs: below 1 ours is faster
            slipway is not installed: cargo install slipway
        "#]]
        .assert_eq(&fleet(&report, Style::PLAIN));
    }
}
