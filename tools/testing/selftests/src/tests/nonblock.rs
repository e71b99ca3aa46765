//! Non-blocking sockets, poll and epoll.

use super::network::{Rules, Sysctl};
use super::{any, join, Pattern};
use crate::kind::{Expect, Host};
use crate::rig;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{cvt, Epoll, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

pub const TESTS: [Test; 14] = [
    any("nonblock.connect_poll", 60, connect_poll),
    any("nonblock.connect_epoll_level", 60, |ctx| {
        connect_epoll(ctx, 0)
    }),
    any("nonblock.connect_epoll_edge", 60, |ctx| {
        connect_epoll(ctx, libc::EPOLLET)
    }),
    any("nonblock.connect_refused", 60, connect_refused),
    any("nonblock.connect_again", 60, connect_again),
    any("nonblock.connect_reset", 60, connect_reset),
    any("nonblock.connect_in_progress", 60, connect_in_progress),
    any("nonblock.connect_no_way", 120, connect_no_way),
    any("nonblock.by_ioctl", 60, by_ioctl),
    any("nonblock.accept", 60, accept),
    any("nonblock.level_triggered", 60, level_triggered),
    any("nonblock.edge_triggered_in", 60, edge_triggered_in),
    any("nonblock.edge_triggered_out", 120, edge_triggered_out),
    any("nonblock.poll_events_of_close", 60, poll_events_of_close),
];

const SOON: Duration = Duration::from_secs(20);
/// How long to look for an event that must not come.
const NEVER: Duration = Duration::from_millis(150);

/// `FIONBIO` is `O_NONBLOCK`.
fn by_ioctl(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let set = |on: i32| {
        // SAFETY: reads one int.
        cvt(unsafe { libc::ioctl(pair.client.as_raw_fd(), libc::FIONBIO, &raw const on) })
    };
    let mut got = [0; 8];
    set(1)?;
    check_eq!(
        pair.client.status_flags()? & libc::O_NONBLOCK,
        libc::O_NONBLOCK,
        "O_NONBLOCK"
    );
    check_errno!(pair.client.recv(&mut got, 0), libc::EAGAIN, "recv()");
    set(0)?;
    check_eq!(
        pair.client.status_flags()? & libc::O_NONBLOCK,
        0,
        "O_NONBLOCK"
    );
    let sender = std::thread::spawn(move || -> Outcome {
        std::thread::sleep(NEVER);
        pair.server.send_all(b"late").during("a late answer")
    });
    check_eq!(
        pair.client.recv(&mut got, 0)?,
        4,
        "bytes of a recv() that waits"
    );
    join(sender)
}

/// Ways that lead nowhere: each with TCP's error, at once or in the end.
fn connect_no_way(ctx: &Ctx) -> Outcome {
    let (version, net) = if ctx.kind.is_v6() {
        ("-6", "fd77::")
    } else {
        ("-4", "10.77.0.")
    };
    let places = [("unreachable", 1), ("prohibit", 2), ("blackhole", 3)];
    let change = |verb: &str| -> Outcome {
        for (kind, number) in places {
            rig::run_on(
                Host::A,
                &format!("ip {version} route {verb} {kind} {net}{number}"),
            )?;
        }
        Ok(())
    };
    let nobody = Host::B.address(ctx.kind, 9);
    let nobody = SocketAddr::new(
        if ctx.kind.is_v6() {
            "fd09::77"
        } else {
            "10.9.0.77"
        }
        .parse()
        .during("an address")?,
        nobody.port(),
    );
    let outcome = |kind, blocking: bool, address| -> Outcome<i32> {
        let flags = if blocking { 0 } else { libc::SOCK_NONBLOCK };
        let sock = Sock::new(Host::A, kind, flags)?;
        match sock.connect(address) {
            Ok(()) => Ok(0),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                sock.await_events(libc::POLLOUT | libc::POLLHUP)?;
                Ok(sock.error()?)
            }
            Err(error) => Ok(error.raw_os_error().unwrap_or(0)),
        }
    };
    let compare = |address: SocketAddr, what: &str, expected: i32| -> Outcome {
        for blocking in [true, false] {
            for kind in [ctx.kind.plain(), ctx.kind] {
                check_eq!(
                    outcome(kind, blocking, address)?,
                    expected,
                    "error of connect() ({}, blocking {blocking}) to {what}",
                    kind.name()
                );
            }
        }
        Ok(())
    };
    change("add")?;
    let all = places
        .iter()
        .zip([libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL]);
    let outcomes = all.map(|(&(what, number), expected)| {
        let address = format!("{net}{number}").parse().during("an address")?;
        compare(SocketAddr::new(address, 9), what, expected)
    });
    let outcomes: Outcome = outcomes.collect();
    change("del")?;
    outcomes?;
    // Nobody there answers the question for the address, which is asked once.
    let ip = if ctx.kind.is_v6() { "ipv6" } else { "ipv4" };
    let asked = format!("../{ip}/neigh/{}/mcast_solicit", Host::A.netdev());
    let once = Sysctl::set(Host::A, &asked, "1")?;
    compare(nobody, "a host that is not there", libc::EHOSTUNREACH)?;
    drop(once);
    let twice = Sysctl::set(Host::A, "tcp_syn_retries", "1")?;
    // Somebody is there, and hears nothing.
    let deaf = Rules::new(Host::B, "input", &["tcp flags syn drop"])?;
    compare(
        Host::B.address(ctx.kind, 9),
        "a host that is deaf",
        libc::ETIMEDOUT,
    )?;
    drop((deaf, twice));
    Ok(())
}

/// A client whose connect() is under way; with TCP it is never done at once, however busy the machine is.
fn start(ctx: &Ctx, address: SocketAddr) -> Outcome<Sock> {
    let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
    Ok(client)
}

fn finish(ctx: &Ctx, client: Sock, listener: &Sock, address: SocketAddr) -> Outcome<Pair> {
    check_eq!(client.error()?, 0, "SO_ERROR after connect()");
    // On Linux the first connect() after a non-blocking one reports its success.
    if let Err(error) = client.connect(address) {
        check_eq!(
            error.raw_os_error(),
            Some(libc::EISCONN),
            "connect() once more"
        );
    }
    check_errno!(
        client.connect(address),
        libc::EISCONN,
        "connect() a third time"
    );
    check_eq!(client.peer()?, address, "getpeername()");
    let server = listener.accept()?;
    ctx.prove(Host::A, &client)?;
    ctx.prove(Host::B, &server)?;
    client.send_all(b"ping")?;
    let mut got = [0; 4];
    server.recv_all(&mut got)?;
    check_eq!(&got, b"ping", "what the server received");
    server.send_all(b"pong")?;
    client.await_events(libc::POLLIN)?;
    check_eq!(client.recv(&mut got, 0)?, 4, "bytes received by the client");
    check_eq!(&got, b"pong", "what the client received");
    Ok(Pair { client, server })
}

fn connect_poll(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let client = start(ctx, address)?;
    let events = client.await_events(libc::POLLOUT)?;
    check_eq!(
        events & (libc::POLLERR | libc::POLLHUP),
        0,
        "error events after connect()"
    );
    finish(ctx, client, &listener, address)?;
    Ok(())
}

fn connect_epoll(ctx: &Ctx, edge: i32) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let epoll = Epoll::new()?;
    let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    // As many programs do it: registered first, connected then.
    epoll.add(
        &client,
        libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | edge,
        1,
    )?;
    let early = epoll.wait(Duration::ZERO)?;
    check!(
        early.iter().all(|(_, events)| events & libc::EPOLLHUP != 0),
        "events before connect(): {early:?}"
    );
    check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
    crate::sys::eventually("EPOLLOUT alone after connect()", || {
        let got = epoll.wait(SOON)?;
        Ok(got.iter().any(|&(_, events)| {
            events & libc::EPOLLOUT != 0 && events & (libc::EPOLLERR | libc::EPOLLHUP) == 0
        }))
    })?;
    let pair = finish(ctx, client, &listener, address)?;
    // Everything is read: only writing is possible now.
    if edge == 0 {
        check_eq!(
            epoll.wait(SOON)?,
            vec![(1, libc::EPOLLOUT)],
            "events of the idle connection"
        );
    }
    drop(pair.server);
    crate::sys::eventually("EPOLLIN and EPOLLRDHUP after the server's close()", || {
        Ok(epoll
            .wait(SOON)?
            .iter()
            .any(|&(_, events)| events & libc::EPOLLIN != 0 && events & libc::EPOLLRDHUP != 0))
    })?;
    Ok(())
}

fn connect_refused(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(1)?;
    drop(listener);
    // Who does not ask SO_ERROR hears of it by the next call, and by that alone.
    type Call<'a> = &'a dyn Fn(&Sock) -> io::Result<usize>;
    let calls: [(&str, Call<'_>); 2] = [
        ("recv()", &|sock| sock.recv(&mut [0; 1], 0)),
        // Without MSG_NOSIGNAL: there must be none.
        ("send()", &|sock| sock.send(b"x", 0)),
    ];
    for (what, call) in calls {
        let client = start(ctx, address)?;
        client.await_events(libc::POLLOUT | libc::POLLERR)?;
        check_errno!(
            call(&client),
            libc::ECONNREFUSED,
            "{what} after a failed connect()"
        );
        check_eq!(client.error()?, 0, "SO_ERROR after {what}");
    }
    let client = start(ctx, address)?;
    client.await_events(libc::POLLOUT | libc::POLLERR)?;
    check_eq!(client.error()?, libc::ECONNREFUSED, "SO_ERROR");
    check_eq!(client.error()?, 0, "SO_ERROR once more");
    Ok(())
}

/// After a failure the next connect() tells of it, if nothing else has, and only the one after it tries again.
fn connect_again(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(1)?;
    drop(listener);
    let client = start(ctx, address)?;
    for round in 0..2 {
        client.await_events(libc::POLLOUT | libc::POLLERR)?;
        check_errno!(
            client.connect(address),
            libc::ECONNREFUSED,
            "connect() when nobody has asked for the failure, round {round}"
        );
        check_eq!(client.error()?, 0, "SO_ERROR after that, round {round}");
        check_errno!(
            client.connect(address),
            libc::EINPROGRESS,
            "connect() after that, round {round}"
        );
    }
    client.await_events(libc::POLLOUT | libc::POLLERR)?;
    check_eq!(client.error()?, libc::ECONNREFUSED, "SO_ERROR");
    check_errno!(
        client.connect(address),
        libc::ECONNABORTED,
        "connect() when SO_ERROR has told of the failure"
    );
    Ok(())
}

/// A connection that was made, and reset before anybody asked for it.
fn connect_reset(ctx: &Ctx) -> Outcome {
    for told in [false, true] {
        let (listener, address) = ctx.listener(1)?;
        let client = start(ctx, address)?;
        let server = listener.accept()?;
        server.set_linger(Some(0))?;
        drop(server);
        client.await_events(libc::POLLHUP)?;
        let expected = if told {
            check_eq!(client.error()?, libc::ECONNRESET, "SO_ERROR");
            libc::ECONNABORTED
        } else {
            libc::ECONNRESET
        };
        check_errno!(
            client.connect(address),
            expected,
            "connect() when the connection has been reset (asked for SO_ERROR: {told})"
        );
        check_eq!(client.error()?, 0, "SO_ERROR after that");
    }
    Ok(())
}

fn connect_in_progress(ctx: &Ctx) -> Outcome {
    // A host that does not exist: nobody answers for seconds.
    let mut address = Host::B.address(ctx.kind, 4242);
    address.set_ip(match address {
        SocketAddr::V4(_) => [10, 9, 0, 77].into(),
        SocketAddr::V6(_) => [0xfd09, 0, 0, 0, 0, 0, 0, 0x77].into(),
    });
    let client = start(ctx, address)?;
    check_errno!(
        client.connect(address),
        libc::EALREADY,
        "connect() while connecting"
    );
    check_eq!(
        client.poll(libc::POLLIN | libc::POLLOUT, NEVER)?,
        0,
        "events while connecting"
    );
    if ctx.kind.expect() != Expect::Plain {
        // Such a connection is not dissolved, and nobody waits for it.
        for nonblocking in [true, false] {
            client.set_nonblocking(nonblocking)?;
            check_errno!(
                client.disconnect(),
                libc::EISCONN,
                "connect() with AF_UNSPEC while connecting (non-blocking: {nonblocking})"
            );
        }
    }
    // Closing in the middle of it is allowed; the leak oracles look at what stays.
    drop(client);
    Ok(())
}

fn accept(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    listener.set_nonblocking(true)?;
    check_errno!(
        listener.accept(),
        libc::EAGAIN,
        "accept() with nobody there"
    );
    check_eq!(
        listener.poll(libc::POLLIN, NEVER)?,
        0,
        "events of an idle listener"
    );
    let client = ctx.connect(address)?;
    listener.await_events(libc::POLLIN)?;
    let server = listener.accept()?;
    check_eq!(
        server.status_flags()? & libc::O_NONBLOCK,
        0,
        "O_NONBLOCK of the accepted socket"
    );
    check_errno!(listener.accept(), libc::EAGAIN, "a second accept()");
    ctx.prove(Host::B, &server)?;
    client.send_all(b"x")?;
    check_eq!(server.recv(&mut [0; 2], 0)?, 1, "bytes received");
    Ok(())
}

/// Sends on a non-blocking socket until no more is taken.
fn fill(sock: &Sock, pattern: &Pattern, offset: &mut usize) -> Outcome {
    loop {
        match sock.send(pattern.at(*offset, 32_768), libc::MSG_NOSIGNAL) {
            Ok(sent) => *offset += sent,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        check!(*offset < 1 << 30, "a gigabyte was taken and nobody reads");
    }
}

fn level_triggered(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let epoll = Epoll::new()?;
    epoll.add(&pair.server, libc::EPOLLIN, 1)?;
    check_eq!(epoll.wait(NEVER)?, vec![], "events with nothing sent");
    pair.client.send_all(b"abcd")?;
    for _ in 0..3 {
        check_eq!(
            epoll.wait(SOON)?,
            vec![(1, libc::EPOLLIN)],
            "events while data is there"
        );
    }
    pair.server.recv_all(&mut [0; 3])?;
    check_eq!(
        epoll.wait(SOON)?,
        vec![(1, libc::EPOLLIN)],
        "events while some data is left"
    );
    pair.server.recv_all(&mut [0; 1])?;
    check_eq!(epoll.wait(NEVER)?, vec![], "events with everything read");

    let pattern = Pattern::new(ctx, 11);
    let mut sent = 0;
    pair.client.set_nonblocking(true)?;
    epoll.add(&pair.client, libc::EPOLLOUT, 2)?;
    check!(
        epoll.wait(SOON)?.contains(&(2, libc::EPOLLOUT)),
        "an empty connection is not writable"
    );
    // What is in flight may free some room once more: filled when it stays full.
    loop {
        fill(&pair.client, &pattern, &mut sent)?;
        if !epoll.wait(NEVER)?.iter().any(|&(token, _)| token == 2) {
            break;
        }
    }
    epoll.remove(&pair.server)?;
    let mut part = vec![0; 65536];
    let mut got = 0;
    while got < sent {
        let count = pair.server.recv(&mut part, 0)?;
        check!(count > 0, "end of stream after {got} of {sent} bytes");
        pattern.verify(got, &part[..count])?;
        got += count;
    }
    check_eq!(
        epoll.wait(SOON)?,
        vec![(2, libc::EPOLLOUT)],
        "events when everything was read"
    );
    Ok(())
}

fn edge_triggered_in(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    pair.server.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(&pair.server, libc::EPOLLIN | libc::EPOLLET, 1)?;
    for round in 0..50u8 {
        pair.client.send_all(&[round; 10])?;
        check_eq!(
            epoll.wait(SOON)?,
            vec![(1, libc::EPOLLIN)],
            "event {round} of new data"
        );
        // Half is left: the next data must make an edge all the same.
        let mut part = [0; 5];
        check_eq!(pair.server.recv(&mut part, 0)?, 5, "bytes received");
    }
    check_eq!(epoll.wait(NEVER)?, vec![], "events without new data");
    let mut rest = [0; 250];
    check_eq!(pair.server.recv(&mut rest, 0)?, 250, "the rest");
    check_errno!(
        pair.server.recv(&mut rest, 0),
        libc::EAGAIN,
        "nothing is left"
    );
    drop(pair.client);
    let events = epoll.wait(SOON)?;
    check!(
        events
            .first()
            .is_some_and(|&(_, events)| events & libc::EPOLLIN != 0),
        "no EPOLLIN edge at the end of the stream: {events:?}"
    );
    check_eq!(pair.server.recv(&mut rest, 0)?, 0, "end of stream");
    Ok(())
}

/// The classic loop of an event-driven server: write until EAGAIN, then wait for the edge.
fn edge_triggered_out(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let total = 8 * 1024 * 1024 / ctx.divisor;
    let pattern = Pattern::new(ctx, 12);
    let check_pattern = Pattern::new(ctx, 12);
    let server = pair.server;
    let thread = std::thread::spawn(move || -> Outcome {
        let mut part = vec![0; 100_000];
        let mut got = 0;
        loop {
            let count = server.recv(&mut part, 0)?;
            if count == 0 {
                break;
            }
            check_pattern.verify(got, &part[..count])?;
            got += count;
        }
        check_eq!(got, total, "bytes that arrived");
        Ok(())
    });
    pair.client.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(&pair.client, libc::EPOLLOUT | libc::EPOLLET, 1)?;
    let mut sent = 0;
    while sent < total {
        match pair.client.send(
            pattern.at(sent, (total - sent).min(50_000)),
            libc::MSG_NOSIGNAL,
        ) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let events = epoll.wait(SOON)?;
                check!(
                    !events.is_empty(),
                    "no EPOLLOUT edge came, {sent} of {total} bytes sent"
                );
            }
            Err(error) => return Err(error.into()),
        }
    }
    drop(pair.client);
    join(thread).during("receiver")
}

fn poll_events_of_close(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let all = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
    check_eq!(
        pair.client.poll(all, SOON)?,
        libc::POLLOUT,
        "events of an idle connection"
    );
    pair.server.shutdown(libc::SHUT_WR)?;
    pair.client.await_events(libc::POLLIN | libc::POLLRDHUP)?;
    check_eq!(
        pair.client.poll(all, SOON)?,
        all,
        "events when the peer has shut down its side"
    );
    check_eq!(
        pair.server.poll(all, SOON)?,
        libc::POLLOUT,
        "events of the side that shut down"
    );
    pair.client.shutdown(libc::SHUT_WR)?;
    pair.client.await_events(libc::POLLHUP)?;
    pair.server
        .await_events(libc::POLLHUP | libc::POLLIN | libc::POLLRDHUP)?;
    Ok(())
}
