// SPDX-License-Identifier: GPL-2.0

//! Ports of RDMA devices: their state, and the addresses to reach them by.

use kernel::sync::Arc;

use super::verbs::{
    device::Device,
    gid::{
        GidEntry,
        GidKind, //
    }, //
};

/// A port of a device.
#[derive(Clone)]
pub(crate) struct Port {
    /// The device.
    pub(crate) device: Arc<Device>,
    /// The port's number, from 1.
    pub(crate) number: u32,
}

impl Port {
    /// Names a port, which need not exist.
    pub(crate) fn new(device: &Arc<Device>, number: u32) -> Self {
        Self {
            device: device.clone(),
            number,
        }
    }

    /// All ports of a device.
    pub(crate) fn all(device: &Arc<Device>) -> impl Iterator<Item = Self> + '_ {
        (1..=device.port_count()).map(|number| Self::new(device, number))
    }

    /// Whether the port is up. May sleep, as all further methods.
    pub(crate) fn is_active(&self) -> bool {
        self.device
            .port_state(self.number)
            .is_some_and(|state| state.active)
    }

    /// The path MTU that the port allows (1: 256 bytes, 5: 4096 bytes).
    pub(crate) fn active_mtu(&self) -> Option<u8> {
        Some(self.device.port_state(self.number)?.active_mtu)
    }

    /// The port's own Ethernet address: that of its first GID.
    pub(crate) fn mac(&self) -> Option<[u8; 6]> {
        self.device.find_map_gid(self.number, |entry| {
            (entry.ifindex != 0).then_some(entry.mac)
        })
    }

    /// The first GID of a kind on a VLAN ([`None`]: no VLAN) for which `accept` is true.
    pub(crate) fn find_gid(
        &self,
        kind: GidKind,
        vlan: Option<u16>,
        mut accept: impl FnMut(&GidEntry) -> bool,
    ) -> Option<GidEntry> {
        self.find_map_gid(kind, |entry| {
            (entry.vlan == vlan && accept(entry)).then_some(*entry)
        })
    }

    /// The entry of a given GID.
    pub(crate) fn lookup_gid(&self, kind: GidKind, gid: &[u8; 16]) -> Option<GidEntry> {
        self.find_map_gid(kind, |entry| (entry.gid == *gid).then_some(*entry))
    }

    fn find_map_gid(
        &self,
        kind: GidKind,
        mut f: impl FnMut(&GidEntry) -> Option<GidEntry>,
    ) -> Option<GidEntry> {
        // The table may have a thousand entries: not to be read for what cannot be there.
        if !self.device.supports(self.number, kind) {
            return None;
        }
        self.device.find_map_gid(self.number, |entry| {
            if entry.kind == kind {
                f(entry)
            } else {
                None
            }
        })
    }
}

/// The GID of an IPv4 address (in network byte order).
pub(crate) fn gid_of_ipv4(addr: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = addr;

    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
