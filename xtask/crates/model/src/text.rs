//! Values as text for people: sizes, durations, counts, and text of others.

use crate::release::manifest::is_invisible;

/// `1.2 MiB`
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `340 ms`, `2.1 s`, `3 min 5 s`
pub fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// A text with control characters escaped, so that foreign text cannot control the terminal.
pub fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if is_invisible(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// `1 file`, `2 files`
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_have_units() {
        for (n, want) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 40, "3.0 TiB")] {
            assert_eq!(bytes(n), want);
        }
        for (ms, want) in [(0, "0 ms"), (999, "999 ms"), (2100, "2.1 s"), (185_000, "3 min 5 s")] {
            assert_eq!(duration(ms), want);
        }
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(visible("a\u{1b}[2Jb\u{7}\tü"), "a\\u{1b}[2Jb\\u{7}\\tü");
    }
}
