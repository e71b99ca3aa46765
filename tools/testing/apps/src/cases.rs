//! The cases: a command each, run in the root with the programs, and the results it tells.

use crate::root;
use smc_selftest::transport::Transport;
use smc_selftest::{Context, Fail, Outcome};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// A line of `apps/cases`.
pub struct Case {
    pub name: String,
    /// Seconds of wall-clock time for one run; it ends a hang and measures nothing.
    limit: u64,
    pub program: String,
    pub ran: String,
    command: String,
}

pub fn read() -> Outcome<Vec<Case>> {
    let text = root::read("cases")?;
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let [name, limit, program, ran, command] = fields[..] else {
                return Err(Fail(format!("apps/cases: '{line}' has not five fields")));
            };
            Ok(Case {
                name: name.to_owned(),
                limit: limit
                    .parse()
                    .during(&format!("apps/cases: the limit of {name}"))?,
                program: program.to_owned(),
                ran: ran.to_owned(),
                command: command.to_owned(),
            })
        })
        .collect()
}

impl Case {
    /// Runs the case's command; over what decides who calls.
    pub fn run(&self, transport: Transport) -> Outcome<Results> {
        let told = root::fresh_results()?;
        let log = root::log(&format!("{}.{}.log", self.name, transport.name()))?;
        // Namespaces of its own: what it leaves running or mounted goes with it.
        let status = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "timeout",
                "-k",
                "5",
            ])
            .arg(self.limit.to_string())
            .args(["chroot", root::DIR, "/usr/bin/env", "-i"])
            .args(root::ENVIRONMENT)
            .args(["bash", "-c", ". /rig/lib.sh && begin && \"$@\"", "case"])
            .args(self.command.split_whitespace())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .during(&self.name)?;
        let mut results = Results::parse(&std::fs::read_to_string(told)?)?;
        match status.code() {
            Some(0) => {}
            Some(124 | 137) => results.add("limit", &format!("not done in {} s", self.limit)),
            code => results.add("exit", &format!("{code:?}")),
        }
        root::keep(
            &format!("{}.{}.results", self.name, transport.name()),
            &results.text(),
        )?;
        Ok(results)
    }
}

/// What a run told: `ok`, `skipped ...`, or what went wrong, by name.
pub struct Results(BTreeMap<String, String>);

impl Results {
    fn parse(text: &str) -> Outcome<Results> {
        let mut results = Results(BTreeMap::new());
        for line in text.lines() {
            let (id, value) = line
                .split_once('\t')
                .ok_or_else(|| Fail(format!("'{line}' is no result")))?;
            results.add(id, value);
        }
        Ok(results)
    }

    /// The same name again, as tests with parameters have it: the worse counts.
    fn add(&mut self, id: &str, value: &str) {
        let known = self
            .0
            .entry(id.to_owned())
            .or_insert_with(|| value.to_owned());
        if !is_failure(known) {
            value.clone_into(known);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter(|(_, value)| is_failure(value))
            .map(|(id, value)| (id.as_str(), value.as_str()))
    }

    /// (name, value here, value there) of what is not equal.
    pub fn differences<'a>(&'a self, other: &'a Results) -> Vec<(&'a str, &'a str, &'a str)> {
        let names = self
            .0
            .keys()
            .chain(other.0.keys().filter(|id| !self.0.contains_key(*id)));
        names
            .filter_map(|id| {
                let (here, there) = (self.value(id), other.value(id));
                (outcome(here) != outcome(there)).then_some((id.as_str(), here, there))
            })
            .collect()
    }

    fn value(&self, id: &str) -> &str {
        self.0.get(id).map_or("not run", String::as_str)
    }

    /// "12 ok, 1 failed, 3 skipped"
    pub fn words(&self) -> String {
        let failed = self.failures().count();
        let skipped = self
            .0
            .values()
            .filter(|value| value.starts_with("skipped"))
            .count();
        let mut words = vec![format!("{} ok", self.0.len() - failed - skipped)];
        if failed > 0 {
            words.push(format!("{failed} failed"));
        }
        if skipped > 0 {
            words.push(format!("{skipped} skipped"));
        }
        words.join(", ")
    }

    fn text(&self) -> String {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|(id, value)| format!("{id}\t{value}\n"))
            .collect();
        lines.concat()
    }
}

fn is_failure(value: &str) -> bool {
    outcome(value) != "ok" && outcome(value) != "skipped"
}

/// The first word: details (a message with a port number) need not be equal.
fn outcome(value: &str) -> &str {
    value.split([' ', ':']).next().unwrap_or_default()
}
