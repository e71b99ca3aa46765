//! A network with two RDMA devices on each host, and what the kernel shows of the links over them.

use super::link::fresh;
use super::pnet;
use crate::kind::Host;
use crate::link_groups::{self, lgr, Link};
use crate::rig;
use crate::runner::Ctx;
use crate::sys;
use crate::{check, Context, Fail, Outcome};
use std::time::Duration;

/// `enum smc_lgr_type`.
pub const SINGLE: u64 = 1;
pub const SYMMETRIC: u64 = 2;
pub const ASYMMETRIC_PEER: u64 = 3;
pub const ASYMMETRIC_LOCAL: u64 = 4;

pub fn second_device(host: Host) -> &'static str {
    match host {
        Host::A => "rxe2A",
        Host::B => "rxe2B",
    }
}

pub fn second_netdev(host: Host) -> &'static str {
    match host {
        Host::A => "v2A",
        Host::B => "v2B",
    }
}

/// Two network devices on each host, all at one switch, the second ones with RDMA devices on some hosts only.
/// All RDMA devices have one PNETID.
pub struct Second {
    hosts: Vec<Host>,
}

impl Second {
    /// `hosts` have the second device.
    pub fn new(hosts: &[Host]) -> Outcome<Second> {
        pnet::flush_both()?;
        let second = Second {
            hosts: hosts.to_vec(),
        };
        rig::run("ip -n A link del vA")?;
        await_no_devices()?;
        rig::run("ip netns add S")?;
        rig::run("ip -n S link add br0 mtu 9000 type bridge")?;
        rig::run("ip -n S link set br0 up")?;
        for host in Host::BOTH {
            each_address_on_its_device(host, true)?;
            lay_cable(host, 0)?;
            lay_cable(host, 1)?;
        }
        rig::attach_hosts()?;
        for host in Host::BOTH {
            second_netdev_up(host)?;
            pnet::add_ib(host, "NET1", host.rdma_device(), 1)?;
            pnet::add_ib(host, "NET1", second_device(host), 1)?;
        }
        for host in hosts {
            add_second(*host)?;
        }
        Ok(second)
    }

    /// Ends all link groups.
    pub(super) fn fresh(&self, ctx: &Ctx) -> Outcome {
        self.hosts
            .iter()
            .try_for_each(|host| remove_second(*host))?;
        fresh(ctx)?;
        self.hosts.iter().try_for_each(|host| add_second(*host))
    }
}

/// Whether a host answers for an address, and says it, by its own device only.
fn each_address_on_its_device(host: Host, on: bool) -> Outcome {
    sys::enter(host)?;
    for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
        let value = if on { value } else { "0" };
        std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{name}"), value).during(name)?;
    }
    sys::leave()?;
    Ok(())
}

/// From a host's first or second network device, which comes with it, to the switch.
fn lay_cable(host: Host, which: usize) -> Outcome {
    let number = host as usize + 1;
    let (name, dev) = (host.name(), [host.netdev(), second_netdev(host)][which]);
    rig::run(&format!(
        "ip link add {dev} address 02:00:00:09:0{which}:0{number} mtu 9000 netns {name} type veth peer name p{dev} mtu 9000 netns S"
    ))?;
    rig::run(&format!("ip -n S link set p{dev} master br0 up")).map(drop)
}

fn second_netdev_up(host: Host) -> Outcome {
    let (name, dev, address) = (host.name(), second_netdev(host), second_address(host));
    rig::run(&format!("ip -n {name} link set {dev} up"))?;
    // TCP takes the first device, as its routes are better.
    rig::run(&format!(
        "ip -n {name} addr add {address}/24 dev {dev} noprefixroute"
    ))?;
    second_route(host)
}

fn second_address(host: Host) -> String {
    format!("10.9.0.{}", 11 + host as usize)
}

fn second_route(host: Host) -> Outcome {
    let (name, dev, address) = (host.name(), second_netdev(host), second_address(host));
    rig::run(&format!(
        "ip -n {name} route add 10.9.0.0/24 dev {dev} src {address} metric 500"
    ))
    .map(drop)
}

/// The second port is up again; its routes had gone with it.
pub(super) fn second_port_up(host: Host) -> Outcome {
    let (name, dev) = (host.name(), second_netdev(host));
    rig::run(&format!("ip -n {name} link set {dev} up"))?;
    second_route(host)
}

/// The second network device is unregistered, and its RDMA device goes with it.
pub(super) fn second_netdev_goes(host: Host) -> Outcome {
    rig::run(&format!(
        "ip -n {} link del {}",
        host.name(),
        second_netdev(host)
    ))
    .map(drop)
}

pub(super) fn second_netdev_comes(host: Host) -> Outcome {
    lay_cable(host, 1)?;
    second_netdev_up(host)?;
    add_second(host)
}

fn await_no_devices() -> Outcome {
    sys::eventually("no RDMA devices", || {
        Ok(rig::run("rdma link show").is_ok_and(|links| links.trim().is_empty()))
    })?;
    Ok(())
}

impl Drop for Second {
    /// The next test is to find the network as ever, also if this one has failed halfway: what can be restored is.
    fn drop(&mut self) {
        let tried = |step: Outcome| {
            if let Err(fail) = step {
                eprintln!("# cannot restore the network: {fail}");
            }
        };
        for host in Host::BOTH {
            for dev in [host.netdev(), second_netdev(host)] {
                if rig::has_netdev(host, dev) {
                    tried(rig::run(&format!("ip -n {} link del {dev}", host.name())).map(drop));
                }
            }
            tried(each_address_on_its_device(host, false));
        }
        tried(rig::run("ip netns del S").map(drop));
        tried(await_no_devices());
        tried(pnet::flush_both());
        tried(rig::join_hosts());
    }
}

/// Gives a host its second RDMA device.
pub fn add_second(host: Host) -> Outcome {
    let kind = rig::SoftRoce::here().link_type();
    let (device, netdev) = (second_device(host), second_netdev(host));
    rig::run_on(
        host,
        &format!("rdma link add {device} type {kind} netdev {netdev}"),
    )?;
    Ok(())
}

/// Takes it away again.
pub(super) fn remove_second(host: Host) -> Outcome {
    rig::run(&format!("rdma link del {}", second_device(host))).map(drop)
}

/// Until a host's second RDMA device has the address that SMC-Rv2 names.
pub(super) fn second_gid_comes(host: Host) -> Outcome {
    let ports = format!("/sys/class/infiniband/{}/ports/1/gids", second_device(host));
    sys::eventually(&format!("IPv4 GID of {}", second_device(host)), || {
        Ok((0..16).any(|index| {
            std::fs::read_to_string(format!("{ports}/{index}"))
                .is_ok_and(|gid| gid.contains(":ffff:0a09:"))
        }))
    })?;
    Ok(())
}

/// Type of a host's only group, and its links.
pub fn shown(host: Host) -> Outcome<(u64, Vec<Link>)> {
    let mut groups = all_shown(host)?;
    let group = groups.pop();
    check!(groups.is_empty(), "there is more than one group");
    group.ok_or_else(|| Fail("there is no group".into()))
}

/// The same of all groups of a host.
fn all_shown(host: Host) -> Outcome<Vec<(u64, Vec<Link>)>> {
    sys::enter(host)?;
    let groups = link_groups::here()?.into_iter();
    groups
        .map(|group| Ok((group.attrs.number(lgr::TYPE)?, group.links)))
        .collect()
}

/// Until a host's group is of this type, with its links in use on these devices.
pub fn await_links(host: Host, kind: u64, devices: &[&str]) -> Outcome {
    let mut last = String::new();
    sys::within(
        &format!("host {} has links on {devices:?}", host.name()),
        Duration::from_secs(40),
        &mut || {
            let now = shown(host);
            last = format!("{now:?}");
            let Ok((group, links)) = now else {
                return Ok(false);
            };
            let mut used: Vec<&str> = links.iter().map(|link| link.device.as_str()).collect();
            used.sort_unstable();
            Ok(group == kind && used == devices && links.iter().all(|link| link.active))
        },
    )
    .map_err(|error| Fail(format!("{error}; it has {last}")))
    .map(drop)
}

/// Until both hosts have a link on each of their devices.
pub fn await_both() -> Outcome {
    for host in Host::BOTH {
        await_links(
            host,
            SYMMETRIC,
            &[second_device(host), host.rdma_device()].sorted(),
        )?;
    }
    Ok(())
}

/// Until every group of both hosts, and these are so many, has two links in use.
pub(super) fn await_all_symmetric(least: usize) -> Outcome {
    for host in Host::BOTH {
        let mut last = String::new();
        sys::within(
            &format!("two links in all groups of host {}", host.name()),
            Duration::from_secs(60),
            &mut || {
                let now = all_shown(host)?;
                last = format!("{now:?}");
                Ok(now.len() >= least
                    && now.iter().all(|(kind, links)| {
                        *kind == SYMMETRIC && links.iter().all(|link| link.active)
                    }))
            },
        )
        .map_err(|error| Fail(format!("{error}; it has {last}")))?;
    }
    Ok(())
}

pub trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for [&str; 2] {
    fn sorted(mut self) -> Self {
        self.sort_unstable();
        self
    }
}
