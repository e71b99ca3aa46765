//! Link groups with several links: how they get them, and what the loss of one does: nothing.

use super::link::{await_queue_pairs, echo, fresh, prove_by_queue_pairs};
use super::pnet;
use super::settings::Changed;
use super::{join, once, Pattern};
use crate::diag;
use crate::genl::{self, Client};
use crate::kind::{Host, Kind};
use crate::rig;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, Context, Fail, Outcome};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub const TESTS: [Test; 5] = [
    once("link.second_link_is_added", 120, second_link_is_added),
    once("link.failover_loses_nothing", 300, failover_loses_nothing),
    once("link.silent_link_is_left", 300, silent_link_is_left),
    once("link.comes_back", 300, comes_back),
    once("link.asymmetric", 120, asymmetric),
];

/// `enum smc_lgr_type`.
const SINGLE: u64 = 1;
const SYMMETRIC: u64 = 2;
const ASYMMETRIC_PEER: u64 = 3;
const ASYMMETRIC_LOCAL: u64 = 4;

fn second_device(host: Host) -> &'static str {
    match host {
        Host::A => "rxe2A",
        Host::B => "rxe2B",
    }
}

fn second_netdev(host: Host) -> &'static str {
    match host {
        Host::A => "v2A",
        Host::B => "v2B",
    }
}

/// Two network devices on each host, all at one switch, the second ones with RDMA devices on some hosts only.
/// All RDMA devices have one PNETID.
struct Second {
    hosts: Vec<Host>,
}

impl Second {
    fn new(hosts: &[Host]) -> Outcome<Second> {
        pnet::flush_both()?;
        let second = Second {
            hosts: hosts.to_vec(),
        };
        rig::run("ip -n A link del vA")?;
        await_no_devices()?;
        rig::run("ip netns add S")?;
        rig::run("ip -n S link add br0 mtu 9000 type bridge")?;
        rig::run("ip -n S link set br0 up")?;
        for (number, host) in Host::BOTH.into_iter().enumerate() {
            // Each address is that of one device.
            sys::enter(host)?;
            for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{name}"), value)
                    .during(name)?;
            }
            sys::leave()?;
            for (which, dev) in [host.netdev(), second_netdev(host)].into_iter().enumerate() {
                rig::run(&format!(
                    "ip link add {dev} address 02:00:00:09:0{which}:0{} mtu 9000 netns {} type veth peer name p{dev} mtu 9000 netns S",
                    number + 1,
                    host.name()
                ))?;
                rig::run(&format!("ip -n S link set p{dev} master br0 up"))?;
            }
        }
        rig::attach_hosts()?;
        for (number, host) in Host::BOTH.into_iter().enumerate() {
            let (name, dev, address) = (host.name(), second_netdev(host), 11 + number);
            rig::run(&format!("ip -n {name} link set {dev} up"))?;
            // TCP takes the first device, as its routes are better.
            rig::run(&format!(
                "ip -n {name} addr add 10.9.0.{address}/24 dev {dev} noprefixroute"
            ))?;
            rig::run(&format!(
                "ip -n {name} route add 10.9.0.0/24 dev {dev} src 10.9.0.{address} metric 500"
            ))?;
            pnet::add_ib(host, "NET1", host.rdma_device(), 1)?;
            pnet::add_ib(host, "NET1", second_device(host), 1)?;
        }
        for host in hosts {
            add_second(*host)?;
        }
        Ok(second)
    }

    /// Ends all link groups.
    fn fresh(&self, ctx: &Ctx) -> Outcome {
        for host in &self.hosts {
            rig::run(&format!("rdma link del {}", second_device(*host)))?;
        }
        fresh(ctx)?;
        self.hosts.iter().try_for_each(|host| add_second(*host))
    }
}

fn await_no_devices() -> Outcome {
    sys::eventually("no RDMA devices", || {
        Ok(rig::run("rdma link show").is_ok_and(|links| links.trim().is_empty()))
    })?;
    Ok(())
}

impl Drop for Second {
    fn drop(&mut self) {
        let restore = || -> Outcome {
            for host in Host::BOTH {
                for dev in [host.netdev(), second_netdev(host)] {
                    rig::run(&format!("ip -n {} link del {dev}", host.name()))?;
                }
                sys::enter(host)?;
                for name in ["arp_ignore", "arp_announce"] {
                    std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{name}"), "0")?;
                }
                sys::leave()?;
            }
            rig::run("ip netns del S")?;
            await_no_devices()?;
            pnet::flush_both()?;
            rig::join_hosts()
        };
        if let Err(fail) = restore() {
            eprintln!("# cannot restore the network: {fail}");
        }
    }
}

fn add_second(host: Host) -> Outcome {
    let kind = rig::SoftRoce::here().link_type();
    let (device, netdev) = (second_device(host), second_netdev(host));
    rig::run_on(
        host,
        &format!("rdma link add {device} type {kind} netdev {netdev}"),
    )?;
    Ok(())
}

/// A link as `SMC_NETLINK_GET_LINK_SMCR` shows it.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    device: String,
    conns: u64,
    active: bool,
}

/// Type of a host's only group, and its links.
fn shown(host: Host) -> Outcome<(u64, Vec<Shown>)> {
    sys::enter(host)?;
    let messages = Client::new(genl::SMC_GEN)?.dump(genl::GET_LINK_SMCR)?;
    let mut group = None;
    let mut links = Vec::new();
    for message in messages {
        if message.command == genl::GET_LGR_SMCR {
            check!(group.is_none(), "there is more than one group");
            group = Some(message.attrs.nest(2)?.number(3)?);
        } else {
            let link = message.attrs.nest(3)?;
            links.push(Shown {
                device: link.text(2)?,
                conns: link.number(6)?,
                active: link.number(10)? == 3,
            });
        }
    }
    let group = group.ok_or_else(|| Fail("there is no group".into()))?;
    Ok((group, links))
}

/// Until a host's group is of this type, with its links in use on these devices.
fn await_links(host: Host, kind: u64, devices: &[&str]) -> Outcome {
    let mut last = String::new();
    sys::within(
        &format!("host {} has links on {devices:?}", host.name()),
        Duration::from_secs(40),
        &mut || {
            let now = shown(host);
            last = format!("{now:?}");
            let Ok((group, links)) = now else {
                return Ok(false);
            };
            let mut used: Vec<&str> = links.iter().map(|link| link.device.as_str()).collect();
            used.sort_unstable();
            Ok(group == kind && used == devices && links.iter().all(|link| link.active))
        },
    )
    .map_err(|error| Fail(format!("{error}; it has {last}")))
    .map(drop)
}

fn await_both() -> Outcome {
    for host in Host::BOTH {
        await_links(
            host,
            SYMMETRIC,
            &[second_device(host), host.rdma_device()].sorted(),
        )?;
    }
    Ok(())
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for [&str; 2] {
    fn sorted(mut self) -> Self {
        self.sort_unstable();
        self
    }
}

/// Device of a connection's link.
fn device_of(sock: &Sock) -> Outcome<String> {
    let link = diag::of(sock)?.and_then(|entry| entry.link);
    Ok(link
        .ok_or_else(|| Fail("no link in sock_diag".into()))?
        .ibname)
}

/// Streams both ways on every connection, until told to end; every byte is compared.
struct Streams {
    threads: Vec<JoinHandle<Outcome>>,
    stop: Arc<AtomicUsize>,
    moved: Arc<AtomicUsize>,
}

impl Streams {
    fn start(ctx: &Ctx, pairs: Vec<Pair>) -> Outcome<Streams> {
        let (stop, moved) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
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
                    while stop.load(Ordering::Relaxed) == 0 {
                        let part = own.at(sent, 30_000);
                        sock.send_all(part).during(&what)?;
                        sent += part.len();
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
        })
    }

    /// Until so many more bytes have arrived.
    fn await_more(&self, bytes: usize) -> Outcome {
        let before = self.moved.load(Ordering::Relaxed);
        sys::within(
            &format!("{bytes} bytes more"),
            Duration::from_secs(60),
            &mut || {
                let ended = self.threads.iter().any(JoinHandle::is_finished);
                Ok(ended || self.moved.load(Ordering::Relaxed) >= before + bytes)
            },
        )?;
        Ok(())
    }

    fn end(self) -> Outcome {
        self.stop.store(1, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(join)
    }
}

fn second_link_is_added(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    second.fresh(&ctx)?;
    let (listener, address) = ctx.listener(64)?;
    let first = ctx.pair_from(&listener, address)?;
    echo(&first, b"first")?;
    await_both()?;
    await_queue_pairs(1).during("each device has one")?;
    // Others use both, and each link carries bytes.
    let mut pairs = vec![first];
    for _ in 0..5 {
        pairs.push(ctx.pair_from(&listener, address)?);
    }
    for host in Host::BOTH {
        let (_, links) = shown(host)?;
        let conns: Vec<u64> = links.iter().map(|link| link.conns).collect();
        check_eq!(conns, [3, 3], "connections on the links");
    }
    for pair in &pairs {
        let (near, far) = (device_of(&pair.client)?, device_of(&pair.server)?);
        check_eq!(near.replace('A', "B"), far, "devices of a connection");
    }
    let streams = Streams::start(&ctx, pairs)?;
    streams.await_more(3_000_000)?;
    streams.end()?;
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
        let (listener, address) = ctx.listener(64)?;
        let first = ctx.pair_from(&listener, address)?;
        echo(&first, b"first")?;
        await_both().during(what)?;
        let mut pairs = vec![first];
        for _ in 0..5 {
            pairs.push(ctx.pair_from(&listener, address)?);
        }
        let streams = Streams::start(&ctx, pairs)?;
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

/// Nothing tells that a path is gone: TEST LINK, or the device's own patience, finds out, and the
/// connections go on on the other one.
fn silent_link_is_left(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let second = Second::new(&Host::BOTH)?;
    second.fresh(&ctx)?;
    let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 1)?;
    let (listener, address) = ctx.listener(64)?;
    let first = ctx.pair_from(&listener, address)?;
    echo(&first, b"first")?;
    await_both()?;
    let mut pairs = vec![first];
    for _ in 0..3 {
        pairs.push(ctx.pair_from(&listener, address)?);
    }
    let streams = Streams::start(&ctx, pairs)?;
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
    let second = Second::new(&[])?;
    second.fresh(&ctx)?;
    let pair = ctx.pair()?;
    echo(&pair, b"one link")?;
    let streams = Streams::start(&ctx, vec![pair])?;
    for round in 0..2 {
        let (one, other) = match round {
            0 => (Host::A, Host::B),
            _ => (Host::B, Host::A),
        };
        add_second(one)?;
        add_second(other)?;
        await_both().during(&format!("round {round}"))?;
        streams.await_more(300_000)?;
        for host in Host::BOTH {
            rig::run(&format!("rdma link del {}", second_device(host)))?;
        }
        for host in Host::BOTH {
            await_links(host, SINGLE, &[host.rdma_device()])?;
        }
        streams.await_more(300_000)?;
    }
    streams.end()?;
    drop(second);
    prove_by_queue_pairs(&ctx)
}

/// One side has one device only: both links end there.
fn asymmetric(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    for host in Host::BOTH {
        let second = Second::new(&[host])?;
        let other = match host {
            Host::A => Host::B,
            Host::B => Host::A,
        };
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
        rig::run(&format!("rdma link del {}", second_device(host)))?;
        await_links(host, SINGLE, &[host.rdma_device()])?;
        await_links(other, SINGLE, &[other.rdma_device()])?;
        let more = streams.await_more(1_000_000);
        streams.end()?;
        more?;
        drop(second);
    }
    prove_by_queue_pairs(&ctx)
}
