//! One connection, a few bytes, and what its sockets say about themselves.

use super::data_options::Info;
use super::genl::ifindex;
use super::link::echo as echo_of;
use super::network::{without_address, Rules};
use super::{any, join, once};
use crate::kind::{Host, Kind, AF_SMC, IPPROTO_SMC};
use crate::proc_net::{self, Socket, SYN_RECV};
use crate::rig::run_on;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::mpsc;
use std::time::Duration;

pub const TESTS: [Test; 12] = [
    any("basic.echo", 60, echo),
    any("basic.echo_server_first", 60, echo_server_first),
    any("basic.names", 60, names),
    once("basic.link_local", 60, link_local),
    any("basic.accept4_flags", 60, accept4_flags),
    any("basic.connect_refused", 60, connect_refused),
    any("basic.blocked_accept", 60, blocked_accept),
    any("basic.socket_options", 60, socket_options),
    any("basic.accept_wakes_one", 60, accept_wakes_one),
    any("basic.accept_of_the_reset", 60, accept_of_the_reset),
    any("basic.accept_order", 60, accept_order),
    once("basic.forgotten_client", 120, forgotten_client),
];

/// An address of IPv6 that means nothing without a device: TCP learns it by bind(), connect() and the SYN, and keeps it.
fn link_local(ctx: &Ctx) -> Outcome {
    let [ip_a, ip_b] = [address_of_device(Host::A)?, address_of_device(Host::B)?];
    let address = |host: Host, port, scope| -> SocketAddr {
        let ip = if host == Host::A { ip_a } else { ip_b };
        SocketAddrV6::new(ip, port, 0, scope).into()
    };
    let [scope_a, scope_b] = [ifindex(Host::A)?, ifindex(Host::B)?];
    for kind in [Kind::Tcp6, Kind::Smc6, Kind::IpSmc6] {
        let what = format!("{kind:?}");
        let listener = Sock::new(Host::B, kind, 0)?;
        listener
            .bind(address(Host::B, 0, scope_b))
            .during(&format!("bind() of the server, {what}"))?;
        listener.listen(4)?;
        let to = listener.local()?;
        check_eq!(to, address(Host::B, to.port(), scope_b), "the listener");
        let client = Sock::new(Host::A, kind, 0)?;
        // What the address says is stronger.
        client.set(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, *b"lo\0")?;
        client
            .bind(address(Host::A, 0, scope_a))
            .during(&format!("bind() of the client, {what}"))?;
        // Which device that is, is known.
        client
            .connect(address(Host::B, to.port(), 0))
            .during(&format!("connect(), {what}"))?;
        let from = client.local()?;
        let server = listener.accept()?;
        for (name, seen, wanted) in [
            ("the client", from, address(Host::A, from.port(), scope_a)),
            (
                "its peer",
                client.peer()?,
                address(Host::B, to.port(), scope_a),
            ),
            (
                "the server",
                server.local()?,
                address(Host::B, to.port(), scope_b),
            ),
            (
                "its peer",
                server.peer()?,
                address(Host::A, from.port(), scope_b),
            ),
        ] {
            check_eq!(seen, wanted, "{name}, {what}");
        }
        let pair = Pair { client, server };
        echo_of(&pair, b"to a neighbour")?;
    }
    // Else it has shown nothing of SMC.
    ctx.pair().map(drop)
}

/// The link-local address that a host's network device has by its MAC.
fn address_of_device(host: Host) -> Outcome<Ipv6Addr> {
    let device = host.netdev();
    let line = run_on(host, &format!("ip -6 -o addr show dev {device} scope link"))?;
    line.split_whitespace()
        .skip_while(|word| *word != "inet6")
        .nth(1)
        .and_then(|word| word.split('/').next()?.parse().ok())
        .ok_or_else(|| Fail(format!("no link-local address on {device}: '{line}'")))
}

/// A TCP that has no way to a client when it repeats its SYN-ACK forgets it, whose connect() may be done: tests that take
/// addresses away find that out, and wait no longer.
fn forgotten_client(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Tcp4);
    let (listener, address) = ctx.listener(1)?;
    let port = address.port();
    let rule = format!("tcp dport {port} tcp flags & (syn | ack) == ack drop");
    let rules = Rules::new(Host::B, "input", &[&rule])?;
    let client = ctx.connect(address)?;
    let half_open = || -> io::Result<bool> {
        let is = |socket: &Socket| socket.local.port() == port && socket.state == SYN_RECV;
        Ok(proc_net::sockets_of(Host::B, "tcp")?.iter().any(is))
    };
    check!(half_open()?, "no request of a connection");
    without_address(Host::B, || {
        sys::eventually("the request is forgotten", || Ok(!half_open()?))?;
        Ok(())
    })?;
    drop(rules);
    check!(
        listener.accept_of(&client)?.is_none(),
        "accept() of a client that is forgotten"
    );
    Ok(())
}

/// Who has connected first is accepted first, however the handshakes end.
fn accept_order(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(32)?;
    for round in 0..16 {
        let clients = (0..32)
            .map(|_| ctx.connect(address))
            .collect::<Outcome<Vec<_>>>()?;
        sys::eventually("clients that wait", || {
            Ok(Info::of(&listener).is_ok_and(|info| info.unacked() == 32))
        })?;
        for (number, client) in clients.iter().enumerate() {
            let server = listener.accept()?;
            let own = client.local()?;
            check_eq!(server.peer()?, own, "round {round}, client {number}");
        }
    }
    Ok(())
}

/// A connection that its client has reset is accepted like any other, and has an address.
fn accept_of_the_reset(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let client = ctx.connect(address)?;
    let own = client.local()?;
    listener.await_events(libc::POLLIN)?;
    client.set_linger(Some(0))?;
    drop(client);
    std::thread::sleep(Duration::from_millis(500));
    let (server, from) = listener.accept_from(0).during("accept() with an address")?;
    check_eq!(from, own, "who was accepted");
    check_errno!(server.recv(&mut [0; 1], 0), libc::ECONNRESET, "recv()");
    check_errno!(server.peer(), libc::ENOTCONN, "getpeername()");
    Ok(())
}

fn echo(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let mut got = [0; 5];
    for round in 0..100u8 {
        let word = [b'h', b'e', b'l', b'o', round];
        pair.client.send_all(&word)?;
        pair.server.recv_all(&mut got).during("server")?;
        check_eq!(got, word, "what the server received");
        pair.server.send_all(&got)?;
        pair.client.recv_all(&mut got).during("client")?;
        check_eq!(got, word, "what came back");
    }
    Ok(())
}

fn echo_server_first(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let mut got = [0; 8];
    pair.server.send_all(b"greeting")?;
    pair.client.recv_all(&mut got)?;
    check_eq!(&got, b"greeting", "what the client received");
    drop(pair.server);
    check_eq!(pair.client.recv(&mut got, 0)?, 0, "end of stream");
    Ok(())
}

fn names(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    check_eq!(
        address.ip(),
        Host::B.address(ctx.kind, 0).ip(),
        "address of the listener"
    );
    check!(address.port() != 0, "the listener has no port");
    let client = ctx.socket(Host::A)?;
    client.bind(Host::A.address(ctx.kind, 0))?;
    let bound = client.local()?;
    check!(bound.port() != 0, "bind() to port 0 gave no port");
    check_errno!(
        client.peer(),
        libc::ENOTCONN,
        "getpeername() before connect()"
    );
    client.connect(address)?;
    let (server, from) = listener.accept_from(0)?;
    check_eq!(from, bound, "address from accept()");
    check_eq!(client.local()?, bound, "getsockname() of the client");
    check_eq!(client.peer()?, address, "getpeername() of the client");
    check_eq!(server.local()?, address, "getsockname() of the server");
    check_eq!(server.peer()?, bound, "getpeername() of the server");
    Ok(())
}

fn accept4_flags(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    for flags in [
        0,
        libc::SOCK_NONBLOCK,
        libc::SOCK_CLOEXEC,
        libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
    ] {
        let client = ctx.connect(address)?;
        let server = listener.accept4(flags)?;
        check_eq!(
            server.status_flags()? & libc::O_NONBLOCK != 0,
            flags & libc::SOCK_NONBLOCK != 0,
            "O_NONBLOCK with accept4({flags:#x})"
        );
        check_eq!(
            server.descriptor_flags()? & libc::FD_CLOEXEC != 0,
            flags & libc::SOCK_CLOEXEC != 0,
            "FD_CLOEXEC with accept4({flags:#x})"
        );
        if flags & libc::SOCK_NONBLOCK != 0 {
            check_errno!(
                server.recv(&mut [0; 1], 0),
                libc::EAGAIN,
                "recv() with nothing there"
            );
        }
        client.send_all(b"x")?;
        server.await_events(libc::POLLIN)?;
        check_eq!(server.recv(&mut [0; 8], 0)?, 1, "bytes received");
    }
    check_errno!(
        listener.accept4(0x4000_0000),
        libc::EINVAL,
        "accept4() with a wrong flag"
    );
    Ok(())
}

fn connect_refused(ctx: &Ctx) -> Outcome {
    // A port that was just free: bound and closed again.
    let (listener, address) = ctx.listener(1)?;
    drop(listener);
    let client = ctx.socket(Host::A)?;
    check_errno!(
        client.connect(address),
        libc::ECONNREFUSED,
        "connect() to a closed port"
    );
    check_errno!(
        client.send(b"x", libc::MSG_NOSIGNAL),
        libc::EPIPE,
        "send() after a refused connect()"
    );
    Ok(())
}

fn blocked_accept(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let kind = ctx.kind;
    let thread = std::thread::spawn(move || -> Outcome {
        // accept() is there first, as far as that can be arranged without asserting on time.
        std::thread::sleep(Duration::from_millis(200));
        let client = Sock::new(Host::A, kind, 0)?;
        client.connect(address)?;
        client.send_all(b"late")?;
        Ok(())
    });
    let server = listener.accept()?;
    ctx.prove(Host::B, &server)?;
    let mut got = [0; 4];
    server.recv_all(&mut got)?;
    check_eq!(&got, b"late", "what the client sent");
    join(thread)
}

fn socket_options(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let (family, protocol) = ctx.kind.arguments();
    let sock = &pair.client;
    let domain = sock.get(libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    let shown = sock.get(libc::SOL_SOCKET, libc::SO_PROTOCOL)?;
    let plain = (ctx.kind.plain().arguments().0, libc::IPPROTO_TCP);
    // A connection that fell back is served by its TCP socket, which answers for itself.
    if !(ctx.may_fall_back() && (domain, shown) == plain) {
        check_eq!(domain, family, "SO_DOMAIN");
        if family == AF_SMC || protocol == IPPROTO_SMC {
            check_eq!(shown, protocol, "SO_PROTOCOL");
        } else {
            check_eq!(shown, libc::IPPROTO_TCP, "SO_PROTOCOL");
        }
    }
    check_eq!(sock.error()?, 0, "SO_ERROR");
    check_eq!(
        sock.get(libc::SOL_SOCKET, libc::SO_ACCEPTCONN)?,
        0,
        "SO_ACCEPTCONN"
    );
    for on in [1, 0] {
        sock.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, on)?;
        check_eq!(
            sock.get(libc::IPPROTO_TCP, libc::TCP_NODELAY)?,
            on,
            "TCP_NODELAY"
        );
        sock.set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, on)?;
        check_eq!(
            sock.get(libc::SOL_SOCKET, libc::SO_KEEPALIVE)?,
            on,
            "SO_KEEPALIVE"
        );
    }
    sock.set(libc::SOL_SOCKET, libc::SO_RCVBUF, 128 * 1024)?;
    check!(
        sock.get(libc::SOL_SOCKET, libc::SO_RCVBUF)? >= 128 * 1024,
        "SO_RCVBUF is smaller than what was set"
    );
    sock.set(libc::SOL_SOCKET, libc::SO_SNDBUF, 128 * 1024)?;
    check!(
        sock.get(libc::SOL_SOCKET, libc::SO_SNDBUF)? >= 128 * 1024,
        "SO_SNDBUF is smaller than what was set"
    );
    pair.client.send_all(b"still works")?;
    let mut got = [0; 11];
    pair.server.recv_all(&mut got)?;
    check_eq!(&got, b"still works", "what the server received");
    Ok(())
}

/// How often a thread of this process has gone to sleep, and whether it sleeps now.
fn sleeps(thread: i32) -> io::Result<(u64, bool)> {
    let text = sys::read_file(&format!("/proc/self/task/{thread}/status"))?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.trim().to_owned())
            .unwrap_or_default()
    };
    let count = field("voluntary_ctxt_switches:").parse();
    Ok((
        count.map_err(io::Error::other)?,
        field("State:").starts_with('S'),
    ))
}

/// Many threads in accept(): each connection wakes one of them.
fn accept_wakes_one(ctx: &Ctx) -> Outcome {
    const THREADS: usize = 8;
    let (listener, address) = ctx.listener(8)?;
    let (tell, told) = mpsc::channel();
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        let listener = listener.dup()?;
        let tell = tell.clone();
        threads.push(std::thread::spawn(move || -> Outcome {
            // SAFETY: no arguments.
            let me = unsafe { libc::gettid() };
            tell.send((me, None)).ok();
            let server = listener.accept()?;
            tell.send((me, Some(server))).ok();
            Ok(())
        }));
    }
    let mut waiting = Vec::new();
    for _ in 0..THREADS {
        waiting.push(told.recv().during("a thread starts")?.0);
    }
    while !waiting.is_empty() {
        let before = sys::settled("all threads sleep in accept()", || {
            waiting.iter().map(|&thread| sleeps(thread)).collect()
        })?;
        let client = ctx.connect(address)?;
        let (woken, server) = told.recv().during("a thread accepts")?;
        let server = server.ok_or_else(|| Fail("a thread started twice".into()))?;
        client.send_all(b"x")?;
        server.recv_all(&mut [0])?;
        let mut left = Vec::new();
        for (&thread, (count, _)) in waiting.iter().zip(&before) {
            if thread != woken {
                check_eq!(
                    sleeps(thread)?.0,
                    *count,
                    "wake-ups of a thread that got no connection, {} in all",
                    waiting.len()
                );
                left.push(thread);
            }
        }
        waiting = left;
    }
    threads.into_iter().try_for_each(join)
}
