//! Findings, and the report that checks add them to.

use serde::Serialize;

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// A stable code for this kind of mistake, in kebab case.
    pub code: &'static str,
    /// The line of the configuration, from 1.
    pub line: usize,
    /// The mistake, with its job or step.
    pub message: String,
    /// The correction.
    pub hint: String,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// CircleCI rejects it, or a job cannot work.
    Error,
    /// Everything else.
    Warning,
}

/// Collects findings. A step that is reached twice, by an alias or by two workflows, counts once.
#[derive(Default)]
pub(crate) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        line: usize,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Error, code, line, message.into(), hint.into());
    }

    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        line: usize,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Warning, code, line, message.into(), hint.into());
    }

    pub(crate) fn add(&mut self, severity: Severity, code: &'static str, line: usize, message: String, hint: String) {
        self.findings.push(Finding { severity, code, line, message, hint });
    }

    pub(crate) fn sorted(mut self) -> Vec<Finding> {
        self.findings.sort_by(|a, b| (a.line, a.code, &a.message).cmp(&(b.line, b.code, &b.message)));
        self.findings.dedup();
        self.findings
    }
}
