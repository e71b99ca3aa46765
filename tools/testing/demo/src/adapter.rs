//! Two machines with an emulated eRDMA adapter each: programs over TCP and over SMC-R, side by side.
//!
//! Machine A has the clients and measures, B the servers. They agree over a plain TCP connection. What goes by RDMA
//! the adapters count. A processor's busy time is what was not idle (`smc_idle.ko`); on the instruction clock (boot with
//! `rig.icount`) a nanosecond of it is an instruction, of the kernel or of a program.

use smc_selftest::{check, rig, sys, Context, Fail, Outcome};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

const CONTROL: &str = "10.9.0.2:4000";
const SYSCTL: &str = "/proc/sys/net/smc/tcp2smc";
const RDMA_COUNTERS: &str = "/sys/class/infiniband/erdma_0/ports/1/hw_counters";
const FILE: u64 = 16 << 20;

/// What one client does.
struct Work {
    title: &'static str,
    /// What is counted, and how much of it there is; 0 if the program says.
    unit: &'static str,
    count: u64,
    /// Bytes of content that certainly go from machine to machine for one of it.
    bytes: u64,
    line: &'static str,
    read: fn(&str) -> Option<Figures>,
}

/// What a client said: units in a second, microseconds that one took, units in all.
struct Figures {
    rate: f64,
    latency: Option<f64>,
    count: u64,
}

const REDIS: [Work; 3] = [
    redis("redis SET, 1 client", 3000, "1"),
    redis("redis SET, 16 clients", 6000, "16"),
    redis("redis SET, 64 clients", 6000, "64"),
];

const fn redis(title: &'static str, count: u64, clients: &'static str) -> Work {
    Work {
        title,
        unit: "request",
        count,
        bytes: 3,
        line: clients,
        read: read_redis,
    }
}

const NGINX: Work = Work {
    title: "nginx, curl, 16 MiB",
    unit: "byte",
    count: FILE,
    bytes: 1,
    line: "timeout 300 curl -sS --fail -o /dev/null -w %{speed_download} http://10.9.0.2/file",
    read: |text| {
        Some(Figures {
            rate: text.trim().parse().ok()?,
            latency: None,
            count: 0,
        })
    },
};

const IPERF: Work = Work {
    title: "iperf3, 2 s",
    unit: "byte",
    count: 0,
    bytes: 1,
    line: "timeout 300 iperf3 -4 -c 10.9.0.2 -t 2 -J",
    read: |text| {
        // Of the last object of that name: {"start": ..., "bytes": N, "bits_per_second": R, ...}
        let received = &text[text.rfind("\"sum_received\"")?..];
        let field = |name: &str| {
            let rest = &received[received.find(name)? + name.len()..];
            let number = rest.trim_start_matches(['"', ':', ' ', '\t']);
            number
                .split([',', '\n', '}'])
                .next()?
                .trim()
                .parse::<f64>()
                .ok()
        };
        Some(Figures {
            rate: field("\"bits_per_second")? / 8.0,
            latency: None,
            count: field("\"bytes")? as u64,
        })
    },
};

/// The line after the headings: "SET","rps","avg_latency_ms",...
fn read_redis(text: &str) -> Option<Figures> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.starts_with("\"SET\""))?;
    let fields: Vec<f64> = line
        .split(',')
        .skip(1)
        .filter_map(|field| field.trim_matches('"').parse().ok())
        .collect();
    Some(Figures {
        rate: *fields.first()?,
        latency: Some(fields.get(1)? * 1000.0),
        count: 0,
    })
}

fn command(work: &Work) -> String {
    match work.line.parse::<u32>() {
        Ok(clients) => format!(
            "timeout 300 redis-benchmark -h 10.9.0.2 -t set -n {} -c {clients} --csv",
            work.count
        ),
        Err(_) => work.line.to_owned(),
    }
}

pub fn main(machine: &str) -> ExitCode {
    let result = match machine {
        "a" => clients(),
        "b" => servers(),
        _ => Err(Fail("adapter a | adapter b".into())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("demo on machine {machine}: FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The network device, the adapter's driver, the module.
fn up(address: &str) -> Outcome {
    rig::run("modprobe -a virtio_pci virtio_net")?;
    sys::eventually("eth0 is there", || {
        Ok(std::path::Path::new("/sys/class/net/eth0").exists())
    })?;
    rig::run(&format!("ip addr add {address}/24 dev eth0"))?;
    rig::run("ip link set eth0 up")?;
    rig::run("modprobe erdma")?;
    rig::run("modprobe smc_idle")?;
    rig::module_load()?;
    sys::eventually("the adapter has the address", || {
        let gids = "/sys/class/infiniband/erdma_0/ports/1/gids";
        Ok((0..4).any(|n| {
            let gid = sys::read_file(&format!("{gids}/{n}")).unwrap_or_default();
            gid.starts_with("0000:0000:0000:0000:0000:ffff:")
        }))
    })?;
    Ok(())
}

fn down() -> Outcome {
    rig::run("rmmod smc_rs")?;
    rig::run("rmmod erdma")?;
    rig::run("rmmod smc_idle")?;
    Ok(())
}

/// Nanoseconds of this machine's processor that were not idle, by `smc_idle.ko`: since some moment.
fn busy() -> Outcome<u64> {
    let path = "/sys/module/smc_idle/parameters/idle_ns";
    let text = sys::read_file(path).during(path)?;
    let idle: u64 = text
        .trim()
        .parse()
        .map_err(|_| Fail(format!("{path}: '{}' is no number", text.trim())))?;
    // SAFETY: writes the one structure.
    let now = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &mut time);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    Ok(now.saturating_sub(idle))
}

/// Bytes that this machine's adapter has sent.
fn by_rdma() -> Outcome<u64> {
    let path = format!("{RDMA_COUNTERS}/tx_bytes_cnt");
    let text = sys::read_file(&path).during(&path)?;
    text.trim()
        .parse()
        .map_err(|_| Fail(format!("{path}: '{}' is no number", text.trim())))
}

fn start(line: &str) -> Outcome<Child> {
    let log = File::create("/tmp/server.log")?;
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .during(line)
}

const NGINX_CONF: &str = "
user root;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr;
daemon off;
events { worker_connections 64; }
http {
    access_log off;
    sendfile on;
    server {
        listen 10.9.0.2:80;
        root /tmp/www;
    }
}
";

fn serve() -> Outcome<Vec<Child>> {
    for dir in ["/tmp/www", "/var/lib/nginx", "/var/log/nginx"] {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write("/tmp/www/file", vec![0x5a; FILE as usize])?;
    std::fs::write("/tmp/nginx.conf", NGINX_CONF)?;
    let all = [
        "redis-server --bind 10.9.0.2 --protected-mode no --appendonly no --dir /tmp",
        "nginx -c /tmp/nginx.conf",
        "iperf3 -s -4 -B 10.9.0.2",
    ];
    all.into_iter().map(start).collect()
}

fn stop(servers: &mut Vec<Child>) {
    for mut server in servers.drain(..) {
        // SAFETY: no pointers; the pid is that of a child not waited for yet.
        unsafe { libc::kill(server.id() as i32, libc::SIGTERM) };
        let _ = server.wait();
    }
}

fn servers() -> Outcome {
    up("10.9.0.2")?;
    // Before any mode is set: it stays a TCP socket.
    let listener = TcpListener::bind(CONTROL).during(CONTROL)?;
    let (mut stream, _) = listener.accept()?;
    let mut running = Vec::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        let answer = match line.as_str() {
            "tcp" | "smc" => {
                stop(&mut running);
                sys::write_file(SYSCTL, if line == "smc" { "1" } else { "0" })?;
                running = serve()?;
                0
            }
            "busy" => busy()?,
            "rdma" => by_rdma()?,
            "end" => {
                stop(&mut running);
                sys::write_file(SYSCTL, "0")?;
                0
            }
            _ => return Err(Fail(format!("machine A says '{line}'"))),
        };
        writeln!(stream, "{answer}")?;
        if line == "end" {
            break;
        }
    }
    drop(stream);
    // The link group's last messages.
    std::thread::sleep(Duration::from_secs(1));
    down()
}

/// The other machine, which answers with a number.
struct Other {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Other {
    fn find() -> Outcome<Other> {
        let mut stream = None;
        sys::eventually("machine B answers", || {
            stream = TcpStream::connect(CONTROL).ok();
            Ok(stream.is_some())
        })?;
        let stream = stream.ok_or_else(|| Fail("machine B does not answer".into()))?;
        let lines = BufReader::new(stream.try_clone()?);
        Ok(Other { stream, lines })
    }

    fn ask(&mut self, word: &str) -> Outcome<u64> {
        writeln!(self.stream, "{word}")?;
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        line.trim()
            .parse()
            .map_err(|_| Fail(format!("machine B answers '{word}' with '{}'", line.trim())))
    }
}

/// One client's run over one transport.
struct Row {
    rate: f64,
    latency: Option<f64>,
    /// Busy nanoseconds of both machines for one unit.
    cost: f64,
    rdma: u64,
}

fn measure(other: &mut Other, work: &Work, smc: bool) -> Outcome<Row> {
    // What is about to happen anyway, has happened.
    std::thread::sleep(Duration::from_millis(200));
    let before = (busy()?, other.ask("busy")?, by_rdma()? + other.ask("rdma")?);
    let line = command(work);
    let text = rig::run(&line)?;
    let after = (busy()?, other.ask("busy")?, by_rdma()? + other.ask("rdma")?);
    let figures =
        (work.read)(&text).ok_or_else(|| Fail(format!("'{line}' was not understood: {text}")))?;
    let count = work.count.max(figures.count).max(1);
    let rdma = after.2 - before.2;
    if smc {
        check!(
            rdma >= count * work.bytes,
            "{}: {rdma} bytes went by RDMA, and there were {} at least",
            work.title,
            count * work.bytes
        );
    } else {
        check!(
            rdma == 0,
            "{}: {rdma} bytes of TCP went by RDMA",
            work.title
        );
    }
    Ok(Row {
        rate: figures.rate,
        latency: figures.latency,
        cost: (after.0.saturating_sub(before.0) + after.1.saturating_sub(before.1)) as f64
            / count as f64,
        rdma,
    })
}

/// 12345678 as 12.3M.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2}G", v / 1e9),
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

/// Twenty blocks are one.
fn bar(ratio: f64) -> String {
    "#".repeat(((ratio * 20.0).round() as usize).min(60))
}

fn clients() -> Outcome {
    up("10.9.0.1")?;
    let mut other = Other::find()?;
    let instructions = sys::read_file("/proc/cmdline")?.contains("rig.icount");
    let work: Vec<&Work> = REDIS.iter().chain([&NGINX, &IPERF]).collect();
    let mut rows: Vec<[Option<Row>; 2]> = work.iter().map(|_| [None, None]).collect();
    for (n, mode) in ["tcp", "smc"].into_iter().enumerate() {
        sys::write_file(SYSCTL, "0")?;
        other.ask(mode)?;
        sys::write_file(SYSCTL, if n == 1 { "1" } else { "0" })?;
        // A server that is not there yet refuses.
        sys::eventually("the servers answer", || {
            let one = rig::run("redis-cli -h 10.9.0.2 ping").is_ok();
            Ok(one && rig::run("curl -sS -o /dev/null http://10.9.0.2/").is_ok())
        })?;
        for (row, work) in rows.iter_mut().zip(&work) {
            let measured = measure(&mut other, work, n == 1)?;
            println!(
                "  {mode}: {}: {} {}s a second, {} ns of both processors for one, {} bytes by RDMA",
                work.title,
                short(measured.rate),
                work.unit,
                short(measured.cost),
                measured.rdma
            );
            row[n] = Some(measured);
        }
    }
    sys::write_file(SYSCTL, "0")?;
    other.ask("end")?;
    let what = if instructions {
        "guest instructions"
    } else {
        "ns of emulated processors"
    };
    println!(
        "\n| {:<22} | {:>9} | {:>9} | {:>5} |  {what} for one {:<7}|",
        "", "TCP", "SMC-R", "ratio", ""
    );
    println!("|---|---:|---:|---:|---|");
    for (row, work) in rows.iter().zip(&work) {
        let [Some(tcp), Some(smc)] = row else {
            continue;
        };
        let ratio = smc.cost / tcp.cost;
        println!(
            "| {:<22} | {:>9} | {:>9} | {ratio:>5.2} | `{:<20}` {} |",
            work.title,
            short(tcp.cost),
            short(smc.cost),
            bar(ratio),
            work.unit
        );
    }
    if !instructions {
        println!(
            "\n| {:<22} | {:>9} | {:>9} | {:>5} |  a second; latency |",
            "", "TCP", "SMC-R", "ratio"
        );
        println!("|---|---:|---:|---:|---|");
        for (row, work) in rows.iter().zip(&work) {
            let [Some(tcp), Some(smc)] = row else {
                continue;
            };
            let ratio = smc.rate / tcp.rate;
            let latency = match (tcp.latency, smc.latency) {
                (Some(tcp), Some(smc)) => format!(" {} us, {} us", short(tcp), short(smc)),
                _ => String::new(),
            };
            println!(
                "| {:<22} | {:>9} | {:>9} | {ratio:>5.2} | `{:<20}` {}s{latency} |",
                work.title,
                short(tcp.rate),
                short(smc.rate),
                bar(ratio),
                work.unit
            );
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    down()
}
