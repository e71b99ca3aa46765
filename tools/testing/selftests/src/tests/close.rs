//! Every way to end a connection.

use super::asleep::Sleeper;
use super::network::Rules;
use super::{any, join, Pattern};
use crate::kind::{Host, Kind};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{Child, Ended, Epoll, Sock, PATIENCE};
use crate::{check, check_eq, check_errno, rig, Context, Fail, Outcome};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub const TESTS: [Test; 19] = [
    any("close.shutdown_write", 60, shutdown_write),
    any("close.shutdown_read", 60, shutdown_read),
    any("close.shutdown_both", 60, shutdown_both),
    any("close.shutdown_matrix", 240, shutdown_matrix),
    any("close.data_before_end", 240, data_before_end),
    any("close.half_close", 120, half_close),
    any("close.simultaneous", 120, simultaneous),
    any("close.unread_data", 60, unread_data),
    any("close.unsent_data", 120, unsent_data),
    any("close.held_back_data", 60, held_back_data),
    any(
        "close.end_behind_held_back_data",
        60,
        end_behind_held_back_data,
    ),
    any("close.linger_reset", 60, linger_reset),
    any("close.linger_of_nothing", 60, linger_of_nothing),
    any("close.reset_is_no_end", 200, reset_is_no_end),
    any("close.linger_wait", 60, linger_wait),
    any("close.epipe_and_sigpipe", 60, epipe_and_sigpipe),
    any("close.nobody_lingers_for_tcp", 120, nobody_lingers_for_tcp),
    any(
        "close.listener_before_its_clients",
        120,
        listener_before_clients,
    ),
    any(
        "close.listener_ended_by_others",
        90,
        listener_ended_by_others,
    ),
];

/// Both directions, client first or server first.
fn both_ways(ctx: &Ctx, body: fn(&Ctx, &Sock, &Sock) -> Outcome) -> Outcome {
    let pair = ctx.pair()?;
    body(ctx, &pair.client, &pair.server).during("client first")?;
    drop(pair);
    let pair = ctx.pair()?;
    body(ctx, &pair.server, &pair.client).during("server first")
}

fn shutdown_write(ctx: &Ctx) -> Outcome {
    both_ways(ctx, |_, near, far| {
        near.send_all(b"last words")?;
        near.shutdown(libc::SHUT_WR)?;
        check_errno!(
            near.send(b"x", libc::MSG_NOSIGNAL),
            libc::EPIPE,
            "send() after shutdown()"
        );
        check_eq!(
            far.recv_to_end()?,
            b"last words",
            "what came before the end"
        );
        // The other direction is as before.
        far.send_all(b"answer")?;
        let mut got = [0; 6];
        near.recv_all(&mut got)?;
        check_eq!(&got, b"answer", "what came in the other direction");
        check_eq!(far.recv(&mut got, 0)?, 0, "end of stream once more");
        Ok(())
    })
}

/// A client that nobody has accepted comes back as soon as it is given up, and finds no listener any more: a
/// connection to one that is about to go would be lost without a word now and then.
fn listener_before_clients(ctx: &Ctx) -> Outcome {
    for round in 0..(400 / ctx.divisor).max(20) {
        let (listener, address) = ctx.listener(8)?;
        let plain = round % 2 == 1 && address.is_ipv4();
        let kind = if plain { Kind::Tcp4 } else { ctx.kind };
        let of = ctx.with_kind(kind);
        let client = of.connect(address)?;
        listener.await_events(libc::POLLIN)?;
        let again = of.socket(Host::A)?;
        let returning = thread::spawn(move || -> Outcome {
            let during = format!("round {round} with {kind:?}");
            check_errno!(
                client.recv(&mut [0; 1], 0),
                libc::ECONNRESET,
                "recv(), {during}"
            );
            check_errno!(
                again.connect(address),
                libc::ECONNREFUSED,
                "connect() again, {during}"
            );
            Ok(())
        });
        drop(listener);
        join(returning)?;
    }
    Ok(())
}

/// An administrator ends a listener: `accept` fails, also where somebody waits in it, `poll` says so, and who waits to be accepted
/// is reset. The socket can listen anew.
fn listener_ended_by_others(ctx: &Ctx) -> Outcome {
    const NOT_YET: Duration = Duration::from_millis(100);
    let end = |address: SocketAddr| {
        rig::run_on(
            Host::B,
            &format!("ss -K -n -t -l sport = :{}", address.port()),
        )
    };
    let (listener, address) = ctx.listener(8)?;
    let listener = Arc::new(listener);
    let epoll = Epoll::new()?;
    epoll.add(&*listener, libc::EPOLLIN, 1)?;
    check_eq!(epoll.wait(NOT_YET)?, vec![], "events of an idle listener");
    let mut sleepers = Vec::new();
    for _ in 0..2 {
        let listener = listener.clone();
        sleepers.push(Sleeper::spawn(move || {
            check_errno!(
                listener.accept(),
                libc::EINVAL,
                "accept() of a listener that is ended"
            );
            Ok(())
        })?);
    }
    let polled = listener.clone();
    sleepers.push(Sleeper::spawn(move || {
        let events = polled.poll(libc::POLLIN, PATIENCE)?;
        check!(events & libc::POLLHUP != 0, "poll() reports {events:#x}");
        Ok(())
    })?);
    end(address)?;
    for sleeper in sleepers {
        sleeper.wake_up("a call ends with its listener")?;
    }
    listener.await_events(libc::POLLHUP | libc::POLLERR | libc::POLLIN)?;
    check!(
        epoll
            .wait(PATIENCE)?
            .iter()
            .any(|&(_, events)| events & libc::EPOLLHUP != 0),
        "epoll does not tell of the end"
    );
    check_eq!(listener.error()?, libc::ECONNABORTED, "SO_ERROR");
    check_errno!(
        listener.accept(),
        libc::EINVAL,
        "accept() of a listener that was ended"
    );
    // TCP has shut it down, and a connection would be, too: as often as it listens after that, until it ends by itself.
    listener.listen(8)?;
    check_eq!(listener.local()?, address, "address of the second listener");
    listener.shutdown(libc::SHUT_RD)?;
    listener.listen(8)?;
    let pair = ctx.pair_from(&listener, address)?;
    pair.client.send_all(b"x")?;
    pair.server.recv_all(&mut [0; 1])?;
    // With somebody in the queue, and others who have been accepted.
    let waits = ctx.connect(address)?;
    listener.await_events(libc::POLLIN)?;
    end(address)?;
    check_errno!(
        waits.recv(&mut [0; 1], 0),
        libc::ECONNRESET,
        "recv() of a client that nobody has accepted"
    );
    listener.await_events(libc::POLLHUP)?;
    check_errno!(listener.accept(), libc::EINVAL, "accept() afterwards");
    pair.server.send_all(b"y")?;
    pair.client.recv_all(&mut [0; 1])?;
    Ok(())
}

/// Readers that never sleep, so that data and the end of it come in the middle of a read.
fn data_before_end(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    for round in 0..(400 / ctx.divisor).max(40) {
        let pair = ctx.pair_from(&listener, address)?;
        pair.client.set(libc::IPPROTO_TCP, libc::TCP_CORK, 1)?;
        let client = pair.client;
        let writer = thread::spawn(move || -> Outcome {
            client.send_all(b"x")?;
            client.shutdown(libc::SHUT_WR)?;
            Ok(())
        });
        let got = loop {
            match pair.server.recv(&mut [0; 4], libc::MSG_DONTWAIT) {
                Err(err) if err.raw_os_error() == Some(libc::EAGAIN) => {}
                got => break got?,
            }
        };
        check_eq!(got, 1, "bytes that came before the end, round {round}");
        join(writer)?;
    }
    Ok(())
}

fn shutdown_read(ctx: &Ctx) -> Outcome {
    both_ways(ctx, |_, near, far| {
        near.shutdown(libc::SHUT_RD)?;
        check_eq!(
            near.recv(&mut [0; 1], 0)?,
            0,
            "recv() after shutdown(SHUT_RD)"
        );
        // The other direction is as before.
        near.send_all(b"still talking")?;
        let mut got = [0; 13];
        far.recv_all(&mut got)?;
        check_eq!(&got, b"still talking", "what came in the other direction");
        near.shutdown(libc::SHUT_WR)?;
        check_eq!(far.recv(&mut got, 0)?, 0, "end of stream");
        Ok(())
    })
}

fn shutdown_both(ctx: &Ctx) -> Outcome {
    both_ways(ctx, |_, near, far| {
        near.send_all(b"bye")?;
        near.shutdown(libc::SHUT_RDWR)?;
        check_errno!(
            near.send(b"x", libc::MSG_NOSIGNAL),
            libc::EPIPE,
            "send() after shutdown()"
        );
        check_eq!(near.recv(&mut [0; 1], 0)?, 0, "recv() after shutdown()");
        check_eq!(far.recv_to_end()?, b"bye", "what came before the end");
        far.shutdown(libc::SHUT_RDWR)?;
        check_errno!(
            far.send(b"x", libc::MSG_NOSIGNAL),
            libc::EPIPE,
            "send() of the other side"
        );
        Ok(())
    })
}

/// What each side does, in both orders, with and without data under way: nothing may hang, and
/// what was sent before a side's own end arrives.
fn shutdown_matrix(ctx: &Ctx) -> Outcome {
    const ENDS: [i32; 4] = [libc::SHUT_RD, libc::SHUT_WR, libc::SHUT_RDWR, CLOSE];
    /// Not a direction: close() instead.
    const CLOSE: i32 = -1;
    let (listener, address) = ctx.listener(8)?;
    for first in ENDS {
        for second in ENDS {
            for data in [false, true] {
                let Pair { client, server } = ctx.pair_from(&listener, address)?;
                let what = format!("client {first}, server {second}, data {data}");
                if data {
                    client.send_all(b"from the client")?;
                    server.send_all(b"from the server")?;
                }
                let client = end(client, first).during(&what)?;
                // With a plain close() of the client its unread data is a reset: the server's
                // half of the data may then be gone, as with TCP.
                let reset = first == CLOSE && data;
                if let (false, Some(_), true) = (reset, &client, data) {
                    let mut got = [0; 15];
                    server.recv_all(&mut got).during(&what)?;
                    check_eq!(&got, b"from the client", "{what}: what the server received");
                }
                match end(server, second) {
                    Ok(_) => {}
                    Err(failure) => {
                        check!(
                            reset || first == libc::SHUT_RDWR || first == CLOSE,
                            "{what}: {failure}"
                        );
                    }
                }
                if let Some(client) = client {
                    // Whatever it is, it comes: data, the end, or an error.
                    client.poll(
                        libc::POLLIN,
                        Duration::from_secs(if second == libc::SHUT_RD { 0 } else { 20 }),
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn end(sock: Sock, how: i32) -> Outcome<Option<Sock>> {
    if how < 0 {
        drop(sock);
        return Ok(None);
    }
    sock.shutdown(how)?;
    Ok(Some(sock))
}

/// Request, end of the request, a large answer, end: what `nc` and HTTP/1.0 do.
fn half_close(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let request = Pattern::new(ctx, 21);
    let answer = Pattern::new(ctx, 22);
    let total = 4 * 1024 * 1024 / ctx.divisor;
    let check_request = Pattern::new(ctx, 21);
    let check_answer = Pattern::new(ctx, 22);
    let server = pair.server;
    let thread = std::thread::spawn(move || -> Outcome {
        let got = server.recv_to_end().during("request")?;
        check_eq!(got.len(), total, "bytes of the request");
        check_request.verify(0, &got)?;
        let mut sent = 0;
        while sent < total {
            let part = answer.at(sent, total - sent);
            server.send_all(part).during("answer")?;
            sent += part.len();
        }
        Ok(())
    });
    let mut sent = 0;
    while sent < total {
        let part = request.at(sent, total - sent);
        pair.client.send_all(part)?;
        sent += part.len();
    }
    pair.client.shutdown(libc::SHUT_WR)?;
    let got = pair.client.recv_to_end()?;
    join(thread)?;
    check_eq!(got.len(), total, "bytes of the answer");
    check_answer.verify(0, &got)
}

fn simultaneous(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    for round in 0..50 {
        let Pair { client, server } = ctx.pair_from(&listener, address)?;
        if round % 2 == 0 {
            client.send_all(b"x")?;
            server.recv_all(&mut [0; 1])?;
        }
        let thread = std::thread::spawn(move || -> Outcome {
            drop(server);
            Ok(())
        });
        drop(client);
        join(thread)?;
    }
    Ok(())
}

/// Data that nobody will read any more is no end of stream but a reset.
fn unread_data(ctx: &Ctx) -> Outcome {
    both_ways_owned(ctx, |near, far| {
        near.send_all(&[1; 5000])?;
        far.await_events(libc::POLLIN)?;
        drop(far);
        // The reader learns it: an error, never data and never silence.
        let mut got = [0; 16];
        let end = near.recv(&mut got, 0);
        check!(
            matches!(&end, Ok(0))
                || matches!(&end, Err(error) if error.raw_os_error() == Some(libc::ECONNRESET)),
            "recv() after the peer closed with unread data: {end:?}"
        );
        write_until_error(&near)
    })
}

fn both_ways_owned(ctx: &Ctx, body: impl Fn(Sock, Sock) -> Outcome) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    body(client, server).during("client first")?;
    let Pair { client, server } = ctx.pair()?;
    body(server, client).during("server first")
}

/// A writer must learn that its peer is gone.
fn write_until_error(sock: &Sock) -> Outcome {
    let mut last = Ok(0);
    crate::sys::eventually("send() fails when the peer is gone", || {
        last = sock.send(&[0; 1000], libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
        Ok(matches!(&last, Err(error) if error.raw_os_error() != Some(libc::EAGAIN)))
    })?;
    let code = last.err().and_then(|error| error.raw_os_error());
    check!(
        code == Some(libc::EPIPE) || code == Some(libc::ECONNRESET),
        "send() failed with {code:?} instead of EPIPE or ECONNRESET"
    );
    Ok(())
}

/// close() returns at once; what was sent arrives all the same.
fn unsent_data(ctx: &Ctx) -> Outcome {
    both_ways_owned_pattern(ctx, |pattern, near, far| {
        let sent = pattern.fill(&near)?;
        drop(near);
        // Later than the closing side's last moment in the process.
        std::thread::sleep(Duration::from_millis(300));
        let got = far.recv_to_end()?;
        check_eq!(got.len(), sent, "bytes that arrived after close()");
        pattern.verify(0, &got)
    })
}

fn both_ways_owned_pattern(ctx: &Ctx, body: fn(&Pattern, Sock, Sock) -> Outcome) -> Outcome {
    let pattern = Pattern::new(ctx, 23);
    let Pair { client, server } = ctx.pair()?;
    body(&pattern, client, server).during("client first")?;
    let Pair { client, server } = ctx.pair()?;
    body(&pattern, server, client).during("server first")
}

/// What is held back for more when the peer closes was written to nobody, which is no reset by the peer.
fn held_back_data(ctx: &Ctx) -> Outcome {
    both_ways_owned(ctx, |near, far| {
        near.shutdown(libc::SHUT_RDWR)?;
        far.await_events(libc::POLLRDHUP)?;
        far.send(&[1; 100], libc::MSG_MORE)?;
        drop(near);
        far.await_events(libc::POLLHUP)?;
        check_eq!(far.error()?, libc::EPIPE, "SO_ERROR");
        write_until_error(&far)
    })
}

/// The same without a word before: what the peer has sent has come to its end all the same.
fn end_behind_held_back_data(ctx: &Ctx) -> Outcome {
    // What is held back may be sent at any moment, and then the peer closes with unread data, which is a reset.
    const ROUNDS: usize = 20;
    for client_first in [true, false] {
        let mut round = 0;
        loop {
            let Pair { client, server } = ctx.pair()?;
            let (near, far) = if client_first {
                (client, server)
            } else {
                (server, client)
            };
            if ends_behind_held_back_data(near, far)
                .during(&format!("client first: {client_first}"))?
            {
                break;
            }
            round += 1;
            check!(round < ROUNDS, "nothing was held back in {ROUNDS} rounds");
        }
    }
    Ok(())
}

/// False if nothing was held back when the peer closed.
fn ends_behind_held_back_data(near: Sock, far: Sock) -> Outcome<bool> {
    near.send_all(b"answer")?;
    far.await_events(libc::POLLIN)?;
    far.send(&[1; 100], libc::MSG_MORE)?;
    drop(near);
    far.await_events(libc::POLLHUP)?;
    match far.recv_to_end() {
        Ok(came) => check_eq!(came, b"answer", "what came before the end"),
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    check_eq!(far.error()?, libc::EPIPE, "SO_ERROR");
    write_until_error(&far)?;
    Ok(true)
}

fn linger_reset(ctx: &Ctx) -> Outcome {
    both_ways_owned(ctx, |near, far| {
        near.set_linger(Some(0))?;
        drop(near);
        crate::sys::eventually("POLLERR or POLLHUP after a reset", || {
            Ok(far.poll(libc::POLLIN, Duration::from_millis(200))?
                & (libc::POLLERR | libc::POLLHUP)
                != 0)
        })?;
        check_errno!(
            far.recv(&mut [0; 1], 0),
            libc::ECONNRESET,
            "recv() after a reset"
        );
        check_errno!(
            far.send(b"x", libc::MSG_NOSIGNAL),
            libc::EPIPE,
            "send() after a reset"
        );
        Ok(())
    })
}

/// Nothing is left to be reset where both have said that they write no more: the other one, who still has the socket,
/// sees no error.
fn linger_of_nothing(ctx: &Ctx) -> Outcome {
    for closer_first in [false, true] {
        both_ways_owned(ctx, |near, far| {
            let (first, second) = if closer_first {
                (&near, &far)
            } else {
                (&far, &near)
            };
            first.shutdown(libc::SHUT_WR)?;
            second.await_events(libc::POLLRDHUP)?;
            second.shutdown(libc::SHUT_WR)?;
            near.await_events(libc::POLLHUP)?;
            far.await_events(libc::POLLHUP)?;
            near.set_linger(Some(0))?;
            drop(near);
            let events = far.poll(libc::POLLIN, Duration::from_millis(500))?;
            check_eq!(events & libc::POLLERR, 0, "POLLERR after close()");
            std::thread::sleep(Duration::from_millis(200));
            check_eq!(far.error()?, 0, "SO_ERROR");
            check_eq!(far.recv(&mut [0; 1], 0)?, 0, "bytes of an ended stream");
            Ok(())
        })
        .during(if closer_first {
            "who closes ended first"
        } else {
            "who closes ended last"
        })?;
    }
    Ok(())
}

/// Who reads at the moment of a reset is told of it, and not of an end: he would take what he has for all.
fn reset_is_no_end(ctx: &Ctx) -> Outcome {
    const RESETS: usize = 400;

    let (listener, address) = ctx.listener(8)?;
    for reset in 0..(RESETS / ctx.divisor).max(50) {
        let pair = ctx.pair_from(&listener, address)?;
        let reader = pair.server;
        let reading = thread::spawn(move || -> Outcome {
            let mut bytes = [0; 16];
            loop {
                match reader.recv(&mut bytes, libc::MSG_DONTWAIT) {
                    Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                    Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => return Ok(()),
                    other => return Err(Fail(format!("recv() at a reset: {other:?}"))),
                }
            }
        });
        pair.client.set_linger(Some(0))?;
        drop(pair.client);
        join(reading).during(&format!("reset {reset}"))?;
    }
    Ok(())
}

/// With SO_LINGER close() waits until everything is delivered.
fn linger_wait(ctx: &Ctx) -> Outcome {
    let pattern = Pattern::new(ctx, 24);
    let Pair { client, server } = ctx.pair()?;
    client.set_linger(Some(30))?;
    let sent = pattern.fill(&client)?;
    let thread = std::thread::spawn(move || -> Outcome {
        drop(client);
        Ok(())
    });
    let got = server.recv_to_end()?;
    check_eq!(got.len(), sent, "bytes that arrived");
    pattern.verify(0, &got)?;
    drop(server);
    join(thread)
}

/// The TCP connection beside cannot end in an orderly way, and `SO_LINGER` is long: that holds up nobody. All
/// timers of the module go on, and its link groups.
fn nobody_lingers_for_tcp(ctx: &Ctx) -> Outcome {
    let other = ctx.pair()?;
    let Pair { client, server } = ctx.pair()?;
    let port = client.local()?.port();
    let rule = format!("tcp dport {port} drop");
    let rules = Rules::new(Host::A, "prerouting", &[&rule])?;
    for end in [client, server] {
        end.set_linger(Some(20))?;
        // In a thread: plain TCP does wait.
        thread::spawn(move || drop(end));
    }
    thread::sleep(Duration::from_secs(1));
    for _ in 0..3 {
        let pair = ctx.pair()?;
        for end in [&pair.client, &other.client] {
            end.set(libc::IPPROTO_TCP, libc::TCP_CORK, 1i32)?;
            end.send_all(b"held back for a moment")?;
        }
        for end in [&pair.server, &other.server] {
            end.recv_all(&mut [0; 22])?;
        }
    }
    drop(rules);
    Ok(())
}

fn epipe_and_sigpipe(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    client.send_all(b"x")?;
    server.recv_all(&mut [0; 1])?;
    drop(server);
    write_until_error(&client)?;
    check_errno!(
        client.send(b"x", libc::MSG_NOSIGNAL),
        libc::EPIPE,
        "send() with MSG_NOSIGNAL"
    );
    check_errno!(
        client.write(b"x"),
        libc::EPIPE,
        "write() with SIGPIPE ignored"
    );
    let mut child = Child::fork(|| {
        // SAFETY: restores the default action, in a process of its own.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        client.send(b"x", libc::MSG_NOSIGNAL).err();
        client.write(b"x")?;
        Ok(())
    })?;
    check_eq!(
        child.wait()?,
        Ended::Signal(libc::SIGPIPE),
        "end of the writing process"
    );
    Ok(())
}
