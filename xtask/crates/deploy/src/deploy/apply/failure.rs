//! What is shown of a service that failed: its error, and the last lines of its log.

use crate::host::Target;
use gangplank_model::error::{failed, split_hint};
use gangplank_model::event::Event;
use gangplank_model::service::Spec;
use gangplank_system::context::{Context, Output};

/// How many lines of a service's log are shown when it fails.
const LOG_LINES: u32 = 20;

/// How much of a line of it.
const LOG_LINE_CHARS: usize = 1000;

/// The error of a service command that failed, with the hint that it printed, or else with `hint`.
pub(in crate::deploy) fn service_failure(
    ctx: &Context,
    url: &str,
    answer: &Output,
    hint: Option<String>,
) -> anyhow::Error {
    let said = ctx.scrub(&[answer.stdout.trim(), answer.stderr.trim()].join("\n"));
    let (said, own) = split_hint(&said);
    let exit = gangplank_system::context::exit(answer.code);
    let failure = failed(format!("{url}: the service command {exit}: {}", said.trim().replace('\n', " ")));
    match own.map(str::to_owned).or(hint) {
        Some(hint) => failure.hint(hint).into(),
        None => failure.into(),
    }
}

/// Shows the last lines that the service of a host wrote.
pub(in crate::deploy) fn show_log(ctx: &Context, spec: &Spec, target: &dyn Target) {
    let Some(script) = spec.log(target.root(), LOG_LINES) else { return };
    if let Ok(answer) = target.run(&script) {
        if !answer.ok() {
            let said = ctx.scrub(&answer.stderr);
            let (said, hint) = split_hint(&said);
            return ctx.warn(format!(
                "{}: {said}{}",
                target.url(),
                hint.map(|it| format!("; {it}")).unwrap_or_default()
            ));
        }
        let lines = answer.stdout.lines().map(|line| shortened(line, LOG_LINE_CHARS)).collect();
        ctx.emit(Event::ServiceLog { target: target.url().to_owned(), lines });
    }
}

/// The beginning of a line, with a word that there is more.
pub fn shortened(line: &str, chars: usize) -> String {
    match line.char_indices().nth(chars) {
        Some((at, _)) => format!("{}... (the line goes on)", &line[..at]),
        None => line.to_owned(),
    }
}
