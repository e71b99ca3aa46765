// SPDX-License-Identifier: GPL-2.0

//! The GID tables of RDMA ports: which addresses a port has.

use kernel::error::from_err_ptr;

use super::device::DeviceUse;
use crate::bindings;

/// How packets with an address travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GidKind {
    /// RoCE version 1: an Ethernet protocol of its own.
    RoceV1,
    /// RoCE version 2: UDP over IP. Addresses of IPv4 are given as `::ffff:a.b.c.d`.
    RoceV2,
    /// Anything else, such as InfiniBand proper.
    Other,
}

/// An entry of a port's GID table, at the time it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GidEntry {
    /// Position in the table.
    pub(crate) index: u8,
    /// The address.
    pub(crate) gid: [u8; 16],
    /// How packets with it travel.
    pub(crate) kind: GidKind,
    /// Index of the network device that the address belongs to, 0 if there is none. With VLANs or
    /// bonds it is that of the upper device.
    pub(crate) ifindex: i32,
    /// Ethernet address of that network device; zero if there is none.
    pub(crate) mac: [u8; 6],
    /// VLAN of that network device.
    pub(crate) vlan: Option<u16>,
}

impl GidEntry {
    /// Reads an entry; [`None`] if it is empty.
    pub(super) fn read(device: &DeviceUse, port: u32, index: u32) -> Option<Self> {
        const NO_VLAN: u16 = 0xffff;

        // SAFETY: The use keeps the device alive; the function checks port and index.
        let attr = from_err_ptr(unsafe {
            bindings::rdma_get_gid_attr(device.as_ptr(), port, i32::try_from(index).ok()?)
                .cast_mut()
        })
        .ok()?;
        let mut vlan = NO_VLAN;
        let mut mac = [0; 6];

        // SAFETY: `attr` is valid: the call above took a reference. The two out arguments have the
        // size that the function writes.
        let ret = unsafe { bindings::rdma_read_gid_l2_fields(attr, &mut vlan, mac.as_mut_ptr()) };
        if ret != 0 {
            vlan = NO_VLAN;
        }
        // SAFETY: `attr` is valid, see above.
        let ifindex = unsafe { bindings::gid_attr_ifindex(attr) };
        // SAFETY: `attr` is valid, see above; its GID and type do not change. All bytes of the
        // union are initialised.
        let (gid, gid_type) = unsafe { ((*attr).gid.raw, (*attr).gid_type) };
        // SAFETY: Gives back the reference taken above; `attr` is not used any more.
        unsafe { bindings::rdma_put_gid_attr(attr) };

        Some(Self {
            index: u8::try_from(index).ok()?,
            gid,
            kind: match gid_type {
                bindings::ib_gid_type_IB_GID_TYPE_ROCE => GidKind::RoceV1,
                bindings::ib_gid_type_IB_GID_TYPE_ROCE_UDP_ENCAP => GidKind::RoceV2,
                _ => GidKind::Other,
            },
            ifindex,
            mac,
            vlan: (vlan != NO_VLAN).then_some(vlan),
        })
    }
}
