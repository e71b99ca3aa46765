//! The report: KTAP on a port of its own, and the same for the eyes.

use crate::Outcome;
use std::fs::{File, OpenOptions};
use std::io::Write;

const PORT: &str = "/dev/virtio-ports/ktap";

pub enum Verdict {
    Pass,
    Fail(String),
    Skip(String),
}

pub struct Report {
    port: Option<File>,
    /// Whether the lines are shown as well.
    shown: bool,
    number: usize,
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Report {
    /// Opens the report; `plan` results must follow, or the reader counts the missing as failed.
    pub fn new(plan: usize) -> Report {
        Report::with(plan, true)
    }

    /// A report that only goes to the port, for programs that tell people in other words.
    pub fn silent(plan: usize) -> Report {
        Report::with(plan, false)
    }

    fn with(plan: usize, shown: bool) -> Report {
        let port = OpenOptions::new().write(true).open(PORT).ok();
        let mut report = Report {
            port,
            shown,
            number: 0,
            passed: 0,
            failed: 0,
            skipped: 0,
        };
        report.line("KTAP version 1");
        report.line(&format!("1..{plan}"));
        report
    }

    fn line(&mut self, text: &str) {
        if self.shown {
            println!("{text}");
        }
        if let Some(port) = &mut self.port {
            // The port is a file of the host: if it is gone, so is everything else.
            let _ = writeln!(port, "{text}");
        }
    }

    pub fn diagnostic(&mut self, text: &str) {
        for line in text.lines() {
            self.line(&format!("# {line}"));
        }
    }

    pub fn result(&mut self, name: &str, verdict: Verdict) {
        self.number += 1;
        let number = self.number;
        match verdict {
            Verdict::Pass => {
                self.passed += 1;
                self.line(&format!("ok {number} {name}"));
            }
            Verdict::Skip(why) => {
                self.skipped += 1;
                self.line(&format!("ok {number} {name} # SKIP {why}"));
            }
            Verdict::Fail(why) => {
                self.failed += 1;
                self.diagnostic(&why);
                self.line(&format!("not ok {number} {name}"));
            }
        }
    }
}

/// Something that is done once, in a machine of its own.
pub type Step = (&'static str, fn() -> Outcome);

/// Does these one after another, whether or not one fails; true if all passed.
pub fn run(steps: &[Step]) -> bool {
    let mut report = Report::new(steps.len());
    for (name, step) in steps {
        let verdict = match step() {
            Ok(()) => Verdict::Pass,
            Err(failure) => Verdict::Fail(failure.0),
        };
        report.result(name, verdict);
    }
    report.failed == 0
}
