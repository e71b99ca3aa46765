//! The two hosts inside the test machine, the module, and the oracles that find leaks.

use crate::kind::Host;
use crate::ktap::Report;
use crate::locking;
use crate::proc_net;
use crate::sys::{self, Sock};
use crate::{check, Context, Fail, Outcome};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub const MODULE: &str = "smc_rs";
const MODULE_FILE: &str = "/rig/modules/smc_rs.ko";
/// The ports of eRDMA's out-of-band connections.
pub const PORTS: std::ops::RangeInclusive<u16> = 33800..=33815;

/// Runs a program and gives its output; its words are the error if it fails.
pub fn run(line: &str) -> Outcome<String> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program)
        .args(words)
        .output()
        .during(&format!("cannot start '{line}'"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Fail(format!(
            "'{line}' failed ({}): {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim()
        )))
    }
}

/// Runs a program on a host.
pub fn run_on(host: Host, line: &str) -> Outcome<String> {
    run(&format!("ip netns exec {} {line}", host.name()))
}

/// Which Soft-RoCE the hosts have, or what else: one or the other, for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftRoce {
    /// The kernel's own, which has GIDs of RoCEv2 only: SMC-Rv2 over IPv4.
    Stock,
    /// Ours for tests (tools/testing/qemu/rxe_v1.patch), with GIDs of RoCEv1 only until
    /// [`set_gid_types`] says else: SMC-Rv1 over IPv4 and IPv6.
    V1,
    /// None: two emulated eRDMA adapters (tools/testing/erdma-sim/run --devices 2), one for each host.
    Adapter,
}

impl SoftRoce {
    /// Name of its module.
    pub fn module(self) -> &'static str {
        match self {
            SoftRoce::Stock => "rdma_rxe",
            SoftRoce::V1 => "rxe_v1",
            SoftRoce::Adapter => "erdma",
        }
    }

    /// What `rdma link add` makes; adapters cannot be made.
    pub fn link_type(self) -> &'static str {
        match self {
            SoftRoce::Stock => "rxe",
            SoftRoce::V1 => "rxe_v1",
            SoftRoce::Adapter => "none",
        }
    }

    /// The counter of packets that a device has sent.
    pub fn packet_counter(self) -> &'static str {
        match self {
            SoftRoce::Stock | SoftRoce::V1 => "sent_pkts",
            SoftRoce::Adapter => "tx_packets_cnt",
        }
    }

    /// The one that is loaded.
    pub fn here() -> SoftRoce {
        if Path::new("/sys/module/rxe_v1").exists() {
            SoftRoce::V1
        } else if Path::new("/sys/module/erdma").exists() {
            SoftRoce::Adapter
        } else {
            SoftRoce::Stock
        }
    }
}

/// Which GIDs the devices made from now on have: 1 RoCEv1, 2 RoCEv2, 3 both. [`SoftRoce::V1`] only.
pub fn set_gid_types(types: u8) -> Outcome {
    std::fs::write("/sys/module/rxe_v1/parameters/gid_types", types.to_string())
        .during("parameter gid_types of rxe_v1")
}

/// Joins two namespaces by veth, with a Soft-RoCE device on each, and waits until both can be used.
pub fn hosts_up(roce: SoftRoce) -> Outcome {
    for module in ["veth", "ib_core", "ib_uverbs", "rdma_ucm"] {
        run(&format!("modprobe {module}"))?;
    }
    if roce == SoftRoce::Adapter {
        find_adapters()?;
    } else {
        run(&format!("modprobe {}", roce.module()))?;
    }
    if roce == SoftRoce::V1 {
        set_gid_types(1)?;
    }
    if slowness() > 1 {
        // Before the kernel complains that somebody keeps a network device (Documentation/testing.rst, "What rxe itself does").
        sys::write_file("/proc/sys/net/core/netdev_unregister_timeout_secs", "90")?;
    }
    run("ip netns add A")?;
    run("ip netns add B")?;
    for host in Host::BOTH {
        run(&format!("ip netns set {} {}", host.name(), nsid(host)))?;
    }
    join_hosts()
}

/// Loads the driver, which looks for the adapters' network devices in the first namespace, and gives all of them the
/// hosts' names.
fn find_adapters() -> Outcome {
    run("modprobe -a virtio_pci virtio_net")?;
    for (number, host) in Host::BOTH.into_iter().enumerate() {
        let net = format!("eth{number}");
        let here = |name: &str| Path::new(&format!("/sys/class/net/{name}")).exists();
        sys::eventually(&format!("{net} is there"), || {
            Ok(here(&net) || here(host.netdev()))
        })?;
        if here(&net) {
            run(&format!("ip link set {net} name {}", host.netdev()))?;
        }
    }
    run("modprobe erdma")?;
    for (number, host) in Host::BOTH.into_iter().enumerate() {
        let device = format!("erdma_{number}");
        let here = |name: &str| Path::new(&format!("/sys/class/infiniband/{name}")).exists();
        sys::eventually(&format!("{device} is there"), || {
            Ok(here(&device) || here(host.rdma_device()))
        })?;
        if here(&device) {
            run(&format!(
                "rdma dev set {device} name {}",
                host.rdma_device()
            ))?;
        }
    }
    Ok(())
}

/// Whether a host has a network device of this name.
pub fn has_netdev(host: Host, dev: &str) -> bool {
    run(&format!("ip -n {} link show dev {dev}", host.name())).is_ok()
}

/// Whether Soft-RoCE of a host receives: it has one socket for all its devices there, of IPv4 for RoCEv2.
pub fn hears_roce(host: Host) -> Outcome<bool> {
    /// RoCEv2's.
    const PORT: u16 = 4791;

    let sockets = proc_net::sockets_of(host, "udp")?;
    Ok(sockets.iter().any(|socket| socket.local.port() == PORT))
}

/// The network between the hosts.
pub fn join_hosts() -> Outcome {
    if SoftRoce::here() == SoftRoce::Adapter {
        for host in Host::BOTH {
            run(&format!(
                "ip link set {} netns {}",
                host.netdev(),
                host.name()
            ))?;
        }
        return attach_hosts();
    }
    // A known, different MAC on each: SMC tells peers apart by it.
    run("ip link add vA address 02:00:00:09:00:01 mtu 9000 netns A type veth peer name vB address 02:00:00:09:00:02 mtu 9000 netns B")?;
    attach_hosts()
}

/// Makes the network devices of the hosts ready, and the RDMA devices on them.
pub fn attach_hosts() -> Outcome {
    for host in Host::BOTH {
        let (name, dev) = (host.name(), host.netdev());
        // The 16 eRDMA ports lie in the default range for clients: a connection of a test that its
        // peer never finishes would hold one for minutes.
        sys::enter(host)?;
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "35000 60999")
            .during("the range of client ports")?;
        // The link-local address, which is a GID, without duplicate address detection, too.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{dev}/accept_dad"), "0")
            .during("no duplicate address detection")?;
        sys::leave()?;
        run(&format!("ip -n {name} link set lo up"))?;
        run(&format!("ip -n {name} link set {dev} up"))?;
        run(&format!(
            "ip -n {name} addr add {}/24 dev {dev}",
            host.ipv4()
        ))?;
        // Without duplicate address detection, which would keep the address unusable for a second.
        run(&format!(
            "ip -n {name} addr add {}/64 dev {dev} nodad",
            host.ipv6()
        ))?;
    }
    for host in Host::BOTH {
        rdma_device_add(host)?;
    }
    // The neighbour must be known before a queue pair can be made ready.
    run("ip netns exec A ping -q -c 1 -W 10 10.9.0.2")?;
    run("ip netns exec A ping -q -c 1 -W 10 fd09::2")?;
    Ok(())
}

/// The GIDs of a host's RDMA device.
pub fn gids(host: Host) -> Vec<String> {
    let dir = format!("/sys/class/infiniband/{}/ports/1/gids", host.rdma_device());
    // The table has 1024 entries, which takes seconds to read; it is filled from its beginning.
    (0..32)
        .filter_map(|index| std::fs::read_to_string(format!("{dir}/{index}")).ok())
        .map(|gid| gid.trim().to_owned())
        .collect()
}

/// Number under which the first namespace knows a host's: it has one as long as that is alive.
fn nsid(host: Host) -> u32 {
    match host {
        Host::A => 7001,
        Host::B => 7002,
    }
}

/// Deletes the hosts and waits until namespaces and RDMA devices are gone, which happens
/// asynchronously. A device alone proves little: it goes with its network device, and that with
/// the other end.
pub fn hosts_down() -> Outcome {
    sys::leave()?;
    // What nobody has any more, and waits for the other host's answer to its FIN, would wait for minutes.
    for host in Host::BOTH {
        run(&format!(
            "ip netns exec {} ss -K -t state last-ack state closing state fin-wait-1",
            host.name()
        ))?;
    }
    // Whatever keeps a namespace then is most likely one of these.
    let mut sockets = Vec::new();
    for host in Host::BOTH {
        let left = "ss -n -o -t state all exclude time-wait";
        sockets.push(run(&format!("ip netns exec {} {left}", host.name()))?);
        run(&format!("ip netns del {}", host.name()))?;
    }
    for (host, sockets) in Host::BOTH.into_iter().zip(sockets) {
        sys::eventually(
            &format!("namespace {} gone after 'ip netns del'", host.name()),
            || {
                let known = run("ip netns list-id")?;
                Ok(!known.contains(&format!("nsid {}", nsid(host))))
            },
        )
        .during(&format!("its TCP sockets were\n{sockets}"))?;
        sys::eventually(
            &format!("{} gone after 'ip netns del'", host.rdma_device()),
            || {
                // An adapter stays; its network device comes back.
                Ok(match SoftRoce::here() {
                    SoftRoce::Adapter => {
                        Path::new(&format!("/sys/class/net/{}", host.netdev())).exists()
                    }
                    SoftRoce::Stock | SoftRoce::V1 => {
                        !Path::new(&format!("/sys/class/infiniband/{}", host.rdma_device()))
                            .exists()
                    }
                })
            },
        )?;
    }
    Ok(())
}

/// Hosts as new, after a test that may have left anything.
pub fn hosts_again(roce: SoftRoce) -> Outcome {
    hosts_down()?;
    hosts_up(roce)
}

/// Whether this boot brought the module along.
pub fn module_present() -> bool {
    Path::new(MODULE_FILE).exists()
}

pub fn module_loaded() -> bool {
    Path::new(&format!("/sys/module/{MODULE}")).exists()
}

pub fn module_load() -> Outcome {
    run(&format!("modprobe {MODULE}"))?;
    Ok(())
}

/// The module's reference count.
pub fn module_users() -> Outcome<usize> {
    let path = format!("/sys/module/{MODULE}/refcnt");
    sys::read_file(&path)?
        .trim()
        .parse()
        .during(&format!("{path} is no number"))
}

/// What `rdma resource` counts, per device.
pub fn rdma_resources() -> Outcome<String> {
    // Without the running number of a device, which changes when it is made anew.
    let mut lines: Vec<String> = run("rdma resource show")?
        .lines()
        .filter_map(|line| Some(format!("{}\n", line.split_once(": ")?.1.trim())))
        .collect();
    lines.sort();
    Ok(lines.concat())
}

/// Gives a host its RDMA device and waits until it can be used over IPv4.
pub fn rdma_device_add(host: Host) -> Outcome {
    if SoftRoce::here() == SoftRoce::Adapter {
        return await_gid(host);
    }
    run_on(
        host,
        &format!(
            "rdma link add {} type {} netdev {}",
            host.rdma_device(),
            SoftRoce::here().link_type(),
            host.netdev()
        ),
    )?;
    await_gid(host)
}

/// Waits for the GID of a host's IPv4 address: the table follows the addresses asynchronously.
pub fn await_gid(host: Host) -> Outcome {
    let mapped = format!(":ffff:0a09:{:04x}", host.ipv4().octets()[3]);
    sys::eventually(&format!("IPv4 GID of {}", host.rdma_device()), || {
        Ok(gids(host).iter().any(|gid| gid.ends_with(&mapped)))
    })?;
    Ok(())
}

/// Sockets of the SMC protocols that a namespace still has, as /proc/net/protocols counts them.
pub fn smc_sockets() -> io::Result<usize> {
    let text = sys::read_file("/proc/thread-self/net/protocols")?;
    Ok(text
        .lines()
        .filter(|line| line.starts_with("SMC"))
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<usize>().ok())
        .sum())
}

/// One thing that must hold after every suite.
pub struct Oracle {
    pub name: &'static str,
    pub needs_module: bool,
    pub check: fn(&Before) -> Outcome,
}

/// What was so before the suite.
pub struct Before {
    resources: String,
}

impl Before {
    /// To be taken when the hosts are up and the module is not yet loaded.
    pub fn take() -> Outcome<Before> {
        Ok(Before {
            resources: rdma_resources()?,
        })
    }
}

/// In this order: each one takes down what the next one needs to be gone.
const ORACLES: [Oracle; 6] = [
    Oracle {
        name: "oracle.no_sockets_left",
        needs_module: true,
        check: |_| {
            for host in Host::BOTH {
                sys::enter(host)?;
                sys::eventually(
                    &format!(
                        "no SMC sockets in namespace {} (/proc/net/protocols)",
                        host.name()
                    ),
                    || Ok(smc_sockets()? == 0),
                )?;
            }
            sys::leave()?;
            Ok(())
        },
    },
    Oracle {
        name: "oracle.module_not_in_use",
        needs_module: true,
        check: |_| {
            sys::eventually("module reference count 0", || {
                Ok(module_users().unwrap_or(usize::MAX) == 0)
            })
            .map_err(|error| Fail(format!("{error}; it is {:?}", module_users().ok())))
        },
    },
    Oracle {
        name: "oracle.rmmod_within_5_s",
        needs_module: true,
        check: |_| {
            let begin = Instant::now();
            run(&format!("timeout 60 rmmod {MODULE}"))?;
            let took = begin.elapsed();
            // Longer where everything takes longer.
            if took > Duration::from_secs(5 * slowness()) {
                return Err(Fail(format!("rmmod took {} ms", took.as_millis())));
            }
            Ok(())
        },
    },
    Oracle {
        name: "oracle.rdma_resources_returned",
        needs_module: false,
        check: |before| {
            let mut now = String::new();
            sys::eventually("rdma resources as before the suite", || {
                now = rdma_resources().unwrap_or_default();
                Ok(now == before.resources)
            })
            .map_err(|error| Fail(format!("{error}\nbefore:\n{}now:\n{now}", before.resources)))
        },
    },
    Oracle {
        name: "oracle.ports_33800_33815_free",
        needs_module: false,
        check: |_| {
            for host in Host::BOTH {
                for port in PORTS {
                    let sock = Sock::new(host, crate::kind::Kind::Tcp4, 0)?;
                    // A finished connection of a test may still be in TIME-WAIT on this port, which
                    // is none of the module's doing. A reservation does not share its port.
                    sock.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
                    sock.bind(([0, 0, 0, 0], port).into())
                        .during(&format!("port {port} in namespace {}", host.name()))?;
                }
            }
            sys::leave()?;
            Ok(())
        },
    },
    Oracle {
        name: "oracle.namespaces_go_away",
        needs_module: false,
        check: |_| hosts_down(),
    },
];

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
const LOCKDEP: &str = "/proc/lockdep_stats";

/// Whether this kernel can be told to refuse memory.
pub fn fault_injection() -> bool {
    Path::new("/sys/kernel/debug/failslab").exists()
}

/// How many times as long a test may take on this kernel as on the stock one.
pub fn slowness() -> u64 {
    if Path::new(LOCKDEP).exists() || fault_injection() {
        3
    } else {
        1
    }
}

/// Whether this kernel tells its types, as programs of BPF need it.
pub fn has_btf() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// Asks all of them, one result each; what fails is also said on the terminal, with when that was.
pub fn judge(report: &mut Report, before: &Before, when: &str) {
    for oracle in oracles() {
        let outcome = (oracle.check)(before);
        if let Err(failure) = &outcome {
            println!("{when}: {} FAILED: {failure}", oracle.name);
        }
        report.result(oracle.name, outcome.into());
    }
}

/// What has to hold after a suite on this kernel: debug kernels can tell more.
pub fn oracles() -> Vec<Oracle> {
    let mut all = Vec::new();
    let lockdep = Path::new(LOCKDEP).exists();
    if lockdep {
        all.push(Oracle {
            name: "oracle.lockdep_was_on",
            needs_module: false,
            check: |_| lockdep_was_on(),
        });
    }
    let kmemleak = Path::new(KMEMLEAK).exists();
    for oracle in ORACLES {
        let is_last_of_module = oracle.name == "oracle.rmmod_within_5_s";
        if is_last_of_module && lockdep {
            all.push(Oracle {
                name: "oracle.locks_in_order",
                needs_module: true,
                check: |_| locking::order_is_documented(),
            });
        }
        // While the module is there its functions have names in the report. What it still had then is looked
        // for in the end.
        if is_last_of_module && kmemleak {
            all.push(Oracle {
                name: "oracle.no_memory_leaked",
                needs_module: true,
                check: |_| no_memory_leaked(),
            });
        }
        all.push(oracle);
    }
    if kmemleak {
        all.push(Oracle {
            name: "oracle.no_memory_left",
            needs_module: true,
            check: |_| no_memory_leaked(),
        });
    }
    all
}

/// Lockdep says nothing any more after its first report, and also when its tables are full.
fn lockdep_was_on() -> Outcome {
    let stats = sys::read_file(LOCKDEP)?;
    let on = stats.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("debug_locks:") && words.next() == Some("1")
    });
    check!(
        on,
        "lockdep was off in the end (see the console for why):\n{stats}"
    );
    Ok(())
}

/// What was there when a run began is none of its leaks.
pub fn forget_leaks() -> Outcome {
    if Path::new(KMEMLEAK).exists() {
        sys::write_file(KMEMLEAK, "scan")?;
        sys::write_file(KMEMLEAK, "clear")?;
    }
    Ok(())
}

fn no_memory_leaked() -> Outcome {
    // It takes for lost only what is older than five seconds, and what two scans found so.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(6));
        sys::write_file(KMEMLEAK, "scan")
            .map_err(|why| Fail(format!("kmemleak has given up (see the console): {why}")))?;
    }
    let leaks = sys::read_file(KMEMLEAK)?;
    check!(
        leaks.is_empty(),
        "memory that nothing points to:\n{}",
        leaks.lines().take(60).collect::<Vec<_>>().join("\n")
    );
    Ok(())
}

/// Whether a TCP socket of host B listens on a port; SMC's have one below.
pub fn listens(port: u16) -> io::Result<bool> {
    let sockets = proc_net::sockets_of(Host::B, "tcp")?;
    Ok(sockets.iter().any(|socket| socket.listens_on(port)))
}
