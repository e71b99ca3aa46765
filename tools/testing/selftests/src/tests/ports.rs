//! The 16 TCP ports of eRDMA: reserved exactly where an iWARP device can be reached.
//!
//! siw is the iWARP device here: software, built out of tree from the kernel's own source.

use super::once;
use crate::kind::{Host, Kind};
use crate::rig;
use crate::runner::{Ctx, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};

pub const TESTS: [Test; 4] = [
    once("ports.follow_the_device", 120, follow_the_device),
    once("ports.given_back_at_unload", 120, given_back_at_unload),
    once("ports.taken_port_refuses_loading", 120, taken_port),
    once("ports.iwarp_device_falls_back", 120, iwarp_falls_back),
];

/// An iWARP device on host A; gone when dropped.
struct Iwarp;

impl Iwarp {
    fn new() -> Outcome<Iwarp> {
        // Built by tools/testing/qemu/build-drivers and brought along with smc_rs.ko.
        rig::run("modprobe siw")?;
        rig::run_on(Host::A, "rdma link add siwA type siw netdev vA")?;
        Ok(Iwarp)
    }
}

impl Drop for Iwarp {
    fn drop(&mut self) {
        for line in ["rdma link del siwA", "rmmod siw"] {
            if let Err(failure) = rig::run(line) {
                eprintln!("# {failure}");
            }
        }
    }
}

fn bind(host: Host, port: u16) -> std::io::Result<Sock> {
    let sock = Sock::new(host, Kind::Tcp4, 0)?;
    sock.bind(([0, 0, 0, 0], port).into())?;
    Ok(sock)
}

/// How many of a host's 16 ports cannot be had.
fn taken_ports(host: Host) -> std::io::Result<usize> {
    let mut taken = 0;
    for port in rig::PORTS {
        match bind(host, port) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => taken += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

fn await_reserved(host: Host, expected: bool) -> Outcome {
    let state = if expected { "reserved" } else { "free" };
    sys::eventually(
        &format!("the 16 ports of host {} {state}", host.name()),
        || Ok(taken_ports(host)? == if expected { 16 } else { 0 }),
    )?;
    // The neighbours of the 16 are nobody's business.
    for port in [rig::PORTS.start() - 1, rig::PORTS.end() + 1] {
        bind(host, port).during(&format!("port {port} of host {}", host.name()))?;
    }
    Ok(())
}

fn follow_the_device(_: &Ctx) -> Outcome {
    await_reserved(Host::A, false).during("before there is an iWARP device")?;
    let device = Iwarp::new()?;
    await_reserved(Host::A, true).during("with an iWARP device")?;
    drop(device);
    for host in Host::BOTH {
        await_reserved(host, false).during("when the iWARP device is gone")?;
    }
    Ok(())
}

fn given_back_at_unload(_: &Ctx) -> Outcome {
    let device = Iwarp::new()?;
    await_reserved(Host::A, true)?;
    rig::run(&format!("rmmod {}", rig::MODULE))?;
    let free = await_reserved(Host::A, false).during("after rmmod");
    // Loaded with the device already there.
    rig::module_load()?;
    free?;
    await_reserved(Host::A, true).during("after loading the module again")?;
    drop(device);
    await_reserved(Host::A, false).during("when the iWARP device is gone")
}

fn taken_port(_: &Ctx) -> Outcome {
    let port = rig::PORTS.start() + 7;
    let device = Iwarp::new()?;
    rig::run(&format!("rmmod {}", rig::MODULE))?;
    let taken = bind(Host::A, port)?;
    let loaded = rig::module_load();
    let left_behind = rig::module_loaded();
    let log = rig::run("dmesg")?;
    let in_use = taken_ports(Host::A)?;
    drop(taken);
    // The suite goes on with the module, whatever comes out here.
    if loaded.is_err() {
        rig::module_load()?;
    }
    let again = await_reserved(Host::A, true);
    drop(device);
    check!(
        loaded.is_err(),
        "the module was loaded although port {port} is taken"
    );
    check!(!left_behind, "a module that did not load is still there");
    check!(
        log.lines()
            .rev()
            .take(40)
            .any(|line| line.contains("smc_rs") && line.contains(&port.to_string())),
        "the log does not name port {port}"
    );
    check_eq!(
        in_use,
        1,
        "ports in use after loading failed, with the one that the test holds"
    );
    again.during("loading when the port is free again")
}

/// An iWARP device carries no data yet: where it is the only one, connections are TCP, and work.
fn iwarp_falls_back(ctx: &Ctx) -> Outcome {
    let device = Iwarp::new()?;
    rig::run("rdma link del rxeA")?;
    let outcome = ctx.unasked().pair().and_then(|pair| {
        pair.client.send_all(b"x")?;
        pair.server.recv_all(&mut [0; 1])?;
        pair.client.set_nonblocking(true)?;
        check_errno!(
            pair.client.recv(&mut [0; 1], 0),
            libc::EAGAIN,
            "recv() of nothing"
        );
        Ok(())
    });
    drop(device);
    rig::rdma_device_add(Host::A)?;
    outcome?;
    // Both devices are back to what the other tests expect.
    ctx.pair()
        .map(|_| ())
        .during("a connection over rxe afterwards")
}
