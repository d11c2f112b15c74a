//! JSON output: one result on stdout, one event per line on stderr.

use crate::commands::CommandOutput;
use gangplank_model::event::{Event, HostOutput, Sink};
use std::io::Write;

/// Writes events as JSON lines, without progress.
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

/// A line of a host's output as JSON.
pub fn host_output(output: &HostOutput) -> String {
    serde_json::to_string(output).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}")) + "\n"
}

/// A result as pretty JSON; empty if it was streamed.
pub fn answer(answer: &CommandOutput) -> String {
    if matches!(answer, CommandOutput::Streamed) {
        return String::new();
    }
    serde_json::to_string_pretty(answer).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}")) + "\n"
}

/// An error as a JSON line.
pub fn error(message: &str, hint: Option<&str>, code: u8) -> String {
    serde_json::json!({ "error": message, "hint": hint, "exit_code": code }).to_string() + "\n"
}
