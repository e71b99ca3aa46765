//! Link groups with several links: how they get them, and what the loss of one does: nothing.

use super::hostile::{self, next_port};
use super::link::{await_queue_pairs, echo, prove_by_queue_pairs, regions};
use super::network::{Rules, Sysctl};
use super::raw::{self, RawPeer};
use super::settings::Changed;
use super::two_links::{
    add_second, await_both, await_links, remove_second, second_device, second_gid_comes,
    second_netdev, second_netdev_comes, second_netdev_goes, shown, Second, Sorted,
    ASYMMETRIC_LOCAL, ASYMMETRIC_PEER, SINGLE, SYMMETRIC,
};
use super::wiretap::{Wiretap, REQUEST_ADD_LINK};
use super::{join, once, pnet, Pattern};
use crate::diag;
use crate::fault::{Fault, POST_SEND};
use crate::kind::{Host, Kind};
use crate::link_groups::Link;
use crate::mode::{self, Mode};
use crate::rig;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, Context, Fail, Outcome};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const TESTS: [Test; 16] = [
    once("link.second_link_is_added", 120, second_link_is_added),
    once("link.failover_loses_nothing", 300, failover_loses_nothing),
    once(
        "link.refused_post_loses_nothing",
        300,
        refused_post_loses_nothing,
    ),
    once("link.network_device_goes", 200, network_device_goes),
    once("link.silent_link_is_left", 300, silent_link_is_left),
    once("link.comes_back", 300, comes_back),
    once("link.asymmetric", 120, asymmetric),
    once("link.asymmetric_again", 120, asymmetric_again),
    once("link.asymmetric_waits", 300, asymmetric_waits),
    once("link.asymmetric_keys", 300, asymmetric_keys),
    once("link.closed_connection_moves", 200, closed_connection_moves),
    once("link.no_key_for_the_other", 200, no_key_for_the_other),
    once("link.stranded_handshakes", 300, stranded_handshakes),
    once("link.second_link_refused", 300, second_link_refused),
    once("link.refused_offers", 300, refused_offers),
    once("link.network_named_later", 120, network_named_later),
];

/// Device of a connection's link.
fn device_of(sock: &Sock) -> Outcome<String> {
    let link = diag::of(sock)?.and_then(|entry| entry.link);
    Ok(link
        .ok_or_else(|| Fail("no link in sock_diag".into()))?
        .ibname)
}

/// Until a connection goes by this device.
fn await_device(sock: &Sock, device: &str) -> Outcome {
    sys::eventually(&format!("a connection on {device}"), || {
        let now = device_of(sock)?;
        Ok(now == device)
    })?;
    Ok(())
}

/// Streams both ways on every connection, until told to end; every byte is compared.
pub(super) struct Streams {
    threads: Vec<JoinHandle<Outcome>>,
    stop: Arc<AtomicUsize>,
    moved: Arc<AtomicUsize>,
    divisor: usize,
}

impl Streams {
    pub(super) fn start(ctx: &Ctx, pairs: Vec<Pair>) -> Outcome<Streams> {
        let (stop, moved) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Where all is slow they leave some time to what happens meanwhile.
        let pause = Duration::from_millis(if rig::slowness() > 1 { 20 } else { 0 });
        let mut threads = Vec::new();
        for (number, Pair { client, server }) in pairs.into_iter().enumerate() {
            for (way, sock) in [client, server].into_iter().enumerate() {
                let own = Pattern::new(ctx, (100 + 2 * number + way) as u64);
                let other = Pattern::new(ctx, (101 + 2 * number - way) as u64);
                let reader = sock.dup()?;
                let stop = stop.clone();
                threads.push(std::thread::spawn(move || -> Outcome {
                    let what = format!("writer {number}/{way}");
                    let mut sent = 0;
                    // Something at least, also where the others are done before this one begins.
                    while sent == 0 || stop.load(Ordering::Relaxed) == 0 {
                        let part = own.at(sent, 30_000);
                        sock.send_all(part).during(&what)?;
                        sent += part.len();
                        std::thread::sleep(pause);
                    }
                    sock.shutdown(libc::SHUT_WR).during(&what)?;
                    Ok(())
                }));
                let moved = moved.clone();
                threads.push(std::thread::spawn(move || -> Outcome {
                    let what = format!("reader {number}/{way}");
                    let mut got = 0;
                    let mut part = vec![0; 40_000];
                    loop {
                        let count = reader.recv(&mut part, 0).during(&what)?;
                        if count == 0 {
                            check!(got > 0, "{what}: nothing came");
                            return Ok(());
                        }
                        other.verify(got, &part[..count]).during(&what)?;
                        got += count;
                        moved.fetch_add(count, Ordering::Relaxed);
                    }
                }));
            }
        }
        Ok(Streams {
            threads,
            stop,
            moved,
            divisor: ctx.divisor.clamp(1, 4),
        })
    }

    /// Bytes that have arrived.
    pub(super) fn moved(&self) -> usize {
        self.moved.load(Ordering::Relaxed)
    }

    /// Whether one of them has come to its end.
    pub(super) fn is_over(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// From the beginning to the end, with so many bytes at least.
    fn play(ctx: &Ctx, pairs: Vec<Pair>, bytes: usize) -> Outcome {
        let streams = Streams::start(ctx, pairs)?;
        streams.await_more(bytes)?;
        streams.end()
    }

    /// Until so many more bytes have arrived at full size; fewer otherwise, but more than all rings hold.
    pub(super) fn await_more(&self, bytes: usize) -> Outcome {
        let pairs = self.threads.len() / 4;
        let bytes = bytes.min(300_000 * pairs).max(bytes / self.divisor);
        let before = self.moved();
        sys::within(
            &format!("{bytes} bytes more"),
            Duration::from_secs(60),
            &mut || Ok(self.is_over() || self.moved() >= before + bytes),
        )?;
        Ok(())
    }

    pub(super) fn end(self) -> Outcome {
        self.stop.store(1, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(join)
    }
}

/// So many connections over two links, of which the first one has made both.
fn over_two_links(ctx: &Ctx, count: usize) -> Outcome<Vec<Pair>> {
    let (listener, address) = ctx.listener(64)?;
    let first = ctx.pair_from(&listener, address)?;
    echo(&first, b"first")?;
    await_both()?;
    let mut pairs = vec![first];
    while pairs.len() < count {
        pairs.push(ctx.pair_from(&listener, address)?);
    }
    Ok(pairs)
}

/// A network with one RDMA device on each host yet, and streams over the only link.
fn over_one_link(ctx: &Ctx) -> Outcome<(Second, Streams)> {
    let second = Second::new(&[])?;
    second.fresh(ctx)?;
    let pair = ctx.pair()?;
    echo(&pair, b"one link")?;
    let streams = Streams::start(ctx, vec![pair])?;
    Ok((second, streams))
}

fn second_link_is_added(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    second.fresh(&ctx)?;
    // The others use both, and each link carries bytes.
    let pairs = over_two_links(&ctx, 6)?;
    await_queue_pairs(1).during("each device has one")?;
    for host in Host::BOTH {
        let (_, links) = shown(host)?;
        let conns: Vec<u64> = links.iter().map(|link| link.conns).collect();
        check_eq!(conns, [3, 3], "connections on the links");
    }
    for pair in &pairs {
        let (near, far) = (device_of(&pair.client)?, device_of(&pair.server)?);
        check_eq!(near.replace('A', "B"), far, "devices of a connection");
    }
    Streams::play(&ctx, pairs, 3_000_000)?;
    // With one link allowed there is one.
    let changed = Changed::new(&[Host::A], "smcr_max_links_per_lgr", 1)?;
    second.fresh(&ctx)?;
    let alone = ctx.pair()?;
    echo(&alone, b"alone")?;
    std::thread::sleep(Duration::from_millis(500));
    check_eq!(shown(Host::B)?.0, SINGLE, "type of a group with one link");
    drop(changed);
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// Connections on both links go on with one of them, whichever it is and however the other ends.
fn failover_loses_nothing(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    second.fresh(&ctx)?;
    for (what, way, lost) in [
        (
            "a device of the client goes",
            "rdma link del rxe2A",
            "rxe2A",
        ),
        (
            "a device of the server goes",
            "rdma link del rxe2B",
            "rxe2B",
        ),
        ("a port goes down", "ip -n A link set vA down", "rxeA"),
    ] {
        let streams = Streams::start(&ctx, over_two_links(&ctx, 6).during(what)?)?;
        streams.await_more(2_000_000).during(what)?;
        rig::run(way)?;
        let more = streams.await_more(4_000_000);
        let ended = streams.end();
        ended.during(what)?;
        more.during(what)?;
        for host in Host::BOTH {
            let (_, links) = shown(host)?;
            let gone = links.iter().all(|link| link.device != lost);
            check!(gone, "{what}: {links:?}");
        }
        match lost {
            "rxe2A" => add_second(Host::A)?,
            "rxe2B" => add_second(Host::B)?,
            _ => {
                rig::run("ip -n A link set vA up")?;
                rig::await_gid(Host::A)?;
            }
        }
        // What was there for want of a better one goes.
        await_both().during(what)?;
        second.fresh(&ctx)?;
    }
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// A device refuses one request among others that it takes: the connections go on on the other link, and nobody takes
/// for written what never was.
fn refused_post_loses_nothing(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    // So that something is posted at every moment: the peer's memory has room for little.
    let _small = Changed::new(&Host::BOTH, "rmem", 16_384)?;
    // Fewer where all is slow.
    let numbers = [3, 20, 41, 57, 80, 101, 130, 171];
    for number in numbers.into_iter().step_by(ctx.divisor.clamp(1, 4)) {
        let what = format!("request {number}");
        second.fresh(&ctx)?;
        let streams = Streams::start(&ctx, over_two_links(&ctx, 8).during(&what)?)?;
        streams.await_more(300_000).during(&what)?;
        let fault = Fault::of_verb(POST_SEND)?;
        fault.arm(Some(number))?;
        sys::eventually("a request is refused", || Ok(fault.hits()? == 1))?;
        drop(fault);
        let more = streams.await_more(1_000_000);
        streams.end().during(&what)?;
        more.during(&what)?;
    }
    second.fresh(&ctx)?;
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// Tries one way after the other, until an attempt has met the moment that it is about. Where the kernel's own checks make
/// everything slow, all may miss it, which is said.
fn until_met<T>(
    missed: &str,
    ways: impl IntoIterator<Item = T>,
    attempt: impl Fn(T) -> Outcome<bool>,
) -> Outcome {
    for way in ways {
        if attempt(way)? {
            return Ok(());
        }
    }
    check!(rig::slowness() > 1, "{missed}");
    println!("# {missed}; this kernel is slow");
    Ok(())
}

/// A network device is unregistered, and its RDMA device with it; then it comes back.
fn network_device_goes(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    until_met("Soft-RoCE was always deaf afterwards", 0..3, |_| {
        network_device_goes_and_comes(&ctx)
    })?;
    prove_by_queue_pairs(&ctx)
}

/// False if Soft-RoCE has closed the socket of the device that is left, as it does where the other one takes longer than a
/// second to go (Documentation/testing.rst, "What rxe itself does").
fn network_device_goes_and_comes(ctx: &Ctx) -> Outcome<bool> {
    let second = Second::new(&Host::BOTH)?;
    second.fresh(ctx)?;
    let streams = Streams::start(ctx, over_two_links(ctx, 4)?)?;
    for host in Host::BOTH {
        let what = format!("of host {}", host.name());
        streams.await_more(1_000_000).during(&what)?;
        second_netdev_goes(host)?;
        if !rig::hears_roce(host)? {
            // They end as their link does: nothing that is sent on it is answered any more.
            let ended = streams.end();
            println!("# Soft-RoCE is deaf {what}; its connections: {ended:?}");
            return Ok(false);
        }
        sys::eventually(&format!("no link on {}", second_device(host)), || {
            let (_, links) = shown(host)?;
            Ok(links.iter().all(|link| link.device != second_device(host)))
        })?;
        streams.await_more(1_000_000).during(&what)?;
        second_netdev_comes(host)?;
        await_both().during(&what)?;
    }
    streams.await_more(300_000)?;
    streams.end()?;
    drop(second);
    Ok(true)
}

/// Nothing tells that a path is gone: TEST LINK, or the device's own patience, finds out, and the
/// connections go on on the other one.
fn silent_link_is_left(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    second.fresh(&ctx)?;
    let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 1)?;
    let streams = Streams::start(&ctx, over_two_links(&ctx, 4)?)?;
    streams.await_more(1_000_000)?;
    for host in Host::BOTH {
        rig::run(&format!(
            "tc -n {} qdisc add dev {} root netem loss 100%",
            host.name(),
            second_netdev(host)
        ))?;
    }
    for host in Host::BOTH {
        await_links(host, SINGLE, &[host.rdma_device()])?;
    }
    let more = streams.await_more(2_000_000);
    streams.end()?;
    more?;
    drop(changed);
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// A device that comes, first or again, brings a link, whichever side it comes to.
fn comes_back(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let (second, streams) = over_one_link(&ctx)?;
    for round in 0..2 {
        let (one, other) = match round {
            0 => (Host::A, Host::B),
            _ => (Host::B, Host::A),
        };
        add_second(one)?;
        add_second(other)?;
        await_both().during(&format!("round {round}"))?;
        streams.await_more(300_000)?;
        Host::BOTH.into_iter().try_for_each(remove_second)?;
        for host in Host::BOTH {
            await_links(host, SINGLE, &[host.rdma_device()])?;
        }
        streams.await_more(300_000)?;
    }
    streams.end()?;
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// Handshakes that somebody begins in the name of a client, and never ends, on a link that goes: their memory on the other
/// one comes back.
fn stranded_handshakes(ctx: &Ctx) -> Outcome {
    const HANDSHAKES: usize = 16;
    const FIRST_CONTACT: u8 = 0x08;

    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    second.fresh(&ctx)?;
    raw::prepare()?;
    let pairs = over_two_links(&ctx, 2)?;
    let proposal = as_of_host_a(hostile::genuine_proposal(&ctx)?);
    let (_listener, address) = ctx.listener(64)?;
    let mut after = Vec::new();
    for round in 0..5 {
        let mut waiting = Vec::new();
        for _ in 0..HANDSHAKES {
            let mut peer = RawPeer::connect(next_port(), address)?;
            peer.send(&proposal)?;
            let accept = peer.receive(sys::PATIENCE)?;
            check!(
                accept.len() > 7 && accept[4] == 2 && accept[7] & FIRST_CONTACT == 0,
                "an Accept of a later contact was due in round {round}: {accept:02x?}"
            );
            waiting.push(peer);
        }
        // Host A's as well, or it would get another link to the port that stays.
        for host in [Host::B, Host::A] {
            remove_second(host)?;
        }
        for host in Host::BOTH {
            await_links(host, SINGLE, &[host.rdma_device()])?;
        }
        drop(waiting);
        Host::BOTH.into_iter().try_for_each(add_second)?;
        await_both().during(&format!("round {round}"))?;
        after.push(regions(Host::B)?);
    }
    // Half of them each time would be four times as many.
    check!(
        after[4] < after[0] + HANDSHAKES,
        "memory regions of the link that stays after each round: {after:?}"
    );
    for pair in &pairs {
        echo(pair, b"on it goes")?;
    }
    prove_by_queue_pairs(&ctx)
}

/// A Proposal of host B as host A would make it; both are one machine, and have its identity.
fn as_of_host_a(mut proposal: Vec<u8>) -> Vec<u8> {
    let [a, b] = [Host::A, Host::B].map(|host| {
        let number = host as u8 + 1;
        [
            // GIDs of RoCEv2, of RoCEv1, and MACs.
            [0xff, 0xff, 10, 9, 0, number],
            [0xff, 0xff, 10, 9, 0, number + 10],
            [0, 0xff, 0xfe, 9, 0, number],
            [0, 0xff, 0xfe, 9, 1, number],
            [2, 0, 0, 9, 0, number],
            [2, 0, 0, 9, 1, number],
        ]
    });
    for at in 0..proposal.len() - 5 {
        if let Some(which) = b.iter().position(|own| *own == proposal[at..at + 6]) {
            proposal[at..at + 6].copy_from_slice(&a[which]);
        }
    }
    proposal
}

/// Writes until neither the peer's memory nor the send buffer has room; the number of bytes.
fn stuff(sock: &Sock, pattern: &Pattern) -> Outcome<usize> {
    sock.set_nonblocking(true)?;
    let (mut sent, mut refused) = (0, 0);
    while refused < 5 {
        match sock.send(pattern.at(sent, 40_000), libc::MSG_NOSIGNAL) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                // What is under way makes room.
                refused += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(error.into()),
        }
    }
    check!(sock.unsent_bytes()? > 0, "all was sent");
    Ok(sent)
}

/// A server that writes, closes and drains: all of it arrives, though the link goes meanwhile.
fn closed_connection_moves(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    second.fresh(&ctx)?;
    let mut answers = Vec::new();
    for (number, pair) in over_two_links(&ctx, 4)?.into_iter().enumerate() {
        echo(&pair, b"request")?;
        let answer = Pattern::new(&ctx, number as u64);
        let length = stuff(&pair.server, &answer)?;
        drop(pair.server);
        answers.push((pair.client, answer, length));
    }
    rig::run("rdma link del rxe2A")?;
    for (client, ..) in &answers {
        await_device(client, "rxeA")?;
    }
    for (number, (client, answer, length)) in answers.into_iter().enumerate() {
        let what = format!("answer {number}");
        let got = client.recv_to_end().during(&what)?;
        check_eq!(got.len(), length, "bytes of {what}");
        answer.verify(0, &got).during(&what)?;
    }
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// Memory that could not be registered for the other link: that is no trouble for other connections, and when the link
/// goes both sides of the connection hear that it is over, and keep nobody's device.
fn no_key_for_the_other(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    second.fresh(&ctx)?;
    // A size that no earlier connection had: there is no such memory in the pool.
    let _size = Changed::new(&Host::BOTH, "rmem", 262_144)?;
    let (listener, address) = ctx.listener(64)?;
    let first = ctx.pair_from(&listener, address)?;
    echo(&first, b"first")?;
    await_both()?;
    // Not for its own link either: there is no connection.
    let fault = Fault::of_registration(0, 1)?;
    let fallen = ctx.unasked().pair_from(&listener, address)?;
    echo(&fallen, b"over TCP")?;
    check_eq!(fault.hits()?, 1, "failed requests");
    drop(fault);
    // The server registers first: for its own link, then for the other one.
    let fault = Fault::of_registration(1, 1)?;
    let alone = ctx.pair_from(&listener, address)?;
    echo(&alone, b"alone")?;
    check_eq!(fault.hits()?, 1, "failed requests");
    drop(fault);
    let lost = device_of(&alone.client)?;
    // One on each link.
    let mut pairs = vec![first];
    for _ in 0..2 {
        pairs.push(ctx.pair_from(&listener, address)?);
    }
    let streams = Streams::start(&ctx, pairs)?;
    streams.await_more(300_000)?;
    rig::run(&format!("rdma link del {lost}"))?;
    let more = streams.await_more(1_000_000);
    streams.end()?;
    more?;
    for (sock, who, error) in [
        (&alone.client, "client", libc::ECONNABORTED),
        (&alone.server, "server", libc::ECONNRESET),
    ] {
        sock.await_events(libc::POLLIN).during(who)?;
        let end = sock
            .recv(&mut [0], 0)
            .err()
            .and_then(|err| err.raw_os_error());
        check_eq!(end, Some(error), "error of the {who}");
    }
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// One side has one device only: both links end there.
fn asymmetric(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    for host in Host::BOTH {
        let second = Second::new(&[host])?;
        let other = host.other();
        second.fresh(&ctx)?;
        let (listener, address) = ctx.listener(64)?;
        let first = ctx.pair_from(&listener, address)?;
        echo(&first, b"first")?;
        let devices = [host.rdma_device(), second_device(host)].sorted();
        await_links(host, ASYMMETRIC_PEER, &devices)?;
        await_links(other, ASYMMETRIC_LOCAL, &[other.rdma_device(); 2])?;
        let pairs = vec![
            first,
            ctx.pair_from(&listener, address)?,
            ctx.pair_from(&listener, address)?,
        ];
        let streams = Streams::start(&ctx, pairs)?;
        streams.await_more(1_000_000)?;
        remove_second(host)?;
        await_links(host, SINGLE, &[host.rdma_device()])?;
        await_links(other, SINGLE, &[other.rdma_device()])?;
        let more = streams.await_more(1_000_000);
        streams.end()?;
        more?;
        drop(second);
    }
    prove_by_queue_pairs(&ctx)
}

/// An asymmetric link that cannot be made at the server is tried again, though nothing new comes: the client has named
/// its two ports in the Confirm, and does not ask.
fn asymmetric_again(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&[Host::A])?;
    second.fresh(&ctx)?;
    second_gid_comes(Host::A)?;
    // Behind the two of the first link.
    let fault = Fault::new("ib_create_qp_kernel", -12, 2, i32::MAX as u32)?;
    let tap = Wiretap::new()?;
    let pair = ctx.pair()?;
    echo(&pair, b"one link")?;
    sys::eventually("a refused queue pair", || Ok(fault.hits()? > 0))?;
    for host in Host::BOTH {
        check_eq!(shown(host)?.0, SINGLE, "type of the group");
    }
    drop(fault);
    let devices = [Host::A.rdma_device(), second_device(Host::A)].sorted();
    await_links(Host::A, ASYMMETRIC_PEER, &devices)?;
    let told = tap.llc()?;
    let asked = told.iter().filter(|llc| llc.kind == REQUEST_ADD_LINK);
    check_eq!(asked.count(), 0, "requests of the client");
    Streams::play(&ctx, vec![pair], 300_000)?;
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// A third link makes the asymmetric one superfluous while a handshake is under way on that: it stays until the connection is
/// made, which goes on on another one.
fn asymmetric_waits(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    for host in Host::BOTH {
        // How long a server waits is the same on a slow kernel.
        let tries = if rig::slowness() > 1 { 2 } else { 4 };
        until_met("the third link was always late", 0..tries, |_| {
            third_link_during_a_handshake(&ctx, host)
        })
        .during(&format!("two of {host:?}"))?;
    }
    prove_by_queue_pairs(&ctx)
}

/// A connection whose group has a second link, between the second device of `host` and the only one of the other host; and
/// the listener it came by.
fn asymmetric_group(ctx: &Ctx, host: Host) -> Outcome<(Second, Sock, SocketAddr, Pair)> {
    let other = host.other();
    let second = Second::new(&[host])?;
    second.fresh(ctx)?;
    let (listener, address) = ctx.listener(64)?;
    let first = ctx.pair_from(&listener, address)?;
    echo(&first, b"first")?;
    let devices = [host.rdma_device(), second_device(host)].sorted();
    await_links(host, ASYMMETRIC_PEER, &devices)?;
    await_links(other, ASYMMETRIC_LOCAL, &[other.rdma_device(); 2])?;
    // A link that was just made is not followed by another one at once.
    std::thread::sleep(Duration::from_millis(2_200));
    Ok((second, listener, address, first))
}

/// Whether the link by the second device of a host is in use.
fn uses_second(host: Host) -> Outcome<bool> {
    let (_, links) = shown(host)?;
    let mut by_second = links
        .iter()
        .filter(|link| link.device == second_device(host));
    Ok(by_second.any(|link| link.active))
}

/// False if the third link has not come in time. `host` has two devices at first.
fn third_link_during_a_handshake(ctx: &Ctx, host: Host) -> Outcome<bool> {
    /// Less than the server waits for the client's Confirm, with a repetition of that in between.
    const IN_TIME: Duration = Duration::from_secs(4);

    let other = host.other();
    let (second, listener, address, first) = asymmetric_group(ctx, host)?;
    let often = Sysctl::set(Host::A, "tcp_rto_max_ms", "1000")?;
    // Behind a TCP header with time stamps; RFC 7609, section A.2: the eye catcher, and type 3.
    let port = address.port();
    let confirm = format!("tcp dport {port} @th,256,40 0xe2d4c3d903 counter drop");
    let rules = Rules::new(Host::B, "input", &[&confirm])?;
    let client = ctx.connect(address)?;
    let since = Instant::now();
    sys::eventually("a Confirm", || Ok(rules.seen()? > 0))?;
    let begins = |links: &[Link]| {
        let mut on = links.iter().filter(|link| link.conns == 1);
        on.any(|link| link.device == second_device(host))
    };
    check!(begins(&shown(host)?.1), "it begins on another link");
    add_second(other)?;
    sys::eventually("a third link", || {
        let late = since.elapsed() > IN_TIME;
        Ok(late || uses_second(other)?)
    })?;
    // It would go at once.
    std::thread::sleep(Duration::from_millis(300));
    let links = shown(Host::B)?.1;
    if since.elapsed() > IN_TIME {
        return Ok(false);
    }
    check_eq!(links.len(), 3, "links during the handshake: {links:?}");
    drop(rules);
    let server = listener.accept_of(&client).during("accept()")?;
    if server.is_none() && since.elapsed() > IN_TIME {
        return Ok(false);
    }
    let server = server.ok_or_else(|| Fail("the server has let the client go".into()))?;
    let begun = Pair { client, server };
    ctx.prove(Host::A, &begun.client)?;
    ctx.prove(Host::B, &begun.server)?;
    echo(&begun, b"made in the end")?;
    await_both()?;
    Streams::play(ctx, vec![first, begun], 1_000_000)?;
    drop(often);
    drop(second);
    Ok(true)
}

/// A third link, whose exchange takes longer than a new connection waits for the peer to know its RMB on all links: keys wait
/// for the end of such an exchange (RFC 7609, section 3.5.5.3). The asymmetric link, on which the connection has begun, stays
/// until they are told.
fn asymmetric_keys(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    for host in Host::BOTH {
        // All else takes its time, too, where the kernel is slow.
        let delays: &[u32] = if rig::slowness() > 1 {
            &[500, 250, 800]
        } else {
            &[1_000, 800, 900, 600]
        };
        let missed = "the third link was always too early, or too late";
        until_met(missed, delays, |&by| {
            keys_after_a_third_link(&ctx, host, by)
        })
        .during(&format!("two of {host:?}"))?;
    }
    prove_by_queue_pairs(&ctx)
}

/// False if the third link has come before the connection was made, or took longer than the hosts wait for it. `host` has two
/// devices at first.
fn keys_after_a_third_link(ctx: &Ctx, host: Host, late_by: u32) -> Outcome<bool> {
    let other = host.other();
    let (second, listener, address, first) = asymmetric_group(ctx, host)?;
    // Of six calls one after the other; the server's and the client's end of the connection wait for 2 s each.
    let fault = Fault::late(&["rxe_modify_qp"], late_by)?;
    add_second(other)?;
    let mut made = false;
    sys::eventually("a third link that is being made", || {
        made = uses_second(other)?;
        Ok(made || shown(other)?.1.len() == 3)
    })?;
    if made {
        return Ok(false);
    }
    // An RMB that nobody has had before.
    listener.set(libc::SOL_SOCKET, libc::SO_RCVBUF, 200_000)?;
    let client = ctx.socket(Host::A)?;
    client.set(libc::SOL_SOCKET, libc::SO_RCVBUF, 200_000)?;
    client.connect(address)?;
    let server = listener.accept_of(&client).during("accept()")?;
    let server = server.ok_or_else(|| Fail("the server has let the client go".into()))?;
    let links = shown(host)?.1;
    if links.iter().filter(|link| link.active).count() > 2 {
        return Ok(false);
    }
    let on = links
        .iter()
        .find(|link| link.conns == 1 && link.device == second_device(host));
    check!(on.is_some(), "it is on another link: {links:?}");
    let begun = Pair { client, server };
    ctx.prove(Host::A, &begun.client)?;
    ctx.prove(Host::B, &begun.server)?;
    check!(fault.hits()? > 0, "no queue pair was late");
    let third = sys::within("a third link", Duration::from_secs(15), &mut || {
        Ok(uses_second(other)?)
    });
    drop(fault);
    if third.is_err() {
        return Ok(false);
    }
    await_both()?;
    echo(&begun, b"on another link")?;
    Streams::play(ctx, vec![first, begun], 1_000_000)?;
    drop(second);
    Ok(true)
}

/// Each resource of a second link, refused to the server (which makes its end first) and to the client: the connections
/// go on on the first one. When it is there again, so is the second link.
fn second_link_refused(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let (second, streams) = over_one_link(&ctx)?;
    const ALL: u32 = i32::MAX as u32;
    for (function, result, skip) in [
        ("__ib_alloc_pd", -12, 0),
        ("__ib_alloc_pd", -12, 1),
        // Two for each end.
        ("__ib_create_cq", -12, 0),
        ("__ib_create_cq", -12, 1),
        ("__ib_create_cq", -12, 2),
        ("ib_create_qp_kernel", -12, 0),
        ("ib_create_qp_kernel", -12, 1),
        // One for each end, as there is one connection.
        ("ib_alloc_mr", -12, 0),
        ("ib_alloc_mr", -12, 1),
        // Memory of the link's own.
        ("rust_helper_alloc_pages", 0, 0),
    ] {
        let what = format!("{function} fails after {skip}");
        let fault = Fault::new(function, result, skip, ALL)?;
        add_second(Host::A)?;
        add_second(Host::B)?;
        sys::eventually(&format!("{what}: it is called"), || Ok(fault.hits()? > 0))?;
        streams.await_more(300_000).during(&what)?;
        for host in Host::BOTH {
            check_eq!(shown(host)?.0, SINGLE, "{what}: type of the group");
        }
        drop(fault);
        await_both().during(&what)?;
        streams.await_more(300_000).during(&what)?;
        Host::BOTH.into_iter().try_for_each(remove_second)?;
        for host in Host::BOTH {
            await_links(host, SINGLE, &[host.rdma_device()]).during(&what)?;
        }
    }
    streams.end()?;
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// The device refuses one of the messages by which the hosts agree on a second link, long ones among them: the link that was to
/// send it is lost, and all is well with the next one.
fn refused_offers(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&[])?;
    let (listener, address) = ctx.listener(64)?;
    for number in 1..=4 {
        let what = format!("message {number}");
        second.fresh(&ctx)?;
        let before = ctx.pair_from(&listener, address)?;
        echo(&before, b"before").during(&what)?;
        let fault = Fault::of_verb(POST_SEND)?;
        fault.arm(Some(number))?;
        add_second(Host::A)?;
        add_second(Host::B)?;
        sys::eventually("a message is refused", || Ok(fault.hits()? == 1)).during(&what)?;
        drop(fault);
        // While a link is being lost, connections may fall back.
        let unasked = ctx.unasked();
        let mut after = None;
        sys::eventually("a connection by RDMA", || {
            let pair = unasked.pair_from(&listener, address)?;
            let by_rdma = mode::of(&pair.client)? == Mode::Rdma;
            after = by_rdma.then_some(pair);
            Ok(by_rdma)
        })
        .during(&what)?;
        let after = after.ok_or_else(|| Fail("no connection".into()))?;
        echo(&after, b"after").during(&what)?;
        await_both().during(&what)?;
        Streams::play(&ctx, vec![after], 300_000).during(&what)?;
        Host::BOTH.into_iter().try_for_each(remove_second)?;
    }
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// PNETIDs that are given when the group is there already bring the second link, whichever side has its own last. When
/// they are taken away again, what is there stays. Each under traffic.
fn network_named_later(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    for hosts in [[Host::A, Host::B], [Host::B, Host::A]] {
        let what = format!("host {} last", hosts[1].name());
        second.fresh(&ctx)?;
        pnet::flush_both()?;
        let pair = ctx.pair()?;
        echo(&pair, b"one link")?;
        for host in Host::BOTH {
            check_eq!(shown(host)?.0, SINGLE, "type of the group without networks");
        }
        let streams = Streams::start(&ctx, vec![pair])?;
        for host in hosts {
            pnet::add_ib(host, "NET1", host.rdma_device(), 1)?;
            pnet::add_ib(host, "NET1", second_device(host), 1)?;
        }
        await_both().during(&what)?;
        streams.await_more(300_000).during(&what)?;
        pnet::flush_both()?;
        streams.await_more(300_000).during(&what)?;
        for host in Host::BOTH {
            check_eq!(shown(host)?.0, SYMMETRIC, "type of the group afterwards");
        }
        streams.end().during(&what)?;
    }
    drop(second);
    prove_by_queue_pairs(&ctx)
}
