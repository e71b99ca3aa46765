//! Connections that cannot go by RDMA and have to become plain TCP, with nothing lost.

use super::genl::counted;
use super::{fallback, join, Pattern};
use crate::kind::{Host, Kind};
use crate::mode;
use crate::rig;
use crate::runner::{Ctx, Test};
use crate::sys::Sock;
use crate::{check, check_eq, Context, Outcome};
use std::net::SocketAddr;

const PEERNOSMC: u32 = 0x0301_0000;
const IPSEC: u32 = 0x0302_0000;
const NOSMCRDEV: u32 = 0x0303_0002;
const PEERDECL: u32 = 0x0500_0000;

pub const TESTS: [Test; 5] = [
    fallback("fallback.plain_client", 60, plain_client),
    fallback("fallback.plain_server", 60, plain_server),
    fallback(
        "fallback.plain_client_speaks_first",
        60,
        plain_client_speaks_first,
    ),
    fallback("fallback.loopback_without_rdma", 60, loopback_without_rdma),
    fallback("fallback.ipsec", 60, ipsec),
];

/// Data both ways, and the end.
fn converse(ctx: &Ctx, client: Sock, server: Sock) -> Outcome {
    let pattern = Pattern::new(ctx, 81);
    let check_pattern = Pattern::new(ctx, 81);
    let total = 1_000_000;
    let packets = mode::rdma_packets()?;
    let thread = std::thread::spawn(move || -> Outcome {
        let mut sent = 0;
        while sent < total {
            let part = pattern.at(sent, total - sent);
            client.send_all(part)?;
            sent += part.len();
        }
        client.shutdown(libc::SHUT_WR)?;
        check_eq!(client.recv_to_end()?, b"received", "the answer");
        Ok(())
    });
    let got = server.recv_to_end()?;
    check_eq!(got.len(), total, "bytes that arrived");
    check_pattern.verify(0, &got)?;
    server.send_all(b"received")?;
    drop(server);
    join(thread)?;
    let sent = mode::rdma_packets()? - packets;
    check!(
        sent < 200,
        "a connection that fell back sent {sent} RDMA packets"
    );
    Ok(())
}

/// The reason of the fallback, as Documentation/uapi.rst lists them.
fn must_be_fallback(sock: &Sock, reason: u32) -> Outcome {
    check_eq!(
        format!("{:#010x}", mode::fallback_reason(sock)?),
        format!("{reason:#010x}"),
        "the reason of the fallback"
    );
    Ok(())
}

fn plain_client(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let client = plain(ctx.kind, Host::A)?;
    let server = counted((Host::B, true, PEERNOSMC), || {
        client.connect(address)?;
        Ok(listener.accept()?)
    })?;
    must_be_fallback(&server, PEERNOSMC)?;
    check_eq!(
        server.peer()?,
        client.local()?,
        "getpeername() of the server"
    );
    converse(ctx, client, server)
}

fn plain_server(ctx: &Ctx) -> Outcome {
    let listener = plain(ctx.kind, Host::B)?;
    listener.bind(Host::B.address(ctx.kind, 0))?;
    listener.listen(8)?;
    let address = listener.local()?;
    let client = counted((Host::A, false, PEERNOSMC), || ctx.connect(address))?;
    let server = listener.accept()?;
    must_be_fallback(&client, PEERNOSMC)?;
    check_eq!(
        client.peer()?,
        listener.local()?,
        "getpeername() of the client"
    );
    converse(ctx, client, server)
}

fn plain(kind: Kind, host: Host) -> Outcome<Sock> {
    Sock::new(host, kind.plain(), 0).during("socket()")
}

/// A socket that has an IPsec policy of its own: RDMA would go round it.
fn ipsec(ctx: &Ctx) -> Outcome {
    rig::run("modprobe xfrm_user")?;
    for guarded in Host::BOTH {
        let (listener, client) = (ctx.socket(Host::B)?, ctx.socket(Host::A)?);
        let v4 = Host::B.address(ctx.kind, 0).is_ipv4();
        // `struct xfrm_userpolicy_info`: the family of its selector, the direction (out), allowed.
        let mut policy = [0u8; 168];
        policy[40] = if v4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
        policy[160] = 1;
        // IP_XFRM_POLICY, IPV6_XFRM_POLICY.
        let (level, option) = if v4 {
            (libc::IPPROTO_IP, 17)
        } else {
            (libc::IPPROTO_IPV6, 35)
        };
        let sock = if guarded == Host::A {
            &client
        } else {
            &listener
        };
        sock.set(level, option, policy)
            .during("setsockopt() of an IPsec policy")?;
        listener.bind(Host::B.address(ctx.kind, 0))?;
        listener.listen(8)?;
        let connect = || -> Outcome<Sock> {
            client.connect(listener.local()?)?;
            Ok(listener.accept()?)
        };
        let server = if guarded == Host::A {
            let server = counted((Host::A, false, IPSEC), connect)?;
            must_be_fallback(&client, IPSEC)?;
            server
        } else {
            connect()?
        };
        converse(ctx, client, server)?;
    }
    Ok(())
}

/// The client's data is there before the server looks: it must not be taken for a CLC message.
fn plain_client_speaks_first(ctx: &Ctx) -> Outcome {
    const WORDS: &[u8] = b"\xe2\xd4\xc3\xd9 looks like the eyecatcher of SMC";
    let (listener, address) = ctx.listener(8)?;
    let client = plain(ctx.kind, Host::A)?;
    client.connect(address)?;
    client.send_all(WORDS)?;
    let server = listener.accept()?;
    let mut got = [0; WORDS.len()];
    server.recv_all(&mut got)?;
    check_eq!(got, WORDS, "what the server received");
    converse(ctx, client, server)
}

/// Both ends on one host, over its loopback device, which has no RDMA device.
fn loopback_without_rdma(ctx: &Ctx) -> Outcome {
    let mut address: SocketAddr = Host::B.address(ctx.kind, 0);
    address.set_ip(if ctx.kind.is_v6() {
        std::net::Ipv6Addr::LOCALHOST.into()
    } else {
        std::net::Ipv4Addr::LOCALHOST.into()
    });
    let listener = ctx.socket(Host::B)?;
    listener.bind(address)?;
    listener.listen(8)?;
    let client = ctx.socket(Host::B)?;
    let server = counted((Host::B, false, NOSMCRDEV), || {
        counted((Host::B, true, PEERDECL), || {
            client.connect(listener.local()?)?;
            Ok(listener.accept()?)
        })
    })?;
    must_be_fallback(&client, NOSMCRDEV)?;
    must_be_fallback(&server, PEERDECL)?;
    check_eq!(
        mode::fallback(&server)?.peer_diagnosis,
        NOSMCRDEV,
        "the peer's reason"
    );
    converse(ctx, client, server)
}
