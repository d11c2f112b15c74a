//! Diagnosis of a failed service: its error and the last lines of its log.

use crate::host::Target;
use gangplank_model::error::{failed, split_hint};
use gangplank_model::event::Event;
use gangplank_model::service::Spec;
use gangplank_system::context::{Context, Output};

/// Number of log lines shown for a failed service.
const LOG_LINES: u32 = 20;

/// Characters shown per log line.
const LOG_LINE_CHARS: usize = 1000;

/// The error of a failed service command, with the hint it printed or else `hint`.
pub(crate) fn service_failure(ctx: &Context, url: &str, answer: &Output, hint: Option<String>) -> anyhow::Error {
    let said = ctx.scrub(&[answer.stdout.trim(), answer.stderr.trim()].join("\n"));
    let (said, own) = split_hint(&said);
    let exit = gangplank_system::context::exit(answer.code);
    let failure = failed(format!("{url}: the service command {exit}: {}", said.trim().replace('\n', " ")));
    match own.map(str::to_owned).or(hint) {
        Some(hint) => failure.hint(hint).into(),
        None => failure.into(),
    }
}

/// Prints the last log lines of a service.
pub(crate) fn show_log(ctx: &Context, spec: &Spec, target: &dyn Target) {
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

/// The start of a line, marked if truncated.
pub fn shortened(line: &str, chars: usize) -> String {
    match line.char_indices().nth(chars) {
        Some((at, _)) => format!("{}... (truncated)", &line[..at]),
        None => line.to_owned(),
    }
}
