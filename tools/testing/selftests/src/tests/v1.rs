//! SMC-Rv1 (RFC 7609) as it stands on the wire, beside SMC-Rv2, and where it cannot be.

use super::hostile::{self, next_port};
use super::link::{echo, queue_pairs};
use super::raw::{self, RawPeer};
use super::two_links::Second;
use super::wiretap::{diagnosis, Seen, Wiretap};
use super::{join, Pattern};
use crate::kind::{Host, Kind};
use crate::mode;
use crate::proc_net;
use crate::rig;
use crate::runner::{Ctx, Needs, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, Context, Fail, Outcome};
use std::net::SocketAddr;
use std::time::Duration;

pub const TESTS: [Test; 8] = [
    v1("v1.on_the_wire", 120, on_the_wire),
    v1("v1.group_is_shared", 120, group_is_shared),
    v1("v1.prefers_v2", 120, prefers_v2),
    v1("v1.what_both_have", 300, what_both_have),
    v1("v1.other_subnet", 120, other_subnet),
    v1("v1.host_route", 120, host_route),
    v1("v1.raw_client", 120, raw_client),
    v1("v1.address_goes", 120, address_goes),
];

/// A test that needs devices with GIDs of RoCEv1.
const fn v1(name: &'static str, limit: u64, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit,
        needs: Needs::RoceV1,
    }
}

const KINDS: [Kind; 4] = [Kind::Smc4, Kind::IpSmc4, Kind::Smc6, Kind::IpSmc6];

// Values of `gid_types`.
const ONLY_V1: u8 = 1;
const ONLY_V2: u8 = 2;
const BOTH: u8 = 3;

/// LLC and CDC messages by their first byte (RFC 7609, appendix A.3 and A.4; SMC-Rv2).
const CONFIRM_LINK_V1: u8 = 0x01;
const CONFIRM_LINK_V2: u8 = 0x21;
const CDC: u8 = 0xfe;

/// CLC messages (RFC 7609, appendix A.2).
const PROPOSAL: u8 = 1;
const ACCEPT: u8 = 2;
const CONFIRM: u8 = 3;
const DECLINE: u8 = 4;

/// Reasons of a Decline.
const NO_DEVICE: u32 = 0x0303_0002;
const OTHER_SUBNET: u32 = 0x0307_0000;

/// New devices, whose GIDs are of these types; none of their hosts' link groups is left. In the end
/// there are devices as the suite has them.
struct Devices;

impl Devices {
    fn new(a: u8, b: u8) -> Outcome<Devices> {
        let restore = Devices;
        make(a, b)?;
        Ok(restore)
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        if let Err(failure) = make(ONLY_V1, ONLY_V1) {
            println!("# the devices could not be restored: {failure}");
        }
    }
}

fn make(a: u8, b: u8) -> Outcome {
    for host in Host::BOTH {
        rig::run(&format!("rdma link del {}", host.rdma_device()))?;
    }
    for (host, types) in [(Host::A, a), (Host::B, b)] {
        rig::set_gid_types(types)?;
        rig::rdma_device_add(host)?;
        check_eq!(
            gid(host, "IB/RoCE v1").is_some(),
            types & ONLY_V1 != 0,
            "a GID of RoCEv1 on host {}",
            host.name()
        );
        check_eq!(
            gid(host, "RoCE v2").is_some(),
            types & ONLY_V2 != 0,
            "a GID of RoCEv2 on host {}",
            host.name()
        );
    }
    rig::set_gid_types(ONLY_V1)
}

/// The first GID of a type, as sysfs calls it.
fn gid(host: Host, kind: &str) -> Option<[u8; 16]> {
    let port = format!("/sys/class/infiniband/{}/ports/1", host.rdma_device());
    (0..16).find_map(|index| {
        let found = sys::read_file(&format!("{port}/gid_attrs/types/{index}")).ok()?;
        if found.trim() != kind {
            return None;
        }
        let text = sys::read_file(&format!("{port}/gids/{index}")).ok()?;
        let address: std::net::Ipv6Addr = text.trim().parse().ok()?;
        Some(address.octets())
    })
}

fn v1_gid(host: Host) -> Outcome<[u8; 16]> {
    gid(host, "IB/RoCE v1").ok_or(Fail(format!("host {} has no RoCEv1 GID", host.name())))
}

/// How a connection has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    V1,
    V2,
    Tcp,
}

fn connect(kind: Kind, server: SocketAddr) -> Outcome<(Sock, Pair)> {
    let listener = Sock::new(Host::B, kind, 0)?;
    listener.bind(server).during("bind()")?;
    listener.listen(8)?;
    let client = Sock::new(Host::A, kind, 0)?;
    client.connect(listener.local()?).during("connect()")?;
    let server = listener.accept().during("accept()")?;
    Ok((listener, Pair { client, server }))
}

/// A connection that is the first between two devices: data both ways and the end; then tells by the
/// packets that passed how it has gone.
fn converse(ctx: &Ctx, kind: Kind) -> Outcome<(Went, Seen)> {
    converse_at(ctx, kind, Host::B.address(kind, 0))
}

fn converse_at(ctx: &Ctx, kind: Kind, server: SocketAddr) -> Outcome<(Went, Seen)> {
    const TOTAL: usize = 300_000;
    let tap = Wiretap::new()?;
    let packets = mode::rdma_packets()?;
    let (_listener, Pair { client, server }) = connect(kind, server)?;
    let exchange = |sock: Sock, mine, theirs| {
        let mine = Pattern::new(ctx, mine);
        let theirs = Pattern::new(ctx, theirs);
        std::thread::spawn(move || -> Outcome {
            let sender = sock.dup()?;
            let sending = std::thread::spawn(move || -> Outcome {
                let mut sent = 0;
                while sent < TOTAL {
                    let part = mine.at(sent, TOTAL - sent);
                    sender.send_all(part)?;
                    sent += part.len();
                }
                sender.shutdown(libc::SHUT_WR)?;
                Ok(())
            });
            let got = sock.recv_to_end()?;
            join(sending)?;
            check_eq!(got.len(), TOTAL, "bytes that arrived");
            theirs.verify(0, &got)
        })
    };
    let threads = [exchange(client, 101, 102), exchange(server, 102, 101)];
    for thread in threads {
        join(thread)?;
    }
    let counted = mode::rdma_packets()? - packets;
    let seen = tap.seen()?;
    let first_bytes = |from: Host, of: u8| {
        let said = |message: &Vec<u8>| message.len() == 44 && message[0] == of;
        let mut sent = seen.roce.iter().filter(|packet| packet.from == from);
        sent.any(|packet| packet.message.as_ref().is_some_and(said))
    };
    let by = |confirm, other| {
        Host::BOTH
            .into_iter()
            .all(|host| first_bytes(host, confirm) && first_bytes(host, CDC))
            && Host::BOTH.into_iter().all(|host| !first_bytes(host, other))
    };
    let went = if seen.roce.is_empty() && counted == 0 {
        Went::Tcp
    } else if by(CONFIRM_LINK_V1, CONFIRM_LINK_V2) {
        Went::V1
    } else if by(CONFIRM_LINK_V2, CONFIRM_LINK_V1) {
        Went::V2
    } else {
        let messages: Vec<_> = seen
            .roce
            .iter()
            .filter_map(|p| p.message.as_ref())
            .collect();
        return Err(Fail(format!(
            "{counted} RDMA packets, and neither version's messages: {messages:02x?}"
        )));
    };
    // Both ways 300,000 bytes: in packets of at most 4096.
    check!(
        went == Went::Tcp || counted >= 2 * TOTAL as u64 / 4096,
        "only {counted} RDMA packets"
    );
    // The GIDs that the packets go between are those of the version.
    for packet in &seen.roce {
        let ends = match packet.from {
            Host::A => [Host::A, Host::B],
            Host::B => [Host::B, Host::A],
        };
        for (end, address) in ends.into_iter().zip([packet.source, packet.destination]) {
            let expected = match went {
                Went::V1 => v1_gid(end)?,
                _ => end.ipv4().to_ipv6_mapped().octets(),
            };
            check_eq!(address, expected, "GID of host {} in a packet", end.name());
        }
    }
    Ok((went, seen))
}

/// The CLC messages in their order, by type.
fn clc_types(seen: &Seen) -> Vec<(Host, u8)> {
    seen.clc
        .iter()
        .map(|clc| (clc.from, clc.bytes.get(4).copied().unwrap_or(0)))
        .collect()
}

/// Each message of the handshake, byte by byte where its contents are known.
fn on_the_wire(ctx: &Ctx) -> Outcome {
    let _restore = Devices;
    for kind in KINDS {
        make(ONLY_V1, ONLY_V1)?;
        let (went, seen) = converse(ctx, kind).during(kind.name())?;
        check_eq!(went, Went::V1, "{}", kind.name());
        check_eq!(
            clc_types(&seen),
            [(Host::A, PROPOSAL), (Host::B, ACCEPT), (Host::A, CONFIRM)],
            "CLC messages of {}",
            kind.name()
        );
        let [proposal, accept, confirm] = [0, 1, 2].map(|at| &seen.clc[at].bytes);
        let what = format!("of {}, in {proposal:02x?}", kind.name());
        // RFC 7609, section A.2.2.
        let subnets: &[u8] = if kind.is_v6() {
            &[
                0, 0, 0, 0, 0, 0, 0, 1, 0xfd, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64,
            ]
        } else {
            &[10, 9, 0, 0, 24, 0, 0, 0]
        };
        check_eq!(proposal.len(), 44 + subnets.len(), "length {what}");
        check_eq!(proposal[7], 0x10, "version and flags {what}");
        check_eq!(proposal[16..32], v1_gid(Host::A)?, "GID {what}");
        check_eq!(proposal[32..38], [2, 0, 0, 9, 0, 1], "MAC {what}");
        check_eq!(proposal[38..40], [0, 0], "offset of the subnets {what}");
        check_eq!(proposal[40..40 + subnets.len()], *subnets, "subnets {what}");
        // RFC 7609, appendix A.3.1: two links at most, and nothing said of connections.
        let confirm_link = seen.roce.iter().find_map(|packet| {
            let message = packet.message.as_ref()?;
            (message[0] == CONFIRM_LINK_V1).then_some(message)
        });
        let confirm_link = confirm_link.ok_or(Fail("no CONFIRM LINK".into()))?;
        check_eq!(confirm_link[1..3], [44, 0], "head of {confirm_link:02x?}");
        check_eq!(
            confirm_link[10..26],
            v1_gid(Host::B)?,
            "GID in {confirm_link:02x?}"
        );
        check_eq!(
            confirm_link[34..],
            [2, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            "end of {confirm_link:02x?}"
        );
        // RFC 7609, sections A.2.3 and A.2.4.
        check_accept(accept, Host::B, true)?;
        check_eq!(confirm.len(), 68, "length of the Confirm");
        check_eq!(confirm[7] >> 4, 1, "version of the Confirm");
        check_eq!(confirm[8..16], proposal[8..16], "peer ID of the Confirm");
        check_eq!(confirm[16..38], proposal[16..38], "GID and MAC of Confirm");
    }
    Ok(())
}

/// An Accept of version 1 (RFC 7609, section A.2.3).
fn check_accept(accept: &[u8], host: Host, first: bool) -> Outcome {
    let what = format!("of the Accept {accept:02x?}");
    check_eq!(accept.len(), 68, "length {what}");
    check_eq!(
        accept[..7],
        [0xe2, 0xd4, 0xc3, 0xd9, 2, 0, 68],
        "head {what}"
    );
    check_eq!(accept[7], if first { 0x18 } else { 0x10 }, "flags {what}");
    check_eq!(accept[16..32], v1_gid(host)?, "GID {what}");
    check_eq!(accept[32..38], [2, 0, 0, 9, 0, 2], "MAC {what}");
    check!(accept[38..41] != [0; 3], "queue pair number 0 {what}");
    check_eq!(accept[45], 1, "RMB element {what}");
    // The MTU of the network device is 9000 bytes, that of the port 4096.
    check_eq!(accept[50] & 15, 5, "MTU {what}");
    check!(accept[52..60] != [0; 8], "RMB address 0 {what}");
    check_eq!(accept[64..], [0xe2, 0xd4, 0xc3, 0xd9], "end {what}");
    Ok(())
}

/// Connections over IPv4 and over IPv6 use the same link: v1 knows its peer by GID and MAC.
fn group_is_shared(_: &Ctx) -> Outcome {
    let _devices = Devices::new(ONLY_V1, ONLY_V1)?;
    let mut pairs = Vec::new();
    for _ in 0..10 {
        for kind in KINDS {
            let (_, pair) = connect(kind, Host::B.address(kind, 0))?;
            pairs.push(pair);
        }
    }
    for host in Host::BOTH {
        check_eq!(queue_pairs(host)?, 1, "queue pairs of host {}", host.name());
    }
    let tap = Wiretap::new()?;
    for pair in &pairs {
        echo(pair, b"shared")?;
    }
    let cdc = tap.seen()?;
    let cdc = cdc.roce.iter().filter(|packet| packet.message.is_some());
    check!(cdc.count() >= 2 * pairs.len(), "fewer messages than echoes");
    // The next one is told that there is a group.
    let tap = Wiretap::new()?;
    let (_, pair) = connect(Kind::Smc4, Host::B.address(Kind::Smc4, 0))?;
    echo(&pair, b"next")?;
    let seen = tap.seen()?;
    let accept = seen.clc.iter().find(|clc| clc.bytes[4] == ACCEPT);
    check_accept(
        &accept.ok_or(Fail("no Accept was seen".into()))?.bytes,
        Host::B,
        false,
    )
}

/// Hosts that can do both do v2, where that can be: over IPv4.
fn prefers_v2(ctx: &Ctx) -> Outcome {
    let _devices = Devices::new(BOTH, BOTH)?;
    for (kind, expected) in [(Kind::Smc4, Went::V2), (Kind::Smc6, Went::V1)] {
        let (went, seen) = converse(ctx, kind).during(kind.name())?;
        check_eq!(went, expected, "{}", kind.name());
        let proposal = &seen.clc[0].bytes;
        // Over IPv4 both versions are offered; over IPv6 it is the message of RFC 7609.
        check_eq!(
            proposal[7] >> 4,
            if kind == Kind::Smc4 { 2 } else { 1 },
            "version of the Proposal {proposal:02x?}"
        );
        check_eq!(
            proposal[16..32],
            v1_gid(Host::A)?,
            "GID of the v1 offer in {proposal:02x?}"
        );
    }
    // One link group of each version.
    for host in Host::BOTH {
        check_eq!(queue_pairs(host)?, 2, "queue pairs of host {}", host.name());
    }
    Ok(())
}

/// Any two hosts use the best that both have.
fn what_both_have(ctx: &Ctx) -> Outcome {
    let _restore = Devices;
    for (client, server, over_ipv4, over_ipv6) in [
        (ONLY_V1, BOTH, Went::V1, Went::V1),
        (BOTH, ONLY_V1, Went::V1, Went::V1),
        (ONLY_V2, BOTH, Went::V2, Went::Tcp),
        (BOTH, ONLY_V2, Went::V2, Went::Tcp),
        (ONLY_V1, ONLY_V2, Went::Tcp, Went::Tcp),
        (ONLY_V2, ONLY_V1, Went::Tcp, Went::Tcp),
        // As with stock rxe.
        (ONLY_V2, ONLY_V2, Went::V2, Went::Tcp),
    ] {
        make(client, server)?;
        for (kind, expected) in [(Kind::Smc4, over_ipv4), (Kind::Smc6, over_ipv6)] {
            if kind == Kind::Smc6 && over_ipv4 == Went::V1 {
                // Not the link group that is there already.
                make(client, server)?;
            }
            let what = format!("{} from gid_types {client} to {server}", kind.name());
            let (went, seen) = converse(ctx, kind).during(&what)?;
            check_eq!(went, expected, "{what}");
            if went != Went::Tcp {
                continue;
            }
            let decline = last_decline(&seen).during(&what)?;
            check_eq!(decline, NO_DEVICE, "reason of the Decline, {what}");
        }
    }
    Ok(())
}

/// The reason in the Decline that ended the handshake (RFC 7609, section A.2.5).
fn last_decline(seen: &Seen) -> Outcome<u32> {
    let last = seen.clc.last().ok_or(Fail("no CLC message".into()))?;
    diagnosis(&last.bytes).ok_or(Fail(format!("no Decline: {:02x?}", last.bytes)))
}

/// What a test changed of the hosts' addresses.
struct Addresses;

impl Addresses {
    const ALL: [(&'static str, &'static str, &'static str); 2] =
        [("A", "vA", "fd09::1/64"), ("B", "vB", "fd09::2/64")];

    /// The hosts have other addresses of IPv6 than before, and a route to each other.
    fn other_ipv6() -> Outcome<Addresses> {
        let restore = Addresses;
        for (name, dev, usual) in Addresses::ALL {
            rig::run(&format!("ip -n {name} addr del {usual} dev {dev}"))?;
        }
        rig::run("ip -n A addr add fd0a::1/64 dev vA nodad")?;
        rig::run("ip -n B addr add fd0b::2/64 dev vB nodad")?;
        rig::run("ip -n A route add fd0b::/64 dev vA")?;
        rig::run("ip -n B route add fd0a::/64 dev vB")?;
        Ok(restore)
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        // What is not there cannot be deleted.
        let _ = rig::run("ip -n A addr del fd0a::1/64 dev vA");
        let _ = rig::run("ip -n B addr del fd0b::2/64 dev vB");
        let _ = rig::run("ip -n A route del fd0b::/64 dev vA");
        let _ = rig::run("ip -n B route del fd0a::/64 dev vB");
        for (name, dev, usual) in Addresses::ALL {
            if let Err(failure) = rig::run(&format!(
                "ip -n {name} addr replace {usual} dev {dev} nodad"
            )) {
                println!("# the hosts' addresses could not be restored: {failure}");
            }
        }
    }
}

/// RFC 7609, section 3.5.1.2: hosts of different subnets do not use RDMA.
fn other_subnet(ctx: &Ctx) -> Outcome {
    let _devices = Devices::new(ONLY_V1, ONLY_V1)?;
    // The same network by its number, but not by its mask.
    rig::run("ip -n A addr add 10.9.3.1/24 dev vA")?;
    rig::run("ip -n B addr add 10.9.3.2/25 dev vB")?;
    let outcome = converse_at(ctx, Kind::Smc4, ([10, 9, 3, 2], 0).into());
    // With the same mask it works, which shows that it was the mask.
    let same = rig::run("ip -n B addr del 10.9.3.2/25 dev vB")
        .and_then(|_| rig::run("ip -n B addr add 10.9.3.2/24 dev vB"))
        .and_then(|_| converse_at(ctx, Kind::Smc4, ([10, 9, 3, 2], 0).into()));
    rig::run("ip -n A addr del 10.9.3.1/24 dev vA")?;
    rig::run("ip -n B addr del 10.9.3.2/24 dev vB")?;
    let (went, seen) = outcome.during("other mask")?;
    check_eq!(went, Went::Tcp, "a server whose subnet has another mask");
    check_eq!(last_decline(&seen)?, OTHER_SUBNET, "reason of the Decline");
    check_eq!(same?.0, Went::V1, "a server of the same subnet");

    let _devices = Devices::new(ONLY_V1, ONLY_V1)?;
    let addresses = Addresses::other_ipv6()?;
    let server: std::net::Ipv6Addr = [0xfd0b, 0, 0, 0, 0, 0, 0, 2].into();
    let (went, seen) = converse_at(ctx, Kind::Smc6, (server, 0).into())?;
    check_eq!(went, Went::Tcp, "a server with another IPv6 prefix");
    check_eq!(last_decline(&seen)?, OTHER_SUBNET, "reason of the Decline");
    drop(addresses);
    let (went, _) = converse(ctx, Kind::Smc6).during("with the usual addresses")?;
    check_eq!(went, Went::V1, "a server with the same IPv6 prefix");
    Ok(())
}

/// RoCEv1 is not routed: the link leads to the peer itself, also where TCP goes by a gateway of the subnet, which is here the
/// switch between the hosts.
fn host_route(ctx: &Ctx) -> Outcome {
    let switched = Second::new(&[])?;
    let settings = "net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.br0.send_redirects=0";
    for line in [
        "ip -n S addr add 10.9.0.99/24 dev br0",
        &format!("ip netns exec S sysctl -qw {settings}"),
        "ip -n A route add 10.9.0.2/32 via 10.9.0.99 dev vA",
        // It asks for the gateway's address now, not while TCP waits for it.
        "ip netns exec A ping -q -c 1 -W 10 10.9.0.2",
    ] {
        rig::run(line)?;
    }
    let (went, seen) = converse(ctx, Kind::Smc4)?;
    check_eq!(went, Went::V1, "a host behind a gateway of the subnet");
    check!(!seen.clc.is_empty(), "no CLC messages");
    let snmp = rig::run("ip netns exec S cat /proc/net/snmp")?;
    let forwarded = proc_net::counter(&snmp, "Ip", "ForwDatagrams")?;
    check!(
        forwarded > 4,
        "TCP did not go by the gateway, which has passed on {forwarded} packets"
    );
    drop(switched);
    Ok(())
}

/// A Proposal of RFC 7609, section A.2.2, for IPv4: 52 bytes.
fn proposal(subnet: [u8; 4], prefix_len: u8) -> Vec<u8> {
    let mut body = vec![0x12, 0x34, 2, 0, 0, 9, 0, 0x50];
    body.extend_from_slice(&[
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xfe, 0, 0, 0x50,
    ]);
    body.extend_from_slice(&[2, 0, 0, 9, 0, 0x50, 0, 0]);
    body.extend_from_slice(&subnet);
    body.extend_from_slice(&[prefix_len, 0, 0, 0]);
    let message = hostile::message(PROPOSAL, 1, &body);
    assert_eq!(message.len(), 52);
    message
}

/// A client that knows nothing but RFC 7609.
fn raw_client(ctx: &Ctx) -> Outcome {
    raw::prepare()?;
    let _devices = Devices::new(ONLY_V1, ONLY_V1)?;
    let unasked = ctx.unasked();
    let (listener, address) = unasked.listener(8)?;
    let patience = Duration::from_secs(20);
    let mut peer = RawPeer::connect(next_port(), address)?;
    peer.send(&proposal([10, 9, 0, 0], 24))?;
    check_accept(&peer.receive(patience)?, Host::B, true)?;
    // It does not want to after all; the connection goes on by TCP.
    peer.send(&hostile::message(DECLINE, 1, &[0; 16]))?;
    peer.send(b"by TCP")?;
    let server = listener
        .accept()
        .during("accept() after the client's Decline")?;
    let mut got = [0; 6];
    server.recv_all(&mut got)?;
    check_eq!(&got, b"by TCP", "what the server received");

    let declined = |subnet, prefix_len, reason: u32| -> Outcome {
        let mut peer = RawPeer::connect(next_port(), address)?;
        peer.send(&proposal(subnet, prefix_len))?;
        let decline = peer.receive(patience)?;
        let what = format!("of the answer to {subnet:?}/{prefix_len}: {decline:02x?}");
        check_eq!(decline.len(), 28, "length {what}");
        check_eq!(decline[4], DECLINE, "type {what}");
        check_eq!(decline[7], 0x10, "version and flags {what}");
        check_eq!(diagnosis(&decline), Some(reason), "reason {what}");
        peer.send(b"by TCP")?;
        let server = listener.accept().during("accept() after the Decline")?;
        let mut got = [0; 6];
        server.recv_all(&mut got)?;
        check_eq!(&got, b"by TCP", "what the server received {what}");
        Ok(())
    };
    for (subnet, prefix_len) in [
        ([10, 9, 1, 0], 24),
        ([10, 9, 0, 0], 25),
        ([10, 9, 0, 0], 0),
        ([10, 9, 0, 0], 255),
    ] {
        declined(subnet, prefix_len, OTHER_SUBNET)?;
    }
    // Then the server has no GID for it.
    make(ONLY_V2, ONLY_V2)?;
    declined([10, 9, 0, 0], 24, NO_DEVICE)
}

/// The IP address of a v1 connection may go: its link is not made of it.
fn address_goes(_: &Ctx) -> Outcome {
    let _devices = Devices::new(ONLY_V1, ONLY_V1)?;
    let (_listener, over_ipv4) = connect(Kind::Smc4, Host::B.address(Kind::Smc4, 0))?;
    let (_listener, over_ipv6) = connect(Kind::Smc6, Host::B.address(Kind::Smc6, 0))?;
    let usual = "10.9.0.2/24 dev vB";
    rig::run(&format!("ip -n B addr del {usual}"))?;
    let mapped = Host::B.ipv4().to_ipv6_mapped();
    // The GID table follows, and with it the event that makes groups look at their GIDs.
    let gone = sys::eventually("the GID of the deleted address is gone", || {
        let is_it = |gid: &String| gid.parse() == Ok(mapped);
        Ok(!rig::gids(Host::B).iter().any(is_it))
    });
    let still = [&over_ipv4, &over_ipv6].map(|pair| echo(pair, b"still here"));
    rig::run(&format!("ip -n B addr add {usual}"))?;
    rig::await_gid(Host::B)?;
    gone?;
    for outcome in still {
        outcome?;
    }
    for host in Host::BOTH {
        check_eq!(queue_pairs(host)?, 1, "queue pairs of host {}", host.name());
    }
    Ok(())
}
