//! Own programs: messages one way and there and back, connections, memory. Counted by the instruction clock.

use crate::clock::{self, count};
use crate::stack::{self, Figures, Stack, Witness};
use smc_selftest::kind::{Host, Kind};
use smc_selftest::sys::{self, Sock};
use smc_selftest::{check, diag, rig, spans, Context, Outcome};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

fn socket(host: Host, kind: Kind) -> std::io::Result<Sock> {
    let sock = Sock::new(host, kind, libc::SOCK_CLOEXEC)?;
    sys::leave()?;
    Ok(sock)
}

/// A listener on host B.
struct Listener {
    sock: Sock,
    address: SocketAddr,
}

impl Listener {
    fn new(kind: Kind) -> Outcome<Listener> {
        let sock = socket(Host::B, kind).during("a listener")?;
        sock.bind(Host::B.address(Kind::Tcp4, 0))?;
        sock.listen(128)?;
        let address = sock.local()?;
        Ok(Listener { sock, address })
    }
}

/// The client's end of a connection.
fn connect(kind: Kind, address: SocketAddr) -> std::io::Result<Sock> {
    let sock = socket(Host::A, kind)?;
    // A server that never answers is a failure, and no hang.
    sock.set_timeout(libc::SO_RCVTIMEO, Duration::from_secs(60))?;
    sock.connect(address)?;
    sock.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1i32)?;
    Ok(sock)
}

/// A connection: the client's end and the server's.
fn pair(client: Kind, server: Kind) -> Outcome<(Sock, Sock)> {
    let listener = Listener::new(server)?;
    let near = connect(client, listener.address).during("connect")?;
    let far = listener.sock.accept()?;
    far.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1i32)?;
    Ok((near, far))
}

fn join(thread: ScopedJoinHandle<Outcome>) -> Outcome {
    thread.join().expect("the other end does not panic")
}

/// Instructions of a request of so many bytes and its response.
fn round_trip(
    near: &Sock,
    far: &Sock,
    request: usize,
    response: usize,
    rounds: u64,
) -> Outcome<f64> {
    const WARM: u64 = 20;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| -> Outcome {
            let (mut asked, answer) = (vec![0; request], vec![7; response]);
            for _ in 0..rounds + WARM {
                far.recv_all(&mut asked)?;
                far.send_all(&answer)?;
            }
            Ok(())
        });
        let (question, mut answer) = (vec![7; request], vec![0; response]);
        let mut ask = |times: u64| -> Outcome {
            for _ in 0..times {
                near.send_all(&question)?;
                near.recv_all(&mut answer)?;
            }
            Ok(())
        };
        ask(WARM)?;
        let (result, took) = count(|| ask(rounds));
        result?;
        join(server)?;
        Ok(took as f64 / rounds as f64)
    })
}

pub fn round_trips(stack: Stack) -> Outcome<Figures> {
    let mut all = Figures::new();
    for (name, request, response, rounds) in [
        ("request 1 B, response 1 B", 1, 1, 2000),
        ("request 200 B, response 1000 B", 200, 1000, 2000),
        ("request 16 KiB, response 16 KiB", 16 << 10, 16 << 10, 500),
    ] {
        let (near, far) = pair(stack.kind(), stack.kind())?;
        let witness = Witness::new(stack)?;
        let each = round_trip(&near, &far, request, response, rounds).during(name)?;
        witness.judge(2 * rounds)?;
        println!("  {name}: {each:.0} instructions");
        all.push((name.to_owned(), each / 1000.0));
    }
    Ok(all)
}

/// The server speaks TCP only: what is left is TCP's work.
pub fn fallback(stack: Stack) -> Outcome<Figures> {
    let (near, far) = pair(stack.kind(), Kind::Tcp4)?;
    let each = round_trip(&near, &far, 1, 1, 2000)?;
    // The best of a few, as TCP's window grows in steps, and not always to the same size.
    let mut bulk = 0f64;
    for _ in 0..3 {
        let (near, far) = pair(stack.kind(), Kind::Tcp4)?;
        bulk = bulk.max(stream(&near, &far, 64 << 10, 32 << 20)?);
    }
    println!("  fallback: {each:.0} instructions a round trip, {bulk:.0} MiB/s");
    Ok(vec![
        (
            "fallback, request 1 B, response 1 B".to_owned(),
            each / 1000.0,
        ),
        ("fallback, messages of 64 KiB".to_owned(), bulk),
    ])
}

pub fn round_trip_span(stack: Stack) -> Outcome<f64> {
    const ROUNDS: u64 = 3000;
    let (near, far) = pair(stack.kind(), stack.kind())?;
    round_trip(&near, &far, 1, 1, 100)?;
    spans::between(|| round_trip(&near, &far, 1, 1, ROUNDS).map(drop))?;
    Ok(ROUNDS as f64)
}

pub fn stream_span(stack: Stack) -> Outcome<f64> {
    const KIB: usize = 32 << 10;
    count_stream(stack, 64 << 10, 1 << 20, KIB << 10)?;
    Ok(KIB as f64)
}

pub fn small_messages_span(stack: Stack) -> Outcome<f64> {
    const SIZE: usize = 64;
    const MESSAGES: usize = 20_000;
    count_stream(stack, SIZE, 100 * SIZE, MESSAGES * SIZE)?;
    Ok(MESSAGES as f64)
}

/// Counts what so many bytes in messages of a size take, after some to warm up.
fn count_stream(stack: Stack, size: usize, warm: usize, total: usize) -> Outcome {
    let (near, far) = pair(stack.kind(), stack.kind())?;
    stream(&near, &far, size, warm)?;
    spans::between(|| stream(&near, &far, size, total).map(drop))
}

pub fn connections_span(stack: Stack) -> Outcome<f64> {
    const ROUNDS: usize = 40;
    connections(stack, WARM, 8, 5)?;
    spans::between(|| connections(stack, WARM, 8, ROUNDS).map(drop))?;
    Ok((8 * ROUNDS) as f64)
}

/// The same with `net.smc.adaptive`, of those that come after it is known that they are short.
pub fn learnt_connections_span(stack: Stack) -> Outcome<f64> {
    const ROUNDS: usize = 40;
    stack::set(stack, "adaptive", 1)?;
    connections(stack, LEARNT, 8, 5)?;
    spans::between(|| connections(stack, LEARNT, 8, ROUNDS).map(drop))?;
    stack::set(stack, "adaptive", 0)?;
    Ok((8 * ROUNDS) as f64)
}

/// MiB in a second, sent in messages of a size and read in such pieces.
fn stream(near: &Sock, far: &Sock, size: usize, total: usize) -> Outcome<f64> {
    let messages = total / size;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| -> Outcome {
            let mut room = vec![0; size];
            for _ in 0..messages + 1 {
                far.recv_all(&mut room)?;
            }
            far.send_all(b"x")?;
            Ok(())
        });
        let room = vec![7; size];
        near.send_all(&room)?;
        let (result, took) = count(|| -> Outcome {
            for _ in 0..messages {
                near.send_all(&room)?;
            }
            near.recv_all(&mut [0])?;
            Ok(())
        });
        result?;
        join(server)?;
        Ok((messages * size) as f64 / f64::from(1 << 20) / (took as f64 / 1e9))
    })
}

/// On a connection of its own, which goes by the stack.
pub fn one_stream(stack: Stack, size: usize, total: usize, nodelay: bool) -> Outcome<f64> {
    let (near, far) = pair(stack.kind(), stack.kind())?;
    near.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, i32::from(nodelay))?;
    let witness = Witness::new(stack)?;
    let rate = stream(&near, &far, size, total)?;
    witness.judge(total as u64 / (64 << 10))?;
    Ok(rate)
}

pub fn streams(stack: Stack) -> Outcome<Figures> {
    let mut all = Figures::new();
    for (name, size, nodelay) in [
        ("messages of 64 B", 64, false),
        ("messages of 64 B, TCP_NODELAY", 64, true),
        ("messages of 1 KiB", 1 << 10, false),
        ("messages of 1 KiB, TCP_NODELAY", 1 << 10, true),
        ("messages of 16 KiB", 16 << 10, false),
        ("messages of 64 KiB", 64 << 10, false),
        ("messages of 1 MiB", 1 << 20, false),
    ] {
        let rate = one_stream(stack, size, (32 << 20).min(size * 10_000), nodelay).during(name)?;
        println!("  {name}: {rate:.1} MiB/s");
        all.push((name.to_owned(), rate));
    }
    Ok(all)
}

/// What a message just above 90 % of the receive buffer gets of the speed of one just below. Without a buffer of
/// SMC's, TCP takes 128 KiB for it.
pub fn window_cliff(stack: Stack) -> Outcome<Figures> {
    let mut rates = Vec::new();
    for more in [0, 1] {
        let (near, far) = pair(stack.kind(), stack.kind())?;
        let ring = match stack {
            Stack::Tcp => 128 << 10,
            _ => diag::of(&near)?
                .and_then(|entry| entry.conn)
                .map_or(0, |conn| conn.peer_rmbe_size as usize),
        };
        check!(ring > 0, "sock_diag says nothing of the peer's buffer");
        let size = ring * 9 / 10 + more;
        let rate = stream(&near, &far, size, 24 << 20)?;
        println!("  messages of {size} B, buffer {ring}: {rate:.1} MiB/s");
        rates.push(rate);
    }
    Ok(vec![("window cliff".to_owned(), rates[1] / rates[0])])
}

/// Connections before those that count: the link group is there, or the place is known for short ones.
const WARM: usize = 1;
const LEARNT: usize = 16;

/// A connection for each request, some at once: connections in a second, and how many failed of a hundred.
fn connections(stack: Stack, warm: usize, clients: usize, rounds: usize) -> Outcome<(f64, f64)> {
    let listener = Listener::new(stack.kind())?;
    let (failed, left) = (AtomicUsize::new(0), AtomicUsize::new(clients));
    let serve = || -> Outcome {
        loop {
            let sock = listener.sock.accept()?;
            let mut asked = [0; 32];
            // A client that failed has nothing to say; one byte is the end of this thread.
            match sock.recv(&mut asked, 0) {
                Ok(1) => return Ok(()),
                Ok(32) => drop(sock.send(&asked, libc::MSG_NOSIGNAL)),
                _ => {}
            }
        }
    };
    let ask = || -> std::io::Result<()> {
        let sock = connect(stack.kind(), listener.address)?;
        sock.send_all(&[7; 32])?;
        sock.recv_all(&mut [0; 32])
    };
    let client = || {
        for _ in 0..rounds {
            if ask().is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        left.fetch_sub(1, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        let servers: Vec<_> = (0..clients).map(|_| scope.spawn(serve)).collect();
        for _ in 0..warm {
            ask()?;
        }
        let begin = clock::now();
        let clients_at_work: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        for thread in clients_at_work {
            thread.join().expect("no client panics");
        }
        let took = clock::now() - begin;
        for _ in 0..clients {
            // Over TCP: nothing of this is measured, and it must not fail.
            loop {
                let Ok(sock) = connect(stack.kind(), listener.address) else {
                    continue;
                };
                if sock.send_all(b"x").is_ok() {
                    break;
                }
            }
        }
        for server in servers {
            join(server)?;
        }
        let all = (clients * rounds) as f64;
        Ok((
            all / (took as f64 / 1e9),
            100.0 * failed.load(Ordering::Relaxed) as f64 / all,
        ))
    })
}

pub fn short_connections(stack: Stack) -> Outcome<Figures> {
    let mut all = Figures::new();
    for (clients, rounds) in [(1, 200), (8, 40), (64, 6)] {
        let witness = Witness::new(stack)?;
        let (rate, failed) = connections(stack, WARM, clients, rounds)?;
        // A fallback is counted on one side or on both: it is a connection that failed to be SMC-R.
        let fallen = 100.0 * witness.fallbacks()? as f64 / (clients * rounds) as f64;
        let name = format!("a connection each, {clients} in flight");
        println!("  {name}: {rate:.0}/s, {failed:.1} % failed, fallbacks {fallen:.1} %");
        if fallen > 0.0 {
            println!("    so far: {}", stack::reasons()?);
        }
        all.push((format!("{name}: failed"), failed));
        all.push((format!("{name}: fell back"), fallen));
        all.push((name, rate));
    }
    Ok(all)
}

/// So many connections at once, with a request each, while there is no link group: those made in a second. The middle one
/// of a few.
pub fn cold_connections(stack: Stack) -> Outcome<Figures> {
    let mut all = Figures::new();
    for clients in [1, 8, 64] {
        let witness = Witness::new(stack)?;
        let mut rates = [0.0; 3];
        for rate in &mut rates {
            std::thread::sleep(GROUP_GONE);
            let (made, failed) = connections(stack, 0, clients, 1)?;
            check!(
                stack != Stack::Rust || failed == 0.0,
                "{failed} % of {clients} connections failed"
            );
            *rate = made;
        }
        witness.judge_ours(3 * clients as u64)?;
        rates.sort_by(f64::total_cmp);
        let name = format!("{clients} at once, new group");
        println!(
            "  a connection each, {name}: {:.0}/s, fallbacks {}",
            rates[1],
            witness.fallbacks()?
        );
        all.push((format!("a connection each, {name}"), rates[1]));
    }
    Ok(all)
}

/// The learning policy: short connections once they are known to be, and what becomes of long ones among them. C has
/// none.
pub fn learning(stack: Stack) -> Outcome<Figures> {
    if stack == Stack::C {
        return Ok(Figures::new());
    }
    let mut all = Figures::new();
    stack::set(stack, "adaptive", 1)?;
    for (clients, rounds) in [(1, 200), (8, 40)] {
        let (rate, failed) = connections(stack, LEARNT, clients, rounds)?;
        check!(failed == 0.0, "{failed} % of the connections failed");
        let name = format!("known to be short, {clients} in flight");
        println!("  {name}: {rate:.0}/s");
        all.push((name, rate));
    }
    if stack == Stack::Rust {
        all.extend(long_ones(stack)?);
    }
    stack::set(stack, "adaptive", 0)?;
    Ok(all)
}

/// How many of a hundred long connections go by RDMA, when short ones to the same place were before: those that
/// begin then, and those that begin when they have lived for a while.
fn long_ones(stack: Stack) -> Outcome<Figures> {
    const LONG: usize = 8;
    const A_WHILE: Duration = Duration::from_secs(2);
    let listener = Listener::new(stack.kind())?;
    let open = || -> Outcome<(Sock, Sock)> {
        Ok((
            connect(stack.kind(), listener.address)?,
            listener.sock.accept()?,
        ))
    };
    for _ in 0..LEARNT {
        open()?;
    }
    let mut all = Figures::new();
    let mut kept = Vec::new();
    for name in [
        "SMC-R among long connections after short ones",
        "SMC-R among long connections after those",
    ] {
        let mut by_rdma = 0;
        for _ in 0..LONG {
            let ends = open()?;
            by_rdma += usize::from(diag::of(&ends.0)?.is_some_and(|entry| entry.conn.is_some()));
            kept.push(ends);
        }
        let part = 100.0 * by_rdma as f64 / LONG as f64;
        println!("  {name}: {part:.0} %");
        all.push((name.to_owned(), part));
        // Ages are looked at when a connection is made or ends: whether it is there, and whether it still is.
        for _ in 0..2 {
            std::thread::sleep(A_WHILE);
            open()?;
        }
    }
    Ok(all)
}

/// Longer than a link group without connections lives, in both implementations.
const GROUP_GONE: Duration = Duration::from_secs(700);

/// From `connect` to the first byte of the answer.
fn first_byte(stack: Stack) -> Outcome<u64> {
    let listener = Listener::new(stack.kind())?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| -> Outcome {
            let sock = listener.sock.accept()?;
            sock.recv_all(&mut [0])?;
            sock.send_all(b"y")?;
            // The client closes first.
            sock.recv(&mut [0], 0)?;
            Ok(())
        });
        let (done, took) = count(|| -> Outcome {
            let sock = connect(stack.kind(), listener.address)?;
            sock.send_all(b"x")?;
            sock.recv_all(&mut [0])?;
            Ok(())
        });
        done?;
        join(server)?;
        Ok(took)
    })
}

/// With a new link group, and with one that is there. The middle one of a few each: what else goes on may be counted in one.
fn cold_and_warm(stack: Stack) -> Outcome<[u64; 2]> {
    let (mut cold, mut warm) = ([0; 3], [0; 5]);
    let witness = Witness::new(stack)?;
    for took in &mut cold {
        std::thread::sleep(GROUP_GONE);
        *took = first_byte(stack)?;
    }
    for took in &mut warm {
        *took = first_byte(stack)?;
    }
    witness.judge((cold.len() + warm.len()) as u64)?;
    cold.sort_unstable();
    warm.sort_unstable();
    Ok([cold[1], warm[2]])
}

/// Sleeping costs nothing by this clock.
pub fn first_bytes(stack: Stack) -> Outcome<Figures> {
    let mut all = Figures::new();
    let [cold, warm] = cold_and_warm(stack)?;
    all.push(("first byte, new group".to_owned(), cold as f64 / 1000.0));
    all.push((
        "first byte, group is there".to_owned(),
        warm as f64 / 1000.0,
    ));
    // Half of it each way.
    const TRIP: f64 = 20e6;
    for host in Host::BOTH {
        rig::run(&format!(
            "tc -n {} qdisc add dev {} root netem limit 10000 delay 10ms",
            host.name(),
            host.netdev()
        ))?;
    }
    let [cold, warm] = cold_and_warm(stack)?;
    for host in Host::BOTH {
        rig::run(&format!(
            "tc -n {} qdisc del dev {} root",
            host.name(),
            host.netdev()
        ))?;
    }
    println!(
        "  first byte: {:.2} round trips, with a new group {:.2}",
        warm as f64 / TRIP,
        cold as f64 / TRIP
    );
    all.push((
        "round trips to first byte, new group".to_owned(),
        cold as f64 / TRIP,
    ));
    all.push((
        "round trips to first byte, group is there".to_owned(),
        warm as f64 / TRIP,
    ));
    Ok(all)
}

/// RoCE's opcodes of reliable connections (InfiniBand, table 38): what ends a message, and an acknowledgement.
const WIRE: &str = "
table inet wire {
    counter write { }
    counter send { }
    counter ack { }
    counter total { }
    counter connections { }
    chain out {
        type filter hook output priority 300; policy accept;
        meta l4proto tcp counter name connections
        udp dport 4791 counter name total
        udp dport 4791 @th,64,8 { 8, 9, 10, 11 } counter name write
        udp dport 4791 @th,64,8 { 2, 3, 4, 5 } counter name send
        udp dport 4791 @th,64,8 17 counter name ack
    }
}
";

/// Messages of both hosts: WRITE, SEND, acknowledgements, all packets; and those of TCP.
fn wire() -> Outcome<[u64; 5]> {
    let mut all = [0; 5];
    for host in Host::BOTH {
        let names = ["write", "send", "ack", "total", "connections"];
        for (sum, name) in all.iter_mut().zip(names) {
            let text = rig::run_on(host, &format!("nft list counter inet wire {name}"))?;
            let packets: Option<u64> = text
                .split_whitespace()
                .skip_while(|word| *word != "packets")
                .nth(1)
                .and_then(|word| word.parse().ok());
            check!(packets.is_some(), "nft shows no number of packets: {text}");
            *sum += packets.unwrap_or_default();
        }
    }
    Ok(all)
}

pub fn wire_messages(stack: Stack) -> Outcome<Figures> {
    std::fs::write("/tmp/wire.nft", WIRE)?;
    for host in Host::BOTH {
        rig::run_on(host, "nft -f /tmp/wire.nft")?;
    }
    let mut all = Figures::new();
    if stack != Stack::Tcp {
        all.extend(wire_of_data(stack)?);
    }
    all.extend(wire_of_connections(stack)?);
    for host in Host::BOTH {
        rig::run_on(host, "nft delete table inet wire")?;
    }
    Ok(all)
}

/// Of a connection with one request and its response, from its first packet to its last.
fn wire_of_connections(stack: Stack) -> Outcome<Figures> {
    const MORE: usize = 40;
    let count = |rounds| -> Outcome<[u64; 5]> {
        let before = wire()?;
        connections(stack, WARM, 1, rounds)?;
        // The last ones are closed in the background.
        std::thread::sleep(Duration::from_secs(2));
        let mut all = wire()?;
        all.iter_mut()
            .zip(before)
            .for_each(|(now, old)| *now -= old);
        Ok(all)
    };
    let (few, many) = (count(10)?, count(10 + MORE)?);
    let each = |number: usize| (many[number] - few[number]) as f64 / MORE as f64;
    println!(
        "  a connection: {:.2} packets of TCP, {:.2} by RDMA",
        each(4),
        each(3)
    );
    let mut all = vec![("packets of TCP for a connection".to_owned(), each(4))];
    if stack != Stack::Tcp {
        all.push(("packets by RDMA for a connection".to_owned(), each(3)));
    }
    Ok(all)
}

fn wire_of_data(stack: Stack) -> Outcome<Figures> {
    const ROUNDS: u64 = 500;
    const MIB: usize = 16;
    let mut all = Figures::new();
    let witness = Witness::new(stack)?;
    let (near, far) = pair(stack.kind(), stack.kind())?;
    let before = wire()?;
    round_trip(&near, &far, 200, 1000, ROUNDS)?;
    let between = wire()?;
    stream(&near, &far, 64 << 10, MIB << 20)?;
    let after = wire()?;
    witness.judge(ROUNDS)?;
    for (number, name) in ["RDMA WRITE", "SEND", "ACK", "packets"]
        .into_iter()
        .enumerate()
    {
        let request = (between[number] - before[number]) as f64 / ROUNDS as f64;
        let mib = (after[number] - between[number]) as f64 / MIB as f64;
        println!("  {name}: {request:.2} for a request, {mib:.2} for a MiB");
        all.push((format!("{name} for a request and its response"), request));
        all.push((format!("{name} for a MiB in messages of 64 KiB"), mib));
    }
    Ok(all)
}

const MANY: usize = 1000;

/// The client's ends and the server's.
type Ends = Vec<(Sock, Sock)>;

fn available() -> Outcome<f64> {
    let text = sys::read_file("/proc/meminfo")?;
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    check!(found.is_some(), "no MemAvailable in /proc/meminfo");
    Ok(found.unwrap_or_default())
}

/// Idle connections: how many KiB one takes, both ends; and the ends, with their listener.
fn idle(stack: Stack) -> Outcome<(f64, (Listener, Ends))> {
    std::thread::sleep(GROUP_GONE);
    let listener = Listener::new(stack.kind())?;
    let before = available()?;
    let witness = Witness::new(stack)?;
    let mut ends = Vec::new();
    for _ in 0..MANY {
        ends.push((
            connect(stack.kind(), listener.address)?,
            listener.sock.accept()?,
        ));
    }
    // What is given back late is given back.
    std::thread::sleep(Duration::from_secs(5));
    let each = (before - available()?) / MANY as f64;
    witness.judge(MANY as u64)?;
    Ok((each, (listener, ends)))
}

/// Many idle connections: what they take, and how long closing them and taking the module away takes.
pub fn many(stack: Stack) -> Outcome<Figures> {
    let most = libc::rlimit {
        rlim_cur: 4 * MANY as u64,
        rlim_max: 4 * MANY as u64,
    };
    // SAFETY: `most` is live.
    sys::cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) })?;
    let mut all = Figures::new();
    if stack != Stack::Tcp {
        let old = stack::buffers(stack, Some([64 << 10; 2]))?;
        let name = "memory of an idle connection, buffers of 64 KiB";
        let (each, _) = idle(stack)?;
        println!("  {name}: {each:.1} KiB");
        all.push((name.to_owned(), each));
        stack::buffers(stack, old)?;
    }
    let (each, (listener, ends)) = idle(stack)?;
    println!("  {MANY} connections: {each:.1} KiB each");
    all.push(("memory of an idle connection, both ends".to_owned(), each));
    let (result, took) = count(|| -> Outcome {
        drop(ends);
        drop(listener);
        let mut last = Ok(());
        for _ in 0..600 {
            last = stack.unload();
            if last.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        last
    });
    result?;
    println!(
        "  closed, and the module gone, after {:.0} ms",
        took as f64 / 1e6
    );
    all.push((
        "closing 1,000 connections and unloading".to_owned(),
        took as f64 / 1e6,
    ));
    stack.load()?;
    Ok(all)
}
