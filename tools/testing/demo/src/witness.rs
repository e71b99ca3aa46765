//! Who saw what went over the wire: packet filter, RDMA devices, TCP's counters, sock_diag.

use smc_selftest::kind::Host;
use smc_selftest::mode::{self, Mode};
use smc_selftest::transport::Transport;
use smc_selftest::{proc_net, rig, sys, Fail, Outcome};
use std::collections::HashMap;
use std::net::SocketAddr;
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
        let snmp = sys::read_file("/proc/thread-self/net/snmp")?;
        sum.opened += proc_net::counter(&snmp, "Tcp", "ActiveOpens")?;
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

/// Looks at the sockets of both hosts while a program runs.
pub struct Watch {
    before: Counters,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Outcome<Modes>>>,
}

/// The modes of connections, which the client's address tells apart.
type Modes = HashMap<SocketAddr, Mode>;

pub struct Evidence {
    pub opened: u64,
    pub rdma_bytes: u64,
    pub rdma_packets: u64,
    pub tcp_bytes: u64,
    /// Connections that sock_diag of AF_SMC has listed, at either end, as SMC-R and as fallen back.
    pub smc: u64,
    pub fallbacks: u64,
}

impl Watch {
    pub fn start() -> Outcome<Watch> {
        let over = Arc::new(AtomicBool::new(false));
        let threads = Host::BOTH
            .into_iter()
            .map(|host| {
                let over = Arc::clone(&over);
                std::thread::spawn(move || look(host, &over))
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
        let mut all = Modes::new();
        for thread in self.threads {
            let seen = thread
                .join()
                .map_err(|_| Fail("the thread that watches the sockets panicked".into()))??;
            for (client, mode) in seen {
                note(&mut all, client, mode);
            }
        }
        let smc = all.values().filter(|&&mode| mode == Mode::Rdma).count();
        let after = counters()?;
        Ok(Evidence {
            opened: after.opened - self.before.opened,
            rdma_bytes: after.rdma_bytes - self.before.rdma_bytes,
            rdma_packets: after.rdma_packets - self.before.rdma_packets,
            tcp_bytes: after.tcp_bytes - self.before.tcp_bytes,
            smc: smc as u64,
            fallbacks: (all.len() - smc) as u64,
        })
    }
}

/// Lists the connections of a host again and again. A connection that is shorter than the pause is
/// seen at the other host, or not at all.
fn look(host: Host, over: &AtomicBool) -> Outcome<Modes> {
    let mut seen = Modes::new();
    sys::enter(host)?;
    while !over.load(Ordering::Relaxed) {
        for (entry, mode) in mode::connections()? {
            // Clients are on A.
            let client = match host {
                Host::A => entry.local,
                Host::B => entry.peer,
            };
            note(&mut seen, client, mode);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(seen)
}

/// One end that has fallen back is enough.
fn note(seen: &mut Modes, client: SocketAddr, mode: Mode) {
    let known = seen.entry(client).or_insert(mode);
    if mode != Mode::Rdma {
        *known = mode;
    }
}

impl Evidence {
    /// Connections by TCP: those that fell back, and without SMC all.
    pub fn tcp(&self, transport: Transport) -> u64 {
        match transport {
            Transport::Tcp => self.opened.saturating_sub(self.smc),
            Transport::Smc => self.fallbacks,
        }
    }

    /// In words.
    pub fn words(&self, transport: Transport) -> String {
        let tcp = self.tcp(transport);
        let unseen = self.opened.saturating_sub(self.smc + tcp);
        let unseen = if unseen > 0 {
            format!(", too short to see {unseen}")
        } else {
            String::new()
        };
        format!(
            "connections opened {}: SMC-R {}, TCP {tcp}{unseen}; by RDMA {} bytes in {} packets; by TCP {} bytes",
            self.opened, self.smc, self.rdma_bytes, self.rdma_packets, self.tcp_bytes
        )
    }
}
