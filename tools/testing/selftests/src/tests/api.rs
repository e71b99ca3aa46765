//! Calls and flags that programs use on a stream socket.

use super::{any, join, Pattern};
use crate::runner::{Ctx, Needs, Test};
use crate::sys::{self, cvt, cvt_size};
use crate::{check, check_eq, check_errno, Context, Outcome};
use rand::Rng;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

pub const TESTS: [Test; 15] = [
    any("api.peek", 60, peek),
    any("api.waitall", 60, waitall),
    any("api.dontwait", 60, dontwait),
    any("api.readv_writev", 60, readv_writev),
    any("api.fionread", 60, fionread),
    any("api.receive_timeout", 60, receive_timeout),
    any("api.send_timeout", 60, send_timeout),
    any("api.sendfile", 120, sendfile),
    any("api.splice", 120, splice),
    any("api.not_connected", 60, not_connected),
    any("api.save_syn", 60, save_syn),
    any("api.cork_before_connect", 60, cork_before_connect),
    any("api.bad_buffer", 60, bad_buffer),
    any("api.look_at_urgent_data", 60, look_at_urgent_data),
    Test {
        name: "api.divergences",
        body: divergences,
        limit: 60,
        needs: Needs::Smc,
    },
];

/// A buffer whose end is not mapped: an error or fewer bytes, and above all an end.
fn bad_buffer(ctx: &Ctx) -> Outcome {
    const PAGE: usize = 4096;
    let pair = ctx.pair()?;
    // SAFETY: new pages wherever the kernel likes.
    let pages = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            2 * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    check!(pages != libc::MAP_FAILED, "mmap() failed");
    // SAFETY: the second of the pages that were just mapped.
    cvt(unsafe { libc::munmap(pages.byte_add(PAGE), PAGE) })?;
    for _ in 0..3 {
        pair.client.send_all(&[7; 300])?;
    }
    sys::eventually("everything that was sent has arrived", || {
        Ok(pair.server.readable_bytes()? == 900)
    })?;
    // SAFETY: the kernel checks the buffer, of which 100 bytes are there; that is what is tested.
    let result = cvt_size(unsafe {
        let end = pages.byte_add(PAGE - 100);
        libc::recv(pair.server.as_raw_fd(), end, 8192, libc::MSG_WAITALL)
    });
    match result {
        Ok(count) => check!((1..=100).contains(&count), "recv() gave {count}"),
        Err(error) => check_eq!(error.raw_os_error(), Some(libc::EFAULT), "error of recv()"),
    }
    Ok(())
}

/// Looks stop at urgent data, and do not wait for what is behind it.
fn look_at_urgent_data(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    pair.client.send_all(b"five_")?;
    pair.client.send(b"!", libc::MSG_OOB)?;
    pair.server.await_events(libc::POLLPRI)?;
    // Behind the urgent byte this waits, for RDMA, until that is read.
    pair.client.send_all(b"and more")?;
    let mut got = [0; 10];
    for flags in [libc::MSG_PEEK, libc::MSG_PEEK | libc::MSG_WAITALL] {
        check_eq!(
            pair.server.recv(&mut got, flags)?,
            5,
            "bytes before the mark"
        );
        check_eq!(&got[..5], b"five_", "what a look sees");
    }
    let mut all = [0; 13];
    pair.server.recv_all(&mut all)?;
    check_eq!(&all, b"five_and more", "the stream without its urgent byte");
    Ok(())
}

/// What Documentation/divergences.rst says is different from TCP, and can be seen by a call.
fn divergences(ctx: &Ctx) -> Outcome {
    const TCP_ULP: i32 = 31;
    const TCP_ZEROCOPY_RECEIVE: i32 = 35;
    let pair = ctx.pair()?;
    if ctx.may_fall_back() {
        // It is a TCP socket now.
        return Ok(());
    }
    let (family, protocol) = ctx.kind.arguments();
    for (name, value) in [(libc::SO_DOMAIN, family), (libc::SO_PROTOCOL, protocol)] {
        check_eq!(
            pair.server.get(libc::SOL_SOCKET, name)?,
            value,
            "option {name}"
        );
    }
    // The table is of the first namespace.
    sys::leave()?;
    let ulps = sys::read_file("/proc/sys/net/ipv4/tcp_available_ulp")?;
    check!(
        !ulps.split_whitespace().any(|ulp| ulp == "smc"),
        "sockets of TCP can be made SMC in place: {ulps}"
    );
    check_errno!(
        pair.client.set(libc::SOL_TCP, TCP_ULP, *b"tls\0"),
        libc::EOPNOTSUPP,
        "TCP_ULP"
    );
    check_errno!(
        pair.client.get(libc::SOL_TCP, TCP_ZEROCOPY_RECEIVE),
        libc::EOPNOTSUPP,
        "TCP_ZEROCOPY_RECEIVE"
    );
    // SAFETY: the kernel chooses a place.
    let pages = unsafe {
        let fd = pair.client.as_raw_fd();
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd,
            0,
        )
    };
    check!(pages == libc::MAP_FAILED, "mmap() of the socket succeeded");
    Ok(())
}

fn peek(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let pattern = Pattern::new(ctx, 1);
    let mut random = ctx.random(2);
    let mut offset = 0;
    let mut seen = vec![0; 30_000];
    // Enough rounds for the ring buffer to wrap within what is looked at.
    for _ in 0..40 {
        let length = random.gen_range(1..=seen.len());
        pair.client.send_all(pattern.at(offset, length))?;
        sys::eventually("everything that was sent has arrived", || {
            Ok(pair.server.recv(&mut seen[..length], libc::MSG_PEEK)? == length)
        })?;
        pattern
            .verify(offset, &seen[..length])
            .during("first look")?;
        let part = length.div_ceil(2);
        seen.fill(0);
        check_eq!(
            pair.server.recv(&mut seen[..part], libc::MSG_PEEK)?,
            part,
            "bytes at the second look"
        );
        pattern
            .verify(offset, &seen[..part])
            .during("second look")?;
        seen.fill(0);
        pair.server.recv_all(&mut seen[..length])?;
        pattern.verify(offset, &seen[..length]).during("read")?;
        offset += length;
    }
    check_errno!(
        pair.server
            .recv(&mut seen, libc::MSG_PEEK | libc::MSG_DONTWAIT),
        libc::EAGAIN,
        "a look when everything is read"
    );
    Ok(())
}

fn waitall(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let client = pair.client;
    let thread = std::thread::spawn(move || -> Outcome {
        for part in [b"one ".as_slice(), b"two ", b"three ", b"rest"] {
            client.send_all(part)?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    let mut got = [0; 14];
    check_eq!(
        pair.server.recv(&mut got, libc::MSG_WAITALL)?,
        14,
        "bytes with MSG_WAITALL"
    );
    check_eq!(&got, b"one two three ", "what was received");
    // The stream ends before the buffer is full: what is there is returned.
    let mut more = [0; 100];
    check_eq!(
        pair.server.recv(&mut more, libc::MSG_WAITALL)?,
        4,
        "bytes with MSG_WAITALL at the end"
    );
    check_eq!(
        pair.server.recv(&mut more, libc::MSG_WAITALL)?,
        0,
        "end of stream"
    );
    join(thread)
}

fn dontwait(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let mut got = [0; 16];
    check_errno!(
        pair.server.recv(&mut got, libc::MSG_DONTWAIT),
        libc::EAGAIN,
        "recv() of nothing"
    );
    pair.client.send_all(b"something")?;
    pair.server.await_events(libc::POLLIN)?;
    check_eq!(
        pair.server.recv(&mut got, libc::MSG_DONTWAIT)?,
        9,
        "bytes received"
    );
    // Fill it up: the flag must end it without O_NONBLOCK on the file.
    let block = vec![0u8; 65536];
    let mut total = 0usize;
    loop {
        match pair
            .client
            .send(&block, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        {
            Ok(sent) => {
                check!(sent > 0, "send() of {} bytes returned 0", block.len());
                total += sent;
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
        check!(total < 1 << 30, "a gigabyte was taken and nobody reads");
    }
    check!(total > 0, "nothing could be sent at all");
    Ok(())
}

fn readv_writev(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let pattern = Pattern::new(ctx, 3);
    let mut random = ctx.random(4);
    let mut offset = 0;
    for _ in 0..30 {
        let sizes: Vec<usize> = (0..12).map(|_| random.gen_range(0..1500)).collect();
        let mut at = offset;
        let parts: Vec<&[u8]> = sizes
            .iter()
            .map(|&size| {
                at += size;
                pattern.at(at - size, size)
            })
            .collect();
        let total: usize = sizes.iter().sum();
        check_eq!(pair.client.writev(&parts)?, total, "writev()");
        let mut have = 0;
        while have < total {
            let mut one = vec![0; random.gen_range(1..2000)];
            let mut two = vec![0; random.gen_range(1..2000)];
            let mut none = [0; 0];
            let got = pair.server.readv(&mut [&mut one, &mut none, &mut two])?;
            check!(got > 0, "readv() says end of stream");
            let first = got.min(one.len());
            pattern.verify(offset + have, &one[..first])?;
            pattern.verify(offset + have + first, &two[..got - first])?;
            have += got;
        }
        check_eq!(have, total, "bytes received");
        offset += total;
    }
    Ok(())
}

fn fionread(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    check_eq!(
        pair.server.readable_bytes()?,
        0,
        "FIONREAD before anything was sent"
    );
    pair.client.send_all(&[7; 1000])?;
    sys::eventually("FIONREAD says 1000", || {
        Ok(pair.server.readable_bytes()? == 1000)
    })?;
    pair.server.recv_all(&mut [0; 300])?;
    check_eq!(
        pair.server.readable_bytes()?,
        700,
        "FIONREAD after reading 300"
    );
    pair.server.recv_all(&mut [0; 700])?;
    check_eq!(
        pair.server.readable_bytes()?,
        0,
        "FIONREAD after reading the rest"
    );
    Ok(())
}

fn receive_timeout(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    pair.server
        .set_timeout(libc::SO_RCVTIMEO, Duration::from_millis(200))?;
    check_errno!(
        pair.server.recv(&mut [0; 1], 0),
        libc::EAGAIN,
        "recv() with SO_RCVTIMEO"
    );
    pair.client.send_all(b"x")?;
    pair.server.await_events(libc::POLLIN)?;
    check_eq!(
        pair.server.recv(&mut [0; 2], 0)?,
        1,
        "bytes after the time-out"
    );
    Ok(())
}

fn send_timeout(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    pair.client
        .set_timeout(libc::SO_SNDTIMEO, Duration::from_millis(200))?;
    let pattern = Pattern::new(ctx, 5);
    let mut sent = 0;
    loop {
        match pair
            .client
            .send(pattern.at(sent, 60_000), libc::MSG_NOSIGNAL)
        {
            Ok(count) => sent += count,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
        check!(sent < 1 << 30, "a gigabyte was taken and nobody reads");
    }
    // Nothing of what was accepted may be lost.
    drop(pair.client);
    let got = pair.server.recv_to_end()?;
    check_eq!(got.len(), sent, "bytes that arrived");
    pattern.verify(0, &got)
}

/// A file in memory with a pattern.
fn memory_file(pattern: &Pattern, length: usize) -> Outcome<std::fs::File> {
    // SAFETY: a constant C string.
    let fd = cvt(unsafe { libc::memfd_create(c"pattern".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    let mut at = 0;
    while at < length {
        let part = pattern.at(at, length - at);
        file.write_all(part)?;
        at += part.len();
    }
    Ok(file)
}

fn sendfile(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let pattern = Pattern::new(ctx, 6);
    let length = 8_000_003 / ctx.divisor;
    let file = memory_file(&pattern, length)?;
    let client = pair.client;
    let thread = std::thread::spawn(move || -> Outcome {
        let mut offset: libc::off_t = 0;
        while (offset as usize) < length {
            // SAFETY: `offset` is live.
            let sent = cvt_size(unsafe {
                libc::sendfile(
                    client.as_raw_fd(),
                    file.as_raw_fd(),
                    &raw mut offset,
                    length - offset as usize,
                )
            })
            .during("sendfile()")?;
            check!(sent > 0, "sendfile() returned 0 at {offset}");
        }
        Ok(())
    });
    let got = pair.server.recv_to_end()?;
    join(thread)?;
    check_eq!(got.len(), length, "bytes that arrived");
    pattern.verify(0, &got)
}

fn splice(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let pattern = Pattern::new(ctx, 7);
    let length = 2_000_003 / ctx.divisor;
    let bytes: Vec<u8> = {
        let mut all = Vec::with_capacity(length);
        while all.len() < length {
            let part = pattern.at(all.len(), length - all.len());
            all.extend_from_slice(part);
        }
        all
    };
    let client = pair.client;
    let thread = std::thread::spawn(move || -> Outcome {
        client.send_all(&bytes)?;
        Ok(())
    });
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    cvt(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: two fresh descriptors that nobody else owns.
    let (from, to) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    let mut from = std::fs::File::from(from);
    let mut have = 0;
    let mut buffer = vec![0; 65536];
    loop {
        // SAFETY: no offsets are given.
        let moved = cvt_size(unsafe {
            libc::splice(
                pair.server.as_raw_fd(),
                std::ptr::null_mut(),
                to.as_raw_fd(),
                std::ptr::null_mut(),
                buffer.len(),
                0,
            )
        })
        .during("splice() from the socket")?;
        if moved == 0 {
            break;
        }
        std::io::Read::read_exact(&mut from, &mut buffer[..moved])?;
        pattern.verify(have, &buffer[..moved])?;
        have += moved;
    }
    join(thread)?;
    check_eq!(have, length, "bytes that arrived");
    Ok(())
}

fn not_connected(ctx: &Ctx) -> Outcome {
    let sock = ctx.socket(crate::kind::Host::A)?;
    check_errno!(
        sock.recv(&mut [0; 1], 0),
        libc::ENOTCONN,
        "recv() on a fresh socket"
    );
    check_errno!(
        sock.send(b"x", libc::MSG_NOSIGNAL),
        libc::EPIPE,
        "send() on a fresh socket"
    );
    check_errno!(
        sock.shutdown(libc::SHUT_RDWR),
        libc::ENOTCONN,
        "shutdown() on a fresh socket"
    );
    check_errno!(
        sock.accept(),
        libc::EINVAL,
        "accept() on a socket that does not listen"
    );
    let pair = ctx.pair()?;
    check_errno!(
        pair.client.shutdown(7),
        libc::EINVAL,
        "shutdown() with a wrong direction"
    );
    check_errno!(
        pair.client.connect(pair.server.local()?),
        libc::EISCONN,
        "connect() on a connected socket"
    );
    Ok(())
}

/// The listener looks at SYNs itself, which must not be seen in the user's own option.
fn save_syn(ctx: &Ctx) -> Outcome {
    const TCP_SAVE_SYN: i32 = 27;
    let (listener, address) = ctx.listener(8)?;
    for value in [0, 1, 0] {
        if value != 0 {
            listener.set(libc::IPPROTO_TCP, TCP_SAVE_SYN, value)?;
        }
        check_eq!(
            listener.get(libc::IPPROTO_TCP, TCP_SAVE_SYN)?,
            value,
            "TCP_SAVE_SYN of a listener"
        );
        ctx.pair_from(&listener, address)
            .during(&format!("TCP_SAVE_SYN is {value}"))?;
        listener.set(libc::IPPROTO_TCP, TCP_SAVE_SYN, 0)?;
        ctx.pair_from(&listener, address)
            .during("TCP_SAVE_SYN was set to 0")?;
    }
    Ok(())
}

/// TCP_CORK holds small writes back, also if it was set when there was no connection.
fn cork_before_connect(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let mut unsent = 0;
    // A cork gives way after some 200 ms, which may just be over.
    for _ in 0..5 {
        let client = ctx.socket(crate::kind::Host::A)?;
        client.set(libc::IPPROTO_TCP, libc::TCP_CORK, 1)?;
        client.connect(address)?;
        let server = listener.accept()?;
        ctx.prove(crate::kind::Host::A, &client)?;
        for word in [b"one ".as_slice(), b"two ", b"three"] {
            client.send_all(word)?;
        }
        unsent = client.unsent_bytes()?;
        client.set(libc::IPPROTO_TCP, libc::TCP_CORK, 0)?;
        let mut got = [0; 13];
        server.recv_all(&mut got)?;
        check_eq!(
            &got,
            b"one two three",
            "what came after the cork was taken off"
        );
        if unsent == got.len() {
            return Ok(());
        }
    }
    check_eq!(unsent, 13, "bytes that are not sent yet under the cork");
    Ok(())
}
