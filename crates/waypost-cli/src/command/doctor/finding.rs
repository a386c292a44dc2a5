//! The findings of `waypost doctor`.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::error::CommandError;
use crate::output::{JSON_SCHEMA, counted};
use crate::style::{Text, Tone, print_texts};
use crate::terminal::print_json;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// No problem.
    Ok,
    /// It works, but not as well as it could, or not everywhere.
    Warning,
    /// It does not work.
    Error,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Warning => Tone::Caution,
            Self::Error => Tone::Bad,
        }
    }
}

/// The result of one examination.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    severity: Severity,
    /// What was examined, in one word.
    subject: &'static str,
    /// What was found.
    what: String,
    /// What to do about it; empty if there is nothing to do.
    advice: String,
}

impl Finding {
    pub(super) fn ok(subject: &'static str, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Ok,
            subject,
            what: what.into(),
            advice: String::new(),
        }
    }

    pub(super) fn warning(
        subject: &'static str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            subject,
            what: what.into(),
            advice: advice.into(),
        }
    }

    pub(super) fn error(
        subject: &'static str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            ..Self::warning(subject, what, advice)
        }
    }

    fn json(&self) -> Value {
        json!({
            "severity": self.severity.as_str(),
            "subject": self.subject,
            "what": self.what,
            "advice": Some(&self.advice).filter(|advice| !advice.is_empty()),
        })
    }
}

/// Prints the findings as JSON.
pub(super) fn print_findings_json(findings: &[Finding]) -> Result<(), CommandError> {
    print_json(&json!({
        "schema": JSON_SCHEMA,
        "worst": worst(findings).as_str(),
        "findings": findings.iter().map(Finding::json).collect::<Vec<_>>(),
    }))
}

/// Prints the findings for people, in their order, and the number of warnings and errors.
pub(super) fn print_findings(findings: &[Finding]) -> Result<(), CommandError> {
    let widest = findings.iter().map(|finding| finding.subject.len()).max();
    let width = widest.unwrap_or(0);
    for finding in findings {
        let Finding {
            severity, subject, ..
        } = finding;
        let mut lines = finding.what.lines();
        print_texts(&[
            Text::toned(severity.tone(), format_args!("{:<7}", severity.as_str())),
            Text::toned(Tone::Heading, format_args!("  {subject:<width$}")),
            Text::new(format_args!("  {}", lines.next().unwrap_or_default())),
        ])?;
        let indent = " ".repeat(width + 11);
        for line in lines {
            print_texts(&[Text::new(format_args!("{indent}{line}"))])?;
        }
        for (index, line) in finding.advice.lines().enumerate() {
            let arrow = if index == 0 { "→ " } else { "  " };
            print_texts(&[Text::new(format_args!("{indent}{arrow}{line}"))])?;
        }
    }
    let count = |severity| {
        let all = findings.iter();
        all.filter(|finding| finding.severity == severity).count()
    };
    let errors = counted(count(Severity::Error), "error");
    let warnings = counted(count(Severity::Warning), "warning");
    let tone = worst(findings).tone();
    print_texts(&[Text::new("")])?;
    print_texts(&[Text::toned(tone, format_args!("{errors}, {warnings}"))])
}

/// The exit code: 0 without problems, 1 with warnings, 2 with errors.
pub(super) fn exit_code(findings: &[Finding]) -> ExitCode {
    ExitCode::from(match worst(findings) {
        Severity::Ok => 0,
        Severity::Warning => 1,
        Severity::Error => 2,
    })
}

fn worst(findings: &[Finding]) -> Severity {
    let severities = findings.iter().map(|finding| finding.severity);
    severities.max().unwrap_or(Severity::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_worst_finding() {
        let ok = || Finding::ok("a", "fine");
        let warning = || Finding::warning("b", "slow", "wait");
        let error = || Finding::error("c", "broken", "mend it");
        for (findings, code, name) in [
            (vec![], 0, "ok"),
            (vec![ok()], 0, "ok"),
            (vec![ok(), warning(), ok()], 1, "warning"),
            (vec![error(), warning()], 2, "error"),
        ] {
            assert_eq!(exit_code(&findings), ExitCode::from(code));
            assert_eq!(worst(&findings).as_str(), name);
        }
        let expected = json!({ "severity": "ok", "subject": "a", "what": "fine", "advice": null });
        assert_eq!(ok().json(), expected);
        let expected =
            json!({ "severity": "error", "subject": "c", "what": "broken", "advice": "mend it" });
        assert_eq!(error().json(), expected);
    }
}
