//! `make demo-failover`: Redis under load, and the cable of one of the two links is pulled and put back.
//!
//! The clients are unmodified and know nothing of it. `redis-benchmark` ends at the first error; it counts up one
//! number, which tells whether a request was lost or came twice. `redis-cli` stores a value and reads it back, again
//! and again over one connection, and every answer is compared.

use crate::apps;
use smc_selftest::kind::Host;
use smc_selftest::ktap::{Report, Verdict};
use smc_selftest::mode::{self, Mode};
use smc_selftest::tests::two_links::{await_both, second_device, second_netdev, shown, Second};
use smc_selftest::transport::Transport;
use smc_selftest::{check, check_eq, rig, sys, Context, Fail, Outcome};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PHASES: [&str; 5] = [
    "failover.set_up",
    "failover.two_links",
    "failover.cable_pulled",
    "failover.cable_back",
    "failover.new_connections",
];
const CLIENTS: u64 = 15;
/// Requests of the connections that tell how fast this machine is, so that those of the next ones last [`LOAD`]; of these
/// so many before the cable is pulled, while it is out, and in all at least; and of those that come afterwards.
const TRIAL: u64 = 3000;
const BEFORE: u64 = 1500;
const WITHOUT: u64 = 2000;
const LEAST: u64 = 10_000;
const AFTERWARDS: u64 = 1200;
/// Longer than a link takes to go and to come back.
const LOAD: Duration = Duration::from_secs(30);
/// How long a part may take. It ends a hang and measures nothing.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn main() -> ExitCode {
    let mut report = Report::silent(PHASES.len() + rig::oracles().len());
    // Lives until the outcome is told: clients that still run see it go.
    let mut stage = Stage::default();
    match play(&mut report, &mut stage) {
        Ok(()) if report.failed == 0 => {
            println!("demo-failover: OK: the cable was out and came back, and no client noticed: no error, no request lost or done twice");
            ExitCode::SUCCESS
        }
        Ok(()) => {
            println!("demo-failover: FAILED: the hosts are not as they were before");
            ExitCode::FAILURE
        }
        Err(failure) => {
            let phase = PHASES.get(report.passed).unwrap_or(&"failover");
            report.result(phase, Verdict::Fail(failure.0.clone()));
            println!("demo-failover: FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Stage {
    server: Option<apps::Server>,
    network: Option<Second>,
}

fn play(report: &mut Report, stage: &mut Stage) -> Outcome {
    let pass = |report: &mut Report| report.result(PHASES[report.passed], Verdict::Pass);
    rig::hosts_up(rig::SoftRoce::Stock)?;
    let before = rig::Before::take()?;
    rig::module_load()?;
    stage.network = Some(Second::new(&Host::BOTH)?);
    count_bytes()?;
    Transport::Smc.switch_hosts("1")?;
    stage.server = Some(apps::redis_serve()?);
    let release = sys::read_file("/proc/sys/kernel/osrelease")?;
    println!(
        "kernel {}; hosts A (clients) and B (redis-server) at one switch, each by two cables with Soft-RoCE on each;\n\
         redis-benchmark -c {CLIENTS} counts a number up, redis-cli compares what it stores;\n\
         figures of a line are since the line before, RDMA packets and bytes of both ends",
        release.trim()
    );
    pass(report);

    let checker = Checker::start()?;
    // The first connection finds no link group; the others find both links.
    await_both()?;
    let begin = Instant::now();
    Benchmark::start(TRIAL)?.end()?;
    let load = TRIAL as f64 * LOAD.as_secs_f64() / begin.elapsed().as_secs_f64();
    let load = (load as u64).next_multiple_of(1000).max(LEAST);
    let total = TRIAL + load;
    println!(
        "{TRIAL} requests took {:.1} s, so {load} are to last {LOAD:?}",
        begin.elapsed().as_secs_f64()
    );
    let benchmark = Benchmark::start(load)?;
    let mut table = Table::new()?;
    let progress =
        |wanted: u64| checker.await_counter(wanted, || benchmark.ended.load(Ordering::Relaxed));
    progress(TRIAL + BEFORE)?;
    all_by_rdma()?;
    let [one, two] = table.line("both links", checker.counter())?;
    for link in [one, two] {
        check!(link.conns >= CLIENTS / 3, "the links are used unevenly");
        check!(link.packets >= 500, "a link has hardly been used");
    }
    smcr()?;
    pass(report);

    println!(
        "\n  # ip -n S link set p{} down     (at the switch)\n",
        Host::A.netdev()
    );
    rig::run(&format!("ip -n S link set p{} down", Host::A.netdev()))?;
    await_moved()?;
    table.line("cable pulled", checker.counter())?;
    progress(checker.counter() + WITHOUT)?;
    let [one, two] = table.line("cable is out", checker.counter())?;
    check_eq!(one.by_client, 0, "packets of a device without a cable");
    check_eq!(
        two.conns,
        CLIENTS + 1,
        "connections of the link that is left"
    );
    check!(two.packets >= 500, "traffic did not move to the other link");
    smcr()?;
    pass(report);

    println!("\n  # ip -n S link set p{} up\n", Host::A.netdev());
    rig::run(&format!("ip -n S link set p{} up", Host::A.netdev()))?;
    await_both()?;
    let came_back = checker.counter();
    table.line("cable is back", came_back)?;
    smcr()?;
    let in_time = !benchmark.ended.load(Ordering::Relaxed);
    benchmark.end()?;
    check!(in_time, "the link came back when the load was over");
    table.line("to the end", total)?;
    pass(report);

    // Only new connections use a link that has come.
    let benchmark = Benchmark::start(AFTERWARDS)?;
    checker.await_counter(total + AFTERWARDS / 3, || {
        benchmark.ended.load(Ordering::Relaxed)
    })?;
    all_by_rdma()?;
    benchmark.end()?;
    let [one, two] = table.line("new clients", total + AFTERWARDS)?;
    for link in [one, two] {
        check!(link.packets >= 500, "a link has hardly been used");
    }
    let rounds = checker.end(total + AFTERWARDS)?;
    println!(
        "\nredis-benchmark: {TRIAL}, {load} and {AFTERWARDS} requests without an error, and the number is {};\n\
         redis-cli: {rounds} values stored and read back, all equal, over one connection",
        total + AFTERWARDS
    );
    pass(report);

    stage.server = None;
    Transport::Tcp.switch_hosts("1")?;
    stage.network = None;
    rig::judge(report, &before, "afterwards");
    Ok(())
}

/// Until no connection is on a link of the first devices: the client has none there, as its port is down. A link
/// between its second device and the server's first one may come, and carries nothing as long as nobody connects.
fn await_moved() -> Outcome {
    let mut last = String::new();
    sys::within("all connections have moved", PATIENCE, &mut || {
        let mut left = 0;
        for host in Host::BOTH {
            let (_, links) = shown(host)?;
            last = format!("{links:?}");
            let there = links
                .iter()
                .filter(|link| link.device == host.rdma_device());
            left += there
                .map(|link| link.conns + u64::from(host == Host::A))
                .sum::<u64>();
        }
        Ok(left == 0)
    })
    .map_err(|error| Fail(format!("{error}: {last}")))
}

/// Counts the bytes of RoCEv2 (its UDP port) that leave by each network device.
fn count_bytes() -> Outcome {
    for host in Host::BOTH {
        let rules = [host.netdev(), second_netdev(host)]
            .map(|dev| format!("oifname {dev} udp dport 4791 counter name {dev}\n"))
            .concat();
        sys::write_file(
            "/tmp/failover.nft",
            &format!(
                "table inet failover {{\ncounter {} {{ }}\ncounter {} {{ }}\n\
                 chain out {{ type filter hook output priority 300; policy accept;\n{rules}}}\n}}\n",
                host.netdev(),
                second_netdev(host)
            ),
        )?;
        rig::run_on(host, "nft -f /tmp/failover.nft")?;
    }
    Ok(())
}

fn bytes_by(host: Host, dev: &str) -> Outcome<u64> {
    let text = rig::run_on(host, &format!("nft list counter inet failover {dev}"))?;
    let mut words = text.split_whitespace();
    words
        .find(|&word| word == "bytes")
        .and_then(|_| words.next())
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| Fail(format!("nft shows no byte count: {text}")))
}

/// One link, between the hosts' first devices or between their second ones.
#[derive(Clone, Copy, Default)]
struct Counted {
    conns: u64,
    packets: u64,
    bytes: u64,
    /// Packets that the client's device has sent.
    by_client: u64,
}

fn counted() -> Outcome<[Counted; 2]> {
    let (_, links) = shown(Host::A)?;
    let mut both = [Counted::default(); 2];
    for (number, link) in both.iter_mut().enumerate() {
        for host in Host::BOTH {
            let (device, dev) = match number {
                0 => (host.rdma_device(), host.netdev()),
                _ => (second_device(host), second_netdev(host)),
            };
            let packets = mode::device_counter(device, "sent_pkts")?;
            link.packets += packets;
            if host == Host::A {
                link.by_client = packets;
            }
            link.bytes += bytes_by(host, dev)?;
            let of_this = links.iter().filter(|link| link.device == device);
            link.conns += of_this.map(|link| link.conns).sum::<u64>();
        }
    }
    Ok(both)
}

/// What each link has carried, from line to line.
struct Table {
    last: [Counted; 2],
}

impl Table {
    fn new() -> Outcome<Table> {
        let name = |first: bool| {
            let device = |host: Host| match first {
                true => host.rdma_device(),
                false => second_device(host),
            };
            format!("link {} - {}", device(Host::A), device(Host::B))
        };
        println!(
            "\n  {:<14}{:>8}   {:<32}{}",
            "",
            "requests",
            name(true),
            name(false)
        );
        let columns = format!("{:>5} {:>9} {:>11}", "conns", "packets", "bytes");
        println!("  {:<14}{:>8}   {columns}     {columns}", "", "done");
        Ok(Table { last: counted()? })
    }

    fn line(&mut self, what: &str, requests: u64) -> Outcome<[Counted; 2]> {
        let now = counted()?;
        let last = std::mem::replace(&mut self.last, now);
        let since = [0, 1].map(|link| Counted {
            conns: now[link].conns,
            packets: now[link].packets - last[link].packets,
            bytes: now[link].bytes - last[link].bytes,
            by_client: now[link].by_client - last[link].by_client,
        });
        let [one, two] =
            since.map(|link| format!("{:>5} {:>9} {:>11}", link.conns, link.packets, link.bytes));
        println!("  {what:<14}{requests:>8}   {one}     {two}");
        Ok(since)
    }
}

/// The links as `smcr` shows them on A.
fn smcr() -> Outcome {
    println!("\n  A# smcr -d linkgroup link-show");
    for line in rig::run_on(Host::A, "smcr -d linkgroup link-show")?.lines() {
        println!("  {}", line.trim_end());
    }
    println!();
    Ok(())
}

/// Nothing has fallen back: sock_diag of both hosts.
fn all_by_rdma() -> Outcome {
    for host in Host::BOTH {
        sys::enter(host)?;
        let connections = mode::connections()?;
        sys::leave()?;
        let smc = connections
            .iter()
            .filter(|(_, mode)| *mode == Mode::Rdma)
            .count();
        check!(
            smc as u64 == CLIENTS + 1 && smc == connections.len(),
            "{smc} of {} connections of host {} go by SMC-R, not all {}",
            connections.len(),
            host.name(),
            CLIENTS + 1
        );
    }
    Ok(())
}

/// `redis-benchmark` on A.
struct Benchmark {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

impl Benchmark {
    fn start(requests: u64) -> Outcome<Benchmark> {
        let ended = Arc::new(AtomicBool::new(false));
        let over = ended.clone();
        let line = format!(
            "ip netns exec A timeout 200 redis-benchmark -h 10.9.0.2 -c {CLIENTS} -n {requests} -q incr counter"
        );
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).stdin(Stdio::null());
        let thread = std::thread::spawn(move || {
            let output = command.output().during("redis-benchmark");
            over.store(true, Ordering::Relaxed);
            let output = output?;
            let (said, complained) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            check!(
                output.status.success() && complained.trim().is_empty() && !said.contains("rror"),
                "redis-benchmark has seen an error ({}): {complained} {}",
                output.status,
                said.rsplit('\r').next().unwrap_or_default()
            );
            Ok(())
        });
        Ok(Benchmark { ended, thread })
    }

    /// Waits for it. Fails if it has seen an error.
    fn end(self) -> Outcome {
        self.thread
            .join()
            .map_err(|_| Fail("the thread of redis-benchmark panicked".into()))?
    }
}

/// `redis-cli` on A: stores a value and reads it back until told to stop, and tells how far the benchmark is.
struct Checker {
    thread: JoinHandle<Outcome<(u64, String)>>,
    stop: Arc<AtomicBool>,
    counter: Arc<AtomicU64>,
}

impl Checker {
    fn start() -> Outcome<Checker> {
        let mut cli = Command::new("ip")
            .args("netns exec A timeout 400 redis-cli -h 10.9.0.2".split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .during("redis-cli")?;
        let (stop, counter) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        // So that there is a connection when this returns.
        let mut talk = Talk::new(&mut cli)?;
        let id = talk.ask("CLIENT ID")?;
        check_eq!(talk.ask("SET counter 0")?, "OK", "SET");
        let thread = {
            let (stop, counter) = (stop.clone(), counter.clone());
            std::thread::spawn(move || {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    let value = value(rounds);
                    check_eq!(talk.ask(&format!("SET value {value}"))?, "OK", "SET");
                    check!(talk.ask("GET value")? == value, "a value came back changed");
                    let number = talk.ask("GET counter")?;
                    counter.store(number.parse().during("GET counter")?, Ordering::Relaxed);
                    // redis-cli would make another connection without a word.
                    check_eq!(talk.ask("CLIENT ID")?, id, "redis-cli's connection");
                    rounds += 1;
                }
                let last = talk.ask("GET counter")?;
                drop(talk);
                let status = cli.wait().during("redis-cli")?;
                check!(status.success(), "redis-cli: {status}");
                Ok((rounds, last))
            })
        };
        Ok(Checker {
            thread,
            stop,
            counter,
        })
    }

    fn counter(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Until the number is so large, or a client has ended, which is told when its end is waited for.
    fn await_counter(&self, wanted: u64, ended: impl Fn() -> bool) -> Outcome {
        sys::within(&format!("{wanted} requests"), PATIENCE, &mut || {
            Ok(self.counter() >= wanted || ended() || self.thread.is_finished())
        })?;
        Ok(())
    }

    /// Rounds played. Fails if an answer was wrong, or the number is not this one.
    fn end(self, expected: u64) -> Outcome<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let (rounds, last) = self
            .thread
            .join()
            .map_err(|_| Fail("the thread of redis-cli panicked".into()))??;
        check_eq!(last, expected.to_string(), "the number in Redis");
        check!(rounds > 0, "redis-cli has stored nothing");
        Ok(rounds)
    }
}

/// Commands and answers, a line each.
struct Talk {
    write: std::process::ChildStdin,
    read: BufReader<std::process::ChildStdout>,
}

impl Talk {
    fn new(cli: &mut Child) -> Outcome<Talk> {
        let (Some(write), Some(read)) = (cli.stdin.take(), cli.stdout.take()) else {
            return Err(Fail("redis-cli has no pipes".into()));
        };
        Ok(Talk {
            write,
            read: BufReader::new(read),
        })
    }

    fn ask(&mut self, command: &str) -> Outcome<String> {
        writeln!(self.write, "{command}").during("write to redis-cli")?;
        let mut line = String::new();
        let got = self
            .read
            .read_line(&mut line)
            .during("read from redis-cli")?;
        check!(got > 0, "redis-cli has ended");
        Ok(line.trim_end().to_owned())
    }
}

/// 4 KiB in hexadecimal digits, others each time.
fn value(round: u64) -> String {
    let mut state = round.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [(); 512]
        .map(|()| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            format!("{state:016x}")
        })
        .concat()
}
