//! splice(2), tee(2), vmsplice(2) and sendfile(2) with sockets.

use super::{any, join, Pattern};
use crate::kind::Host;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, cvt_size, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

pub const TESTS: [Test; 7] = [
    any("splice.into_the_socket", 60, into_the_socket),
    any("splice.nonblocking", 60, nonblocking),
    any("splice.tee", 60, tee),
    any("splice.proxy", 60, proxy),
    any(
        "splice.outlives_the_connection",
        60,
        outlives_the_connection,
    ),
    any("splice.user_pages", 60, user_pages),
    any("splice.sendfile_nonblocking", 60, sendfile_nonblocking),
];

fn splice(from: &impl AsRawFd, to: &impl AsRawFd, length: usize, flags: u32) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: no offsets are given.
    cvt_size(unsafe { libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, length, flags) })
}

/// What is in a pipe stays what it was when its connection has ended and others have its memory.
fn outlives_the_connection(ctx: &Ctx) -> Outcome {
    const HELD: usize = 16_000;
    let (pattern, others) = (Pattern::new(ctx, 247), Pattern::new(ctx, 248));
    let (listener, address) = ctx.listener(8)?;
    let _stays = ctx.pair_from(&listener, address)?;
    for round in 0..4 {
        let during = format!("round {round}");
        let Pair { client, server } = ctx.pair_from(&listener, address)?;
        let (mut from, to) = sys::pipe()?;
        client.send_all(pattern.at(0, HELD))?;
        let mut moved = 0;
        while moved < HELD {
            moved += splice(&server, &to, HELD - moved, 0).during(&during)?;
        }
        drop((client, server));
        let mut next = Vec::new();
        for _ in 0..4 {
            let pair = ctx.pair_from(&listener, address)?;
            pair.client.send_all(others.at(0, 3 * HELD))?;
            let mut got = vec![0; 3 * HELD];
            pair.server.recv_all(&mut got)?;
            others.verify(0, &got).during(&during)?;
            next.push(pair);
        }
        let mut got = vec![0; HELD];
        from.read_exact(&mut got)?;
        pattern.verify(0, &got).during(&during)?;
    }
    Ok(())
}

/// From a pipe, more than any ring holds, with and without more to come.
fn into_the_socket(ctx: &Ctx) -> Outcome {
    let total = 1_500_000 / ctx.divisor.min(8);
    let Pair { client, server } = ctx.pair()?;
    let (from, mut to) = sys::pipe()?;
    let pattern = Pattern::new(ctx, 241);
    let writer = Pattern::new(ctx, 241);
    let feeder = std::thread::spawn(move || -> Outcome {
        let mut sent = 0;
        for length in [1, 4096, 65_000, 777].into_iter().cycle() {
            let part = writer.at(sent, length.min(total - sent));
            to.write_all(part)?;
            sent += part.len();
            if sent == total {
                return Ok(());
            }
        }
        Ok(())
    });
    let mover = std::thread::spawn(move || -> Outcome {
        let mut moved = 0;
        loop {
            let flags = libc::SPLICE_F_MORE | libc::SPLICE_F_MOVE;
            match splice(&from, &client, 100_000, flags).during("splice() into the socket")? {
                0 => break,
                count => moved += count,
            }
        }
        check_eq!(moved, total, "bytes moved");
        // What was held back for more comes with the end.
        client.shutdown(libc::SHUT_WR)?;
        Ok(())
    });
    let got = server.recv_to_end()?;
    join(feeder)?;
    join(mover)?;
    check_eq!(got.len(), total, "bytes that arrived");
    pattern.verify(0, &got)
}

/// What cannot be moved at once stays where it is.
fn nonblocking(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let (mut from, mut to) = sys::pipe()?;
    // The flag is about the pipe; the socket's is that of its file.
    server.set_nonblocking(true)?;
    check_errno!(
        splice(&server, &to, 100, libc::SPLICE_F_NONBLOCK),
        libc::EAGAIN,
        "splice() of nothing"
    );
    client.send_all(b"some bytes")?;
    server.await_events(libc::POLLIN)?;
    check_eq!(
        splice(&server, &to, 4, libc::SPLICE_F_NONBLOCK)?,
        4,
        "bytes moved out"
    );
    check_eq!(splice(&server, &to, 100, 0)?, 6, "the rest");
    let mut got = [0; 10];
    from.read_exact(&mut got)?;
    check_eq!(&got, b"some bytes", "what came");
    server.set_nonblocking(false)?;

    client.set_nonblocking(true)?;
    let pattern = Pattern::new(ctx, 242);
    let (mut written, mut moved) = (0, 0);
    loop {
        if written == moved {
            let part = pattern.at(written, 50_000);
            to.write_all(part)?;
            written += part.len();
        }
        match splice(&from, &client, written - moved, libc::SPLICE_F_NONBLOCK) {
            Ok(count) => moved += count,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
        check!(moved < 1 << 30, "a gigabyte was taken and nobody reads");
    }
    let mut part = vec![0; 65_536];
    let mut got = 0;
    while got < moved {
        let count = server.recv(&mut part, 0)?;
        check!(count > 0, "end of stream after {got} of {moved} bytes");
        pattern.verify(got, &part[..count])?;
        got += count;
    }
    check_eq!(got, moved, "bytes that arrived, of those that were moved");
    // The rest is in the pipe.
    client.set_nonblocking(false)?;
    while moved < written {
        moved += splice(&from, &client, written - moved, 0)?;
    }
    client.shutdown(libc::SHUT_WR)?;
    let rest = server.recv_to_end()?;
    check_eq!(got + rest.len(), written, "bytes that arrived");
    pattern.verify(got, &rest)?;
    check_eq!(
        splice(&server, &to, 100, 0)?,
        0,
        "splice() at the end of the stream"
    );
    check_errno!(
        splice(&client, &server, 100, 0),
        libc::EINVAL,
        "splice() without a pipe"
    );
    Ok(())
}

/// What tee() has doubled is there twice, and the pages of a pipe are not those of the ring.
fn tee(ctx: &Ctx) -> Outcome {
    const LENGTH: usize = 30_000;
    let Pair { client, server } = ctx.pair()?;
    let (mut from, to) = sys::pipe()?;
    let (mut second, copy) = sys::pipe()?;
    let pattern = Pattern::new(ctx, 243);
    for round in 0..12 {
        let at = round * LENGTH;
        client.send_all(pattern.at(at, LENGTH))?;
        let mut moved = 0;
        while moved < LENGTH {
            moved += splice(&server, &to, LENGTH - moved, 0)?;
        }
        // SAFETY: no pointers.
        let doubled =
            cvt_size(unsafe { libc::tee(from.as_raw_fd(), copy.as_raw_fd(), LENGTH, 0) })?;
        check_eq!(doubled, LENGTH, "tee()");
        // Over the same places of the ring, before either pipe is read.
        client.send_all(pattern.at(at, LENGTH))?;
        let mut got = vec![0; LENGTH];
        server.recv_all(&mut got)?;
        pattern.verify(at, &got).during("read")?;
        for (name, pipe) in [("the pipe", &mut from), ("the copy", &mut second)] {
            got.fill(0);
            pipe.read_exact(&mut got)?;
            pattern.verify(at, &got).during(name)?;
        }
    }
    Ok(())
}

/// As haproxy does it: between two connections by a pipe, both ways, until each side ends.
fn proxy(ctx: &Ctx) -> Outcome {
    let total = 1_000_000 / ctx.divisor.min(8);
    let (front, back) = (ctx.pair()?, ctx.pair()?);
    let relay = |from: Sock, to: Sock| {
        std::thread::spawn(move || -> Outcome {
            let (out, into) = sys::pipe()?;
            loop {
                let flags = libc::SPLICE_F_MOVE;
                let mut moved = splice(&from, &into, 65_536, flags).during("out of the socket")?;
                if moved == 0 {
                    to.shutdown(libc::SHUT_WR)?;
                    return Ok(());
                }
                while moved > 0 {
                    moved -= splice(&out, &to, moved, flags).during("into the socket")?;
                }
            }
        })
    };
    let relays = [
        relay(front.server.dup()?, back.client.dup()?),
        relay(back.client, front.server),
    ];
    let server = back.server;
    let echo = std::thread::spawn(move || -> Outcome {
        let mut part = vec![0; 20_000];
        loop {
            match server.recv(&mut part, 0)? {
                0 => return server.shutdown(libc::SHUT_WR).during("shutdown()"),
                count => server.send_all(&part[..count])?,
            }
        }
    });
    let client = front.client.dup()?;
    let writer = Pattern::new(ctx, 244);
    let feeder = std::thread::spawn(move || -> Outcome {
        let mut sent = 0;
        while sent < total {
            let part = writer.at(sent, (total - sent).min(30_001));
            client.send_all(part)?;
            sent += part.len();
        }
        client.shutdown(libc::SHUT_WR).during("shutdown()")
    });
    let got = front.client.recv_to_end()?;
    join(feeder)?;
    join(echo)?;
    relays.into_iter().try_for_each(join)?;
    check_eq!(got.len(), total, "bytes that came back");
    Pattern::new(ctx, 244).verify(0, &got)
}

/// The program's own pages, by vmsplice(), into the socket.
fn user_pages(ctx: &Ctx) -> Outcome {
    const LENGTH: usize = 40_000;
    let Pair { client, server } = ctx.pair()?;
    let (from, to) = sys::pipe()?;
    let pattern = Pattern::new(ctx, 245);
    for round in 0..6 {
        let data = pattern.at(round * LENGTH, LENGTH).to_vec();
        let vector = libc::iovec {
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: LENGTH,
        };
        // SAFETY: the vector describes `data`, which lives until everything has arrived.
        let given = cvt_size(unsafe { libc::vmsplice(to.as_raw_fd(), &raw const vector, 1, 0) })
            .during("vmsplice()")?;
        check_eq!(given, LENGTH, "vmsplice()");
        let mut moved = 0;
        while moved < given {
            moved += splice(&from, &client, given - moved, 0)?;
        }
        let mut got = vec![0; LENGTH];
        server.recv_all(&mut got)?;
        pattern.verify(round * LENGTH, &got)?;
    }
    Ok(())
}

/// sendfile() takes what fits, and says so by its count and offset.
fn sendfile_nonblocking(ctx: &Ctx) -> Outcome {
    let length = 3_000_000 / ctx.divisor.min(4);
    let Pair { client, server } = ctx.pair()?;
    let pattern = Pattern::new(ctx, 246);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open("/tmp/splice.data")
        .during("a file")?;
    std::fs::remove_file("/tmp/splice.data").during("the file")?;
    let mut at = 0;
    while at < length {
        let part = pattern.at(at, length - at);
        file.write_all(part)?;
        at += part.len();
    }
    client.set_nonblocking(true)?;
    let mut offset: libc::off_t = 0;
    let mut got = 0;
    let mut full = 0;
    let mut part = vec![0; 1 << 20];
    let mut take = |got: &mut usize| -> Outcome {
        match server.recv(&mut part, libc::MSG_DONTWAIT) {
            Ok(0) => Err(crate::Fail(format!("end of stream after {got} bytes"))),
            Ok(count) => {
                pattern.verify(*got, &part[..count])?;
                *got += count;
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    let end = Instant::now() + sys::PATIENCE;
    while got < length {
        check!(
            Instant::now() < end,
            "{got} of {length} bytes arrived, {offset} were sent"
        );
        let before = offset;
        // SAFETY: `offset` is live.
        let sent = cvt_size(unsafe {
            libc::sendfile(
                client.as_raw_fd(),
                file.as_raw_fd(),
                &raw mut offset,
                length,
            )
        });
        match sent {
            Ok(count) => check_eq!(offset - before, count as i64, "what the offset moved by"),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                check_eq!(offset, before, "the offset when nothing was sent");
                full += 1;
                take(&mut got)?;
                // There will be room, or something to read.
                client.poll(libc::POLLOUT, Duration::from_millis(5))?;
            }
            Err(error) => return Err(error.into()),
        }
        if offset as usize == length && got < length {
            server.poll(libc::POLLIN, Duration::from_millis(5))?;
            take(&mut got)?;
        }
    }
    check!(full > 0, "the connection was never full");
    // Not out of a socket.
    // SAFETY: no offset is given.
    let out = cvt_size(unsafe {
        libc::sendfile(
            client.as_raw_fd(),
            server.as_raw_fd(),
            std::ptr::null_mut(),
            10,
        )
    });
    check_errno!(out, libc::EINVAL, "sendfile() out of a socket");
    ctx.prove(Host::A, &client)
}
