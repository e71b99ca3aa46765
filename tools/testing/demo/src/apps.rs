//! The programs, as Debian ships them: how to serve, how to use, how to check.

use smc_selftest::kind::Host;
use smc_selftest::{programs, rig, sys, Context, Fail, Outcome};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct App {
    pub name: &'static str,
    pub title: &'static str,
    pub serve: fn() -> Outcome<Server>,
    pub run: fn() -> Outcome<Ran>,
}

/// What a run brought.
pub struct Ran {
    pub words: String,
    /// Bytes of content that certainly went from host to host.
    pub bytes: u64,
}

pub const ALL: [App; 3] = [
    App {
        name: "redis",
        title: "redis-server, redis-benchmark (SET and GET, 5,000 requests each, 16 clients) and a 1 MiB value through redis-cli",
        serve: redis_serve,
        run: redis_run,
    },
    App {
        name: "nginx",
        title: "nginx, curl fetching 32 MiB, SHA-256 compared",
        serve: nginx_serve,
        run: nginx_run,
    },
    App {
        name: "iperf3",
        title: "iperf3, 4 seconds",
        serve: iperf_serve,
        run: iperf_run,
    },
];

/// A server process on host B; ended when dropped.
pub struct Server {
    child: Child,
}

impl Server {
    fn start(line: &str, port: u16) -> Outcome<Server> {
        let log = File::create("/tmp/server.log")?;
        let mut words = vec!["netns", "exec", Host::B.name()];
        words.extend(line.split_whitespace());
        let child = Command::new("ip")
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .during(line)?;
        let server = Server { child };
        // Asked of the kernel: a connection to find out would be one more to account for.
        sys::eventually(&format!("'{line}' listens on port {port}"), || {
            rig::listens(port)
        })
        .map_err(|error| {
            let log = std::fs::read_to_string("/tmp/server.log").unwrap_or_default();
            Fail(format!("{error}: {log}"))
        })?;
        Ok(server)
    }

    pub fn stop(&mut self) {
        // SAFETY: no pointers; the pid is that of a child not waited for yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Errors mean that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

const REDIS: &str = "
bind 10.9.0.2
port 6379
protected-mode no
save \"\"
appendonly no
dir /tmp
daemonize no
";

pub fn redis_serve() -> Outcome<Server> {
    std::fs::write("/tmp/redis.conf", REDIS)?;
    Server::start("redis-server /tmp/redis.conf", 6379)
}

fn redis_run() -> Outcome<Ran> {
    let text = rig::run_on(
        Host::A,
        "timeout 200 redis-benchmark -h 10.9.0.2 -t set,get -n 5000 -c 16 -d 100 --csv",
    )?;
    let mut rates = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(',').map(|field| field.trim_matches('"'));
        if let (Some(test @ ("SET" | "GET")), Some(rate)) = (fields.next(), fields.next()) {
            rates.push(format!("{test} {rate}/s"));
        }
    }
    if rates.len() != 2 {
        return Err(Fail(format!(
            "redis-benchmark's output was not understood: {text}"
        )));
    }
    let value = content(1 << 20);
    std::fs::write("/tmp/value", &value)?;
    shell("ip netns exec A timeout 60 redis-cli -h 10.9.0.2 -x set blob </tmp/value")?;
    shell("ip netns exec A timeout 60 redis-cli -h 10.9.0.2 --raw get blob >/tmp/value.back")?;
    let mut back = std::fs::read("/tmp/value.back")?;
    // redis-cli ends what it prints with a line feed.
    back.pop();
    if back != value {
        return Err(Fail(format!(
            "the value that came back from Redis differs ({} bytes instead of {})",
            back.len(),
            value.len()
        )));
    }
    Ok(Ran {
        words: format!("{}; 1 MiB value unchanged", rates.join(", ")),
        // 100 bytes in 5,000 requests and 5,000 answers, and the large value there and back.
        bytes: 2 * 5000 * 100 + 2 * (1 << 20),
    })
}

fn nginx_serve() -> Outcome<Server> {
    let line = programs::nginx(2, "tcp_nopush on;")?;
    std::fs::write("/tmp/www/file", content(32 << 20))?;
    Server::start(line, 80)
}

fn nginx_run() -> Outcome<Ran> {
    let rate = rig::run_on(
        Host::A,
        "timeout 200 curl -sS --fail -o /tmp/fetched -w %{speed_download} http://10.9.0.2/file",
    )?;
    let sum = |path: &str| -> Outcome<String> {
        let text = rig::run(&format!("sha256sum {path}"))?;
        Ok(text
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned())
    };
    let (served, fetched) = (sum("/tmp/www/file")?, sum("/tmp/fetched")?);
    std::fs::remove_file("/tmp/fetched")?;
    if served != fetched {
        return Err(Fail(format!(
            "the file that curl fetched differs: SHA-256 {fetched} instead of {served}"
        )));
    }
    let rate: f64 = rate.trim().parse().unwrap_or(0.0);
    Ok(Ran {
        words: format!("{:.1} MB/s; SHA-256 {}... equal", rate / 1e6, &served[..16]),
        bytes: 32 << 20,
    })
}

fn iperf_serve() -> Outcome<Server> {
    Server::start("iperf3 -s -4 -B 10.9.0.2", 5201)
}

fn iperf_run() -> Outcome<Ran> {
    let text = rig::run_on(Host::A, "timeout 100 iperf3 -4 -c 10.9.0.2 -t 4 -f m")?;
    // [  5]   0.00-4.01   sec   812 MBytes  1700 Mbits/sec                  receiver
    let line = text
        .lines()
        .find(|line| line.ends_with("receiver"))
        .ok_or_else(|| Fail(format!("iperf3's output was not understood: {text}")))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words
        .iter()
        .position(|&word| word == "sec")
        .ok_or_else(|| Fail(format!("iperf3's output was not understood: {line}")))?;
    let amount: f64 = words
        .get(at + 1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    let unit = match words.get(at + 2) {
        Some(&"KBytes") => 1024.0,
        Some(&"MBytes") => 1024.0 * 1024.0,
        Some(&"GBytes") => 1024.0 * 1024.0 * 1024.0,
        _ => 1.0,
    };
    if amount == 0.0 {
        return Err(Fail(format!("iperf3 received nothing: {line}")));
    }
    Ok(Ran {
        words: words[at + 1..words.len() - 1].join(" "),
        // Rounded by iperf3 to three digits: one per cent less is certain.
        bytes: (amount * unit * 0.99) as u64,
    })
}

fn shell(line: &str) -> Outcome {
    let output = Command::new("bash")
        .args(["-c", line])
        .output()
        .during(line)?;
    if !output.status.success() {
        return Err(Fail(format!(
            "'{line}' failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(())
}

/// Bytes without a pattern that any page or ring size divides.
fn content(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut all = Vec::with_capacity(length + 8);
    while all.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_ne_bytes());
    }
    all.truncate(length);
    all
}
