//! What happens to the TCP option on the way, and what becomes of the connection then.

use super::network::{Rules, Sysctl};
use super::{once, Pattern};
use crate::kind::{Host, Kind};
use crate::mode::{self, Mode};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{cvt_size, Sock};
use crate::{check, check_eq, Context, Outcome};
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

pub const TESTS: [Test; 10] = [
    once("syn.first_syn_lost", 120, first_syn_lost),
    once("syn.first_syn_ack_lost", 120, first_syn_ack_lost),
    once("syn.firewall_drops_option", 120, firewall_drops_option),
    once("syn.over_ipv6", 120, over_ipv6),
    once("syn.cookies", 120, cookies),
    once("syn.stripped_from_syn", 120, stripped_from_syn),
    once("syn.stripped_from_syn_ack", 120, stripped_from_syn_ack),
    once("syn.conntrack", 120, conntrack),
    once("syn.fast_open", 120, fast_open),
    once("syn.md5", 120, md5),
];

const PEERNOSMC: u32 = 0x0301_0000;

/// Data both ways, more than a window of it.
fn converse(ctx: &Ctx, pair: &Pair) -> Outcome {
    const TOTAL: usize = 60_000;
    for (number, (near, far)) in [(&pair.client, &pair.server), (&pair.server, &pair.client)]
        .into_iter()
        .enumerate()
    {
        let pattern = Pattern::new(ctx, 85 + number as u64);
        let mut got = vec![0; TOTAL];
        for _ in 0..4 {
            near.send_all(pattern.at(0, TOTAL))?;
            far.recv_all(&mut got)?;
            pattern.verify(0, &got)?;
        }
    }
    Ok(())
}

fn is_plain(pair: &Pair) -> Outcome {
    for (host, sock) in [(Host::A, &pair.client), (Host::B, &pair.server)] {
        check!(
            mode::of(sock)? != Mode::Rdma,
            "the connection goes by RDMA on host {}",
            host.name()
        );
    }
    // TCP itself has carried what was sent.
    let carried = mode::tcp_bytes(&pair.client)?;
    check!(
        carried > 100_000,
        "TCP carried {carried} bytes only: who carried the rest?"
    );
    Ok(())
}

fn falls_back(ctx: &Ctx) -> Outcome {
    let pair = ctx.unasked().pair()?;
    without_option(ctx, &pair)?;
    is_plain(&pair)
}

fn goes_by_rdma(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    converse(ctx, &pair)
}

/// Connects while the first segment for which `rule` holds is lost.
fn with_one_lost(ctx: &Ctx, host: Host, rule: &str) -> Outcome<Pair> {
    let (listener, address) = ctx.listener(8)?;
    let first = format!("{rule} numgen inc mod 1000000 0 counter drop");
    let rules = Rules::new(host, "prerouting", &[&first])?;
    let client = ctx.connect(address)?;
    check_eq!(rules.seen()?, 1, "lost segments");
    let server = listener.accept()?;
    Ok(Pair { client, server })
}

/// The retransmitted SYN has the option as well.
fn first_syn_lost(ctx: &Ctx) -> Outcome {
    let pair = with_one_lost(ctx, Host::B, "tcp flags & (syn | ack) == syn")?;
    ctx.prove(Host::A, &pair.client)?;
    ctx.prove(Host::B, &pair.server)?;
    converse(ctx, &pair)
}

/// So has the SYN-ACK.
fn first_syn_ack_lost(ctx: &Ctx) -> Outcome {
    let pair = with_one_lost(ctx, Host::A, "tcp flags & (syn | ack) == (syn | ack)")?;
    ctx.prove(Host::A, &pair.client)?;
    ctx.prove(Host::B, &pair.server)?;
    converse(ctx, &pair)
}

/// Where segments with the option vanish, a later SYN does without it.
fn firewall_drops_option(ctx: &Ctx) -> Outcome {
    let rules = Rules::new(
        Host::B,
        "prerouting",
        &["tcp option 254 exists counter drop"],
    )?;
    let pair = ctx.unasked().pair()?;
    check!(rules.seen()? > 1, "the option was not sent again");
    without_option(ctx, &pair)
}

/// Over IPv6 Soft-RoCE as it is carries nothing, but both sides say whether they saw the option.
fn over_ipv6(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc6);
    let with_option = |what: &str| -> Outcome {
        let pair = ctx.unasked().pair()?;
        converse(&ctx, &pair)?;
        for sock in [&pair.client, &pair.server] {
            match mode::of(sock)? {
                Mode::Rdma => {}
                Mode::Fallback(why) => check!(
                    why.reason != PEERNOSMC,
                    "{what}: a side has not seen the option"
                ),
            }
        }
        Ok(())
    };
    with_option("as it is")?;
    let cookies = Sysctl::set(Host::B, "tcp_syncookies", "2")?;
    without_option(&ctx, &ctx.unasked().pair()?).during("SYN cookies")?;
    drop(cookies);
    let strip = "tcp option 254 exists counter reset tcp option 254";
    let rules = Rules::new(Host::B, "prerouting", &[strip])?;
    without_option(&ctx, &ctx.unasked().pair()?).during("stripped from the SYN")?;
    check!(rules.seen()? > 0, "no SYN with the option came by");
    drop(rules);
    let pair = with_one_lost(&ctx, Host::B, "tcp flags & (syn | ack) == syn")?;
    converse(&ctx, &pair)?;
    check!(
        mode::fallback_reason(&pair.client).unwrap_or(0) != PEERNOSMC,
        "the retransmitted SYN has no option"
    );
    let mut tracked = Vec::new();
    for host in Host::BOTH {
        tracked.push(Rules::new(
            host,
            "input",
            &["meta l4proto tcp ct state invalid counter drop"],
        )?);
    }
    with_option("with connection tracking")?;
    for rules in &tracked {
        check_eq!(rules.seen()?, 0, "invalid segments");
    }
    Ok(())
}

/// Neither side has seen the option, and TCP works.
fn without_option(ctx: &Ctx, pair: &Pair) -> Outcome {
    converse(ctx, pair)?;
    for sock in [&pair.client, &pair.server] {
        check_eq!(
            mode::fallback_reason(sock)?,
            PEERNOSMC,
            "the reason of the fallback"
        );
    }
    Ok(())
}

/// The listener keeps nothing of the SYN, so that it cannot know of the option.
fn cookies(ctx: &Ctx) -> Outcome {
    let sysctl = Sysctl::set(Host::B, "tcp_syncookies", "2")?;
    for _ in 0..5 {
        falls_back(ctx)?;
    }
    drop(sysctl);
    goes_by_rdma(ctx)
}

fn stripped_from_syn(ctx: &Ctx) -> Outcome {
    let rules = Rules::new(
        Host::B,
        "prerouting",
        &["tcp option 254 exists counter reset tcp option 254"],
    )?;
    falls_back(ctx)?;
    check!(rules.seen()? > 0, "no SYN with the option came by");
    drop(rules);
    goes_by_rdma(ctx)
}

/// The server believes in SMC, the client never heard of it.
fn stripped_from_syn_ack(ctx: &Ctx) -> Outcome {
    let rules = Rules::new(
        Host::A,
        "prerouting",
        &["tcp option 254 exists counter reset tcp option 254"],
    )?;
    let (listener, address) = ctx.listener(8)?;
    // The client speaks first: the server finds out by what it says.
    let client = ctx.connect(address)?;
    client.send_all(b"first words")?;
    let server = listener.accept()?;
    let mut got = [0; 11];
    server.recv_all(&mut got)?;
    check_eq!(&got, b"first words", "what the server received");
    let pair = Pair { client, server };
    converse(ctx, &pair)?;
    is_plain(&pair)?;
    check!(rules.seen()? > 0, "no SYN-ACK with the option came by");
    drop(rules);
    goes_by_rdma(ctx)
}

/// Connection tracking on both hosts, which drops what it does not understand.
fn conntrack(ctx: &Ctx) -> Outcome {
    let mut all = Vec::new();
    for host in Host::BOTH {
        all.push(Rules::new(
            host,
            "input",
            &[
                "meta l4proto tcp ct state invalid counter drop",
                "ct state established,related accept",
            ],
        )?);
    }
    for _ in 0..3 {
        goes_by_rdma(ctx)?;
    }
    for rules in &all {
        check_eq!(rules.seen()?, 0, "invalid segments");
    }
    Ok(())
}

fn send_fast_open(sock: &Sock, address: SocketAddr, data: &[u8]) -> Outcome<usize> {
    let SocketAddr::V4(v4) = address else {
        return Err("IPv4 only".to_owned().into());
    };
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(v4.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: data and address are valid for their lengths.
    cvt_size(unsafe {
        libc::sendto(
            sock.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            libc::MSG_FASTOPEN,
            (&raw const name).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    })
    .during("sendto(MSG_FASTOPEN)")
}

/// Data in the SYN, by both ways to ask for it, without and with a cookie.
fn fast_open(ctx: &Ctx) -> Outcome {
    const TCP_FASTOPEN: i32 = 23;
    const TCP_FASTOPEN_CONNECT: i32 = 30;
    let sysctls = [
        Sysctl::set(Host::A, "tcp_fastopen", "3")?,
        Sysctl::set(Host::B, "tcp_fastopen", "3")?,
    ];
    let (listener, address) = ctx.listener(8)?;
    listener.set(libc::IPPROTO_TCP, TCP_FASTOPEN, 8i32)?;
    for round in 0..6 {
        let what = format!("round {round}");
        // Every second client is a plain one: its data comes in a SYN that has no option.
        let kind = if round % 2 == 0 { ctx.kind } else { Kind::Tcp4 };
        let client = Sock::new(Host::A, kind, 0)?;
        let data = b"data in the SYN";
        if round < 4 {
            check_eq!(
                send_fast_open(&client, address, data).during(&what)?,
                data.len(),
                "sendto(MSG_FASTOPEN)"
            );
        } else {
            client.set(libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1i32)?;
            client.connect(address).during(&what)?;
            client.send_all(data).during(&what)?;
        }
        let server = listener.accept().during(&what)?;
        let mut got = [0; 15];
        server.recv_all(&mut got).during(&what)?;
        check_eq!(&got, data, "what the server received in {what}");
        converse(ctx, &Pair { client, server }).during(&what)?;
    }
    drop(sysctls);
    drop(listener);
    goes_by_rdma(ctx)
}

/// Signed segments: either there is room for the option, or the connection falls back.
fn md5(ctx: &Ctx) -> Outcome {
    const TCP_MD5SIG: i32 = 14;
    /// struct tcp_md5sig: address, flags, prefix, length of the key, ifindex, key.
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Signature {
        family: u16,
        port: u16,
        address: [u8; 124],
        flags: u8,
        prefix: u8,
        key_len: u16,
        ifindex: i32,
        key: [u8; 80],
    }
    let signature = |peer: Host| {
        let mut all = Signature {
            family: libc::AF_INET as u16,
            port: 0,
            address: [0; 124],
            flags: 0,
            prefix: 0,
            key_len: 6,
            ifindex: 0,
            key: [0; 80],
        };
        all.address[..4].copy_from_slice(&peer.ipv4().octets());
        all.key[..6].copy_from_slice(b"secret");
        all
    };
    let (listener, address) = ctx.listener(8)?;
    listener
        .set(libc::IPPROTO_TCP, TCP_MD5SIG, signature(Host::A))
        .during("TCP_MD5SIG of the listener")?;
    for _ in 0..3 {
        let client = ctx.socket(Host::A)?;
        client
            .set(libc::IPPROTO_TCP, TCP_MD5SIG, signature(Host::B))
            .during("TCP_MD5SIG of the client")?;
        client.connect(address)?;
        let server = listener.accept()?;
        // The option would change what was signed.
        without_option(ctx, &Pair { client, server })?;
    }
    // A client without the key is not let in.
    let client = ctx.socket(Host::A)?;
    client.set_nonblocking(true)?;
    check!(
        client.connect(address).is_err(),
        "a client without the key was let in"
    );
    std::thread::sleep(std::time::Duration::from_millis(300));
    check_eq!(
        listener.poll(libc::POLLIN, std::time::Duration::ZERO)?,
        0,
        "events of the listener after a client without the key"
    );
    drop(client);
    drop(listener);
    goes_by_rdma(ctx)
}
