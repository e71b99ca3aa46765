//! epoll, select and ppoll beyond what `nonblock` has: one-shot, exclusive and nested sets, and who is
//! woken for what.

use super::{any, fallback, join};
use crate::kind::{Host, Kind};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, cvt, Epoll, Sock};
use crate::{check, check_eq, check_errno, Outcome};
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

pub const TESTS: [Test; 9] = [
    any("epoll.oneshot", 60, oneshot),
    any("epoll.exclusive", 60, exclusive),
    any("epoll.nested", 60, nested),
    any("epoll.each_edge_once", 60, each_edge_once),
    any("epoll.edge_of_end", 60, edge_of_end),
    any("epoll.select", 60, select),
    any("epoll.two_sets", 60, two_sets),
    any("epoll.before_connect", 60, before_connect),
    fallback("epoll.before_fallback", 60, before_fallback),
];

const SOON: Duration = Duration::from_secs(20);
/// How long to look for an event that must not come.
const NEVER: Duration = Duration::from_millis(100);
const ALL: i32 = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI;

/// One event, and then none until it is asked for again.
fn oneshot(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let epoll = Epoll::new()?;
    let events = libc::EPOLLIN | libc::EPOLLONESHOT;
    epoll.add(&server, events, 1)?;
    for round in 0..3u8 {
        client.send_all(&[round])?;
        check_eq!(epoll.wait(SOON)?, vec![(1, libc::EPOLLIN)], "the event");
        client.send_all(&[round])?;
        check_eq!(epoll.wait(NEVER)?, vec![], "events after the one");
        server.recv_all(&mut [0; 1])?;
        // Something is left: it is told as soon as it is asked for.
        epoll.modify(&server, events, 1)?;
        check_eq!(
            epoll.wait(SOON)?,
            vec![(1, libc::EPOLLIN)],
            "the event again"
        );
        server.recv_all(&mut [0; 1])?;
        epoll.modify(&server, events, 1)?;
        check_eq!(epoll.wait(NEVER)?, vec![], "events with nothing there");
    }
    drop(client);
    check_eq!(
        epoll.wait(SOON)?,
        vec![(1, libc::EPOLLIN)],
        "the event of the end"
    );
    Ok(())
}

/// Threads with a set of their own each accept from one listener: every connection is taken once, and
/// with one idle thread after the other not all of them are woken for each.
fn exclusive(ctx: &Ctx) -> Outcome {
    const THREADS: usize = 4;
    const CONNECTIONS: usize = 24;
    let (listener, address) = ctx.listener(64)?;
    listener.set_nonblocking(true)?;
    let listener = Arc::new(listener);
    let (taken, woken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (listener, taken, woken) = (listener.clone(), taken.clone(), woken.clone());
            std::thread::spawn(move || -> Outcome {
                let epoll = Epoll::new()?;
                epoll.add(&listener, libc::EPOLLIN | libc::EPOLLEXCLUSIVE, 1)?;
                while taken.load(Ordering::SeqCst) < CONNECTIONS {
                    if epoll.wait(NEVER)?.is_empty() {
                        continue;
                    }
                    woken.fetch_add(1, Ordering::SeqCst);
                    match listener.accept() {
                        Ok(server) => {
                            taken.fetch_add(1, Ordering::SeqCst);
                            server.send_all(b"!")?;
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            })
        })
        .collect();
    for _ in 0..CONNECTIONS {
        let client = ctx.connect(address)?;
        ctx.prove(Host::A, &client)?;
        client.recv_all(&mut [0; 1])?;
        check_eq!(client.recv(&mut [0; 1], 0)?, 0, "end of stream");
    }
    threads.into_iter().try_for_each(join)?;
    check_eq!(
        taken.load(Ordering::SeqCst),
        CONNECTIONS,
        "connections taken"
    );
    let woken = woken.load(Ordering::SeqCst);
    check!(
        woken < CONNECTIONS * THREADS,
        "{CONNECTIONS} connections woke {woken} times: every thread for each"
    );
    Ok(())
}

/// A set within a set.
fn nested(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let (inner, outer) = (Epoll::new()?, Epoll::new()?);
    inner.add(&server, libc::EPOLLIN, 1)?;
    outer.add(&inner, libc::EPOLLIN, 2)?;
    check_eq!(outer.wait(NEVER)?, vec![], "events with nothing sent");
    for _ in 0..2 {
        client.send_all(b"x")?;
        check_eq!(
            outer.wait(SOON)?,
            vec![(2, libc::EPOLLIN)],
            "events outside"
        );
        check_eq!(inner.wait(SOON)?, vec![(1, libc::EPOLLIN)], "events inside");
        server.recv_all(&mut [0; 1])?;
        check_eq!(outer.wait(NEVER)?, vec![], "events with everything read");
    }
    check_errno!(
        inner.add(&outer, libc::EPOLLIN, 3),
        libc::ELOOP,
        "a set within itself"
    );
    Ok(())
}

/// What an edge-triggered set says, each step by itself.
fn edges(epoll: &Epoll) -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    loop {
        let events = epoll.wait(NEVER)?;
        if events.is_empty() {
            return Ok(all);
        }
        all.extend(events.into_iter().map(|(_, events)| events));
    }
}

/// A program that keeps all events registered, as most event loops do, is woken for what is new and for
/// nothing else: not whenever something that it sent is on its way or acknowledged.
fn each_edge_once(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let (near, far) = (Epoll::new()?, Epoll::new()?);
    near.add(&client, ALL | libc::EPOLLET, 1)?;
    far.add(&server, ALL | libc::EPOLLET, 2)?;
    check_eq!(edges(&near)?, vec![libc::EPOLLOUT], "events at first");
    check_eq!(edges(&far)?, vec![libc::EPOLLOUT], "events at first");
    for round in 0..4u8 {
        client.send_all(&[round; 100])?;
        check_eq!(
            edges(&far)?,
            vec![libc::EPOLLIN | libc::EPOLLOUT],
            "events of new data in round {round}"
        );
        server.recv_all(&mut [0; 100])?;
        check_eq!(
            edges(&near)?,
            Vec::<i32>::new(),
            "events for the sender when its data has gone, in round {round}"
        );
        check_eq!(
            edges(&far)?,
            Vec::<i32>::new(),
            "events for the receiver when it has read, in round {round}"
        );
    }
    Ok(())
}

fn edge_of_end(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let epoll = Epoll::new()?;
    epoll.add(&client, ALL | libc::EPOLLET, 1)?;
    check_eq!(edges(&epoll)?, vec![libc::EPOLLOUT], "events at first");
    server.shutdown(libc::SHUT_WR)?;
    let ended = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP;
    let seen = edges(&epoll)?;
    check!(
        seen.last() == Some(&ended),
        "events of the end: {seen:x?} instead of {ended:#x}"
    );
    client.shutdown(libc::SHUT_WR)?;
    let seen = edges(&epoll)?;
    check!(
        seen.last() == Some(&(ended | libc::EPOLLHUP)),
        "events of both ends: {seen:x?}"
    );
    drop((client, server));

    let Pair { client, server } = ctx.pair()?;
    let epoll = Epoll::new()?;
    epoll.add(&client, ALL | libc::EPOLLET, 1)?;
    check_eq!(edges(&epoll)?, vec![libc::EPOLLOUT], "events at first");
    server.set_linger(Some(0))?;
    drop(server);
    let seen = edges(&epoll)?;
    check!(
        seen.last()
            .is_some_and(|events| events & libc::EPOLLERR != 0 && events & libc::EPOLLHUP != 0),
        "events of a reset: {seen:x?}"
    );
    Ok(())
}

/// Which of the three sets of select() the socket is in, within the time.
fn selected(sock: &Sock, time: Duration) -> io::Result<[bool; 3]> {
    let fd = sock.as_raw_fd();
    // SAFETY: all zeroes are valid sets, which are live, and the descriptor is small.
    unsafe {
        let mut sets: [libc::fd_set; 3] = zeroed();
        for set in &mut sets {
            libc::FD_SET(fd, set);
        }
        let time = libc::timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        };
        let [input, output, urgent] = &mut sets;
        cvt(libc::pselect(
            fd + 1,
            input,
            output,
            urgent,
            &raw const time,
            std::ptr::null(),
        ))?;
        Ok([
            libc::FD_ISSET(fd, &raw const sets[0]),
            libc::FD_ISSET(fd, &raw const sets[1]),
            libc::FD_ISSET(fd, &raw const sets[2]),
        ])
    }
}

fn ppoll(sock: &Sock, events: i16, time: Duration) -> io::Result<i16> {
    let mut entry = libc::pollfd {
        fd: sock.as_raw_fd(),
        events,
        revents: 0,
    };
    let time = libc::timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    };
    // SAFETY: one live pollfd and a live time.
    cvt(unsafe { libc::ppoll(&raw mut entry, 1, &raw const time, std::ptr::null()) })?;
    Ok(entry.revents)
}

fn select(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    check_eq!(
        selected(&server, SOON)?,
        [false, true, false],
        "an idle socket"
    );
    client.send_all(b"abc")?;
    server.await_events(libc::POLLIN)?;
    check_eq!(
        selected(&server, SOON)?,
        [true, true, false],
        "with data there"
    );
    client.send(b"!", libc::MSG_OOB)?;
    server.await_events(libc::POLLPRI)?;
    check_eq!(
        selected(&server, SOON)?,
        [true, true, true],
        "with urgent data there"
    );
    check_eq!(
        ppoll(&server, libc::POLLIN | libc::POLLPRI, SOON)?,
        libc::POLLIN | libc::POLLPRI,
        "ppoll() with urgent data there"
    );
    check_eq!(
        server.recv(&mut [0; 1], libc::MSG_OOB)?,
        1,
        "the urgent byte"
    );
    server.recv_all(&mut [0; 3])?;
    check_eq!(
        selected(&server, SOON)?,
        [false, true, false],
        "with everything read"
    );
    check_eq!(
        ppoll(&server, libc::POLLIN, NEVER)?,
        0,
        "ppoll() out of time"
    );
    client.shutdown(libc::SHUT_WR)?;
    server.await_events(libc::POLLIN)?;
    check_eq!(
        selected(&server, SOON)?,
        [true, true, false],
        "at the end of the stream"
    );
    let (listener, address) = ctx.listener(8)?;
    check_eq!(selected(&listener, NEVER)?, [false; 3], "an idle listener");
    let _client = ctx.connect(address)?;
    listener.await_events(libc::POLLIN)?;
    check_eq!(
        selected(&listener, SOON)?,
        [true, false, false],
        "a listener with a connection"
    );
    Ok(())
}

/// Two sets, two descriptors of one socket: each has its own edges; a closed descriptor leaves the other.
fn two_sets(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let second = server.dup()?;
    let (one, two) = (Epoll::new()?, Epoll::new()?);
    let events = libc::EPOLLIN | libc::EPOLLET;
    one.add(&server, events, 1)?;
    two.add(&second, events, 2)?;
    client.send_all(b"x")?;
    check_eq!(
        one.wait(SOON)?,
        vec![(1, libc::EPOLLIN)],
        "events of the first set"
    );
    check_eq!(
        two.wait(SOON)?,
        vec![(2, libc::EPOLLIN)],
        "events of the second set"
    );
    // A descriptor of the socket is left, so the entry is, too.
    drop(server);
    client.send_all(b"x")?;
    check_eq!(
        one.wait(SOON)?,
        vec![(1, libc::EPOLLIN)],
        "events by a closed descriptor"
    );
    check_eq!(
        two.wait(SOON)?,
        vec![(2, libc::EPOLLIN)],
        "events of the second set"
    );
    second.recv_all(&mut [0; 2])?;
    Ok(())
}

/// What a set says, step by step.
type Story = Vec<(&'static str, Vec<i32>)>;

/// Everything that a set says of a client's connection to a server, which it knows since before it is
/// connected.
fn told(kind: Kind, server: Kind, events: i32) -> Outcome<(Story, Sock)> {
    let listener = Sock::new(Host::B, server, 0)?;
    listener.bind(Host::B.address(kind, 0))?;
    listener.listen(8)?;
    let client = Sock::new(Host::A, kind, libc::SOCK_NONBLOCK)?;
    let epoll = Epoll::new()?;
    epoll.add(&client, events, 1)?;
    edges_or_state(&epoll, events)?;
    check_errno!(
        client.connect(listener.local()?),
        libc::EINPROGRESS,
        "connect()"
    );
    let server = listener.accept()?;
    client.await_events(libc::POLLOUT)?;
    sys::eventually("the set says that it is connected", || {
        Ok(edges_or_state(&epoll, events)?
            .last()
            .is_some_and(|last| last & libc::EPOLLOUT != 0)
            || events & libc::EPOLLOUT == 0)
    })?;
    let mut all = Vec::new();
    let mut step = |what, epoll: &Epoll| -> Outcome {
        all.push((what, edges_or_state(epoll, events)?));
        Ok(())
    };
    step("at rest", &epoll)?;
    for (what, there) in [("after data", 4), ("after more data", 8)] {
        server.send_all(b"data")?;
        sys::eventually(
            "the data is there",
            || Ok(client.readable_bytes()? == there),
        )?;
        step(what, &epoll)?;
    }
    client.recv_all(&mut [0; 8])?;
    step("after reading", &epoll)?;
    client.send_all(b"data")?;
    server.recv_all(&mut [0; 4])?;
    step("after sending", &epoll)?;
    server.shutdown(libc::SHUT_WR)?;
    client.await_events(libc::POLLRDHUP)?;
    step("after the end", &epoll)?;
    client.shutdown(libc::SHUT_WR)?;
    client.await_events(libc::POLLHUP)?;
    // Of which TCP tells, too: between machines a moment later.
    sys::eventually("the end is acknowledged", || {
        Ok(client.unacknowledged_bytes()? == 0)
    })?;
    step("after both ends", &epoll)?;
    drop(server);
    step("after the other side's close()", &epoll)?;
    Ok((all, client))
}

/// The edges that come, or with a level-triggered set what it says now.
fn edges_or_state(epoll: &Epoll, events: i32) -> io::Result<Vec<i32>> {
    if events & libc::EPOLLET != 0 {
        edges(epoll)
    } else {
        let events = epoll.wait(NEVER)?;
        Ok(events.into_iter().map(|(_, events)| events).collect())
    }
}

const SETS: [i32; 4] = [
    ALL | libc::EPOLLET,
    ALL,
    libc::EPOLLIN,
    libc::EPOLLIN | libc::EPOLLET,
];

/// A set that knows the socket since before it is connected says what it says of a TCP socket: nothing of
/// the TCP connection beside.
fn before_connect(ctx: &Ctx) -> Outcome {
    for events in SETS {
        let plain = ctx.kind.plain();
        let (wanted, _) = told(plain, plain, events)?;
        let (got, client) = told(ctx.kind, ctx.kind, events)?;
        ctx.prove(Host::A, &client)?;
        check_eq!(got, wanted, "what the set with {events:#x} says");
    }
    Ok(())
}

/// A set that knows the socket since before it became one of TCP says what it says of a TCP socket, step
/// by step, and nothing more.
fn before_fallback(ctx: &Ctx) -> Outcome {
    for events in SETS {
        let plain = ctx.kind.plain();
        let (wanted, _) = told(plain, plain, events)?;
        let (got, _) = told(ctx.kind, plain, events)?;
        check_eq!(got, wanted, "what the set with {events:#x} says");
    }
    Ok(())
}
