// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `SMC_GEN_NETLINK`, as `linux/smc.h` lays it out for user space.
//!
//! Every message begins with a `struct genlmsghdr` of four bytes; see [`nla`](super::nla) for the
//! attributes behind it.

#![forbid(unsafe_code)]

use super::nla::Writer;
use crate::smc_core::{
    counter::{
        self,
        Buffers,
        Calls,
        Counter, //
    },
    types::Ueid, //
};
use core::fmt::{
    self,
    Write, //
};

/// Version of both families.
pub const VERSION: u8 = 1;

/// Commands of `SMC_GEN_NETLINK`.
pub mod command {
    /// `SMC_NETLINK_GET_SYS_INFO`.
    pub const GET_SYS_INFO: u8 = 1;
    /// `SMC_NETLINK_GET_LGR_SMCR`.
    pub const GET_LGR_SMCR: u8 = 2;
    /// `SMC_NETLINK_GET_LINK_SMCR`: link groups with their links.
    pub const GET_LINK_SMCR: u8 = 3;
    /// `SMC_NETLINK_GET_LGR_SMCD`: always empty here.
    pub const GET_LGR_SMCD: u8 = 4;
    /// `SMC_NETLINK_GET_DEV_SMCD`: always empty here.
    pub const GET_DEV_SMCD: u8 = 5;
    /// `SMC_NETLINK_GET_DEV_SMCR`.
    pub const GET_DEV_SMCR: u8 = 6;
    /// `SMC_NETLINK_GET_STATS`.
    pub const GET_STATS: u8 = 7;
    /// `SMC_NETLINK_GET_FBACK_STATS`.
    pub const GET_FBACK_STATS: u8 = 8;
    /// `SMC_NETLINK_DUMP_UEID`.
    pub const DUMP_UEID: u8 = 9;
    /// `SMC_NETLINK_ADD_UEID`.
    pub const ADD_UEID: u8 = 10;
    /// `SMC_NETLINK_REMOVE_UEID`.
    pub const REMOVE_UEID: u8 = 11;
    /// `SMC_NETLINK_FLUSH_UEID`.
    pub const FLUSH_UEID: u8 = 12;
    /// `SMC_NETLINK_DUMP_SEID`.
    pub const DUMP_SEID: u8 = 13;
    /// `SMC_NETLINK_ENABLE_SEID`.
    pub const ENABLE_SEID: u8 = 14;
    /// `SMC_NETLINK_DISABLE_SEID`.
    pub const DISABLE_SEID: u8 = 15;
    /// `SMC_NETLINK_DUMP_HS_LIMITATION`.
    pub const DUMP_HS_LIMITATION: u8 = 16;
    /// `SMC_NETLINK_ENABLE_HS_LIMITATION`.
    pub const ENABLE_HS_LIMITATION: u8 = 17;
    /// `SMC_NETLINK_DISABLE_HS_LIMITATION`.
    pub const DISABLE_HS_LIMITATION: u8 = 18;
}

/// `SMC_NLA_EID_TABLE_ENTRY`: the ID in a request, 32 characters and a terminating zero.
pub const EID_TABLE_ENTRY: u16 = 1;

// Outermost attributes, named SMC_GEN_* in C; what is in them follows in the order of its numbers.
const SYS_INFO: u16 = 1;
const LGR_SMCR: u16 = 2;
const LINK_SMCR: u16 = 3;
const DEV_SMCR: u16 = 6;
const STATS: u16 = 7;
const FBACK_STATS: u16 = 8;

/// Most bytes of a message here, its header and attributes.
pub const LARGEST: usize = 4096;

/// Begins a message.
pub fn begin(buffer: &mut [u8], command: u8) -> Writer<'_> {
    let mut writer = Writer::new(buffer);
    writer.header(&[command, VERSION, 0, 0]);
    writer
}

/// What the host is.
pub struct SysInfo {
    /// Name of the host, padded with blanks.
    pub hostname: [u8; 32],
}

/// Answer to [`command::GET_SYS_INFO`].
pub fn sys_info<'a>(buffer: &'a mut [u8], info: &SysInfo) -> Option<&'a [u8]> {
    const VER: u16 = 1;
    const REL: u16 = 2;
    const IS_ISM_V2: u16 = 3;
    const LOCAL_HOST: u16 = 4;
    const IS_SMCR_V2: u16 = 6;
    let mut writer = begin(buffer, command::GET_SYS_INFO);
    writer.nest(SYS_INFO, |w| {
        w.u8(VER, 2);
        w.u8(REL, 1);
        w.u8(IS_ISM_V2, 0);
        w.text(LOCAL_HOST, &info.hostname);
        w.u8(IS_SMCR_V2, 1);
    });
    writer.finish()
}

/// What the peers of a link group have told each other when it began (SMC-Rv2).
#[derive(Clone, Copy, Debug)]
pub struct V2Info {
    /// Release of version 2.
    pub release: u8,
    /// What the peer runs on.
    pub os: u8,
    /// The enterprise ID that both have.
    pub eid: [u8; 32],
    /// Name of the peer's host, padded with blanks.
    pub peer_host: [u8; 32],
    /// The peer is reached without a gateway.
    pub direct: bool,
    /// Most connections.
    pub max_conns: u8,
    /// Most links.
    pub max_links: u8,
}

/// `enum smc_lgr_type`: how much the loss of a link costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GroupType {
    /// There is no link.
    None = 0,
    /// There is one link.
    Single = 1,
    /// There are links with no end in common.
    Symmetric = 2,
    /// There are links on one port of the peer's.
    AsymmetricPeer = 3,
    /// There are links on one port of ours.
    AsymmetricLocal = 4,
}

/// A link group.
pub struct Group<'a> {
    /// Its number on this host.
    pub id: u32,
    /// We are the server.
    pub server: bool,
    /// Its redundancy.
    pub kind: GroupType,
    /// Physical network of its port; can be empty.
    pub pnet_id: &'a [u8],
    /// VLAN, 0 for none.
    pub vlan: u16,
    /// Connections.
    pub conns: u32,
    /// With version 2.
    pub v2: Option<V2Info>,
    /// Cookie of its network namespace.
    pub net_cookie: u64,
    /// What rings are made of: 0 physically contiguous memory, 1 virtually, 2 whatever there is.
    pub buf_type: u8,
    /// Bytes of send buffers, also of those that wait for a connection.
    pub sndbuf_alloc: u64,
    /// Bytes of RMBs, likewise.
    pub rmb_alloc: u64,
}

/// A message about a link group; also of [`command::GET_LINK_SMCR`], before those about its links.
pub fn group<'a>(buffer: &'a mut [u8], group: &Group<'_>) -> Option<&'a [u8]> {
    const ID: u16 = 1;
    const ROLE: u16 = 2;
    const TYPE: u16 = 3;
    const PNETID: u16 = 4;
    const VLAN_ID: u16 = 5;
    const CONNS_NUM: u16 = 6;
    const V2_COMMON: u16 = 7;
    const R_V2: u16 = 8;
    const NET_COOKIE: u16 = 9;
    const BUF_TYPE: u16 = 11;
    const SNDBUF_ALLOC: u16 = 12;
    const RMB_ALLOC: u16 = 13;
    // SMC_NLA_LGR_V2_*: these begin with 0.
    const VER: u16 = 0;
    const REL: u16 = 1;
    const OS: u16 = 2;
    const NEG_EID: u16 = 3;
    const PEER_HOST: u16 = 4;
    // SMC_NLA_LGR_R_V2_*.
    const DIRECT: u16 = 1;
    const MAX_CONNS: u16 = 2;
    const MAX_LINKS: u16 = 3;
    let mut writer = begin(buffer, command::GET_LGR_SMCR);
    writer.nest(LGR_SMCR, |w| {
        w.u32(ID, group.id);
        w.u32(CONNS_NUM, group.conns);
        w.u8(ROLE, u8::from(group.server));
        w.u8(TYPE, group.kind as u8);
        w.u8(BUF_TYPE, group.buf_type);
        // The field has 8 bits.
        w.u8(VLAN_ID, group.vlan as u8);
        w.u64(NET_COOKIE, group.net_cookie);
        w.text(PNETID, group.pnet_id);
        w.uint(SNDBUF_ALLOC, group.sndbuf_alloc);
        w.uint(RMB_ALLOC, group.rmb_alloc);
        if let Some(v2) = &group.v2 {
            w.nest(V2_COMMON, |w| {
                w.u8(VER, 2);
                w.u8(REL, v2.release);
                w.u8(OS, v2.os);
                w.text(PEER_HOST, &v2.peer_host);
                w.text(NEG_EID, &v2.eid);
            });
            w.nest(R_V2, |w| {
                w.u8(DIRECT, u8::from(v2.direct));
                w.u8(MAX_CONNS, v2.max_conns);
                w.u8(MAX_LINKS, v2.max_links);
            });
        }
    });
    writer.finish()
}

/// `enum smc_link_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LinkState {
    /// Not used any more.
    Inactive = 1,
    /// Being made.
    Activating = 2,
    /// In use.
    Active = 3,
}

/// A link.
pub struct Link<'a> {
    /// Its number in the group.
    pub number: u8,
    /// The RDMA device.
    pub device: &'a [u8],
    /// Port of the device, from 1.
    pub port: u8,
    /// Our GID.
    pub gid: &'a dyn fmt::Display,
    /// The peer's GID.
    pub peer_gid: &'a dyn fmt::Display,
    /// Connections on it.
    pub conns: u32,
    /// Index of the network device behind the port; 0 if it is in another namespace.
    pub ifindex: u32,
    /// Its name for us.
    pub uid: u32,
    /// Its name for the peer.
    pub peer_uid: u32,
    /// How far it is.
    pub state: LinkState,
}

/// A message about a link.
pub fn link<'a>(buffer: &'a mut [u8], link: &Link<'_>) -> Option<&'a [u8]> {
    const ID: u16 = 1;
    const IB_DEV: u16 = 2;
    const IB_PORT: u16 = 3;
    const GID: u16 = 4;
    const PEER_GID: u16 = 5;
    const CONN_CNT: u16 = 6;
    const NET_DEV: u16 = 7;
    const UID: u16 = 8;
    const PEER_UID: u16 = 9;
    const STATE: u16 = 10;
    let mut writer = begin(buffer, command::GET_LINK_SMCR);
    writer.nest(LINK_SMCR, |w| {
        w.u8(ID, link.number);
        w.u32(STATE, link.state as u32);
        w.u32(CONN_CNT, link.conns);
        w.u8(IB_PORT, link.port);
        w.u32(NET_DEV, link.ifindex);
        w.text(IB_DEV, link.device);
        // As on the wire.
        w.u32(UID, link.uid.to_be());
        w.u32(PEER_UID, link.peer_uid.to_be());
        w.text(GID, Text::of(link.gid).as_bytes());
        w.text(PEER_GID, Text::of(link.peer_gid).as_bytes());
    });
    writer.finish()
}

/// The PCI function of an RDMA device.
#[derive(Clone, Copy, Debug)]
pub struct Pci {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Where it is (`0000:00:00.0`), ended by a zero.
    pub id: [u8; 16],
}

/// A port of an RDMA device.
#[derive(Clone, Copy, Debug)]
pub struct Port<'a> {
    /// Physical network; can be empty.
    pub pnet_id: &'a [u8],
    /// An administrator has given that.
    pub pnet_by_user: bool,
    /// Index of the network device behind it; 0 if it is in another namespace.
    pub ifindex: u32,
    /// The port is up.
    pub active: bool,
    /// Links on it.
    pub links: u32,
}

/// An RDMA device.
pub struct Device<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Links on it.
    pub links: u32,
    /// Link groups would end with it.
    pub critical: bool,
    /// If it is a PCI device.
    pub pci: Option<Pci>,
    /// Its first two ports; the ABI knows no more.
    pub ports: [Option<Port<'a>>; 2],
}

/// A message about an RDMA device.
pub fn device<'a>(buffer: &'a mut [u8], device: &Device<'_>) -> Option<&'a [u8]> {
    const USE_CNT: u16 = 1;
    const IS_CRIT: u16 = 2;
    const PCI_FID: u16 = 3;
    const PCI_CHID: u16 = 4;
    const PCI_VENDOR: u16 = 5;
    const PCI_DEVICE: u16 = 6;
    const PCI_ID: u16 = 7;
    const PORTS: [u16; 2] = [8, 9];
    const IB_NAME: u16 = 10;
    // SMC_NLA_DEV_PORT_*.
    const PNET_USR: u16 = 1;
    const PNETID: u16 = 2;
    const NETDEV: u16 = 3;
    const STATE: u16 = 4;
    const VALID: u16 = 5;
    const LNK_CNT: u16 = 6;
    let mut writer = begin(buffer, command::GET_DEV_SMCR);
    writer.nest(DEV_SMCR, |w| {
        w.u8(IS_CRIT, u8::from(device.critical));
        if let Some(pci) = &device.pci {
            // Numbers of s390: elsewhere there are none.
            w.u32(PCI_FID, 0);
            w.u16(PCI_CHID, 0);
            w.u16(PCI_VENDOR, pci.vendor);
            w.u16(PCI_DEVICE, pci.device);
            w.text(PCI_ID, &pci.id);
        }
        w.text(IB_NAME, device.name);
        w.u32(USE_CNT, device.links);
        for (kind, port) in PORTS.into_iter().zip(&device.ports) {
            let Some(port) = port else { continue };
            w.nest(kind, |w| {
                w.u8(PNET_USR, u8::from(port.pnet_by_user));
                w.text(PNETID, port.pnet_id);
                w.u32(NETDEV, port.ifindex);
                w.u8(VALID, 1);
                w.u8(STATE, u8::from(port.active));
                w.u32(LNK_CNT, port.links);
            });
        }
    });
    writer.finish()
}

/// Answer to [`command::GET_STATS`]; `sum` gives the value of a counter.
pub fn stats<'a>(buffer: &'a mut [u8], sum: &dyn Fn(Counter) -> u64) -> Option<&'a [u8]> {
    const SMCD_TECH: u16 = 1;
    const SMCR_TECH: u16 = 2;
    const CLNT_HS_ERR_CNT: u16 = 3;
    const SRV_HS_ERR_CNT: u16 = 4;
    let mut writer = begin(buffer, command::GET_STATS);
    writer.nest(STATS, |w| {
        // There is no SMC-D.
        w.nest(SMCD_TECH, |w| technology(w, &|_| 0));
        w.nest(SMCR_TECH, |w| technology(w, sum));
        w.u64(CLNT_HS_ERR_CNT, sum(counter::CLIENT_FAILED));
        w.u64(SRV_HS_ERR_CNT, sum(counter::SERVER_FAILED));
    });
    writer.finish()
}

/// What is in `SMC_NLA_STATS_SMCR_TECH`.
fn technology(w: &mut Writer<'_>, sum: &dyn Fn(Counter) -> u64) {
    const TX_RMB_SIZE: u16 = 1;
    const RX_RMB_SIZE: u16 = 2;
    const TXPLOAD_SIZE: u16 = 3;
    const RXPLOAD_SIZE: u16 = 4;
    const TX_RMB_STATS: u16 = 5;
    const RX_RMB_STATS: u16 = 6;
    const CLNT_V1_SUCC: u16 = 7;
    const CLNT_V2_SUCC: u16 = 8;
    const SRV_V1_SUCC: u16 = 9;
    const SRV_V2_SUCC: u16 = 10;
    const SENDPAGE_CNT: u16 = 11;
    const SPLICE_CNT: u16 = 12;
    const CORK_CNT: u16 = 13;
    const NDLY_CNT: u16 = 14;
    const URG_DATA_CNT: u16 = 15;
    const RX_BYTES: u16 = 16;
    const TX_BYTES: u16 = 17;
    const RX_CNT: u16 = 18;
    const TX_CNT: u16 = 19;
    const RX_RMB_USAGE: u16 = 20;
    const TX_RMB_USAGE: u16 = 21;
    let [tx_buffers, rx_buffers] = [&counter::TX_BUFFERS, &counter::RX_BUFFERS];
    let [tx_calls, rx_calls] = [&counter::TX_CALLS, &counter::RX_CALLS];
    sizes(w, TX_RMB_SIZE, tx_buffers.sizes, sum);
    sizes(w, RX_RMB_SIZE, rx_buffers.sizes, sum);
    sizes(w, TXPLOAD_SIZE, tx_calls.sizes, sum);
    sizes(w, RXPLOAD_SIZE, rx_calls.sizes, sum);
    buffers(w, TX_RMB_STATS, tx_buffers, sum);
    buffers(w, RX_RMB_STATS, rx_buffers, sum);
    w.u64(CLNT_V1_SUCC, sum(counter::CLIENT_V1));
    w.u64(CLNT_V2_SUCC, sum(counter::CLIENT_V2));
    w.u64(SRV_V1_SUCC, sum(counter::SERVER_V1));
    w.u64(SRV_V2_SUCC, sum(counter::SERVER_V2));
    // The kernel has no such call any more.
    w.u64(SENDPAGE_CNT, 0);
    w.u64(SPLICE_CNT, sum(counter::SPLICES));
    w.u64(CORK_CNT, sum(counter::CORKS));
    w.u64(NDLY_CNT, sum(counter::NODELAYS));
    w.u64(URG_DATA_CNT, sum(counter::URGENT));
    let moved = |calls: &Calls| (sum(calls.bytes), sum(calls.calls));
    let [(tx_bytes, tx_count), (rx_bytes, rx_count)] = [moved(tx_calls), moved(rx_calls)];
    w.u64(RX_BYTES, rx_bytes);
    w.u64(TX_BYTES, tx_bytes);
    w.u64(RX_CNT, rx_count);
    w.u64(TX_CNT, tx_count);
    w.uint(RX_RMB_USAGE, sum(rx_buffers.usage));
    w.uint(TX_RMB_USAGE, sum(tx_buffers.usage));
}

/// A counter for each size.
fn sizes(w: &mut Writer<'_>, kind: u16, sizes: counter::Sizes, sum: &dyn Fn(Counter) -> u64) {
    w.nest(kind, |w| {
        for (counter, number) in sizes.all().zip(1..) {
            w.u64(number, sum(counter));
        }
    });
}

fn buffers(w: &mut Writer<'_>, kind: u16, buffers: &Buffers, sum: &dyn Fn(Counter) -> u64) {
    const SIZE_SM_PEER: u16 = 1;
    const SIZE_SM: u16 = 2;
    const FULL_PEER: u16 = 3;
    const FULL: u16 = 4;
    const REUSE: u16 = 5;
    const ALLOC: u16 = 6;
    const DGRADE: u16 = 7;
    w.nest(kind, |w| {
        w.u64(SIZE_SM_PEER, sum(buffers.small_for_peer));
        w.u64(SIZE_SM, sum(buffers.small));
        w.u64(FULL_PEER, sum(buffers.peer_full));
        w.u64(FULL, sum(buffers.full));
        w.u64(REUSE, sum(buffers.reused));
        w.u64(ALLOC, sum(buffers.allocated));
        w.u64(DGRADE, sum(buffers.downgraded));
    });
}

/// Fallbacks with one reason, on one side.
#[derive(Clone, Copy, Debug)]
pub struct Fallbacks {
    /// As the server.
    pub server: bool,
    /// All fallbacks, as the server and as the client: in the first message only.
    pub totals: Option<(u64, u64)>,
    /// The reason.
    pub reason: u32,
    /// How often.
    pub count: u64,
}

/// A message of [`command::GET_FBACK_STATS`].
pub fn fallbacks<'a>(buffer: &'a mut [u8], fallbacks: &Fallbacks) -> Option<&'a [u8]> {
    const TYPE: u16 = 1;
    const SRV_CNT: u16 = 2;
    const CLNT_CNT: u16 = 3;
    const RSN_CODE: u16 = 4;
    const RSN_CNT: u16 = 5;
    let mut writer = begin(buffer, command::GET_FBACK_STATS);
    writer.nest(FBACK_STATS, |w| {
        w.u8(TYPE, u8::from(fallbacks.server));
        if let Some((server, client)) = fallbacks.totals {
            w.u64(SRV_CNT, server);
            w.u64(CLNT_CNT, client);
        }
        w.u32(RSN_CODE, fallbacks.reason);
        // The field has 16 bits.
        w.u16(RSN_CNT, u16::try_from(fallbacks.count).unwrap_or(u16::MAX));
    });
    writer.finish()
}

/// A message about an enterprise ID of [`command::DUMP_UEID`].
pub fn ueid<'a>(buffer: &'a mut [u8], ueid: &Ueid) -> Option<&'a [u8]> {
    let mut writer = begin(buffer, command::DUMP_UEID);
    writer.text(EID_TABLE_ENTRY, ueid.as_bytes());
    writer.finish()
}

/// The enterprise ID in a request, if it has one: to be checked, but of the right size.
pub fn requested_ueid(value: Option<&[u8]>) -> Option<[u8; 32]> {
    let (name, _zero) = value?.split_last_chunk::<1>()?;
    name.try_into().ok()
}

/// Answer to [`command::DUMP_SEID`]: there is no system EID without SMC-D.
pub fn seid(buffer: &mut [u8]) -> Option<&[u8]> {
    begin(buffer, command::DUMP_SEID).finish()
}

/// Answer to [`command::DUMP_HS_LIMITATION`].
pub fn hs_limitation(buffer: &mut [u8], limited: bool) -> Option<&[u8]> {
    const ENABLED: u16 = 1;
    let mut writer = begin(buffer, command::DUMP_HS_LIMITATION);
    writer.u8(ENABLED, u8::from(limited));
    writer.finish()
}

/// A GID as text.
struct Text {
    bytes: [u8; 40],
    len: usize,
}

impl Text {
    fn of(value: &dyn fmt::Display) -> Self {
        let mut text = Self {
            bytes: [0; 40],
            len: 0,
        };
        // What is too long is cut off.
        let _ = write!(text, "{value}");
        text
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for byte in part.bytes() {
            *self.bytes.get_mut(self.len).ok_or(fmt::Error)? = byte;
            self.len = self.len.saturating_add(1);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "genl_abi_tests.rs"]
mod tests;
