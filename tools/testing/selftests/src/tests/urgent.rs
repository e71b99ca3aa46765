//! Urgent data: one byte ahead of the stream, as TCP has it.

use super::{any, join, Pattern};
use crate::kind::Host;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{cvt, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use rand::Rng;
use std::mem::zeroed;
use std::os::fd::AsRawFd;

pub const TESTS: [Test; 7] = [
    any("urgent.out_of_line", 60, out_of_line),
    any("urgent.second_mark", 60, second_mark),
    any("urgent.inline", 60, inline),
    any("urgent.nothing_there", 60, nothing_there),
    any("urgent.signal_and_poll", 60, signal_and_poll),
    any("urgent.around_the_ring", 120, around_the_ring),
    any("urgent.inline_under_traffic", 120, inline_under_traffic),
];

const SIOCATMARK: libc::c_ulong = 0x8905;

fn at_mark(sock: &Sock) -> Outcome<bool> {
    let mut mark = 0i32;
    // SAFETY: SIOCATMARK writes an int.
    cvt(unsafe { libc::ioctl(sock.as_raw_fd(), SIOCATMARK as _, &raw mut mark) })
        .during("ioctl(SIOCATMARK)")?;
    Ok(mark != 0)
}

fn send_urgent(sock: &Sock, data: &[u8]) -> Outcome {
    let sent = sock.send(data, libc::MSG_OOB).during("send(MSG_OOB)")?;
    check_eq!(sent, data.len(), "send(MSG_OOB)");
    Ok(())
}

fn receive_urgent(sock: &Sock) -> Outcome<u8> {
    sock.await_events(libc::POLLPRI)
        .during("poll for urgent data")?;
    let mut byte = [0; 4];
    let got = sock
        .recv(&mut byte, libc::MSG_OOB)
        .during("recv(MSG_OOB)")?;
    check_eq!(got, 1, "recv(MSG_OOB)");
    Ok(byte[0])
}

/// Reads up to the mark; what was read.
fn read_to_mark(sock: &Sock) -> Outcome<Vec<u8>> {
    let mut all = Vec::new();
    let mut part = vec![0; 100_000];
    while !at_mark(sock)? {
        let got = sock.recv(&mut part, 0)?;
        check!(got > 0, "end of stream before the mark");
        all.extend_from_slice(&part[..got]);
    }
    Ok(all)
}

fn both_ways(ctx: &Ctx, body: fn(&Ctx, &Sock, &Sock) -> Outcome) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    body(ctx, &client, &server).during("from client to server")?;
    body(ctx, &server, &client).during("from server to client")
}

fn out_of_line(ctx: &Ctx) -> Outcome {
    both_ways(ctx, |_, near, far| {
        for word in ["!", "?"] {
            near.send_all(b"abc")?;
            // Only the last byte is urgent.
            send_urgent(near, format!("xy{word}").as_bytes())?;
            near.send_all(b"def")?;
            far.await_events(libc::POLLPRI)?;
            check!(!at_mark(far)?, "at the mark before anything was read");
            // A read stops at the mark, whatever is behind it.
            check_eq!(read_to_mark(far)?, b"abcxy", "what is before the mark");
            check_eq!(receive_urgent(far)?, word.as_bytes()[0], "the urgent byte");
            let mut rest = [0; 3];
            far.recv_all(&mut rest)?;
            check_eq!(&rest, b"def", "what is behind the mark");
            check!(!at_mark(far)?, "at the mark after it was passed");
        }
        Ok(())
    })
}

/// The stream is not read between two urgent bytes, the first of which was.
fn second_mark(ctx: &Ctx) -> Outcome {
    both_ways(ctx, |_, near, far| {
        send_urgent(near, b"!")?;
        check_eq!(receive_urgent(far)?, b'!', "the first urgent byte");
        send_urgent(near, b"abc?")?;
        far.await_events(libc::POLLPRI)?;
        check!(!at_mark(far)?, "at the mark before anything was read");
        check_eq!(read_to_mark(far)?, b"abc", "what is before the mark");
        check_eq!(receive_urgent(far)?, b'?', "the second urgent byte");
        near.send_all(b"def")?;
        let mut rest = [0; 3];
        far.recv_all(&mut rest)?;
        check_eq!(&rest, b"def", "what is behind the mark");
        Ok(())
    })
}

fn inline(ctx: &Ctx) -> Outcome {
    both_ways(ctx, |_, near, far| {
        far.set(libc::SOL_SOCKET, libc::SO_OOBINLINE, 1i32)?;
        near.send_all(b"abc")?;
        send_urgent(near, b"!")?;
        near.send_all(b"def")?;
        far.await_events(libc::POLLPRI)?;
        check_eq!(read_to_mark(far)?, b"abc", "what is before the mark");
        check_errno!(
            far.recv(&mut [0; 1], libc::MSG_OOB),
            libc::EINVAL,
            "recv(MSG_OOB) of a socket with SO_OOBINLINE"
        );
        let mut rest = [0; 4];
        far.recv_all(&mut rest)?;
        check_eq!(&rest, b"!def", "the urgent byte and what is behind it");
        far.set(libc::SOL_SOCKET, libc::SO_OOBINLINE, 0i32)?;
        Ok(())
    })
}

fn nothing_there(ctx: &Ctx) -> Outcome {
    both_ways(ctx, |_, near, far| {
        check_errno!(
            far.recv(&mut [0; 1], libc::MSG_OOB),
            libc::EINVAL,
            "recv(MSG_OOB) without urgent data"
        );
        send_urgent(near, b"!")?;
        far.await_events(libc::POLLPRI)?;
        let mut byte = [0; 1];
        let flags = libc::MSG_OOB | libc::MSG_PEEK;
        check_eq!(far.recv(&mut byte, flags)?, 1, "a look at the urgent byte");
        check_eq!(receive_urgent(far)?, b'!', "the urgent byte");
        check_errno!(
            far.recv(&mut byte, libc::MSG_OOB),
            libc::EINVAL,
            "recv(MSG_OOB) of a byte that was read"
        );
        // The byte is not part of the stream.
        near.send_all(b"x")?;
        far.recv_all(&mut byte)?;
        check_eq!(&byte, b"x", "the stream after the urgent byte");
        Ok(())
    })
}

fn signal_and_poll(ctx: &Ctx) -> Outcome {
    both_ways(ctx, |_, near, far| {
        // SAFETY: all zeroes is a valid sigset_t.
        let mut set: libc::sigset_t = unsafe { zeroed() };
        // SAFETY: `set` is live; the signal stays blocked and is fetched by sigtimedwait().
        unsafe {
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGURG);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        }
        // SAFETY: no pointers.
        cvt(unsafe { libc::fcntl(far.as_raw_fd(), libc::F_SETOWN, libc::getpid()) })?;
        send_urgent(near, b"!")?;
        let limit = libc::timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        // SAFETY: `set` and `limit` are live.
        let got = cvt(unsafe {
            libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const limit)
        })
        .during("waiting for SIGURG")?;
        check_eq!(got, libc::SIGURG, "the signal");
        check_eq!(receive_urgent(far)?, b'!', "the urgent byte");
        Ok(())
    })
}

/// Marks at every place of the ring, its end included.
fn around_the_ring(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    // A small ring, which accepted sockets inherit.
    listener.set(libc::SOL_SOCKET, libc::SO_RCVBUF, 16384i32)?;
    let Pair { client, server } = ctx.pair_from(&listener, address)?;
    let pattern = Pattern::new(ctx, 71);
    let mut random = ctx.random(72);
    let mut at = 0;
    for round in 0..200 {
        let before = random.gen_range(0..4000);
        let behind = random.gen_range(1..2000);
        if before > 0 {
            client.send_all(pattern.at(at, before))?;
        }
        let urgent = random.gen::<u8>();
        send_urgent(&client, &[urgent])?;
        client.send_all(pattern.at(at + before, behind))?;
        server.await_events(libc::POLLPRI)?;
        let got = read_to_mark(&server).during(&format!("round {round}"))?;
        check_eq!(got.len(), before, "bytes before the mark in round {round}");
        pattern.verify(at, &got)?;
        check_eq!(
            receive_urgent(&server).during(&format!("round {round}"))?,
            urgent,
            "the urgent byte of round {round}"
        );
        let mut rest = vec![0; behind];
        server.recv_all(&mut rest)?;
        pattern
            .verify(at + before, &rest)
            .during(&format!("behind the mark of round {round}"))?;
        at += before + behind;
    }
    Ok(())
}

/// Urgent bytes in a stream that does not stop for them: inline, none is lost or moved.
fn inline_under_traffic(ctx: &Ctx) -> Outcome {
    let total = 3_000_000 / ctx.divisor.min(4);
    let Pair { client, server } = ctx.pair()?;
    server.set(libc::SOL_SOCKET, libc::SO_OOBINLINE, 1i32)?;
    let pattern = Pattern::new(ctx, 73);
    let mut random = ctx.random(74);
    let sender = std::thread::spawn(move || -> Outcome {
        let mut sent = 0;
        while sent < total {
            let part = pattern.at(sent, random.gen_range(1..20_000).min(total - sent));
            let flags = if random.gen_range(0..4) == 0 {
                libc::MSG_OOB
            } else {
                0
            };
            sent += client.send(part, flags)?;
        }
        client.shutdown(libc::SHUT_WR)?;
        Ok(())
    });
    let pattern = Pattern::new(ctx, 73);
    let mut got = 0;
    let mut part = vec![0; 30_000];
    loop {
        let count = server.recv(&mut part, 0)?;
        if count == 0 {
            break;
        }
        pattern.verify(got, &part[..count])?;
        got += count;
    }
    join(sender)?;
    check_eq!(got, total, "bytes of the stream");
    ctx.prove(Host::B, &server)
}
