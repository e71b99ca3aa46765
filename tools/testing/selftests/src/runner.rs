//! Runs suites: one process per test, a limit for each, the oracles at the end.

use crate::kind::{Expect, Host, Kind};
use crate::ktap::{Report, Verdict};
use crate::mode::{self, Mode};
use crate::rig::{self, Before, SoftRoce};
use crate::sys::{self, Child, Ended, Sock};
use crate::{check, Context as _, Fail, Outcome};
use rand::rngs::SmallRng;
use rand::SeedableRng;
use std::cell::Cell;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// One test: a body over a kind of socket.
pub struct Test {
    pub name: &'static str,
    pub body: fn(&Ctx) -> Outcome,
    /// Wall-clock limit in seconds; it ends a hang and measures nothing.
    pub limit: u64,
    pub needs: Needs,
}

/// What a test is about, which decides where it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Runs over every kind of socket.
    Any,
    /// Runs over SMC kinds only.
    Smc,
    /// Runs over SMC kinds only, and its connections have to fall back to TCP.
    Fallback,
    /// Runs with the module, once: it is about the module and makes its sockets itself.
    Once,
    /// As [`Self::Once`], on a kernel that tells its types, without which no program of BPF is loaded; told as skipped on others.
    Btf,
    /// As [`Self::Once`], where the hosts' devices have GIDs of RoCEv1.
    RoceV1,
    /// As [`Self::Once`], in the suite `netem` only.
    RoughNetwork,
    /// As [`Self::Once`], in the suite `hostile-peer` only.
    HostilePeer,
    /// As [`Self::Once`], on a kernel that can refuse memory.
    FaultInjection,
}

/// Listeners of each test that have ports of their own: a client remembers for ten minutes on which address and port
/// it has found a server that does not speak SMC, and the kernel may give that port to another test.
const PORTS: u16 = 44;
/// Below those that the kernel gives, and below eRDMA's.
const FIRST_PORT: u16 = 10_000;
/// After so many tests the ports come again.
const TESTS: usize = 520;

/// The first port of the test, or the part of one, of this number.
pub fn ports_of(number: usize) -> u16 {
    FIRST_PORT + (number % TESTS) as u16 * PORTS
}

/// What the next listener of this process takes. Tests are processes of their own.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// What a running test has.
pub struct Ctx {
    pub kind: Kind,
    pub seed: u64,
    /// Divides the volume of the large tests: 1 is full size.
    pub divisor: usize,
    pub any_mode: bool,
    /// Rounds of what is done again and again, where a number was asked for.
    pub rounds: Option<usize>,
    /// How long what goes on for as long as it is told goes on, and from which phase on.
    pub minutes: Option<u64>,
    pub phase: u64,
    /// The first of [`PORTS`] that its listeners may have.
    pub ports: u16,
    /// Connections (each end counts) of which sock_diag says that they go by RDMA, and the counters of
    /// the devices have to say so, too.
    pub proved: Cell<usize>,
}

/// Both ends of one connection: the client on host A, the server on host B.
pub struct Pair {
    pub client: Sock,
    pub server: Sock,
}

impl Ctx {
    /// The same numbers for the same seed and test.
    pub fn random(&self, stream: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn socket(&self, host: Host) -> Outcome<Sock> {
        Sock::new(host, self.kind, libc::SOCK_CLOEXEC).during("socket()")
    }

    /// A listening socket on host B and its address.
    pub fn listener(&self, backlog: i32) -> Outcome<(Sock, SocketAddr)> {
        self.listen_on_own_port(self.socket(Host::B)?, self.kind, backlog)
    }

    fn listen_on_own_port(
        &self,
        sock: Sock,
        kind: Kind,
        backlog: i32,
    ) -> Outcome<(Sock, SocketAddr)> {
        let own = self.own_port().ok();
        // A child of the test may have it, too.
        let bound = own.is_some_and(|port| sock.bind(Host::B.address(kind, port)).is_ok());
        if !bound {
            sock.bind(Host::B.address(kind, 0)).during("bind()")?;
        }
        sock.listen(backlog).during("listen()")?;
        let address = sock.local().during("getsockname() of the listener")?;
        Ok((sock, address))
    }

    /// A port of host B that nothing else has, not even for a moment.
    pub fn own_port(&self) -> Outcome<u16> {
        let place = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        check!(
            place < PORTS,
            "the test has had all {PORTS} ports of its own"
        );
        Ok(self.ports + place)
    }

    /// A listening socket of TCP on host B, for IPv4, and its address, which can be bound again at once.
    pub fn plain_listener(&self) -> Outcome<(Sock, SocketAddr)> {
        let sock = Sock::new(Host::B, Kind::Tcp4, libc::SOCK_CLOEXEC).during("socket()")?;
        sock.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
        self.listen_on_own_port(sock, Kind::Tcp4, 8)
    }

    pub fn connect(&self, address: SocketAddr) -> Outcome<Sock> {
        let sock = self.socket(Host::A)?;
        sock.connect(address).during("connect()")?;
        Ok(sock)
    }

    /// One connection whose mode has been proved.
    pub fn pair(&self) -> Outcome<Pair> {
        let (listener, address) = self.listener(8)?;
        self.pair_from(&listener, address)
    }

    pub fn pair_from(&self, listener: &Sock, address: SocketAddr) -> Outcome<Pair> {
        let client = self.connect(address)?;
        let server = listener.accept().during("accept()")?;
        let pair = Pair { client, server };
        self.prove(Host::A, &pair.client)?;
        self.prove(Host::B, &pair.server)?;
        Ok(pair)
    }

    /// The same test over another kind of socket.
    pub fn with_kind(&self, kind: Kind) -> Ctx {
        Ctx {
            kind,
            seed: self.seed,
            divisor: self.divisor,
            any_mode: self.any_mode,
            rounds: self.rounds,
            minutes: self.minutes,
            phase: self.phase,
            ports: self.ports,
            proved: Cell::new(0),
        }
    }

    /// The same test, where connections may fall back.
    pub fn unasked(&self) -> Ctx {
        Ctx {
            any_mode: true,
            ..self.with_kind(self.kind)
        }
    }

    /// Whether a connection of this run may be plain TCP in the end.
    pub fn may_fall_back(&self) -> bool {
        self.any_mode || self.kind.expect() == Expect::Either
    }

    /// As [`Ctx::pair`], with the client on host B.
    pub fn pair_the_other_way(&self) -> Outcome<Pair> {
        let listener = self.socket(Host::A)?;
        listener.bind(Host::A.address(self.kind, 0))?;
        listener.listen(8)?;
        let client = self.socket(Host::B)?;
        client.connect(listener.local()?).during("connect()")?;
        let server = listener.accept().during("accept()")?;
        Ok(Pair { client, server })
    }

    /// Fails if a connection that has to go by RDMA does not.
    pub fn prove(&self, host: Host, sock: &Sock) -> Outcome {
        if self.kind.expect() != Expect::Rdma || self.any_mode {
            return Ok(());
        }
        match mode::of(sock).during(&format!("mode of a socket of host {}", host.name()))? {
            Mode::Rdma => {
                self.proved.set(self.proved.get() + 1);
                Ok(())
            }
            Mode::Fallback(why) => Err(Fail(format!(
                "the connection fell back to TCP unasked (on host {}; reason {:#010x}, the peer's {:#010x})",
                host.name(),
                why.reason,
                why.peer_diagnosis
            ))),
        }
    }
}

/// A selection of tests over kinds of sockets.
pub struct Suite {
    pub name: &'static str,
    pub kinds: &'static [Kind],
    pub module: bool,
    pub divisor: usize,
    /// The RDMA devices.
    pub roce: SoftRoce,
    /// Only tests of these subjects (the part of a name before the dot); empty: of all.
    pub subjects: &'static [&'static str],
    pub about: &'static str,
}

pub const SUITES: [Suite; 8] = [
    Suite {
        name: "tcp",
        kinds: &[Kind::Tcp4, Kind::Tcp6],
        module: false,
        divisor: 1,
        roce: SoftRoce::Stock,
        subjects: &[],
        about: "every test over plain TCP: proves the tests themselves",
    },
    Suite {
        name: "smc",
        kinds: &[Kind::Smc4],
        module: true,
        divisor: 1,
        roce: SoftRoce::Stock,
        subjects: &[],
        about: "every test over AF_SMC, full size",
    },
    Suite {
        name: "kinds",
        kinds: &[Kind::Smc6, Kind::IpSmc4, Kind::IpSmc6],
        module: true,
        divisor: 16,
        roce: SoftRoce::Stock,
        subjects: &[],
        about: "every test over the other ways to make an SMC socket",
    },
    Suite {
        name: "v1",
        kinds: &[Kind::Smc4, Kind::Smc6, Kind::IpSmc6],
        module: true,
        divisor: 16,
        roce: SoftRoce::V1,
        subjects: &[
            "basic",
            "close",
            "diag",
            "fallback",
            "urgent",
            "stream",
            "bulk",
            "many",
            "hostile",
            "clc",
            "link",
            "conform",
            "peer_death",
            "v1",
        ],
        about: "SMC-Rv1 over IPv4 and IPv6, on the test driver that has GIDs of RoCEv1",
    },
    Suite {
        name: "adapter",
        kinds: &[Kind::Smc4],
        module: true,
        divisor: 16,
        roce: SoftRoce::Adapter,
        subjects: &[
            "basic", "stream", "close", "nonblock", "epoll", "urgent", "process", "many", "bulk",
            "conform",
        ],
        about:
            "over emulated eRDMA adapters, in a machine of tools/testing/erdma-sim/run --devices 2",
    },
    Suite {
        name: "netem",
        kinds: &[Kind::Smc4],
        module: true,
        divisor: 1,
        roce: SoftRoce::Stock,
        subjects: &["netem"],
        about:
            "over networks that lose, double, delay, damage and exchange packets, and through holes",
    },
    Suite {
        name: "hostile-peer",
        kinds: &[Kind::Smc4],
        module: true,
        divisor: 1,
        roce: SoftRoce::Stock,
        subjects: &["hostile_peer"],
        about:
            "a peer over raw verbs that says and writes what no peer may, beside one that is honest",
    },
    Suite {
        name: "load",
        kinds: &[],
        module: true,
        divisor: 1,
        roce: SoftRoce::Stock,
        subjects: &[],
        about: "the module loads, and unloads without a trace",
    },
];

pub struct Options {
    pub suite: &'static Suite,
    pub filter: Option<String>,
    /// Tests whose names contain one of these are told as skipped.
    pub skip: Option<String>,
    /// Every so-manyth of the chosen tests, from the first, the second, ... on: (which, of how many), from 0.
    pub part: Option<(usize, usize)>,
    pub kinds: Option<Vec<Kind>>,
    pub seed: u64,
    pub divisor: Option<usize>,
    pub repeat: usize,
    pub rounds: Option<usize>,
    pub minutes: Option<u64>,
    pub phase: u64,
    /// Do not ask how the connections went, for a look at the sockets alone.
    pub any_mode: bool,
    /// Leave hosts and module as they are, for a look.
    pub keep: bool,
}

/// Runs a suite; true if everything passed.
pub fn run(options: &Options, tests: &[Test]) -> bool {
    let filter = options.filter.as_deref();
    if let Some(text) = filter.and_then(|filter| without_effect(filter, tests)) {
        eprintln!(
            "smc-selftest: no test has '{text}' of --filter in its name (see smc-selftest list)"
        );
        return false;
    }
    let kinds = options
        .kinds
        .clone()
        .unwrap_or_else(|| options.suite.kinds.to_vec());
    let chosen: Vec<(&Test, Kind)> = kinds
        .iter()
        .flat_map(|&kind| tests.iter().map(move |test| (test, kind)))
        .filter(|(test, kind)| match test.needs {
            Needs::Any => true,
            Needs::Smc | Needs::Fallback => kind.expect() != Expect::Plain,
            Needs::Once | Needs::Btf => *kind == Kind::Smc4,
            Needs::RoceV1 => *kind == Kind::Smc4 && options.suite.roce == SoftRoce::V1,
            Needs::RoughNetwork => *kind == Kind::Smc4 && options.suite.name == "netem",
            Needs::HostilePeer => *kind == Kind::Smc4 && options.suite.name == "hostile-peer",
            Needs::FaultInjection => *kind == Kind::Smc4 && rig::fault_injection(),
        })
        .filter(|(test, _)| {
            let subjects = options.suite.subjects;
            let subject = test.name.split('.').next().unwrap_or_default();
            subjects.is_empty() || subjects.contains(&subject)
        })
        .filter(|(test, kind)| filter.is_none_or(|text| chosen_by(text, &full_name(test, *kind))))
        .enumerate()
        .filter(|(number, _)| options.part.is_none_or(|(part, of)| number % of == part))
        .map(|(_, chosen)| chosen)
        .collect();
    let oracles = if options.keep {
        Vec::new()
    } else {
        rig::oracles()
    };
    let module = options.suite.module;
    let mut report =
        Report::new(1 + usize::from(module) + chosen.len() * options.repeat + oracles.len());
    report.diagnostic(&format!(
        "suite {}: {}; seed {}",
        options.suite.name, options.suite.about, options.seed
    ));

    let prepared = rig::forget_leaks()
        .and_then(|()| rig::hosts_up(options.suite.roce))
        .and_then(|()| Before::take());
    let mut ready = prepared.is_ok();
    let before = match prepared {
        Ok(before) => {
            report.result("rig.hosts_up", Verdict::Pass);
            Some(before)
        }
        Err(failure) => {
            report.result("rig.hosts_up", Verdict::Fail(failure.0));
            None
        }
    };
    if module {
        let loaded = if rig::module_present() {
            rig::module_load()
        } else {
            Err(Fail(
                "this boot brought no smc_rs.ko along: build it, or run the suite 'tcp'".into(),
            ))
        };
        ready &= loaded.is_ok();
        report.result("rig.module_load", loaded.into());
    }

    for (number, (test, kind)) in chosen.iter().enumerate() {
        for round in 0..options.repeat {
            let name = full_name(test, *kind);
            let skip = options.skip.as_deref().unwrap_or_default();
            if skip
                .split(',')
                .any(|part| !part.is_empty() && name.contains(part))
            {
                let why = "this run was told to leave it out".into();
                report.result(&name, Verdict::Skip(why));
                continue;
            }
            if test.needs == Needs::Btf && !rig::has_btf() {
                let why = "this kernel has no BTF, which the policy's program needs".into();
                report.result(&name, Verdict::Skip(why));
                continue;
            }
            if !ready {
                report.result(
                    &name,
                    Verdict::Fail("not run: the hosts or the module could not be set up".into()),
                );
                continue;
            }
            let ctx = Ctx {
                kind: *kind,
                seed: options.seed,
                divisor: options.divisor.unwrap_or(options.suite.divisor),
                any_mode: options.any_mode,
                rounds: options.rounds,
                minutes: options.minutes,
                phase: options.phase,
                ports: ports_of(number * options.repeat + round),
                proved: Cell::new(0),
            };
            let begin = Instant::now();
            let outcome = run_one(test, &ctx);
            let took = begin.elapsed();
            if took > Duration::from_secs(5) {
                report.diagnostic(&format!("{name} took {} s", took.as_secs()));
            }
            let failed = outcome.is_err();
            report.result(&name, outcome.into());
            if failed {
                // So that it says nothing of the next one.
                if let Err(failure) = rig::hosts_again(options.suite.roce) {
                    report.diagnostic(&format!("the hosts cannot be set up anew: {failure}"));
                    ready = false;
                }
            }
        }
    }

    for oracle in &oracles {
        let verdict = match (&before, module || !oracle.needs_module) {
            (_, false) => Verdict::Skip("this suite runs without the module".into()),
            (None, true) => Verdict::Fail("not checked: the hosts could not be set up".into()),
            (Some(before), true) => (oracle.check)(before).into(),
        };
        report.result(oracle.name, verdict);
    }
    println!(
        "# {} passed, {} failed, {} skipped",
        report.passed, report.failed, report.skipped
    );
    report.failed == 0
}

/// A test over a kind of socket, as the report names it.
fn full_name(test: &Test, kind: Kind) -> String {
    format!("{}[{}]", test.name, kind.name())
}

/// The first of the texts by which nothing is chosen, nor left out: a test that has got another name, say.
fn without_effect<'a>(texts: &'a str, tests: &[Test]) -> Option<&'a str> {
    texts.split(',').find(|text| {
        let text = text.trim_start_matches('!');
        !tests.iter().any(|test| {
            Kind::ALL
                .iter()
                .any(|&kind| full_name(test, kind).contains(text))
        })
    })
}

/// Whether a name contains one of the texts; those that begin with `!` it must not contain.
fn chosen_by(texts: &str, name: &str) -> bool {
    let (not, wanted): (Vec<&str>, Vec<&str>) =
        texts.split(',').partition(|text| text.starts_with('!'));
    (wanted.is_empty() || wanted.iter().any(|text| name.contains(text)))
        && !not.iter().any(|text| name.contains(&text[1..]))
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Verdict {
        match outcome {
            Ok(()) => Verdict::Pass,
            Err(failure) => Verdict::Fail(failure.0),
        }
    }
}

/// What a test's process says when it had connections that go by RDMA: the counters have to agree.
const BY_RDMA: &str = "by RDMA";

/// Runs one test in a process of its own, so that neither a hang nor a signal gets any further.
fn run_one(test: &Test, ctx: &Ctx) -> Outcome {
    let packets = mode::rdma_packets()?;
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    sys::cvt(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: two fresh descriptors that nobody else owns.
    let (mut reader, writer) = unsafe {
        (
            std::fs::File::from_raw_fd(ends[0]),
            std::fs::File::from_raw_fd(ends[1]),
        )
    };
    let mut child = Child::fork(|| {
        use std::io::Write;
        let mut writer = &writer;
        // SAFETY: no pointers. A group of its own, so that all of it can be ended.
        unsafe { libc::setpgid(0, 0) };
        let outcome = (test.body)(ctx);
        match &outcome {
            Ok(()) if ctx.proved.get() > 0 => write!(writer, "{BY_RDMA}")?,
            Ok(()) => {}
            Err(failure) => write!(writer, "{failure}")?,
        }
        // The words went through the pipe; the code says which kind they are.
        if outcome.is_err() {
            // SAFETY: ends this process.
            unsafe { libc::_exit(1) };
        }
        Ok(())
    })?;
    drop(writer);
    // Those that are longer on demand may take longer, and so may all on a kernel that looks at all it does.
    let limit = rig::slowness()
        * (test.limit * (1 + ctx.rounds.unwrap_or(0) as u64 / 10) + 60 * ctx.minutes.unwrap_or(0));
    let end = Instant::now() + Duration::from_secs(limit);
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        if Instant::now() > end {
            let stacks = stacks_of_group(child.pid);
            // SAFETY: no pointers; the group is that of our own child.
            unsafe { libc::kill(-child.pid, libc::SIGKILL) };
            let end = Instant::now() + Duration::from_secs(20);
            let mut gone = false;
            while Instant::now() < end && !gone {
                gone = child.try_wait()?.is_some();
                std::thread::sleep(Duration::from_millis(50));
            }
            if !gone {
                // Dropping the child would wait for it for ever.
                std::mem::forget(child);
            }
            return Err(Fail(format!(
                "not finished after {} s{}; its threads were in:\n{stacks}",
                limit,
                if gone { "" } else { ", and cannot be killed" }
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // SAFETY: no pointers. What a failed test left running must not meet the next one.
    unsafe { libc::kill(-child.pid, libc::SIGKILL) };
    let mut words = String::new();
    reader.read_to_string(&mut words)?;
    match ended {
        Ended::Exit(0) => {}
        Ended::Exit(1) => return Err(Fail(words)),
        ended => {
            return Err(Fail(format!(
                "the test's process ended with {ended:?} {words}"
            )))
        }
    }
    if words == BY_RDMA {
        sys::eventually(
            "packets have left the RDMA devices, as sock_diag says that connections go by RDMA",
            || Ok(mode::rdma_packets()? != packets),
        )?;
    }
    Ok(())
}

/// [`stacks_of_group`] of the caller's own group: of everything that belongs to its test.
pub fn own_stacks() -> String {
    // SAFETY: no pointers.
    stacks_of_group(unsafe { libc::getpgrp() })
}

/// Where every thread of a process group is in the kernel, for the report of a hang.
pub fn stacks_of_group(group: i32) -> String {
    let mut text = String::new();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return text;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // SAFETY: no pointers.
        if unsafe { libc::getpgid(pid) } != group {
            continue;
        }
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let stack = std::fs::read_to_string(thread.path().join("stack")).unwrap_or_default();
            text += &format!("thread {}:\n", thread.file_name().to_string_lossy());
            for line in stack.lines().take(8) {
                text += &format!("  {line}\n");
            }
        }
    }
    text
}
