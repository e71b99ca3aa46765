// SPDX-License-Identifier: GPL-2.0

//! What was checked and what came out.

use serde_json::{json, Value};

/// What came out of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As SMC needs it.
    Passed,
    /// SMC is not used because of this.
    Failed,
    /// Neither; it may be of interest.
    Note,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Passed => "ok",
            Verdict::Failed => "failed",
            Verdict::Note => "note",
        }
    }
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    name: &'static str,
    verdict: Verdict,
    text: String,
    /// What to do, in one line.
    advice: Option<String>,
}

/// All checks, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checks: Vec<Check>,
    /// Whether details are wanted, too.
    debug: bool,
}

impl Report {
    fn push(&mut self, name: &'static str, verdict: Verdict, text: String, advice: Option<String>) {
        self.checks.push(Check {
            name,
            verdict,
            text,
            advice,
        });
    }

    /// Without any check yet.
    pub(crate) fn new(debug: bool) -> Self {
        Self {
            debug,
            ..Self::default()
        }
    }

    /// What a check looked at; shown only where that was asked for.
    pub(crate) fn detail(&mut self, name: &'static str, text: impl FnOnce() -> String) {
        if self.debug {
            self.note(name, text());
        }
    }

    /// As it should be.
    pub(crate) fn passed(&mut self, name: &'static str, text: impl Into<String>) {
        self.push(name, Verdict::Passed, text.into(), None);
    }

    /// Of interest.
    pub(crate) fn note(&mut self, name: &'static str, text: impl Into<String>) {
        self.push(name, Verdict::Note, text.into(), None);
    }

    /// Not as it should be, and what to do.
    pub(crate) fn failed(
        &mut self,
        name: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.push(name, Verdict::Failed, text.into(), Some(advice.into()));
    }

    /// Whether no check failed.
    pub(crate) fn is_good(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.verdict != Verdict::Failed)
    }

    /// A line for each check, and one below each that failed.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            text.push_str(&format!(
                "{:<6}  {:<12} {}\n",
                check.verdict.word(),
                check.name,
                check.text
            ));
            if let Some(advice) = &check.advice {
                text.push_str(&format!("{:21}-> {advice}\n", ""));
            }
        }
        text
    }

    /// The same as an object.
    pub(crate) fn object(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                json!({
                    "check": check.name, "verdict": check.verdict.word(), "text": check.text, "advice": check.advice,
                })
            })
            .collect();
        json!({ "ok": self.is_good(), "checks": checks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_its_advice_below() {
        let mut report = Report::default();
        report.passed("module", "loaded");
        report.note("memory", "fine");
        assert!(report.is_good());
        report.detail("device", || panic!("nobody asked"));
        report.failed("device", "none", "get one");
        assert!(!report.is_good());
        assert_eq!(
            report.text(),
            "\
ok      module       loaded
note    memory       fine
failed  device       none
                     -> get one
"
        );
        let object = report.object();
        assert_eq!(object["ok"], false);
        assert_eq!(object["checks"][2]["advice"], "get one");
        assert_eq!(object["checks"][0]["advice"], Value::Null);
        let mut report = Report::new(true);
        report.detail("device", || "rxe0".into());
        assert_eq!(report.text(), "note    device       rxe0\n");
    }
}
