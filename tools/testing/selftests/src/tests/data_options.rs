//! Options that are about the data itself, which TCP does not carry: what it tells of it, and when.

use super::{any, once};
use crate::kind::{Host, Kind};
use crate::message::{self, Control};
use crate::mode;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, cvt, Sock};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

pub const TESTS: [Test; 12] = [
    any("data_options.tcp_info", 60, tcp_info),
    any("data_options.tcp_info_of_listener", 60, listener_info),
    any("data_options.defer_accept", 120, defer_accept),
    any("data_options.user_timeout", 120, user_timeout),
    any("data_options.timestamps", 60, timestamps),
    any("data_options.inq", 60, inq),
    any("data_options.zerocopy", 60, zerocopy),
    any("data_options.control_messages", 60, control_messages),
    any("data_options.linger2", 120, linger2),
    any(
        "data_options.shutdown_while_connecting",
        120,
        shutdown_while_connecting,
    ),
    once("data_options.timestamps_end", 60, timestamps_end),
    once("data_options.needs_tcp", 120, needs_tcp),
];

const SO_TIMESTAMPNS: i32 = 35;
const SO_TIMESTAMPING: i32 = 37;
const TCP_INQ: i32 = 36;
/// `SOF_TIMESTAMPING_TX_SOFTWARE`
const TX_SOFTWARE: i32 = 1 << 1;
const MSG_ZEROCOPY: i32 = 0x400_0000;

/// How long to look for what must not come.
const NEVER: Duration = Duration::from_millis(300);

/// `struct tcp_info`, as far as it is looked at here.
pub(super) struct Info(Vec<u8>);

impl Info {
    pub(super) fn of(sock: &Sock) -> Outcome<Info> {
        let mut info = vec![0u8; 512];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: `info` is valid for `length` bytes.
        cvt(unsafe {
            libc::getsockopt(
                sock.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        })
        .during("TCP_INFO")?;
        info.truncate(length as usize);
        check!(info.len() >= 232, "TCP_INFO has {} bytes", info.len());
        Ok(Info(info))
    }

    fn state(&self) -> u8 {
        self.0[0]
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn long(&self, at: usize) -> u64 {
        u64::from(self.word(at)) | (u64::from(self.word(at + 4)) << 32)
    }

    /// Of a listener: connections that wait for `accept`.
    pub(super) fn unacked(&self) -> u32 {
        self.word(24)
    }

    /// Round trip in microseconds.
    fn rtt(&self) -> u32 {
        self.word(68)
    }

    fn bytes_acked(&self) -> u64 {
        self.long(120)
    }

    fn bytes_received(&self) -> u64 {
        self.long(128)
    }

    fn unsent(&self) -> u32 {
        self.word(144)
    }

    /// Without those that TCP has sent again.
    fn bytes_sent(&self) -> u64 {
        self.long(200) - self.long(208)
    }
}

const ESTABLISHED: u8 = 1;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;

/// Sends until nothing moves any more. The socket does not block afterwards.
fn fill(sock: &Sock) -> Outcome {
    sock.set_nonblocking(true)?;
    loop {
        while sock.send(&[9; 65_536], 0).is_ok() {}
        if sock.poll(libc::POLLOUT, NEVER)? == 0 {
            return Ok(());
        }
    }
}

fn tcp_info(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let mut first = Info::of(&pair.client)?;
    // What the handshake has said last counts as acknowledged when TCP hears of it.
    sys::eventually("all of the handshake is acknowledged", || {
        first = Info::of(&pair.client).map_err(|Fail(text)| io::Error::other(text))?;
        Ok(first.bytes_acked() >= first.bytes_sent())
    })?;
    check_eq!(first.state(), ESTABLISHED, "state of the client");
    check!(first.rtt() > 0, "no round-trip time");
    pair.client.send_all(&[7; 100_000])?;
    pair.server.recv_all(&mut vec![0; 100_000])?;
    pair.server.send_all(&[8; 3_000])?;
    pair.client.recv_all(&mut [0; 3_000])?;
    // TCP counts the SYN and what the handshake took; the program's bytes are the difference.
    let difference = |sock: &Sock, before: &Info| -> Outcome<[u64; 3]> {
        let now = Info::of(sock)?;
        Ok([
            now.bytes_sent() - before.bytes_sent(),
            now.bytes_acked() - before.bytes_acked(),
            now.bytes_received() - before.bytes_received(),
        ])
    };
    sys::eventually("the client's bytes in TCP_INFO", || {
        let all = difference(&pair.client, &first).map_err(|Fail(text)| io::Error::other(text))?;
        Ok(all == [100_000, 100_000, 3_000])
    })?;
    check_eq!(Info::of(&pair.client)?.unsent(), 0, "unsent bytes");
    check!(
        Info::of(&pair.server)?.bytes_received() >= 100_000,
        "the server has not received what it read"
    );
    // A reader that sleeps: what the window does not take stays unsent.
    fill(&pair.client)?;
    sys::eventually("unsent bytes in TCP_INFO", || {
        Ok(Info::of(&pair.client).is_ok_and(|info| info.unsent() > 0))
    })?;
    pair.client.set_nonblocking(false)?;
    pair.client.shutdown(libc::SHUT_WR)?;
    pair.server.recv_to_end()?;
    let state_becomes = |sock: &Sock, state: u8, what: &str| -> Outcome {
        sys::eventually(what, || {
            Ok(Info::of(sock).is_ok_and(|info| info.state() == state))
        })?;
        Ok(())
    };
    state_becomes(&pair.client, FIN_WAIT2, "FIN-WAIT-2 after shutdown()")?;
    state_becomes(
        &pair.server,
        CLOSE_WAIT,
        "CLOSE-WAIT after the end of the stream",
    )?;
    pair.server.shutdown(libc::SHUT_WR)?;
    state_becomes(&pair.client, CLOSE, "CLOSE of the client")?;
    state_becomes(&pair.server, CLOSE, "CLOSE of the server")?;
    // Room for less than all.
    let mut little = [0u8; 5];
    let mut length = little.len() as libc::socklen_t;
    // SAFETY: `little` is valid for `length` bytes.
    cvt(unsafe {
        libc::getsockopt(
            pair.client.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            little.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    check_eq!((length, little[0]), (5, CLOSE), "the first five bytes");
    Ok(())
}

fn listener_info(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(7)?;
    check_eq!(Info::of(&listener)?.state(), 10, "state of the listener");
    check_eq!(Info::of(&listener)?.unacked(), 0, "connections that wait");
    let client = ctx.connect(address)?;
    sys::eventually("a connection that waits", || {
        Ok(Info::of(&listener).is_ok_and(|info| info.unacked() == 1))
    })?;
    drop(listener.accept()?);
    drop(client);
    Ok(())
}

fn defer_accept(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    listener.set(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 30i32)?;
    check!(
        listener.get(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT)? >= 30,
        "TCP_DEFER_ACCEPT is not what was set"
    );
    listener.set_nonblocking(true)?;
    if ctx.may_fall_back() {
        // What the handshake has sent counts as data for TCP (Documentation/divergences.rst).
        return Ok(());
    }
    let silent = ctx.connect(address)?;
    let ready = listener.poll(libc::POLLIN, NEVER)?;
    check_eq!(ready, 0, "a client that has sent nothing is offered");
    check_errno!(listener.accept(), libc::EAGAIN, "accept()");
    // Another one, which does, is not kept behind it.
    let client = ctx.connect(address)?;
    client.send_all(b"first words")?;
    listener.await_events(libc::POLLIN)?;
    let server = listener.accept()?;
    server.set_nonblocking(true)?;
    let mut got = [0; 11];
    check_eq!(
        server.recv(&mut got, 0)?,
        11,
        "bytes that are there at once"
    );
    check_eq!(&got, b"first words", "what they are");
    check_eq!(server.peer()?, client.local()?, "the client that has sent");
    silent.send_all(b"!")?;
    listener.await_events(libc::POLLIN)?;
    let server = listener.accept()?;
    check_eq!(server.peer()?, silent.local()?, "the one that was silent");
    ctx.prove(Host::A, &silent)?;
    ctx.prove(Host::B, &server)?;
    // Clients whose listener goes while they are held back.
    let lost = ctx.connect(address)?;
    drop(listener);
    if ctx.kind.plain() != ctx.kind {
        lost.await_events(libc::POLLIN | libc::POLLHUP)
            .during("the end of a connection that nobody has accepted")?;
        defer_accept_backlog(ctx)?;
    }
    Ok(())
}

/// Connections that are held back count: clients that say nothing cannot make as many as they like, nor keep
/// others out.
fn defer_accept_backlog(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(1)?;
    listener.set(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60i32)?;
    // As with TCP, one more than the backlog.
    let silent = ctx.connect(address)?;
    let other = ctx.connect(address)?;
    check_eq!(
        listener.poll(libc::POLLIN, NEVER)?,
        0,
        "clients that have sent nothing are offered while there is room"
    );
    let late = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    check_errno!(late.connect(address), libc::EINPROGRESS, "connect()");
    let server = listener.accept()?;
    check_eq!(
        server.peer()?,
        silent.local()?,
        "the one that was there first"
    );
    let events = late.await_events(libc::POLLOUT)?;
    check_eq!(events, libc::POLLOUT, "events when there is room");
    ctx.prove(Host::A, &late)?;
    drop(other);
    Ok(())
}

fn user_timeout(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    pair.client
        .set(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1_500i32)?;
    // Nothing is under way: no timeout.
    check_eq!(
        pair.client.poll(libc::POLLERR, Duration::from_secs(2))?,
        0,
        "events of an idle connection"
    );
    // The peer does not read, and its window is used up.
    fill(&pair.client)?;
    pair.client.await_events(libc::POLLERR | libc::POLLHUP)?;
    check_eq!(pair.client.error()?, libc::ETIMEDOUT, "SO_ERROR");
    check_errno!(
        pair.client.send(b"x", libc::MSG_NOSIGNAL),
        libc::EPIPE,
        "send()"
    );
    Ok(())
}

fn timestamps(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    // Before, so that the connection has it from its listener; and on one that is there.
    listener.set(libc::SOL_SOCKET, SO_TIMESTAMPNS, 1i32)?;
    let Pair { client, server } = ctx.pair_from(&listener, address)?;
    client.set(libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1i32)?;
    let time_of_day = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
    };
    let mut begin = time_of_day();
    let mut data = [0; 16];
    // The kernel takes its time to stamp packets, once the first socket has asked for it.
    let mut receive = |from: &Sock, to: &Sock, kind: i32| -> Outcome<Vec<u8>> {
        for _ in 0..100 {
            begin = time_of_day();
            from.send_all(b"stamp")?;
            to.await_events(libc::POLLIN)?;
            let got = message::receive(to, &mut data, 0)?;
            check_eq!(got.count, 5, "bytes that came");
            if let Some(stamp) = got.find(libc::SOL_SOCKET, kind) {
                return Ok(stamp.to_vec());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Fail("no time was told".into()))
    };
    let stamp = receive(&client, &server, SO_TIMESTAMPNS)?;
    let when = |stamp: &[u8], fraction: u64| -> Outcome<Duration> {
        let (seconds, rest) = stamp.split_at_checked(8).ok_or(Fail("too short".into()))?;
        let long = |bytes: &[u8]| bytes.try_into().map(i64::from_ne_bytes).unwrap_or(-1);
        Ok(Duration::from_secs(long(seconds) as u64)
            + Duration::from_nanos(long(rest) as u64 * fraction))
    };
    let first = when(&stamp, 1)?;
    let stamp = receive(&server, &client, libc::SO_TIMESTAMP)?;
    // Microseconds.
    let second = when(&stamp, 1000)?;
    check!(
        first <= time_of_day() && first + Duration::from_secs(300) >= time_of_day(),
        "the data came at {first:?}"
    );
    check!(
        second + Duration::from_micros(1) >= begin && second <= time_of_day(),
        "the answer came at {second:?}, but was sent at {begin:?}"
    );
    // Who did not ask is told nothing.
    server.set(libc::SOL_SOCKET, SO_TIMESTAMPNS, 0i32)?;
    client.send_all(b"more")?;
    server.await_events(libc::POLLIN)?;
    let got = message::receive(&server, &mut data, 0)?;
    check_eq!(
        got.control,
        Vec::new(),
        "control messages without SO_TIMESTAMP"
    );
    Ok(())
}

/// As many sockets as switch the kernel's time stamps on have to switch them off at their end: a wrong
/// balance shows in a warning of the kernel's, or in plain sockets that get times nobody asked for.
fn timestamps_end(ctx: &Ctx) -> Outcome {
    for kind in [ctx.kind, Kind::Tcp4] {
        let ctx = ctx.with_kind(kind);
        for _ in 0..10 {
            let (listener, address) = ctx.listener(8)?;
            listener.set(libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1i32)?;
            let client = ctx.socket(Host::A)?;
            client.set(libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1i32)?;
            client.connect(address)?;
            let server = listener.accept()?;
            client.send_all(b"stamp")?;
            server.await_events(libc::POLLIN)?;
            check_eq!(server.recv(&mut [0; 16], 0)?, 5, "bytes that came");
        }
    }
    // They are still switched on for the one that asks now.
    let (listener, address) = ctx.with_kind(Kind::Tcp4).listener(8)?;
    let client = ctx.with_kind(Kind::Tcp4).connect(address)?;
    let server = listener.accept()?;
    server.set(libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1i32)?;
    sys::eventually("a time with data", || {
        client.send_all(b"stamp")?;
        server.await_events(libc::POLLIN)?;
        let got = message::receive(&server, &mut [0; 16], 0)?;
        Ok(got.find(libc::SOL_SOCKET, libc::SO_TIMESTAMP).is_some())
    })?;
    Ok(())
}

fn inq(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    pair.server.set(libc::IPPROTO_TCP, TCP_INQ, 1i32)?;
    check_eq!(pair.server.get(libc::IPPROTO_TCP, TCP_INQ)?, 1, "TCP_INQ");
    pair.client.send_all(&[1; 1000])?;
    sys::eventually("all bytes", || Ok(pair.server.readable_bytes()? == 1000))?;
    let left = |flags: i32| -> Outcome<i32> {
        let got = message::receive(&pair.server, &mut [0; 300], flags)?;
        let left = got
            .find(libc::IPPROTO_TCP, TCP_INQ)
            .ok_or(Fail(format!("no TCP_CM_INQ in {got:?}")))?;
        Ok(i32::from_ne_bytes(left.try_into().unwrap_or_default()))
    };
    check_eq!(left(libc::MSG_PEEK)?, 1000, "left after a look");
    check_eq!(left(0)?, 700, "left after the first read");
    check_eq!(left(0)?, 400, "left after the second read");
    check_eq!(left(0)?, 100, "left after the third read");
    check_eq!(left(0)?, 0, "left after the last read");
    pair.client.shutdown(libc::SHUT_WR)?;
    pair.server.await_events(libc::POLLIN)?;
    check_eq!(left(0)?, 1, "at the end of the stream");
    Ok(())
}

fn zerocopy(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let client = ctx.socket(Host::A)?;
    check_errno!(
        client.set(libc::SOL_SOCKET, libc::SO_ZEROCOPY, 2i32),
        libc::EINVAL,
        "SO_ZEROCOPY 2"
    );
    // Not asked for: nobody is told.
    client.connect(address)?;
    let server = listener.accept()?;
    ctx.prove(Host::A, &client)?;
    let mut got = vec![0; 60_000];
    check_eq!(client.send(&[1; 100], MSG_ZEROCOPY)?, 100, "send()");
    server.recv_all(&mut got[..100])?;
    check_eq!(client.poll(0, NEVER)?, 0, "events without SO_ZEROCOPY");
    client.set(libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1i32)?;
    check_eq!(
        client.get(libc::SOL_SOCKET, libc::SO_ZEROCOPY)?,
        1,
        "SO_ZEROCOPY"
    );
    let data: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    for round in 0..3u32 {
        check_eq!(client.send(&data, MSG_ZEROCOPY)?, data.len(), "send()");
        server.recv_all(&mut got)?;
        check!(got == data, "wrong bytes");
        client.await_events(libc::POLLERR)?;
        let note = message::receive(&client, &mut [], libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)?;
        check!(
            note.flags & libc::MSG_ERRQUEUE != 0,
            "flags {:#x}",
            note.flags
        );
        let (level, kind) = if ctx.kind.is_v6() {
            (libc::SOL_IPV6, libc::IPV6_RECVERR)
        } else {
            (libc::SOL_IP, libc::IP_RECVERR)
        };
        let error = note
            .find(level, kind)
            .ok_or(Fail(format!("no notification in {note:?}")))?;
        // struct sock_extended_err: errno, origin, type, code, pad, info, data. Origin 5 is zerocopy.
        let word = |at: usize| u32::from_ne_bytes(error[at..at + 4].try_into().unwrap_or_default());
        check_eq!(
            (word(0), error[4], word(8), word(12)),
            (0, 5, round, round),
            "errno, origin, first and last send of the notification"
        );
        check_errno!(
            message::receive(&client, &mut [], libc::MSG_ERRQUEUE),
            libc::EAGAIN,
            "a second notification"
        );
        check_eq!(client.poll(0, Duration::ZERO)?, 0, "events afterwards");
    }
    // Several sends, one notification.
    for _ in 0..3 {
        client.send_all(b"a")?;
        check_eq!(client.send(b"b", MSG_ZEROCOPY)?, 1, "send()");
    }
    server.recv_all(&mut got[..6])?;
    check_eq!(&got[..6], b"ababab", "what the server received");
    Ok(())
}

fn control_messages(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let control = |level: i32, kind: i32, data: &[u8]| Control {
        level,
        kind,
        data: data.to_vec(),
    };
    // What TCP takes, and what it refuses.
    let word = 0i32.to_ne_bytes();
    for (what, result) in [
        (control(libc::SOL_SOCKET, libc::SCM_RIGHTS, &word), None),
        (control(libc::SOL_IP, libc::IP_TOS, &word), None),
        (control(libc::SOL_SOCKET, libc::SO_MARK, &word), None),
        (
            control(libc::SOL_SOCKET, libc::SO_MARK, &word[..2]),
            Some(libc::EINVAL),
        ),
        (control(libc::SOL_SOCKET, 999, &word), Some(libc::EINVAL)),
        // Over TCP a time stamp follows, which is refused where nobody would give one.
        (
            control(
                libc::SOL_SOCKET,
                SO_TIMESTAMPING,
                &TX_SOFTWARE.to_ne_bytes(),
            ),
            (!ctx.may_fall_back() && ctx.kind.plain() != ctx.kind).then_some(libc::EOPNOTSUPP),
        ),
    ] {
        let sent = message::send(&pair.client, b"data", 0, &what);
        match (result, sent) {
            (None, Ok(4)) => {
                let mut got = [0; 4];
                pair.server.recv_all(&mut got)?;
                check_eq!(&got, b"data", "what the server received with {what:?}");
            }
            (Some(errno), Err(error)) => {
                check_eq!(error.raw_os_error(), Some(errno), "error with {what:?}");
            }
            (_, other) => return Err(Fail(format!("{what:?} gave {other:?}"))),
        }
    }
    check_eq!(
        pair.server.readable_bytes()?,
        0,
        "bytes of refused messages"
    );
    Ok(())
}

/// A closed socket does not wait longer than this for the end of its peer.
fn linger2(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    for value in [-1, 1] {
        let Pair { client, server } = ctx.pair_from(&listener, address)?;
        client.set(libc::IPPROTO_TCP, libc::TCP_LINGER2, value)?;
        client.send_all(b"all of it")?;
        drop(client);
        check_eq!(
            server.recv_to_end()?,
            b"all of it",
            "what the server received"
        );
        // Its peer's end is not waited for: what is written now finds nobody.
        sys::within("the peer to be gone", Duration::from_secs(60), &mut || {
            std::thread::sleep(Duration::from_millis(100));
            Ok(server.send(b"?", libc::MSG_NOSIGNAL).is_err())
        })?;
    }
    Ok(())
}

/// In the last moments of a connect() that does not block, the handshake may be under way; whatever
/// of the two it is, it is done, and nobody gets in between.
fn shutdown_while_connecting(ctx: &Ctx) -> Outcome {
    const ROUNDS: u32 = 60;

    let (listener, address) = ctx.listener(64)?;
    let mut shut = 0;
    for round in 0..ROUNDS {
        let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
        check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
        std::thread::sleep(Duration::from_micros(u64::from(round) * 200));
        match client.shutdown(libc::SHUT_WR) {
            // TCP gives a connect() up that has not got an answer.
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => continue,
            other => other?,
        }
        if round % 2 == 0 {
            client.await_events(libc::POLLOUT)?;
        }
        let sent = loop {
            match client.send(b"x", libc::MSG_NOSIGNAL) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                sent => break sent,
            }
        };
        if sent.is_err() && client.peer().is_err() {
            continue;
        }
        shut += 1;
        check_errno!(sent, libc::EPIPE, "send()");
        // It knows that it is connected.
        check_errno!(client.connect(address), libc::EISCONN, "connect() again");
        let server = listener.accept()?;
        check_eq!(server.recv_to_end()?, b"", "what the server received");
        server.send_all(b"this way still")?;
        drop(server);
        client.set_nonblocking(false)?;
        check_eq!(
            client.recv_to_end()?,
            b"this way still",
            "what the client received"
        );
    }
    println!("# {shut} of {ROUNDS} were connected");
    Ok(())
}

/// What only TCP has makes a socket fall back, with its reason, if it is asked for in time.
fn needs_tcp(ctx: &Ctx) -> Outcome {
    const OPTUNSUPP: u32 = 0x0306_0000;
    const TX_STAMPS: i32 = TX_SOFTWARE | (1 << 4);
    type Ask<'a> = &'a dyn Fn(&Sock) -> io::Result<()>;
    /// One instruction that lets every packet pass.
    const PASS: libc::sock_filter = libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: 0xffff_ffff,
    };
    let attach = |sock: &Sock| {
        let mut code = [PASS];
        let program = libc::sock_fprog {
            len: 1,
            filter: code.as_mut_ptr(),
        };
        sock.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
    };
    let stamp = |sock: &Sock| sock.set(libc::SOL_SOCKET, SO_TIMESTAMPING, TX_STAMPS);
    let ask: [(&str, Ask<'_>); 2] = [("SO_ATTACH_FILTER", &attach), ("SO_TIMESTAMPING", &stamp)];
    for (what, ask) in ask {
        let client = ctx.socket(Host::A)?;
        ask(&client).during(what)?;
        // It does not take back what is none of its own.
        client.set(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 0)?;
        let (listener, address) = ctx.listener(8)?;
        client.connect(address).during(what)?;
        let server = listener.accept()?;
        check_eq!(
            mode::fallback_reason(&client)?,
            OPTUNSUPP,
            "reason of the client with {what}"
        );
        client.send_all(b"by TCP")?;
        let mut got = [0; 6];
        server.recv_all(&mut got)?;
        check_eq!(&got, b"by TCP", "what the server received");
        // Too late, and a listener.
        let pair = ctx.pair_from(&listener, address)?;
        check_errno!(ask(&pair.client), libc::EOPNOTSUPP, "{what} afterwards");
        let listener = ctx.socket(Host::B)?;
        ask(&listener).during(what)?;
        listener.bind(Host::B.address(ctx.kind, 0))?;
        listener.listen(8)?;
        check_eq!(
            mode::fallback_reason(&listener)?,
            OPTUNSUPP,
            "reason of the listener with {what}"
        );
        let pair = ctx.unasked().pair_from(&listener, listener.local()?)?;
        pair.client.send_all(b"by TCP")?;
        pair.server.recv_all(&mut got)?;
        check_eq!(&got, b"by TCP", "what the server of {what} received");
    }
    Ok(())
}
