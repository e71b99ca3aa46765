//! Memory that is refused, one piece after the other: every allocation below the module's code, in whatever task or
//! interrupt, during the whole life of a connection. On kernels with fault injection (`vm --kernel debug`).

use super::link::{await_queue_pairs, echo, fresh};
use super::settings::Changed;
use super::{join, once};
use crate::fault::{Fault, Verb, ALLOCATORS, VERBS};
use crate::kind::Host;
use crate::pattern::Pattern;
use crate::proc_net::{self, Socket, ESTABLISHED, FIN_WAIT1};
use crate::runner::{Ctx, Needs, Pair, Test};
use crate::sys::{self, Sock, PATIENCE};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};
use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub const TESTS: [Test; 11] = [
    once(
        "memory.verbs_of_a_first_contact",
        900,
        verbs_of_a_first_contact,
    ),
    once("memory.verbs_in_a_group", 900, verbs_in_a_group),
    once("memory.own_of_a_first_contact", 900, own_of_a_first_contact),
    once("memory.own_in_a_group", 900, own_in_a_group),
    once("memory.tcp_loses_its_end", 60, tcp_loses_its_end),
    once("memory.accepts_again", 60, accepts_again),
    once("memory.no_child", 60, no_child),
    faults("memory.objects_in_a_group", in_a_group),
    // Pages a connection takes only with its group: rings are used again, and the slabs have some.
    faults(
        "memory.objects_of_a_first_contact",
        first_contact::<Objects>,
    ),
    faults("memory.pages_of_a_first_contact", first_contact::<Pages>),
    faults("memory.objects_at_random", at_random),
];

const fn faults(name: &'static str, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit: 1500,
        needs: Needs::FaultInjection,
    }
}

/// What is sent each way: more than a send buffer begins with, so that it grows.
const VOLUME: usize = 20_000;
/// After so many refusals a connection has to go by RDMA as ever.
const CHECKED: u64 = 16;

trait Source {
    /// Its directory in debugfs.
    const DIR: &'static str;
    /// So many a life has to have: else the range of code is wrong.
    const LEAST: u64;
    /// More than a life has.
    const MOST: u64;
}

enum Objects {}
impl Source for Objects {
    const DIR: &'static str = "failslab";
    const LEAST: u64 = 20;
    const MOST: u64 = 2_000;
}

enum Pages {}
impl Source for Pages {
    const DIR: &'static str = "fail_page_alloc";
    const LEAST: u64 = 10;
    const MOST: u64 = 200;
}

/// The kernel's fault injection, for what is below the module's code. It counts what it might refuse, and refuses one
/// where the count is a multiple of an interval. The count is not to be read, and never begins anew: so it is kept.
struct Refusals {
    dir: &'static str,
    count: u64,
}

impl Refusals {
    fn new(dir: &'static str) -> Outcome<Refusals> {
        let refusals = Refusals {
            dir,
            count: match std::fs::read_to_string(kept(dir)) {
                Ok(text) => text.trim().parse().during("the kept count of refusals")?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(error.into()),
            },
        };
        let code = code_of_module()?;
        refusals.set("probability", "0")?;
        refusals.set("verbose", "0")?;
        refusals.set("ignore-gfp-wait", "N")?;
        refusals.set("space", "0")?;
        refusals.set("require-start", &format!("{:#x}", code.start))?;
        refusals.set("require-end", &format!("{:#x}", code.end))?;
        // The kernel reports what vmalloc() does not get, which would fail the run. Soft-RoCE asks so for its queues, whose
        // makers fail as a whole in `decline.refused_resources`.
        let spared = code_of_function("vmalloc_user_noprof")?;
        refusals.set("reject-start", &format!("{:#x}", spared.start))?;
        refusals.set("reject-end", &format!("{:#x}", spared.end))?;
        refusals.set("stacktrace-depth", "32")?;
        if dir == Pages::DIR {
            refusals.set("ignore-gfp-highmem", "N")?;
            refusals.set("min-order", "0")?;
        }
        Ok(refusals)
    }

    fn set(&self, name: &str, value: &str) -> Outcome {
        let path = format!("/sys/kernel/debug/{}/{name}", self.dir);
        sys::write_file(&path, value).map_err(Fail::from)
    }

    /// Runs `body` while the `number`th allocation from now on is refused; whether it came so far.
    fn refuse(&mut self, number: u64, body: impl FnOnce() -> Outcome) -> Outcome<bool> {
        let target = self.count + number;
        // Until it is known how far the count has got.
        let unknown = || Fail("a run was ended while it counted: boot the machine anew".into());
        sys::write_file(&kept(self.dir), "unknown")?;
        self.set("interval", &target.to_string())?;
        self.set("times", "1")?;
        self.set("probability", "100")?;
        let outcome = body();
        self.set("probability", "0")?;
        let times = sys::read_file(&format!("/sys/kernel/debug/{}/times", self.dir))?;
        let came = match times.trim() {
            "0" => true,
            "1" => false,
            _ => return Err(unknown()),
        };
        // An interval of one is none, and nothing is counted.
        if came && target > 1 {
            self.count = target;
        }
        if came {
            sys::write_file(&kept(self.dir), &self.count.to_string())?;
        }
        outcome?;
        Ok(came)
    }

    /// Goes on until this one, which the last life cannot have reached, is refused: then the count is known again.
    fn catch_up(&mut self, number: u64, mut body: impl FnMut() -> Outcome) -> Outcome {
        while !self.refuse(number, &mut body)? {}
        Ok(())
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        if let Err(failure) = self.set("probability", "0") {
            eprintln!("# {failure}");
        }
    }
}

fn kept(dir: &str) -> String {
    format!("/run/smc-selftest.{dir}")
}

/// Where one of the kernel's functions is.
fn code_of_function(name: &str) -> Outcome<std::ops::Range<u64>> {
    let text = sys::read_file("/proc/kallsyms")?;
    let address = |line: &str| {
        let word = line.split_whitespace().next()?;
        u64::from_str_radix(word, 16).ok()
    };
    let start = text
        .lines()
        .find(|line| line.split_whitespace().nth(2) == Some(name))
        .and_then(address)
        .ok_or_else(|| Fail(format!("/proc/kallsyms has no {name}")))?;
    let behind = text.lines().filter_map(address).filter(|&at| at > start);
    Ok(start..behind.min().unwrap_or(start + 1))
}

/// Where the module's functions are.
fn code_of_module() -> Outcome<std::ops::Range<u64>> {
    let mut code: Option<std::ops::Range<u64>> = None;
    for line in sys::read_file("/proc/kallsyms")?.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), Some("t" | "T")) = (words.next(), words.next()) else {
            continue;
        };
        if words.nth(1) != Some("[smc_rs]") {
            continue;
        }
        let address = u64::from_str_radix(address, 16).during("/proc/kallsyms")?;
        let known = code.get_or_insert(address..address);
        known.start = known.start.min(address);
        // Of the last function the length is not told.
        known.end = known.end.max(address + 4096);
    }
    code.ok_or_else(|| Fail("/proc/kallsyms has no functions of smc_rs".into()))
}

/// The life of a connection in a link group that is there.
fn in_a_group(ctx: &Ctx) -> Outcome {
    let _stays = ctx.pair()?;
    in_turn::<Objects>(ctx, || Ok(()))
}

/// ... and with a link group of its own.
fn first_contact<S: Source>(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let _delay = Changed::new(&Host::BOTH, "smcr_lgr_free_delay", 0)?;
    in_turn::<S>(ctx, || await_queue_pairs(0))
}

/// Refuses the first allocation, the second, and so on, until a life has no more. `before` each life.
fn in_turn<S: Source>(ctx: &Ctx, before: fn() -> Outcome) -> Outcome {
    let pattern = Pattern::new(ctx, 91);
    let (listener, address) = ctx.listener(8)?;
    let works = || -> Outcome {
        let pair = ctx.pair_from(&listener, address)?;
        echo(&pair, b"as ever")
    };
    works()?;
    let mut refusals = Refusals::new(S::DIR)?;
    let mut hurt = 0;
    let mut number = 0;
    let mut missed = false;
    loop {
        number += 1;
        before()?;
        let mut end = End::Whole;
        let during = format!("with allocation {number} refused");
        let came = refusals
            .refuse(number, || {
                end = life(ctx, &pattern)?;
                Ok(())
            })
            .during(&during)?;
        hurt += usize::from(end != End::Whole);
        if !came {
            check!(end == End::Whole, "nothing was refused, and still: {end:?}");
            refusals.catch_up(number + S::MOST, || {
                before()?;
                life(ctx, &pattern).map(|_| ())
            })?;
            if missed {
                break;
            }
            // Processors that count at the same time may leave a number out.
            missed = true;
            number -= 1;
            continue;
        }
        missed = false;
        // It takes one refusal to be by TCP, and another one.
        check!(end != End::Silent, "{during}: the end was lost");
        if number % CHECKED == 0 {
            works().during(&format!("after allocation {number} was refused"))?;
        }
    }
    works().during("in the end")?;
    println!(
        "# {}: {} allocations refused in turn; {hurt} times a call failed or the connection broke",
        S::DIR,
        number - 1
    );
    check!(
        number > S::LEAST,
        "only {} allocations in a connection's life",
        number - 1
    );
    Ok(())
}

/// The first call of a verb fails, the second, and so on, until a connection's life, and that of its link group, has no
/// more; then those of the next verb.
fn verbs_of_a_first_contact(ctx: &Ctx) -> Outcome {
    in_turn_with_a_group(ctx, &VERBS, VERBS.len())
}

/// ... of a connection in a link group that is there.
fn verbs_in_a_group(ctx: &Ctx) -> Outcome {
    in_turn_in_a_group(ctx, &VERBS, 3)
}

/// The same of what the module itself asks the kernel for: on every kernel, and of nothing below it.
fn own_of_a_first_contact(ctx: &Ctx) -> Outcome {
    in_turn_with_a_group(ctx, &ALLOCATORS, 5)
}

fn own_in_a_group(ctx: &Ctx) -> Outcome {
    in_turn_in_a_group(ctx, &ALLOCATORS, 3)
}

fn in_turn_with_a_group(ctx: &Ctx, calls: &[Verb], least: usize) -> Outcome {
    fresh(ctx)?;
    let _delay = Changed::new(&Host::BOTH, "smcr_lgr_free_delay", 0)?;
    let none = || await_queue_pairs(0);
    calls_in_turn(ctx, calls, least, none, none)
}

fn in_turn_in_a_group(ctx: &Ctx, calls: &[Verb], least: usize) -> Outcome {
    fresh(ctx)?;
    let (listener, address) = ctx.listener(8)?;
    let stays = RefCell::new(None);
    let group = || {
        // The one before may have gone with its link.
        drop(stays.take());
        let pair = within(|| ctx.pair_from(&listener, address))?;
        stays.replace(Some(pair));
        Ok(())
    };
    calls_in_turn(ctx, calls, least, group, || Ok(()))
}

/// `before` is what comes before each life, `after` what still belongs to it.
fn calls_in_turn(
    ctx: &Ctx,
    calls: &[Verb],
    least: usize,
    before: impl Fn() -> Outcome,
    after: impl Fn() -> Outcome,
) -> Outcome {
    // Each request counts: few, so that the test is short; and a link that has failed is to be found soon.
    let _few = Changed::new(&Host::BOTH, "smcr_max_recv_wr", 4)?;
    let _tests = Changed::new(&Host::BOTH, "smcr_testlink_time", 1)?;
    let pattern = Pattern::new(ctx, 93);
    let (listener, address) = ctx.listener(8)?;
    let works = || within(|| echo(&ctx.pair_from(&listener, address)?, b"as ever"));
    let mut called = 0;
    for &verb in calls {
        let fault = Fault::of_verb(verb)?;
        let mut hurt = 0;
        let mut number = 0;
        let mut late = false;
        loop {
            number += 1;
            let during = format!("with call {number} of {} failing", verb.name);
            before().during(&format!("before a life {during}"))?;
            fault.arm(Some(number))?;
            let end = life(ctx, &pattern).during(&during)?;
            after().during(&format!("after a life {during}"))?;
            fault.arm(None)?;
            check!(end != End::Silent, "{during}: the end was lost");
            hurt += usize::from(end != End::Whole);
            if fault.hits()? == 0 {
                // A link of the life before may stand still, of which TEST LINK tells only now.
                if end != End::Whole && number > 1 && !late {
                    late = true;
                    number -= 1;
                    continue;
                }
                check!(end == End::Whole, "nothing has failed, and still: {end:?}");
                break;
            }
            late = false;
            if number % 4 == 0 {
                works().during(&format!("after a life {during}"))?;
            }
        }
        works().during(&format!("after {}", verb.name))?;
        println!(
            "# {}: {} calls failed in turn; {hurt} times the program was told or the connection broke",
            verb.name,
            number - 1
        );
        called += usize::from(number > 1);
    }
    check!(
        called >= least,
        "only {called} of the functions were called"
    );
    // One side may not know yet that the other one's link is gone, and the module would wait for it when it is unloaded.
    fresh(ctx)?;
    // The new devices have to have sent something, too.
    works()
}

/// Until what failed is known on both sides, connections may fall back.
fn within<T>(mut attempt: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
            outcome => return outcome,
        }
    }
}

/// One object in fifty is refused, whoever asks, while several connections at once come and go, and link groups with them.
fn at_random(ctx: &Ctx) -> Outcome {
    const THREADS: usize = 4;
    const LIVES: usize = 40;
    fresh(ctx)?;
    let _delay = Changed::new(&Host::BOTH, "smcr_lgr_free_delay", 0)?;
    let (listener, address) = ctx.listener(8)?;
    let refusals = Refusals::new(Objects::DIR)?;
    // Nothing is counted with this interval.
    refusals.set("interval", "1")?;
    refusals.set("times", "-1")?;
    refusals.set("probability", "2")?;
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let ctx = ctx.with_kind(ctx.kind);
            std::thread::spawn(move || -> Outcome<[usize; 2]> {
                let pattern = Pattern::new(&ctx, 92);
                let (mut whole, mut silent) = (0, 0);
                for number in 0..LIVES {
                    let end = life(&ctx, &pattern).during(&format!("life {number}"))?;
                    whole += usize::from(end == End::Whole);
                    silent += usize::from(end == End::Silent);
                }
                Ok([whole, silent])
            })
        })
        .collect();
    let ends: Vec<_> = threads.into_iter().map(join).collect();
    refusals.set("probability", "0")?;
    let (mut whole, mut silent) = (0, 0);
    for end in ends {
        let counts = end?;
        whole += counts[0];
        silent += counts[1];
    }
    println!(
        "# {whole} of {} connections lived to their end; of {silent} TCP lost the end",
        THREADS * LIVES
    );
    check!(whole < THREADS * LIVES, "nothing was refused");
    let pair = ctx.pair_from(&listener, address).during("in the end")?;
    echo(&pair, b"as ever")
}

/// The kernel has no memory for a connection that TCP has accepted, of which TCP tells once: it is asked for again.
fn accepts_again(ctx: &Ctx) -> Outcome {
    const REFUSALS: u32 = 3;
    let (listener, address) = ctx.listener(8)?;
    for clients in [&ctx.with_kind(ctx.kind.plain()).unasked(), ctx] {
        let fault = Fault::new("kernel_accept", -12, 0, REFUSALS)?;
        let pair = clients.pair_from(&listener, address)?;
        check_eq!(fault.hits()?, REFUSALS, "refusals");
        drop(fault);
        echo(&pair, b"late, and as ever")?;
    }
    Ok(())
}

/// There is no memory for the socket of a connection that was accepted: its client's stream does not seem to end well.
fn no_child(ctx: &Ctx) -> Outcome {
    let (_listener, address) = ctx.listener(8)?;
    let fault = Fault::new("sk_alloc", 0, 0, 1)?;
    let client = Sock::new(Host::A, ctx.kind.plain(), 0)?;
    client.set_timeouts(PATIENCE)?;
    // A client that is slow hears of it before it hears of the connection.
    check_errno!(
        client
            .connect(address)
            .and_then(|()| client.recv(&mut [0; 1], 0)),
        libc::ECONNRESET,
        "connect() and recv() of a client that the server has no memory for"
    );
    check_eq!(fault.hits()?, 1, "refusals");
    Ok(())
}

/// Why a connection by TCP may stay without its end: who closes it gets no memory for the FIN, and TCP neither says so
/// nor tries again. Plain TCP does so, and who has fallen back to it.
fn tcp_loses_its_end(ctx: &Ctx) -> Outcome {
    let plain = ctx.with_kind(ctx.kind.plain());
    for clients in [&plain, &ctx.unasked()] {
        let (listener, address) = plain.listener(8)?;
        let client = clients.connect(address)?;
        let server = listener.accept()?;
        let pair = Pair { client, server };
        echo(&pair, b"by TCP")?;
        let Pair { client, server } = pair;
        let ends = TcpEnds::of(&client, &server)?;
        let fault = Fault::of_caller("__alloc_skb", 0, "tcp_send_fin")?;
        drop(client);
        check_eq!(fault.hits()?, 1, "refused FINs");
        drop(fault);
        for _ in 0..2 {
            let seen = ends.both()?;
            check!(is_lost_end(&seen, Host::A), "{:?}: {seen:?}", clients.kind);
            std::thread::sleep(Duration::from_secs(2));
        }
        check_eq!(
            server.poll(libc::POLLIN, Duration::ZERO)?,
            0,
            "what the server sees"
        );
    }
    Ok(())
}

/// How the life of a connection went.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Every call succeeded, every byte arrived.
    Whole,
    /// A call said that it could not, or the connection was reset.
    Broken(String),
    /// It went by TCP, which got no memory to say that it ends, and never does ([`tcp_loses_its_end`]).
    Silent,
}

/// From socket() to close(). Whatever is refused, no call hangs, what arrives is right, and who is told of the end of the
/// stream has got all of it.
fn life(ctx: &Ctx, pattern: &Pattern) -> Outcome<End> {
    match live(ctx, pattern) {
        Ok(()) => Ok(End::Whole),
        Err(Ended::Broken(why)) => Ok(End::Broken(why)),
        Err(Ended::Silent) => Ok(End::Silent),
        Err(Ended::Wrong(fail)) => Err(fail),
    }
}

enum Ended {
    Broken(String),
    Silent,
    Wrong(Fail),
}

impl From<Fail> for Ended {
    fn from(fail: Fail) -> Self {
        Ended::Wrong(fail)
    }
}

/// What calls may say when memory is refused, here or at the other end.
fn or_broken<T>(what: &str, result: io::Result<T>) -> Result<T, Ended> {
    result.map_err(|error| match error.raw_os_error() {
        Some(
            libc::ENOMEM
            // TCP says these when there is no memory for an inode, for what it keeps about a port, or for a route.
            | libc::ENFILE
            | libc::EADDRINUSE
            | libc::EADDRNOTAVAIL
            | libc::EHOSTUNREACH
            | libc::ENOBUFS
            | libc::ECONNRESET
            | libc::ECONNREFUSED
            | libc::ECONNABORTED
            // connect(): who has sent a CLC Confirm may not fall back alone, and the peer, whose side is well, does not decline.
            | libc::ETIMEDOUT
            | libc::EPIPE
            | libc::ENOTCONN,
        ) => Ended::Broken(format!("{what}: {error}")),
        Some(libc::EAGAIN) => Ended::Wrong(Fail(format!("{what} hangs"))),
        _ => Ended::Wrong(Fail(format!("{what}: {error}"))),
    })
}

fn live(ctx: &Ctx, pattern: &Pattern) -> Result<(), Ended> {
    // A call that hangs is told as one: sleeps of the kernel's own end later.
    let socket = |host| -> Result<Sock, Ended> {
        let sock = or_broken("socket()", Sock::new(host, ctx.kind, libc::SOCK_CLOEXEC))?;
        or_broken("setsockopt()", sock.set_timeouts(PATIENCE))?;
        Ok(sock)
    };
    let listener = socket(Host::B)?;
    or_broken("bind()", listener.bind(Host::B.address(ctx.kind, 0)))?;
    or_broken("listen()", listener.listen(4))?;
    let address: SocketAddr = listener.local().map_err(Fail::from)?;
    let client = socket(Host::A)?;
    or_broken("connect()", client.connect(address))?;
    let server = accept(&listener, &client)?;
    or_broken("setsockopt()", server.set_timeouts(PATIENCE))?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        let mut sent = 0;
        let mut got = 0;
        let mut part = vec![0; VOLUME];
        while got < VOLUME {
            if sent < VOLUME {
                sent += or_broken(
                    "send()",
                    from.send(pattern.at(sent, VOLUME - sent), libc::MSG_NOSIGNAL),
                )?;
            }
            let count = or_broken("recv()", to.recv(&mut part, 0))?;
            if count == 0 {
                let seen = Seen::of(&TcpEnds::of(&client, &server)?, &[&client, &server])?;
                let fail = format!("end of stream after {got} of {sent} bytes; {seen}");
                return Err(Fail(fail).into());
            }
            pattern.verify(got, &part[..count])?;
            got += count;
        }
    }
    let ends = TcpEnds::of(&client, &server)?;
    drop(client);
    ends.await_news(&server)?;
    let rest = match server.recv(&mut [0; 16], libc::MSG_DONTWAIT) {
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
            return Err(ends.unheard(Host::A, &[&server], "recv() of the end"))
        }
        rest => or_broken("recv() of the end", rest)?,
    };
    if rest != 0 {
        return Err(Fail(format!("{rest} bytes more than were sent")).into());
    }
    Ok(())
}

/// Where the TCP connection of a pair is to be found, also when its client is closed.
struct TcpEnds {
    client: SocketAddr,
    server: SocketAddr,
}

impl TcpEnds {
    fn of(client: &Sock, server: &Sock) -> Outcome<TcpEnds> {
        Ok(TcpEnds {
            client: client.local().during("getsockname() of the client")?,
            server: server.local().during("getsockname() of the server")?,
        })
    }

    /// One end, if there still is one.
    fn end(&self, host: Host) -> Outcome<Option<Socket>> {
        let wanted = match host {
            Host::A => (self.client, self.server),
            Host::B => (self.server, self.client),
        };
        let mut sockets = proc_net::sockets_of(host, "tcp")?.into_iter();
        Ok(sockets.find(|socket| (socket.local, socket.remote) == wanted))
    }

    fn both(&self) -> Outcome<[Option<Socket>; 2]> {
        Ok([self.end(Host::A)?, self.end(Host::B)?])
    }

    /// Waits until the server hears something, or cannot any more.
    fn await_news(&self, server: &Sock) -> Outcome {
        let end = Instant::now() + PATIENCE;
        let mut lost = 0;
        // More than once, as it may be seen in the midst of a change.
        while lost < 3 && Instant::now() < end {
            if server.poll(libc::POLLIN, Duration::from_secs(1))? != 0 {
                break;
            }
            lost = if is_lost_end(&self.both()?, Host::A) {
                lost + 1
            } else {
                0
            };
        }
        Ok(())
    }

    /// One side has closed, and the other one, of which `socks` are left, has not heard of it: `what` hangs.
    fn unheard(&self, closed: Host, socks: &[&Sock], what: &str) -> Ended {
        match Seen::of(self, socks) {
            Ok(seen) if seen.is_by_tcp() && is_lost_end(&seen.tcp, closed) => Ended::Silent,
            Ok(seen) => Fail(format!("{what} hangs; {seen}")).into(),
            Err(fail) => fail.into(),
        }
    }
}

/// What is known of a connection that is not as it should be.
struct Seen {
    /// At the client, and at the server.
    tcp: [Option<Socket>; 2],
    smc: Vec<Option<crate::diag::Entry>>,
}

impl Seen {
    /// `socks` are those that are to be asked.
    fn of(ends: &TcpEnds, socks: &[&Sock]) -> Outcome<Seen> {
        // Memory for the answers may be refused, too.
        within(|| {
            let smc = socks.iter().map(|sock| crate::diag::of(sock));
            Ok(Seen {
                tcp: ends.both()?,
                smc: smc.collect::<io::Result<_>>().during("sock_diag")?,
            })
        })
    }

    /// Do those who were asked know that it goes by TCP?
    fn is_by_tcp(&self) -> bool {
        self.smc.iter().all(|entry| {
            entry
                .as_ref()
                .is_some_and(|entry| entry.mode == crate::diag::SMC_DIAG_MODE_FALLBACK_TCP)
        })
    }
}

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let module = sys::read_file("/sys/kernel/debug/smc_rs/state").unwrap_or_default();
        let Seen { tcp, smc } = self;
        write!(
            f,
            "TCP at the client, and at the server: {tcp:?}; sock_diag: {smc:?}\n{module}"
        )
    }
}

/// Whether the TCP of the side that has closed got no memory for its FIN: it takes it for said (FIN_WAIT1), and has nothing left to
/// say; the other one's goes on (ESTABLISHED).
fn is_lost_end([client, server]: &[Option<Socket>; 2], closed: Host) -> bool {
    let is = |end: &Option<Socket>, state| {
        end.as_ref()
            .is_some_and(|end| end.state == state && end.unacknowledged == 0)
    };
    let (closed, other) = match closed {
        Host::A => (client, server),
        Host::B => (server, client),
    };
    is(closed, FIN_WAIT1) && is(other, ESTABLISHED)
}

/// The server's end, or the news that the client's is gone.
fn accept(listener: &Sock, client: &Sock) -> Result<Sock, Ended> {
    match listener.accept_of(client) {
        // Of an error that accept() has given there would be a number.
        Err(error) if error.raw_os_error().is_none() => {
            let ends = TcpEnds {
                client: client.local().during("getsockname() of the client")?,
                server: client.peer().during("getpeername() of the client")?,
            };
            Err(ends.unheard(Host::B, &[client], "accept()"))
        }
        accepted => or_broken("accept()", accepted)?
            .ok_or_else(|| Ended::Broken("the server let the client go".into())),
    }
}
