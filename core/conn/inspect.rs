// SPDX-License-Identifier: GPL-2.0

//! What is told about an SMC-R connection to those who look at it from outside.

use super::Conn;
use crate::{
    ib::verbs::device::DeviceName,
    rx_tx::conn::View,
    smc_core::{
        llc::flow::Role,
        types::{
            Gid,
            LinkNumber, //
        }, //
    }, //
};

/// A connection at one moment.
pub(crate) struct Inspection {
    /// Our alert token.
    pub(crate) token: u32,
    /// Bytes of our send buffer; 0 when it was given back.
    pub(crate) sndbuf_len: u32,
    /// Bytes of our RMB; 0 when it was given back.
    pub(crate) rmb_len: u32,
    /// Cursors and flags, all of the same moment; `None` before the peer's part is known.
    pub(crate) flow: Option<View>,
    /// The link, as long as its group is in use.
    pub(crate) link: Option<LinkInspection>,
}

/// The link of a connection.
pub(crate) struct LinkInspection {
    /// Its number in the group.
    pub(crate) number: LinkNumber,
    /// The RDMA device.
    pub(crate) device: DeviceName,
    /// Port of the device, from 1.
    pub(crate) port: u32,
    /// Our GID.
    pub(crate) gid: Gid,
    /// The peer's.
    pub(crate) peer_gid: Gid,
    /// Which side of the group we are.
    pub(crate) role: Role,
}

impl Conn {
    /// The connection as it is now. Process context, no locks held.
    pub(crate) fn inspect(&self) -> Inspection {
        let (place, flow, sndbuf_len) = {
            let data = self.data.lock();
            let flow = data.flow.as_ref();
            let sndbuf_len = flow.map_or(self.sndbuf.0, |flow| flow.tx.sndbuf_len());
            (data.place.clone(), flow.map(|flow| flow.view()), sndbuf_len)
        };
        let link = place.as_ref().and_then(|place| {
            let group = &place.group;
            let link = &place.link;
            group.is_usable().then(|| LinkInspection {
                number: link.number(),
                device: link.port().device.name(),
                port: link.port().number,
                gid: link.gid(),
                peer_gid: link.far().map_or(Gid::ZERO, |far| far.gid),
                role: group.key().role,
            })
        });
        Inspection {
            token: self.token,
            sndbuf_len: place.as_ref().map_or(0, |_| sndbuf_len),
            rmb_len: place.as_ref().map_or(0, |place| place.rmb_ring().len()),
            flow,
            link,
        }
    }
}
