//! The 16 TCP ports of iWARP devices: taken where such a device can be reached, and nowhere else.
//!
//! The iWARP devices are siw's, built for the rig.

use super::once;
use crate::kind::{Host, AF_SMC};
use crate::rig;
use crate::runner::{Ctx, Test};
use crate::sys::{self, Sock};
use crate::{check, check_errno, Context, Fail, Outcome};
use std::net::Ipv4Addr;
use std::path::Path;

pub const TESTS: [Test; 8] = [
    once("ports.free_without_iwarp", 60, free_without_iwarp),
    once("ports.devices_come_and_go", 60, devices_come_and_go),
    once("ports.load_and_unload", 90, load_and_unload),
    once("ports.new_namespace", 60, new_namespace),
    once("ports.taken_at_load", 120, taken_at_load),
    once("ports.taken_by_ipv6_at_load", 120, taken_by_ipv6_at_load),
    once("ports.taken_when_a_device_comes", 60, taken_later),
    once("ports.base", 120, base),
];

pub(crate) const BASE: u16 = 33800;
pub(crate) const COUNT: u16 = 16;

/// Where a test looks: a named namespace, or the first one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    First,
    Named(&'static str),
}

pub(crate) const A: Place = Place::Named("A");
pub(crate) const B: Place = Place::Named("B");
pub(crate) const C: Place = Place::Named("C");
pub(crate) const FIRST: Place = Place::First;
const ALL: [Place; 3] = [Place::First, A, B];

impl Place {
    pub(crate) fn enter(self) -> Outcome {
        match self {
            Place::First => sys::leave()?,
            Place::Named(name) => sys::enter_named(name)?,
        }
        Ok(())
    }

    /// The number by which the log names it.
    fn inum(self) -> Outcome<u64> {
        use std::os::unix::fs::MetadataExt;
        let path = match self {
            Place::First => "/proc/1/ns/net".to_owned(),
            Place::Named(name) => format!("/run/netns/{name}"),
        };
        Ok(std::fs::metadata(&path).during(&path)?.ino())
    }

    pub(crate) fn bind(self, port: u16) -> Outcome<std::io::Result<Sock>> {
        self.enter()?;
        let sock = Sock::raw(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        let bound = sock.bind((Ipv4Addr::UNSPECIFIED, port).into());
        sys::leave()?;
        Ok(bound.map(|()| sock))
    }
}

pub(crate) fn check_taken(places: &[Place], first: u16, when: &str) -> Outcome {
    for &place in places {
        for port in first..first + COUNT {
            check_errno!(
                place.bind(port)?,
                libc::EADDRINUSE,
                "bind() to port {port} in {place:?} {when}"
            );
        }
        for port in [first - 1, first + COUNT] {
            place
                .bind(port)?
                .during(&format!("bind() to port {port} in {place:?} {when}"))?;
        }
    }
    Ok(())
}

pub(crate) fn check_free(places: &[Place], first: u16, when: &str) -> Outcome {
    for &place in places {
        for port in first..first + COUNT {
            place
                .bind(port)?
                .during(&format!("bind() to port {port} in {place:?} {when}"))?;
        }
    }
    Ok(())
}

/// What the kernel's log says from some moment on.
pub(crate) struct Log(String);

impl Log {
    pub(crate) fn begin() -> Outcome<Log> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .during("the clock")?;
        let mark = format!("smc-selftest mark {}", now.as_nanos());
        // Without the end of the line it could not be read before the next message.
        std::fs::write("/dev/kmsg", format!("{mark}\n")).during("/dev/kmsg")?;
        Ok(Log(mark))
    }

    pub(crate) fn lines(&self) -> Outcome<Vec<String>> {
        let all = rig::run("dmesg")?;
        let (_, rest) = all
            .rsplit_once(&self.0)
            .ok_or_else(|| Fail("the mark is not in the kernel's log".into()))?;
        Ok(rest.lines().skip(1).map(str::to_owned).collect())
    }

    /// The index of the only line that holds all of these words.
    pub(crate) fn find(&self, words: &[&str]) -> Outcome<usize> {
        let lines = self.lines()?;
        let hits: Vec<usize> = (0..lines.len())
            .filter(|&index| words.iter().all(|word| lines[index].contains(word)))
            .collect();
        check!(
            hits.len() == 1,
            "{} lines of the log with {words:?} instead of 1:\n{}",
            hits.len(),
            lines.join("\n")
        );
        Ok(hits[0])
    }

    fn reserved(&self, place: Place) -> Outcome<usize> {
        let netns = format!("netns {} reserved ports for eRDMA OOB", place.inum()?);
        self.find(&[&netns])
    }

    fn released(&self, place: Place) -> Outcome<usize> {
        let netns = format!("netns {} released ports used by eRDMA OOB", place.inum()?);
        self.find(&[&netns])
    }
}

/// Puts everything back as the other tests expect it.
pub(crate) struct Restore;

impl Restore {
    pub(crate) fn new() -> Outcome<Restore> {
        rig::run("modprobe siw")?;
        // From a test that was ended.
        drop(Restore);
        Ok(Restore)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        let again = sys::leave().is_err()
            || !Path::new("/sys/module/smc_rs").exists()
            || Place::First.bind(20000).is_ok_and(|bound| bound.is_err());
        for device in ["siwA", "siwB"] {
            // Errors: it is not there.
            let _ = rig::run(&format!("rdma link del {device}"));
        }
        let _ = rig::run("ip netns del C");
        let _ = rig::run("ip -n A link del sA");
        if again {
            let _ = rig::run("rmmod smc_rs");
            if let Err(error) = rig::module_load() {
                eprintln!("# cannot load the module again: {error}");
            }
        }
    }
}

pub(crate) fn siw(host: Host) -> Outcome {
    let name = host.name();
    rig::run_on(
        host,
        &format!("rdma link add siw{name} type siw netdev {}", host.netdev()),
    )?;
    Ok(())
}

pub(crate) fn siw_gone(host: Host) -> Outcome {
    rig::run(&format!("rdma link del siw{}", host.name()))?;
    Ok(())
}

pub(crate) fn unload() -> Outcome {
    // Closed connections finish in the background.
    sys::eventually("rmmod succeeds", || Ok(rig::run("rmmod smc_rs").is_ok()))?;
    Ok(())
}

fn free_without_iwarp(_: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    check_free(&ALL, BASE, "without an iWARP device")
}

fn devices_come_and_go(_: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    let log = Log::begin()?;
    siw(Host::A)?;
    check_taken(&ALL, BASE, "with siwA")?;
    let added = log.find(&["adding ib device siwA with port count 1"])?;
    for place in ALL {
        check!(
            log.reserved(place)? < added,
            "the device is announced before its ports"
        );
    }
    siw(Host::B)?;
    log.find(&["adding ib device siwB with port count 1"])?;
    check_taken(&ALL, BASE, "with siwA and siwB")?;
    log.reserved(A).during("after the second device")?;
    siw_gone(Host::A)?;
    log.find(&["removing ib device siwA"])?;
    check_taken(&ALL, BASE, "with siwB")?;
    siw_gone(Host::B)?;
    check_free(&ALL, BASE, "after the last device was removed")?;
    let removing = log.find(&["removing ib device siwB"])?;
    for place in ALL {
        check!(
            removing < log.released(place)?,
            "the ports are given back before the device goes"
        );
    }
    Ok(())
}

fn load_and_unload(_: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    siw(Host::A)?;
    let log = Log::begin()?;
    unload()?;
    check_free(&ALL, BASE, "after rmmod")?;
    let family = log.find(&["NET: Unregistered PF_SMC protocol family"])?;
    let removing = log.find(&["removing ib device siwA"])?;
    check!(
        family < removing,
        "rmmod: the device goes before the family"
    );
    for place in ALL {
        check!(
            removing < log.released(place)?,
            "rmmod: the ports go before the device"
        );
    }
    let log = Log::begin()?;
    rig::module_load()?;
    check_taken(&ALL, BASE, "after modprobe")?;
    let family = log.find(&["NET: Registered PF_SMC protocol family"])?;
    let added = log.find(&["adding ib device siwA with port count 1"])?;
    for place in ALL {
        let reserved = log.reserved(place)?;
        check!(
            family < reserved && reserved < added,
            "modprobe: the lines of the log are out of order"
        );
    }
    Ok(())
}

fn new_namespace(_: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    siw(Host::A)?;
    let log = Log::begin()?;
    rig::run("ip netns add C")?;
    check_taken(&[C], BASE, "in a new namespace")?;
    log.reserved(C)?;
    let released = format!("netns {} released ports used by eRDMA OOB", C.inum()?);
    rig::run("ip netns del C")?;
    sys::eventually("the ports of a deleted namespace are released", || {
        Ok(log.find(&[&released]).is_ok())
    })?;
    check_taken(&ALL, BASE, "after another namespace was deleted")
}

/// A program in namespace A has port 33807 when the module is loaded.
fn load_fails(holder: Sock) -> Outcome {
    let log = Log::begin()?;
    check!(
        rig::module_load().is_err(),
        "the module was loaded although port 33807 is taken"
    );
    log.find(&["33807", &format!("netns {}", A.inum()?), "not loaded"])?;
    check!(!rig::module_loaded(), "the module is there after all");
    check_errno!(
        // Tries to load the module once more.
        Sock::raw(AF_SMC, libc::SOCK_STREAM, 0),
        libc::EAFNOSUPPORT,
        "socket(AF_SMC)"
    );
    let protocols = sys::read_file("/proc/net/protocols")?;
    check!(
        !protocols.lines().any(|line| line.contains("SMC")),
        "/proc/net/protocols still lists SMC:\n{protocols}"
    );
    check!(
        !Path::new("/proc/sys/net/smc").exists(),
        "/proc/sys/net/smc is still there"
    );
    let lines = log.lines()?;
    check!(
        !lines
            .iter()
            .any(|line| line.contains("reserved ports") || line.contains("ing ib device")),
        "the log reports devices or ports of a module that was not loaded:\n{}",
        lines.join("\n")
    );
    for port in (BASE..BASE + COUNT).filter(|&port| port != 33807) {
        A.bind(port)?.during(&format!("bind() to port {port}"))?;
    }
    check_free(&[Place::First, B], BASE, "after loading has failed")?;
    drop(holder);
    rig::module_load().during("once the port was free")?;
    check_taken(&ALL, BASE, "after the second modprobe")
}

fn taken_at_load(_: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    siw(Host::A)?;
    unload()?;
    let holder = A.bind(33807)?.during("bind()")?;
    holder.listen(1)?;
    load_fails(holder)
}

fn taken_by_ipv6_at_load(_: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    siw(Host::A)?;
    unload()?;
    A.enter()?;
    let holder = Sock::raw(libc::AF_INET6, libc::SOCK_STREAM, 0)?;
    // Dual-stack, so it has the IPv4 port, too.
    holder.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
    holder.bind((std::net::Ipv6Addr::UNSPECIFIED, 33807).into())?;
    sys::leave()?;
    load_fails(holder)
}

/// The module stays; the other namespaces have their ports.
fn taken_later(_: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    let holder = B.bind(33807)?.during("bind()")?;
    let log = Log::begin()?;
    siw(Host::A)?;
    log.find(&["33807", &format!("netns {}", B.inum()?), "siwA"])?;
    log.find(&["adding ib device siwA with port count 1"])?;
    check_taken(&[Place::First, A], BASE, "with siwA")?;
    for port in (BASE..BASE + COUNT).filter(|&port| port != 33807) {
        B.bind(port)?
            .during(&format!("bind() to port {port} beside a taken one"))?;
    }
    drop(holder);
    siw(Host::B)?;
    check_taken(&ALL, BASE, "with siwB, after the port was free")?;
    Ok(())
}

fn base(_: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    siw(Host::A)?;
    unload()?;
    for wrong in [0u16, 65521, 65535] {
        let log = Log::begin()?;
        check!(
            rig::run(&format!("modprobe smc_rs rsvd_ports_base={wrong}")).is_err(),
            "rsvd_ports_base={wrong} was not refused"
        );
        log.find(&["not loaded", &format!("rsvd_ports_base={wrong} ")])?;
    }
    // Not one that a client of an earlier test may still have.
    rig::run("modprobe smc_rs rsvd_ports_base=20000")?;
    check_taken(&ALL, 20000, "with rsvd_ports_base=20000")?;
    check_free(&ALL, BASE, "with rsvd_ports_base=20000")?;
    unload()?;
    check_free(&ALL, 20000, "after rmmod")?;
    rig::run("modprobe smc_rs rsvd_ports_base=65520")?;
    check_errno!(
        Place::First.bind(65535)?,
        libc::EADDRINUSE,
        "bind() to the last port of all"
    );
    unload()?;
    rig::module_load()?;
    check_taken(&ALL, BASE, "with the default base")
}
