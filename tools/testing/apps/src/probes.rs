//! Counts what becomes of SMC sockets, in the module: probes where a connection is established by SMC-R, and where a
//! socket falls back (`tools/testing/faults/smc_count.c`).

use smc_selftest::{rig, sys, Context, Fail, Outcome};
use std::collections::BTreeMap;

const PARAMETERS: &str = "/sys/module/smc_count/parameters";
/// What the (mangled) names of the functions have in them, and how they end; in between may be references back.
const ESTABLISHED: (&str, &str) = ("8smc_core4connNt", "4Conn11established");
/// `fallback::enter(sk, life, clc, role, reason, peer_diagnosis)`.
const FALLBACK: (&str, &str) = ("8smc_core4sock", "8fallback5enter");

pub struct Probes(());

/// Ends of connections: a connection within the machine has two.
#[derive(Clone, Default)]
pub struct Counts {
    pub smc_ends: u64,
    pub by_reason: BTreeMap<String, u64>,
}

impl Probes {
    pub fn install() -> Outcome<Probes> {
        rig::run(&format!(
            "modprobe smc_count established_at={} fallback_at={}",
            symbol(ESTABLISHED)?,
            symbol(FALLBACK)?
        ))?;
        Ok(Probes(()))
    }

    pub fn remove(self) -> Outcome {
        rig::run("rmmod smc_count")?;
        Ok(())
    }

    /// How often they have been hit since they are there.
    pub fn read(&self) -> Outcome<Counts> {
        let numbers = |name: &str| -> Outcome<Vec<u64>> {
            let text = sys::read_file(&format!("{PARAMETERS}/{name}"))?;
            let words = text.split([',', '\n']).filter(|word| !word.is_empty());
            words.map(|word| word.parse().during(name)).collect()
        };
        let mut counts = Counts {
            smc_ends: numbers("established")?.iter().sum(),
            by_reason: BTreeMap::new(),
        };
        for (code, ends) in numbers("reasons")?.into_iter().zip(numbers("fallbacks")?) {
            let text = u32::try_from(code)
                .ok()
                .and_then(smc_tools_common::reason::text);
            let text = text.map_or_else(|| format!("{code:#010x}"), str::to_owned);
            counts.by_reason.insert(text, ends);
        }
        Ok(counts)
    }
}

impl Counts {
    pub fn since(&self, before: &Counts) -> Counts {
        let mut by_reason = self.by_reason.clone();
        by_reason.retain(|reason, ends| {
            *ends -= before.by_reason.get(reason).unwrap_or(&0);
            *ends > 0
        });
        Counts {
            smc_ends: self.smc_ends - before.smc_ends,
            by_reason,
        }
    }

    pub fn fallbacks(&self) -> u64 {
        self.by_reason.values().sum()
    }

    pub fn words(&self) -> String {
        let mut words = format!("{} connections by SMC-R", self.connections());
        for (reason, ends) in &self.by_reason {
            words += &format!(", {ends} ends fell back ({reason})");
        }
        words
    }

    /// An odd end is one whose other end broke off the handshake at its last step.
    pub fn connections(&self) -> u64 {
        self.smc_ends / 2
    }
}

/// The function of the module whose name ends so.
fn symbol((part, end): (&str, &str)) -> Outcome<String> {
    let all = sys::read_file("/proc/kallsyms")?;
    let found: Vec<&str> = all
        .lines()
        .filter(|line| line.ends_with("[smc_rs]"))
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|name| name.starts_with("_R") && name.contains(part) && name.ends_with(end))
        .collect();
    match found[..] {
        [one] => Ok(one.to_owned()),
        _ => Err(Fail(format!(
            "{} functions of the module are named ...{part}...{end}: the probes of the counts (apps/src/probes.rs) need one",
            found.len()
        ))),
    }
}
