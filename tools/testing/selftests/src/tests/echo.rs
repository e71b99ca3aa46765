//! Servers that know nothing of SMC behind somebody who sends unknown TCP options back, and clients
//! that know nothing of it in front of a server that does: TCP has to work, and nothing is lost.

use super::genl::counted;
use super::middlebox::Echoing;
use super::network::Rules;
use super::{join, once, Pattern};
use crate::kind::{Host, Kind};
use crate::mode;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Epoll, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

pub const TESTS: [Test; 7] = [
    once("echo.what_servers_do", 200, what_servers_do),
    once("echo.ways_to_connect", 120, ways_to_connect),
    once("echo.refused_the_second_time", 60, refused),
    once("echo.closed_meanwhile", 60, closed_meanwhile),
    once("echo.remembered_by_namespace", 60, by_namespace),
    once("echo.two_ends_make_a_habit", 120, habit),
    once("echo.server_speaks_first", 120, server_speaks_first),
];

/// The peer indicated SMC but does not speak it, and that is known from an earlier connection.
const NOCLC: u32 = 0x0301_0001;
const NOCLCKNOWN: u32 = 0x0301_0002;

/// What a server program does with a connection that begins with a Proposal.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Reads, and closes: a FIN.
    Closes,
    /// Closes without reading: a reset.
    Resets,
    /// Says something at once, before it has read anything, and more than a CLC header.
    Greets,
    /// Answers, and closes.
    Answers,
    /// Answers with less than a CLC header.
    AnswersBriefly,
    /// Sends back what it gets.
    Echoes,
    /// Waits for more.
    Waits,
}

/// A plain TCP server of host B whose first connection goes as `manner` says, and that serves the next
/// one: it is the outcome.
fn server(ctx: &Ctx, manner: Manner) -> Outcome<(SocketAddr, JoinHandle<Outcome<Sock>>)> {
    let (listener, address) = ctx.plain_listener()?;
    let thread = std::thread::spawn(move || -> Outcome<Sock> {
        let first = listener.accept().during("the first accept()")?;
        let read = || -> Outcome<Vec<u8>> {
            let mut got = vec![0; 1000];
            let length = first.recv(&mut got, 0).during("the first recv()")?;
            got.truncate(length);
            check!(length > 40, "no Proposal came: {got:02x?}");
            Ok(got)
        };
        match manner {
            Manner::Closes => drop(read()?),
            Manner::Resets => first.await_events(libc::POLLIN).map(drop)?,
            Manner::Greets => first.send_all(b"220 ready for your orders\r\n")?,
            Manner::Answers => {
                read()?;
                first.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
            }
            Manner::AnswersBriefly => {
                read()?;
                first.send_all(b"what?\n")?;
                first.shutdown(libc::SHUT_WR)?;
            }
            Manner::Echoes => first.send_all(&read()?)?,
            Manner::Waits => {
                read()?;
                // The end of the first connection, and only then the next one.
                check!(
                    matches!(first.recv(&mut [0; 10], 0), Ok(0) | Err(_)),
                    "more came of the first connection than a Proposal"
                );
            }
        }
        let second = match manner {
            Manner::Closes | Manner::Resets | Manner::Answers | Manner::Waits => {
                drop(first);
                listener.accept()
            }
            _ => listener.accept(),
        };
        second.during("the second accept()")
    });
    Ok((address, thread))
}

/// Data both ways, and the end; each byte where it belongs.
fn converse(ctx: &Ctx, pair: Pair) -> Outcome {
    const TOTAL: usize = 60_000;
    let pattern = Pattern::new(ctx, 86);
    for (near, far) in [(&pair.client, &pair.server), (&pair.server, &pair.client)] {
        near.send_all(pattern.at(0, TOTAL))?;
        let mut got = vec![0; TOTAL];
        far.recv_all(&mut got)?;
        pattern.verify(0, &got)?;
    }
    pair.client.shutdown(libc::SHUT_WR)?;
    check_eq!(pair.server.recv_to_end()?.len(), 0, "bytes left");
    drop(pair.server);
    check_eq!(pair.client.recv_to_end()?.len(), 0, "bytes left");
    Ok(())
}

fn fell_back(sock: &Sock, reason: u32) -> Outcome {
    check_eq!(
        format!("{:#010x}", mode::fallback_reason(sock)?),
        format!("{reason:#010x}"),
        "the reason of the fallback"
    );
    Ok(())
}

fn what_servers_do(ctx: &Ctx) -> Outcome {
    let middlebox = Echoing::new()?;
    for manner in [
        Manner::Closes,
        Manner::Resets,
        Manner::Greets,
        Manner::Answers,
        Manner::AnswersBriefly,
        Manner::Echoes,
        Manner::Waits,
    ] {
        let what = format!("a server that does this: {manner:?}");
        let (address, thread) = server(ctx, manner)?;
        middlebox.syns();
        let client = counted((Host::A, false, NOCLC), || ctx.connect(address)).during(&what)?;
        let server = join(thread).during(&what)?;
        fell_back(&client, NOCLC).during(&what)?;
        let (with_option, without) = middlebox.syns();
        check!(
            with_option > 0 && without > 0,
            "{what}: {with_option} SYNs with the option, {without} without"
        );
        check_eq!(server.peer()?, client.local()?, "peer of the server");
        converse(ctx, Pair { client, server }).during(&what)?;
    }
    Ok(())
}

/// The second connection to a server does without the option at once.
fn known(ctx: &Ctx, middlebox: &Echoing, listener: &Sock) -> Outcome {
    middlebox.syns();
    let address = listener.local()?;
    let client = counted((Host::A, false, NOCLCKNOWN), || ctx.connect(address))?;
    let server = listener.accept()?;
    fell_back(&client, NOCLCKNOWN)?;
    check_eq!(middlebox.syns().0, 0, "SYNs with the option");
    converse(ctx, Pair { client, server })
}

/// A server that greets each client, and that was found out by one.
fn found_out(ctx: &Ctx) -> Outcome<Sock> {
    let (listener, address) = ctx.plain_listener()?;
    let copy = listener.dup()?;
    let thread = std::thread::spawn(move || -> Outcome<Sock> {
        let first = copy.accept()?;
        first.send_all(b"220 greetings to everybody\r\n")?;
        let second = copy.accept()?;
        second.send_all(b"220 greetings to everybody\r\n")?;
        Ok(second)
    });
    let client = ctx.connect(address)?;
    join(thread)?;
    fell_back(&client, NOCLC)?;
    let mut greeting = [0; 28];
    client.recv_all(&mut greeting)?;
    check_eq!(&greeting, b"220 greetings to everybody\r\n", "the greeting");
    Ok(listener)
}

/// Non-blocking with epoll from before connect(), bound, and with options: nothing is different for
/// the program.
fn ways_to_connect(ctx: &Ctx) -> Outcome {
    let middlebox = Echoing::new()?;
    for manner in [Manner::Resets, Manner::Closes, Manner::Greets] {
        for events in [0, libc::EPOLLET] {
            let what = format!("epoll with events {events:#x} at a server: {manner:?}");
            let (address, thread) = server(ctx, manner)?;
            let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
            let epoll = Epoll::new()?;
            epoll.add(&client, libc::EPOLLIN | libc::EPOLLOUT | events, 7)?;
            // What a socket says before connect(): it hangs up.
            epoll.wait(Duration::ZERO)?;
            check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
            // On a busy machine it may be connected by now.
            let again = client.connect(address);
            let early = again.is_ok();
            if !early {
                check_errno!(again, libc::EALREADY, "connect() again");
            }
            let came = epoll.wait(sys::PATIENCE).during(&what)?;
            check_eq!(came, [(7, libc::EPOLLOUT)], "events: {what}");
            check_eq!(client.error()?, 0, "SO_ERROR: {what}");
            if !early {
                client.connect(address).during(&what)?;
            }
            check_errno!(client.connect(address), libc::EISCONN, "one more connect()");
            fell_back(&client, NOCLC).during(&what)?;
            let server = join(thread)?;
            client.set_nonblocking(false)?;
            converse(ctx, Pair { client, server }).during(&what)?;
        }
    }
    for manner in [Manner::Resets, Manner::Closes, Manner::Greets] {
        let what = format!("a bound client at a server: {manner:?}");
        let (address, thread) = server(ctx, manner)?;
        let client = ctx.socket(Host::A)?;
        client.bind(Host::A.address(ctx.kind, 0))?;
        let own = client.local()?;
        client.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1i32)?;
        client.set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 77i32)?;
        client.set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1i32)?;
        client.set(libc::IPPROTO_IP, libc::IP_TOS, 0x10i32)?;
        client.set(libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000i32)?;
        let buffer = client.get(libc::SOL_SOCKET, libc::SO_RCVBUF)?;
        client.connect(address).during(&what)?;
        fell_back(&client, NOCLC).during(&what)?;
        let server = join(thread)?;
        check_eq!(client.local()?, own, "own address of {what}");
        check_eq!(server.peer()?, own, "the server's peer: {what}");
        for (level, option, value) in [
            (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 77),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
            (libc::IPPROTO_IP, libc::IP_TOS, 0x10),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, buffer),
        ] {
            check_eq!(
                client.get(level, option)?,
                value,
                "option {option} of level {level}: {what}"
            );
        }
        converse(ctx, Pair { client, server }).during(&what)?;
    }
    // The port that TCP has chosen is kept, too: a program may have asked for it meanwhile. Unless an earlier
    // connection to another server still holds it (TIME-WAIT): then it cannot be bound.
    let mut kept = false;
    for _ in 0..4 {
        let (address, thread) = server(ctx, Manner::Closes)?;
        let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
        check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
        let own = client.local()?;
        client.await_events(libc::POLLOUT)?;
        client.set_nonblocking(false)?;
        kept |= client.local()? == own;
        let server = join(thread)?;
        converse(ctx, Pair { client, server })?;
        if kept {
            break;
        }
    }
    check!(
        kept,
        "own address, chosen by TCP, was another one each time"
    );
    drop(middlebox);
    Ok(())
}

/// The server is gone when the client comes again: that is what connect() says, and nothing is
/// remembered.
fn refused(ctx: &Ctx) -> Outcome {
    let middlebox = Echoing::new()?;
    let (listener, address) = ctx.plain_listener()?;
    let server = std::thread::spawn(move || -> Outcome {
        let first = listener.accept()?;
        first.await_events(libc::POLLIN)?;
        drop(listener);
        // Unread: a reset.
        drop(first);
        Ok(())
    });
    let client = ctx.socket(Host::A)?;
    check_errno!(client.connect(address), libc::ECONNREFUSED, "connect()");
    join(server)?;
    check_eq!(client.error()?, 0, "SO_ERROR after connect() has told it");
    drop(middlebox);
    // A server that does speak SMC, at the same place; the same socket will do.
    let listener = ctx.socket(Host::B)?;
    listener.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    listener.bind(address)?;
    listener.listen(8)?;
    client.connect(address).during("connect() once more")?;
    let server = listener.accept()?;
    ctx.prove(Host::A, &client)?;
    ctx.prove(Host::B, &server)?;
    converse(ctx, Pair { client, server })
}

/// A program that loses patience: no second connection is made.
fn closed_meanwhile(ctx: &Ctx) -> Outcome {
    let middlebox = Echoing::new()?;
    let (listener, address) = ctx.plain_listener()?;
    let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
    let first = listener.accept()?;
    first.await_events(libc::POLLIN)?;
    middlebox.syns();
    drop(client);
    // Whatever it sends, at last it is over.
    while !matches!(first.recv(&mut [0; 1000], 0), Ok(0) | Err(_)) {}
    drop(first);
    check_eq!(
        listener.poll(libc::POLLIN, Duration::from_millis(1500))?,
        0,
        "a connection of a client that has closed"
    );
    check_eq!(middlebox.syns(), (0, 0), "SYNs after close()");
    Ok(())
}

fn by_namespace(ctx: &Ctx) -> Outcome {
    let middlebox = Echoing::new()?;
    let listener = found_out(ctx)?;
    known(ctx, &middlebox, &listener)?;
    known(&ctx.with_kind(Kind::IpSmc4), &middlebox, &listener)?;
    // Another server of the same host is another server.
    let (other, address) = ctx.plain_listener()?;
    middlebox.syns();
    let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
    other.accept()?;
    check!(middlebox.syns().0 > 0, "another port is shunned, too");
    drop(client);
    // Host B itself has not found out anything.
    let client = ctx.socket(Host::B)?;
    client.connect(listener.local()?)?;
    let server = listener.accept()?;
    check!(
        mode::fallback_reason(&client)? != NOCLCKNOWN,
        "one namespace remembers for another"
    );
    converse(ctx, Pair { client, server })
}

/// A connection that ends is not remembered at first: the server may have begun anew, and speak SMC. Two in a row are.
fn habit(ctx: &Ctx) -> Outcome {
    let middlebox = Echoing::new()?;
    let (listener, address) = ctx.plain_listener()?;
    let twice = |listener: &Sock| -> Outcome {
        let copy = listener.dup()?;
        let thread = std::thread::spawn(move || -> Outcome<Sock> {
            let first = copy.accept()?;
            first.await_events(libc::POLLIN)?;
            drop(first);
            Ok(copy.accept()?)
        });
        let client = ctx.connect(address)?;
        join(thread)?;
        fell_back(&client, NOCLC)
    };
    twice(&listener).during("the first time")?;
    drop(middlebox);
    drop(listener);
    // Somebody at the same place who does speak SMC.
    let listener = ctx.socket(Host::B)?;
    listener.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    listener.bind(address)?;
    listener.listen(8)?;
    drop(ctx.pair_from(&listener, address)?);
    drop(listener);
    let middlebox = Echoing::new()?;
    let listener = Sock::new(Host::B, Kind::Tcp4, 0)?;
    listener.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    listener.bind(address)?;
    listener.listen(8)?;
    twice(&listener).during("the first time after a connection by SMC-R")?;
    twice(&listener).during("the second time")?;
    known(ctx, &middlebox, &listener)
}

/// The option is lost on the way back only: the server waits for a Proposal, the client for a
/// greeting.
fn server_speaks_first(ctx: &Ctx) -> Outcome {
    let rules = Rules::new(
        Host::A,
        "prerouting",
        &["tcp option 254 exists counter reset tcp option 254"],
    )?;
    let (listener, address) = ctx.listener(8)?;
    let waiting = ctx.connect(address)?;
    // The client says that it will say nothing: no need to wait.
    let mute = ctx.connect(address)?;
    mute.shutdown(libc::SHUT_WR)?;
    for client in [mute, waiting] {
        let (server, from) = listener.accept_from(0)?;
        check_eq!(from, client.local()?, "who was accepted");
        fell_back(&server, NOCLC)?;
        server.send_all(b"220 at your service\r\n")?;
        let mut greeting = [0; 21];
        client.recv_all(&mut greeting)?;
        check_eq!(&greeting, b"220 at your service\r\n", "the greeting");
        if client.send(b"thanks", libc::MSG_NOSIGNAL).is_ok() {
            let mut thanks = [0; 6];
            server.recv_all(&mut thanks)?;
            check_eq!(&thanks, b"thanks", "what the server received");
            converse(ctx, Pair { client, server })?;
        } else {
            check_eq!(server.recv_to_end()?.len(), 0, "bytes of a mute client");
        }
    }
    check!(rules.seen()? > 1, "no SYN-ACK with the option came by");
    drop(rules);
    Ok(())
}
