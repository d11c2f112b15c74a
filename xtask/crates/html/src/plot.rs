//! The three pictures, as SVG: a timeline of envs, the sizes of releases, and the durations of deploys.

use crate::history::kind;
use crate::overview::{EnvOverview, ReleaseSize};
use gangplank_model::history::Record;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::text::{bytes, duration, visible};
use jiff::Timestamp;
use maud::{Markup, html};

/// Width of each picture, in the units of its view box.
const WIDTH: f64 = 960.0;
/// The number of records on the timeline, and of deploys whose duration is drawn, per env.
const MARKS_MAX: usize = 200;
const BARS_MAX: usize = 20;
/// The dashes of the lines of sizes, which differ by more than their colour.
const DASHES: [Option<&str>; 5] = [None, Some("7 3"), Some("2 3"), Some("9 3 2 3"), Some("4 4")];
/// The number of files that are drawn beside the bundle.
const FILES_MAX: usize = DASHES.len() - 1;

/// A number of a view box: whole pixels and tenths.
fn px(value: f64) -> String {
    format!("{value:.1}")
}

/// A lane per env, a mark per record. `None` without records.
pub(crate) fn timeline(envs: &[EnvOverview]) -> Option<Markup> {
    const LEFT: f64 = 110.0;
    const LANE: f64 = 34.0;
    let newest = |env: &'_ EnvOverview| env.records.len().saturating_sub(MARKS_MAX);
    let times = || envs.iter().flat_map(|env| &env.records[newest(env)..]).map(|record| record.at);
    let (first, last) = (times().min()?, times().max()?);
    let x = |at: Timestamp| LEFT + 12.0 + (WIDTH - LEFT - 24.0) * share(at, first, last);
    let bottom = LANE * envs.len() as f64;
    let format = if last.as_second() - first.as_second() < 600 { "%H:%M:%SZ" } else { "%Y-%m-%d %H:%MZ" };
    let ticks: Vec<_> = (0..5).map(|n| between(first, last, f64::from(n) / 4.0)).collect();
    Some(html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", bottom + 26.0)) role="img" aria-label="Deploys over time, a row per env" {
            @for (n, env) in envs.iter().enumerate() {
                @let y = LANE * (n as f64 + 0.5);
                text x="0" y=(px(y + 4.0)) { (visible(&short(&env.name, 14))) }
                line.axis x1=(px(LEFT)) x2=(px(WIDTH)) y1=(px(y)) y2=(px(y)) {}
                @for record in &env.records[newest(env)..] { (mark(record, x(record.at), y)) }
            }
            @for (n, tick) in ticks.iter().enumerate().filter(|(n, _)| first != last || *n == 0) {
                @let anchor = ["start", "middle", "middle", "middle", "end"][n];
                text.small x=(px(x(*tick))) y=(px(bottom + 18.0)) text-anchor=(anchor) {
                    (tick.strftime(format).to_string())
                }
            }
        }
    })
}

fn share(at: Timestamp, first: Timestamp, last: Timestamp) -> f64 {
    let all = (last.as_millisecond() - first.as_millisecond()) as f64;
    if all > 0.0 { (at.as_millisecond() - first.as_millisecond()) as f64 / all } else { 0.0 }
}

fn between(first: Timestamp, last: Timestamp, share: f64) -> Timestamp {
    let ms = first.as_millisecond() as f64 + (last.as_millisecond() - first.as_millisecond()) as f64 * share;
    Timestamp::from_millisecond(ms as i64).unwrap_or(last)
}

/// The mark of a record. Its shape has the meaning of its colour.
fn mark(record: &Record, x: f64, y: f64) -> Markup {
    let (word, class) = kind(record);
    let release = record.release.as_ref().map(|release| format!(" {release}")).unwrap_or_default();
    let title = format!("{word}{release}, {}, {}", record.at.strftime("%Y-%m-%d %H:%MZ"), visible(&record.by));
    let path = match class {
        "bad" => format!("M{} {}l10 10m0 -10l-10 10", px(x - 5.0), px(y - 5.0)),
        "back" => format!("M{} {}l11 -6v12z", px(x - 6.0), px(y)),
        "good" => return html! { circle.good cx=(px(x)) cy=(px(y)) r="5" { title { (title) } } },
        _ => format!("M{} {}h8v8h-8z", px(x - 4.0), px(y - 4.0)),
    };
    html! { path class=(class) d=(path) { title { (title) } } }
}

/// The bytes of the bundle, and of the largest files, over releases. `None` for less than two releases.
pub(crate) fn sizes(releases: &[ReleaseSize]) -> Option<Markup> {
    const HEIGHT: f64 = 260.0;
    const LEFT: f64 = 70.0;
    const RIGHT: f64 = 700.0;
    if releases.len() < 2 {
        return None;
    }
    let lines = lines_of(releases);
    let largest = lines.iter().flat_map(|line| line.points.iter().flatten()).copied().max().unwrap_or(1);
    let (step, most) = grid(largest);
    let x = |n: usize| LEFT + 10.0 + (RIGHT - LEFT - 20.0) * n as f64 / (releases.len() - 1) as f64;
    let y = |size: u64| 10.0 + (HEIGHT - 20.0) * (1.0 - size as f64 / most as f64);
    let ends: Vec<_> =
        lines.iter().map(|line| line.points.iter().flatten().last().map_or(HEIGHT, |size| y(*size))).collect();
    let labels = apart(&ends, 15.0, HEIGHT);
    Some(html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", HEIGHT + 26.0)) role="img" aria-label="Bytes of the bundle and of the largest files, by release" {
            @for n in 0..=most / step {
                @let size = step * n;
                line.axis x1=(px(LEFT)) x2=(px(RIGHT)) y1=(px(y(size))) y2=(px(y(size))) {}
                text.small x=(px(LEFT - 8.0)) y=(px(y(size) + 4.0)) text-anchor="end" { (bytes(size)) }
            }
            @for (n, line) in lines.iter().enumerate() {
                @let class = format!("p{}", n + 1);
                polyline class=(class) stroke-dasharray=[DASHES[n]] points=(polyline(&line.points, x, y)) {}
                @for (at, size) in line.points.iter().enumerate().filter_map(|(at, size)| Some((at, (*size)?))) {
                    circle class=(format!("point {class}")) cx=(px(x(at))) cy=(px(y(size))) r="3" {
                        title { (visible(&line.name)) ", " (releases[at].id) ": " (bytes(size)) }
                    }
                }
                text x=(px(RIGHT + 8.0)) y=(px(labels[n] + 4.0)) { (visible(&line.label())) }
            }
            text.small x=(px(LEFT)) y=(px(HEIGHT + 18.0)) { (releases[0].id.short()) }
            text.small x=(px(RIGHT)) y=(px(HEIGHT + 18.0)) text-anchor="end" { (releases[releases.len() - 1].id.short()) }
        }
    })
}

/// The distance of the lines of a grid up to a size, 1, 2, 5, 10, ... 500 of a unit, and the size of the last line: there
/// are at most five.
fn grid(largest: u64) -> (u64, u64) {
    let units = (0..5).map(|power| 1024_u64.pow(power));
    let mut steps = units.flat_map(|unit| [1, 2, 5, 10, 20, 50, 100, 200, 500].map(|n| n * unit));
    let step = steps.find(|step| largest.div_ceil(*step) <= 5).unwrap_or(largest / 5 + 1);
    (step, step.saturating_mul(largest.div_ceil(step).max(1)))
}

/// A line of the plot of sizes: a size per release, where it is known.
struct Line {
    name: String,
    points: Vec<Option<u64>>,
}

impl Line {
    fn label(&self) -> String {
        let last = self.points.iter().flatten().last().copied().unwrap_or_default();
        format!("{} {}", short_path(&self.name, 24), bytes(last))
    }
}

/// The bundle, then the files that are largest in the newest release that has any.
fn lines_of(releases: &[ReleaseSize]) -> Vec<Line> {
    let bundle = Line { name: "bundle".into(), points: releases.iter().map(|it| Some(it.bytes)).collect() };
    let newest = releases.iter().rev().find(|release| !release.files.is_empty());
    let mut largest: Vec<_> = newest.iter().flat_map(|release| &release.files).collect();
    largest.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    let file = |(path, _): (&String, &u64)| Line {
        name: path.clone(),
        points: releases.iter().map(|release| release.files.get(path).copied()).collect(),
    };
    std::iter::once(bundle).chain(largest.into_iter().take(FILES_MAX).map(file)).collect()
}

fn polyline(points: &[Option<u64>], x: impl Fn(usize) -> f64, y: impl Fn(u64) -> f64) -> String {
    let known = points.iter().enumerate().filter_map(|(n, size)| Some((n, (*size)?)));
    known.map(|(n, size)| format!("{},{}", px(x(n)), px(y(size)))).collect::<Vec<_>>().join(" ")
}

/// Heights of labels that are near the given ones and do not overlap.
fn apart(wanted: &[f64], distance: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    let mut limit = f64::MIN;
    for &n in &order {
        placed[n] = placed[n].max(limit);
        limit = placed[n] + distance;
    }
    let mut limit = bottom;
    for &n in order.iter().rev() {
        placed[n] = placed[n].min(limit);
        limit = placed[n] - distance;
    }
    placed
}

/// A bar per deploy, newest first, with its steps. `None` if no record has durations.
pub(crate) fn durations(env: &EnvOverview) -> Option<Markup> {
    const BAR: f64 = 22.0;
    const LEFT: f64 = 90.0;
    const RIGHT: f64 = 850.0;
    let timed = env.records.iter().rev().filter_map(|record| Some((record, record.took?)));
    let bars: Vec<_> = timed.take(BARS_MAX).collect();
    let total = |parts: &[(&str, u64)]| parts.iter().fold(0, |sum: u64, (_, ms)| sum.saturating_add(*ms));
    let parts_of = |took: &gangplank_model::history::Took| {
        let parts = [("install", took.install_ms), ("switch", took.switch_ms), ("check", took.check_ms)];
        parts.into_iter().filter_map(|(name, ms)| Some((name, ms?))).collect::<Vec<_>>()
    };
    let most = bars.iter().map(|(_, took)| total(&parts_of(took))).max()?.max(1);
    let width = |ms: u64| (RIGHT - LEFT) * ms as f64 / most as f64;
    let bottom = BAR * bars.len() as f64;
    Some(html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", bottom + 26.0)) role="img" aria-label=(format!("Duration of the steps of deploys to {}", visible(&env.name))) {
            @for (n, (record, took)) in bars.iter().enumerate() {
                @let parts = parts_of(took);
                @let y = BAR * n as f64;
                text x="0" y=(px(y + 15.0)) { (record.release.as_ref().map(ReleaseId::short).unwrap_or_default()) }
                @for (at, (name, ms)) in parts.iter().enumerate() {
                    @let x = LEFT + parts[..at].iter().map(|(_, ms)| width(*ms)).sum::<f64>();
                    rect class=(name) x=(px(x)) y=(px(y + 4.0)) width=(px(width(*ms))) height=(px(BAR - 8.0)) {
                        title { (name) ", " (duration(*ms)) }
                    }
                }
                text.small x=(px(LEFT + width(total(&parts)) + 8.0)) y=(px(y + 15.0)) { (duration(total(&parts))) }
            }
            @for (n, (class, name)) in [("install", "install"), ("switch", "switch and restart"), ("check", "health check")].iter().enumerate() {
                @let x = LEFT + 170.0 * n as f64;
                rect class=(class) x=(px(x)) y=(px(bottom + 9.0)) width="12" height="12" {}
                text.small x=(px(x + 18.0)) y=(px(bottom + 19.0)) { (name) }
            }
        }
    })
}

/// The start of a text.
fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

/// The end of a path.
fn short_path(path: &str, most: usize) -> String {
    let length = path.chars().count();
    if length <= most {
        path.to_owned()
    } else {
        std::iter::once('…').chain(path.chars().skip(length - most + 1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_has_round_steps() {
        let mib = 1 << 20;
        for (largest, want) in [
            (0, (1, 1)),
            (5, (1, 5)),
            (6, (2, 6)),
            (2048, (500, 2500)),
            (4_300_000, (mib, 5 * mib)),
            (1 << 50, (500 << 40, 1500 << 40)),
            (u64::MAX, (u64::MAX / 5 + 1, u64::MAX)),
        ] {
            assert_eq!(grid(largest), want, "{largest}");
        }
    }

    #[test]
    fn labels_keep_their_distance_and_their_order() {
        for (wanted, want) in [
            (&[10.0, 50.0][..], &[10.0, 50.0][..]),
            (&[10.0, 12.0, 11.0], &[10.0, 40.0, 25.0]),
            (&[95.0, 99.0], &[85.0, 100.0]),
        ] {
            assert_eq!(apart(wanted, 15.0, 100.0), want, "{wanted:?}");
        }
    }

    #[test]
    fn texts_are_cut_by_characters() {
        assert_eq!((short("prod", 4), short("größer als", 4)), ("prod".into(), "grö…".into()));
        assert_eq!(
            (short_path("bin/app", 9), short_path("static/größe.js", 9)),
            ("bin/app".into(), "…größe.js".into())
        );
    }
}
