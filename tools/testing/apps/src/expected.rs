//! `apps/expected-differences`: what is known, and why. A line that does not occur is an error, too.

use crate::root;
use smc_selftest::{Fail, Outcome};

/// What a line excuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Fails over TCP, and so says nothing.
    Both,
    /// Over SMC-R it is different.
    Smc,
    /// Either, sometimes.
    Flaky,
}

struct Line {
    case: String,
    id: String,
    what: What,
    reason: String,
}

pub struct Expected(Vec<Line>);

/// The lines of one case, and whether each occurred.
pub struct OfCase<'a>(Vec<(&'a Line, bool)>);

impl Expected {
    pub fn read() -> Outcome<Expected> {
        let text = root::read("expected-differences")?;
        let mut lines = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let wrong = || {
                Fail(format!("apps/expected-differences: '{line}' is not CASE | NAME | both, smc or flaky | REASON"))
            };
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let [case, id, what, reason] = fields[..] else {
                return Err(wrong());
            };
            lines.push(Line {
                case: case.to_owned(),
                id: id.to_owned(),
                what: match what {
                    "both" => What::Both,
                    "smc" => What::Smc,
                    "flaky" => What::Flaky,
                    _ => return Err(wrong()),
                },
                reason: reason.to_owned(),
            });
        }
        Ok(Expected(lines))
    }

    pub fn of(&self, case: &str) -> OfCase<'_> {
        OfCase(
            self.0
                .iter()
                .filter(|line| line.case == case)
                .map(|line| (line, false))
                .collect(),
        )
    }
}

impl OfCase<'_> {
    /// Whether a line excuses this.
    pub fn takes(&mut self, id: &str, what: What) -> bool {
        let mut taken = false;
        for (line, used) in &mut self.0 {
            if line.id == id && (line.what == what || line.what == What::Flaky) {
                *used = true;
                taken = true;
            }
        }
        taken
    }

    /// Lines that did not occur.
    pub fn left_over(&self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(line, used)| !used && line.what != What::Flaky)
            .map(|(line, _)| {
                format!(
                    "{}: listed in apps/expected-differences, but did not occur",
                    line.id
                )
            })
            .collect()
    }

    /// Reasons of what occurred over SMC-R.
    pub fn used(&self) -> Vec<String> {
        let mut reasons: Vec<String> = Vec::new();
        for (line, _) in self
            .0
            .iter()
            .filter(|(line, used)| *used && line.what != What::Both)
        {
            let name = line.id.rsplit('.').next().unwrap_or_default();
            reasons.push(format!("{name}: {}", line.reason));
        }
        reasons
    }
}
