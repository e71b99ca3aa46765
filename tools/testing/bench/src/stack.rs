//! What carries the connections of a boot: TCP, the C implementation, or smc_rs.

use smc_selftest::genl::{self, Client};
use smc_selftest::kind::{Host, Kind};
use smc_selftest::{check, mode, rig, sys, Context, Fail, Outcome};

/// The enterprise ID that smc_rs has by itself.
const UEID: &str = "SMC-RS.DEFAULT";
/// Programs that ask for TCP get AF_SMC; the same library for both implementations.
const PRELOAD: &str = "env LD_PRELOAD=/usr/lib/libsmc-preload.so ";

/// Names, as `figures.rs` has them, and values.
pub type Figures = Vec<(String, f64)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    Tcp,
    C,
    Rust,
}

impl Stack {
    pub fn parse(word: &str) -> Option<Stack> {
        match word {
            "tcp" => Some(Stack::Tcp),
            "c" => Some(Stack::C),
            "rust" => Some(Stack::Rust),
            _ => None,
        }
    }

    /// Two hosts, and on them the implementation with its defaults.
    pub fn up(self) -> Outcome {
        rig::hosts_up(rig::SoftRoce::Stock)?;
        self.load()
    }

    pub fn load(self) -> Outcome {
        match self {
            Stack::Tcp => return Ok(()),
            Stack::C => rig::run("modprobe -a smc smc_diag")?,
            Stack::Rust => rig::run("modprobe smc_rs")?,
        };
        // NAME=VALUE of net.smc.*, by `make bench BENCH='--set ...'`.
        if let Ok(setting) = std::env::var("SMC_BENCH_SET") {
            let parsed = setting
                .split_once('=')
                .and_then(|(name, value)| Some((name, value.parse().ok()?)));
            let Some((name, value)) = parsed else {
                return Err(Fail(format!("'{setting}' is not NAME=NUMBER")));
            };
            set(self, name, value)?;
        }
        if self == Stack::C {
            // Blank padded to 32 bytes, as the wire has it. In C it is the host's, not the namespace's.
            Client::new(genl::SMC_GEN)?
                .execute(genl::ADD_UEID, &genl::text(1, &format!("{UEID:<32}")))
                .during("SMC_NETLINK_ADD_UEID")?;
        }
        Ok(())
    }

    /// Takes the implementation away.
    pub fn unload(self) -> Outcome {
        match self {
            Stack::Tcp => return Ok(()),
            Stack::C => {
                // A try that found smc in use has taken the other one away.
                if std::path::Path::new("/sys/module/smc_diag").exists() {
                    rig::run("rmmod smc_diag")?;
                }
                rig::run("rmmod smc")?
            }
            Stack::Rust => rig::run("rmmod smc_rs")?,
        };
        Ok(())
    }

    /// What the bench's own sockets are.
    pub fn kind(self) -> Kind {
        match self {
            Stack::Tcp => Kind::Tcp4,
            Stack::C | Stack::Rust => Kind::Smc4,
        }
    }

    /// A command line, so that the program's sockets are of this stack.
    pub fn line(self, line: &str) -> String {
        match self {
            Stack::Tcp => line.to_owned(),
            Stack::C | Stack::Rust => format!("{PRELOAD}{line}"),
        }
    }
}

/// Sets `net.smc.wmem` and `net.smc.rmem` of both hosts, if told to; what they were.
pub fn buffers(stack: Stack, size: Option<[u32; 2]>) -> Outcome<Option<[u32; 2]>> {
    let mut before = None;
    if stack == Stack::Tcp {
        return Ok(before);
    }
    for host in Host::BOTH {
        sys::enter(host)?;
        let mut old = [0; 2];
        for (number, name) in ["wmem", "rmem"].into_iter().enumerate() {
            let path = format!("/proc/sys/net/smc/{name}");
            let text = sys::read_file(&path).during(&path)?;
            old[number] = text.trim().parse().unwrap_or(0);
            if let Some(size) = size {
                sys::write_file(&path, &size[number].to_string()).during(&path)?;
            }
        }
        before = Some(old);
    }
    sys::leave()?;
    Ok(before)
}

/// Sets one of `net.smc.*` of both hosts, if the stack is smc_rs.
pub fn set(stack: Stack, name: &str, value: u32) -> Outcome {
    if stack != Stack::Rust {
        return Ok(());
    }
    for host in Host::BOTH {
        sys::enter(host)?;
        let path = format!("/proc/sys/net/smc/{name}");
        sys::write_file(&path, &value.to_string()).during(&path)?;
    }
    sys::leave()?;
    Ok(())
}

/// Packets by RDMA and fallbacks up to a moment: what a measurement went by.
pub struct Witness {
    stack: Stack,
    packets: u64,
    fallbacks: u64,
}

impl Witness {
    pub fn new(stack: Stack) -> Outcome<Witness> {
        Ok(Witness {
            stack,
            packets: mode::rdma_packets()?,
            fallbacks: fallbacks(stack)?,
        })
    }

    /// Fallbacks since.
    pub fn fallbacks(&self) -> Outcome<u64> {
        Ok(fallbacks(self.stack)? - self.fallbacks)
    }

    /// Fails if what was measured since went another way: at least so many packets by RDMA.
    pub fn judge(&self, least: u64) -> Outcome {
        let now = Witness::new(self.stack)?;
        let (packets, fallbacks) = (now.packets - self.packets, now.fallbacks - self.fallbacks);
        if self.stack == Stack::Tcp {
            check!(packets == 0, "{packets} packets of TCP went by RDMA");
            return Ok(());
        }
        check!(
            fallbacks == 0,
            "{fallbacks} fallbacks unasked: {}",
            reasons()?
        );
        check!(
            packets >= least,
            "only {packets} packets went by RDMA, and there must be {least} at least"
        );
        Ok(())
    }

    /// As [`Self::judge`], but for C, of whose new connections some may fall back.
    pub fn judge_ours(&self, least: u64) -> Outcome {
        match self.stack {
            Stack::C => Ok(()),
            Stack::Tcp | Stack::Rust => self.judge(least),
        }
    }
}

/// Connections of both hosts that have fallen back.
fn fallbacks(stack: Stack) -> Outcome<u64> {
    const FBACK_STATS: u16 = 8;
    const SRV_CNT: u16 = 2;
    const CLNT_CNT: u16 = 3;
    if stack == Stack::Tcp {
        return Ok(0);
    }
    let mut all = 0;
    for host in Host::BOTH {
        sys::enter(host)?;
        let messages = Client::new(genl::SMC_GEN)?.dump(genl::GET_FBACK_STATS)?;
        // The first one has the totals.
        if let Some(message) = messages.first() {
            let stats = message.attrs.nest(FBACK_STATS)?;
            all += stats.number(SRV_CNT).unwrap_or(0) + stats.number(CLNT_CNT).unwrap_or(0);
        }
    }
    sys::leave()?;
    Ok(all)
}

/// Why connections of both hosts have fallen back so far, as Documentation/uapi.rst lists the codes.
pub fn reasons() -> Outcome<String> {
    let mut all = Vec::new();
    for host in Host::BOTH {
        sys::enter(host)?;
        for message in Client::new(genl::SMC_GEN)?.dump(genl::GET_FBACK_STATS)? {
            let stats = message.attrs.nest(8)?;
            let (side, code, count) = (stats.number(1)?, stats.number(4)?, stats.number(5)?);
            let side = if side == 1 { "server" } else { "client" };
            all.push(format!(
                "{side} on {}: {code:#010x} {count} times",
                host.name()
            ));
        }
    }
    sys::leave()?;
    Ok(all.join(", "))
}

/// A server process on host B, of one stack; ended when dropped.
pub struct Server(std::process::Child);

impl Server {
    pub fn start(stack: Stack, line: &str, port: u16) -> Outcome<Server> {
        const LOG: &str = "/tmp/server.log";
        let log = std::fs::File::create(LOG)?;
        let whole = format!("netns exec {} {}", Host::B.name(), stack.line(line));
        let server = Server(
            std::process::Command::new("ip")
                .args(whole.split_whitespace())
                .stdin(std::process::Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .during(line)?,
        );
        // Asked of the kernel: a connection to find out would make a link group. SMC's sockets have one of TCP below.
        sys::eventually(&format!("'{line}' listens on port {port}"), || {
            rig::listens(port)
        })
        .map_err(|error| {
            Fail(format!(
                "{error}: {}",
                sys::read_file(LOG).unwrap_or_default()
            ))
        })?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: no pointers; the pid is that of a child not waited for yet.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let _ = self.0.wait();
    }
}
