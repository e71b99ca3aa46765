//! Signals: `O_ASYNC`, and what a signal does to a call that waits.

use super::asleep::Sleeper;
use super::hostile::{message, next_port, DECLINE, EYE};
use super::network::Rules;
use super::raw::{self, RawPeer};
use super::{any, fallback, once};
use crate::kind::Host;
use crate::runner::{Ctx, Test};
use crate::sys::{self, cvt, cvt_size, Epoll, Sock};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const TESTS: [Test; 13] = [
    any("signals.io_of_data", 60, io_of_data),
    any("signals.io_without_number", 60, io_without_number),
    any("signals.io_of_space", 60, io_of_space),
    any("signals.io_of_accept", 60, io_of_accept),
    any("signals.io_of_connect", 60, io_of_connect),
    any("signals.io_of_end", 60, io_of_end),
    fallback("signals.io_after_fallback", 60, io_after_fallback),
    any("signals.interrupted", 60, |ctx| interrupt_all(ctx, false)),
    any("signals.restarted", 60, |ctx| interrupt_all(ctx, true)),
    any("signals.part_is_kept", 60, part_is_kept),
    any("signals.connect", 60, connect),
    once("signals.handshake", 60, handshake),
    any("signals.broken_pipe", 60, broken_pipe),
];

const SOON: Duration = Duration::from_secs(20);
/// How long to look for a signal that must not come.
const NEVER: Duration = Duration::from_millis(100);

const POLL_IN: i32 = 1;
const POLL_OUT: i32 = 2;
const POLL_ERR: i32 = 4;
const POLL_HUP: i32 = 6;

/// What the signal of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    code: i32,
    /// Poll events.
    band: i64,
    fd: i32,
}

/// The signal that files are told to send; blocked, and taken by [`next`].
fn number() -> i32 {
    libc::SIGRTMIN() + 3
}

fn signal_set(signal: i32) -> libc::sigset_t {
    // SAFETY: the calls fill the set in, which is live.
    unsafe {
        let mut set = zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        set
    }
}

fn block(signal: i32) {
    let set = signal_set(signal);
    // SAFETY: the set is live; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// The next signal of this number, if one comes within the time.
fn next(signal: i32, limit: Duration) -> Option<Told> {
    let set = signal_set(signal);
    let time = libc::timespec {
        tv_sec: limit.as_secs() as i64,
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: all zeroes is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    // SAFETY: set, info and time are live.
    let got = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const time) };
    if got != signal {
        return None;
    }
    // si_band and si_fd, which the libc crate does not name: behind three ints and a gap.
    let place = (&raw const info).cast::<u8>();
    // SAFETY: both are inside of siginfo_t, aligned for their types.
    let (band, fd) = unsafe {
        (
            place.add(16).cast::<i64>().read(),
            place.add(24).cast::<i32>().read(),
        )
    };
    Some(Told {
        code: info.si_code,
        band,
        fd,
    })
}

/// Waits for a signal that says `code` of this socket; others may come before it.
fn await_code(sock: &Sock, code: i32, what: &str) -> Outcome<Told> {
    let end = Instant::now() + SOON;
    let mut seen = Vec::new();
    while Instant::now() < end {
        match next(number(), Duration::from_secs(1)) {
            Some(told) if told.code == code => {
                check_eq!(told.fd, sock.as_raw_fd(), "{what}: the file of the signal");
                return Ok(told);
            }
            Some(told) => seen.push(told),
            None => {}
        }
    }
    Err(Fail(format!(
        "{what}: no signal with code {code} came, but {seen:?}"
    )))
}

/// Takes what is pending, until nothing more comes.
fn drain() {
    while next(number(), NEVER).is_some() {}
}

fn set_async(sock: &Sock, on: bool) -> Outcome {
    let fd = sock.as_raw_fd();
    // SAFETY: no pointers but that of the ioctl, which reads an int.
    unsafe {
        cvt(libc::fcntl(fd, libc::F_SETOWN, libc::getpid())).during("fcntl(F_SETOWN)")?;
        cvt(libc::fcntl(fd, 10 /* F_SETSIG */, number())).during("fcntl(F_SETSIG)")?;
        let value = i32::from(on);
        cvt(libc::ioctl(fd, libc::FIOASYNC, &raw const value)).during("ioctl(FIOASYNC)")?;
    }
    check_eq!(
        sock.status_flags()? & libc::O_ASYNC != 0,
        on,
        "O_ASYNC after FIOASYNC"
    );
    Ok(())
}

fn io_of_data(ctx: &Ctx) -> Outcome {
    block(number());
    let pair = ctx.pair()?;
    for sock in [&pair.server, &pair.client] {
        set_async(sock, true)?;
    }
    for (near, far) in [(&pair.client, &pair.server), (&pair.server, &pair.client)] {
        for word in [b"one", b"two"] {
            near.send_all(word)?;
            let told = await_code(far, POLL_IN, "new data")?;
            check!(
                told.band & i64::from(libc::POLLIN) != 0,
                "events of the signal: {:#x}",
                told.band
            );
            let mut got = [0; 3];
            far.recv_all(&mut got)?;
            check_eq!(&got, word, "what came");
        }
    }
    for sock in [&pair.server, &pair.client] {
        set_async(sock, false)?;
    }
    drain();
    pair.client.send_all(b"now quietly")?;
    pair.server.await_events(libc::POLLIN)?;
    check_eq!(next(number(), NEVER), None, "signals without O_ASYNC");
    Ok(())
}

/// Without F_SETSIG it is SIGIO; and `fcntl(F_SETFL)` is another way to ask for it.
fn io_without_number(ctx: &Ctx) -> Outcome {
    block(libc::SIGIO);
    let pair = ctx.pair()?;
    let fd = pair.server.as_raw_fd();
    let flags = pair.server.status_flags()?;
    // SAFETY: no pointers.
    unsafe {
        cvt(libc::fcntl(fd, libc::F_SETOWN, libc::getpid())).during("fcntl(F_SETOWN)")?;
        cvt(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_ASYNC)).during("fcntl(F_SETFL)")?;
        check_eq!(
            cvt(libc::fcntl(fd, libc::F_GETOWN))?,
            libc::getpid(),
            "F_GETOWN"
        );
    }
    pair.client.send_all(b"hello")?;
    check!(
        next(libc::SIGIO, SOON).is_some(),
        "no SIGIO came for new data"
    );
    Ok(())
}

fn fill(sock: &Sock) -> Outcome<usize> {
    let block = [3; 32_768];
    let mut sent = 0;
    let mut silent = false;
    loop {
        match sock.send(&block, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
            Ok(count) => {
                sent += count;
                silent = false;
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                if silent {
                    return Ok(sent);
                }
                // What is under way may make room once more, also less than `poll` tells of.
                silent = sock.poll(libc::POLLOUT, NEVER)? == 0;
            }
            Err(error) => return Err(error.into()),
        }
        check!(sent < 1 << 30, "a gigabyte was taken and nobody reads");
    }
}

fn read_exactly(sock: &Sock, mut count: usize) -> Outcome {
    let mut part = vec![0; 65_536];
    while count > 0 {
        let most = count.min(part.len());
        let got = sock.recv(&mut part[..most], 0)?;
        check!(got > 0, "end of stream with {count} bytes missing");
        count -= got;
    }
    Ok(())
}

/// Room is told to somebody who had none, and to nobody else.
fn io_of_space(ctx: &Ctx) -> Outcome {
    block(number());
    let pair = ctx.pair()?;
    set_async(&pair.client, true)?;
    pair.client.send_all(&[1; 2000])?;
    read_exactly(&pair.server, 2000)?;
    drain();
    let mut sent = fill(&pair.client)?;
    // What was under way may have made room, and told so, before the signals were taken away.
    loop {
        drain();
        match pair.client.send(&[1; 1000], libc::MSG_DONTWAIT) {
            Ok(count) => sent += count + fill(&pair.client)?,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    read_exactly(&pair.server, sent)?;
    let told = await_code(&pair.client, POLL_OUT, "room again")?;
    check!(
        told.band & i64::from(libc::POLLOUT) != 0,
        "events of the signal: {:#x}",
        told.band
    );
    Ok(())
}

fn io_of_accept(ctx: &Ctx) -> Outcome {
    block(number());
    let (listener, address) = ctx.listener(8)?;
    set_async(&listener, true)?;
    for _ in 0..2 {
        let client = ctx.connect(address)?;
        await_code(&listener, POLL_IN, "a connection")?;
        let server = listener.accept()?;
        ctx.prove(Host::B, &server)?;
        check_eq!(
            server.status_flags()? & libc::O_ASYNC,
            0,
            "O_ASYNC of the accepted socket"
        );
        drop(client);
        drain();
    }
    Ok(())
}

fn io_of_connect(ctx: &Ctx) -> Outcome {
    block(number());
    let (listener, address) = ctx.listener(8)?;
    let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    set_async(&client, true)?;
    check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
    await_code(&client, POLL_OUT, "a connection that was made")?;
    let server = listener.accept()?;
    client.await_events(libc::POLLOUT)?;
    ctx.prove(Host::A, &client)?;
    drain();
    server.send_all(b"hi")?;
    await_code(&client, POLL_IN, "data behind the handshake")?;
    drop((client, server, listener));
    drain();
    let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    set_async(&client, true)?;
    check_errno!(
        client.connect(address),
        libc::EINPROGRESS,
        "connect() to nobody"
    );
    await_code(&client, POLL_ERR, "a connection that was refused")?;
    check_eq!(client.error()?, libc::ECONNREFUSED, "SO_ERROR");
    Ok(())
}

fn io_of_end(ctx: &Ctx) -> Outcome {
    block(number());
    let pair = ctx.pair()?;
    set_async(&pair.client, true)?;
    pair.server.shutdown(libc::SHUT_WR)?;
    await_code(&pair.client, POLL_IN, "the end of the stream")?;
    check_eq!(pair.client.recv(&mut [0; 1], 0)?, 0, "end of stream");
    drop(pair);
    drain();

    let pair = ctx.pair()?;
    set_async(&pair.client, true)?;
    pair.client.shutdown(libc::SHUT_WR)?;
    pair.server.recv_to_end()?;
    drain();
    drop(pair.server);
    await_code(&pair.client, POLL_HUP, "the end of both directions")?;
    drop(pair.client);
    drain();

    let pair = ctx.pair()?;
    set_async(&pair.client, true)?;
    pair.server.set_linger(Some(0))?;
    drop(pair.server);
    await_code(&pair.client, POLL_ERR, "a reset")?;
    check_errno!(
        pair.client.recv(&mut [0; 1], 0),
        libc::ECONNRESET,
        "recv() after a reset"
    );
    Ok(())
}

/// Who asked an SMC socket for signals gets those of the TCP socket that it became.
fn io_after_fallback(ctx: &Ctx) -> Outcome {
    block(number());
    let listener = Sock::new(Host::B, ctx.kind.plain(), 0)?;
    listener.bind(Host::B.address(ctx.kind, 0))?;
    listener.listen(8)?;
    let client = ctx.socket(Host::A)?;
    set_async(&client, true)?;
    client.connect(listener.local()?)?;
    let server = listener.accept()?;
    drain();
    server.send_all(b"data")?;
    await_code(&client, POLL_IN, "new data")?;
    client.recv_all(&mut [0; 4])?;
    let sent = fill(&client)?;
    drain();
    read_exactly(&server, sent)?;
    await_code(&client, POLL_OUT, "room again")?;
    set_async(&client, false)?;
    drain();
    server.send_all(b"data")?;
    client.await_events(libc::POLLIN)?;
    check_eq!(next(number(), NEVER), None, "signals without O_ASYNC");
    Ok(())
}

/// How often the handler has run.
static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handler(_: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

fn handle(restart: bool) -> Outcome {
    // SAFETY: all zeroes is a valid sigaction; the handler only counts.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as extern "C" fn(i32) as usize;
        action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
        cvt(libc::sigaction(
            libc::SIGUSR1,
            &raw const action,
            std::ptr::null_mut(),
        ))?;
    }
    Ok(())
}

/// Both ends of a connection, and a listener without connections.
struct Ends {
    near: Sock,
    far: Sock,
    listener: Sock,
    address: std::net::SocketAddr,
    /// Bytes that fill the connection from near to far.
    filled: usize,
}

/// A call that waits.
struct Call {
    name: &'static str,
    /// Whether it goes on after a handler that was set up with SA_RESTART.
    restarts: bool,
    /// Whether near can send no more when it is called.
    full: bool,
    body: fn(&Ends) -> io::Result<usize>,
}

/// A time limit that no call reaches.
const LONG: Duration = Duration::from_secs(60);

fn receive_message(sock: &Sock) -> io::Result<usize> {
    let mut data = [0u8; 8];
    let mut vector = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    // SAFETY: the header describes `data`.
    cvt_size(unsafe { libc::recvmsg(sock.as_raw_fd(), &raw mut header, 0) })
}

fn splice_out(sock: &Sock) -> io::Result<usize> {
    let (from, to) = sys::pipe()?;
    // SAFETY: no offsets are given.
    let moved = cvt_size(unsafe {
        libc::splice(
            sock.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            8,
            0,
        )
    });
    drop(from);
    moved
}

fn select_readable(sock: &Sock) -> io::Result<usize> {
    // SAFETY: all zeroes is a valid fd_set; the set is live and the descriptor small.
    unsafe {
        let mut set: libc::fd_set = zeroed();
        libc::FD_SET(sock.as_raw_fd(), &raw mut set);
        let none = std::ptr::null_mut();
        cvt(libc::select(
            sock.as_raw_fd() + 1,
            &raw mut set,
            none,
            none,
            std::ptr::null_mut(),
        ))
        .map(|n| n as usize)
    }
}

const CALLS: &[Call] = &[
    Call {
        name: "recv()",
        restarts: true,
        full: false,
        body: |e| e.near.recv(&mut [0; 8], 0),
    },
    Call {
        name: "read()",
        restarts: true,
        full: false,
        body: |e| e.near.read(&mut [0; 8]),
    },
    Call {
        name: "readv()",
        restarts: true,
        full: false,
        body: |e| e.near.readv(&mut [&mut [0; 4], &mut [0; 4]]),
    },
    Call {
        name: "recvmsg()",
        restarts: true,
        full: false,
        body: |e| receive_message(&e.near),
    },
    Call {
        name: "recv(MSG_PEEK)",
        restarts: true,
        full: false,
        body: |e| e.near.recv(&mut [0; 8], libc::MSG_PEEK),
    },
    Call {
        name: "recv(MSG_WAITALL)",
        restarts: true,
        full: false,
        body: |e| e.near.recv(&mut [0; 8], libc::MSG_WAITALL),
    },
    Call {
        name: "splice() out of the socket",
        restarts: true,
        full: false,
        body: |e| splice_out(&e.near),
    },
    Call {
        name: "send()",
        restarts: true,
        full: true,
        body: |e| e.near.send(&[0; 8], libc::MSG_NOSIGNAL),
    },
    Call {
        name: "write()",
        restarts: true,
        full: true,
        body: |e| e.near.write(&[0; 8]),
    },
    Call {
        name: "writev()",
        restarts: true,
        full: true,
        body: |e| e.near.writev(&[&[0; 4], &[0; 4]]),
    },
    Call {
        name: "accept()",
        restarts: true,
        full: false,
        body: |e| e.listener.accept().map(|_| 8),
    },
    Call {
        name: "poll()",
        restarts: false,
        full: false,
        body: |e| e.near.poll(libc::POLLIN, SOON).map(|_| 8),
    },
    Call {
        name: "poll() of a listener",
        restarts: false,
        full: false,
        body: |e| e.listener.poll(libc::POLLIN, SOON).map(|_| 8),
    },
    Call {
        name: "select()",
        restarts: false,
        full: false,
        body: |e| select_readable(&e.near),
    },
    Call {
        name: "epoll_wait()",
        restarts: false,
        full: false,
        body: |e| {
            let epoll = Epoll::new()?;
            epoll.add(&e.near, libc::EPOLLIN, 1)?;
            epoll.wait(SOON).map(|_| 8)
        },
    },
    Call {
        name: "recv() with SO_RCVTIMEO",
        restarts: false,
        full: false,
        body: |e| {
            e.near.set_timeout(libc::SO_RCVTIMEO, LONG)?;
            e.near.recv(&mut [0; 8], 0)
        },
    },
    Call {
        name: "send() with SO_SNDTIMEO",
        restarts: false,
        full: true,
        body: |e| {
            e.near.set_timeout(libc::SO_SNDTIMEO, LONG)?;
            e.near.send(&[0; 8], libc::MSG_NOSIGNAL)
        },
    },
    Call {
        name: "accept() with SO_RCVTIMEO",
        restarts: false,
        full: false,
        body: |e| {
            e.listener.set_timeout(libc::SO_RCVTIMEO, LONG)?;
            e.listener.accept().map(|_| 8)
        },
    },
];

fn interrupt_all(ctx: &Ctx, restart: bool) -> Outcome {
    handle(restart)?;
    for call in CALLS {
        interrupt(ctx, call, restart).during(call.name)?;
    }
    Ok(())
}

fn interrupt(ctx: &Ctx, call: &'static Call, restart: bool) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let pair = ctx.pair_from(&listener, address)?;
    let filled = if call.full { fill(&pair.client)? } else { 0 };
    let ends = Arc::new(Ends {
        near: pair.client,
        far: pair.server,
        listener,
        address,
        filled,
    });
    let goes_on = restart && call.restarts;
    let thread = {
        let ends = ends.clone();
        Sleeper::spawn(move || {
            let result = (call.body)(&ends);
            if goes_on {
                check_eq!(result?, 8, "what it gave after signals");
            } else {
                check_errno!(result, libc::EINTR, "what it gave after a signal");
            }
            Ok(())
        })?
    };
    for _ in 0..if goes_on { 2 } else { 1 } {
        let before = HANDLED.load(Ordering::SeqCst);
        thread.signal(libc::SIGUSR1)?;
        sys::eventually("the handler has run", || {
            Ok(HANDLED.load(Ordering::SeqCst) > before)
        })?;
        if goes_on {
            thread.await_asleep()?;
            check!(!thread.is_over(), "a call that has to go on came back");
        }
    }
    let mut client = None;
    if goes_on {
        match (call.full, call.name) {
            (true, _) => read_exactly(&ends.far, ends.filled)?,
            (_, "accept()") => client = Some(ctx.connect(ends.address)?),
            _ => ends.far.send_all(&[0; 8])?,
        }
    }
    thread.wake_up("the call comes back")?;
    drop(client);
    Ok(())
}

/// A signal ends a call that has done a part: the part counts.
fn part_is_kept(ctx: &Ctx) -> Outcome {
    handle(true)?;
    let pair = ctx.pair()?;
    pair.server.send_all(b"part")?;
    pair.client.await_events(libc::POLLIN)?;
    let client = pair.client.dup()?;
    let thread = Sleeper::spawn(move || {
        let mut got = [0; 10];
        check_eq!(
            client.recv(&mut got, libc::MSG_WAITALL)?,
            4,
            "bytes of recv(MSG_WAITALL) after a signal"
        );
        check_eq!(&got[..4], b"part", "what it received");
        Ok(())
    })?;
    thread.signal(libc::SIGUSR1)?;
    thread.wake_up("recv(MSG_WAITALL) comes back with a part")?;
    check_errno!(
        pair.client.recv(&mut [0; 1], libc::MSG_DONTWAIT),
        libc::EAGAIN,
        "nothing is left"
    );

    let client = pair.client.dup()?;
    let (tell, told) = std::sync::mpsc::channel();
    let thread = Sleeper::spawn(move || {
        let all = vec![5; 64 << 20];
        let sent = client.send(&all, 0)?;
        check!(
            sent > 0 && sent < all.len(),
            "send() of {} bytes gave {sent} after a signal",
            all.len()
        );
        tell.send(sent).during("the count")
    })?;
    thread.signal(libc::SIGUSR1)?;
    thread.wake_up("send() comes back with a part")?;
    let sent = told.recv().during("the count")?;
    pair.client.shutdown(libc::SHUT_WR)?;
    let got = pair.server.recv_to_end()?;
    check_eq!(
        got.len(),
        sent,
        "bytes that arrived of what counted as sent"
    );
    Ok(())
}

/// A connect() that a signal ends goes on by itself; called again, it waits for the same connection.
fn connect(ctx: &Ctx) -> Outcome {
    handle(false)?;
    let (listener, address) = ctx.listener(8)?;
    let rules = Rules::new(
        Host::B,
        "prerouting",
        &[&format!("tcp dport {} drop", address.port())],
    )?;
    let again = Arc::new(ctx.socket(Host::A)?);
    let polled = Arc::new(ctx.socket(Host::A)?);
    let restarted = Arc::new(ctx.socket(Host::A)?);
    for sock in [&again, &polled] {
        let sock = sock.clone();
        let thread = Sleeper::spawn(move || {
            check_errno!(sock.connect(address), libc::EINTR, "connect()");
            Ok(())
        })?;
        thread.signal(libc::SIGUSR1)?;
        thread.wake_up("connect() is interrupted")?;
    }
    check_eq!(polled.error()?, 0, "SO_ERROR after the signal");
    check_errno!(polled.peer(), libc::ENOTCONN, "getpeername()");
    handle(true)?;
    let call = |sock: &Arc<Sock>| {
        let sock = sock.clone();
        Sleeper::spawn(move || sock.connect(address).during("connect()"))
    };
    let threads = [call(&again)?, call(&restarted)?];
    for thread in &threads {
        thread.signal(libc::SIGUSR1)?;
        thread.await_asleep()?;
        check!(!thread.is_over(), "connect() was not restarted");
    }
    drop(rules);
    for thread in threads {
        thread.wake_up("connect() succeeds")?;
    }
    polled.await_events(libc::POLLOUT)?;
    check_eq!(polled.error()?, 0, "SO_ERROR of the connection");
    polled
        .connect(address)
        .during("connect() that tells of the connection")?;
    for sock in [&again, &polled, &restarted] {
        check_errno!(sock.connect(address), libc::EISCONN, "connect() once more");
        let server = listener.accept()?;
        server.send_all(b"hello")?;
    }
    for sock in [again, polled, restarted] {
        let mut got = [0; 5];
        sock.recv_all(&mut got)?;
        check_eq!(&got, b"hello", "what came");
    }
    Ok(())
}

/// TCP is connected, and the server takes its time with the handshake of SMC: a signal ends the call and not the handshake, and time
/// limits that are set meanwhile are the program's.
fn handshake(ctx: &Ctx) -> Outcome {
    handle(false)?;
    raw::prepare()?;
    let listening = RawPeer::listen(next_port())?;
    let address = listening.address();
    let client = Arc::new(Sock::new(Host::B, ctx.kind, 0)?);
    let thread = {
        let client = client.clone();
        Sleeper::spawn(move || {
            check_errno!(client.connect(address), libc::EINTR, "connect()");
            Ok(())
        })?
    };
    let mut peer = listening.accept()?;
    let proposal = peer.receive(SOON)?;
    check_eq!(proposal.first_chunk(), Some(&EYE), "a Proposal");
    thread.signal(libc::SIGUSR1)?;
    thread.wake_up("connect() is interrupted")?;
    client.set_timeout(libc::SO_RCVTIMEO, Duration::from_secs(33))?;
    peer.send(&message(DECLINE, 2, &[0; 16]))?;
    client.await_events(libc::POLLOUT)?;
    check_eq!(client.error()?, 0, "SO_ERROR");
    // The first word, the seconds.
    check_eq!(
        client.get(libc::SOL_SOCKET, libc::SO_RCVTIMEO)?,
        33,
        "SO_RCVTIMEO after the handshake"
    );
    peer.send(b"hello")?;
    let mut got = [0; 5];
    client.recv_all(&mut got)?;
    check_eq!(&got, b"hello", "what came by TCP");
    Ok(())
}

/// How often SIGPIPE came.
static BROKEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn broken(_: i32) {
    BROKEN.fetch_add(1, Ordering::SeqCst);
}

/// SIGPIPE comes once for each call that fails with EPIPE, unless MSG_NOSIGNAL asks for none.
fn broken_pipe(ctx: &Ctx) -> Outcome {
    // SAFETY: the handler only counts.
    unsafe { libc::signal(libc::SIGPIPE, broken as extern "C" fn(i32) as usize) };
    let pair = ctx.pair()?;
    let sock = &pair.client;
    sock.shutdown(libc::SHUT_WR)?;
    type Body = fn(&Sock) -> io::Result<usize>;
    let calls: [(&str, u32, Body); 5] = [
        ("send()", 1, |sock| sock.send(b"x", 0)),
        ("send(MSG_NOSIGNAL)", 0, |sock| {
            sock.send(b"x", libc::MSG_NOSIGNAL)
        }),
        ("write()", 1, |sock| sock.write(b"x")),
        ("writev()", 1, |sock| sock.writev(&[b"x", b"y"])),
        ("send(MSG_OOB)", 1, |sock| sock.send(b"x", libc::MSG_OOB)),
    ];
    for (name, signals, body) in calls {
        let before = BROKEN.load(Ordering::SeqCst);
        check_errno!(body(sock), libc::EPIPE, "{name}");
        check_eq!(
            BROKEN.load(Ordering::SeqCst) - before,
            signals,
            "SIGPIPE of {name}"
        );
    }
    Ok(())
}
