//! Socket options: what they answer is what TCP answers, and what they do.

use super::asleep::Sleeper;
use super::network::Rules;
use super::{any, once, Pattern};
use crate::kind::{Host, Kind};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, cvt, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

pub const TESTS: [Test; 18] = [
    any("options.all_read", 60, all_read),
    any("options.all_set", 120, all_set),
    any("options.one_byte", 60, one_byte),
    any("options.of_other_levels", 60, of_other_levels),
    any("options.buffer_sizes", 60, buffer_sizes),
    any("options.kept_in_a_fallback", 60, kept_in_a_fallback),
    any("options.low_water", 60, low_water),
    any("options.timeouts", 60, timeouts),
    any("options.linger_expires", 60, linger_expires),
    any("options.reuse_port", 60, reuse_port),
    any("options.reuse_address", 60, reuse_address),
    any("options.bind_to_device", 60, bind_to_device),
    any("options.mark_and_priority", 60, mark_and_priority),
    any("options.saved_syn", 60, saved_syn),
    any("options.congestion", 60, congestion),
    any("options.peer_name", 60, peer_name),
    any("options.backlog_changes", 60, backlog_changes),
    once("options.family_of_the_ended", 60, family_of_the_ended),
];

/// How long to look for something that must not come.
const NEVER: Duration = Duration::from_millis(100);

const SO_PEERNAME: i32 = 28;
const SO_SNDBUFFORCE: i32 = 32;
const SO_RCVBUFFORCE: i32 = 33;

/// Options of these levels, by number, whether or not the kernel knows them.
const LEVELS: [(i32, std::ops::Range<i32>); 4] = [
    (libc::SOL_SOCKET, 1..90),
    (libc::SOL_TCP, 1..48),
    (libc::SOL_IP, 1..60),
    (libc::SOL_IPV6, 1..82),
];

/// Options that tell of one socket alone, or of what Documentation/divergences.rst says.
const NOT_COMPARED: &[(i32, i32)] = &[
    // Sizes of rings, and memory of the TCP socket.
    (libc::SOL_SOCKET, libc::SO_SNDBUF),
    (libc::SOL_SOCKET, libc::SO_RCVBUF),
    (libc::SOL_SOCKET, 55 /* SO_MEMINFO */),
    // Which socket it is, which processor and queue its last packet came by.
    (libc::SOL_SOCKET, libc::SO_DOMAIN),
    (libc::SOL_SOCKET, libc::SO_PROTOCOL),
    (libc::SOL_SOCKET, SO_PEERNAME),
    (libc::SOL_SOCKET, 49 /* SO_INCOMING_CPU */),
    (libc::SOL_SOCKET, 56 /* SO_INCOMING_NAPI_ID */),
    (libc::SOL_SOCKET, 57 /* SO_COOKIE */),
    (libc::SOL_SOCKET, 71 /* SO_NETNS_COOKIE */),
    // Clock and counters of the TCP connection.
    (libc::SOL_TCP, libc::TCP_INFO),
    (libc::SOL_TCP, 24 /* TCP_TIMESTAMP */),
    (libc::SOL_TCP, 26 /* TCP_CC_INFO */),
    // What TCP does with acknowledgements is its own, and changes with the traffic.
    (libc::SOL_TCP, libc::TCP_QUICKACK),
    (libc::SOL_TCP, 10 /* TCP_WINDOW_CLAMP */),
    // The port, in spite of its name.
    (libc::SOL_IP, 52 /* IP_PROTOCOL */),
    // The state of a TCP connection to be made from outside, and protocols on top of TCP.
    (libc::SOL_TCP, 19 /* TCP_REPAIR */),
    (libc::SOL_TCP, 20 /* TCP_REPAIR_QUEUE */),
    (libc::SOL_TCP, 21 /* TCP_QUEUE_SEQ */),
    (libc::SOL_TCP, 22 /* TCP_REPAIR_OPTIONS */),
    (libc::SOL_TCP, 29 /* TCP_REPAIR_WINDOW */),
    (libc::SOL_TCP, 31 /* TCP_ULP */),
    (libc::SOL_TCP, 35 /* TCP_ZEROCOPY_RECEIVE */),
    // Filters and time stamps of packets, which make a socket fall back (data_options.needs_tcp).
    (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
    (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
    (libc::SOL_SOCKET, 37 /* SO_TIMESTAMPING_OLD */),
    (libc::SOL_SOCKET, 65 /* SO_TIMESTAMPING_NEW */),
    // The kernel has them for TCP's own protocol number only.
    (libc::SOL_SOCKET, 74 /* SO_TXREHASH */),
    (libc::SOL_SOCKET, 78 /* SO_DEVMEM_LINEAR */),
    (libc::SOL_SOCKET, 79 /* SO_DEVMEM_DMABUF */),
    (libc::SOL_SOCKET, 80 /* SO_DEVMEM_DONTNEED */),
];

/// What `getsockopt` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Value(Vec<u8>),
    Errno(i32),
}

fn read(sock: &Sock, level: i32, name: i32) -> Answer {
    read_into(sock, level, name, 128)
}

fn read_into(sock: &Sock, level: i32, name: i32, room: usize) -> Answer {
    let mut value = vec![0u8; room];
    let mut length = room as libc::socklen_t;
    // SAFETY: `value` is valid for `length` bytes.
    let result = cvt(unsafe {
        libc::getsockopt(
            sock.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    });
    match result {
        Ok(_) => Answer::Value(value[..length as usize].to_vec()),
        Err(error) => Answer::Errno(error.raw_os_error().unwrap_or(0)),
    }
}

fn compared() -> impl Iterator<Item = (i32, i32)> {
    LEVELS
        .into_iter()
        .flat_map(|(level, names)| names.map(move |name| (level, name)))
        .filter(|option| !NOT_COMPARED.contains(option))
}

/// The sockets whose options are compared.
struct Sockets {
    fresh: Sock,
    listener: Sock,
    pair: Pair,
    ended: Pair,
}

impl Sockets {
    fn new(ctx: &Ctx) -> Outcome<Sockets> {
        let (listener, address) = ctx.listener(8)?;
        let pair = ctx.pair_from(&listener, address)?;
        let ended = ctx.pair_from(&listener, address)?;
        for sock in [&ended.client, &ended.server] {
            sock.shutdown(libc::SHUT_WR)?;
        }
        for sock in [&ended.client, &ended.server] {
            sock.await_events(libc::POLLHUP)?;
        }
        Ok(Sockets {
            fresh: ctx.socket(Host::A)?,
            listener,
            pair,
            ended,
        })
    }

    fn all(&self) -> [(&'static str, &Sock); 6] {
        [
            ("a fresh socket", &self.fresh),
            ("a listener", &self.listener),
            ("a client", &self.pair.client),
            ("an accepted socket", &self.pair.server),
            ("a client whose connection has ended", &self.ended.client),
            (
                "an accepted socket whose connection has ended",
                &self.ended.server,
            ),
        ]
    }
}

fn tcp(ctx: &Ctx) -> Ctx {
    ctx.with_kind(ctx.kind.plain())
}

/// Reads every option of every level.
fn all_read(ctx: &Ctx) -> Outcome {
    let wanted = Sockets::new(&tcp(ctx))?;
    let got = Sockets::new(ctx)?;
    let mut different = Vec::new();
    let mut known = 0;
    for ((what, wanted), (_, got)) in wanted.all().into_iter().zip(got.all()) {
        for (level, name) in compared() {
            let (wanted, got) = (read(wanted, level, name), read(got, level, name));
            known += usize::from(matches!(wanted, Answer::Value(_)));
            if wanted != got {
                different.push(format!(
                    "level {level}, option {name} of {what}: {got:?}, but TCP's is {wanted:?}"
                ));
            }
        }
    }
    check!(known > 400, "TCP knows only {known} options");
    check!(different.is_empty(), "{}", different.join("\n"));
    Ok(())
}

/// Sets every option to some numbers; what the call gives, and what is read afterwards.
fn set_all(sock: &Sock) -> BTreeMap<(i32, i32, i32), (i32, Answer)> {
    compared()
        .flat_map(|(level, name)| [70_000, -1, 1, 0].map(|value| (level, name, value)))
        // -1 stands for the largest, which depends on the size of a buffer.
        .filter(|option| *option != (libc::SOL_SOCKET, libc::SO_RCVLOWAT, -1))
        .map(|option| {
            let (level, name, value) = option;
            let errno = errno(sock.set(level, name, value)).unwrap_or(0);
            (option, (errno, read(sock, level, name)))
        })
        .collect()
}

fn errno(outcome: io::Result<()>) -> Option<i32> {
    outcome.err().and_then(|error| error.raw_os_error())
}

fn all_set(ctx: &Ctx) -> Outcome {
    let wanted = Sockets::new(&tcp(ctx))?;
    let got = Sockets::new(ctx)?;
    let mut different = Vec::new();
    // An accepted socket is like a client, and at its end as good as any other.
    for ((what, wanted), (_, got)) in wanted.all().into_iter().zip(got.all()).take(3) {
        let (wanted, got) = (set_all(wanted), set_all(got));
        for ((option, wanted), (_, got)) in wanted.iter().zip(&got) {
            if wanted != got {
                let (level, name, value) = option;
                different.push(format!(
                    "level {level}, option {name} of {what} set to {value}: {got:?}, but TCP's is {wanted:?}"
                ));
            }
        }
    }
    // With the time to live or the rate that they have now they would take long to say goodbye.
    for (_, sock) in wanted.all().into_iter().chain(got.all()) {
        sock.set_linger(Some(0))?;
    }
    check!(
        different.is_empty(),
        "{} differences:\n{}",
        different.len(),
        different[..different.len().min(60)].join("\n")
    );
    Ok(())
}

/// Options of IP may be one byte long.
fn one_byte(ctx: &Ctx) -> Outcome {
    for (name, value) in [(libc::IP_TOS, 16u8), (libc::IP_TTL, 77)] {
        let asked = |sock: &Sock| {
            let set = errno(sock.set(libc::SOL_IP, name, value));
            (set, read(sock, libc::SOL_IP, name))
        };
        let wanted = asked(&tcp(ctx).socket(Host::A)?);
        check_eq!(asked(&ctx.socket(Host::A)?), wanted, "option {name}, fresh");
        check_eq!(asked(&ctx.pair()?.client), wanted, "option {name}");
    }
    Ok(())
}

/// Options of IP with the numbers of those of TCP that SMC-R has not: they do not make a connection fall back.
fn of_other_levels(ctx: &Ctx) -> Outcome {
    // TCP_REPAIR, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_ULP, TCP_FASTOPEN_KEY, TCP_FASTOPEN_NO_COOKIE.
    for name in [19, 23, 30, 31, 33, 34] {
        let (listener, address) = ctx.listener(1)?;
        let client = ctx.socket(Host::A)?;
        for level in [libc::SOL_IP, libc::SOL_IPV6] {
            // TCP may refuse it; its own answer is compared in `all_set`.
            client.set(level, name, 1).err();
        }
        client.connect(address).during(&format!("option {name}"))?;
        ctx.prove(Host::A, &client)
            .during(&format!("option {name}"))?;
        drop(listener);
    }
    Ok(())
}

/// What is set before the connection is made is there after a fallback, and on accepted sockets, as over TCP.
fn kept_in_a_fallback(ctx: &Ctx) -> Outcome {
    // SO_MAX_PACING_RATE, SO_BUSY_POLL, SO_RCVMARK, SO_RCVPRIORITY.
    const OPTIONS: [(i32, i32); 4] = [(47, 1_000_000), (46, 50), (75, 1), (82, 1)];
    let seen = |client: Kind, server: Kind| -> Outcome<Vec<i32>> {
        let listener = Sock::new(Host::B, server, 0)?;
        listener.bind(Host::B.address(server, 0))?;
        let near = Sock::new(Host::A, client, 0)?;
        for sock in [&listener, &near] {
            for (option, value) in OPTIONS {
                sock.set(libc::SOL_SOCKET, option, value)?;
            }
        }
        listener.listen(8)?;
        near.connect(listener.local()?)?;
        let far = listener.accept()?;
        let mut values = Vec::new();
        for sock in [&near, &far] {
            for (option, _) in OPTIONS {
                values.push(sock.get(libc::SOL_SOCKET, option)?);
            }
        }
        Ok(values)
    };
    let v4 = Host::B.address(ctx.kind, 0).is_ipv4();
    let plain = if v4 { Kind::Tcp4 } else { Kind::Tcp6 };
    let expected = seen(plain, plain)?;
    check_eq!(expected[0], 1_000_000, "SO_MAX_PACING_RATE of TCP");
    for (client, server) in [(ctx.kind, plain), (plain, ctx.kind)] {
        check_eq!(
            seen(client, server)?,
            expected,
            "options of {client:?} to {server:?}"
        );
    }
    Ok(())
}

fn buffer_sizes(ctx: &Ctx) -> Outcome {
    let wanted = Sock::new(Host::A, ctx.kind.plain(), 0)?;
    let got = ctx.socket(Host::A)?;
    for (set, read) in [
        (libc::SO_SNDBUF, libc::SO_SNDBUF),
        (libc::SO_RCVBUF, libc::SO_RCVBUF),
        (SO_SNDBUFFORCE, libc::SO_SNDBUF),
        (SO_RCVBUFFORCE, libc::SO_RCVBUF),
    ] {
        for value in [1, 5_000, 100_000, 50_000_000] {
            wanted.set(libc::SOL_SOCKET, set, value)?;
            got.set(libc::SOL_SOCKET, set, value)?;
            check_eq!(
                got.get(libc::SOL_SOCKET, read)?,
                wanted.get(libc::SOL_SOCKET, read)?,
                "option {read} after option {set} was set to {value}"
            );
        }
    }
    // Whatever sizes both ask for, the stream goes through.
    let pattern = Pattern::new(ctx, 231);
    for (sndbuf, rcvbuf) in [(1, 1), (1, 300_000), (300_000, 1), (300_000, 300_000)] {
        let listener = ctx.socket(Host::B)?;
        listener.set(libc::SOL_SOCKET, libc::SO_RCVBUF, rcvbuf)?;
        listener.bind(Host::B.address(ctx.kind, 0))?;
        listener.listen(8)?;
        let client = ctx.socket(Host::A)?;
        client.set(libc::SOL_SOCKET, libc::SO_SNDBUF, sndbuf)?;
        client.connect(listener.local()?)?;
        let server = listener.accept()?;
        ctx.prove(Host::A, &client)?;
        let writer = Pattern::new(ctx, 231);
        let thread = std::thread::spawn(move || -> Outcome {
            for part in 0..3 {
                client.send_all(writer.at(part * 50_000, 50_000))?;
            }
            Ok(())
        });
        let bytes = server.recv_to_end()?;
        super::join(thread)?;
        check_eq!(bytes.len(), 150_000, "bytes with sizes {sndbuf}, {rcvbuf}");
        pattern.verify(0, &bytes)?;
    }
    Ok(())
}

/// Less than SO_RCVLOWAT is nothing to read, until the stream ends.
fn low_water(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let lowat = |value: i32| server.set(libc::SOL_SOCKET, libc::SO_RCVLOWAT, value);
    lowat(10)?;
    client.send_all(b"12345")?;
    sys::eventually("five bytes are there", || Ok(server.readable_bytes()? == 5))?;
    check_eq!(
        server.poll(libc::POLLIN, NEVER)?,
        0,
        "events with less than SO_RCVLOWAT there"
    );
    let poll = server.dup()?;
    let thread = Sleeper::spawn(move || {
        check_eq!(
            poll.poll(libc::POLLIN, sys::PATIENCE)?,
            libc::POLLIN,
            "events"
        );
        Ok(())
    })?;
    client.send_all(b"67890")?;
    thread.wake_up("poll() reports ten bytes")?;
    let mut got = [0; 10];
    check_eq!(server.recv(&mut got, 0)?, 10, "recv()");
    check_eq!(&got, b"1234567890", "what came");
    // Of a smaller buffer all of it is enough, and recv(MSG_DONTWAIT) takes what is there.
    client.send_all(b"abc")?;
    sys::eventually(
        "three bytes are there",
        || Ok(server.readable_bytes()? == 3),
    )?;
    check_eq!(server.recv(&mut got[..2], 0)?, 2, "recv() into two bytes");
    check_eq!(
        server.recv(&mut got, libc::MSG_DONTWAIT)?,
        1,
        "recv(MSG_DONTWAIT)"
    );
    // A reader waits for all of it.
    client.send_all(b"xyz")?;
    let recv = server.dup()?;
    let thread = Sleeper::spawn(move || {
        check!(
            recv.recv(&mut [0; 20], 0)? >= 10,
            "recv() took less than there was"
        );
        Ok(())
    })?;
    thread.await_asleep()?;
    check!(!thread.is_over(), "recv() came back with too little");
    // As many again: TCP does not count what the reader has taken already.
    client.send_all(b"0123456789")?;
    thread.wake_up("recv() has ten bytes")?;
    client.send_all(b"end")?;
    client.shutdown(libc::SHUT_WR)?;
    server.await_events(libc::POLLIN | libc::POLLRDHUP)?;
    check_eq!(server.recv(&mut got, 0)?, 3, "recv() at the end");
    Ok(())
}

/// (seconds, microseconds)
fn time(sock: &Sock, name: i32) -> Outcome<(i64, i64)> {
    match read(sock, libc::SOL_SOCKET, name) {
        Answer::Value(value) if value.len() == 16 => {
            let word = |at: usize| {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&value[at..at + 8]);
                i64::from_ne_bytes(bytes)
            };
            Ok((word(0), word(8)))
        }
        other => Err(crate::Fail(format!("option {name}: {other:?}"))),
    }
}

fn timeouts(ctx: &Ctx) -> Outcome {
    let short = Duration::from_millis(80);
    let (listener, address) = ctx.listener(8)?;
    let pair = ctx.pair_from(&listener, address)?;
    for sock in [&listener, &pair.client, &pair.server] {
        for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
            check_eq!(time(sock, name)?, (0, 0), "option {name} at first");
            sock.set_timeout(name, short)?;
            check_eq!(time(sock, name)?, (0, 80_000), "option {name}");
            let wrong = libc::timeval {
                tv_sec: 0,
                tv_usec: 1_000_000,
            };
            check_errno!(
                sock.set(libc::SOL_SOCKET, name, wrong),
                libc::EDOM,
                "option {name} with a million microseconds"
            );
        }
    }
    check_errno!(listener.accept(), libc::EAGAIN, "accept() out of time");
    check_errno!(
        pair.server.recv(&mut [0; 1], 0),
        libc::EAGAIN,
        "recv() out of time"
    );
    pair.client.send_all(b"abc")?;
    pair.server.await_events(libc::POLLIN)?;
    check_eq!(
        pair.server.recv(&mut [0; 8], libc::MSG_WAITALL)?,
        3,
        "recv(MSG_WAITALL) out of time"
    );
    // SO_SNDTIMEO is for connect(), too, which goes on behind it.
    let rule = format!("tcp dport {} drop", address.port());
    let rules = Rules::new(Host::B, "prerouting", &[&rule])?;
    let client = ctx.socket(Host::A)?;
    client.set_timeout(libc::SO_SNDTIMEO, short)?;
    check_errno!(
        client.connect(address),
        libc::EINPROGRESS,
        "connect() out of time"
    );
    drop(rules);
    client.await_events(libc::POLLOUT)?;
    check_eq!(client.error()?, 0, "SO_ERROR of the connection");
    Ok(())
}

/// close() gives up waiting when the time is over; the data goes on being sent.
fn linger_expires(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let pattern = Pattern::new(ctx, 232);
    let sent = pattern.fill(&client)?;
    client.set_linger(Some(1))?;
    // Nobody reads: it has to come back all the same.
    drop(client);
    let got = server.recv_to_end()?;
    check_eq!(got.len(), sent, "bytes that arrived");
    pattern.verify(0, &got)
}

/// Two listeners with SO_REUSEPORT share the connections of their port.
fn reuse_port(ctx: &Ctx) -> Outcome {
    let listen = |reuse: i32, address: SocketAddr| -> std::io::Result<Sock> {
        let sock = Sock::new(Host::B, ctx.kind, libc::SOCK_NONBLOCK)?;
        sock.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, reuse)?;
        sock.bind(address)?;
        sock.listen(64)?;
        Ok(sock)
    };
    let first = listen(1, Host::B.address(ctx.kind, 0))?;
    let address = first.local()?;
    check_errno!(
        listen(0, address),
        libc::EADDRINUSE,
        "a listener without SO_REUSEPORT"
    );
    let second = listen(1, address)?;
    let mut counts = [0; 2];
    // By a hash of the addresses: more and more until both have some.
    for _ in 0..64 {
        let client = ctx.connect(address)?;
        ctx.prove(Host::A, &client)?;
        let mut taken = None;
        sys::eventually("one of the listeners has the connection", || {
            for (place, listener) in [&first, &second].into_iter().enumerate() {
                match listener.accept() {
                    Ok(server) => taken = Some((place, server)),
                    Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(taken.is_some())
        })?;
        if let Some((place, server)) = taken {
            counts[place] += 1;
            server.send_all(b"x")?;
            client.recv_all(&mut [0])?;
        }
        if counts.iter().all(|&count| count > 1) {
            break;
        }
    }
    check!(
        counts.iter().all(|&count| count > 0),
        "one of two listeners got all the connections: {counts:?}"
    );
    drop(first);
    for _ in 0..4 {
        ctx.connect(address)?;
        sys::eventually(
            "the listener that is left has the connection",
            || match second.accept() {
                Ok(_) => Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
                Err(error) => Err(error),
            },
        )?;
    }
    Ok(())
}

/// The port of a server that was just ended can be had again, if it is asked for.
fn reuse_address(ctx: &Ctx) -> Outcome {
    let listener = ctx.socket(Host::B)?;
    // Both have to ask for it.
    listener.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    listener.bind(Host::B.address(ctx.kind, 0))?;
    listener.listen(8)?;
    let address = listener.local()?;
    let Pair { client, server } = ctx.pair_from(&listener, address)?;
    // The server closes first, so that it is its side that has to remember the connection.
    drop(server);
    check_eq!(client.recv(&mut [0; 1], 0)?, 0, "end of stream");
    drop((client, listener));
    let again = ctx.socket(Host::B)?;
    again.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    sys::eventually("bind() with SO_REUSEADDR", || match again.bind(address) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Ok(false),
        Err(error) => Err(error),
    })?;
    again.listen(8)?;
    ctx.pair_from(&again, address)?;
    Ok(())
}

fn set_name(sock: &Sock, level: i32, option: i32, name: &str) -> std::io::Result<()> {
    // SAFETY: the name is valid for its length.
    cvt(unsafe {
        libc::setsockopt(
            sock.as_raw_fd(),
            level,
            option,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    })?;
    Ok(())
}

fn bind_device(sock: &Sock, name: &str) -> std::io::Result<()> {
    set_name(sock, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name)
}

/// The name of a way to avoid congestion is kept, and inherited from the listener.
fn congestion(ctx: &Ctx) -> Outcome {
    let set = |sock: &Sock, name| set_name(sock, libc::SOL_TCP, libc::TCP_CONGESTION, name);
    let (listener, address) = ctx.listener(8)?;
    set(&listener, "reno")?;
    check_errno!(set(&listener, "no such"), libc::ENOENT, "an unknown name");
    let Pair { client, server } = ctx.pair_from(&listener, address)?;
    set(&client, "reno")?;
    for sock in [&listener, &client, &server] {
        let mut name = b"reno".to_vec();
        name.resize(16, 0);
        check_eq!(
            read(sock, libc::SOL_TCP, libc::TCP_CONGESTION),
            Answer::Value(name),
            "TCP_CONGESTION"
        );
    }
    Ok(())
}

fn bind_to_device(ctx: &Ctx) -> Outcome {
    let listener = ctx.socket(Host::B)?;
    bind_device(&listener, Host::B.netdev())?;
    listener.bind(Host::B.address(ctx.kind, 0))?;
    listener.listen(8)?;
    let address = listener.local()?;
    let client = ctx.socket(Host::A)?;
    bind_device(&client, Host::A.netdev())?;
    client.connect(address)?;
    let server = listener.accept()?;
    ctx.prove(Host::A, &client)?;
    for (sock, host) in [(&client, Host::A), (&server, Host::B)] {
        let mut name = host.netdev().as_bytes().to_vec();
        name.push(0);
        check_eq!(
            read(sock, libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
            Answer::Value(name),
            "the device on host {}",
            host.name()
        );
    }
    check_errno!(
        bind_device(&ctx.socket(Host::A)?, "none"),
        libc::ENODEV,
        "a device that is not there"
    );
    // The way is not by this device.
    let sock = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    bind_device(&sock, "lo")?;
    if ctx.kind.is_v6() {
        // IPv6 looks for a way by that device, IPv4 trusts that there is one.
        check_errno!(
            sock.connect(address),
            libc::ENETUNREACH,
            "connect() by the wrong device"
        );
        return Ok(());
    }
    check_errno!(
        sock.connect(address),
        libc::EINPROGRESS,
        "connect() by the wrong device"
    );
    check_eq!(
        sock.poll(libc::POLLOUT, NEVER)?,
        0,
        "events of a connection by the wrong device"
    );
    Ok(())
}

/// What is sent bears the mark and the priority from the first segment on.
fn mark_and_priority(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let rules = Rules::new(
        Host::A,
        "output",
        &[
            "tcp flags & (syn | ack) == syn meta mark 0x77 counter",
            "tcp flags & (syn | ack) == syn meta priority 0:5 counter",
        ],
    )?;
    let client = ctx.socket(Host::A)?;
    client.set(libc::SOL_SOCKET, libc::SO_MARK, 0x77)?;
    client.set(libc::SOL_SOCKET, libc::SO_PRIORITY, 5)?;
    client.connect(address)?;
    let server = listener.accept()?;
    ctx.prove(Host::A, &client)?;
    check!(rules.seen()? >= 2, "the SYN had not both mark and priority");
    check_eq!(
        server.get(libc::SOL_SOCKET, libc::SO_MARK)?,
        0,
        "the peer's mark"
    );
    Ok(())
}

/// The listener sees the client's SYN, once.
fn saved_syn(ctx: &Ctx) -> Outcome {
    const TCP_SAVE_SYN: i32 = 27;
    const TCP_SAVED_SYN: i32 = 28;
    let (listener, address) = ctx.listener(8)?;
    listener.set(libc::SOL_TCP, TCP_SAVE_SYN, 1)?;
    let Pair { client, server } = ctx.pair_from(&listener, address)?;
    let Answer::Value(syn) = read(&server, libc::SOL_TCP, TCP_SAVED_SYN) else {
        return Err(crate::Fail("TCP_SAVED_SYN fails".into()));
    };
    let (version, header) = if ctx.kind.is_v6() { (6, 40) } else { (4, 20) };
    check!(syn.len() >= header + 20, "the SYN has {} bytes", syn.len());
    check_eq!(syn[0] >> 4, version, "version of IP in the SYN");
    check_eq!(
        u16::from_be_bytes([syn[header], syn[header + 1]]),
        client.local()?.port(),
        "the client's port in the SYN"
    );
    check_eq!(syn[header + 13] & 0x12, 2, "flags of the SYN");
    check_eq!(
        read(&server, libc::SOL_TCP, TCP_SAVED_SYN),
        Answer::Value(Vec::new()),
        "TCP_SAVED_SYN once more"
    );
    Ok(())
}

fn peer_name(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    for (near, far) in [(&client, &server), (&server, &client)] {
        let (raw, length) = sys::to_raw(far.local()?);
        // SAFETY: the storage is valid for the length of its address.
        let raw =
            unsafe { std::slice::from_raw_parts((&raw const raw).cast::<u8>(), length as usize) };
        check_eq!(
            read_into(near, libc::SOL_SOCKET, SO_PEERNAME, raw.len()),
            Answer::Value(raw.to_vec()),
            "SO_PEERNAME"
        );
        // Unlike others, it has to be asked for exactly.
        check_eq!(
            read(near, libc::SOL_SOCKET, SO_PEERNAME),
            Answer::Errno(libc::EINVAL),
            "SO_PEERNAME with too much room"
        );
    }
    check_eq!(
        read(&ctx.socket(Host::A)?, libc::SOL_SOCKET, SO_PEERNAME),
        Answer::Errno(libc::ENOTCONN),
        "SO_PEERNAME of a fresh socket"
    );
    Ok(())
}

/// Clients that found the queue full get in when listen() is called again with a longer one.
fn backlog_changes(ctx: &Ctx) -> Outcome {
    const CLIENTS: usize = 5;
    let (listener, address) = ctx.listener(0)?;
    let clients: Vec<Sock> = (0..CLIENTS)
        .map(|_| -> Outcome<Sock> {
            let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
            check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
            Ok(client)
        })
        .collect::<Outcome<_>>()?;
    std::thread::sleep(NEVER);
    let mut waiting = 0;
    for client in &clients {
        waiting += usize::from(client.poll(libc::POLLOUT, Duration::ZERO)? == 0);
    }
    check!(waiting > 0, "a backlog of 0 took {CLIENTS} connections");
    listener.listen(16).during("listen() once more")?;
    for client in &clients {
        client
            .await_events(libc::POLLOUT)
            .during("a client that waited")?;
        check_eq!(client.error()?, 0, "SO_ERROR");
    }
    for _ in 0..CLIENTS {
        listener.accept()?.send_all(b"x")?;
    }
    for client in &clients {
        client.set_nonblocking(false)?;
        client.recv_all(&mut [0])?;
    }
    Ok(())
}

/// `IPV6_ADDRFORM` is for connections that are there: half of one is none, though TCP below may have all of it.
fn family_of_the_ended(ctx: &Ctx) -> Outcome {
    const IPV6_ADDRFORM: i32 = 1;

    let asked = |sock: &Sock| {
        [
            errno(sock.set(libc::SOL_IPV6, IPV6_ADDRFORM, libc::AF_INET)),
            errno(sock.get(libc::SOL_IPV6, IPV6_ADDRFORM).map(drop)),
        ]
    };
    let none = [Some(libc::ENOTCONN); 2];
    for kind in [Kind::Tcp6, Kind::Smc6, Kind::IpSmc6] {
        let what = format!("{kind:?}");
        let listener = Sock::new(Host::B, kind, 0)?;
        listener.bind((Ipv6Addr::UNSPECIFIED, 0).into())?;
        listener.listen(1)?;
        let client = Sock::new(Host::A, kind, 0)?;
        let address = Host::B.ipv4().to_ipv6_mapped();
        client.connect((address, listener.local()?.port()).into())?;
        let server = listener.accept()?;
        if kind != Kind::Tcp6 {
            ctx.prove(Host::A, &client).during(&what)?;
        }
        for sock in [&client, &server] {
            let family = sock.get(libc::SOL_IPV6, IPV6_ADDRFORM)?;
            check_eq!(family, libc::AF_INET6, "{what}: of a connection");
        }
        client.shutdown(libc::SHUT_WR)?;
        check_eq!(server.recv(&mut [0], 0)?, 0, "{what}: recv()");
        check_eq!(asked(&server), none, "{what}: the peer has ended");
        sys::eventually("the end is acknowledged", || Ok(asked(&client) == none)).during(&what)?;
        server.shutdown(libc::SHUT_WR)?;
        check_eq!(client.recv(&mut [0], 0)?, 0, "{what}: recv()");
        check_eq!(asked(&server), none, "{what}: both have ended, server");
        check_eq!(asked(&client), none, "{what}: both have ended, client");
    }
    Ok(())
}
