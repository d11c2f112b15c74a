//! Benchmark results as a table to paste into a document.

use crate::compare;
use crate::figures::Comparison;
use crate::fleet::{Report, Row};
use crate::options::Missing;
use gangplank::program::{Style, bytes, count, table};
use std::fmt::Write;

/// The text of `bench fleet`.
pub fn fleet(report: &Report, style: Style) -> String {
    let heading =
        ["WORKLOAD", "DELAY", "RELEASE", "AGAINST", "RATIO", "OURS", "THEIRS", "CPU", "THEIRS", "BYTES", "THEIRS"];
    let on_hosts = ["HOSTS", "THEIRS"];
    let mut rows = vec![heading.into_iter().chain(on_hosts).map(str::to_owned).collect()];
    rows.extend(report.rows.iter().map(row));
    let mut out = table(style, &aligned(rows, 4));
    let _ = writeln!(
        out,
        "{}, {}, {} shared by all; medians; RATIO of the pairs: below 1 ours is faster; HOSTS is their CPU time",
        count(report.hosts, "host"),
        count(report.rounds, "round"),
        count(report.cpus, "core")
    );
    out + &missing(&report.missing)
}

/// The text of the other benches.
pub fn compare(report: &compare::Report, style: Style) -> String {
    let heading = ["WORKLOAD", "WHAT", "AGAINST", "RATIO", "OURS", "THEIRS", "CPU", "THEIRS", "BYTES", "THEIRS"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(report.rows.iter().map(|row| {
        let words = [row.workload.clone(), row.what.to_owned(), row.against.to_owned()];
        words.into_iter().chain(figures(&row.comparison)).collect()
    }));
    let mut out = table(style, &aligned(rows, 3));
    let _ = writeln!(
        out,
        "{}, {}; medians; RATIO of the pairs: below 1 ours is faster",
        count(report.rounds, "round"),
        count(report.cpus, "core")
    );
    out + &missing(&report.missing)
}

fn missing(missing: &[Missing]) -> String {
    missing.iter().map(|it| format!("{} is not installed: {}\n", it.peer, it.install)).collect()
}

fn row(row: &Row) -> Vec<String> {
    let words = [row.workload.clone(), format!("{} ms", row.delay_ms), row.release.to_owned(), row.against.to_owned()];
    let cpu = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |it| format!("{it:.2} s"));
    let it = &row.comparison;
    let on_hosts = [it.ours.host_cpu_seconds, it.theirs.host_cpu_seconds].map(cpu);
    words.into_iter().chain(figures(it)).chain(on_hosts).collect()
}

fn figures(it: &Comparison) -> [String; 7] {
    let seconds = |seconds: f64| format!("{seconds:.2} s");
    [
        format!("{:.2}", it.ratio),
        seconds(it.ours.seconds),
        seconds(it.theirs.seconds),
        seconds(it.ours.cpu_seconds),
        seconds(it.theirs.cpu_seconds),
        bytes(it.ours.bytes),
        bytes(it.theirs.bytes),
    ]
}

/// Right-aligns numbers and left-aligns the words before them.
fn aligned(mut rows: Vec<Vec<String>>, words: usize) -> Vec<Vec<String>> {
    let columns = rows.first().map_or(0, Vec::len);
    for column in words..columns {
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
    use crate::figures::Figures;
    use expect_test::expect;

    #[test]
    fn fleet_report_is_a_table_with_missing_peers_below() {
        let figures = |seconds: f64, bytes| Figures {
            seconds,
            cpu_seconds: seconds / 4.0,
            host_cpu_seconds: Some(seconds * 2.0),
            bytes,
        };
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
            WORKLOAD  DELAY  RELEASE  AGAINST  RATIO    OURS   THEIRS     CPU  THEIRS    BYTES    THEIRS   HOSTS   THEIRS
            W1        50 ms  first    scp       0.25  4.00 s  16.04 s  1.00 s  4.01 s  1.0 MiB   3.0 MiB  8.00 s  32.08 s
            W1        50 ms  change   rsync     1.10  0.50 s   0.45 s  0.12 s  0.11 s    900 B  12.1 KiB  1.00 s   0.90 s
            10 hosts, 3 rounds, 2 cores shared by all; medians; RATIO of the pairs: below 1 ours is faster; HOSTS is their CPU time
            slipway is not installed: cargo install slipway
        "#]]
        .assert_eq(&fleet(&report, Style::PLAIN));
    }

    #[test]
    fn compare_report_is_a_table_with_missing_peers_below() {
        let figures =
            |seconds: f64, bytes| Figures { seconds, cpu_seconds: seconds * 1.9, host_cpu_seconds: None, bytes };
        let comparison = Comparison { ratio: 0.17, ours: figures(0.52, 23 << 20), theirs: figures(3.1, 23 << 20) };
        let rows = vec![compare::Row { workload: "W1".into(), what: "bundle", against: "tar-gz", comparison }];
        let missing = vec![Missing { peer: "tar-pigz-files", install: "apt-get install pigz" }];
        let report = compare::Report { bench: "bundle", rounds: 1, cpus: 2, rows, missing };
        expect![[r#"
            WORKLOAD  WHAT    AGAINST  RATIO    OURS  THEIRS     CPU  THEIRS     BYTES    THEIRS
            W1        bundle  tar-gz    0.17  0.52 s  3.10 s  0.99 s  5.89 s  23.0 MiB  23.0 MiB
            1 round, 2 cores; medians; RATIO of the pairs: below 1 ours is faster
            tar-pigz-files is not installed: apt-get install pigz
        "#]]
        .assert_eq(&compare(&report, Style::PLAIN));
    }
}
