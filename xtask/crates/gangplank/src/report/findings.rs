//! The findings of `ci lint` as text.

use crate::report::style::{Style, count};
use gangplank_lint::{Finding, Severity};
use std::fmt::Write;

/// The findings of the linter.
pub fn findings(findings: &[Finding], style: Style) -> String {
    if findings.is_empty() {
        return "no findings\n".into();
    }
    let mut out = String::new();
    for it in findings {
        let severity = match it.severity {
            Severity::Error => style.bad("error"),
            Severity::Warning => style.warn("warning"),
        };
        let _ = writeln!(out, "line {}: {severity} [{}] {}\n  hint: {}", it.line, it.code, it.message, it.hint);
    }
    let errors = findings.iter().filter(|it| it.severity == Severity::Error).count();
    let _ = writeln!(out, "{}, {}", count(errors, "error"), count(findings.len() - errors, "warning"));
    out
}
