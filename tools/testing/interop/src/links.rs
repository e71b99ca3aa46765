//! Link groups with two links between two implementations.

use super::scripts::there_and_back;
use super::ways::fresh;
use super::{Script, Side, RDMA_DEVICE};
use smc_selftest::genl::{self, Client};
use smc_selftest::kind::Kind;
use smc_selftest::pattern::Pattern;
use smc_selftest::rig::run;
use smc_selftest::sys::{self, Sock};
use smc_selftest::{check, Context, Fail, Outcome};
use std::time::Duration;

pub const SCRIPTS: &[Script] = &[Script::new("links.path_goes", path_goes)];

const SECOND_NETDEV: &str = "eth1";
const SECOND_DEVICE: &str = "rxe1";
const SYMMETRIC: u64 = 2;

/// A second network device at the same network, which TCP does not take.
pub fn second_netdev_up(number: usize) -> Outcome {
    for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
        sys::write_file(&format!("/proc/sys/net/ipv4/conf/all/{name}"), value).during(name)?;
    }
    for line in [
        format!("ip link set {SECOND_NETDEV} up"),
        format!("ip addr add 10.9.0.{number}/24 dev {SECOND_NETDEV} noprefixroute"),
        route(number),
    ] {
        run(&line)?;
    }
    Ok(())
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
        run(&format!(
            "rdma link add {SECOND_DEVICE} type rxe netdev {SECOND_NETDEV}"
        ))?;
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
    let mut own = false;
    for message in Client::new(genl::SMC_GEN)?.dump(genl::GET_LINK_SMCR)? {
        if message.command == genl::GET_LGR_SMCR {
            let group = message.attrs.nest(2)?;
            own = group.number(2)? == u64::from(!side.is_client);
            if own {
                kind = group.number(3)?;
            }
        } else if own {
            let link = message.attrs.nest(3)?;
            if link.number(10)? == 3 {
                devices.push(link.text(2)?);
            }
        }
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

/// Streams both ways on all connections while the link of some of them goes: not a byte is lost. Both ports
/// go: rxe repeats for ever what nobody acknowledges, and C does not take a link down before all is.
fn path_goes(side: &Side) -> Outcome {
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
    let number = if sys::read_file("/sys/class/net/eth1/address")?
        .trim()
        .ends_with('1')
    {
        11
    } else {
        12
    };
    std::thread::scope(|scope| -> Outcome {
        let mut threads = Vec::new();
        for sock in &socks {
            let (out, inc) = (side.outgoing(), side.incoming());
            threads.push(scope.spawn(move || write(sock, &out, TOTAL)));
            threads.push(scope.spawn(move || read(sock, &inc, TOTAL)));
        }
        std::thread::sleep(Duration::from_millis(300));
        let gone = run(&format!("ip link set {SECOND_NETDEV} down"));
        for thread in threads {
            match thread.join() {
                Ok(outcome) => outcome?,
                Err(_) => check!(false, "a thread panicked"),
            }
        }
        gone.map(drop)
    })?;
    await_links(side, "one link", |_, devices| devices == [RDMA_DEVICE])?;
    side.meet("survived")?;
    run(&format!("ip link set {SECOND_NETDEV} up"))?;
    run(&route(number))?;
    await_two(side)?;
    side.meet("two links again")?;
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
