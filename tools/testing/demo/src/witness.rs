//! Who saw what went over the wire: packet filter, RDMA devices, TCP's counters, sock_diag.

use smc_selftest::kind::Host;
use smc_selftest::mode::{self, Mode};
use smc_selftest::{rig, sys, Fail, Outcome};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// RoCEv2's UDP port.
const RULES: &str = "
table inet witness {
    counter by_rdma { }
    counter by_tcp { }
    chain out {
        type filter hook output priority 300; policy accept;
        udp dport 4791 counter name by_rdma
        meta l4proto tcp counter name by_tcp
    }
}
";

/// Counts what each host sends, by RDMA and by TCP.
pub fn install() -> Outcome {
    sys::write_file("/tmp/witness.nft", RULES)?;
    for host in Host::BOTH {
        rig::run_on(host, "nft -f /tmp/witness.nft")?;
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Counters {
    rdma_bytes: u64,
    rdma_packets: u64,
    tcp_bytes: u64,
    opened: u64,
}

/// The sum over both hosts.
fn counters() -> Outcome<Counters> {
    let mut sum = Counters {
        rdma_packets: mode::rdma_packets()?,
        ..Counters::default()
    };
    for host in Host::BOTH {
        sum.rdma_bytes += filter_bytes(host, "by_rdma")?;
        sum.tcp_bytes += filter_bytes(host, "by_tcp")?;
        sys::enter(host)?;
        sum.opened += tcp_opens()?;
    }
    sys::leave()?;
    Ok(sum)
}

fn filter_bytes(host: Host, name: &str) -> Outcome<u64> {
    let text = rig::run_on(host, &format!("nft list counter inet witness {name}"))?;
    let mut words = text.split_whitespace();
    words
        .find(|&word| word == "bytes")
        .and_then(|_| words.next())
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| Fail(format!("nft shows no byte count: {text}")))
}

/// Connections that this namespace has opened actively (Tcp: ActiveOpens).
fn tcp_opens() -> Outcome<u64> {
    let text = sys::read_file("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return Err(Fail("no TCP line in /proc/net/snmp".into()));
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|&(name, _)| name == "ActiveOpens")
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(|| Fail("no ActiveOpens in /proc/net/snmp".into()))
}

/// Looks at the sockets of both hosts while a program runs.
pub struct Watch {
    before: Counters,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<HashMap<u64, Mode>>>,
}

pub struct Evidence {
    pub opened: u64,
    pub rdma_bytes: u64,
    pub rdma_packets: u64,
    pub tcp_bytes: u64,
    /// Connections that sock_diag was seen to list as SMC-R, and as fallen back.
    pub proved: usize,
    pub fallbacks: usize,
}

impl Watch {
    pub fn start() -> Outcome<Watch> {
        let over = Arc::new(AtomicBool::new(false));
        let threads = Host::BOTH
            .into_iter()
            .map(|host| {
                let over = Arc::clone(&over);
                std::thread::spawn(move || {
                    let mut seen = HashMap::new();
                    if sys::enter(host).is_err() {
                        return seen;
                    }
                    while !over.load(Ordering::Relaxed) {
                        for (inode, mode) in mode::connections().unwrap_or_default() {
                            // Once fallen back is enough.
                            let entry = seen.entry(inode).or_insert(mode);
                            if matches!(mode, Mode::Fallback(_)) {
                                *entry = mode;
                            }
                        }
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    seen
                })
            })
            .collect();
        Ok(Watch {
            before: counters()?,
            over,
            threads,
        })
    }

    pub fn stop(self) -> Outcome<Evidence> {
        self.over.store(true, Ordering::Relaxed);
        let mut proved = 0;
        let mut fallbacks = 0;
        for thread in self.threads {
            let seen = thread
                .join()
                .map_err(|_| Fail("the thread that watches the sockets panicked".into()))?;
            let by_rdma = seen.values().filter(|&&mode| mode == Mode::Rdma).count();
            proved += by_rdma;
            fallbacks += seen.len() - by_rdma;
        }
        let after = counters()?;
        Ok(Evidence {
            opened: after.opened - self.before.opened,
            rdma_bytes: after.rdma_bytes - self.before.rdma_bytes,
            rdma_packets: after.rdma_packets - self.before.rdma_packets,
            tcp_bytes: after.tcp_bytes - self.before.tcp_bytes,
            proved,
            fallbacks,
        })
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connections opened {}; by RDMA {} bytes in {} packets; by TCP {} bytes",
            self.opened, self.rdma_bytes, self.rdma_packets, self.tcp_bytes
        )?;
        if self.proved + self.fallbacks > 0 {
            write!(
                f,
                "; sockets seen by sock_diag: {} SMC-R, {} fallen back",
                self.proved, self.fallbacks
            )?;
        }
        Ok(())
    }
}
