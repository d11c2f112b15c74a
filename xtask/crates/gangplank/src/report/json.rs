//! For machines: one answer on stdout, one event a line on stderr.

use crate::commands::CommandOutput;
use gangplank_model::event::{Event, HostOutput, Sink};
use std::io::Write;

/// Writes events as JSON lines. Progress is left out: a log wants results.
pub struct JsonSink;

impl Sink for JsonSink {
    fn emit(&self, event: &Event) {
        if !matches!(event, Event::Progress { .. })
            && let Ok(line) = serde_json::to_string(event)
        {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

/// What a host said, as a line of JSON.
pub fn host_output(output: &HostOutput) -> String {
    serde_json::to_string(output).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}")) + "\n"
}

/// An answer as pretty JSON; nothing where it went past line by line.
pub fn answer(answer: &CommandOutput) -> String {
    if matches!(answer, CommandOutput::Heard) {
        return String::new();
    }
    serde_json::to_string_pretty(answer).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}")) + "\n"
}

/// An error as a line of JSON.
pub fn error(message: &str, hint: Option<&str>, code: u8) -> String {
    serde_json::json!({ "error": message, "hint": hint, "exit_code": code }).to_string() + "\n"
}
