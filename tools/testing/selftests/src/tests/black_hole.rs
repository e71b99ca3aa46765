//! Black holes of suite `netem`: all that RDMA sends is lost, while TCP goes, or the other way round. Both ways, without a
//! word, and with 200 connections; each byte is compared.

use super::join;
use super::link::{await_queue_pairs, echo, fresh, works_again};
use super::netem::rough;
use super::network::Rules;
use super::settings::Changed;
use crate::bulk::is_clean;
use crate::kind::Host;
use crate::mode::{self, Mode};
use crate::pattern::Pattern;
use crate::proc_net::{self, Socket, LISTEN, TIME_WAIT};
use crate::rig;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock, PATIENCE};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};
use rand::Rng;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub const TESTS: [Test; 2] = [
    rough("netem.roce_black_hole", roce_black_hole),
    rough("netem.tcp_black_hole", tcp_black_hole),
];

const CONNECTIONS: usize = 200;
/// Clients at the same time: a first contact waits for seconds until it has failed.
const AT_ONCE: usize = 40;

/// "timeout of confirm link", what the server of a first contact declines by in the end.
const TIMEOUT_CL: u32 = 0x0201_0000;

#[derive(Clone, Copy)]
enum Lost {
    Roce,
    Tcp,
}

impl Lost {
    fn rule(self) -> &'static str {
        match self {
            Lost::Roce => "udp dport 4791 counter drop",
            Lost::Tcp => "meta l4proto tcp counter drop",
        }
    }

    /// What has arrived on a host, behind the packet filter.
    fn arrived(self, host: Host) -> Outcome<u64> {
        match self {
            Lost::Roce => Ok(mode::counter(host, "rcvd_pkts")?),
            Lost::Tcp => segments(host),
        }
    }

    fn arrived_anywhere(self) -> Outcome<u64> {
        Ok(self.arrived(Host::A)? + self.arrived(Host::B)?)
    }
}

/// TCP segments that a host has received.
fn segments(host: Host) -> Outcome<u64> {
    sys::enter(host)?;
    let text = sys::read_file("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(name, _)| *name == "InSegs")
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(|| Fail(format!("no InSegs in: {text}")))
}

/// Nothing of this protocol arrives on either host.
struct Hole {
    lost: Lost,
    rules: [Rules; 2],
    /// What had arrived on both hosts when it opened.
    before: u64,
}

impl Hole {
    /// Nothing passes any more; [`Hole::settle`] comes next.
    fn open(lost: Lost) -> Outcome<Hole> {
        let rules = [
            Rules::new(Host::A, "input", &[lost.rule()])?,
            Rules::new(Host::B, "input", &[lost.rule()])?,
        ];
        Ok(Hole {
            lost,
            rules,
            before: 0,
        })
    }

    /// What has been let in just before has arrived.
    fn settle(&mut self) -> Outcome {
        sys::eventually("nothing arrives any more", || {
            thread::sleep(Duration::from_millis(300));
            let now = self.lost.arrived_anywhere()?;
            Ok(std::mem::replace(&mut self.before, now) == now)
        })?;
        Ok(())
    }

    /// Fails unless it has been a hole until now, and each of these hosts has not got something that was sent to it. How many
    /// packets it took.
    fn close(self, losers: &[Host]) -> Outcome<u64> {
        let mut sum = 0;
        for (rules, host) in self.rules.iter().zip(Host::BOTH) {
            let seen = rules.seen()?;
            check!(
                seen > 0 || !losers.contains(&host),
                "nothing was sent to host {}",
                host.name()
            );
            sum += seen;
        }
        check_eq!(
            self.lost.arrived_anywhere()?,
            self.before,
            "what had arrived when the hole was closed"
        );
        Ok(sum)
    }
}

/// Ends a hang, and nothing else: what waits for so long gets EAGAIN, which is no clean end.
fn limited(sock: &Sock) -> io::Result<()> {
    sock.set_timeouts(3 * PATIENCE * rig::slowness() as u32)
}

/// What became of a client in the hole.
enum Came {
    /// By TCP, and every byte was right; what its server had declined by.
    ByTcp(u32),
    /// Not at all: an error that a program sees.
    Error(io::Error),
}

/// Connects, and has its data sent back.
fn ask(ctx: &Ctx, address: SocketAddr, number: usize, pattern: &Pattern) -> Outcome<Came> {
    let sock = ctx.socket(Host::A)?;
    limited(&sock)?;
    if let Err(error) = sock.connect(address) {
        check!(is_clean(&error), "connect() failed with '{error}'");
        return Ok(Came::Error(error));
    }
    let mode = mode::of(&sock)?;
    let length = ctx.random(1000 + number as u64).gen_range(1..40_000_usize);
    let offset = number * 317;
    let outcome = (|| -> io::Result<()> {
        let mut head = (length as u32).to_be_bytes().to_vec();
        head.extend((offset as u32).to_be_bytes());
        sock.send_all(&head)?;
        sock.send_all(pattern.at(offset, length))?;
        let mut got = vec![0; length];
        sock.recv_all(&mut got)?;
        Ok(pattern.verify(offset, &got)?)
    })();
    match (outcome, mode) {
        (Ok(()), Mode::Fallback(why)) => Ok(Came::ByTcp(why.peer_diagnosis)),
        (Ok(()), Mode::Rdma) => Err(Fail("data went by RDMA through the hole".into())),
        (Err(error), _) if is_clean(&error) => Ok(Came::Error(error)),
        (Err(error), mode) => Err(Fail(format!("{error} ({mode:?})"))),
    }
}

/// Sends back what it gets. False if its client went before it had said anything, as one does whose `connect` failed, or
/// if an error told that the connection is broken. By RDMA nobody hears of a true end through the hole.
fn serve(sock: &Sock, pattern: &Pattern) -> io::Result<bool> {
    let by_rdma = matches!(mode::of(sock), Ok(Mode::Rdma));
    let talk = || -> io::Result<bool> {
        let mut word = [0; 4];
        if sock.recv(&mut word, libc::MSG_PEEK)? == 0 {
            return if by_rdma {
                Err(io::Error::other("the end of the stream came by RDMA"))
            } else {
                Ok(false)
            };
        }
        sock.recv_all(&mut word)?;
        let length = u32::from_be_bytes(word) as usize;
        sock.recv_all(&mut word)?;
        let offset = u32::from_be_bytes(word) as usize;
        let mut got = vec![0; length];
        sock.recv_all(&mut got)?;
        pattern.verify(offset, &got)?;
        sock.send_all(&got)?;
        if sock.recv(&mut word, 0)? != 0 {
            return Err(io::Error::other("more than was sent has come"));
        }
        Ok(true)
    };
    match talk() {
        Err(error) if is_clean(&error) => Ok(false),
        other => other,
    }
}

/// What became of connections that were begun in a hole for RoCE.
#[derive(Default)]
struct Tally {
    by_tcp: usize,
    errors: BTreeMap<String, usize>,
    /// What servers declined by, as clients have heard it.
    reasons: BTreeMap<u32, usize>,
}

impl Tally {
    fn add(&mut self, came: Came) {
        match came {
            Came::ByTcp(reason) => {
                self.by_tcp += 1;
                *self.reasons.entry(reason).or_default() += 1;
            }
            Came::Error(error) => *self.errors.entry(error.to_string()).or_default() += 1,
        }
    }

    fn failed(&self) -> usize {
        self.errors.values().sum()
    }
}

/// So many new connections, `at_once` side by side.
fn newcomers(ctx: &Ctx, count: usize, at_once: usize) -> Outcome<Tally> {
    let (listener, address) = ctx.listener(CONNECTIONS as i32)?;
    let over = Arc::new(AtomicBool::new(false));
    let acceptor = {
        let (ctx, over) = (ctx.with_kind(ctx.kind), over.clone());
        thread::spawn(move || -> Outcome<usize> {
            let mut servers: Vec<JoinHandle<Outcome<bool>>> = Vec::new();
            loop {
                // Looked at first: what has come before is accepted.
                let last = over.load(Ordering::Acquire);
                if listener.poll(libc::POLLIN, Duration::from_millis(300))? == 0 {
                    if last {
                        break;
                    }
                    continue;
                }
                let sock = listener.accept().during("accept()")?;
                limited(&sock)?;
                let pattern = Pattern::new(&ctx, 94);
                servers.push(thread::spawn(move || {
                    serve(&sock, &pattern).during("a server")
                }));
            }
            let mut served = 0;
            for server in servers {
                served += usize::from(join(server)?);
            }
            Ok(served)
        })
    };
    let clients: Vec<JoinHandle<Outcome<Vec<Came>>>> = (0..at_once)
        .map(|place| {
            let ctx = ctx.with_kind(ctx.kind);
            thread::spawn(move || {
                let pattern = Pattern::new(&ctx, 94);
                (place..count)
                    .step_by(at_once)
                    .map(|number| {
                        ask(&ctx, address, number, &pattern).during(&format!("connection {number}"))
                    })
                    .collect()
            })
        })
        .collect();
    let mut tally = Tally::default();
    let mut first = Ok(());
    for client in clients {
        match join(client) {
            Ok(came) => came.into_iter().for_each(|came| tally.add(came)),
            Err(failure) => first = first.and(Err(failure)),
        }
    }
    over.store(true, Ordering::Release);
    first?;
    let served = join(acceptor)?;
    check_eq!(
        served,
        tally.by_tcp,
        "servers whose client had everything and ended it"
    );
    check_eq!(
        tally.by_tcp + tally.failed(),
        count,
        "connections that came to an end"
    );
    Ok(tally)
}

fn roce_black_hole(ctx: &Ctx) -> Outcome {
    nobody_gets_through(ctx)?;
    links_end(ctx)
}

/// No link group is there, so that each connection is, or waits for, a first contact that fails.
fn nobody_gets_through(ctx: &Ctx) -> Outcome {
    let count = (CONNECTIONS / ctx.divisor).max(AT_ONCE);
    fresh(ctx)?;
    let mut hole = Hole::open(Lost::Roce)?;
    hole.settle()?;
    let tally = newcomers(ctx, count, AT_ONCE)?;
    // The client of a first contact sends nothing before it has heard something.
    let lost = hole.close(&[Host::A])?;
    println!(
        "# {count} connections begun in a hole for RoCE, which took {lost} packets: {} by TCP (declined by {:x?}), errors {:?}",
        tally.by_tcp, tally.reasons, tally.errors
    );
    // An error is right, but TCP was there all the time.
    check!(
        tally.by_tcp * 10 >= count * 9,
        "only {} of {count} connections fell back",
        tally.by_tcp
    );
    check!(
        tally.reasons.contains_key(&TIMEOUT_CL),
        "no connection has waited for CONFIRM LINK"
    );
    by_rdma_again(ctx)
}

/// Connections go by RDMA when the hole is closed.
fn by_rdma_again(ctx: &Ctx) -> Outcome {
    works_again(ctx)?;
    let (listener, address) = ctx.listener(8)?;
    for number in 0..20 {
        let pair = ctx
            .pair_from(&listener, address)
            .during(&format!("connection {number} after the hole"))?;
        echo(&pair, b"by RDMA again")?;
    }
    Ok(())
}

/// What the ends of a connection do when the hole opens under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// The client sends something, and the server sends it back, again and again.
    Echo,
    /// Both wait for the other one to say something.
    Idle,
    /// Both write and nobody reads, so that they are soon waiting for room.
    Full,
    /// The server reads what the client writes.
    Stream,
}

impl Doing {
    const ALL: [Doing; 4] = [Doing::Echo, Doing::Idle, Doing::Full, Doing::Stream];
}

/// An end of such a connection, until it fails. The end of the stream, which nobody sends, is wrong.
fn until_error(
    sock: &Sock,
    doing: Doing,
    is_client: bool,
    pattern: &Pattern,
    moved: &AtomicUsize,
) -> io::Result<()> {
    let mut at = 0;
    let mut part = vec![0; 20_000];
    let read = |at: usize, part: &mut [u8]| -> io::Result<()> {
        sock.recv_all(part)?;
        pattern.verify(at, part)?;
        moved.fetch_add(part.len(), Ordering::Relaxed);
        Ok(())
    };
    loop {
        let length = part.len();
        match (doing, is_client) {
            (Doing::Echo, true) => {
                sock.send_all(pattern.at(at, length))?;
                read(at, &mut part)?;
            }
            (Doing::Echo, false) => {
                read(at, &mut part)?;
                sock.send_all(&part)?;
            }
            (Doing::Idle, _) => {
                if sock.recv(&mut part, 0)? != 0 {
                    return Err(io::Error::other("something came that nobody has sent"));
                }
                return Err(io::Error::other("the end of the stream came"));
            }
            (Doing::Full, _) | (Doing::Stream, true) => {
                sock.send_all(pattern.at(at, length))?;
                moved.fetch_add(length, Ordering::Relaxed);
            }
            (Doing::Stream, false) => read(at, &mut part)?,
        }
        at += length;
    }
}

/// The hole opens under connections, and others come that begin while the link still seems to be alive.
fn links_end(ctx: &Ctx) -> Outcome {
    let count = (100 / ctx.divisor).max(16);
    fresh(ctx)?;
    let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 1)?;
    let (listener, address) = ctx.listener(8)?;
    // Memory that the peer knows already is left behind for connections that come later. These ask nothing over the link, so
    // that they begin by RDMA as long as the link seems to be alive.
    let known = (0..AT_ONCE / 2)
        .map(|_| ctx.pair_from(&listener, address))
        .collect::<Outcome<Vec<Pair>>>()?;
    let mut ends: Vec<(String, JoinHandle<Outcome<io::Error>>)> = Vec::new();
    let mut moving = Vec::new();
    for number in 0..count {
        let pair = ctx.pair_from(&listener, address)?;
        let doing = Doing::ALL[number % Doing::ALL.len()];
        for (is_client, sock) in [(true, pair.client), (false, pair.server)] {
            limited(&sock)?;
            let moved = Arc::new(AtomicUsize::new(0));
            if doing != Doing::Idle {
                moving.push(moved.clone());
            }
            let pattern = Pattern::new(ctx, 95);
            let side = if is_client { "client" } else { "server" };
            let end = thread::spawn(move || {
                let outcome = until_error(&sock, doing, is_client, &pattern, &moved);
                Ok(outcome
                    .err()
                    .unwrap_or_else(|| io::Error::other("no error")))
            });
            ends.push((format!("{side} {number} ({doing:?})"), end));
        }
    }
    sys::eventually("all connections move", || {
        Ok(moving.iter().all(|moved| moved.load(Ordering::Relaxed) > 0))
    })?;
    for pair in known {
        echo(&pair, b"known")?;
    }
    let mut hole = Hole::open(Lost::Roce)?;
    let newcomers = {
        let ctx = ctx.with_kind(ctx.kind);
        thread::spawn(move || newcomers(&ctx, AT_ONCE, AT_ONCE))
    };
    hole.settle()?;
    let bytes: usize = moving
        .iter()
        .map(|moved| moved.load(Ordering::Relaxed))
        .sum();
    let mut errors = BTreeMap::<String, usize>::new();
    let mut wrong = Vec::new();
    for (who, end) in ends {
        let error = join(end)?;
        let right = [libc::ECONNABORTED, libc::ECONNRESET];
        if !error
            .raw_os_error()
            .is_some_and(|code| right.contains(&code))
        {
            wrong.push(format!("{who}: {error}"));
        }
        *errors.entry(error.to_string()).or_default() += 1;
    }
    let tally = join(newcomers)?;
    check!(
        wrong.is_empty(),
        "ends that ended as they should not: {}",
        wrong.join("; ")
    );
    await_queue_pairs(0).during("all links have gone")?;
    let lost = hole.close(&Host::BOTH)?;
    drop(changed);
    println!(
        "# {count} connections by RDMA, {bytes} bytes, then a hole for RoCE, which took {lost} packets: ends {errors:?}; \
         {AT_ONCE} that came then: {} by TCP (declined by {:x?}), errors {:?}",
        tally.by_tcp, tally.reasons, tally.errors
    );
    by_rdma_again(ctx)
}

/// How a connection ends in the hole for TCP.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// One side ends its direction, and the other one answers and closes.
    Shutdown,
    /// One side closes behind its last data.
    Close,
}

/// `near`'s part: it speaks first, and ends first.
fn speak(sock: Sock, last: Last, words: &Words) -> Outcome<usize> {
    sock.send_all(words.first())?;
    words.read_exactly(&sock, words.first())?;
    sock.send_all(words.last())?;
    if matches!(last, Last::Shutdown) {
        sock.shutdown(libc::SHUT_WR)?;
        words.read_to_end(&sock, words.answer())?;
    }
    Ok(words.first().len() + words.last().len())
}

/// `far`'s part.
fn listen(sock: Sock, last: Last, words: &Words) -> Outcome<usize> {
    words.read_exactly(&sock, words.first())?;
    sock.send_all(words.first())?;
    words.read_to_end(&sock, words.last())?;
    let mut sent = words.first().len();
    if matches!(last, Last::Shutdown) {
        sock.send_all(words.answer())?;
        sent += words.answer().len();
    }
    Ok(sent)
}

/// What is said on a connection.
struct Words {
    pattern: Pattern,
    lengths: [usize; 3],
    offset: usize,
}

impl Words {
    fn new(ctx: &Ctx, number: usize) -> Words {
        let mut random = ctx.random(2000 + number as u64);
        Words {
            pattern: Pattern::new(ctx, 96),
            lengths: [(); 3].map(|()| random.gen_range(1..60_000)),
            offset: number * 317,
        }
    }

    /// There and back.
    fn first(&self) -> &[u8] {
        self.pattern.at(self.offset, self.lengths[0])
    }

    fn last(&self) -> &[u8] {
        self.pattern.at(self.offset + 7_919, self.lengths[1])
    }

    fn answer(&self) -> &[u8] {
        self.pattern.at(self.offset + 15_887, self.lengths[2])
    }

    fn read_exactly(&self, sock: &Sock, expected: &[u8]) -> Outcome {
        let mut got = vec![0; expected.len()];
        sock.recv_all(&mut got)?;
        check!(got == expected, "bytes are wrong");
        Ok(())
    }

    fn read_to_end(&self, sock: &Sock, expected: &[u8]) -> Outcome {
        let got = sock.recv_to_end().during("up to the end of the stream")?;
        check_eq!(got.len(), expected.len(), "bytes before the end");
        check!(got == expected, "bytes before the end are wrong");
        Ok(())
    }
}

/// Data and the end of a connection; the bytes that it has carried.
fn converse(ctx: &Ctx, number: usize, pair: Pair) -> Outcome<usize> {
    let last = if number / 2 % 2 == 0 {
        Last::Shutdown
    } else {
        Last::Close
    };
    let (near, far) = if number % 2 == 0 {
        (pair.client, pair.server)
    } else {
        (pair.server, pair.client)
    };
    limited(&near)?;
    limited(&far)?;
    let other = {
        let words = Words::new(ctx, number);
        thread::spawn(move || listen(far, last, &words).during("the one that ends last"))
    };
    let sent = speak(near, last, &Words::new(ctx, number)).during("the one that ends first")?;
    let answered = join(other)?;
    Ok(sent + answered)
}

/// TCP sockets of a host that are about a port of host B, but for the listener and those in TIME_WAIT.
fn tcp_sockets(host: Host, port: u16) -> io::Result<usize> {
    let counts = |socket: &&Socket| {
        [socket.local, socket.remote]
            .iter()
            .any(|end| end.port() == port)
            && ![LISTEN, TIME_WAIT].contains(&socket.state)
    };
    Ok(proc_net::sockets_of(host, "tcp")?
        .iter()
        .filter(counts)
        .count())
}

fn smc_sockets() -> io::Result<[usize; 2]> {
    let mut counts = [0; 2];
    for (count, host) in counts.iter_mut().zip(Host::BOTH) {
        sys::enter(host)?;
        *count = rig::smc_sockets()?;
    }
    Ok(counts)
}

fn tcp_black_hole(ctx: &Ctx) -> Outcome {
    let count = (CONNECTIONS / ctx.divisor).max(AT_ONCE);
    let (listener, address) = ctx.listener(CONNECTIONS as i32)?;
    let before = smc_sockets()?;
    let mut pairs = Vec::new();
    for number in 0..count {
        let pair = ctx
            .pair_from(&listener, address)
            .during(&format!("connection {number}"))?;
        pairs.push((number, pair));
    }
    let mut hole = Hole::open(Lost::Tcp)?;
    hole.settle()?;

    // They give up after a few SYNs.
    let given_up: Vec<JoinHandle<Outcome>> = (0..4)
        .map(|number| {
            let ctx = ctx.with_kind(ctx.kind);
            thread::spawn(move || -> Outcome {
                let sock = ctx.socket(Host::A)?;
                limited(&sock)?;
                sock.set(libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1i32)?;
                check_errno!(
                    sock.connect(address),
                    libc::ETIMEDOUT,
                    "connect() {number} in the hole"
                );
                Ok(())
            })
        })
        .collect();

    let bytes = Arc::new(AtomicU64::new(0));
    let mut shares: Vec<Vec<(usize, Pair)>> = (0..AT_ONCE).map(|_| Vec::new()).collect();
    for (number, pair) in pairs {
        shares[number / 4 % AT_ONCE].push((number, pair));
    }
    let workers: Vec<JoinHandle<Outcome>> = shares
        .into_iter()
        .map(|share| {
            let (ctx, bytes) = (ctx.with_kind(ctx.kind), bytes.clone());
            thread::spawn(move || -> Outcome {
                for (number, pair) in share {
                    let moved = converse(&ctx, number, pair)
                        .during(&format!("connection {number} in the hole"))?;
                    bytes.fetch_add(moved as u64, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    let ended: Vec<Outcome> = workers.into_iter().chain(given_up).map(join).collect();
    ended.into_iter().collect::<Outcome>()?;
    // Whose end both sides have heard by RDMA does not wait for TCP's.
    let mut now = [0; 2];
    sys::eventually("the sockets go", || {
        now = smc_sockets()?;
        Ok(now[0] <= before[0] && now[1] <= before[1])
    })
    .during(&format!("{before:?} sockets of SMC before"))
    .map_err(|failure| Fail(format!("{failure}; now {now:?}")))?;

    // They are still asking when the hole is closed.
    let mut waiting = Vec::new();
    for number in 0..4 {
        let sock = ctx.socket(Host::A)?;
        sock.set_nonblocking(true)?;
        check_errno!(
            sock.connect(address),
            libc::EINPROGRESS,
            "connect() {number} without waiting"
        );
        waiting.push(sock);
    }
    for sock in &waiting {
        check_eq!(
            sock.poll(libc::POLLOUT, Duration::from_millis(500))?,
            0,
            "events of who connects in the hole"
        );
    }
    let lost = hole.close(&Host::BOTH)?;

    let came = waiting.len();
    let mut by_rdma = 0;
    for (number, client) in waiting.iter().enumerate() {
        client
            .await_events(libc::POLLOUT)
            .during(&format!("connect() {number} after the hole"))?;
        check_eq!(client.error()?, 0, "SO_ERROR of connect() {number}");
        client.set_nonblocking(false)?;
        limited(client)?;
        by_rdma += usize::from(mode::of(client)? == Mode::Rdma);
    }
    while !waiting.is_empty() {
        let server = listener.accept().during("accept() after the hole")?;
        let peer = server.peer()?;
        let mut of_this = None;
        for (place, client) in waiting.iter().enumerate() {
            if client.local()? == peer {
                of_this = Some(place);
            }
        }
        let place = of_this.ok_or_else(|| Fail(format!("{peer} is none of the clients")))?;
        let client = waiting.swap_remove(place);
        echo(&Pair { client, server }, b"after the hole")?;
    }
    println!(
        "# {count} connections by RDMA in a hole for TCP, which took {lost} segments: {} bytes; {by_rdma} of {came} that \
         waited for its end by RDMA",
        bytes.load(Ordering::Relaxed)
    );
    // What TCP has not heard of ends with its next attempt.
    let limit = Duration::from_secs(150 * rig::slowness());
    for host in Host::BOTH {
        sys::within(
            &format!("TCP's sockets of host {} go", host.name()),
            limit,
            &mut || Ok(tcp_sockets(host, address.port())? == 0),
        )?;
    }
    by_rdma_again(ctx)
}
