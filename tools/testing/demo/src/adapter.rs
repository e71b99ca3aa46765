//! Two machines with an emulated eRDMA adapter each: programs over TCP and over SMC-R, side by side.
//!
//! Machine A has the clients and measures, B the servers. They agree over a plain TCP connection. What goes by RDMA
//! the adapters count. A processor's busy time is what was not idle (`smc_idle.ko`); on the instruction clock (boot with
//! `rig.icount`) a nanosecond of it is an instruction, of the kernel or of a program.

use crate::plot;
use smc_selftest::genl::{self, Client};
use smc_selftest::{check, programs, rig, spans, sys, Context, Fail, Outcome};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

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

/// What carries the programs' connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Tcp,
    /// The kernel's own `net/smc`, if it has one; asked for by preloading, as it has no `tcp2smc`.
    C,
    Rust,
}

/// The enterprise ID that smc_rs has by itself.
const UEID: &str = "SMC-RS.DEFAULT";

impl Mode {
    fn parse(word: &str) -> Option<Mode> {
        [Mode::Tcp, Mode::C, Mode::Rust]
            .into_iter()
            .find(|mode| mode.word() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Mode::Tcp => "tcp",
            Mode::C => "c",
            Mode::Rust => "smc",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Mode::Tcp => "TCP",
            Mode::C => "C SMC-R",
            Mode::Rust => "smc_rs",
        }
    }

    /// From now on new sockets of programs are of this kind.
    fn enter(self) -> Outcome {
        if self != Mode::C {
            sys::write_file(SYSCTL, if self == Mode::Rust { "1" } else { "0" })?;
        } else if rig::module_loaded() {
            unload("smc_rs")?;
            rig::run("modprobe -a smc smc_diag")?;
            // Blank padded to 32 bytes, as the wire has it.
            Client::new(genl::SMC_GEN)?
                .execute(genl::ADD_UEID, &genl::text(1, &format!("{UEID:<32}")))
                .during("SMC_NETLINK_ADD_UEID")?;
        }
        Ok(())
    }

    fn line(self, line: &str) -> String {
        match self {
            Mode::C => format!("env LD_PRELOAD=/usr/lib/libsmc-preload.so {line}"),
            Mode::Tcp | Mode::Rust => line.to_owned(),
        }
    }
}

/// Of this program: a plain client of TCP, as a program that nobody changed would be.
const PING: Work = Work {
    title: "64 bytes and back",
    unit: "round trip",
    count: PINGS as u64,
    bytes: 128,
    line: "timeout 300 smc-demo ping",
    read: |text| {
        let seconds: f64 = text.trim().parse().ok()?;
        Some(Figures {
            rate: PINGS as f64 / seconds,
            latency: Some(seconds * 1e6 / PINGS as f64),
            count: 0,
        })
    },
};
const PINGS: usize = 3000;
const PONG: &str = "10.9.0.2:4002";

/// Prints the seconds that it took.
pub fn ping() -> ExitCode {
    let run = || -> Outcome<f64> {
        let mut stream = TcpStream::connect(PONG).during(PONG)?;
        stream.set_nodelay(true)?;
        let mut bytes = [0x5a; 64];
        let begin = Instant::now();
        for n in 0..PINGS {
            bytes[0] = n as u8;
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
            check!(bytes[0] == n as u8, "round trip {n} brought other bytes");
        }
        Ok(begin.elapsed().as_secs_f64())
    };
    match run() {
        Ok(seconds) => {
            println!("{seconds}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Sends back what comes, one client after the other.
pub fn pong() -> ExitCode {
    let run = || -> Outcome {
        let listener = TcpListener::bind(PONG).during(PONG)?;
        loop {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut bytes = [0; 64];
            while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {}
        }
    };
    if let Err(failure) = run() {
        eprintln!("{failure}");
    }
    ExitCode::FAILURE
}

const REDIS: [Work; 4] = [
    redis("redis SET, 1 client", 3000, "1"),
    redis("redis SET, 16 clients", 6000, "16"),
    redis("redis SET, 64 clients", 6000, "64"),
    redis("redis SET, 256 clients", 8000, "256"),
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

/// The binaries are in no directory of PATH.
macro_rules! pgbench {
    ($options:literal) => {
        concat!(
            "timeout 300 /usr/lib/postgresql/17/bin/pgbench -h 10.9.0.2 -U postgres -n -c 8 ",
            $options,
            " postgres"
        )
    };
}

const PGBENCH: [Work; 2] = [
    Work {
        title: "pgbench -S, 8 clients",
        unit: "transaction",
        count: 8 * 250,
        // A query of one account.
        bytes: 60,
        line: pgbench!("-S -t 250"),
        read: read_pgbench,
    },
    Work {
        title: "pgbench, 8 clients",
        unit: "transaction",
        count: 8 * 50,
        // Seven queries.
        bytes: 400,
        line: pgbench!("-t 50"),
        read: read_pgbench,
    },
];

/// latency average = 3.842 ms, tps = 2082.215043 (without initial connection time)
fn read_pgbench(text: &str) -> Option<Figures> {
    let field = |name: &str| -> Option<f64> {
        let rest = &text[text.find(name)? + name.len()..];
        rest.split_whitespace().next()?.parse().ok()
    };
    Some(Figures {
        rate: field("tps =")?,
        latency: Some(field("latency average =")? * 1000.0),
        count: 0,
    })
}

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

/// `a`, with the C implementation, too: `a c`; or `b`. `only TEXT`: rows with this in their title. `places MODE TEXT`: of
/// these, over one of them (tcp, smc, c), the instructions of either machine by place.
pub fn main(words: &[&str]) -> ExitCode {
    let result = match *words {
        ["a", "places", word, text] => Mode::parse(word)
            .ok_or_else(|| Fail(format!("'{word}': tcp, smc or c")))
            .and_then(|mode| places(mode, text)),
        ["a"] => clients(false, ""),
        ["a", "c"] => clients(true, ""),
        ["a", "only", text] => clients(false, text),
        ["a", "c", "only", text] => clients(true, text),
        ["b"] => servers(),
        _ => Err(Fail(
            "adapter a [c] [only TEXT] | adapter a places MODE TEXT | adapter b".into(),
        )),
    };
    let machine = words.first().copied().unwrap_or_default();
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

/// One module: of several, rmmod takes the first ones even if it fails at the last, and could not be called again.
/// Connections of before end in the background, and are in use so long.
fn unload(module: &str) -> Outcome {
    let mut last = Ok(String::new());
    let limit = Duration::from_secs(120);
    let gone = sys::within(&format!("{module} is unloaded"), limit, &mut || {
        last = rig::run(&format!("rmmod {module}"));
        Ok(last.is_ok())
    });
    if let (Err(waited), Err(refusal)) = (gone, last) {
        let users = sys::read_file(&format!("/sys/module/{module}/refcnt")).unwrap_or_default();
        return Err(Fail(format!(
            "{waited}: it has {} users: {refusal}; connections: {}",
            users.trim(),
            rig::run("smcss -a").unwrap_or_else(|failure| failure.to_string())
        )));
    }
    Ok(())
}

fn down() -> Outcome {
    if rig::module_loaded() {
        sys::write_file(SYSCTL, "0")?;
        unload("smc_rs")?;
    } else {
        // It comes first, as it uses the other one.
        unload("smc_diag")?;
        unload("smc")?;
    }
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

fn start(mode: Mode, line: &str) -> Outcome<Child> {
    let line = &mode.line(line);
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

fn serve(mode: Mode) -> Outcome<Vec<Child>> {
    let nginx = programs::nginx(1, "")?;
    std::fs::write("/tmp/www/file", vec![0x5a; FILE as usize])?;
    let all = [
        "smc-demo pong",
        "redis-server --bind 10.9.0.2 --protected-mode no --appendonly no --dir /tmp",
        nginx,
        "iperf3 -s -4 -B 10.9.0.2",
        // Not as root, which it refuses; the files are nobody's.
        "chroot --userspec=65534:65534 / /usr/lib/postgresql/17/bin/postgres -D /var/lib/pg \
         -c listen_addresses=10.9.0.2 -c unix_socket_directories=",
    ];
    all.into_iter().map(|line| start(mode, line)).collect()
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
            "busy" => busy()?,
            "rdma" => by_rdma()?,
            "end" => {
                stop(&mut running);
                0
            }
            "span" => {
                spans::begin();
                0
            }
            "symbols" => {
                spans::tell_symbols()?;
                0
            }
            word if word.starts_with("span\t") => {
                spans::end();
                println!("{word}");
                0
            }
            word => {
                let mode =
                    Mode::parse(word).ok_or_else(|| Fail(format!("machine A says '{word}'")))?;
                stop(&mut running);
                mode.enter()?;
                running = serve(mode)?;
                0
            }
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

/// What a client said, and of how many it is.
fn read(work: &Work, line: &str, text: &str) -> Outcome<(Figures, u64)> {
    let figures =
        (work.read)(text).ok_or_else(|| Fail(format!("'{line}' was not understood: {text}")))?;
    let count = work.count.max(figures.count).max(1);
    Ok((figures, count))
}

fn measure(other: &mut Other, work: &Work, mode: Mode) -> Outcome<Row> {
    // What is about to happen anyway, has happened.
    std::thread::sleep(Duration::from_millis(200));
    let before = (busy()?, other.ask("busy")?, by_rdma()? + other.ask("rdma")?);
    let line = mode.line(&command(work));
    let text = rig::run(&line)?;
    let after = (busy()?, other.ask("busy")?, by_rdma()? + other.ask("rdma")?);
    let (figures, count) = read(work, &line, &text)?;
    let rdma = after.2 - before.2;
    if mode != Mode::Tcp {
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

/// The rows with this in their title.
fn chosen(only: &str) -> Vec<&'static Work> {
    [&PING]
        .into_iter()
        .chain(&REDIS)
        .chain(&PGBENCH)
        .chain([&NGINX, &IPERF])
        .filter(|work| work.title.contains(only))
        .collect()
}

/// Servers of machine B, and clients of this one, are of this kind, and answer.
fn enter(other: &mut Other, mode: Mode) -> Outcome {
    other.ask(mode.word())?;
    mode.enter()?;
    // A server that is not there yet refuses.
    for line in [
        "redis-cli -h 10.9.0.2 ping",
        "curl -sS -o /dev/null http://10.9.0.2/",
        pgbench!("-S -t 1"),
        "smc-demo ping",
    ] {
        sys::eventually(&format!("'{line}' succeeds"), || {
            Ok(rig::run(&mode.line(line)).is_ok())
        })?;
    }
    Ok(())
}

/// Whose the instructions of both machines are, to be told by `smc-bench report-places`: each counts between its own marks,
/// the same program with its start and its end.
fn places(mode: Mode, only: &str) -> Outcome {
    up("10.9.0.1")?;
    let mut other = Other::find()?;
    enter(&mut other, mode)?;
    for work in chosen(only) {
        let line = mode.line(&command(work));
        std::thread::sleep(Duration::from_millis(200));
        other.ask("span")?;
        spans::begin();
        let text = rig::run(&line);
        spans::end();
        let (_, count) = read(work, &line, &text?)?;
        let name = format!("{}, a {}", work.title, work.unit);
        spans::tell(&name, count as f64);
        other.ask(&format!("span\t{name}\t{count}"))?;
    }
    spans::tell_symbols()?;
    other.ask("symbols")?;
    if mode == Mode::Rust {
        Mode::Tcp.enter()?;
    }
    other.ask("end")?;
    std::thread::sleep(Duration::from_secs(1));
    down()
}

const MODES: [Mode; 3] = [Mode::Tcp, Mode::C, Mode::Rust];

/// One table: a figure of each row and mode, and how smc_rs stands to the others.
fn table(heading: &str, rows: &[(&Work, [Option<Row>; 3])], figure: fn(&Row) -> Option<f64>) {
    let three = rows.iter().any(|(_, row)| row[1].is_some());
    let shown = MODES.into_iter().filter(|mode| three || *mode != Mode::C);
    print!("\n| {heading:<22} |");
    for mode in shown.clone() {
        print!(" {:>9} |", mode.title());
    }
    println!(" to TCP |{} |", if three { "  to C |" } else { "" });
    println!(
        "|---|---:|---:|---:|{}---|",
        if three { "---:|---:|" } else { "" }
    );
    for (work, row) in rows {
        let figures = [0, 1, 2].map(|n| row[n].as_ref().and_then(figure));
        let Some(own) = figures[2] else {
            continue;
        };
        print!("| {:<22} |", work.title);
        for mode in shown.clone() {
            print!(
                " {:>9} |",
                figures[mode as usize].map(plot::short).unwrap_or_default()
            );
        }
        let ratio =
            |other: Option<f64>| other.map_or(String::new(), |other| format!("{:.2}", own / other));
        print!(" {:>6} |", ratio(figures[0]));
        if three {
            print!(" {:>5} |", ratio(figures[1]));
        }
        println!(" {} |", work.unit);
    }
}

fn clients(with_c: bool, only: &str) -> Outcome {
    up("10.9.0.1")?;
    let mut other = Other::find()?;
    let instructions = sys::read_file("/proc/cmdline")?.contains("rig.icount");
    let mut rows: Vec<(&Work, [Option<Row>; 3])> = chosen(only)
        .into_iter()
        .map(|work| (work, [None, None, None]))
        .collect();
    // smc_rs gives way to the C implementation, which comes last.
    for mode in [Mode::Tcp, Mode::Rust, Mode::C] {
        if mode == Mode::C && !with_c {
            continue;
        }
        if mode != Mode::C {
            Mode::Tcp.enter()?;
        }
        enter(&mut other, mode)?;
        for (work, row) in &mut rows {
            let measured = measure(&mut other, work, mode)?;
            println!(
                "  {}: {}: {} {}s a second, {} ns of both processors for one, {} bytes by RDMA",
                mode.title(),
                work.title,
                plot::short(measured.rate),
                work.unit,
                plot::short(measured.cost),
                measured.rdma
            );
            row[mode as usize] = Some(measured);
        }
    }
    if !with_c {
        Mode::Tcp.enter()?;
    }
    other.ask("end")?;
    // By the wall clock a processor's nanoseconds are the emulator's, and on the instruction clock what is idle takes real time.
    if instructions {
        table(plot::INSTRUCTIONS, &rows, |row| Some(row.cost));
    } else {
        table(plot::RATE, &rows, |row| Some(row.rate));
        table(plot::LATENCY, &rows, |row| row.latency);
    }
    std::thread::sleep(Duration::from_secs(1));
    down()
}
