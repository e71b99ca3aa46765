//! The programs that are measured, unmodified, as Debian ships them.

use crate::clock;
use crate::messages;
use crate::stack::{buffers, Figures, Server, Stack, Witness};
use smc_selftest::kind::{Host, Kind};
use smc_selftest::sys::{self, Sock};
use smc_selftest::{check, programs, rig, spans, Context, Fail, Outcome};

/// Something that gives one or more figures.
pub struct Work {
    pub name: &'static str,
    pub run: fn(Stack) -> Outcome<Figures>,
}

const fn work(name: &'static str, run: fn(Stack) -> Outcome<Figures>) -> Work {
    Work { name, run }
}

pub const WORKS: &[Work] = &[
    work("redis", redis),
    work("iperf3", iperf3),
    work("nginx", nginx),
    work("round trips", messages::round_trips),
    work("streams", messages::streams),
    work("window cliff", messages::window_cliff),
    work("fallback", messages::fallback),
    work("short connections", messages::short_connections),
    work("cold connections", messages::cold_connections),
    work("learning", messages::learning),
    work("first bytes", messages::first_bytes),
    work("wire messages", messages::wire_messages),
    // The last one: it loads the module anew.
    work("many", messages::many),
];

/// What redis-benchmark says.
struct Redis {
    rate: f64,
    mean_us: f64,
    p99_ms: f64,
}

/// A connection for each request. In C some may fall back, which the bench's own program counts.
fn redis_short(stack: Stack) -> Outcome<Redis> {
    let witness = Witness::new(stack)?;
    let result = redis_run(stack, "PING_MBULK", 500, "-t ping_mbulk -k 0 -c 8")?;
    witness.judge_ours(500)?;
    Ok(result)
}

/// One run of redis-benchmark, of which one test is read.
fn redis_benchmark(stack: Stack, test: &str, requests: u64, options: &str) -> Outcome<Redis> {
    let witness = Witness::new(stack)?;
    let result = redis_run(stack, test, requests, options)?;
    // Each request goes there and comes back; in pipelines of 16, many by one.
    witness.judge(requests / 16)?;
    Ok(result)
}

fn redis_run(stack: Stack, test: &str, requests: u64, options: &str) -> Outcome<Redis> {
    let line = format!("timeout 300 redis-benchmark -h 10.9.0.2 -n {requests} {options} --csv");
    let text = rig::run_on(Host::A, &stack.line(&line))?;
    // The line after the headings: "SET","rps","avg_latency_ms","min","p50","p95","p99","max"
    let found = text
        .lines()
        .rev()
        .find(|line| line.starts_with(&format!("\"{test}")));
    let fields: Vec<f64> = found
        .into_iter()
        .flat_map(|line| line.split("\",\"").skip(1))
        .filter_map(|field| field.trim_matches('"').parse().ok())
        .collect();
    check!(fields.len() == 7, "'{line}' was not understood: {text}");
    println!(
        "  {test} {options}: {:.0}/s, mean {} ms, p99 {} ms",
        fields[0], fields[1], fields[5]
    );
    Ok(Redis {
        rate: fields[0],
        mean_us: fields[1] * 1000.0,
        p99_ms: fields[5],
    })
}

fn redis_server(stack: Stack) -> Outcome<Server> {
    Server::start(
        stack,
        "redis-server --bind 10.9.0.2 --protected-mode no --appendonly no --dir /tmp",
        6379,
    )
}

/// SET with so many clients, between two marks: the number of requests.
pub fn redis_span(stack: Stack, requests: u64, clients: u64) -> Outcome<f64> {
    let _server = redis_server(stack)?;
    redis_benchmark(stack, "SET", 200, "-t set -c 1")?;
    spans::between(|| {
        redis_benchmark(stack, "SET", requests, &format!("-t set -c {clients}")).map(drop)
    })?;
    Ok(requests as f64)
}

fn redis(stack: Stack) -> Outcome<Figures> {
    let _server = redis_server(stack)?;
    // The group is made, memory is warm.
    redis_benchmark(stack, "SET", 200, "-t set -c 1")?;
    let mut all = Vec::new();
    let one = redis_benchmark(stack, "SET", 3000, "-t set -c 1")?;
    all.push(("redis SET, 1 client, mean".to_owned(), one.mean_us));
    all.push(("redis SET, 1 client".to_owned(), one.rate));
    let one = redis_benchmark(stack, "GET", 3000, "-t get -c 1")?;
    all.push(("redis GET, 1 client".to_owned(), one.rate));
    for (test, option) in [("SET", "set"), ("GET", "get")] {
        for clients in [16, 64, 256] {
            let many = redis_benchmark(stack, test, 6000, &format!("-t {option} -c {clients}"))?;
            all.push((format!("redis {test}, {clients} clients"), many.rate));
            if (test, clients) == ("GET", 64) {
                all.push(("redis GET, 64 clients, p99".to_owned(), many.p99_ms));
            }
        }
        let pipe = redis_benchmark(stack, test, 32_000, &format!("-t {option} -c 16 -P 16"))?;
        all.push((format!("redis {test}, 16 clients, pipeline 16"), pipe.rate));
    }
    let short = redis_short(stack)?;
    all.push(("redis, a connection each, 8 clients".to_owned(), short.rate));
    Ok(all)
}

fn iperf3(stack: Stack) -> Outcome<Figures> {
    let own = iperf3_run(stack)?;
    let mut all = vec![("iperf3".to_owned(), own)];
    let before = buffers(stack, Some([128 << 10; 2]))?;
    let same = iperf3_run(stack)?;
    all.push(("iperf3, buffers of 128 KiB".to_owned(), same));
    let name = "messages of 64 KiB, buffers of 128 KiB";
    let rate = messages::one_stream(stack, 64 << 10, 32 << 20, false)?;
    println!("  {name}: {rate:.1} MiB/s");
    all.push((name.to_owned(), rate));
    buffers(stack, before)?;
    Ok(all)
}

fn iperf3_run(stack: Stack) -> Outcome<f64> {
    let _server = Server::start(stack, "iperf3 -s -4 -B 10.9.0.2", 5201)?;
    let witness = Witness::new(stack)?;
    let line = "timeout 300 iperf3 -4 -c 10.9.0.2 -t 1 -J";
    let text = rig::run_on(Host::A, &stack.line(line))?;
    witness.judge(1000)?;
    // Of the last object of that name: {"start": ..., "bytes": N, "bits_per_second": R, ...}
    let rate = text
        .rsplit_once("\"sum_received\"")
        .and_then(|(_, rest)| rest.split_once("\"bits_per_second\""))
        .and_then(|(_, rest)| {
            rest.trim_start_matches([':', ' ', '\t'])
                .split([',', '\n', '}'])
                .next()
        })
        .and_then(|number| number.trim().parse::<f64>().ok())
        .ok_or_else(|| Fail(format!("'{line}' was not understood: {text}")))
        .during("iperf3")?;
    println!("  iperf3: {:.3} Gbit/s", rate / 1e9);
    Ok(rate / 1e9)
}

/// A file over and over on one connection: requests in a second. The client is of the bench, and looks at the length only.
fn fetch(stack: Stack, file: &str, size: usize, rounds: u64) -> Outcome<f64> {
    let sock = Sock::new(Host::A, stack.kind(), libc::SOCK_CLOEXEC)?;
    sys::leave()?;
    sock.connect(Host::B.address(Kind::Tcp4, 80))?;
    let request = format!("GET /{file} HTTP/1.1\r\nHost: b\r\n\r\n");
    let mut room = vec![0; 256 << 10];
    let mut get = || -> Outcome {
        sock.send_all(request.as_bytes())?;
        // The first piece has the header and where it ends.
        let mut got = 0;
        let mut header = 0;
        while header == 0 || got < header + size {
            let more = sock.recv(&mut room[if header == 0 { got } else { 0 }..], 0)?;
            check!(more > 0, "nginx ended the connection after {got} bytes");
            got += more;
            if header == 0 {
                let end = room[..got].windows(4).position(|part| part == b"\r\n\r\n");
                header = end.map_or(0, |at| at + 4);
                check!(
                    header == 0 || room.starts_with(b"HTTP/1.1 200 "),
                    "nginx answers '{}'",
                    String::from_utf8_lossy(&room[..got.min(200)])
                );
            }
        }
        check!(
            got == header + size,
            "{got} bytes instead of {}",
            header + size
        );
        Ok(())
    };
    get()?;
    let (result, took) = clock::count(|| (0..rounds).try_for_each(|_| get()));
    result?;
    Ok(rounds as f64 / (took as f64 / 1e9))
}

fn nginx(stack: Stack) -> Outcome<Figures> {
    const SMALL: usize = 4 << 10;
    const LARGE: usize = 1 << 20;
    let line = programs::nginx(1, "tcp_nopush on; keepalive_requests 1000000;")?;
    std::fs::write("/tmp/www/small", vec![0x5a; SMALL])?;
    std::fs::write("/tmp/www/large", vec![0x5a; LARGE])?;
    let _server = Server::start(stack, line, 80)?;
    let witness = Witness::new(stack)?;
    let small = fetch(stack, "small", SMALL, 1000)?;
    let large = fetch(stack, "large", LARGE, 24)?;
    witness.judge(2000)?;
    println!("  nginx: {small:.0}/s of 4 KiB, {large:.1}/s of 1 MiB");
    Ok(vec![
        ("nginx, 4 KiB".to_owned(), small),
        ("nginx, 1 MiB by sendfile".to_owned(), large),
    ])
}
