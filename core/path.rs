// SPDX-License-Identifier: GPL-2.0

//! Which RDMA port a TCP connection could use instead: found without configuration, by the network
//! device that its route leaves by.

use super::{
    ports,
    registry::Registry,
    types::Mtu, //
};
use crate::{
    clc::decline::DeclineReason,
    ib::{
        port::{
            gid_of_ipv4,
            Port, //
        },
        verbs::gid::{
            GidEntry,
            GidKind, //
        }, //
    },
    kapi::{
        clcsock::ClcSock,
        netns::Net, //
    }, //
};

/// A port, and its address for one connection.
#[derive(Clone)]
pub(crate) struct Path {
    /// The port.
    pub(crate) port: Port,
    /// The entry of its GID table for the connection's own IP address.
    pub(crate) gid: GidEntry,
    /// The MTU that the port allows.
    pub(crate) mtu: Mtu,
}

/// The path for the connection `clc` in namespace `net`.
///
/// # Errors
///
/// Why there is none.
pub(crate) fn find(registry: &Registry, net: &Net, clc: &ClcSock) -> Result<Path, DeclineReason> {
    let ifindex = clc.egress_ifindex().ok_or(DeclineReason::NOSMCRDEV)?;
    let own = clc
        .name(false)
        .map_err(|_| DeclineReason::CNFERR)?
        .ipv4()
        // SMC-Rv2 is for IPv4 only.
        .ok_or(DeclineReason::NOSMCRDEV)?;
    let gid = gid_of_ipv4(own);
    let mut found = None;
    let mut iwarp = None;
    registry.for_each_device(|device| {
        if found.is_some() || !device.accessible_from(net) {
            return;
        }
        found = Port::all(device).find_map(|port| {
            let netdev = device.netdev(port.number)?;
            // Indices are only unique in a namespace.
            if netdev.ifindex() != ifindex || !netdev.is_in(net) {
                return None;
            }
            if device.is_iwarp() {
                iwarp = Some(device.clone());
                return None;
            }
            if !port.is_active() {
                return None;
            }
            let entry = port.lookup_gid(GidKind::RoceV2, &gid)?;
            let mtu = Mtu::from_code(port.active_mtu()?)?;
            Some(Path {
                port,
                gid: entry,
                mtu,
            })
        });
    });
    if let (None, Some(iwarp)) = (&found, &iwarp) {
        ports::explain_fallback(iwarp);
    }
    found.ok_or(DeclineReason::NOSMCRDEV)
}
