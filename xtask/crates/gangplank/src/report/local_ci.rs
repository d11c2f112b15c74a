//! The result of `ci run` as text.

use crate::report::style::{Style, count, duration, table};
use gangplank_local_ci::run::CiRun;
use std::fmt::Write;

/// The jobs, and what is live now.
pub fn run(run: &CiRun, style: Style) -> String {
    // On a terminal the lines of the jobs are above.
    let mut out = if style.width.is_some() {
        let ms = run.jobs.iter().map(|it| it.ms).sum();
        format!("{}: {}\n", count(run.jobs.len(), "job"), duration(ms))
    } else {
        let mut rows = vec![["JOB", "STATUS", "TIME"].map(str::to_owned).to_vec()];
        rows.extend(run.jobs.iter().map(|it| vec![it.job.clone(), it.status.as_str().to_owned(), duration(it.ms)]));
        table(style, &rows)
    };
    for live in &run.live {
        let _ = writeln!(
            out,
            "{} ({}): {}",
            live.env,
            live.target,
            live.release.as_ref().map_or("nothing is live".into(), |id| format!("{} is live", style.id(id)))
        );
    }
    if !run.changed {
        out.push_str("nothing changed: every env was up to date, or no deploy job ran\n");
    }
    out
}
