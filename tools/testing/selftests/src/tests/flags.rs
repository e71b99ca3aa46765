//! Flags of messages, several messages in one call, and what other calls say about a socket.

use super::{any, join};
use crate::kind::Host;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, cvt, cvt_size, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::time::Duration;

pub const TESTS: [Test; 7] = [
    any("flags.more", 60, more),
    any("flags.truncate", 60, truncate),
    any("flags.peek", 60, peek),
    any("flags.many_messages", 60, many_messages),
    any("flags.without_waiting", 60, without_waiting),
    any("flags.ioctl", 60, ioctl),
    any("flags.no_file", 60, no_file),
];

/// What was sent with MSG_MORE waits for more, and is sent by what follows, by TCP_NODELAY, or by itself
/// after a while.
fn more(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let mut got = [0; 12];
    let mut held = 0;
    // It gives way after some 200 ms, which may just be over.
    for _ in 0..5 {
        check_eq!(client.send(b"first ", libc::MSG_MORE)?, 6, "send(MSG_MORE)");
        held = held.max(client.unsent_bytes()?);
        check_eq!(client.send(b"second", 0)?, 6, "send()");
        server.recv_all(&mut got)?;
        check_eq!(&got, b"first second", "what came");
    }
    check_eq!(held, 6, "bytes not sent yet after send(MSG_MORE)");
    for round in 0..2 {
        client.send(b"alone", libc::MSG_MORE)?;
        if round == 1 {
            client.shutdown(libc::SHUT_WR)?;
        }
        server.recv_all(&mut got[..5])?;
        check_eq!(&got[..5], b"alone", "what came by itself");
    }
    check_eq!(server.recv(&mut got, 0)?, 0, "end of stream");
    Ok(())
}

/// A received message: its bytes' count, its flags, and where they went.
fn receive(sock: &Sock, parts: &mut [&mut [u8]], flags: i32) -> io::Result<(usize, i32)> {
    let mut vectors: Vec<libc::iovec> = parts
        .iter_mut()
        .map(|part| libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        })
        .collect();
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    // SAFETY: the header describes live memory.
    let count = cvt_size(unsafe { libc::recvmsg(sock.as_raw_fd(), &raw mut header, flags) })?;
    Ok((count, header.msg_flags))
}

/// MSG_TRUNC throws data away and writes nothing.
fn truncate(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    client.send_all(b"away with it, keep this")?;
    sys::eventually("everything is there", || Ok(server.readable_bytes()? == 23))?;
    let mut got = [b'-'; 14];
    check_eq!(
        server.recv(&mut got, libc::MSG_TRUNC)?,
        14,
        "recv(MSG_TRUNC)"
    );
    check_eq!(&got, &[b'-'; 14], "the buffer");
    // With no buffer at all.
    // SAFETY: with MSG_TRUNC nothing is written; that is what is tested.
    let count = cvt_size(unsafe {
        libc::recv(server.as_raw_fd(), std::ptr::null_mut(), 5, libc::MSG_TRUNC)
    });
    check_eq!(
        count.during("recv() into nothing")?,
        5,
        "recv() into nothing"
    );
    let (mut one, mut two) = ([0; 2], [0; 9]);
    let (count, flags) = receive(&server, &mut [&mut one, &mut two], 0)?;
    check_eq!((count, flags), (4, 0), "recvmsg()");
    check_eq!((&one, &two[..2]), (b"th", b"is".as_slice()), "what is left");
    Ok(())
}

/// A look waits like a read, and takes nothing; SO_PEEK_OFF makes it go on.
fn peek(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let reader = server.dup()?;
    let thread = super::asleep::Sleeper::spawn(move || {
        let mut got = [0; 4];
        check_eq!(reader.recv(&mut got, libc::MSG_PEEK)?, 4, "recv(MSG_PEEK)");
        check_eq!(&got, b"look", "what it sees");
        Ok(())
    })?;
    client.send_all(b"look")?;
    thread.wake_up("recv(MSG_PEEK) sees what came")?;
    server.set(libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0)?;
    let mut got = [0; 2];
    for part in [b"lo", b"ok"] {
        check_eq!(server.recv(&mut got, libc::MSG_PEEK)?, 2, "recv(MSG_PEEK)");
        check_eq!(&got, part, "what it sees with SO_PEEK_OFF");
    }
    check_errno!(
        server.recv(&mut got, libc::MSG_PEEK | libc::MSG_DONTWAIT),
        libc::EAGAIN,
        "a look behind everything"
    );
    // A waiting look behind what is there sees what comes next.
    let reader = server.dup()?;
    let thread = super::asleep::Sleeper::spawn(move || {
        let mut got = [0; 4];
        check_eq!(reader.recv(&mut got, libc::MSG_PEEK)?, 4, "recv(MSG_PEEK)");
        check_eq!(&got, b"more", "what it sees behind the rest");
        Ok(())
    })?;
    client.send_all(b"more")?;
    thread.wake_up("recv(MSG_PEEK) sees what came behind")?;
    let mut all = [0; 8];
    server.recv_all(&mut all)?;
    check_eq!(&all, b"lookmore", "what was there all the time");
    Ok(())
}

fn many_messages(ctx: &Ctx) -> Outcome {
    const COUNT: usize = 10;
    const LENGTH: usize = 500;
    let Pair { client, server } = ctx.pair()?;
    let mut data: Vec<[u8; LENGTH]> = (0..COUNT).map(|place| [place as u8; LENGTH]).collect();
    let mut vectors: Vec<libc::iovec> = data
        .iter_mut()
        .map(|part| libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| {
            // SAFETY: all zeroes is a valid mmsghdr.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header
        })
        .collect();
    let count = COUNT as u32;
    // SAFETY: the headers describe live memory.
    let sent = cvt(unsafe { libc::sendmmsg(client.as_raw_fd(), headers.as_mut_ptr(), count, 0) });
    check_eq!(sent.during("sendmmsg()")? as usize, COUNT, "messages sent");
    check!(
        headers
            .iter()
            .all(|header| header.msg_len as usize == LENGTH),
        "a message was sent in part"
    );
    sys::eventually("everything is there", || {
        Ok(server.readable_bytes()? == COUNT * LENGTH)
    })?;
    for part in &mut data {
        part.fill(0xff);
    }
    let none = std::ptr::null_mut();
    // SAFETY: as above.
    let got = cvt(unsafe {
        libc::recvmmsg(
            server.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_WAITFORONE,
            none,
        )
    });
    check_eq!(
        got.during("recvmmsg()")? as usize,
        COUNT,
        "messages received"
    );
    for (place, part) in data.iter().enumerate() {
        check!(
            part.iter().all(|&byte| usize::from(byte) == place),
            "message {place} is not what was sent"
        );
    }
    // The first one is waited for, no more than that.
    let thread = super::asleep::Sleeper::spawn(move || {
        let mut data = [0u8; LENGTH];
        let mut vector = libc::iovec {
            iov_base: data.as_mut_ptr().cast(),
            iov_len: data.len(),
        };
        // SAFETY: all zeroes is a valid mmsghdr.
        let mut headers: [libc::mmsghdr; 2] = unsafe { zeroed() };
        for header in &mut headers {
            header.msg_hdr.msg_iov = &raw mut vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the headers describe live memory.
        let got = cvt(unsafe {
            libc::recvmmsg(
                server.as_raw_fd(),
                headers.as_mut_ptr(),
                2,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        });
        check_eq!(got?, 1, "messages received");
        check_eq!(headers[0].msg_len, 3, "bytes received");
        Ok(())
    })?;
    client.send_all(b"one")?;
    thread.wake_up("recvmmsg(MSG_WAITFORONE) has one message")?;
    Ok(())
}

/// preadv2() and pwritev2() with RWF_NOWAIT on a blocking socket.
fn without_waiting(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let mut data = [0u8; 8];
    let vector = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    let read = || {
        // SAFETY: the vector describes `data`, which outlives the call.
        cvt_size(unsafe {
            libc::preadv2(
                server.as_raw_fd(),
                &raw const vector,
                1,
                -1,
                libc::RWF_NOWAIT,
            )
        })
    };
    check_errno!(read(), libc::EAGAIN, "preadv2(RWF_NOWAIT) of nothing");
    client.send_all(b"eight by")?;
    server.await_events(libc::POLLIN)?;
    check_eq!(read()?, 8, "preadv2(RWF_NOWAIT)");
    check_eq!(&data, b"eight by", "what came");
    // SAFETY: as above.
    let written = cvt_size(unsafe {
        libc::pwritev2(
            client.as_raw_fd(),
            &raw const vector,
            1,
            -1,
            libc::RWF_NOWAIT,
        )
    });
    check_eq!(written.during("pwritev2()")?, 8, "pwritev2(RWF_NOWAIT)");
    let mut got = [0; 8];
    server.recv_all(&mut got)?;
    check_eq!(&got, b"eight by", "what came");
    Ok(())
}

/// What a command gives: its result, and what it wrote.
fn command(sock: &Sock, number: u64) -> (i32, Vec<u8>) {
    let mut argument = [0u8; 64];
    argument[..3].copy_from_slice(b"lo\0");
    // SAFETY: all commands used here write less than what there is.
    let result = unsafe { libc::ioctl(sock.as_raw_fd(), number, argument.as_mut_ptr()) };
    if result < 0 {
        // SAFETY: the thread's own errno.
        return (-unsafe { *libc::__errno_location() }, Vec::new());
    }
    (result, argument.to_vec())
}

/// Which socket was asked for what, the result, and what was written.
type Answer = (&'static str, u64, i32, Vec<u8>);

/// A program may ask any socket for addresses, routes and devices, or for things that it is not. In every
/// state the answer is TCP's.
fn ioctl(ctx: &Ctx) -> Outcome {
    const COMMANDS: [u64; 14] = [
        0x541b, /* SIOCINQ */
        0x5411, /* SIOCOUTQ */
        0x894b, /* SIOCOUTQNSD */
        0x8905, /* SIOCATMARK */
        0x8904, /* SIOCGPGRP */
        0x8906, /* SIOCGSTAMP */
        0x8907, /* SIOCGSTAMPNS */
        0x8910, /* SIOCGIFNAME */
        0x8913, /* SIOCGIFFLAGS */
        0x8915, /* SIOCGIFADDR */
        0x8921, /* SIOCGIFMTU */
        0x8933, /* SIOCGIFINDEX */
        0x5401, /* TCGETS */
        0x89ff,
    ];
    let look = |ctx: &Ctx| -> Outcome<Vec<Answer>> {
        let mut all = Vec::new();
        let (listener, address) = ctx.listener(8)?;
        let rules = super::network::Rules::new(
            Host::B,
            "prerouting",
            &[&format!("tcp dport {} drop", address.port())],
        )?;
        let connecting = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
        check_errno!(connecting.connect(address), libc::EINPROGRESS, "connect()");
        let mut ask = |what, sock: &Sock| {
            for number in COMMANDS {
                let (result, bytes) = command(sock, number);
                all.push((what, number, result, bytes));
            }
        };
        ask("a connecting socket", &connecting);
        drop((connecting, rules));
        let pair = ctx.pair()?;
        let fresh = ctx.socket(Host::A)?;
        // From one host all of them: it is the namespace's devices that are told of.
        ask("a fresh socket", &fresh);
        ask("a listener", &listener);
        ask("a client", &pair.client);
        ask("an accepted socket", &pair.server);
        pair.client.send_all(b"abc")?;
        sys::eventually("three bytes are there", || {
            Ok(pair.server.readable_bytes()? == 3)
        })?;
        ask("a socket with data", &pair.server);
        drop(pair.client);
        pair.server.await_events(libc::POLLRDHUP)?;
        ask("a socket at the end", &pair.server);
        Ok(all)
    };
    let wanted = look(&ctx.with_kind(ctx.kind.plain()))?;
    let got = look(ctx)?;
    for (got, wanted) in got.iter().zip(&wanted) {
        check_eq!(got, wanted, "ioctl {:#x} of {}", wanted.1, wanted.0);
    }
    Ok(())
}

/// A socket is no file: there is no place in it, and no end.
fn no_file(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let fd = pair.client.as_raw_fd();
    let mut data = [0u8; 8];
    // SAFETY: `data` is live, and everything else are numbers.
    unsafe {
        let place = libc::lseek(fd, 0, libc::SEEK_CUR);
        check_errno!(cvt_size(place as isize), libc::ESPIPE, "lseek()");
        let read = libc::pread(fd, data.as_mut_ptr().cast(), 8, 0);
        check_errno!(cvt_size(read), libc::ESPIPE, "pread()");
        let written = libc::pwrite(fd, data.as_ptr().cast(), 8, 0);
        check_errno!(cvt_size(written), libc::ESPIPE, "pwrite()");
        check_errno!(cvt(libc::fsync(fd)), libc::EINVAL, "fsync()");
        check_errno!(cvt(libc::ftruncate(fd, 0)), libc::EINVAL, "ftruncate()");
    }
    // The connection does not mind.
    let thread = std::thread::spawn(move || -> Outcome {
        pair.client.send_all(b"and yet")?;
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    });
    let mut got = [0; 7];
    pair.server.recv_all(&mut got)?;
    check_eq!(&got, b"and yet", "what came");
    join(thread)
}
