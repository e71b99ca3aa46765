// SPDX-License-Identifier: GPL-2.0

//! `SMC_GEN_NETLINK`: what `smcr` and `smcd` ask for.
//!
//! A dump goes on behind the number of the last link group or device, so that nothing comes twice,
//! whatever comes and goes meanwhile. Link groups are those of the asker's namespace; devices those
//! that it may use.

use super::genl_abi::{
    self,
    command as cmd,
    GroupType,
    LinkState,
    Pci,
    SysInfo,
    V2Info, //
};
use crate::kapi::prelude::*;
use crate::{
    ib::{
        port::Port,
        verbs::device::Device, //
    },
    kapi::{
        genl::{
            Answer,
            Attribute,
            Command,
            Family,
            Part,
            Registration,
            Request, //
        },
        host,
        netns::Net, //
    },
    smc_core::{
        group::{
            GroupKind,
            LinkGroup, //
        },
        link::{
            self,
            Link,
            Slot, //
        },
        llc::flow::Role,
        namespace,
        pnet_table,
        registry::{
            self,
            Registry, //
        },
        stats::Stats,
        types::Gid,
        ueid::Refusal, //
    },
    sysctl::{
        BufferKind,
        Settings, //
    }, //
};
use kernel::{
    error::Result,
    str::CStr,
    sync::Arc, //
};

/// The family.
pub(crate) struct SmcGenl;

const NO_ATTRIBUTES: &[Attribute] = &[Attribute::Reject];
const UEID: &[Attribute] = &[Attribute::Text(32)];

/// What everybody may ask for.
const fn dump(number: u8) -> Command {
    Command {
        number,
        admin: false,
        executes: false,
        dumps: true,
        attributes: NO_ATTRIBUTES,
    }
}

/// What only an administrator may do.
const fn execute(number: u8, attributes: &'static [Attribute]) -> Command {
    Command {
        number,
        admin: true,
        executes: true,
        dumps: false,
        attributes,
    }
}

impl Family for SmcGenl {
    const NAME: &'static CStr = c"SMC_GEN_NETLINK";
    const VERSION: u8 = genl_abi::VERSION;
    const COMMANDS: &'static [Command] = &[
        dump(cmd::GET_SYS_INFO),
        dump(cmd::GET_LGR_SMCR),
        dump(cmd::GET_LINK_SMCR),
        dump(cmd::GET_LGR_SMCD),
        dump(cmd::GET_DEV_SMCD),
        dump(cmd::GET_DEV_SMCR),
        dump(cmd::GET_STATS),
        dump(cmd::GET_FBACK_STATS),
        dump(cmd::DUMP_UEID),
        execute(cmd::ADD_UEID, UEID),
        execute(cmd::REMOVE_UEID, UEID),
        execute(cmd::FLUSH_UEID, NO_ATTRIBUTES),
        dump(cmd::DUMP_SEID),
        execute(cmd::ENABLE_SEID, NO_ATTRIBUTES),
        execute(cmd::DISABLE_SEID, NO_ATTRIBUTES),
        dump(cmd::DUMP_HS_LIMITATION),
        execute(cmd::ENABLE_HS_LIMITATION, NO_ATTRIBUTES),
        execute(cmd::DISABLE_HS_LIMITATION, NO_ATTRIBUTES),
    ];
    const STRICT_FROM: u8 = cmd::DISABLE_HS_LIMITATION + 1;
    const STRICT: bool = true;

    fn execute(request: &Request<'_>, _answer: &mut Answer) -> Result {
        let net = request.net();
        let ueid =
            || genl_abi::requested_ueid(request.attribute(genl_abi::EID_TABLE_ENTRY)).ok_or(EINVAL);
        match request.command() {
            cmd::ADD_UEID => {
                let ueid = ueid()?;
                namespace::change_ueids(net, |table| table.add(ueid))?;
            }
            cmd::REMOVE_UEID => {
                let ueid = ueid()?;
                namespace::change_ueids(net, |table| table.remove(ueid))?;
            }
            cmd::FLUSH_UEID => namespace::change_ueids(net, |table| {
                table.flush();
                Ok::<(), Refusal>(())
            })?,
            cmd::ENABLE_HS_LIMITATION => Settings::of(net)?.limit_handshakes(true),
            cmd::DISABLE_HS_LIMITATION => Settings::of(net)?.limit_handshakes(false),
            // A system EID is there with SMC-D only.
            _ => return Err(EOPNOTSUPP),
        }
        Ok(())
    }

    fn dump(part: &mut Part<'_>) -> Result {
        let mut room = KVec::from_elem(0u8, genl_abi::LARGEST, GFP_KERNEL)?;
        match part.command() {
            cmd::GET_SYS_INFO => once(part, |part| {
                let info = SysInfo {
                    hostname: host::hostname(),
                };
                put(part, genl_abi::sys_info(&mut room, &info))
            }),
            cmd::GET_LGR_SMCR => groups(part, &mut room, false),
            cmd::GET_LINK_SMCR => groups(part, &mut room, true),
            cmd::GET_DEV_SMCR => devices(part, &mut room),
            cmd::GET_STATS => once(part, |part| {
                let stats = Stats::of(part.net()).ok_or(ENODEV)?;
                put(
                    part,
                    genl_abi::stats(&mut room, &|counter| stats.sum(counter)),
                )
            }),
            cmd::GET_FBACK_STATS => fallbacks(part, &mut room),
            cmd::DUMP_UEID => ueids(part, &mut room),
            cmd::DUMP_SEID => once(part, |part| put(part, genl_abi::seid(&mut room))),
            cmd::DUMP_HS_LIMITATION => once(part, |part| {
                let limited = Settings::of(part.net())?.limits_handshakes();
                put(part, genl_abi::hs_limitation(&mut room, limited))
            }),
            // SMC-D: there is none.
            _ => Ok(()),
        }
    }
}

fn put(part: &mut Part<'_>, message: Option<&[u8]>) -> Result {
    part.put(message.ok_or(EMSGSIZE)?)
}

/// A dump of one message.
fn once(part: &mut Part<'_>, put: impl FnOnce(&mut Part<'_>) -> Result) -> Result {
    if part.position() == [0; 3] {
        put(part)?;
        part.set_position([1, 0, 0]);
    }
    Ok(())
}

fn ueids(part: &mut Part<'_>, room: &mut [u8]) -> Result {
    let [done, ..] = part.position();
    let ueids = namespace::ueids(part.net());
    let rest = ueids.as_slice().iter().zip(1..).skip(done as usize);
    for (ueid, number) in rest {
        put(part, genl_abi::ueid(room, ueid))?;
        part.set_position([number, 0, 0]);
    }
    Ok(())
}

/// The link groups of the asker's namespace, each with its links if they are asked for.
fn groups(part: &mut Part<'_>, room: &mut [u8], links: bool) -> Result {
    let Some(registry) = registry::get() else {
        return Ok(());
    };
    loop {
        // The last group that is done; the next one, if it is begun, and how many of its links are done.
        let [after, begun, done] = part.position();
        let Some(group) = registry.group_after(part.net().cookie(), after as u32) else {
            return Ok(());
        };
        let number = u64::from(group.id());
        if begun != number {
            let message = describe_group(room, &group, part.net());
            put(part, message)?;
            if links {
                part.set_position([after, number, 0]);
            }
        }
        if links {
            let first = if begun == number { done } else { 0 };
            for slot in Slot::all().skip(first as usize) {
                if let Some(link) = group.link_at(slot) {
                    let message = describe_link(room, &group, &link, part.net());
                    put(part, message)?;
                }
                part.set_position([after, number, slot.index() as u64 + 1]);
            }
        }
        part.set_position([number, 0, 0]);
    }
}

fn describe_group<'a>(room: &'a mut [u8], group: &LinkGroup, net: &Net) -> Option<&'a [u8]> {
    let key = group.key();
    let (sndbuf_alloc, rmb_alloc) = group.pool().allocated();
    let limits = group.limits();
    let pnet_id = group
        .link()
        .and_then(|link| pnet_table::of_port(net, link.port()));
    let v2 = group.about().map(|about| V2Info {
        release: limits.release.value(),
        os: about.os.value(),
        eid: about.eid.0,
        peer_host: about.peer_host,
        direct: about.direct,
        max_conns: limits.max_conns,
        max_links: limits.max_links,
    });
    let message = genl_abi::Group {
        id: group.id(),
        server: key.role == Role::Server,
        kind: match group.kind() {
            GroupKind::Single => GroupType::Single,
            GroupKind::Symmetric => GroupType::Symmetric,
            GroupKind::AsymmetricPeer => GroupType::AsymmetricPeer,
            GroupKind::AsymmetricLocal => GroupType::AsymmetricLocal,
        },
        pnet_id: pnet_id.as_ref().map_or(&[], |id| id.as_bytes()),
        vlan: key.vlan.unwrap_or(0),
        conns: group.connections(),
        v2,
        net_cookie: key.net,
        buf_type: match group.buffer_kind() {
            BufferKind::Physical => 0,
            BufferKind::Virtual => 1,
            BufferKind::Mixed => 2,
        },
        sndbuf_alloc,
        rmb_alloc,
    };
    genl_abi::group(room, &message)
}

fn describe_link<'a>(
    room: &'a mut [u8],
    group: &LinkGroup,
    link: &Link,
    net: &Net,
) -> Option<&'a [u8]> {
    let port = link.port();
    let name = port.device.name();
    let message = genl_abi::Link {
        number: link.number().0,
        device: name.as_bytes(),
        // Port numbers of RDMA devices have 8 bits on the wire, too.
        port: port.number as u8,
        gid: &link.gid(),
        peer_gid: &link.far().map_or(Gid::ZERO, |far| far.gid),
        conns: group.connections_on(link),
        ifindex: ifindex(port, net),
        uid: group.link_user_id(link).0,
        peer_uid: link.peer_user_id().0,
        state: match link.state() {
            link::LinkState::Activating => LinkState::Activating,
            link::LinkState::Active => LinkState::Active,
            link::LinkState::Inactive => LinkState::Inactive,
        },
    };
    genl_abi::link(room, &message)
}

fn fallbacks(part: &mut Part<'_>, room: &mut [u8]) -> Result {
    let stats = Stats::of(part.net()).ok_or(ENODEV)?;
    loop {
        let [after, ..] = part.position();
        let Some(next) = stats.fallback_after(after) else {
            return Ok(());
        };
        let message = genl_abi::Fallbacks {
            server: next.role == Role::Server,
            totals: (after == 0).then(|| {
                let (client, server) = stats.fallback_totals();
                (server, client)
            }),
            reason: next.reason.0,
            count: next.count,
        };
        put(part, genl_abi::fallbacks(room, &message))?;
        part.set_position([next.key(), 0, 0]);
    }
}

/// Index of the network device behind a port; 0 if `net` does not have it.
fn ifindex(port: &Port, net: &Net) -> u32 {
    let netdev = port.device.netdev(port.number);
    let netdev = netdev.filter(|netdev| netdev.is_in(net));
    netdev.map_or(0, |netdev| netdev.ifindex() as u32)
}

/// The RDMA devices that the asker's namespace may use, but for those that carry no SMC-R.
fn devices(part: &mut Part<'_>, room: &mut [u8]) -> Result {
    let Some(registry) = registry::get() else {
        return Ok(());
    };
    loop {
        let [after, ..] = part.position();
        let Some(device) = registry.device_after(after) else {
            return Ok(());
        };
        let net = part.net();
        if !device.is_iwarp() && device.accessible_from(net) {
            let message = describe_device(room, &registry, &device, net);
            put(part, message)?;
        }
        part.set_position([device.number(), 0, 0]);
    }
}

fn describe_device<'a>(
    room: &'a mut [u8],
    registry: &Registry,
    device: &Arc<Device>,
    net: &Net,
) -> Option<&'a [u8]> {
    let cookie = net.cookie();
    let links = |port: Option<u32>| {
        registry.count_links(cookie, |link| {
            link.is_on(device) && port.is_none_or(|port| link.port().number == port)
        })
    };
    let mut pnet_ids = [None, None];
    for (place, port) in pnet_ids.iter_mut().zip(Port::all(device)) {
        *place = pnet_table::of_port(net, &port);
    }
    let mut ports = [None, None];
    for ((place, port), id) in ports.iter_mut().zip(Port::all(device)).zip(&pnet_ids) {
        *place = Some(genl_abi::Port {
            pnet_id: id.as_ref().map_or(&[], |id| id.as_bytes()),
            pnet_by_user: id.is_some(),
            ifindex: ifindex(&port, net),
            active: port.is_active(),
            links: links(Some(port.number)),
        });
    }
    let name = device.name();
    let all = links(None);
    let message = genl_abi::Device {
        name: name.as_bytes(),
        links: all,
        critical: registry.depends_on(cookie, device),
        pci: device.pci_function().map(|function| Pci {
            vendor: function.vendor,
            device: function.device,
            id: function.name,
        }),
        ports,
    };
    genl_abi::device(room, &message)
}

/// Answers `SMC_GEN_NETLINK`, until the result is dropped.
///
/// `None`, with a line in the log, if it cannot be: everything else works all the same.
pub(crate) fn register() -> Option<Registration<SmcGenl>> {
    Registration::new()
        .inspect_err(|err| pr_warn!("no generic netlink family SMC_GEN_NETLINK: {err:?}\n"))
        .ok()
}
