//! What happened, with time stamps, and how often.

use serde::Serialize;
use std::collections::VecDeque;
use std::fmt;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    pub commands: u64,
    pub failed_commands: u64,
    pub doorbells: u64,
    pub requests: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub messages_in: u64,
    pub completions: u64,
    pub error_completions: u64,
    pub dropped_completions: u64,
    pub events: u64,
    pub async_events: u64,
    pub not_ready: u64,
    pub silent: u64,
    pub datagrams_lost: u64,
    pub resets: u64,
    pub complaints: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Command {
        module: u8,
        opcode: u8,
        syndrome: u8,
    },
    Request {
        qpn: u32,
        op: &'static str,
        length: u32,
    },
    Completion {
        cqn: u32,
        qpn: u32,
        op: u8,
        syndrome: u8,
    },
    State {
        qpn: u32,
        state: &'static str,
    },
    NotReady {
        qpn: u32,
    },
    Silent {
        qpn: u32,
        tries: u32,
    },
    Reset,
    Fault(&'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Command {
                module,
                opcode,
                syndrome,
            } => write!(f, "command {module}/{opcode} -> {syndrome}"),
            What::Request { qpn, op, length } => write!(f, "QP {qpn}: {op} of {length} bytes"),
            What::Completion {
                cqn,
                qpn,
                op,
                syndrome,
            } => write!(f, "CQ {cqn}: QP {qpn}, operation {op}, syndrome {syndrome}"),
            What::State { qpn, state } => write!(f, "QP {qpn} is {state}"),
            What::NotReady { qpn } => write!(f, "QP {qpn}: the receiver is not ready"),
            What::Silent { qpn, tries } => write!(f, "QP {qpn}: no answer, try {tries}"),
            What::Reset => write!(f, "reset"),
            What::Fault(name) => write!(f, "fault: {name}"),
        }
    }
}

#[derive(Default)]
pub struct Trace {
    last: VecDeque<(u64, usize, What)>,
}

const KEPT: usize = 8192;

impl Trace {
    pub fn push(&mut self, now: u64, device: usize, what: What) {
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back((now, device, what));
    }

    /// The newest entries, oldest first: seconds, device, what.
    pub fn tail(&self, count: usize) -> impl Iterator<Item = String> + '_ {
        self.last
            .iter()
            .skip(self.last.len().saturating_sub(count))
            .map(|(at, device, what)| {
                format!(
                    "{:>4}.{:06} d{device} {what}",
                    at / 1_000_000_000,
                    at / 1_000 % 1_000_000
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_keeps_the_newest() {
        let mut trace = Trace::default();
        for n in 0..KEPT as u64 + 5 {
            trace.push(n * 1_000, 1, What::NotReady { qpn: n as u32 });
        }
        assert_eq!(trace.last.len(), KEPT);
        assert_eq!(
            trace.tail(1).collect::<Vec<_>>(),
            [format!(
                "   0.{:06} d1 QP {}: the receiver is not ready",
                KEPT + 4,
                KEPT + 4
            )]
        );
    }
}
