//! Ways between hosts that are more than a cable: VLANs, and gateways.

use super::link::echo;
use super::{join, once};
use crate::fault::Fault;
use crate::genl::Attrs;
use crate::kind::{Host, Kind};
use crate::link_groups::{self, lgr};
use crate::mode::{self, Mode};
use crate::pattern::Pattern;
use crate::rig::{self, SoftRoce};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, Context, Outcome};
use rand::Rng;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const TESTS: [Test; 3] = [
    once("routes.vlan", 120, vlan),
    once("routes.device_goes", 120, device_goes),
    once("routes.gateway", 120, gateway),
];

/// Ends a namespace's link groups, and takes down what a test has set up.
struct Setup {
    undo: Vec<String>,
}

impl Setup {
    fn new() -> Setup {
        Setup { undo: Vec::new() }
    }

    fn run(&mut self, line: String, undo: Option<String>) -> Outcome {
        rig::run(&line)?;
        self.undo.extend(undo);
        Ok(())
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        if let Err(fail) = sys::leave() {
            println!("# {fail}");
        }
        for line in self.undo.iter().rev() {
            if let Err(fail) = rig::run(line) {
                println!("# {fail}");
            }
        }
    }
}

/// A connection from one namespace to an address in another one.
fn connect(ctx: &Ctx, from: &str, to: &str, address: [u8; 4]) -> Outcome<Pair> {
    let (family, protocol) = ctx.kind.arguments();
    sys::enter_named(to)?;
    let listener = Sock::raw(family, libc::SOCK_STREAM, protocol)?;
    listener.bind((address, 0).into()).during("bind()")?;
    listener.listen(8)?;
    sys::enter_named(from)?;
    let client = Sock::raw(family, libc::SOCK_STREAM, protocol)?;
    client.connect(listener.local()?).during("connect()")?;
    let server = listener.accept().during("accept()")?;
    Ok(Pair { client, server })
}

fn prove(pair: &Pair, what: &str) -> Outcome {
    for (sock, who) in [(&pair.client, "client"), (&pair.server, "server")] {
        let mode = mode::of(sock)?;
        check!(mode == Mode::Rdma, "{what}: the {who}'s is {mode:?}");
    }
    Ok(())
}

/// More than a ring holds, both ways at once.
fn exchange(ctx: &Ctx, pair: Pair) -> Outcome {
    const TOTAL: usize = 1_000_000;
    let mut threads = Vec::new();
    for (number, (from, to)) in [
        (pair.client.dup()?, pair.server.dup()?),
        (pair.server, pair.client),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = 700 + number as u64;
        let (out, inc) = (Pattern::new(ctx, stream), Pattern::new(ctx, stream));
        threads.push(std::thread::spawn(move || -> Outcome {
            let mut sent = 0;
            while sent < TOTAL {
                let part = out.at(sent, (TOTAL - sent).min(30_000));
                from.send_all(part)?;
                sent += part.len();
            }
            Ok(())
        }));
        threads.push(std::thread::spawn(move || -> Outcome {
            let mut got = 0;
            let mut part = vec![0; 40_000];
            while got < TOTAL {
                let count = to.recv(&mut part, 0)?;
                check!(count > 0, "end of stream after {got} bytes");
                inc.verify(got, &part[..count])?;
                got += count;
            }
            Ok(())
        }));
    }
    threads.into_iter().try_for_each(join)
}

/// A number of each link group of a namespace, in order.
pub(super) fn of_groups(name: &str, read: impl Fn(&Attrs) -> io::Result<u64>) -> Outcome<Vec<u64>> {
    sys::enter_named(name)?;
    let mut found = link_groups::each(read)?;
    found.sort_unstable();
    Ok(found)
}

/// Packets that a network device has sent.
fn sent(name: &str, netdev: &str) -> Outcome<u64> {
    let shown = rig::run(&format!(
        "ip netns exec {name} cat /sys/class/net/{netdev}/statistics/tx_packets"
    ))?;
    shown.trim().parse().during("tx_packets")
}

/// A VLAN on a host's network device, with an address of its own.
fn add_tagged(host: Host) -> Outcome {
    let (name, below) = (host.name(), host.netdev());
    rig::run(&format!(
        "ip -n {name} link add link {below} name tagged type vlan id 10"
    ))?;
    // Its link-local address, too, is a GID at once.
    rig::run_on(host, "sysctl -qw net.ipv6.conf.tagged.accept_dad=0")?;
    rig::run(&format!("ip -n {name} link set tagged up"))?;
    let number = host as usize + 1;
    rig::run(&format!(
        "ip -n {name} addr add 10.9.10.{number}/24 dev tagged"
    ))?;
    Ok(())
}

/// The same on both hosts, until the end of the test.
fn both_tagged() -> Outcome<Setup> {
    let mut setup = Setup::new();
    for host in Host::BOTH {
        add_tagged(host)?;
        setup
            .undo
            .push(format!("ip -n {} link del tagged", host.name()));
    }
    await_tagged()?;
    Ok(setup)
}

/// Until the two are reached, by TCP and by RDMA.
fn await_tagged() -> Outcome {
    rig::run("ip netns exec A ping -q -c 1 -W 10 10.9.10.2")?;
    for host in Host::BOTH {
        sys::eventually("the GID of the VLAN", || {
            Ok(rig::gids(host).iter().any(|gid| gid.contains("0a09:0a0")))
        })?;
    }
    Ok(())
}

/// The RDMA device belongs to the network device below; its packets go by the VLAN of the connection.
fn vlan(ctx: &Ctx) -> Outcome {
    const PACKETS: u64 = 200;
    let ctx = ctx.with_kind(Kind::Smc4);
    let _setup = both_tagged()?;
    let untagged = ctx.pair()?;
    echo(&untagged, b"untagged")?;
    let before = sent("A", "tagged")?;
    let tagged = connect(&ctx, "A", "B", [10, 9, 10, 2])?;
    prove(&tagged, "in a VLAN")?;
    for name in ["A", "B"] {
        check_eq!(
            of_groups(name, |group| group.number(lgr::VLAN_ID))?,
            [0, 10],
            "VLANs of the groups"
        );
    }
    exchange(&ctx, tagged)?;
    let more = sent("A", "tagged")? - before;
    check!(more > PACKETS, "only {more} packets in the VLAN");
    let before = sent("A", "tagged")?;
    exchange(&ctx, untagged)?;
    let more = sent("A", "tagged")? - before;
    check!(more < PACKETS, "{more} packets in the VLAN, from outside");
    Ok(())
}

/// The device of the route goes while handshakes look at it: they find its number first, and what has it a moment later.
fn device_goes(ctx: &Ctx) -> Outcome {
    const ROUNDS: u64 = 16;
    let ctx = ctx.with_kind(Kind::Smc4);
    let _setup = both_tagged()?;
    let listener = ctx.socket(Host::B)?;
    listener.bind(([10, 9, 10, 2], 0).into()).during("bind()")?;
    listener.listen(64)?;
    listener.set_nonblocking(true)?;
    let address = listener.local()?;
    let fault = Fault::late_in_kernel(&["dev_get_by_index_rcu"], 5)?;
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (ctx, stop) = (ctx.with_kind(ctx.kind), Arc::clone(&stop));
            let made = Arc::clone(&made);
            std::thread::spawn(move || -> Outcome {
                while !stop.load(Ordering::Relaxed) {
                    let client = ctx.socket(Host::A)?;
                    client.set_timeout(libc::SO_SNDTIMEO, Duration::from_millis(300))?;
                    // Without the device there is no way.
                    if client.connect(address).is_ok() {
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            })
        })
        .collect();
    let mut random = ctx.random(77);
    for round in 0..ROUNDS {
        let host = Host::BOTH[round as usize % 2];
        std::thread::sleep(Duration::from_millis(random.gen_range(50..400)));
        // Waits until nobody uses it.
        rig::run(&format!("ip -n {} link del tagged", host.name()))?;
        add_tagged(host)?;
        while let Ok(server) = listener.accept() {
            drop(server);
        }
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().try_for_each(join)?;
    check!(fault.hits()? > 0, "nobody has looked for a device");
    check!(
        made.load(Ordering::Relaxed) > 0,
        "no connection was made in between"
    );
    drop(fault);
    await_tagged()?;
    drop(listener);
    // What was begun may have to come to its end first.
    let end = Instant::now() + sys::PATIENCE;
    loop {
        let pair = connect(&ctx, "A", "B", [10, 9, 10, 2])?;
        match prove(&pair, "in the end") {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
            Err(fail) => return Err(fail),
            Ok(()) => return exchange(&ctx, pair),
        }
    }
}

/// Hosts in two networks: SMC-Rv2 goes through the gateway between them, and each says so; SMC-Rv1 cannot.
fn gateway(ctx: &Ctx) -> Outcome {
    const DIFFPREFIX: u32 = 0x0307_0000;
    let ctx = ctx.with_kind(Kind::Smc4);
    let kind = SoftRoce::here().link_type();
    let mut setup = Setup::new();
    for name in ["R", "C", "D"] {
        setup.run(
            format!("ip netns add {name}"),
            Some(format!("ip netns del {name}")),
        )?;
    }
    rig::run("ip netns exec R sysctl -qw net.ipv4.ip_forward=1")?;
    for (net, name) in [(1, "C"), (2, "D")] {
        for line in [
            format!("ip link add v{name} address 02:00:00:09:02:0{net} mtu 9000 netns {name} type veth peer name r{name} address 02:00:00:09:03:0{net} mtu 9000 netns R"),
            format!("ip -n R addr add 10.9.2{net}.254/24 dev r{name}"),
            format!("ip -n R link set r{name} up"),
            format!("ip -n {name} addr add 10.9.2{net}.1/24 dev v{name}"),
            format!("ip -n {name} link set v{name} up"),
            format!("ip -n {name} route add default via 10.9.2{net}.254"),
        ] {
            rig::run(&line)?;
        }
        setup.run(
            format!("ip netns exec {name} rdma link add rxe{name} type {kind} netdev v{name}"),
            Some(format!("rdma link del rxe{name}")),
        )?;
        let gid = format!("/sys/class/infiniband/rxe{name}/ports/1/gids");
        sys::eventually("the IPv4 GID", || {
            Ok((0..8).any(|index| {
                std::fs::read_to_string(format!("{gid}/{index}"))
                    .is_ok_and(|gid| gid.contains(":ffff:0a09:"))
            }))
        })?;
    }
    rig::run("ip netns exec C ping -q -c 1 -W 10 10.9.22.1")?;
    let pair = connect(&ctx, "C", "D", [10, 9, 22, 1])?;
    if SoftRoce::here() == SoftRoce::V1 {
        echo(&pair, b"by TCP")?;
        let reason = mode::fallback(&pair.client)?.peer_diagnosis;
        check_eq!(reason, DIFFPREFIX, "the server's reason");
        return Ok(());
    }
    prove(&pair, "through a gateway")?;
    for name in ["C", "D"] {
        let direct = of_groups(name, |group| {
            group.nest(lgr::R_V2)?.number(lgr::R_V2_DIRECT)
        })?;
        check_eq!(direct, [0], "'direct' at {name}");
    }
    let before = sent("R", "rD")?;
    exchange(&ctx, pair)?;
    let more = sent("R", "rD")? - before;
    check!(more > 200, "only {more} packets went through the gateway");
    Ok(())
}
