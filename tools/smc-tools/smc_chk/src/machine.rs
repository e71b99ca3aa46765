// SPDX-License-Identifier: GPL-2.0

//! What there has to be on this machine.

use crate::report::Report;
use smc_tools_common::smc::{Device, Port, Smc};
use smc_tools_common::stats::{Fallbacks, Stats};
use smc_tools_common::{interface, pnet, reason, Error};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Below which the RDMA devices are.
const INFINIBAND: &str = "/sys/class/infiniband";
/// Bytes of a page.
const PAGE: u64 = 4096;

/// A GID of a port, with the protocol that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gid {
    address: IpAddr,
    roce_v2: bool,
}

/// The GIDs of a port of a device.
fn gids(device: &str, port: u8) -> Vec<Gid> {
    gids_below(
        &Path::new(INFINIBAND)
            .join(device)
            .join("ports")
            .join(port.to_string()),
    )
}

fn gids_below(port: &Path) -> Vec<Gid> {
    let mut gids = Vec::new();
    for entry in fs::read_dir(port.join("gids"))
        .into_iter()
        .flatten()
        .flatten()
    {
        // A free entry has no type.
        let kind = fs::read_to_string(port.join("gid_attrs/types").join(entry.file_name()));
        let text = fs::read_to_string(entry.path());
        let (Ok(kind), Ok(text)) = (kind, text) else {
            continue;
        };
        let Ok(address) = text.trim().parse::<std::net::Ipv6Addr>() else {
            continue;
        };
        gids.push(Gid {
            address: address.to_canonical(),
            roce_v2: kind.trim() == "RoCE v2",
        });
    }
    gids
}

/// What a port is good for, with an address of ours.
pub(crate) fn check_gids(report: &mut Report, port: &str, gids: &[Gid], source: Option<IpAddr>) {
    let v2: Vec<&Gid> = gids.iter().filter(|gid| gid.roce_v2).collect();
    let ours = |gid: &&&Gid| match source {
        Some(source) => gid.address == source,
        None => gid.address.is_ipv4(),
    };
    if let Some(gid) = v2.iter().find(ours) {
        if gid.address.is_ipv4() {
            report.passed(
                "address",
                format!("{port} has RoCEv2 address {}", gid.address),
            );
        } else {
            report.note(
                "address",
                format!("{port} has RoCEv2 address {}, but SMC-Rv2.1 is for IPv4: only RoCEv1 takes IPv6", gid.address),
            );
        }
    } else if gids.iter().any(|gid| !gid.roce_v2) {
        report.note(
            "address",
            format!("{port} has RoCEv1 addresses only: SMC-Rv1, with peers of the same subnet"),
        );
    } else {
        let source = source.map_or("an IPv4 address".into(), |source| source.to_string());
        report.failed(
            "address",
            format!("{port} has no RoCEv2 address for {source}"),
            "give the network device of that port the address ('ip address add'), and look whether \
             /sys/class/infiniband/DEVICE/ports/PORT/gids has it",
        );
    }
}

/// Whether the module is there; the rest needs it.
pub(crate) fn module(report: &mut Report) -> Result<Option<Smc>, Error> {
    match Smc::open() {
        Ok(mut smc) => {
            let info = smc.system_info()?;
            report.passed(
                "module",
                format!(
                    "SMC {}.{} is loaded; peers know this host as '{}'",
                    info.version, info.release, info.host
                ),
            );
            Ok(Some(smc))
        }
        Err(Error::NotLoaded) => {
            report.failed(
                "module",
                "no SMC module is loaded",
                "run 'modprobe smc_rs' as root",
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// How programs of this namespace come to SMC.
pub(crate) fn programs(report: &mut Report) {
    let text = match sysctl("tcp2smc").as_deref() {
        Some("1") => "net.smc.tcp2smc=1: new IPv4 stream sockets of this namespace are SMC sockets",
        Some("2") => "net.smc.tcp2smc=2: new TCP sockets of this namespace are SMC sockets",
        _ => "net.smc.tcp2smc=0: only programs under 'smc_run' and those that ask for SMC themselves use it",
    };
    report.note("programs", text);
}

/// `None` where there is no such file or it cannot be read.
fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/smc/{name}")).ok()?;
    Some(text.trim().to_owned())
}

/// Enterprise IDs and the limit of handshakes.
pub(crate) fn settings(report: &mut Report, smc: &mut Smc) -> Result<(), Error> {
    let ueids = smc.ueids()?;
    if ueids.is_empty() {
        report.failed(
            "UEID",
            "this namespace has no enterprise ID, so there is no SMC-Rv2",
            "run 'smcr ueid add NAME' with the same NAME as on the peers, as root",
        );
    } else {
        report.passed(
            "UEID",
            format!("{}: the peer needs one of these", ueids.join(", ")),
        );
    }
    if smc.handshakes_limited()? {
        report.note(
            "handshakes",
            "net.smc.limit_smc_hs=1: a listener under load answers as TCP",
        );
    }
    Ok(())
}

/// The port's device, port and network device.
fn port_name(device: &Device, port: &Port) -> String {
    format!("{} port {}", device.name, port.number)
}

/// RDMA devices and their ports; only those of `interfaces`, if any are named.
pub(crate) fn devices(
    report: &mut Report,
    smc: &mut Smc,
    interfaces: &[String],
) -> Result<(), Error> {
    let devices = smc.devices()?;
    let table = table()?;
    if interfaces.is_empty() {
        if devices.is_empty() {
            report.failed(
                "device",
                "there is no RDMA device that this network namespace may use",
                "load the driver of your card, or make a software one: 'rdma link add rxe0 type rxe netdev INTERFACE'",
            );
        }
        for device in &devices {
            for port in &device.ports {
                let netdev = interface::name(port.ifindex);
                check_port(report, device, port, netdev.as_deref(), None);
            }
        }
        // An entry keeps an interface from its own device, if that is not in the same network.
        for name in table.iter().filter_map(|entry| entry.ethernet.as_deref()) {
            let Some(ifindex) = interface::index(name) else {
                continue;
            };
            if ports_for(&devices, &table, name, ifindex).is_empty() {
                for_interface(report, &devices, &table, name, ifindex, None);
            }
        }
        return Ok(());
    }
    for name in interfaces {
        let Some(ifindex) = interface::index(name) else {
            report.failed(
                "interface",
                format!("there is no {name} in this network namespace"),
                "'ip link' lists those that are",
            );
            continue;
        };
        for_interface(report, &devices, &table, name, ifindex, None);
    }
    Ok(())
}

/// The table of physical networks; empty where the kernel has none.
pub(crate) fn table() -> Result<Vec<pnet::Entry>, Error> {
    match pnet::Table::open().and_then(|mut table| table.entries(None)) {
        Err(Error::NotLoaded) => Ok(Vec::new()),
        other => other,
    }
}

/// The physical network of an interface, by the table.
fn pnet_of<'t>(table: &'t [pnet::Entry], interface: &str) -> Option<&'t str> {
    let named = |entry: &&pnet::Entry| entry.ethernet.as_deref() == Some(interface);
    table.iter().find(named).map(|entry| entry.name.as_str())
}

/// The ports that SMC may use for an interface: those on its physical network if the table names one, else its own.
fn ports_for<'d>(
    devices: &'d [Device],
    table: &[pnet::Entry],
    name: &str,
    ifindex: u32,
) -> Vec<(&'d Device, &'d Port)> {
    let pnet = pnet_of(table, name).filter(|pnet| !pnet.is_empty());
    devices
        .iter()
        .flat_map(|device| device.ports.iter().map(move |port| (device, port)))
        .filter(|(_, port)| match pnet {
            Some(pnet) => port.pnet_id == pnet,
            None => port.ifindex == ifindex,
        })
        .collect()
}

/// The RDMA devices for an interface, and our address there.
pub(crate) fn for_interface(
    report: &mut Report,
    devices: &[Device],
    table: &[pnet::Entry],
    name: &str,
    ifindex: u32,
    source: Option<IpAddr>,
) {
    let ports = ports_for(devices, table, name, ifindex);
    if let (true, Some(pnet)) = (ports.is_empty(), pnet_of(table, name)) {
        report.failed(
            "device",
            format!("no RDMA device is on {pnet}, the physical network of {name}"),
            format!(
                "put its RDMA device there, too ('smc_pnet -a {pnet} -D DEVICE'), or take {name} out ('smc_pnet -d {pnet}')"
            ),
        );
    } else if ports.is_empty() {
        report.failed(
            "device",
            format!("no RDMA device belongs to {name}"),
            format!(
                "load the driver of the card, make a software one ('rdma link add rxe0 type rxe netdev {name}'), or name \
                 both in 'smc_pnet'"
            ),
        );
    }
    for (device, port) in ports {
        check_port(report, device, port, Some(name), source);
    }
}

fn check_port(
    report: &mut Report,
    device: &Device,
    port: &Port,
    netdev: Option<&str>,
    source: Option<IpAddr>,
) {
    let port_name = port_name(device, port);
    let Some(netdev) = netdev else {
        report.note(
            "device",
            format!("{port_name} is for a network device of another namespace"),
        );
        return;
    };
    let pnet = match port.pnet_id.as_str() {
        "" => String::new(),
        id => format!(", PNETID {id}"),
    };
    if !port.active {
        report.failed(
            "device",
            format!("{port_name}, for {netdev}, is not active"),
            format!("bring the link up: 'ip link set {netdev} up', and look after the cable"),
        );
        return;
    }
    report.passed(
        "device",
        format!("{port_name}, for {netdev}, is active{pnet}"),
    );
    let gids = gids(&device.name, port.number);
    report.detail("address", || format!("{gids:?}"));
    check_gids(report, &port_name, &gids, source);
}

/// Free blocks of at least so many bytes, from the text of `/proc/buddyinfo`.
fn free_blocks(buddyinfo: &str, bytes: u64) -> u64 {
    let order = bytes.div_ceil(PAGE).next_power_of_two().trailing_zeros() as usize;
    let zones = buddyinfo.lines().map(|line| {
        // "Node 0, zone Normal", and a number for each order.
        let counts = line.split_whitespace().skip(4).skip(order);
        counts
            .filter_map(|count| count.parse::<u64>().ok())
            .sum::<u64>()
    });
    zones.sum()
}

/// Whether there is memory for the rings of a connection.
pub(crate) fn memory(report: &mut Report) {
    let size = |name| sysctl(name).and_then(|text| text.parse::<u64>().ok());
    let (Some(wmem), Some(rmem)) = (size("wmem"), size("rmem")) else {
        report.note("memory", "net.smc.wmem and rmem cannot be read here");
        return;
    };
    // Rings have a power of two, from 16 KiB to 512 KiB.
    let ring = |bytes: u64| bytes.clamp(16 << 10, 512 << 10).next_power_of_two();
    let sizes = format!(
        "rings of {} KiB to send and {} KiB to receive",
        ring(wmem) >> 10,
        ring(rmem) >> 10
    );
    let Ok(buddyinfo) = fs::read_to_string("/proc/buddyinfo") else {
        report.note(
            "memory",
            format!("{sizes}; how much is free cannot be read here"),
        );
        return;
    };
    let free = free_blocks(&buddyinfo, ring(wmem).max(ring(rmem)));
    if free > 0 {
        report.passed(
            "memory",
            format!("{sizes}: {free} free blocks are large enough"),
        );
    } else {
        report.failed(
            "memory",
            format!("{sizes}, but no free block is that large: connections get smaller ones or fall back"),
            "free some memory and let the kernel move the rest together: 'echo 1 >/proc/sys/vm/compact_memory', as root",
        );
    }
}

/// What became of connections so far.
pub(crate) fn history(report: &mut Report, smc: &mut Smc) -> Result<(), Error> {
    let stats = smc.stats()?;
    for line in history_lines(&stats) {
        report.note("history", line);
    }
    Ok(())
}

fn history_lines(stats: &Stats) -> Vec<String> {
    let tech = &stats.smcr;
    let mut lines = vec![format!(
        "{} connections by SMC-R as the client and {} as the server; {} and {} handshakes failed",
        tech.client_v1 + tech.client_v2,
        tech.server_v1 + tech.server_v2,
        stats.client_failed,
        stats.server_failed
    )];
    for (side, fallbacks) in [
        ("client", &stats.client_fallbacks),
        ("server", &stats.server_fallbacks),
    ] {
        if fallbacks.total > 0 {
            lines.push(fallback_line(side, fallbacks));
        }
    }
    lines
}

fn fallback_line(side: &str, fallbacks: &Fallbacks) -> String {
    let reasons: Vec<String> = fallbacks
        .reasons
        .iter()
        .map(|(code, count)| format!("{count} {}", in_words(*code)))
        .collect();
    format!(
        "fell back as the {side}: {}: {}",
        fallbacks.total,
        reasons.join(", ")
    )
}

/// A reason with its name.
pub(crate) fn in_words(code: u32) -> String {
    match (reason::name(code), reason::text(code)) {
        (Some(name), Some(text)) => format!("{name} ({text})"),
        _ => format!("{code:#010x}"),
    }
}

/// The PNETID of an interface: by the table (with an asterisk), or its device's own.
pub(crate) fn pnetid(smc: &mut Smc, name: &str) -> Result<Option<String>, Error> {
    let Some(ifindex) = interface::index(name) else {
        return Err(Error::Refused(format!(
            "there is no {name} in this network namespace: 'ip link' lists those that are"
        )));
    };
    if let Some(pnet) = pnet_of(&table()?, name) {
        return Ok(Some(format!("{pnet}*")));
    }
    let devices = smc.devices()?;
    let mut ports = devices.iter().flat_map(|device| &device.ports);
    let own = ports.find(|port| port.ifindex == ifindex && !port.pnet_id.is_empty());
    Ok(own.map(|port| {
        format!(
            "{}{}",
            port.pnet_id,
            if port.pnet_by_user { "*" } else { "" }
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(address: &str, roce_v2: bool) -> Gid {
        Gid {
            address: address.parse().unwrap(),
            roce_v2,
        }
    }

    fn verdict(gids: &[Gid], source: Option<&str>) -> String {
        let mut report = Report::default();
        let source = source.map(|source| source.parse().unwrap());
        check_gids(&mut report, "rxe0 port 1", gids, source);
        report.text().split_whitespace().next().unwrap().to_owned()
    }

    #[test]
    fn an_ipv4_address_needs_its_gid() {
        let both = [gid("fe80::1", true), gid("10.9.0.1", true)];
        assert_eq!(verdict(&both, Some("10.9.0.1")), "ok");
        assert_eq!(verdict(&both, None), "ok");
        assert_eq!(verdict(&both, Some("10.9.0.9")), "failed");
        assert_eq!(verdict(&both, Some("fe80::1")), "note");
        assert_eq!(verdict(&both[..1], None), "failed");
        assert_eq!(verdict(&[], None), "failed");
        // SMC-Rv1 looks at the subnet.
        assert_eq!(verdict(&[gid("fe80::1", false)], Some("10.9.0.1")), "note");
    }

    #[test]
    fn gids_are_read_with_their_types() {
        let port = std::env::temp_dir().join(format!("smc-chk-gids-{}", std::process::id()));
        fs::create_dir_all(port.join("gids")).unwrap();
        fs::create_dir_all(port.join("gid_attrs/types")).unwrap();
        for (entry, address, kind) in [
            (
                "0",
                "0000:0000:0000:0000:0000:ffff:0a09:0001",
                Some("RoCE v2"),
            ),
            (
                "1",
                "fe80:0000:0000:0000:0000:0000:0000:0001",
                Some("IB/RoCE v1"),
            ),
            ("2", "0000:0000:0000:0000:0000:0000:0000:0000", None),
        ] {
            fs::write(port.join("gids").join(entry), format!("{address}\n")).unwrap();
            if let Some(kind) = kind {
                let file = port.join("gid_attrs/types").join(entry);
                fs::write(file, format!("{kind}\n")).unwrap();
            }
        }
        let mut got = gids_below(&port);
        got.sort_by_key(|gid| gid.address);
        assert_eq!(got, [gid("10.9.0.1", true), gid("fe80::1", false)]);
        fs::remove_dir_all(&port).unwrap();
        assert!(gids_below(&port).is_empty());
    }

    #[test]
    fn blocks_of_an_order_and_above_count() {
        let text = "Node 0, zone      DMA      1      0      2      3\n\
                    Node 0, zone   Normal    100     50      7      0\n";
        assert_eq!(free_blocks(text, 4096), 163);
        assert_eq!(free_blocks(text, 16384), 12);
        assert_eq!(free_blocks(text, 16385), 3);
        assert_eq!(free_blocks(text, 1 << 20), 0);
        assert_eq!(free_blocks("nonsense", 4096), 0);
    }

    #[test]
    fn ports_are_those_of_the_interface_and_of_its_network() {
        let device = |name: &str, ifindex, pnet: &str| Device {
            name: name.into(),
            links: 0,
            critical: false,
            pci: None,
            ports: vec![Port {
                number: 1,
                pnet_id: pnet.into(),
                pnet_by_user: true,
                ifindex,
                active: true,
                links: 0,
            }],
        };
        let devices = [
            device("own", 3, ""),
            device("same", 4, "NET1"),
            device("other", 5, "NET2"),
        ];
        let table = [pnet::Entry {
            name: "NET1".into(),
            ethernet: Some("eth0".into()),
            ..pnet::Entry::default()
        }];
        let names = |table: &[pnet::Entry]| -> Vec<String> {
            let ports = ports_for(&devices, table, "eth0", 3);
            ports
                .into_iter()
                .map(|(device, _)| device.name.clone())
                .collect()
        };
        assert_eq!(names(&table), ["same"]);
        assert_eq!(names(&[]), ["own"]);
        let lonely = [pnet::Entry {
            name: "NET3".into(),
            ..table[0].clone()
        }];
        let mut report = Report::default();
        for_interface(&mut report, &devices, &lonely, "eth0", 3, None);
        assert!(!report.is_good() && report.text().contains("smc_pnet -a NET3 -D"));
        let mut report = Report::default();
        for_interface(&mut report, &devices, &[], "eth9", 9, None);
        assert!(!report.is_good() && report.text().contains("netdev eth9"));
    }

    #[test]
    fn the_history_names_reasons() {
        let mut stats = Stats::default();
        assert_eq!(history_lines(&stats).len(), 1);
        stats.client_fallbacks = Fallbacks {
            total: 3,
            reasons: vec![(0x0301_0000, 2), (7, 1)],
        };
        assert_eq!(
            history_lines(&stats)[1],
            "fell back as the client: 3: 2 PEERNOSMC (peer did not indicate SMC), 1 0x00000007"
        );
    }
}
