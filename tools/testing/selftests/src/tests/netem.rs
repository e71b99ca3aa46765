//! Networks that lose, double, delay, damage and exchange packets: TCP's and the RDMA devices' alike. Many connections at
//! once, each byte compared. A suite of its own, as it takes long (`smc-selftest run netem`).

use super::join;
use crate::kind::Host;
use crate::mode::{self, Mode};
use crate::pattern::Pattern;
use crate::rig;
use crate::runner::{Ctx, Needs, Test};
use crate::sys::{Sock, PATIENCE};
use crate::{check, check_eq, Context, Fail, Outcome};
use rand::Rng;
use std::thread::JoinHandle;

pub const TESTS: [Test; 5] = [
    rough("netem.loss", |ctx| under(ctx, "loss 1%")),
    rough("netem.duplication", |ctx| under(ctx, "duplicate 2%")),
    rough("netem.reordering", |ctx| {
        under(ctx, "delay 2ms reorder 75% 50%")
    }),
    rough("netem.corruption", |ctx| under(ctx, "corrupt 1%")),
    rough("netem.delay", |ctx| under(ctx, "delay 20ms")),
];

pub(super) const fn rough(name: &'static str, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit: 600,
        needs: Needs::RoughNetwork,
    }
}

const CONNECTIONS: usize = 200;
/// Clients that connect at the same time.
const AT_ONCE: usize = 8;

/// More packets than are ever delayed at once.
const LIMIT: &str = "limit 100000";

/// What both hosts do to the packets that they send.
pub(super) struct Netem;

impl Netem {
    pub(super) fn new(what: &str) -> Outcome<Netem> {
        let netem = Netem;
        for host in Host::BOTH {
            let (name, dev) = (host.name(), host.netdev());
            rig::run(&format!(
                "tc -n {name} qdisc add dev {dev} root netem {LIMIT} {what}"
            ))?;
        }
        Ok(netem)
    }

    /// What they do from now on. Soft-RoCE is not to see the queue change: it takes a packet that a queue does not want for
    /// the end of its queue pair, and while queues are exchanged none is wanted.
    pub(super) fn set(&self, what: &str) -> Outcome {
        for host in Host::BOTH {
            let (name, dev) = (host.name(), host.netdev());
            rig::run(&format!(
                "tc -n {name} qdisc change dev {dev} root netem {LIMIT} {what}"
            ))?;
        }
        Ok(())
    }

    /// Packets that have gone through it on a host.
    fn packets(&self, host: Host) -> Outcome<u64> {
        let (name, dev) = (host.name(), host.netdev());
        let text = rig::run(&format!("tc -n {name} -s qdisc show dev {dev} root"))?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "Sent");
        // "Sent 1000 bytes 10 pkt".
        let packets = words.nth(3).and_then(|word| word.parse().ok());
        packets.ok_or_else(|| Fail(format!("no count of packets in: {text}")))
    }
}

impl Drop for Netem {
    fn drop(&mut self) {
        for host in Host::BOTH {
            let (name, dev) = (host.name(), host.netdev());
            if let Err(failure) = rig::run(&format!("tc -n {name} qdisc del dev {dev} root")) {
                eprintln!("# {failure}");
            }
        }
    }
}

/// A server sends back what it gets; every byte is compared on the way there and on the way back.
fn under(ctx: &Ctx, what: &str) -> Outcome {
    let count = (CONNECTIONS / ctx.divisor).max(AT_ONCE);
    let (listener, address) = ctx.listener(CONNECTIONS as i32)?;
    // The link group is made before: what is asked of it is to carry on.
    let first = ctx.pair_from(&listener, address)?;
    let netem = Netem::new(what)?;
    let acceptor = {
        let ctx = ctx.with_kind(ctx.kind);
        std::thread::spawn(move || -> Outcome {
            let mut servers: Vec<JoinHandle<Outcome>> = Vec::new();
            for number in 0..count {
                let sock = listener
                    .accept()
                    .during(&format!("accept() number {number}"))?;
                let pattern = Pattern::new(&ctx, 93);
                servers.push(std::thread::spawn(move || serve(&sock, &pattern)));
            }
            servers.into_iter().try_for_each(join)
        })
    };
    let clients: Vec<JoinHandle<Outcome<usize>>> = (0..AT_ONCE)
        .map(|place| {
            let ctx = ctx.with_kind(ctx.kind);
            std::thread::spawn(move || -> Outcome<usize> {
                let mut open = Vec::new();
                for number in (place..count).step_by(AT_ONCE) {
                    let sock = ctx.connect(address)?;
                    open.push((number, sock));
                }
                let mut by_rdma = 0;
                let pattern = Pattern::new(&ctx, 93);
                for (number, sock) in &open {
                    ask(&ctx, *number as u64, sock, &pattern)
                        .during(&format!("connection {number}"))?;
                    by_rdma += usize::from(matches!(mode::of(sock)?, Mode::Rdma));
                }
                Ok(by_rdma)
            })
        })
        .collect();
    let mut by_rdma = 0;
    for client in clients {
        by_rdma += join(client)?;
    }
    join(acceptor)?;
    for host in Host::BOTH {
        let packets = netem.packets(host)?;
        check!(
            packets > count as u64 * 10,
            "only {packets} packets of host {} met '{what}'",
            host.name()
        );
    }
    drop(netem);
    println!("# {what}: {count} connections, {by_rdma} by RDMA");
    // A handshake may take too long, and fall back.
    check!(
        by_rdma * 2 > count,
        "only {by_rdma} of {count} connections went by RDMA with {what}"
    );
    super::link::echo(&first, b"the one from before")
}

/// One length, the data, and the same back.
fn ask(ctx: &Ctx, number: u64, sock: &Sock, pattern: &Pattern) -> Outcome {
    let length = ctx.random(1000 + number).gen_range(1..40_000usize);
    let offset = number as usize * 317;
    sock.send_all(&(length as u32).to_be_bytes())?;
    sock.send_all(&(offset as u32).to_be_bytes())?;
    sock.send_all(pattern.at(offset, length))?;
    let mut got = vec![0; length];
    sock.recv_all(&mut got).during("the answer")?;
    pattern.verify(offset, &got)
}

fn serve(sock: &Sock, pattern: &Pattern) -> Outcome {
    let mut word = [0; 4];
    sock.recv_all(&mut word)?;
    let length = u32::from_be_bytes(word) as usize;
    sock.recv_all(&mut word)?;
    let offset = u32::from_be_bytes(word) as usize;
    let mut got = vec![0; length];
    sock.recv_all(&mut got).during("the request")?;
    pattern.verify(offset, &got)?;
    sock.send_all(&got)?;
    sock.poll(libc::POLLRDHUP, PATIENCE)?;
    check_eq!(sock.recv(&mut word, 0)?, 0, "the end of the stream");
    Ok(())
}
