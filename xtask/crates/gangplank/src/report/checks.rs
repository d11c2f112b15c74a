//! The results of `ci lint` and `test` as text.

use crate::report::style::{Style, count, duration};
use crate::test::Tested;
use gangplank_lint::{Finding, Severity};
use std::fmt::Write;

/// The findings of the linter.
pub fn lint(findings: &[Finding], style: Style) -> String {
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

/// The checks that passed.
pub fn tested(tested: &Tested) -> String {
    let checks: Vec<_> = tested.checks.iter().map(|it| format!("{} ({})", it.check, duration(it.ms))).collect();
    let skipped = match tested.skipped.len() {
        0 => String::new(),
        n => format!("; {n} skipped, see above"),
    };
    format!("passed: {}{skipped}\n", checks.join(", "))
}
