//! One socket with several descriptors, processes or threads.

use super::asleep::Sleeper;
use super::network::Rules;
use super::{any, fallback, join, Pattern};
use crate::kind::Host;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, cvt, cvt_size, Child, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use rand::Rng;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

pub const TESTS: [Test; 13] = [
    any("sharing.dup", 60, dup),
    any("sharing.pass_connected", 60, pass_connected),
    any("sharing.pass_listening", 60, pass_listening),
    any("sharing.pass_in_a_circle", 60, pass_in_a_circle),
    any("sharing.pass_connecting", 60, |ctx| {
        pass_connecting(ctx, false)
    }),
    fallback("sharing.pass_before_fallback", 60, |ctx| {
        pass_connecting(ctx, true)
    }),
    fallback("sharing.fork_before_fallback", 60, fork_before_fallback),
    any("sharing.threads_write_and_read", 60, threads_write_and_read),
    any("sharing.close_under_recv", 60, close_under_recv),
    any("sharing.close_under_accept", 60, close_under_accept),
    any("sharing.close_under_connect", 60, close_under_connect),
    any("sharing.shutdown_under_send", 120, shutdown_under_send),
    any("sharing.shutdown_wakes", 60, shutdown_wakes),
];

/// How long to look for something that must not come.
const NEVER: Duration = Duration::from_millis(100);

/// A word each way.
fn converse(near: &Sock, far: &Sock) -> Outcome {
    let mut got = [0; 4];
    near.send_all(b"ping")?;
    far.recv_all(&mut got)?;
    check_eq!(&got, b"ping", "what came");
    far.send_all(b"pong")?;
    near.recv_all(&mut got)?;
    check_eq!(&got, b"pong", "what came back");
    Ok(())
}

fn echo(sock: &Sock) -> Outcome {
    let mut got = [0; 4];
    sock.recv_all(&mut got)?;
    sock.send_all(&got)?;
    Ok(())
}

fn ask(sock: &Sock) -> Outcome {
    let mut got = [0; 4];
    sock.send_all(b"what")?;
    sock.recv_all(&mut got)?;
    check_eq!(&got, b"what", "the echo");
    Ok(())
}

/// The connection ends with its last descriptor; flags of the file are shared, those of the descriptor
/// are not.
fn dup(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let second = client.dup()?;
    check_eq!(second.inode()?, client.inode()?, "the inode of both");
    client.set_nonblocking(true)?;
    check!(
        second.status_flags()? & libc::O_NONBLOCK != 0,
        "O_NONBLOCK is not shared"
    );
    client.set_nonblocking(false)?;
    converse(&second, &server)?;
    drop(client);
    check_eq!(
        server.poll(libc::POLLIN | libc::POLLRDHUP, NEVER)?,
        0,
        "events when one of two descriptors was closed"
    );
    converse(&second, &server)?;
    let third = second.dup()?;
    third.shutdown(libc::SHUT_WR)?;
    check_errno!(
        second.send(b"x", libc::MSG_NOSIGNAL),
        libc::EPIPE,
        "send() after shutdown() of the other descriptor"
    );
    check_eq!(server.recv(&mut [0; 1], 0)?, 0, "end of stream");
    drop((second, third));
    server.await_events(libc::POLLIN)?;
    Ok(())
}

/// Two ends of a local channel, to pass descriptors over.
fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    cvt(unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
            ends.as_mut_ptr(),
        )
    })?;
    // SAFETY: two fresh descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Room for one control message with one descriptor, aligned for it.
type Control = [u64; 8];

fn message(byte: &mut [u8; 1], control: &mut Control) -> (libc::iovec, usize) {
    let vector = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    (vector, size_of_val(control))
}

fn pass(channel: &OwnedFd, fd: impl AsRawFd) -> Outcome {
    let (mut byte, mut control) = ([1u8], Control::default());
    let (mut vector, _) = message(&mut byte, &mut control);
    // SAFETY: the header describes live memory; the control buffer is larger than CMSG_SPACE(4), and so
    // there is a first header in it, with room for one descriptor.
    let sent = unsafe {
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as usize;
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
        libc::CMSG_DATA(first)
            .cast::<i32>()
            .write_unaligned(fd.as_raw_fd());
        cvt_size(libc::sendmsg(channel.as_raw_fd(), &raw const header, 0))
    };
    check_eq!(sent.during("sendmsg() with SCM_RIGHTS")?, 1, "bytes sent");
    // From now on the only reference is under way.
    drop(fd);
    Ok(())
}

fn take(channel: &OwnedFd) -> Outcome<Sock> {
    let (mut byte, mut control) = ([0u8], Control::default());
    let (mut vector, room) = message(&mut byte, &mut control);
    // SAFETY: the header describes live memory; what is read was written by the kernel.
    let fd = unsafe {
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = room;
        cvt_size(libc::recvmsg(
            channel.as_raw_fd(),
            &raw mut header,
            libc::MSG_CMSG_CLOEXEC,
        ))
        .during("recvmsg() with SCM_RIGHTS")?;
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        check!(!first.is_null(), "no descriptor came");
        let fd = libc::CMSG_DATA(first).cast::<i32>().read_unaligned();
        OwnedFd::from_raw_fd(fd)
    };
    Ok(fd.into())
}

/// A socket under way to nobody, over a channel whose last descriptor is in the channel itself: the kernel collects both
/// when another socket of AF_UNIX is closed, in a work item of its own.
fn pass_in_a_circle(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let (near, far) = channel()?;
    client.send_all(b"last words")?;
    pass(&near, client)?;
    check_eq!(
        server.poll(libc::POLLRDHUP, NEVER)? & libc::POLLRDHUP,
        0,
        "end of stream while the socket is under way"
    );
    pass(&near, far)?;
    drop(near);
    check_eq!(server.recv_to_end()?, b"last words", "what came to the end");
    Ok(())
}

fn pass_connected(ctx: &Ctx) -> Outcome {
    let (ours, theirs) = channel()?;
    let mut child = Child::fork(|| {
        let (first, second) = (take(&theirs)?, take(&theirs)?);
        ctx.prove(Host::A, &first)?;
        ask(&first)?;
        echo(&second)
    })?;
    let one = ctx.pair()?;
    let two = ctx.pair()?;
    // What was sent before the socket was passed belongs to whoever takes it.
    one.server.send_all(b"what")?;
    pass(&ours, one.client)?;
    check_eq!(
        one.server.poll(libc::POLLRDHUP, NEVER)? & libc::POLLRDHUP,
        0,
        "end of stream while the socket is under way"
    );
    pass(&ours, two.server)?;
    ask(&two.client)?;
    child.join("receiving")?;
    let mut got = [0; 4];
    one.server.recv_all(&mut got)?;
    check_eq!(&got, b"what", "what the other process sent");
    check_eq!(
        one.server.recv(&mut got, 0)?,
        0,
        "end with the other process"
    );
    check_eq!(
        two.client.recv(&mut got, 0)?,
        0,
        "end with the other process"
    );
    Ok(())
}

fn pass_listening(ctx: &Ctx) -> Outcome {
    let (ours, theirs) = channel()?;
    let mut child = Child::fork(|| {
        let listener = take(&theirs)?;
        for _ in 0..2 {
            let server = listener.accept()?;
            ctx.prove(Host::B, &server)?;
            echo(&server)?;
        }
        Ok(())
    })?;
    let (listener, address) = ctx.listener(8)?;
    let early = ctx.connect(address)?;
    pass(&ours, listener)?;
    ask(&early)?;
    ask(&ctx.connect(address)?)?;
    child.join("listening")?;
    check_errno!(
        ctx.socket(Host::A)?.connect(address),
        libc::ECONNREFUSED,
        "connect() when the other process is gone"
    );
    Ok(())
}

/// A listener whose host does not hear the client yet.
fn unheard(ctx: &Ctx, plain: bool) -> Outcome<(Sock, std::net::SocketAddr, Rules)> {
    let kind = if plain { ctx.kind.plain() } else { ctx.kind };
    let listener = Sock::new(Host::B, kind, 0)?;
    listener.bind(Host::B.address(kind, 0))?;
    listener.listen(8)?;
    let address = listener.local()?;
    let rule = format!("tcp dport {} drop", address.port());
    let rules = Rules::new(Host::B, "prerouting", &[&rule])?;
    Ok((listener, address, rules))
}

fn pass_connecting(ctx: &Ctx, plain_server: bool) -> Outcome {
    let (ours, theirs) = channel()?;
    let mut child = Child::fork(|| {
        let sock = take(&theirs)?;
        // Told once the channel's other half was read: the host may hear it now.
        sock.await_events(libc::POLLOUT)?;
        check_eq!(sock.error()?, 0, "SO_ERROR");
        sock.set_nonblocking(false)?;
        ask(&sock)
    })?;
    let (listener, address, rules) = unheard(ctx, plain_server)?;
    let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
    pass(&ours, client)?;
    drop(rules);
    let server = listener.accept()?;
    echo(&server)?;
    child.join("connecting")?;
    check_eq!(
        server.recv(&mut [0; 1], 0)?,
        0,
        "end with the other process"
    );
    Ok(())
}

/// Two processes and two descriptors that know a socket since before it became one of TCP.
fn fork_before_fallback(ctx: &Ctx) -> Outcome {
    let (listener, address, rules) = unheard(ctx, true)?;
    let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
    let second = client.dup()?;
    let mut child = Child::fork(|| {
        client.await_events(libc::POLLOUT)?;
        check_eq!(client.error()?, 0, "SO_ERROR in the other process");
        client.set_nonblocking(false)?;
        ask(&client)
    })?;
    drop(client);
    drop(rules);
    let server = listener.accept()?;
    echo(&server)?;
    child.join("connecting")?;
    converse(&second, &server)?;
    drop(second);
    check_eq!(server.recv(&mut [0; 1], 0)?, 0, "end of stream");
    Ok(())
}

const WRITERS: usize = 4;
const READERS: usize = 4;

/// Each byte names its writer and counts up. What one call receives is a piece of the stream, so the bytes
/// of each writer in it follow each other; and in the end each one came exactly once.
fn threads_write_and_read(ctx: &Ctx) -> Outcome {
    let each: usize = (1 << 18) / ctx.divisor.min(4);
    let pair = ctx.pair()?;
    let (near, far) = (Arc::new(pair.client), Arc::new(pair.server));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let near = near.clone();
            let mut random = ctx.random(200 + writer as u64);
            std::thread::spawn(move || -> Outcome {
                let mut at = 0;
                while at < each {
                    let length = random.gen_range(1..20_000).min(each - at);
                    let data: Vec<u8> = (at..at + length)
                        .map(|place| ((writer << 6) | (place & 63)) as u8)
                        .collect();
                    // A part may go in between those of others.
                    near.send_all(&data)?;
                    at += length;
                }
                Ok(())
            })
        })
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let far = far.clone();
            let mut random = ctx.random(210 + reader as u64);
            std::thread::spawn(move || -> Outcome<Vec<usize>> {
                let mut counts = vec![0; 256];
                let mut part = vec![0; 30_000];
                loop {
                    let most = random.gen_range(1..part.len());
                    let count = far.recv(&mut part[..most], 0)?;
                    if count == 0 {
                        return Ok(counts);
                    }
                    let mut next = [None; WRITERS];
                    for &byte in &part[..count] {
                        let (writer, number) = (usize::from(byte >> 6), byte & 63);
                        check!(
                            next[writer].is_none_or(|next| next == number),
                            "byte {number} of writer {writer} came instead of {:?}",
                            next[writer]
                        );
                        next[writer] = Some((number + 1) & 63);
                        counts[usize::from(byte)] += 1;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        join(writer).during("a writer")?;
    }
    near.shutdown(libc::SHUT_WR)?;
    let mut total = vec![0; 256];
    for reader in readers {
        for (sum, count) in total.iter_mut().zip(join(reader).during("a reader")?) {
            *sum += count;
        }
    }
    for (byte, &count) in total.iter().enumerate() {
        check_eq!(count, each / 64, "how often byte {byte:#x} came");
    }
    Ok(())
}

/// A call under way keeps the socket: closing the descriptor does not end it.
fn close_under_recv(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let alias = client.alias();
    let thread = Sleeper::spawn(move || {
        let mut got = [0; 9];
        check_eq!(alias.recv(&mut got, 0)?, 9, "bytes received");
        check_eq!(&got, b"all alone", "what came");
        Ok(())
    })?;
    drop(client);
    check_eq!(
        server.poll(libc::POLLIN | libc::POLLRDHUP, NEVER)?,
        0,
        "events while recv() waits on the closed descriptor"
    );
    server.send_all(b"all alone")?;
    thread.wake_up("recv() has what came")?;
    check_eq!(
        server.recv(&mut [0; 1], 0)?,
        0,
        "end of stream after the call"
    );
    Ok(())
}

fn close_under_accept(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let alias = listener.alias();
    let thread = Sleeper::spawn(move || echo(&alias.accept()?))?;
    drop(listener);
    let client = ctx.connect(address)?;
    ask(&client)?;
    thread.wake_up("accept() has the connection")?;
    sys::eventually("nobody listens any more", || {
        match ctx.socket(Host::A)?.connect(address) {
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(true),
            _ => Ok(false),
        }
    })?;
    Ok(())
}

fn close_under_connect(ctx: &Ctx) -> Outcome {
    let (listener, address, rules) = unheard(ctx, false)?;
    let client = ctx.socket(Host::A)?;
    let alias = client.alias();
    let thread = Sleeper::spawn(move || alias.connect(address).during("connect()"))?;
    drop(client);
    drop(rules);
    let server = listener.accept()?;
    thread.wake_up("connect() succeeds")?;
    check_eq!(
        server.recv(&mut [0; 1], 0)?,
        0,
        "end of stream after the call"
    );
    Ok(())
}

/// What ends the calls that wait is shutdown(), in all threads.
/// What send() said it took before a shutdown() by another thread arrives, and nothing else.
fn shutdown_under_send(ctx: &Ctx) -> Outcome {
    for round in 0..20 {
        let pair = ctx.pair()?;
        let (near, far) = (Arc::new(pair.client), pair.server);
        let pattern = Arc::new(Pattern::new(ctx, 300 + round));
        let mut random = ctx.random(320 + round);
        let sender = {
            let (near, pattern) = (near.clone(), pattern.clone());
            let most = random.gen_range(1..30_000);
            std::thread::spawn(move || -> Outcome<usize> {
                let mut sent = 0;
                while sent < 1 << 20 {
                    match near.send(pattern.at(sent, most), libc::MSG_NOSIGNAL) {
                        Ok(count) => sent += count,
                        Err(error) if error.raw_os_error() == Some(libc::EPIPE) => break,
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(sent)
            })
        };
        let reader = std::thread::spawn(move || -> Outcome<Vec<u8>> { Ok(far.recv_to_end()?) });
        std::thread::sleep(Duration::from_micros(random.gen_range(0..5_000)));
        near.shutdown(libc::SHUT_WR)?;
        let (sent, got) = (join(sender)?, join(reader)?);
        check_eq!(
            got.len(),
            sent,
            "bytes that arrived, of those that send() took"
        );
        pattern.verify(0, &got)?;
    }
    Ok(())
}

fn shutdown_wakes(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let pair = ctx.pair_from(&listener, address)?;
    let (client, listener) = (Arc::new(pair.client), Arc::new(listener));
    let mut threads = Vec::new();
    for _ in 0..3 {
        let listener = listener.clone();
        threads.push(Sleeper::spawn(move || {
            check_errno!(listener.accept(), libc::EINVAL, "accept()");
            Ok(())
        })?);
    }
    for _ in 0..2 {
        let client = client.clone();
        threads.push(Sleeper::spawn(move || {
            check_eq!(client.recv(&mut [0; 8], 0)?, 0, "recv()");
            Ok(())
        })?);
    }
    let poll = client.clone();
    threads.push(Sleeper::spawn(move || {
        let events = poll.poll(libc::POLLIN | libc::POLLRDHUP, sys::PATIENCE)?;
        check!(
            events & libc::POLLIN != 0 && events & libc::POLLRDHUP != 0,
            "poll() reports {events:#x}"
        );
        Ok(())
    })?);
    let send = client.clone();
    threads.push(Sleeper::spawn(move || {
        let all = vec![0; 1 << 20];
        loop {
            match send.send(&all, libc::MSG_NOSIGNAL) {
                Ok(_) => {}
                Err(error) => {
                    check_eq!(error.raw_os_error(), Some(libc::EPIPE), "error of send()");
                    return Ok(());
                }
            }
        }
    })?);
    listener.shutdown(libc::SHUT_RDWR)?;
    client.shutdown(libc::SHUT_RDWR)?;
    for thread in threads {
        thread.wake_up("a call ends by shutdown()")?;
    }
    check_errno!(listener.accept(), libc::EINVAL, "accept() afterwards");
    Ok(())
}
