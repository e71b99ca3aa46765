// SPDX-License-Identifier: GPL-2.0

//! Which RDMA port a TCP connection could use instead: found without configuration, by the network
//! device that its route leaves by; or, where an administrator has given that device a PNETID, by that.

use super::{
    link::Link,
    llc::wire::LlcVersion,
    pnet::PnetId,
    pnet_table,
    ports,
    registry::Registry,
    types::{
        Gid,
        Mac,
        Mtu, //
    }, //
};
use crate::{
    clc::{
        decline::DeclineReason,
        negotiate::{
            Ipv4Address,
            Ipv6Address,
            LocalNetworks, //
        }, //
    },
    ib::{
        port::{
            gid_of_ipv4,
            Port, //
        },
        verbs::{
            device::Device,
            gid::{
                GidEntry,
                GidKind, //
            }, //
        }, //
    },
    kapi::{
        clcsock::{
            ClcSock,
            NameOf,
            NextHop, //
        },
        netaddr,
        netns::Net, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Addresses of an interface that are looked at; more of them are not.
const MAX_ADDRESSES: usize = 64;

/// A port, and its address for one connection.
#[derive(Clone)]
pub(crate) struct Path {
    /// The port.
    pub(crate) port: Port,
    /// The entry of its GID table.
    pub(crate) gid: GidEntry,
    /// The MTU that the port allows.
    pub(crate) mtu: Mtu,
    /// The gateway that the way to the peer leads through: as the route was when the path was found, for good.
    pub(crate) gateway: Option<Mac>,
}

/// What a connection could use: at most one port, with an address for each version.
pub(crate) struct Paths {
    v1: Option<Path>,
    v2: Option<Path>,
    own_ipv4: Option<[u8; 4]>,
    networks: Networks,
}

/// Addresses of the connection's interface, of the family that the connection is over.
enum Networks {
    V4(KVec<Ipv4Address>),
    V6(KVec<Ipv6Address>),
}

impl Paths {
    /// The path for a version.
    pub(crate) fn of(&self, version: LlcVersion) -> Option<&Path> {
        match version {
            LlcVersion::V1 => self.v1.as_ref(),
            LlcVersion::V2 => self.v2.as_ref(),
        }
    }

    /// The connection's own address, if it is over IPv4.
    pub(crate) fn own_ipv4(&self) -> Option<[u8; 4]> {
        self.own_ipv4
    }

    /// Where the connection's interface is attached.
    pub(crate) fn networks(&self) -> LocalNetworks<'_> {
        match &self.networks {
            Networks::V4(addresses) => LocalNetworks::V4(addresses),
            Networks::V6(addresses) => LocalNetworks::V6(addresses),
        }
    }

    /// Looks at a port, whose network device has index `ifindex`; false if it has nothing to use.
    ///
    /// If `other`, that is not the connection's own. SMC-Rv2 goes by way of `hop`.
    fn take(
        &mut self,
        port: &Port,
        ifindex: i32,
        vlan: Option<u16>,
        other: bool,
        hop: NextHop,
    ) -> bool {
        let Some(mtu) = port.active_mtu().and_then(Mtu::from_code) else {
            return false;
        };
        let path = |gid: GidEntry, gateway: Option<Mac>| Path {
            port: port.clone(),
            gid,
            mtu,
            gateway,
        };
        let (reached, gateway) = match hop {
            NextHop::Peer => (true, None),
            NextHop::Gateway(mac) => (true, Some(Mac(mac))),
            NextHop::Unknown => (false, None),
        };
        // SMC-Rv2 is for IPv4 only, and uses the connection's own address.
        self.v2 = self
            .own_ipv4
            .filter(|_| reached)
            .and_then(|own| {
                let own = gid_of_ipv4(own);
                let own = port.find_gid(GidKind::RoceV2, vlan, |entry| entry.gid == own);
                // The peer has to be reached from there without a gateway, too.
                own.or_else(|| {
                    let near = |entry: &GidEntry| {
                        entry.ifindex == ifindex && self.networks.contain(&entry.gid)
                    };
                    other.then(|| port.find_gid(GidKind::RoceV2, vlan, near))?
                })
            })
            .map(|gid| path(gid, gateway));
        // RoCEv1 has no IP header, so that any address of the port will do. The first one stays for
        // as long as the network device, and is what other implementations use, too. No gateway passes it on.
        self.v1 = port
            .find_gid(GidKind::RoceV1, vlan, |entry| entry.ifindex == ifindex)
            .map(|gid| path(gid, None));
        self.v1.is_some() || self.v2.is_some()
    }
}

impl Networks {
    /// Is the IPv4 address of a GID in one of them?
    fn contain(&self, gid: &[u8; 16]) -> bool {
        let (Some(address), Self::V4(networks)) = (Gid(*gid).as_ipv4(), self) else {
            return false;
        };
        let address = u32::from_be_bytes(address);
        networks.iter().any(|network| {
            let hosts = 32u32.saturating_sub(network.prefix_len.into());
            let differ = address ^ u32::from_be_bytes(network.addr);
            differ.checked_shr(hosts).unwrap_or(0) == 0
        })
    }

    /// Are both addresses in one of them?
    fn join(&self, one: &Gid, other: &Gid) -> bool {
        let (Some(one), Some(other), Self::V4(networks)) = (one.as_ipv4(), other.as_ipv4(), self)
        else {
            return false;
        };
        networks.iter().any(|network| {
            let hosts = 32u32.saturating_sub(network.prefix_len.into());
            let net = |address| u32::from_be_bytes(address).checked_shr(hosts).unwrap_or(0);
            net(network.addr) == net(one) && net(network.addr) == net(other)
        })
    }

    fn read(net: &Net, ifindex: i32, over_ipv4: bool) -> Result<Self> {
        // Room first: the addresses are read under RCU.
        if over_ipv4 {
            let mut all = KVec::with_capacity(MAX_ADDRESSES, GFP_KERNEL)?;
            netaddr::for_each_ipv4(net, ifindex, |found| {
                all.push_within_capacity(Ipv4Address {
                    addr: found.network,
                    prefix_len: found.prefix_len,
                })
                .is_ok()
            });
            return Ok(Self::V4(all));
        }
        let mut all = KVec::with_capacity(MAX_ADDRESSES, GFP_KERNEL)?;
        netaddr::for_each_ipv6(net, ifindex, |found| {
            all.push_within_capacity(Ipv6Address {
                addr: found.addr,
                prefix_len: found.prefix_len,
            })
            .is_ok()
        });
        Ok(Self::V6(all))
    }
}

/// A port for another link beside `link`, for a group of namespace `net`: one that an administrator has
/// given the same PNETID, and that is not `taken`. Its address is in one network with the peer's address
/// `near`, if `strict`; else it is better if it is. May sleep.
pub(crate) fn alternative(
    registry: &Registry,
    net: &Net,
    link: &Link,
    near: &Gid,
    strict: bool,
    taken: impl Fn(&Port) -> bool,
) -> Option<Path> {
    if link.is_routed() {
        // For another port the way to the peer's other ports is not known.
        return None;
    }
    let wanted = pnet_table::of_port(net, link.port())?;
    let vlan = link.vlan();
    let kind = link.gid_kind();
    let mut best = None;
    registry.for_each_device(|device: &Arc<Device>| {
        if best.is_some() || device.is_iwarp() || !device.accessible_from(net) {
            return;
        }
        best = Port::all(device).find_map(|port| {
            if taken(&port) || pnet_table::of_port(net, &port).as_ref() != Some(&wanted) {
                return None;
            }
            let netdev = device.netdev(port.number)?;
            if !netdev.is_in(net) || !port.is_active() {
                return None;
            }
            let mtu = port.active_mtu().and_then(Mtu::from_code)?;
            let ifindex = netdev.ifindex();
            // In the same VLAN, whose network device is one above that of the port.
            let of_netdev = |entry: &GidEntry| vlan.is_some() || entry.ifindex == ifindex;
            let gid = match kind {
                // SMC-Rv2 is for IPv4 only, and the peer has to be reached without a gateway.
                GidKind::RoceV2 => {
                    let joined = port.find_gid(kind, vlan, |entry| {
                        of_netdev(entry)
                            && Networks::read(net, entry.ifindex, true)
                                .is_ok_and(|networks| networks.join(&Gid(entry.gid), near))
                    });
                    let any =
                        |entry: &GidEntry| of_netdev(entry) && Gid(entry.gid).as_ipv4().is_some();
                    joined.or_else(|| (!strict).then(|| port.find_gid(kind, vlan, any))?)
                }
                _ => port.find_gid(kind, vlan, of_netdev),
            }?;
            Some(Path {
                port,
                gid,
                mtu,
                gateway: None,
            })
        });
    });
    best
}

/// The paths for the connection `clc` in namespace `net`; there may be none. May sleep.
///
/// # Errors
///
/// Why nothing can be told.
pub(crate) fn find(registry: &Registry, net: &Net, clc: &ClcSock) -> Result<Paths, DeclineReason> {
    let ifindex = clc.egress_ifindex().ok_or(DeclineReason::NOSMCRDEV)?;
    let own_ipv4 = clc
        .name(NameOf::Own)
        .map_err(|_| DeclineReason::CNFERR)?
        .ipv4();
    let networks =
        Networks::read(net, ifindex, own_ipv4.is_some()).map_err(|_| DeclineReason::MEM)?;
    let mut paths = Paths {
        v1: None,
        v2: None,
        own_ipv4,
        networks,
    };
    // An RDMA port belongs to the network device below that of a VLAN, and has the addresses of both.
    let (base, vlan) = netaddr::base_device(net, ifindex);
    let id_of = |ifindex| -> Option<PnetId> {
        let name = netaddr::device_name(net, ifindex)?;
        let len = name.iter().position(|&byte| byte == 0)?;
        pnet_table::of_netdev(net, name.get(..len)?)
    };
    let wanted = id_of(ifindex).or_else(|| id_of(base));
    let hop = clc.next_hop();
    let mut found = false;
    let mut iwarp = None;
    registry.for_each_device(|device: &Arc<Device>| {
        if found || !device.accessible_from(net) {
            return;
        }
        found = Port::all(device).any(|port| {
            let Some(netdev) = device.netdev(port.number) else {
                return false;
            };
            // Indices are only unique in a namespace.
            let own = netdev.ifindex() == base && netdev.is_in(net);
            let chosen = match &wanted {
                Some(id) => {
                    netdev.is_in(net) && pnet_table::of_port(net, &port).as_ref() == Some(id)
                }
                None => own,
            };
            if !chosen {
                return false;
            }
            if device.is_iwarp() {
                iwarp = Some(device.clone());
                return false;
            }
            if !own && (vlan.is_some() || hop != NextHop::Peer) {
                // Which of its addresses, and by which gateway, only the route could tell.
                return false;
            }
            let ifindex = if own { ifindex } else { netdev.ifindex() };
            port.is_active() && paths.take(&port, ifindex, vlan, !own, hop)
        });
    });
    if let (false, Some(iwarp)) = (found, &iwarp) {
        ports::explain_fallback(iwarp);
    }
    Ok(paths)
}
