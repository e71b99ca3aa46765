// SPDX-License-Identifier: GPL-2.0

//! The Accept and Confirm messages: each side's part of the connection.
//!
//! ```text
//! v1: header (8) | endpoint (56) | trailer (4)
//! v2: header (8) | endpoint (56) | EID (40) | first contact (52) | GIDs (4 + 16n) | trailer (4)
//!                                             `-- at first contact   `-- of a Confirm
//! ```

#![forbid(unsafe_code)]

use zerocopy::{
    network_endian::{
        U32,
        U64, //
    },
    FromBytes, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use crate::smc_core::{
    error::{
        EmitError,
        Fault,
        MessageKind,
        WireError, //
    },
    types::{
        AlertToken,
        BufSizeCode,
        Eid,
        Gid,
        Mac,
        Mtu,
        PeerId,
        Psn24,
        Qpn24,
        RKey,
        RmbeIndex, //
    },
};

use super::{
    first_contact::FirstContact,
    Emitter,
    Flavours,
    Header,
    Version,
    FLAG_F_OR_S,
    HEADER_LEN,
    TRAILER_LEN, //
};

/// Most GIDs that a Confirm of the peer may list (SMC-Rv2). Linux lists one or two.
pub const MAX_GIDS: usize = 8;

const V1_LEN: usize = HEADER_LEN + size_of::<RawEndpoint>() + TRAILER_LEN;
const V2_LEN: usize = V1_LEN + size_of::<RawV2>();
const V2_FIRST_LEN: usize = V2_LEN + FirstContact::LEN;
const CONFIRM_FIRST_LEN: usize = V2_FIRST_LEN + size_of::<RawGids>();
const CONFIRM_MAX_LEN: usize = CONFIRM_FIRST_LEN + size_of::<[Gid; MAX_GIDS]>();

/// The shortest is that of SMC-D in version 1 (SMC-Rv2).
pub(super) const ACCEPT_LEN_BOUNDS: (u16, u16) = (48, V2_FIRST_LEN as u16);
pub(super) const CONFIRM_LEN_BOUNDS: (u16, u16) = (48, CONFIRM_MAX_LEN as u16);

const _: () = {
    // RFC 7609, sections A.2.3 and A.2.4.
    assert!(V1_LEN == 68);
    // SMC-Rv2.
    assert!(V2_LEN == 108 && V2_FIRST_LEN == 160 && CONFIRM_FIRST_LEN == 164);
};

/// Bytes 8 to 63 (RFC 7609, sections A.2.3 and A.2.4).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEndpoint {
    peer_id: PeerId,
    gid: Gid,
    mac: Mac,
    qpn: [u8; 3],
    rkey: U32,
    rmbe_index: u8,
    alert_token: U32,
    /// Size of the RMB element in the high four bits, MTU in the low ones.
    size_mtu: u8,
    reserved: u8,
    rmb_address: U64,
    reserved2: u8,
    psn: [u8; 3],
}

/// Bytes 64 to 103 of version 2 (SMC-Rv2).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawV2 {
    eid: Eid,
    reserved: [u8; 8],
}

/// Head of the list of GIDs in a Confirm (SMC-Rv2).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawGids {
    count: u8,
    reserved: [u8; 3],
}

/// One side's part of a connection: its queue pair and its RMB element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RdmaEndpoint {
    /// Whose it is.
    pub peer_id: PeerId,
    /// GID of the port.
    pub gid: Gid,
    /// MAC address of the port.
    pub mac: Mac,
    /// The queue pair.
    pub qpn: Qpn24,
    /// Key of the RMB.
    pub rkey: RKey,
    /// The element of the RMB that is for this connection.
    pub rmbe_index: RmbeIndex,
    /// Names the connection in CDC messages to this side.
    pub alert_token: AlertToken,
    /// Size of each element of the RMB.
    pub rmbe_size: BufSizeCode,
    /// MTU of the queue pair; `None` stands for a reserved code.
    ///
    /// RFC 7609, section A.2.3: only valid in the first contact exchange, so a reserved code is no
    /// error of later messages.
    pub qp_mtu: Option<Mtu>,
    /// Address of the RMB, as the device of its owner understands it.
    pub rmb_address: u64,
    /// First packet sequence number that this side sends.
    pub psn: Psn24,
}

impl RdmaEndpoint {
    /// Address of the element that is for this connection.
    ///
    /// `None` if element and address space do not fit; never for an endpoint that has been parsed.
    pub fn rmbe_address(&self) -> Option<u64> {
        let size = u64::from(self.rmbe_size.bytes());
        let start = size
            .checked_mul(u64::from(self.rmbe_index.elements_before()))?
            .checked_add(self.rmb_address)?;
        // The last byte of the element must have an address too.
        start.checked_add(size)?;
        Some(start)
    }

    fn from_raw(raw: &RawEndpoint, kind: MessageKind) -> Result<Self, WireError> {
        let error = |offset, field| WireError::new(kind, offset, Fault::Field(field));
        let endpoint = Self {
            peer_id: raw.peer_id,
            gid: raw.gid,
            mac: raw.mac,
            qpn: Qpn24::from_be_bytes(raw.qpn),
            rkey: RKey(raw.rkey.get()),
            // RFC 7609, section 2.1: 1 to 255.
            rmbe_index: RmbeIndex::new(raw.rmbe_index).ok_or(error(45, "RMB element index"))?,
            alert_token: AlertToken(raw.alert_token.get()),
            rmbe_size: BufSizeCode::from_nibble(raw.size_mtu >> 4),
            qp_mtu: Mtu::from_code(raw.size_mtu & 0x0f),
            rmb_address: raw.rmb_address.get(),
            psn: Psn24::from_be_bytes(raw.psn),
        };
        // RFC 7609, section A.2.3: the number of a reliably connected queue pair.
        if !endpoint.qpn.is_connectable() {
            return Err(error(38, "queue pair number"));
        }
        // Addresses for RDMA writes are computed from these three; they must not wrap around.
        endpoint.rmbe_address().ok_or(error(52, "RMB address"))?;
        Ok(endpoint)
    }

    fn to_raw(self) -> RawEndpoint {
        RawEndpoint {
            peer_id: self.peer_id,
            gid: self.gid,
            mac: self.mac,
            qpn: self.qpn.to_be_bytes(),
            rkey: U32::new(self.rkey.0),
            rmbe_index: self.rmbe_index.value(),
            alert_token: U32::new(self.alert_token.0),
            size_mtu: (self.rmbe_size.code() << 4) | self.qp_mtu.map_or(0, Mtu::code),
            reserved: 0,
            rmb_address: U64::new(self.rmb_address),
            reserved2: 0,
            psn: self.psn.to_be_bytes(),
        }
    }
}

/// An Accept: the server's part of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The server's queue pair and buffer.
    pub endpoint: RdmaEndpoint,
    /// What depends on the version.
    pub body: AcceptBody,
}

/// The version that the server chose, and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptBody {
    /// RFC 7609.
    V1 {
        /// The server makes a new link group (RFC 7609, section A.2.3, F-bit).
        first_contact: bool,
    },
    /// SMC-Rv2.
    V2 {
        /// The enterprise ID, one out of the Proposal.
        eid: Eid,
        /// Present if the server makes a new link group.
        first_contact: Option<FirstContact>,
    },
}

impl Accept {
    /// The version of the message.
    pub const fn version(&self) -> Version {
        match self.body {
            AcceptBody::V1 { .. } => Version::V1,
            AcceptBody::V2 { .. } => Version::V2,
        }
    }

    /// Whether the server makes a new link group.
    pub const fn is_first_contact(&self) -> bool {
        match self.body {
            AcceptBody::V1 { first_contact } => first_contact,
            AcceptBody::V2 { first_contact, .. } => first_contact.is_some(),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// Any violation of the format. [`Fault::Ism`] for an Accept of SMC-D, whose other fields are
    /// not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let (header, endpoint, rest) = open(bytes, MessageKind::Accept)?;
        let error = |offset, fault| WireError::new(MessageKind::Accept, offset, fault);
        // RFC 7609, section A.2.3: the MTU should be validated in the first contact exchange.
        if header.f_or_s() && endpoint.qp_mtu.is_none() {
            return Err(error(50, Fault::Field("MTU")));
        }
        let (body, rest) = if header.version == Version::V1 {
            let first_contact = header.f_or_s();
            (AcceptBody::V1 { first_contact }, rest)
        } else {
            let (eid, rest) = parse_eid(rest, MessageKind::Accept)?;
            let (first_contact, rest) = if header.f_or_s() {
                let (first_contact, rest) = FirstContact::parse(rest, MessageKind::Accept)?;
                (Some(first_contact), rest)
            } else {
                (None, rest)
            };
            (AcceptBody::V2 { eid, first_contact }, rest)
        };
        // RFC 7609, section A.2.3: 68 bytes. SMC-Rv2: 108 or 160.
        if !rest.is_empty() {
            return Err(error(5, Fault::Length));
        }
        Ok(Self { endpoint, body })
    }

    /// Writes the message and returns its length in bytes: 68, 108 or 160.
    ///
    /// # Errors
    ///
    /// [`EmitError::Space`] if `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, EmitError> {
        let length = match self.body {
            AcceptBody::V1 { .. } => V1_LEN,
            AcceptBody::V2 {
                first_contact: None,
                ..
            } => V2_LEN,
            AcceptBody::V2 { .. } => V2_FIRST_LEN,
        };
        let mut message = Emitter::start(
            out,
            length,
            MessageKind::Accept,
            self.version(),
            first_contact_flag(self.is_first_contact()),
        )?;
        message.put(&self.endpoint.to_raw())?;
        if let AcceptBody::V2 { eid, first_contact } = self.body {
            let reserved = [0; 8];
            message.put(&RawV2 { eid, reserved })?;
            if let Some(first_contact) = first_contact {
                first_contact.emit(&mut message)?;
            }
        }
        message.finish()
    }
}

/// A Confirm: the client's part of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm<'a> {
    /// The client's queue pair and buffer.
    pub endpoint: RdmaEndpoint,
    /// What depends on the version.
    pub body: ConfirmBody<'a>,
}

/// The version that the server chose, and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmBody<'a> {
    /// RFC 7609.
    V1 {
        /// The client makes a new link group. RFC 7609, section A.2.4 has no such flag in the
        /// Confirm; Linux peers set it, and nobody may rely on it.
        first_contact: bool,
    },
    /// SMC-Rv2.
    V2 {
        /// The enterprise ID of the Accept.
        eid: Eid,
        /// Present if the client makes a new link group.
        first_contact: Option<ConfirmFirstContact<'a>>,
    },
}

/// First contact extension of a Confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmFirstContact<'a> {
    /// What the Accept has as well.
    pub common: FirstContact,
    /// GIDs that the client could use for links of the group, at most [`MAX_GIDS`].
    pub gids: &'a [Gid],
}

impl<'a> Confirm<'a> {
    /// The version of the message.
    pub const fn version(&self) -> Version {
        match self.body {
            ConfirmBody::V1 { .. } => Version::V1,
            ConfirmBody::V2 { .. } => Version::V2,
        }
    }

    /// GIDs that the client could use for links; only at first contact of version 2.
    pub const fn gids(&self) -> &'a [Gid] {
        match self.body {
            ConfirmBody::V2 {
                first_contact: Some(first_contact),
                ..
            } => first_contact.gids,
            _ => &[],
        }
    }

    /// Whether the client makes a new link group; of version 1 only a hint.
    pub const fn is_first_contact(&self) -> bool {
        match self.body {
            ConfirmBody::V1 { first_contact } => first_contact,
            ConfirmBody::V2 { first_contact, .. } => first_contact.is_some(),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// Any violation of the format. [`Fault::Ism`] for a Confirm of SMC-D, whose other fields are
    /// not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, endpoint, rest) = open(bytes, MessageKind::Confirm)?;
        let error = |offset, fault| WireError::new(MessageKind::Confirm, offset, fault);
        let (body, rest) = if header.version == Version::V1 {
            let first_contact = header.f_or_s();
            (ConfirmBody::V1 { first_contact }, rest)
        } else {
            let (eid, rest) = parse_eid(rest, MessageKind::Confirm)?;
            let (first_contact, rest) = if header.f_or_s() {
                // RFC 7609, section A.2.4: the MTU should be validated in the first contact
                // exchange.
                if endpoint.qp_mtu.is_none() {
                    return Err(error(50, Fault::Field("MTU")));
                }
                let (common, rest) = FirstContact::parse(rest, MessageKind::Confirm)?;
                // SMC-Rv2: then the GIDs.
                let (head, rest) =
                    RawGids::ref_from_prefix(rest).map_err(|_| error(156, Fault::Length))?;
                let count = usize::from(head.count);
                if count > MAX_GIDS {
                    return Err(error(156, Fault::Count));
                }
                let (gids, rest) = <[Gid]>::ref_from_prefix_with_elems(rest, count)
                    .map_err(|_| error(160, Fault::Length))?;
                (Some(ConfirmFirstContact { common, gids }), rest)
            } else {
                (None, rest)
            };
            (ConfirmBody::V2 { eid, first_contact }, rest)
        };
        // RFC 7609, section A.2.4: 68 bytes. SMC-Rv2: 108, or 164 and the GIDs.
        if !rest.is_empty() {
            return Err(error(5, Fault::Length));
        }
        Ok(Self { endpoint, body })
    }

    /// Writes the message and returns its length in bytes: 68, 108, or 164 and 16 for each GID.
    ///
    /// # Errors
    ///
    /// [`EmitError::TooMany`] for more than [`MAX_GIDS`] GIDs, [`EmitError::Space`] if `out` is too
    /// small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, EmitError> {
        let length = match self.body {
            ConfirmBody::V1 { .. } => V1_LEN,
            ConfirmBody::V2 {
                first_contact: None,
                ..
            } => V2_LEN,
            ConfirmBody::V2 {
                first_contact: Some(first_contact),
                ..
            } => {
                if first_contact.gids.len() > MAX_GIDS {
                    return Err(EmitError::TooMany);
                }
                CONFIRM_FIRST_LEN.saturating_add(size_of_val(first_contact.gids))
            }
        };
        let mut message = Emitter::start(
            out,
            length,
            MessageKind::Confirm,
            self.version(),
            first_contact_flag(self.is_first_contact()),
        )?;
        message.put(&self.endpoint.to_raw())?;
        if let ConfirmBody::V2 { eid, first_contact } = &self.body {
            let (eid, reserved) = (*eid, [0; 8]);
            message.put(&RawV2 { eid, reserved })?;
            if let Some(first_contact) = first_contact {
                first_contact.common.emit(&mut message)?;
                message.put(&RawGids {
                    count: u8::try_from(first_contact.gids.len())
                        .map_err(|_| EmitError::TooMany)?,
                    reserved: [0; 3],
                })?;
                message.put(first_contact.gids)?;
            }
        }
        message.finish()
    }
}

/// What Accept and Confirm have in common: header, endpoint, and the bytes up to the trailer.
fn open(bytes: &[u8], kind: MessageKind) -> Result<(Header, RdmaEndpoint, &[u8]), WireError> {
    let (header, body) = super::open(bytes, kind)?;
    let error = |offset, fault| WireError::new(kind, offset, fault);
    // RFC 7609, section A.2: the lower version of the two peers, so never above ours.
    if header.version > Version::V2 {
        return Err(error(7, Fault::Version));
    }
    // SMC-Rv2: exactly one flavour has been chosen.
    match header.v1_flavours() {
        Flavours {
            rdma: true,
            ism: false,
        } => {}
        Flavours {
            rdma: false,
            ism: true,
        } => return Err(error(7, Fault::Ism)),
        _ => return Err(error(7, Fault::Field("flavour"))),
    }
    let (raw, rest) = RawEndpoint::ref_from_prefix(body).map_err(|_| error(5, Fault::Length))?;
    Ok((header, RdmaEndpoint::from_raw(raw, kind)?, rest))
}

fn parse_eid(bytes: &[u8], kind: MessageKind) -> Result<(Eid, &[u8]), WireError> {
    let (raw, rest) =
        RawV2::ref_from_prefix(bytes).map_err(|_| WireError::new(kind, 64, Fault::Length))?;
    Ok((raw.eid, rest))
}

const fn first_contact_flag(first_contact: bool) -> u8 {
    if first_contact {
        FLAG_F_OR_S
    } else {
        0
    }
}
