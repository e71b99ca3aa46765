//! Link groups with two links between two implementations.

use super::scripts::there_and_back;
use super::ways::fresh;
use super::{gid_ready, port_ready, rdma_link_add, Script, Side, Stack, RDMA_DEVICE};
use smc_selftest::genl::{self, Client};
use smc_selftest::kind::Kind;
use smc_selftest::link_groups::lgr;
use smc_selftest::pattern::Pattern;
use smc_selftest::rig::{run, SoftRoce};
use smc_selftest::sys::{self, Sock};
use smc_selftest::{check, Context, Fail, Outcome};
use std::time::Duration;

pub const SCRIPTS: &[Script] = &[
    Script::with_ours("links.path_goes", |side| path_goes(side, Way::BothPorts)),
    Script::among_ours_v2("links.address_of_client_goes", |side| {
        path_goes(
            side,
            Way::Address {
                here: side.is_client,
            },
        )
    }),
    Script::among_ours_v2("links.address_of_server_goes", |side| {
        path_goes(
            side,
            Way::Address {
                here: !side.is_client,
            },
        )
    }),
    Script::among_ours("links.mtu_changes", |side| path_goes(side, Way::Mtu)),
    Script::new("links.limit_of_client", |side| limit(side, side.is_client)),
    Script::new("links.limit_of_server", |side| limit(side, !side.is_client)),
];

/// How the second path becomes unusable while it is used. C does not take a link down before all that it has sent is
/// acknowledged, and rxe repeats for ever what nobody acknowledges: with C, both ports have to go, and that of ours first. Else
/// C's server offers another link to it meanwhile, over two cables that do not meet here, and waits for ever as above.
#[derive(Clone, Copy)]
enum Way {
    /// Both ports go down.
    BothPorts,
    /// The device of one side loses its address, and with it the GID of its link. SMC-Rv1 uses another one.
    Address { here: bool },
    /// What A's device sends gets too long for its network.
    Mtu,
}

impl Way {
    fn go(self, side: &Side, number: usize) -> Outcome {
        match self {
            Way::BothPorts => {
                let (mixed, ours) = (side.own != side.peer, side.own == Stack::Rust);
                if mixed && !ours {
                    side.meet("the first port is down")?;
                }
                run(&format!("ip link set {SECOND_NETDEV} down"))?;
                if mixed && ours {
                    side.meet("the first port is down")?;
                }
                String::new()
            }
            Way::Address { here: true } => run(&format!(
                "ip addr del 10.9.0.{number}/24 dev {SECOND_NETDEV}"
            ))?,
            Way::Mtu if side.is_first() => run(&format!("ip link set {SECOND_NETDEV} mtu 1000"))?,
            Way::Address { here: false } | Way::Mtu => String::new(),
        };
        Ok(())
    }

    fn come_back(self, side: &Side, number: usize) -> Outcome {
        match self {
            Way::BothPorts => {
                run(&format!("ip link set {SECOND_NETDEV} up"))?;
                run(&route(number))?;
            }
            Way::Address { here: true } => {
                run(&address(number))?;
                run(&route(number))?;
            }
            Way::Mtu if side.is_first() => {
                run(&format!("ip link set {SECOND_NETDEV} mtu 4000"))?;
            }
            Way::Address { here: false } | Way::Mtu => {}
        }
        Ok(())
    }
}

pub const SECOND_NETDEV: &str = "eth1";
const SECOND_DEVICE: &str = "rxe1";
const SINGLE: u64 = 1;
const SYMMETRIC: u64 = 2;

/// A second network device at the same network, which TCP does not take.
pub fn second_netdev_up(number: usize) -> Outcome {
    for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
        sys::write_file(&format!("/proc/sys/net/ipv4/conf/all/{name}"), value).during(name)?;
    }
    for line in [
        format!("ip link set {SECOND_NETDEV} up"),
        address(number),
        route(number),
    ] {
        run(&line)?;
    }
    Ok(())
}

fn address(number: usize) -> String {
    format!("ip addr add 10.9.0.{number}/24 dev {SECOND_NETDEV} noprefixroute")
}

fn route(number: usize) -> String {
    format!("ip route replace 10.9.0.0/24 dev {SECOND_NETDEV} src 10.9.0.{number} metric 500")
}

/// While it lives, the machine has a second RDMA device, and both have one PNETID.
struct Second;

impl Second {
    fn new() -> Outcome<Second> {
        const NAME: u16 = 1;
        const IBNAME: u16 = 3;
        const IBPORT: u16 = 4;
        const ADD: u8 = 2;
        rdma_link_add(SECOND_DEVICE, SECOND_NETDEV)?;
        let second = Second;
        for device in [RDMA_DEVICE, SECOND_DEVICE] {
            let request = [
                genl::text(NAME, "NET1"),
                genl::text(IBNAME, device),
                genl::attribute(IBPORT, &[1]),
            ]
            .concat();
            Client::new("SMC_PNETID")?
                .execute(ADD, &request)
                .during("SMC_PNETID_ADD")?;
        }
        // A C server whose second device is not ready offers the second link by its first one.
        gid_ready(SECOND_DEVICE)?;
        for device in [RDMA_DEVICE, SECOND_DEVICE] {
            port_ready(device, "NET1")?;
        }
        Ok(second)
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        const FLUSH: u8 = 4;
        let flushed = Client::new("SMC_PNETID").and_then(|mut client| client.execute(FLUSH, &[]));
        if let Err(error) = flushed {
            println!("# SMC_PNETID_FLUSH: {error}");
        }
        if let Err(fail) = run(&format!("rdma link del {SECOND_DEVICE}")) {
            println!("# {fail}");
        }
    }
}

/// Type of the group with this role, and the devices of its links in use.
fn shown(side: &Side) -> Outcome<(u64, Vec<String>)> {
    let mut kind = 0;
    let mut devices = Vec::new();
    for group in side.link_groups()? {
        kind = group.attrs.number(lgr::TYPE)?;
        let used = group.links.into_iter().filter(|link| link.active);
        devices.extend(used.map(|link| link.device));
    }
    devices.sort_unstable();
    Ok((kind, devices))
}

fn await_links(side: &Side, what: &str, wanted: impl Fn(u64, &[String]) -> bool) -> Outcome {
    let mut last = String::new();
    sys::within(what, Duration::from_secs(60), &mut || {
        let now = shown(side);
        last = format!("{now:?}");
        Ok(now.is_ok_and(|(kind, devices)| wanted(kind, &devices)))
    })
    .map_err(|error| Fail(format!("{error}; there is {last}")))
    .map(drop)
}

fn await_two(side: &Side) -> Outcome {
    await_links(side, "two links", |kind, devices| {
        kind == SYMMETRIC && devices == [RDMA_DEVICE, SECOND_DEVICE]
    })
}

/// Streams both ways on all connections while the link of some of them goes: not a byte is lost. Then the path comes
/// back, and with it the link.
fn path_goes(side: &Side, way: Way) -> Outcome {
    const TOTAL: usize = 3_000_000;
    // First, as a group that is there would get a second link, too, and live on.
    fresh(side)?;
    let second = Second::new()?;
    side.meet("two devices")?;
    let door = side.door(Kind::Smc4)?;
    let mut socks = vec![side.through(&door)?];
    there_and_back(side, &socks[0], 0, 1000)?;
    await_two(side)?;
    side.meet("two links")?;
    for _ in 0..3 {
        socks.push(side.through(&door)?);
    }
    side.meet("connected")?;
    let number = 11 + usize::from(!side.is_first());
    std::thread::scope(|scope| -> Outcome {
        let mut threads = Vec::new();
        for sock in &socks {
            let (out, inc) = (side.outgoing(), side.incoming());
            threads.push(scope.spawn(move || write(sock, &out, TOTAL)));
            threads.push(scope.spawn(move || read(sock, &inc, TOTAL)));
        }
        std::thread::sleep(Duration::from_millis(300));
        let gone = way.go(side, number);
        for thread in threads {
            match thread.join() {
                Ok(outcome) => outcome?,
                Err(_) => check!(false, "a thread panicked"),
            }
        }
        gone
    })?;
    match way {
        Way::BothPorts => await_links(side, "one link", |_, devices| devices == [RDMA_DEVICE])?,
        // Who still has a device may use it for an asymmetric link.
        Way::Address { here: true } => {
            await_links(side, "no link on the second device", |_, devices| {
                devices.iter().all(|device| device == RDMA_DEVICE)
            })?
        }
        // With shorter packets the link may be there again already.
        Way::Address { here: false } | Way::Mtu => {}
    }
    side.meet("survived")?;
    way.come_back(side, number)?;
    // C's server offers a link once when its port is up; if that of C's client is not yet, there is one link.
    if (side.own, side.peer) != (Stack::C, Stack::C) {
        await_two(side)?;
    }
    side.meet("the path is back")?;
    for (offset, sock) in socks.iter().enumerate() {
        there_and_back(side, sock, offset, 100_000)?;
    }
    drop(socks);
    side.await_connections(0)?;
    side.meet("closed")?;
    drop(second);
    side.meet("one device")?;
    Ok(())
}

/// One side allows one link: there is one, whatever devices there are. With SMC-Rv1 C knows no such limit.
fn limit(side: &Side, this: bool) -> Outcome {
    const SETTING: &str = "/proc/sys/net/smc/smcr_max_links_per_lgr";
    fresh(side)?;
    let second = Second::new()?;
    let before = sys::read_file(SETTING)?;
    if this {
        sys::write_file(SETTING, "1").during(SETTING)?;
    }
    side.meet("set")?;
    let outcome = (|| {
        let sock = side.connection()?;
        there_and_back(side, &sock, 0, 1000)?;
        // So long a C client would wait for an offer.
        std::thread::sleep(Duration::from_millis(2500));
        let limits = if this { side.own } else { side.peer };
        let expected = match SoftRoce::here() == SoftRoce::V1 && limits == Stack::C {
            true => (SYMMETRIC, vec![RDMA_DEVICE, SECOND_DEVICE]),
            false => (SINGLE, vec![RDMA_DEVICE]),
        };
        let (kind, devices) = shown(side)?;
        check!(
            (kind, devices.iter().map(String::as_str).collect()) == expected,
            "links of a group that may have one: {kind}, {devices:?}"
        );
        there_and_back(side, &sock, 1000, 1000)
    })();
    sys::write_file(SETTING, before.trim()).during(SETTING)?;
    outcome?;
    side.await_connections(0)?;
    side.meet("closed")?;
    drop(second);
    // It may have as many as there are, from now on.
    fresh(side)
}

fn write(sock: &Sock, pattern: &Pattern, total: usize) -> Outcome {
    let mut sent = 0;
    while sent < total {
        let part = pattern.at(sent, (total - sent).min(30_000));
        sock.send_all(part).during("send()")?;
        sent += part.len();
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn read(sock: &Sock, pattern: &Pattern, total: usize) -> Outcome {
    let mut got = 0;
    let mut part = vec![0; 40_000];
    while got < total {
        let count = sock.recv(&mut part, 0).during("recv()")?;
        check!(count > 0, "end of stream after {got} bytes");
        pattern.verify(got, &part[..count])?;
        got += count;
    }
    Ok(())
}
