//! Link groups: who shares one, when it ends, and what its end does to its connections.

use super::network::Rules;
use super::settings::{self, Changed};
use super::{join, once, Pattern};
use crate::fault::Fault;
use crate::kind::Host;
use crate::rig;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Child, Sock};
use crate::{check, check_eq, Context, Fail, Outcome};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub const TESTS: [Test; 20] = [
    once("link.unread_data_stays", 120, unread_data_stays),
    once("link.group_is_shared", 120, group_is_shared),
    once("link.asks_for_little", 120, asks_for_little),
    once("link.group_is_freed", 200, group_is_freed),
    once(
        "link.group_is_freed_by_client",
        200,
        group_is_freed_by_client,
    ),
    once("link.connections_per_group", 200, connections_per_group),
    once("link.buffer_types", 200, buffer_types),
    once("link.buffer_sizes", 200, buffer_sizes),
    once("link.memory_is_cleared", 120, memory_is_cleared),
    once("link.few_slots", 300, few_slots),
    once("link.busy_link_lives", 300, busy_link_lives),
    once("link.kill_with_traffic", 300, kill_with_traffic),
    once("link.silent_loss", 300, silent_loss),
    once("link.down_on_either_side", 300, down_on_either_side),
    once("link.device_goes_on_either_side", 300, device_goes),
    once("link.devices_come_and_go", 300, devices_come_and_go),
    once("link.namespaces_go", 300, namespaces_go),
    once("link.unload_after_a_storm", 300, unload_after_a_storm),
    once("link.setting_changes", 120, setting_changes),
    once("link.lossy_network", 300, lossy_network),
];

/// Queue pairs of connections that a host's device has.
pub(super) fn queue_pairs(host: Host) -> Outcome<usize> {
    resources("qp", &[&format!("link {}/", host.rdma_device()), "type RC"])
}

/// Memory regions that a host's device has.
pub(super) fn regions(host: Host) -> Outcome<usize> {
    resources("mr", &[&format!("dev {} ", host.rdma_device())])
}

/// Resources of RDMA that are shown with all of these words.
fn resources(kind: &str, words: &[&str]) -> Outcome<usize> {
    Ok(rig::run(&format!("rdma resource show {kind}"))?
        .lines()
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .count())
}

/// The counters, which have to agree with sock_diag at the end of a test, go with the devices: in
/// tests that make devices anew, queue pairs agree with it instead.
pub(super) fn prove_by_queue_pairs(ctx: &Ctx) -> Outcome {
    if queue_pairs(Host::A)?.min(queue_pairs(Host::B)?) > 0 {
        ctx.proved.set(0);
    }
    Ok(())
}

/// Ends all link groups, by taking their devices away, and waits until that can be seen.
pub(super) fn fresh(ctx: &Ctx) -> Outcome {
    prove_by_queue_pairs(ctx)?;
    for host in Host::BOTH {
        rig::run(&format!("rdma link del {}", host.rdma_device()))?;
    }
    for host in Host::BOTH {
        rig::rdma_device_add(host)?;
        check_eq!(queue_pairs(host)?, 0, "queue pairs of a new device");
    }
    Ok(())
}

pub(super) fn await_queue_pairs(count: usize) -> Outcome {
    for host in Host::BOTH {
        sys::eventually(
            &format!("{count} queue pairs on {}", host.rdma_device()),
            || Ok(queue_pairs(host)? == count),
        )?;
    }
    Ok(())
}

pub(super) fn echo(pair: &Pair, word: &[u8]) -> Outcome {
    let mut got = vec![0; word.len()];
    pair.client.send_all(word)?;
    pair.server.recv_all(&mut got)?;
    check_eq!(got, word, "what the server received");
    pair.server.send_all(word)?;
    pair.client.recv_all(&mut got)?;
    check_eq!(got, word, "what the client received");
    Ok(())
}

/// A healthy new connection, once the network is as it was.
pub(super) fn works_again(ctx: &Ctx) -> Outcome {
    rig::run("ip netns exec A ping -q -c 1 -W 10 10.9.0.2")?;
    for host in Host::BOTH {
        rig::await_gid(host)?;
    }
    let pair = ctx.pair().during("a new connection afterwards")?;
    echo(&pair, b"again").during("a new connection afterwards")?;
    prove_by_queue_pairs(ctx)
}

fn group_is_shared(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let first = ctx.pair()?;
    await_queue_pairs(1)?;
    let mut pairs = vec![first];
    for _ in 0..10 {
        pairs.push(ctx.pair()?);
    }
    for pair in &pairs {
        echo(pair, b"shared")?;
    }
    await_queue_pairs(1).during("after ten more connections")?;
    // RFC 7609, section 3.5.1: the other way round it is another group.
    let other_way = ctx.pair_the_other_way()?;
    echo(&other_way, b"other way")?;
    await_queue_pairs(2).during("after a connection the other way")?;
    for host in Host::BOTH {
        // For what is sent and for what comes: the other group's traffic fills neither.
        check_eq!(
            completion_queues(host)?,
            4,
            "completion queues of host {} for two link groups",
            host.name()
        );
    }
    // The groups outlive their connections for a while, to be used again.
    drop(pairs);
    let again = ctx.pair()?;
    echo(&again, b"again")?;
    await_queue_pairs(2).during("after all were closed and one was opened")?;
    prove_by_queue_pairs(ctx)
}

/// Completion queues of the module that a host's device has.
fn completion_queues(host: Host) -> Outcome<usize> {
    let (device, user) = (
        format!("dev {} ", host.rdma_device()),
        format!("[{}]", rig::MODULE),
    );
    resources("cq", &[&device, &user])
}

/// What first contact and a connection do without: a work queue of the group's own, and the state of a queue pair, which some
/// devices cannot tell.
fn asks_for_little(ctx: &Ctx) -> Outcome {
    for (function, result) in [("alloc_workqueue_noprof", 0), ("ib_query_qp", -5)] {
        let fault = Fault::new(function, result, 0, i32::MAX as u32)?;
        fresh(ctx)?;
        let pair = ctx.pair().during(function)?;
        echo(&pair, b"without").during(function)?;
        check_eq!(fault.hits()?, 0, "calls of {function}");
    }
    prove_by_queue_pairs(ctx)
}

fn group_is_freed(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let changed = Changed::new(&Host::BOTH, "smcr_lgr_free_delay", 1)?;
    for _ in 0..3 {
        let pair = ctx.pair()?;
        echo(&pair, b"short")?;
        await_queue_pairs(1)?;
        drop(pair);
        await_queue_pairs(0).during("a second after the last connection")?;
    }
    drop(changed);
    works_again(ctx)
}

/// The server would keep the group: the client ends it, and tells it.
fn group_is_freed_by_client(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let changed = Changed::new(&[Host::A], "smcr_lgr_free_delay", 1)?;
    let pair = ctx.pair()?;
    echo(&pair, b"short")?;
    drop(pair);
    await_queue_pairs(0).during("the client's time after the last connection")?;
    drop(changed);
    works_again(ctx)
}

fn connections_per_group(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let changed = Changed::new(&Host::BOTH, "smcr_max_conns_per_lgr", 16)?;
    let (listener, address) = ctx.listener(64)?;
    let mut pairs = Vec::new();
    for _ in 0..40 {
        pairs.push(ctx.pair_from(&listener, address)?);
    }
    for pair in &pairs {
        echo(pair, b"one of many")?;
    }
    await_queue_pairs(3).during("40 connections, 16 in a group")?;
    // One goes, another one comes: the places of those that are still ending do not matter.
    for round in 0..40 {
        let Pair { client, server } = pairs.swap_remove(round * 7 % pairs.len());
        if round % 2 == 0 {
            drop(server);
            drop(client);
        } else {
            drop(client);
            drop(server);
        }
        let pair = ctx
            .pair_from(&listener, address)
            .during(&format!("exchange {round}"))?;
        echo(&pair, b"another one")?;
        pairs.push(pair);
    }
    // All at once, when groups are being made while others wait for them.
    drop(pairs);
    fresh(ctx)?;
    let threads: Vec<JoinHandle<Outcome>> = (0..40)
        .map(|_| {
            let kind = ctx.kind;
            std::thread::spawn(move || -> Outcome {
                let client = Sock::new(Host::A, kind, 0)?;
                client.connect(address).during("connect()")?;
                client.send_all(b"!")?;
                client.recv_all(&mut [0; 1])?;
                Ok(())
            })
        })
        .collect();
    let mut servers = Vec::new();
    for _ in 0..40 {
        let server = listener.accept().during("accept()")?;
        ctx.prove(Host::B, &server)?;
        server.recv_all(&mut [0; 1])?;
        server.send_all(b"!")?;
        servers.push(server);
    }
    threads.into_iter().try_for_each(join)?;
    drop(changed);
    prove_by_queue_pairs(ctx)
}

/// A stream both ways at once.
pub(super) fn stream(ctx: &Ctx, pair: Pair, total: usize) -> Outcome {
    let Pair { client, server } = pair;
    let threads: Vec<JoinHandle<Outcome>> = [client, server]
        .into_iter()
        .flat_map(|sock| {
            let (pattern, other) = (Pattern::new(ctx, 61), Pattern::new(ctx, 61));
            let reader = sock.dup();
            [
                std::thread::spawn(move || -> Outcome {
                    let mut sent = 0;
                    while sent < total {
                        let part = pattern.at(sent, (total - sent).min(30_000));
                        sock.send_all(part).during("send()")?;
                        sent += part.len();
                    }
                    Ok(())
                }),
                std::thread::spawn(move || -> Outcome {
                    let reader = reader?;
                    let mut got = 0;
                    let mut part = vec![0; 40_000];
                    while got < total {
                        let count = reader.recv(&mut part, 0).during("recv()")?;
                        check!(count > 0, "end of stream after {got} bytes");
                        other.verify(got, &part[..count])?;
                        got += count;
                    }
                    Ok(())
                }),
            ]
        })
        .collect();
    threads.into_iter().try_for_each(join)
}

fn buffer_types(ctx: &Ctx) -> Outcome {
    for kind in [1, 2, 0] {
        fresh(ctx)?;
        let changed = Changed::new(&Host::BOTH, "smcr_buf_type", kind)?;
        let pair = ctx.pair().during(&format!("smcr_buf_type={kind}"))?;
        stream(ctx, pair, 1_000_000).during(&format!("smcr_buf_type={kind}"))?;
        // Another one, with the memory of the first.
        let pair = ctx.pair().during(&format!("smcr_buf_type={kind}"))?;
        stream(ctx, pair, 300_000).during(&format!("smcr_buf_type={kind}, again"))?;
        drop(changed);
    }
    prove_by_queue_pairs(ctx)
}

fn buffer_sizes(ctx: &Ctx) -> Outcome {
    for (write, read) in [
        (16384, 16384),
        (16384, 1 << 20),
        (1 << 20, 16384),
        (50_000, 70_000),
        (1 << 27, 1 << 27),
    ] {
        let what = format!("wmem={write}, rmem={read}");
        let changed = [
            Changed::new(&Host::BOTH, "wmem", write)?,
            Changed::new(&Host::BOTH, "rmem", read)?,
        ];
        let pair = ctx.pair().during(&what)?;
        stream(ctx, pair, 1_000_000).during(&what)?;
        drop(changed);
    }
    Ok(())
}

/// What went through a ring does not come out of it for the next connection: an RDMA WRITE is lost
/// on the way, and the reader finds zeroes.
fn memory_is_cleared(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let changed = [
        Changed::new(&Host::BOTH, "wmem", 16384)?,
        Changed::new(&Host::BOTH, "rmem", 16384)?,
    ];
    let (listener, address) = ctx.listener(8)?;
    // More than once around the ring, or just as much as the next one gets to see.
    for parts in [5, 1] {
        is_cleared(ctx, &listener, address, parts).during(&format!("{parts} parts"))?;
    }
    drop(changed);
    prove_by_queue_pairs(ctx)
}

/// The connection after one that has carried so many parts.
fn is_cleared(ctx: &Ctx, listener: &Sock, address: SocketAddr, parts: usize) -> Outcome {
    // What is lost is one packet.
    const LENGTH: usize = 1000;
    let Pair { client, server } = ctx.pair_from(listener, address)?;
    for _ in 0..parts {
        client.send_all(&[0xaa; 8192])?;
        server.recv_all(&mut [0; 8192])?;
    }
    client.shutdown(libc::SHUT_WR)?;
    check_eq!(server.recv(&mut [0; 1], 0)?, 0, "end of stream");
    drop(server);
    drop(client);
    // Both sides have said goodbye: then the ring is for others.
    sys::enter(Host::B)?;
    sys::eventually("no SMC connection is left", || Ok(rig::smc_sockets()? == 1))?;
    let before = regions(Host::B)?;
    check!(before > 0, "rdma resource shows no memory regions of rxeB");
    let pair = ctx.pair_from(listener, address)?;
    check_eq!(
        regions(Host::B)?,
        before,
        "memory regions: the ring was made anew"
    );
    let fault = Fault::of_rdma_write(LENGTH)?;
    pair.client.send_all(&[0x55; LENGTH])?;
    let mut got = [1; LENGTH];
    pair.server.recv_all(&mut got)?;
    check!(fault.hits()? > 0, "no RDMA WRITE was lost");
    drop(fault);
    check!(
        got == [0; LENGTH],
        "instead of zeroes the next connection read {:02x?}...",
        &got[..16]
    );
    echo(&pair, b"and now it works")
}

/// Queue pairs of connections, by their numbers.
fn queue_pair_numbers() -> Outcome<Vec<String>> {
    let mut all: Vec<String> = rig::run("rdma resource show qp")?
        .lines()
        .filter(|line| line.contains("type RC"))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let device = words.nth(1)?.to_owned();
            let number = words.skip_while(|&word| word != "lqpn").nth(1)?;
            Some(format!("{device} {number}"))
        })
        .collect();
    all.sort();
    Ok(all)
}

/// Data counts as a sign of life: with TEST LINK every second, a link that is so busy that answers
/// may come late is not given up. No connection is made meanwhile, so nothing else can go wrong.
fn busy_link_lives(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 1)?;
    let (listener, address) = ctx.listener(64)?;
    let mut pairs = Vec::new();
    for _ in 0..16 {
        pairs.push(ctx.pair_from(&listener, address)?);
    }
    let before = queue_pair_numbers()?;
    check_eq!(before.len(), 2, "queue pairs: {before:?}");
    // Several times the time of a test and its answer.
    let end = std::time::Instant::now() + Duration::from_secs(8);
    let threads: Vec<JoinHandle<Outcome>> = pairs
        .into_iter()
        .map(|pair| {
            let ctx = ctx.with_kind(ctx.kind);
            std::thread::spawn(move || -> Outcome {
                while std::time::Instant::now() < end {
                    stream_in_turn(&ctx, &pair)?;
                }
                Ok(())
            })
        })
        .collect();
    threads.into_iter().try_for_each(join)?;
    check_eq!(
        queue_pair_numbers()?,
        before,
        "queue pairs after the traffic"
    );
    drop(changed);
    fresh(ctx)
}

/// Many busy connections, and hardly a slot for their messages: each of them gets its turn.
fn few_slots(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let changed = [
        Changed::new(&Host::BOTH, "smcr_max_send_wr", 2)?,
        Changed::new(&Host::BOTH, "smcr_max_recv_wr", 2)?,
    ];
    let (listener, address) = ctx.listener(64)?;
    let mut threads = Vec::new();
    for _ in 0..32 {
        let pair = ctx.pair_from(&listener, address)?;
        let ctx = ctx.with_kind(ctx.kind);
        threads.push(std::thread::spawn(move || stream_in_turn(&ctx, &pair)));
    }
    threads.into_iter().try_for_each(join)?;
    drop(changed);
    fresh(ctx)
}

fn stream_in_turn(ctx: &Ctx, pair: &Pair) -> Outcome {
    let pattern = Pattern::new(ctx, 62);
    let mut got = vec![0; 20_000];
    for round in 0..20 {
        let part = pattern.at(round * 777, got.len());
        pair.client.send_all(part)?;
        pair.server.recv_all(&mut got)?;
        pattern.verify(round * 777, &got)?;
        pair.server.send_all(part)?;
        pair.client.recv_all(&mut got)?;
        pattern.verify(round * 777, &got)?;
    }
    Ok(())
}

/// Connections with endless traffic one way, until they break. Data that comes must be right, and all of them must break: nobody has
/// closed them, so that none may seem to have ended well.
struct Traffic {
    threads: Vec<JoinHandle<Outcome>>,
    under_way: Arc<AtomicUsize>,
    count: usize,
}

impl Traffic {
    fn start(ctx: &Ctx, count: usize) -> Outcome<Traffic> {
        let (listener, address) = ctx.listener(64)?;
        let under_way = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for number in 0..count {
            let Pair { client, server } = ctx.pair_from(&listener, address)?;
            let (near, far) = if number % 2 == 0 {
                (client, server)
            } else {
                (server, client)
            };
            threads.push(sender(ctx, near));
            threads.push(receiver(ctx, far, under_way.clone(), Cause::Loss));
        }
        Ok(Traffic {
            threads,
            under_way,
            count,
        })
    }

    /// Until every connection has carried something.
    fn await_flow(&self) -> Outcome {
        sys::within(
            "data on every connection",
            Duration::from_secs(90),
            &mut || Ok(self.under_way.load(Ordering::Relaxed) == self.count),
        )?;
        Ok(())
    }

    fn end(self) -> Outcome {
        self.threads.into_iter().try_for_each(join)
    }
}

fn sender(ctx: &Ctx, sock: Sock) -> JoinHandle<Outcome> {
    let pattern = Pattern::new(ctx, 63);
    std::thread::spawn(move || -> Outcome {
        let mut sent = 0;
        while let Ok(count) = sock.send(pattern.at(sent, 30_000), libc::MSG_NOSIGNAL) {
            sent += count;
        }
        Ok(())
    })
}

/// What ends a stream that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The sender's kernel closes it.
    Close,
    /// It is lost.
    Loss,
}

fn receiver(
    ctx: &Ctx,
    sock: Sock,
    under_way: Arc<AtomicUsize>,
    cause: Cause,
) -> JoinHandle<Outcome> {
    let pattern = Pattern::new(ctx, 63);
    std::thread::spawn(move || -> Outcome {
        let mut got = 0;
        let mut part = vec![0; 65536];
        loop {
            match sock.recv(&mut part, 0) {
                Ok(0) if cause == Cause::Loss => {
                    return Err(Fail(format!(
                        "end of stream after {got} bytes, and nobody has closed"
                    )))
                }
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => {
                    pattern.verify(got, &part[..count])?;
                    if got < 200_000 && got + count >= 200_000 {
                        under_way.fetch_add(1, Ordering::Relaxed);
                    }
                    got += count;
                }
            }
        }
    })
}

/// kill -9 of a process with many busy connections, on either side.
fn kill_with_traffic(ctx: &Ctx) -> Outcome {
    const COUNT: usize = 24;
    for victim in Host::BOTH {
        let (listener, address) = ctx.listener(64)?;
        let mut near = Vec::new();
        let mut far = Vec::new();
        for _ in 0..COUNT {
            let Pair { client, server } = ctx.pair_from(&listener, address)?;
            let (dies, stays) = match victim {
                Host::A => (client, server),
                Host::B => (server, client),
            };
            near.push(dies);
            far.push(stays);
        }
        let survivor = ctx.pair()?;
        let child = Child::fork(|| {
            // Every third only sends, every third only receives, every third does nothing.
            let mut threads = Vec::new();
            for (number, sock) in near.iter().enumerate() {
                let sock = sock.dup()?;
                match number % 3 {
                    0 => threads.push(sender(ctx, sock)),
                    1 => threads.push(receiver(ctx, sock, Arc::default(), Cause::Close)),
                    _ => {}
                }
            }
            threads.into_iter().try_for_each(join)
        })?;
        drop(near);
        let under_way = Arc::new(AtomicUsize::new(0));
        let threads: Vec<JoinHandle<Outcome>> = far
            .into_iter()
            .enumerate()
            .map(|(number, sock)| match number % 3 {
                1 => sender(ctx, sock),
                _ => receiver(ctx, sock, under_way.clone(), Cause::Close),
            })
            .collect();
        sys::within(
            "data on every connection",
            Duration::from_secs(90),
            &mut || Ok(under_way.load(Ordering::Relaxed) == COUNT / 3),
        )?;
        child.kill(libc::SIGKILL)?;
        threads.into_iter().try_for_each(join)?;
        drop(child);
        // Others in the same link group do not notice.
        echo(&survivor, b"still here")?;
    }
    Ok(())
}

/// Nothing tells that the network is gone: TEST LINK must find out (RFC 7609, section 4.5.4).
fn silent_loss(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 1)?;
    let traffic = Traffic::start(ctx, 6)?;
    let idle = ctx.pair()?;
    traffic.await_flow()?;
    for host in Host::BOTH {
        rig::run(&format!(
            "tc -n {} qdisc add dev {} root netem loss 100%",
            host.name(),
            host.netdev()
        ))?;
    }
    let outcome = traffic.end().during("traffic while the network was gone");
    let ended = [&idle.client, &idle.server]
        .into_iter()
        .try_for_each(|sock| match sock.recv(&mut [0; 1], 0) {
            Err(_) => Ok(()),
            Ok(count) => Err(Fail(format!("recv() of an idle connection gave {count}"))),
        });
    for host in Host::BOTH {
        rig::run(&format!(
            "tc -n {} qdisc del dev {} root",
            host.name(),
            host.netdev()
        ))?;
    }
    drop(changed);
    outcome?;
    ended?;
    works_again(ctx)
}

fn down_on_either_side(ctx: &Ctx) -> Outcome {
    for host in Host::BOTH {
        fresh(ctx)?;
        let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 1)?;
        let traffic = Traffic::start(ctx, 6)?;
        traffic.await_flow()?;
        rig::run(&format!(
            "ip -n {} link set {} down",
            host.name(),
            host.netdev()
        ))?;
        let outcome = traffic
            .end()
            .during(&format!("traffic while {} went down", host.netdev()));
        port_up(host)?;
        drop(changed);
        outcome?;
        works_again(ctx)?;
    }
    Ok(())
}

/// A host's port is up again.
pub(super) fn port_up(host: Host) -> Outcome {
    let (name, dev) = (host.name(), host.netdev());
    rig::run(&format!("ip -n {name} link set {dev} up"))?;
    // IPv6 addresses go with the link.
    let address = host.ipv6();
    rig::run(&format!(
        "ip -n {name} addr replace {address}/64 dev {dev} nodad"
    ))
    .map(drop)
}

fn device_goes(ctx: &Ctx) -> Outcome {
    for host in Host::BOTH {
        fresh(ctx)?;
        // The other side must be told: it would not find out by itself.
        let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 0)?;
        let traffic = Traffic::start(ctx, 12)?;
        traffic.await_flow()?;
        drop(changed);
        rig::run(&format!("rdma link del {}", host.rdma_device()))?;
        let outcome = traffic
            .end()
            .during(&format!("traffic while {} went", host.rdma_device()));
        let plain = ctx
            .unasked()
            .pair()
            .and_then(|pair| echo(&pair, b"plain"))
            .during("a connection without RDMA device");
        // The other side may have heard of it by TCP only, and is still finding out about the link.
        let gone = await_queue_pairs(0);
        rig::rdma_device_add(host)?;
        outcome?;
        plain?;
        gone?;
        works_again(ctx)?;
    }
    Ok(())
}

/// What has come before the link goes is read after that, and then what TCP would tell: the end of a peer that had
/// closed, or an error.
fn unread_data_stays(ctx: &Ctx) -> Outcome {
    let pattern = Pattern::new(ctx, 31);
    for closed in [true, false] {
        fresh(ctx)?;
        let Pair { client, server } = ctx.pair()?;
        server.send_all(pattern.at(0, 12_000))?;
        sys::eventually("all is there to be read", || {
            Ok(client.readable_bytes()? == 12_000)
        })?;
        let rest = if closed {
            drop(server);
            client.await_events(libc::POLLRDHUP)?;
            None
        } else {
            Some(server)
        };
        rig::run(&format!("rdma link del {}", Host::B.rdma_device()))?;
        let gone = await_queue_pairs(0);
        rig::rdma_device_add(Host::B)?;
        gone?;
        let what = if closed {
            "the peer had closed"
        } else {
            "the peer was there"
        };
        check_eq!(client.readable_bytes()?, 12_000, "bytes to be read: {what}");
        let mut got = vec![0; 5_000];
        client.recv_all(&mut got).during(what)?;
        pattern.verify(0, &got)?;
        check_eq!(
            client.recv(&mut got, libc::MSG_PEEK)?,
            5_000,
            "bytes that are looked at"
        );
        pattern.verify(5_000, &got)?;
        let mut got = vec![0; 7_000];
        client.recv_all(&mut got).during(what)?;
        pattern.verify(5_000, &got)?;
        let end = client.recv(&mut got, 0);
        if closed {
            check_eq!(end?, 0, "the end of the stream");
        } else {
            check!(end.is_err(), "the end of the stream: {end:?}");
        }
        drop(rest);
        drop(client);
        works_again(ctx)?;
    }
    Ok(())
}

/// Handshakes while the devices come and go: each connection works, or breaks; none hangs.
fn devices_come_and_go(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(64)?;
    let stop = Arc::new(AtomicUsize::new(0));
    let kind = ctx.kind;
    let clients: Vec<JoinHandle<Outcome>> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || -> Outcome {
                while stop.load(Ordering::Relaxed) == 0 {
                    let client = Sock::new(Host::A, kind, 0)?;
                    if client.connect(address).is_err() {
                        continue;
                    }
                    let mut got = [0; 5];
                    if client.send(b"hello", libc::MSG_NOSIGNAL).is_ok()
                        && client.recv_all(&mut got).is_ok()
                    {
                        check_eq!(&got, b"hello", "the echo");
                    }
                }
                Ok(())
            })
        })
        .collect();
    let server = {
        let stop = stop.clone();
        std::thread::spawn(move || -> Outcome {
            listener.set_nonblocking(true)?;
            while stop.load(Ordering::Relaxed) < 2 {
                if listener.poll(libc::POLLIN, Duration::from_millis(100))? == 0 {
                    continue;
                }
                let Ok(server) = listener.accept() else {
                    continue;
                };
                std::thread::spawn(move || {
                    let mut got = [0; 5];
                    if server.recv_all(&mut got).is_ok() {
                        let _ = server.send(&got, libc::MSG_NOSIGNAL);
                    }
                });
            }
            Ok(())
        })
    };
    let mut outcome = Ok(());
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(700));
        let host = Host::BOTH[round % 2];
        outcome = outcome
            .and_then(|()| rig::run(&format!("rdma link del {}", host.rdma_device())).map(drop));
        std::thread::sleep(Duration::from_millis(300));
        outcome = outcome.and_then(|()| rig::rdma_device_add(host));
    }
    stop.store(1, Ordering::Relaxed);
    let clients = clients.into_iter().try_for_each(join);
    stop.store(2, Ordering::Relaxed);
    join(server)?;
    outcome?;
    clients?;
    works_again(ctx)
}

/// Namespaces are deleted while a process still has connections there; they go when it dies.
fn namespaces_go(ctx: &Ctx) -> Outcome {
    namespaces_come_and_go(ctx)?;
    works_again(ctx)
}

/// Makes namespaces C and D with devices, and a process with connections between them, and deletes them.
pub(super) fn namespaces_come_and_go(ctx: &Ctx) -> Outcome {
    let roce = rig::SoftRoce::here().link_type();
    for command in [
        "ip netns add C",
        "ip netns add D",
        "ip link add vC address 02:00:00:09:01:01 mtu 9000 netns C type veth peer name vD address 02:00:00:09:01:02 mtu 9000 netns D",
        "ip -n C link set vC up",
        "ip -n D link set vD up",
        "ip -n C addr add 10.9.1.1/24 dev vC",
        "ip -n D addr add 10.9.1.2/24 dev vD",
        &format!("ip netns exec C rdma link add rxeC type {roce} netdev vC"),
        &format!("ip netns exec D rdma link add rxeD type {roce} netdev vD"),
        "ip netns exec C ping -q -c 1 -W 10 10.9.1.2",
    ] {
        rig::run(command)?;
    }
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    sys::cvt(unsafe { libc::pipe(ends.as_mut_ptr()) })?;
    let kind = ctx.kind;
    let child = Child::fork(|| {
        sys::enter_named("D")?;
        let (family, protocol) = kind.arguments();
        let listener = Sock::raw(family, libc::SOCK_STREAM, protocol)?;
        listener.bind(([10, 9, 1, 2], 0).into())?;
        listener.listen(32)?;
        let mut open = Vec::new();
        for number in 0..10 {
            sys::enter_named("C")?;
            let client = Sock::raw(family, libc::SOCK_STREAM, protocol)?;
            client.connect(listener.local()?)?;
            let server = listener.accept()?;
            let pair = Pair { client, server };
            echo(&pair, b"live")?;
            if number % 2 == 0 {
                // Something is under way when it ends.
                pair.server.set_nonblocking(true)?;
                while pair.server.send(&[7; 30_000], 0).is_ok() {}
            }
            open.push(pair);
        }
        // SAFETY: a live byte.
        unsafe { libc::write(ends[1], c"x".as_ptr().cast(), 1) };
        loop {
            std::thread::sleep(Duration::from_secs(100));
        }
    })?;
    let mut byte = [0u8; 1];
    // SAFETY: `byte` is live.
    unsafe {
        libc::close(ends[1]);
        libc::read(ends[0], byte.as_mut_ptr().cast(), 1);
        libc::close(ends[0]);
    }
    check_eq!(byte[0], b'x', "word of the process with the connections");
    rig::run("ip netns del C")?;
    rig::run("ip netns del D")?;
    drop(child);
    for device in ["rxeC", "rxeD"] {
        let path = format!("/sys/class/infiniband/{device}");
        sys::within(
            &format!("{device} gone with its namespace"),
            Duration::from_secs(100 * rig::slowness()),
            &mut || Ok(!std::path::Path::new(&path).exists()),
        )?;
    }
    Ok(())
}

/// The module goes while the connections that were just closed are still ending.
fn unload_after_a_storm(ctx: &Ctx) -> Outcome {
    for round in 0..2 {
        unload_with_traffic(ctx, 50).during(&format!("round {round}"))?;
    }
    works_again(ctx)
}

/// Makes so many connections with traffic, closes them, and unloads and loads the module.
pub(super) fn unload_with_traffic(ctx: &Ctx, connections: u8) -> Outcome {
    let (listener, address) = ctx.listener(64)?;
    let mut pairs = Vec::new();
    for number in 0..connections {
        let pair = ctx.pair_from(&listener, address)?;
        pair.client.send_all(&[number; 9_000])?;
        pair.server.send_all(&[number; 5_000])?;
        pairs.push(pair);
    }
    drop(pairs);
    drop(listener);
    sys::eventually("rmmod succeeds", || {
        Ok(rig::run(&format!("rmmod {}", rig::MODULE)).is_ok())
    })?;
    for host in Host::BOTH {
        check_eq!(queue_pairs(host)?, 0, "queue pairs without the module");
    }
    rig::module_load()
}

/// Settings change under running connections: nothing of theirs does.
fn setting_changes(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    for (name, value) in [
        ("smcr_max_send_wr", 2),
        ("smcr_buf_type", 2),
        ("smcr_max_conns_per_lgr", 16),
        ("wmem", 16384),
        ("autocorking_size", 0),
    ] {
        let changed = Changed::new(&Host::BOTH, name, value)?;
        echo(&pair, b"as before").during(name)?;
        let another = ctx.pair().during(name)?;
        echo(&another, b"and another").during(name)?;
        drop(changed);
    }
    check!(
        settings::set(Host::A, "smcr_lgr_free_delay", -1).is_err(),
        "net.smc.smcr_lgr_free_delay=-1 was not refused"
    );
    Ok(())
}

/// Packets of RDMA get lost while connections come, talk and go: the link sends them again, and
/// neither it nor a byte is lost.
fn lossy_network(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let (listener, address) = ctx.listener(64)?;
    let first = ctx.pair_from(&listener, address)?;
    echo(&first, b"before")?;
    let rule = "udp dport 4791 numgen random mod 100 < 2 counter drop";
    let lossy = [
        Rules::new(Host::A, "input", &[rule])?,
        Rules::new(Host::B, "input", &[rule])?,
    ];
    let mut threads = Vec::new();
    for _ in 0..24 {
        let pair = ctx.pair_from(&listener, address)?;
        let ctx = ctx.with_kind(ctx.kind);
        threads.push(std::thread::spawn(move || stream_in_turn(&ctx, &pair)));
    }
    threads.into_iter().try_for_each(join)?;
    for (host, rules) in Host::BOTH.into_iter().zip(&lossy) {
        check!(
            rules.seen()? > 0,
            "no packet was lost on host {}",
            host.name()
        );
    }
    drop(lossy);
    echo(&first, b"the same link")?;
    await_queue_pairs(1)?;
    prove_by_queue_pairs(ctx)
}
