//! Two machines, each with an implementation of SMC of its own: smc_rs or the C one.
//!
//! The same program runs on both. They agree over a plain TCP connection: machine A names a script and who is its
//! client, both play their part of it, and A reports what both found.

mod adapter;
mod endings;
mod links;
mod reboot;
mod scripts;
mod urgent;
mod ways;

use rand::rngs::SmallRng;
use rand::SeedableRng;
use smc_selftest::genl::{self, Client};
use smc_selftest::kind::{Host, Kind};
use smc_selftest::ktap::{Report, Verdict};
use smc_selftest::link_groups::{self, lgr, LinkGroup};
use smc_selftest::mode::{self, Mode};
use smc_selftest::pattern::Pattern;
use smc_selftest::rig::{run, SoftRoce};
use smc_selftest::sys::{self, Sock};
use smc_selftest::{check, check_eq, diag, Context, Fail, Outcome};
use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// Where A waits for B.
const CONTROL_PORT: u16 = 4000;
/// How long one call on a socket, or the other machine, may take. It ends a hang and measures nothing.
const PATIENCE: Duration = Duration::from_secs(60);
const NETDEV: &str = "eth0";
const RDMA_DEVICE: &str = "rxe0";
const UEID: &str = "SMC-RS.DEFAULT";
const TESTLINK_TIME: &str = "/proc/sys/net/smc/smcr_testlink_time";
/// An option: RDMA devices have GIDs of RoCEv1 only, so that there is no SMC-Rv2.
const ONLY_V1: &str = "--v1";

/// Which implementation a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    Rust,
    C,
}

impl Stack {
    fn parse(word: &str) -> Outcome<Stack> {
        match word {
            "rust" => Ok(Stack::Rust),
            "c" => Ok(Stack::C),
            _ => Err(Fail(format!("no implementation '{word}': rust or c"))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Stack::Rust => "Rust",
            Stack::C => "C",
        }
    }

    /// Loads it, and gives it the enterprise ID that smc_rs has by itself.
    fn load(self) -> Outcome {
        match self {
            Stack::Rust => run("modprobe smc_rs")?,
            Stack::C => run("modprobe -a smc smc_diag")?,
        };
        // So that every script that takes a while has seen TEST LINK.
        sys::write_file(TESTLINK_TIME, "2").during(TESTLINK_TIME)?;
        if self == Stack::C {
            // Blank padded to 32 bytes, as the wire has it.
            Client::new(genl::SMC_GEN)?
                .execute(genl::ADD_UEID, &genl::text(1, &format!("{UEID:<32}")))
                .during("SMC_NETLINK_ADD_UEID")?;
        }
        port_ready(RDMA_DEVICE, "")
    }

    fn unload(self) -> Outcome {
        match self {
            Stack::Rust => run("rmmod smc_rs")?,
            Stack::C => run("rmmod smc_diag smc")?,
        };
        Ok(())
    }
}

/// What A says to a B that is to go.
const GO: &str = "go";

/// A script: what both machines do at the same time, each one's part of it.
pub struct Script {
    pub name: &'static str,
    pub body: fn(&Side) -> Outcome,
    scope: Scope,
}

/// When a script is chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Always,
    /// Only if one of the machines has smc_rs, or both have: two of C do not come through.
    WithOurs,
    /// Only if both machines have smc_rs.
    AmongOurs,
    /// The same, and only with SMC-Rv2.
    AmongOursV2,
    /// Never: it is the rest of another one, for a machine that has lost its part of it.
    Rest,
}

impl Script {
    const fn new(name: &'static str, body: fn(&Side) -> Outcome) -> Script {
        Script {
            name,
            body,
            scope: Scope::Always,
        }
    }

    const fn with_ours(name: &'static str, body: fn(&Side) -> Outcome) -> Script {
        Script {
            scope: Scope::WithOurs,
            ..Script::new(name, body)
        }
    }

    const fn among_ours(name: &'static str, body: fn(&Side) -> Outcome) -> Script {
        Script {
            scope: Scope::AmongOurs,
            ..Script::new(name, body)
        }
    }

    const fn among_ours_v2(name: &'static str, body: fn(&Side) -> Outcome) -> Script {
        Script {
            scope: Scope::AmongOursV2,
            ..Script::new(name, body)
        }
    }

    const fn rest(name: &'static str, body: fn(&Side) -> Outcome) -> Script {
        Script {
            scope: Scope::Rest,
            ..Script::new(name, body)
        }
    }

    fn is_for(&self, one: Stack, other: Stack) -> bool {
        match self.scope {
            Scope::Always => true,
            Scope::WithOurs => one == Stack::Rust || other == Stack::Rust,
            Scope::AmongOurs => (one, other) == (Stack::Rust, Stack::Rust),
            Scope::AmongOursV2 => {
                (one, other) == (Stack::Rust, Stack::Rust) && SoftRoce::here() != SoftRoce::V1
            }
            Scope::Rest => false,
        }
    }
}

/// One machine's part of a script.
pub struct Side<'a> {
    /// Whether this is the client.
    pub is_client: bool,
    pub own: Stack,
    pub peer: Stack,
    control: &'a Control,
    host: Host,
    seed: u64,
    /// Ends of SMC-R connections that sock_diag has confirmed.
    proved: Cell<usize>,
}

/// Where connections come in: the server's socket, or for the client its address.
pub enum Door {
    Inside(Sock),
    Outside(SocketAddr),
}

/// A socket none of whose calls hangs for ever.
pub fn socket(kind: Kind) -> Outcome<Sock> {
    let (family, protocol) = kind.arguments();
    let sock = Sock::raw(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol)
        .during(&format!("socket() of kind {}", kind.name()))?;
    limited(sock)
}

fn limited(sock: Sock) -> Outcome<Sock> {
    sock.set_timeouts(PATIENCE)?;
    Ok(sock)
}

/// One connection, of which nothing is known yet.
pub fn enter(door: &Door, kind: Kind) -> Outcome<Sock> {
    match door {
        Door::Inside(listener) => limited(listener.accept().during("accept()")?),
        Door::Outside(address) => {
            let sock = socket(kind)?;
            sock.connect(*address).during("connect()")?;
            Ok(sock)
        }
    }
}

impl Side<'_> {
    /// Waits until the other side is there as well; what it says.
    pub fn meet(&self, words: &str) -> Outcome<String> {
        self.control.meet(words)
    }

    /// Whether this is machine A, which decides.
    pub fn is_first(&self) -> bool {
        self.control.listener.is_some()
    }

    /// Machine B goes when A says so, which has heard all that B has said: what still lies in its card would be lost.
    pub fn part(&self) -> Outcome {
        if self.is_first() {
            return self.control.say(GO);
        }
        check_eq!(self.control.hear()?, GO, "what A says");
        Ok(())
    }

    /// Machine A: waits until B's program is there again, and has it play the rest of a script.
    pub fn peer_returns(&self, script: &str) -> Outcome {
        self.control.accept(self.peer)?;
        self.control.play(script, self)
    }

    /// The same number sequence on both machines.
    pub fn random(&self, stream: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// What one side sends: stream 0 is the client's, 1 the server's.
    pub fn pattern(&self, stream: u64) -> Pattern {
        Pattern::of(&mut self.random(stream))
    }

    pub fn outgoing(&self) -> Pattern {
        self.pattern(u64::from(!self.is_client))
    }

    pub fn incoming(&self) -> Pattern {
        self.pattern(u64::from(self.is_client))
    }

    /// The server listens, and the client is told where.
    pub fn door(&self, kind: Kind) -> Outcome<Door> {
        self.door_of(kind, |_| Ok(()))
    }

    /// The same; `prepare` is for the listener.
    pub fn door_of(&self, kind: Kind, prepare: impl FnOnce(&Sock) -> Outcome) -> Outcome<Door> {
        if self.is_client {
            let port = self.meet("")?;
            let port = port.parse().during(&format!("port '{port}'"))?;
            return Ok(Door::Outside(self.host.other().address(kind, port)));
        }
        let sock = socket(kind)?;
        prepare(&sock)?;
        sock.bind(self.host.address(kind, 0)).during("bind()")?;
        sock.listen(64).during("listen()")?;
        let port = sock.local().during("getsockname()")?.port();
        self.meet(&port.to_string())?;
        Ok(Door::Inside(sock))
    }

    /// One connection through a door, which goes by SMC-R: both kernels say so.
    pub fn through(&self, door: &Door) -> Outcome<Sock> {
        let mut sock = enter(door, Kind::Smc4)?;
        for _ in 0..3 {
            if !self.missed_confirm_link(&sock)? {
                break;
            }
            println!("# C has dropped CONFIRM LINK: once more");
            sock = enter(door, Kind::Smc4)?;
        }
        self.prove(&sock)?;
        Ok(sock)
    }

    /// Whether two of C have met what a server of ours gets over by saying CONFIRM LINK again: C's client drops it when it
    /// comes right behind its CLC Confirm.
    fn missed_confirm_link(&self, sock: &Sock) -> Outcome<bool> {
        const TIMEOUT: u32 = 0x0201_0000;
        if (self.own, self.peer) != (Stack::C, Stack::C) {
            return Ok(false);
        }
        Ok(match mode::of(sock).during("mode of the connection")? {
            Mode::Fallback(why) => {
                TIMEOUT
                    == if self.is_client {
                        why.reason
                    } else {
                        why.peer_diagnosis
                    }
            }
            Mode::Rdma => false,
        })
    }

    /// So many of them, in the same order on both machines: handshakes go on beside each other, and the one that began first
    /// may not end first.
    pub fn in_turn(&self, door: &Door, count: usize) -> Outcome<Vec<Sock>> {
        (0..count)
            .map(|_| {
                let sock = self.through(door)?;
                self.meet("made")?;
                Ok(sock)
            })
            .collect()
    }

    /// One connection that goes by SMC-R.
    pub fn connection(&self) -> Outcome<Sock> {
        let door = self.door(Kind::Smc4)?;
        self.through(&door)
    }

    /// Fails unless the connection goes by SMC-R.
    pub fn prove(&self, sock: &Sock) -> Outcome {
        match mode::of(sock).during("mode of the connection")? {
            Mode::Rdma => {
                self.proved.set(self.proved.get() + 1);
                Ok(())
            }
            Mode::Fallback(why) => Err(Fail(format!(
                "the connection fell back to TCP unasked (reason {:#010x}, the peer's {:#010x})",
                why.reason, why.peer_diagnosis
            ))),
        }
    }

    /// What sock_diag says about a connection.
    pub fn conn(&self, sock: &Sock) -> Outcome<diag::Conn> {
        let entry = diag::of(sock)?.ok_or_else(|| Fail("sock_diag has no such socket".into()))?;
        entry
            .conn
            .ok_or_else(|| Fail("sock_diag tells nothing of the connection".into()))
    }

    /// This machine's link groups in which it has the role of this script.
    pub fn link_groups(&self) -> Outcome<Vec<LinkGroup>> {
        let role = u64::from(!self.is_client);
        let mut groups = Vec::new();
        for group in link_groups::here()? {
            if group.attrs.number(lgr::ROLE)? == role {
                groups.push(group);
            }
        }
        Ok(groups)
    }

    /// Their numbers of connections, by ID.
    pub fn groups(&self) -> Outcome<Vec<(u64, u64)>> {
        let mut groups = Vec::new();
        for group in self.link_groups()? {
            let attrs = &group.attrs;
            groups.push((attrs.number(lgr::ID)?, attrs.number(lgr::CONNS_NUM)?));
        }
        groups.sort_unstable();
        Ok(groups)
    }

    /// Waits until the groups have so many connections in all.
    pub fn await_connections(&self, expected: u64) -> Outcome<Vec<(u64, u64)>> {
        let mut last = Vec::new();
        sys::eventually("connections in the link groups", || {
            last = self.groups()?;
            Ok(last.iter().map(|&(_, conns)| conns).sum::<u64>() == expected)
        })
        .map_err(|error| Fail(format!("{error}: expected {expected}, groups {last:?}")))?;
        Ok(last)
    }
}

/// The connection between the two programs.
struct Control {
    stream: RefCell<BufReader<TcpStream>>,
    /// How the other side's part of this script ended, if it did.
    ended: RefCell<Option<String>>,
    /// Where B's program comes in; A has it.
    listener: Option<TcpListener>,
}

impl Control {
    fn new(stream: TcpStream, listener: Option<TcpListener>) -> Outcome<Control> {
        Ok(Control {
            stream: RefCell::new(Control::limited(stream)?),
            ended: RefCell::new(None),
            listener,
        })
    }

    fn limited(stream: TcpStream) -> Outcome<BufReader<TcpStream>> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        // Longer than any call of the other side's.
        stream.set_read_timeout(Some(PATIENCE * 2))?;
        Ok(BufReader::new(stream))
    }

    /// A's: waits for B's program.
    fn first(peer: Stack) -> Outcome<Control> {
        let listener = TcpListener::bind((Host::A.ipv4(), CONTROL_PORT))?;
        listener.set_nonblocking(true)?;
        let control = Control::new(Control::await_peer(&listener)?, Some(listener))?;
        control.expect(peer)?;
        Ok(control)
    }

    /// Waits for B's program, instead of the one that was there.
    fn accept(&self, peer: Stack) -> Outcome {
        let listener = self.listener.as_ref();
        let listener = listener.ok_or_else(|| Fail("B waits for nobody".into()))?;
        *self.stream.borrow_mut() = Control::limited(Control::await_peer(listener)?)?;
        self.expect(peer)
    }

    fn await_peer(listener: &TcpListener) -> Outcome<TcpStream> {
        awaited("the other machine's program", || {
            listener.accept().ok().map(|(stream, _)| stream)
        })
    }

    fn expect(&self, peer: Stack) -> Outcome {
        check_eq!(
            self.hear()?,
            peer.name(),
            "the other machine's implementation"
        );
        Ok(())
    }

    /// Has B play its part of a script.
    fn play(&self, script: &str, side: &Side) -> Outcome {
        let role = if side.is_client { "server" } else { "client" };
        let own = side.own.name().to_lowercase();
        self.say(&format!("play {script} {role} {} {own}", side.seed))
    }

    fn say(&self, line: &str) -> Outcome {
        let line = format!("{}\n", line.replace('\n', " / "));
        self.stream
            .borrow_mut()
            .get_mut()
            .write_all(line.as_bytes())
            .during("tell the other machine")
    }

    fn hear(&self) -> Outcome<String> {
        let mut line = String::new();
        let got = self.stream.borrow_mut().read_line(&mut line);
        check!(
            got.during("wait for the other machine")? > 0,
            "the other machine's program has gone"
        );
        Ok(line.trim_end_matches('\n').to_owned())
    }

    fn meet(&self, words: &str) -> Outcome<String> {
        self.say(&format!("at {words}"))?;
        let line = self.hear()?;
        if let Some(words) = line.strip_prefix("at ") {
            return Ok(words.to_owned());
        }
        *self.ended.borrow_mut() = Some(line);
        Err(Fail("the other side has stopped".into()))
    }

    /// Tells how this side's part ended, and waits for the other's end.
    fn end(&self, outcome: &Outcome) -> Outcome<String> {
        self.say(&match outcome {
            Ok(()) => "end".to_owned(),
            Err(fail) => format!("end {fail}"),
        })?;
        let known = self.ended.borrow_mut().take();
        let mut line = match known {
            Some(line) => line,
            None => self.hear()?,
        };
        // It may have gone on a little further before it hears.
        while line.starts_with("at ") {
            line = self.hear()?;
        }
        let words = line.strip_prefix("end");
        let words = words.ok_or_else(|| Fail(format!("'{line}' instead of an end")))?;
        Ok(words.trim_start().to_owned())
    }
}

/// The network, the RDMA device and the implementation of this machine.
fn machine_up(own: Stack, host: Host) -> Outcome {
    run("modprobe -a virtio_pci virtio_net ib_core ib_uverbs")?;
    if adapter::is_there() {
        // Its driver came with it.
    } else if std::env::args().any(|word| word == ONLY_V1) {
        run("modprobe rxe_v1 gid_types=1")?;
    } else {
        run("modprobe rdma_rxe")?;
    }
    sys::eventually("a network device", || {
        Ok(std::path::Path::new("/sys/class/net").join(NETDEV).exists())
    })?;
    // SMC-Rv1 goes by the link-local address, which is not used before duplicates were looked for; C waits for 2 s.
    for netdev in [NETDEV, links::SECOND_NETDEV] {
        let path = format!("/proc/sys/net/ipv6/conf/{netdev}/accept_dad");
        sys::write_file(&path, "0").during(&path)?;
    }
    let (ipv4, ipv6) = (host.ipv4(), host.ipv6());
    run(&format!("ip addr add {ipv4}/24 dev {NETDEV}"))?;
    run(&format!("ip addr add {ipv6}/64 dev {NETDEV} nodad"))?;
    run(&format!("ip link set {NETDEV} up"))?;
    links::second_netdev_up(usize::from(ipv4.octets()[3]) + 10)?;
    sys::eventually("the link-local address", || {
        let all = sys::read_file("/proc/net/if_inet6")?;
        Ok(all
            .lines()
            .any(|line| line.starts_with("fe80") && line.ends_with(NETDEV)))
    })?;
    device_up()?;
    own.load()
}

fn device_up() -> Outcome {
    if adapter::is_there() {
        adapter::up(RDMA_DEVICE)?;
    } else {
        rdma_link_add(RDMA_DEVICE, NETDEV)?;
    }
    gid_ready(RDMA_DEVICE)
}

fn rdma_link_add(device: &str, netdev: &str) -> Outcome {
    let kind = SoftRoce::here().link_type();
    run(&format!(
        "rdma link add {device} type {kind} netdev {netdev}"
    ))
    .map(drop)
}

fn gid_ready(device: &str) -> Outcome {
    let gids = format!("/sys/class/infiniband/{device}/ports/1/gids");
    sys::eventually(&format!("the IPv4 GID of {device}"), || {
        // Filled from its beginning; all 1024 entries would take seconds.
        Ok((0..8).any(|index| {
            std::fs::read_to_string(format!("{gids}/{index}"))
                .is_ok_and(|gid| gid.contains(":ffff:0a09:"))
        }))
    })?;
    Ok(())
}

/// Packets that the RDMA device has sent.
fn packets() -> Outcome<u64> {
    let counters = format!("/sys/class/infiniband/{RDMA_DEVICE}/ports/1/hw_counters");
    // The RDMA core shows what it has read in the last so many milliseconds again.
    sys::write_file(&format!("{counters}/lifespan"), "0")?;
    let path = format!("{counters}/{}", SoftRoce::here().packet_counter());
    sys::read_file(&path)?.trim().parse().during(&path)
}

/// Waits until the implementation knows that a device's port is active, and its PNETID: C learns of both after the
/// device, and until then tells its peer an MTU of zero, or takes another device.
fn port_ready(device: &str, pnetid: &str) -> Outcome {
    const DEV_SMCR: u16 = 6;
    const IB_NAME: u16 = 10;
    const PORT: u16 = 8;
    const PNETID: u16 = 2;
    const STATE: u16 = 4;
    let what = format!("{device}'s port is active and of '{pnetid}', as SMC_GEN_NETLINK says");
    sys::eventually(&what, || {
        for message in Client::new(genl::SMC_GEN)?.dump(genl::GET_DEV_SMCR)? {
            let shown = message.attrs.nest(DEV_SMCR)?;
            let port = shown.nest(PORT)?;
            if shown.text(IB_NAME)? == device
                && port.number(STATE)? == 1
                && port.text(PNETID)?.trim_end() == pnetid
            {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    Ok(())
}

/// While it lives, the machine has no RDMA device.
struct NoDevice;

impl NoDevice {
    fn new() -> Outcome<NoDevice> {
        if adapter::is_there() {
            adapter::down()?;
        } else {
            run(&format!("rdma link del {RDMA_DEVICE}"))?;
        }
        Ok(NoDevice)
    }
}

impl Drop for NoDevice {
    fn drop(&mut self) {
        if let Err(fail) = device_up().and_then(|()| port_ready(RDMA_DEVICE, "")) {
            println!("# the RDMA device does not come back: {fail}");
        }
    }
}

/// While it lives, the machine has no SMC.
struct NoModule(Stack);

impl NoModule {
    fn new(stack: Stack) -> Outcome<NoModule> {
        stack.unload()?;
        Ok(NoModule(stack))
    }
}

impl Drop for NoModule {
    fn drop(&mut self) {
        if let Err(fail) = self.0.load() {
            println!("# {} does not come back: {fail}", self.0.name());
        }
    }
}

/// In this order: the first one finds no link group.
fn all() -> Vec<&'static Script> {
    let parts = [
        scripts::SCRIPTS,
        endings::SCRIPTS,
        urgent::SCRIPTS,
        ways::SCRIPTS,
        links::SCRIPTS,
        reboot::SCRIPTS,
    ];
    parts.into_iter().flatten().collect()
}

/// Waits for something that takes as long as a machine takes to boot, on a busy host, perhaps more than once.
fn awaited<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Outcome<T> {
    let mut found = None;
    sys::within(what, PATIENCE * 6, &mut || {
        found = look();
        Ok(found.is_some())
    })?;
    found.ok_or_else(|| Fail(what.to_owned()))
}

/// The first machine: it decides what is played, and reports.
fn run_a(own: Stack, peer: Stack, filter: Option<&str>, seed: u64) -> Outcome<bool> {
    machine_up(own, Host::A)?;
    let control = Control::first(peer)?;
    let chosen: Vec<&Script> = all()
        .into_iter()
        .filter(|script| {
            let wanted = |text: &str| text.split(',').any(|part| script.name.contains(part));
            script.is_for(own, peer) && filter.is_none_or(wanted)
        })
        .collect();
    // A client of each kind; where both machines are the same, one will do.
    let clients: &[bool] = if own == peer { &[true] } else { &[true, false] };
    let mut report = Report::new(chosen.len() * clients.len());
    report.diagnostic(&format!("seed {seed}"));
    for &is_client in clients {
        let (client, server) = if is_client { (own, peer) } else { (peer, own) };
        for (number, script) in chosen.iter().enumerate() {
            let name = format!("{}[{}-{}]", script.name, client.name(), server.name());
            let seed = seed.wrapping_add(number as u64);
            let side = Side {
                is_client,
                own,
                peer,
                control: &control,
                host: Host::A,
                seed,
                proved: Cell::new(0),
            };
            control.play(script.name, &side)?;
            let own_end = (script.body)(&side);
            let peer_end = control.end(&own_end);
            let mut why = String::new();
            if let Err(fail) = own_end {
                why += &format!("A ({}): {fail}\n", own.name());
            }
            match &peer_end {
                Ok(words) if words.is_empty() => {}
                Ok(words) => why += &format!("B ({}): {words}\n", peer.name()),
                Err(gone) => why += &format!("B ({}) has gone for good: {gone}\n", peer.name()),
            }
            report.result(
                &name,
                if why.is_empty() {
                    Verdict::Pass
                } else {
                    Verdict::Fail(why)
                },
            );
            peer_end?;
        }
    }
    control.say("bye")?;
    Ok(report.failed == 0)
}

/// The second machine: it plays what the first one says.
fn run_b(own: Stack) -> Outcome<bool> {
    machine_up(own, Host::B)?;
    let address = (Host::A.ipv4(), CONTROL_PORT).into();
    let stream = awaited("the other machine's program", || {
        TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()
    })?;
    let control = Control::new(stream, None)?;
    control.say(own.name())?;
    loop {
        let line = control.hear()?;
        let words: Vec<&str> = line.split(' ').collect();
        let (name, role, seed, peer) = match words.as_slice() {
            ["bye"] => return Ok(true),
            ["play", name, role, seed, peer] => (name, role, seed, peer),
            _ => return Err(Fail(format!("'{line}' is nothing to play"))),
        };
        println!("# {line}");
        let script = all().into_iter().find(|script| script.name == *name);
        let script = script.ok_or_else(|| Fail(format!("no script '{name}'")))?;
        let side = Side {
            is_client: *role == "client",
            own,
            peer: Stack::parse(peer)?,
            control: &control,
            host: Host::B,
            seed: seed.parse().during("seed")?,
            proved: Cell::new(0),
        };
        control.end(&(script.body)(&side))?;
    }
}

const USAGE: &str = "\
smc-interop A --stack rust|c --peer rust|c [--filter TEXT,...] [--seed N] [--v1]    decides, and reports in KTAP
smc-interop B --stack rust|c [--v1]                                                 plays what A says";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("smc-interop: {failure}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(arguments: &[String]) -> Outcome<bool> {
    let words = arguments.iter().map(String::as_str);
    let words: Vec<&str> = words.filter(|word| *word != ONLY_V1).collect();
    let (mut own, mut peer, mut filter, mut seed) = (None, None, None, 1);
    let [machine, rest @ ..] = words.as_slice() else {
        return Err(Fail(format!("usage:\n{USAGE}")));
    };
    for pair in rest.chunks(2) {
        match *pair {
            ["--stack", value] => own = Some(Stack::parse(value)?),
            ["--peer", value] => peer = Some(Stack::parse(value)?),
            ["--filter", value] => filter = Some(value),
            ["--seed", value] => seed = value.parse().during("--seed")?,
            _ => return Err(Fail(format!("no option '{}'\n{USAGE}", pair.join(" ")))),
        }
    }
    match (*machine, own, peer) {
        ("A", Some(own), Some(peer)) => run_a(own, peer, filter, seed),
        ("B", Some(own), None) => run_b(own),
        _ => Err(Fail(format!("usage:\n{USAGE}"))),
    }
}
